"""Parts of a region folder's split by the ids of its photos."""

import zlib

import numpy as np
import pytest
from test_formats import store

from mmt_jax.data import formats, sources
from mmt_jax.errors import UsageError

PHOTOS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos with ids in no order, of one to three rows each, whose captions are their ids."""
    ids = (np.arange(PHOTOS) * 37 % 1009).tolist()
    rows = 1 + np.arange(PHOTOS) % 3
    lines = [{"image_id": name, "captions": [str(name)] * (1 + name % 2)} for name in ids]
    return store(
        tmp_path_factory.mktemp("data") / "photos",
        lines=lines,
        offsets=np.concatenate([[0], np.cumsum(rows)]),
        features=np.repeat(np.array(ids, np.float32), rows)[:, None] * np.ones(4, np.float32),
        boxes=np.tile(np.array([0, 0, 1, 1], np.float32), (rows.sum(), 1)),
        class_ids=None,
        class_probs=None,
    )


def load(folder, split):
    (corpus,) = sources.load(f"regions:{folder}", split)
    return corpus


def test_two_parts_are_the_split_and_have_nothing_in_common(folder):
    whole, most, rest = (load(folder, f"train{part}") for part in ("", "[:80%]", "[80%:]"))
    ids = [set(corpus.image_ids.tolist()) for corpus in (whole, most, rest)]
    assert ids[1] | ids[2] == ids[0]
    assert not ids[1] & ids[2]
    assert ids[2] == {name for name in ids[0] if zlib.crc32(b"%d" % name) % 100 >= 80}
    assert 0 < len(rest) < len(most) < PHOTOS
    assert load(folder, "train[80%:90%]").image_ids.tolist() == [
        name for name in rest.image_ids.tolist() if zlib.crc32(b"%d" % name) % 100 < 90
    ]


def test_a_photo_keeps_its_regions_and_captions(folder):
    rest = load(folder, "train[50%:]")
    for i, name in enumerate(rest.image_ids):
        own = slice(*rest.offsets[i : i + 2])
        assert set(rest.captions[i]) == {str(name)}
        assert (rest.rows[formats.published.FEATURES][own] == name).all()
    outline = sources.outlines(f"regions:{folder}", "train[50%:]")[0]
    assert tuple(outline.captions) == rest.captions
    np.testing.assert_array_equal(outline.regions, np.diff(rest.offsets) - 1)
    blocks = list(sources.blocks(f"regions:{folder}", "train[50%:]"))
    assert np.concatenate([b.image_ids for b in blocks]).tolist() == rest.image_ids.tolist()


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train[50%:50%]", r"train\[50%:50%\] holds no photo; write train\[90%:\]"),
        ("train[:120%]", r"train\[:120%\] goes beyond 100 %; write train\[90%:\]"),
        ("tran[:50%]", r"has no split 'tran'; it has train"),
        ("train[:half]", r"has no split 'train\[:half\]'; it has train"),
    ],
)
def test_parts_that_are_none(folder, split, message):
    with pytest.raises(UsageError, match=message):
        load(folder, split)
