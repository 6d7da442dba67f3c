"""Published corpora by name: prepared once from their files, then read like any TFDS data set.

`mmt data prepare` writes them, `read` gives their examples. For those who live in TFDS, importing
`mmt_jax.ingest.corpora.builder` makes the name "mmt/flickr30k" known.
"""

from __future__ import annotations

from mmt_jax.data.prepared import is_prepared, read, splits
from mmt_jax.errors import UsageError, nearest
from mmt_jax.ingest.corpora import (
    base,
    coco_captions,
    flickr,
    localized_narratives,
    questions,
    statements,
    visual_genome,
    web,
)

# A corpus declares itself in the module that reads it.
_MODULES = (web, visual_genome, coco_captions, localized_narratives, flickr, questions, statements)
CORPORA: tuple[base.Corpus, ...] = tuple(each for module in _MODULES for each in module.CORPORA)

VERSION = "1.0.0"  # of what an example holds


def get(name: str) -> base.Corpus:
    """The corpus of that name."""
    known = {corpus.name: corpus for corpus in CORPORA}
    if name not in known:
        raise UsageError(f"{name!r} is not a corpus; {nearest(name, known)}")
    return known[name]
