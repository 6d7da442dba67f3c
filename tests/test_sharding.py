import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from mmt_jax import params as trees
from mmt_jax.configs import variants
from mmt_jax.configs.config import Config, DataSpec, ObjectiveConfig, with_spec
from mmt_jax.configs.models import ClipConfig
from mmt_jax.errors import UsageError
from mmt_jax.models import registry
from mmt_jax.train import sharding

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    script = ROOT / "tests" / "eight_devices.py"
    path = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    env = os.environ | {"PYTHONPATH": path, "JAX_NUM_CPU_DEVICES": "8"}
    folder = tmp_path_factory.mktemp("eight") / "run"
    done = subprocess.run(
        [sys.executable, script, folder], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["data", "both", "fsdp"])
def test_a_step_on_eight_devices_is_the_step_on_one(report, mesh):
    assert report[mesh]["devices"] == 8
    assert report[mesh]["loss"] == pytest.approx(report["one"]["loss"], rel=1e-6)
    # Sums are taken in another order; one step moves a parameter by up to 0.01.
    assert report[mesh]["distance"] < 1e-6
    assert report[mesh]["moments"] < 1e-6


@pytest.mark.slow
def test_fsdp_cuts_parameters_and_moments_over_the_data_axis(report):
    assert report["fsdp"]["mlp"] == report["fsdp"]["moment"] == ["data", "model"]
    assert report["fsdp"]["tokens"] == [None, "data"]
    assert report["fsdp"]["memory"] < report["both"]["memory"] / 2


@pytest.mark.slow
def test_fsdp_gathers_parameters_and_never_the_batch(report):
    assert report["working"]["fsdp"] < 1.05 * report["working"]["data"]


@pytest.mark.slow
def test_parameters_and_their_moments_lie_over_the_model_axis(report):
    assert report["both"]["mlp"] == report["both"]["moment"] == [None, "model"]
    assert report["both"]["tokens"] == [None, None]  # 29 words cannot be cut in two


@pytest.mark.slow
def test_a_checkpoint_of_one_mesh_is_read_on_another(report):
    assert report["read"] == {"distance": 0.0, "devices": 2, "position": {"next_index": 7}}
    assert report["loaded"] == {"distance": 0.0, "devices": 1}


@pytest.mark.slow
def test_twelve_layers_are_the_same_on_eight_devices(report):
    assert report["deep"]["distance"] == 0.0
    assert report["deep"]["scores"] < 1e-5


@pytest.mark.parametrize(
    "tag",
    [
        "data_cc",
        "architecture_coattention",
        "architecture_single-stream",
        "architecture_image-q-12",
        "loss_v1-contrastive32",
        "baseline_baseline",
        "baseline_baseline-cls",
        "bert",
    ],
)
def test_every_parameter_matches_exactly_one_row(tag):
    config = with_spec(variants.get_config(tag, scale="tiny"), DataSpec(6, 5, 29))
    shapes = registry.build(config).abstract()
    placed = trees.flatten(sharding.of_params(shapes, config, sharding.mesh(config)))
    assert placed.keys() == trees.flatten(shapes).keys()


@pytest.mark.parametrize(("devices", "cut"), [(2, True), (4, False), (3, False), (8, False)])
def test_heads_are_cut_whole_or_not_at_all(devices, cut):
    """CLIP's text tower has two heads, its image tower four; both are 8 wide."""
    model = ClipConfig(
        **dict.fromkeys(("width", "text_width", "image_width"), 8),
        **{"text_heads": 2, "image_heads": 4},
    )
    objective = ObjectiveConfig(itm="contrastive", mlm=0.0, mrm=0.0)
    config = with_spec(Config(model=model, objective=objective), DataSpec(3 * 32**2, 0, 29))
    mesh = jax.sharding.AbstractMesh((1, devices), sharding.AXES)
    shapes = registry.build(config).abstract()
    placed = trees.flatten(sharding.of_params(shapes, config, mesh))
    axes = {"text": "model" if cut else None, "image": "model" if devices in (2, 4) else None}
    for tower, axis in axes.items():
        layer = f"{tower}/stack/layers/0/attention"
        assert placed[f"{layer}/query/kernel"].spec == sharding.P(None, axis)
        assert placed[f"{layer}/value/bias"].spec == sharding.P(axis)
        assert placed[f"{layer}/out/kernel"].spec == sharding.P(axis, None)


def test_a_parameter_without_a_row_or_with_two_is_an_error(monkeypatch):
    config = Config()
    mesh = sharding.mesh(config)
    leaf = jax.ShapeDtypeStruct((2,), np.float32)
    with pytest.raises(ValueError, match="new/kernel matches 0 rows"):
        sharding.of_params({"new": {"kernel": leaf}}, config, mesh)
    twice = (*sharding.PLACES, (r"calibration/.*", sharding.P()))
    monkeypatch.setattr(sharding, "PLACES", twice)
    with pytest.raises(ValueError, match="calibration/scale matches 2 rows"):
        sharding.of_params({"calibration": {"scale": leaf}}, config, mesh)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES=two is no number"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID=-1 is no number"),
    ],
)
def test_hosts_that_are_told_wrongly_are_named(monkeypatch, given, message):
    for name, value in (given | {"JAX_COORDINATOR_ADDRESS": "localhost:1"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        sharding.initialize()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mesh": (("data", 1), ("expert", 1))}, "must name"),
        ({"mesh": (("data", -1), ("model", -1))}, "at most one"),
        ({"mesh": (("data", 0),)}, "above 0"),
        ({"mesh": (("model", 1000),)}, "1000 devices, there"),
        ({"batch_size": 9, "grad_accum": 2}, "not a multiple of 2"),
    ],
)
def test_a_mesh_that_cannot_be_is_named(change, message):
    config = dataclasses.replace(Config(mesh=(("data", 1),)), **change)
    with pytest.raises(UsageError, match=message):
        sharding.mesh(config)
