"""Configs: resolved once, with every wrong field named; sizes taken from the data."""

import dataclasses
import json
import subprocess
import sys
import typing

import pytest

from mmt_jax.cli import flags, train
from mmt_jax.configs import overrides, variants
from mmt_jax.configs.config import (
    Config,
    DataSpec,
    EvalConfig,
    ObjectiveConfig,
    OptimConfig,
    as_dict,
    grouped,
    resolve,
    to_config_dict,
    with_spec,
)
from mmt_jax.configs.models import FAMILIES, LxmertConfig, MMTConfig, TernConfig
from mmt_jax.errors import UsageError
from mmt_jax.study.plan import parse_overrides

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


@pytest.mark.parametrize(
    "name",
    [
        *("data_cc", "data-ft_cc", "bert", "baseline_baseline", "pixel_vilbert_cc-full-image"),
        *("lxmert:base", "bridgetower:base", "tern:original", "tern:kaylode", "clip:base"),
        *(f"tasks:glue/RTE,model={model}" for model in ("bert", "roberta", "data_cc")),
        *("tasks:vqa,model=lxmert", "tasks:cifar,model=clip"),
    ],
)
def test_small_scales_train_without_dropout(name):
    assert overrides.load(f"{name},scale=tiny").model.dropout == 0


def test_dropout_of_published_sizes_is_theirs():
    assert {overrides.load(name).model.dropout for name in ("data_cc", "lxmert:base")} == {0.1}


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
        ({"steps": 1.5}, "config.steps must be int, not 1.5"),
        ({"optim": {"lr": True}}, "config.optim.lr must be float, not True"),
        ({"model": 3}, "config.model must hold fields, not 3"),
        ({"model": {"layers": ["text", 3]}}, "config.model.layers[1] must be str, not 3"),
        ({"mesh": [["data", "two"]]}, "config.mesh[0] must be int, not 'two'"),
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
        ({"seed": 2**32}, "config.seed is 4294967296; it must be from 0 to 4294967295"),
        ({"model": {"dropout": 1.5}}, "config.model.dropout is 1.5; it must be from 0.0 to 0.99"),
        (
            {"model": {"family": "lxmert", "heads": 0}},
            "config.model.heads is 0; it must be at least 1",
        ),
        (
            {"optim": {"lr": float("nan")}},
            "config.optim.lr is nan; it must be at least 0, and",
        ),
    ],
)
def test_a_number_out_of_range_is_named(values, message):
    with pytest.raises(UsageError) as error:
        resolve(values)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"dtype": "float16"},
            "config.dtype='float16' is unknown; there are float32, bfloat16",
        ),
        ({"task": {"name": "okvqa"}}, "config.task.name='okvqa' is unknown; there are vqa, gqa"),
        (
            {"model": {"family": "tern", "reading": "rpe"}},
            "config.model.reading='rpe' is unknown; there are original, kaylode",
        ),
    ],
)
def test_a_name_that_is_none_of_the_known_is_told(values, message):
    with pytest.raises(UsageError) as error:
        resolve(values)
    assert str(error.value).startswith(message)


def test_a_config_of_a_notebook_is_checked_too():
    with pytest.raises(UsageError, match=r"config\.optim\.lr is -1"):
        OptimConfig(lr=-1.0)
    with pytest.raises(UsageError, match=r"config\.model\.heads is 0"):
        dataclasses.replace(LxmertConfig(), heads=0)
    with pytest.raises(UsageError, match=r"test\.limit is -1"):
        resolve({"limit": -1}, cls=EvalConfig, path="test")


def test_names_are_those_that_the_code_has():
    """Configs import nothing that computes, so names stand in them a second time."""
    from mmt_jax.data import regions
    from mmt_jax.models.bridgetower.network import LINKS
    from mmt_jax.models.tern.network import READINGS
    from mmt_jax.nn.primitives import ACTIVATIONS
    from mmt_jax.objectives import readings

    for path, names in {
        "config.data.regions": regions.READINGS,
        "config.objective.reading": readings.READINGS,
        "config.model.activation": ACTIVATIONS,
        "config.model.link": LINKS,
    }.items():
        assert set(choices(overrides.hint(path))) == set(names), path
    assert set(choices(typing.get_type_hints(TernConfig, include_extras=True)["reading"])) == set(
        READINGS
    )


def choices(hint):
    return hint.__metadata__[0].names


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
        ({"family": "lxmert", "layers": ()}, r"config\.model\.layers is not a field"),
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


# ---- Overrides -----------------------------------------------------------------------------------

BOTH = [  # what is written, and the value that it means
    ("steps=200", 200),
    ("optim.lr=2e-3", 2e-3),
    ("optim.lr=1", 1.0),
    ("objective.hloss=true", True),
    ("objective.hloss=False", False),
    ("objective.hloss=1", True),
    ("data.source=regions:/a=b", "regions:/a=b"),
    ("data.source='scenes/cc'", "scenes/cc"),
    ("data.split=2014", "2014"),
    ("data.vocab=None", None),
    ("data.vocab=None.model", "None.model"),
    ("model.num_answers=3", 3),
    ("model.layers=('text','merged')", ("text", "merged")),
    ("model.layers=['text']", ("text",)),
    ("model.layers=merged", ("merged",)),
    ("optim.freeze=()", ()),
    ("mesh=(('data',-1),('model',2))", (("data", -1), ("model", 2))),
    ("optim.lr_table=[['text/.*',1]]", (("text/.*", 1.0),)),
]
NEITHER = [
    ("steps=1.5", "config.steps must be int, not '1.5'"),
    ("optim.lr=nan", "config.optim.lr is nan; it must be at least 0, and finite"),
    ("objective.hloss=maybe", "config.objective.hloss must be bool, not 'maybe'"),
    ("objective.loss=huge", "config.objective.loss='huge' is unknown; there are softmax, hinge"),
    ("model.layers=('text',", "config.model.layers must be tuple[str, ...], not \"('text',\""),
    ("modle.width=3", "config.modle is not a field; did you mean config.model?"),
    ("model.widht=3", "config.model.widht is not a field; did you mean config.model.width?"),
    ("model=3", "config.model holds fields; set one of config.model.family, "),
    ("steps.more=3", "config.steps.more is not a field; config.steps is one value"),
]


def flagged(text):
    argv = ["--config=data_cc,scale=tiny", "--workdir=x", f"--config.{text}"]
    return flags.parse("train", train, argv).config


def value(config, path):
    for name in path.split("."):
        config = getattr(config, name)
    return config


@pytest.mark.parametrize(("text", "meant"), BOTH)
def test_a_flag_and_a_setting_of_a_study_mean_the_same(text, meant):
    path = text.partition("=")[0]
    found = value(flagged(text), path), parse_overrides([text])[path]
    assert found == (meant, meant)
    assert {type(one) for one in found} == {type(meant)}


@pytest.mark.parametrize(("text", "message"), NEITHER)
def test_a_flag_and_a_setting_are_refused_alike(text, message):
    told = []
    for parse in (flagged, lambda text: parse_overrides([text])):
        with pytest.raises(UsageError) as error:
            parse(text)
        told.append(str(error.value))
    assert told[0] == told[1]
    assert told[0].startswith(message)


def test_flags_of_fields_in_all_their_spellings():
    argv = ["--workdir=x", "-config.steps", "7", "--config", "data_cc", "--config.objective.hloss"]
    argv += ["--config.optim.freeze=text/.*", "--config.optim.freeze=image/.*"]
    config = flags.parse("train", train, argv).config
    assert (config.steps, config.objective.hloss) == (7, True)
    assert config.optim.freeze == ("text/.*", "image/.*")
    config = flags.parse("train", train, [*argv, "--noconfig.objective.hloss"]).config
    assert config.objective.hloss is False


def test_what_a_file_derives_from_a_field_follows_it(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    config = ConfigDict({'steps': 100})\n"
        "    config.eval = {'every': config.get_ref('steps') // 10}\n"
        "    return config.lock()\n"
    )
    assert overrides.load(str(path)).eval.every == 10
    config = overrides.load(str(path), {"steps": 200, "data.source": "scenes"})
    assert (config.steps, config.eval.every, config.data.source) == (200, 20, "scenes")


def test_a_file_may_make_a_config_or_plain_fields(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from mmt_jax.configs import variants\n"
        "def get_config(arg):\n"
        "    config = variants.parse('data_cc,scale=tiny')\n"
        "    return config if arg == 'whole' else {'model': {'width': 8}}\n"
    )
    whole = overrides.load(f"{path}:whole", {"model.width": 16})
    assert whole == resolve({**as_dict(whole), "model": {**as_dict(whole.model), "width": 16}})
    assert overrides.load(f"{path}:part", {"optim.lr": 0.5}).optim.lr == 0.5
    path.write_text("def get_config(): pass")
    with pytest.raises(UsageError, match="must return a config or its fields by name, not None"):
        overrides.load(str(path))


@pytest.mark.parametrize(
    ("itm", "asked", "parts", "number"),
    [
        ("contrastive", 0, 1, 12),  # all of a batch
        ("contrastive", 1024, 1, 12),
        ("contrastive", 1024, 2, 6),  # of what is seen at once
        ("contrastive", 4, 1, 4),
        ("classification", 7, 1, 7),  # not used
    ],
)
def test_candidates_follow_the_batch(itm, asked, parts, number):
    objective = ObjectiveConfig(itm=itm, candidates=asked)
    config = Config(batch_size=12, grad_accum=parts, objective=objective)
    assert grouped(config).objective.candidates == number


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (12, "groups of 5 candidates; give --config.batch_size=10, or .*candidates=0 for all"),
        (1, "groups of 1 candidates; a contrast needs 2 or more"),
    ],
)
def test_a_batch_that_is_no_multiple_of_its_candidates(batch, message):
    objective = ObjectiveConfig(itm="contrastive", candidates=5)
    with pytest.raises(UsageError, match=message):
        grouped(Config(batch_size=batch, objective=objective))
