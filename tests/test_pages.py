"""Blocks of pages are run, small, in order, in a folder of their page.

A comment in front of a block, `<!-- needs: NAME, … -->`, names what readers have and tests do not:
lines with any of it are left out. Blocks of make, pip and drawings are left out too, and
docs/results.md, whose commands ran for hours; test_readme.py holds the flags of all of them.
"""

import importlib.util
import pathlib
import re
import shlex
import shutil

import convert_samples
import corpora_samples
import pages
import pytest

from mmt_jax.cli import main

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = {page.stem: list(pages.blocks(page)) for page in PAGES if page.stem != "results"}
# Those that have been seen to run whole. The others' are held against the flags alone as yet.
RUN = ("data", "detectors", "evaluate", "export", "models", "photos", "recipes", "search", "train")

# What runs are cut to: flags set where a command's line has the pattern, the last one's value.
CUTS = {
    r"mmt train": "config.steps=2 config.batch_size=8 config.log_every=1 config.eval.limit=4 "
    "config.optim.warmup_steps=1 config.data.size=40 config.data.vocab_size=300 "
    "config.data.workers=0",
    r"mmt train .*data_cc(?!.*layers=)": "config.model.layers=('text','merged')",
    r"mmt train .*=data_cc ": "config.model.width=96 config.model.mlp_dim=96",
    r"mmt train .*baseline_": "config.model.layers=('text','image')",
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


def features(folder, split, numbers):
    """LXMERT's file of such photos, and Karpathy's of their captions."""
    (row,) = (convert_samples.lxmert(folder)).read_text().splitlines()[:1]
    (folder / "val2014_obj36.tsv").unlink()
    rows = [row.replace("000000000139", f"{number:012d}") + "\n" for number in numbers]
    (folder / f"{split}_obj36.tsv").write_text("".join(rows))
    every = [
        (part, [f"{word} room"] * 2, {"cocoid": n, "filepath": "val2014", "filename": name})
        for part, first, last in (("train", 1, 20), ("val", 31, 36))
        for n in range(first, last)
        for word in [("red", "blue", "large", "small")[n % 4]]
        for name in [f"COCO_val2014_{n:012d}.jpg"]
    ]
    corpora_samples.put(folder / "dataset_coco.json", corpora_samples.karpathy("coco", every))


def questions(split, numbers):
    """VQAv2's two files about photos of those numbers."""
    asked = [{"image_id": n, "question_id": n, "question": f"what is {n % 4}?"} for n in numbers]
    answered = [
        {
            "question_id": row["question_id"],
            "answer_type": "other",
            "multiple_choice_answer": word,
            "answers": [{"answer": word}] * 10,
        }
        for row in asked
        for word in [("red", "blue")[row["image_id"] % 2]]
    ]
    folder = pathlib.Path()
    name = f"v2_OpenEnded_mscoco_{split}2014_questions.json"
    corpora_samples.put(folder / name, {"questions": asked})
    annotations = f"v2_mscoco_{split}2014_annotations.json"
    corpora_samples.put(folder / annotations, {"annotations": answered})


def pictures(folder):
    """Photos, and their captions beside them."""
    for number in range(24):
        corpora_samples.photo(folder / f"{number}.png", number)
    rows = [{"image_id": str(n), "captions": [f"picture {n % 5}"]} for n in range(24)]
    corpora_samples.put(folder / "captions.jsonl", corpora_samples.lines(rows))
    shutil.copy(folder / "captions.jsonl", "captions.jsonl")


# What readers have when they come to a page: commands that make it, or what writes it.
CONVERT = "mmt data convert --format=lxmert-tsv --captions=dataset_coco.json"
HAVE = {
    "work/cc": ["mmt train --config=data_cc,scale=tiny --workdir=work/cc"],
    "work/cc-module": ["mmt export --workdir=work/cc --out=work/cc-module"],
    "work/photo.npz": ["mmt record --data=scenes --split=test --index=0 --out=work/photo.npz"],
    "work/tern": ["mmt train --config=tern:original,scale=tiny --workdir=work/tern"],
    "work/clip": ["mmt train --config=clip:base,scale=tiny --workdir=work/clip"],
    "work/attention": ["mmt ablate --study=attention --workdir=work/attention"],
    "train_obj36.tsv": lambda: features(pathlib.Path(), "train", range(1, 20)),
    "val_obj36.tsv": lambda: features(pathlib.Path(), "val", range(31, 36)),
    "regions:my_photos": [
        f"{CONVERT} --in=train_obj36.tsv --out=my_photos",
        f"{CONVERT} --in=val_obj36.tsv --out=my_photos --split=val",
    ],
    "regions:coco": [
        f"{CONVERT} --in=train_obj36.tsv --out=coco",
        f"{CONVERT} --in=val_obj36.tsv --out=coco --split=val",
    ],
    "work/lxmert": [
        "mmt train --config=lxmert:base,scale=tiny --workdir=work/lxmert "
        "--config.data.source=regions:coco"
    ],
    "v2_OpenEnded_mscoco_train2014_questions.json": lambda: questions("train", range(1, 20)),
    "v2_OpenEnded_mscoco_val2014_questions.json": lambda: questions("val", range(31, 36)),
    "photos:holiday": lambda: pictures(pathlib.Path("holiday")),
    "--images=holiday": lambda: pictures(pathlib.Path("holiday")),
    "raw/coco": lambda: corpora_samples.coco_captions(pathlib.Path("raw/coco")),
    "raw/vg": lambda: corpora_samples.visual_genome(pathlib.Path("raw/vg")),
}


def parts(block):
    """What of a block is run: its commands, each on a line, or its Python whole."""
    lines = block.text.replace("\\\n", " ").splitlines(keepends=True)
    lines = [line for line in lines if not any(need in line for need in block.needs)]
    if block.language == "python":
        text = "".join(lines)
        return [text] if text.strip() and not text.startswith(("# mmt_jax/", "# in ")) else []
    return [line.strip() for line in lines if line.startswith("mmt ")]


def cut(line):
    """A command's arguments, with the values of CUTS."""
    argv = shlex.split(line, comments=True)[1:]
    for pattern, flags in CUTS.items():
        for flag in flags.split() if re.search(pattern, line) else ():
            name = f"--{flag.partition('=')[0]}"
            argv = [arg for arg in argv if arg.partition("=")[0] != name] + [f"--{flag}"]
    return argv


def have(text, kept, but=None):
    """Makes what `text` reads and is not there, save what it makes itself."""
    for name, how in HAVE.items():
        path = pathlib.Path(re.sub(r"^.*[:=]", "", name))
        asked = re.search(rf"{re.escape(name)}(?![\w-])", text)
        if asked and not path.exists() and str(path) != but:
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(how):
                how()
            else:
                for line in how:
                    command(line, kept)


def command(line, kept):
    """Runs a line; what training makes is kept for the pages that train the same."""
    argv = cut(line)
    trains = argv[0] in ("train", "ablate")
    flag = "--workdir=" if trains else "--out="
    made = next((arg.removeprefix(flag) for arg in argv if arg.startswith(flag)), None)
    have(line, kept, but=made)
    if trains and tuple(argv) in kept:
        shutil.copytree(kept[tuple(argv)], made, symlinks=True, dirs_exist_ok=True)
    assert main.main(argv) == 0, line
    if trains:
        kept[tuple(argv)] = pathlib.Path(made).absolute()


@pytest.fixture(scope="module")
def kept():
    """Folders that training made, by its arguments."""
    return {}


@pytest.mark.slow
@pytest.mark.tf
@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="exports need tf")
@pytest.mark.parametrize("name", RUN)
def test_blocks_run_in_order(name, kept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies.py").write_text(STUDIES)
    names = {}
    for block in BLOCKS[name]:
        for part in parts(block):
            if block.language == "python":
                have(part, kept)
                exec(compile(part, f"{block.page}:{block.line}", "exec"), names)
            else:
                command(part, kept)


@pytest.mark.parametrize("name", BLOCKS)
def test_what_is_needed_is_in_its_block(name):
    needs = [(need, block.text) for block in BLOCKS[name] for need in block.needs]
    assert [need for need, text in needs if need not in text] == []
