"""Features of published layouts become region folders."""

import json
import pathlib
import shutil

import convert_samples as samples
import numpy as np
import pytest

from mmt_jax.cli import main
from mmt_jax.data import formats
from mmt_jax.errors import UsageError
from mmt_jax.ingest.features import FORMATS
from mmt_jax.ingest.features.convert import convert
from mmt_jax.photo import BOXES, IDS

COCO = pathlib.Path(__file__).parents[2] / "shared" / "data" / "coco_val2017" / "annotations.jsonl"


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def captions(tmp_path):
    return samples.captions(tmp_path)


def read(folder, split="train"):
    """The split as it is read, and its arrays as they are published."""
    with np.load(folder / f"{split}.npz") as file:
        return formats.read(folder, split), {name: file[name] for name in file.files}


def test_a_photo_of_regions_alone_becomes_a_record(tmp_path, source, captions, capsys):
    out, record = tmp_path / "out", tmp_path / "photo.npz"
    convert("lxmert-tsv", samples.lxmert(source), out, captions_file=captions)
    argv = ["record", f"--data=regions:{out}", "--split=train"]
    assert main.main([*argv, f"--out={record}"]) == 0
    assert capsys.readouterr().out == "a room\na table\n"
    with np.load(record) as found:
        assert "photo/picture" not in found
        features = found["image/detection_features"]
    np.testing.assert_array_equal(features, [*samples.ROWS[1:3], samples.ROWS[0]])
    assert main.main([*argv, "--pixels", f"--out={tmp_path / 'pixels.npz'}"]) == 2
    assert "pixels is missing" in capsys.readouterr().err


@pytest.mark.parametrize("case", samples.DETECTED)
def test_each_layout_becomes_the_same_folder(tmp_path, source, captions, case):
    format, write, classes = samples.DETECTED[case]
    summary = convert(format, write(source), tmp_path / "out", captions_file=captions)
    assert (summary.photos, summary.captions, summary.left) == (2, 3, {})
    assert not list((tmp_path / "out").glob("*skipped*"))
    corpus, arrays = read(tmp_path / "out")
    assert corpus.image_ids.tolist() == samples.IMAGE_IDS
    assert corpus.captions == (("a room", "a table"), ("a bear",))
    assert corpus.offsets.tolist() == samples.OFFSETS
    assert arrays["features"].dtype == np.float16
    np.testing.assert_array_equal(arrays["features"], samples.ROWS)
    half = format == "uniter-npz"  # its boxes are float16
    np.testing.assert_allclose(arrays["boxes"], samples.CORNERS, atol=1e-3 if half else 1e-6)
    if classes == "all":
        assert corpus.num_classes == 5
        assert arrays["class_ids"].tolist() == [
            [0, 0, 0, 0, 0],
            [4, 2, 3, 0, 1],
            [0, 1, 2, 3, 4],
            [0, 0, 0, 0, 0],
            [2, 0, 1, 3, 4],
        ]
        assert arrays["class_probs"][1].tolist() == [0.625, 0.25, 0.125, 0, 0]
        assert not arrays["class_probs"][[0, 3]].any()  # the whole photo is of no class
    elif classes == "likeliest":
        assert arrays["class_ids"][[1, 2, 4]].tolist() == [[4], [0], [2]]
        assert arrays["class_probs"][[1, 2, 4]].tolist() == [[0.625], [0.5], [1]]
    else:
        assert "class_ids" not in arrays
    if classes:
        assert arrays["scores"].tolist() == [1, 0.625, 0.5, 1, 1]


@pytest.mark.parametrize(
    ("format", "write"), [("lxmert-tsv", samples.lxmert), ("lxmert-h5", samples.h5)]
)
def test_attributes_are_kept_as_classes_are_and_sizes_in_the_lines(
    tmp_path, source, captions, format, write
):
    convert(format, write(source), tmp_path / "out", captions_file=captions)
    line = json.loads((tmp_path / "out" / "train.jsonl").read_text().splitlines()[0])
    assert (line["name"], line["width"], line["height"]) == (samples.NAMES[0], 640, 480)
    corpus, arrays = read(tmp_path / "out")
    assert corpus.num_attributes == 12
    assert arrays["attribute_ids"][:3].tolist() == [[0], [11], [7]]  # the whole photo has none
    assert arrays["attribute_probs"][:3].tolist() == [[0], [0.5], [0.5]]


@pytest.mark.parametrize("format", samples.ANNOTATED_FORMATS)
def test_annotated_boxes(tmp_path, source, captions, format):
    """Categories are bed, table: features are their one-hot, ymin, xmin, ymax, xmax, area."""
    path = samples.ANNOTATED_FORMATS[format](source)
    given = {} if FORMATS[format].captions else {"captions_file": captions}
    convert(format, path, tmp_path / "out", dtype="float32", **given)
    corpus, arrays = read(tmp_path / "out")
    assert (tmp_path / "out" / "categories.txt").read_text() == "bed\ntable\n"
    assert corpus.captions == (("a room", "a table"), ("a bear",))
    assert corpus.offsets.tolist() == [0, 4, 5]
    expected = [
        [1 / 3, 2 / 3, 0, 0, 1, 1, 1],
        [0, 1, 0.1, 0.1, 0.5, 0.5, 0.16],
        [1, 0, 0, 0, 1, 1, 1],
        [0, 1, 0, 0, 0.5, 1, 0.5],
        [0, 0, 0, 0, 1, 1, 1],
    ]
    np.testing.assert_allclose(arrays["features"], expected, atol=1e-6)
    np.testing.assert_allclose(arrays["boxes"], arrays["features"][:, 2:6])
    assert corpus.num_classes == 2
    assert arrays["class_ids"][1:4].tolist() == [[1], [0], [1]]
    assert arrays["class_probs"].tolist() == [[0], [1], [1], [1], [0]]


def test_splits_of_a_folder_share_their_categories(tmp_path, source):
    convert("boxes-jsonl", samples.boxes_jsonl(source), tmp_path / "out")
    row = samples.ANNOTATED[0] | {"boxes": [{"xyxy": [0, 0, 8, 8], "category": "table"}]}
    other = row | {"image_id": 9, "boxes": [{"xyxy": [0, 0, 8, 8], "category": "zebra"}]}
    (source / "val.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(other) + "\n")
    summary = convert("boxes-jsonl", source / "val.jsonl", tmp_path / "out", split="val")
    assert (summary.photos, summary.left) == (1, {"damaged": 1})
    assert "zebra" in summary.first
    assert read(tmp_path / "out", "val")[1]["class_ids"].tolist() == [[0], [1]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])  # as Windows begins files
@pytest.mark.parametrize("name", samples.CAPTION_FILES)
def test_captions_of_each_layout(tmp_path, source, name, encoding):
    (tmp_path / name).write_text(samples.CAPTION_FILES[name], encoding=encoding)
    path = samples.bottom_up(source)
    summary = convert("bottom-up-tsv", path, tmp_path / "out", captions_file=tmp_path / name)
    assert summary.left == {}
    assert formats.read(tmp_path / "out", "train").captions == (("a room",), ("a bear",))


def test_what_has_no_counterpart_is_counted_and_listed(tmp_path, source):
    (tmp_path / "c.token").write_text("139.jpg#0\ta room\n139.jpg#1\t \n7.jpg#0\ta cat\nno tab\n")
    path = samples.bottom_up(source)
    summary = convert("bottom-up-tsv", path, tmp_path / "out", captions_file=tmp_path / "c.token")
    assert summary.photos == 1
    assert summary.left == {
        "damaged caption": 2,
        "without caption": 1,
        "caption without photo": 1,
    }
    rows = [json.loads(line) for line in summary.report.read_text().splitlines()]
    assert [(row["kind"], row["where"]) for row in rows] == [
        ("without caption", f"{path}:2"),
        ("damaged caption", f"{tmp_path}/c.token:2"),
        ("damaged caption", f"{tmp_path}/c.token:4"),
        ("caption without photo", f"{tmp_path}/c.token"),
    ]
    assert "photo 7 has captions, but was not written" in rows[3]["reason"]


def test_karpathys_splits_must_be_named(tmp_path, source):
    (tmp_path / "k.json").write_text(samples.CAPTION_FILES["dataset_coco.json"])
    path = samples.bottom_up(source)
    with pytest.raises(UsageError, match="Karpathy's splits; --split is one of"):
        convert(
            "bottom-up-tsv", path, tmp_path / "o", captions_file=tmp_path / "k.json", split="dev"
        )
    with pytest.raises(UsageError, match="has no photo to write; the first reason"):
        convert(
            "bottom-up-tsv", path, tmp_path / "o", captions_file=tmp_path / "k.json", split="test"
        )
    assert not (tmp_path / "o").exists()


def test_without_captions_there_are_features_alone(tmp_path, source):
    summary = convert("vinvl-tsv", samples.vinvl(source), tmp_path / "out")
    assert (summary.photos, summary.captions, summary.left) == (2, 0, {})
    with np.load(tmp_path / "out" / "train.npz") as file:
        np.testing.assert_array_equal(file["features"], samples.ROWS)


def test_the_command(tmp_path, source, captions, capsys):
    path = samples.lxmert(source)
    path.write_text(path.read_text() + "what\tis this\n")
    out = tmp_path / "out"
    arguments = [f"--in={path}", f"--out={out}", f"--captions={captions}", "--split=val"]
    assert main.main(["data", "convert", "--format=lxmert-tsv", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "skipped: 1 damaged; the first:" in printed
    assert f"{path}:3: 2 fields between tabs, it must have 10" in printed
    assert f"{out} holds 2 photos and 3 captions" in printed
    assert len(formats.read(out, "val")) == 2
    assert main.main(["data", "convert", "--format=lxmert-tsv", *arguments]) == 2
    assert "val.npz exists" in capsys.readouterr().err
    assert main.main(["data", "convert", "--format=lxmert", *arguments]) == 2
    assert "unknown format 'lxmert'" in capsys.readouterr().err


@pytest.mark.skipif(not COCO.exists(), reason="COCO's annotations are not here")
def test_coco_val2017(tmp_path):
    """A real file, into a batch as training draws it."""
    from mmt_jax.configs.config import Config, DataConfig
    from mmt_jax.data import sources
    from mmt_jax.data.pipeline import Examples

    with open(COCO, encoding="utf-8") as file:
        head = [next(file) for _ in range(300)]
    (tmp_path / "head.jsonl").write_text("".join(head), encoding="utf-8")
    summary = convert("boxes-jsonl", tmp_path / "head.jsonl", tmp_path / "coco")
    assert (summary.photos, summary.left) == (300, {})
    source = f"regions:{tmp_path / 'coco'}"
    config = Config(data=DataConfig(source=source, vocab_size=500))
    corpora = sources.load(source, "train")
    names = (tmp_path / "coco" / "categories.txt").read_text().splitlines()
    first = json.loads(head[0])
    x1, y1, x2, y2 = first["boxes"][0]["xyxy"]
    size = np.array([first["height"], first["width"]] * 2)
    rows = corpora[0].rows
    np.testing.assert_allclose(rows[BOXES][0, :4], [y1, x1, y2, x2] / size, atol=1e-6)
    assert names[rows[IDS["class"]][0, 0]] == first["boxes"][0]["category"]
    examples = Examples.of(config, corpora, sources.tokenizer(config))
    batch = examples.batch(np.array([0, 299]), np.array([0, 5]))
    assert batch.image.features.shape[-1] == len(names) + 5
    np.testing.assert_array_equal(batch.image.features[0, -1, -5:], [0, 0, 1, 1, 1])


def test_sizes_that_numpy_kept_as_objects_are_read(tmp_path, source):
    """As np.savez writes what is None or of several types; no code of a pickle runs."""
    path = samples.npz(source)
    for file in path.iterdir():
        arrays = dict(np.load(file))
        sizes = {name: np.array(int(arrays[name]), object) for name in ("image_w", "image_h")}
        np.savez(file, **arrays | sizes)
    lines = [{"image_id": f"{file.stem}.jpg", "captions": ["so"]} for file in path.iterdir()]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    summary = convert("npz", path, tmp_path / "out", captions_file=tmp_path / "c.jsonl")
    assert (summary.photos, summary.left) == (len(lines), {})


def test_features_are_joined_by_their_whole_name(tmp_path, source):
    path = samples.npz(source)
    for name in ("n02086240_7", "n02123045_7", "00000007", "7", "clip.v1", "clip.v2"):
        shutil.copy(path / f"{samples.NAMES[0]}.npz", path / f"{name}.npz")
    names = sorted(file.stem for file in path.iterdir())
    lines = [{"image_id": f"{name}.jpg", "captions": [f"of {name}"]} for name in names]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    summary = convert("npz", path, tmp_path / "out", captions_file=tmp_path / "c.jsonl")
    assert (summary.photos, summary.left) == (8, {})
    for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines():
        photo = json.loads(line)
        assert photo["captions"] == [f"of {photo['name']}"]
