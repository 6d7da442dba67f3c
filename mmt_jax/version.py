"""Which version this is."""


def version() -> str:
    """The version that is installed; "unknown" where none is, as in a copy of the sources."""
    from importlib import metadata  # takes longer to import than the rest of the package

    try:
        return metadata.version("mmt_jax")
    except metadata.PackageNotFoundError:
        return "unknown"
