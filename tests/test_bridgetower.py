"""BridgeTower against the PyTorch models of the same name, over a grid of tiny configs."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from mmt_jax import importers
from mmt_jax import params as trees
from mmt_jax.config import Config, ObjectiveConfig, UsageError
from mmt_jax.data import regions
from mmt_jax.importers import bridgetower as names
from mmt_jax.importers import engine
from mmt_jax.model_config import BridgeTowerConfig
from mmt_jax.models import registry
from mmt_jax.models.bridgetower import PIXEL_MEAN, PIXEL_STD
from mmt_jax.nn.heads import MATCH
from mmt_jax.objectives import losses
from mmt_jax.train import sharding
from mmt_jax.typing import Batch, Text

LETTERS = (
    "abcdefghijklmnopqrstuvwxyz01234567\u0120"  # the last is a blank, as byte-level BPE writes it
)
VOCABULARY = ["<s>", "<pad>", "</s>", "<unk>", *LETTERS, "<mask>"]
PAD = 1
PATCH, SIDE, TOKENS, PAIRS = 4, 3, 8, 3
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


def published(case):
    """A random PyTorch model, its weights far from their first values."""
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


def captions(lengths, *, slots=TOKENS):
    """`<s> … </s> <pad> …` of that many tokens each, one word a token."""
    rng, columns = np.random.default_rng(1), np.arange(slots)
    last = np.array(lengths)[:, None] - 1
    mask = columns <= last
    ids = rng.integers(PAD + 3, len(VOCABULARY) - 1, mask.shape, np.int32)
    ids = np.where(columns == 0, 0, np.where(columns == last, 2, np.where(mask, ids, PAD)))
    words = np.where(mask & (columns > 0) & (columns < last), columns - 1, np.where(mask, -1, -2))
    return Text(ids, np.zeros_like(ids), words, mask)


def photos(count, *, side=SIDE):
    return np.random.default_rng(2).random((count, side * PATCH, side * PATCH, 3), np.float32)


def patches(pixels):
    return regions.pixel_image(pixels, PATCH, global_region=False)


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
    scale = model.apply(params, network.contrast_scale)
    loss = sum(
        cross_entropy(scale * unit[a] @ unit[b].T, jnp.arange(PAIRS)).mean() / 3
        for a, b in ((0, 1), (0, 2), (1, 2))
    )
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
    run = tiny.jit(jax.value_and_grad(functools.partial(our_loss, case, model), has_aux=True))
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


def model(*, itm="classification", mlm=1.0, mrm=1.0, **sizes):
    """A model of ours, of other sizes than its towers."""
    sizes = {
        "width": 12,
        "heads": 2,
        "mlp_dim": 10,
        "cross_layers": 2,
        "tower_layers": 2,
        "text_width": 8,
        "text_heads": 2,
        "text_mlp_dim": 9,
        "image_width": 16,
        "image_heads": 4,
        "image_size": PATCH * SIDE,
        "patch_size": PATCH,
        "max_positions": TOKENS,
        "itc_dim": 6,
        "vocab_size": len(VOCABULARY),
        "mask_id": len(VOCABULARY) - 1,
        "pad_id": PAD,
        "feature_dim": 3 * PATCH**2,
        "num_classes": 0,
    } | sizes
    objective = ObjectiveConfig(itm=itm, mlm=mlm, mrm=mrm, candidates=2)
    return registry.build(Config(model=BridgeTowerConfig(**sizes), objective=objective))


@pytest.mark.parametrize(
    ("heads", "count"),
    [
        ({}, (326_347_008, 864_514_048)),
        ({"itm": "classification"}, (326_350_082, 864_518_146)),
        ({"mlm": 1.0}, (365_592_921, 917_087_321)),
        ({"itc": "huggingface", "itc_dim": 512}, (327_921_409, 866_612_737)),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(heads, count):
    whole = {"vocab_size": 50265, "max_positions": 512, "image_size": 288, "patch_size": 16}
    base = dict.fromkeys(("width", "text_width", "image_width"), 768)
    base |= dict.fromkeys(("mlp_dim", "text_mlp_dim"), 3072)
    base |= dict.fromkeys(("heads", "text_heads", "image_heads"), 12)
    base |= {"tower_layers": 12, "cross_layers": 6, "feature_dim": 3 * 16**2}
    large = dict.fromkeys(("width", "text_width", "image_width"), 1024)
    large |= dict.fromkeys(("mlp_dim", "text_mlp_dim"), 4096)
    large |= dict.fromkeys(("heads", "text_heads", "image_heads"), 16)
    large |= {"tower_layers": 24, "image_size": 294, "patch_size": 14, "feature_dim": 3 * 14**2}
    for sizes, expected in zip((base, base | large), count):
        shapes = model(**{"itm": "none", "mlm": 0.0, "mrm": 0.0} | whole | sizes | heads).abstract()
        ours = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        never_called = sizes["width"] * (sizes["width"] + 1)  # the text tower's own pooler
        assert ours + never_called == expected


OBJECTIVES = {
    "classification": {},
    "contrastive": {"itm": "contrastive", "mrm": 0.0},
    "scaled": {"mlm": 0.0, "link": "scaled_add", "shared_transforms": False},
    "tied": {"mrm": 0.0, "link": "interpolate", "tied_words": True, "text_width": 12},
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_parameter_is_trained(name):
    built = model(**OBJECTIVES[name])
    params = tiny.params(built)
    batch = Batch(captions([8, 6, 8, 7]), patches(photos(4)), np.arange(4, dtype=np.int32))
    batch = jax.tree.map(jnp.asarray, batch)

    def loss(params):
        return losses.compute(built, params, batch, key=jax.random.key(1), dropout=False)[0]

    grads = trees.flatten(tiny.jit(jax.grad(loss))(params))
    still = {path for path, grad in grads.items() if not np.any(np.abs(grad) > 1e-7)}
    assert {path for path in still if not path.endswith("key/bias")} == set()
    assert sharding.of_params(params, sharding.mesh(built.config))


def test_towers_alone_are_contrasted_in_the_paper():
    built = model(itm="none", mlm=0.0, mrm=0.0, itc="paper")
    params = tiny.params(built)
    text, image = captions([8, 5]), patches(photos(2))

    def embeddings(params):
        encoded = built.encode_text(params, text), built.encode_image(params, image)
        return built.embed_text(params, encoded[0]), built.embed_image(params, encoded[1])

    ours = tiny.jit(embeddings)(params)
    states = built.apply(params, built.network.text_states, text)[-1]
    cls = built.apply(params, built.network.image_states, image)[-1][:, 0]
    cls = (cls - cls.mean(-1, keepdims=True)) / np.sqrt(cls.var(-1, keepdims=True) + 1e-5)
    norm = params["image"]["last_norm"]
    for found, state, head in zip(
        ours, (states[:, 0], cls * norm["scale"] + norm["bias"]), ("text", "image")
    ):
        expected = state @ params["itc"][head]["kernel"] + params["itc"][head]["bias"]
        expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert built.embeds
    assert not built.separable
    reached = tiny.jit(jax.grad(lambda p: (embeddings(p)[0] @ embeddings(p)[1].T)[0, 0]))(params)
    crossed = {path: grad for path, grad in trees.flatten(reached).items() if "cross" in path}
    assert crossed
    assert not any(np.any(grad) for grad in crossed.values())


@pytest.mark.parametrize(
    ("itc", "scale", "expected"),
    [
        ("paper", np.log(10), 10),
        ("paper", np.log(5000), 1000),  # a temperature of 0.001 at least
        ("paper", np.log(0.1), 2),  # and 0.5 at most
        ("huggingface", np.log(5000), 5000),
    ],
)
def test_the_scale_of_the_contrast(itc, scale, expected):
    built = model(itc=itc)
    params = trees.merge(tiny.params(built), {"itc": {"log_scale": jnp.float32(scale)}})
    found = built.apply(params, built.network.contrast_scale)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def scores(built, params, text, pixels):
    encoded = built.encode_text(params, text), built.encode_image(params, patches(pixels))
    return built.fuse(params, *encoded).scores[-1]


def test_padding_behind_a_caption_changes_nothing():
    built = model()
    params, pixels = tiny.params(built, std=0.2), photos(2)
    run = tiny.jit(functools.partial(scores, built))
    short = captions([5, 3], slots=5)
    padded = jax.tree.map(
        lambda x, fill: np.pad(x, ((0, 0), (0, 3)), constant_values=fill),
        short,
        Text(PAD, 0, -2, False),
    )
    np.testing.assert_allclose(run(params, short, pixels), run(params, padded, pixels), atol=1e-5)


def test_photos_of_another_size_are_read():
    built = model()
    params, text = tiny.params(built, std=0.2), captions([5, 3])
    run = tiny.jit(functools.partial(scores, built))
    small = photos(2, side=2)
    large = np.repeat(np.repeat(small, 2, axis=1), 2, axis=2)
    found = [run(params, text, pixels) for pixels in (small, large)]
    assert found[0].shape == found[1].shape == (2,)
    assert not np.allclose(*found)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"link": "concat"}, "link='concat' is unknown; there are add, scaled_add, interpolate"),
        ({"itc": "clip"}, "itc='clip' is unknown"),
        ({"text_heads": 3}, "text_width is 8; it must be a multiple of config.model.text_heads, 3"),
        ({"image_size": 10}, "image_size is 10; it must be a multiple of .*patch_size, 4"),
        ({"cross_layers": 3}, "cross_layers is 3, but there are only 2 layers in a tower"),
        ({"tied_words": True}, "tied_words needs config.model.text_width=8 to be .*width=12"),
    ],
)
def test_what_cannot_be_built_is_told(sizes, message):
    with pytest.raises(UsageError, match=message):
        model(**sizes)
