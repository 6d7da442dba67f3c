"""Photos prepared as the published models' own processors do."""

import numpy as np
import pytest
import transformers
from PIL import Image, ImageOps

from mmt_jax.configs.config import Config
from mmt_jax.configs.models import BridgeTowerConfig, ClipConfig, MMTConfig
from mmt_jax.data import sources
from mmt_jax.errors import UsageError
from mmt_jax.nn.vision import PIXEL_MEAN, PIXEL_STD
from mmt_jax.photos import processors

pytestmark = pytest.mark.torch

SHAPES = [(37, 61), (61, 37), (40, 40), (7, 7), (91, 40), (40, 110), (300, 200)]


def picture(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


def theirs(processor, photo):
    return processor(photo, return_tensors="np", do_convert_rgb=True)["pixel_values"][0]


def normalised(pixels):
    """[H, W, 3] in 0..1 as models normalise it, channels first."""
    return ((pixels - np.float32(PIXEL_MEAN)) / np.float32(PIXEL_STD)).transpose(2, 0, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_clip_sees_what_hugging_face_shows_it(shape):
    reference = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    ours = processors.of(Config(model=ClipConfig(image_size=32)))(picture(shape))
    assert ours.shape == (32, 32, 3)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(normalised(ours), theirs(reference, picture(shape)), atol=1e-6)


@pytest.mark.parametrize("side", [96, 102])
@pytest.mark.parametrize("shape", SHAPES)
def test_bridgetower_sees_what_hugging_face_shows_it(shape, side):
    edge = {"shortest_edge": side}
    reference = transformers.BridgeTowerImageProcessorPil(size=edge, crop_size=edge)
    config = Config(model=BridgeTowerConfig(image_size=side, patch_size=6))
    ours = processors.of(config)(picture(shape))
    np.testing.assert_allclose(normalised(ours), theirs(reference, picture(shape)), atol=1e-6)


def odd_photos(folder):
    """Photos of every kind that people have."""
    folder.mkdir()
    colours = Image.fromarray(picture((75, 50)))
    turned = Image.Exif()
    turned[0x0112] = 6
    colours.save(folder / "portrait.jpg", quality=90)
    colours.rotate(90, expand=True).save(folder / "landscape.png")
    colours.save(folder / "turned.jpg", exif=turned)
    colours.resize((5, 4)).save(folder / "tiny.png")
    colours.convert("L").save(folder / "grey.jpg")
    clear = Image.fromarray(np.dstack([picture((50, 75)), picture((50, 75), 1)[..., 0]]))
    clear.save(folder / "transparent.png")
    colours.quantize(40).save(folder / "palette.png")
    colours.quantize(40).save(folder / "palette_and_clear.gif", transparency=3)
    colours.convert("CMYK").save(folder / "print.jpg")


@pytest.mark.parametrize("family", ["clip", "bridgetower"])
def test_a_source_of_photos_gives_a_model_what_hugging_face_would(tmp_path, family):
    odd_photos(folder := tmp_path / "photos")
    edge = {"shortest_edge": 64}
    if family == "clip":
        reference = transformers.CLIPImageProcessorPil(size=edge, crop_size=64)
        model = ClipConfig(image_size=64)
    else:
        reference = transformers.BridgeTowerImageProcessorPil(size=edge, crop_size=edge)
        model = BridgeTowerConfig(image_size=64)
    (found,) = sources.load(f"photos:{folder}", "train", bare=True)
    assert len(found) == 9
    shown = found.shown(processors.of(Config(model=model))).take(np.arange(9)).pixels
    for index, pixels in enumerate(shown):
        name = found.photo_name(index)
        upright = ImageOps.exif_transpose(Image.open(folder / name))
        expected = theirs(reference, upright)
        ours = normalised(pixels.astype(np.float32) / np.float32(255))
        np.testing.assert_allclose(ours, expected, atol=1e-6, err_msg=name)


def test_a_divisor_leaves_a_black_border_and_none_leaves_none():
    white = np.full((80, 80, 3), 255, np.uint8)
    config = Config(model=BridgeTowerConfig(image_size=294, patch_size=14))
    rounded = processors.of(config)(white)
    assert rounded.shape == (294, 294, 3)
    assert rounded[:3].max() == rounded[:, -3:].max() == 0  # 288 of 294 rows are photo
    assert rounded[3:-3, 3:-3].min() == 1
    assert processors.of(config, divisor=0)(white).min() == 1


def test_what_cannot_be_prepared_is_refused():
    with pytest.raises(UsageError, match="1 × 5000 pixels is too thin"):
        processors.Processor(32)(picture((1, 5000)))
    with pytest.raises(UsageError, match="family mmt"):
        processors.of(Config(model=MMTConfig(pixels=True)))
