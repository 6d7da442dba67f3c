import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mmt_jax import params as trees
from mmt_jax.configs import variants
from mmt_jax.configs.config import (
    Config,
    DataConfig,
    DataSpec,
    EvalConfig,
    MMTConfig,
    ObjectiveConfig,
    OptimConfig,
    with_spec,
)
from mmt_jax.errors import UsageError
from mmt_jax.infer import retrieval
from mmt_jax.models import registry
from mmt_jax.text import vocabulary
from mmt_jax.train import init, loop, optim, speed, workdir
from mmt_jax.train.checkpoint import Checkpoints, load
from mmt_jax.train.run import prepare
from mmt_jax.train.signals import Interrupted, Stop
from mmt_jax.train.state import State, keys

MODEL = MMTConfig(
    width=8, mlp_dim=8, heads=2, head_dim=4, layers=("merged",), pooled_dim=8, max_positions=32
)
CONFIG = Config(
    steps=6,
    batch_size=8,
    mesh=(("data", 1), ("model", 1)),
    log_every=2,
    checkpoint_every=100,
    model=MODEL,
    data=DataConfig(source="scenes", size=16, vocab_size=300, text_length=12),
    optim=OptimConfig(lr=0.01, schedule="constant", warmup_steps=2, eps=1e-3),
    eval=EvalConfig(best="r"),
)
SPEEDS = ("pairs_per_second", "tokens_per_second", "data_wait")
BERT = dataclasses.replace(
    CONFIG,
    tag="bert",
    model=dataclasses.replace(MODEL, family="bert", layers=("text",)),
    objective=ObjectiveConfig(itm="none", mrm=0.0),
)


def run(folder, config=CONFIG, **kwargs):
    return loop.train(config, folder, progress=False, **kwargs)


def lines(folder):
    """metrics.jsonl without speeds."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in SPEEDS} for row in rows]


def distance(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b))
    return max(float(jnp.abs(x - y).max()) for x, y in pairs)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing stopped, and what it returned."""
    folder = tmp_path_factory.mktemp("train") / "whole"
    return folder, run(folder)


@pytest.mark.slow
def test_a_run_logs_means_of_windows_and_keeps_its_last_state(whole):
    folder, metrics = whole
    rows = lines(folder)
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert {"loss", "itm", "itm_accuracy", "mlm", "mrm", "grad_norm", "lr"} < rows[0].keys()
    assert rows[0]["lr"] == pytest.approx((0.005 + 0.01) / 2)
    assert metrics == {k: v for k, v in rows[-1].items() if k != "step"}
    for row in rows:  # what was counted in the window, not the mean of the steps' own losses
        assert row["loss"] == pytest.approx(row["itm"] + row["mlm"] + row["mrm"], rel=1e-6)
    assert load(folder).step == 6
    assert list(folder.glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_bit_for_bit(whole, tmp_path):
    def stop(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with pytest.raises(Interrupted, match="SIGTERM after step 3") as stopped:
        run(
            tmp_path,
            dataclasses.replace(CONFIG, eval=EvalConfig(every=3)),
            evaluator=lambda *_: stop,
        )
    assert stopped.value.code == 128 + signal.SIGTERM
    assert load(tmp_path).step == 3
    # A run that is killed leaves lines of steps that it will take again.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss": 1.0}\n{"step": 5, "lo')

    metrics = run(tmp_path)
    assert same(load(tmp_path).params, load(whole[0]).params)
    # Where the run stopped, a window of the log ends; the one after that is whole again.
    assert [row["step"] for row in lines(tmp_path)] == [2, 3, 3, 4, 6]
    assert lines(tmp_path)[-1] == lines(whole[0])[-1]
    assert metrics == whole[1]


@pytest.mark.slow
def test_two_hosts_train_what_one_does_and_stop_together(whole, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    script = pathlib.Path(__file__).with_name("two_hosts.py")
    path = os.pathsep.join([str(script.parents[1]), str(script.parent)])
    env = os.environ | {"PYTHONPATH": path, "JAX_COORDINATOR_ADDRESS": address}
    hosts = [
        subprocess.Popen(
            [sys.executable, script, tmp_path],
            env=env | {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(host)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in range(2)
    ]
    said = [host.communicate() for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], said
    steps = [re.search(r"stopped by SIGTERM after step ([2-5]);", out)[1] for out, _ in said]
    assert steps[0] == steps[1]
    trained = load(tmp_path, which="last")
    assert trained.step == 6
    assert distance(trained.params, load(whole[0]).params) < 1e-5
    assert "image_retrieval/r@1" in lines(tmp_path)[-1]


@pytest.fixture
def interruptible():
    """SIGINT as in a foreground process; a shell starts those in the background with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_the_first_signal_is_a_wish_and_the_second_an_order():
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_a_finished_run_is_not_repeated(whole):
    folder, metrics = whole
    before = {path: path.stat().st_mtime_ns for path in (folder / "checkpoints").rglob("*")}
    assert run(folder) == metrics
    assert {path: path.stat().st_mtime_ns for path in (folder / "checkpoints").rglob("*")} == before


@pytest.mark.slow
def test_the_best_by_evaluation_is_what_load_gives(tmp_path):
    scores = iter([0.1, 0.9, 0.2, 0.3])
    config = dataclasses.replace(CONFIG, steps=7, keep=1, eval=EvalConfig(every=2, best="r"))
    metrics = run(tmp_path, config, evaluator=lambda *_: lambda *_: {"r": next(scores)})
    assert metrics["r"] == 0.3
    assert (load(tmp_path).step, load(tmp_path, which="last").step) == (4, 7)
    assert [(row["step"], row["r"]) for row in lines(tmp_path) if "r" in row] == [
        (2, 0.1),
        (4, 0.9),
        (6, 0.2),
        (7, 0.3),
    ]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run_and_is_never_saved(tmp_path, monkeypatch):
    rate = lambda count: jnp.where(count < 3, 1e-3, jnp.inf)  # noqa: E731
    monkeypatch.setattr(optim, "schedule", lambda *_: rate)
    config = dataclasses.replace(BERT, checkpoint_every=2, log_every=100)
    with pytest.raises(loop.TrainingFailed, match=r"from step 4 on; .* checkpoint is .*/2: lower"):
        run(tmp_path, config)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]


@pytest.mark.slow
def test_the_log_says_how_fast_a_run_is_and_a_profile_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(speed.PEAKS, "cpu", 1e12)
    run(tmp_path, dataclasses.replace(CONFIG, steps=4, profile=(2, 2)))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        assert 8 * 4 < row["tokens_per_second"] / row["pairs_per_second"] * 8 < 8 * (12 + 37)
        assert 0 < row["mfu"] < 1
        assert 0 <= row["data_wait"] <= 1
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    longer = dataclasses.replace(CONFIG, steps=4)
    assert run(tmp_path, longer)["loss"] == rows[-1]["loss"]


def test_flops_are_of_products_in_loops_and_gradients_too():
    def products(x, y):
        def body(carry, _):
            return jnp.einsum("bi,ij->bj", carry, y), None

        return jax.lax.scan(body, x, length=5)[0].sum()

    x, y = jnp.ones((2, 3)), jnp.ones((3, 3))
    each = 2 * 2 * 3 * 3
    assert speed.flops(products, x, y) == 5 * each
    # Backwards there is one product for x, and one for y.
    assert speed.flops(jax.grad(products, (0, 1)), x, y) == 3 * 5 * each


@pytest.mark.slow
def test_flops_of_a_step_are_counted_whole_whatever_its_parts(monkeypatch, tmp_path):
    monkeypatch.setitem(speed.PEAKS, "cpu", 1e12)
    flops = []
    for how in ({}, {"remat": "layers"}, {"grad_accum": 2}):
        program = prepare(dataclasses.replace(CONFIG, **how), tmp_path / "run").program
        flops.append(program.flops(program.largest))
    assert flops[0] == flops[1] == flops[2]
    # Of all that XLA does, one part of two at a time, products are some.
    assert 0 < flops[0] < 2 * program.compile().cost_analysis()["flops"]


@pytest.mark.slow
def test_bits_of_another_generator_give_another_run_from_the_same_weights(whole, tmp_path):
    config = dataclasses.replace(CONFIG, prng="rbg")
    assert keys(0)[0] == keys(0, "rbg")[0]
    metrics = run(tmp_path, config)
    assert not same(load(tmp_path).params, load(whole[0]).params)
    assert run(tmp_path / "again", config) == metrics
    with pytest.raises(UsageError, match=r"config\.prng is 'threefry' and was 'rbg'"):
        run(tmp_path)


@pytest.mark.slow
def test_nothing_is_written_where_the_config_is_wrong(tmp_path):
    folder = tmp_path / "run"
    wrong = {
        "freeze": dataclasses.replace(
            CONFIG, optim=dataclasses.replace(CONFIG.optim, freeze=("nothing",))
        ),
        "candidates": dataclasses.replace(
            CONFIG, objective=ObjectiveConfig(itm="contrastive", candidates=3)
        ),
        "no loss to train": dataclasses.replace(
            BERT, objective=ObjectiveConfig(itm="none", mlm=0.0, mrm=0.0)
        ),
    }
    for name, config in wrong.items():
        with pytest.raises(UsageError, match=name):
            run(folder, config)
    assert not folder.exists()


@pytest.mark.slow
def test_nothing_is_trained_where_the_run_after_it_cannot_be(tmp_path, monkeypatch):
    """Neither a part of it nor of the run that it starts from, which would come first."""
    rows = {"bert": BERT, "x": dataclasses.replace(CONFIG, tag="x", pretrained="bert")}
    monkeypatch.setattr(init.variants, "get_config", lambda tag, *, scale: rows[tag])
    frozen = dataclasses.replace(CONFIG.optim, freeze=("nothing",))
    with pytest.raises(UsageError, match="freeze"):
        run(tmp_path / "run", dataclasses.replace(rows["x"], optim=frozen))
    config = dataclasses.replace(rows["x"], eval=EvalConfig(best="loss"))
    with pytest.raises(UsageError, match="'loss' cannot choose a checkpoint"):
        run(tmp_path / "run", config, evaluator=retrieval.evaluator)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="nothing was written"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_a_folder_in_which_another_process_trains_is_refused(whole, tmp_path):
    pytest.importorskip("fcntl")
    folder = shutil.copytree(whole[0], tmp_path / "run")
    files = [path for path in sorted(folder.rglob("*")) if path.name != workdir.LOCK]
    before = [path.stat().st_mtime_ns for path in files]
    hold = (
        "import fcntl, sys; file = open(sys.argv[1], 'wb'); fcntl.flock(file, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(folder / workdir.LOCK)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match=f"another process is training in {folder}"):
            run(folder)
        other.kill()
    assert [path.stat().st_mtime_ns for path in files] == before
    assert run(folder) == whole[1]  # nobody is there any more


def test_nothing_is_written_where_a_run_is_said_to_start_from_no_workdir(tmp_path):
    (tmp_path / "photos").mkdir()
    for origin in ("photos", "nowhere"):
        config = dataclasses.replace(CONFIG, init_from=str(tmp_path / origin))
        with pytest.raises(UsageError, match=f"{origin} is not a training workdir"):
            run(tmp_path / "run", config)
    assert [path.name for path in tmp_path.rglob("*")] == ["photos"]


@pytest.mark.slow
def test_nothing_is_written_where_a_run_cannot_start_from_another(whole, tmp_path):
    wide = dataclasses.replace(CONFIG.model, mlp_dim=9)
    config = dataclasses.replace(CONFIG, model=wide, init_from=str(whole[0]))
    with pytest.raises(UsageError, match=r"cannot start from .*mlp/hidden/kernel is .* must be"):
        run(tmp_path / "run", config)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_starts_from_the_parameters_and_vocabulary_of_another(whole, tmp_path):
    # Another size would give another vocabulary, if it were not the source's.
    config = dataclasses.replace(
        CONFIG,
        steps=1,
        init_from=str(whole[0]),
        data=dataclasses.replace(CONFIG.data, vocab_size=200),
    )
    run(tmp_path, config)
    start, end = load(whole[0]), load(tmp_path)
    fresh = start.model.init(keys(CONFIG.seed)[0])
    # A first step of Adam moves a parameter by its rate, 0.005 here, and decay by little more.
    assert distance(start.params, end.params) < 0.0055 < distance(start.params, fresh)
    words = [(folder / vocabulary.VOCABULARY).read_bytes() for folder in (whole[0], tmp_path)]
    assert words[0] == words[1]


@pytest.mark.slow
def test_sizes_and_parameters_that_do_not_fit_are_named(whole):
    built = tiny.model(("merged", "merged"), mlp_dim=9)
    with pytest.raises(UsageError) as error:
        init.params([whole[0]], built, jax.random.key(0), print)
    message = str(error.value)
    assert "config.model.mlp_dim is 9 and there 8" in message
    assert "config.model.layers is ('merged', 'merged') and there" in message
    assert "streams/layers/1/image/attention/key/bias" in message
    assert re.search(r"and \d+ parameters more; train with", message)


def save(folder, built):
    """A workdir with one checkpoint."""
    folder.mkdir()
    workdir.write_config(folder, built.config)
    params = jax.tree.map(jnp.asarray, tiny.params(built))
    checkpoints = Checkpoints(folder, built.config)
    state = State.fresh(params, optim.build(built.config.optim, params, 1))
    checkpoints.save(state, 1, position={}, metrics={})
    checkpoints.close()
    return trees.flatten(params)


@pytest.mark.slow
def test_language_layers_of_bert_go_where_text_reads_text(tmp_path):
    bert = tiny.model(
        ("text", "text", "text"), family="bert", objective={"itm": "none", "mrm": 0.0}
    )
    source = save(tmp_path / "bert", bert)
    built = tiny.model(("text", "coattention", "merged", "single_stream"))
    fresh, said = trees.flatten(built.init(jax.random.key(3))), []
    flat = trees.flatten(init.params([tmp_path / "bert"], built, jax.random.key(3), said.append))
    assert flat.keys() == fresh.keys()
    layers = {"0/text": "0/text", "2/text": "1/text", "3/shared": "2/text"}
    for path, leaf in flat.items():
        expected = source.get(path, fresh[path])
        if path.startswith("streams/layers/"):
            _, _, number, stream, rest = path.split("/", 4)
            layer = layers.get(f"{number}/{stream}", "none")
            expected = source.get(f"streams/layers/{layer}/{rest}", fresh[path])
        assert np.array_equal(leaf, expected), path
    assert "text/tokens/embedding" in source
    assert "streams/layers/2/text/attention/key/bias" not in source  # BERT's keys need none
    assert "taken from" in said[0]
    assert "word_head/dense" in said[0]
    assert "streams/*/image/" in said[1].replace("layers/", "")


@pytest.mark.parametrize("layers", [("text", "merged"), ("text", "text", "merged")])
def test_layers_that_are_left_out_are_told(tmp_path, layers):
    bert = tiny.model(("text",) * 3, family="bert", objective={"itm": "none", "mrm": 0.0})
    save(tmp_path / "bert", bert)
    built, said = tiny.model(layers), []
    init.params([tmp_path / "bert"], built, jax.random.key(0), said.append)
    told = (
        f"layers taken from {tmp_path / 'bert'}: the first 2 of 3, as many as config.model.layers"
    )
    assert [line.startswith(told) for line in said[:-2]] == [True] * (len(layers) < 3)
    assert said[-2].startswith("taken from")


@pytest.mark.slow
def test_what_a_pretrained_run_starts_from_comes_before_it(tmp_path, monkeypatch):
    rows = {
        "bert": BERT,
        "x": dataclasses.replace(CONFIG, tag="x", pretrained="bert"),
        "y": dataclasses.replace(CONFIG, tag="y", pretrained="x"),
    }
    monkeypatch.setattr(init.variants, "get_config", lambda tag, *, scale: rows[tag])
    run(tmp_path, dataclasses.replace(rows["y"], steps=1))
    first, second, third = (load(tmp_path.joinpath(*["pretrained"] * depth)) for depth in (2, 1, 0))
    assert [found.config.tag for found in (first, second, third)] == ["bert", "x", "y"]
    assert distance(first.params["text"], second.params["text"]) < 0.0055
    assert distance(second.params, third.params) < 0.0055


@pytest.mark.slow
def test_a_pretrained_run_is_trained_first_and_started_from(tmp_path, monkeypatch):
    rows = {"bert": BERT, "x": dataclasses.replace(CONFIG, tag="x", pretrained="bert")}
    monkeypatch.setattr(init.variants, "get_config", lambda tag, *, scale: rows[tag])
    config = dataclasses.replace(rows["x"], steps=1)
    evaluated = []

    def evaluate(model, _):
        evaluated.append(model)
        return {"r": 1.0}

    run(
        tmp_path,
        config,
        evaluator=lambda config, *_: evaluate if config.objective.itm != "none" else None,
    )
    source, target = load(tmp_path / "pretrained"), load(tmp_path)
    assert source.config == dataclasses.replace(BERT, steps=1, model=source.config.model)
    # A first step moves a parameter by 0.005; tables start with a standard deviation of 0.02.
    assert distance(source.params["text"], target.params["text"]) < 0.0055
    assert [model.config.tag for model in evaluated] == ["x"]


def test_pretraining_follows_what_the_user_changed():
    row = variants.get_config("data-ft_cc", scale="tiny")
    changed = dataclasses.replace(
        row,
        steps=7,
        seed=3,
        init_from=None,
        model=dataclasses.replace(row.model, width=32, layers=("merged",), vocab_size=99),
        data=dataclasses.replace(row.data, source="regions:mine"),
        optim=OptimConfig(lr=5.0),
    )
    own = variants.get_config("data_cc", scale="tiny")
    assert init.pretraining(row) == own
    assert init.pretraining(changed) == dataclasses.replace(
        own,
        steps=7,
        seed=3,
        model=dataclasses.replace(own.model, width=32, layers=("merged",)),
        data=dataclasses.replace(own.data, source="regions:mine"),
    )


def test_pretraining_of_bert_keeps_its_own_layers_and_losses():
    row = variants.get_config("data_cc-with-bert", scale="tiny")
    changed = dataclasses.replace(
        row,
        model=dataclasses.replace(row.model, dropout=0.0, layers=("merged",)),
        objective=dataclasses.replace(row.objective, itm="contrastive", mlm=0.5),
    )
    own = variants.get_config("bert", scale="tiny")
    assert init.pretraining(changed) == dataclasses.replace(
        own,
        model=dataclasses.replace(own.model, dropout=0.0),
        objective=dataclasses.replace(own.objective, mlm=0.5),
    )


def test_losses_that_bert_does_not_have_stay_out_of_its_pretraining():
    row = variants.get_config("baseline_baseline", scale="tiny")
    changed = dataclasses.replace(row, objective=dataclasses.replace(row.objective, mrm=1.0))
    own = init.pretraining(changed)
    assert own == init.pretraining(row)
    registry.build(with_spec(own, DataSpec(8, 5, 99)))  # which a loss of regions would refuse
