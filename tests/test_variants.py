"""The table of models against the release's, written out here a second time by hand."""

import math

import pytest

from mmt_jax import params
from mmt_jax.cli import list as list_command
from mmt_jax.configs import variants
from mmt_jax.configs.config import RELEASE_SPEC, grouped, with_spec
from mmt_jax.errors import UsageError
from mmt_jax.models import registry
from mmt_jax.nn.kinds import kinds

CORPORA = [
    "cc",
    "sbu",
    "vg",
    "mscoco",
    "mscoco-narratives",
    "oi-narratives",
    "combined-instance",
    "combined-dataset",
    "uniter-instance",
    "uniter-dataset",
]
BASE = {
    "corpus": "cc",
    "itm": "classification",
    "candidates": None,
    "mrm": True,
    "mlm": True,
    "heads": 12,
    "head_dim": 64,
    "layers": 6,
    "attention": "merged",
    "fine_tuned": False,
}
TOWERS = {"attention": "two-tower", "mrm": False, "mlm": False}
ASYMMETRIC = {
    "language-q-12": {"attention": "language-query"},
    "image-q-12": {"attention": "image-query"},
    "language-q-24": {"attention": "language-query", "heads": 24},
    "image-q-24": {"attention": "image-query", "heads": 24},
}
UNIMODAL = {"attention": "single-modality"}
STREAM = {"attention": "single-stream"}
BASELINES = {
    "baseline": TOWERS | {"itm": "contrastive", "candidates": 1024},
    "baseline-cls": TOWERS,
    "baseline-no-bert-transfer": TOWERS | {"itm": "contrastive", "candidates": 1024},
}
ARCHITECTURES = ASYMMETRIC | {"single-modality": UNIMODAL, "single-stream": STREAM}

# What each name says it changes of the base.
DELTAS = {
    **{f"data_{corpus}": {"corpus": corpus} for corpus in CORPORA},
    "data_cc-with-bert": {},
    "loss_itm_mrm": {"mlm": False},
    "loss_itm+mrm": {"mlm": False},
    "loss_itm_mlm": {"mrm": False},
    "loss_single-modality-contrastive32": UNIMODAL | {"itm": "contrastive", "candidates": 32},
    "loss_single-modality-contrastive1024": UNIMODAL | {"itm": "contrastive", "candidates": 1024},
    "loss_v1-contrastive32": {"layers": 1, "itm": "contrastive", "candidates": 32},
    "architecture_heads1-768": {"heads": 1, "head_dim": 768},
    "architecture_heads3-256": {"heads": 3, "head_dim": 256},
    "architecture_heads6-64": {"heads": 6},
    "architecture_heads18-64": {"heads": 18},
    **{f"architecture_vilbert-{depth}block": {"layers": depth} for depth in (1, 2, 4, 12)},
    "architecture_mixed-modality": {"attention": "mixed"},
    "architecture_single-modality-hloss": UNIMODAL,
    "architecture_coattention": {"attention": "coattention"},
    **{f"architecture_{name}": delta for name, delta in ARCHITECTURES.items()},
    **{f"baseline_{name}": delta for name, delta in BASELINES.items()},
    **{f"data-ft_{corpus}": {"corpus": corpus, "fine_tuned": True} for corpus in CORPORA},
    **{f"architecture-ft_{n}": d | {"fine_tuned": True} for n, d in ARCHITECTURES.items()},
    **{f"baseline-ft_{n}": d | {"fine_tuned": True} for n, d in BASELINES.items()},
    "pixel_vilbert_cc-full-image": {},
}

TAGS = [*variants.VARIANTS]


def test_every_name_of_the_release_is_there_once():
    tags = [row["tag"] for row in list_command.rows()]
    assert len(tags) == 57
    assert sorted(tags) == sorted(DELTAS)


@pytest.mark.parametrize("tag", DELTAS)
def test_row_differs_from_the_base_as_its_name_says(tag):
    row = next(row for row in list_command.rows() if row["tag"] == tag)
    assert {key: row[key] for key in BASE} == BASE | DELTAS[tag]


def test_alias_is_the_model_it_stands_for():
    assert variants.get_config("loss_itm+mrm") == variants.get_config("loss_itm_mrm")


def test_what_no_column_holds_stands_in_the_notes():
    notes = {row["tag"]: row["notes"] for row in list_command.rows()}
    assert notes["loss_itm+mrm"] == "alias of loss_itm_mrm"
    assert "BERT" in notes["data_cc-with-bert"]
    assert "BERT" in notes["baseline_baseline"]
    assert "BERT" not in notes["baseline_baseline-no-bert-transfer"]
    assert "every layer" in notes["architecture_single-modality-hloss"]
    assert "not in the release" in notes["architecture_coattention"]
    assert "patches" in notes["pixel_vilbert_cc-full-image"]


@pytest.mark.parametrize("tag", [tag for tag in TAGS if "-ft_" in tag])
def test_fine_tuning_starts_from_the_row_it_tunes(tag):
    tuned, start = (variants.get_config(name, scale="tiny") for name in (tag, _plain(tag)))
    assert tuned.pretrained == start.tag
    assert tuned.model == start.model
    assert tuned.data.source == "scenes"


def _plain(tag: str) -> str:
    return tag.replace("-ft_", "_")


@pytest.mark.parametrize("tag", TAGS)
def test_tiny_has_the_structure_of_full(tag):
    full, tiny = (variants.get_config(tag, scale=scale) for scale in ("full", "tiny"))
    assert tiny.model.family == full.model.family
    assert tiny.model.heads == full.model.heads
    assert tiny.model.pixels == full.model.pixels
    own = 5  # language-specific layers that tiny leaves out; a single stream has none
    cut = 0 if "single-stream" in tag else own
    assert tiny.model.layers == full.model.layers[cut:]
    ratios = {
        getattr(full.model, size) / getattr(tiny.model, size)
        for size in ("width", "mlp_dim", "head_dim", "pooled_dim")
    }
    assert ratios == {8}
    assert grouped(tiny).objective.candidates <= tiny.batch_size
    assert (tiny.objective.itm, tiny.objective.hloss) == (full.objective.itm, full.objective.hloss)


@pytest.mark.parametrize(
    ("tag", "layers"),
    [
        ("data_cc", ("text", *("merged",) * 2)),
        ("architecture_coattention", ("text", *("coattention", "single") * 2)),
        ("architecture_single-stream", ("single_stream",) * 2),
        ("architecture_vilbert-1block", ("text", "merged")),
        ("architecture_vilbert-12block", ("text", *("merged",) * 12)),
    ],
)
def test_pilot_is_tiny_with_two_multimodal_layers_where_depth_is_not_the_subject(tag, layers):
    pilot, tiny = (variants.get_config(tag, scale=scale).model for scale in ("pilot", "tiny"))
    assert pilot.layers == layers
    assert pilot.width == tiny.width


def test_depth_counts_multimodal_layers():
    for depth in (1, 2, 4, 12):
        rows = kinds(variants.get_config(f"architecture_vilbert-{depth}block").model.layers)
        crossing = [row for row in rows if "image" in row.text and "text" in row.image]
        assert len(crossing) == depth


def test_self_attention_follows_every_coattention_layer():
    layers = variants.get_config("architecture_coattention").model.layers
    assert layers[6:] == ("coattention", "single") * 6


def test_mixture_is_sampled_as_the_tag_says():
    for corpora, parts in (("combined", 6), ("uniter", 4)):
        for sampling in ("instance", "dataset"):
            data = variants.get_config(f"data_{corpora}-{sampling}").data
            assert data.sampling == sampling
            assert len(data.source.split(",")) == parts


def test_number_of_parameters_of_the_base_is_the_sum_of_its_parts():
    """Counted by hand from the shapes of BERT-like layers at the release's sizes."""
    width, mlp, vocab, features, classes, pooled = 768, 3072, 32000, 2048, 1601, 1024
    norm = 2 * width
    # A bias on the keys changes a softmax only where a query reads both streams.
    attention, key_biases = 4 * width * width + 3 * width, 12 * width
    block = attention + 2 * norm + width * mlp + mlp + mlp * width + width
    text = (vocab + 512 + 3) * width + norm
    image = (features + 1) * width + 5 * width + norm
    pool = 2 * (width + 1) * pooled
    score = 2 * pooled + 2
    word_head = width * width + width + norm + vocab
    region_head = width * width + width + norm + (width + 1) * classes
    expected = text + image + 18 * block + key_biases + pool + score + word_head + region_head

    config = with_spec(variants.get_config("data_cc"), RELEASE_SPEC)
    assert _count(config) == expected


def test_tied_weights_are_counted_once():
    base, stream = (
        _count(with_spec(variants.get_config(tag), RELEASE_SPEC))
        for tag in ("architecture_vilbert-12block", "architecture_single-stream")
    )
    assert base - stream > 17 * 7_000_000  # 6 + 2 · 12 layers against 6


def _count(config) -> int:
    tree = registry.build(config).abstract()
    return sum(math.prod(leaf.shape) for leaf in params.flatten(tree).values())


def test_options_of_a_tag():
    turned = variants.parse("data_uniter-instance,scale=pilot,level=2,wrong=0.2,far=0.5")
    assert turned.tag == "data_uniter-instance_wrong-0.2_far-0.5"
    assert turned.data.source == ",".join(
        f"scenes@2/{name}?wrong=0.2&far=0.5" for name in ("mscoco", "vg", "cc", "sbu")
    )
    assert len({variants.parse(row).tag for row in variants.DIALLED}) == len(variants.DIALLED)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data_ccc", "did you mean data_cc"),
        ("architecture_singel-stream", "architecture_single-stream"),
        ("zzz", "mmt list"),
        ("data_cc,scale=small", "scale=full or scale=tiny"),
        ("data_cc,size=tiny", "write TAG,scale=pilot,level=1"),
    ],
)
def test_wrong_tag_gets_a_remedy(text, message):
    with pytest.raises(UsageError, match=message):
        variants.parse(text)
