"""Captions as tokens: what every tokenizer does.

Preparation, layout and word numbers follow the release's notebook.
"""

from __future__ import annotations

import abc
import os
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmt_jax.configs.models import LAYOUTS
from mmt_jax.errors import UsageError
from mmt_jax.files import whole

if TYPE_CHECKING:
    from mmt_jax.typing import Text

CLS, SEP, PAD, MASK = 3, 4, 5, 6  # in XLNet's vocabulary, and in those that are trained here
SPECIAL = ("<cls>", "<sep>", "<pad>", "<mask>")
SPACE = "\u2581"  # how SentencePiece writes the blank in front of a word


def prepare(caption: str) -> str:
    """White space collapsed, quotes made plain, accents dropped (NFKD), lower case."""
    caption = " ".join(caption.split()).replace("``", '"').replace("''", '"')
    letters = unicodedata.normalize("NFKD", caption)
    return "".join(letter for letter in letters if not unicodedata.combining(letter)).lower()


class Tokenizer(abc.ABC):
    """Captions → token ids, and token ids → arrays.

    Attributes:
      filename: what the file of its vocabulary is called, in workdirs and exported models.
      model: the vocabulary, serialised; `load` reads it.
      vocab_size: V.
      cls_id, sep_id, pad_id, mask_id: of the special tokens.
      starts_word: [V] bool, whether a piece begins a word wherever it stands.
      mask_takes_space: white space in front of the mask token is part of it.
    """

    filename: str
    model: bytes
    vocab_size: int
    cls_id: int
    sep_id: int
    pad_id: int
    mask_id: int
    starts_word: np.ndarray
    mask_takes_space: bool = False

    @abc.abstractmethod
    def encode_all(self, captions: Sequence[str]) -> list[list[int]]:
        """Token ids of each caption, without `[SEP]` and `[CLS]`.

        Raises:
          UsageError: nothing is left of a caption after preparation.
        """

    def within(self, ids: list[int]) -> list[int]:
        """Ids of `encode` for a text in front of which there is no blank."""
        return ids

    @abc.abstractmethod
    def piece(self, token_id: int) -> str:
        """How a piece is written, without the blank in front of a word."""

    def encode(self, caption: str) -> list[int]:
        """`encode_all` of one caption."""
        return self.encode_all([caption])[0]

    def texts(self, captions: Sequence[str], *, length: int, layout: str = "release") -> Text:
        """Captions laid out; arguments and errors as `layout` and `encode_all` have them."""
        return self.layout(self.encode_all(captions), length=length, layout=layout)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the vocabulary, whole or not at all; `vocabulary.load` reads it.

        Raises:
          NoRoomError: it cannot be written.
        """
        with whole(path) as part:
            part.write_bytes(self.model)

    def layout(
        self, encoded: Sequence[Sequence[int]], *, length: int, layout: str = "release"
    ) -> Text:
        """Lays token ids out, cut to length - 2 pieces.

        "release" is `[pad…] [SEP] w1 … wn [CLS]` with segment 2 at [CLS]; its pad positions carry
        the id of `<mask>`, as in the release. "cls_first" is `[CLS] w1 … wn [SEP] [pad…]`. A word
        is numbered from the piece that starts it.

        Args:
          encoded: B lists of token ids.
          length: T.
          layout: a name in `configs.models.LAYOUTS`.

        Returns:
          Numpy arrays [B, T].

        Raises:
          UsageError: `length` leaves no room for a word.
        """
        if length < 3:
            raise UsageError(f"a text length of {length} leaves no room for a word; use 3 or more")
        counts = np.array([min(len(ids), length - 2) for ids in encoded], np.int64)
        flat = np.array([i for ids in encoded for i in ids[: length - 2]], np.int32)
        firsts = np.cumsum(counts) - counts
        row = np.repeat(np.arange(len(counts)), counts)
        cls_first = LAYOUTS[layout] == 0
        start = np.ones_like(counts) if cls_first else length - 1 - counts  # of the first word
        column = np.arange(len(flat)) + (start - firsts)[row]
        columns = np.arange(length)
        separator = (start + counts if cls_first else start - 1)[:, None]
        real = columns <= separator if cls_first else columns >= separator

        filling = self.pad_id if cls_first else self.mask_id
        token_ids = np.full((len(counts), length), filling, np.int32)
        token_ids[columns == separator] = self.sep_id
        token_ids[:, LAYOUTS[layout]] = self.cls_id
        token_ids[row, column] = flat

        words = np.cumsum(self.starts_word[flat])
        word_ids = np.where(real, -1, -2).astype(np.int32)
        word_ids[row, column] = words - words[firsts[row]]

        segment_ids = np.zeros_like(token_ids)
        if not cls_first:
            segment_ids[:, -1] = 2
        from mmt_jax.typing import Text  # brings jax along, which `mmt --help` is not to wait for

        return Text(token_ids, segment_ids, word_ids, real)
