"""The one TFDS builder of all corpora, a config for each, such as "mmt/flickr30k".

Needs no TensorFlow. Records are written as array_record, which can be read in any order, with
`tfds.data_source`; `tfds.load` reads other formats only, such as `file_format="tfrecord"`.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmt_jax.errors import UsageError
from mmt_jax.ingest import corpora
from mmt_jax.ingest.corpora import base, examples, hashes


class Mmt(tfds.core.GeneratorBasedBuilder):
    """Prepares a corpus from its published files.

    Beside each split lies `rejected-<split>.jsonl`: a line for each photo that is left out, with
    `where`, `reason` and `text`.

    Args:
      raw: the folder of published files; None = only to read what is prepared.
      splits: those to prepare; None = all whose files are there.
      exclude: as `hashes.load` takes them; their photos are kept out of splits for training.
      shards: where Beam writes those of a split, and how many; those that are there already stay.
        None = written without Beam, cut by TFDS.
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
        shards: tuple[pathlib.Path, int] | None = None,
        **kwargs: Any,
    ):
        self._raw, self._splits, self._exclude, self._shards = raw, splits, exclude, shards
        super().__init__(**{"file_format": "array_record", **kwargs})

    @property
    def _corpus(self) -> base.Corpus:
        assert self.builder_config is not None  # BUILDER_CONFIGS has one for each corpus
        return corpora.get(self.builder_config.name)

    def _info(self) -> tfds.core.DatasetInfo:
        corpus = self._corpus
        parts = {}
        for name in corpus.pictures:
            parts |= {f"{name}/{part}": feature for part, feature in _picture().items()}
        parts |= {name: _feature(kind) for name, kind in corpus.fields.items()}
        return tfds.core.DatasetInfo(
            builder=self, description=corpus.title, features=tfds.features.FeaturesDict(parts)
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded: the licences of most corpora ask for a click
        return {split: self._generate_examples(split) for split in self._wanted()}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        maker, found = self._maker(split), 0
        with open(examples.rejected(self.data_path, split), "w", encoding="utf-8") as file:
            for item in maker.items():
                made = maker.example(item)
                if isinstance(made, base.Skipped):
                    file.write(json.dumps(vars(made)) + "\n")
                else:
                    found += 1
                    yield made
        if not found:
            raise examples.none(maker)

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> Sequence[Any]:
        if self._shards is None:
            return super()._generate_splits(dl_manager, download_config)
        from mmt_jax.ingest.corpora import beam

        return [
            beam.write(
                self._maker(split),
                features=self.info.features,
                writer=self._example_writer(),
                template=self._get_filename_template(split_name=split),
                shards=self._shards,
                runner=download_config.beam_runner,
                options=download_config.beam_options,
            )
            for split in self._wanted()
        ]

    def _wanted(self) -> Sequence[str]:
        if self._raw is None:
            raise UsageError("to prepare a corpus, give the folder of its published files as `raw`")
        return self._splits or self._corpus.splits(base.Raw(self._raw))

    def _maker(self, split: str) -> examples.Maker:
        exclusion = self._exclude if base.training(split) else None
        return examples.Maker(self._corpus.name, str(self._raw), split, exclusion)


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
