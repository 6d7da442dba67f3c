"""Photos prepared as the published models' own processors do."""

import numpy as np
import pytest
from transformers.models.bridgetower.image_processing_pil_bridgetower import (
    BridgeTowerImageProcessorPil,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from mmt_jax.configs.config import Config
from mmt_jax.configs.models import BridgeTowerConfig, ClipConfig, MMTConfig
from mmt_jax.errors import UsageError
from mmt_jax.nn.vision import PIXEL_MEAN, PIXEL_STD
from mmt_jax.photos import processors

pytestmark = pytest.mark.torch

SHAPES = [(37, 61), (61, 37), (40, 40), (7, 7), (91, 40), (40, 110), (300, 200)]
STEP = 1 / 255  # one of 8 bits, which libraries may round differently


def picture(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


def theirs(processor, photo):
    """Theirs with the colours' normalisation, which is in our models, undone."""
    values = processor(photo, return_tensors="np", do_convert_rgb=True)["pixel_values"][0]
    return values.transpose(1, 2, 0) * np.array(PIXEL_STD) + np.array(PIXEL_MEAN)


@pytest.mark.parametrize("shape", SHAPES)
def test_clip_sees_what_hugging_face_shows_it(shape):
    reference = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    ours = processors.of(Config(model=ClipConfig(image_size=32)))(picture(shape))
    assert ours.shape == (32, 32, 3)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs(reference, picture(shape)), atol=1.01 * STEP)


@pytest.mark.parametrize("side", [96, 102])
@pytest.mark.parametrize("shape", SHAPES)
def test_bridgetower_sees_what_hugging_face_shows_it(shape, side):
    edge = {"shortest_edge": side}
    reference = BridgeTowerImageProcessorPil(size=edge, crop_size=edge)
    config = Config(model=BridgeTowerConfig(image_size=side, patch_size=6))
    ours = processors.of(config)(picture(shape))
    np.testing.assert_allclose(ours, theirs(reference, picture(shape)), atol=1.01 * STEP)


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
