"""Vocabularies of every kind: read, trained and written."""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Iterable

import sentencepiece

from mmt_jax.errors import UsageError
from mmt_jax.files import whole
from mmt_jax.text.base import SPECIAL, Tokenizer, prepare, read
from mmt_jax.text.sentencepiece import SentencePiece

KINDS = ("sentencepiece", "wordpiece", "bpe")


def load(model: str | os.PathLike | bytes) -> Tokenizer:
    """The tokenizer of a vocabulary: a SentencePiece model, `tokenizer.json` or WordPiece's list.

    Args:
      model: its path, or its bytes.

    Raises:
      UsageError: no such file, or no vocabulary of any of these kinds.
    """
    content = model if isinstance(model, bytes) else read(model)
    if content.lstrip().startswith(b"{"):
        from mmt_jax.text.pretrained import PretrainedTokenizer

        return PretrainedTokenizer(content)
    if b"[CLS]" in content.splitlines():
        from mmt_jax.text.pretrained import wordpiece

        return wordpiece(content)
    return SentencePiece(model)


def train_vocabulary(captions: Iterable[str], size: int, path: str | os.PathLike) -> pathlib.Path:
    """Trains a vocabulary, as `vocabulary` does, and writes it to `path`.

    An open file of captions, one a line, will do:

      with open("captions.txt", encoding="utf-8") as captions:
          train_vocabulary(captions, 8000, "spiece.model")
    """
    return write_vocabulary(vocabulary(captions, size), path)


def write_vocabulary(model: bytes, path: str | os.PathLike) -> pathlib.Path:
    """Writes a serialised model, whole or not at all.

    Raises:
      NoRoomError: it cannot be written.
    """
    with whole(path) as part:
        part.write_bytes(model)
    return pathlib.Path(path)


def vocabulary(captions: Iterable[str], size: int, kind: str = "sentencepiece") -> bytes:
    """Trains a vocabulary on the prepared captions; `load` reads what comes out.

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
    model = io.BytesIO()
    try:
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
    except RuntimeError as error:
        raise UsageError(
            f"no vocabulary of {size} pieces can be trained on these captions "
            f"({str(error).strip()}); set another config.data.vocab_size"
        ) from None
    return model.getvalue()
