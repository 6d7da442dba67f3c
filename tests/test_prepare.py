"""`mmt data prepare`: from published files and photos to a data set, and what goes wrong."""

import io
import json
import resource
import shutil
import sys

import corpora_samples as samples
import numpy as np
import pytest
from PIL import Image

from mmt_jax.cli import main
from mmt_jax.data import formats, sources, writer
from mmt_jax.ingest import corpora
from mmt_jax.ingest.corpora import base, examples, hashes, shards
from mmt_jax.photo import WHOLE, Photo, image_id, rows
from mmt_jax.photos import pictures


def prepare(name, raw, out, *flags, runner="local"):
    arguments = [f"--corpus={name}", f"--raw={raw}", f"--out={out}", f"--runner={runner}"]
    return main.main(["data", "prepare", *arguments, *flags])


def report(out, name, split):
    path = out / "mmt" / name / "1.0.0" / f"report-{split}.json"
    return json.loads(path.read_text())


def rejected(out, name, split):
    path = out / "mmt" / name / "1.0.0" / f"rejected-{split}.jsonl"
    return [base.Skipped(**json.loads(line)) for line in path.read_text().splitlines()]


def read(out, name, split):
    """Examples by the id of their first photo."""
    found = corpora.read(out / "mmt" / name, split)
    first = corpora.get(name).pictures[0]
    return {example[f"{first}/id"]: example for example in found}


# ---- Every corpus --------------------------------------------------------------------------------

SPLITS = {
    "conceptual_captions": {"train": 2, "val": 1},
    "sbu": {"train": 2},
    "visual_genome": {"train": 2},
    "coco_captions": {"train": 2, "val": 1, "test": 1},
    "localized_narratives": {"coco_val": 1, "open_images_train": 2},
    "flickr30k": {"train": 1, "test": 1},
    "flickr8k": {"train": 1, "val": 1, "test": 1},
    "vqav2": {"val": 1},
    "gqa": {"testdev": 1},
    "nlvr2": {"train": 2},
    "snli_ve": {"dev": 1},
    "svo_probes": {"test": 1},
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A sample of each corpus, prepared once."""
    root = tmp_path_factory.mktemp("corpora")
    for name, write in samples.WRITERS.items():
        write(root / "raw" / name)
        assert prepare(name, root / "raw" / name, root / "out") == 0
    return root


def test_every_corpus_has_a_sample():
    assert list(SPLITS) == list(samples.WRITERS) == [corpus.name for corpus in corpora.CORPORA]


@pytest.mark.parametrize("name", SPLITS)
def test_each_split_holds_its_examples(prepared, name):
    folder = prepared / "out" / "mmt" / name
    assert {
        split: len(list(corpora.read(folder, split))) for split in corpora.splits(folder)
    } == SPLITS[name]
    assert not list((prepared / "out").glob(".mmt-*"))


@pytest.mark.parametrize("name", SPLITS)
def test_photos_are_the_files_that_were_there(prepared, name):
    raw = base.Raw(prepared / "raw" / name)
    for split in SPLITS[name]:
        items = {
            item.pictures[0].id: item.pictures
            for item in corpora.get(name).read(raw, split)
            if isinstance(item, base.Item)
        }
        for number, example in read(prepared / "out", name, split).items():
            for part, picture in zip(corpora.get(name).pictures, items[number], strict=True):
                path = raw.picture(picture.files)
                assert example[f"{part}/encoded"] == path.read_bytes()
                assert (example[f"{part}/height"], example[f"{part}/width"]) == (36, 48)
                expected = hashes.dhash(pictures.read(path))
                assert int(example[f"{part}/hash"], 16) == expected


def test_phrases_objects_and_attributes_of_visual_genome(prepared):
    first, second = (read(prepared / "out", "visual_genome", "train")[key] for key in "12")
    assert first["text/captions"] == ["a red car", "the street"]
    # 48 × 36 pixels; the second box is cut at the left and the lower edge.
    np.testing.assert_allclose(first["text/bboxes"], [[0.25, 0.25, 0.75, 0.75], [0, 0, 1, 0.5]])
    assert first["object/names"] == ["car"]
    assert first["attribute/names"] == ["red", "old"]
    np.testing.assert_allclose(first["attribute/bboxes"], [[0, 0, 1, 0.5]] * 2)
    assert second["object/bboxes"].shape == (0, 4)
    assert second["image/ids"] == ["vg:2", "coco:7", f"flickr:{samples.FLICKR[0]}"]
    (box,) = rejected(prepared / "out", "visual_genome", "train")
    assert (box.reason, report(prepared / "out", "visual_genome", "train")["skipped"]) == (
        "box",
        {"box": 1},
    )
    assert "region_descriptions.json, entry 0, row 2" in box.where
    assert report(prepared / "out", "visual_genome", "train")["boxes cut"] == 1


# What EXIF 2.3, 4.6.4 makes of a stored picture: transposed first, then rows, columns mirrored.
TURNS = {1: "", 2: "x", 3: "xy", 4: "y", 5: "t", 6: "tx", 7: "txy", 8: "ty"}


@pytest.mark.parametrize("seen", ["as the file lies", "upright"])
@pytest.mark.parametrize("orientation", TURNS)
def test_boxes_turn_with_their_photo(tmp_path, orientation, seen):
    """What is red is what the boxes hold, whichever way their annotators saw the photo."""
    stored = np.full((40, 60, 3), (0, 0, 255), np.uint8)
    stored[0:10, 40:60] = (255, 0, 0)
    turned = stored
    for turn in TURNS[orientation]:
        turned = {"t": turned.swapaxes(0, 1), "x": turned[:, ::-1], "y": turned[::-1]}[turn]
    if seen == "upright" and orientation < 5:
        pytest.skip("nothing tells that the annotators saw it mirrored")
    frame = turned if seen == "upright" else stored
    rows, columns = np.nonzero(frame[..., 0])
    x, y = columns.min(), rows.min()
    box = {"x": int(x), "y": int(y), "w": int(np.ptp(columns)) + 1, "h": int(np.ptp(rows)) + 1}
    image = {"image_id": 7, "width": frame.shape[1], "height": frame.shape[0]}
    region = {"x": box["x"], "y": box["y"], "width": box["w"], "height": box["h"], "phrase": "red"}
    raw = tmp_path / "raw"
    samples.put(raw / "image_data.json", [image])
    samples.put(raw / "region_descriptions.json", [{"id": 7, "regions": [region]}])
    samples.put(raw / "objects.json", [{"image_id": 7, "objects": [{**box, "names": ["red"]}]}])
    exif = Image.Exif()
    exif[0x0112] = orientation
    (raw / "VG_100K").mkdir()
    Image.fromarray(stored).save(
        raw / "VG_100K/7.jpg", quality=95, subsampling=0, exif=exif, format="JPEG"
    )
    assert prepare("visual_genome", raw, tmp_path / "out") == 0
    example = read(tmp_path / "out", "visual_genome", "train")["7"]
    pixels = np.asarray(Image.open(io.BytesIO(example["image/encoded"])))
    assert pixels.shape == turned.shape
    rows, columns = np.nonzero(pixels[..., 0] > 128)
    (ymin, xmin, ymax, xmax), (height, width) = example["text/bboxes"][0], pixels.shape[:2]
    found = [ymin * height, xmin * width, ymax * height, xmax * width]
    expected = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(example["object/bboxes"], example["text/bboxes"])


def test_captions_of_several_sources(prepared):
    out = prepared / "out"
    assert read(out, "coco_captions", "train")["2"]["text/captions"] == ["caption 2", "second one"]
    assert read(out, "localized_narratives", "coco_val")["7"]["text/captions"] == [
        "In this image 0",
        "In this image 1",
    ]
    assert read(out, "conceptual_captions", "val")["val-0"]["text/captions"] == ["a ship"]
    assert (
        len(read(out, "flickr8k", "test")[f"{samples.FLICKR[2]}_693b08cb0e"]["text/captions"]) == 5
    )


def test_phrases_of_flickr30k_entities(prepared):
    example = read(prepared / "out", "flickr30k", "train")[samples.FLICKR[0]]
    assert example["phrase/texts"] == ["Two men"]
    np.testing.assert_allclose(example["phrase/bboxes"], [[0.25, 0.25, 0.75, 0.75]])
    assert report(prepared / "out", "flickr30k", "train")["skipped"] == {"box": 1}


def test_questions_and_answers(prepared):
    example = read(prepared / "out", "vqav2", "val")["7"]
    assert example["question/ids"] == ["7000", "7001"]
    assert example["answer/texts"] == ["cat", "dog", "cat", "dog"]
    np.testing.assert_array_equal(example["answer/questions"], [0, 0, 1, 1])
    # Ten annotators, two of whom say "dog": (8 · ⅔ + 2 · ⅓) / 10.
    np.testing.assert_allclose(example["answer/scores"], [1, 0.6, 1, 0.6], rtol=1e-6)
    assert read(prepared / "out", "gqa", "testdev")["2"]["question/kinds"] == ["binary"] * 2


def test_statements(prepared):
    out = prepared / "out"
    pair = read(out, "nlvr2", "train")["train-10-0-img0"]
    assert (pair["right/id"], pair["label"], pair["text/captions"]) == (
        "train-10-0-img1",
        1,
        ["Both are dogs."],
    )
    entailed = read(out, "snli_ve", "dev")[samples.FLICKR[0]]
    np.testing.assert_array_equal(entailed["hypothesis/labels"], [2, 1])
    probe = read(out, "svo_probes", "test")["1"]
    assert (probe["text/captions"], probe["negative/kind"]) == (["A girl, standing"], "verb")


def test_tfds_reads_them_by_name(prepared):
    tfds = pytest.importorskip("tensorflow_datasets")
    import mmt_jax.ingest.corpora.builder  # noqa: F401, which makes the name known

    source = tfds.data_source("mmt/flickr8k", data_dir=prepared / "out", split="test")
    (example,) = source
    path = next((prepared / "raw" / "flickr8k").rglob(f"{samples.FLICKR[2]}*.jpg"))
    np.testing.assert_array_equal(example["image/encoded"], np.asarray(Image.open(path)))


def test_from_prepared_corpus_to_a_region_folder(prepared, tmp_path):
    """With mean colours in place of a detector's features."""
    with writer.FolderWriter(tmp_path, "train") as folder:
        for example in corpora.read(prepared / "out" / "mmt" / "coco_captions", "train"):
            pixels = np.asarray(Image.open(io.BytesIO(example["image/encoded"])), np.float32)
            photo = Photo(
                image_id=image_id(example["image/id"]),
                captions=tuple(example["text/captions"]),
                rows=rows(pixels.mean((0, 1))[None] / 255, np.array([WHOLE[:4]], np.float32)),
            )
            folder.add(photo)
    corpus = formats.read(tmp_path, "train")
    assert sorted(corpus.captions) == [("caption 1", "second one"), ("caption 2", "second one")]


def test_a_prepared_corpus_is_a_source(prepared):
    folder = prepared / "out" / "mmt" / "coco_captions"
    (photos,) = sources.load(f"tfds:{folder}", "train")
    by_id = dict(zip(photos.image_ids.tolist(), range(len(photos)), strict=True))
    examples = list(corpora.read(folder, "train"))
    assert len(photos) == len(examples) == 2
    for example in examples:
        index = by_id[image_id(example["image/id"])]
        assert photos.photo_name(index) == example["image/id"]
        assert photos.captions[index] == tuple(example["text/captions"])
        pixels = np.asarray(Image.open(io.BytesIO(example["image/encoded"])).convert("RGB"))
        np.testing.assert_array_equal(photos.picture(index), pixels)


# ---- Beam ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_beam_makes_the_same(tmp_path, monkeypatch):
    """In four shards, of which those without an example are left out."""
    monkeypatch.setattr(shards, "PHOTOS", 1)
    name, raw = "conceptual_captions", tmp_path / "raw"
    rows = [f"caption {number}\thttp://a.org/{number}.jpg" for number in range(4)]
    samples.put(raw / "Train_GCC-training.tsv", samples.lines(rows))
    for number in range(3):
        samples.photo(raw / f"training/{number:08d}.jpg", number)
    hash_of_2 = f"dhash:{hashes.dhash(pictures.read(raw / 'training/00000002.jpg')):016x}\n"
    exclude = f"--exclude={samples.put(tmp_path / 'ids.txt', hash_of_2)}"
    for runner in ("local", "DirectRunner"):
        assert prepare(name, raw, tmp_path / runner, exclude, runner=runner) == 0
    local, beam = tmp_path / "local", tmp_path / "DirectRunner"
    assert sorted(read(beam, name, "train")) == ["train-0", "train-1"]
    assert read(local, name, "train") == read(beam, name, "train")
    assert report(local, name, "train") == report(beam, name, "train")

    def where(line):
        return line.where

    lines = [sorted(rejected(out, name, "train"), key=where) for out in (local, beam)]
    assert lines[0] == lines[1]
    assert sorted(line.reason for line in lines[0]) == [examples.REMOVED[1], "missing photo"]
    assert [path.name for path in beam.iterdir()] == ["mmt"]


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["local", "DirectRunner"])
def test_what_was_stopped_goes_on_with_the_shards_that_are_missing(
    tmp_path, monkeypatch, capsys, runner
):
    if runner != "local":
        pytest.importorskip("apache_beam")
    monkeypatch.setattr(shards, "PHOTOS", 1)
    name, raw, out = "conceptual_captions", tmp_path / "raw", tmp_path / "out"
    rows = [f"caption {number}\thttp://a.org/{number}.jpg" for number in range(6)]
    samples.put(raw / "Train_GCC-training.tsv", samples.lines(rows))
    for number in range(6):
        samples.photo(raw / f"training/{number:08d}.jpg", number)
    example, seen = examples.Maker.example, []

    def lost(self, item):
        seen.append(item.key)
        if len(seen) == 6:
            raise RuntimeError("a worker is gone")
        return example(self, item)

    monkeypatch.setattr(examples.Maker, "example", lost)
    assert prepare(name, raw, out, runner=runner) == 2
    assert "train cannot be written" in capsys.readouterr().err
    assert not corpora.is_prepared(out)
    before = set(seen[:-1])
    assert prepare(name, raw, out, runner=runner) == 0
    assert 0 < len(seen[6:]) < 6
    assert {*before, *seen[6:]} == {f"train-{number}" for number in range(6)}
    assert [path.name for path in out.iterdir()] == ["mmt"]
    monkeypatch.setattr(examples.Maker, "example", example)
    assert prepare(name, raw, tmp_path / "once", runner=runner) == 0
    assert files(out) == files(tmp_path / "once")


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["local", "DirectRunner"])
@pytest.mark.parametrize("late", ["photos", "captions"])
def test_what_comes_while_it_is_stopped_is_heeded(tmp_path, monkeypatch, late, runner):
    if runner != "local":
        pytest.importorskip("apache_beam")
    monkeypatch.setattr(shards, "PHOTOS", 1)
    name, raw, out = "conceptual_captions", tmp_path / "raw", tmp_path / "out"
    example, seen = examples.Maker.example, []

    def table(said):
        rows = [f"{said} {number}\thttp://a.org/{number}.jpg" for number in range(4)]
        samples.put(raw / "Train_GCC-training.tsv", samples.lines(rows))

    def lost(self, item):
        seen.append(item.key)
        if len(seen) == 4:
            raise RuntimeError("a worker is gone")
        return example(self, item)

    def photos():
        for number in range(4):
            samples.photo(raw / f"training/{number:08d}.jpg", number)

    table("before")
    if late == "captions":
        photos()
    monkeypatch.setattr(examples.Maker, "example", lost)
    assert prepare(name, raw, out, runner=runner) == 2
    if late == "captions":
        table("edited")
    else:
        photos()
    assert prepare(name, raw, out, runner=runner) == 0
    said = {example["text/captions"][0] for example in read(out, name, "train").values()}
    word = "edited" if late == "captions" else "before"
    assert said == {f"{word} {number}" for number in range(4)}
    assert report(out, name, "train")["skipped"] == {}


# ---- Evaluation photos stay out ------------------------------------------------------------------


def test_evaluation_photos_are_kept_out_by_id_and_by_hash(prepared, tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    samples.localized_narratives(raw)
    # Photo 7 of COCO's test split, as somebody else saved it.
    copy = samples.jpeg(samples.pixels(7).resize((96, 72)), 60)
    copy.save(raw / f"train/{1:016x}.jpg", quality=60)
    exclude = f"--exclude={prepared / 'out' / 'mmt' / 'coco_captions'}"
    assert prepare("localized_narratives", raw, out, exclude) == 0
    assert list(read(out, "localized_narratives", "open_images_train")) == [f"{0:016x}"]
    assert report(out, "localized_narratives", "open_images_train")["removed"] == {
        examples.REMOVED[1]: 1
    }
    (line,) = rejected(out, "localized_narratives", "open_images_train")
    assert "bits from" in line.text
    assert "coco_captions test 7" in line.text
    # A split for evaluation keeps its photos.
    assert list(read(out, "localized_narratives", "coco_val")) == ["7"]

    samples.visual_genome(raw := tmp_path / "vg")
    assert prepare("visual_genome", raw, out, exclude) == 0
    assert list(read(out, "visual_genome", "train")) == ["1"]
    assert report(out, "visual_genome", "train")["removed"] == {examples.REMOVED[0]: 1}
    capsys.readouterr()
    assert prepare("visual_genome", raw, out) == 2
    assert "was prepared with other --exclude" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("corpus", "exclude", "message"),
    [
        ("sbu", "out/mmt/visual_genome", "has splits for training alone"),
        ("sbu", "out", "holds several corpora; name one"),
        ("sbu", "raw", "holds no prepared corpus"),
        ("sbu", "nothing.txt", "nothing.txt cannot be read"),
        ("snli_ve", "out/mmt/coco_captions", "has no split for training here"),
    ],
)
def test_exclusions_that_cannot_be(prepared, tmp_path, capsys, corpus, exclude, message):
    flag = f"--exclude={prepared / exclude}"
    assert prepare(corpus, prepared / "raw" / corpus, tmp_path / "out", flag) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "line", ["COCO:391895", "coco:000000391896", "coco:391897.jpg", "laion:3", "391895"]
)
def test_ids_that_no_photo_has_are_told(prepared, tmp_path, capsys, line):
    flag = f"--exclude={samples.put(tmp_path / 'ids.txt', line)}"
    assert prepare("sbu", prepared / "raw" / "sbu", tmp_path / "out", flag) == 2
    assert "is no id of a photo; it must be like coco:391895" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---- Interrupted and repeated --------------------------------------------------------------------


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_split_is_not_prepared_again(prepared, monkeypatch, capsys):
    monkeypatch.setattr(examples.Maker, "example", None)  # nobody may call it
    before = files(prepared / "out" / "mmt" / "flickr8k")
    capsys.readouterr()
    assert prepare("flickr8k", prepared / "raw" / "flickr8k", prepared / "out", "--json") == 0
    reports = json.loads(capsys.readouterr().out)
    assert [row["split"] for row in reports] == ["train", "val", "test"]
    assert files(prepared / "out" / "mmt" / "flickr8k") == before


@pytest.mark.parametrize("name", ["dataset_info.json", "report-train.json"])
def test_a_finished_split_that_was_damaged_is_told(prepared, tmp_path, capsys, name):
    out = tmp_path / "out"
    shutil.copytree(prepared / "out" / "mmt" / "flickr8k", out / "mmt" / "flickr8k")
    path = out / "mmt" / "flickr8k" / "1.0.0" / name
    path.write_text(path.read_text()[:20])
    assert prepare("flickr8k", prepared / "raw" / "flickr8k", out) == 2
    assert f"{path} cannot be read" in capsys.readouterr().err


def test_what_is_interrupted_leaves_nothing_and_is_made_up_for(prepared, tmp_path, monkeypatch):
    raw, out = prepared / "raw" / "flickr8k", tmp_path / "out"
    whole = examples.Maker.example

    def interrupted(self, item):
        if self.split == "val":
            raise KeyboardInterrupt
        return whole(self, item)

    monkeypatch.setattr(examples.Maker, "example", interrupted)
    assert prepare("flickr8k", raw, out) == 130
    assert corpora.splits(out) == ("train",)
    assert not list(out.glob(".mmt-*"))
    assert len(list(corpora.read(out, "train"))) == 1
    # A process that was killed cannot clean up: half a split, and shards on their way.
    half = out / ".mmt-flickr8k-val/mmt/flickr8k/1.0.0.incompleteABC/mmt-val.array_record"
    samples.put(half, "half")
    samples.put(out / "mmt/flickr8k/1.0.0/mmt-val.array_record-00000-of-00009", "stale")
    monkeypatch.setattr(examples.Maker, "example", whole)
    assert prepare("flickr8k", raw, out) == 0
    assert files(out / "mmt") == files(prepared / "out" / "mmt" / "flickr8k")


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["local", "DirectRunner"])
@pytest.mark.parametrize("room", [100, 60_000])  # for no list, and for all but the shard
def test_a_disk_that_is_full_leaves_nothing(prepared, tmp_path, capsys, runner, room):
    """The limit on the size of a file stands in for the end of the disk."""
    if runner != "local":
        pytest.importorskip("apache_beam")
    raw, out = prepared / "raw" / "flickr8k", tmp_path / "out"
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        assert prepare("flickr8k", raw, out, runner=runner) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"cannot be written below {out} (" in error
    assert "File too large" in error
    assert not list(out.rglob("*"))


# ---- Photos --------------------------------------------------------------------------------------


def test_photos_that_cannot_be_read_are_listed_and_the_rest_goes_on(tmp_path, monkeypatch):
    raw, out = tmp_path / "raw", tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    lines = [f"caption {number}\thttp://a.org/{number}.jpg" for number in range(6)]
    samples.put(raw / "Train_GCC-training.tsv", samples.lines([*lines, "\thttp://a.org/x.jpg"]))
    for number in range(5):
        samples.photo(raw / f"training/{number:08d}.jpg", number)
    cut = raw / "training/00000001.jpg"
    cut.write_bytes(cut.read_bytes()[:400])
    samples.put(raw / "training/00000002.jpg", "<html>gone</html>")
    samples.put(raw / "training/00000003.jpg", "")
    assert prepare("conceptual_captions", "raw", out) == 0
    assert sorted(read(out, "conceptual_captions", "train")) == ["train-0", "train-4"]
    assert report(out, "conceptual_captions", "train")["skipped"] == {
        "missing photo": 1,
        "no caption": 1,
        "unreadable photo": 3,
    }
    listed = {
        line.where.rpartition(":")[2]: line
        for line in rejected(out, "conceptual_captions", "train")
    }
    table = str(raw / "Train_GCC-training.tsv")
    assert {line.where.rpartition(":")[0] for line in listed.values()} == {table}
    assert "truncated" in listed["2"].text
    assert "is no picture" in listed["3"].text
    assert "there is no training/00000005" in listed["6"].text
    assert listed["7"].reason == "no caption"


def test_flickr30k_without_lists_is_one_split_for_training(tmp_path):
    samples.put(tmp_path / "raw/results_20130124.token", "1.jpg#0\tA man .\n")
    samples.photo(tmp_path / "raw/flickr30k-images/1.jpg", 1)
    assert prepare("flickr30k", tmp_path / "raw", tmp_path / "out") == 0
    assert list(read(tmp_path / "out", "flickr30k", "full")) == ["1"]


def test_photos_that_not_every_reader_decodes_become_png(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    samples.svo_probes(raw)
    turned = Image.Exif()
    turned[0x0112] = 6
    samples.pixels(1).save(raw / "images/1.jpg", exif=turned)
    samples.pixels(2).convert("CMYK").save(raw / "images/2.jpg")
    assert prepare("svo_probes", raw, out) == 0
    example = read(out, "svo_probes", "test")["1"]
    assert (example["positive/height"], example["positive/width"]) == (48, 36)
    for part, name in (("positive", "1"), ("negative", "2")):
        image = Image.open(io.BytesIO(example[f"{part}/encoded"]))
        assert (image.format, image.mode) == ("PNG", "RGB")
        expected = pictures.read(raw / f"images/{name}.jpg")
        np.testing.assert_array_equal(np.asarray(image), expected)


def test_paths_that_leave_the_folder_are_not_followed(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    samples.photo(tmp_path / "secret.jpg", 1)
    rows = [
        ("train", ["a secret"], {"cocoid": 1, "filepath": "..", "filename": "secret.jpg"}),
        ("train", ["a photo"], {"cocoid": 2, "filepath": "train2014", "filename": "2.jpg"}),
        ("val", ["a photo"], {"cocoid": 3, "filepath": "train2014", "filename": "2.jpg"}),
        ("test", ["a photo"], {"cocoid": 4, "filepath": "train2014", "filename": "2.jpg"}),
    ]
    samples.put(raw / "dataset_coco.json", samples.karpathy("coco", rows))
    samples.photo(raw / "train2014/2.jpg", 2)
    assert prepare("coco_captions", raw, out) == 0
    assert list(read(out, "coco_captions", "train")) == ["2"]
    (line,) = rejected(out, "coco_captions", "train")
    assert line.reason == "unsafe path"


def test_no_photo_at_all_is_an_error(tmp_path, capsys):
    samples.gqa(tmp_path / "raw")
    shutil.rmtree(tmp_path / "raw" / "images")
    assert prepare("gqa", tmp_path / "raw", tmp_path / "out") == 2
    assert "none of the photos of testdev can be used" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*"))


# ---- Annotations ---------------------------------------------------------------------------------


def test_a_damaged_file_is_told_before_anything_is_written(tmp_path, capsys):
    raw = tmp_path / "raw"
    samples.flickr8k(raw)
    path = samples.put(raw / "Flickr8k.token.txt", "1.jpg#0\tA man .\n")
    path.write_bytes(path.read_bytes() + b"2.jpg#0\tCaf\xe9\n")
    assert prepare("flickr8k", raw, tmp_path / "out") == 2
    assert "Flickr8k.token.txt:2: not UTF-8" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_differences_from_what_is_published_are_told(prepared, tmp_path, capsys):
    raw, out = prepared / "raw" / "gqa", tmp_path / "out"
    doubt = "testdev has 2 question/ids, but 12,578 are published"
    assert prepare("gqa", raw, out, "--strict") == 2
    assert doubt in capsys.readouterr().err
    assert not out.exists()
    assert prepare("gqa", raw, out) == 0
    assert f"mmt: warning: {doubt}" in capsys.readouterr().err
    assert doubt in report(out, "gqa", "testdev")["doubts"]


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("flickr30", "raw/flickr30k", "did you mean flickr30k?"),
        ("flickr30k", "raw/nowhere", "there is no folder"),
        ("flickr30k", "raw/gqa", "has no files of flickr30k; it must hold dataset_flickr30k.json"),
    ],
)
def test_names_and_folders_that_are_wrong(prepared, tmp_path, capsys, name, raw, message):
    assert prepare(name, prepared / raw, tmp_path / "out") == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_runner_that_beam_does_not_have(prepared, tmp_path, capsys):
    raw = prepared / "raw" / "gqa"
    assert prepare("gqa", raw, tmp_path / "out", runner="FastRunner") == 2
    assert "--runner=FastRunner: Unexpected pipeline runner" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("runner", "message"),
    [
        ("DirectRunner", "--beam_options: argument --direct_num_workers: invalid int value: 'two'"),
        ("local", "--beam_options are Beam's"),
    ],
)
def test_options_that_beam_does_not_take(prepared, tmp_path, capsys, runner, message):
    pytest.importorskip("apache_beam")
    option = "--beam_options=direct_num_workers=two"
    assert prepare("gqa", prepared / "raw" / "gqa", tmp_path / "out", option, runner=runner) == 2
    assert capsys.readouterr().err.startswith(f"mmt: {message}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("library", "runner", "remedy"),
    [
        ("tensorflow_datasets", "local", "pip install 'mmt_jax[data]'"),
        ("apache_beam.runners", "DirectRunner", "or give --runner=local"),
        ("PIL", "local", "pip install 'mmt_jax[photos]'"),
    ],
)
def test_libraries_that_are_missing(
    prepared, tmp_path, monkeypatch, capsys, library, runner, remedy
):
    monkeypatch.setitem(sys.modules, library, None)
    assert prepare("gqa", prepared / "raw" / "gqa", tmp_path / "out", runner=runner) == 2
    assert remedy in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_damaged_shard_is_told(prepared, tmp_path):
    folder = tmp_path / "flickr8k"
    shutil.copytree(prepared / "out" / "mmt" / "flickr8k", folder)
    for path in folder.rglob("*.array_record*"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(corpora.UsageError, match=rf"{folder}.*split val: example 0 cannot be read"):
        list(corpora.read(folder, "val"))


def test_splits_that_are_wrong(prepared):
    with pytest.raises(corpora.UsageError, match=r"has no split 'dev'; it has train, val, test"):
        corpora.read(prepared / "out" / "mmt" / "flickr8k", "dev")
