"""Photos of every kind come out upright, in 8-bit RGB; what is no photo is refused by name."""

import http.server
import pathlib
import struct
import threading
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmt_jax.errors import UsageError
from mmt_jax.photos import pictures

REAL = pathlib.Path(__file__).parents[2] / "shared" / "data" / "coco_val2017" / "images"

# Four blocks, so that each turn is seen.
RED, GREEN, BLUE, GREY = (220, 30, 30), (30, 220, 30), (30, 30, 220), (120, 120, 120)
BLOCKS = np.array([[RED, GREEN], [BLUE, GREY]], np.uint8).repeat(16, 0).repeat(24, 1)


def save(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_stands_as_its_camera_was_held(tmp_path, orientation):
    stored = {  # EXIF 2.3, 4.6.4: how the stored rows and columns lie in the scene
        1: BLOCKS,
        2: BLOCKS[:, ::-1],
        3: BLOCKS[::-1, ::-1],
        4: BLOCKS[::-1],
        5: BLOCKS.transpose(1, 0, 2),
        6: np.rot90(BLOCKS, 1),
        7: BLOCKS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(BLOCKS, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "x.png", Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(pictures.read(path), BLOCKS)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "LAB"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    white = Image.new("RGB", (5, 4), "white").convert("LA" if mode == "PA" else "RGB")
    image = Image.new("LAB", (5, 4), (255, 128, 128)) if mode == "LAB" else white.convert(mode)
    photo = pictures.read(save(tmp_path / "x.tif", image))
    assert photo.shape == (4, 5, 3)
    assert photo.dtype == np.uint8
    assert photo.min() >= 250


def test_what_is_transparent_is_white_whatever_colour_hides_there(tmp_path):
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, :3] = RED
    pixels[0, :, 3] = [0, 255, 51]  # a fifth opaque
    photo = pictures.read(save(tmp_path / "x.png", Image.fromarray(pixels)))
    assert photo[0, 0].tolist() == [255, 255, 255]
    assert photo[0, 1].tolist() == list(RED)
    np.testing.assert_allclose(photo[0, 2], 0.8 * 255 + 0.2 * np.array(RED), atol=1)
    palette = Image.fromarray(BLOCKS).quantize(4)
    clear = palette.getpixel((0, 0))
    photo = pictures.read(save(tmp_path / "x.gif", palette, transparency=clear))
    assert photo[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(photo[-1, -1], GREY)


def test_sixteen_bits_become_eight(tmp_path):
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    for suffix in ("png", "tif"):
        photo = pictures.read(save(tmp_path / f"x.{suffix}", Image.fromarray(values)))
        assert photo[0, :, 0].tolist() == [0, 1, 128, 255]
        assert (photo == photo[..., :1]).all()


def test_the_first_frame_of_an_animation_and_a_single_pixel(tmp_path):
    frames = [Image.new("RGB", (3, 2), color) for color in (RED, GREEN)]
    for suffix in ("gif", "png", "webp"):
        options = {"lossless": True} if suffix == "webp" else {}
        path = tmp_path / f"x.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert pictures.read(path).reshape(-1, 3).tolist() == [list(RED)] * 6
    one = save(tmp_path / "one.bmp", Image.new("RGB", (1, 1), BLUE))
    assert pictures.read(one).tolist() == [[list(BLUE)]]


def test_the_name_does_not_tell_the_format(tmp_path):
    path = save(tmp_path / "x.jpg", Image.fromarray(BLOCKS), format="PNG")
    np.testing.assert_array_equal(pictures.read(path), BLOCKS)


def bomb(side):
    """A PNG of a few hundred bytes whose header promises side² pixels."""

    def chunk(name, data):
        crc = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.png is empty; fetch or save it again"),
        (b"GIF is what I am not", "no picture of a known kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture of a known kind"),
        (bomb(12_000), "12000 × 12000 pixels, more than 100,000,000"),
        (bomb(40_000), "too many pixels"),
        (bomb(30), "truncated or damaged"),
    ],
    ids=["empty", "text", "program", "large", "bomb", "cut"],
)
def test_no_picture_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        pictures.read(path)
    assert str(path) in str(caught.value)


def test_missing_files_folders_and_floats_are_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        pictures.read(tmp_path / "x.png")
    with pytest.raises(UsageError, match="is a folder"):
        pictures.read(tmp_path)
    floats = save(tmp_path / "x.tif", Image.fromarray(np.ones((2, 2), np.float32)))
    with pytest.raises(UsageError, match="floating-point"):
        pictures.read(floats)
    wide = save(tmp_path / "y.tif", Image.fromarray(np.full((2, 2), 1 << 20, np.int32)))
    with pytest.raises(UsageError, match="32 bits"):
        pictures.read(wide)


def test_photos_in_memory_are_checked_as_files_are(tmp_path, monkeypatch):
    path = save(tmp_path / "x.png", Image.fromarray(BLOCKS))
    cut = tmp_path / "cut.png"
    cut.write_bytes(path.read_bytes()[:-60])
    for photo, message in (
        (Image.open(cut), "photo 3 cannot be decoded .* truncated or damaged"),
        (Image.new("RGB", (0, 4)), "photo 3 has 0 × 4 pixels"),
        (b"", "photo 3 is empty"),
        (None, "photo 3 is NoneType of shape"),
    ):
        with pytest.raises(UsageError, match=message):
            pictures.given(photo, "photo 3")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100)
    for photo in (BLOCKS, BLOCKS / 255, Image.open(path), path.read_bytes()):
        with pytest.raises(UsageError, match="photo 3 has 48 × 32 pixels, more than 100"):
            pictures.given(photo, "photo 3")


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    suffix=st.sampled_from(["jpg", "png", "gif", "webp", "tif", "bmp", "jp2"]),
    cut=st.integers(0, 400),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
)
def test_damage_is_told_and_never_crashes(tmp_path, suffix, cut, changes):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(BLOCKS[::4, ::4]).save(path)
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(bytes(data[: max(1, len(data) - cut)]))
    try:
        photo = pictures.read(path)
        fine = photo.dtype == np.uint8 and photo.ndim == photo.shape[2] == 3
    except UsageError as error:
        fine = str(path) in str(error)
    assert fine


def test_half_a_jpeg_is_none(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    path = save(tmp_path / "x.jpg", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UsageError, match="truncated or damaged"):
        pictures.read(path)


def test_photos_are_found_by_name_and_hidden_ones_are_left(tmp_path):
    for name in ("b.JPG", "a/c.png", "a/.d.png", ".e/f.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "d.jpg").mkdir()
    (tmp_path / "e.jpg").symlink_to("nowhere")
    found = [tmp_path / name for name in ("a/c.png", "b.JPG", "e.jpg")]
    assert pictures.find(tmp_path) == found
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no photo"):
        pictures.find(tmp_path / "empty")
    with pytest.raises(UsageError, match="no folder"):
        pictures.find(tmp_path / "z")


def test_a_crop_is_the_part_it_names():
    quarter = pictures.crop(BLOCKS, np.array([0.5, 0, 1, 0.5]), (4, 6))
    assert quarter.reshape(-1, 3).tolist() == [list(BLUE)] * 24
    assert pictures.crop(BLOCKS[:1, :1], np.array([0, 0, 0.3, 0.3]), (4, 6)).shape == (4, 6, 3)


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "9")
        else:
            self.send_response(302)
            self.send_header(
                "Location", {"/on": "/short", "/away": "ftp://127.0.0.1:1/x"}[self.path]
            )
        self.end_headers()
        self.wfile.write(b"half")

    def log_message(self, *_):
        """Nothing on stderr."""


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("short", "short cannot be fetched .*4 bytes read, 5 more expected"),
        ("on", "on cannot be fetched .*4 bytes read, 5 more expected"),
        ("away", r"away cannot be fetched \(it leads to ftp://127.0.0.1:1/x\)"),
    ],
)
def test_half_an_answer_and_ways_off_the_web_are_refused(path, message):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UsageError, match=message):
            pictures.fetch(f"http://127.0.0.1:{server.server_port}/{path}")
        server.shutdown()


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared photos are not here")
def test_real_photos():
    paths = pictures.find(REAL)
    assert len(paths) == 65
    for path in paths[:3]:
        height, width, _ = pictures.read(path).shape
        assert max(height, width) == 640
