"""Runs of a study side by side."""

import os

import pytest

from mmt_jax.configs.config import Config
from mmt_jax.errors import UsageError
from mmt_jax.study import parallel
from mmt_jax.study.results import Run

pytestmark = pytest.mark.slow  # each process imports all


def runs(folder, **starts):
    """A run of each name, after the run that is named with it."""
    made = []
    for name, start in starts.items():
        path = folder / name / "seed0"
        path.mkdir(parents=True)
        config = Config(init_from=start and str(folder / start / "seed0"))
        made.append(Run(name, 0, config, None, path))
    return made


def write(run):
    """What a run leaves is its name; it fails if what it starts from is not there yet."""
    if run.config.init_from:
        open(f"{run.config.init_from}/done").close()
        if run.tag == "bad":
            raise UsageError("this run is not to be")
        if run.tag == "killed":
            os._exit(9)
    print(f"{run.tag} speaks")
    (run.folder / "done").write_text(run.tag)


def test_a_run_begins_when_that_which_it_starts_from_has_ended(tmp_path):
    planned = runs(tmp_path, second="first", first=None, other=None)
    done = [run.tag for run in parallel.carry_out(planned, write, jobs=3)]
    assert sorted(done) == ["first", "other", "second"]
    assert done.index("first") < done.index("second")
    for name in done:
        assert (tmp_path / name / "seed0" / "done").read_text() == name
        assert (tmp_path / name / "seed0.log").read_text() == f"{name} speaks\n"


@pytest.mark.parametrize(
    ("name", "told"), [("bad", "this run is not to be"), ("killed", "run of killed, seed 0, was")]
)
def test_what_is_wrong_with_a_run_is_told(name, told, tmp_path):
    planned = runs(tmp_path, good=None, **{name: "good", "after": name})
    with pytest.raises((UsageError, parallel.RunFailed), match=told):
        list(parallel.carry_out(planned, write, jobs=2))
    assert not (tmp_path / "after" / "seed0" / "done").exists()
