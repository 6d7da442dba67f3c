"""Training of two towers: a mean of the parameters, an early end, towers that stay as they are."""

import dataclasses
import os
import re
import signal

import jax
import numpy as np
import pytest

from mmt_jax import params as trees
from mmt_jax.configs.config import (
    Config,
    DataConfig,
    EvalConfig,
    MMTConfig,
    ObjectiveConfig,
    OptimConfig,
)
from mmt_jax.errors import UsageError
from mmt_jax.infer import retrieval
from mmt_jax.train import loop
from mmt_jax.train.checkpoint import Checkpoints, load
from mmt_jax.train.run import prepare
from mmt_jax.train.signals import Interrupted

TEXT = (r"text/.*", r"streams/layers/\d+/text/.*")
CONFIG = Config(
    steps=4,
    batch_size=8,
    mesh=(("data", 1), ("model", 1)),
    log_every=1,
    checkpoint_every=1,
    keep=9,
    model=MMTConfig(
        family="two_tower",
        width=8,
        mlp_dim=8,
        heads=2,
        head_dim=4,
        layers=("text", "image"),
        pooled_dim=8,
        max_positions=32,
        dropout=0.0,
        cosine=True,
        pooling="mean+cls+words",
    ),
    objective=ObjectiveConfig(itm="contrastive", candidates=8, mlm=0.0, mrm=0.0),
    data=DataConfig(source="scenes@1/cc", size=16, vocab_size=120, text_length=12, max_regions=4),
    optim=OptimConfig(lr=0.01, schedule="constant", warmup_steps=0, eps=1e-3),
    eval=EvalConfig(best="r"),
)


def changed(config=CONFIG, **fields):
    """`optim__ema=0.5` sets `config.optim.ema`."""
    for name, value in fields.items():
        part, _, field = name.rpartition("__")
        if part:
            value = dataclasses.replace(getattr(config, part), **{field: value})
        config = dataclasses.replace(config, **{part or name: value})
    return config


def run(folder, config, scores=None):
    """Trains; `scores` are what each evaluation finds, which gets the parameters that it sees."""
    seen = []

    def evaluate(model, params):
        seen.append(jax.device_get(params))
        score = scores[len(seen) - 1]
        if score is None:
            os.kill(os.getpid(), signal.SIGTERM)
            score = 0.0
        return {"r": score}

    evaluator = (lambda *_: evaluate) if scores else None
    return loop.train(config, folder, progress=False, evaluator=evaluator), seen


def at(folder, config, step):
    """What a checkpoint holds, trained and shown."""
    program = prepare(config, folder).program
    checkpoints = Checkpoints(folder, config, read_only=True)
    state, *_ = checkpoints.restore(step, program.like)
    checkpoints.close()
    return trees.flatten(state.params), trees.flatten(state.shown)


@pytest.mark.slow
def test_a_mean_of_the_parameters_is_evaluated_kept_and_loaded_and_goes_on(tmp_path):
    config = changed(optim__ema=0.25, eval__every=2, eval__best="r")
    _, seen = run(tmp_path / "run", config, [1.0, 0.5])
    stored = load(tmp_path / "run").config
    checkpoints = [at(tmp_path / "run", stored, step) for step in range(1, 5)]
    mean = checkpoints[0][1]
    for step, (trained, shown) in enumerate(checkpoints[1:], 2):
        decay = min(0.25, (1 + step) / (10 + step))
        mean = {path: decay * mean[path] + (1 - decay) * trained[path] for path in trained}
        for path in trained:
            np.testing.assert_allclose(shown[path], mean[path], atol=1e-6)
        assert not np.allclose(shown["image/boxes/kernel"], trained["image/boxes/kernel"])
    best = trees.flatten(load(tmp_path / "run").params)  # of step 2
    for path, value in trees.flatten(seen[0]).items():
        np.testing.assert_array_equal(best[path], value)
    with pytest.raises(Interrupted):
        run(tmp_path / "other", config, [None])
    run(tmp_path / "other", config, [0.5])
    for one, other in zip(
        *(at(tmp_path / name, stored, 4) for name in ("run", "other")), strict=True
    ):
        assert all(np.array_equal(one[path], other[path]) for path in one)


@pytest.mark.slow
def test_training_ends_when_evaluations_bring_no_new_best(tmp_path):
    config = changed(steps=9, eval__every=1, eval__patience=2)
    scores = [0.1, 0.3, 0.25, 0.2, 0.9]
    metrics, seen = run(tmp_path / "run", config, scores)
    assert (len(seen), metrics["r"]) == (4, 0.2)
    assert load(tmp_path / "run").step == 2
    assert load(tmp_path / "run", which="last").step == 4
    again, seen = run(tmp_path / "run", config, scores)  # it is over
    assert (again["r"], seen) == (0.2, [])
    _, seen = run(tmp_path / "run", changed(config, eval__patience=3), [0.1])
    assert len(seen) == 1


def test_patience_without_evaluations_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"config\.eval\.patience=2 counts .*config\.eval\.every"):
        run(tmp_path, changed(eval__patience=2))


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [TEXT, (r"text/.*", r"streams/layers/0/text/.*", r"image/.*")])
def test_what_is_frozen_stays_and_the_rest_learns(tmp_path, freeze):
    config = changed(optim__freeze=freeze, model__layers=("text", "single"), steps=2)
    made = prepare(config, tmp_path)
    first = trees.flatten(jax.device_get(made.program.first_state(None).params))
    run(tmp_path, config)
    last = trees.flatten(load(tmp_path).params)
    still = {path for path in first if np.array_equal(first[path], last[path])}
    assert still == {path for path in first if any(re.fullmatch(row, path) for row in freeze)}


@pytest.mark.slow
def test_what_it_has_learned_is_what_retrieval_reads(tmp_path):
    """Retrieval by embeddings ranks as scores of single pairs do."""
    run(tmp_path, changed(optim__ema=0.5))
    trained = load(tmp_path)
    made = prepare(trained.config, tmp_path)
    texts, images = made.examples.texts(np.arange(6)), made.examples.images(np.arange(6))
    model, params = trained.model, trained.params
    text, image = model.encode_text(params, texts), model.encode_image(params, images)
    own = model.fuse(params, text, image).scores[-1]
    found = retrieval.Predictor(model, params).score(texts, images)
    np.testing.assert_allclose(np.diag(found), own, atol=1e-5)
