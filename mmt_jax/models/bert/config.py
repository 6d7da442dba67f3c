"""Sizes of the language stack: those of the study's models."""

from mmt_jax.models.mmt.config import MMTConfig

CONFIG = MMTConfig
