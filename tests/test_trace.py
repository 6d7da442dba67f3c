"""What `trace` shows of a model, beside transformers and beside what the model answers."""

import functools

import jax
import numpy as np
import pytest
import test_bert_import as bert
import test_bridgetower_parity as parity
import test_clip as clip
import test_roberta as roberta
import tiny
import zoo

from mmt_jax import hub
from mmt_jax.infer.predict import Predictor
from mmt_jax.models import registry


def shown(model, params, text, image):
    with jax.default_matmul_precision("highest"):
        return Predictor(model, params).trace(text, image)


@pytest.mark.slow
@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_rows_sum_to_one_over_what_is_real(family):
    model = zoo.build(family, depth=2, remat="layers")
    params = model.init(jax.random.key(0))
    batch = jax.device_get(zoo.batch(model))
    found = shown(model, params, batch.text, batch.image)
    masks = {"text": np.asarray(batch.text.mask)}
    if batch.image is not None:
        whole = found["image"][0].shape[1] - batch.image.mask.shape[1]  # the slot of the photo
        masks["image"] = np.pad(batch.image.mask, ((0, 0), (whole, 0)), constant_values=True)
        masks["all"] = np.concatenate([masks["text"], masks["image"]], axis=1)
    maps = 0
    for name, weights in found.items():
        if not name.endswith(("_attention", "_to_text", "_to_image", "_to_all")):
            continue
        reader, read = name.split("_")[0], name.split("_")[-1]
        mask = masks[reader if read == "attention" else read]
        for layer in weights:
            maps += 1
            assert layer.shape[2] == masks[reader].shape[1]
            np.testing.assert_allclose(layer.sum(-1), 1, atol=1e-5)
            assert (layer[~np.broadcast_to(mask[:, None, None], layer.shape)] == 0).all()
    states = sum(len(found.get(stream, ())) for stream in ("text", "image"))
    crossing = 2 * 2 if family in ("lxmert", "bridgetower") else 0  # they read twice a layer
    inputs = len(masks.keys() - {"all"}) * (1 + (family == "tern"))
    assert maps == states - inputs + crossing
    again = Predictor(model, params)
    if "logits" in found:
        np.testing.assert_allclose(
            found["logits"], again.logits(batch.text, batch.image), atol=1e-5
        )
    for stream, items in (("text", batch.text), ("image", batch.image)):
        if f"{stream}_embedding" in found:
            np.testing.assert_allclose(
                found[f"{stream}_embedding"], again.embed(items), rtol=1e-5, atol=1e-5
            )


@pytest.mark.slow
def test_a_model_that_was_traced_scores_bit_for_bit_as_before():
    model = zoo.build("mmt")
    params, batch = model.init(jax.random.key(0)), zoo.batch(model)
    text, image = batch.text, batch.image
    score = jax.jit(lambda: tiny.fused(model, params, text, image).scores)
    before, jaxpr = score(), str(jax.make_jaxpr(score)())
    Predictor(model, params).trace(text, image)
    jax.clear_caches()
    assert str(jax.make_jaxpr(score)()) == jaxpr
    np.testing.assert_array_equal(score(), before)


# ---- Beside transformers ---------------------------------------------------------------------


def looking(model):
    """A PyTorch model that tells its attention."""
    model.set_attn_implementation("eager")
    parts = (getattr(model.config, f"{part}_config", None) for part in ("text", "vision"))
    for config in filter(None, (model.config, *parts)):
        config.output_attentions = True
    return model


def of_words(module, folder):
    model = looking(module.published(folder))
    text = hub.load(folder).tokenizer.texts(["a red cube", "a"], length=8, layout="cls_first")
    out = bert.run(model, text)
    return text, None, {"text": out.hidden_states, "text_attention": out.attentions}


def of_clip(folder):
    model = looking(clip.published(folder))
    text = hub.load(folder).tokenizer.texts(clip.CAPTIONS, length=clip.TOKENS, layout="cls_first")
    pooled = {}
    for stream, projection in (("text", model.text_projection), ("image", model.visual_projection)):
        projection.register_forward_hook(
            lambda module, inputs, out, name=f"{stream}_pooled": pooled.update({name: inputs[0]})
        )
    out = clip.run(model, text, clip.photos(3))
    expected = {"image_embedding": out.image_embeds}
    for stream, told in (("text", out.text_model_output), ("image", out.vision_model_output)):
        expected[stream] = told.hidden_states
        expected[f"{stream}_attention"] = told.attentions
    return text, clip.patches(clip.photos(3)), expected | pooled


def of_bridgetower(folder):
    """Its towers tell no attention."""
    model = looking(parity.published("match"))
    parity.saved(model, folder)
    text, image, tensors = parity.pairs()
    maps = {"text_to_image": [], "image_to_text": []}
    for stream, found in zip(("text", "image"), maps.values()):
        for layer in getattr(model.bridgetower, f"cross_modal_{stream}_layers"):
            layer.crossattention.self.register_forward_hook(
                lambda module, inputs, out, found=found: found.append(out[1])
            )
    out = model.bridgetower(**tensors, output_hidden_states=True)
    of_text, of_image, cross = out.hidden_states
    states = {
        "text": [*of_text, *(pair[0] for pair in cross)],
        "image": [*(x.permute(1, 0, 2) for x in of_image), *(pair[1] for pair in cross)],
    }
    own = dict(zip(("text_attention", "image_attention"), zip(*out.attentions)))
    return text, image, states | own | maps | {"pooled": out.pooler_output}


CASES = {
    "bert": functools.partial(of_words, bert),
    "roberta": functools.partial(of_words, roberta),
    "clip": of_clip,
    "bridgetower": of_bridgetower,
}


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("family", CASES)
def test_states_attention_and_vectors_are_those_of_transformers(family, tmp_path):
    """Of LXMERT `test_lxmert.py` says so."""
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        text, image, expected = CASES[family](tmp_path)
    imported = hub.load(tmp_path)
    found = shown(registry.build(imported.config), imported.params, text, image)
    for name, wanted in expected.items():
        if not isinstance(wanted, list | tuple):
            clip.near(found[name], wanted, name)
            continue
        for number, (ours, theirs) in enumerate(zip(found[name][-len(wanted) :], wanted)):
            theirs = theirs.numpy()
            assert ours.shape == theirs.shape
            if name.startswith("text"):  # what padding says does not matter
                ours, theirs = (np.moveaxis(x, -2, 1)[text.mask] for x in (ours, theirs))
            clip.near(ours, theirs, f"{name} {number}")
