"""Runs of a study side by side."""

import os

import pytest

from mmt_jax.configs.config import Config, EvalConfig, Study
from mmt_jax.errors import UsageError
from mmt_jax.study import parallel
from mmt_jax.study.results import Run
from mmt_jax.study.run import ablate

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


class Odd(Exception):
    """Cannot be unpickled: it is made of something else than what it says."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def write(run):
    """What a run leaves is its name; it fails if what it starts from is not there yet."""
    if run.config.init_from:
        open(f"{run.config.init_from}/done").close()
    if run.tag == "wrong":
        raise UsageError("this run is not to be" + 100_000 * " !")
    if run.tag == "odd":
        raise Odd("one", "two")
    if run.tag == "killed":
        os._exit(9)
    os.write(2, f"{run.tag} speaks\n".encode())  # as a library in C does
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
    ("name", "kind", "told"),
    [
        ("wrong", UsageError, "this run is not to be"),
        ("odd", parallel.RunFailed, "Odd: one and two"),
        ("killed", parallel.RunFailed, "killed"),
    ],
)
def test_what_is_wrong_with_a_run_is_told(name, kind, told, tmp_path, capsys):
    planned = runs(tmp_path, **{name: None, "after": name})
    with pytest.raises(kind, match=told):
        list(parallel.carry_out(planned, write, jobs=2))
    assert not (tmp_path / "after" / "seed0" / "done").exists()
    assert f"{name} seed 0 failed" in capsys.readouterr().err


def test_a_study_side_by_side(tmp_path):
    """`baseline_baseline` starts from the run `bert`, which the study adds."""
    settings = {"steps": 2, "batch_size": 8, "objective.candidates": 8, "eval.limit": 5}
    study = Study(
        "pair",
        ("baseline_baseline", "architecture_single-modality"),
        scale="pilot",
        level=1,
        overrides=settings,
        test=EvalConfig(split="test", limit=5),
    )
    found = ablate(study, tmp_path, seeds=1, jobs=2)
    assert {row["tag"] for row in found["table"]} == set(study.tags)
    logs = {path.parent.name for path in tmp_path.glob("runs/*/seed0.log")}
    assert logs == {"bert", *study.tags}
    with pytest.raises(UsageError, match="jobs=1 alone"):
        ablate(study, tmp_path, jobs=2, train=lambda config, workdir: {})
