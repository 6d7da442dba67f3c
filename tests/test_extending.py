"""What CONTRIBUTING.md says that additions cost, each tried by making one."""

import json
import textwrap
import types

import numpy as np
import pytest
import test_study
from PIL import Image

import mmt_jax
import mmt_jax.models
from mmt_jax import detectors, readers
from mmt_jax.cli import main as cli
from mmt_jax.configs import models as sizes
from mmt_jax.configs.config import Config, DataConfig, EvalConfig, ObjectiveConfig, OptimConfig
from mmt_jax.data import formats
from mmt_jax.detectors.base import Detections
from mmt_jax.infer import retrieval
from mmt_jax.ingest import corpora
from mmt_jax.ingest.corpora import base
from mmt_jax.photo import FEATURES
from mmt_jax.study import claims
from mmt_jax.train import loop

CONFIG = '''
    """Sizes of the averages."""

    from __future__ import annotations

    import dataclasses

    from mmt_jax.configs.fields import Count
    from mmt_jax.configs.models import ModelConfig


    @dataclasses.dataclass(frozen=True)
    class AverageConfig(ModelConfig):
        """Means of words and of regions."""

        family: str = "average"
        width: Count = 64


    CONFIG = AverageConfig
'''
NETWORK = '''
    """Two bags, of words and of regions, whose means are compared."""

    from __future__ import annotations

    import jax.numpy as jnp
    from flax import nnx

    from mmt_jax.models.base import Encoded, Fused, Network
    from mmt_jax.nn.heads import Calibration
    from mmt_jax.nn.primitives import Linear, Table


    class Words(nnx.Module):
        def __init__(self, config):
            self.tokens = Table(config.model.vocab_size, config.model.width)


    class Regions(nnx.Module):
        def __init__(self, config):
            self.features = Linear(config.model.feature_dim, config.model.width)


    class Average(Network):
        """Dot product of the two means."""

        itms = ("contrastive",)

        @classmethod
        def separable(cls, config):
            return True

        def __init__(self, config):
            self.text, self.image = Words(config), Regions(config)
            self.calibration = Calibration()

        def encode_text(self, text, *, key=None):
            states = self.text.tokens(text.token_ids)
            return Encoded(states, text.mask, {}, (mean(states, text.mask),))

        def encode_image(self, image, *, key=None):
            states = self.image.features(image.features)
            return Encoded(states, image.mask, {}, (mean(states, image.mask),))

        def fuse(self, text, image, *, key=None, states=True):
            scores = (self.embed_text(text) * self.embed_image(image)).sum(-1)
            return Fused(text.states, image.states, scores[None], self.logits(scores)[None])

        def embed_text(self, text):
            return text.heads[0]

        def embed_image(self, image):
            return image.heads[0]


    def mean(states, mask):
        weights = mask[..., None].astype(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)


    NETWORK = Average
'''


@pytest.mark.slow
def test_a_family_is_a_folder_and_its_name(tmp_path, monkeypatch):
    """Two files and a name, and it trains, is evaluated and answers."""
    folder = tmp_path / "families" / "average"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "config.py").write_text(textwrap.dedent(CONFIG))
    (folder / "network.py").write_text(textwrap.dedent(NETWORK))
    places = [*mmt_jax.models.__path__, str(folder.parent)]
    monkeypatch.setattr(mmt_jax.models, "__path__", places)
    monkeypatch.setattr(sizes, "NAMES", (*sizes.NAMES, "average"))

    config = Config(
        tag="average",
        steps=30,
        batch_size=16,
        log_every=10,
        model=sizes.FAMILIES["average"](),
        objective=ObjectiveConfig(itm="contrastive", candidates=16, mlm=0.0, mrm=0.0),
        data=DataConfig(source="scenes", size=64, vocab_size=300, text_length=16),
        optim=OptimConfig(lr=0.03, warmup_steps=3),
        eval=EvalConfig(limit=10),
    )
    run = tmp_path / "run"
    found = loop.train(config, run, evaluator=retrieval.evaluator, progress=False)
    assert found["loss"] < 3.2  # log 16 + log 2 = 3.47 where nothing is learned
    assert 0 <= found["image_retrieval/r@1"] <= 1
    record = {
        "image/bboxes": np.array([[0, 0, 1, 1, 1]], np.float32),
        "image/detection_features": np.zeros((1, 176), np.float32),
        "image/padding_mask": np.zeros(1, np.int32),
    }
    scores = mmt_jax.load(run).score(record, ["a red circle", "two stars"])
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()


def test_a_corpus_is_a_reader_and_a_row(tmp_path, monkeypatch):
    """`titles.tsv`, a file name and a title a line, is prepared as published corpora are."""
    tfds = pytest.importorskip("tensorflow_datasets")
    from mmt_jax.ingest.corpora import builder

    def read(raw, split):
        for where, line in readers.lines(raw.need("titles.tsv")):
            name, _, title = line.partition("\t")
            yield base.captioned(where, base.Picture(name, (f"photos/{name}",)), [title])

    titles = base.Corpus(
        name="titles",
        title="Photos and their titles",
        wants="titles.tsv and photos/",
        splits=base.splits({"train": "titles.tsv"}),
        read=read,
    )
    monkeypatch.setattr(corpora, "CORPORA", (*corpora.CORPORA, titles))
    configs = {titles.name: tfds.core.BuilderConfig(name=titles.name)}  # made as it is imported
    monkeypatch.setattr(builder.Mmt, "builder_configs", builder.Mmt.builder_configs | configs)
    raw, out = tmp_path / "raw", tmp_path / "out"
    (raw / "photos").mkdir(parents=True)
    for number, name in enumerate(["a.png", "b.png"]):
        Image.new("RGB", (40, 30), (200 * number, 9, 9)).save(raw / "photos" / name)
    (raw / "titles.tsv").write_text("a.png\tone dark photo\nb.png\tone red photo\n")
    prepared = ["data", "prepare", "--corpus=titles", f"--raw={raw}", f"--out={out}"]
    assert cli.main([*prepared, "--runner=local"]) == 0
    found = {example["image/id"]: example for example in corpora.read(out, "train")}
    assert {key: example["text/captions"] for key, example in found.items()} == {
        "a.png": ["one dark photo"],
        "b.png": ["one red photo"],
    }


def test_a_detector_is_a_module_with_load(tmp_path, monkeypatch):
    class Halves:
        num_classes = 0
        labels = types.MappingProxyType({})

        def __init__(self, scale):
            self.scale = scale

        def detect(self, pictures):
            return [self._detect(picture) for picture in pictures]

        def _detect(self, picture):
            halves = np.split(picture[: len(picture) // 2 * 2], 2)
            means = np.stack([half.mean(axis=(0, 1)) for half in halves])
            boxes = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1]], np.float32)
            return Detections(boxes, (means * self.scale).astype(np.float32))

    def load(model, *, scale="1"):
        return Halves(float(scale))

    module = types.SimpleNamespace(MODEL="any word", load=load)
    monkeypatch.setitem(detectors._MODULES, "halves", module)
    monkeypatch.setitem(detectors.DETECTORS, "halves", module.MODEL)
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[2:] = 10, 20, 30
    Image.fromarray(picture).save(photos / "1.png")
    (tmp_path / "captions.jsonl").write_text(json.dumps({"image_id": 1, "captions": ["two"]}))
    argv = ["features", f"--images={photos}", f"--out={out}", "--detector=halves:x,scale=0.5"]
    assert cli.main([*argv, f"--captions={tmp_path / 'captions.jsonl'}"]) == 0
    features = formats.read(out, "train").rows[FEATURES]
    np.testing.assert_allclose(features[:2], [[0, 0, 0], [5, 10, 15]], atol=1e-3)


def test_a_claim_is_a_row(tmp_path, monkeypatch):
    row = claims.Claim(
        "C12",
        "Attention across modalities beats none, by a lot.",
        "S",
        (claims.better("data_cc", "architecture_single-modality", by=0.2),),
    )
    monkeypatch.setitem(claims.CLAIMS, row.id, row)
    found, _ = test_study.carry_out(test_study.SMALL, tmp_path / "study")
    assert test_study.claim(found, "C12")["verdict"] == "supported"
    assert row.statement in (tmp_path / "study" / "report.html").read_text()
