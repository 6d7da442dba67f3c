"""Models: masks and order, encode-then-fuse, scores, and which parameters there are."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from reference import gelu, linear, norm

from mmt_jax import params as trees
from mmt_jax.configs import variants
from mmt_jax.configs.config import RELEASE_SPEC, with_spec
from mmt_jax.errors import UsageError
from mmt_jax.models import registry
from mmt_jax.models.base import take
from mmt_jax.nn.primitives import dropout
from mmt_jax.objectives import losses

STACKS = {
    "merged": ("text", "merged"),
    "coattention": ("coattention", "single"),
    "language_query": ("text", "language_query", "language_query_self"),
    "image_query": ("image_query", "image_query_self"),
    "single_stream": ("single_stream",),
    "single": ("text", "single"),
}
# The last pair has padding. All tests take three pairs at a time: equal shapes compile once.
CAPTIONS, PHOTOS = tiny.text([3, 2, 1]), tiny.image([3, 2, 1])


@pytest.fixture(scope="module", params=STACKS)
def stack(request):
    """A model, its parameters, and what it makes of each caption with its photo."""
    model = tiny.model(STACKS[request.param])
    params = tiny.params(model)
    return model, params, tiny.fused(model, params, CAPTIONS, PHOTOS)


def real(fused, text, image):
    """Scores, and the states of what is not padding."""
    return fused.scores, fused.text[np.asarray(text.mask)], fused.image[np.asarray(image.mask)]


# --- What a pair's output may not depend on ---


@pytest.mark.slow
def test_what_stands_in_padding_changes_nothing(stack):
    model, params, wanted = stack
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(*PHOTOS.mask.shape, 11)).astype(np.float32)
    text = dataclasses.replace(
        CAPTIONS,
        token_ids=np.where(CAPTIONS.mask, CAPTIONS.token_ids, 11),
        segment_ids=np.where(CAPTIONS.mask, CAPTIONS.segment_ids, 1),
    )
    shown = PHOTOS.mask[..., None]
    image = dataclasses.replace(
        PHOTOS,
        features=np.where(shown, PHOTOS.features, noise[..., :6]),
        boxes=np.where(shown, PHOTOS.boxes, noise[..., 6:]),
    )
    got = tiny.fused(model, params, text, image)
    for x, y in zip(real(got, text, image), real(wanted, text, image)):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_order_of_regions_changes_nothing(stack):
    model, params, wanted = stack
    order = np.array([2, 0, 1, 3])  # the global region stays last
    got = tiny.fused(model, params, CAPTIONS, jax.tree.map(lambda x: x[:, order], PHOTOS))
    np.testing.assert_allclose(got.scores, wanted.scores, atol=1e-5)
    np.testing.assert_allclose(got.image, wanted.image[:, order], atol=1e-5)
    np.testing.assert_allclose(got.text, wanted.text, atol=1e-5)


@pytest.mark.slow
def test_how_much_padding_there_is_changes_nothing():
    model = tiny.model(
        ["text", "single", "language_query", "image_query_self", "coattention", "merged"]
    )
    params = tiny.params(model)
    wanted = real(tiny.fused(model, params, CAPTIONS, PHOTOS), CAPTIONS, PHOTOS)
    text = jax.tree.map(lambda x: np.pad(x, ((0, 0), (2, 0))), CAPTIONS)
    image = jax.tree.map(lambda x: np.pad(x, ((0, 0), (3, 0)) + ((0, 0),) * (x.ndim - 2)), PHOTOS)
    got = real(tiny.fused(model, params, text, image), text, image)
    for x, y in zip(got, wanted):
        np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [("text", "merged"), ("single",)])
def test_captions_that_begin_with_cls_are_scored_by_their_first_state(layers):
    model = tiny.model(layers, layout="cls_first")
    params = tiny.params(model)
    text = jax.tree.map(lambda x: x[:, ::-1], CAPTIONS)
    longer = jax.tree.map(lambda x: np.pad(x, ((0, 0), (0, 2))), text)
    fused = tiny.fused(model, params, text, PHOTOS)
    padded = tiny.fused(model, params, longer, PHOTOS)
    for x, y in zip(real(padded, longer, PHOTOS), real(fused, text, PHOTOS)):
        np.testing.assert_allclose(x, y, atol=1e-5)

    def by_hand(network):
        pooled = network.pool_text(fused.text[:, 0]), network.pool_image(fused.image[:, -1])
        return network.score(*pooled, key=None)

    np.testing.assert_allclose(fused.logits[-1], model.apply(params, by_hand), atol=1e-5)


@pytest.mark.slow
def test_order_of_words_matters():
    model = tiny.model(["single"])
    params = tiny.params(model)
    order = np.array([0, 3, 1, 2, 4])
    moved = dataclasses.replace(CAPTIONS, token_ids=CAPTIONS.token_ids[:, order])
    first = [model.encode_text(params, text).states[0, -1] for text in (CAPTIONS, moved)]
    assert np.abs(first[0] - first[1]).max() > 1e-2


# --- Encode, then fuse ---


@pytest.mark.slow
def test_items_encoded_once_and_gathered_equal_pairs_encoded_alone(stack):
    model, params, _ = stack
    texts, images = model.encode_text(params, CAPTIONS), model.encode_image(params, PHOTOS)
    rows, columns = np.array([2, 0, 2]), np.array([0, 1, 2])
    pairs = model.fuse(params, take(texts, rows), take(images, columns))
    for i in range(3):
        text = take(CAPTIONS, rows[[i, i, i]])  # the pair three times, and nothing else
        alone = tiny.fused(model, params, text, take(PHOTOS, columns[[i, i, i]]))
        np.testing.assert_allclose(pairs.scores[:, i], alone.scores[:, 0], atol=1e-5)
        np.testing.assert_allclose(pairs.text[i], alone.text[0], atol=1e-5)
        np.testing.assert_allclose(pairs.image[i], alone.image[0], atol=1e-5)


@pytest.mark.slow
def test_nothing_is_kept_that_no_later_layer_reads():
    model = tiny.model(["text", "language_query", "language_query"])
    params = tiny.params(model)
    text, image = model.encode_text(params, CAPTIONS), model.encode_image(params, PHOTOS)
    assert set(text.keys_values) == {"1"}  # after which the text states are a pair's
    assert set(image.keys_values) == {"1", "2"}
    assert (text.heads, image.heads) == ((), ())
    separable = tiny.model(["text", "single"])
    assert not separable.encode_text(tiny.params(separable), CAPTIONS).keys_values


# --- Scores ---

SEPARABLE = {
    "single modality": ("mmt", ("text", "single"), "classification"),
    "single modality, contrastive": ("mmt", ("text", "single"), "contrastive"),
    "towers": ("two_tower", ("text", "image"), "classification"),
    "towers, contrastive": ("two_tower", ("text", "image"), "contrastive"),
}


@functools.cache
def scored(name):
    """A separable model, its parameters, both encodings, and the scores of the three pairs."""
    family, layers, itm = SEPARABLE[name]
    model = tiny.model(layers, family=family, objective={"itm": itm, "mlm": 0.0, "mrm": 0.0})
    params = tiny.params(model)
    texts, images = model.encode_text(params, CAPTIONS), model.encode_image(params, PHOTOS)
    return model, params, texts, images, model.fuse(params, texts, images)


@pytest.mark.parametrize("name", SEPARABLE)
@pytest.mark.slow
def test_score_is_an_inner_product_of_embeddings_and_a_constant(name):
    model, params, texts, images, fused = scored(name)
    assert model.separable
    products = (model.embed_text(params, texts) * model.embed_image(params, images)).sum(-1)
    constant = fused.scores[-1] - products
    np.testing.assert_allclose(constant, np.full(3, constant[0]), atol=1e-5)
    assert np.ptp(products) > 0.1


@pytest.mark.parametrize("name", SEPARABLE)
def test_score_by_hand(name):
    _, params, texts, images, fused = scored(name)
    text, image = (
        linear(np.float64(items.states[:, -1]), pool.get("dense", pool))
        for items, pool in ((texts, params["pool_text"]), (images, params["pool_image"]))
    )
    if name != "towers, contrastive":
        text, image = np.maximum(text, 0), np.maximum(image, 0)
    product = text * image
    if name == "towers, contrastive":
        score = product.sum(-1) / np.sqrt(product.shape[-1])
    else:
        logits = linear(product, params["score"]["dense"])
        score = logits[:, 0] if logits.shape[-1] == 1 else logits[:, 0] - logits[:, 1]
    np.testing.assert_allclose(fused.scores[-1], score, atol=1e-5)
    if "contrastive" in name:
        score = score * params["calibration"]["scale"] + params["calibration"]["bias"]
    probability = jax.nn.softmax(fused.logits[-1])[:, 0]
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-score)), atol=1e-5)


@pytest.mark.parametrize(("layers", "separable"), [(s, n == "single") for n, s in STACKS.items()])
def test_only_models_whose_streams_never_meet_are_separable(layers, separable):
    assert tiny.model(layers).separable == separable


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "rows"),
    [
        (("text", "single", "single"), 2),
        (("text", "merged", "merged", "merged"), 3),
        (("coattention", "single"), 2),
        (("text", "language_query", "image_query"), 2),
    ],
)
def test_hloss_scores_after_every_multimodal_layer_as_a_model_that_ends_there(layers, rows):
    model = tiny.model(layers, objective={"hloss": True})
    params = tiny.params(model)
    fused = tiny.fused(model, params, CAPTIONS, PHOTOS)
    assert fused.scores.shape == (rows, 3)
    assert fused.logits.shape == (rows, 3, 2)
    flat = trees.flatten(params)
    for row in range(rows):
        shorter = tiny.model(layers[: len(layers) - rows + 1 + row])
        kept = trees.unflatten({path: flat[path] for path in trees.flatten(shorter.abstract())})
        alone = tiny.fused(shorter, kept, CAPTIONS, PHOTOS)
        np.testing.assert_allclose(fused.logits[row], alone.logits[0], atol=1e-5)


def test_heads_of_the_masked_losses_by_hand():
    model = tiny.model()
    params, states = tiny.params(model), np.random.default_rng(0).normal(size=(2, 12))
    words, regions = params["word_head"], params["region_head"]
    x = norm(gelu(linear(states, words["dense"])), words["norm"])
    wanted = x @ np.float64(params["text"]["tokens"]["embedding"]).T + words["bias"]
    np.testing.assert_allclose(model.words(params, np.float32(states)), wanted, atol=1e-4)
    x = norm(gelu(linear(states, regions["dense"])), regions["norm"])
    got = model.regions(params, np.float32(states))
    np.testing.assert_allclose(got, linear(x, regions["outs"]["classes"]), atol=1e-4)


# --- Dropout and precision ---


def test_dropout_zeroes_that_share_and_keeps_the_mean():
    x = jnp.ones((400, 500))
    out = np.asarray(dropout(x, 0.3, jax.random.key(0)))
    assert set(np.unique(out)) == {0.0, np.float32(1 / 0.7)}
    assert abs((out == 0).mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / x.size)
    assert dropout(x, 0.3, None) is x


def test_dropout_is_off_without_a_key_and_a_function_of_it():
    model = tiny.model(["single"], dropout=0.5)
    params = tiny.params(model)

    def states(seed=None):
        key = None if seed is None else jax.random.key(seed)
        return np.asarray(model.encode_text(params, CAPTIONS, key=key).states)

    np.testing.assert_array_equal(states(), states())
    np.testing.assert_array_equal(states(1), states(1))
    assert not np.array_equal(states(1), states(2))
    assert not np.array_equal(states(1), states())


def test_bfloat16_computes_both_streams_in_it_and_scores_in_float32():
    full, half = (tiny.model(["text", "merged"], dtype=d) for d in ("float32", "bfloat16"))
    params = tiny.params(full)
    assert {leaf.dtype for leaf in jax.tree.leaves(half.abstract())} == {np.dtype("float32")}
    shapes = jax.eval_shape(functools.partial(tiny.fused, half), params, CAPTIONS, PHOTOS)
    assert shapes.text.dtype == shapes.image.dtype == jnp.bfloat16
    assert shapes.scores.dtype == shapes.logits.dtype == jnp.float32
    for encode, items in (("encode_text", CAPTIONS), ("encode_image", PHOTOS)):
        states = [
            np.float32(jax.jit(getattr(model, encode))(params, items).states)
            for model in (half, full)
        ]
        np.testing.assert_allclose(*states, atol=0.1)
        assert not np.array_equal(*states)


# --- Parameters ---


def shrunk(tag):
    """The tag's config with every size as small as the structure allows."""
    variant = variants.find(tag)
    shallow = dataclasses.replace(variant, depth=2 if variant.attention == "mixed" else 1)
    config = variants.get_config(tag, scale="tiny")
    sizes = tiny.SIZES | {"heads": min(variant.heads, 2)}
    model = dataclasses.replace(config.model, layers=variants.layers(shallow, own=1), **sizes)
    objective = dataclasses.replace(
        config.objective, candidates=min(variant.candidates, 2), mrm_rate=0.9
    )
    spec = dataclasses.replace(tiny.SPEC, num_classes=0) if variant.pixels else tiny.SPEC
    return with_spec(dataclasses.replace(config, model=model, objective=objective), spec)


def structures(config_of):
    """For each different model among the tags, the first tag that has it."""
    first = {}
    for tag in [*variants.VARIANTS, "bert"]:
        config = config_of(tag)
        first.setdefault((config.model, config.objective), tag)
    return list(first.values())


@pytest.mark.slow
@pytest.mark.parametrize("tag", structures(shrunk))
def test_no_parameter_is_dead(tag):
    config = shrunk(tag)
    model = registry.build(config)
    params = jax.tree.map(jnp.asarray, tiny.params(model))
    spec = dataclasses.replace(tiny.SPEC, num_classes=config.model.num_classes)
    batch = tiny.batch(4, spec=spec)

    def loss(params):
        return losses.compute(model, params, batch, key=jax.random.key(0), dropout=False)[0]

    gradients = {
        path: float(jnp.abs(leaf).max())
        for path, leaf in trees.flatten(jax.jit(jax.grad(loss))(params)).items()
    }
    # A gradient that is zero on paper comes out as rounding error, about 1e-8 of the largest.
    dead = [path for path, size in gradients.items() if size < 1e-5 * max(gradients.values())]
    assert not dead


def expected_parameters(variant):
    """The size of a released model, added up by hand from the description of its parts."""
    width, mlp, inner = 768, 3072, variant.heads * variant.head_dim
    norm = 2 * width

    def dense(in_dim, out_dim):
        return in_dim * out_dim + out_dim

    keys, values = width * inner, dense(width, inner)
    # A layer whose queries read keys of one projection needs no bias on them: softmax cancels it.
    own = dense(width, inner) + keys + values + dense(inner, width)
    own += dense(width, mlp) + dense(mlp, width) + 2 * norm
    both = own + inner
    layer = {
        "merged": 2 * both,
        "coattention": 2 * own + 2 * own,
        "single-modality": 2 * own,
        "single-stream": own,
        "language-query": both + keys + inner + values,
        "image-query": both + keys + inner + values,
        "two-tower": 2 * own,
    }
    language = 0 if variant.attention == "single-stream" else 6 * own
    if variant.attention == "mixed":
        layers = language + (variant.depth - 1) * 2 * own + 2 * both
    else:
        layers = language + variant.depth * layer[variant.attention]
    text = (32_000 + 512 + 3) * width + norm
    image = dense(2048, width) + 5 * width + norm
    pooled = 2 * dense(width, 1024)
    if variant.itm == "contrastive":
        score = 2 + (0 if variant.attention == "two-tower" else 1024)  # calibration; weights
    else:
        score = dense(1024, 2)
    words = variant.mlm * (dense(width, width) + norm + 32_000)
    regions = variant.mrm * (dense(width, width) + norm + dense(width, 1601))
    return text + image + layers + pooled + score + words + regions


@pytest.mark.slow
@pytest.mark.parametrize("tag", [tag for tag in structures(variants.get_config) if tag != "bert"])
def test_full_size_has_the_parameters_of_its_parts(tag):
    abstract = registry.build(with_spec(variants.get_config(tag), RELEASE_SPEC)).abstract()
    leaves = jax.tree.leaves(abstract)
    assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}
    assert sum(leaf.size for leaf in leaves) == expected_parameters(variants.find(tag))


@pytest.mark.slow
def test_initial_values_are_as_the_shapes_say_and_follow_the_key():
    model = tiny.model(["text", "merged"], objective={"itm": "contrastive"})
    params = model.init(jax.random.key(0))
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params)
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), model.abstract())
    again, other = model.init(jax.random.key(0)), model.init(jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, params, again)
    for path, leaf in trees.flatten(params).items():
        drawn = path.endswith(("kernel", "embedding"))
        assert np.array_equal(leaf, trees.flatten(other)[path]) != drawn, path
        if path.endswith("scale"):
            np.testing.assert_array_equal(leaf, np.ones_like(leaf))
        elif not drawn:
            np.testing.assert_array_equal(leaf, np.zeros_like(leaf))
    kernels = [x.ravel() for path, x in trees.flatten(params).items() if path.endswith("kernel")]
    std = 0.02 * (768 / tiny.SIZES["width"]) ** 0.5
    assert 0.75 < np.concatenate(kernels).std() / std < 1.0  # cut at two deviations
    layer = params["streams"]["layers"]["1"]
    assert not np.array_equal(
        *(layer[stream]["mlp"]["hidden"]["kernel"] for stream in ("text", "image"))
    )


# --- Wrong configs ---


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"family": "mmmt"}, r"config\.model\.family='mmmt'.*mmt, two_tower, bert"),
        ({"objective": {"itm": "contrastiv"}}, r"config\.objective\.itm='contrastiv'.*contrastive"),
        ({"layers": ("text", "image"), "objective": {"hloss": True}}, r"config\.objective\.hloss"),
        ({"layout": "cls_last"}, r"config\.model\.layout='cls_last'.*release, cls_first"),
        ({"family": "bert"}, r"config\.objective\.itm='classification'.*bert; it has none"),
        (
            {
                "family": "bert",
                "objective": {"itm": "none", "mrm": 0.0},
                "embed_regions": False,
            },
            "embed_regions=False is for models of photos and captions",
        ),
        (
            {"family": "bert", "objective": {"itm": "none", "mrm": 1.0}},
            r"config\.objective\.mrm is 1\.0, but the family bert is trained by mlm alone; set",
        ),
    ],
)
def test_wrong_config_gets_a_remedy(fields, message):
    with pytest.raises(UsageError, match=message):
        tiny.model(**fields)


def test_a_model_whose_data_is_unknown_is_refused():
    with pytest.raises(UsageError, match=r"config\.model\.feature_dim is unset"):
        registry.build(variants.get_config("data_cc"))
