"""What a notebook calls: `load`, to ask about photos and captions, and `build`, for fresh weights.

```python
scorer = mmt_jax.load("work/cc")  # a training workdir, a SavedModel, or a hub handle
scorer.score("photo.npz", ["a red circle", "two stars"])  # one probability a caption
scorer.score("photo.jpg", ["a dog"], detector="frozen_graph:detector.pb")  # of a photo itself
scorer.fill("photo.npz", "a red <mask>")  # the likeliest words at each mask
scorer.answer("photo.jpg", "what is it?")  # of a model with a task's head
scorer.embed_texts(["a dog"]), scorer.search(photos, "a dog")  # what else it can: print(scorer)

model, params = mmt_jax.build("architecture_coattention")
```
"""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple

import jax

from mmt_jax.configs import config as config_lib
from mmt_jax.configs import variants
from mmt_jax.configs.config import RELEASE_SPEC, Config, DataSpec
from mmt_jax.data import sources
from mmt_jax.errors import UsageError
from mmt_jax.hub import preparation
from mmt_jax.infer.export.loading import KAGGLE, SavedModel
from mmt_jax.infer.predict import Predictor
from mmt_jax.infer.scorer import Scorer
from mmt_jax.models import registry
from mmt_jax.models.base import Model
from mmt_jax.tasks import labels
from mmt_jax.text import vocabulary
from mmt_jax.train import published
from mmt_jax.typing import Params


class Built(NamedTuple):
    """A model and its parameters."""

    model: Model
    params: Params


def load(path: str | os.PathLike, *, vocab: str | os.PathLike | None = None) -> Scorer:
    """Loads a trained model for scoring.

    Args:
      path: a training workdir (its best checkpoint is taken), a folder of published weights as
        `mmt import` takes it or its hub id, a SavedModel folder, a TensorFlow Hub handle that
        begins with https://, or a Kaggle handle, OWNER/MODEL/tensorFlow2/VARIATION; these need
        TensorFlow, the last also kagglehub.
      vocab: the file of a vocabulary, for modules that carry none, such as the release's.

    Raises:
      UsageError: nothing of the kind is there, or it is damaged.
    """
    folder = pathlib.Path(path)
    remote = "://" in str(path) or (KAGGLE.fullmatch(str(path)) and not folder.exists())
    if remote or (folder / "saved_model.pb").is_file():
        return SavedModel(path, vocab=vocab)
    folder = published.workdir(path)
    if (folder / "config.json").is_file():
        if vocab is not None:
            raise UsageError(f"{path} brings its own vocabulary; leave vocab= out")
        return of_workdir(folder)
    problem = "is neither a training workdir nor a SavedModel nor published weights"
    raise UsageError(
        f"{path} {problem if folder.exists() else 'does not exist'}; give the --workdir of "
        f"`mmt train`, the --out of `mmt export`, or a handle of TensorFlow Hub or Kaggle"
    )


def build(tag: str, *, scale: str = "tiny", seed: int = 0, spec: DataSpec | None = None) -> Built:
    """A model of the study with fresh weights, `(model, params)`.

    Args:
      tag: as `mmt list` prints.
      scale: "full", with the release's sizes, "pilot" or "tiny".
      seed: of the weights.
      spec: sizes that the model takes from its data; None = `data_spec`.

    Raises:
      UsageError: no such tag or scale.
    """
    config = variants.get_config(tag, scale=scale)
    model = registry.build(config_lib.with_spec(config, spec or data_spec(config)))
    return Built(model, model.init(jax.random.key(seed)))


def data_spec(config: Config) -> DataSpec:
    """The release's sizes for a full model, the generated scenes' for the smaller scales."""
    if config.scale != "full":
        return sources.spec(config)
    if config.model.pixels:
        return DataSpec(3 * config.model.patch_size**2, 0, RELEASE_SPEC.vocab_size)
    return RELEASE_SPEC


def of_workdir(workdir: pathlib.Path) -> Scorer:
    """As `load`, of a training workdir; UsageError: it is none."""
    from mmt_jax.train import checkpoint

    trained, settings = checkpoint.load(workdir), preparation.read(workdir)
    return Scorer(
        trained.config,
        vocabulary.stored_tokenizer(workdir),
        preparation.processor(settings, trained.config, name=str(workdir)) if settings else None,
        predictor=Predictor(trained.model, trained.params),
        labels=labels.known(workdir),
        steps=trained.step,
    )
