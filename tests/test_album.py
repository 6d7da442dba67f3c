"""Photos as sources: layouts of folders, shards, TFDS; training, evaluation and search on them."""

import dataclasses
import io
import json
import pathlib
import shutil
import sys
import tarfile

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from mmt_jax.cli import main
from mmt_jax.configs.config import Config, DataConfig, EvalConfig, TaskConfig
from mmt_jax.configs.models import BridgeTowerConfig
from mmt_jax.data import album, feed, sources
from mmt_jax.data.pipeline import Examples
from mmt_jax.errors import UsageError
from mmt_jax.infer import retrieval
from mmt_jax.params import flatten
from mmt_jax.photo import image_id
from mmt_jax.photos.augment import RECIPES
from mmt_jax.photos.processors import Processor
from mmt_jax.tasks import records
from mmt_jax.tasks.base import Entry
from mmt_jax.text import vocabulary
from mmt_jax.train import checkpoint, loop, workdir
from mmt_jax.train.run import prepare

COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250), "white": (250, 250, 250)}
NAMES = [f"{1000 + i}_0123456789" for i in range(8)]
SAID = {
    name: [f"a {colour} photo", f"all {colour}, number {i}"]
    for i, (name, colour) in enumerate(zip(NAMES, [*COLOURS] * 2))
}
EXPERIMENTS = pathlib.Path("experiments").resolve()
TINY = "experiments/clip.py:base,scale=pilot"


def drawn(name, size=(40, 24)):
    colour = COLOURS[SAID[name][0].split()[1]]
    values = np.random.default_rng(NAMES.index(name)).integers(0, 6, (size[1], size[0], 3))
    return Image.fromarray((values + colour).astype(np.uint8))


def jpeg(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _listed_anew():
    album._album.cache_clear()


def lines_beside(folder):
    lines = [json.dumps({"image_id": image_id(n), "captions": said}) for n, said in SAID.items()]
    (folder.parent / "captions.jsonl").write_text("\n".join(lines))


def karpathys(folder):
    images = [
        {"filename": f"{name}.jpg", "split": "train", "sentences": [{"raw": text} for text in said]}
        for name, said in SAID.items()
    ]
    (folder / "dataset_flickr8k.json").write_text(json.dumps({"images": images}))


def tokens(folder):
    rows = [f"{n}.jpg#{i}\t{text}" for n, said in SAID.items() for i, text in enumerate(said)]
    (folder / "Flickr8k.token.txt").write_text("\n".join(rows))


def texts(folder):
    for name, said in SAID.items():
        (folder / f"{name}.txt").write_text("\n".join(said))


LAYOUTS = (lines_beside, karpathys, tokens, texts)


def photos(tmp_path, layout=lines_beside):
    folder = tmp_path / "data" / "photos"
    (folder / "below").mkdir(parents=True)
    for name in NAMES:
        place = folder if layout is texts else folder / "below"
        (place / f"{name}.jpg").write_bytes(jpeg(drawn(name)))
    layout(folder)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_captions_find_their_photos_in_any_layout(tmp_path, layout):
    folder = photos(tmp_path, layout)
    (found,) = sources.load(f"photos:{folder}", "train")
    captions = dict(zip(found.image_ids.tolist(), found.captions, strict=True))
    assert captions == {image_id(name): tuple(said) for name, said in SAID.items()}
    for index, number in enumerate(found.image_ids):
        name = found.photo_name(index).rpartition("/")[2].removesuffix(".jpg")
        assert image_id(name) == number
        mean = found.picture(index).mean(axis=(0, 1))
        np.testing.assert_allclose(mean, np.array(drawn(name)).mean(axis=(0, 1)), atol=3)


def test_splits_are_what_names_say_or_parts_by_photo(tmp_path):
    folder = photos(tmp_path)
    beside = folder.parent / "captions.jsonl"
    first, *rest = beside.read_text().splitlines()
    (folder / "captions_val2017.jsonl").write_text(first)
    (folder / "captions_train2017.jsonl").write_text("\n".join(rest))
    assert sources.parse(f"photos:{folder}")[0].splits() == ("train2017", "val2017")
    (val,) = sources.load(f"photos:{folder}", "val2017")
    assert val.image_ids.tolist() == [image_id(NAMES[0])]
    given = f"photos:{folder}?captions={beside}"
    parts = [sources.load(given, part)[0].image_ids for part in ("train[:60%]", "train[60%:]")]
    assert all(len(part) for part in parts)
    assert {*np.concatenate(parts).tolist()} == {image_id(name) for name in NAMES}
    assert not {*parts[0].tolist()} & {*parts[1].tolist()}


@pytest.mark.slow
def test_what_is_left_out_is_told_once_with_a_count(tmp_path, capsys):
    folder = photos(tmp_path)
    (folder / f"{NAMES[0]}.jpg").write_bytes(b"")
    (folder / "below" / f"{NAMES[0]}.jpg").unlink()
    cut = folder / "below" / f"{NAMES[1]}.jpg"
    cut.write_bytes(cut.read_bytes()[:-40])
    (folder / "below" / f"{NAMES[2]}.jpg").unlink()
    enormous = Image.new("1", (20_000, 20_000))
    enormous.save(folder / "below" / f"{NAMES[3]}.png")
    (folder / "below" / f"{NAMES[3]}.jpg").unlink()
    source = f"photos:{folder}"
    assert [len(sources.load(source, "train")[0]) for _ in range(2)] == [4, 4]
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("left out 3 damaged photos") == 1
    assert told.count("left out 1 photos that only the captions name") == 1
    assert f"photo {image_id(NAMES[2])} of" in told


def test_photos_without_caption_are_told_where_captions_are_needed(tmp_path, capsys):
    folder = photos(tmp_path, texts)
    (folder / f"{NAMES[1]}.txt").write_text("")
    (folder / f"{NAMES[2]}.txt").unlink()
    source = f"photos:{folder}"
    (bare,) = sources.load(source, "train", bare=True)
    assert (len(bare), capsys.readouterr().err) == (len(NAMES), "")
    assert [len(sources.load(source, "train")[0]) for _ in range(2)] == [len(NAMES) - 2] * 2
    told = " ".join(capsys.readouterr().err.split())
    first = min(NAMES[1:3])
    assert told.endswith(f"train: left out 2 photos without caption; the first: {first}.jpg")
    assert told.count("left out") == 1


def shard(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_shards_are_read_where_members_lie_and_damage_is_counted(tmp_path, capsys):
    shards = tmp_path / "cc3m"
    shards.mkdir()
    for number, own in enumerate((NAMES[:5], NAMES[5:])):
        members = []
        for i, name in enumerate(own):
            key = f"{number:05d}{i:04d}"
            members.append((f"{key}.jpg", jpeg(drawn(name))))
            said = SAID[name][0]
            if number:
                members.append((f"{key}.json", json.dumps({"caption": said}).encode()))
            else:
                members.append((f"{key}.txt", said.encode()))
        if not number:
            members[2] = members[2][0], members[2][1][: len(members[2][1]) // 2]
        shard(shards / f"{number:05d}.tar", members)
    whole = (shards / "00001.tar").read_bytes()
    (shards / "00002.tar").write_bytes(whole[:700])
    (found,) = sources.load(f"photos:{shards}", "train")
    expected = [name for name in NAMES if name != NAMES[1]]
    assert found.captions == tuple((SAID[name][0],) for name in expected)
    assert found.photo_name(0) == "00000/000000000.jpg"
    for index, name in enumerate(expected):  # in any order: by offset
        own = np.array(Image.open(io.BytesIO(jpeg(drawn(name)))))
        np.testing.assert_array_equal(found.picture(index), own)
    told = " ".join(capsys.readouterr().err.split())
    assert "left out 1 damaged photos" in told
    assert "00000/000000001.jpg" in told
    assert "left out 1 damaged shards" in told


def columns(names, photos):
    """Of a parquet file as img2dataset writes it, with what else it tells."""
    return {
        "key": [f"00000{i:04d}" for i in range(len(names))],
        "caption": [SAID[name][0] for name in names],
        "status": ["success" if photo else "failed_to_download" for photo in photos],
        "jpg": photos,
    }


def test_parquet_files_are_read_row_by_row_and_damage_is_counted(tmp_path, capsys):
    folder = tmp_path / "sbu"
    folder.mkdir()
    files = [jpeg(drawn(name)) for name in NAMES]
    kept = [*files[:5], None, files[6][:300], b"nothing"]
    held = pyarrow.table(columns(NAMES, kept))
    parquet.write_table(held, folder / "00000.parquet", row_group_size=3)
    parquet.write_table(held.drop_columns("jpg"), folder / "00001.parquet")
    whole = (folder / "00000.parquet").read_bytes()
    (folder / "00002.parquet").write_bytes(whole[:-40])
    (found,) = sources.load(f"photos:{folder}", "train")
    assert found.captions == tuple((SAID[name][0],) for name in NAMES[:5])
    assert found.photo_name(4) == "00000/000000004.jpg"
    for index in (4, 0, 3, 1):
        own = np.array(Image.open(io.BytesIO(files[index])))
        np.testing.assert_array_equal(found.picture(index), own)
    told = " ".join(capsys.readouterr().err.split())
    assert "left out 1 members without photo" in told
    assert "left out 2 damaged photos" in told
    assert "left out 2 damaged shards" in told
    assert "00001.parquet has no column of photos, such as jpg; it has key, caption" in told


def test_a_missing_pyarrow_is_no_damage(tmp_path, monkeypatch):
    (tmp_path / "00000.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="parquet files need pyarrow"):
        sources.load(f"photos:{tmp_path}", "train")


def test_a_parquet_file_that_changes_or_goes_meanwhile_is_told(tmp_path):
    path, files = tmp_path / "00000.parquet", [jpeg(drawn(name)) for name in NAMES]
    parquet.write_table(pyarrow.table(columns(NAMES, files)), path)
    (found,) = sources.load(f"photos:{tmp_path}", "train")
    parquet.write_table(pyarrow.table(columns(NAMES[:2], files[:2])), path)
    with pytest.raises(UsageError, match="changed since it was listed"):
        found.picture(7)
    path.unlink()
    with pytest.raises(UsageError, match=r"00000\.parquet cannot be read: No such file"):
        found.picture(0)


def test_parquet_files_beside_pictures_only_tell_about_them(tmp_path):
    folder = photos(tmp_path, texts)
    parquet.write_table(pyarrow.table({"key": [1]}), folder / "00000.parquet")
    assert len(sources.load(f"photos:{folder}", "train")[0]) == len(NAMES)


def test_photos_are_turned_and_processed_as_they_are_drawn(tmp_path):
    folder = photos(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright: to be turned by 90 degrees
    picture = np.zeros((24, 40, 3), np.uint8)
    picture[:, :20] = 255  # the left of the file is the top of the photo
    (folder / "below" / f"{NAMES[0]}.jpg").write_bytes(jpeg(Image.fromarray(picture), exif=exif))
    (found,) = sources.load(f"photos:{folder}", "train")
    assert found.picture(0).shape == (40, 24, 3)
    shown = found.shown(Processor(16)).take(np.array([0, 3, 0])).pixels
    assert shown.shape == (3, 16, 16, 3)
    assert shown[0, 0].min() > 250
    assert shown[0, -1].max() < 5
    np.testing.assert_array_equal(shown[0], shown[2])
    expected = Processor(16)(np.array(Image.open(folder / "below" / f"{NAMES[3]}.jpg")))
    np.testing.assert_array_equal(shown[1].astype(np.float32) / np.float32(255), expected)


@pytest.mark.slow
def test_workers_draw_the_same_batches(tmp_path):
    (found,) = sources.load(f"photos:{photos(tmp_path)}", "train")
    words = vocabulary.train([c for own in SAID.values() for c in own], 60)
    examples = Examples([found.shown(Processor(16))], words, patch_size=8)
    drawn = []
    for workers in (0, 2):
        batches = feed.batches(examples, seed=3, batch_size=4, workers=workers)
        drawn.append([next(batches) for _ in range(3)])
        batches.close()
    for one, other in zip(*drawn, strict=True):
        np.testing.assert_array_equal(one.image.features, other.image.features)
        np.testing.assert_array_equal(one.text.token_ids, other.text.token_ids)


def augmented(folder, name):
    (found,) = sources.load(f"photos:{folder}", "train")
    words = vocabulary.train([c for own in SAID.values() for c in own], 60)
    return Examples([found.shown(Processor(16), RECIPES[name])], words, patch_size=8)


def patches(examples, *, first=0, workers=0, seed=3):
    batches = feed.batches(examples, seed=seed, batch_size=4, workers=workers)
    batches.set_state({"next_index": first})
    drawn = [next(batches).image.features for _ in range(first, 4)]
    batches.close()
    return drawn


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_changes_of_photos_know_neither_workers_nor_stops(tmp_path, workers):
    examples = augmented(photos(tmp_path), "blip_randaug_wc")
    whole = patches(examples)
    np.testing.assert_array_equal(patches(examples, first=2, workers=workers), whole[2:])
    assert not np.array_equal(patches(examples, seed=4)[0], whole[0])


def test_photos_are_changed_where_they_train_and_nowhere_else(tmp_path):
    folder = photos(tmp_path)
    examples, rows = augmented(folder, "blip_randaug"), np.array([1, 1])
    (plain,) = sources.load(f"photos:{folder}", "train")
    expected = plain.shown(Processor(16)).take(rows).pixels / np.float32(255)
    np.testing.assert_array_equal(examples.pixels(rows), expected)
    keys = np.array([[3, 0, 0, 1], [3, 0, 1, 1]])
    one, other = examples.pixels(rows, keys)
    assert not np.array_equal(one, other)  # one photo, twice in a batch
    np.testing.assert_array_equal(examples.pixels(rows[1:], keys[1:])[0], other)


def test_two_photos_of_an_entry_are_changed_each_in_its_own_way(tmp_path):
    corpora = sources.load(f"photos:{photos(tmp_path)}", "train")
    words = vocabulary.train([c for own in SAID.values() for c in own], 60)
    config = Config(
        model=BridgeTowerConfig(image_size=16, patch_size=8),
        data=DataConfig(augment="blip_randaug_wc"),
        task=TaskConfig(name="nlvr2"),
    )
    entry = Entry("a", sentences=("both red",), photos=(NAMES[0], NAMES[0]), worth={"True": 1.0})
    held = records.Records(config, [entry], ("False", "True"), words, corpora)
    row, key = np.zeros(1, np.int64), np.array([[0, 5, 0, 1]])
    plain, changed = held.batch(row), held.batch(row, None, key)
    np.testing.assert_array_equal(plain.image.features, plain.more[0].features)
    assert not np.array_equal(changed.image.features, changed.more[0].features)
    again = held.batch(row, None, key)
    np.testing.assert_array_equal(changed.more[0].features, again.more[0].features)


def test_decoded_photos_are_kept_whole_and_refused_where_a_photo_changed(tmp_path, monkeypatch):
    folder, cache = photos(tmp_path), tmp_path / "cache"
    (found,) = sources.load(f"photos:{folder}", "train")
    expected = found.shown(Processor(16)).take(np.arange(8)).pixels
    torn = folder / "below" / f"{NAMES[5]}.jpg"
    held = torn.read_bytes()
    torn.write_bytes(held[:200])
    with pytest.raises(UsageError, match="cannot be decoded"):
        found.shown(Processor(16), cache=cache)
    assert not [*cache.rglob("*pixels*")]
    torn.write_bytes(held)
    np.testing.assert_array_equal(
        found.shown(Processor(16), cache=cache).take(np.arange(8)).pixels, expected
    )
    with monkeypatch.context() as patch:
        patch.setattr(album.pictures, "decode", lambda *_: pytest.fail("it decodes one"))
        again = found.shown(Processor(16), cache=cache)
        np.testing.assert_array_equal(again.take(np.array([3, 0])).pixels, expected[[3, 0]])
    assert found.shown(Processor(24), cache=cache).take(np.array([1])).pixels.shape[1] == 24
    torn.write_bytes(jpeg(drawn(NAMES[2], size=(30, 30))))
    with pytest.raises(UsageError, match=f"changed since .* remove {cache}"):
        found.shown(Processor(16), cache=cache)


def test_what_cannot_be_changed_is_refused(tmp_path, capsys):
    run_of = ["train", f"--workdir={tmp_path / 'run'}", "--config.data.augment=clip_randaug"]
    assert main.main([*run_of, "--config=data_cc,scale=pilot"]) == 2
    assert "config.data.source=photos:FOLDER" in capsys.readouterr().err
    pixels = [f"--config={TINY}", f"--config.data.source=photos:{photos(tmp_path)}"]
    assert main.main([*run_of, *pixels, f"--config.data.cache={tmp_path / 'cache'}"]) == 2
    assert "leave one out" in capsys.readouterr().err


CIFAR = ["--config.task.name=cifar", "--config.task.questions=cifar"]


@pytest.mark.parametrize("field", ["augment=blip_randaug", "cache=cache"])
@pytest.mark.parametrize(
    "config",
    [
        ["--config=data_cc,scale=pilot"],
        [f"--config={TINY}", "--config.data.source=scenes/cc"],
        [f"--config={TINY}", "--config.data.source=photos:data/photos", *CIFAR],
    ],
    ids=["regions", "scenes", "cifar"],
)
def test_changes_and_caches_are_refused_where_nothing_is_decoded(
    tmp_path, monkeypatch, capsys, field, config
):
    photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    config = [config[0].replace("experiments", f"{EXPERIMENTS}"), *config[1:]]
    assert main.main(["train", "--workdir=run", *config, f"--config.data.{field}"]) == 2
    told = capsys.readouterr().err
    assert f"config.data.{field}" in told
    assert "it needs a model that reads pixels" in told


@pytest.mark.slow
def test_a_run_keeps_decoded_photos_and_who_reads_its_config_does_not(tmp_path):
    cache, folder = tmp_path / "cache", photos(tmp_path)
    config = Config(
        model=BridgeTowerConfig(image_size=16, patch_size=8),
        data=DataConfig(
            source=f"photos:{folder}", split="train[:60%]", vocab_size=60, cache=str(cache)
        ),
        eval=EvalConfig(split="train[60%:]"),
        batch_size=2,
    )
    corpora = sources.load(config.data.source, config.data.split)
    words = vocabulary.train([c for own in SAID.values() for c in own], 60)
    Examples.of(config, corpora, words)
    assert not cache.exists()
    prepared = prepare(config, tmp_path / "run", retrieval.evaluator)
    assert len([*cache.glob("*/pixels.npy")]) == 2  # of training and of evaluation
    prepared.folder.mkdir()
    prepared.store()
    without = dataclasses.replace(config, data=dataclasses.replace(config.data, cache=None))
    assert workdir.claim(without, prepared.folder)[1]


def run(*arguments):
    assert main.main([*map(str, arguments)]) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder, and the workdir of a run of two steps on it."""
    place = tmp_path_factory.mktemp("clip")
    folder = photos(place)
    sizes = ["--config.data.vocab_size=60", "--config.data.image_size=32", "--config.batch_size=4"]
    run(
        *("train", f"--config={TINY}", f"--config.data.source=photos:{folder}", *sizes),
        *("--config.data.split=train[:60%]", "--config.eval.split=train[60%:]"),
        "--config.data.augment=blip_randaug_wohf",
        *("--config.checkpoint_every=1", "--config.keep=2", "--config.steps=2"),
        f"--workdir={place / 'whole'}",
    )
    return folder, place / "whole"


@pytest.mark.slow
def test_training_goes_on_bit_for_bit(trained, tmp_path):
    _, whole = trained
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints" / "2")
    config = workdir.read_config(again)
    assert loop.train(config, again) is not None
    first, second = (flatten(checkpoint.load(path).params) for path in (whole, again))
    assert {*first} == {*second}
    for path, leaf in first.items():
        np.testing.assert_array_equal(leaf, second[path], err_msg=path)


@pytest.mark.slow
def test_photos_are_evaluated_indexed_and_found(trained, tmp_path, capsys):
    folder, whole = trained
    data = [f"--data=photos:{folder}", "--split=train"]
    run("eval", f"--workdir={whole}", *data)
    assert "8 photos, 16 captions" in capsys.readouterr().out
    run("index", f"--workdir={whole}", *data, f"--out={tmp_path / 'index'}")
    page = tmp_path / "found.html"
    run("search", f"--index={tmp_path / 'index'}", "--caption=a red photo", f"--html={page}")
    assert f"below/{NAMES[0]}.jpg" in capsys.readouterr().out
    assert page.read_text().count("<img") == 8
    assert "no pictures" not in page.read_text()


def test_a_model_of_regions_refuses_photos_before_it_trains_a_vocabulary(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(vocabulary, "train", lambda *_: pytest.fail("it trains one"))
    source = f"--config.data.source=photos:{photos(tmp_path)}"
    run_of = ["train", "--config=data_cc,scale=tiny", source, "--config.data.split=train[:60%]"]
    assert main.main([*run_of, f"--workdir={tmp_path / 'run'}"]) == 2
    assert "mmt features" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "split", "message"),
    [
        ("photos:{}/nowhere", "train", "there is no folder"),
        ("photos:{}/empty", "train", "holds no photo"),
        ("photos:{}/data/photos", "dev", "has no split 'dev'; it has train"),
        ("photos:{}/bare", "train", "no photo of the split train has a caption"),
        ("tfds:{}/data", "train", "holds no prepared corpus"),
    ],
)
def test_bad_sources_are_told_in_one_sentence(tmp_path, source, split, message):
    photos(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "a.jpg").write_bytes(jpeg(drawn(NAMES[0])))
    with pytest.raises(UsageError, match=message):
        sources.load(source.format(tmp_path), split)


def test_models_of_regions_are_refused(tmp_path):
    (part,) = sources.parse(f"photos:{photos(tmp_path)}")
    with pytest.raises(UsageError, match="photos and no regions"):
        part.spec()
    (found,) = sources.load(f"photos:{tmp_path / 'data' / 'photos'}", "train")
    with pytest.raises(UsageError, match="photos and no regions"):
        _ = found.feature_dim
