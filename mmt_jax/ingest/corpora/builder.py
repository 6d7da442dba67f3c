"""The one TFDS builder of all corpora, a config for each, such as "mmt/flickr30k".

Needs no TensorFlow. Records are written as array_record, which can be read in any order, with
`tfds.data_source`; `tfds.load` reads other formats only, such as `file_format="tfrecord"`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmt_jax.errors import UsageError
from mmt_jax.ingest import corpora
from mmt_jax.ingest.corpora import base, examples, hashes, shards

_TEXT = tfds.features.Text()
_PICTURE = {
    "encoded": tfds.features.Image(shape=(None, None, 3)),
    "id": _TEXT,
    "ids": tfds.features.Sequence(_TEXT),
    "height": tfds.features.Scalar(np.int32),
    "width": tfds.features.Scalar(np.int32),
    "hash": _TEXT,
}
_FIELDS = {  # by the kinds of `base.Corpus.fields`
    "text": _TEXT,
    "texts": tfds.features.Sequence(_TEXT),
    "int": tfds.features.Scalar(np.int64),
    "ints": tfds.features.Tensor(shape=(None,), dtype=np.int64),
    "floats": tfds.features.Tensor(shape=(None,), dtype=np.float32),
    "boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
}


class Mmt(tfds.core.GeneratorBasedBuilder):
    """Prepares a corpus from its published files.

    Beside each split lies `rejected-<split>.jsonl`: a line for each photo that is left out, with
    `where`, `reason` and `text`.

    Args:
      raw: the folder of published files; None = only to read what is prepared.
      splits: those to prepare; None = all whose files are there.
      exclude: as `hashes.load` takes them; their photos are kept out of splits for training.
      parts: where the shards of a split are written until all are there, and how many; those that
        are there already stay.
      **kwargs: as every builder takes them: `data_dir`, `config`, ….
    """

    VERSION = tfds.core.Version(corpora.VERSION)
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
        parts: tuple[pathlib.Path, int] | None = None,
        **kwargs: Any,
    ):
        self._raw, self._splits, self._exclude, self._parts = raw, splits, exclude, parts
        super().__init__(**{"file_format": "array_record", **kwargs})

    @property
    def _corpus(self) -> base.Corpus:
        assert self.builder_config is not None  # BUILDER_CONFIGS has one for each corpus
        return corpora.get(self.builder_config.name)

    def _info(self) -> tfds.core.DatasetInfo:
        corpus = self._corpus
        features = {name: _FIELDS[kind] for name, kind in corpus.fields.items()}
        for name in corpus.pictures:
            features |= {f"{name}/{part}": feature for part, feature in _PICTURE.items()}
        return tfds.core.DatasetInfo(
            builder=self, description=corpus.title, features=tfds.features.FeaturesDict(features)
        )

    # TFDS asks for them. Nothing is downloaded: the licences of most corpora ask for a click.
    _split_generators = _generate_examples = None  # type: ignore[assignment]

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> Sequence[Any]:
        if self._raw is None:
            raise UsageError("to prepare a corpus, give the folder of its published files as `raw`")
        return [
            self._write(split, download_config)
            for split in self._splits or self._corpus.splits(base.Raw(self._raw))
        ]

    def _write(self, split: str, download_config: Any) -> Any:
        exclusion = self._exclude if base.training(split) else None
        maker = examples.Maker(self._corpus.name, str(self._raw), split, exclusion)
        parts, number = self._parts or (pathlib.Path(self.data_path) / f"parts-{split}", 0)
        number = number or -(-sum(1 for _ in maker.items()) // shards.PHOTOS)
        return shards.write(self, maker, parts=parts, number=number, config=download_config)
