"""Checkpoints: the state, the position in the data, the config and the metrics of a step.

Parameters are an item of their own, so that they can be read without the optimiser's state: those
that are evaluated and exported, which under `config.optim.ema` are a mean of many steps. Reading
is always into the shapes and shardings that are asked for, so a checkpoint does not know the mesh
that wrote it. A folder with a step's number is whole: it gets this name when all of it is written,
and loses it before any of it is removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
import shutil
import types
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from mmt_jax import params as params_lib
from mmt_jax import placement
from mmt_jax.configs.config import Config, as_dict
from mmt_jax.errors import UsageError, of_system, reason, writing
from mmt_jax.files import whole_folder
from mmt_jax.models import registry, renames
from mmt_jax.models.base import Model
from mmt_jax.text import vocabulary
from mmt_jax.text.base import Tokenizer
from mmt_jax.train import workdir as workdirs
from mmt_jax.train.state import State
from mmt_jax.typing import Params

WHICH = ("best", "last")
ITEMS = ("params", "optimizer", "run")  # of a checkpoint
_REMOVED = "removed"  # where checkpoints go that are no longer kept, until their files are gone
# What `optax.partition` and `optax.masked` put around the state of what they wrap: no array's place
# in a checkpoint depends on it.
_WRAPPERS = ("inner_states", "trained", "inner_state")


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a run has brought forth."""

    config: Config
    model: Model
    params: Params
    step: int
    metrics: dict[str, float]  # of the last window of the log, and of its evaluation


class Checkpoints:
    """The checkpoints of a workdir: the last `config.keep`, and the best by `config.eval.best`."""

    def __init__(self, workdir: str | os.PathLike, config: Config, *, read_only: bool = False):
        """Opens them; `read_only` neither makes nor removes anything."""
        self.config, self._read_only = config, read_only
        self.folder = pathlib.Path(workdir).resolve() / workdirs.CHECKPOINTS

        def quality(metrics: dict[str, float]) -> float:
            return metrics.get(config.eval.best, -math.inf)

        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                best_fn=quality,
                preservation_policy=AnyPreservationPolicy(
                    [LatestN(config.keep), BestN(get_metric_fn=quality, n=1)]
                ),
                create=not read_only,
                todelete_subdir=None if read_only else _REMOVED,
                # Where it fails beside them, the threads that write wait for it for ten minutes.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            ),
            item_handlers={
                "params": ocp.StandardCheckpointHandler(),
                "optimizer": ocp.StandardCheckpointHandler(),
                "run": ocp.JsonCheckpointHandler(),
            },
        )
        self._sweep()

    def step(self, which: str = "last") -> int | None:
        """The step of the "best" or the "last" checkpoint; None = there is none.

        Without an evaluation, the last one counts as the best.
        """
        return self._manager.best_step() if which == "best" else self._manager.latest_step()

    def path(self, step: int) -> pathlib.Path:
        """The folder of a checkpoint."""
        return self.folder / str(step)

    def save(
        self, state: State, step: int, *, position: dict[str, Any], metrics: dict[str, float]
    ) -> None:
        """Begins to write a checkpoint, and to remove those that are no longer to be kept.

        `state` may be donated as soon as this returns; `wait` says when all is on disk. `position`
        is that of the data before the next batch. UsageError: this one or the one before cannot be
        written.
        """
        self.wait()
        run = {"position": position, "config": as_dict(self.config)}
        others = {"step": state.step, "state": state.opt_state} | _unshown(state)
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(state.shown),
                    optimizer=ocp.args.StandardSave(others),
                    run=ocp.args.JsonSave(run),
                ),
                metrics=metrics,
            )

    def wait(self) -> None:
        """Returns when all that was saved is on disk; raises UsageError where it cannot be."""
        with self._writing():
            self._manager.wait_until_finished()
        self._sweep()

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        remedy = "make room there and run it again to go on from the one before"
        return writing(self.folder, "a checkpoint", of=Exception, remedy=remedy)

    def _sweep(self) -> None:
        """Removes what is no checkpoint any more, or was never to become one."""
        if not self._read_only and jax.process_index() == 0:
            for path in (self.folder / _REMOVED, *self.folder.glob("*.orbax-checkpoint-tmp*")):
                shutil.rmtree(path, ignore_errors=True)

    def params(self, step: int, like: Params) -> Params:
        """The parameters of a checkpoint, in the shapes and shardings of `like`.

        UsageError: the checkpoint is damaged, or of another model.
        """
        found = self._stored(step)["params"]
        if old := renames.outdated(found):
            arrays = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), found)  # numpy
            arrays = self._restore(step, params=ocp.args.StandardRestore(arrays))["params"]
            found = renames.current(arrays, self.config.model.num_classes or 0)
        if differ := params_lib.differences(found, like):
            raise UsageError(
                f"{self.path(step)} is a checkpoint of another model than its {workdirs.CONFIG} "
                f"describes: {'; '.join(differ[:5])}{'; …' if len(differ) > 5 else ''}; restore "
                f"the folder's own files, or train again"
            )
        if old:
            return jax.tree.map(lambda p, place: placement.put(p, place.sharding), found, like)
        return self._restore(step, params=ocp.args.StandardRestore(like))["params"]

    def restore(self, step: int, like: State) -> tuple[State, dict[str, Any], dict[str, float]]:
        """State, data position and metrics of a checkpoint, in the shardings of `like`.

        UsageError: the checkpoint is damaged, or of another model or optimiser.
        """
        params = self.params(step, like.shown)
        tree: Any = {"step": like.step, "state": like.opt_state} | _unshown(like)
        wanted, stored = _by_place(tree), self._stored(step)["optimizer"]
        if differ := sorted(_by_place(stored).keys() ^ wanted.keys()):
            path = self.path(step)
            raise UsageError(
                f"{path} has its optimiser's state as another version wrote it ({differ[0]}), and "
                f"the run cannot go on; start from its parameters, with "
                f"--config.init_from={path.parents[1]} and a new folder as --workdir"
            )
        placed = jax.tree.map_with_path(lambda path, _: wanted[_place(path)], stored)
        optimizer = ocp.args.StandardRestore(placed)
        read = self._restore(step, optimizer=optimizer, run=ocp.args.JsonRestore())
        found = _by_place(read["optimizer"])
        tree = jax.tree.unflatten(jax.tree.structure(tree), [found[place] for place in wanted])
        shown = (params, None) if like.average is None else (tree["raw"], params)
        state = State(tree["step"], shown[0], tree["state"], shown[1])
        return state, read["run"]["position"], self.metrics(step)

    def metrics(self, step: int) -> dict[str, float]:
        """What was measured at a checkpoint."""
        return dict(self._manager.metrics(step) or {})

    def _stored(self, step: int) -> dict[str, Any]:
        """Shapes and dtypes of what a checkpoint holds, as trees by item."""
        missing = [item for item in ITEMS if not (self.path(step) / item).is_dir()]
        with self._damaged(step):
            items = {} if missing else self._manager.item_metadata(step)
            stored = {name: getattr(item, "tree", item) for name, item in items.items()}
            missing = missing or [name for name in ITEMS[:2] if stored.get(name) is None]
            if missing:
                raise ValueError(f"it has no {' and no '.join(missing)}")
            return stored

    def _restore(self, step: int, **args: Any) -> Any:
        with self._damaged(step):
            return self._manager.restore(step, args=ocp.args.Composite(**args))

    @contextlib.contextmanager
    def _damaged(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if of_system(error):
                raise  # it is the machine that lacks something, and not the checkpoint
            raise UsageError(
                f"{self.path(step)} is damaged ({reason(error)}); remove that folder to go on "
                f"from the checkpoint before it, or train again"
            ) from error

    def close(self) -> None:
        """Waits as `wait` does, and ends the threads behind this object."""
        try:
            self.wait()
        finally:
            self._manager.close()


def _unshown(state: State) -> dict[str, Params]:
    """The parameters that steps go on from, where others are evaluated and exported."""
    return {} if state.average is None else {"raw": state.params}


def _place(path: tuple[Any, ...]) -> str:
    """Of an array in an optimiser's state, such as `state/1/mu/text/norm/scale`."""
    names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    return "/".join(name for name in names if name not in _WRAPPERS)


def _by_place(tree: Any) -> dict[str, Any]:
    return {_place(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def write(
    workdir: str | os.PathLike,
    config: Config,
    params: Params,
    tokenizer: Tokenizer,
    others: Mapping[str, bytes] = types.MappingProxyType({}),
) -> None:
    """Makes a workdir, in a folder that holds nothing, of parameters that no run has trained.

    `others` is the content of further files by name.
    """
    workdirs.check_free(workdir)
    with whole_folder(workdir) as part:
        vocabulary.store_tokenizer(tokenizer, part)
        workdirs.write_config(part, config)
        for name, content in others.items():
            (part / name).write_bytes(content)
        with contextlib.closing(Checkpoints(part, config)) as checkpoints:
            state = State(np.zeros((), np.int32), params, {})
            checkpoints.save(state, 0, position={}, metrics={})


def load(workdir: str | os.PathLike, *, which: str = "best") -> Trained:
    """The model of a run, on whatever mesh it was trained, on the first device of this process.

    UsageError: not a workdir, no checkpoint yet, or a damaged or foreign one.
    """
    if which not in WHICH:
        raise UsageError(f"{which!r} is no checkpoint; take one of {', '.join(WHICH)}")
    config = workdirs.read_config(workdir)
    with contextlib.closing(Checkpoints(workdir, config, read_only=True)) as checkpoints:
        step = checkpoints.step(which)
        if step is None:
            raise UsageError(f"{workdir} has no checkpoint yet; let `mmt train` run on")
        model = registry.build(config)
        place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.tree.map(
            lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=place), model.abstract()
        )
        params = checkpoints.params(step, like)
        return Trained(config, model, params, step, checkpoints.metrics(step))
