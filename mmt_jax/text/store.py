"""The vocabulary that lies in a workdir."""

from __future__ import annotations

import os
import pathlib

from mmt_jax.errors import UsageError
from mmt_jax.text import vocabulary
from mmt_jax.text.base import Tokenizer
from mmt_jax.text.sentencepiece import SentencePiece

VOCABULARY = SentencePiece.filename  # of a vocabulary that is trained
VOCABULARIES = (VOCABULARY, "tokenizer.json")


def has_vocabulary(workdir: str | os.PathLike) -> bool:
    """Whether a workdir holds a vocabulary."""
    return any((pathlib.Path(workdir) / name).is_file() for name in VOCABULARIES)


def stored_tokenizer(workdir: str | os.PathLike) -> Tokenizer:
    """The tokenizer of the vocabulary that a workdir holds.

    Raises:
      UsageError: it holds none, or a damaged one.
    """
    for name in VOCABULARIES:
        if (path := pathlib.Path(workdir) / name).is_file():
            return vocabulary.load(path)
    raise UsageError(
        f"{workdir} is not a training workdir: it has no vocabulary ({' or '.join(VOCABULARIES)})"
    )


def store_tokenizer(tokenizer: Tokenizer, workdir: str | os.PathLike) -> None:
    """Writes a tokenizer's vocabulary into a workdir, which is made where absent."""
    tokenizer.save(pathlib.Path(workdir) / tokenizer.filename)
