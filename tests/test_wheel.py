"""What a new user does: the package from a wheel, in a folder without a checkout."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent
COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250), "white": (250, 250, 250)}
# Nothing is learned in two steps: what is asked is that it goes through.
SMALL = (
    "--config.steps=2 --config.batch_size=4 --config.data.vocab_size=60 "
    "--config.data.split='train[:75%]' --config.eval.split='train[75%:]'"
)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with eight photos and their captions, and questions about them."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "photos").mkdir()
    lines, questions, annotations = [], [], []
    for number, (name, colour) in enumerate([*COLOURS.items()] * 2):
        Image.new("RGB", (48, 40), colour).save(folder / "photos" / f"{number}.png")
        lines.append({"image_id": number, "captions": [f"a {name} photo", f"all {name}"]})
        about = {"question_id": number, "image_id": number}
        questions.append({**about, "question": "what colour is it?"})
        given = {"multiple_choice_answer": name, "answers": [{"answer": name}] * 10}
        annotations.append({**about, **given, "answer_type": "other"})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "photos" / "captions.jsonl").write_text(text)
    (folder / "questions.json").write_text(json.dumps({"questions": questions}))
    (folder / "annotations.json").write_text(json.dumps({"annotations": annotations}))
    return folder


@pytest.fixture(scope="module")
def shell(tmp_path_factory, here):
    """Runs a command line with what a wheel holds, and with no checkout."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("mmt_jax", "experiments"):
        shutil.copytree(ROOT / name, source / name, symlinks=True)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [*(sys.executable, "-m", "pip", "wheel"), "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*build, f"--wheel-dir={folder}", str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    (folder / "mmt").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m mmt_jax "$@"\n')
    (folder / "mmt").chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(folder / "site"), "PATH": path}

    def run(line):
        done = subprocess.run(
            ["bash", "-c", line], cwd=here, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(f'{sys.executable} -P -c "import mmt_jax; print(mmt_jax.__file__)"')
    assert where.startswith(str(folder))
    return run


@pytest.mark.slow
def test_a_wheel_has_the_configs_and_studies(shell):
    assert "1,334,643 parameters" in shell("mmt describe lxmert:base,scale=tiny")
    assert shell("mmt list") == subprocess.check_output(
        [sys.executable, "-m", "mmt_jax", "list"], text=True, cwd=ROOT
    )


@pytest.mark.slow
def test_photos_are_trained_on_found_and_asked(shell, here):
    out = shell(
        "mmt train --config=clip:base,scale=pilot --workdir=work/clip "
        f"--config.data.source=photos:photos --config.data.image_size=32 {SMALL}"
    )
    assert "image_retrieval/r@1" in out

    # Text → photos, as a page with pictures; photo → captions.
    shell("mmt index --workdir=work/clip --data=photos:photos --split=train --out=work/index")
    found = shell("mmt search --index=work/index --caption='a red photo' --html=work/found.html")
    assert "0.png" in found
    assert (here / "work" / "found.html").read_text().count("<img") == 8
    shell(
        "mmt eval --workdir=work/clip --data=photos:photos --split=train --top=2 "
        "--out=work/found.jsonl"
    )
    ranked = [json.loads(line) for line in (here / "work" / "found.jsonl").open()]
    assert len(ranked) == 8 + 16  # photos and captions

    # Regions, a model that answers questions, and what is inside it.
    shell(
        "mmt features --detector=grid:work/clip --images=photos --out=work/regions "
        "--captions=photos/captions.jsonl"
    )
    shell(
        "mmt train --config=tasks:vqa,model=lxmert,scale=pilot --workdir=work/vqa "
        "--config.data.source=regions:work/regions --config.task.questions=questions.json "
        f"--config.task.annotations=annotations.json --config.task.least=1 {SMALL} "
        "--config.model.width=24 --config.model.mlp_dim=24 --config.model.heads=2"
    )
    asked = "--image=photos/0.png --detector=grid:work/clip --question='what colour is it?'"
    answers = shell(f"mmt answer --model=work/vqa {asked} --json")
    assert {name for name in COLOURS if name in answers} == {*COLOURS}
    code = (
        "import mmt_jax; model = mmt_jax.load('work/vqa'); "
        "print(*model.trace('photos/0.png', 'is it red?', detector='grid:work/clip'))"
    )
    seen = shell(f'{sys.executable} -P -c "{code}"').split()
    assert {"text", "image", "text_to_image", "image_to_text"} <= {*seen}
