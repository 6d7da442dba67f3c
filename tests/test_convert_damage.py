"""Damaged features: a photo is left out by name, or the file is refused; nothing else happens.

The fuzz mutates the bytes of valid files of each layout. Longer: `FUZZ=2000 pytest
tests/test_convert_damage.py -k fuzz`.
"""

import contextlib
import io
import json
import os
import pickle
import resource
import shutil
import struct
import sys
import tracemalloc
import zipfile

import convert_samples as samples
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from mmt_jax.data import captions, formats
from mmt_jax.errors import UsageError
from mmt_jax.ingest import boxes as boxes_lib
from mmt_jax.ingest.features import tsv
from mmt_jax.ingest.features.convert import convert

LAYOUTS = {case: row[:2] for case, row in samples.DETECTED.items()}
LAYOUTS |= {name: (name, write) for name, write in samples.ANNOTATED_FORMATS.items()}
EXAMPLES = int(os.environ.get("FUZZ", "6"))


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def converted(tmp_path, format, path):
    """What is left out of a conversion, and what the folder holds."""
    summary = convert(format, path, tmp_path / "out")
    with np.load(tmp_path / "out" / "train.npz") as file:
        return summary, file["image_ids"].tolist()


def with_line(path, line):
    """The file with one more line, which is damaged."""
    with open(path, "ab") as file:
        file.write((line.encode() if isinstance(line, str) else line) + b"\n")
    return path


B64 = samples.b64
TWO = np.array([[0, 0, 8, 8], [4, 4, 9, 9]], np.float32)
FEATURES = np.ones((2, 3), np.float32)


def row(boxes=TWO, features=FEATURES, name=7, size=(10, 10), count=2):
    return "\t".join(map(str, [name, *size, count, B64(boxes), B64(features)]))


def _box(*values):
    return {"boxes": np.array([[0, 0, 8, 8], values], np.float32)}


ROWS = {
    "few fields": ("7\t10", "2 fields between tabs, it must have 6 or 7"),
    "no number": (row(count="two"), "num_boxes is no whole number"),
    "no regions": (row(count=0), "num_boxes is 0, it must be from 1 to 10000"),
    "absurd count": (row(count=10**12), "num_boxes is 1000000000000, it must be"),
    "count of others": (row(count=3), "boxes has 32 bytes; 3 regions need a multiple of 12"),
    "cut": (row()[:-3], "features is no base64"),
    "no width": (row(size=(0, 10)), "image_w is 0"),
    "nan": (row(features=FEATURES * np.nan), "photo 7: features holds NaN"),
    "large": (row(features=FEATURES * 1e6), "store float32"),
    "outside": (row(**_box(0, 0, 4, 12)), "box 1 is .*outside the photo"),
    "inverted": (row(**_box(5, 5, 4, 6)), "box 1 is .*inverted.*xyxy pixels"),
    "normalised": (row(boxes=TWO / 10), "look normalised"),
    "xywh": (row(boxes=np.array([[6, 6, 2, 2], [1, 1, 8, 8]], "f4")), "box 0 is .*inverted"),
    "twice": (row(name=139), "photo 139 is there twice"),
    "narrower": (row(features=FEATURES[:, :2]), r"features has the shape \[…, 2\], but"),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_damaged_row_is_left_out_by_file_and_line(tmp_path, source, case):
    line, message = ROWS[case]
    path = with_line(samples.bottom_up(source), line)
    summary, image_ids = converted(tmp_path, "bottom-up-tsv", path)
    assert image_ids == samples.IMAGE_IDS
    assert summary.left == {"damaged": 1}
    (report,) = [json.loads(text) for text in summary.report.read_text().splitlines()]
    assert report["where"] == f"{path}:3"
    assert report["reason"] == summary.first
    assert f"{path}:3" in summary.first
    with pytest.raises(UsageError, match=message):
        raise UsageError(report["reason"])


def lxmert(ids):
    table = [B64(np.array(ids)), B64(np.ones(2, np.float32))] * 2
    return "\t".join(map(str, [7, 10, 10, *table, 2, B64(TWO), B64(FEATURES)]))


@pytest.mark.parametrize("ids", [[0, -1], [0, 2**32 + 1]])
def test_classes_beyond_any_detectors(tmp_path, source, ids):
    path = with_line(samples.lxmert(source), lxmert(ids))
    summary, image_ids = converted(tmp_path, "lxmert-tsv", path)
    assert image_ids == samples.IMAGE_IDS
    assert f"{path}:3: class ids run from" in summary.first


def test_numbers_of_classes_that_disagree(tmp_path, source):
    path = samples.npz(source)
    probs = np.full((2, 4), 0.25, np.float32)
    np.savez(path / "x.npz", x=FEATURES, bbox=TWO, image_w=10, image_h=10, cls_prob=probs)
    summary, _ = converted(tmp_path, "npz", path)
    assert "4 classes, the photos before it 5" in summary.first


def test_memory_does_not_grow_with_the_file(tmp_path, source):
    wide = np.zeros((2, 20_000), np.float32)
    line = row(features=wide).removeprefix("7")
    (source / "x.tsv").write_text("".join(f"{name}{line}\n" for name in range(100)))
    tracemalloc.start()
    try:
        _, image_ids = converted(tmp_path, "bottom-up-tsv", source / "x.tsv")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(image_ids) == 100
    assert peak < 5e6  # the file has 21 MB


def test_rounding_is_cut_off(tmp_path, source):
    path = with_line(samples.bottom_up(source), row(**_box(-0.75, 0, 10.5, 10)))
    summary = convert("bottom-up-tsv", path, tmp_path / "out")
    assert summary.left == {}
    with np.load(tmp_path / "out" / "train.npz") as file:
        assert file["boxes"][-1].tolist() == [0, 0, 1, 1]


def test_a_photo_without_end_of_line_does_not_fill_memory(tmp_path, source):
    path = with_line(samples.bottom_up(source), b"7\t" + b"A" * (tsv.MAX_LINE + 1000))
    with_line(path, row())
    tracemalloc.start()
    try:
        summary, image_ids = converted(tmp_path, "bottom-up-tsv", path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert image_ids == [*samples.IMAGE_IDS, 7]
    assert summary.first.startswith(f"{path}:3: 2 fields")
    assert peak < 4e6


NOTHING = {
    "gzip": (b"\x1f\x8b\x08\x00", "packed by gzip"),
    "empty": (b"", "has no photo to write"),
    "binary": (bytes(range(256)) * 9, "no photo to write; the first reason: .*fields between tabs"),
}


@pytest.mark.parametrize("case", NOTHING)
def test_a_file_that_is_none_leaves_nothing(tmp_path, source, case):
    data, message = NOTHING[case]
    (source / "x.tsv").write_bytes(data)
    with pytest.raises(UsageError, match=message):
        convert("bottom-up-tsv", source / "x.tsv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "case", ["lxmert-tsv", "npz", "volta-h5", "vilbert-lmdb", "coco-instances"]
)
def test_what_is_not_there_or_of_another_kind(tmp_path, source, case):
    format, write = LAYOUTS[case]
    write(source)
    other = tmp_path / "other"
    if write(source) == source:
        other.write_text("a file")
    else:
        other.mkdir()
    for path in (tmp_path / "absent", other):
        with pytest.raises(UsageError, match=str(path)):
            convert(format, path, tmp_path / "out")


def test_a_full_disk_is_no_damaged_photo(tmp_path, source):
    path = samples.bottom_up(source)
    for name in range(200, 300):
        wide = np.random.default_rng(name).random((2, 1000), np.float32)
        with_line(path, row(name=name, features=wide))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[2:]))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(UsageError, match=r"cannot be written.*make room"):
            convert("bottom-up-tsv", path, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert not (tmp_path / "out").exists()


# Pickles, archives and stores.


class Runs:
    def __reduce__(self):
        return os.mkdir, ("/tmp/must-not-be",)


def test_code_in_a_pickle_does_not_run(tmp_path, source):
    path = samples.mmt(source)
    (path / "7.pkl").write_bytes(pickle.dumps({"image/bboxes": Runs()}))
    summary, image_ids = converted(tmp_path, "mmt-pickle", path)
    assert image_ids == samples.IMAGE_IDS
    assert "7.pkl asks for posix.mkdir" in summary.first
    assert not os.path.exists("/tmp/must-not-be")


def test_code_in_an_lmdb_does_not_run(tmp_path, source):
    import lmdb

    path = samples.mmf_lmdb(source)
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"7", pickle.dumps(Runs()))
        transaction.put(b"8", pickle.dumps([1]))
        transaction.put(b"9", pickle.dumps({"features": 5}))
    summary, image_ids = converted(tmp_path, "mmf-lmdb", path)
    assert image_ids == samples.IMAGE_IDS
    reasons = [json.loads(line)["reason"] for line in summary.report.read_text().splitlines()]
    assert ["posix.mkdir" in reasons[0], "holds a list" in reasons[1]] == [True, True]
    assert "the field features is missing or no array" in reasons[2]


def npy(shape, data=b"", dtype="<f4"):
    file = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + data


def test_an_archive_that_unpacks_without_end(tmp_path, source):
    """Arrays that say they hold a gigabyte and four terabytes of zeros."""
    path = samples.npz(source)
    for name, shape in (("7", (1 << 28, 1)), ("8", (1 << 40, 1))):
        archive = zipfile.ZipFile(path / f"{name}.npz", "w", zipfile.ZIP_DEFLATED)
        with archive, archive.open("x.npy", "w") as member:
            member.write(npy(shape))
            for _ in range(16):
                member.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    summary, image_ids = converted(tmp_path, "npz", path)
    assert image_ids == samples.IMAGE_IDS
    assert summary.left == {"damaged": 2}
    assert "7.npz needs more memory than a photo takes" in summary.first
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_openvqas_arrays_are_refused_by_name(tmp_path, source):
    path = samples.npz(source)
    x = np.ones((3, 2), np.float32)
    np.savez(path / "7.npz", x=x, bbox=TWO, num_bbox=2, image_w=10, image_h=10)
    summary, _ = converted(tmp_path, "npz", path)
    assert "transposed as OpenVQA has it; store it as [n, F]" in summary.first


@pytest.mark.parametrize("format", ["npz", "mmt-pickle"])
def test_links_that_lead_out_of_the_folder(tmp_path, source, format):
    path = LAYOUTS[format][1](source)
    suffix = ".npz" if format == "npz" else ".pkl"
    first = sorted(source.glob(f"*{suffix}"))[0]
    shutil.copy(first, tmp_path / f"secret{suffix}")
    (path / f"7{suffix}").symlink_to(tmp_path / f"secret{suffix}")
    (path / f"8{suffix}").symlink_to(first)
    summary, image_ids = converted(tmp_path, format, path)
    assert sorted(image_ids) == [8, 139, 285]
    assert f"7{suffix} leads out of the folder" in summary.first


def test_links_in_hdf5(tmp_path, source):
    import h5py

    path = samples.h5(source)
    with h5py.File(path, "a") as file:
        file["a"] = h5py.ExternalLink(str(path), samples.NAMES[0])
        file["b"] = h5py.SoftLink(f"/{samples.NAMES[0]}")
        file["c"] = 5
        group = file.create_group("d")
        group["features"] = h5py.ExternalLink(str(path), f"{samples.NAMES[0]}/features")
        big = file.create_group("e")
        big.create_dataset("features", (1 << 20, 1 << 20), "f4", chunks=(1, 1024))
    summary, image_ids = converted(tmp_path, "volta-h5", path)
    assert sorted(image_ids) == samples.IMAGE_IDS
    reasons = [json.loads(line)["reason"] for line in summary.report.read_text().splitlines()]
    parts = ["is a link", "is a link", "features is missing", "is a link", "more memory"]
    assert [part in reason for part, reason in zip(parts, reasons, strict=True)] == [True] * 5


@pytest.mark.parametrize("case", ["volta-h5", "vilbert-lmdb"])
@pytest.mark.parametrize("keep", [0, 1000])
def test_stores_that_were_cut_off(tmp_path, source, case, keep):
    format, write = LAYOUTS[case]
    path = write(source)
    os.truncate(path / "data.mdb" if path.is_dir() else path, keep)
    with pytest.raises(UsageError, match=rf"{path} cannot be read as an (HDF5 file|LMDB)"):
        convert(format, path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Annotated boxes.

JSON_LINES = {
    "no json": ("{", "not JSON"),
    "deep": ("[" * 100_000, "not JSON"),
    "no id": ('{"image_id": "7"}', "`image_id` must be int"),
    "no boxes": ({"boxes": None}, "`boxes` must be list"),
    "three numbers": ({"boxes": [{"xyxy": [1, 2, 3], "category": "bed"}]}, "four numbers"),
    "nan": ({"boxes": [{"xyxy": [1, 2, 3, float("nan")], "category": "bed"}]}, "NaN"),
    "no category": ({"boxes": [{"xyxy": [1, 2, 3, 4]}]}, "`category` is missing"),
    "inverted": ({"boxes": [{"xyxy": [3, 2, 1, 4], "category": "bed"}]}, "inverted"),
    "no caption": ({"captions": []}, "photo 7 has no caption"),
    "one string": ({"captions": "a cat"}, "captions must be a list of strings"),
}


@pytest.mark.parametrize("case", JSON_LINES)
def test_damaged_annotations(tmp_path, source, case):
    line, message = JSON_LINES[case]
    if isinstance(line, dict):
        photo = {"image_id": 7, "width": 9, "height": 9, "boxes": [], "captions": ["a cat"]}
        line = json.dumps(photo | line)
    path = with_line(samples.boxes_jsonl(source), line)
    summary = convert("boxes-jsonl", path, tmp_path / "out")
    assert summary.photos == 2
    assert len(formats.read(tmp_path / "out", "train")) == 2
    with pytest.raises(UsageError, match=rf"annotations\.jsonl:3.*{message}|photo 7.*{message}"):
        raise UsageError(json.loads(summary.report.read_text())["where"] + summary.first)


@pytest.mark.parametrize(
    ("category", "message"),
    [
        ("a\nb", "a category is one line"),
        ("\ud800", "a category is one line"),
        (None, "names no category"),
    ],
)
def test_categories_that_cannot_be_kept(tmp_path, source, category, message):
    boxes = [{"xyxy": [0, 0, 1, 1], "category": category}] if category else []
    photo = {"image_id": 7, "width": 9, "height": 9, "boxes": boxes, "captions": ["a cat"]}
    (source / "x.jsonl").write_text(json.dumps(photo))
    with pytest.raises(UsageError, match=message):
        convert("boxes-jsonl", source / "x.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_empty_caption_among_others_is_told(tmp_path, source):
    photo = {"image_id": 7, "width": 9, "height": 9, "captions": ["a cat", " "]}
    boxes = [{"xyxy": [0, 0, 5, 5], "category": "cat"}]
    (source / "x.jsonl").write_text(json.dumps(photo | {"boxes": boxes}))
    summary = convert("boxes-jsonl", source / "x.jsonl", tmp_path / "out")
    assert (summary.captions, summary.left) == (1, {"damaged caption": 1})
    assert "x.jsonl:1: one of photo 7 is empty" in summary.first


def test_categories_of_a_split_that_fails_go_with_it(tmp_path, source):
    photo = {"image_id": 7, "width": 9, "height": 9, "captions": ["a cat"]}
    boxes = [{"xyxy": [0, 5, 9, 3], "category": "cat"}]
    (source / "x.jsonl").write_text(json.dumps(photo | {"boxes": boxes}))
    with pytest.raises(UsageError, match=r"no photo to write.*inverted"):
        convert("boxes-jsonl", source / "x.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_coco(tmp_path, source):
    path = samples.coco(source)
    document = json.loads(path.read_text())
    document["images"] += [{"id": 285}, {"id": 3, "width": 0, "height": 5}, "x"]
    box = [0, 0, 5, 5]
    document["annotations"] += [
        {"image_id": 99, "category_id": 3, "bbox": box},
        {"image_id": 139, "category_id": 3, "bbox": "box"},
        {"image_id": 1.5, "category_id": 3, "bbox": box},
        {"image_id": 139, "category_id": "bed", "bbox": box},
        None,
    ]
    document["images"].append({"id": 4, "width": 9, "height": 9})
    document["annotations"].append({"image_id": 4, "category_id": 8, "bbox": box})
    path.write_text(json.dumps(document))
    summary, image_ids = converted(tmp_path, "coco-instances", path)
    assert image_ids == samples.IMAGE_IDS
    reasons = [json.loads(line)["reason"] for line in summary.report.read_text().splitlines()]
    expected = [
        "the image 285 is there twice",
        "images[4]: 'x' is no object",
        "annotations[5]: `bbox` must be list",
        "annotations[6]: `image_id` must be int",
        "annotations[7]: `category_id` must be int",
        "annotations[8]: None is no object",
        "annotations are of the image 99",
        "images[3]: width is 0",
        "images[5]: the category 8 is not among",
    ]
    assert len(reasons) == len(expected)
    for part, reason in zip(expected, reasons, strict=True):
        assert part in reason


# Boxes.


@pytest.mark.slow
@hypothesis.settings(max_examples=100, derandomize=True, deadline=None, database=None)
@hypothesis.given(
    size=st.tuples(st.integers(5, 5000), st.integers(5, 5000)),
    corners=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_conventions_agree_on_the_same_box(size, corners):
    x1, x2 = sorted(corners[::2])
    y1, y2 = sorted(corners[1::2])
    hypothesis.assume(x2 * size[0] > 1 or y2 * size[1] > 1)
    w, h = size
    written = {
        "xyxy pixels": [x1 * w, y1 * h, x2 * w, y2 * h],
        "xyxy 0..1": [x1, y1, x2, y2],
        "yxyx 0..1": [y1, x1, y2, x2],
        "xywh pixels": [x1 * w, y1 * h, (x2 - x1) * w, (y2 - y1) * h],
    }
    assert set(written) == set(boxes_lib.CONVENTIONS)
    for convention, box in written.items():
        found = boxes_lib.placed(np.array([box]), convention, size, "it")
        np.testing.assert_allclose(found.corners, [[y1, x1, y2, x2]], atol=1e-6)
        assert not found.cut.any()


@pytest.mark.parametrize("format", ["coco-instances", "boxes-jsonl"])
def test_boxes_that_people_drew_are_cut_at_the_edge(tmp_path, source, format):
    """Of a photo of 100 × 50 pixels: as xyxy, and what is left of each in 0..1."""
    drawn = [(10, 10, 60, 40), (-3, 10, 50, 60), (90, -20, 300, 25), (10, 10, 60, 10)]
    drawn += [(120, 10, 130, 20), (0, 0, 100.5, 50)]
    left = [[0.2, 0.1, 0.8, 0.6], [0.2, 0, 1, 0.5], [0, 0.9, 0.5, 1], [0, 0, 1, 1]]
    if format == "boxes-jsonl":
        rows = [{"xyxy": box, "category": "dog"} for box in drawn]
        photo = {"image_id": 1, "width": 100, "height": 50, "captions": ["a dog"], "boxes": rows}
        text = json.dumps(photo)
    else:
        rows = [
            {"image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for x1, y1, x2, y2 in drawn
        ]
        images = [{"id": number, "width": 100, "height": 50} for number in (1, 2)]
        categories = [{"id": 1, "name": "dog"}]
        text = json.dumps({"images": images, "annotations": rows, "categories": categories})
    (source / "x").write_text(text)
    summary = convert(format, source / "x", tmp_path / "out", dtype="float32")
    assert (summary.cut, summary.left) == (2, {"box without area": 2})
    assert "cut at the edge of their photo: 2" in str(summary)
    with np.load(tmp_path / "out" / "train.npz") as file:
        boxes, features = file["boxes"][1:5], file["features"][1:5]
        assert file["image_ids"].tolist() == ([1] if format == "boxes-jsonl" else [1, 2])
    np.testing.assert_allclose(boxes, left, atol=1e-6)
    np.testing.assert_allclose(features[:, 1:5], left, atol=1e-6)


def test_a_detectors_boxes_a_little_outside_are_cut_too(tmp_path, source):
    """Regions that lie wholly outside go with their features; far outside is another convention."""
    boxes = np.array([[-3, 10, 50, 54], [101, 10, 105, 20], [10, 10, 20, 20]], np.float32)
    features = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    path = source / "x.tsv"
    path.write_text(row(boxes, features, size=(100, 50), count=3) + "\n")
    summary = convert("bottom-up-tsv", path, tmp_path / "out")
    assert (summary.cut, summary.left) == (1, {"box without area": 1})
    with np.load(tmp_path / "out" / "train.npz") as file:
        np.testing.assert_allclose(file["boxes"][1], [0.2, 0, 1, 0.5])
        assert file["features"].tolist() == [[3, 4], [1, 2], [5, 6]]


# What the fuzz found, kept.


@pytest.mark.parametrize("damage", ["signature", "shift"])
def test_hdf5_whose_list_of_groups_is_damaged(tmp_path, source, damage):
    """h5py raises RuntimeError or KeyError where it goes over names, not where it opens files."""
    path = samples.h5(source)
    data = path.read_bytes()
    shifted = data[:58] + bytes(4) + data[58:]
    path.write_bytes(data.replace(b"SNOD", b"SNOX") if damage == "signature" else shifted)
    with pytest.raises(UsageError, match="cannot be read as an HDF5 file"):
        convert("volta-h5", path, tmp_path / "out")


def test_lmdb_whose_lengths_are_damaged(tmp_path, source):
    """Reading such a value ends the process that reads: by SIGBUS or SIGSEGV, or with nonsense."""
    import lmdb

    path = samples.mmf_lmdb(source)
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"7", bytes(100_000))
    data = (path / "data.mdb").read_bytes()
    # A node: low and high 16 bits of the length, flags (1: on pages of its own), size of the key.
    node = struct.pack("<IHH", 100_000, 1, 1) + b"7"
    assert node in data
    longer = struct.pack("<IHH", 1 << 27, 1, 1) + b"7"
    (path / "data.mdb").write_bytes(data.replace(node, longer))
    with pytest.raises(UsageError, match=r"features\.lmdb cannot be read .*; copy it again"):
        convert("mmf-lmdb", path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# The fuzz.

NASTY = [b"\xff\xff\xff\x7f", b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"9999", b"-1", b"NaN", b"null"]


@st.composite
def damages(draw):
    """Place (as a share of the file), bytes that are dropped there, and bytes that come instead."""
    share = draw(st.floats(0, 1, exclude_max=True))
    drop = draw(st.sampled_from([0, 1, 1, 4, 16, sys.maxsize]))
    return share, drop, draw(st.one_of(st.binary(max_size=4), st.sampled_from(NASTY)))


def damaged(data, marks):
    for share, drop, insert in marks:
        at = int(share * len(data))
        data = data[:at] + insert + data[at + drop :]
    return data


def fuzz(run):
    settings = hypothesis.settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None
    )
    settings(
        hypothesis.given(
            which=st.integers(0, 3), marks=st.lists(damages(), min_size=1, max_size=3)
        )(run)
    )()


@pytest.mark.slow
@pytest.mark.parametrize("name", samples.CAPTION_FILES)
def test_fuzz_of_captions(tmp_path, name):
    def run(which, marks):
        data = samples.CAPTION_FILES[name].encode()
        (tmp_path / name).write_bytes(damaged(data, marks))
        with contextlib.suppress(UsageError):
            assert captions.read(tmp_path / name, "train").of

    fuzz(run)


@pytest.mark.slow
@pytest.mark.parametrize("case", LAYOUTS)
def test_fuzz(tmp_path_factory, case):
    format, write = LAYOUTS[case]
    good = tmp_path_factory.mktemp("good")
    relative = write(good).relative_to(good)

    def run(which, marks):
        bad = tmp_path_factory.mktemp("bad")
        shutil.copytree(good, bad / "in")
        files = sorted(path for path in (bad / "in").rglob("*") if path.is_file())
        files = [path for path in files if path.name != "lock.mdb"]
        victim = files[which % len(files)]
        victim.write_bytes(damaged(victim.read_bytes(), marks))
        with contextlib.suppress(UsageError):
            convert(format, bad / "in" / relative, bad / "out")
            assert (bad / "out" / "train.npz").exists()

    fuzz(run)
