"""Names of data and what they stand for.

A source is `scenes` (the generated corpus that evaluation uses), `scenes/NAME` (a generated corpus
by name), `regions:FOLDER` (a region folder, see `formats`; no comma in its path), `records:FOLDER`
(packed records, see `records`), or several of these separated by commas: a mixture.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from mmt_jax.configs.config import Config, DataSpec
from mmt_jax.corpus import Corpus, Outline, Photos
from mmt_jax.data import formats, records
from mmt_jax.errors import UsageError
from mmt_jax.text import base, sentencepiece, vocabulary
from mmt_jax.text.store import has_vocabulary, store_tokenizer, stored_tokenizer

_EVAL_SPLITS = ("val", "dev", "validation")


@dataclasses.dataclass(frozen=True)
class Source:
    """One part of a mixture: a generated corpus, a region folder, or packed records."""

    kind: str  # "scenes", "regions" or "records"
    name: str  # of the corpus, or the folder's path

    def __str__(self) -> str:
        return f"scenes/{self.name}" if self.generated else f"{self.kind}:{self.name}"

    @property
    def generated(self) -> bool:
        """Whether nothing of it is on disk."""
        return self.kind == "scenes"

    def splits(self) -> tuple[str, ...]:
        """Names of the splits that there are.

        Raises:
          UsageError: the folder has none.
        """
        if self.generated:
            from mmt_jax import scenes

            return scenes.SPLITS
        return (formats if self.kind == "regions" else records).splits(self.name)


def parse(source: str) -> tuple[Source, ...]:
    """Parts of a mixture.

    Raises:
      UsageError: a part is of no known form.
    """
    return tuple(_parse_one(part.strip()) for part in source.split(","))


def _parse_one(source: str) -> Source:
    kind, _, folder = source.partition(":")
    if kind in ("regions", "records") and folder:
        return Source(kind, folder)
    if source == "scenes" or source.startswith("scenes/"):
        from mmt_jax import scenes

        name = source.partition("/")[2] if "/" in source else "target"
        if name in scenes.CORPORA:
            return Source("scenes", name)
        near = difflib.get_close_matches(name, scenes.CORPORA, n=1)
        right = f"did you mean {near[0]}" if near else f"there are {', '.join(scenes.CORPORA)}"
        raise UsageError(f"there is no generated corpus {name!r}; {right}")
    raise UsageError(
        f"unknown source {source!r}; a source is scenes, scenes/NAME, regions:FOLDER or "
        f"records:FOLDER, or several of them separated by commas"
    )


def load(
    source: str,
    split: str,
    *,
    seed: int = 0,
    size: int | None = None,
    pixels: bool = False,
    bare: bool = False,
) -> list[Photos]:
    """Loads the corpora of a source, but opens packed records; the last few stay in memory.

    Args:
      source: see the module.
      split: such as "train".
      seed: of generated corpora.
      size: photos of each generated corpus; None = its own size.
      pixels: also load the photos' pixels.
      bare: also take photos without captions.

    Raises:
      UsageError: unknown source or split, or a folder with a fault.
    """
    corpora: list[Photos] = []
    for part in parse(source):
        if part.generated:
            corpora.append(_build(part.name, split, seed, size, pixels))
        elif part.kind == "records":
            corpora.append(records.read(part.name, split))
        else:
            files = [pathlib.Path(part.name) / f"{split}{end}" for end in (".npz", ".jsonl")]
            changed = tuple(file.stat().st_mtime_ns for file in files if file.exists())
            corpora.append(_read(part.name, split, pixels, bare, changed))
    return corpora


def outlines(source: str, split: str, *, seed: int = 0, size: int | None = None) -> list[Outline]:
    """Captions and numbers of regions of a source's corpora; features on disk are not read.

    Args:
      source, split, seed, size: as `load`.

    Raises:
      UsageError: as `load`.
    """
    found = []
    for part in parse(source):
        if part.generated:
            corpus = _build(part.name, split, seed, size, False)
            found.append(Outline(corpus.captions, np.diff(corpus.offsets) - 1))
        else:
            kind = formats if part.kind == "regions" else records
            found.append(kind.outline(part.name, split))
    return found


def blocks(source: str, split: str, *, pixels: bool = False) -> Iterator[Corpus]:
    """The photos of a source that is no mixture, a few hundred at a time.

    Raises:
      UsageError: as `load`, or the source has several parts.
    """
    part, *others = parse(source)
    if others:
        raise UsageError(f"{source} is a mixture; take one part at a time")
    if part.kind == "regions":
        return formats.blocks(part.name, split, pixels=pixels)
    if part.kind == "records":
        return records.in_blocks(records.read(part.name, split))
    return iter([_build(part.name, split, 0, None, pixels)])


@functools.lru_cache(maxsize=8)
def _build(name: str, split: str, seed: int, size: int | None, pixels: bool) -> Corpus:
    from mmt_jax import scenes

    return scenes.build(name, split, seed=seed, size=size, pixels=pixels)


@functools.lru_cache(maxsize=4)
def _read(folder: str, split: str, pixels: bool, bare: bool, changed: tuple[int, ...]) -> Corpus:
    del changed  # only there so that a rewritten folder is read again
    return formats.read(folder, split, pixels=pixels, bare=bare)


def first(corpora: Sequence[Photos], limit: int) -> list[Photos]:
    """The first `limit` photos of the corpora together; 0 = all."""
    if not limit:
        return list(corpora)
    kept = []
    for corpus in corpora:
        if count := min(limit, len(corpus)):
            kept.append(corpus.head(count))
            limit -= count
    return kept


def eval_source(config: Config) -> tuple[str, str]:
    """Source and split of a run's evaluation, defaults filled in.

    Generated corpora are evaluated on `scenes`, others on the (first) folder they were trained on.

    Raises:
      UsageError: the source has no split that is known to be for evaluation.
    """
    source = config.eval.source
    if source is None:
        parts = parse(config.data.source)
        source = next((str(part) for part in parts if not part.generated), "scenes")
    return source, config.eval.split or eval_split(source)


def eval_split(source: str) -> str:
    """The split for evaluation while training: `val`, or whatever a folder calls it.

    Raises:
      UsageError: a folder has none of the usual names.
    """
    shared = set.intersection(
        *({"val"} if part.generated else set(part.splits()) for part in parse(source))
    )
    for name in _EVAL_SPLITS:
        if name in shared:
            return name
    raise UsageError(
        f"{source} has no split {' or '.join(_EVAL_SPLITS)}; name one with config.eval.split ("
        f"there is {', '.join(sorted(shared)) or 'none that all parts have'})"
    )


def tokenizer(
    config: Config,
    workdir: str | os.PathLike | None = None,
    *,
    sentences: Sequence[str] | None = None,
) -> base.Tokenizer:
    """The run's tokenizer; with a workdir, its vocabulary is kept there and taken from there.

    A vocabulary that is trained is trained on `sentences`, or on the source's captions.

    Raises:
      UsageError: `config.data.vocab` cannot be read, or is not the one that the workdir holds.
    """
    if workdir is not None and has_vocabulary(workdir):
        kept = stored_tokenizer(workdir)
        if config.data.vocab and vocabulary.load(config.data.vocab).model != kept.model:
            raise UsageError(
                f"{pathlib.Path(workdir) / kept.filename} is not config.data.vocab "
                f"({config.data.vocab}); leave that unset to go on with the workdir's vocabulary, "
                f"or use another workdir"
            )
        return kept
    if config.data.vocab:
        result = vocabulary.load(config.data.vocab)
    elif sentences:
        result = vocabulary.load(vocabulary.vocabulary(sentences, config.data.vocab_size))
    else:
        result = vocabulary.load(_vocabulary(config))
    if workdir is not None:
        store_tokenizer(result, workdir)
    return result


def _vocabulary(config: Config) -> bytes:
    """Trains on the generated grammar's captions and on those of the folders' `config.data.split`.

    All generated corpora share one vocabulary, so that a model can move from one to another.
    """
    parts = parse(config.data.source)
    captions: list[str] = []
    if any(part.generated for part in parts):
        from mmt_jax import scenes

        captions += scenes.vocabulary_captions()
    for part in dict.fromkeys(part for part in parts if not part.generated):
        (outline,) = outlines(str(part), config.data.split)
        captions += outline.all_captions()
    return vocabulary.vocabulary(captions, config.data.vocab_size)


def spec(config: Config, tokenizer: base.Tokenizer | None = None) -> DataSpec:
    """What the data asks of the model; no corpus is generated or read whole for it.

    Args:
      config: the run.
      tokenizer: its tokenizer; None = the vocabulary has `config.data.vocab_size` pieces.

    Raises:
      UsageError: the parts of a mixture do not fit together.
    """
    vocab_size = tokenizer.vocab_size if tokenizer else config.data.vocab_size
    special = sentencepiece.SentencePiece if tokenizer is None else tokenizer
    tokens = vocab_size, special.mask_id, special.pad_id
    if config.model.pixels:
        return DataSpec(3 * config.model.patch_size**2, 0, *tokens, unlabelled=True)
    facts = [_facts(part) for part in parse(config.data.source)]
    widths = {width for width, *_ in facts}
    classes = {number for _, number, _, _ in facts if number}
    attributes = {number for _, _, number, _ in facts if number}
    for what, values in (
        ("feature widths", widths),
        ("numbers of classes", classes),
        ("numbers of attributes", attributes),
    ):
        if len(values) > 1:
            raise UsageError(
                f"the parts of {config.data.source} have different {what} ({sorted(values)}); a "
                f"mixture needs records of one detector"
            )
    return DataSpec(
        widths.pop(),
        max(classes, default=0),
        *tokens,
        unlabelled=any(some for *_, some in facts),
        num_attributes=max(attributes, default=0),
    )


def _facts(part: Source) -> tuple[int, int, int, bool]:
    """Feature width, numbers of classes and attributes, and whether some regions have no class."""
    if part.generated:
        from mmt_jax import scenes

        return scenes.FEATURE_DIM, scenes.NUM_CLASSES, 0, False
    if part.kind == "records":
        said = records.reference(part.name)
        rows = {name: shape for name, _, shape in said["columns"]}
        numbers = said["num_classes"], said["num_attributes"]
        return rows["features"][0], *numbers, said["unlabelled"]
    folder = formats.spec(part.name)
    numbers = folder.num_classes, folder.num_attributes
    return folder.feature_dim, *numbers, folder.unlabelled
