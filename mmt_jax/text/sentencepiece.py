"""SentencePiece as the release uses it.

The rule that parts a number from its comma is XLNet's (Yang et al., 2019, arXiv 1906.08237), whose
vocabulary the release uses. Any SentencePiece model serves: of the four special tokens, those that
it lacks follow its pieces.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
import sentencepiece

from mmt_jax.errors import UsageError
from mmt_jax.text.base import CLS, MASK, PAD, SEP, SPACE, SPECIAL, Tokenizer, prepare

_WORD_START = tuple(SPACE + string.punctuation)
_NEVER = -1e4  # a log probability below that of any caption without the piece


class SentencePiece(Tokenizer):
    """A SentencePiece model with the release's rules around it.

    Special tokens are its pieces `<cls>`, `<sep>`, `<pad>` and `<mask>` (XLNet's), or `[CLS]`, …
    (ALBERT's); one that it lacks takes the first free id after its pieces.
    """

    filename = "spiece.model"
    cls_id, sep_id, pad_id, mask_id = CLS, SEP, PAD, MASK

    def __init__(self, model: bytes, *, name: str = "the vocabulary"):
        """Loads a serialised model, which messages call `name`.

        Raises:
          UsageError: it is none.
        """
        self.model = model
        try:
            if not model:  # of which the library would make a processor of no pieces
                raise RuntimeError
            self._sp = sentencepiece.SentencePieceProcessor(model_proto=model)
            size = self._sp.vocab_size()
        except RuntimeError:
            raise UsageError(f"{name} is not a SentencePiece model, or is damaged") from None
        pieces = [self._sp.id_to_piece(index) for index in range(size)]
        pieces += [name for name in SPECIAL if not {name, _bracketed(name)} & {*pieces}]
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
        """Equal captions are encoded once (and share their list)."""
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
        return self._pieces[token_id].replace(SPACE, "")

    def within(self, ids: list[int]) -> list[int]:
        """Every text gets a blank in front, which goes where it can."""
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


def _bracketed(name: str) -> str:
    """`<cls>` as `[CLS]`."""
    return f"[{name[1:-1].upper()}]"


def _number_comma(piece: str) -> bool:
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()
