"""Features that people already have: readers of published layouts, and what they are made into."""

from __future__ import annotations

import pathlib
from typing import Any

from mmt_jax.ingest.features import annotated, folders, stores, tsv
from mmt_jax.ingest.guarded import Entries

FORMATS = tsv.FORMATS | stores.FORMATS | folders.FORMATS | annotated.FORMATS


def entries(path: pathlib.Path, format: str, *categories: Any) -> Entries:
    """Place and reader of each photo in a file or folder of a format, for `guarded.read`."""
    return FORMATS[format].read(path, *categories)
