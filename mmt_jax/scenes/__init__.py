"""Generated pictures with regions and captions: the data that needs no download.

`build` makes any split of any corpus in seconds, deterministically; `corpora` has the table of what
the corpora are like.
"""

from mmt_jax.scenes.corpora import (
    CORPORA,
    RECIPES,
    SPLITS,
    build,
    picture,
    vocabulary_captions,
)
from mmt_jax.scenes.detector import FEATURE_DIM, NUM_CLASSES

__all__ = [
    "CORPORA",
    "FEATURE_DIM",
    "NUM_CLASSES",
    "RECIPES",
    "SPLITS",
    "build",
    "picture",
    "vocabulary_captions",
]
