"""Tokenizers written for Hugging Face's transformers."""

from __future__ import annotations

import json

from mmt_jax.errors import UsageError
from mmt_jax.text.base import SPACE, SPECIAL, Tokenizer
from mmt_jax.text.pretrained import PretrainedTokenizer, library
from mmt_jax.text.sentencepiece import SentencePiece


def files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """The files, by name, from which transformers' `AutoTokenizer` makes the same tokenizer.

    Its ids are those of `encode_all` between [CLS] and [SEP], but that it reads special tokens that
    a caption writes. The class is named, for that of a model's family would take a vocabulary of
    another kind for its own, and make [UNK] of each word.

    Raises:
      UsageError: as `unigram`.
    """
    found = unigram(tokenizer) if isinstance(tokenizer, SentencePiece) else tokenizer
    assert isinstance(found, PretrainedTokenizer)
    content = json.loads(found.model)
    cls, sep, pad, mask = found.special
    names = {"bos": cls, "eos": sep, "cls": cls, "sep": sep, "pad": pad}
    if mask != sep:  # CLIP hides no word
        names["mask"] = mask
    model = content["model"]
    if model["type"] == "Unigram":
        names["unk"] = model["vocab"][model["unk_id"]][0]
    elif model.get("unk_token"):
        names["unk"] = model["unk_token"]
    if not content.get("post_processor"):
        whole = library().Tokenizer.from_str(found.model.decode())
        ends = [(cls, found.cls_id), (sep, found.sep_id)]
        whole.post_processor = library().processors.TemplateProcessing(
            single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B:1 {sep}:1", special_tokens=ends
        )
        content = json.loads(whole.to_str())
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings |= {f"{role}_token": token for role, token in names.items()}
    return {
        found.filename: json.dumps(content, ensure_ascii=False).encode(),
        "tokenizer_config.json": json.dumps(settings, indent=2).encode(),
    }


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
    lib = library()
    own, splits = lib.normalizers, lib.pre_tokenizers
    bytewise = any(piece == "<0x00>" for piece, _ in pieces)
    built = lib.Tokenizer(lib.models.Unigram(pieces, tokenizer.unk_id, bytewise))
    blanks = [own.Replace(lib.Regex(r"\s+"), " "), own.Strip()]
    built.normalizer = own.Sequence(
        [
            *blanks,
            *(own.Replace(quotes, '"') for quotes in ("``", "''")),
            *(own.NFKD(), own.StripAccents(), own.Lowercase()),
            *blanks,  # NFKD makes some
        ]
    )
    # Where a caption writes <mask> or <s>, the bracket stands apart, so that it stays text.
    bracket = lib.Regex(r"<(?=/?\w+>)")
    built.pre_tokenizer = splits.Sequence(
        [splits.Metaspace(replacement=SPACE), splits.Split(bracket, "isolated")]
    )
    built.decoder = lib.decoders.Metaspace(replacement=SPACE)
    built.add_special_tokens(list(SPECIAL))
    return PretrainedTokenizer(built.to_str().encode())
