"""The package as a wheel, in a folder without a checkout."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Runs a command line in a folder of its own, with what the wheel holds, no checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [*(sys.executable, "-m", "pip", "wheel"), "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*build, f"--wheel-dir={folder}", str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    site, here = folder / "site", folder / "here"
    zipfile.ZipFile(wheel).extractall(site)
    here.mkdir()
    (folder / "mmt").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m mmt_jax.cli "$@"\n')
    (folder / "mmt").chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(site), "PATH": path}

    def run(line):
        done = subprocess.run(
            ["bash", "-c", line], cwd=here, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(site) in run(f'{sys.executable} -P -c "import mmt_jax; print(mmt_jax.__file__)"')
    return run


@pytest.mark.slow
def test_a_wheel_has_the_configs_and_studies(shell):
    assert "1,334,643 parameters" in shell("mmt describe lxmert:base,scale=tiny")
    assert shell("mmt list") == subprocess.check_output(
        [sys.executable, "-m", "mmt_jax.cli", "list"], text=True, cwd=ROOT
    )
