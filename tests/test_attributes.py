"""Attributes of regions: from a folder or packed records into LXMERT's loss."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import test_pipeline
import tiny

from mmt_jax.cli import main
from mmt_jax.configs.config import Config, DataConfig, ObjectiveConfig, with_spec
from mmt_jax.configs.models import LxmertConfig
from mmt_jax.data import formats, pipeline, sources
from mmt_jax.errors import UsageError
from mmt_jax.models import registry
from mmt_jax.objectives import losses
from mmt_jax.photo import FEATURES, IDS, PROBS
from mmt_jax.text import vocabulary

SIZES = {
    "width": 12,
    "mlp_dim": 10,
    "heads": 2,
    "segments": 3,
    "max_positions": 40,
} | dict.fromkeys(("language_layers", "region_layers", "cross_layers"), 1)


def corpus(photos=4, *, attributes=7, **changes):
    """Each region's attribute is its class modulo the number of attributes."""
    data = test_pipeline.corpus(photos, **changes)
    features = data.rows[FEATURES]
    data = test_pipeline.with_rows(
        data,
        detection_features=np.round(features),  # float16 holds these
        attribute_ids=data.rows[IDS["class"]][:, :1] % attributes,
        attribute_probs=np.linspace(0.1, 0.9, len(features), dtype=np.float32)[:, None],
    )
    return dataclasses.replace(data, num_attributes=attributes)


def config(source, num_attributes=None):
    return Config(
        model=LxmertConfig(num_attributes=num_attributes, **SIZES),
        objective=ObjectiveConfig(reading="lxmert", mrm_rate=0.5, mlm=0.0, mismatch=0.0),
        data=DataConfig(source=source),
    )


@pytest.fixture(scope="module")
def tokenizer():
    return vocabulary.train([test_pipeline.SENTENCE] * 20, 60)


@pytest.mark.slow
def test_lxmert_learns_attributes_that_lie_in_a_folder_or_in_packed_records(tmp_path, tokenizer):
    data = corpus()
    formats.write(data, tmp_path / "plain", "train")
    line = f"data pack --data=regions:{tmp_path}/plain --split=train --out={tmp_path}/packed"
    assert main.main(line.split()) == 0
    images = []
    for source in (f"regions:{tmp_path}/plain", f"records:{tmp_path}/packed"):
        asked = config(source)
        built = with_spec(asked, sources.spec(asked, tokenizer))
        assert built.model.num_attributes == 7
        examples = pipeline.Examples.of(built, sources.load(source, "train"), tokenizer)
        images.append(examples.images(np.arange(4)))
    jax.tree.map(np.testing.assert_array_equal, *images)
    batch = examples.batch(np.arange(4), np.arange(4))
    known, whole = data.rows[PROBS["attribute"]], data.offsets[1:] - 1
    probs = known[np.setdiff1d(np.arange(len(known)), whole)]
    regions = images[0].attribute_probs[..., 0]
    alone = known[whole[np.diff(data.offsets) == 1]]  # of photos without a region
    np.testing.assert_allclose(regions.sum(), probs.sum() + alone.sum(), rtol=1e-3)

    model = registry.build(built)
    params = tiny.params(model, std=0.0)
    run = jax.jit(functools.partial(losses.compute, model, dropout=False))
    _, terms = run(params, batch, key=jax.random.key(0))
    # Without weights every attribute is as likely: log 7 for each, times how sure its label is.
    expected = np.log(7) * regions.sum() / 0.5
    np.testing.assert_allclose(terms["attributes"].sum, expected, rtol=1e-5)


def test_attributes_that_nobody_asks_for_stay_on_disk(tokenizer):
    examples = pipeline.Examples([corpus()], tokenizer)
    assert examples.images(np.arange(2)).attribute_ids is None
    mixed = [corpus(3), test_pipeline.corpus(2, first_id=9)]
    image = pipeline.Examples(mixed, tokenizer, attributes=True).images(np.array([4, 0]))
    assert not image.attribute_probs[0].any()
    assert image.attribute_probs[1].any()
    other = corpus(2, attributes=6, name="two", first_id=9)
    with pytest.raises(UsageError, match="numbers of attributes: one 7, two 6"):
        pipeline.Examples([corpus(3), other], tokenizer)


def test_attributes_that_a_model_asks_for_must_be_there(tmp_path):
    formats.write(test_pipeline.corpus(4), tmp_path, "train")
    asked = config(f"regions:{tmp_path}", 7)
    with pytest.raises(UsageError, match=r"num_attributes is 7, but the data .* has 0"):
        with_spec(asked, sources.spec(asked))
    none = config(f"regions:{tmp_path}", 0)
    assert with_spec(none, sources.spec(none)).model.num_attributes == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"attribute_probs": None}, "attribute_ids and attribute_probs need each other"),
        ({"num_attributes": np.array(3)}, "attribute_ids run from 0 to 6, but there are 3 attr"),
    ],
)
def test_damaged_attributes_are_told(tmp_path, changes, told):
    data = corpus(8)
    formats.write(data, tmp_path, "train")
    path = tmp_path / "train.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files} | changes
    np.savez(path, **{name: values for name, values in arrays.items() if values is not None})
    with pytest.raises(UsageError, match=told):
        formats.read(tmp_path, "train")
