"""Checkpoints as the authors' own code writes them, in synthetic files of their key layouts."""

import functools
import json
import sys
import types

import jax
import numpy as np
import pytest
import test_cards as cards

from mmt_jax import hub as importers
from mmt_jax.cli import main as cli
from mmt_jax.data import schema
from mmt_jax.infer import api
from mmt_jax.infer.predict import Predictor
from mmt_jax.models import registry
from mmt_jax.models.tern import kaylode
from mmt_jax.typing import Image

pytestmark = pytest.mark.torch

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "cube", "two", "ball", "##s"]
CAPTIONS = ["a red cube", "two red balls"]  # of 3 and 4 pieces
WIDTH, JOINT, HEADS, REGIONS = 16, 12, 2, 5


@functools.cache
def libraries():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    return torch, transformers


def kaylode_model():
    """The modules of kaylode/tern, under its names, with two region layers."""
    torch, _ = libraries()
    nn = torch.nn

    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.a_2, self.b_2 = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.zeros(WIDTH))

        def forward(self, x):
            spread = x.std(-1, keepdim=True) + 1e-6
            return self.a_2 * (x - x.mean(-1, keepdim=True)) / spread + self.b_2

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            for name in ("q_linear", "v_linear", "k_linear", "out"):
                setattr(self, name, nn.Linear(WIDTH, WIDTH))

        def forward(self, x):
            q, k, v = (
                part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
                for part in (self.q_linear, self.k_linear, self.v_linear)
            )
            weights = (q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5).softmax(-1)
            return self.out((weights @ v).transpose(1, 2).flatten(2))

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm_1, self.norm_2, self.attn = Norm(), Norm(), Attention()
            self.ff = nn.ModuleDict({"w_1": nn.Linear(WIDTH, 20), "w_2": nn.Linear(20, WIDTH)})

        def forward(self, x):
            x = x + self.attn(self.norm_1(x))
            hidden = nn.functional.gelu(self.ff["w_1"](self.norm_2(x)))
            return x + self.ff["w_2"](hidden)

    def projection():
        layers = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, JOINT))
        return nn.ModuleDict({"model": layers})

    model = nn.Module()
    model.encoder_v = nn.Module()
    model.encoder_v.cls_token1 = nn.Parameter(torch.zeros(1, 1, WIDTH))
    model.encoder_v.cls_token2 = nn.Parameter(torch.zeros(1, 1, WIDTH))
    model.encoder_v.feat_embed = nn.ModuleDict({"linear": nn.Linear(kaylode.FEATURES, WIDTH)})
    model.encoder_v.loc_embed = nn.ModuleDict({"linear": nn.Linear(5, WIDTH)})
    model.reasoning_v = nn.Module()
    model.reasoning_v.layers, model.reasoning_v.norm = nn.ModuleList([Layer(), Layer()]), Norm()
    model.img_proj, model.cap_proj = projection(), projection()
    return randomised(model)


def randomised(model):
    torch, _ = libraries()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            value += 0.1 * torch.randn(value.shape, generator=generator)
    return model.eval()


def kaylode_folder(folder):
    """Its checkpoint and config, and a DistilBERT; the models of both."""
    torch, transformers = libraries()
    config = transformers.DistilBertConfig(
        vocab_size=len(WORDS),
        dim=WIDTH,
        hidden_dim=24,
        n_layers=2,
        n_heads=HEADS,
        max_position_embeddings=10,
    )
    bert, model = randomised(transformers.DistilBertForMaskedLM(config)), kaylode_model()
    bert.save_pretrained(folder / "bert")
    (folder / "bert" / "vocab.txt").write_text("\n".join(WORDS))
    args = {"d_embed": JOINT, "d_model": WIDTH, "d_ff": 20, "aggregation": "mean", "N_v": 2}
    args |= {"N_l": 0, "heads": HEADS, "dropout": 0.1, "precomp_bert": True}
    yaml = {"model": {"name": "TERN", "args": args}}
    (folder / "config.json").write_text(json.dumps({"model_type": "tern", **yaml}))
    state = {"model": model.state_dict(), "epoch": 3, "best_value": 0.7, "config": yaml}
    torch.save({**state, "class_names": None, "optimizer": {}}, folder / "TERN_best.pth")
    return model, bert


def photos():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.5, (2, REGIONS, 2))
    high = low + rng.uniform(0.1, 0.5, low.shape)
    boxes = np.concatenate([low, high, (high - low).prod(-1, keepdims=True)], -1)
    features = rng.normal(size=(2, REGIONS, kaylode.FEATURES))
    return Image(features.astype("f4"), boxes.astype("f4"), np.ones((2, REGIONS), bool))


def kaylode_vectors(model, bert, image):
    """Its forward pass: captions one by one, for it would average padding too."""
    torch, _ = libraries()
    ids = [[2, 5, 6, 7, 3], [2, 8, 6, 9, 10, 3]]
    texts = [bert.distilbert(torch.tensor([row])).last_hidden_state for row in ids]
    texts = [model.cap_proj["model"](x).mean(1) for x in texts]
    encoder = model.encoder_v
    x = encoder.feat_embed["linear"](torch.tensor(image.features))
    x = x + encoder.loc_embed["linear"](torch.tensor(image.boxes[..., [1, 0, 3, 2, 4]]))
    slot = (encoder.cls_token1 + encoder.cls_token2).expand(len(x), -1, -1)
    x = torch.cat([slot, x], 1)
    for layer in model.reasoning_v.layers:
        x = layer(x)
    vectors = torch.cat(texts), model.img_proj["model"](model.reasoning_v.norm(x)).mean(1)
    return [(x / x.norm(dim=1, keepdim=True)).detach().numpy() for x in vectors]


@pytest.mark.slow
def test_kaylodes_tern_embeds_as_in_pytorch(tmp_path):
    model, bert = kaylode_folder(tmp_path)
    found = importers.load(tmp_path, "tern")
    built, image = registry.build(found.config), photos()
    text = found.tokenizer.texts(CAPTIONS, length=8, layout="cls_first")
    with jax.default_matmul_precision("highest"):
        ours = [Predictor(built, found.params).embed(items) for items in (text, image)]
    for mine, theirs in zip(ours, kaylode_vectors(model, bert, image), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


@pytest.mark.slow
def test_kaylodes_tern_scores_at_the_command_line(tmp_path, capsys):
    model, bert = kaylode_folder(tmp_path / "in")
    argv = ["import", f"--from={tmp_path / 'in'}", "--model=tern", f"--out={tmp_path / 'run'}"]
    assert cli.main(argv) == 0
    image = photos()
    record = schema.from_image(jax.tree.map(lambda x: x[0], image))
    cosines = kaylode_vectors(model, bert, image)[0] @ kaylode_vectors(model, bert, image)[1][0]
    found = api.load(tmp_path / "run").score(record, CAPTIONS)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-cosines)), atol=1e-5)


def drop_bert(folder):
    for file in (folder / "bert").iterdir():
        file.unlink()
    (folder / "bert").rmdir()


def change_args(**values):
    def change(folder):
        file = folder / "config.json"
        config = json.loads(file.read_text())
        config["model"]["args"] |= values
        file.write_text(json.dumps(config))

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_bert, "put a published DistilBERT"),
        (change_args(N_l=2), "model.args.N_l=2; tern reads 0"),
        (change_args(aggregation="first"), "aggregation='first'; tern reads 'mean'"),
        (change_args(d_model=18), "model.args.d_model=18 and bert.dim=16"),
        (change_args(N_v=3), "image/stack/layers/2/attention/key/bias (16,) has no key"),
    ],
)
def test_what_kaylodes_tern_lacks_is_told(tmp_path, capsys, spoil, message):
    kaylode_folder(tmp_path / "in")
    spoil(tmp_path / "in")
    argv = ["import", f"--from={tmp_path / 'in'}", "--model=tern", f"--out={tmp_path / 'run'}"]
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_lightning_names_its_callbacks_beside_bridgetowers_weights(tmp_path, monkeypatch):
    """Versions of its time pickled the classes of callbacks, which nobody has installed here."""
    torch, _ = libraries()
    (theirs, *_), tokenizer, _ = cards.SYSTEMS["bridgetower"]()
    theirs.save_pretrained(tmp_path / "in")
    tokenizer.save_pretrained(tmp_path / "in")
    expected = importers.load(tmp_path / "in", "bridgetower").params
    (tmp_path / "in" / "model.safetensors").unlink()
    name = "pytorch_lightning.callbacks.model_checkpoint"
    callback = type("ModelCheckpoint", (), {"__module__": name})
    module = types.ModuleType(name)
    module.ModelCheckpoint = callback
    state = {
        "epoch": 9,
        "global_step": 100_000,
        "pytorch-lightning_version": "1.3.2",
        "state_dict": {paper_name(key): value for key, value in theirs.state_dict().items()},
        "callbacks": {callback: {"best_model_score": torch.tensor(0.7), "dirpath": "result"}},
        "optimizer_states": [],
        "lr_schedulers": [],
        "hparams_name": "config",
        "hyper_parameters": {"config": {"exp_name": "mlm_itm", "seed": 0}},
    }
    with monkeypatch.context() as patch:
        for package in ("pytorch_lightning", "pytorch_lightning.callbacks"):
            patch.setitem(sys.modules, package, types.ModuleType(package))
        patch.setitem(sys.modules, name, module)
        torch.save(state, tmp_path / "in" / "bridgetower.ckpt")
    found = importers.load(tmp_path / "in", "bridgetower").params
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def paper_name(key):
    """BridgeTower's own name of a key of Hugging Face's."""
    key = key.removeprefix("bridgetower.").replace("text_model.", "text_transformer.")
    key = key.replace("vision_model.visual.", "vit_model.visual.")
    key = key.replace("embeddings.patch_embedding", "conv1")
    key = key.replace("visual.embeddings.position_embedding.weight", "visual.positional_embedding")
    return key.replace("visual.embeddings.", "visual.")


def test_lxmerts_file_of_several_gpus(tmp_path):
    """`model_LXRT.pth`: `module.bert.` before the encoder's keys, heads under `module.` alone."""
    torch, _ = libraries()
    (theirs, *_), tokenizer, _ = cards.SYSTEMS["lxmert"]()
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    expected = importers.load(tmp_path, "lxmert").params
    (tmp_path / "model.safetensors").unlink()
    state = {
        f"module.{key.replace('lxmert.', 'bert.', 1)}": value
        for key, value in theirs.state_dict().items()
        if not key.endswith("position_ids")
    }
    assert "module.bert.encoder.x_layers.0.visual_attention.att.query.weight" in state
    assert "module.answer_head.logit_fc.0.weight" in state
    torch.save(state, tmp_path / "model_LXRT.pth")
    found = importers.load(tmp_path, "lxmert").params
    jax.tree.map(np.testing.assert_array_equal, found, expected)
