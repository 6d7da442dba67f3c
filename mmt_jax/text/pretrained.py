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
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmt_jax.errors import UsageError
from mmt_jax.text.base import SPACE, SPECIAL, Tokenizer
from mmt_jax.text.sentencepiece import SentencePiece


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
    # A SentencePiece model's, as `unigram` writes it.
    "Unigram": _Kind(SPECIAL, start=(SPACE, *string.punctuation)),
    # CLIP's, which pads with its [SEP] and hides no word.
    "BPE</w>": _Kind(
        ("<|startoftext|>", "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"), end="</w>"
    ),
}
# Endings of verbs, runs of letters, single digits, runs of anything else but blanks.
_CLIP_WORDS = r"'(?:s|t|re|ve|m|ll|d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
# What vocabularies that are trained here begin with: BERT's special tokens, and RoBERTa's.
_WORDPIECE = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_BYTE_LEVEL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


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
        try:
            self._tokenizer = _library().Tokenizer.from_str(model.decode())
            parts = json.loads(model)["model"]
            kind = parts["type"] + (parts.get("end_of_word_suffix") or "")
        except Exception as error:  # the library raises bare Exceptions
            raise UsageError(
                f"the vocabulary is no tokenizer.json ({error}); take the one of the weights"
            ) from None
        if kind not in _KINDS:
            raise UsageError(
                f"the vocabulary is of the kind {kind}; models here read {' or '.join(_KINDS)}"
            )
        added = self._tokenizer.get_added_tokens_decoder()
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self.vocab_size = self._tokenizer.get_vocab_size()
        row = _KINDS[kind]
        self.special = row.special
        self._end = row.end
        self.cls_id, self.sep_id, self.pad_id, self.mask_id = map(self._special, row.special)
        self.mask_takes_space = self.mask_id in added and added[self.mask_id].lstrip
        pieces = [self._tokenizer.id_to_token(i) or "" for i in range(self.vocab_size)]
        self.starts_word = np.array(
            [
                piece.startswith(row.start) and not (row.inside and piece.startswith(row.inside))
                for piece in pieces
            ]
        )

    def _special(self, token: str) -> int:
        index = self._tokenizer.token_to_id(token)
        if index is None:
            raise UsageError(f"the vocabulary has no {token}; take the one of the weights")
        return index

    def encode_all(self, captions: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer.encode_all`."""
        encoded = self._tokenizer.encode_batch(list(captions), add_special_tokens=False)
        for caption, encoding in zip(captions, encoded, strict=True):
            if not encoding.ids or not caption.strip():
                raise UsageError(f"the caption {caption!r} is empty; give it words or leave it out")
        return [encoding.ids for encoding in encoded]

    def piece(self, token_id: int) -> str:
        """See `Tokenizer.piece`."""
        text = self._tokenizer.decode([token_id], skip_special_tokens=False)
        return text.strip().removesuffix(self._end)


def read(folder: str | os.PathLike) -> PretrainedTokenizer:
    """The tokenizer of a folder of published weights.

    Raises:
      UsageError: the folder has none, or it is damaged.
    """
    folder = pathlib.Path(folder)
    whole = folder / PretrainedTokenizer.filename
    if whole.is_file():
        return PretrainedTokenizer(whole.read_bytes())
    try:
        if (folder / "vocab.txt").is_file():
            built = _wordpiece(folder)
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            built = _of_merges(folder)
        else:
            raise UsageError(
                f"{folder} has no vocabulary; put tokenizer.json, vocab.txt, or vocab.json with "
                f"merges.txt of the weights there"
            )
    except UsageError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        raise UsageError(f"the vocabulary of {folder} cannot be read ({error})") from None
    return PretrainedTokenizer(built.to_str().encode())


def _wordpiece(folder: pathlib.Path) -> Any:
    """BERT's; the folder's `tokenizer_config.json` says whether it lowers the case."""
    settings = folder / "tokenizer_config.json"
    options = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    return _of_pieces(_lines((folder / "vocab.txt").read_bytes().decode()), options)


def _lines(content: str) -> list[str]:
    """A list's pieces: U+2028 and its like, which `splitlines` splits at, are pieces themselves."""
    return content.replace("\r\n", "\n").removesuffix("\n").split("\n")


def _of_pieces(pieces: Sequence[str], options: Mapping[str, Any]) -> Any:
    tokenizers = _library()
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    built = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100)
    )
    built.normalizer = tokenizers.normalizers.BertNormalizer(
        lowercase=options.get("do_lower_case", True), strip_accents=options.get("strip_accents")
    )
    built.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    built.decoder = tokenizers.decoders.WordPiece()
    built.add_special_tokens([t for t in _KINDS["WordPiece"].special if t in vocabulary])
    return built


def unigram(tokenizer: SentencePiece) -> PretrainedTokenizer:
    """The `tokenizer.json` of a SentencePiece model that gives the same ids, for unigram models.

    Of captions in Latin letters, that is: marks that do not combine are dropped (Thai vowels), and
    a number with a comma within a word may be split elsewhere. Normalisation is `text.prepare`'s,
    so the model's own, where it has any, is left out.

    Raises:
      UsageError: it is a BPE model, which splits by other rules.
    """
    pieces = tokenizer.scored_pieces()
    if all(score.is_integer() for _, score in pieces):  # ranks, and no log probabilities
        raise UsageError(
            "the vocabulary is a SentencePiece model of the kind BPE, which cannot be written as "
            "tokenizer.json; train with one of the kind unigram, or with a tokenizer.json"
        )
    specials = tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, tokenizer.mask_id
    for index, name in zip(specials, SPECIAL, strict=True):
        pieces[index] = name, pieces[index][1]
    library = _library()
    own = library.normalizers
    bytewise = any(piece == "<0x00>" for piece, _ in pieces)
    built = library.Tokenizer(library.models.Unigram(pieces, tokenizer.unk_id, bytewise))
    built.normalizer = own.Sequence(
        [
            *(own.Replace(library.Regex(r"\s+"), " "), own.Strip()),
            *(own.Replace(quotes, '"') for quotes in ("``", "''")),
            *(own.NFKD(), own.StripAccents(), own.Lowercase()),
            *(own.Replace(library.Regex(r"\s+"), " "), own.Strip()),  # NFKD makes blanks of some
        ]
    )
    splits = library.pre_tokenizers
    # Where a caption writes <mask> or <s>, the bracket stands apart, so that it stays text.
    bracket = library.Regex(r"<(?=/?\w+>)")
    built.pre_tokenizer = splits.Sequence(
        [splits.Metaspace(replacement=SPACE), splits.Split(bracket, "isolated")]
    )
    built.decoder = library.decoders.Metaspace(replacement=SPACE)
    built.add_special_tokens(list(SPECIAL))
    return PretrainedTokenizer(built.to_str().encode())


def for_transformers(tokenizer: Tokenizer) -> dict[str, bytes]:
    """The files, by name, from which transformers' `AutoTokenizer` makes the same tokenizer.

    Its ids are those of `encode_all` between [CLS] and [SEP], but that it reads special tokens that
    a caption writes. The class is named, for that of a
    model's family would take a vocabulary of another kind for its own, and make [UNK] of each word.

    Raises:
      UsageError: see `unigram`.
    """
    found = unigram(tokenizer) if isinstance(tokenizer, SentencePiece) else tokenizer
    assert isinstance(found, PretrainedTokenizer)
    content = json.loads(found.model)
    cls, sep, pad, mask = found.special
    names = {"bos": cls, "eos": sep, "cls": cls, "sep": sep, "pad": pad}
    if mask != sep:  # CLIP hides no word
        names["mask"] = mask
    if unknown := _unknown(content["model"]):
        names["unk"] = unknown
    if not content.get("post_processor"):
        whole = _library().Tokenizer.from_str(found.model.decode())
        ends = [(cls, found.cls_id), (sep, found.sep_id)]
        whole.post_processor = _library().processors.TemplateProcessing(
            single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B:1 {sep}:1", special_tokens=ends
        )
        content = json.loads(whole.to_str())
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings |= {f"{role}_token": token for role, token in names.items()}
    return {
        found.filename: json.dumps(content, ensure_ascii=False).encode(),
        "tokenizer_config.json": json.dumps(settings, indent=2).encode(),
    }


def _unknown(model: Mapping[str, Any]) -> str | None:
    """The piece for what the `model` of a `tokenizer.json` has no other for."""
    if model["type"] == "Unigram":
        return model["vocab"][model["unk_id"]][0]
    return model.get("unk_token")


def wordpiece(content: bytes) -> PretrainedTokenizer:
    """The tokenizer of a `vocab.txt`: a piece a line; like BERT's uncased, it lowers the case.

    Raises:
      UsageError: it is not UTF-8, or lacks a special token.
    """
    try:
        pieces = _lines(content.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"the list of pieces is not UTF-8 ({error}); write it again") from None
    return PretrainedTokenizer(_of_pieces(pieces, {}).to_str().encode())


def train(sentences: Sequence[str], size: int, kind: str) -> bytes:
    """Trains WordPiece with BERT's normalisation, or byte-level BPE that lowers the case.

    Args:
      sentences: prepared captions, at least one.
      size: number of pieces, special tokens included.
      kind: "wordpiece" or "bpe".

    Returns:
      A `tokenizer.json`. The same sentences and size give the same bytes.

    Raises:
      UsageError: `size` cannot hold the special tokens and the characters that occur.
    """
    built = _empty(kind)
    if kind == "wordpiece":
        letters = sorted({letter for text in sentences for letter in text if not letter.isspace()})
        # Given an order, for the library's own differs from run to run.
        first = [*_WORDPIECE, *letters, *(f"##{letter}" for letter in letters)]
        trainer = _library().trainers.WordPieceTrainer
    else:
        first = [*_BYTE_LEVEL, *sorted(_library().pre_tokenizers.ByteLevel.alphabet())]
        trainer = _library().trainers.BpeTrainer
    if size < len(first):
        raise UsageError(
            f"a {kind} vocabulary of {size} pieces cannot hold the special tokens and the "
            f"characters of these captions; ask for {len(first)} or more"
        )
    built.train_from_iterator(
        sentences, trainer(vocab_size=size, special_tokens=first, show_progress=False)
    )
    content = json.loads(built.to_str())
    special = _WORDPIECE if kind == "wordpiece" else _BYTE_LEVEL
    content["added_tokens"] = [row for row in content["added_tokens"] if row["content"] in special]
    return json.dumps(content, ensure_ascii=False).encode()


def _empty(kind: str) -> Any:
    """A tokenizer that has learned nothing yet."""
    library = _library()
    if kind == "wordpiece":
        return _of_pieces(_WORDPIECE, {})
    built = library.Tokenizer(library.models.BPE())
    own = library.normalizers
    built.normalizer = own.Sequence([own.NFKD(), own.StripAccents(), own.Lowercase()])
    built.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = library.decoders.ByteLevel()
    return built


def _of_merges(folder: pathlib.Path) -> Any:
    """CLIP's where the vocabulary has CLIP's special tokens, else RoBERTa's."""
    pieces = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    return _clip(*files) if _KINDS["BPE</w>"].special[0] in pieces else _byte_level(*files)


def _byte_level(vocabulary: str, merges: str) -> Any:
    """RoBERTa's."""
    tokenizers = _library()
    built = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(vocabulary, merges))
    built.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = tokenizers.decoders.ByteLevel()
    special = [t for t in _KINDS["BPE"].special if built.token_to_id(t) is not None]
    built.add_special_tokens([tokenizers.AddedToken(t, lstrip=t == "<mask>") for t in special])
    return built


def _clip(vocabulary: str, merges: str) -> Any:
    """CLIP's (Radford et al., 2021, arXiv 2103.00020): lower case, and no blank within a piece."""
    tokenizers = _library()
    row = _KINDS["BPE</w>"]
    model = tokenizers.models.BPE.from_file(
        vocabulary, merges, unk_token=row.special[1], end_of_word_suffix=row.end
    )
    built = tokenizers.Tokenizer(model)
    own, splits = tokenizers.normalizers, tokenizers.pre_tokenizers
    built.normalizer = own.Sequence(
        [own.NFC(), own.Replace(tokenizers.Regex(r"\s+"), " "), own.Lowercase()]
    )
    words = tokenizers.Regex(_CLIP_WORDS)
    built.pre_tokenizer = splits.Sequence(
        [splits.Split(words, "removed", invert=True), splits.ByteLevel(add_prefix_space=False)]
    )
    built.decoder = tokenizers.decoders.ByteLevel()
    built.add_special_tokens([t for t in row.special[:2] if built.token_to_id(t) is not None])
    return built


def _library() -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError:
        raise UsageError(
            "the vocabulary of published weights needs the package tokenizers; run "
            "pip install 'mmt_jax[hf]'"
        ) from None
    return tokenizers
