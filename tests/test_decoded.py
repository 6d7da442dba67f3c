"""Photos kept decoded: written in sequence, by one process at a time, of one format."""

import resource
import threading

import numpy as np
import pytest
from PIL import Image

from mmt_jax.data import decoded
from mmt_jax.errors import NoRoomError

SIDE, COUNT = 64, 8
SIZE = 3 * SIDE**2


def photo(index):
    return np.full((SIDE, SIDE, 3), index, np.uint8)


def kept(cache, decode=photo):
    names = ["photos", *map(str, range(COUNT))]
    return decoded.kept(cache, names, [], how="as it is", side=SIDE, decode=decode)


def test_what_is_kept_grows_photo_by_photo(tmp_path):
    def decode(index):
        (part,) = tmp_path.rglob(".pixels.npy.*")
        assert part.stat().st_size <= 128 + index * SIZE
        return photo(index)

    pixels = np.load(kept(tmp_path, decode))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, [photo(index) for index in range(COUNT)])


def test_a_full_disk_is_told_and_nothing_is_kept(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 * SIZE, hard))
    try:
        with pytest.raises(NoRoomError, match=r"cannot be written \(File too large\)"):
            kept(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [*tmp_path.rglob("*pixels*")]


@pytest.mark.parametrize("cache", ["/proc/nobody/cache", "a_file/cache", "a_file"])
def test_a_folder_that_cannot_be_made_is_told(tmp_path, cache):
    (tmp_path / "a_file").touch()
    with pytest.raises(NoRoomError, match=f"{cache}/.* cannot be written"):
        kept(tmp_path / cache)


def test_one_decodes_and_the_other_waits_for_it(tmp_path, monkeypatch):
    found, decoded_by, waits = [], [], threading.Event()
    other = threading.Thread(target=lambda: found.append(kept(tmp_path, decode)))
    monkeypatch.setattr(decoded.progress, "say", lambda text: waits.set())

    def decode(index):
        decoded_by.append(threading.current_thread())
        if other.ident is None:
            other.start()
            assert waits.wait(30)
        return photo(index)

    own = kept(tmp_path, decode)
    other.join(30)
    assert found == [own]
    assert decoded_by == [threading.current_thread()] * COUNT


def test_parts_of_a_killed_run_go(tmp_path):
    left = kept(tmp_path).with_name(".pixels.npy.0123")
    (left.parent / "pixels.npy").rename(left)
    assert kept(tmp_path).exists()
    assert not left.exists()


def test_another_format_or_pillow_is_another_cache(tmp_path, monkeypatch):
    caches = {kept(tmp_path)}
    monkeypatch.setattr(Image, "__version__", "0")
    caches.add(kept(tmp_path))
    monkeypatch.setattr(decoded, "_FORMAT", -1)
    caches.add(kept(tmp_path))
    assert len(caches) == 3
