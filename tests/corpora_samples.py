"""Small samples of each corpus, written in its published layout."""

import gzip
import io
import json
import pathlib

import numpy as np
from PIL import Image

FLICKR = ["1000092795", "10002456", "1000268201"]


def photo(path: pathlib.Path, seed: int, size=(48, 36), **options) -> pathlib.Path:
    """A smooth picture, another one for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels(seed, size).save(path, **options)
    return path


def pixels(seed: int, size=(48, 36)) -> Image.Image:
    rough = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC)


def put(path: pathlib.Path, content, packed: bool = False) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    if packed:
        path = path.with_name(f"{path.name}.gz")
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def lines(rows) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def karpathy(name: str, rows) -> dict:
    images = [
        {"imgid": n, "split": split, "sentences": [{"raw": text} for text in texts], **other}
        for n, (split, texts, other) in enumerate(rows)
    ]
    return {"images": images, "dataset": name}


def conceptual_captions(raw):
    rows = ["a dog on the beach\thttp://a.org/1.jpg", "two cats\thttp://a.org/2.jpg"]
    put(raw / "Train_GCC-training.tsv", lines(rows))
    put(raw / "Validation_GCC-1.1.0-Validation.tsv", lines(["a ship\thttp://a.org/3.jpg"]), True)
    photo(raw / "training/00000000.jpg", 0)
    photo(raw / "training/00000001.jpg", 1)
    photo(raw / "validation/3383250", 2, format="JPEG")  # CRC-32 of its address


def sbu(raw):
    urls = [f"http://static.flickr.com/2723/{number}_b0f291553e.jpg" for number in FLICKR[:2]]
    put(raw / "SBU_captioned_photo_dataset_urls.txt", lines(urls))
    put(raw / "SBU_captioned_photo_dataset_captions.txt", lines(["A boy .", "The sea ."]))
    for seed, number in enumerate(FLICKR[:2]):
        photo(raw / f"images/{number}_b0f291553e.jpg", seed)


def visual_genome(raw):
    images = [
        {"image_id": 1, "width": 48, "height": 36, "url": "x", "coco_id": None, "flickr_id": None},
        {"image_id": 2, "width": 48, "height": 36, "coco_id": 7, "flickr_id": int(FLICKR[0])},
    ]
    region = {"region_id": 1, "x": 12, "y": 9, "width": 24, "height": 18, "phrase": "a red car"}
    edge = {"region_id": 2, "x": -4, "y": 0, "width": 28, "height": 72, "phrase": "the street"}
    upside = {"region_id": 3, "x": 4, "y": 5, "width": -2, "height": 3, "phrase": "nothing"}
    put(raw / "image_data.json", images)
    put(
        raw / "region_descriptions.json",
        [{"id": 1, "regions": [region, edge, upside]}, {"id": 2, "regions": [region]}],
    )
    thing = {"object_id": 5, "x": 0, "y": 0, "w": 24, "h": 36, "names": ["car"]}
    put(raw / "objects.json", [{"image_id": 1, "objects": [thing]}])
    put(
        raw / "attributes.json",
        [{"image_id": 1, "attributes": [{**thing, "attributes": ["red", "old"]}]}],
    )
    photo(raw / "VG_100K/1.jpg", 1)
    photo(raw / "VG_100K_2/2.jpg", 2)


def coco_captions(raw):
    rows = [
        ("train", 1, "train2014"),
        ("restval", 2, "val2014"),
        ("val", 3, "val2014"),
        ("test", 7, "val2014"),
    ]
    named = [
        (split, [f"caption {n}", " second  one "], {
            "cocoid": n, "filepath": part, "filename": f"COCO_{part}_{n:012d}.jpg",
        })
        for split, n, part in rows
    ]  # fmt: skip
    put(raw / "dataset_coco.json", karpathy("coco", named))
    for _, number, part in rows:
        photo(raw / f"{part}/COCO_{part}_{number:012d}.jpg", number)


def coco_annotations(raw, split="val2017"):
    url = f"http://farm3.staticflickr.com/2548/{FLICKR[0]}_a5d4f2b0.jpg"
    image = {"file_name": "000000000007.jpg", "id": 7, "height": 36, "width": 48, "flickr_url": url}
    captions = [{"image_id": 7, "id": n, "caption": f"A plane {n}."} for n in range(5)]
    put(raw / f"annotations/captions_{split}.json", {"images": [image], "annotations": captions})
    photo(raw / split / "000000000007.jpg", 7)


def localized_narratives(raw):
    row = {"dataset_id": "mscoco_val2017", "annotator_id": 3, "timed_caption": [], "traces": []}
    rows = [{**row, "image_id": "7", "caption": f"In this image {n}"} for n in range(2)]
    put(raw / "coco_val_localized_narratives.jsonl", lines(rows))
    for shard in range(2):
        row = {"dataset_id": "open_images", "image_id": f"{shard:016x}", "caption": "A tree."}
        name = f"open_images_train_v6_localized_narratives-{shard:05d}-of-00002.jsonl"
        put(raw / name, lines([row]))
        photo(raw / f"train/{shard:016x}.jpg", shard)
    photo(raw / "val2017/000000000007.jpg", 7)


ENTITIES = """<annotation><filename>{name}.jpg</filename>
<size><width>48</width><height>36</height><depth>3</depth></size>
<object><name>1</name><bndbox><xmin>12</xmin><ymin>9</ymin><xmax>36</xmax><ymax>27</ymax></bndbox>
</object><object><name>2</name><scene>1</scene><nobndbox>0</nobndbox></object>
<object><name>1</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>3</xmax><ymax>27</ymax></bndbox>
</object></annotation>"""


def flickr30k(raw):
    tokens = [f"{name}.jpg#{n}\tTwo men {n} ." for name in FLICKR[:2] for n in range(5)]
    put(raw / "results_20130124.token", lines(tokens))
    put(raw / "train.txt", lines(FLICKR[:1]))
    put(raw / "test.txt", lines(FLICKR[1:2]))
    put(raw / f"Annotations/{FLICKR[0]}.xml", ENTITIES.format(name=FLICKR[0]))
    phrases = ["[/EN#1/people Two men] on [/EN#2/scene a street] .", "[/EN#1/people Two men] ."]
    put(raw / f"Sentences/{FLICKR[0]}.txt", lines(phrases))
    for seed, name in enumerate(FLICKR[:2]):
        photo(raw / f"flickr30k-images/{name}.jpg", seed)


def flickr8k(raw):
    names = [f"{name}_693b08cb0e" for name in FLICKR]
    tokens = [f"{name}.jpg#{n}\tA child {n} ." for name in names for n in range(5)]
    put(raw / "Flickr8k.token.txt", lines([*tokens, f"{names[0]}.jpg.1#0\tA stray line ."]))
    for split, name in zip(("train", "dev", "test"), names, strict=True):
        put(raw / f"Flickr_8k.{split}Images.txt", f"{name}.jpg\n")
        photo(raw / f"Flicker8k_Dataset/{name}.jpg", len(split))


def vqav2(raw):
    asked = [{"image_id": 7, "question_id": 7000 + n, "question": f"What {n}?"} for n in range(2)]
    put(raw / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": asked})
    rows = [
        {
            "question_id": row["question_id"],
            "answer_type": "other",
            "multiple_choice_answer": "cat",
            "answers": [{"answer": text} for text in ["cat"] * 8 + ["dog"] * 2],
        }
        for row in asked
    ]
    put(raw / "v2_mscoco_val2014_annotations.json", {"annotations": rows})
    photo(raw / "val2014/COCO_val2014_000000000007.jpg", 7)


def gqa(raw):
    row = {"imageId": "2", "question": "Is it red?", "answer": "yes"}
    questions = {f"0{n}": {**row, "types": {"structural": "verify"}} for n in range(2)}
    put(raw / "questions1.2/testdev_balanced_questions.json", questions)
    photo(raw / "images/2.jpg", 2)


def nlvr2(raw):
    rows = [
        {"identifier": f"train-{n}-0-0", "sentence": "Both are dogs.", "label": "True"}
        | {"directory": n + 48}
        for n in (10, 11)
    ]
    put(raw / "train.json", lines(rows))
    for group in (10, 11):
        for side in (0, 1):
            photo(raw / f"images/train/{group + 48}/train-{group}-0-img{side}.png", group + side)


def snli_ve(raw):
    rows = [
        {"gold_label": label, "pairID": f"{n}", "Flickr30K_ID": FLICKR[0], "sentence2": "A man."}
        for n, label in enumerate(["entailment", "neutral"])
    ]
    put(raw / "snli_ve_dev.jsonl", lines(rows))
    photo(raw / f"flickr30k-images/{FLICKR[0]}.jpg", 0)


def svo_probes(raw):
    header = "sentence,pos_triplet,neg_triplet,pos_url,neg_url,pos_image_id,neg_image_id"
    row = '"A girl, standing","girl,stand,grass","girl,sit,grass",u,v,1,2,False,True,False'
    put(raw / "svo_probes.csv", f"{header},subj_neg,verb_neg,obj_neg\n{row}\n")
    photo(raw / "images/1.jpg", 1)
    photo(raw / "images/2.jpg", 2)


WRITERS = {
    writer.__name__: writer
    for writer in (
        conceptual_captions,
        sbu,
        visual_genome,
        coco_captions,
        localized_narratives,
        flickr30k,
        flickr8k,
        vqav2,
        gqa,
        nlvr2,
        snli_ve,
        svo_probes,
    )
}


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """The picture as it is after having been saved."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)
