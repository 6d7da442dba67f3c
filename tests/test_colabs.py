"""Notebooks: each runs from top to bottom as it stands, and is kept without outputs."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import types

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted(path.stem for path in (ROOT / "colabs").glob("*.ipynb"))


def read(name):
    return nbformat.read(ROOT / "colabs" / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Runs a notebook in an empty folder; returns it with its outputs."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))

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
    assert NOTEBOOKS == ["ablation_report", "score_pair", "train_tiny"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_valid_and_holds_no_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown"


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


def run_install(name, monkeypatch, *, installed, repository=""):
    """Runs the first code cell; returns the magics that it called."""
    from IPython.core.inputtransformer2 import TransformerManager

    calls = []
    shell = types.SimpleNamespace(run_line_magic=lambda *call: calls.append(call))
    spec = object() if installed else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: {"mmt_jax": spec}[wanted])
    source = code_cells(read(name))[0].source
    assert source.count('REPOSITORY = ""') == 1
    source = source.replace('REPOSITORY = ""', f"REPOSITORY = {repository!r}")
    exec(TransformerManager().transform_cell(source), {"get_ipython": lambda: shell})
    return calls


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_first_cell_installs_where_the_package_is_missing(name, monkeypatch):
    calls = run_install(name, monkeypatch, installed=False, repository="https://host/mmt_jax")
    extra = "[tf]" if name == "score_pair" else ""
    assert calls == [("pip", f'install -q "mmt_jax{extra} @ git+{{REPOSITORY}}"')]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_first_cell_does_nothing_where_the_package_is_there(name, monkeypatch):
    assert run_install(name, monkeypatch, installed=True) == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_first_cell_asks_for_the_address_that_it_needs(name, monkeypatch):
    with pytest.raises(RuntimeError, match="set REPOSITORY"):
        run_install(name, monkeypatch, installed=False)


# ---- Run from top to bottom ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_hub") is None, reason="TensorFlow is in the extra tf"
)
def test_score_pair(execute, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")  # compiled as for a user, from the step to the export
    notebook = execute("score_pair")
    text = printed(notebook)
    scores = re.findall(r"^(\d\.\d{3})  \w+", text, re.MULTILINE)
    assert len(scores) == 3
    assert all(0 < float(score) < 1 for score in scores)
    assert len(set(scores)) > 1  # sentences are told apart
    share = float(re.search(r"own caption preferred: (\S+) of 40 photos", text)[1])
    assert 0.5 < share <= 1
    assert len(shown(notebook, "image/png")) == 2


@pytest.mark.slow
def test_train_tiny(execute, tmp_path):
    notebook = execute("train_tiny")
    text = printed(notebook)
    first, last = map(float, re.search(r"mlm: (\S+) at first, (\S+) at last", text).groups())
    assert last < 0.9 * first
    for k in (1, 5, 10):
        recall, chance = re.search(rf"R@{k} +(\S+)  \(chance (\S+)\)", text).groups()
        assert 0 <= float(recall) <= 1
        assert float(chance) == pytest.approx(k / 30, abs=1e-3)
    assert len(re.findall(r"\[ ?\[?0\.\d+ +0\.\d+ +0\.\d+ *\]", text)) == 3  # photos × captions
    assert len(shown(notebook, "image/png")) == 3
    assert (tmp_path / "run" / "work" / "train_tiny" / "checkpoints").is_dir()


@pytest.mark.slow
def test_ablation_report(execute, tmp_path):
    notebook = execute("ablation_report")
    table, verdicts = shown(notebook, "text/markdown")
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    tags = {row[0].strip("| `") for row in rows}
    assert tags == {"data_cc", "baseline_baseline-no-bert-transfer"}
    assert [row[1] for row in rows] == ["1", "1"]
    assert all(0 <= float(row[2].split()[0]) <= 1 for row in rows)
    assert "| C11 |" in verdicts
    assert "judged: 1 of 11 claims" in printed(notebook)
    assert len(shown(notebook, "image/png")) == 1
    assert os.path.getsize(tmp_path / "run" / "work" / "ablation_report" / "report.html") > 10_000
