"""What CONTRIBUTING.md says that additions cost, each tried by making one."""

import textwrap

import numpy as np

import mmt_jax
import mmt_jax.models
from mmt_jax.configs import models as sizes
from mmt_jax.configs.config import Config, DataConfig, EvalConfig, ObjectiveConfig, OptimConfig
from mmt_jax.infer import retrieval
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
