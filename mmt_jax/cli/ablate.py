"""Runs a study: trains and tests each of its variants, and judges the claims that it speaks to.

  mmt ablate --study=demo --workdir=work/demo
  mmt ablate --study=attention --workdir=work/attention --seeds=2 --set=steps=200
  mmt ablate --study=demo --workdir=work/grid --set=optim.lr=1e-3,2e-3 --set=optim.b2=0.98,0.999

With --jobs=8 eight runs go on at a time, for which the small models of a study leave room on a GPU
or on many cores; what each says is in its runs/<tag>/seed<k>.log.

Studies are rows of experiments/studies.py, which `mmt list` lists: demo, attention, losses and so
on. The same command again goes on where it stopped; a finished run is never repeated, and more
seeds add runs.

Several values, separated by commas, of a number, a switch or a choice of names make a grid: each
combination is a row of its own, such as `data_cc,optim.lr=0.001,optim.b2=0.98`. (In a tuple or a
text, such as data.source=scenes/cc,scenes/sbu, commas belong to the value.) Claims are about rows
without a grid.

The workdir gets one training workdir a run under runs/, report.html (table, figures, verdicts; one
page that needs nothing else), its figures as SVG under figures/, its table of scores as scores.csv
and scores.tex, runs.csv, report.json, and best, a link to the best run. The page also has pictures
of what the best run finds, where the test photos have some, and on generated scenes each variant's
accuracy by kind of mistake (see `mmt eval --probe`); runs that were finished before there was such
a thing are asked when the command is given again.
"""

from __future__ import annotations

import os
import types
from typing import Any

from mmt_jax import progress
from mmt_jax.cli import flags
from mmt_jax.configs import overrides
from mmt_jax.configs.config import Study
from mmt_jax.errors import UsageError, nearest

FLAGS = (
    flags.Flag("study", "NAME", "what to run, of `mmt list`", required=True),
    flags.Flag("workdir", "DIR", "where the study lives; made where absent", required=True),
    flags.Flag("seeds", "N", "runs of each variant; as the study says by default", default=0),
    flags.Flag(
        "set",
        "FIELD=VALUE",
        "sets a field of every run's config (several values: a grid), or test.FIELD",
        (),
    ),
    flags.Flag("jobs", "N", "runs side by side, each in a process of its own", default=1),
    flags.Flag(
        "studies", "FILE.py", "a file of your own with STUDIES, as experiments/studies.py is"
    ),
)
COLUMNS = {
    "image_retrieval/r@1": "image r@1",
    "image_retrieval/r@10": "image r@10",
    "text_retrieval/r@1": "text r@1",
    "text_retrieval/r@10": "text r@10",
}


def run(args: types.SimpleNamespace) -> None:
    """Runs the study and prints what it found."""
    study = find(args.study, args.studies or overrides.STUDIES)
    progress.stage(f"{study.name}: {len(study.tags)} variants")

    from mmt_jax.study.plan import parse_overrides
    from mmt_jax.study.run import ablate

    found = ablate(
        study,
        args.workdir,
        seeds=args.seeds or None,
        overrides=parse_overrides(args.set),
        jobs=args.jobs,
    )
    print(_table(found))
    print()
    for claim in found["claims"]:
        if claim["verdict"]:
            print(f"{claim['id']} {claim['verdict']}: {claim['statement']}")
    print(f"\nreport: {os.path.join(args.workdir, 'report.html')}")


def find(name: str, path: str | os.PathLike = overrides.STUDIES) -> Study:
    """The study `name` of the file `path`; UsageError: there is none, or it is something else."""
    studies = overrides.defined(path, "STUDIES")
    if not isinstance(studies, dict) or not all(isinstance(s, Study) for s in studies.values()):
        raise UsageError(f"{path}: STUDIES is to be a dict of mmt_jax.configs.config.Study by name")
    if name not in studies:
        raise UsageError(f"there is no study {name!r} in {path}; {nearest(name, studies)}")
    return studies[name]


def _table(found: dict[str, Any]) -> str:
    """The columns that fit a screen; the page has all."""
    rows = []
    for row in found["table"]:
        cells = [_interval(row["metrics"][name]) for name in COLUMNS]
        rows.append([row["tag"], str(row["seeds"]), *cells])
    return flags.table(["tag", "seeds", *COLUMNS.values()], rows)


def _interval(found: dict[str, Any]) -> str:
    ends = "" if found["low"] is None else f" [{found['low']:.3g}, {found['high']:.3g}]"
    return f"{found['mean']:.3g}{ends}"
