"""Blocks of README and pages are run, small, in order, in a folder of their page.

What readers have when they come to a page, page_files.py makes. LEFT_OUT is all that is not run;
test_readme.py holds the flags of every command.
"""

import importlib.util
import pathlib
import re
import shlex
import shutil

import page_files
import pages
import pytest

from mmt_jax.cli import main

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = {
    page.stem: blocks
    for page in PAGES
    if page.stem != "results" and (blocks := list(pages.blocks(page)))
}
# Which lines of commands and which blocks of Python are not run here, and why; and docs/results.md,
# whose commands ran for hours.
LEFT_OUT = {
    r"^make ": "it is what runs these tests, or trains for minutes, as the CI does",
    r"^pip ": "it downloads; test_wheel.py installs the package",
    r"=https://": "the address of a photo; test_pictures.py serves one",
    r">> ~": "it writes the reader's own settings",
    r"mmt_jax\.load\(\"work/bridgetower\"\)": "test_cards.py runs it beside transformers",
    r"^# (in )?mmt_jax/": "test_extending.py and test_task_training.py put it there and run it",
    r"nlvr2-module": "test_export.py makes such a module, and calls it so",
}
# A block of commands is one that begins with any of these; others without a language are drawings.
PROGRAM = r"(mmt|make|pip|python) "

# What runs are cut to: flags set where a command's line has the pattern, the last one's value.
CUTS = {
    r"mmt train": "config.steps=2 config.batch_size=8 config.log_every=1 config.eval.limit=4 "
    "config.optim.warmup_steps=1 config.data.size=40 config.data.vocab_size=300 "
    "config.data.workers=0",
    r"mmt train .*data_cc(?!.*layers=)": "config.model.layers=('text','merged')",
    r"mmt train .*=data_cc ": "config.model.width=96 config.model.mlp_dim=96",
    r"mmt train .*baseline_(?!.*init_from)": "config.model.layers=('text','image')",
    r"mmt train .*lxmert": "config.model.language_layers=1 config.model.region_layers=1 "
    "config.model.cross_layers=1",
    r"mmt train .*bridgetower": "config.model.tower_layers=1 config.model.cross_layers=1",
    r"mmt train .*tern": "config.model.text_layers=1 config.model.image_layers=1",
    r"mmt train .*clip": "config.model.text_layers=1 config.model.image_layers=1",
    r"mmt eval .*limit": "limit=4",
    r"mmt eval .*probe": "limit=4",
    r"mmt eval .*fold": "fold=2",
    r"mmt eval .*rerank": "rerank=2",
    r"mmt ablate": "studies=studies.py seeds=1",
}
# Two rows in place of all, for two steps.
STUDIES = f"""
import dataclasses, runpy
from mmt_jax.configs.config import EvalConfig

SMALL = {{
    "steps": 2, "batch_size": 8, "eval.limit": 2, "data.size": 40, "data.vocab_size": 300,
    "optim.warmup_steps": 1,
}}
ALL = runpy.run_path({str(ROOT / "experiments" / "studies.py")!r})["STUDIES"]
STUDIES = {{
    name: dataclasses.replace(
        study, tags=study.tags[:2], overrides=SMALL, test=EvalConfig(split="test", limit=2)
    )
    for name, study in ALL.items()
}}
"""


def parts(block):
    """What a block has: its commands, each on a line, or its Python whole."""
    if block.language == "python":
        return [block.text]
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line] if re.match(PROGRAM, block.text) else []


def left_out(part):
    """The first of LEFT_OUT that a part is, if any."""
    return next((each for each in LEFT_OUT if re.search(each, part, re.MULTILINE)), None)


RUN = {
    name: [(block, part) for block in blocks for part in parts(block) if not left_out(part)]
    for name, blocks in BLOCKS.items()
}


def cut(line):
    """A command's arguments, with the values of CUTS."""
    argv = shlex.split(line, comments=True)[1:]
    for pattern, flags in CUTS.items():
        for flag in flags.split() if re.search(pattern, line) else ():
            name = f"--{flag.partition('=')[0]}"
            argv = [arg for arg in argv if arg.partition("=")[0] != name] + [f"--{flag}"]
    return argv


def have(text, kept, had, but=None):
    """Makes what `text` reads and is not there, save what it makes itself, and adds it to `had`."""
    for name, how in page_files.HAVE.items():
        path = pathlib.Path(re.sub(r"^.*[:=]", "", name))
        asked = re.search(rf"{re.escape(name)}(?![\w-])", text)
        if asked and not path.exists() and str(path) != but:
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(how):
                how()
            else:
                for line in how:
                    command(line, kept, had)
            had.add(str(path))


def command(line, kept, had):
    """Runs a line; what training makes is kept for the pages that train the same.

    What of `had` a page makes only further down is made anew: commands overwrite nothing.
    """
    argv = cut(line)
    trains = argv[0] in ("train", "ablate")
    flag = "--workdir=" if trains else "--out="
    made = next((arg.removeprefix(flag) for arg in argv if arg.startswith(flag)), None)
    have(line, kept, had, but=made)
    if not trains and made in had:
        had.remove(made)
        here, aside = pathlib.Path(made).absolute(), pathlib.Path(f"{made}.had").absolute()
        here.rename(aside)
        kept.update({key: aside for key, path in kept.items() if path == here})
    if trains and tuple(argv) in kept and not pathlib.Path(made).exists():
        shutil.copytree(kept[tuple(argv)], made, symlinks=True)
    assert main.main(argv) == 0, line
    if trains:
        kept[tuple(argv)] = pathlib.Path(made).absolute()


@pytest.fixture(scope="module")
def kept():
    """Folders that training made, by its arguments."""
    return {}


EXTRAS = (
    "apache_beam",
    "faiss",
    "onnxruntime",
    "tensorflow",
    "tensorflow_datasets",
    "tensorflow_hub",
    "torch",
    "transformers",
)


@pytest.mark.slow
@pytest.mark.tf
@pytest.mark.torch
@pytest.mark.parametrize("name", [name for name in RUN if RUN[name]])
def test_blocks_run_in_order(name, kept, tmp_path, monkeypatch):
    for module in EXTRAS:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies.py").write_text(STUDIES)
    names, had = {}, set()
    for block, part in RUN[name]:
        if block.language == "python":
            have(part, kept, had)
            exec(compile(part, f"{block.page}:{block.line}", "exec"), names)
        else:
            command(part, kept, had)


@pytest.mark.parametrize("name", BLOCKS)
def test_no_command_is_where_it_is_not_seen(name):
    text = BLOCKS[name][0].page.read_text(encoding="utf-8").replace("\\\n", " ")
    there = [line for line in text.splitlines() if re.match(PROGRAM, line)]
    seen = [part for block in BLOCKS[name] if not block.language for part in parts(block)]
    assert seen == there


def test_what_is_left_out_is_there():
    every = [part for blocks in BLOCKS.values() for block in blocks for part in parts(block)]
    assert {left_out(part) for part in every} - {None} == set(LEFT_OUT)
