"""The one TFDS builder of all corpora, a config for each, such as "mmt/flickr30k".

Needs no TensorFlow. Records are written as array_record, which can be read in any order, with
`tfds.data_source`; `tfds.load` reads other formats only, such as `file_format="tfrecord"`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmt_jax.config import UsageError
from mmt_jax.data import corpora
from mmt_jax.data.corpora import base, examples, hashes

VERSION = "1.0.0"


class Mmt(tfds.core.GeneratorBasedBuilder):
    """Prepares a corpus from its published files.

    Beside each split lies `rejected-<split>.jsonl`: a line for each photo that is left out, with
    `where`, `reason` and `text`.

    Args:
      raw: the folder of published files; None = only to read what is prepared.
      splits: those to prepare; None = all whose files are there.
      exclude: as `hashes.load` takes them; their photos are kept out of splits for training.
      beam: whether Beam reads the photos.
      **kwargs: as every builder takes them: `data_dir`, `config`, ….
    """

    VERSION = tfds.core.Version(VERSION)
    code_path = None  # no checksums lie beside the code; TFDS looks with a library that may lack
    BUILDER_CONFIGS = [  # noqa: RUF012, TFDS wants a list
        tfds.core.BuilderConfig(name=corpus.name, description=corpus.title)
        for corpus in corpora.CORPORA
    ]

    def __init__(
        self,
        *,
        raw: str | None = None,
        splits: Sequence[str] | None = None,
        exclude: hashes.Exclusion | None = None,
        beam: bool = False,
        **kwargs: Any,
    ):
        self._raw, self._splits, self._exclude, self._beam = raw, splits, exclude, beam
        super().__init__(**{"file_format": "array_record", **kwargs})

    def _info(self) -> tfds.core.DatasetInfo:
        corpus = corpora.get(self.builder_config.name)
        parts = {}
        for name in corpus.pictures:
            parts |= {f"{name}/{part}": feature for part, feature in _picture().items()}
        parts |= {name: _feature(kind) for name, kind in corpus.fields.items()}
        return tfds.core.DatasetInfo(
            builder=self, description=corpus.title, features=tfds.features.FeaturesDict(parts)
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded: the licences of most corpora ask for a click
        if self._raw is None:
            raise UsageError("to prepare a corpus, give the folder of its published files as `raw`")
        corpus = corpora.get(self.builder_config.name)
        splits = self._splits or corpus.splits(base.Raw(self._raw))
        return {split: self._generate_examples(split) for split in splits}

    def _generate_examples(self, split: str) -> Any:
        exclusion = self._exclude if base.training(split) else None
        maker = examples.Maker(self.builder_config.name, str(self._raw), split, exclusion)
        rejected = str(self.data_path / f"rejected-{split}.jsonl")
        if self._beam:
            from mmt_jax.data.corpora import beam

            return beam.Examples(maker, rejected)
        return _examples(maker, rejected)


def _examples(maker: examples.Maker, rejected: str) -> Iterator[tuple[str, dict[str, Any]]]:
    with open(rejected, "w", encoding="utf-8") as file:
        for item in maker.items():
            made = maker.example(item)
            if isinstance(made, base.Skipped):
                file.write(line(made) + "\n")
            else:
                yield made


def line(skipped: base.Skipped) -> str:
    """A line of the list of what is left out."""
    return json.dumps(vars(skipped))


def _picture() -> dict[str, Any]:
    text = tfds.features.Text()
    return {
        "encoded": tfds.features.Image(shape=(None, None, 3)),
        "id": text,
        "ids": tfds.features.Sequence(text),
        "height": tfds.features.Scalar(np.int32),
        "width": tfds.features.Scalar(np.int32),
        "hash": text,
    }


def _feature(kind: str) -> Any:
    return {
        "text": tfds.features.Text(),
        "texts": tfds.features.Sequence(tfds.features.Text()),
        "int": tfds.features.Scalar(np.int64),
        "ints": tfds.features.Tensor(shape=(None,), dtype=np.int64),
        "floats": tfds.features.Tensor(shape=(None,), dtype=np.float32),
        "boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
    }[kind]
