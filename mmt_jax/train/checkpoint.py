"""Checkpoints: the state, the position in the data, the config and the metrics of a step.

Parameters are an item of their own, so that they can be read without the optimiser's state. Reading
is always into the shapes and shardings that are asked for, so a checkpoint does not know the mesh
that wrote it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from mmt_jax import params as params_lib
from mmt_jax.configs.config import Config, as_dict
from mmt_jax.errors import UsageError
from mmt_jax.files import whole_folder
from mmt_jax.models import registry
from mmt_jax.models.base import Model
from mmt_jax.text import store
from mmt_jax.text.base import Tokenizer
from mmt_jax.train import workdir as workdirs
from mmt_jax.train.state import State
from mmt_jax.typing import Params

WHICH = ("best", "last")


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
        self.config = config
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
                cleanup_tmp_directories=not read_only,
                # The step donates its state, so the arrays must be written before it goes on.
                enable_async_checkpointing=False,
            ),
            item_handlers={
                "params": ocp.StandardCheckpointHandler(),
                "optimizer": ocp.StandardCheckpointHandler(),
                "run": ocp.JsonCheckpointHandler(),
            },
        )

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
        """Writes a checkpoint and removes those that are no longer to be kept.

        Args:
          state: after `step` steps.
          step: its step.
          position: of the data, before the next batch.
          metrics: of the last window of the log, and of the evaluation if there was one.
        """
        run = {"position": position, "config": as_dict(self.config)}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                optimizer=ocp.args.StandardSave({"step": state.step, "state": state.opt_state}),
                run=ocp.args.JsonSave(run),
            ),
            metrics=metrics,
        )

    def params(self, step: int, like: Params) -> Params:
        """The parameters of a checkpoint, in the shapes and shardings of `like`.

        Raises:
          UsageError: the checkpoint is damaged, or of another model.
        """
        return self._read(step, params=_standard(like))["params"]

    def restore(self, step: int, like: State) -> tuple[State, dict[str, Any], dict[str, float]]:
        """State, data position and metrics of a checkpoint, in the shardings of `like`.

        Raises:
          UsageError: the checkpoint is damaged, or of another model.
        """
        read = self._read(
            step,
            params=_standard(like.params),
            optimizer=_standard({"step": like.step, "state": like.opt_state}),
            run=ocp.args.JsonRestore(),
        )
        optimizer, run = read["optimizer"], read["run"]
        state = State(optimizer["step"], read["params"], optimizer["state"])
        return state, run["position"], dict(self._manager.metrics(step) or {})

    def _read(self, step: int, **args: Any) -> Any:
        path = self.path(step)
        try:
            found = self._manager.item_metadata(step)["params"]
        except Exception as error:
            raise self._damaged(path, error) from error
        if found is None:
            raise self._damaged(path, ValueError("it has no parameters"))
        differ = params_lib.differences(
            found.tree if hasattr(found, "tree") else found, args["params"].item
        )
        if differ:
            raise UsageError(
                f"{path} is a checkpoint of another model than its {workdirs.CONFIG} describes: "
                f"{'; '.join(differ[:5])}{'; …' if len(differ) > 5 else ''}; restore the folder's "
                f"own files, or train again"
            )
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:
            raise self._damaged(path, error) from error

    def _damaged(self, path: pathlib.Path, error: Exception) -> UsageError:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return UsageError(
            f"{path} is damaged ({reason[:200]}); remove that folder to go on from the checkpoint "
            f"before it, or train again"
        )

    def close(self) -> None:
        """Ends the threads behind this object."""
        self._manager.close()


def _standard(like: Any) -> ocp.args.StandardRestore:
    return ocp.args.StandardRestore(like)


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
