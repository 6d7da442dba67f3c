import dataclasses
import functools
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
import small_models as small
import zoo
from scipy import special

import mmt_jax
from mmt_jax.cli import export as command
from mmt_jax.cli import main as cli
from mmt_jax.configs import config as config_lib
from mmt_jax.configs.config import DataConfig, EvalConfig, ObjectiveConfig
from mmt_jax.configs.tasks import TaskConfig
from mmt_jax.corpus import Corpus
from mmt_jax.data import regions, schema
from mmt_jax.errors import UsageError
from mmt_jax.hub import card as card_lib
from mmt_jax.infer.export import loading, savedmodel, serialization, signature
from mmt_jax.infer.predict import Predictor
from mmt_jax.models import registry
from mmt_jax.photo import SCORES
from mmt_jax.tasks import labels as labels_lib
from mmt_jax.train import checkpoint
from mmt_jax.typing import Batch

pytestmark = pytest.mark.tf

CONFIGS = {
    "joint": small.config(("text", "merged")),
    "tower": small.config(("text", "image"), family="two_tower", itm="contrastive", pixels=True),
    "cosine": dataclasses.replace(
        small.config(("text", "single"), itm="contrastive", cosine=True, pooling="mean+cls+words"),
        init_from="/home/NAME/runs/first",
    ),
}


def export(workdir, out):
    """`mmt export`, with its errors as they are raised."""
    command.run(types.SimpleNamespace(workdir=str(workdir), out=str(out), format="savedmodel"))


@pytest.fixture(scope="module", autouse=True)
def tf():
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def exported(tf, tmp_path_factory):
    """Folder of a SavedModel by the name of its config; written on first use."""
    root = tmp_path_factory.mktemp("exported")

    @functools.cache
    def folder(name):
        if name == "joint":  # this one by way of a workdir
            (root / "run").mkdir()
            export(small.make_workdir(root / "run", CONFIGS[name]), root / name)
        else:
            vocabulary = small.TOKENIZER.model
            savedmodel.export_model(*small.build(CONFIGS[name]), vocabulary, root / name)
        return root / name

    return folder


@pytest.fixture(scope="module")
def loaded(tf, exported):
    """The loaded module, kept: each one compiles anew."""
    return functools.cache(lambda name: tf.saved_model.load(str(exported(name))))


@functools.cache
def pairs(name, number):
    """Inputs of the signature for `number` pairs, other sizes than those that export tries."""
    if CONFIGS[name].model.pixels:
        photos = [small.pixels(6, 4, seed=seed) for seed in range(number)]
    else:
        photos = [small.record(3, seed=seed, padding=1) for seed in range(number)]
    return small.batch(photos, small.CAPTIONS[:number])


def split(inputs):
    """Text keys and image keys."""
    texts = {key: value for key, value in inputs.items() if key in schema.TEXT_KEYS}
    return texts, {key: value for key, value in inputs.items() if key not in texts}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_answers_as_the_model_does(tf, loaded, name):
    inputs = pairs(name, 4)
    logits = loaded(name).signatures["default"](**inputs)["output"].numpy()
    assert logits.shape == (4, 2)
    found = tf.nn.softmax(logits).numpy()[:, 0]
    expected = small.probability(*small.build(CONFIGS[name]), inputs)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found) > 0.01  # or the comparison would say nothing


@pytest.mark.slow
def test_one_pair_gives_a_scalar_through_the_releases_snippet(tf, loaded):
    model = loaded("joint")
    inputs = pairs("joint", 1)
    output = model.signatures["default"](**inputs)
    score = tf.nn.softmax(output["output"]).numpy()[0]
    assert score.shape == ()
    assert re.fullmatch(r"0\.\d{3}", "%0.03f" % score)  # noqa: UP031, as the notebook prints it
    expected = small.probability(*small.build(CONFIGS["joint"]), inputs)
    np.testing.assert_allclose(score, expected[0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_signature_is_the_releases(loaded, name):
    default = loaded(name).signatures["default"]
    _, inputs = default.structured_input_signature
    found = {spec.name: (tuple(spec.shape), spec.dtype.name) for spec in inputs.values()}
    text = {key: ((None, None), "int32") for key in schema.TEXT_KEYS}
    regions = {
        "image/bboxes": ((None, None, 5), "float32"),
        "image/detection_features": ((None, None, small.FEATURE_DIM), "float32"),
        "image/padding_mask": ((None, None), "int32"),
    }
    pixels = {"image/pixels": ((None, None, None, 3), "float32")}
    assert found == text | (pixels if name == "tower" else regions)
    assert default.structured_outputs.keys() == {"output"}


@pytest.mark.slow
def test_called_or_served_it_answers_in_batches(tf, loaded):
    inputs = {key: tf.constant(value) for key, value in pairs("joint", 1).items()}
    module = loaded("joint")
    one = module.signatures["default"](**inputs)["output"]
    for answer in (module(inputs), module.signatures["serving_default"](**inputs)):
        assert answer["output"].shape == (1, 2)
        np.testing.assert_array_equal(answer["output"][0], one)
    assert module.signatures["serving_default"].structured_outputs["output"].shape[1] == 2


@pytest.mark.slow
def test_the_model_reads_masked_tokens(loaded):
    default = loaded("joint").signatures["default"]
    inputs = pairs("joint", 4)
    before = default(**inputs)["output"]
    other = inputs[schema.TOKEN_IDS] * 0 + 9
    unread = default(**inputs | {schema.TOKEN_IDS: other})["output"]
    read = default(**inputs | {schema.MASKED_TOKENS: other})["output"]
    np.testing.assert_array_equal(unread, before)
    assert np.abs(read - before).max() > 1e-3


@pytest.mark.slow
def test_embeddings_of_any_number_of_either_rank_as_scores_do(loaded):
    texts, images = split(pairs("tower", 4))
    texts = {key: value[:3] for key, value in texts.items()}
    embedded = loaded("tower").signatures["embed"](**texts, **images)
    text, image = (embedded[f"{kind}_embedding"].numpy() for kind in ("text", "image"))
    assert (text.shape, image.shape) == ((3, 8), (4, 8))
    _, params = small.build(CONFIGS["tower"])
    matched = pairs("tower", 4)
    logits = loaded("tower").signatures["default"](**matched)["output"].numpy()[:3]
    calibration = params["calibration"]
    expected = calibration["scale"] * (text * image[:3]).sum(1) + calibration["bias"]
    np.testing.assert_allclose(logits[:, 0] - logits[:, 1], expected, atol=1e-5)


@pytest.mark.slow
def test_joint_models_have_no_embeddings(loaded):
    assert set(loaded("joint").signatures) == {"default", "serving_default"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "layers",
    [("coattention", "single"), ("single_stream",), ("language_query", "image_query"), ("single",)],
)
@pytest.mark.parametrize("itm", ["classification", "contrastive"])
def test_every_attention_lowers_with_all_sizes_free(layers, itm):
    config = small.config(layers, itm=itm)
    model = registry.build(config)
    fields = signature.fields(config)
    scope = jax.export.SymbolicScope()
    inputs = {
        key: jax.ShapeDtypeStruct(
            jax.export.symbolic_shape(", ".join(field.dims), scope=scope), field.dtype
        )
        for key, field in fields.items()
    }
    function = jax.jit(functools.partial(signature.default, model))
    export = jax.export.export(function, platforms=serialization.PLATFORMS)
    (output,) = export(model.abstract(), inputs).out_avals
    assert str(output.shape) == "(b, 2)"


@pytest.mark.slow
def test_assets_hold_what_scoring_captions_takes(tf, exported):
    assets = exported("joint") / "assets"
    assert (assets / "spiece.model").read_bytes() == small.TOKENIZER.model
    about = json.loads((assets / "mmt.json").read_text())
    assert config_lib.resolve(about["config"]) == CONFIGS["joint"]
    assert about["step"] == 3
    assert about["versions"]["tensorflow"] == tf.__version__


@pytest.mark.slow
def test_an_export_names_no_folder_of_the_machine_it_was_written_on(exported):
    folder = exported("cosine")
    ours = os.fspath(pathlib.Path(mmt_jax.__file__).parent)
    for path in filter(pathlib.Path.is_file, folder.rglob("*")):
        content = path.read_bytes()
        assert b"NAME" not in content, path
        assert ours.encode() not in content, path
    assert mmt_jax.load(folder).config.init_from == "first"


@pytest.mark.slow
def test_stablehlo_is_of_a_version_that_tensorflow_reads(exported):
    graph = (exported("joint") / "saved_model.pb").read_bytes()
    assert set(re.findall(rb"StableHLO_v([\d.]+\d)", graph)) == {serialization.STABLEHLO.encode()}


def test_the_version_of_stablehlo_is_asked_for_only_inside_and_only_if_it_can_be(monkeypatch):
    from jax._src.export import _export

    name = "get_version_from_compatibility_requirement"
    before = getattr(_export.hlo, name)
    with serialization.readable_stablehlo():
        assert getattr(_export.hlo, name)(None) == serialization.STABLEHLO
    assert getattr(_export.hlo, name) is before
    monkeypatch.delattr(_export.hlo, name)
    with serialization.readable_stablehlo():
        assert not hasattr(_export.hlo, name)


WITHOUT_JAX = """
import sys
for name in ("jax", "jaxlib", "flax", "mmt_jax"):
    sys.modules[name] = None  # an import of it fails
import numpy as np
import tensorflow as tf
import tensorflow_hub as hub
inputs = dict(np.load(sys.argv[2]))
model = hub.load(sys.argv[1])
output = model.signatures['default'](**inputs)
score = tf.nn.softmax(output['output']).numpy()[0]
print(float(score), model.vocabulary.asset_path.numpy().decode())
"""


@pytest.mark.slow
def test_loads_from_hub_without_jax(exported, tmp_path):
    inputs = pairs("tower", 1)
    np.savez(tmp_path / "inputs.npz", **inputs)
    command = [sys.executable, "-c", WITHOUT_JAX, exported("tower"), tmp_path / "inputs.npz"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    score, vocabulary = done.stdout.split()
    expected = small.probability(*small.build(CONFIGS["tower"]), inputs)[0]
    np.testing.assert_allclose(float(score), expected, atol=1e-5)
    assert vocabulary == str(exported("tower") / "assets" / "spiece.model")


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    model, params = small.build(CONFIGS["joint"])
    for out in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(UsageError, match="exists and is not overwritten"):
            savedmodel.export_model(model, params, small.TOKENIZER.model, out)
        with pytest.raises(UsageError, match="exists and is not overwritten"):
            export(tmp_path / "no workdir", out)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_no_workdir_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="is not a training workdir"):
        export(tmp_path, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_workdir_without_its_vocabulary_is_named(exported, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(exported("joint").parent / "run", run)
    (run / "spiece.model").unlink()
    with pytest.raises(UsageError, match=r"run .* has no vocabulary \(spiece\.model"):
        export(run, tmp_path / "out")


def test_models_without_a_pair_score_are_refused(tmp_path):
    config = small.config(("text",), family="bert", itm="none")
    with pytest.raises(UsageError, match="scores no pairs"):
        savedmodel.export_model(*small.build(config), small.TOKENIZER.model, tmp_path / "out")


@pytest.mark.slow
def test_a_module_that_answers_otherwise_is_not_kept(tmp_path, monkeypatch):
    def off_by_a_little(function, fields):
        def changed(params, inputs):
            return {key: value + 1e-3 for key, value in function(params, inputs).items()}

        return serialization.convert(changed, fields)

    monkeypatch.setattr(savedmodel, "convert", off_by_a_little)
    model, params = small.build(CONFIGS["joint"])
    with pytest.raises(RuntimeError, match=r"default: output is off by 0\.001"):
        savedmodel.export_model(model, params, small.TOKENIZER.model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_load_scores_with_a_saved_model(exported, name):
    scorer = mmt_jax.load(exported(name))
    inputs = {key: value[:2] for key, value in pairs(name, 4).items()}
    _, images = split(inputs)
    photos = [{key: value[i] for key, value in images.items()} for i in range(2)]
    found = scorer.score(photos, small.CAPTIONS[:2])
    assert found.shape == (2, 2)
    expected = small.probability(*small.build(CONFIGS[name]), inputs)
    np.testing.assert_allclose(np.diag(found), expected, atol=1e-5)
    with pytest.raises(UsageError, match="record 0: "):
        scorer.score({}, ["a red cube"])


# ---- Models of a task ------------------------------------------------------------------------

LABELS = ("cat", "dog", "häschen")
PHOTOS = {"vqa": 1, "nlvr2": 2}


@pytest.fixture(scope="module")
def asked(tf, tmp_path_factory):
    """Workdir of a task's model and its export, by task; made by command on first use."""
    root = tmp_path_factory.mktemp("asked")

    @functools.cache
    def make(task):
        names = LABELS[: 3 if task == "vqa" else 2]
        config = small.config(("text", "merged"), itm="none", num_answers=len(names))
        config = dataclasses.replace(
            config,
            tag=task,
            task=TaskConfig(name=task),
            objective=ObjectiveConfig(itm="none", mlm=0.0, mrm=0.0),
            eval=EvalConfig(best="accuracy"),
        )
        run, out = root / task, root / f"{task}_saved"
        run.mkdir()
        small.make_workdir(run, config, metrics={"accuracy": 0.61234, "loss": 1.0})
        labels_lib.store(names, run)
        assert cli.main(["export", f"--workdir={run}", f"--out={out}"]) == 0
        return run, out

    return make


@pytest.mark.slow
@pytest.mark.parametrize("task", PHOTOS)
def test_a_task_is_answered_by_its_export_as_by_its_workdir(tf, asked, task, tmp_path, capsys):
    run, out = asked(task)
    argv = ["--question=a red cube", "--json"]
    for number in range(PHOTOS[task]):
        path = tmp_path / f"{number}.npz"
        np.savez(path, **small.record(3 + number, seed=number))
        argv.append(f"--record={path}")
    told = []
    for model in (run, out):
        capsys.readouterr()
        assert cli.main(["answer", f"--model={model}", *argv]) == 0
        told.append(json.loads(capsys.readouterr().out))
    ours, theirs = ([row["label"] for row in rows] for rows in told)
    assert ours == theirs
    chances = [[row["probability"] for row in rows] for rows in told]
    np.testing.assert_allclose(chances[1], chances[0], atol=1e-5)
    assert np.ptp(chances[0]) > 0.01
    if task == "nlvr2":
        assert sum(chances[0]) == pytest.approx(1)


@pytest.mark.slow
def test_an_export_of_a_task_is_called_without_us(tf, asked):
    run, out = asked("nlvr2")
    module = pytest.importorskip("tensorflow_hub").load(str(out))
    assert set(module.signatures) == {"answer", "serving_default"}
    with open(module.labels.asset_path.numpy(), encoding="utf-8") as file:
        assert json.load(file) == ["cat", "dog"]
    first, second = ([small.record(regions, seed=seed) for seed in (0, 1)] for regions in (3, 4))
    inputs = small.batch(first, small.CAPTIONS[:2])
    more = {
        key.replace("image/", "image_2/"): np.stack([r[key] for r in second]) for key in first[0]
    }
    found = module.signatures["answer"](**inputs, **more)
    trained = checkpoint.load(run)
    one, two = (
        schema.to_image({key: np.stack([r[key] for r in rows]) for key in rows[0]})
        for rows in (first, second)
    )
    batch = Batch(schema.to_text(inputs), one, np.arange(2, dtype=np.int32), (two,))
    expected = Predictor(trained.model, trained.params).answers(batch)
    np.testing.assert_allclose(found["logits"], expected, atol=2e-5)
    np.testing.assert_allclose(found["probabilities"], special.softmax(expected, -1), atol=1e-5)
    assert np.ptp(expected) > 0.01


@pytest.mark.slow
def test_an_export_of_a_task_refuses_what_it_cannot(asked):
    scorer = mmt_jax.load(asked("nlvr2")[1])
    assert scorer.abilities == ("answer",)
    with pytest.raises(UsageError, match="asked about 2 photos at once"):
        scorer.answer(small.record(3), "a cube")
    with pytest.raises(UsageError, match="scores no pairs"):
        scorer.score(small.record(3), ["a cube"])
    with pytest.raises(UsageError, match="scores no pairs"):
        scorer.logits({})


@pytest.mark.parametrize(
    ("labels", "photos", "message"),
    [
        ("[", None, "Expecting value"),
        ('{"0": "cat", "1": "dog"}', None, "its labels are no list of 2"),
        ('["cat"]', None, "its labels are no list of 2"),
        ('["cat", "dog"]', 7, "its photos are 7"),
    ],
)
def test_damaged_assets_are_told(labels, photos, message):
    config = small.config(("text", "merged"), num_answers=2)
    about = {"config": config_lib.as_dict(config), "photos": photos}
    assert loading._described(json.dumps(about | {"photos": None}), '["a", "b"]', "out")[2]
    with pytest.raises(UsageError, match=f"out is damaged .*{message}.*; export or download"):
        loading._described(json.dumps(about), labels, "out")


@pytest.mark.slow
def test_hugging_face_reads_the_card(asked):
    card = pytest.importorskip("huggingface_hub").ModelCard.load(asked("vqa")[1] / "README.md")
    data = card.data
    assert (data.license, data.pipeline_tag) == ("unknown", "visual-question-answering")
    assert [(r.metric_type, r.metric_value) for r in data.eval_results] == [("accuracy", 0.6123)]
    assert data.tags == ["mmt_jax", "mmt", "vqa"]
    text = card.text
    assert "answers questions about a photo, as of vqa" in text
    assert "| accuracy | 0.6123 |" in text
    assert "loss" not in text
    called = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    called = called.replace("FOLDER", str(asked("vqa")[1]))
    compile(called, "card", "exec")
    assert 'module.signatures["answer"]' in called


def written(config, **how):
    """The card of a model of that config."""
    how = {"step": 3, "metrics": {}, "library": "x"} | how
    return card_lib.text(registry.build(config), {}, "", **how)


def test_a_card_tells_what_was_trained():
    def learned(*args, **how):
        return re.search("- learned: (.*)", written(zoo.config(*args, **how)))[1]

    weights = {"itc": 0.5, "mlm": 0.0}
    assert learned("mmt", objective=weights) == "itm (classification) × 1, mrm × 1"
    assert learned("bert") == "mlm × 1"
    told = learned("bridgetower", objective={"itc": 0.5, "mrm": 0.0})
    assert told == "itm (classification) × 1, itc × 0.5, mlm × 1"
    assert learned("two_tower", objective={"loss": "triplet"}) == "itm (contrastive, triplet) × 1"
    config = small.config(("text", "merged"), num_answers=3)
    config = dataclasses.replace(config, task=TaskConfig(name="vqa"))
    assert "answers to vqa × 1, itm (classification) × 1, mlm × 1" in written(config)


def test_a_card_names_no_folder_of_the_machine_it_was_written_on():
    data = DataConfig(source="regions:/home/NAME/coco, scenes/cc")
    config = dataclasses.replace(
        CONFIGS["joint"],
        data=data,
        init_from="/home/NAME/runs/first,google/bert",
        eval=EvalConfig(best="loss"),
    )
    text = written(config, metrics={"loss": 1.0})
    assert "NAME" not in text
    assert "`regions:coco, scenes/cc`" in text
    assert "`first, google/bert`" in text
    assert '"type": "regions:coco, scenes/cc"' in text
    asked = dataclasses.replace(config, data=DataConfig(source="photos:/NAME/a?captions=/NAME/b"))
    assert card_lib.public(asked).data.source == "photos:a?captions=b"
    for told, shown in [("/NAME/runs/a:b", "a:b"), ("gs://bucket/run", "gs://bucket/run")]:
        asked = dataclasses.replace(config, init_from=told)
        assert card_lib.public(asked).init_from == shown
    assert card_lib.public(CONFIGS["joint"]) == CONFIGS["joint"]


def test_a_card_tells_what_its_task_reads():
    config = zoo.config(
        "clip",
        model={"num_answers": 3},
        objective={"itm": "none"},
        task=TaskConfig(name="cifar"),
    )
    assert "it reads photos in patches of 4 × 4 pixels." in " ".join(written(config).split())
    assert "AutoImageProcessor" in card_lib.transformers("CLIPModel", photos=True)
    assert "AutoImageProcessor" not in card_lib.transformers("BertModel", photos=False)


def test_a_card_is_written_where_nothing_is_installed(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert mmt_jax.__version__ == "unknown"
    assert "made with mmt_jax unknown" in written(CONFIGS["joint"])
    assert savedmodel._description(CONFIGS["joint"], 0)["versions"]["mmt_jax"] == "unknown"


@pytest.fixture
def release(tf):
    """Stands in for a released module: fixed sizes, no assets. Answers with counts of padding."""

    class Release(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec(shape, dtype, name=key)
                for key, shape, dtype in (
                    ("image/bboxes", (None, 8, 5), tf.float32),
                    ("image/detection_features", (None, 8, small.FEATURE_DIM), tf.float32),
                    ("image/padding_mask", (None, 8), tf.int32),
                    ("masked_tokens", (None, 25), tf.int32),
                    ("text/segment_ids", (None, 25), tf.int32),
                    ("text/token_ids", (None, 25), tf.int32),
                    ("text/padding_mask", (None, 25), tf.int32),
                )
            ]
        )
        def serve(self, boxes, features, image_padding, masked, segments, tokens, text_padding):
            count = tf.reduce_sum(image_padding, 1) - tf.reduce_sum(text_padding, 1)
            match = tf.cast(count, tf.float32) / 10
            return {"output": tf.squeeze(tf.stack([match, 0 * match], 1))}

    return Release()


@pytest.mark.slow
def test_a_released_module_is_padded_to_its_sizes(tf, release, tmp_path):
    tf.saved_model.save(release, str(tmp_path / "m"), signatures={"default": release.serve})
    with pytest.raises(UsageError, match="carries no vocabulary"):
        mmt_jax.load(tmp_path / "m")
    (tmp_path / "v.model").write_bytes(small.TOKENIZER.model)
    scorer = mmt_jax.load(tmp_path / "m", vocab=tmp_path / "v.model")
    caption = "a red cube"
    pieces = len(small.TOKENIZER.encode(caption))
    odds = ((8 - 4) - (25 - pieces - 2)) / 10  # 3 regions and the global one are real
    for records in (small.record(3), [small.record(3)] * 2):
        found = scorer.score(records, [caption])
        np.testing.assert_allclose(found, 1 / (1 + np.exp(-odds)), rtol=1e-5)
    with pytest.raises(UsageError, match="reads features of 6"):
        scorer.score(small.record(3) | {schema.FEATURES: np.zeros((4, 5), np.float32)}, [caption])


@pytest.mark.slow
def test_other_modules_are_refused(tf, tmp_path):
    module = tf.Module()
    module.double = tf.function(lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec([None])])
    tf.saved_model.save(module, str(tmp_path / "none"))
    tf.saved_model.save(module, str(tmp_path / "x"), signatures={"default": module.double})
    with pytest.raises(UsageError, match="no signature 'default'"):
        mmt_jax.load(tmp_path / "none")
    with pytest.raises(UsageError, match=r"no image–text model of this kind: .* takes x"):
        mmt_jax.load(tmp_path / "x")
    (tmp_path / "x" / "saved_model.pb").write_bytes(b"not a graph")
    with pytest.raises(UsageError, match=r"cannot be loaded .* damaged"):
        mmt_jax.load(tmp_path / "x")


def test_fields_name_what_is_free():
    fields = signature.fields(CONFIGS["tower"], photos="n")
    assert fields[schema.PIXELS].dims == ("n", "2*h", "2*w", "3")
    assert fields[schema.PIXELS].shape == (None, None, None, 3)
    assert fields[schema.TOKEN_IDS].dims == ("b", "t")


def notebook(regions, features, words):
    """The release's notebook, again: the seven keys of one pair, by their order in `Echo`.

    Args:
      regions: [n, 5] boxes with area, best first, n ≤ 100.
      features: [n, F].
      words: ids of the caption.
    """
    boxes, rows = np.zeros((101, 5), np.float32), np.zeros((101, features.shape[1]), np.float32)
    hidden, n = np.ones(101, np.int32), len(regions)
    boxes[-n:], rows[-n:], hidden[-n:] = regions, features, 0
    boxes[-1] = 0, 0, 1, 1, 1  # over the worst of them
    rows[-1] = features[:-1].mean(axis=0)
    tokens = [6] * (25 - len(words) - 2) + [4, *words, 3]
    segments = [0] * 24 + [2]
    padding = [1] * (25 - len(words) - 2) + [0] * (len(words) + 2)
    return [boxes, rows, hidden, *(np.array(x) for x in (tokens, segments, tokens, padding))]


@pytest.mark.slow
def test_a_released_module_gets_what_its_notebook_gave_it(tf, tmp_path):
    class Echo(tf.Module):
        """Free sizes; answers [B], a sum of all inputs, each times its place."""

        @tf.function(
            input_signature=[
                tf.TensorSpec((None, None, *width), dtype, name=key)
                for key, width, dtype in (
                    ("image/bboxes", (5,), tf.float32),
                    ("image/detection_features", (small.FEATURE_DIM,), tf.float32),
                    ("image/padding_mask", (), tf.int32),
                    ("masked_tokens", (), tf.int32),
                    ("text/segment_ids", (), tf.int32),
                    ("text/token_ids", (), tf.int32),
                    ("text/padding_mask", (), tf.int32),
                )
            ]
        )
        def serve(self, *inputs):
            total = 0.0
            for number, x in enumerate(inputs):
                x = tf.cast(x, tf.float32) / 100
                x = tf.reshape(x, (tf.shape(x)[0], -1))
                place = tf.range(tf.shape(x)[1], dtype=tf.float32)
                total += (number + 1) * tf.reduce_sum(x * place, 1) / 100
            return {"output": total}

    tf.saved_model.save(Echo(), str(tmp_path / "m"), signatures={"default": Echo().serve})
    (tmp_path / "v.model").write_bytes(small.TOKENIZER.model)
    scorer = mmt_jax.load(tmp_path / "m", vocab=tmp_path / "v.model")
    rng = np.random.default_rng(0)
    captions, photos = ["a red cube", "two balls"], []
    expected = np.zeros((2, 2))
    for column, count in enumerate((4, 7)):
        corner = rng.uniform(0, 0.4, (count, 2)).astype(np.float32)
        boxes = np.concatenate([corner, corner + 0.5, np.full((count, 1), 0.25, np.float32)], 1)
        features = rng.random((count, small.FEATURE_DIM), np.float32)
        photos.append((boxes, features))
        for row, caption in enumerate(captions):
            inputs = notebook(boxes, features, small.TOKENIZER.encode(caption))
            for number, x in enumerate(inputs):
                x = x.astype(np.float64).reshape(-1) / 100
                expected[row, column] += (number + 1) * (x * np.arange(x.size)).sum() / 100
    reading = regions.Reading.of(scorer.config)
    records = []
    for boxes, features in photos:
        corpus = Corpus(
            name="test",
            image_ids=np.arange(1),
            offsets=np.array([0, len(boxes) + 1]),
            captions=(("a",),),
            rows={
                schema.BOXES: np.concatenate([boxes, [[0, 0, 1, 1, 1]]]).astype(np.float32),
                schema.FEATURES: np.concatenate([features, features[:1]]),
                SCORES: np.linspace(1, 0, len(boxes) + 1, dtype=np.float32),
            },
        )
        records.append(regions.record(corpus, 0, reading))
    found = scorer.log_odds(scorer.texts(captions, truncate=False), scorer.images(records))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
