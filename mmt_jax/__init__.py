"""Image–text transformers of one ablation study, rebuilt in JAX."""
