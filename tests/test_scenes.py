"""The generated scenes; captions are parsed anew and held against the picture's geometry."""

import dataclasses
import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest

from benchmarks import linear
from mmt_jax import scenes
from mmt_jax.errors import UsageError
from mmt_jax.photo import BOXES, FEATURES, IDS, PROBS, SCORES
from mmt_jax.scenes import corpora, detector, lexicon, render, world

CLEAN = [name for name, recipe in scenes.RECIPES.items() if recipe.wrong == 0]


# A parser of its own, so that the grammar does not vouch for itself.


def one_of(phrases):
    return "|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))


def meaning(rows):
    return {phrase: name for name, row in rows.items() for phrase in row}


SHAPE, COLOUR = meaning(lexicon.SHAPES), meaning(lexicon.COLOURS)
SIZE, TEXTURE = meaning(lexicon.SIZES), meaning(lexicon.TEXTURES)
TRIMMING, RELATION = meaning(lexicon.TRIMMINGS), meaning(lexicon.RELATIONS)
PLACE, NUMBER = meaning(lexicon.PLACES), meaning(lexicon.NUMBERS)
BACKGROUND = meaning(lexicon.BACKGROUNDS)
NOUN = {**SHAPE, **dict.fromkeys(lexicon.ANY_SHAPE)}
PLURAL = {lexicon.plural(noun): shape for noun, shape in NOUN.items()}
END = r"(?![\w-])"


def noun_phrase(tag):
    return (
        rf"\b(?:an|a|another|the|my|this|our|that) (?:(?P<size{tag}>{one_of(SIZE)}) )?"
        rf"(?:(?P<texture{tag}>{one_of(TEXTURE)}) )?(?:(?P<colour{tag}>{one_of(COLOUR)}) )?"
        rf"(?P<noun{tag}>{one_of(NOUN)}){END}(?: (?P<trimming{tag}>{one_of(TRIMMING)}){END})?"
    )


VERB = rf"(?:(?:which )?(?:{one_of(lexicon.VERBS)}) )?"
DESCRIBED = re.compile(noun_phrase(0))
RELATED = re.compile(
    rf"(?=({noun_phrase(0)} {VERB}(?P<relation>{one_of(RELATION)}) {noun_phrase(1)}))"
)
BETWEEN = re.compile(
    rf"{noun_phrase(0)} {VERB}(?:{one_of(lexicon.BETWEEN)}) {noun_phrase(1)} and {noun_phrase(2)}"
)
PLACED = re.compile(rf"{noun_phrase(0)} (?:is )?(?P<place>{one_of(PLACE)})(?! side){END}")
IS_LIKE = re.compile(
    rf"^the (?P<noun>{one_of(SHAPE)}) is (?P<word>{one_of([*SIZE, *TEXTURE, *COLOUR])})$"
)
COUNTED = re.compile(
    rf"\b(?P<number>{one_of(NUMBER)}) (?:(?P<colour>{one_of(COLOUR)}) )?"
    rf"(?P<noun>{one_of(PLURAL)}){END}"
)
BEHIND = re.compile(rf"\b(?P<background>{one_of(BACKGROUND)}){END}")


def matching(scene, found, tag=0):
    """The scene's objects that a parsed noun phrase describes."""

    def fits(attribute, group, words):
        said = found.group(f"{group}{tag}")
        return said is None or words[said] in (None, attribute)

    return [
        thing
        for thing in scene.things
        if fits(thing.shape, "noun", NOUN)
        and fits(thing.colour, "colour", COLOUR)
        and fits(thing.size, "size", SIZE)
        and fits(thing.texture, "texture", TEXTURE)
        and fits(thing.texture, "trimming", TRIMMING)
    ]


def holds(relation, a, b):
    dy, dx = a.y - b.y, a.x - b.x
    distance = math.hypot(dy, dx)
    return {
        "left": dx < -5,
        "right": dx > 5,
        "above": dy < -5,
        "below": dy > 5,
        "near": distance - a.radius - b.radius < 6,
        "far": distance > 30,
        "inside": b.shape == "ring" and distance + a.radius < b.radius,
        "on": b.shape != "ring" and distance < b.radius,
    }[relation]


def lies_between(middle, a, b):
    detour = math.dist(a[4:6], middle[4:6]) + math.dist(middle[4:6], b[4:6])
    return detour < 1.25 * math.dist(a[4:6], b[4:6])


def judge(caption, scene):
    """The claims that the parser finds in a caption, each with its truth."""
    claims = [(m[0], bool(matching(scene, m))) for m in DESCRIBED.finditer(caption)]
    for m in RELATED.finditer(caption):
        relation = RELATION[m["relation"]]
        pairs = itertools.product(matching(scene, m), matching(scene, m, 1))
        claims.append((m[1], any(a != b and holds(relation, a, b) for a, b in pairs)))
    for m in BETWEEN.finditer(caption):
        triples = itertools.product(*(matching(scene, m, tag) for tag in range(3)))
        claims.append((m[0], any(lies_between(*t) for t in triples if len(set(t)) == 3)))
    for m in PLACED.finditer(caption):
        tall, wide = PLACE[m["place"]]
        bands = {"top": (0, 22), "left": (0, 22), "middle": (21, 43)}
        (low, high), (near, far) = bands.get(tall, (42, 64)), bands.get(wide, (42, 64))
        inside = [low <= t.y <= high and near <= t.x <= far for t in matching(scene, m)]
        claims.append((m[0], any(inside)))
    for m in IS_LIKE.finditer(caption):
        word = m["word"]
        wanted = {SIZE.get(word), TEXTURE.get(word), COLOUR.get(word)} - {None}
        things = [t for t in scene.things if t.shape == SHAPE[m["noun"]]]
        claims.append((m[0], any(wanted & {t.size, t.texture, t.colour} for t in things)))
    for m in COUNTED.finditer(caption):
        shape, colour = PLURAL[m["noun"]], COLOUR.get(m["colour"])
        count = sum(shape in (None, t.shape) and colour in (None, t.colour) for t in scene.things)
        claims.append((m[0], count == NUMBER[m["number"]]))
    for m in BEHIND.finditer(caption):
        claims.append((m[0], BACKGROUND[m["background"]] == scene.background))
    return claims


def told_block(corpus, split="train", block=0, seed=0, level=scenes.TOP, **dials):
    part = corpora.Split(corpus, split, level, seed)
    drawn = part.draw(block)
    captions, about = part.tell(block, drawn, scenes.Dials(**dials))
    return [drawn.scene(i) for i in range(len(drawn))], captions, about


def arrays(corpus):
    return corpus.rows | {"image_ids": corpus.image_ids, "offsets": corpus.offsets}


# Captions


@pytest.mark.parametrize("level", scenes.LEVELS)
@pytest.mark.parametrize("corpus", scenes.CORPORA)
def test_every_caption_is_true_of_the_picture_that_it_is_about(corpus, level):
    drawn, captions, about = told_block(corpus, level=level)
    for row, sources in zip(captions[:150], about):
        for caption, source in zip(row, sources):
            claims = judge(caption, drawn[source])
            assert claims, f"the parser finds nothing in {caption!r}"
            assert all(true for _, true in claims), (caption, claims, drawn[source])


def test_captions_of_another_picture_are_mostly_false_so_the_parser_can_object():
    drawn, captions, _ = told_block("target")
    swapped = [judge(row[0], drawn[i - 1]) for i, row in enumerate(captions)]
    assert np.mean([all(true for _, true in claims) for claims in swapped]) < 0.05


@pytest.mark.parametrize("corpus", ["cc", "sbu"])
def test_share_of_wrong_captions_is_the_documented_one(corpus):
    share = scenes.RECIPES[corpus].wrong
    about = np.concatenate([told_block(corpus, block=block)[2] for block in range(4)])
    own = np.arange(len(about))[:, None] % corpora.BLOCK
    wrong, n = np.mean(about != own), about.size
    assert abs(wrong - share) < 3 * math.sqrt(share * (1 - share) / n)


def test_noise_shows_in_the_captions_that_build_returns():
    def share_false(corpus):
        drawn, _, _ = told_block(corpus)
        built = scenes.build(corpus, "train", size=len(drawn))
        verdicts = [judge(c, s) for s, row in zip(drawn, built.captions) for c in row]
        return np.mean([not all(true for _, true in claims) for claims in verdicts])

    assert share_false("target") == 0
    assert 0.03 < share_false("cc") < 0.2 < share_false("sbu") < 0.5


@pytest.mark.parametrize("corpus", CLEAN)
def test_clean_corpora_have_no_wrong_caption(corpus):
    _, _, about = told_block(corpus)
    np.testing.assert_array_equal(about, np.arange(len(about))[:, None].repeat(about.shape[1], 1))


def test_languages_are_as_near_to_the_target_as_the_study_ascribes():
    def words(corpus, block):
        _, captions, _ = told_block(corpus, block=block)
        counts = Counter(word for row in captions for caption in row for word in caption.split())
        return {word: count / counts.total() for word, count in counts.items()}

    target = words("target", 0)

    def distance(other):
        return sum(abs(target.get(w, 0) - other.get(w, 0)) for w in target.keys() | other) / 2

    near = [distance(words(corpus, 1)) for corpus in ("mscoco", "cc", "sbu")]
    assert near == sorted(near)
    assert near[0] < 0.1
    assert near[2] > 0.4


def test_narratives_tell_of_every_object():
    drawn, captions, _ = told_block("mscoco-narratives")
    for scene, (caption,) in zip(drawn, captions):
        assert len(DESCRIBED.findall(caption)) >= len(scene.things)
    lengths = [len(caption.split()) for (caption,) in captions]
    assert np.mean(lengths) > 2.5 * np.mean([len(c.split()) for c in told_block("target")[1][0]])


def test_captions_seldom_tell_all_and_have_rare_words():
    _, captions, _ = told_block("target")
    said = [m for row in captions for c in row for m in DESCRIBED.finditer(c)]
    full = [m for m in said if m["size0"] and m["colour0"] and (m["texture0"] or m["trimming0"])]
    assert 0 < len(full) / len(said) < 0.3
    reds = Counter(m["colour0"] for m in said if COLOUR.get(m["colour0"]) == "red")
    assert sorted(reds, key=reds.get, reverse=True) == list(lexicon.COLOURS["red"])


@pytest.mark.parametrize(
    "words",
    [(SHAPE, lexicon.SHAPES), (COLOUR, lexicon.COLOURS), (SIZE, lexicon.SIZES),
     (TEXTURE, lexicon.TEXTURES), (RELATION, lexicon.RELATIONS), (PLACE, lexicon.PLACES),
     (NUMBER, lexicon.NUMBERS), (BACKGROUND, lexicon.BACKGROUNDS)],
)  # fmt: skip
def test_no_phrase_has_two_meanings(words):
    meanings, rows = words
    assert len(meanings) == 4 * len(rows)


def test_a_world_of_fewer_and_plainer_objects():
    small = world.World(fewest=1, counts=(1, 1), sizes=(0, 1, 0), textures=(1, 0, 0), hosted=1)
    drawn = world.draw_scenes(small, 200, np.random.default_rng(0))
    assert set(drawn.present.sum(axis=1)) == {1, 2}
    scenes_drawn = [drawn.scene(i) for i in range(200)]
    things = [thing for scene in scenes_drawn for thing in scene.things]
    assert {(thing.size, thing.texture) for thing in things} == {("medium", "plain")}
    assert {thing.shape for thing in things} == set(world.SHAPES)
    counts, rows = detector.detect(drawn, np.random.default_rng(0))
    assert counts.max() <= 1 + 2 + 1
    assert len(rows[BOXES]) == counts.sum()


# Corpora


def test_same_seed_same_corpus_and_another_seed_another():
    one, same, other = (
        scenes.build("cc", "val", seed=seed, size=40, pixels=True) for seed in (3, 3, 4)
    )
    assert one.captions == same.captions
    for name, column in arrays(one).items():
        np.testing.assert_array_equal(column, arrays(same)[name])
    assert one.captions != other.captions
    assert (one.pixels != other.pixels).any(axis=(1, 2, 3)).all()


def test_a_picture_does_not_depend_on_how_many_are_built():
    few, many = (scenes.build("sbu", "train", size=size, pixels=True) for size in (260, 300))
    assert few.captions == many.captions[:260]
    np.testing.assert_array_equal(few.offsets, many.offsets[:261])
    np.testing.assert_array_equal(few.image_ids, many.image_ids[:260])
    np.testing.assert_array_equal(few.pixels, many.pixels[:260])
    for key, values in few.rows.items():
        np.testing.assert_array_equal(values, many.rows[key][: few.offsets[-1]])
    assert len(few) == 260


def test_a_photo_is_the_same_whoever_takes_it_and_as_its_picture_shows_it():
    built = scenes.build("vg", "test", seed=1, size=300, pixels=True)
    opened = scenes.photos("vg", "test", seed=1, size=300, pixels=True)
    assert opened.shapes == built.shapes
    for some in ([5], [299, 5, 256, 5], [], [7], range(300)):
        ours, theirs = opened.take(np.array(some, int)), built.take(np.array(some, int))
        assert ours.captions == theirs.captions
        for name, column in (arrays(theirs) | {"pixels": theirs.pixels}).items():
            np.testing.assert_array_equal((arrays(ours) | {"pixels": ours.pixels})[name], column)
    picture = np.repeat(np.arange(300), np.diff(built.offsets))
    seen = detector.box_features(built.pixels, picture, built.rows[BOXES][:, :4])
    np.testing.assert_array_equal(built.rows[FEATURES], seen.astype(np.float16))


def test_picture_is_the_one_that_build_keeps():
    built = scenes.build("vg", "test", seed=1, size=259, pixels=True)
    for index in (0, 7, 258):
        one = scenes.picture("vg", "test", index, seed=1)
        assert one.shape == (64, 64, 3)
        assert one.dtype == np.uint8
        np.testing.assert_array_equal(one, built.pixels[index])


@pytest.mark.slow
def test_no_picture_is_in_two_splits_or_corpora():
    built = [
        scenes.build(corpus, split, size=30, pixels=True)
        for corpus in scenes.CORPORA
        for split in scenes.SPLITS
    ]
    ids = np.concatenate([corpus.image_ids for corpus in built])
    assert len(np.unique(ids)) == len(ids) == 30 * 21
    assert ids.max() + corpora.MAX_PICTURES < 2**31
    assert len({image.tobytes() for corpus in built for image in corpus.pixels}) == len(ids)


def test_default_sizes_and_captions_a_picture():
    target = scenes.build("target", "val")
    assert len(target) == 500
    assert {len(captions) for captions in target.captions} == {5}
    assert target.pixels is None
    assert target.feature_dim == scenes.FEATURE_DIM == 176
    assert target.num_classes == scenes.NUM_CLASSES == 65
    assert {len(values) for values in target.rows.values()} == {target.offsets[-1]}
    sizes = [recipe.train for recipe in scenes.RECIPES.values()]
    assert max(sizes) >= 2 * min(sizes)


def test_the_table_of_the_docstring_is_that_of_the_recipes():
    for name, recipe in scenes.RECIPES.items():
        row = f"| {name} | {scenes.source(name)} | {recipe.train:,} | {recipe.captions} "
        assert f"{row}| {recipe.wrong:.0%} |".replace("%", " %") in corpora.__doc__


@pytest.mark.slow
def test_vocabulary_captions_are_of_every_corpus():
    captions = scenes.vocabulary_captions()
    assert len(captions) == 7 * corpora.VOCABULARY_CAPTIONS
    assert captions == scenes.vocabulary_captions()
    for corpus in scenes.CORPORA:
        assert scenes.build(corpus, "train", size=1).captions[0][0] in captions


@pytest.mark.parametrize(
    ("corpus", "split", "options", "message"),
    [
        ("coco", "train", {}, "mscoco"),
        ("cc", "dev", {}, "train, val, test"),
        ("cc", "train", {"size": 0}, "1 to"),
        ("cc", "train", {"seed": -1}, "negative"),
        ("cc", "train", {"level": 6}, "1 to 5"),
    ],
)
def test_wrong_use_names_the_remedy(corpus, split, options, message):
    with pytest.raises(UsageError, match=message):
        scenes.build(corpus, split, **options)


# Levels


def words_of(level, corpus="target"):
    captions = itertools.chain.from_iterable(told_block(corpus, level=level)[1])
    return set(" ".join(captions).replace(".", " ").split())


def test_each_level_says_more_than_the_one_below():
    said = [words_of(level) for level in scenes.LEVELS]
    sizes, textures = set(lexicon.SIZES), set(lexicon.TEXTURES)
    assert [bool(words & (sizes | textures)) for words in said] == [False, False, True, True, True]
    assert [("crimson" in words, "beach" in words) for words in said] == [
        (False, False),
        (False, False),
        (False, False),
        (True, False),
        (True, True),
    ]
    for level in scenes.LEVELS:
        drawn = corpora.Split("target", "train", level).draw(0)
        assert set(drawn.present.sum(axis=1)) == ({3} if level == 1 else {3, 4, 5})
        assert (set(drawn.texture.ravel()) == {0}) == (level < 3)


@pytest.mark.parametrize("level", scenes.LEVELS)
def test_a_corpus_keeps_what_makes_it_that_corpus(level):
    about = np.concatenate([told_block("sbu", block=b, level=level)[2] for b in range(4)])
    wrong = np.mean(about != np.arange(len(about))[:, None] % corpora.BLOCK)
    assert abs(wrong - scenes.RECIPES["sbu"].wrong) < 0.06
    lengths = {
        name: np.mean([len(row[0].split()) for row in told_block(name, level=level)[1]])
        for name in ("mscoco", "mscoco-narratives", "vg")
    }
    assert lengths["vg"] < lengths["mscoco"] < lengths["mscoco-narratives"] / 2
    shapes = corpora.Split("oi-narratives", "train", level).draw(0).shape
    assert np.mean(shapes == world.SHAPES.index("star")) > 0.15  # 4 of 18, elsewhere 1 of 8


@pytest.mark.slow
def test_no_picture_is_of_two_levels():
    built = [
        scenes.build(corpus, split, level=level, size=20, pixels=True)
        for level in scenes.LEVELS
        for corpus in ("target", "sbu", "oi-narratives")
        for split in ("train", "test")
    ]
    ids = np.concatenate([corpus.image_ids for corpus in built])
    assert len(np.unique(ids)) == len(ids)
    assert ids.max() + corpora.MAX_PICTURES < 2**31
    assert len({image.tobytes() for corpus in built for image in corpus.pixels}) == len(ids)


@pytest.mark.slow
def test_a_linear_reader_tells_what_the_first_level_varies():
    told = linear.shares(1)
    assert told.keys() == {"shape", "colour"}
    assert told["shape"] > 0.99
    assert told["colour"] > 0.98


# Dials


def test_as_many_captions_are_wrong_as_asked_and_more_are_the_same_and_others():
    before = np.zeros((corpora.BLOCK, 5), bool)
    for wrong in (0.0, 0.1, 0.4, 1.0):
        _, _, about = told_block("mscoco", level=1, wrong=wrong)
        now = about != np.arange(corpora.BLOCK)[:, None]
        assert abs(now.mean() - wrong) < 0.04
        assert (before <= now).all()
        before = now


def test_words_are_as_far_as_asked_and_captions_stay_true():
    share = {}
    for far in (0.0, 0.25, 1.0):
        drawn, captions, about = told_block("mscoco", level=1, far=far)
        for rows, own in zip(captions, about):
            for caption, picture in zip(rows, own):
                assert all(true for _, true in judge(caption, drawn[picture])), caption
        said = " ".join(itertools.chain.from_iterable(captions)).replace(",", " ").split()
        plain = {ways[0] for ways in lexicon.COLOURS.values()}
        other = {ways[3] for ways in lexicon.COLOURS.values()} - plain
        share[far] = sum(w in other for w in said) / sum(w in plain | other for w in said)
    assert share[0.0] == 0
    assert abs(share[0.25] - 0.25) < 0.04
    assert share[1.0] == 1


def test_dials_leave_the_pictures():
    plain, turned = (
        scenes.build("sbu", "train", dials=dials, size=30)
        for dials in (scenes.AS_IT_IS, scenes.Dials(wrong=0.0, far=0.7))
    )
    assert arrays(plain).keys() == arrays(turned).keys()
    assert all(np.array_equal(arrays(plain)[name], arrays(turned)[name]) for name in arrays(plain))
    assert plain.captions != turned.captions


# Regions


def slow_feature(image, box):
    """The feature of a box by loops, from the pixels that each cell touches."""
    low_y, low_x, high_y, high_x = (float(edge) * 64 for edge in box)
    tall, wide = (high_y - low_y) / 8, (high_x - low_x) / 8
    cell = {}
    for i, j in itertools.product(range(8), range(8)):
        touched = [
            image[y, x] / 255
            for y, x in itertools.product(range(64), range(64))
            if y + 1 > low_y + i * tall and y < low_y + (i + 1) * tall
            and x + 1 > low_x + j * wide and x < low_x + (j + 1) * wide
        ]  # fmt: skip
        cell[i, j] = np.mean(touched, axis=0)

    def edge(one, other):
        one, other = ((min(i, 7), min(j, 7)) for i, j in (one, other))
        return abs(cell[one] - cell[other]).mean()

    colours, edges, histogram = [], [], np.zeros((4, 4, 4))
    for i, j in itertools.product(range(0, 8, 2), range(0, 8, 2)):
        block = [(i, j), (i, j + 1), (i + 1, j), (i + 1, j + 1)]
        colours.extend(np.mean([cell[at] for at in block], axis=0))
        for one, other in [((0, 0), (0, 1)), ((0, 0), (1, 0)), ((0, 0), (1, 1)), ((0, 1), (1, 0))]:
            steps = [edge((y + one[0], x + one[1]), (y + other[0], x + other[1])) for y, x in block]
            edges.append(np.mean(steps))
    for colour in cell.values():
        histogram[tuple(np.minimum(colour * 4, 3).astype(int))] += 1 / 64
    return np.concatenate([colours, edges, np.sqrt(histogram).ravel()])


def test_features_are_those_of_the_pixels():
    built = scenes.build("target", "val", size=2, pixels=True)
    for picture in range(2):
        end = built.offsets[picture + 1]  # where the whole photo is
        for row in (end - 3, end - 2, end - 1):
            slow = slow_feature(built.pixels[picture], built.rows[BOXES][row, :4])
            feature = built.rows[FEATURES][row]
            np.testing.assert_allclose(feature, slow, atol=6e-4)  # stored as f16


def test_feature_of_a_hand_made_picture():
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[0, :8, 8:16, 1] = 255  # on a grid of 8 × 8, the second cell of the first row is green
    feature = detector.box_features(image, np.array([0]), np.array([[0, 0, 1, 1]], np.float32))[0]
    colours, edges, histogram = np.split(feature, [48, 112])
    np.testing.assert_array_equal(colours[:3], [0, 0.25, 0])  # one of the block's four cells
    assert not colours[3:].any()
    # Of the first block, the green cell differs from those left, right, below and below right of it
    # and from that below left; and from the first cell of the second block.
    np.testing.assert_allclose(edges.reshape(4, 4, 4)[0, 0], np.array([2, 1, 1, 1]) / 12)
    assert not edges[4:].any()
    np.testing.assert_allclose(histogram[[0, 12]], np.sqrt([63 / 64, 1 / 64]))  # black, green
    assert np.count_nonzero(histogram) == 2


def test_boxes_cover_the_objects_and_classes_name_them():
    drawn = corpora.Split("target", "val").draw(0)
    built = scenes.build("target", "val", size=60)
    boxes = built.rows[BOXES][:, :4]
    empty = render.render(dataclasses.replace(drawn, present=np.zeros_like(drawn.present)))
    covered, named = [], []
    for slot in range(drawn.present.shape[1]):
        alone = np.zeros_like(drawn.present)
        alone[:, slot] = drawn.present[:, slot]
        changed = (render.render(dataclasses.replace(drawn, present=alone)) != empty).any(axis=-1)
        for picture in np.flatnonzero(alone[:60, slot]):
            ys, xs = np.nonzero(changed[picture])
            rows = np.arange(built.offsets[picture], built.offsets[picture + 1] - 1)
            centre = drawn.centre[picture, slot] / 64
            off = np.abs(boxes[rows].reshape(-1, 2, 2).mean(axis=1) - centre).max(axis=1)
            tall = np.ptp(boxes[rows, ::2], axis=1) * 64
            misfit = np.abs(tall - 2 * world.RADII[drawn.size[picture, slot]])
            row = rows[np.argmin(off * 64 + misfit)]
            low_y, low_x, high_y, high_x = boxes[row] * 64
            inside = (ys + 1 > low_y) & (ys < high_y) & (xs + 1 > low_x) & (xs < high_x)
            covered.append(inside.mean())
            label = 1 + drawn.shape[picture, slot] * 8 + drawn.colour[picture, slot]
            named.append(built.rows[IDS["class"]][row, 0] == label)
    assert np.mean(np.array(covered) > 0.95) > 0.93  # the others were missed
    assert 0.7 < np.mean(named) < 0.97


def test_class_distributions_are_valid():
    built = scenes.build("cc", "val", size=200)
    ids, probs, scores = (built.rows[key] for key in (IDS["class"], PROBS["class"], SCORES))
    whole = np.zeros(len(scores), bool)
    whole[built.offsets[1:] - 1] = True
    assert ids.min() >= 0
    assert ids.max() < scenes.NUM_CLASSES
    assert all(len(set(row)) == len(row) for row in ids.tolist())
    assert (np.diff(probs, axis=1) <= 0).all()
    assert (probs[~whole] > 0).all()
    assert (probs.sum(axis=1) < 1).all()
    assert (probs[whole] == 0).all()
    best = np.where(ids > 0, probs, 0).max(axis=1)
    np.testing.assert_allclose(scores[~whole], best[~whole], rtol=1e-6)
    assert (scores[whole] == 1).all()
    assert np.mean(ids[~whole, 0] == 0) < 0.1  # spurious regions, and a few objects


def test_whole_photo_comes_last_and_boxes_are_proper():
    built = scenes.build("vg", "val", size=200)
    boxes, features = built.rows[BOXES], built.rows[FEATURES]
    assert (boxes[built.offsets[1:] - 1] == (0, 0, 1, 1, 1)).all()
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert (boxes[:, :2] < boxes[:, 2:4]).all()
    regions = np.diff(built.offsets) - 1
    assert 3 < regions.mean() < 5
    assert features.min() >= 0
    assert features.max() <= 1
