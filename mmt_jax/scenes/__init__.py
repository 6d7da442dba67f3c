"""Generated pictures with regions and captions: the data that needs no download.

`build` makes any split of any corpus in seconds, deterministically, and `photos` one whose features
are computed as photos are taken; `corpora` has the table of what the corpora are like, `levels` of
what is left out of them for models that are small and budgets that are short.
"""

from mmt_jax.scenes.corpora import (
    AS_IT_IS,
    CORPORA,
    RECIPES,
    SPLITS,
    Dials,
    Recipe,
    build,
    photos,
    picture,
    recipe,
    source,
    vocabulary_captions,
)
from mmt_jax.scenes.detector import FEATURE_DIM, NUM_CLASSES
from mmt_jax.scenes.levels import LEVELS, TOP
