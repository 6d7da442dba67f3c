"""Trains a vocabulary on captions.

  mmt data vocab --data=regions:my_photos --kind=wordpiece --size=8000 --out=tokenizer.json

FILE of captions is one that `mmt data convert` takes. Kinds are sentencepiece (a unigram model, the
default), wordpiece (as BERT's) and bpe (bytes, as RoBERTa's); the last two write a tokenizer.json
and need pip install 'mmt_jax[hf]'. Captions are lowered and lose their accents, as those that
models read. The same captions and size give the same file; few captions may yield fewer pieces than
asked. Train with it by --config.data.vocab=FILE, which also takes the vocabularies of others: any
SentencePiece model, tokenizer.json, or WordPiece's vocab.txt.
"""

from __future__ import annotations

import pathlib
import types

from mmt_jax.cli import flags
from mmt_jax.errors import UsageError

DOING = "reading captions"
FLAGS = (
    flags.Flag("captions", "FILE", "JSON Lines, COCO's JSON, Karpathy's splits or a token file"),
    flags.Flag("data", "SOURCE", "such as scenes/cc or regions:FOLDER, in place of a file"),
    flags.Flag("split", "NAME", "of SOURCE or Karpathy's file; train by default", "train"),
    flags.Flag("kind", "NAME", "sentencepiece (by default), wordpiece or bpe", "sentencepiece"),
    flags.Flag("size", "N", "pieces, special tokens included", default=0, required=True),
    flags.Flag("out", "FILE", "of the vocabulary; nothing is overwritten", required=True),
)


def run(args: types.SimpleNamespace) -> None:
    """Trains and writes."""
    from mmt_jax.data import captions as files
    from mmt_jax.data import sources
    from mmt_jax.files import check_new
    from mmt_jax.text import vocabulary

    out = pathlib.Path(args.out)
    if bool(args.captions) == bool(args.data):
        raise UsageError("give either --captions=FILE or --data=SOURCE")
    if args.size < 1:
        raise UsageError(f"--size={args.size} is no number of pieces; give 1 or more, such as 8000")
    check_new(out)
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} for the vocabulary; make it first")
    if args.captions:
        of = files.read(pathlib.Path(args.captions), args.split).of
        said = [caption for photo in of.values() for caption in photo]
    else:
        corpora = sources.outlines(args.data, args.split)
        said = [caption for corpus in corpora for caption in corpus.all_captions()]
    tokenizer = vocabulary.train(said, args.size, args.kind)
    tokenizer.save(out)
    print(f"{out} holds {tokenizer.vocab_size} pieces of {len(said)} captions")
