"""Checkpoints: the state, the position in the data, the config and the metrics of a step.

Parameters are an item of their own, so that they can be read without the optimiser's state. Reading
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
import re
import shutil
import types
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from mmt_jax import params as params_lib
from mmt_jax.configs.config import Config, as_dict
from mmt_jax.errors import UsageError
from mmt_jax.files import whole_folder
from mmt_jax.models import registry, renames
from mmt_jax.models.base import Model
from mmt_jax.text import store
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

        `state` may be donated as soon as this returns; `wait` says when all is on disk.

        Args:
          state: after `step` steps.
          step: its step.
          position: of the data, before the next batch.
          metrics: of the last window of the log, and of the evaluation if there was one.

        Raises:
          UsageError: this one or the one before cannot be written.
        """
        self.wait()
        run = {"position": position, "config": as_dict(self.config)}
        with self._told():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(state.params),
                    optimizer=ocp.args.StandardSave({"step": state.step, "state": state.opt_state}),
                    run=ocp.args.JsonSave(run),
                ),
                metrics=metrics,
            )

    def wait(self) -> None:
        """Returns when all that was saved is on disk.

        Raises:
          UsageError: something cannot be written.
        """
        with self._told():
            self._manager.wait_until_finished()
        self._sweep()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise UsageError(
                f"a checkpoint cannot be written to {self.folder} ({_reason(error)}); make room "
                f"there and run it again to go on from the one before"
            ) from error

    def _sweep(self) -> None:
        """Removes what is no checkpoint any more, or was never to become one."""
        if not self._read_only and jax.process_index() == 0:
            for path in (self.folder / _REMOVED, *self.folder.glob("*.orbax-checkpoint-tmp*")):
                shutil.rmtree(path, ignore_errors=True)

    def params(self, step: int, like: Params) -> Params:
        """The parameters of a checkpoint, in the shapes and shardings of `like`.

        Raises:
          UsageError: the checkpoint is damaged, or of another model.
        """
        return self._read(step, like)["params"]

    def restore(self, step: int, like: State) -> tuple[State, dict[str, Any], dict[str, float]]:
        """State, data position and metrics of a checkpoint, in the shardings of `like`.

        Raises:
          UsageError: the checkpoint is damaged, or of another model or optimiser.
        """
        tree = {"step": like.step, "state": like.opt_state}
        wanted = _by_place(tree)
        read = self._read(step, like.params, wanted)
        found = _by_place(read["optimizer"])
        tree = jax.tree.unflatten(jax.tree.structure(tree), [found[place] for place in wanted])
        state = State(tree["step"], read["params"], tree["state"])
        return state, read["run"]["position"], dict(self._manager.metrics(step) or {})

    def _read(self, step: int, params: Params, optimizer: dict[str, Any] | None = None) -> Any:
        """Items of a checkpoint: parameters like `params`, and the others if `optimizer` is given.

        Args:
          step: of the checkpoint.
          params: abstract arrays in their places.
          optimizer: the same of the optimiser's state, by `_place`.
        """
        path = self.path(step)
        missing = [item for item in ITEMS if not (path / item).is_dir()]
        stored: dict[str, Any] = {}
        try:
            for name, item in self._manager.item_metadata(step).items() if not missing else ():
                stored[name] = getattr(item, "tree", item)
        except Exception as error:
            raise self._damaged(path, error) from error
        if missing := missing or [name for name in ITEMS[:2] if stored.get(name) is None]:
            raise self._damaged(path, f"it has no {' and no '.join(missing)}")
        old, classes = renames.outdated(stored["params"]), self.config.model.num_classes or 0
        found = renames.current(stored["params"], classes, _part) if old else stored["params"]
        if differ := params_lib.differences(found, params):
            raise UsageError(
                f"{path} is a checkpoint of another model than its {workdirs.CONFIG} describes: "
                f"{'; '.join(differ[:5])}{'; …' if len(differ) > 5 else ''}; restore the folder's "
                f"own files, or train again"
            )
        like = _as_stored(stored["params"], params) if old else params
        args: dict[str, Any] = {"params": ocp.args.StandardRestore(like)}
        if optimizer is not None:
            if differ := sorted(_by_place(stored["optimizer"]).keys() ^ optimizer.keys()):
                raise UsageError(
                    f"{path} has the state of another optimiser ({differ[0]}), and the run cannot "
                    f"go on; start from its parameters, with --config.init_from={path.parents[1]} "
                    f"and a new folder as --workdir"
                )
            args["optimizer"] = ocp.args.StandardRestore(
                jax.tree.map_with_path(lambda at, _: optimizer[_place(at)], stored["optimizer"])
            )
            args["run"] = ocp.args.JsonRestore()
        try:
            read = dict(self._manager.restore(step, args=ocp.args.Composite(**args)).items())
        except Exception as error:
            raise self._damaged(path, error) from error
        if old:
            read["params"] = renames.current(
                read["params"], classes, lambda leaf, start, stop: leaf[..., start:stop]
            )
            read["params"] = jax.tree.map(
                lambda leaf, wanted: jax.device_put(leaf, wanted.sharding), read["params"], params
            )
        return read

    def _damaged(self, path: pathlib.Path, error: object) -> UsageError:
        return UsageError(
            f"{path} is damaged ({_reason(error)}); remove that folder to go on from the "
            f"checkpoint before it, or train again"
        )

    def close(self) -> None:
        """Waits as `wait` does, and ends the threads behind this object."""
        try:
            self.wait()
        finally:
            self._manager.close()


def _part(leaf: Any, start: int, stop: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*leaf.shape[:-1], stop - start), leaf.dtype)


def _as_stored(stored: Params, params: Params) -> Params:
    """Abstract arrays under the names that they were stored under, in the places of `params`."""
    wanted = params_lib.flatten(params)
    whole = next(iter(wanted[path] for path in wanted if path.endswith("norm/bias")))

    def like(path: str, leaf: Any) -> jax.ShapeDtypeStruct:
        now = wanted.get(renames.renamed(path), whole)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=now.sharding)

    flat = params_lib.flatten(stored)
    return params_lib.unflatten({path: like(path, leaf) for path, leaf in flat.items()})


def _reason(error: object) -> str:
    """The first line of an error, or what the system said, which tensorstore hides in it."""
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


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
    """Makes a workdir, whole or not at all, of parameters that no run has trained.

    `others` is the content of further files by name.

    Raises:
      UsageError: the folder holds something.
    """
    workdirs.check_free(workdir)
    with whole_folder(workdir) as part:
        store.store_tokenizer(tokenizer, part)
        workdirs.write_config(part, config)
        for name, content in others.items():
            (part / name).write_bytes(content)
        with contextlib.closing(Checkpoints(part, config)) as checkpoints:
            state = State(np.zeros((), np.int32), params, {})
            checkpoints.save(state, 0, position={}, metrics={})


def load(workdir: str | os.PathLike, *, which: str = "best") -> Trained:
    """The model of a run and its parameters, on the first device of this process.

    Args:
      workdir: of a run, on whatever mesh it was trained.
      which: "best" by the run's `eval.best`, or "last".

    Raises:
      UsageError: not a workdir, no checkpoint yet, or a damaged or foreign one.
    """
    if which not in WHICH:
        raise UsageError(f"{which!r} is no checkpoint; take one of {', '.join(WHICH)}")
    config = workdirs.read_config(workdir)
    if not workdirs.has_checkpoint(workdir):
        raise UsageError(f"{workdir} has no checkpoint yet; let `mmt train` run on")
    checkpoints = Checkpoints(workdir, config, read_only=True)
    try:
        step = checkpoints.step(which)
        if step is None:
            raise UsageError(f"{workdir} has no checkpoint yet; let `mmt train` run on")
        model = registry.build(config)
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.tree.map(
            lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=sharding), model.abstract()
        )
        return Trained(config, model, checkpoints.params(step, like), step)
    finally:
        checkpoints.close()
