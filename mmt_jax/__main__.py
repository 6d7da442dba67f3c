"""`python -m mmt_jax`, where the `mmt` script is not on the path."""

from mmt_jax.cli.main import run

if __name__ == "__main__":
    run()
