"""Named studies: which variants are run, for how long, and on what they are compared.

  mmt ablate --study=attention --workdir=/tmp/attention
  mmt ablate --study=losses --workdir=/tmp/losses --seeds=5

All train and test on the easiest generated scenes, level 1, where 90,000 pairs take what fuses well
above chance; `--set=level=5` takes the scenes as they are. Budgets are for two CPU cores, at the
pilot scale, whose base has two multimodal layers; studies of depth need the base's six and run at
the tiny scale. A claim that needs tags of two studies is decided by giving both the same workdir,
or by naming a study of one's own here.

A row is what --config takes: a tag, or a config of a file beside this one, such as `lxmert:base`;
the study gives it the scale.
"""

from collections.abc import Mapping
from typing import Any

from mmt_jax.configs.config import EvalConfig, Study
from mmt_jax.configs.variants import CORPORA, DIALLED, VARIANTS

# Chosen on val, with seeds that no study uses: docs/recipes.md. Captions of level 1 have 10 pieces
# on average and 13 at most, its photos four regions and the whole: shorter batches cost less.
RECIPE = {
    "steps": 700,
    "batch_size": 128,
    "optim.lr": 2e-3,
    "optim.b2": 0.98,
    "data.buckets": ((12, 5), (16, 5)),
    "eval.limit": 50,
}
# Joint models fuse every caption with every photo, so reading the test split costs the square of
# its size: 100 photos are 50,000 pairs.
TEST = EvalConfig(split="test", limit=100)

_DATA = tuple(f"data_{corpus}" for corpus in CORPORA)
_CORPORA = tuple(
    f"data_{name}" for name in ("cc", "sbu", "vg", "mscoco", "mscoco-narratives", "oi-narratives")
)
_DEPTHS = tuple(f"architecture_vilbert-{n}block" for n in (1, 2, 4, 12))
_HEADS = tuple(f"architecture_heads{shape}" for shape in ("1-768", "3-256", "6-64", "18-64"))
_KINDS = (
    "architecture_coattention",
    "architecture_single-stream",
    "architecture_language-q-12",
    "architecture_image-q-12",
    "architecture_mixed-modality",
    "architecture_single-modality",
)
_SYSTEMS = ("lxmert:base", "tern:original")
_PIXELS = ("bridgetower:base", "pixel_vilbert_cc-full-image")
_BASELINES = tuple(tag for tag in VARIANTS if tag.startswith("baseline_"))


# Four times the pairs, with the way there: what is left of an order once all have learned.
LONGER = RECIPE | {"steps": 2800, "eval.every": 350}


def _study(
    name: str, *tags: str, scale: str = "pilot", overrides: Mapping[str, Any] = RECIPE
) -> Study:
    return Study(name, tags, seeds=5, scale=scale, level=1, overrides=overrides, test=TEST)


STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        # What `make demo` runs: on the easiest scenes, where hundreds of steps teach something.
        Study(
            "demo",
            (
                "data_cc",
                "architecture_coattention",
                "architecture_language-q-12",
                "architecture_image-q-12",
                "architecture_single-modality",
                "baseline_baseline-no-bert-transfer",
            ),
            seeds=1,
            scale="pilot",
            level=1,
            overrides={
                "steps": 700,
                "batch_size": 128,
                "optim.lr": 2e-3,
                "eval.limit": 50,
            },
            test=EvalConfig(split="test", limit=100),
        ),
        _study("attention", "data_cc", *_KINDS, "architecture_vilbert-1block"),
        _study(
            "longer",
            "data_cc",
            "architecture_coattention",
            "architecture_language-q-12",
            "architecture_image-q-12",
            "architecture_single-modality",
            "architecture_vilbert-1block",
            "loss_v1-contrastive32",
            "loss_single-modality-contrastive32",
            "loss_itm_mlm",
            "loss_itm_mrm",
            "baseline_baseline-no-bert-transfer",
            overrides=LONGER,
        ),
        _study(
            "losses",
            "data_cc",
            *(tag for tag in VARIANTS if tag.startswith("loss_")),
            "architecture_vilbert-1block",
            "architecture_single-modality",
            "architecture_single-modality-hloss",
            "baseline_baseline-cls",
            "baseline_baseline-no-bert-transfer",
        ),
        _study("data", *_DATA, "data_cc-with-bert"),
        # The same without mixtures, of which no claim speaks.
        _study("corpora", *_CORPORA),
        _study(
            "bert",
            "data_cc",
            "data_cc-with-bert",
            "baseline_baseline",
            "baseline_baseline-no-bert-transfer",
        ),
        _study("noise", *_CORPORA, *DIALLED),
        # Six layers hardly leave chance at twice this rate.
        _study(
            "depth",
            "data_cc",
            *_DEPTHS,
            "architecture_mixed-modality",
            scale="tiny",
            overrides=RECIPE | {"optim.lr": 1e-3},
        ),
        _study("heads", "data_cc", *_HEADS, *_KINDS),
        _study("baselines", "data_cc", "architecture_coattention", *_BASELINES),
        # Other systems' models under the study's objectives, each on what it reads: BridgeTower on
        # pixels, TERN in batches of contrast alone, and all on the same photos and captions.
        _study("systems", "data_cc", *_SYSTEMS, *_PIXELS, "baseline_baseline-no-bert-transfer"),
        # For features and boxes without pixels.
        _study("systems-regions", "data_cc", *_SYSTEMS, "baseline_baseline-no-bert-transfer"),
        _study("full", *VARIANTS, scale="tiny"),
    )
}
