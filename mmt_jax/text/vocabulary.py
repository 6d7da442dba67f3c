"""Vocabularies of every kind: read, trained, and kept in workdirs."""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Iterable

import sentencepiece

from mmt_jax import progress
from mmt_jax.errors import UsageError, reading, trying
from mmt_jax.text.base import SPECIAL, Tokenizer, prepare
from mmt_jax.text.sentencepiece import SentencePiece

KINDS = ("sentencepiece", "wordpiece", "bpe")
VOCABULARY = SentencePiece.filename  # of a vocabulary that is trained
VOCABULARIES = (VOCABULARY, "tokenizer.json")


def load(model: str | os.PathLike | bytes) -> Tokenizer:
    """The tokenizer of a vocabulary, by its path or its bytes.

    It is a SentencePiece model, a `tokenizer.json` or WordPiece's list.

    Raises:
      UsageError: no such file, or no vocabulary of any of these kinds.
    """
    name = "the vocabulary" if isinstance(model, bytes) else str(model)
    with reading(f"the vocabulary {name}"):
        content = model if isinstance(model, bytes) else pathlib.Path(model).read_bytes()
    if content.lstrip().startswith(b"{"):
        from mmt_jax.text.pretrained import PretrainedTokenizer

        return PretrainedTokenizer(content)
    if b"[CLS]" in content.splitlines():
        from mmt_jax.text.pretrained import wordpiece

        return wordpiece(content)
    return SentencePiece(content, name=name)


def train(captions: Iterable[str], size: int, kind: str = "sentencepiece") -> Tokenizer:
    """Trains a vocabulary on the prepared captions.

    The same captions and size give the same bytes. Few captions may yield fewer pieces than asked.

    Args:
      captions: each as it is written.
      size: number of pieces, special tokens included.
      kind: "sentencepiece" (a unigram model), or "wordpiece" or "bpe" (a `tokenizer.json`).

    Raises:
      UsageError: an unknown kind, no caption, or `size` cannot hold the characters that occur.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown kind of vocabulary {kind!r}; it is one of {', '.join(KINDS)}")
    sentences = [text for text in map(prepare, captions) if text]
    if not sentences:
        raise UsageError("a vocabulary needs captions to be trained on, and there is none")
    if kind != "sentencepiece":
        from mmt_jax.text import pretrained

        return pretrained.train(sentences, size, kind)
    progress.stage(f"training a vocabulary of {size:,} pieces on {len(sentences):,} captions")
    model = io.BytesIO()
    remedy = "; set another config.data.vocab_size"
    with trying(f"no vocabulary of {size} pieces can be trained on these captions", remedy):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            vocab_size=size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            normalization_rule_name="identity",
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            # Control symbols, unlike user-defined ones, cannot be written into a caption.
            control_symbols=list(SPECIAL),  # at CLS, SEP, PAD and MASK
            num_threads=1,  # more would make the result depend on timing
            minloglevel=2,
        )
    return SentencePiece(model.getvalue())


def stored(workdir: str | os.PathLike) -> pathlib.Path | None:
    """The file of the vocabulary that a workdir holds; None = it holds none."""
    paths = (pathlib.Path(workdir) / name for name in VOCABULARIES)
    return next((path for path in paths if path.is_file()), None)


def stored_tokenizer(workdir: str | os.PathLike) -> Tokenizer:
    """The tokenizer of the vocabulary that a workdir holds.

    Raises:
      UsageError: it holds none, or a damaged one.
    """
    if path := stored(workdir):
        return load(path)
    raise UsageError(
        f"{workdir} is not a training workdir: it has no vocabulary ({' or '.join(VOCABULARIES)})"
    )


def store_tokenizer(tokenizer: Tokenizer, workdir: str | os.PathLike) -> None:
    """Writes a tokenizer's vocabulary into a workdir, which is made where absent."""
    tokenizer.save(pathlib.Path(workdir) / tokenizer.filename)
