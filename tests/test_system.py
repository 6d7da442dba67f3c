"""What the system refuses is one sentence and status 2, whatever the command."""

import contextlib
import dataclasses
import os
import pathlib
import resource
import subprocess
import sys

import numpy as np
import pytest
import small_models

from mmt_jax.cli import main as cli
from mmt_jax.data import sources
from mmt_jax.train import loop

ROOT = pathlib.Path(__file__).parent.parent
TRAIN = ("train", "--config=data_cc,scale=tiny", "--config.data.size=8")
TRAIN += ("--config.model.layers=('merged',)",)  # quick to trace
ON = ("--data=scenes", "--split=val")
# Each command that writes, and what it needs besides.
WRITES = {
    "train": (*TRAIN, "--workdir={out}"),
    "ablate": ("ablate", "--study=demo", "--workdir={out}"),
    "record": ("record", *ON, "--out={out}.npz"),
    "eval": ("eval", "--workdir={towers}", *ON, "--limit=2", "--out={out}.json"),
    "show": ("show", "--record={photo}", "--caption=a star", "--out={out}.png"),
    "index": ("index", "--workdir={towers}", *ON, "--out={out}"),
    "search": ("search", "--index={index}", "--caption=a star", "--html={out}.html"),
    "vocab": ("data", "vocab", "--captions={captions}", "--size=30", "--out={out}"),
    "pack": ("data", "pack", *ON, "--out={out}"),
    "convert": ("data", "convert", "--format=boxes-jsonl", "--in={boxes}", "--out={out}"),
}
READS = {
    "train": (*TRAIN, "--config.init_from={path}", "--workdir={new}"),
    "ablate": ("ablate", "--study=demo", "--studies={path}", "--workdir={new}"),
    "eval": ("eval", "--workdir={path}", *ON),
    "export": ("export", "--workdir={path}", "--out={new}"),
    "score": ("score", "--model={towers}", "--record={path}.npz", "--caption=a star"),
    "show": ("show", "--record={path}.npz", "--caption=a star", "--out={new}.png"),
    "features": ("features", "--detector=grid:x", "--images={path}", "--out={new}"),
    "search": ("search", "--index={path}", "--caption=a star"),
    "prepare": ("data", "prepare", "--corpus=flickr8k", "--raw={path}", "--out={new}"),
    "convert": ("data", "convert", "--format=boxes-jsonl", "--in={path}", "--out={new}"),
    "vocab": ("data", "vocab", "--captions={path}", "--size=30", "--out={new}"),
    "stats": ("data", "stats", "--data=regions:{path}"),
}
NEEDS = {"index": "faiss", "search": "faiss", "pack": "array_record", "prepare": "array_record"}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """What commands read."""
    folder = tmp_path_factory.mktemp("given")
    names = ("towers", "index", "photo.npz", "captions.jsonl", "boxes.jsonl", "file")
    found = {name.partition(".")[0]: folder / name for name in names}
    config = small_models.config(("text", "image"), family="two_tower", itm="contrastive")
    width = sources.spec(config).feature_dim
    model = dataclasses.replace(config.model, feature_dim=width)
    found["towers"].mkdir()
    small_models.make_workdir(found["towers"], dataclasses.replace(config, model=model))
    np.savez(found["photo"], **small_models.record(2))
    found["captions"].write_text('{"image_id": 1, "captions": ["a red circle and a star"]}\n')
    found["boxes"].write_text(
        '{"image_id": 1, "width": 9, "height": 9, "captions": ["a star"], '
        '"boxes": [{"xyxy": [0, 0, 5, 5], "category": "star"}]}\n'
    )
    found["file"].write_text("# mine")
    with contextlib.suppress(ImportError):
        cli.main(["index", f"--workdir={found['towers']}", *ON, f"--out={found['index']}"])
    return found


@pytest.fixture
def refused(given, tmp_path, capsys, monkeypatch):
    """Runs a command that must be refused; returns the sentence."""
    monkeypatch.chdir(ROOT)
    capsys.readouterr()

    def run(command, **places):
        named = {**given, "new": tmp_path / "new", **places}
        status = cli.main([arg.format(**named) for arg in command])
        out, err = capsys.readouterr()
        assert (status, out) == (2, "")
        assert "Traceback" not in err
        sentence = err.splitlines()[-1]
        assert sentence.startswith("mmt: ")
        return sentence

    return run


@contextlib.contextmanager
def full_disk():
    """The limit on the size of a file stands in for the end of the disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "eval", "index", "vocab", "convert"])
def test_a_place_that_cannot_be_written(refused, given, tmp_path, name):
    pytest.importorskip(NEEDS.get(name, "jax"))
    through = refused(WRITES[name], out=given["file"] / "out")
    assert str(given["file"]) in through
    assert "File name too long" in refused(WRITES[name], out=tmp_path / ("x" * 300))
    assert "No such" in refused(WRITES[name], out="/proc/nowhere/out") or name == "vocab"
    assert not list(tmp_path.iterdir())
    assert given["file"].read_text() == "# mine"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "index", "pack", "convert"])
def test_a_full_disk(refused, tmp_path, name):
    pytest.importorskip(NEEDS.get(name, "jax"))
    with full_disk():
        assert "File too large" in refused(WRITES[name], out=tmp_path / "out")


@pytest.mark.parametrize("name", ["train", "eval", "score", "features", "prepare", "stats"])
def test_a_place_that_cannot_be_read(refused, given, tmp_path, name):
    pytest.importorskip(NEEDS.get(name, "jax"))
    folder = tmp_path / "folder.npz"
    folder.mkdir()
    for path in (tmp_path / ("x" * 300), given["file"] / "in", tmp_path / "none"):
        assert str(path) in refused(READS[name], path=path)
    refused(READS[name], path=folder.with_suffix(""))  # a folder where a file is wanted
    refused(READS[name], path=given["file"])  # and a file where a folder is
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(13, "Permission denied", "run/config.json"), "run/config.json: Permissi"),
        (OSError(30, "Read-only file system", b"run"), "run: Read-only file system"),
        (OSError(28, "No space left on device"), "the system says: No space left on device; make"),
        (MemoryError(), "there is not enough memory (out of memory)"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 160000 bytes.\nMore"),
            "the device has not enough memory (RESOURCE_EXHAUSTED: Out of memory allocating 160000 "
            "bytes.); make config.batch_size smaller",
        ),
        (
            ValueError("RESOURCE_EXHAUSTED: Error writing local file: No space left on device [a]"),
            "the system says: No space left on device",
        ),
        (
            UnicodeEncodeError("utf-8", "a\udcff.jpg", 1, 2, "no"),
            r"'a\udcff.jpg' cannot be written",
        ),
    ],
)
def test_what_the_system_says_of_a_run(refused, monkeypatch, error, told):
    def train(*_, **__):
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("a library's own words") from cause

    monkeypatch.setattr(loop, "train", train)
    assert refused((*TRAIN, "--workdir={new}")).startswith(f"mmt: {told}")


@pytest.mark.slow
def test_a_name_that_is_no_text(given, tmp_path):
    out = os.fsencode(tmp_path) + b"/\xff"
    command = [sys.executable, "-m", "mmt_jax.cli", "data", "vocab", "--size=30", b"--out=" + out]
    command.append(f"--captions={given['captions']}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert done.returncode == 0
    assert os.path.exists(out)
    assert b"\\udcff holds " in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_output_that_nobody_takes():
    command = [sys.executable, "-m", "mmt_jax.cli", "list"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr
