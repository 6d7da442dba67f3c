"""The streaming writer of region folders."""

import dataclasses
import json
import resource
import shutil
import tracemalloc

import numpy as np
import pytest

from mmt_jax import photo as photos
from mmt_jax.data import formats
from mmt_jax.data.writer import FolderWriter
from mmt_jax.errors import UsageError
from mmt_jax.files import tidy, whole_folder
from mmt_jax.photo import BOXES, FEATURES, Photo, image_id

ROWS = photos.rows(
    np.array([[1, 4], [1.5, 2]], np.float32),
    np.array([[0.25, 0, 0.5, 1], [0, 0, 1, 1]], np.float32),
    scores=np.array([0.5, 1], np.float32),
    class_ids=np.array([[2, 3], [0, 1]]),
    class_probs=np.array([[1, 0], [0.5, 0.25]], np.float32),
)
PHOTO = Photo(
    image_id=7,
    captions=("a dog", "ein Hündchen"),
    rows=ROWS,
    info={"width": 640, "file_name": "7.jpg"},
)
OTHER = dataclasses.replace(PHOTO, image_id=-3, captions=("two cats",), info={})


def changed(photo, **rows):
    """The photo with other rows, by the last part of their keys; None drops one."""
    found = photo.rows | {
        next((key for key in photo.rows if key.endswith(name)), f"image/{name}"): values
        for name, values in rows.items()
    }
    kept = {key: values for key, values in found.items() if values is not None}
    return dataclasses.replace(photo, rows=kept)


def write(folder, wanted, **options):
    with FolderWriter(folder, "train", **options) as writer:
        for photo in wanted:
            writer.add(photo)


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "a" / "b", [PHOTO, OTHER], num_classes=5)
    corpus = formats.read(tmp_path / "a" / "b", "train")
    assert corpus.image_ids.tolist() == [7, -3]
    assert corpus.captions == (("a dog", "ein Hündchen"), ("two cats",))
    assert corpus.offsets.tolist() == [0, 2, 4]
    assert corpus.rows.keys() == ROWS.keys()
    assert corpus.rows[FEATURES].dtype == np.float16
    for key, values in ROWS.items():
        np.testing.assert_array_equal(corpus.rows[key], np.concatenate([values, values]))
    assert corpus.rows[BOXES].tolist() == [[0.25, 0, 0.5, 1, 0.25], [0, 0, 1, 1, 1]] * 2
    assert corpus.num_classes == 5
    # As published: the whole photo first, and a box of four numbers.
    with np.load(tmp_path / "a" / "b" / "train.npz") as file:
        assert file["features"].tolist() == [[1.5, 2], [1, 4]] * 2
        assert file["boxes"].tolist() == [[0, 0, 1, 1], [0.25, 0, 0.5, 1]] * 2
        assert file["class_ids"].tolist() == [[0, 1], [2, 3]] * 2
    first = json.loads((tmp_path / "a" / "b" / "train.jsonl").read_text().splitlines()[0])
    assert (first["width"], first["file_name"]) == (640, "7.jpg")


def test_float32_keeps_what_float16_cannot_hold(tmp_path):
    large = changed(PHOTO, features=ROWS[FEATURES] * 1e6)
    with pytest.raises(UsageError, match=r"photo 7: features reach 4e\+06.*store float32"):
        write(tmp_path, [large])
    write(tmp_path, [large], dtype="float32")
    kept = formats.read(tmp_path, "train").rows[FEATURES]
    np.testing.assert_array_equal(kept, large.rows[FEATURES])


def test_a_refused_photo_leaves_no_trace(tmp_path):
    with FolderWriter(tmp_path, "train") as writer:
        writer.add(PHOTO)
        for _ in range(2):
            with pytest.raises(UsageError, match="photo 7 is there twice"):
                writer.add(PHOTO)
        with pytest.raises(UsageError, match="NaN"):
            writer.add(changed(OTHER, features=ROWS[FEATURES] * np.nan))
        writer.add(OTHER)
        assert len(writer) == 2
    assert formats.read(tmp_path, "train").image_ids.tolist() == [7, -3]


def _boxes(*row):
    return {"bboxes": photos.with_area(np.array([row, [0, 0, 1, 1]], np.float32))}


BAD_ROWS = {
    "no rows": ({"features": np.zeros((0, 2), np.float32)}, r"features has shape \(0, 2\)"),
    "companded": ({"features": np.zeros((2, 2), np.uint8)}, "not stored as float16"),
    "narrow": ({"features": np.zeros((2, 1), np.float32)}, r"features has the shape \[…, 1\]"),
    "fewer boxes": ({"bboxes": ROWS[BOXES][:1]}, r"image/bboxes \(1, 5\)"),
    "whole first": ({"bboxes": ROWS[BOXES][::-1]}, "the last row is the whole photo"),
    "inverted": (_boxes(0.5, 0, 0.25, 1), "boxes row 1 .*inverted"),
    "pixels as boxes": (_boxes(5, 0, 25, 1), "boxes row 1 .*outside 0..1"),
    "nan scores": ({"scores": np.array([np.inf, 1])}, "scores holds NaN or infinity in row 1"),
    "no scores": ({"scores": None}, "scores is missing"),
    "no probs": ({"class_probs": None}, "need each other"),
    "class beyond": ({"class_ids": np.array([[2, 9], [0, 1]])}, "from 0 to 9, but there are 9"),
    "probs": ({"class_probs": np.full((2, 2), 0.75)}, "sum to at most 1"),
    "class of 64 bits": ({"class_ids": np.array([[2, 2**32], [0, 1]])}, "to 4294967296, but"),
}
BAD = {
    "surrogate": ({"captions": ("\ud800",)}, "must be plain text"),
    "nan in info": ({"info": {"scale": np.nan}}, "must be plain text"),
    "huge id": ({"image_id": 2**63}, "64 bits"),
}


@pytest.mark.parametrize("case", BAD | BAD_ROWS)
def test_bad_photos(tmp_path, case):
    if case in BAD:
        changes, message = BAD[case]
        bad = dataclasses.replace(OTHER, **changes)
    else:
        changes, message = BAD_ROWS[case]
        bad = changed(OTHER, **changes)
    with FolderWriter(tmp_path, "train", num_classes=9) as writer:
        writer.add(PHOTO)
        with pytest.raises(UsageError, match=rf"photo {bad.image_id}.*{message}"):
            writer.add(bad)


def test_ids_fit_into_32_bits_where_nobody_says_how_many_there_are(tmp_path):
    with FolderWriter(tmp_path, "train") as writer:
        writer.add(PHOTO)
        with pytest.raises(UsageError, match="to 4294967296"):
            writer.add(changed(OTHER, class_ids=np.array([[2, 2**32], [0, 1]])))


@pytest.mark.parametrize("there", ["train.npz", "train.jsonl"])
def test_nothing_is_overwritten(tmp_path, there):
    (tmp_path / there).write_text("mine")
    with pytest.raises(UsageError, match=f"{there} exists"):
        write(tmp_path, [PHOTO])
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_split_is_not_there(tmp_path, error):
    def stopping():
        yield PHOTO
        raise error

    with pytest.raises(error):
        write(tmp_path, stopping())
    assert list(tmp_path.iterdir()) == []


def test_a_split_without_photos_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no photo"):
        write(tmp_path, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("split", ["", "../train"])
def test_a_split_has_a_plain_name(tmp_path, split):
    with pytest.raises(UsageError, match="cannot name a split"):
        FolderWriter(tmp_path, split)


@pytest.mark.parametrize("room", [100, 400_000])  # for no column, and for each but not for all
def test_a_full_disk_leaves_nothing(tmp_path, room):
    """The limit on the size of a file stands in for the end of the disk."""
    generator = np.random.default_rng(0)
    features = generator.random((2, 75_000), np.float32)
    pixels = generator.integers(256, size=(300, 300, 3), dtype=np.uint8)
    photo = dataclasses.replace(changed(PHOTO, features=features), pixels=pixels)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(UsageError, match=f"{tmp_path} cannot be written.*make room"):
            write(tmp_path, [photo])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next(tmp_path):
    with FolderWriter(tmp_path, "train") as killed:
        killed.add(PHOTO)
        (parts,) = tmp_path.iterdir()
        left = shutil.copytree(parts, tmp_path / "copy")
        killed.add(OTHER)
    for path in tmp_path.glob("train.*"):
        path.unlink()
    left.rename(parts)
    write(tmp_path, [OTHER])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.jsonl", "train.npz"]


def test_a_split_that_another_is_writing_is_refused(tmp_path):
    pytest.importorskip("fcntl")
    with FolderWriter(tmp_path, "train") as writer:
        writer.add(PHOTO)
        with pytest.raises(
            UsageError, match=r"another run is writing the split 'train' of .*; wait"
        ):
            write(tmp_path, [OTHER])
        FolderWriter(tmp_path, "dev")
    assert formats.read(tmp_path, "train").image_ids.tolist() == [PHOTO.image_id]


@pytest.mark.parametrize("found", [True, False])
def test_only_folders_that_are_new_and_empty_go(tmp_path, found):
    def stopped():
        write(folder, [PHOTO])
        raise KeyboardInterrupt

    folder = tmp_path / "a" / "b"
    if found:
        folder.mkdir(parents=True)
    with pytest.raises(UsageError, match="would hold no photo"), tidy(folder):
        write(folder, [])
    assert folder.exists() == folder.parent.exists() == found
    with pytest.raises(KeyboardInterrupt), tidy(folder):
        stopped()
    assert len(list(folder.iterdir())) == 2


def test_memory_does_not_grow_with_the_split(tmp_path):
    features = np.zeros((37, 2048), np.float32)
    boxes = np.tile(np.array([[0, 0, 1, 1]], np.float32), (37, 1))
    tracemalloc.start()
    try:
        photo = Photo(image_id=0, captions=(), rows=photos.rows(features, boxes))
        write(tmp_path, (dataclasses.replace(photo, image_id=i) for i in range(100)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6e6  # one photo is 0.3 MB, the split 15 MB


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("1000092795.jpg", 1000092795),
        ("val2014/COCO_val2014_000000393225.jpg", 393225),
        ("flickr30k_000001000092795.npz", 1000092795),
        ("vg_713545", 713545),
        ("000000000139", 139),
        ("raw/train2017/000000000139.jpg", 139),
        ("VG_100K_2/7.jpg", 7),
    ],
)
def test_ids_of_names_that_number(name, number):
    assert image_id(name) == number


def test_ids_of_other_names():
    """`printf dev-850-1-img0 | sha256sum` begins with c26d16d088aec3ec."""
    named = image_id("dev-850-1-img0")
    assert named == 0xC26D16D088AEC3EC >> 1
    assert named == image_id("images/dev-850-1-img0.png") != image_id("dev-850-1-img1")
    assert named == image_id("nlvr2_dev-850-1-img0.npz") == image_id("dev-850-1-img0.png.npz")
    assert image_id("1000268201_693b08cb0e.jpg") == image_id("x/1000268201_693b08cb0e")
    assert image_id("COCO_val2014_000000393225.jpg.npy") == 393225
    different = ["a/7.jpg", "b/7.jpg", "7.jpg", "0007.jpg", "x_7.jpg", "7.v1.jpg", "7.v2.jpg"]
    assert len(set(map(image_id, different))) == len(different)
    assert image_id("a/7.jpg") == image_id("./a/7.JPEG") == image_id("a/7")


def test_a_folder_is_whole_or_not_there(tmp_path):
    def fails():
        with whole_folder(tmp_path / "new" / "out") as part:
            part.mkdir()
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert list(tmp_path.rglob("*")) == [tmp_path / "new"]
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with whole_folder(tmp_path / "link") as part:
        part.mkdir()
        (part / "x").write_text("3")
    assert (tmp_path / "disk" / "x").read_text() == "3"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="cannot be written"), whole_folder(tmp_path / "file/x"):
        raise AssertionError("not reached")
    assert (tmp_path / "file").read_text() == "mine"
