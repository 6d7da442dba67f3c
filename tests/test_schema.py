"""What a record file may hold, and padding on the wire against masks inside."""

import numpy as np
import pytest

from mmt_jax.data import schema
from mmt_jax.errors import UsageError
from mmt_jax.typing import Image, Text


def record():
    """One padding slot, two regions, the global region."""
    boxes = [[0, 0, 0, 0, 0], [0, 0, 0.5, 0.5, 0.25], [0.2, 0.4, 1, 0.9, 0.4], [0, 0, 1, 1, 1]]
    return {
        schema.BOXES: np.array(boxes, np.float32),
        schema.FEATURES: np.arange(24, dtype=np.float32).reshape(4, 6),
        schema.IMAGE_PADDING: np.array([1, 0, 0, 0], np.int32),
    }


def test_key_names_are_those_of_the_release():
    assert set(schema.KEYS) == {
        "image/bboxes",
        "image/detection_features",
        "image/padding_mask",
        "masked_tokens",
        "text/segment_ids",
        "text/token_ids",
        "text/padding_mask",
    }
    assert schema.PIXELS == "image/pixels"


def test_sound_record():
    schema.validate_record(record(), feature_dim=6, max_regions=2)


def test_only_the_global_region_is_enough():
    last = {key: value[-1:] for key, value in record().items()}
    schema.validate_record(last)


def _set(key, index, value):
    def change(fields):
        fields[key][index] = value

    return change


def _put(key, convert):
    def change(fields):
        fields[key] = convert(fields[key])

    return change


FAULTS = {
    "missing": (lambda f: f.pop(schema.BOXES), "'image/bboxes' is missing.*detection_features"),
    "batched": (_put(schema.FEATURES, lambda v: v[None]), "rank 3.*without a batch axis"),
    "double": (_put(schema.FEATURES, np.float64), "float64; convert it with .astype.numpy.float32"),
    "lengths": (_put(schema.BOXES, lambda v: v[1:]), "4 regions, image/bboxes 3"),
    "nan": (_set(schema.FEATURES, (2, 3), np.nan), r"NaN or infinity, first at \[2, 3\]"),
    "pixels": (_set(schema.BOXES, (1, 2), 240), "bboxes row 1 .*outside 0..1"),
    "xyxy": (_put(schema.BOXES, lambda v: v[:, [2, 1, 0, 3, 4]]), "row 1 .*inverted"),
    "area": (_set(schema.BOXES, (1, 4), 0.5), "row 1 gives the area 0.5.*enclose 0.25"),
    "mask values": (_set(schema.IMAGE_PADDING, 1, 2), "1 for padding and 0 for real"),
    "all padding": (_set(schema.IMAGE_PADDING, slice(None), 1), "1 for padding and 0 for real"),
    "global padded": (_set(schema.IMAGE_PADDING, 3, 1), "last slot is the global region"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(fault):
    change, message = FAULTS[fault]
    fields = record()
    change(fields)
    with pytest.raises(UsageError, match=f"photo.npz: .*{message}"):
        schema.validate_record(fields, name="photo.npz")


def test_no_slots():
    none = {key: value[:0] for key, value in record().items()}
    with pytest.raises(UsageError, match="of which there must be one"):
        schema.validate_record(none)


def test_width_of_another_detector():
    with pytest.raises(UsageError, match="6 wide, but the model reads features of 2048"):
        schema.validate_record(record(), feature_dim=2048)


def test_more_regions_than_fit():
    with pytest.raises(UsageError, match="2 regions beside the global one, but at most 1"):
        schema.validate_record(record(), max_regions=1)


def test_pixels():
    good = np.full((4, 6, 3), 0.5, np.float32)
    schema.validate_pixels({schema.PIXELS: good}, patch_size=2)
    for pixels, message in (
        (good * 255, "outside 0..1"),
        (good * np.nan, "NaN"),
        (good.astype(np.uint8), "uint8; convert"),
        (good[..., 0], "rank 2"),
        (good[None], "without a batch axis"),
        (good[..., :2], r"must be \[H, W, 3\]"),
    ):
        with pytest.raises(UsageError, match=message):
            schema.validate_pixels({schema.PIXELS: pixels})
    with pytest.raises(UsageError, match=r"4 × 6; resize.*multiples of 4"):
        schema.validate_pixels({schema.PIXELS: good}, patch_size=4)


def test_reading_a_record(tmp_path):
    path = tmp_path / "photo.npz"
    np.savez(path, **record())
    read = schema.read_record(path)
    assert set(read) == set(schema.IMAGE_KEYS)
    for key, value in record().items():
        np.testing.assert_array_equal(read[key], value)


def _truncated(path):
    np.savez(path, **record())
    path.write_bytes(path.read_bytes()[:-100])


def _flipped(path):
    """The directory is whole, an array is not."""
    np.savez(path, **record())
    data = bytearray(path.read_bytes())
    at = data.index(np.float32(5).tobytes() + np.float32(6).tobytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def _single_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def _pickled(path):
    np.savez(path, **{schema.BOXES: np.array([{}], object)})


UNREADABLE = {
    "absent": (lambda path: None, "there is no file"),
    "truncated": (_truncated, "cannot be read"),
    "damaged": (_flipped, "cannot be read"),
    "objects": (_pickled, "cannot be read"),
    "npy": (_single_array, "single array"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_unreadable_records(tmp_path, case):
    spoil, message = UNREADABLE[case]
    path = tmp_path / "photo.npz"
    spoil(path)
    with pytest.raises(UsageError, match=message) as error:
        schema.read_record(path)
    assert "photo.npz" in str(error.value)


def test_image_conversion_turns_padding_over():
    fields = {key: value[None] for key, value in record().items()}
    image = schema.to_image(fields)
    np.testing.assert_array_equal(image.mask, [[False, True, True, True]])
    assert isinstance(image, Image)
    back = schema.from_image(image)
    assert set(back) == set(schema.IMAGE_KEYS)
    for key, value in fields.items():
        np.testing.assert_array_equal(back[key], value)
        assert back[key].dtype == value.dtype


def test_text_conversion_reads_the_masked_tokens():
    ids = np.array([[6, 4, 17, 3]], np.int32)
    text = Text(ids, np.array([[0, 0, 0, 2]], np.int32), ids, np.array([[False, True, True, True]]))
    wire = schema.from_text(text)
    assert set(wire) == set(schema.TEXT_KEYS)
    np.testing.assert_array_equal(wire["text/padding_mask"], [[1, 0, 0, 0]])
    assert wire["text/padding_mask"].dtype == np.int32
    wire["masked_tokens"] = np.array([[6, 4, 6, 3]], np.int32)
    back = schema.to_text(wire)
    np.testing.assert_array_equal(back.token_ids, [[6, 4, 6, 3]])
    np.testing.assert_array_equal(back.segment_ids, text.segment_ids)
    np.testing.assert_array_equal(back.mask, text.mask)
    np.testing.assert_array_equal(back.word_ids, [[-2, -1, -1, -1]])


def test_where_no_global_region_is_read_every_slot_is_like_the_other():
    padded = record()
    padded[schema.IMAGE_PADDING][-1] = 1
    schema.validate_record(padded, max_regions=2, global_region=False)
    with pytest.raises(UsageError, match="3 regions, but at most 2 fit"):
        schema.validate_record(record(), max_regions=2, global_region=False)
