"""Notebooks: each runs from top to bottom as it stands, and is kept with what it then showed."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import sysconfig

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parent.parent
# The extras that each one installs; the first of what it needs that may not be there.
NOTEBOOKS = {
    "ablation": ("", "matplotlib"),
    "bring_your_photos": ("[hf,photos,retrieval]", "faiss"),
    "huggingface": ("[hf,photos]", "transformers"),
    "quickstart": ("[hf,photos]", "huggingface_hub"),
    "score_pair": ("[tf]", "tensorflow_hub"),
    "tern_search": ("[retrieval]", "faiss"),
}
REPOSITORY = re.search(r"repo_url: (\S+)", (ROOT / "mkdocs.yml").read_text())[1]


def read(name):
    return nbformat.read(ROOT / "colabs" / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Runs a notebook in an empty folder, without network; returns it with its outputs."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PATH", sysconfig.get_path("scripts"), prepend=":")  # `mmt`
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("XLA_FLAGS")  # compiled as for a user

    def run(name):
        notebook, folder = read(name), tmp_path / "run"
        folder.mkdir()
        resources = {"metadata": {"path": str(folder)}}
        client = nbclient.NotebookClient(
            notebook, timeout=900, startup_timeout=300, kernel_name="python3", resources=resources
        )
        client.execute()
        return notebook

    return run


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def printed(notebook):
    """What went to stdout."""
    return "".join(out.text for out in outputs(notebook) if out.get("name") == "stdout")


def shown(notebook, kind):
    """What was displayed of a MIME type."""
    return [out.data[kind] for out in outputs(notebook) if kind in out.get("data", {})]


# ---- As files ------------------------------------------------------------------------------------


def test_each_task_has_its_notebook():
    assert sorted(path.stem for path in (ROOT / "colabs").glob("*.ipynb")) == sorted(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_opens_in_colab(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    badge, *_ = notebook.cells[0].source.splitlines()
    there = REPOSITORY.replace("https://github.com", "https://colab.research.google.com/github")
    assert badge.endswith(f"({there}/blob/main/colabs/{name}.ipynb)")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_kept_as_one_run_left_it(name):
    notebook = read(name)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    told = json.dumps(outputs(notebook))
    assert not re.search(r"Traceback|mmt: |/tmp/|/home/|/site-packages/", told)
    assert len(told) < 1_000_000
    CHECKS[name](notebook)


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="ruff is in the extra dev")
def test_notebooks_are_linted_and_formatted():
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", "colabs"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


# ---- The first cell ------------------------------------------------------------------------------


def installed(name, monkeypatch, *there):
    """Runs the first code cell where only the modules `there` are; returns what pip is told."""
    from IPython.core.interactiveshell import InteractiveShell

    calls, find = [], importlib.util.find_spec
    asked = ("mmt_jax", "jax_cuda12_plugin", "jax_cuda13_plugin")

    def found(module, *rest):
        return (module in there or None) if module in asked else find(module, *rest)

    shell = InteractiveShell.instance()
    shell.register_magic_function(calls.append, magic_name="pip")
    monkeypatch.setattr(importlib.util, "find_spec", found)
    shell.run_cell(code_cells(read(name))[0].source).raise_error()
    InteractiveShell.clear_instance()
    return calls


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_first_cell_installs_where_the_package_is_missing(name, monkeypatch):
    (call,) = installed(name, monkeypatch)
    _, *told = call.split()[:5]
    assert told == ["-q", f'"mmt_jax{NOTEBOOKS[name][0]}', "@", f'git+{REPOSITORY}"']


def test_first_cell_never_parts_jax_from_its_cuda(monkeypatch):
    (call,) = installed("ablation", monkeypatch, "jax_cuda12_plugin")
    assert call.split()[-1] == '"jax[cuda12]"'  # is there as asked for, so pip leaves it alone


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_first_cell_does_nothing_where_the_package_is_there(name, monkeypatch):
    assert installed(name, monkeypatch, "mmt_jax", "jax_cuda12_plugin") == []


# ---- Run from top to bottom ----------------------------------------------------------------------
# A check reads what a run showed: the stored one, and a new one.


def found_first(notebook):
    """How often a caption finds its photo first after training, of the commands' last lines."""
    return float(re.findall(r"image_retrieval/r@1 +(\S+)", printed(notebook))[-1])


def ablation(notebook):
    (table,) = shown(notebook, "text/markdown")
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    assert {row[0] for row in rows} == {"| C5"}
    (merged,) = [row[3] for row in rows if "1block > architecture_single" in row[2]]
    assert float(merged.split()[0]) > 0.05  # merged attention learns first
    assert len(shown(notebook, "image/svg+xml")) == 2
    assert len(shown(notebook, "image/png")) == 1


def bring_your_photos(notebook):
    told = re.findall(
        r"^(?:image|text)_retrieval(?: +\S+){2} +(\S+)", printed(notebook), re.MULTILINE
    )
    assert len(told) == 2
    assert min(map(float, told)) > 0.1  # by chance .05
    (page,) = shown(notebook, "text/html")
    assert page.count("data:image/png") == 18
    assert len(shown(notebook, "image/png")) == 1


def huggingface(notebook):
    told = printed(notebook)
    differences = re.findall(r"largest difference:? (\S+)", told)
    assert len(differences) == 7
    assert max(map(float, differences)) < 1e-4
    assert float(re.search(r"accuracy +(\S+)", told)[1]) > 0.5  # by chance .12
    assert "AutoTokenizer.from_pretrained" in told  # the model card
    assert "the same answer to 10 of 10 questions" in told
    same, arrays = re.search(r"(\d+) of (\d+) arrays came back bit for bit", told).groups()
    assert same == arrays
    assert len(shown(notebook, "image/png")) == 2


def quickstart(notebook):
    told = printed(notebook)
    assert found_first(notebook) > 0.2  # by chance .02
    assert "can score, choose, explain, search" in told
    without = re.findall(r"without region 1, 2, 3: +(\S+) +(\S+) +(\S+)", told)
    lowest = [changes.index(min(changes, key=float)) for changes in without]
    assert lowest == [2, 1, 0]  # heart, diamond, cross: each phrase rests on what it names
    assert "skipped: BridgeTower/bridgetower-base-itm-mlm" in told
    assert len(shown(notebook, "image/png")) == 4


def score_pair(notebook):
    told = printed(notebook)
    scores = re.findall(r"^(\d\.\d{3}) (?:no )?match +\w", told, re.MULTILINE)
    true, false = [float(score) for score in scores[:2]], [float(score) for score in scores[3:]]
    assert len(false) == 2
    assert min(true) > max(false)
    assert float(re.search(r"is first of 100: (\S+)", told)[1]) > 0.1  # by chance .01
    assert len(shown(notebook, "image/png")) == 2


def tern_search(notebook):
    told = printed(notebook)
    assert "flat  finds 100.0% of the ten best" in told
    assert float(re.search(r"hnsw  finds (\S+)%", told)[1]) > 90
    assert float(re.search(r"among the first ten: (\S+)", told)[1]) > 0.1  # by chance .01
    assert len(shown(notebook, "image/png")) == 2


CHECKS = {
    check.__name__: check
    for check in (
        ablation,
        bring_your_photos,
        huggingface,
        quickstart,
        score_pair,
        tern_search,
    )
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name, execute):
    if importlib.util.find_spec(NOTEBOOKS[name][1]) is None:
        pytest.skip(f"{NOTEBOOKS[name][1]} is not installed")
    CHECKS[name](execute(name))
