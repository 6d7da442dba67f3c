"""LXMERT against the PyTorch models of the same name, over a grid of tiny configs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from experiments import lxmert as experiment
from mmt_jax import hub as importers
from mmt_jax import params as trees
from mmt_jax.configs.config import RELEASE_SPEC, Config, ObjectiveConfig, resolve, with_spec
from mmt_jax.configs.models import LxmertConfig
from mmt_jax.errors import UsageError
from mmt_jax.infer import trace
from mmt_jax.models import registry
from mmt_jax.models import weights as engine
from mmt_jax.models.lxmert import weights as names
from mmt_jax.nn.heads import MATCH
from mmt_jax.objectives import losses
from mmt_jax.train import sharding
from mmt_jax.typing import Image, Text

pytestmark = pytest.mark.torch

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "cube", "ball", "##s", "two"]
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 24,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 12,
    "visual_feat_dim": 7,
    "num_qa_labels": 6,
    "num_object_labels": 5,
    "num_attr_labels": 4,
    "l_layers": 2,
    "r_layers": 1,
    "x_layers": 2,
}
GRID = {
    "base": {},
    "deep": {"l_layers": 1, "r_layers": 2, "x_layers": 3, "type_vocab_size": 3},
    "bare": {"l_layers": 0, "r_layers": 0, "x_layers": 1},
    "wide": {"hidden_size": 32, "num_attention_heads": 8, "intermediate_size": 48},
    "one head": {"num_attention_heads": 1, "visual_feat_dim": 3},
}
HEADS = {
    "all": {},
    "no objects": {"visual_obj_loss": False},
    "objects alone": {"visual_attr_loss": False, "visual_feat_loss": False, "task_qa": False},
    "no regions": {"task_obj_predict": False},
}
PAIRS, TOKENS, REGIONS = 3, 6, 4
TOLERANCE = 1e-5


@functools.cache
def _libraries():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pytest.importorskip("tokenizers")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    return torch, transformers


def published(architecture, *, seed=0, **sizes):
    """A random PyTorch model, its weights far from their first values."""
    torch, transformers = _libraries()
    config = transformers.LxmertConfig(**SIZES | sizes)
    model = getattr(transformers, architecture)(config).eval()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            mean = 1.0 if name.endswith(("norm.weight", "LayerNorm.weight", "fc.2.weight")) else 0.0
            drawn = rng.normal(mean, 0.3, value.shape).astype(np.float32)
            value.copy_(torch.from_numpy(drawn))
    return model


def saved(model, folder):
    """What `save_pretrained` writes, and a vocabulary."""
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return folder


def imported(model, folder):
    found = importers.load(saved(model, folder), "lxmert")
    return registry.build(found.config), found.params


def pairs(model, *, masks=True, seed=0):
    """Inputs of both libraries: ours, and keyword arguments of theirs."""
    torch, _ = _libraries()
    rng, config = np.random.default_rng(seed), model.config
    token_ids = rng.integers(0, config.vocab_size, (PAIRS, TOKENS), np.int32)
    segment_ids = rng.integers(0, config.type_vocab_size, (PAIRS, TOKENS), np.int32)
    text_mask, image_mask = np.ones((PAIRS, TOKENS), bool), np.ones((PAIRS, REGIONS), bool)
    if masks:
        text_mask[0, -2:] = image_mask[1, :2] = False
    features = rng.normal(size=(PAIRS, REGIONS, config.visual_feat_dim)).astype(np.float32)
    low = rng.uniform(0, 0.5, (PAIRS, REGIONS, 2)).astype(np.float32)
    high = low + rng.uniform(0.1, 0.5, low.shape).astype(np.float32)
    (y1, x1), (y2, x2) = np.moveaxis(low, -1, 0), np.moveaxis(high, -1, 0)
    boxes = np.stack([y1, x1, y2, x2, (y2 - y1) * (x2 - x1)], axis=-1)
    theirs = {
        "input_ids": token_ids,
        "token_type_ids": segment_ids,
        "visual_feats": features,
        "visual_pos": np.stack([x1, y1, x2, y2], axis=-1),
    }
    if masks:
        theirs |= {"attention_mask": text_mask, "visual_attention_mask": image_mask}
    tensors = {
        key: torch.from_numpy(value).long() if value.dtype == np.int32 else torch.from_numpy(value)
        for key, value in theirs.items()
    }
    text = Text(token_ids, segment_ids, np.where(text_mask, -1, -2), text_mask)
    return text, Image(features, boxes, image_mask), tensors


def assert_near(found, expected):
    expected = expected.detach().numpy() if hasattr(expected, "detach") else expected
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=TOLERANCE * scale)


def gradients(theirs, config):
    """Gradients of a PyTorch model under our paths; those that were never reached are 0."""
    grads = {
        names.rename(name): np.zeros(value.shape) if value.grad is None else value.grad.numpy()
        for name, value in theirs.named_parameters()
    }
    shapes = registry.build(config).abstract()
    return engine.convert(grads, names.TABLE, shapes, name="gradients")


def assert_gradients_near(found, expected):
    found, expected = trees.flatten(found), trees.flatten(expected)
    scale = max(1.0, max(np.abs(grad).max() for grad in expected.values()))
    for path, grad in expected.items():
        np.testing.assert_allclose(found[path], grad, rtol=0, atol=TOLERANCE * scale, err_msg=path)
        assert np.any(found[path]) == np.any(grad), path


# ---- Hidden states and attention -----------------------------------------------------------------


def everything(model, params, text, image):
    """The trace, and the fused pairs."""

    def run(params):
        return trace.trace(model, params, text, image), tiny.fused(model, params, text, image)

    return jax.jit(run)(params)


@pytest.mark.slow
@pytest.mark.parametrize("masks", [True, False], ids=["masks", "no masks"])
@pytest.mark.parametrize("sizes", GRID.values(), ids=GRID)
def test_hidden_states_and_attention(tmp_path, sizes, masks):
    theirs = published("LxmertModel", **sizes)
    model, params = imported(theirs, tmp_path)
    text, image, tensors = pairs(theirs, masks=masks)
    theirs.set_attn_implementation("eager")
    out = theirs(**tensors, output_hidden_states=True, output_attentions=True)
    seen, fused = everything(model, params, text, image)
    for key, expected in (
        ("text", out.language_hidden_states),
        ("image", out.vision_hidden_states),
        ("text_attention", out.language_attentions),
        ("image_attention", out.vision_attentions),
        ("text_to_image", out.cross_encoder_attentions),
    ):
        found = seen[key][1:] if key in ("text", "image") else seen[key]
        if key.endswith("_attention"):  # theirs lacks what cross-modal layers read of themselves
            found = found[: -len(out.cross_encoder_attentions)]
        assert len(found) == len(expected)
        for state, wanted in zip(found, expected):
            assert_near(state, wanted)
    assert_near(fused.text, out.language_output)
    assert_near(fused.image, out.vision_output)
    assert_near(seen["pooled"], out.pooled_output)
    assert fused.scores.shape == (0, PAIRS)  # it has no match head


# ---- Heads, losses, gradients --------------------------------------------------------------------


def targets(config, seed=1):
    """Labels of every task of pre-training, by their name in PyTorch; -100 is ignored."""
    rng = np.random.default_rng(seed)
    words = rng.integers(0, config.vocab_size, (PAIRS, TOKENS))
    shape = (PAIRS, REGIONS)
    return {
        "labels": np.where(rng.random((PAIRS, TOKENS)) < 0.5, words, -100),
        "matched_label": np.array([0, 1, 1]),
        "ans": rng.integers(0, config.num_qa_labels, PAIRS),
        "obj_labels": {
            "obj": (rng.integers(0, config.num_object_labels, shape), rng.random(shape)),
            "attr": (rng.integers(0, config.num_attr_labels, shape), rng.random(shape)),
            "feat": (rng.normal(size=(*shape, config.visual_feat_dim)), rng.random(shape)),
        },
    }


def pretraining(params, model, text, image, labels, config):
    """The sum of LXMERT's five losses as Hugging Face weighs them, and what they are made of."""
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    fused = tiny.fused(model, params, text, image)
    chosen, words = labels["labels"] >= 0, model.words(params, fused.text)
    each = cross_entropy(words, jnp.where(chosen, labels["labels"], 0))
    loss = jnp.mean(each, where=chosen)
    matched = jnp.where(labels["matched_label"] == 1, MATCH, 1 - MATCH)
    loss += cross_entropy(fused.logits[-1], matched).mean()
    outputs, answers = {}, None
    if config.task_obj_predict:
        outputs = model.apply(
            params,
            lambda network, x: {n: network.region_head(x, n) for n in network.region_head.outs},
            fused.image,
        )
    for name, key in (("classes", "obj"), ("attributes", "attr"), ("features", "feat")):
        if name in outputs:
            target, weight = labels["obj_labels"][key]
            if key == "feat":
                each = optax.huber_loss(outputs[name], target).mean(-1)
            else:
                each = cross_entropy(outputs[name], target)
            loss += config.visual_loss_normalizer * (each * weight).mean()
    if config.task_qa:
        answers = model.answers(params, fused.pooled)
        loss += cross_entropy(answers, labels["ans"]).mean()
    return loss, (words, jax.nn.softmax(fused.logits[-1])[:, MATCH], answers)


@pytest.mark.slow
@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
def test_pretraining(tmp_path, heads):
    torch, _ = _libraries()
    theirs = published("LxmertForPreTraining", l_layers=1, **heads)
    model, params = imported(theirs, tmp_path)
    text, image, tensors = pairs(theirs)
    labels = targets(theirs.config)
    out = theirs(**tensors, **jax.tree.map(torch.from_numpy, labels))
    out.loss.backward()

    loss = functools.partial(
        pretraining,
        model=model,
        text=text,
        image=image,
        labels=jax.tree.map(jnp.asarray, labels),
        config=theirs.config,
    )
    (value, found), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    words, matches, answers = found
    assert_near(words, out.prediction_logits)
    assert_near(matches, torch.softmax(out.cross_relationship_score, -1)[:, 1])
    if theirs.config.task_qa:
        assert_near(answers, out.question_answering_score)
    assert_near(value, out.loss)
    assert_gradients_near(grads, gradients(theirs, model.config))


@pytest.mark.slow
@pytest.mark.parametrize("masks", [True, False], ids=["masks", "no masks"])
def test_question_answering(tmp_path, masks):
    """The last layer's image side is read by nothing: its gradients are 0 here and there."""
    torch, _ = _libraries()
    theirs = published("LxmertForQuestionAnswering")
    model, params = imported(theirs, tmp_path)
    text, image, tensors = pairs(theirs, masks=masks)
    labels = np.array([3, 0, 5])
    out = theirs(**tensors, labels=torch.from_numpy(labels))
    out.loss.backward()

    def loss(params):
        fused = tiny.fused(model, params, text, image)
        answers = model.answers(params, fused.pooled)
        each = optax.softmax_cross_entropy_with_integer_labels(answers, labels)
        return each.mean(), answers

    (value, answers), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert_near(answers, out.question_answering_score)
    assert_near(value, out.loss)
    assert_gradients_near(grads, gradients(theirs, model.config))
    dead = trees.select(grads, lambda path: path.startswith("layers/1/image/"))
    assert not any(np.any(leaf) for leaf in trees.flatten(dead).values())


@pytest.mark.slow
def test_first_rows_of_the_tables_stay_as_they_are(tmp_path):
    model, params = imported(published("LxmertModel"), tmp_path)
    text, image, _ = pairs(published("LxmertModel"))

    def total(params):
        return jnp.square(tiny.fused(model, params, text, image).text).mean()

    grads = jax.jit(jax.grad(total))(params)["text"]["embed"]
    for name in ("tokens", "positions", "segments"):
        rows = np.abs(grads[name]["embedding"]).sum(axis=1)
        assert rows[0] == 0
        assert np.any(rows[1:]), name


# ---- The study's objectives ----------------------------------------------------------------------


def small(objective=(), spec=tiny.SPEC, **sizes):
    """A model of our own; the captions of `tiny` have three segments."""
    layers = dict.fromkeys(("language_layers", "region_layers", "cross_layers"), 1)
    widths = {"width": 12, "mlp_dim": 10, "heads": 2, "segments": 3, "max_positions": 16}
    model = LxmertConfig(**layers | widths | sizes)
    config = Config(model=model, objective=ObjectiveConfig(**dict(objective)))
    return registry.build(with_spec(config, spec))


@pytest.mark.slow
@pytest.mark.parametrize("objective", [{}, {"itm": "contrastive", "candidates": 2}], ids=str)
def test_every_parameter_is_reached_by_the_studys_losses(objective):
    """Except key biases, which the softmax cancels, and row 0 of the tables."""
    model = small(objective)
    params, batch = tiny.params(model), tiny.batch(4)

    def loss(params):
        return losses.compute(model, params, batch, key=jax.random.key(1), dropout=False)

    grads, metrics = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert {"itm", "mlm", "mrm"} <= metrics.keys()
    for path, grad in trees.flatten(grads).items():
        if not path.endswith("key/bias"):
            assert np.abs(grad).max() > 1e-6, path


def test_padding_and_how_much_of_it_change_no_score():
    model = small()
    params, text, image = tiny.params(model), tiny.text([3]), tiny.image([2])
    longer = jax.tree.map(lambda x: np.pad(x, [(0, 0), (0, 2)]), text)
    wider = jax.tree.map(lambda x: np.pad(x, [(0, 0), (3, 0)] + [(0, 0)] * (x.ndim - 2)), image)
    score = jax.jit(lambda text, image: tiny.fused(model, params, text, image).scores)
    np.testing.assert_allclose(score(longer, wider), score(text, image), rtol=1e-5, atol=1e-5)


def test_every_parameter_has_its_place_on_a_mesh():
    spec = dataclasses.replace(tiny.SPEC, unlabelled=True)
    built = small(spec=spec, num_answers=3, num_attributes=2)
    shapes = built.abstract()
    placed = sharding.of_params(shapes, built.config, sharding.mesh(built.config))
    assert trees.flatten(placed).keys() == trees.flatten(shapes).keys()


@pytest.mark.parametrize("scale", ["full", "tiny", "pilot"])
def test_the_experiment_is_a_model(scale):
    config = resolve(experiment.get_config(f"base,scale={scale}"))
    assert registry.build(with_spec(config, RELEASE_SPEC)).config.scale == scale


def test_the_experiment_names_its_scales():
    with pytest.raises(UsageError, match="scale=pilot"):
        experiment.get_config("base,scale=huge")


# ---- Sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "objective", "model"),
    [
        (207_936_768, {"itm": "none", "mlm": 0.0, "mrm": 0.0}, {}),
        (228_051_752, {}, {"num_answers": 9500, "num_attributes": 400, "unlabelled": True}),
        (223_722_524, {"itm": "none", "mlm": 0.0, "mrm": 0.0}, {"num_answers": 9500}),
        (213_930_297, {"itm": "none", "mlm": 0.0, "mrm": 0.0}, {"num_answers": 3129}),
    ],
    ids=["model", "pre-training", "9500 answers", "3129 answers"],
)
def test_full_size_has_as_many_parameters_as_is_published(count, objective, model):
    sizes = {"feature_dim": 2048, "num_classes": 1600, "vocab_size": 30522}
    config = Config(model=LxmertConfig(**sizes, **model), objective=ObjectiveConfig(**objective))
    leaves = jax.tree.leaves(registry.build(config).abstract())
    assert sum(leaf.size for leaf in leaves) == count


# ---- The family's own checks ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "objective", "message"),
    [
        ({"heads": 5}, {}, r"config\.model\.width is 24.*multiple of config\.model\.heads, 5"),
        ({}, {"hloss": True}, r"config\.objective\.hloss"),
        ({"cross_layers": -1}, {}, r"config\.model\.cross_layers is -1"),
    ],
)
def test_wrong_configs_are_refused(model, objective, message):
    sizes = {"width": 24, "heads": 3, "feature_dim": 7, "num_classes": 5, "vocab_size": 11}
    with pytest.raises(UsageError, match=message):
        registry.build(
            Config(model=LxmertConfig(**sizes | model), objective=ObjectiveConfig(**objective))
        )
