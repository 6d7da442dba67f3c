"""Losses on embeddings, by hand and by loops."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmt_jax.objectives import embedding

SCORES = jnp.array([[0.9, 0.8, 0.1], [0.4, 0.5, 0.6], [0.2, 0.3, 0.7]])
RUNNING = jnp.arange(3)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def embeddings(*, size=4, width=5, seed=0):
    rng = np.random.default_rng(seed)
    return (jnp.asarray(rng.normal(size=(size, width)), jnp.float32) for _ in range(2))


def by_angle(*degrees):
    """Unit vectors of the plane, of some length."""
    angles = np.radians(np.array(degrees, float))
    return 3.0 * jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=1), jnp.float32)


def chord(degrees):
    """The distance of two unit vectors at that angle."""
    return 2 * math.sin(math.radians(degrees) / 2)


# ---- Hinge ---------------------------------------------------------------------------------------


def test_hinge_with_the_hardest_negative():
    of_captions, of_photos = embedding.hinge(SCORES, RUNNING, margin=0.2)
    close(of_captions, [0.2 + 0.8 - 0.9, 0.2 + 0.6 - 0.5, 0])
    close(of_photos, [0, 0.2 + 0.8 - 0.5, 0.2 + 0.6 - 0.7])


def test_hinge_with_all_negatives():
    of_captions, of_photos = embedding.hinge(SCORES, RUNNING, margin=0.2, hardest=False)
    close(of_captions, [0.1, 0.1 + 0.3, 0])
    close(of_photos, [0, 0.5, 0.1])


def test_hinge_spares_captions_of_one_photo():
    labels = jnp.array([7, 7, 3])  # captions 0 and 1 describe the same photo
    of_captions, of_photos = embedding.hinge(SCORES, labels, margin=0.2)
    close(of_captions, [0, 0.3, 0])
    close(of_photos, [0, 0, 0.1])
    everything_the_same = embedding.hinge(SCORES, jnp.zeros(3, int), margin=0.2)
    assert not np.any(everything_the_same)


def test_hinge_pulls_the_true_pair_and_pushes_the_hardest():
    gradient = jax.grad(lambda s: sum(x.sum() for x in embedding.hinge(s, RUNNING)))(SCORES)
    # Captions 0 and 1, photos 1 and 2 are violated, by (0, 1), (1, 2), (0, 1) and (1, 2).
    close(gradient, [[-1, 2, 0], [0, -2, 2], [0, 0, -1]])


# ---- Pairs and triplets --------------------------------------------------------------------------


def test_contrastive_by_hand():
    text, image = by_angle(0, 90), by_angle(30, 90)
    attract, repel = embedding.contrastive(text, image, jnp.array([5, 6]))
    # In order: caption 0 (0°), caption 1 (90°), photo 0 (30°), photo 1 (90°).
    expected = np.zeros((4, 4))
    expected[0, 2] = expected[2, 0] = chord(30)
    close(attract, expected)
    # 90° apart is farther than 1; 60° is exactly 1.
    close(repel, np.zeros((4, 4)))
    _, repel = embedding.contrastive(text, image, jnp.array([5, 6]), negative_margin=1.5)
    assert float(repel[0, 1]) == pytest.approx(1.5 - chord(90))  # two captions
    assert float(repel[2, 1]) == pytest.approx(1.5 - chord(60))
    assert repel[0, 2] == repel[0, 0] == 0
    close(embedding.mean(attract).mean, chord(30))  # photo 1 and its caption do not attract
    of_none = embedding.mean(jnp.zeros(3))
    assert (of_none.mean, of_none.count) == (0, 0)


def test_contrastive_margin_of_matching_pairs():
    attract, _ = embedding.contrastive(
        by_angle(0), by_angle(30), jnp.array([0]), positive_margin=0.5
    )
    close(attract[0, 1], chord(30) - 0.5)


def test_triplet_by_hand():
    losses = embedding.triplet(by_angle(0, 40), by_angle(30, 40), jnp.array([0, 1]), margin=0.05)
    # Anchor photo 0 (30°): its caption is 30° away, caption 1 and photo 1 are 10° away.
    worst = chord(30) - chord(10) + 0.05
    close(losses[2, 0], [0, worst, 0, worst])
    # Anchor caption 0 (0°): its photo is 30° away, the others 40°.
    close(losses[0, 2], [0, 0, 0, 0])
    assert losses.shape == (4, 4, 4)


def test_distances_may_be_those_of_cosines():
    text, image, labels = by_angle(0, 90), by_angle(60, 90), jnp.array([5, 6])
    attract, repel = embedding.contrastive(text, image, labels, distance="cosine")
    assert float(attract[0, 2]) == pytest.approx(1 - math.cos(math.radians(60)))
    assert float(repel[2, 1]) == pytest.approx(math.cos(math.radians(30)))  # of what is 1 apart
    losses = embedding.triplet(text, image, labels, margin=0.0, distance="cosine")
    assert float(losses[2, 0, 1]) == pytest.approx(math.cos(math.pi / 6) - math.cos(math.pi / 3))


def test_miners_choose_triplets_by_their_negatives():
    # Anchor caption 0 (0°): its photo is 30° away, caption 1 is 25° and photo 1 is 35° away.
    pairs = by_angle(0, 25), by_angle(30, 35), jnp.array([0, 1])
    found = {
        miner: embedding.triplet(*pairs, margin=0.2, miner=miner)[0, 2]
        for miner in ("all", "hard", "semihard")
    }
    nearer, farther = (0.2 + chord(30) - chord(angle) for angle in (25, 35))
    close(found["all"], [0, nearer, 0, farther])
    close(found["hard"], [0, nearer, 0, 0])
    close(found["semihard"], [0, 0, 0, farther])


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [4, 9, 4, 9]])
def test_pairs_and_triplets_are_those_of_the_labels(labels):
    text, image = embeddings()
    vectors = np.concatenate([embedding.unit(text), embedding.unit(image)])
    names = labels + labels
    distance = np.linalg.norm(vectors[:, None] - vectors[None, :], axis=-1)
    attract, repel = np.zeros((2, 8, 8))
    triplets = np.zeros((8, 8, 8))
    for a, b in itertools.permutations(range(8), 2):
        if names[a] == names[b]:
            attract[a, b] = distance[a, b]
            for n in range(8):
                if names[n] != names[a]:
                    triplets[a, b, n] = max(0, distance[a, b] - distance[a, n] + 0.3)
        else:
            repel[a, b] = max(0, 1 - distance[a, b])
    found = embedding.contrastive(text, image, jnp.array(labels))
    np.testing.assert_allclose(found, [attract, repel], atol=1e-5)
    found = embedding.triplet(text, image, jnp.array(labels), margin=0.3)
    np.testing.assert_allclose(found, triplets, atol=1e-5)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [4, 9, 4, 9]])
def test_nt_xent_is_a_softmax_over_one_positive_and_the_negatives(labels):
    text, image = embeddings()
    vectors = np.concatenate([embedding.unit(text), embedding.unit(image)])
    weights = np.exp(vectors @ vectors.T / 0.5)
    names = np.array(labels + labels)
    expected = np.zeros((8, 8))
    for a, p in itertools.permutations(range(8), 2):
        if names[a] == names[p]:
            others = weights[a, names != names[a]].sum()
            expected[a, p] = -math.log(weights[a, p] / (weights[a, p] + others))
    found = embedding.nt_xent(text, image, jnp.array(labels), temperature=0.5)
    close(found, expected)


def test_nt_xent_of_a_sure_pair_still_counts():
    found = embedding.nt_xent(by_angle(0, 180), by_angle(0, 180), jnp.array([0, 1]))
    assert embedding.mean(found).count == 4
    assert 0 < embedding.mean(found).mean < 1e-10


# ---- ConVIRT -------------------------------------------------------------------------------------


def test_convirt_by_hand():
    text, image = by_angle(0, 90), by_angle(0, 60)
    cosines = np.array([[1, 0.5], [0, math.sqrt(3) / 2]])  # captions, photos
    to_photos = np.log(np.exp(cosines).sum(axis=1)) - np.diag(cosines)
    to_captions = np.log(np.exp(cosines).sum(axis=0)) - np.diag(cosines)
    labels = jnp.array([0, 1])
    close(embedding.convirt(text, image, labels), (to_photos + to_captions) / 2)
    close(embedding.convirt(text, image, labels, weight=1.0), to_captions)
    sharp = embedding.convirt(text, image, labels, weight=0.0, temperature=0.5)
    close(sharp, np.log(np.exp(2 * cosines).sum(axis=1)) - 2 * np.diag(cosines))


def test_convirt_spares_captions_of_one_photo():
    text, image = embeddings(size=3)
    whole = embedding.convirt(text, image, jnp.array([2, 2, 5]))
    cosines = np.asarray(embedding.unit(text) @ embedding.unit(image).T)
    rivals = np.log(np.exp(cosines[0, [0, 2]]).sum()) + np.log(np.exp(cosines[[0, 2], 0]).sum())
    close(whole[0], (rivals - 2 * cosines[0, 0]) / 2)


# ---- All of them ---------------------------------------------------------------------------------


def added(terms):
    return sum(term.mean for term in terms.values())


def total(name, text, image, labels):
    if "hinge" in name:  # of scores, whatever they are
        text, image = embedding.unit(text), embedding.unit(image)
    return added(embedding.LOSSES[name](text, image, labels))


@pytest.mark.slow
def test_losses_by_name_are_means():
    unit = jnp.eye(3)
    close(added(embedding.LOSSES["hinge"](SCORES, unit, RUNNING)), (0.1 + 0.3 + 0.5 + 0.1) / 3)
    close(added(embedding.LOSSES["hinge_sum"](SCORES, unit, RUNNING)), (0.1 + 0.4 + 0.5 + 0.1) / 3)
    # One matching pair is 30° apart, one not at all; all others are at least 60° apart.
    text, image, labels = by_angle(0, 90), by_angle(30, 90), jnp.array([5, 6])
    close(added(embedding.LOSSES["pairs"](text, image, labels)), chord(30))
    close(
        added(embedding.LOSSES["convirt"](text, image, labels)),
        embedding.convirt(text, image, labels).mean(),
    )
    for name in ("triplet", "nt_xent"):
        text, image = embeddings()
        losses = getattr(embedding, name)(text, image, jnp.array([0, 1, 2, 0]))
        found = embedding.LOSSES[name](text, image, jnp.array([0, 1, 2, 0]))
        close(added(found), losses[losses > 0].mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", embedding.LOSSES)
def test_losses_do_not_depend_on_length_and_have_finite_gradients(name):
    text, image = embeddings()
    labels = jnp.array([0, 1, 2, 0])
    close(total(name, text, image, labels), total(name, 5 * text, 0.2 * image, labels))
    same = jnp.ones_like(text)  # all in one place: every distance is 0
    for pair in ((text, image), (same, same), (text, jnp.zeros_like(image))):
        gradients = jax.grad(total, argnums=(1, 2))(name, *pair, labels)
        assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("name", embedding.LOSSES)
def test_losses_are_symmetric_in_the_modalities(name):
    text, image = embeddings()
    labels = jnp.array([0, 1, 2, 0])
    close(total(name, text, image, labels), total(name, image, text, labels))
