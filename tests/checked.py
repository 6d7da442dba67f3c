"""What checks annotations in tests: as PEP 484 has them, an int is a float too."""

import beartype

annotations = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
