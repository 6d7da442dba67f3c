"""Weights of other libraries: a workdir that serves like a trained one, or one clear message."""

import dataclasses
import json
import pathlib
import pickle
import shutil

import jax
import numpy as np
import pytest
import test_lxmert as hf

from mmt_jax import hub as importers
from mmt_jax import params as trees
from mmt_jax.cli import main as cli
from mmt_jax.data import schema
from mmt_jax.errors import UsageError
from mmt_jax.infer import api
from mmt_jax.models import registry
from mmt_jax.models import weights as engine
from mmt_jax.models.weights import Row
from mmt_jax.train import checkpoint, init, published

pytestmark = pytest.mark.torch

FEATURE_DIM = 7
CAPTIONS = ("a red cube", "two balls")


@pytest.fixture
def mmt(capsys):
    """Runs a command; returns the exit status and what it wrote to stdout and stderr."""

    def run(*argv):
        status = cli.main([str(arg) for arg in argv])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def theirs():
    return hf.published("LxmertForPreTraining")


@pytest.fixture
def folder(theirs, tmp_path):
    return hf.saved(theirs, tmp_path / "published")


def bring(folder, out, model="lxmert"):
    return ("import", f"--from={folder}", f"--model={model}", f"--out={out}")


def record(regions=4):
    """One photo as regions alone, without a global one."""
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 0.5, (regions, 2))
    high = low + rng.uniform(0.1, 0.5, low.shape)
    boxes = np.concatenate([low, high, (high - low).prod(axis=1, keepdims=True)], axis=1)
    return {
        schema.BOXES: boxes.astype(np.float32),
        schema.FEATURES: rng.normal(size=(regions, FEATURE_DIM)).astype(np.float32),
        schema.IMAGE_PADDING: np.zeros(regions, np.int32),
    }


# ---- A workdir like any other --------------------------------------------------------------------


def probabilities(theirs, record, folder):
    """What the PyTorch model and its tokenizer say of one photo and CAPTIONS."""
    torch, transformers = hf._libraries()
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"))
    inputs = tokenizer(list(CAPTIONS), padding=True, return_tensors="pt")
    boxes = record[schema.BOXES][:, [1, 0, 3, 2]]
    repeated = {
        key: torch.from_numpy(np.stack([value] * len(CAPTIONS)))
        for key, value in (("visual_feats", record[schema.FEATURES]), ("visual_pos", boxes))
    }
    scores = theirs(**inputs, **repeated).cross_relationship_score
    return torch.softmax(scores, -1)[:, 1].detach().numpy()


@pytest.mark.slow
def test_imported_model_scores_as_the_pytorch_model(mmt, theirs, folder, tmp_path):
    out, photo = tmp_path / "run", tmp_path / "photo.npz"
    status, told, _ = mmt(*bring(folder, out))
    assert status == 0
    assert f"{sum(p.numel() for p in theirs.parameters()):,} parameters" in told
    np.savez(photo, **record())
    expected = probabilities(theirs, record(), folder)
    np.testing.assert_allclose(api.load(out).score(photo, CAPTIONS), expected, atol=1e-5)
    asked = [f"--caption={caption}" for caption in CAPTIONS]
    _, told, _ = mmt("score", f"--model={out}", f"--record={photo}", "--json", *asked)
    found = [row["probability"] for row in json.loads(told)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.tf
def test_exported_signature_says_what_the_pytorch_model_says(mmt, theirs, folder, tmp_path):
    pytest.importorskip("tensorflow_hub")
    out, saved = tmp_path / "run", tmp_path / "saved"
    assert mmt(*bring(folder, out))[0] == 0
    assert mmt("export", f"--workdir={out}", f"--out={saved}")[0] == 0
    expected = probabilities(theirs, record(), folder)
    np.testing.assert_allclose(api.load(saved).score(record(), CAPTIONS), expected, atol=1e-5)


@pytest.mark.slow
def test_exported_folder_loads_in_pytorch(mmt, theirs, folder, tmp_path):
    torch, transformers = hf._libraries()
    out, back = tmp_path / "run", tmp_path / "back"
    assert mmt(*bring(folder, out))[0] == 0
    export = ("export", f"--workdir={out}", f"--out={back}", "--format=huggingface")
    assert mmt(*export)[0] == 0
    again, report = transformers.LxmertForPreTraining.from_pretrained(
        back, output_loading_info=True
    )
    assert not any(report.values()), report
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    status, _, err = mmt(*export)
    assert status == 2
    assert "not overwritten" in err


@pytest.mark.parametrize("architecture", ["LxmertModel", "LxmertForQuestionAnswering"])
def test_every_class_goes_there_and_back(tmp_path, architecture):
    _, transformers = hf._libraries()
    theirs = hf.published(architecture)
    found = importers.load(hf.saved(theirs, tmp_path / "in"), "lxmert")
    importers.save(found.config, found.params, found.tokenizer, tmp_path / "out")
    again, report = getattr(transformers, architecture).from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(report.values()), report
    for name, value in theirs.state_dict().items():
        assert np.array_equal(value, again.state_dict()[name]), name


@pytest.mark.slow
def test_training_starts_from_an_imported_model_and_gets_heads_of_its_own(theirs, folder, tmp_path):
    found = importers.load(folder, "lxmert")
    checkpoint.write(tmp_path / "run", found.config, found.params, found.tokenizer)
    other = dataclasses.replace(found.config.model, num_answers=0, num_classes=9)
    model = registry.build(dataclasses.replace(found.config, model=other))
    said = []
    params = init.params([tmp_path / "run"], model, jax.random.key(0), said.append)
    taken, fresh = trees.flatten(found.params), trees.flatten(model.init(jax.random.key(0)))
    for path, leaf in trees.flatten(params).items():
        source = fresh if path.startswith("region_head/") else taken
        np.testing.assert_array_equal(leaf, source[path], err_msg=path)
    assert "answer_head/out/kernel" not in trees.flatten(params)
    assert "10 arrays" in said[1]
    assert "region_head/outs/classes" in said[1]


def test_a_model_without_a_match_head_scores_no_pairs(mmt, tmp_path):
    published = hf.saved(hf.published("LxmertForQuestionAnswering"), tmp_path / "published")
    assert mmt(*bring(published, tmp_path / "run"))[0] == 0
    np.savez(tmp_path / "photo.npz", **record())
    asked = (f"--record={tmp_path / 'photo.npz'}", "--caption=a cube")
    status, _, err = mmt("score", f"--model={tmp_path / 'run'}", *asked)
    assert status == 2
    assert err.startswith("mmt: lxmert scores no pairs")
    assert err.count("\n") == 1


# ---- Forms of a folder ---------------------------------------------------------------------------


def same(found, folder):
    expected = trees.flatten(importers.load(folder, "lxmert").params)
    for path, leaf in trees.flatten(found.params).items():
        np.testing.assert_array_equal(leaf, expected[path], err_msg=path)


def copy_without_weights(folder, to):
    to.mkdir()
    for name in ("config.json", "vocab.txt"):
        (to / name).write_bytes((folder / name).read_bytes())
    return to


@pytest.mark.slow
def test_weights_in_parts(theirs, folder, tmp_path):
    theirs.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    parts = copy_without_weights(folder, tmp_path / "whole")
    for file in (tmp_path / "parts").glob("model*"):
        (parts / file.name).write_bytes(file.read_bytes())
    assert len(list(parts.glob("*.safetensors"))) > 1
    same(importers.load(parts, "lxmert"), folder)
    next(parts.glob("*.safetensors")).unlink()
    with pytest.raises(UsageError, match=r"lacks model-.*safetensors"):
        importers.load(parts, "lxmert")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model_LXRT.pth"])
def test_pickled_weights_and_the_names_of_the_original_release(theirs, folder, tmp_path, name):
    torch, _ = hf._libraries()
    state = theirs.state_dict()
    if name.endswith("pth"):
        state = {f"module.{key.replace('lxmert.', 'bert.', 1)}": v for key, v in state.items()}
    pickled = copy_without_weights(folder, tmp_path / "pickled")
    torch.save(state, pickled / name)
    same(importers.load(pickled, "lxmert"), folder)


@pytest.mark.slow
def test_half_precision_is_widened(theirs, folder, tmp_path):
    save = pytest.importorskip("safetensors.torch").save_file
    half = copy_without_weights(folder, tmp_path / "half")
    state = {key: value.bfloat16().contiguous() for key, value in theirs.state_dict().items()}
    state.pop("cls.predictions.decoder.weight")  # tied to the word embeddings
    save(state, half / "model.safetensors")
    leaf = importers.load(half, "lxmert").params["pooler"]["kernel"]
    assert leaf.dtype == np.float32
    expected = theirs.lxmert.pooler.dense.weight.detach().bfloat16().float().numpy().T
    np.testing.assert_array_equal(leaf, expected)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_hub_id_is_downloaded(monkeypatch, theirs, folder, tmp_path, suffix):
    torch, _ = hf._libraries()
    if suffix == "bin":
        (folder / "model.safetensors").rename(folder / "model.elsewhere")
        torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    asked = []

    def download(name, allow_patterns):
        """Only files that are asked for are there afterwards."""
        asked.append(name)
        here = tmp_path / "cache"
        here.mkdir(exist_ok=True)
        for pattern in allow_patterns:
            for file in folder.glob(pattern):
                (here / file.name).write_bytes(file.read_bytes())
        return here

    monkeypatch.setattr(pytest.importorskip("huggingface_hub"), "snapshot_download", download)
    found = importers.load("some/model", "lxmert")
    assert set(asked) == {"some/model"}
    np.testing.assert_array_equal(
        found.params["pooler"]["bias"], theirs.lxmert.pooler.dense.bias.detach()
    )


def test_a_hub_id_that_cannot_be_had(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def refuse(*_, **__):
        raise OSError("no network here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UsageError, match=r"some/model .*no network here.*give a folder"):
        importers.load("some/model", "lxmert")


# ---- What is wrong is told, and nothing is written -----------------------------------------------


class Code:
    """Runs when it is unpickled by someone who trusts it."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self.path),)


def truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def drop_config(folder):
    (folder / "config.json").unlink()


def edit_config(**fields):
    def edit(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return edit


def twice(folder):
    """Weights that were saved under the names of two releases."""
    torch, _ = hf._libraries()
    file = folder / "model.safetensors"
    both = {f"{front}.pooler.dense.bias": torch.zeros(24) for front in ("lxmert", "bert")}
    torch.save(both, folder / "pytorch_model.bin")
    file.unlink()


def with_code(folder):
    (folder / "model.safetensors").unlink()
    code = {"weight": Code(folder.parent / "ran")}
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(code))


def wrong_index(folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"pooler.dense.bias": 5}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def sparse(folder):
    torch, _ = hf._libraries()
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.eye(2).to_sparse()}, folder / "pytorch_model.bin")


def write(name, content):
    return lambda folder: (folder / name).write_text(content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (truncate, ("model.safetensors is damaged",)),
        (drop_config, ("has no config.json",)),
        (write("config.json", "{"), ("config.json is damaged",)),
        (edit_config(model_type="bert"), ("type 'bert'", "--model=lxmert")),
        (edit_config(architectures=["BertModel"]), ("BertModel", "LxmertForPreTraining")),
        (edit_config(hidden_act="relu"), ("hidden_act='relu'",)),
        (edit_config(hidden_size="24"), ("hidden_size='24', and not a whole number",)),
        (twice, ("bert.pooler.dense.bias", "two names for the same")),
        (edit_config(l_layers=3), ("layers/2/attention/query/kernel", "has no key")),
        (edit_config(l_layers=1), ("encoder.layer.1.", "which the model does not have")),
        (edit_config(visual_feat_dim=9), ("visn_fc", "gives no (9, 24)")),
        (edit_config(vocab_size=12), ("vocabulary of 11 pieces", "12")),
        (with_code, ("pytorch_model.bin cannot be read as weights alone",)),
        (wrong_index, ("model.safetensors.index.json is damaged",)),
        (sparse, ("pytorch_model.bin holds arrays that are no plain ones", "save dense")),
        (lambda folder: (folder / "vocab.txt").unlink(), ("has no vocabulary",)),
        (lambda folder: (folder / "model.safetensors").unlink(), ("has no weights",)),
        (write("vocab.txt", "a\nb"), ("no [CLS]",)),
    ],
)
def test_a_spoiled_folder_is_one_message(mmt, folder, tmp_path, spoil, parts):
    spoil(folder)
    status, out, err = mmt(*bring(folder, tmp_path / "run"))
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "ran").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (bring("nowhere", "run"), "nowhere is no folder"),
        (bring(".", "run", "vilbert"), "--model=vilbert cannot be imported; there are "),
        (("import", "--model=lxmert", "--out=run"), "--from"),
    ],
)
def test_wrong_use(mmt, tmp_path, monkeypatch, argv, part):
    monkeypatch.chdir(tmp_path)
    status, _, err = mmt(*argv)
    assert status == 2
    assert part in err


@pytest.mark.slow
def test_published_weights_are_taken_for_a_workdir(mmt, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "out"
    status, _, err = mmt("export", f"--workdir={folder}", f"--out={out}", "--format=huggingface")
    assert (status, "is imported, into" in err) == (0, True)
    same(importers.load(out), folder)
    assert api.load(folder).config.model.family == "lxmert"
    assert "imported" not in mmt("fill", f"--model={folder}", "--sentence=a")[2]  # once
    (made,) = (tmp_path / "cache/mmt_jax/imported").iterdir()
    shutil.rmtree(made)

    # Another process has imported them by the time that these are read.
    def slower(path, load=importers.load):
        monkeypatch.setattr(importers, "load", load)
        assert published.workdir(folder) == made
        return load(path)

    monkeypatch.setattr(importers, "load", slower)
    assert published.workdir(folder) == made
    assert made.name.startswith(f"{folder.name}-")  # so that a run says what it starts from
    edit_config(model_type="gpt2")(folder)
    status, _, err = mmt("export", f"--workdir={folder}", f"--out={tmp_path / 'other'}")
    assert status == 2
    assert "holds a model of the type 'gpt2', which cannot be imported; there are bert" in err


@pytest.mark.slow
def test_a_folder_that_holds_something_is_not_overwritten(mmt, folder, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "note").write_text("mine")
    status, _, err = mmt(*bring(folder, tmp_path / "run"))
    assert status == 2
    assert "not overwritten" in err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["note"]


# ---- The engine ----------------------------------------------------------------------------------

SPLIT = engine.Transform(lambda x: np.split(x, 2), lambda a, b: np.concatenate([a, b]))
TABLE = (
    *engine.linear("layer.{i}.dense", "layers/{i}/dense"),
    Row("layer.{i}.in_proj", ("layers/{i}/query", "layers/{i}/key"), SPLIT),
    Row("tied", ("layers/0/query",), copy=True),
    *engine.skip("never trained", "unused.{i}"),
)


def arrays():
    rng = np.random.default_rng(0)
    shapes = {"dense.weight": (2, 3), "dense.bias": (2,), "in_proj": (4, 5)}
    return {
        f"layer.{i}.{name}": rng.normal(size=shape).astype(np.float32)
        for i in range(2)
        for name, shape in shapes.items()
    }


def wanted():
    shapes = {"dense/kernel": (3, 2), "dense/bias": (2,), "query": (2, 5), "key": (2, 5)}
    return trees.unflatten(
        {
            f"layers/{i}/{name}": jax.ShapeDtypeStruct(shape, np.float32)
            for i in range(2)
            for name, shape in shapes.items()
        }
    )


def test_a_table_there_and_back():
    given = arrays()
    extra = {"unused.3": np.zeros(1), "tied": given["layer.0.in_proj"][:2]}
    found = engine.convert(given | extra, TABLE, wanted(), name="weights")
    layer = found["layers"]["1"]
    np.testing.assert_array_equal(layer["dense"]["kernel"], given["layer.1.dense.weight"].T)
    np.testing.assert_array_equal(layer["key"], given["layer.1.in_proj"][2:])
    back = engine.revert(found, TABLE)
    assert back.keys() == given.keys()
    for key, value in given.items():
        np.testing.assert_array_equal(back[key], value)


def test_every_fault_is_told_at_once():
    given = arrays()
    given["layer.0.dense.weight"] = np.zeros((5, 3), np.float32)
    given["layer.1.in_proj"] = np.zeros((3, 5), np.float32)
    given["layer.1.dense.bias"][0] = np.nan
    given["layer.7.dense.bias"] = given.pop("layer.0.dense.bias")
    given["tied"] = np.ones((2, 5), np.float32)
    given["strange"] = np.zeros(2, np.float32)
    with pytest.raises(UsageError) as error:
        engine.convert(given, TABLE, wanted(), name="weights")
    message = str(error.value)
    for part in (
        "weights does not fit",
        "layer.0.dense.weight (5, 3) gives no (3, 2), the shape of layers/0/dense/kernel",
        "layer.1.in_proj (3, 5) gives no (2, 5), the shape of layers/1/query",
        "layer.1.dense.bias (2,) has values for layers/1/dense/bias that are not finite",
        "layer.7.dense.bias (2,) is for layers/7/dense/bias, which the model does not have",
        "tied must equal layer.0.in_proj, but differs",
        "strange (2,) is unknown",
        "layers/0/dense/bias (2,) has no key",
    ):
        assert part in message


def test_a_parameter_that_two_keys_fill_is_ambiguous():
    table = (*TABLE, Row("old.{i}.bias", ("layers/{i}/dense/bias",)))
    given = arrays() | {"old.1.bias": np.zeros(2, np.float32)}
    with pytest.raises(UsageError, match=r"filled by layer\.1\.dense\.bias and by old\.1\.bias"):
        engine.convert(given, table, wanted(), name="weights")


def test_a_parameter_that_no_row_takes_is_not_left_out_on_the_way_back():
    with pytest.raises(UsageError, match=r"1 faults: other \(2,\) has no key"):
        engine.revert({"other": np.zeros(2)}, TABLE)
