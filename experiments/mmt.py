"""Every model of the study by name.

  mmt train --config=data_cc,scale=tiny --workdir=/tmp/data_cc
  mmt train --config=architecture_heads1-768 --workdir=... --config.steps=2000

`mmt list` prints the names; `mmt describe NAME` prints what stands behind one.
"""

from ml_collections import ConfigDict

from mmt_jax.configs import variants
from mmt_jax.configs.config import to_config_dict


def get_config(arg: str = "data_cc") -> ConfigDict:
    """The config of `TAG[,scale=tiny]`, locked: an unknown field is an error."""
    return to_config_dict(variants.parse(arg))
