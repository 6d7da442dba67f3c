"""Region folders and names of sources."""

import dataclasses
import json
import os
import pathlib

import numpy as np
import pytest

from mmt_jax.configs.config import Config, DataConfig, EvalConfig, MMTConfig
from mmt_jax.corpus import Corpus
from mmt_jax.data import formats, regions, sources
from mmt_jax.errors import UsageError
from mmt_jax.photo import BOXES, FEATURES, IDS, PROBS, rows
from mmt_jax.text import vocabulary
from mmt_jax.text.vocabulary import VOCABULARY

SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"
FLICKR = SHARED / "flickr8k_entities"
CLASS_IDS, CLASS_PROBS = IDS["class"], PROBS["class"]

ARRAYS = {
    "offsets": np.array([0, 2, 5]),
    "features": np.arange(20, dtype=np.float32).reshape(5, 4),
    "boxes": np.array([[0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]] * 2 + [[0.5, 0, 1, 0.5]], np.float32),
    "class_ids": np.array([[1, 2], [3, 4], [5, 6], [7, 8], [9, 0]], np.uint16),
    "class_probs": np.array([[0.6, 0.3]] * 5, np.float16),
}
LINES = [
    {"image_id": 7, "width": 4, "height": 3, "captions": ["a dog", "a brown dog"]},
    {"image_id": 8, "captions": ["two cats"]},
]


def store(folder, split="train", lines=LINES, **changes):
    """Writes the folder as a user would, with numpy and json; a change of None drops an array."""
    folder.mkdir(exist_ok=True)
    arrays = {k: v for k, v in (ARRAYS | changes).items() if v is not None}
    np.savez(folder / f"{split}.npz", **arrays)
    written = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / f"{split}.jsonl").write_text("".join(line + "\n" for line in written))
    return folder


def source(folder):
    (part,) = sources.parse(f"regions:{folder}")
    return part


def spec(folder):
    return source(folder).spec()


def test_reading_what_a_user_wrote(tmp_path):
    corpus = formats.read(store(tmp_path / "photos"), "train")
    assert len(corpus) == 2
    assert corpus.captions == (("a dog", "a brown dog"), ("two cats",))
    np.testing.assert_array_equal(corpus.image_ids, [7, 8])
    np.testing.assert_array_equal(corpus.offsets, [0, 2, 5])
    whole_last = [1, 0, 3, 4, 2]
    assert corpus.rows.keys() == {BOXES, FEATURES, CLASS_IDS, CLASS_PROBS}
    np.testing.assert_array_equal(corpus.rows[FEATURES], ARRAYS["features"][whole_last])
    np.testing.assert_array_equal(corpus.rows[CLASS_IDS], ARRAYS["class_ids"][whole_last])
    np.testing.assert_allclose(corpus.rows[CLASS_PROBS], ARRAYS["class_probs"][whole_last])
    expected = [[0.1, 0.2, 0.3, 0.4, 0.04], [0, 0, 1, 1, 1]] * 2
    expected.insert(3, [0.5, 0, 1, 0.5, 0.25])
    np.testing.assert_allclose(corpus.rows[BOXES], expected, rtol=1e-5)
    assert corpus.num_classes == 10
    assert corpus.rows[CLASS_IDS].dtype == np.int32
    assert corpus.rows[CLASS_PROBS].dtype == corpus.rows[BOXES].dtype == np.float32
    assert corpus.pixels is None
    assert "photos" in corpus.name


BOXED = np.array([[0, 0, 1, 1], [0.25, 0, 0.5, 1], [0, 0, 1, 1]], np.float32)


def _corpora():
    plain = Corpus(
        name="test",
        image_ids=np.array([3, 1], np.int64),
        offsets=np.array([0, 1, 3], np.int64),
        captions=(("a dog",), ("ein Hündchen", "日本")),
        rows=rows(np.arange(6, dtype=np.uint8).reshape(3, 2), BOXED),
    )
    yield plain
    yield dataclasses.replace(
        plain,
        rows=rows(
            np.ones((3, 2), np.float16),
            BOXED,
            scores=np.array([1, 0.25, 0.5], np.float32),
            class_ids=np.array([[0], [4], [1]], np.int32),
            class_probs=np.array([[1], [0.25], [0.5]], np.float32),
            attribute_ids=np.array([[0, 0], [4, 2], [1, 6]], np.int32),
            attribute_probs=np.array([[0, 0], [0.25, 0], [0.5, 0.25]], np.float32),
        ),
        num_classes=9,
        num_attributes=7,
        pixels=np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3),
    )


@pytest.mark.parametrize("corpus", list(_corpora()), ids=["least", "all"])
def test_write_then_read(tmp_path, corpus):
    folder = tmp_path / "new" / "folder"
    formats.write(corpus, folder, "val")
    assert sorted(p.name for p in folder.iterdir()) == ["val.jsonl", "val.npz"]
    read = formats.read(folder, "val", pixels=corpus.pixels is not None)
    for name in {field.name for field in dataclasses.fields(Corpus)} - {"name", "rows"}:
        np.testing.assert_equal(getattr(read, name), getattr(corpus, name), name)
    assert read.rows.keys() == corpus.rows.keys()
    for key, values in corpus.rows.items():
        np.testing.assert_array_equal(read.rows[key], values, key)
        assert read.rows[key].dtype == values.dtype, key
    found = spec(folder)
    assert (found.feature_dim, found.num_classes) == (2, corpus.num_classes)
    assert found.num_attributes == corpus.num_attributes


def test_nothing_is_overwritten(tmp_path):
    corpus = next(_corpora())
    store(tmp_path)
    (tmp_path / "train.npz").unlink()
    before = (tmp_path / "train.jsonl").read_bytes()
    with pytest.raises(UsageError, match=r"train\.jsonl exists"):
        formats.write(corpus, tmp_path, "train")
    assert [p.name for p in tmp_path.iterdir()] == ["train.jsonl"]
    assert (tmp_path / "train.jsonl").read_bytes() == before


def test_a_write_that_fails_leaves_nothing(tmp_path):
    corpus = dataclasses.replace(next(_corpora()), captions=(("one photo's only",),))
    with pytest.raises(ValueError, match="shorter"):
        formats.write(corpus, tmp_path, "train")
    assert list(tmp_path.iterdir()) == []


def test_splits(tmp_path):
    store(tmp_path, "train")
    store(tmp_path, "dev")
    (tmp_path / "notes.jsonl").write_text("")
    assert formats.splits(tmp_path) == ("dev", "train")


def test_number_of_classes(tmp_path):
    """That of `train`, for all splits that do not need more; or as stored."""
    store(tmp_path, "train")
    store(tmp_path, "dev", class_ids=ARRAYS["class_ids"] * 0)
    assert formats.read(tmp_path, "dev").num_classes == spec(tmp_path).num_classes == 10
    store(tmp_path, "test", class_ids=ARRAYS["class_ids"] + 3)
    assert formats.read(tmp_path, "test").num_classes == 13
    store(tmp_path, "train", num_classes=np.int64(1001))
    assert formats.read(tmp_path, "dev").num_classes == 1001
    store(tmp_path, "bare", class_ids=None, class_probs=None)
    assert formats.read(tmp_path, "bare").num_classes == 0


def _with(name, index, value):
    changed = ARRAYS[name].astype(np.float32 if name == "class_probs" else ARRAYS[name].dtype)
    changed[index] = value
    return {name: changed}


BAD_ARRAYS = {
    "no boxes": ({"boxes": None}, "array boxes is missing"),
    "no class_probs": ({"class_probs": None}, "class_ids and class_probs need each other"),
    "short": ({"offsets": np.array([0, 5])}, r"offsets are for 1 photos, but train\.jsonl has 2"),
    "beyond": (_with("offsets", 2, 6), "ascend from 0 to the number of rows, 5"),
    "without rows": (
        {"offsets": np.array([0, 0, 5])},
        "at least the row of the whole photo",
    ),
    "other ids": ({"image_ids": np.array([8, 7])}, r"image_ids are not those of train\.jsonl"),
    "nan": (_with("features", (3, 1), np.nan), "features holds NaN or infinity in row 3"),
    "pixels as boxes": (_with("boxes", (4, 2), 300), "boxes row 4 .*outside 0..1"),
    "inverted": (_with("boxes", (1, 0), 0.9), "boxes row 1 .*inverted"),
    "few boxes": ({"boxes": np.zeros((4, 4), np.float32)}, r"boxes has shape \(4, 4\)"),
    "class beyond": ({"num_classes": np.int64(9)}, "class_ids run from 0 to 9, but there are 9"),
    "probs": (_with("class_probs", (2, 0), 0.9), "sum to at most 1"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(tmp_path, case):
    changes, message = BAD_ARRAYS[case]
    store(tmp_path, **changes)
    with pytest.raises(UsageError, match=rf"train\.npz.*{message}"):
        formats.read(tmp_path, "train")


def test_a_split_without_rows_of_features(tmp_path):
    store(tmp_path, "train")
    store(tmp_path, "dev", features=np.float32(1))
    with pytest.raises(UsageError, match=r"dev\.npz: features has shape \(\)"):
        formats.read(tmp_path, "dev")


BAD_LINES = {
    "not json": ([LINES[0], "{"], 2, "no photo .Expecting property name"),
    "string id": ([LINES[0], {"image_id": "8", "captions": ["x"]}], 2, "image_id is '8'.*integer"),
    "duplicate": ([LINES[0], LINES[0]], 2, "image_id 7 is that of line 1"),
    "no captions": ([LINES[0], {"image_id": 8}], 2, "'captions'.*list of strings"),
    "empty": ([LINES[0], {"image_id": 8, "captions": ["two", " "]}], 2, "photo 8 .*empty one"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_bad_lines(tmp_path, case):
    lines, number, message = BAD_LINES[case]
    store(tmp_path, lines=lines)
    with pytest.raises(UsageError, match=rf"train\.jsonl:{number}: .*{message}"):
        formats.read(tmp_path, "train")


def test_lines_that_are_not_text(tmp_path):
    store(tmp_path)
    (tmp_path / "train.jsonl").write_bytes(b'{"image_id": 7, "captions": ["\xff\xfe"]}\n')
    with pytest.raises(UsageError, match=r"train\.jsonl:1: no photo"):
        formats.read(tmp_path, "train")


def test_lengths_that_disagree(tmp_path):
    store(tmp_path, lines=LINES[:1])
    with pytest.raises(UsageError, match=r"2 photos, but train\.jsonl has 1 lines"):
        formats.read(tmp_path, "train")


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        formats.read(tmp_path / "absent", "train")
    with pytest.raises(UsageError, match="is not a region folder"):
        formats.read(tmp_path, "train")
    store(tmp_path, "train")
    with pytest.raises(UsageError, match="has no split 'test'; it has train"):
        formats.read(tmp_path, "test")
    (tmp_path / "dev.jsonl").write_text("")
    with pytest.raises(UsageError, match="has no split 'dev'"):
        formats.read(tmp_path, "dev")
    with pytest.raises(UsageError, match="array pixels is missing"):
        formats.read(tmp_path, "train", pixels=True)


@pytest.mark.parametrize("cut", [0, 200])
def test_truncated_npz(tmp_path, cut):
    path = store(tmp_path) / "train.npz"
    path.write_bytes(path.read_bytes()[: -cut if cut else 0])
    for call in (
        lambda: formats.read(tmp_path, "train"),
        lambda: spec(tmp_path),
    ):
        with pytest.raises(UsageError, match=r"train\.npz"):
            call()


# Sources.


def config(source, **changes):
    return Config(data=DataConfig(source=source, **changes))


def test_loading_a_mixture(tmp_path):
    store(tmp_path / "a")
    store(tmp_path / "b", lines=LINES[::-1])
    one, other = sources.load(f"regions:{tmp_path}/a, regions:{tmp_path}/b", "train")
    assert (one.image_ids.tolist(), other.image_ids.tolist()) == ([7, 8], [8, 7])


def test_a_folder_that_changed_is_read_again(tmp_path):
    store(tmp_path)
    (before,) = sources.load(f"regions:{tmp_path}", "train")
    assert sources.load(f"regions:{tmp_path}", "train")[0] is before
    store(tmp_path, features=ARRAYS["features"] + 1)
    os.utime(tmp_path / "train.npz", ns=(1, 1))
    (after,) = sources.load(f"regions:{tmp_path}", "train")
    np.testing.assert_array_equal(after.rows[FEATURES], before.rows[FEATURES] + 1)
    captions = tmp_path / "train.jsonl"
    captions.write_text(captions.read_text().replace(before.captions[0][0], "another"))
    os.utime(captions, ns=(1, 1))
    (after,) = sources.load(f"regions:{tmp_path}", "train")
    assert after.captions[0][0] == "another"


def test_generated_sources():
    from mmt_jax import scenes

    (plain,) = sources.load("scenes", "val", size=3)
    assert plain.captions == scenes.build("target", "val", size=3).captions
    for name in scenes.CORPORA:
        (corpus,) = sources.load(f"scenes/{name}", "val", size=2)
        assert len(corpus) == 2
    (drawn,) = sources.load("scenes/cc", "val", size=2, pixels=True, seed=1)
    assert drawn.take(np.arange(2)).pixels.dtype == np.uint8
    assert drawn.captions != sources.load("scenes/cc", "val", size=2)[0].captions


@pytest.mark.parametrize("source", ["scenes@1", "scenes@2/vg?far=0.5", "scenes/cc?wrong=0&far=1"])
def test_a_generated_source_is_named_as_it_was_asked_for(source):
    assert [str(part) for part in sources.parse(f"{source},{source}")] == [source, source]


def test_dials_of_a_source():
    from mmt_jax import scenes

    (turned,) = sources.load("scenes@1/mscoco?wrong=0.4&far=.5", "train", size=20)
    dials = scenes.Dials(wrong=0.4, far=0.5)
    built = scenes.build("mscoco", "train", level=1, dials=dials, size=20)
    assert turned.captions == built.captions
    assert sources.eval_source(config("scenes@1/mscoco?wrong=.4")) == ("scenes@1", "val")
    assert sources.at_level("scenes/mscoco?far=1,scenes@2", 3) == "scenes@3/mscoco?far=1,scenes@3"


@pytest.mark.parametrize("dial", ["", "wrong", "wrong=", "wrong=2", "far=-1", "loud=1", "far=1&"])
def test_dials_that_are_none(dial):
    with pytest.raises(UsageError, match=r"turns no dial; write \?wrong=SHARE"):
        sources.parse(f"scenes@1/cc?{dial}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("scene", "unknown source 'scene'; a source is scenes, scenes/NAME, scenes@LEVEL, "),
        ("scenes/coco", "no generated corpus 'coco'; did you mean mscoco"),
        ("regions:", "unknown source 'regions:'"),
    ],
)
def test_unknown_sources(source, message):
    with pytest.raises(UsageError, match=message):
        sources.load(source, "train")


def test_first_photos_of_several_corpora():
    least, full = _corpora()
    assert sources.first([least, full], 0) == [least, full]
    kept = sources.first([least, full], 3)
    assert [len(corpus) for corpus in kept] == [2, 1]
    head = kept[1]
    assert (len(head.captions), len(head.pixels), head.offsets.tolist()) == (1, 1, [0, 1])
    assert {len(values) for values in head.rows.values()} == {1}
    assert len(sources.first([least, full], 1)) == 1


def test_evaluation_defaults(tmp_path):
    store(tmp_path, "train")
    store(tmp_path, "dev")
    folder = f"regions:{tmp_path}"
    assert sources.eval_source(config("scenes/sbu,scenes/cc")) == ("scenes", "val")
    assert sources.eval_source(config(folder)) == (folder, "dev")
    assert sources.eval_source(config(f"scenes/cc,{folder}")) == (folder, "dev")
    chosen = dataclasses.replace(config(folder), eval=EvalConfig(source="scenes/vg", split="test"))
    assert sources.eval_source(chosen) == ("scenes/vg", "test")
    store(tmp_path, "val")
    assert sources.eval_source(config(folder)) == (folder, "val")


def test_no_split_for_evaluation(tmp_path):
    store(tmp_path, "train")
    with pytest.raises(UsageError, match=r"no split val or dev.*config\.eval\.split.*train"):
        sources.eval_source(config(f"regions:{tmp_path}"))


def test_vocabulary_is_kept_in_the_workdir(tmp_path):
    folder = store(tmp_path / "data")
    asked = config(f"regions:{folder}", vocab_size=40)
    first = sources.tokenizer(asked, tmp_path / "run")
    path = tmp_path / "run" / VOCABULARY
    assert (
        path.read_bytes()
        == first.model
        == vocabulary.train(["a dog", "a brown dog", "two cats"], 40).model
    )
    path.write_bytes(vocabulary.train(["other words altogether"], 40).model)
    assert sources.tokenizer(asked, tmp_path / "run").model == path.read_bytes()
    assert sources.tokenizer(asked).model == first.model


def test_vocabulary_that_is_given(tmp_path):
    path = tmp_path / "given.model"
    vocabulary.train(["some given words"], 40).save(path)
    asked = config("scenes", vocab=str(path))
    run = tmp_path / "run"
    assert sources.tokenizer(asked, run).model == path.read_bytes()
    assert sources.tokenizer(asked, run).model == (run / VOCABULARY).read_bytes()
    vocabulary.train(["quite another thing"], 40).save(path)
    with pytest.raises(UsageError, match=r"spiece\.model is not config\.data\.vocab"):
        sources.tokenizer(asked, run)


@pytest.mark.slow
def test_generated_corpora_share_one_vocabulary():
    one, other = (sources.tokenizer(config(s, vocab_size=400)) for s in ("scenes/cc", "scenes/sbu"))
    assert one.model == other.model


def test_what_the_data_asks_of_the_model(tmp_path):
    from mmt_jax import scenes

    folder = f"regions:{store(tmp_path / 'a')}"
    store(tmp_path / "b", features=np.zeros((5, 3), np.float32))
    found = sources.spec(config(folder, vocab_size=99))
    assert dataclasses.astuple(found) == (4, 10, 99, 6, 5, False, None, 0)
    found = sources.spec(config("scenes/cc,scenes"))
    assert (found.feature_dim, found.num_classes) == (scenes.FEATURE_DIM, scenes.NUM_CLASSES)
    tokenizer = vocabulary.train(["a few words"], 40)
    assert sources.spec(config(folder), tokenizer).vocab_size == tokenizer.vocab_size != 40
    pixels = dataclasses.replace(config("scenes"), model=MMTConfig(pixels=True, patch_size=8))
    assert dataclasses.astuple(sources.spec(pixels)) == (192, 0, 2000, 6, 5, True, None, None)
    with pytest.raises(UsageError, match=r"different feature widths: .* 4, .* 3"):
        sources.spec(config(f"{folder},regions:{tmp_path}/b"))


@pytest.mark.parametrize(("row", "unlabelled"), [(0, False), (1, True)])
def test_a_region_without_classes_is_told_from_a_whole_photo_without(tmp_path, row, unlabelled):
    store(tmp_path / "a")
    probs = np.load(tmp_path / "a" / "train.npz")["class_probs"]
    probs[row] = 0.0
    store(tmp_path / "b", class_probs=probs)
    store(tmp_path / "none", class_ids=None, class_probs=None)
    assert spec(tmp_path / "b").unlabelled == unlabelled
    mixture = f"regions:{tmp_path}/b,regions:{tmp_path}/none"
    assert sources.spec(config(mixture)).unlabelled


@pytest.mark.skipif(not FLICKR.exists(), reason="Flickr8k's regions are not here")
def test_flickr8k():
    corpus = formats.read(FLICKR, "dev")
    features = corpus.rows[FEATURES]
    assert (len(corpus), features.shape, corpus.num_classes) == (1000, (7656, 1280), 1001)
    assert features.dtype == np.uint8
    assert all(len(captions) == 5 for captions in corpus.captions)
    np.testing.assert_allclose(
        regions.decode(features[:5]), (features[:5] / 8.0) ** 2 * 0.0058821, rtol=1e-6
    )


@pytest.mark.parametrize("name", ["boxes", "class_ids"])
def test_blocks_of_arrays_that_do_not_belong_together(tmp_path, name):
    longer = np.concatenate([ARRAYS[name][:1], ARRAYS[name]])
    store(tmp_path, **{name: longer})
    with pytest.raises(UsageError, match=rf"{name} has shape \(6, .*, it must have 5 rows"):
        next(formats.blocks(tmp_path, "train"))


def test_blocks_are_the_split_in_parts(tmp_path):
    store(tmp_path)
    whole = formats.read(tmp_path, "train")
    for size in (1, 2, 99):
        parts = list(formats.blocks(tmp_path, "train", photos=size))
        assert [len(part) for part in parts] == [size] * (len(whole) // size) + (
            [len(whole) % size] if len(whole) % size else []
        )
        np.testing.assert_array_equal(
            np.concatenate([part.image_ids for part in parts]), whole.image_ids
        )
        for key, values in whole.rows.items():
            joined = np.concatenate([part.rows[key] for part in parts])
            np.testing.assert_array_equal(joined, values)
        assert sum((part.captions for part in parts), ()) == whole.captions
        assert {part.num_classes for part in parts} == {whole.num_classes}


def test_a_fault_in_a_block_names_where_it_begins(tmp_path):
    store(tmp_path / "good")
    boxes = np.load(tmp_path / "good" / "train.npz")["boxes"].copy()
    boxes[-1] = 7
    store(tmp_path / "bad", boxes=boxes)
    blocks = formats.blocks(tmp_path / "bad", "train", photos=1)
    next(blocks)
    with pytest.raises(UsageError, match=r"counted from photo \d+: boxes row \d+ .*outside 0..1"):
        list(blocks)


def test_arrays_that_stand_column_by_column(tmp_path):
    columns = {name: np.asfortranarray(ARRAYS[name]) for name in ("features", "boxes")}
    store(tmp_path / "columns", **columns)
    whole = formats.read(store(tmp_path / "rows"), "train")
    for part in (
        formats.read(tmp_path / "columns", "train"),
        *formats.blocks(tmp_path / "columns", "train", photos=2),
    ):
        for key, values in whole.rows.items():
            np.testing.assert_array_equal(part.rows[key], values)


def test_an_outline_reads_no_features(tmp_path):
    store(tmp_path)
    whole, outline = formats.read(tmp_path, "train"), source(tmp_path).outline("train")
    assert outline.captions == whole.captions
    np.testing.assert_array_equal(outline.regions, np.diff(whole.offsets) - 1)
