"""Configs: resolved once, with every wrong field named; sizes taken from the data."""

import dataclasses
import json
import subprocess
import sys
import typing

import pytest

from mmt_jax.configs import ranges, variants
from mmt_jax.configs.config import (
    Config,
    DataSpec,
    as_dict,
    field_names,
    resolve,
    to_config_dict,
    with_spec,
)
from mmt_jax.configs.models import FAMILIES, LxmertConfig, MMTConfig, ModelConfig
from mmt_jax.errors import UsageError

SPEC = DataSpec(feature_dim=8, num_classes=5, vocab_size=40)


def test_no_fields_are_the_defaults():
    assert resolve({}) == Config()


@pytest.mark.parametrize(
    "tag", ["data_cc", "pixel_vilbert_cc-full-image", "data-ft_uniter-dataset"]
)
def test_config_survives_json(tag):
    config = with_spec(variants.get_config(tag, scale="tiny"), SPEC)
    assert resolve(json.loads(json.dumps(as_dict(config)))) == config


@pytest.mark.parametrize("tag", ["data_cc", "baseline-ft_baseline"])
def test_config_survives_a_config_dict(tag):
    config = variants.get_config(tag)
    assert resolve(to_config_dict(config)) == config


def test_config_dict_is_locked_and_typed():
    fields = to_config_dict(Config())
    with pytest.raises(AttributeError, match="modle"):
        fields.modle = 3
    with pytest.raises(TypeError):
        fields.steps = "many"
    fields.model.feature_dim = 12  # unset, yet typed
    assert resolve(fields).model.feature_dim == 12
    with pytest.raises(TypeError):
        fields.model.feature_dim = "wide"


def test_whole_numbers_become_floats_and_lists_tuples():
    config = resolve({"optim": {"lr": 1, "freeze": ["text/.*"]}, "mesh": [["data", 2]]})
    assert isinstance(config.optim.lr, float)
    assert config.optim.freeze == ("text/.*",)
    assert config.mesh == (("data", 2),)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stesp": 3}, "config.stesp is not a field; did you mean config.steps?"),
        ({"modle": {"width": 3}}, "config.modle is not a field; did you mean config.model?"),
        (
            {"model": {"widht": 3}},
            "config.model.widht is not a field; did you mean config.model.width",
        ),
        ({"qqq": 3}, "config.qqq is not a field; it has tag, scale"),
        ({"steps": "many"}, "config.steps must be int, not 'many'"),
        ({"steps": 1.5}, "config.steps must be int, not 1.5"),
        ({"steps": True}, "config.steps must be int, not True"),
        ({"optim": {"lr": True}}, "config.optim.lr must be float, not True"),
        ({"objective": {"hloss": 1}}, "config.objective.hloss must be bool, not 1"),
        ({"model": 3}, "config.model must hold fields, not 3"),
        ({"model": {"layers": "text"}}, "config.model.layers must be"),
        ({"model": {"layers": ["text", 3]}}, "config.model.layers[1] must be str, not 3"),
        ({"mesh": [["data", "two"]]}, "config.mesh[0] must be int, not 'two'"),
        ({"mesh": [["data"]]}, "config.mesh[0] must be"),
    ],
)
def test_wrong_field_is_named(values, message):
    with pytest.raises(UsageError) as error:
        resolve(values)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "config.steps is 0; it must be at least 1"),
        ({"seed": -1}, "config.seed is -1; it must be from 0 to 4294967295"),
        ({"seed": 2**32}, "config.seed is 4294967296; it must be from 0 to 4294967295"),
        ({"model": {"dropout": 1.5}}, "config.model.dropout is 1.5; it must be from 0.0 to 0.99"),
        (
            {"model": {"family": "lxmert", "heads": 0}},
            "config.model.heads is 0; it must be at least 1",
        ),
        ({"objective": {"mlm_rate": 2}}, "config.objective.mlm_rate is 2.0; it must be from 0.0"),
        ({"optim": {"lr": -1}}, "config.optim.lr is -1.0; it must be at least 0"),
        (
            {"optim": {"lr": float("nan")}},
            "config.optim.lr is nan; it must be at least 0, and",
        ),
        (
            {"optim": {"lr": float("inf")}},
            "config.optim.lr is inf; it must be at least 0, and",
        ),
        ({"optim": {"b2": 1}}, "config.optim.b2 is 1.0; it must be from 0.0 to 0.9999999"),
        ({"optim": {"warmup_steps": -4}}, "config.optim.warmup_steps is -4; it must be at least 0"),
        ({"eval": {"pairs": 0}}, "config.eval.pairs is 0; it must be at least 1"),
        ({"data": {"workers": -1}}, "config.data.workers is -1; it must be at least 0"),
    ],
)
def test_a_number_out_of_range_is_named(values, message):
    with pytest.raises(UsageError) as error:
        resolve(values)
    assert str(error.value).startswith(message)


def test_ranges_are_those_of_fields():
    kinds = {kind.__name__: kind for kind in config_kinds(Config)} | {"ModelConfig": ModelConfig}
    assert ranges.RANGES.keys() <= kinds.keys()
    for kind, table in ranges.RANGES.items():
        assert table.keys() <= set(field_names(kinds[kind])), kind


def config_kinds(kind):
    """A config dataclass and those that its fields hold."""
    yield kind
    for hint in typing.get_type_hints(kind).values():
        if dataclasses.is_dataclass(hint):
            yield from config_kinds(hint)


def test_the_family_says_what_a_model_config_is():
    config = resolve({"model": {"family": "lxmert", "language_layers": 3, "feature_dim": None}})
    assert type(config.model) is LxmertConfig
    assert (config.model.language_layers, config.model.width) == (3, 768)
    assert resolve(json.loads(json.dumps(as_dict(config)))) == config
    assert resolve(to_config_dict(config)) == config
    assert resolve({"model": {"family": "two_tower"}}).model == MMTConfig(family="two_tower")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"family": "vilbert"}, r"config\.model\.family='vilbert' is unknown; there are mmt, "),
        ({"family": 3}, r"config\.model\.family=3 is unknown"),
        ({"family": "lxmert", "layers": ()}, r"config\.model\.layers is not a field"),
        ({"family": "lxmert", "layout": "release"}, r"config\.model\.layout is not a field"),
    ],
)
def test_a_field_of_another_family_is_not_a_field(fields, message):
    with pytest.raises(UsageError, match=message):
        resolve({"model": fields})


def test_a_config_from_before_there_were_families_still_loads():
    fields = {"family": "mmt", "width": 24, "layers": ["text", "merged"], "vocab_size": 9}
    model = resolve({"model": fields}).model
    assert model == MMTConfig(width=24, layers=("text", "merged"), vocab_size=9)
    assert (model.layout, model.cls_index, model.global_region) == ("release", -1, True)


def test_a_field_has_one_type_in_all_families_that_have_it():
    """A flag is read before the family is known."""
    types = {}
    for family in FAMILIES.values():
        for name, kind in typing.get_type_hints(family).items():
            if not str(kind).startswith("typing.ClassVar"):
                assert types.setdefault(name, kind) == kind, (family, name)


def test_sizes_come_from_the_data():
    model = with_spec(Config(), SPEC).model
    assert (model.feature_dim, model.num_classes, model.vocab_size) == (8, 5, 40)


def test_sizes_that_were_set_must_be_the_datas():
    config = dataclasses.replace(Config(), model=dataclasses.replace(Config().model, vocab_size=41))
    with pytest.raises(
        UsageError, match=r"config\.model\.vocab_size is 41, but the data .* has 40"
    ):
        with_spec(config, SPEC)


def test_configs_need_no_jax():
    """Listing and checking must be instant."""
    code = (
        "import sys, mmt_jax.configs.config, mmt_jax.configs.variants, experiments.mmt as m;"
        "m.get_config('data_cc,scale=tiny');"
        "assert not {'jax', 'numpy', 'flax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
