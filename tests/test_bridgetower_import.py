"""BridgeTower's published weights: a workdir that serves like a trained one, and back."""

import json

import numpy as np
import pytest
import test_bridgetower as own
import test_bridgetower_parity as hf

from mmt_jax import hub as importers
from mmt_jax import params as trees
from mmt_jax.cli import main as cli
from mmt_jax.data import schema
from mmt_jax.errors import UsageError
from mmt_jax.hub import folders as hub
from mmt_jax.infer import api
from mmt_jax.models.bridgetower import weights as names
from mmt_jax.nn.vision import PIXEL_MEAN, PIXEL_STD

pytestmark = pytest.mark.torch

CAPTIONS = ("a dog", "two")  # 5 and 3 letters, between <s> and </s>


@pytest.fixture(scope="module")
def theirs():
    return hf.published("match")


@pytest.fixture
def folder(theirs, tmp_path):
    return hf.saved(theirs, tmp_path / "published")


@pytest.fixture
def workdir(folder, tmp_path):
    out = tmp_path / "run"
    argv = ["import", f"--from={folder}", "--model=bridgetower", f"--out={out}"]
    assert cli.main(argv) == 0
    return out


def probabilities(theirs, pixels, folder):
    """What the PyTorch model and its tokenizer say of one photo and CAPTIONS."""
    torch, transformers = hf._libraries()
    vocabulary = json.loads((folder / "vocab.json").read_text())
    tokenizer = transformers.RobertaTokenizer(vocab=vocabulary, merges=[])
    inputs = tokenizer(list(CAPTIONS), padding=True, return_tensors="pt")
    standard = ((pixels - PIXEL_MEAN) / PIXEL_STD).astype(np.float32).transpose(2, 0, 1)
    values = torch.tensor(np.stack([standard] * len(CAPTIONS)))
    return torch.softmax(theirs(**inputs, pixel_values=values).logits, -1)[:, 1].detach().numpy()


@pytest.mark.slow
def test_imported_model_scores_as_the_pytorch_model(theirs, folder, workdir, tmp_path, capsys):
    pixels = own.photos(1)[0]
    np.savez(tmp_path / "photo.npz", **{schema.PIXELS: pixels})
    asked = [f"--caption={caption}" for caption in CAPTIONS]
    capsys.readouterr()
    score = ["score", f"--model={workdir}", f"--record={tmp_path / 'photo.npz'}", "--json"]
    assert cli.main([*score, *asked]) == 0
    found = [row["probability"] for row in json.loads(capsys.readouterr().out)]
    np.testing.assert_allclose(found, probabilities(theirs, pixels, folder), atol=1e-5)


@pytest.mark.slow
@pytest.mark.tf
def test_exported_signature_says_what_the_pytorch_model_says(theirs, folder, workdir, tmp_path):
    pytest.importorskip("tensorflow_hub")
    saved = tmp_path / "saved"
    assert cli.main(["export", f"--workdir={workdir}", f"--out={saved}"]) == 0
    pixels = own.photos(1)[0]
    found = api.load(saved).score({schema.PIXELS: pixels}, CAPTIONS)
    np.testing.assert_allclose(found, probabilities(theirs, pixels, folder), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", hf.CASES)
def test_every_class_goes_there_and_back(case, tmp_path):
    theirs = hf.published(case)
    found = importers.load(hf.saved(theirs, tmp_path / "in"), "bridgetower")
    importers.save(found.config, found.params, found.tokenizer, tmp_path / "out")
    again, report = type(theirs).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert all("text_model.pooler" in key for key in report["missing_keys"])  # never called
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    for name, value in theirs.state_dict().items():
        if "text_model.pooler" not in name:
            assert np.array_equal(value, again.state_dict()[name]), name


def original(key):
    """The paper's name of a key of Hugging Face's."""
    key = key.removeprefix("bridgetower.").replace("text_model.", "text_transformer.")
    key = key.replace("vision_model.visual.", "vit_model.visual.")
    key = key.replace("embeddings.patch_embedding", "conv1")
    key = key.replace("visual.embeddings.position_embedding.weight", "visual.positional_embedding")
    return key.replace("visual.embeddings.", "visual.")


@pytest.mark.slow
def test_the_papers_checkpoint(theirs, folder, tmp_path):
    torch, _ = hf._libraries()
    state = {original(key): value for key, value in theirs.state_dict().items()}
    assert "vit_model.visual.class_embedding" in state
    state |= {
        "vit_model.positional_embedding": torch.zeros(3, 2),
        "vit_model.ln_final.weight": torch.zeros(2),
        "vit_model.ln_final.bias": torch.zeros(2),
        "temperature": torch.tensor(0.07),
    }
    heads = {
        f"itc_{name}_head.fc.{part}": torch.ones(shape)
        for name, width in (("text", 24), ("image", 64))
        for part, shape in (("weight", (256, width)), ("bias", (256,)))
    }
    for file in folder.glob("model*"):
        file.unlink()
    published = importers.load(hf.saved(theirs, tmp_path / "whole"), "bridgetower")
    for extra, itc in (({}, "none"), (heads, "paper")):
        torch.save({"state_dict": state | extra}, folder / "model.ckpt")
        found = importers.load(folder, "bridgetower")
        assert found.config.model.itc == itc
        flat = trees.flatten(found.params)
        for path, leaf in trees.flatten(published.params).items():
            np.testing.assert_array_equal(flat[path], leaf, err_msg=path)
    np.testing.assert_allclose(np.exp(-flat["contrast_head/log_scale"]), 0.07, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "lacks hidden_size; take"),
        ({"text_config": {"vocab_size": 40}}, "lacks .*text_config.num_hidden_layers"),
        ({"hidden_act": "relu"}, "hidden_act='relu'; bridgetower reads 'gelu'"),
        ({"share_link_tower_layers": True}, "share_link_tower_layers=True"),
        ({"hidden_size": 20}, "hidden_size=20 and text_config.hidden_size=24; .* equal"),
    ],
)
def test_a_config_that_cannot_be_read(folder, change, message):
    config = json.loads((folder / "config.json").read_text()) | change
    config = {name: value for name, value in config.items() if value is not None}
    with pytest.raises(UsageError, match=message):
        names.config(config, hub.read_arrays(folder))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"itm": "contrastive"}, "a match head of one number"),
        ({}, "a head over regions"),
        ({"mrm": 0.0, "itc": "paper"}, "the contrast of the paper's code"),
        ({"mrm": 0.0}, r"image heads of 64, .*image_heads=4 .*image_width=16"),
        ({"mrm": 0.0, "image_heads": 1, "image_width": 64}, "one text_config.hidden_size for"),
    ],
)
def test_models_that_have_no_counterpart(sizes, message):
    with pytest.raises(UsageError, match=message):
        names.save_config(own.model(**sizes).config)
