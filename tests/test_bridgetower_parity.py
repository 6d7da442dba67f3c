"""BridgeTower against the PyTorch models of the same name, over a grid of tiny configs."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_bridgetower import PAD, PATCH, SIDE, TOKENS, VOCABULARY, captions, patches, photos

from mmt_jax import hub as importers
from mmt_jax import params as trees
from mmt_jax.models import registry
from mmt_jax.models import weights as engine
from mmt_jax.models.bridgetower import weights as names
from mmt_jax.nn.heads import MATCH
from mmt_jax.nn.vision import PIXEL_MEAN, PIXEL_STD
from mmt_jax.objectives import per_example

pytestmark = [pytest.mark.torch, pytest.mark.slow]

PAIRS = 3
TOLERANCE = 1e-5

BASE, ITM, MLM, ITC = (
    "BridgeTowerModel",
    "BridgeTowerForImageAndTextRetrieval",
    "BridgeTowerForMaskedLM",
    "BridgeTowerForContrastiveLearning",
)
# Class, what its config has, what the configs of its towers have, and whether captions are padded.
CASES = {
    "base": (BASE, {}, {"num_hidden_layers": 3}, {}, True),
    "one layer": (
        BASE,
        {"num_hidden_layers": 1, "link_tower_type": "interpolate"},
        {"num_hidden_layers": 1},
        {"hidden_size": 128},
        False,
    ),
    "scaled": (
        BASE,
        {"share_cross_modal_transformer_layers": False, "link_tower_type": "scaled_add"},
        {"num_attention_heads": 3, "layer_norm_eps": 1e-12},
        {},
        True,
    ),
    "match": (
        ITM,
        {"link_tower_type": "interpolate", "layer_norm_eps": 1e-6, "num_hidden_layers": 3},
        {"num_hidden_layers": 3},
        {"layer_norm_eps": 1e-4},
        True,
    ),
    "match, own transforms": (ITM, {"share_cross_modal_transformer_layers": False}, {}, {}, False),
    "words": (MLM, {}, {}, {}, True),
    "words, tied": (MLM, {"tie_word_embeddings": True}, {}, {}, False),
    "contrast": (ITC, {"hidden_size": 64}, {}, {}, True),
}


@pytest.fixture(autouse=True)
def _exact():
    with jax.default_matmul_precision("highest"):
        yield


@functools.cache
def _libraries():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pytest.importorskip("tokenizers")
    torch.set_num_threads(1)
    return torch, transformers


def published(case, *, layers=None):
    """A random PyTorch model, its weights far from their first values.

    `layers`: of each tower and of the cross-modal encoder, in place of the case's.
    """
    torch, transformers = _libraries()
    architecture, own, text, vision, _ = CASES[case]
    own = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2} | own
    text = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": own["hidden_size"],
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 40,
        "max_position_embeddings": TOKENS + PAD + 1,
    } | text
    if layers:
        text["num_hidden_layers"], own["num_hidden_layers"] = layers
    vision = {
        "hidden_size": 64,
        "num_hidden_layers": text["num_hidden_layers"],
        "patch_size": PATCH,
        "image_size": PATCH * SIDE,
    } | vision
    config = transformers.BridgeTowerConfig(**own, text_config=text, vision_config=vision)
    if architecture == ITC:
        config.contrastive_hidden_size, config.logit_scale_init_value = 10, 2.0
    torch.manual_seed(0)
    model = getattr(transformers, architecture)(config).eval()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for value in model.parameters():
            value += torch.tensor(rng.normal(0, 0.1, value.shape).astype(np.float32))
    return model


def saved(model, folder):
    """What `save_pretrained` writes, and a vocabulary."""
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(VOCABULARY)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


def imported(model, folder):
    found = importers.load(saved(model, folder), "bridgetower")
    return registry.build(found.config), found.params


def pairs(*, masked=True):
    """Inputs of both libraries: ours, and keyword arguments of theirs."""
    torch, _ = _libraries()
    text = captions([TOKENS, 5, 3] if masked else [TOKENS] * PAIRS)
    pixels = photos(PAIRS)
    standard = ((pixels - PIXEL_MEAN) / PIXEL_STD).astype(np.float32)
    theirs = {
        "input_ids": torch.tensor(text.token_ids),
        "pixel_values": torch.tensor(standard.transpose(0, 3, 1, 2)),
    }
    if masked:
        theirs["attention_mask"] = torch.tensor(text.mask.astype(np.int64))
    return text, patches(pixels), theirs


def labels(architecture):
    """Words to be found, or whether pairs match: theirs says so with 1."""
    if architecture == ITM:
        return np.array([1, 0, 1])
    chosen = np.full((PAIRS, TOKENS), -100)
    chosen[0, 3], chosen[1, 1], chosen[2, 0] = 5, 20, 39
    return chosen


def weights(shape):
    return np.random.default_rng(2).standard_normal(shape, np.float32)


def their_loss(case, model, arguments):
    """The states, the output and the loss, whose gradients the parameters then have."""
    torch, _ = _libraries()
    architecture = CASES[case][0]
    if architecture == ITC:
        arguments = arguments | {"return_loss": True}
    elif architecture != BASE:
        arguments = arguments | {"labels": torch.tensor(labels(architecture))}
    out = model(**arguments, output_hidden_states=True)
    logits = out.pooler_output if architecture == BASE else out.logits
    if architecture == BASE:
        loss = (logits * torch.tensor(weights(logits.shape))).sum()
    else:
        loss = out.loss
    loss.backward()
    text, image, cross = out.hidden_states
    states = {"text": text, "image": [x.permute(1, 0, 2) for x in image]}
    return states | dict(zip(("cross text", "cross image"), zip(*cross))), logits, loss


def our_loss(case, model, params, text, image):
    """The loss; the states and the output, as PyTorch's are."""
    network, architecture = model.network, CASES[case][0]
    states = {
        "text": model.apply(params, network.text_states, text),
        "image": model.apply(params, network.image_states, image),
    }
    text, image = model.encode_text(params, text), model.encode_image(params, image)
    trace = model.apply(params, network.cross_states, text, image)
    states |= dict(zip(("cross text", "cross image"), zip(*trace)))
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    if architecture == BASE:
        out = model.apply(params, network.pooled, *trace[-1])
        return (out * weights(out.shape)).sum(), (states, out)
    if architecture == ITM:
        out = model.fuse(params, text, image).logits[0]
        match = jnp.where(labels(ITM) == 1, MATCH, 1 - MATCH)
        return cross_entropy(out, match).mean(), (states, out[:, ::-1])
    if architecture == MLM:
        out = model.words(params, trace[-1][0])
        chosen = labels(MLM) != -100
        return cross_entropy(out[chosen], labels(MLM)[chosen]).mean(), (states, out)
    unit = (
        model.embed_text(params, text),
        model.embed_image(params, image),
        model.apply(params, network.embed_pair, text, image),
    )
    loss = per_example.soft_contrast(model.contrast(params, text, image), jnp.arange(PAIRS)).mean()
    return loss, (states, jnp.stack(unit, axis=-2))


def assert_near(found, expected, name=""):
    expected = expected.detach().numpy() if hasattr(expected, "detach") else expected
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * scale, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_equals_pytorch(case, tmp_path):
    reference = published(case)
    model, params = imported(reference, tmp_path)
    text, image, arguments = pairs(masked=CASES[case][-1])
    their_states, their_output, loss = their_loss(case, reference, arguments)
    run = jax.jit(jax.value_and_grad(functools.partial(our_loss, case, model), has_aux=True))
    (found, (states, output)), grads = run(params, text, image)

    assert_near(found, loss)
    assert_near(output, their_output)
    for name, expected in their_states.items():
        assert len(states[name]) == len(expected)
        for ours, theirs in zip(states[name], expected):
            assert_near(ours, theirs, name)
    their_grads = {
        names.rename(name): np.zeros(value.shape) if value.grad is None else value.grad.numpy()
        for name, value in reference.named_parameters()
    }
    table, shapes = names.table(model.config), model.abstract()
    wanted = trees.flatten(engine.convert(their_grads, table, shapes, name="gradients"))
    for path, grad in trees.flatten(grads).items():
        assert_near(grad, wanted[path], path)
        if not path.endswith("key/bias"):  # cancelled by the softmax, but for rounding
            assert np.any(grad) == np.any(wanted[path]), path
