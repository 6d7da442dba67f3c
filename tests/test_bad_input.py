"""What is wrong with published weights is one message and status 2; nothing is half imported."""

import json
import pathlib
import pickle
import shutil

import pytest
import test_cards as cards

from mmt_jax.cli import main as cli
from mmt_jax.models import registry

pytestmark = [pytest.mark.slow, pytest.mark.torch]  # transformers writes the folders

FAMILIES = tuple(cards.SYSTEMS)
# A size of each config that its weights do not have, and a key that tells it.
SIZES = {
    "bert": (("intermediate_size", 40), "encoder.layer.0.intermediate.dense.weight (24, 16)"),
    "roberta": (("num_hidden_layers", 3), "text/stack/layers/2/mlp/out/kernel (24, 16) has no key"),
    "lxmert": (("x_layers", 1), "encoder.x_layers.1."),
    "clip": (("projection_dim", 9), "text_projection.weight (10, 16) gives no (16, 9)"),
    "bridgetower": (("num_hidden_layers", 1), "cross_modal_image_layers.1."),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder of each family."""
    root = tmp_path_factory.mktemp("published")
    for name, make in cards.SYSTEMS.items():
        (theirs, *_), tokenizer, _ = make()
        theirs.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root


class Code:
    """Runs when it is unpickled by someone who trusts it."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self.path),)


def drop_config(folder, family):
    (folder / "config.json").unlink()
    return "has no config.json, without which its weights mean nothing; put"


def take_another_config(folder, family):
    others = [other for other in FAMILIES if other != family]
    (folder / "config.json").write_text(json.dumps({"model_type": others[0]}))
    return f"has the config of a model of the type '{others[0]}', and --model={family} reads"


def truncate(folder, family):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return "model.safetensors is damaged"


def put_code(folder, family):
    (folder / "model.safetensors").unlink()
    pickled = pickle.dumps({"weight": Code(folder.parent / "ran")}, protocol=2)
    (folder / "pytorch_model.bin").write_bytes(pickled)
    return "pytorch_model.bin cannot be read as weights alone"


def zip_code(folder, family):
    """As torch writes it, and beside what a checkpoint of Lightning's may name."""
    torch = cards.libraries()[0]
    (folder / "model.safetensors").unlink()
    torch.save({"callbacks": Code(folder.parent / "ran")}, folder / "model.ckpt")
    return "model.ckpt cannot be read as weights alone"


def change_sizes(folder, family):
    (field, value), told = SIZES[family]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: value}))
    return told


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "spoil", [drop_config, take_another_config, truncate, put_code, zip_code, change_sizes]
)
def test_a_spoiled_folder_is_one_message(published, tmp_path, capsys, family, spoil):
    folder = shutil.copytree(published / family, tmp_path / "in")
    told = spoil(folder, family)
    capsys.readouterr()
    argv = ["import", f"--from={folder}", f"--model={family}", f"--out={tmp_path / 'run'}"]
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert err.startswith("mmt: ")
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in"]  # nothing written, nothing run


def test_a_hub_id_without_network(tmp_path, monkeypatch, capsys):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "run"
    assert cli.main(["import", "--from=some/model", "--model=lxmert", f"--out={out}"]) == 2
    err = capsys.readouterr().err
    assert "some/model is no folder here and cannot be had from the hub" in err
    assert "check the name and the network, or give a folder" in err
    assert err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        ("bert", "num_attention_heads", 0),
        ("bert", "num_hidden_layers", "2"),
        ("roberta", "hidden_size", None),
        ("clip", "projection_dim", -1),
        ("bridgetower", "num_hidden_layers", 1.5),
        ("lxmert", "num_attr_labels", "3"),
    ],
)
def test_sizes_that_are_no_sizes(published, tmp_path, capsys, family, field, value):
    folder = shutil.copytree(published / family, tmp_path / "in")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: value}))
    argv = ["import", f"--from={folder}", f"--model={family}", f"--out={tmp_path / 'run'}"]
    assert cli.main(argv) == 2
    assert f"{field}={value!r}, and not a whole number of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("family", "field"),
    [
        ("bert", "num_hidden_layers"),
        ("bert", "hidden_size"),
        ("roberta", "vocab_size"),
        ("lxmert", "x_layers"),
        ("lxmert", "num_qa_labels"),
        ("clip", "projection_dim"),
        ("bridgetower", "num_hidden_layers"),
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_built(
    published, tmp_path, capsys, monkeypatch, family, field
):
    folder = shutil.copytree(published / family, tmp_path / "in")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: 10**9}))
    monkeypatch.delattr(registry, "build")
    argv = ["import", f"--from={folder}", f"--model={family}", f"--out={tmp_path / 'run'}"]
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert f"{field}=1000000000, which weights of" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("family", "field", "value", "message"),
    [
        ("lxmert", "task_qa", "x", "task_qa='x', and not a bool"),
        ("lxmert", "architectures", 5, "architectures=5, and not a list"),
        ("roberta", "layer_norm_eps", -1, "config.model.eps is -1; it must be from 0.0 to 1.0"),
        ("clip", "text_config", "x", "config.json lacks text_config.hidden_act, "),
    ],
)
def test_fields_of_another_kind(published, tmp_path, capsys, family, field, value, message):
    folder = shutil.copytree(published / family, tmp_path / "in")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: value}))
    argv = ["import", f"--from={folder}", f"--model={family}", f"--out={tmp_path / 'run'}"]
    assert cli.main(argv) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"{", b"[1]"])
def test_a_damaged_way_to_prepare_photos(published, tmp_path, capsys, content):
    folder = shutil.copytree(published / "clip", tmp_path / "in")
    (folder / "preprocessor_config.json").write_bytes(content)
    argv = ["import", f"--from={folder}", "--model=clip", f"--out={tmp_path / 'run'}"]
    assert cli.main(argv) == 2
    err = capsys.readouterr().err
    assert "preprocessor_config.json" in err
    assert "download it again" in err
    assert not (tmp_path / "run").exists()
