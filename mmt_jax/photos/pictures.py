"""Photos from files: whatever Pillow decodes, upright, as red, green and blue.

Files come from strangers: only formats that are decoded without another program are opened, a
header that promises too many pixels is refused before they are unpacked, and half a photo is none.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import math
import os
import pathlib
import time
import typing
import urllib.request
import warnings
from collections.abc import Iterator

import numpy as np

from mmt_jax.errors import UsageError, optional, reason
from mmt_jax.photo import PICTURES

if typing.TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
MAX_PIXELS = 100_000_000  # the largest cameras have that many; uint8 they take 300 MB
MAX_BYTES = 200_000_000  # of what is fetched
_SCHEMES = ("http://", "https://")
_SECONDS = 60.0
_ORIENTATION = 0x0112  # of EXIF
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}  # marks that end a whole file
_TAIL = 512  # bytes in which they are looked for


def library() -> typing.Any:
    """Pillow's `Image`, with all its decoders, if it is installed."""
    with optional("reading photos needs Pillow", "photos"):
        from PIL import Image
    Image.init()
    return Image


def read(path: str | os.PathLike) -> np.ndarray:
    """Decodes the photo of a file, whose content, not its name, tells the format.

    Returns:
      [H, W, 3] uint8, as `decode`.

    Raises:
      UsageError: there is no such file, or as `decode`.
    """
    try:
        with open(path, "rb") as file:
            return decode(file, os.fspath(path))
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder; name a photo in it") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}") from None


def given(photo: typing.Any, name: str = "the photo") -> tuple[np.ndarray, str]:
    """A photo in any of its forms, and what errors call it.

    Args:
      photo: the path of a file, its address (http:// or https://), the bytes of one, a Pillow
        image, or pixels [H, W, 3]: uint8, or floats in 0..1.
      name: what errors call it where it has no path.

    Returns:
      [H, W, 3] uint8, as `decode`.

    Raises:
      UsageError: it is none of these, or as `read` and `fetch`.
    """
    if isinstance(photo, str | os.PathLike):
        name = os.fspath(photo)
        if name.lower().startswith(_SCHEMES):
            return decode(io.BytesIO(fetch(name)), name), name
        return read(photo), name
    if isinstance(photo, bytes):
        return decode(io.BytesIO(photo), name), name
    if hasattr(photo, "convert"):
        with _told(name):
            _check_size(photo.size, name)
            return np.array(_eight_bits(_upright(photo), name)), name
    pixels = np.asarray(photo)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise UsageError(
            f"{name} is {type(photo).__name__} of shape {pixels.shape}; give a path, the bytes of "
            f"a file, a Pillow image or pixels [H, W, 3]"
        )
    _check_size((pixels.shape[1], pixels.shape[0]), name)
    if pixels.dtype == np.uint8:
        return pixels, name
    if pixels.dtype.kind != "f" or not ((pixels >= 0) & (pixels <= 1)).all():
        raise UsageError(f"{name} is {pixels.dtype}; give pixels as uint8, or as floats in 0..1")
    return np.rint(pixels * 255).astype(np.uint8), name


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not newurl.lower().startswith(_SCHEMES):
            raise ValueError(f"it leads to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str) -> bytes:
    """What is at an address, or where that leads by http:// or https://.

    The server may be silent for 20 seconds at a time, and the content must be there within a minute
    of the first request. Headers and redirects are not hurried otherwise.

    Raises:
      UsageError: it cannot be had whole in that time, or is larger than MAX_BYTES.
    """
    end, data = time.monotonic() + _SECONDS, bytearray()
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "mmt_jax"})
        opener = urllib.request.build_opener(_Redirects)
        with opener.open(request, timeout=_SECONDS / 3) as answer:
            while part := answer.read1(1 << 20):
                data += part
                if len(data) > MAX_BYTES:
                    raise UsageError(f"{url} has more than {MAX_BYTES:,} bytes; it is no photo")
                if time.monotonic() > end:
                    raise TimeoutError("it is too slow")
            if answer.length:  # bytes that were promised and did not come
                raise http.client.IncompleteRead(bytes(data), answer.length)
    except (OSError, ValueError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)  # of URLError, what it wraps
        told = reason(cause) if isinstance(cause, Exception) else f"{error}"
        raise UsageError(
            f"{url} cannot be fetched ({told}); check the address and the network, or give a file"
        ) from None
    return bytes(data)


def decode(file: io.BufferedIOBase, where: str) -> np.ndarray:
    """Decodes one photo from the bytes of `file`, which errors call `where`.

    The camera's orientation (EXIF) is applied; of an animation the first frame is taken; what is
    transparent becomes white; 16 bits a channel become 8; CMYK and others are converted to RGB
    without a colour profile.

    Returns:
      [H, W, 3] uint8, both sides at least 1.

    Raises:
      UsageError: it is empty or no picture of FORMATS, it is truncated or damaged, it has more
        than MAX_PIXELS, or its values have no agreed range (32 bits a channel).
    """
    with _opened(file, where) as image:
        return np.array(_eight_bits(_upright(image), where))


def check(file: io.BufferedIOBase, where: str) -> None:
    """Refuses, as `decode` does, what its head or its end shows to be no whole photo.

    Thousands of photos a second; only one whose end is not as its format wants is decoded.
    """
    with _opened(file, where) as image:
        mark = _ENDS.get(image.format or "")
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
    if mark and mark not in file.read():
        file.seek(0)
        decode(file, where)


@contextlib.contextmanager
def _opened(file: io.BufferedIOBase, where: str) -> Iterator[Image.Image]:
    """A photo whose head is read."""
    pillow = library()
    known = [name for name in FORMATS if name in pillow.OPEN]
    with _told(where):
        if not file.read(1):
            raise UsageError(f"{where} is empty; fetch or save it again")
        file.seek(0)
        with pillow.open(file, formats=known) as image:
            _check_size(image.size, where)
            yield image


@contextlib.contextmanager
def _told(where: str) -> Iterator[None]:
    """Whatever goes wrong with a photo is told in one sentence."""
    pillow = library()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata; sizes are checked by us
            yield
    except pillow.DecompressionBombError:
        raise _too_large(where, "too many pixels") from None
    except UsageError:
        raise
    except pillow.UnidentifiedImageError:
        raise UsageError(f"{where} is no picture of a known kind ({', '.join(FORMATS)})") from None
    except Exception as error:  # decoders raise what their parsers stumble over, of any type
        raise UsageError(
            f"{where} cannot be decoded ({reason(error)}); it is truncated or "
            f"damaged: fetch or save it again"
        ) from None


def stored(path: str | os.PathLike, frame: tuple[int, int] | None) -> tuple[bool, int]:
    """Whether every reader decodes a file to what `read` makes of it, and how its boxes are turned.

    These were drawn in a `frame` of some width and height, None = there are none. Their orientation
    (EXIF's, 1 to 8) is the file's, unless the frame is that of the upright photo. Where both are
    alike, as of a square, it is the file's: tools that draw boxes seldom heed EXIF.
    """
    with library().open(path) as image:
        orientation = _orientation(image)
        plain = image.mode in ("RGB", "L") and not image.has_transparency_data
        known = image.format in ("JPEG", "PNG")  # which TensorFlow decodes too
        wide, held = (side[0] - side[1] for side in (frame or (1, 1), image.size))
        turned = orientation >= 5 and wide * held < 0
        return plain and known and orientation == 1, 1 if turned or not frame else orientation


def png(picture: np.ndarray) -> bytes:
    """[H, W, 3] uint8 as a PNG's bytes."""
    buffer = io.BytesIO()
    library().fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def find(folder: str | os.PathLike) -> list[pathlib.Path]:
    """Files below a folder whose names end as photos' do, sorted by path; hidden ones are left out.

    Links to files are followed, and are there even where they lead nowhere; links to folders not.

    Raises:
      UsageError: there is no such folder, or no photo in it.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not path.is_dir()
    )
    if not found:
        raise UsageError(f"{folder} holds no photo; names must end in {', '.join(PICTURES)}")
    return found


def crop(picture: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A part of [H, W, 3] uint8 → [height, width, 3] uint8, bilinear with antialiasing.

    The box [4] is ymin, xmin, ymax, xmax in 0..1; its borders may fall between pixels.
    """
    pillow = library()
    height, width = picture.shape[:2]
    ymin, xmin, ymax, xmax = np.asarray(box, np.float64) * [height, width, height, width]
    top, left = int(ymin), int(xmin)  # Pillow's filter would look beyond the box
    part = picture[top : math.ceil(ymax), left : math.ceil(xmax)]
    resized = pillow.fromarray(np.ascontiguousarray(part)).resize(
        size[::-1],
        pillow.Resampling.BILINEAR,
        box=(xmin - left, ymin - top, xmax - left, ymax - top),
    )
    return np.asarray(resized)


def resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W, 3] uint8 → [height, width, 3] uint8, bicubic with antialiasing."""
    pillow = library()
    return np.asarray(pillow.fromarray(picture).resize(size[::-1], pillow.Resampling.BICUBIC))


def at_most(picture: np.ndarray, side: int) -> np.ndarray:
    """[H, W, 3] uint8 → the same, or smaller, so that no side is longer than `side`."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return picture
    return resize(picture, (max(1, round(height * scale)), max(1, round(width * scale))))


def _check_size(size: tuple[int, int], where: str) -> None:
    width, height = size
    if not width * height:
        raise UsageError(f"{where} has {width} × {height} pixels, and so none; give another")
    if width * height > MAX_PIXELS:
        raise _too_large(where, f"{width} × {height} pixels")


def _too_large(where: str, pixels: str) -> UsageError:
    return UsageError(
        f"{where} has {pixels}, more than {MAX_PIXELS:,}; make it smaller, if it is a photo at all"
    )


def _upright(image: Image.Image) -> Image.Image:
    """The first frame, decoded, turned as its camera was held."""
    from PIL import ImageOps

    image.load()
    return image if _orientation(image) == 1 else ImageOps.exif_transpose(image)


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata must not cost the photo
        return 1
    return found if found in range(1, 9) else 1


def _eight_bits(image: Image.Image, where: str) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I"):  # one channel of 16 bits, or of 32
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UsageError(f"{where} has 32 bits a channel; save it with 8")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UsageError(f"{where} has floating-point pixels, of no agreed range; save 8 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
