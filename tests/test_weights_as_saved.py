"""Weights as people save them: from DataParallel, with a vocabulary padded for speed."""

import json

import numpy as np
import pytest
import test_bert_import
import test_bridgetower_parity
import test_clip
import test_lxmert
import test_roberta

from mmt_jax import hub
from mmt_jax import params as trees
from mmt_jax.errors import UsageError

pytest.importorskip("torch")
pytest.importorskip("transformers")
numpy_file = pytest.importorskip("safetensors.numpy")

pytestmark = pytest.mark.torch


def save(family, folder):
    """A random published model in `folder`."""
    if family == "bridgetower":
        test_bridgetower_parity.saved(test_bridgetower_parity.published("words"), folder)
    elif family == "lxmert":
        test_lxmert.saved(test_lxmert.published("LxmertForPreTraining"), folder)
    else:
        module = {"bert": test_bert_import, "roberta": test_roberta, "clip": test_clip}[family]
        module.published(folder)


def rewrite(folder, change):
    """Saves the folder's arrays again as `change` gives them."""
    path = folder / "model.safetensors"
    arrays = change(numpy_file.load_file(path))
    numpy_file.save_file({k: np.asarray(v, order="C") for k, v in arrays.items()}, path)


@pytest.mark.parametrize("family", ["bert", "roberta", "clip", "bridgetower", "lxmert"])
def test_what_dataparallel_puts_in_front_of_each_name_is_left_out(family, tmp_path):
    save(family, tmp_path)
    expected = trees.flatten(hub.load(tmp_path, family).params)
    rewrite(tmp_path, lambda arrays: {f"module.{key}": x for key, x in arrays.items()})
    found = trees.flatten(hub.load(tmp_path, family).params)
    assert found.keys() == expected.keys()
    for path in found:
        np.testing.assert_array_equal(found[path], expected[path])


WORDS = (
    "word_embeddings.weight",
    "predictions.bias",
    "lm_head.bias",
    "decoder.bias",
    "mlm_score.bias",
)
MATRICES = ("decoder.weight",)


def pad(folder, rows):
    """The vocabulary's matrices get so many rows more, and `config.json` says so."""
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config", config)
    size = text["vocab_size"]
    text["vocab_size"] = size + rows
    (folder / "config.json").write_text(json.dumps(config))

    def grown(arrays):
        return {
            key: np.concatenate([x, np.full((rows, *x.shape[1:]), 7, x.dtype)])
            if len(x) == size and key.endswith(WORDS + MATRICES)
            else x
            for key, x in arrays.items()
        }

    rewrite(folder, grown)


@pytest.mark.parametrize("family", ["bert", "roberta", "bridgetower", "lxmert"])
def test_rows_beyond_the_pieces_are_left_out(family, tmp_path):
    save(family, tmp_path)
    plain = hub.load(tmp_path, family)
    pad(tmp_path, 8 - plain.config.model.vocab_size % 8)
    found = hub.load(tmp_path, family)
    assert found.config.model.vocab_size == found.tokenizer.vocab_size
    expected, arrays = trees.flatten(plain.params), trees.flatten(found.params)
    assert arrays.keys() == expected.keys()
    for path in arrays:  # also back, for the importer writes what it has read
        np.testing.assert_array_equal(arrays[path], expected[path])


def test_a_vocabulary_of_other_weights_is_still_refused(tmp_path):
    save("bert", tmp_path)
    size = hub.load(tmp_path, "bert").config.model.vocab_size
    pad(tmp_path, 8 - size % 8 + 128)
    with pytest.raises(UsageError, match="put the vocabulary of these weights there"):
        hub.load(tmp_path, "bert")


@pytest.mark.parametrize("family", ["bert", "roberta", "lxmert"])
def test_dropout_of_attention_is_read_and_written(family, tmp_path):
    save(family, tmp_path / "in")
    path = tmp_path / "in" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"attention_probs_dropout_prob": 0.25}))
    found = hub.load(tmp_path / "in", family)
    assert found.config.model.attention_rate == 0.25 != found.config.model.dropout
    hub.save(found.config, found.params, found.tokenizer, tmp_path / "out")
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert said["attention_probs_dropout_prob"] == 0.25
