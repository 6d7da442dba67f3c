"""Captions as tokens, as the release prepares them.

Preparation, layout and word numbers follow the release's notebook; the rule that parts a number
from its comma is XLNet's (Yang et al., 2019, arXiv 1906.08237), whose vocabulary the release uses.
Any SentencePiece model serves that has `<cls>`, `<sep>`, `<pad>` and `<mask>` at 3, 4, 5 and 6.
"""

from __future__ import annotations

import io
import os
import pathlib
import string
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import sentencepiece

from mmt_jax.config import UsageError
from mmt_jax.typing import Text

CLS, SEP, PAD, MASK = 3, 4, 5, 6
SPECIAL = {"<cls>": CLS, "<sep>": SEP, "<pad>": PAD, "<mask>": MASK}

_SPACE = "\u2581"  # how SentencePiece writes the blank in front of a word
_WORD_START = tuple(_SPACE + string.punctuation)


def prepare(caption: str) -> str:
    """White space collapsed, quotes made plain, accents dropped (NFKD), lower case."""
    caption = " ".join(caption.split()).replace("``", '"').replace("''", '"')
    letters = unicodedata.normalize("NFKD", caption)
    return "".join(letter for letter in letters if not unicodedata.combining(letter)).lower()


class Tokenizer:
    """A SentencePiece model with the release's rules around it.

    Attributes:
      model: the serialised SentencePiece model, to be stored beside what was trained with it.
      vocab_size: V.
    """

    def __init__(self, model: str | os.PathLike | bytes):
        """Loads a model from its path or its bytes.

        Raises:
          UsageError: no such file, not a SentencePiece model, or special pieces out of place.
        """
        name = "the vocabulary" if isinstance(model, bytes) else str(model)
        self.model = model if isinstance(model, bytes) else _read(model)
        try:
            self._sp = sentencepiece.SentencePieceProcessor(model_proto=self.model)
            self.vocab_size = self._sp.vocab_size()
        except RuntimeError:
            raise UsageError(f"{name} is not a SentencePiece model, or is damaged") from None
        pieces = [self._sp.id_to_piece(index) for index in range(self.vocab_size)]
        self._check_special(pieces, name)
        self._starts_word = np.array([piece.startswith(_WORD_START) for piece in pieces])
        # An unknown piece may hide any text, so it takes the careful way too.
        self._careful = {index for index, piece in enumerate(pieces) if _number_comma(piece)}
        self._careful.add(self._sp.unk_id())

    @staticmethod
    def _check_special(pieces: list[str], name: str) -> None:
        for piece, index in SPECIAL.items():
            if index >= len(pieces) or pieces[index] != piece:
                found = pieces.index(piece) if piece in pieces else "nowhere"
                raise UsageError(
                    f"{name} has {piece} at {found}, it must be at {index}; use XLNet's model or "
                    f"train one with mmt_jax.data.text.train_vocabulary"
                )

    def encode(self, caption: str) -> list[int]:
        """Token ids of one caption, without `[SEP]` and `[CLS]`.

        Raises:
          UsageError: nothing is left of the caption after preparation.
        """
        return self.encode_all([caption])[0]

    def encode_all(self, captions: Sequence[str]) -> list[list[int]]:
        """Token ids of each caption; equal captions are encoded once (and share their list).

        Raises:
          UsageError: nothing is left of a caption after preparation.
        """
        prepared = [prepare(caption) for caption in captions]
        unique = list(dict.fromkeys(prepared))
        encoded = dict(zip(unique, self._sp.encode(unique, out_type=int), strict=True))
        for text, ids in encoded.items():
            if not ids:
                raise UsageError(
                    f"the caption {captions[prepared.index(text)]!r} is empty; give it words or "
                    f"leave it out"
                )
            if not self._careful.isdisjoint(ids):
                encoded[text] = self._encode_carefully(text)
        return [encoded[text] for text in prepared]

    def _encode_carefully(self, text: str) -> list[int]:
        """Splits each piece that ends in a comma after a digit into the number and the comma."""
        pieces = []
        for piece in self._sp.encode(text, out_type=str):
            if not _number_comma(piece):
                pieces.append(piece)
                continue
            number = self._sp.encode(piece[:-1].replace(_SPACE, ""), out_type=str)
            if not piece.startswith(_SPACE) and number[0].startswith(_SPACE):
                inside = number[0].removeprefix(_SPACE)  # this number does not start a word
                number[:1] = [inside] if inside else []
            pieces += [*number, ","]
        return [self._sp.piece_to_id(piece) for piece in pieces]

    def texts(self, captions: Sequence[str], *, length: int) -> Text:
        """`layout(encode_all(captions), length=length)`."""
        return self.layout(self.encode_all(captions), length=length)

    def layout(self, encoded: Sequence[Sequence[int]], *, length: int) -> Text:
        """Lays token ids out as `[pad…] [SEP] w1 … wn [CLS]`, cut to length - 2 pieces.

        Pad positions carry the id of `<mask>`, as in the release. A word is numbered from the piece
        that starts it: one with a leading blank or an ASCII punctuation mark.

        Args:
          encoded: B lists of token ids.
          length: T.

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
        column = length - 1 + np.arange(len(flat)) - (firsts + counts)[row]

        columns = np.arange(length)
        separator = (length - 2 - counts)[:, None]
        token_ids = np.full((len(counts), length), MASK, np.int32)
        token_ids[columns == separator] = SEP
        token_ids[:, -1] = CLS
        token_ids[row, column] = flat

        words = np.cumsum(self._starts_word[flat])
        word_ids = np.where(columns >= separator, -1, -2).astype(np.int32)
        word_ids[row, column] = words - words[firsts[row]]

        segment_ids = np.zeros_like(token_ids)
        segment_ids[:, -1] = 2
        return Text(token_ids, segment_ids, word_ids, word_ids != -2)


def train_vocabulary(captions: Iterable[str], size: int, path: str | os.PathLike) -> pathlib.Path:
    """Trains a vocabulary, as `vocabulary` does, and writes it to `path`.

    An open file of captions, one a line, will do:

      with open("captions.txt", encoding="utf-8") as captions:
          train_vocabulary(captions, 8000, "spiece.model")
    """
    return write_vocabulary(vocabulary(captions, size), path)


def write_vocabulary(model: bytes, path: str | os.PathLike) -> pathlib.Path:
    """Writes a serialised model, whole or not at all."""
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(model)
    os.replace(part, path)
    return path


def vocabulary(captions: Iterable[str], size: int) -> bytes:
    """Trains a unigram SentencePiece model on the prepared captions.

    The same captions and size give the same bytes. Few captions may yield fewer pieces than asked.

    Raises:
      UsageError: no caption, or `size` cannot hold the characters that occur.
    """
    sentences = [text for text in map(prepare, captions) if text]
    if not sentences:
        raise UsageError("a vocabulary needs captions to be trained on, and there is none")
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
            control_symbols=list(SPECIAL),
            num_threads=1,  # more would make the result depend on timing
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UsageError(
            f"no vocabulary of {size} pieces can be trained on these captions "
            f"({str(error).strip()}); set another config.data.vocab_size"
        ) from None
    return model.getvalue()


def _number_comma(piece: str) -> bool:
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()


def _read(path: str | os.PathLike) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"the vocabulary {path} cannot be read: {error.strerror}") from None
