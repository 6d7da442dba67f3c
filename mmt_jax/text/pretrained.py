"""Tokenizers that come with published weights: WordPiece and byte-level BPE, by `tokenizers`.

A checkpoint's folder holds `tokenizer.json`, or the older files that it is made of: `vocab.txt`
(WordPiece: BERT, LXMERT) or `vocab.json` with `merges.txt` (byte-level BPE: RoBERTa, BridgeTower,
and CLIP's, in which `</w>` ends a word).
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmt_jax.errors import UsageError, optional, trying
from mmt_jax.text.base import SPACE, SPECIAL, Tokenizer


@dataclasses.dataclass(frozen=True)
class _Kind:
    """How a kind of vocabulary writes special tokens, and pieces within a word."""

    special: tuple[str, ...]  # [CLS], [SEP], [PAD], [MASK]
    inside: str = ""  # pieces within a word begin with it
    start: tuple[str, ...] = ("",)  # and these others begin a word
    end: str = ""  # the last piece of a word ends with it


_KINDS = {
    "WordPiece": _Kind(("[CLS]", "[SEP]", "[PAD]", "[MASK]"), inside="##"),
    "BPE": _Kind(("<s>", "</s>", "<pad>", "<mask>"), start=("\u0120", *string.punctuation)),
    # A SentencePiece model's, as `huggingface.unigram` writes it.
    "Unigram": _Kind(SPECIAL, start=(SPACE, *string.punctuation)),
    # CLIP's, which pads with its [SEP] and hides no word.
    "BPE</w>": _Kind(
        ("<|startoftext|>", "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"), end="</w>"
    ),
}
# Endings of verbs, runs of letters, single digits, runs of anything else but blanks.
_CLIP_WORDS = r"'(?:s|t|re|ve|m|ll|d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
# What vocabularies that are trained here begin with: BERT's special tokens, and RoBERTa's.
_FIRST = {
    "wordpiece": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "bpe": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
}


class PretrainedTokenizer(Tokenizer):
    """The tokenizer of published weights, with its own normalisation. Special tokens are text.

    Attributes:
      special: how [CLS], [SEP], [PAD] and [MASK] are written.
    """

    filename = "tokenizer.json"

    def __init__(self, model: bytes):
        """Reads the content of a `tokenizer.json`.

        Raises:
          UsageError: it is damaged, of a kind that no model here reads, or lacks a special token.
        """
        self.model = model
        with trying("the vocabulary is no tokenizer.json", "; take the one of the weights"):
            self._tokenizer = library().Tokenizer.from_str(model.decode())
            parts = json.loads(model)["model"]
            kind = parts["type"] + (parts.get("end_of_word_suffix") or "")
        if kind not in _KINDS:
            raise UsageError(
                f"the vocabulary is of the kind {kind}; models here read {' or '.join(_KINDS)}"
            )
        row = _KINDS[kind]
        self.special, self._end = row.special, row.end
        ids = [self._tokenizer.token_to_id(token) for token in row.special]
        for token, index in zip(row.special, ids, strict=True):
            if index is None:
                raise UsageError(f"the vocabulary has no {token}; take the one of the weights")
        self.cls_id, self.sep_id, self.pad_id, self.mask_id = ids
        added = self._tokenizer.get_added_tokens_decoder()
        self.mask_takes_space = self.mask_id in added and added[self.mask_id].lstrip
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self.vocab_size = self._tokenizer.get_vocab_size()
        pieces = [self._tokenizer.id_to_token(i) or "" for i in range(self.vocab_size)]
        inside = row.inside or "\n"  # no piece begins with that
        self.starts_word = np.array(
            [piece.startswith(row.start) and not piece.startswith(inside) for piece in pieces]
        )

    def encode_all(self, captions: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer.encode_batch(list(captions), add_special_tokens=False)
        for caption, encoding in zip(captions, encoded, strict=True):
            if not encoding.ids or not caption.strip():
                raise UsageError(f"the caption {caption!r} is empty; give it words or leave it out")
        return [encoding.ids for encoding in encoded]

    def piece(self, token_id: int) -> str:
        text = self._tokenizer.decode([token_id], skip_special_tokens=False)
        return text.strip().removesuffix(self._end)


def read(folder: str | os.PathLike) -> PretrainedTokenizer:
    """The tokenizer of a folder of published weights.

    Raises:
      UsageError: the folder has none, or it is damaged.
    """
    folder = pathlib.Path(folder)
    whole, listed, pieces, merges = (
        folder / name
        for name in (PretrainedTokenizer.filename, "vocab.txt", "vocab.json", "merges.txt")
    )
    if whole.is_file():
        return PretrainedTokenizer(whole.read_bytes())
    with trying(f"the vocabulary of {folder} cannot be read"):
        if listed.is_file():
            settings = folder / "tokenizer_config.json"  # says whether the case is lowered
            options = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
            built = _wordpiece(_lines(listed.read_bytes()), options)
        elif pieces.is_file() and merges.is_file():
            known = json.loads(pieces.read_text(encoding="utf-8"))
            made = _clip if _KINDS["BPE</w>"].special[0] in known else _roberta
            built = made(str(pieces), str(merges))
        else:
            raise UsageError(
                f"{folder} has no vocabulary; put tokenizer.json, vocab.txt, or vocab.json with "
                f"merges.txt of the weights there"
            )
    return PretrainedTokenizer(built.to_str().encode())


def wordpiece(content: bytes) -> PretrainedTokenizer:
    """The tokenizer of a `vocab.txt`: a piece a line; like BERT's uncased, it lowers the case.

    Raises:
      UsageError: it is not UTF-8, or lacks a special token.
    """
    with trying("the list of pieces is not UTF-8", "; write it again"):
        pieces = _lines(content)
    return PretrainedTokenizer(_wordpiece(pieces, {}).to_str().encode())


def train(sentences: Sequence[str], size: int, kind: str) -> PretrainedTokenizer:
    """Trains WordPiece with BERT's normalisation, or byte-level BPE that lowers the case.

    Args:
      sentences: prepared captions, at least one.
      size: number of pieces, special tokens included.
      kind: "wordpiece" or "bpe".

    Raises:
      UsageError: `size` cannot hold the special tokens and the characters that occur.
    """
    lib, special = library(), _FIRST[kind]
    if kind == "wordpiece":
        built, trainer = _wordpiece(special, {}), lib.trainers.WordPieceTrainer
        letters = sorted({letter for text in sentences for letter in text if not letter.isspace()})
        # Given an order, for the library's own differs from run to run.
        first = [*special, *letters, *(f"##{letter}" for letter in letters)]
    else:
        own = lib.normalizers
        built, trainer = _byte_level(lib.models.BPE()), lib.trainers.BpeTrainer
        built.normalizer = own.Sequence([own.NFKD(), own.StripAccents(), own.Lowercase()])
        first = [*special, *sorted(lib.pre_tokenizers.ByteLevel.alphabet())]
    if size < len(first):
        raise UsageError(
            f"a {kind} vocabulary of {size} pieces cannot hold the special tokens and the "
            f"characters of these captions; ask for {len(first)} or more"
        )
    built.train_from_iterator(
        sentences, trainer(vocab_size=size, special_tokens=first, show_progress=False)
    )
    content = json.loads(built.to_str())
    content["added_tokens"] = [row for row in content["added_tokens"] if row["content"] in special]
    return PretrainedTokenizer(json.dumps(content, ensure_ascii=False).encode())


def _lines(content: bytes) -> list[str]:
    """A list's pieces: U+2028 and its like, which `splitlines` splits at, are pieces themselves."""
    return content.decode().replace("\r\n", "\n").removesuffix("\n").split("\n")


def _wordpiece(pieces: Sequence[str], options: dict[str, Any]) -> Any:
    """BERT's."""
    lib = library()
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    built = lib.Tokenizer(
        lib.models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100)
    )
    built.normalizer = lib.normalizers.BertNormalizer(
        lowercase=options.get("do_lower_case", True), strip_accents=options.get("strip_accents")
    )
    built.pre_tokenizer = lib.pre_tokenizers.BertPreTokenizer()
    built.decoder = lib.decoders.WordPiece()
    built.add_special_tokens([t for t in _KINDS["WordPiece"].special if t in vocabulary])
    return built


def _byte_level(model: Any) -> Any:
    lib = library()
    built = lib.Tokenizer(model)
    built.pre_tokenizer = lib.pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = lib.decoders.ByteLevel()
    return built


def _roberta(vocabulary: str, merges: str) -> Any:
    lib = library()
    built = _byte_level(lib.models.BPE.from_file(vocabulary, merges))
    special = [t for t in _KINDS["BPE"].special if built.token_to_id(t) is not None]
    built.add_special_tokens([lib.AddedToken(t, lstrip=t == "<mask>") for t in special])
    return built


def _clip(vocabulary: str, merges: str) -> Any:
    """CLIP's (Radford et al., 2021, arXiv 2103.00020): lower case, and no blank within a piece."""
    lib, row = library(), _KINDS["BPE</w>"]
    model = lib.models.BPE.from_file(
        vocabulary, merges, unk_token=row.special[1], end_of_word_suffix=row.end
    )
    built, own, splits = _byte_level(model), lib.normalizers, lib.pre_tokenizers
    built.normalizer = own.Sequence(
        [own.NFC(), own.Replace(lib.Regex(r"\s+"), " "), own.Lowercase()]
    )
    words = splits.Split(lib.Regex(_CLIP_WORDS), "removed", invert=True)
    built.pre_tokenizer = splits.Sequence([words, built.pre_tokenizer])
    built.add_special_tokens([t for t in row.special[:2] if built.token_to_id(t) is not None])
    return built


def library() -> Any:
    """The package tokenizers.

    Raises:
      UsageError: it is not installed.
    """
    with optional("the vocabulary of published weights needs tokenizers", "hf"):
        import tokenizers
    return tokenizers
