import contextlib
import dataclasses
import json
import resource
import shutil

import jax
import numpy as np
import optax
import pytest
import tiny

from mmt_jax import params as trees
from mmt_jax.configs.config import EvalConfig
from mmt_jax.configs.models import LxmertConfig
from mmt_jax.configs.tasks import TaskConfig
from mmt_jax.errors import UsageError
from mmt_jax.train import checkpoint, optim, workdir
from mmt_jax.train.checkpoint import Checkpoints, load
from mmt_jax.train.state import State, abstract


def model(**changes):
    built = tiny.model(("text",), objective={"itm": "none", "mrm": 0.0}, family="bert")
    return dataclasses.replace(built, config=dataclasses.replace(built.config, **changes))


def fresh(built, seed=0):
    params = jax.tree.map(jax.numpy.asarray, tiny.params(built, seed=seed))
    return State.fresh(params, optim.build(built.config.optim, params, 10))


def like(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def write(folder, built, scores, *, keep=2):
    """A workdir with a checkpoint for each step in `scores`; None = it was not evaluated."""
    config = dataclasses.replace(built.config, keep=keep, eval=EvalConfig(best="r"))
    folder.mkdir()
    workdir.write_config(folder, config)
    checkpoints = Checkpoints(folder, config)
    for step, score in scores.items():
        checkpoints.save(
            fresh(built, seed=step),
            step,
            position={"next_index": step},
            metrics={"loss": 1.5} | ({} if score is None else {"r": score}),
        )
    checkpoints.wait()
    return checkpoints


def steps(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.fixture
def run(tmp_path):
    built = model()
    write(tmp_path / "run", built, {1: 0.5, 2: None}).close()
    return tmp_path / "run"


@pytest.mark.slow
def test_state_position_and_metrics_come_back(tmp_path):
    built = model()
    checkpoints = write(tmp_path / "run", built, {3: 0.25})
    state, position, metrics = checkpoints.restore(3, like(fresh(built)))
    assert same(state, fresh(built, seed=3))
    assert jax.tree.structure(state) == jax.tree.structure(fresh(built))
    assert position == {"next_index": 3}
    assert metrics == {"loss": 1.5, "r": 0.25}


@pytest.mark.slow
def test_the_last_ones_and_the_best_are_kept(tmp_path):
    scores = {1: 0.2, 2: 0.9, 3: 0.4, 4: None, 5: 0.8, 6: None}
    checkpoints = write(tmp_path / "run", model(), scores)
    assert steps(tmp_path / "run") == [2, 5, 6]
    assert (checkpoints.step("best"), checkpoints.step("last")) == (2, 6)


def test_without_evaluations_the_best_is_the_last(tmp_path):
    checkpoints = write(tmp_path / "run", model(), {1: None, 2: None, 3: None}, keep=1)
    assert steps(tmp_path / "run") == [3]
    assert checkpoints.step("best") == 3


@pytest.mark.slow
def test_what_is_written_is_the_state_of_the_step_though_the_next_steps_took_its_memory(tmp_path):
    config = dataclasses.replace(model().config, keep=4)
    tables = {str(n): jax.numpy.zeros((256, 1024)) for n in range(20)}  # 20 MB: a while to write
    state = State(jax.numpy.zeros((), jax.numpy.int32), tables, ({"mu": tables["0"] + 0},))
    step = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    checkpoints = Checkpoints(tmp_path, config)
    for number in range(1, 21):
        state = step(state)
        if number % 5 == 0:
            checkpoints.save(state, number, position={}, metrics={})
    for number in (5, 10, 15, 20):
        read, _, _ = checkpoints.restore(number, like(state))
        assert {float(leaf.min()) for leaf in jax.tree.leaves(read)} == {number}
        assert {float(leaf.max()) for leaf in jax.tree.leaves(read)} == {number}


def test_a_checkpoint_that_cannot_be_written_is_told_at_the_next_occasion(tmp_path):
    built = model()
    table = {"table": jax.random.normal(jax.random.key(0), (1000, 1000))}
    state = State(jax.numpy.zeros((), jax.numpy.int32), table, {})
    checkpoints = write(tmp_path / "run", built, {1: None})
    _, most = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, most))  # as a disk that is full
    try:
        checkpoints.save(state, 2, position={}, metrics={})
        with pytest.raises(UsageError, match=r"cannot be written to .*\(File too large\); make"):
            checkpoints.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load(tmp_path / "run").step == 1
    Checkpoints(tmp_path / "run", built.config).close()
    assert steps(tmp_path / "run") == [1]


def test_what_a_kill_left_behind_goes_when_the_run_goes_on(tmp_path, monkeypatch):
    built = model()
    with monkeypatch.context() as killed:  # before the files of step 1 are gone
        killed.setattr(checkpoint.shutil, "rmtree", lambda *_, **__: None)
        write(tmp_path / "run", built, {1: None, 2: None, 3: None}).close()
    part = tmp_path / "run" / "checkpoints" / "4.orbax-checkpoint-tmp"  # and in the midst of step 4
    shutil.copytree(tmp_path / "run" / "checkpoints" / "3", part)
    assert load(tmp_path / "run", which="last").step == 3
    assert not (tmp_path / "run" / "checkpoints" / "1").exists()
    Checkpoints(tmp_path / "run", built.config).close()
    assert steps(tmp_path / "run") == [2, 3]


@pytest.mark.parametrize("item", checkpoint.ITEMS)
def test_a_checkpoint_that_lacks_a_part_is_named(run, item):
    shutil.rmtree(run / "checkpoints" / "1" / item)
    with pytest.raises(UsageError, match=rf"1 is damaged \(it has no {item}\); remove that folder"):
        load(run)


def test_the_state_of_another_optimiser_is_named(tmp_path):
    built = model()
    checkpoints = write(tmp_path / "run", built, {3: None})
    state = dataclasses.replace(fresh(built), opt_state={"momentum": jax.numpy.zeros(())})
    with pytest.raises(UsageError, match=rf"with --config\.init_from={tmp_path}/run and a new"):
        checkpoints.restore(3, like(state))


def test_a_frozen_run_that_an_earlier_version_saved_goes_on(tmp_path):
    """It kept no place for what is frozen, and put the state into no groups."""
    built = model()
    optimiser = dataclasses.replace(built.config.optim, freeze=("text/.*",))
    state = State.fresh(fresh(built).params, optim.build(optimiser, fresh(built).params, 10))
    adam = state.opt_state.inner_states["trained"].inner_state[1]
    mu, nu = (trees.select(m, lambda p: not p.startswith("text/")) for m in (adam.mu, adam.nu))
    nu = jax.tree.map(lambda leaf: leaf + 3, nu)
    adam = optax.ScaleByAdamState(adam.count + 7, mu, nu)
    empty = optax.EmptyState()
    before = (empty, adam, empty, empty, optax.ScaleByScheduleState(adam.count))
    checkpoints = write(tmp_path / "run", built, {})
    before = dataclasses.replace(state, opt_state=before)
    checkpoints.save(before, 7, position={}, metrics={})
    checkpoints.wait()
    read, _, _ = checkpoints.restore(7, like(state))
    assert jax.tree.structure(read) == jax.tree.structure(state)
    assert same(read.opt_state, before.opt_state)


@pytest.mark.parametrize(("which", "step"), [("best", 1), ("last", 2)])
def test_load_gives_config_model_and_parameters(run, which, step):
    before = sorted(run.rglob("*"))
    trained = load(run, which=which)
    assert trained.step == step
    assert trained.config == trained.model.config == workdir.read_config(run)
    assert same(trained.params, fresh(trained.model, seed=step).params)
    assert sorted(run.rglob("*")) == before


def test_a_folder_that_is_no_workdir_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"not a training workdir: it has no config\.json"):
        load(tmp_path)
    with pytest.raises(UsageError, match=r"absent is not a training workdir"):
        load(tmp_path / "absent")


def test_a_run_without_a_checkpoint_is_named(tmp_path):
    workdir.write_config(tmp_path, model().config)
    with pytest.raises(UsageError, match="has no checkpoint yet"):
        load(tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_an_unknown_checkpoint_is_named(run):
    with pytest.raises(UsageError, match="'latest' is no checkpoint; take one of best, last"):
        load(run, which="latest")


def test_the_parameters_of_another_model_are_named(run):
    config = workdir.read_config(run)
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, mlp_dim=11))
    workdir.write_config(run, other)
    with pytest.raises(
        UsageError, match=r"another model .*mlp/hidden/bias is \(10,\) and must be \(11,\)"
    ):
        load(run)


@pytest.mark.parametrize("how", ["truncated", "emptied"])
def test_a_damaged_checkpoint_is_named_with_the_remedy(run, how):
    params = run / "checkpoints" / "1" / "params"
    for path in [path for path in params.rglob("*") if path.is_file()]:
        if how == "emptied":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UsageError, match=r"checkpoints/1 is damaged .* remove that folder"):
        load(run)


@pytest.mark.parametrize("lacks", [MemoryError("16 GiB"), PermissionError(13, "no", "x")])
def test_a_checkpoint_is_not_blamed_for_what_the_machine_lacks(run, monkeypatch, lacks):
    def restore(*_, **__):
        raise lacks

    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "restore", restore)
    with pytest.raises(type(lacks)):
        load(run)


def test_a_damaged_config_is_named(run):
    (run / "config.json").write_text("{")
    with pytest.raises(UsageError, match=r"config\.json is damaged"):
        load(run)
    (run / "config.json").write_text(json.dumps({"stepz": 3}))
    with pytest.raises(UsageError, match=r"config\.json\.stepz is not a field"):
        load(run)


def test_a_run_may_go_on_longer_but_not_otherwise(run):
    stored = workdir.read_config(run)
    longer = dataclasses.replace(
        stored,
        steps=7,
        mesh=(("data", 1),),
        eval=EvalConfig(every=3),
        data=dataclasses.replace(stored.data, workers=4),
    )
    assert workdir.claim(longer, run) == (longer, True)
    other = dataclasses.replace(
        longer, seed=1, optim=dataclasses.replace(stored.optim, lr=0.5), log_every=3
    )
    with pytest.raises(UsageError) as error:
        workdir.claim(other, run)
    assert "config.seed is 1 and was 0" in str(error.value)
    assert "config.optim.lr is 0.5 and was 0.001" in str(error.value)
    assert "log_every" not in str(error.value)


def test_questions_to_evaluate_on_may_differ(run):
    stored = workdir.read_config(run)
    asked = dataclasses.replace(stored, task=TaskConfig(eval_questions="minival.json"))
    assert workdir.claim(asked, run) == (asked, True)


def test_a_run_of_another_family_is_named(run):
    stored = workdir.read_config(run)
    with pytest.raises(UsageError, match=r"config\.model\.family is 'lxmert' and was 'bert'"):
        workdir.claim(dataclasses.replace(stored, model=LxmertConfig()), run)


def test_sizes_that_are_unset_are_those_of_the_run(run):
    stored = workdir.read_config(run)
    unset = dataclasses.replace(stored.model, feature_dim=None, num_classes=None, vocab_size=None)
    assert workdir.claim(dataclasses.replace(stored, model=unset), run) == (stored, True)


def test_a_folder_of_something_else_is_refused(tmp_path):
    config = model().config
    assert workdir.claim(config, tmp_path / "new") == (config, False)
    assert workdir.claim(config, tmp_path) == (config, False)
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match=r"not empty \(it has thesis\.tex\)"):
        workdir.claim(config, tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        workdir.claim(config, tmp_path / "thesis.tex")


# What a model of commit 8f0b6a4 with one merged layer, classes and features stored, by its names.
OLD = {
    "streams/layers/0/{s}/attention_norm/scale": "streams/layers/0/{s}/attention/norm/scale",
    "streams/layers/0/{s}/attention_norm/bias": "streams/layers/0/{s}/attention/norm/bias",
    "streams/layers/0/{s}/mlp_in/kernel": "streams/layers/0/{s}/mlp/hidden/kernel",
    "streams/layers/0/{s}/mlp_in/bias": "streams/layers/0/{s}/mlp/hidden/bias",
    "streams/layers/0/{s}/mlp_out/kernel": "streams/layers/0/{s}/mlp/out/kernel",
    "streams/layers/0/{s}/mlp_out/bias": "streams/layers/0/{s}/mlp/out/bias",
    "streams/layers/0/{s}/mlp_norm/scale": "streams/layers/0/{s}/mlp/norm/scale",
    "streams/layers/0/{s}/mlp_norm/bias": "streams/layers/0/{s}/mlp/norm/bias",
}


@pytest.mark.parametrize("unlabelled", [False, True])
def test_checkpoints_with_the_names_of_before_are_read(tmp_path, unlabelled):
    spec = dataclasses.replace(tiny.SPEC, unlabelled=unlabelled)
    built = tiny.model(("merged",), spec=spec)
    params = trees.flatten(tiny.params(built))
    old = dict(params)
    for stream in ("text", "image"):
        for before, now in OLD.items():
            old[before.format(s=stream)] = old.pop(now.format(s=stream))
    for leaf in ("kernel", "bias"):
        parts = [old.pop(f"region_head/outs/classes/{leaf}")]
        if unlabelled:
            parts.append(old.pop(f"region_head/outs/features/{leaf}"))
        old[f"region_head/out/{leaf}"] = np.concatenate(parts, axis=-1)
    workdir.write_config(tmp_path, built.config)
    with contextlib.closing(checkpoint.Checkpoints(tmp_path, built.config)) as checkpoints:
        stored = State(np.array(3, np.int32), trees.unflatten(old), {})
        checkpoints.save(stored, 3, position={}, metrics={})
    found = trees.flatten(checkpoint.load(tmp_path).params)
    assert found.keys() == params.keys()
    for path in params:
        np.testing.assert_array_equal(found[path], params[path])

    tx = optim.build(built.config.optim, built.abstract(), 10)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract(built, tx),
    )
    with (
        contextlib.closing(checkpoint.Checkpoints(tmp_path, built.config)) as checkpoints,
        pytest.raises(UsageError, match=r"cannot go on; .*--config.init_from="),
    ):
        checkpoints.restore(3, like)
