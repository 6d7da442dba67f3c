"""Every model of the study as a row, and the config that a row stands for.

Rows follow the release's tables (facts: tag, corpus, losses, heads, layers, attention). What the
release does not state is our assumption and marked so in `docs/assumptions.md`.
"""

from __future__ import annotations

import dataclasses
import difflib

from mmt_jax.configs.config import (
    Config,
    DataConfig,
    EvalConfig,
    MMTConfig,
    ObjectiveConfig,
    OptimConfig,
)
from mmt_jax.errors import UsageError

_SINGLE = ("cc", "sbu", "vg", "mscoco", "mscoco-narratives", "oi-narratives")
_MIXTURES = {"combined": _SINGLE, "uniter": ("mscoco", "vg", "cc", "sbu")}
CORPORA = {name: ((name,), "instance") for name in _SINGLE} | {
    f"{name}-{sampling}": (sources, sampling)
    for name, sources in _MIXTURES.items()
    for sampling in ("instance", "dataset")
}  # name in a tag → training sources, and how a mixture is sampled

# One corpus with more and more wrong captions, and with words ever further from the target's.
DIALLED = tuple(
    f"data_mscoco,{dials}"
    for dials in (
        "wrong=0.1",
        "wrong=0.2",
        "wrong=0.4",
        "far=0.25",
        "far=0.5",
        "far=1",
        "wrong=0.2,far=0.5",
    )
)

LAYERS = {  # attention → the kinds that one multimodal layer is made of
    "merged": ("merged",),
    "coattention": ("coattention", "single"),  # ViLBERT: self-attention follows co-attention
    "single-modality": ("single",),
    "single-stream": ("single_stream",),
    "language-query": ("language_query",),
    "image-query": ("image_query",),
}

ASKING = ("language", "image")  # the stream whose queries asymmetric attention has

# full: the release's sizes. tiny: each width divided by eight, one language-specific layer, no
# dropout. pilot: tiny with fewer multimodal layers, except in rows whose subject is depth; what the
# studies run on two CPU cores.
SCALES = ("full", "tiny", "pilot")
PILOT_DEPTH = 2


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of the study, at the release's sizes."""

    tag: str
    corpus: str = "cc"  # a key of CORPORA
    itm: str = "classification"
    candidates: int = 0  # K of contrastive ITM
    mrm: bool = True
    mlm: bool = True
    heads: int = 12
    head_dim: int = 64
    depth: int = 6  # multimodal layers
    attention: str = "merged"  # a key of LAYERS, or "mixed", or "two-tower"
    hloss: bool = False
    pixels: bool = False
    pretrained: str = ""  # the row whose checkpoint this one starts from
    fine_tuned: bool = False
    notes: str = ""


def _rows() -> list[Variant]:
    rows = [Variant(f"data_{corpus}", corpus=corpus) for corpus in CORPORA]
    rows += [
        Variant("data_cc-with-bert", pretrained="bert", notes="language stack starts from BERT"),
        Variant("loss_itm_mrm", mlm=False),
        Variant("loss_itm_mlm", mrm=False),
        *(
            Variant(
                f"loss_single-modality-contrastive{k}",
                itm="contrastive",
                candidates=k,
                attention="single-modality",
            )
            for k in (32, 1024)
        ),
        Variant("loss_v1-contrastive32", itm="contrastive", candidates=32, depth=1),
        *(
            Variant(f"architecture_heads{heads}-{dim}", heads=heads, head_dim=dim)
            for heads, dim in ((1, 768), (3, 256), (6, 64), (18, 64))
        ),
        *(Variant(f"architecture_vilbert-{n}block", depth=n) for n in (1, 2, 4, 12)),
        Variant("architecture_coattention", attention="coattention", notes="not in the release"),
        Variant("architecture_single-modality", attention="single-modality"),
        Variant("architecture_mixed-modality", attention="mixed"),
        Variant("architecture_single-stream", attention="single-stream"),
        *(
            Variant(f"architecture_{name}-q-{heads}", attention=f"{name}-query", heads=heads)
            for heads in (12, 24)
            for name in ASKING
        ),
        Variant("architecture_single-modality-hloss", attention="single-modality", hloss=True),
    ]
    tower = Variant(
        "", itm="contrastive", candidates=1024, mrm=False, mlm=False, attention="two-tower"
    )
    rows += [
        dataclasses.replace(tower, tag="baseline_baseline", pretrained="bert"),
        dataclasses.replace(tower, tag="baseline_baseline-cls", itm="classification", candidates=0),
        dataclasses.replace(tower, tag="baseline_baseline-no-bert-transfer"),
    ]
    tuned = [f"data_{corpus}" for corpus in CORPORA]
    tuned += [f"architecture_{name}" for name in ("single-modality", "single-stream")]
    tuned += [f"architecture_{name}-q-{heads}" for heads in (12, 24) for name in ASKING]
    tuned += [row.tag for row in rows if row.tag.startswith("baseline_")]
    by_tag = {row.tag: row for row in rows}
    rows += [
        dataclasses.replace(
            by_tag[tag], tag=tag.replace("_", "-ft_", 1), pretrained=tag, fine_tuned=True
        )
        for tag in tuned
    ]
    rows.append(
        Variant("pixel_vilbert_cc-full-image", pixels=True, notes="patches in place of regions")
    )
    return rows


VARIANTS: dict[str, Variant] = {row.tag: row for row in _rows()}
ALIASES = {"loss_itm+mrm": "loss_itm_mrm"}
# Not a model of the study: text-only masked language modelling, where `pretrained="bert"` starts
# when no BERT is given.
BERT = Variant("bert", itm="none", mrm=False, attention="text", notes="language stack alone")


def find(tag: str) -> Variant:
    """The row of `tag` or of its alias; a UsageError names the nearest where there is none."""
    tag = ALIASES.get(tag, tag)
    if tag == BERT.tag:
        return BERT
    if tag not in VARIANTS:
        near = difflib.get_close_matches(tag, [*VARIANTS, *ALIASES], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`mmt list` prints every tag"
        raise UsageError(f"no model has the tag {tag!r}; {hint}")
    return VARIANTS[tag]


def layers(variant: Variant, *, own: int) -> tuple[str, ...]:
    """The kind of each layer; `own` language-specific ones come first, none if weights are tied."""
    if variant.attention == "text":
        return ("text",) * (own + variant.depth)
    if variant.attention == "two-tower":
        return ("text",) * (own + variant.depth) + ("image",) * variant.depth
    if variant.attention == "single-stream":
        own = 0
    if variant.attention == "mixed":
        return ("text",) * own + ("single",) * (variant.depth - 1) + ("merged",)
    return ("text",) * own + LAYERS[variant.attention] * variant.depth


def get_config(
    tag: str, *, scale: str = "full", level: str = "", wrong: str = "", far: str = ""
) -> Config:
    """The run that trains `tag` at one of SCALES.

    `level` is of the generated corpora (`mmt_jax.scenes.levels`), "" = the highest; `wrong` and
    `far` are dials of their captions (`mmt_jax.scenes.Dials`), shares of 1, "" = each corpus's own.
    They become part of the tag.
    """
    if scale not in SCALES:
        raise UsageError(f"scale={scale} is not a scale; take scale={' or scale='.join(SCALES)}")
    variant = find(tag)
    if scale == "pilot" and variant.depth == Variant.depth:
        variant = dataclasses.replace(variant, depth=PILOT_DEPTH)
    sources, sampling = CORPORA[variant.corpus]
    scenes = f"scenes@{level}" if level else "scenes"
    dials = {name: value for name, value in (("wrong", wrong), ("far", far)) if value}
    turned = "?" * bool(dials) + "&".join(f"{name}={value}" for name, value in dials.items())
    config = Config(
        tag="_".join([variant.tag, *(f"{name}-{value}" for name, value in dials.items())]),
        scale=scale,
        pretrained=variant.pretrained,
        model=MMTConfig(
            family={"two-tower": "two_tower", "text": "bert"}.get(variant.attention, "mmt"),
            heads=variant.heads,
            head_dim=variant.head_dim,
            layers=layers(variant, own=6),
            pixels=variant.pixels,
        ),
        objective=ObjectiveConfig(
            itm=variant.itm,
            candidates=variant.candidates,
            hloss=variant.hloss,
            mlm=float(variant.mlm),
            mrm=float(variant.mrm),
        ),
        data=DataConfig(
            source=scenes + turned
            if variant.fine_tuned
            else ",".join(f"{scenes}/{name}{turned}" for name in sources),
            sampling=sampling,
        ),
    )
    return _full(config, variant) if scale == "full" else _small(config, variant)


def parse(text: str) -> Config:
    """The config of `TAG[,scale=tiny][,level=1][,wrong=0.2]`, the form that commands take."""
    tag, *options = text.split(",")
    found = {}
    for option in options:
        name, _, value = option.partition("=")
        if name not in ("scale", "level", "wrong", "far") or not value:
            raise UsageError(
                f"{option!r} in {text!r} is not an option; write TAG,scale=pilot,level=1"
            )
        found[name] = value
    return get_config(tag, **found)


def _full(config: Config, variant: Variant) -> Config:
    """The release's recipe, from recollection: unverified, see docs/assumptions.md."""
    steps, lr = (50_000, 1e-4) if variant.fine_tuned else (1_000_000, 0.00176)
    return dataclasses.replace(
        config,
        steps=steps,
        batch_size=1024,
        checkpoint_every=5000,
        log_every=100,
        optim=OptimConfig(
            name="lamb", lr=lr, warmup_steps=min(20_000, steps // 10), weight_decay=0.1
        ),
        eval=EvalConfig(every=20_000),
    )


def _small(config: Config, variant: Variant) -> Config:
    """Each width divided by eight, one language-specific layer, no dropout."""
    model = dataclasses.replace(
        config.model,
        width=config.model.width // 8,
        mlp_dim=config.model.mlp_dim // 8,
        head_dim=config.model.head_dim // 8,
        pooled_dim=config.model.pooled_dim // 8,
        layers=layers(variant, own=1),
        max_positions=64,
        dropout=0.0,
    )
    steps, lr = (300, 3e-4) if variant.fine_tuned else (1000, 1e-3)
    return dataclasses.replace(
        config,
        batch_size=128,
        steps=steps,
        model=model,
        optim=OptimConfig(lr=lr, warmup_steps=steps // 10),
    )
