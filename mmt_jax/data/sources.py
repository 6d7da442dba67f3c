"""Names of data and what they stand for.

A source is one of `KINDS`, or several separated by commas: a mixture. A kind is a subclass of
`source.Source` in a file of its own, and a line here.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence

from mmt_jax.configs.config import Config, DataSpec
from mmt_jax.corpus import Corpus, Outline, Photos, agreed
from mmt_jax.data.album import PhotoFolder, Prepared
from mmt_jax.data.formats import RegionFolder
from mmt_jax.data.generated import Scenes
from mmt_jax.data.records import PackedRecords
from mmt_jax.data.source import Source
from mmt_jax.errors import UsageError
from mmt_jax.text import base, sentencepiece, vocabulary

KINDS: tuple[type[Source], ...] = (*(Scenes, RegionFolder, PackedRecords), *(PhotoFolder, Prepared))

_EVAL_SPLITS = ("val", "dev", "validation")


def parse(source: str) -> tuple[Source, ...]:
    """Parts of a mixture.

    Raises:
      UsageError: a part is of no known form.
    """
    return tuple(_parse_one(part.strip()) for part in source.split(","))


def _parse_one(source: str) -> Source:
    for kind in KINDS:
        rest = source.removeprefix(kind.kind)
        if rest != source and (found := kind.parse(rest)):
            return found
    *forms, last = (kind.form for kind in KINDS)
    raise UsageError(
        f"unknown source {source!r}; a source is {', '.join(forms)} or {last}, or several of them "
        f"separated by commas"
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
    """Loads the corpora of a source, or opens those that are read photo by photo.

    Arguments and errors are those of `Source.load`, for each part.
    """
    return [
        part.load(split, seed=seed, size=size, pixels=pixels, bare=bare) for part in parse(source)
    ]


def outlines(source: str, split: str, *, size: int | None = None) -> list[Outline]:
    """Captions and numbers of regions of a source's corpora; features on disk are not read."""
    return [part.outline(split, size=size) for part in parse(source)]


def blocks(source: str, split: str, *, pixels: bool = False) -> Iterator[Corpus]:
    """The photos of a source that is no mixture, a few hundred at a time.

    Raises:
      UsageError: as `load`, or the source has several parts.
    """
    part, *others = parse(source)
    if others:
        raise UsageError(f"{source} is a mixture; take one part at a time")
    return part.blocks(split, pixels=pixels)


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


def at_level(source: str, level: int) -> str:
    """The source with its generated parts at a level of `mmt_jax.scenes.levels`."""
    Scenes.parse(f"@{level}")
    return ",".join(
        str(dataclasses.replace(part, level=level) if isinstance(part, Scenes) else part)
        for part in parse(source)
    )


def eval_source(config: Config) -> tuple[str, str]:
    """Source and split of a run's evaluation, defaults filled in.

    Generated corpora are evaluated on `scenes`, at the level of the first; others on the (first)
    folder that they were trained on.

    Raises:
      UsageError: the source has no split that is known to be for evaluation.
    """
    source = config.eval.source
    if source is None:
        parts = parse(config.data.source)
        levels = [part.level for part in parts if isinstance(part, Scenes)]
        folders = [str(part) for part in parts if not isinstance(part, Scenes)]
        source = folders[0] if folders else str(Scenes("target", levels[0]))
    return source, config.eval.split or eval_split(source)


def eval_split(source: str) -> str:
    """The split for evaluation while training: `val`, or whatever a folder calls it.

    Raises:
      UsageError: a folder has none of the usual names.
    """
    shared = set.intersection(*(set(part.splits()) for part in parse(source)))
    for name in _EVAL_SPLITS:
        if name in shared:
            return name
    raise UsageError(
        f"{source} has no split {' or '.join(_EVAL_SPLITS)}; name one with config.eval.split ("
        f"there is {', '.join(sorted(shared)) or 'none that all parts have'}), or hold out some "
        f"photos: config.data.split=train[:92%] and config.eval.split=train[92%:]"
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
    if workdir is not None and vocabulary.stored(workdir):
        kept = vocabulary.stored_tokenizer(workdir)
        if config.data.vocab and vocabulary.load(config.data.vocab).model != kept.model:
            raise UsageError(
                f"{pathlib.Path(workdir) / kept.filename} is not config.data.vocab "
                f"({config.data.vocab}); leave that unset to go on with the workdir's vocabulary, "
                f"or use another workdir"
            )
        return kept
    if config.data.vocab:
        result = vocabulary.load(config.data.vocab)
    else:
        result = vocabulary.train(sentences or _sentences(config), config.data.vocab_size)
    if workdir is not None:
        vocabulary.store_tokenizer(result, workdir)
    return result


def _sentences(config: Config) -> list[str]:
    """The generated grammar's captions, and those of other sources' `config.data.split`.

    All generated corpora share one vocabulary, so that a model can move from one to another.
    """
    parts = parse(config.data.source)
    captions: list[str] = []
    if any(part.generated for part in parts):
        from mmt_jax import scenes

        captions += scenes.vocabulary_captions()
    for part in dict.fromkeys(part for part in parts if not part.generated):
        captions += part.outline(config.data.split).all_captions()
    return captions


def spec(config: Config, tokenizer: base.Tokenizer | None = None) -> DataSpec:
    """What the data asks of the model; no corpus is generated or read whole for it.

    Without a tokenizer the vocabulary has `config.data.vocab_size` pieces.

    Raises:
      UsageError: the parts of a mixture do not fit together.
    """
    vocab_size = tokenizer.vocab_size if tokenizer else config.data.vocab_size
    special = sentencepiece.SentencePiece if tokenizer is None else tokenizer
    tokens = vocab_size, special.mask_id, special.pad_id
    if config.model.pixels:
        return DataSpec(3 * config.model.patch_size**2, 0, *tokens, unlabelled=True)
    specs = [(str(part), part.spec()) for part in parse(config.data.source)]
    return DataSpec(
        agreed(specs, "feature_dim"),
        agreed(specs, "num_classes"),
        *tokens,
        unlabelled=any(each.unlabelled for _, each in specs),
        num_attributes=agreed(specs, "num_attributes"),
    )
