"""constraints.txt pins what pyproject.toml admits; make lists its targets, and builds strictly."""

import itertools
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parent.parent
PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]


@pytest.mark.parametrize("python", ["3.11.7", "3.13.0"])
def test_every_requirement_is_pinned_within_its_bounds(python):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = itertools.chain(project["dependencies"], *project["optional-dependencies"].values())
    wanted = [Requirement(line) for line in named if not line.startswith("mmt_jax[")]
    version = {"python_version": python.rpartition(".")[0], "python_full_version": python}
    pins = {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in PINS
        if pin.marker is None or pin.marker.evaluate(version)
    }
    assert len(wanted) > 30
    for requirement in wanted:
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_make_help_lists_every_target():
    declared = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    told = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert declared is not None
    assert [line.split()[0] for line in told.stdout.splitlines()] == declared[1].split()


@pytest.mark.slow
def test_make_docs_fails_on_a_broken_link(tmp_path):
    pytest.importorskip("mkdocs")
    make = ("make", "-n", "--no-print-directory", "docs")  # so that `make test` adds no line to it
    told = subprocess.run(make, cwd=ROOT, capture_output=True, text=True)
    build = told.stdout.splitlines()[-1].replace(".venv/bin/mkdocs", f"{sys.executable} -m mkdocs")
    (tmp_path / "mkdocs.yml").write_text("site_name: pages\nstrict: true\n")
    (tmp_path / "docs").mkdir()
    for link, fails in (("index.md", False), ("gone.md", True)):
        (tmp_path / "docs" / "index.md").write_text(f"[a page]({link})\n")
        done = subprocess.run(build, shell=True, cwd=tmp_path, capture_output=True)
        assert (done.returncode != 0) == fails
