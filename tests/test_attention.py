"""Layers: what depends on what, and their values against a transformer written in numpy."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import tiny
from reference import evened_out, linear, norm, transformer

from mmt_jax import params as trees
from mmt_jax.errors import UsageError
from mmt_jax.nn.kinds import KINDS
from mmt_jax.nn.streams import unimodal_depth

# What the study says each layer's queries read: (of text, of image); T text, I image.
READS = {
    "text": ("T", ""),
    "image": ("", "I"),
    "single": ("T", "I"),
    "merged": ("TI", "TI"),
    "coattention": ("I", "T"),
    "language_query": ("TI", ""),
    "language_query_self": ("TI", "I"),
    "image_query": ("", "TI"),
    "image_query_self": ("T", "TI"),
    "single_stream": ("TI", "TI"),
}
STACKS = {
    "vilbert": ("text", "coattention", "single"),
    "coattention": ("coattention", "coattention"),
    "mixed": ("text", "single", "merged"),
    "asymmetric": ("text", "language_query", "language_query"),
    "asymmetric, image": ("image_query", "image_query_self"),
    "towers": ("text", "text", "image"),
    "both queries in turn": ("language_query", "image_query"),
    "single stream": ("single_stream", "single_stream"),
}
NO_HEADS = {"mlm": 0.0, "mrm": 0.0}
TOKENS = REGIONS = 4  # the first of each is padding; equal shapes compile once
TEXT, IMAGE = tiny.text([TOKENS - 3], length=TOKENS), tiny.image([REGIONS - 2], slots=REGIONS)
REAL = np.concatenate([TEXT.mask[0], IMAGE.mask[0]])


def expected_dependence(layers):
    """[T + R, T + R] bool: whether a state after `layers` depends on an input."""
    is_text = np.arange(TOKENS + REGIONS) < TOKENS
    depends = np.eye(TOKENS + REGIONS, dtype=bool)
    for layer in layers:
        reads = np.zeros_like(depends)
        for rows, streams in zip((is_text, ~is_text), READS[layer]):
            for stream, columns in (("T", is_text), ("I", ~is_text)):
                reads |= rows[:, None] & (columns & REAL)[None, :] & (stream in streams)
        depends |= (reads.astype(int) @ depends.astype(int)) > 0
    return depends


def dependence(layers):
    """The same by Jacobian: one random functional of each state, by each token's embedding row."""
    model = tiny.model(layers, objective=NO_HEADS)
    params = tiny.params(model)
    # Every slot, padding too, gets a token of its own, whose row of the table is its input.
    token_ids = np.arange(10, 10 + TOKENS, dtype=np.int32)[None]
    text = dataclasses.replace(TEXT, token_ids=token_ids)
    weights = np.random.default_rng(0).normal(size=params["text"]["norm"]["bias"].shape)

    def states(embeddings, features):
        tree = trees.merge(params, {"text": {"tokens": {"embedding": embeddings}}})
        image = dataclasses.replace(IMAGE, features=features)
        out = tiny.fused(model, tree, text, image)
        return jax.numpy.concatenate([out.text[0], out.image[0]]) @ weights.astype(np.float32)

    embeddings = jax.numpy.asarray(params["text"]["tokens"]["embedding"])
    by_text, by_image = jax.jacrev(states, (0, 1))(embeddings, jax.numpy.asarray(IMAGE.features))
    by_input = (by_text[:, token_ids[0]], by_image[:, 0])
    return np.concatenate([(np.abs(d) > 0).any(axis=-1) for d in by_input], axis=1)


def test_every_kind_is_in_the_table():
    assert set(KINDS) == set(READS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", READS)
def test_states_depend_on_what_the_layer_reads_and_on_nothing_else(kind):
    np.testing.assert_array_equal(dependence((kind,)), expected_dependence((kind,)))


@pytest.mark.slow
@pytest.mark.parametrize("name", STACKS)
def test_states_depend_on_what_a_stack_of_layers_reads(name):
    np.testing.assert_array_equal(dependence(STACKS[name]), expected_dependence(STACKS[name]))


@pytest.mark.parametrize(
    ("layers", "text", "image"),
    [
        *[
            ((kind,), 0 if "I" in reads[0] else 1, 0 if "T" in reads[1] else 1)
            for kind, reads in READS.items()
        ],
        (("text", "text", "merged"), 2, 2),
        (("text", "single", "single", "merged"), 3, 3),
        (("text", "language_query", "language_query"), 1, 3),
        (("text", "image_query_self", "merged"), 2, 1),
        (("text", "image"), 2, 2),
    ],
)
def test_a_stream_is_unimodal_until_it_reads_the_other(layers, text, image):
    table = tuple(KINDS[name] for name in layers)
    assert unimodal_depth(table, "text") == text
    assert unimodal_depth(table, "image") == image


def embedded(params):
    """Input states of TEXT and IMAGE, padding left out."""
    text, image = params["text"], params["image"]
    real = TEXT.mask[0]
    tokens = text["tokens"]["embedding"][TEXT.token_ids[0, real]]
    positions = text["positions"]["embedding"][: real.sum()]
    segments = text["segments"]["embedding"][TEXT.segment_ids[0, real]]
    real = IMAGE.mask[0]
    regions = linear(evened_out(IMAGE.features[0, real]), image["features"])
    regions = regions + linear(IMAGE.boxes[0, real], image["boxes"])
    words = norm(np.float64(tokens) + positions + segments, text["norm"])
    return words, norm(regions, image["norm"])


def states_of(model, params):
    """The model's states, padding left out."""
    out = tiny.fused(model, params, TEXT, IMAGE)
    return np.asarray(out.text[0])[TEXT.mask[0]], np.asarray(out.image[0])[IMAGE.mask[0]]


@functools.cache
def tied():
    model = tiny.model(["single_stream"], objective=NO_HEADS)
    params = tiny.params(model)
    return model, params, params["streams"]["layers"]["0"]["shared"]


def over_concatenation(params, weights):
    """One ordinary self-attention layer over text and image states as one sequence."""
    text, image = embedded(params)
    both = np.concatenate([text, image])
    return np.split(transformer(both, weights, [(both, weights)]), [len(text)])


def assert_close(got, wanted):
    for x, y in zip(got, wanted, strict=True):
        np.testing.assert_allclose(x, y, atol=3e-5)


@pytest.mark.slow
def test_tied_weights_are_one_self_attention_over_the_concatenation():
    model, params, weights = tied()
    assert_close(states_of(model, params), over_concatenation(params, weights))


@pytest.mark.slow
def test_a_key_bias_of_a_single_stream_would_change_nothing():
    model, params, weights = tied()
    bias = np.linspace(-3, 3, weights["attention"]["key"]["kernel"].shape[1])
    weights = trees.merge(weights, {"attention": {"key": {"bias": bias}}})
    assert_close(states_of(model, params), over_concatenation(params, weights))


def test_merged_streams_with_equal_weights_are_one_self_attention_over_the_concatenation():
    _, params, weights = tied()
    bias = np.linspace(-3, 3, weights["attention"]["key"]["kernel"].shape[1], dtype=np.float32)
    weights = trees.merge(weights, {"attention": {"key": {"bias": bias}}})
    copies = {"layers": {"0": {"text": weights, "image": weights}}}
    model = tiny.model(["merged"], objective=NO_HEADS)
    got = states_of(model, params | {"streams": copies})
    assert_close(got, over_concatenation(params, weights))


def test_merged_attention_is_one_softmax_over_keys_of_two_projections():
    model = tiny.model(["merged"], objective=NO_HEADS)
    params = tiny.params(model)
    layer = params["streams"]["layers"]["0"]
    text, image = embedded(params)
    sources = [(text, layer["text"]), (image, layer["image"])]
    wanted = [transformer(x, layer[s], sources) for s, x in (("text", text), ("image", image))]
    assert_close(states_of(model, params), wanted)


def test_vilbert_block_is_coattention_then_self_attention():
    model = tiny.model(["coattention", "single"], objective=NO_HEADS)
    params = tiny.params(model)
    cross, own = (params["streams"]["layers"][i] for i in "01")
    text, image = embedded(params)
    # Queries of one stream; keys and values of the other, made with the other's weights.
    text, image = (
        transformer(text, cross["text"], [(image, cross["image"])]),
        transformer(image, cross["image"], [(text, cross["text"])]),
    )
    wanted = (
        transformer(text, own["text"], [(text, own["text"])]),
        transformer(image, own["image"], [(image, own["image"])]),
    )
    assert_close(states_of(model, params), wanted)


@pytest.mark.parametrize("kind", ["language_query", "image_query"])
def test_idle_stream_passes_through(kind):
    model = tiny.model([kind], objective=NO_HEADS)
    params = tiny.params(model)
    idle = 1 if kind == "language_query" else 0
    assert_close([states_of(model, params)[idle]], [embedded(params)[idle]])


@pytest.mark.parametrize("heads", [(1, 768), (3, 256), (6, 64), (18, 64)])
def test_inner_width_is_heads_times_head_dim_whatever_the_model_width(heads):
    model = tiny.model(["merged"], width=768, heads=heads[0], head_dim=heads[1])
    shapes = {
        path.removeprefix("streams/layers/0/text/attention/"): leaf.shape
        for path, leaf in trees.flatten(model.abstract()).items()
    }
    inner = {1: 768, 3: 768, 6: 384, 18: 1152}[heads[0]]
    assert {shapes[f"{name}/kernel"] for name in ("query", "key", "value")} == {(768, inner)}
    assert shapes["out/kernel"] == (inner, 768)


def test_number_of_heads_counts():
    params = {}
    for heads, head_dim in ((1, 6), (2, 3)):
        model = tiny.model(["merged"], objective=NO_HEADS, heads=heads, head_dim=head_dim)
        params = params or tiny.params(model)
        layer = params["streams"]["layers"]["0"]
        text, image = embedded(params)
        sources = [(text, layer["text"]), (image, layer["image"])]
        wanted = transformer(text, layer["text"], sources, heads=heads)
        assert_close(states_of(model, params)[:1], [wanted])


def test_wrong_kind_of_layer_gets_the_list():
    with pytest.raises(UsageError, match=r"'mergd'.*there are .*merged"):
        tiny.model(["mergd"])
