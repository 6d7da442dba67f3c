"""Packed records: the same batches as what was packed, and what is refused."""

import dataclasses
import itertools
import json
import multiprocessing
import pickle
import shutil

import grain
import jax
import numpy as np
import pytest
from test_pipeline import SENTENCE, corpus, with_rows

from mmt_jax.cli import main
from mmt_jax.configs.config import Config, DataConfig
from mmt_jax.data import feed, formats, packing, pipeline, records, regions, sources
from mmt_jax.errors import UsageError
from mmt_jax.photo import FEATURES
from mmt_jax.text import vocabulary

pytest.importorskip("array_record")


@pytest.fixture(scope="module")
def tokenizer():
    return vocabulary.train([SENTENCE] * 20, 60)


def halves(photos, **changes):
    """A corpus whose features float16 holds exactly."""
    data = corpus(photos, **changes)
    return with_rows(data, detection_features=data.rows[FEATURES].astype(np.float16))


@pytest.fixture
def folders(tmp_path):
    """The same 300 photos as a region folder and as packed records, of several shards."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 32, 48, 3), np.uint8)
    data = halves(300, first_id=5, pixels=pixels)
    formats.write(data, tmp_path / "plain", "train")
    line = f"data pack --data=regions:{tmp_path}/plain --split=train --out={tmp_path}/packed"
    assert main.main([*line.split(), "--shard_mb=1", "--pixels"]) == 0
    return f"regions:{tmp_path}/plain", f"records:{tmp_path}/packed"


def _same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def _examples(source, tokenizer, **options):
    pixels = "patch_size" in options
    return pipeline.Examples(sources.load(source, "train", pixels=pixels), tokenizer, **options)


@pytest.mark.parametrize(
    "options", [{}, {"reading": "release", "max_regions": 3}, {"patch_size": 8}]
)
def test_the_same_batches_in_the_same_order(folders, tokenizer, options):
    plain, packed = (_examples(source, tokenizer, **options) for source in folders)
    assert len(list((tmp := _folder(folders)).glob("*.array_record"))) == 2, tmp
    assert (plain.sizes, plain.num_classes) == (packed.sizes, packed.num_classes)
    assert [*packed.captions] == [*plain.captions]
    streams = (feed.batches(examples, seed=2, batch_size=48) for examples in (plain, packed))
    for one, other in itertools.islice(zip(*streams, strict=True), 8):  # more than an epoch
        _same(one, other)


def _folder(folders):
    import pathlib

    return pathlib.Path(folders[1].partition(":")[2])


def test_what_is_asked_of_a_source(folders, tokenizer):
    plain, packed = folders
    assert sources.spec(_config(plain)) == sources.spec(_config(packed))
    (one,), (other,) = (sources.outlines(source, "train") for source in folders)
    assert list(one.all_captions()) == list(other.all_captions())
    np.testing.assert_array_equal(one.regions, other.regions)
    model = [sources.tokenizer(_config(source)).model for source in folders]
    assert model[0] == model[1]
    (whole,), (opened,) = (sources.load(source, "train", pixels=True) for source in folders)
    _same(regions.record(whole, 17), regions.record(opened, 17))
    np.testing.assert_array_equal(opened.take(np.arange(300)).pixels, whole.pixels)
    (few,) = sources.first([opened], 7)
    _same(
        pipeline.Examples([few], tokenizer).images(np.arange(7)),
        pipeline.Examples([whole.head(7)], tokenizer).images(np.arange(7)),
    )
    assert few.captions == whole.captions[:7]
    bare = pipeline.Examples([few.bare()], tokenizer, bare=True)
    assert not bare.captions
    _same(bare.images(np.arange(7)), pipeline.Examples([few], tokenizer).images(np.arange(7)))


def _config(source):
    return Config(data=DataConfig(source=source, vocab_size=60))


def test_photos_without_captions_are_packed_for_those_who_ask_for_none(tokenizer, tmp_path):
    data = dataclasses.replace(halves(5), captions=((),) * 5)
    formats.write(data, tmp_path / "plain", "train")
    line = f"data pack --data=regions:{tmp_path}/plain --split=train --out={tmp_path}/packed"
    assert main.main(line.split()) == 0
    packed = sources.load(f"records:{tmp_path}/packed", "train")
    bare = pipeline.Examples(packed, tokenizer, bare=True)
    whole = pipeline.Examples([data], tokenizer, bare=True)
    _same(bare.images(np.arange(5)), whole.images(np.arange(5)))
    with pytest.raises(UsageError, match="has no caption"):
        pipeline.Examples(packed, tokenizer)


def test_a_mixture_with_what_is_in_memory(folders, tokenizer):
    plain, packed = folders
    other = corpus(9, seed=4, first_id=9000, classes=0)
    found = [
        pipeline.Examples([*sources.load(source, "train"), other], tokenizer) for source in folders
    ]
    for sampling in ("instance", "dataset"):
        streams = [
            feed.batches(examples, seed=0, batch_size=20, sampling=sampling) for examples in found
        ]
        for _ in range(4):
            _same(next(streams[0]), next(streams[1]))
    assert sources.spec(_config(f"{plain},{packed}")).num_classes == 9


def test_photos_are_read_in_the_order_asked_for(folders):
    (opened,) = sources.load(folders[1], "train")
    (whole,) = sources.load(folders[0], "train")
    photos = np.array([299, 3, 3, 150])
    for reader in (opened, pickle.loads(pickle.dumps(opened))):
        part, expected = reader.take(photos), whole.take(photos)
        np.testing.assert_array_equal(part.offsets, expected.offsets)
        for key, values in expected.rows.items():
            np.testing.assert_array_equal(part.rows[key], values)
        assert reader.captions[299] == whole.captions[299]


def test_float32_is_rounded_and_uint8_is_kept(tmp_path):
    data = corpus(20)
    small = with_rows(data, detection_features=data.rows[FEATURES] / 3)
    packing.pack([small], tmp_path, "train")
    part = records.read(tmp_path, "train").take(np.arange(20))
    assert part.rows[FEATURES].dtype == np.float16
    np.testing.assert_allclose(part.rows[FEATURES], small.rows[FEATURES], rtol=2**-11)
    packing.pack([corpus(20, dtype=np.uint8)], tmp_path, "dev")
    assert records.read(tmp_path, "dev").take(np.arange(2)).rows[FEATURES].dtype == np.uint8
    assert records.splits(tmp_path) == ("dev", "train")


def test_packing_again_gives_the_same_bytes(folders, tmp_path):
    packing.pack(sources.blocks(folders[1], "train"), tmp_path / "again", "train", shard_mb=1)
    first, again = (
        records.about(folder, "train") for folder in (_folder(folders), tmp_path / "again")
    )
    assert first == again
    for row in first["files"]:
        assert (tmp_path / "again" / row["file"]).read_bytes() == (
            _folder(folders) / row["file"]
        ).read_bytes()


def test_records_of_the_first_format(folders, tmp_path, tokenizer):
    """Its arrays are those of a region folder: names, the whole photo first, four numbers a box."""
    module = pytest.importorskip("array_record.python.array_record_module")
    plain, packed = folders
    with np.load(tmp_path / "plain" / "train.npz") as file:
        arrays = {name: file[name] for name in file.files}
    folder = shutil.copytree(_folder(folders), tmp_path / "first")
    said = json.loads((folder / "train.json").read_text())
    for row in said["files"]:
        if row["file"].endswith(".array_record"):
            (folder / row["file"]).unlink()
    names = ["features", "boxes", "scores", "class_ids", "class_probs", "pixels"]
    shard = folder / "train-00000-of-00001.array_record"
    writer = module.ArrayRecordWriter(str(shard), "group_size:1,uncompressed")
    for photo, (start, end) in enumerate(itertools.pairwise(arrays["offsets"])):
        own = [arrays[name][start:end] for name in names[:-1]] + [arrays["pixels"][photo]]
        writer.write(b"".join(values.tobytes() for values in own))
    writer.close()
    columns = [(name, arrays[name].dtype.str, arrays[name].shape[1:]) for name in names]
    files = [row for row in said["files"] if not row["file"].endswith(".array_record")]
    files.append({"file": shard.name, "bytes": shard.stat().st_size, "sha256": ""})
    said |= {"format": "mmt_jax records 1", "columns": columns, "files": files}
    (folder / "train.json").write_text(json.dumps(said))
    source = f"records:{folder}"
    assert sources.spec(_config(source)) == sources.spec(_config(packed))
    for options in ({}, {"patch_size": 8}):
        examples = (_examples(each, tokenizer, **options) for each in (plain, source))
        streams = (feed.batches(each, seed=2, batch_size=48) for each in examples)
        for one, other in itertools.islice(zip(*streams, strict=True), 3):
            _same(one, other)


def test_shards_are_read_by_number(folders, tokenizer):
    """Shard 100000 follows 99999, which it does not as text."""
    folder = _folder(folders)
    expected = records.read(folder, "train").take(np.arange(300))
    said = json.loads((folder / "train.json").read_text())
    for row in said["files"]:
        if row["file"].endswith(".array_record"):
            number = 99999 + int(row["file"].split("-")[1])
            name = f"train-{number:05d}-of-100001.array_record"
            (folder / row["file"]).rename(folder / name)
            row["file"] = name
    said["files"].sort(key=lambda row: row["file"])
    (folder / "train.json").write_text(json.dumps(said))
    found = records.read(folder, "train").take(np.arange(300))
    np.testing.assert_array_equal(found.rows[FEATURES], expected.rows[FEATURES])


def test_what_a_killed_run_left_goes_with_the_next(tmp_path):
    def blocks():
        yield corpus(3)
        (parts,) = tmp_path.iterdir()
        shutil.copytree(parts, tmp_path / "copy")

    packing.pack(blocks(), tmp_path, "train")
    for path in tmp_path.glob("train*"):
        path.unlink()
    left = tmp_path / ".train.abcdefgh.rows"
    (tmp_path / "copy").rename(left)
    packing.pack([corpus(3)], tmp_path, "train")
    assert not left.exists()
    assert len(records.read(tmp_path, "train")) == 3


# Bad input: nothing is taken for whole that is not.


def test_what_cannot_be_packed_leaves_nothing(tmp_path):
    huge = corpus(4)
    huge.rows[FEATURES][-1, 0] = 1e6
    for blocks, message in (
        ([corpus(3), huge], "photo 3 has features up to 1e.06"),
        ([], "has no photo"),
    ):
        with pytest.raises(UsageError, match=message):
            packing.pack(blocks, tmp_path / "out", "train")
        assert not list((tmp_path / "out").iterdir())
    with pytest.raises(UsageError, match="0 MiB"):
        packing.pack([corpus(3)], tmp_path / "out", "train", shard_mb=0)
    with pytest.raises(UsageError, match="is a mixture"):
        sources.blocks("scenes/cc,scenes/sbu", "train")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        packing.pack([corpus(3)], tmp_path / "file", "train")


def test_an_interrupted_pack_leaves_nothing(tmp_path):
    def blocks():
        yield corpus(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packing.pack(blocks(), tmp_path, "train")
    assert not list(tmp_path.iterdir())


def test_a_region_folder_keeps_its_captions(tmp_path, capsys):
    formats.write(corpus(5), tmp_path, "train")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    line = ["data", "pack", f"--data=regions:{tmp_path}", "--split=train", f"--out={tmp_path}"]
    assert main.main(line) == 2
    assert "train.jsonl exists and is not overwritten" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_split_is_not_overwritten(folders, capsys):
    line = ["data", "pack", f"--data={folders[0]}", "--split=train", f"--out={_folder(folders)}"]
    assert main.main(line) == 2
    assert "is not overwritten" in capsys.readouterr().err


def test_a_split_of_a_longer_name_is_another(tmp_path):
    for split in ("train-2014", "train-00000", "train"):
        packing.pack([halves(3)], tmp_path, split)
    assert records.splits(tmp_path) == ("train", "train-00000", "train-2014")
    for split in records.splits(tmp_path):
        assert len(records.read(tmp_path, split)) == 3
    (tmp_path / "train.json").unlink()  # its shards are there still
    for end in ("jsonl", "index.npz"):
        (tmp_path / f"train.{end}").unlink()
    with pytest.raises(UsageError, match="train-00000-of-00001"):
        packing.pack([halves(3)], tmp_path, "train")


def test_files_that_are_missing_cut_or_damaged(folders, tokenizer):
    folder = _folder(folders)
    with pytest.raises(UsageError, match="has no split 'dev'; it has train"):
        records.read(folder, "dev")
    shard = folder / "train-00001-of-00002.array_record"
    content = shard.read_bytes()
    middle = 5000
    shard.write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])
    with pytest.raises(UsageError, match="photos cannot be read"):
        records.read(folder, "train").take(np.arange(300))
    shard.write_bytes(content[:-1])
    with pytest.raises(UsageError, match=r"train-00001-of-00002.* is missing, or not of"):
        records.read(folder, "train")
    shard.unlink()
    with pytest.raises(UsageError, match=r"train-00001-of-00002.* is missing, or not of"):
        sources.load(folders[1], "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "does not describe"), ("[]", "does not describe"), (None, "'other', not 'mmt_jax")],
)
def test_a_description_of_something_else(folders, content, message):
    path = _folder(folders) / "train.json"
    said = json.loads(path.read_text()) | {"format": "other"}
    path.write_text(json.dumps(said) if content is None else content)
    with pytest.raises(UsageError, match=message):
        records.read(_folder(folders), "train")


def test_no_records(tmp_path):
    with pytest.raises(UsageError, match="holds no packed records"):
        records.splits(tmp_path / "absent")
    with pytest.raises(UsageError, match="unknown source 'records:'"):
        sources.parse("records:")


@pytest.mark.slow
def test_worker_processes_read_the_same_batches_and_go_on_anywhere(folders, tokenizer):
    """A run may go on with another number of workers."""
    examples = _examples(folders[1], tokenizer)
    buckets = ((6, 4),)
    expected = list(
        itertools.islice(feed.batches(examples, seed=2, batch_size=8, buckets=buckets), 6)
    )
    stream = feed.batches(examples, seed=2, batch_size=8, buckets=buckets, workers=2)
    for batch in expected[:3]:
        found = next(stream)
        _same(found, batch)
        kinds = {type(array) for array in jax.tree.leaves(found)}
        assert kinds == {np.ndarray}  # of no shared memory, which must not outlive the stream
    state = stream.get_state()
    assert state == {"next_index": 3}
    stream.close()
    stream = feed.batches(examples, seed=2, batch_size=8, buckets=buckets, workers=1)
    stream.set_state(state)
    for batch in expected[3:]:
        _same(next(stream), batch)
    stream.close()


def test_workers_of_a_script_without_a_guard(folders, tokenizer, monkeypatch):
    """While a worker imports the script, multiprocessing marks it so."""
    process = multiprocessing.current_process()
    monkeypatch.setattr(process, "_inheriting", True, raising=False)
    examples = _examples(folders[1], tokenizer)
    with pytest.raises(UsageError, match="under `if __name__ == '__main__':`"):
        feed.batches(examples, seed=2, batch_size=8, workers=1)


@pytest.mark.parametrize(
    ("message", "kind"),
    [("Worker process was terminated unexpectedly", UsageError), ("no room", RuntimeError)],
)
def test_a_worker_that_dies(message, kind):
    def die(_):
        raise RuntimeError(message)

    stream = feed.Feed(grain.MapDataset.range(9).map(die), workers=0)
    with pytest.raises(kind, match=message):
        next(stream)
    stream.close()
