"""Captions as tokens: what every tokenizer does, and SentencePiece as the release uses it.

Preparation, layout and word numbers follow the release's notebook; the rule that parts a number
from its comma is XLNet's (Yang et al., 2019, arXiv 1906.08237), whose vocabulary the release uses.
Any SentencePiece model serves: of the four special tokens, those that it lacks follow its pieces.
"""

from __future__ import annotations

import abc
import io
import os
import pathlib
import string
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import sentencepiece

from mmt_jax.config import UsageError
from mmt_jax.data.writer import whole
from mmt_jax.model_config import LAYOUTS
from mmt_jax.typing import Text

CLS, SEP, PAD, MASK = 3, 4, 5, 6  # in XLNet's vocabulary, and in those that are trained here
KINDS = ("sentencepiece", "wordpiece", "bpe")
SPECIAL = ("<cls>", "<sep>", "<pad>", "<mask>")

SPACE = "\u2581"  # how SentencePiece writes the blank in front of a word
_WORD_START = tuple(SPACE + string.punctuation)
_NEVER = -1e4  # a log probability below that of any caption without the piece


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
        """`layout(encode_all(captions), length=length, layout=layout)`."""
        return self.layout(self.encode_all(captions), length=length, layout=layout)

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
          layout: a name in `model_config.LAYOUTS`.

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
        return Text(token_ids, segment_ids, word_ids, real)


class SentencePiece(Tokenizer):
    """A SentencePiece model with the release's rules around it.

    Special tokens are its pieces `<cls>`, `<sep>`, `<pad>` and `<mask>` (XLNet's), or `[CLS]`, …
    (ALBERT's); one that it lacks takes the first free id after its pieces.
    """

    filename = "spiece.model"
    cls_id, sep_id, pad_id, mask_id = CLS, SEP, PAD, MASK

    def __init__(self, model: str | os.PathLike | bytes):
        """Loads a model from its path or its bytes.

        Raises:
          UsageError: no such file, or not a SentencePiece model.
        """
        name = "the vocabulary" if isinstance(model, bytes) else str(model)
        self.model = model if isinstance(model, bytes) else _read(model)
        if not self.model:  # of which the library would make a processor of no pieces
            raise UsageError(f"{name} is empty; it must hold a SentencePiece model")
        try:
            self._sp = sentencepiece.SentencePieceProcessor(model_proto=self.model)
            size = self._sp.vocab_size()
        except RuntimeError:
            raise UsageError(f"{name} is not a SentencePiece model, or is damaged") from None
        pieces = [self._sp.id_to_piece(index) for index in range(size)]
        for name in SPECIAL:
            if not {name, _bracketed(name)} & {*pieces}:
                pieces.append(name)
        ids = {piece: index for index, piece in enumerate(pieces)}
        self.cls_id, self.sep_id, self.pad_id, self.mask_id = (
            ids[name if name in ids else _bracketed(name)] for name in SPECIAL
        )
        self._pieces, self._ids = pieces, ids
        self.vocab_size = len(pieces)
        self.starts_word = np.array([piece.startswith(_WORD_START) for piece in pieces])
        # An unknown piece may hide any text, so it takes the careful way too.
        self._careful = {index for index, piece in enumerate(pieces) if _number_comma(piece)}
        self.unk_id = self._sp.unk_id()
        self._careful.add(self.unk_id)

    def encode_all(self, captions: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer.encode_all`; equal captions are encoded once (and share their list)."""
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

    def piece(self, token_id: int) -> str:
        """See `Tokenizer.piece`."""
        return self._pieces[token_id].replace(SPACE, "")

    def within(self, ids: list[int]) -> list[int]:
        """See `Tokenizer.within`: every text gets a blank in front, which goes where it can."""
        piece = self._pieces[ids[0]]
        inside = self._ids.get(piece.removeprefix(SPACE))
        if piece == SPACE:
            return ids[1:]
        return ids if inside is None else [inside, *ids[1:]]

    def scored_pieces(self) -> list[tuple[str, float]]:
        """The V pieces by id, each with its score: of unigram models, its log probability.

        Pieces that are special, or that `encode_all` parts further, have a score that keeps them
        out of every caption.
        """
        size = self._sp.vocab_size()
        return [
            (piece, _NEVER if i >= size or self._kept_out(i) else self._sp.get_score(i))
            for i, piece in enumerate(self._pieces)
        ]

    def _kept_out(self, index: int) -> bool:
        sp = self._sp
        special = sp.is_control(index) or sp.is_unknown(index) or sp.is_byte(index)
        return special or _number_comma(self._pieces[index])

    def _encode_carefully(self, text: str) -> list[int]:
        """Splits each piece that ends in a comma after a digit into the number and the comma."""
        pieces = []
        for piece in self._sp.encode(text, out_type=str):
            if not _number_comma(piece):
                pieces.append(piece)
                continue
            number = self._sp.encode(piece[:-1].replace(SPACE, ""), out_type=str)
            if not piece.startswith(SPACE) and number[0].startswith(SPACE):
                inside = number[0].removeprefix(SPACE)  # this number does not start a word
                number[:1] = [inside] if inside else []
            pieces += [*number, ","]
        return [self._sp.piece_to_id(piece) for piece in pieces]


def load(model: str | os.PathLike | bytes) -> Tokenizer:
    """The tokenizer of a vocabulary: a SentencePiece model, `tokenizer.json` or WordPiece's list.

    Args:
      model: its path, or its bytes.

    Raises:
      UsageError: no such file, or no vocabulary of any of these kinds.
    """
    content = model if isinstance(model, bytes) else _read(model)
    if content.lstrip().startswith(b"{"):
        from mmt_jax.data.pretrained_text import PretrainedTokenizer

        return PretrainedTokenizer(content)
    if b"[CLS]" in content.splitlines():
        from mmt_jax.data.pretrained_text import wordpiece

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
        from mmt_jax.data import pretrained_text

        return pretrained_text.train(sentences, size, kind)
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


def _bracketed(name: str) -> str:
    """`<cls>` as `[CLS]`."""
    return f"[{name[1:-1].upper()}]"


def _number_comma(piece: str) -> bool:
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()


def _read(path: str | os.PathLike) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"the vocabulary {path} cannot be read: {error.strerror}") from None
