"""`mmt features`: photos in, a region folder out, whatever happens on the way."""

import json
import pathlib

import corpora_samples
import numpy as np
import pytest
from PIL import Image

from mmt_jax import detectors, progress
from mmt_jax import photo as photos
from mmt_jax.cli import main
from mmt_jax.data import formats
from mmt_jax.detectors import folder
from mmt_jax.detectors.base import Detections
from mmt_jax.errors import UsageError
from mmt_jax.ingest import corpora
from mmt_jax.photo import BOXES, FEATURES
from mmt_jax.photos import pictures

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"


class MeanColour:
    """Finds the upper and the lower half, with their colours; fails on photos of one pixel."""

    num_classes = 3
    labels = {0: "upper", 1: "lower"}  # noqa: RUF012

    def __init__(self):
        self.seen = []
        self.before = lambda: None  # it is asked

    def stop_after(self, count):
        def before():
            if sum(self.seen) >= count:
                raise KeyboardInterrupt

        self.before = before

    def detect(self, photo):
        self.before()
        if photo.size == 3:
            raise RuntimeError("a single pixel")
        self.seen += [1]
        half = len(photo) // 2
        colours = [part.mean(axis=(0, 1)) / 255 for part in (photo[:half], photo[half:])]
        ids, probs = photos.top(np.array([[0.7, 0.2, 0.1], [0.1, 0.9, 0.0]], np.float32))
        boxes = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1]], np.float32)
        scores = np.array([0.7, 0.9], np.float32)
        return Detections(boxes, np.array(colours, np.float32), scores, ids, probs)


@pytest.fixture
def detector(monkeypatch):
    fake = MeanColour()
    monkeypatch.setattr(detectors, "load", lambda spec: fake)
    monkeypatch.setattr(folder, "SHARD", 3)
    return fake


@pytest.fixture
def images(tmp_path):
    """Seven photos: each its number as a colour; two bad files, and one of a single pixel."""
    where = tmp_path / "images"
    (where / "more").mkdir(parents=True)
    for number in range(1, 8):
        name = f"more/{number:012}.png" if number > 5 else f"COCO_val2014_{number:012}.png"
        Image.new("RGB", (4, 6), (number, 2 * number, 0)).save(where / name)
    (where / "000000000008.jpg").write_text("no picture")
    Image.new("RGB", (1, 1)).save(where / "000000000009.png")
    Image.new("RGB", (4, 4)).save(where / "more" / "COCO_train2014_000000000001.png")
    (where / "more" / "notes.txt").write_text("left alone")
    (tmp_path / "captions.jsonl").write_text(
        "".join(
            json.dumps({"image_id": n, "captions": [f"photo {n}"]}) + "\n" for n in range(1, 11)
        )
    )
    return where


def run(images, out, **options):
    return folder.extract("fake:x", images, out, **options)


def test_photos_become_a_region_folder_and_bad_ones_a_list(tmp_path, images, detector):
    out = tmp_path / "out"
    summary = run(images, out, captions=tmp_path / "captions.jsonl", dtype="float32")
    assert summary.photos == 7
    corpus = formats.read(out, "train")
    assert sorted(corpus.image_ids.tolist()) == list(range(1, 8))
    assert corpus.num_classes == 3
    for index, number in enumerate(corpus.image_ids.tolist()):
        rows = slice(*corpus.offsets[index : index + 2])
        assert corpus.captions[index] == (f"photo {number}",)
        expected = np.tile(np.array([number, 2 * number, 0]) / 255, (3, 1))
        np.testing.assert_allclose(corpus.rows[FEATURES][rows], expected, rtol=1e-6)
        boxes = corpus.rows[BOXES][rows].tolist()
        assert boxes == [[0, 0, 0.5, 1, 0.5], [0.5, 0, 1, 1, 0.5], [0, 0, 1, 1, 1]]
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert summary.left == {
        "damaged": 1,
        "not detected": 1,
        "same id": 1,
        "caption without photo": 3,
    }
    assert {k: lines[0][k] for k in ("file", "width", "height")} == {
        "file": "COCO_val2014_000000000001.png",
        "width": 4,
        "height": 6,
    }
    skipped = [json.loads(x) for x in (out / "train.skipped.jsonl").read_text().splitlines()]
    reasons = {pathlib.Path(row["where"]).name: row["reason"] for row in skipped}
    assert reasons["captions.jsonl"].endswith(": photo 10 has captions, but was not written")
    assert "no picture of a known kind" in reasons["000000000008.jpg"]
    assert "a single pixel" in reasons["000000000009.png"]
    assert "has the id 1, as COCO_val2014" in reasons["COCO_train2014_000000000001.png"]
    assert sorted(path.name for path in out.iterdir()) == [
        "train.jsonl",
        "train.npz",
        "train.skipped.jsonl",
    ]


def test_what_was_stopped_goes_on_and_ends_the_same(tmp_path, images, detector):
    whole, out = tmp_path / "whole", tmp_path / "out"
    options = {"captions": tmp_path / "captions.jsonl"}
    run(images, whole, **options)
    detector.seen.clear()
    detector.stop_after(4)
    with pytest.raises(KeyboardInterrupt):
        run(images, out, **options)
    assert [path.name for path in out.iterdir()] == [".train.shards"]
    detector.seen.clear()
    summary = run(images, out, **options)
    # Sorted by path the bad ones come first; of the six in two shards, four could be taken.
    assert (summary.photos, summary.kept) == (7, 4)
    assert sum(detector.seen) == 3
    one, other = formats.read(whole, "train"), formats.read(out, "train")
    np.testing.assert_array_equal(one.image_ids, other.image_ids)
    np.testing.assert_array_equal(one.rows[FEATURES], other.rows[FEATURES])
    assert one.captions == other.captions
    assert (whole / "train.jsonl").read_bytes() == (out / "train.jsonl").read_bytes()


def test_photos_are_counted_while_they_are_looked_at(tmp_path, images, detector, monkeypatch):
    """Those of the run before too, and those that are left out."""
    told = []

    class Told(progress.Counter):
        def add(self, count):
            super().add(count)
            told.append(self._text().partition(",")[0])

    monkeypatch.setattr(progress, "Counter", Told)
    detector.stop_after(4)
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "out")
    assert told == [f"{n} of 9 photos" for n in range(1, 7)]
    detector.stop_after(99)
    told.clear()
    run(images, tmp_path / "out")
    assert told == [f"{n} of 9 photos" for n in range(5, 10)]


def test_nothing_is_overwritten_or_mixed(tmp_path, images, detector):
    out = tmp_path / "out"
    detector.stop_after(1)
    with pytest.raises(KeyboardInterrupt):
        run(images, out)
    detector.stop_after(99)
    with pytest.raises(UsageError, match=r"was begun with --detector=.*=float16; go on"):
        run(images, out, dtype="float32")
    # What another run found is kept, whatever captions it had.
    summary = run(f"{images}/", out, captions=tmp_path / "captions.jsonl")
    assert (summary.kept, summary.captions) == (1, 7)
    assert all(formats.read(out, "train").captions)
    with pytest.raises(UsageError, match=r"train\.npz exists"):
        run(images, out)
    run(images, out, split="dev")


def test_a_split_that_another_run_is_writing_is_refused(tmp_path, images, detector):
    pytest.importorskip("fcntl")
    refused = []

    def beside():
        with pytest.raises(UsageError, match=r"another run is writing .*\.train\.shards; wait"):
            run(images, tmp_path / "out")
        refused.append(True)

    detector.before = beside
    assert run(images, tmp_path / "out").photos == 7
    assert refused


@pytest.mark.parametrize(
    ("options", "message"),
    [({"split": "../x"}, "cannot name a split"), ({"dtype": "uint8"}, "float16 or float32")],
)
def test_what_cannot_be_written_is_told_before_anything_is(
    tmp_path, images, detector, options, message
):
    with pytest.raises(UsageError, match=message):
        run(images, tmp_path / "out", **options)
    assert not detector.seen
    assert not (tmp_path / "out").exists()


def test_half_a_shard_of_a_process_that_was_killed_is_passed_over(tmp_path, images, detector):
    out = tmp_path / "out"
    detector.stop_after(4)
    with pytest.raises(KeyboardInterrupt):
        run(images, out)
    (out / ".train.shards" / "000001.jsonl").unlink()
    detector.stop_after(99)
    assert run(images, out).photos == 7


def test_photos_without_caption_are_left_out_where_there_are_captions(tmp_path, images, detector):
    few = tmp_path / "few.jsonl"
    few.write_text('{"image_id": 2, "captions": ["two"]}\nno JSON\n')
    summary = run(images, tmp_path / "out", captions=few)
    assert (summary.photos, summary.captions) == (1, 1)
    assert summary.left == {"without caption": 9, "damaged caption": 1}
    assert f"{few}:2: not JSON" in summary.report.read_text()


def test_where_no_photo_can_be_taken_nothing_is_left(tmp_path, detector):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").write_text("no picture")
    with pytest.raises(UsageError, match=r"not one photo could be taken; .*1\.jpg"):
        run(tmp_path / "images", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def corpus(tmp_path):
    """A prepared corpus: the train split of a sample of COCO's captions has two photos."""
    pytest.importorskip("tensorflow_datasets")
    corpora_samples.WRITERS["coco_captions"](tmp_path / "raw")
    argv = ["--corpus=coco_captions", f"--raw={tmp_path / 'raw'}", f"--out={tmp_path / 'corpus'}"]
    assert main.main(["data", "prepare", *argv, "--runner=local"]) == 0
    return tmp_path / "corpus"


def test_a_prepared_corpus_becomes_a_region_folder_with_its_captions(
    tmp_path, corpus, detector, monkeypatch
):
    seen = []

    totals = {}

    def track(items, what, total=None):
        totals[what] = total
        for item in items:
            seen.append((what, len(detector.seen)))
            yield item

    monkeypatch.setattr(progress, "track", track)
    summary = run(corpus, tmp_path / "out", split="train")
    assert summary.photos == totals["ids and captions"] == 2
    first = [detected for what, detected in seen if what == "ids and captions"]
    assert first == [0, 0]  # a bar before the first photo
    found = formats.read(tmp_path / "out", "train")
    expected = {
        photos.image_id(example["image/id"]): tuple(example["text/captions"])
        for example in corpora.read(corpus, "train")
    }
    assert dict(zip(found.image_ids.tolist(), found.captions, strict=True)) == expected
    assert "there are no captions" not in str(summary)


def test_what_fits_no_prepared_corpus(tmp_path, corpus, detector):
    with pytest.raises(UsageError, match="no split 'dev'; it has"):
        run(corpus, tmp_path / "out", split="dev")
    with pytest.raises(UsageError, match="leave out --captions"):
        run(corpus, tmp_path / "out", captions=tmp_path / "captions.jsonl")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.tf
def test_the_command_line_on_real_photos(tmp_path, capsys):
    pytest.importorskip("tensorflow")
    if not SHARED.is_dir():
        pytest.skip("the shared data are not here")
    images = tmp_path / "images"
    images.mkdir()
    for path in pictures.find(SHARED / "coco_val2017" / "images")[:2]:
        (images / path.name).symlink_to(path)
    model = SHARED / "mobilenet_v2_1.0_224_quant.tflite"
    argv = [
        "features",
        f"--detector=tflite:{model},features=MobilenetV2/Logits/AvgPool,scales=2",
        f"--images={images}",
        f"--out={tmp_path / 'out'}",
        f"--captions={SHARED / 'coco_val2017' / 'annotations.jsonl'}",
        "--split=val",
    ]
    assert main.main(argv) == 0
    assert "holds 2 photos" in capsys.readouterr().out
    corpus = formats.read(tmp_path / "out", "val")
    assert corpus.rows[FEATURES].shape == (10, 1280)
    assert [len(captions) for captions in corpus.captions] == [5, 5]
    assert main.main(argv) == 2


def test_photos_whose_names_end_alike_keep_their_own_captions(tmp_path, detector):
    names = ["video1/frame_0001.jpg", "video2/frame_0001.jpg", "n02086240_7.JPEG", "7.png"]
    for number, name in enumerate(names):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (60 * number, 0, 0)).save(path)
    rows = [{"image_id": name, "captions": [f"of {name}"]} for name in names]
    rows += [{"image_id": name, "captions": ["of another"]} for name in ("frame_0001.jpg", 1)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = run(tmp_path / "images", tmp_path / "out", captions=tmp_path / "c.jsonl")
    assert (summary.photos, summary.left) == (4, {"caption without photo": 2})
    assert "photo frame_0001 has captions, but was not written" in summary.report.read_text()
    lines = (tmp_path / "out" / "train.jsonl").read_text().splitlines()
    for photo in map(json.loads, lines):
        assert photo["captions"] == [f"of {photo['file']}"]


def test_of_photos_with_one_id_only_the_one_that_is_named_gets_captions(tmp_path, detector):
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "a.png", "b.jpg", "b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / name)
    rows = [{"image_id": name, "captions": [name]} for name in ("a.png", "b.jpg", "b.png")]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = run(tmp_path / "images", tmp_path / "out", captions=tmp_path / "c.jsonl")
    assert summary.left == {"same id": 1, "without caption": 2, "damaged caption": 1}
    (photo,) = map(json.loads, (tmp_path / "out" / "train.jsonl").read_text().splitlines())
    assert (photo["file"], photo["captions"]) == ("a.png", ["a.png"])
    assert "the photos b.jpg and b.png have one id; neither gets" in summary.report.read_text()
