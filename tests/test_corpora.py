"""Readers of published corpora, photo hashes, and what damaged files do to them."""

import gzip
import json
import pathlib

import corpora_samples as samples
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from mmt_jax.errors import UsageError
from mmt_jax.ingest import corpora
from mmt_jax.ingest.corpora import base, builder, examples, hashes, published
from mmt_jax.photos import pictures

COCO = pathlib.Path(__file__).parents[2] / "shared" / "data" / "coco_val2017" / "images"


def entries(name, raw):
    corpus, source = corpora.get(name), base.Raw(raw)
    return {split: list(corpus.entries(source, split)) for split in corpus.splits(source)}


@pytest.mark.parametrize("name", list(samples.WRITERS))
def test_an_example_says_on_which_line_or_entry_of_its_file_it_stands(name, tmp_path):
    samples.WRITERS[name](tmp_path)
    found = [entry for listed in entries(name, tmp_path).values() for entry in listed]
    items = [entry for entry in found if isinstance(entry, base.Item)]
    assert items
    for item in items:
        path, _, entry = item.where.partition(", entry ")
        if entry:
            content = json.loads(pathlib.Path(path).read_text())
            lists = [content] if name not in ("coco_captions", "vqav2") else content.values()
            assert 0 <= int(entry) < max(map(len, lists))
        else:
            path, line = path.rsplit(":", 1)
            assert 1 <= int(line) <= len(pathlib.Path(path).read_bytes().splitlines())


# ---- Hashes --------------------------------------------------------------------------------------


def ramp(values) -> np.ndarray:
    """[16, 18, 3] uint8 whose columns have these nine grey values, two columns each."""
    row = np.repeat(np.asarray(values, np.uint8), 2)
    return np.broadcast_to(row[None, :, None], (16, 18, 3)).copy()


def test_hash_of_pictures_that_grow_brighter_or_darker():
    assert hashes.dhash(ramp(range(0, 180, 20))) == 2**64 - 1
    assert hashes.dhash(ramp(range(180, 0, -20))) == 0
    # Brighter once, darker once, …: 10101010 in each of the eight rows.
    assert hashes.dhash(ramp([0, 200] * 4 + [0])) == int("10101010" * 8, 2)


def copies(picture: Image.Image):
    """The same photo as other people pass it on."""
    for quality in (30, 60, 95):
        yield samples.jpeg(picture, quality)
    for scale in (0.3, 0.5, 1.5):
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        yield samples.jpeg(picture.resize(size, Image.Resampling.BICUBIC), 75)
    yield picture.resize((224, 224), Image.Resampling.BILINEAR)
    yield picture.convert("L")


def check_distances(photos: list[Image.Image]) -> None:
    own = np.array([hashes.dhash(np.asarray(photo)) for photo in photos], np.uint64)
    for number, photo in enumerate(photos):
        for copy in copies(photo):
            distance = np.bitwise_count(
                own ^ np.uint64(hashes.dhash(np.asarray(copy.convert("RGB"))))
            )
            assert distance[number] <= hashes.THRESHOLD
            assert (np.delete(distance, number) > hashes.THRESHOLD).all()


def test_copies_are_near_and_other_photos_far():
    check_distances([samples.pixels(seed, (320, 240)) for seed in range(8)])


@pytest.mark.slow
@pytest.mark.skipif(not COCO.is_dir(), reason="the photos are not here")
def test_copies_of_real_photos_are_near():
    paths = sorted(COCO.glob("*.jpg"))[:15]
    check_distances([Image.fromarray(pictures.read(path)) for path in paths])


def test_exclusion_finds_ids_and_near_hashes(tmp_path):
    near = 0x0F1E2D3C4B5A6978 ^ 0b111111  # six bits off
    path = samples.put(tmp_path / "ids.txt", "coco:7\n\ndhash:0f1e2d3c4b5a6978\nflickr:12\n")
    exclusion = hashes.load([path])
    assert exclusion.by_id(("vg:1", "coco:7")) == f"coco:7 is in {path}"
    assert exclusion.by_id(("vg:7", "coco:70")) is None
    assert exclusion.by_hash(near) == f"6 bits from {path}:3"
    assert exclusion.by_hash(near ^ 0b1000000) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("coco:7\n391895\n", r"ids\.txt:2: '391895' is no id"),
        ("dhash:12\n", r"ids\.txt:1: a hash has 16"),
        ("", r"names no photo"),
    ],
)
def test_files_of_ids_that_are_none(tmp_path, content, message):
    with pytest.raises(UsageError, match=message):
        hashes.load([samples.put(tmp_path / "ids.txt", content)])


# ---- Small parts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "ids"),
    [
        ("http://farm3.staticflickr.com/2548/3715786136_a5d4f2b0c1.jpg", ("flickr:3715786136",)),
        ("http://static.flickr.com/2723/4385058960_b0f291553e.jpg", ("flickr:4385058960",)),
        ("http://example.org/2723/4385058960_b0f291553e.jpg", ()),
    ],
)
def test_flickr_names_its_photos_in_their_addresses(url, ids):
    assert base.flickr_ids(url) == ids


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10, 20, 30, 40), [0.2, 0.05, 0.6, 0.2]),
        ((-10, 90, 20, 500), [0.9, 0, 1, 0.05]),  # cut at the edges
        ((10, 20, -5, 40), None),
        ((10, 20, 0, 40), None),
        ((200, 20, 5, 5), None),  # right of the photo
        ((float("nan"), 20, 5, 5), None),
    ],
)
def test_boxes_become_shares_of_the_photo(box, expected):
    found = base.ground([("here", "a dog", box)], (200, 100))
    np.testing.assert_allclose(found.boxes, [expected] if expected else np.zeros((0, 4)), atol=1e-7)
    assert [skip.reason for skip in found.skipped] == ([] if expected else ["box"])
    assert found.cut == (box[0] == -10)


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/passwd", "..\\x.jpg"])
def test_names_do_not_lead_out_of_the_folder(tmp_path, name):
    with pytest.raises(ValueError, match="leads out"):
        base.Raw(tmp_path).picture((name,))


def test_counts_are_compared_with_the_published_ones():
    corpus = corpora.get("vqav2")
    assert not list(published.check_counts(corpus, "val", 40_504, 214_354))
    assert list(published.check_counts(corpus, "val", 40_504, 214_353)) == [
        "val has 214,353 question/ids, but 214,354 are published"
    ]
    assert {name for name, _ in published.COUNTS} <= {each.name for each in corpora.CORPORA}


def test_archives_are_compared_with_the_published_ones(tmp_path):
    samples.put(tmp_path / "images.zip", "cut")
    (doubt,) = published.check_files(base.Raw(tmp_path), "visual_genome")
    assert "images.zip has the SHA-256" in doubt
    assert not list(published.check_files(base.Raw(tmp_path), "gqa"))


# ---- Layouts besides those that `mmt data prepare` is tested on ----------------------------------


def test_flickr8k_by_karpathys_file(tmp_path):
    rows = [("test", [" A  child ."], {"filename": "1000268201_693b08cb0e.jpg"})]
    samples.put(tmp_path / "dataset_flickr8k.json", samples.karpathy("flickr8k", rows))
    assert [item.fields for item in entries("flickr8k", tmp_path)["test"]] == [
        {"text/captions": ["A child ."]}
    ]


def test_flickr30k_without_lists_is_one_split(tmp_path):
    samples.put(tmp_path / "results_20130124.token", "1.jpg#0\tA man .\n2.jpg#0\tA dog .\n")
    assert [item.key for item in entries("flickr30k", tmp_path)["full"]] == ["1", "2"]


def test_sbu_as_json(tmp_path):
    content = {"image_urls": ["http://static.flickr.com/1/2_ab.jpg"], "captions": ["The sea ."]}
    samples.put(tmp_path / "sbu-captions-all.json", content, packed=True)
    (item,) = entries("sbu", tmp_path)["train"]
    assert item.pictures[0].files == ("images/2_ab.jpg", "2_ab.jpg")
    content["captions"].append("one more")
    samples.put(tmp_path / "sbu-captions-all.json", content)
    with pytest.raises(UsageError, match=r"entry 1: it must hold two lists"):
        entries("sbu", tmp_path)


def test_official_coco_names_photos_that_flickr_has(tmp_path):
    samples.coco_annotations(tmp_path)
    (item,) = entries("coco_captions", tmp_path)["val2017"]
    assert item.pictures[0].ids == ("coco:7", f"flickr:{samples.FLICKR[0]}")
    assert item.fields["text/captions"] == [f"A plane {n}." for n in range(5)]


def test_a_caption_without_photo_and_a_photo_without_caption(tmp_path):
    image = {"file_name": "1.jpg", "id": 1}
    captions = [{"image_id": 2, "caption": "A plane."}]
    samples.put(tmp_path / "captions_val2017.json", {"images": [image], "annotations": captions})
    assert [
        (entry.reason, entry.text) for entry in entries("coco_captions", tmp_path)["val2017"]
    ] == [
        ("no caption", "photo 1 has no caption"),
        ("no photo", "a caption's photo 2 is not among the images"),
    ]


def test_an_id_that_is_there_twice_counts_once(tmp_path):
    samples.svo_probes(tmp_path)
    samples.sbu(tmp_path)
    url = "http://static.flickr.com/1/2_ab.jpg\n"
    samples.put(tmp_path / "SBU_captioned_photo_dataset_urls.txt", url * 2)
    first, second = entries("sbu", tmp_path)["train"]
    assert (first.key, second.reason) == ("2_ab.jpg", "duplicate id")
    assert second.where.endswith("urls.txt:2")


def test_shards_that_are_missing_are_asked_for(tmp_path):
    samples.localized_narratives(tmp_path)
    (tmp_path / "open_images_train_v6_localized_narratives-00001-of-00002.jsonl").unlink()
    with pytest.raises(UsageError, match=r"has 1 of 2 shards of open_images_train"):
        entries("localized_narratives", tmp_path)


def test_narratives_without_traces(tmp_path):
    row = {"dataset_id": "x", "image_id": "7", "annotator_id": 1, "caption": "A dog."}
    samples.put(tmp_path / "coco_train_captions.jsonl", samples.lines([row]))
    (item,) = entries("localized_narratives", tmp_path)["coco_train"]
    assert item.pictures[0].files[0] == "train2017/000000000007.jpg"


# ---- Damaged files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corpus", "name", "content", "message"),
    [
        ("conceptual_captions", "Train_GCC-training.tsv", "a\tb\nno tab\n", r"tsv:2: not a"),
        ("sbu", "SBU_captioned_photo_dataset_urls.txt", "http://a\n", "has fewer lines than"),
        ("visual_genome", "image_data.json", '[{"image_id": 1,\n "wid', r"json:2: not JSON"),
        ("visual_genome", "objects.json", '[{"image_id": 1}]', "`objects` is missing"),
        ("coco_captions", "dataset_coco.json", '{"images": [{"split": 1}]}', "entry 0: `split`"),
        ("localized_narratives", "coco_val_captions.jsonl", '{"image_id": "x"}', "must be like"),
        ("flickr30k", "results_20130124.token", "1.jpg#0\tA .\n1.jpg A\n", r"token:2: not a"),
        ("flickr30k", f"Annotations/{samples.FLICKR[0]}.xml", "<!DOCTYPE x><x/>", "may be bombs"),
        ("vqav2", "v2_mscoco_val2014_annotations.json", '{"annotations": []}', "has no answers"),
        ("nlvr2", "train.json", '{"identifier": "../../x"}', "must be like dev-850"),
        ("snli_ve", "snli_ve_dev.jsonl", '{"gold_label": "-"}', "must be contradiction"),
        ("svo_probes", "svo_probes.csv", "sentence,pos_url\n", "column pos_triplet is missing"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_told_with_its_place(tmp_path, corpus, name, content, message):
    samples.WRITERS[corpus](tmp_path)
    for older in tmp_path.rglob(pathlib.Path(name).name):
        older.unlink()
    if corpus == "localized_narratives":
        (tmp_path / "coco_val_localized_narratives.jsonl").unlink()
    samples.put(tmp_path / name, content)
    with pytest.raises(UsageError, match=message):
        entries(corpus, tmp_path)


def test_rows_of_a_table_are_checked(tmp_path):
    samples.svo_probes(tmp_path)
    path = tmp_path / "svo_probes.csv"
    text = path.read_text()
    path.write_text(text + "only,three,cells\n")
    with pytest.raises(UsageError, match=r"svo_probes\.csv:3: 3 cells in place of 10"):
        entries("svo_probes", tmp_path)
    path.write_text(text.replace("False,True,False", "True,True,False"))
    with pytest.raises(UsageError, match="one of subj_neg, verb_neg, obj_neg must be True"):
        entries("svo_probes", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"A caption\thttp://a\n" * 50_000), "more than 200 times its size"),
        (gzip.compress(b"A caption\thttp://a\nCaf\xe9\thttp://b\n"), "not UTF-8"),
    ],
    # gzip writes the time into its header: as names, the bytes would differ between two workers.
    ids=["bomb", "not UTF-8"],
)
def test_packed_files_that_are_damaged_or_bombs(tmp_path, content, message):
    (tmp_path / "Train_GCC-training.tsv.gz").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        entries("conceptual_captions", tmp_path)


# ---- Any damage: an error that is meant for the user, or a skip ----------------------------------

ODD = st.sampled_from(
    [
        None,
        True,
        -1,
        10**400,
        1e308,
        float("nan"),
        "",
        "\ud800",
        "x" * 5000,
        "../../x",
        [],
        {},
        [[]],
    ]
)


@st.composite
def damaged(draw, path: pathlib.Path) -> bytes:
    """A file's content with some bytes exchanged or cut, or one of its JSON values exchanged."""
    content = path.read_bytes()
    text = content.decode()
    rows = text.splitlines() if "}\n{" in text else [text]
    if text[0] in "[{" and path.suffix.startswith(".json") and draw(st.booleans()):
        number = draw(st.integers(0, len(rows) - 1))
        tree = json.loads(rows[number])
        rows[number] = json.dumps(draw(exchanged(tree)))
        return "\n".join(rows).encode()
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(start + 40, len(content))))
    other = draw(st.one_of(st.binary(max_size=8), st.sampled_from([b"[" * 100_000, b"9" * 5000])))
    return content[:start] + other + content[end:]


@st.composite
def exchanged(draw, tree):
    """The tree with one value exchanged, or a member lost."""
    if not isinstance(tree, dict | list) or not tree or draw(st.integers(0, 5)) == 0:
        return draw(ODD)
    key = draw(st.sampled_from(list(tree) if isinstance(tree, dict) else range(len(tree))))
    tree = tree.copy()
    if draw(st.integers(0, 7)) == 0:
        del tree[key]
    else:
        tree[key] = draw(exchanged(tree[key]))
    return tree


@pytest.mark.slow
@pytest.mark.parametrize("name", samples.WRITERS)
def test_any_damage_is_an_error_for_the_user_or_a_skip(name, tmp_path):
    samples.WRITERS[name](tmp_path)
    annotations = sorted(
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and path.suffix in (".json", ".jsonl", ".tsv", ".txt", ".csv", ".xml")
    ) + sorted(tmp_path.glob("*.token"))
    features = builder.Mmt(config=name, data_dir=tmp_path / "out").info.features

    @hypothesis.settings(max_examples=30, deadline=None, derandomize=True, database=None)
    @hypothesis.given(st.data())
    def run(data):
        path = data.draw(st.sampled_from(annotations))
        content = path.read_bytes()
        path.write_bytes(data.draw(damaged(path)))
        try:
            for split, found in entries(name, tmp_path).items():
                maker = examples.Maker(name, str(tmp_path), split, None)
                for entry in found:
                    made = entry if isinstance(entry, base.Skipped) else maker.example(entry)
                    if isinstance(made, base.Skipped):
                        assert json.dumps(vars(made))
                    else:
                        features.encode_example(made[1])
        except UsageError:
            pass
        finally:
            path.write_bytes(content)

    run()
