"""Features that people already have: readers of published layouts, and what they are made into."""

from mmt_jax.ingest.features import annotated, folders, stores, tsv

FORMATS = tsv.FORMATS | stores.FORMATS | folders.FORMATS | annotated.FORMATS
