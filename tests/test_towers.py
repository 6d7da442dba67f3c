"""Options of models whose streams never meet: cosines, pooling, hidden inputs."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from mmt_jax.errors import UsageError

CAPTIONS, PHOTOS = tiny.text([3, 2, 1]), tiny.image([3, 2, 1])
CONTRAST = {"itm": "contrastive", "mlm": 0.0, "mrm": 0.0, "candidates": 4}
FAMILIES = {"mmt": ("text", "single"), "two_tower": ("text", "image")}
OPTIONS = {"cosine": True, "pooling": "mean+max+cls+words"}


def build(family="two_tower", *, objective=(), **options):
    return tiny.model(
        FAMILIES[family], family=family, objective={**CONTRAST, **dict(objective)}, **options
    )


def encoded(model, params, text=CAPTIONS, image=PHOTOS):
    return model.encode_text(params, text), model.encode_image(params, image)


def words(params, text):
    """The mean of the embeddings of what is no special token, by numpy and one by one."""
    table = {name: np.float64(params["text"][name]["embedding"]) for name in ("tokens", "segments")}
    positions, norm = np.float64(params["text"]["positions"]["embedding"]), params["text"]["norm"]
    found = np.zeros((len(text.mask), positions.shape[1]))
    for row, (ids, real) in enumerate(zip(text.token_ids, text.mask, strict=True)):
        pieces = ids[real][1:-1]
        for place, piece in enumerate(pieces, 1):  # [SEP] is at 0
            x = table["tokens"][piece] + table["segments"][0] + positions[place]
            x = (x - x.mean()) / np.sqrt(x.var() + 1e-12) * norm["scale"] + norm["bias"]
            found[row] += x / len(pieces)
    return found


def products(model, params, text, image):
    return (
        np.asarray(model.embed_text(params, text)) @ np.asarray(model.embed_image(params, image)).T
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_is_a_cosine_of_projected_means_maxima_and_heads_times_a_scale(family):
    model = build(family, **OPTIONS)
    params = tiny.params(model)
    items, units = encoded(model, params), []
    more = [words(params, CAPTIONS)], []
    pools = params["pool_text"], params["pool_image"]
    for item, pool, parts in zip(items, pools, more, strict=True):
        states, real = np.float64(item.states), np.asarray(item.mask)
        mean, most = (
            np.stack([f(s[r], axis=0) for s, r in zip(states, real, strict=True)])
            for f in (np.mean, np.max)
        )
        x = np.concatenate([mean, most, states[:, -1], *parts], axis=1)
        x = x @ pool["kernel"] + pool["bias"]
        units.append(x / np.linalg.norm(x, axis=1, keepdims=True))
    wanted = np.exp(np.float64(params["score"]["log_scale"])) * units[0] @ units[1].T
    np.testing.assert_allclose(products(model, params, *items), wanted, atol=1e-5)
    fused = model.fuse(params, *items)
    np.testing.assert_allclose(fused.scores[-1], np.diag(wanted), atol=1e-5)


@pytest.mark.slow
def test_the_scale_starts_at_clips_and_counts_as_100_at_most_yet_learns_beyond():
    model = build(cosine=True)
    fresh = model.init(jax.random.key(0))
    assert np.exp(fresh["score"]["log_scale"]) == pytest.approx(1 / 0.07)

    def score(log):
        params = tiny.params(model) | {"score": {"log_scale": log}}
        return model.fuse(params, *encoded(model, params)).scores[-1, 0]

    at, beyond = np.float32(np.log(100.0)), np.float32(np.log(500.0))
    np.testing.assert_allclose(score(beyond), score(at), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(score)(beyond), score(at), rtol=1e-6)  # d exp = exp


@pytest.mark.slow
def test_words_stand_for_a_caption_beside_what_mean_and_cls_give():
    model, without = build(pooling="mean+cls+words"), build(pooling="mean+cls")
    params, text = tiny.params(model), tiny.text([3, 0, 5], length=9)
    found = np.asarray(model.encode_text(params, text).heads[0])
    plain = np.asarray(without.encode_text(params, text).heads[0])
    np.testing.assert_array_equal(found[:, : plain.shape[1]], plain)
    np.testing.assert_allclose(found[:, plain.shape[1] :], words(params, text), atol=1e-5)
    assert not found[1, plain.shape[1] :].any()
    unknown = dataclasses.replace(text, word_ids=np.minimum(text.word_ids, -1))  # as if exported
    np.testing.assert_array_equal(model.encode_text(params, unknown).heads[0], found)
    shapes = [
        [m.abstract()[p]["kernel"].shape for p in ("pool_text", "pool_image")]
        for m in (model, without)
    ]
    assert shapes == [[(36, 24), (24, 24)], [(24, 24), (24, 24)]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.slow
def test_padding_changes_no_embedding(family):
    model = build(family, **OPTIONS)
    params = tiny.params(model)
    text = jax.tree.map(lambda x: np.pad(x, ((0, 0), (2, 0))), CAPTIONS)
    image = jax.tree.map(lambda x: np.pad(x, ((0, 0), (3, 0)) + ((0, 0),) * (x.ndim - 2)), PHOTOS)
    image = dataclasses.replace(image, features=image.features + 9.0 * ~image.mask[..., None])
    wanted = products(model, params, *encoded(model, params))
    found = products(model, params, *encoded(model, params, text, image))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.slow
def test_half_hidden_inputs_are_those_of_training_alone():
    plain = build(pooling="mean+cls", dropout=0.0)
    hiding = build(pooling="mean+cls", dropout=0.0, image_dropout=0.5, text_dropout=0.5)
    params = tiny.params(plain)
    for name, item in (("encode_text", CAPTIONS), ("encode_image", PHOTOS)):
        plainly = getattr(plain, name)(params, item, key=jax.random.key(0)).heads[0]
        unhidden = getattr(hiding, name)(params, item).heads[0]
        hidden = getattr(hiding, name)(params, item, key=jax.random.key(0)).heads[0]
        np.testing.assert_array_equal(plainly, unhidden)
        assert not np.allclose(hidden, unhidden)


def test_the_same_features_of_all_regions_of_a_photo_are_hidden():
    model = build(dropout=0.0, image_dropout=0.5, width=12)
    params = tiny.params(model)
    alike = dataclasses.replace(
        PHOTOS,
        features=np.broadcast_to(PHOTOS.features[:1, -1:], PHOTOS.features.shape),
        boxes=np.zeros_like(PHOTOS.boxes),
    )
    states = model.encode_image(params, alike, key=jax.random.key(1)).states
    for photo in np.asarray(states):  # layers read the same of every region
        np.testing.assert_allclose(photo[1:], photo[:-1], atol=1e-4)
    assert np.abs(states[0] - states[1]).max() > 1e-2  # each photo has its own


def test_regions_that_are_not_embedded_are_pooled_as_their_features():
    fields = dict(OPTIONS, family="two_tower", objective=CONTRAST, image_dropout=0.5)
    model = tiny.model(("text",), embed_regions=False, **fields)
    params = tiny.params(model)
    assert "image" not in params
    found = np.asarray(model.encode_image(params, PHOTOS).heads[0])
    roots = PHOTOS.features / np.sqrt(np.abs(PHOTOS.features) + 1e-4)
    even = roots - roots.mean(-1, keepdims=True)
    even /= np.maximum(even.std(-1, keepdims=True), 1e-3)  # padding stays 0
    of_regions = [x[real] for x, real in zip(even, PHOTOS.mask, strict=True)]
    mean, most = (np.stack([f(x, axis=0) for x in of_regions]) for f in (np.mean, np.max))
    wanted = np.concatenate([mean, most, even[:, -1]], axis=1)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    # Whole photo and mean lose different entries: these are as in the mean photo of the batch; by
    # how much the others differ from it is doubled.
    hidden = np.asarray(model.encode_image(params, PHOTOS, key=jax.random.key(0)).heads[0])
    mean = np.broadcast_to(found.mean(axis=0), found.shape)
    kept = ~np.isclose(hidden, mean, atol=1e-6)
    np.testing.assert_allclose(hidden[kept], (2 * found - mean)[kept], atol=1e-5)
    assert 0.2 < kept.mean() < 0.8
    assert (kept[:, : kept.shape[1] // 3] != kept[:, -(kept.shape[1] // 3) :]).any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": ("merged",), "cosine": True}, r"config\.model\.cosine=True is for models in"),
        ({"layers": ("merged",), "pooling": "mean+cls"}, r"model\.pooling=mean\+cls is for models"),
        ({"layers": ("merged",), "text_dropout": 0.5}, r"model\.text_dropout=0\.5 is for models"),
        (
            {"layers": ("single",), "cosine": True},
            r"cosine=True .*under config\.objective\.itm=con",
        ),
        ({"layers": ("single",), "objective": {"hloss": True}, "pooling": "mean+cls"}, "pooling"),
        (
            {"layers": ("text", "image"), "objective": CONTRAST, "embed_regions": False},
            r"embed_regions=False is for models of regions none of whose layers reads them",
        ),
        (
            {"layers": ("text",), "objective": {"itm": "contrastive"}, "embed_regions": False},
            "and without masked regions",
        ),
        ({"layers": ("single",), "pooling": "mean"}, r"pooling='mean' is unknown; .* mean\+cls"),
    ],
)
def test_options_are_refused_where_streams_meet(fields, message):
    with pytest.raises(UsageError, match=message):
        tiny.model(**fields)
