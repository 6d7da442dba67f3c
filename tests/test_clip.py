"""CLIP against the PyTorch model of the same name."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mmt_jax import hub as importers
from mmt_jax import params as trees
from mmt_jax.cli import main as cli
from mmt_jax.configs.config import Config, ObjectiveConfig
from mmt_jax.configs.models import ClipConfig
from mmt_jax.data import regions, schema
from mmt_jax.errors import UsageError
from mmt_jax.infer import api
from mmt_jax.infer.predict import Predictor
from mmt_jax.models import registry
from mmt_jax.models import weights as engine
from mmt_jax.models.clip import weights as names
from mmt_jax.nn.heads import capped
from mmt_jax.nn.vision import PIXEL_MEAN, PIXEL_STD
from mmt_jax.objectives import losses, per_example
from mmt_jax.train import sharding
from mmt_jax.typing import Batch

pytestmark = pytest.mark.torch

VOCABULARY = ["a", "b", "c", "d", "a</w>", "b</w>", "c</w>", "d</w>"]
VOCABULARY += ["<|startoftext|>", "<|endoftext|>"]
PATCH, SIDE, TOKENS = 4, 3, 8
CAPTIONS = ("bad cab", "dad", "a b c")


@functools.cache
def _libraries():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.set_num_threads(1)
    return torch, transformers


def published(folder, *, layers=(2, 3), **changes):
    """A random PyTorch model, its towers of so many layers, saved beside a vocabulary."""
    torch, transformers = _libraries()
    tokenizers = pytest.importorskip("tokenizers")
    shared = {"num_attention_heads": 2, "intermediate_size": 40} | changes
    text = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 16,
        "num_hidden_layers": layers[0],
        "max_position_embeddings": TOKENS,
        "eos_token_id": len(VOCABULARY) - 1,
    }
    vision = {
        "hidden_size": 24,
        "num_hidden_layers": layers[1],
        "image_size": SIDE * PATCH,
        "patch_size": PATCH,
    }
    config = transformers.CLIPConfig(
        text_config=text | shared, vision_config=vision | shared, projection_dim=10
    )
    config._attn_implementation = "eager"
    model = transformers.CLIPModel(config).eval()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for value in model.parameters():
            value += torch.tensor(rng.normal(0, 0.2, value.shape).astype(np.float32))
    model.save_pretrained(folder)
    bpe = tokenizers.models.BPE(
        {piece: i for i, piece in enumerate(VOCABULARY)},
        [],
        unk_token="<|endoftext|>",
        end_of_word_suffix="</w>",
    )
    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return model


def photos(count):
    return np.random.default_rng(1).random((count, SIDE * PATCH, SIDE * PATCH, 3), np.float32)


def patches(pixels):
    return regions.pixel_image(pixels, PATCH, global_region=False)


def run(model, text, pixels):
    torch, _ = _libraries()
    standard = ((pixels - PIXEL_MEAN) / PIXEL_STD).astype(np.float32).transpose(0, 3, 1, 2)
    return model(
        input_ids=torch.tensor(text.token_ids, dtype=torch.long),
        attention_mask=torch.tensor(text.mask, dtype=torch.long),
        pixel_values=torch.tensor(standard),
        output_hidden_states=True,
        return_loss=True,
    )


def near(found, expected, name=""):
    expected = expected.detach().numpy() if hasattr(expected, "detach") else expected
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"hidden_act": "gelu", "layer_norm_eps": 1e-6}], ids=str)
def test_equals_pytorch(tmp_path, changes):
    theirs = published(tmp_path, **changes)
    found = importers.load(tmp_path, "clip")
    model = registry.build(found.config)
    text = found.tokenizer.texts(CAPTIONS, length=TOKENS, layout="cls_first")
    assert (text.token_ids[1] == np.array([8, 3, 0, 7, 9, 9, 9, 9])).all()
    image = patches(photos(3))
    out = run(theirs, text, photos(3))
    out.loss.backward()

    def loss(params, text, image):
        """CLIP's: the mean over both directions."""
        states = (
            model.apply(params, model.network.text_states, text),
            model.apply(params, model.network.image_states, image),
        )
        encoded = model.encode_text(params, text), model.encode_image(params, image)
        logits = model.embed_text(params, encoded[0]) @ model.embed_image(params, encoded[1]).T
        pairs = jnp.ones((1, 3, 3), bool)
        return sum(x.mean() for x in per_example.contrastive(logits[None], pairs)) / 2, (
            states,
            logits,
        )

    with jax.default_matmul_precision("highest"):
        (value, (states, logits)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(
            found.params, text, image
        )
    near(logits, out.logits_per_text)
    near(value, out.loss)
    outputs = out.text_model_output, out.vision_model_output
    for tower, ours, output in zip(("text", "image"), states, outputs):
        for found_, expected in zip(ours, output.hidden_states, strict=True):
            near(found_, expected, tower)
    wanted = {name: value.grad.numpy() for name, value in theirs.named_parameters()}
    shapes = trees.select(model.abstract(), lambda path: not path.startswith("calibration"))
    wanted = trees.flatten(engine.convert(wanted, names.TABLE, shapes, name="gradients"))
    for path, grad in wanted.items():
        near(trees.flatten(grads)[path], grad, path)


@pytest.mark.slow
def test_an_imported_model_ranks_as_the_pytorch_model(tmp_path):
    theirs = published(tmp_path / "in")
    workdir = tmp_path / "run"
    argv = ["import", f"--from={tmp_path / 'in'}", "--model=clip", f"--out={workdir}"]
    assert cli.main(argv) == 0
    found = importers.load(tmp_path / "in", "clip")
    text = found.tokenizer.texts(CAPTIONS, length=TOKENS, layout="cls_first")
    expected = run(theirs, text, photos(3)).logits_per_text.detach().numpy()
    model = registry.build(found.config)
    scores = Predictor(model, found.params).score(text, patches(photos(3)))
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    probabilities = api.load(workdir).score({schema.PIXELS: photos(1)[0]}, CAPTIONS)
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-expected[:, 0])), atol=1e-5)


def model(*, objective=(), **sizes):
    """A model of ours, of sizes that all differ."""
    sizes = {
        "width": 6,
        "text_width": 8,
        "text_layers": 1,
        "text_heads": 2,
        "text_mlp_dim": 9,
        "image_width": 12,
        "image_layers": 2,
        "image_heads": 3,
        "image_mlp_dim": 10,
        "image_size": SIDE * PATCH,
        "patch_size": PATCH,
        "max_positions": TOKENS,
        "vocab_size": 11,
        "mask_id": 0,
        "pad_id": 10,
        "feature_dim": 3 * PATCH**2,
        "num_classes": 0,
    } | sizes
    wanted = {"itm": "contrastive", "candidates": 4, "mlm": 0.0, "mrm": 0.0} | dict(objective)
    return registry.build(Config(model=ClipConfig(**sizes), objective=ObjectiveConfig(**wanted)))


def test_the_scale_of_cosines_counts_as_at_most_100():
    grad = jax.value_and_grad(capped)
    for log_scale, expected in ((0.0, 1.0), (math.log(30), 30.0), (5.0, 100.0)):
        value, slope = grad(jnp.asarray(log_scale))
        np.testing.assert_allclose([value, slope], expected, rtol=1e-6)  # so that it can come back


@pytest.mark.slow
def test_every_parameter_is_trained():
    built = model()
    params = tiny.params(built, std=0.3)
    text = tiny.text([3, 2, 4, 1], length=TOKENS)
    text = jax.tree.map(lambda x: x[:, ::-1], text)  # [CLS] first, padding behind
    text = jax.tree.map(lambda x: x % 11 if x.dtype == np.int32 else x, text)
    batch = jax.tree.map(jnp.asarray, Batch(text, patches(photos(4)), np.arange(4, dtype="i4")))

    def loss(params):
        return losses.compute(built, params, batch, key=jax.random.key(0), dropout=False)[0]

    grads = trees.flatten(jax.jit(jax.grad(loss))(params))
    still = {path for path, grad in grads.items() if not np.any(np.abs(grad) > 1e-9)}
    assert {path for path in still if not path.endswith("key/bias")} == set()
    assert sharding.of_params(params, built.config, sharding.mesh(built.config))


def test_published_size_has_the_published_number_of_parameters():
    shapes = registry.build(
        Config(
            model=ClipConfig(vocab_size=49408, feature_dim=3 * 32**2, num_classes=0),
            objective=ObjectiveConfig(itm="contrastive", mlm=0.0, mrm=0.0),
        )
    ).abstract()
    calibration = 2
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes)) - calibration
    assert count == 151_277_313  # ViT-B/32
    image = sum(leaf.size for leaf in jax.tree.leaves(shapes["image"]))
    assert (image, count - image) == (87_456_000, 151_277_313 - 87_456_000)


@pytest.mark.parametrize(
    ("sizes", "objective", "message"),
    [
        ({"activation": "tanh"}, {}, "activation='tanh' is unknown; there are gelu, quick_gelu"),
        ({"image_heads": 5}, {}, "image_width is 12; it must be a multiple of .*image_heads, 5"),
        ({"image_size": 13}, {}, "image_size is 13; it must be a multiple of .*patch_size, 4"),
        ({}, {"mlm": 1.0}, "mlm is 1.0, but the family clip is trained by contrast alone"),
        ({}, {"itm": "classification"}, "itm='classification' is unknown to the family clip"),
    ],
)
def test_what_cannot_be_built_is_told(sizes, objective, message):
    with pytest.raises(UsageError, match=message):
        model(objective=objective, **sizes)
