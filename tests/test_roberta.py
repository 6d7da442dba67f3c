"""RoBERTa against the PyTorch model, and BridgeTower begun with it and CLIP."""

import dataclasses
import functools
import json
import re

import jax
import numpy as np
import pytest
import test_clip

import mmt_jax
from mmt_jax import hub as importers
from mmt_jax import params as trees
from mmt_jax.cli.main import main
from mmt_jax.configs.config import Config, DataConfig, ObjectiveConfig
from mmt_jax.configs.models import BridgeTowerConfig, MMTConfig
from mmt_jax.errors import UsageError
from mmt_jax.models import registry
from mmt_jax.text import vocabulary
from mmt_jax.train import checkpoint, init, sharding
from mmt_jax.train.run import prepare

pytestmark = pytest.mark.torch

LETTERS = "abcdefghijklmnopqrstuvwxyz\u0120"  # the last: a blank, for byte-level BPE
VOCABULARY = ["<s>", "<pad>", "</s>", "<unk>", *LETTERS, "<mask>"]
PAD, TOKENS, DEPTH = 1, 12, 3
CAPTIONS = ("a dog", "two cats")


@functools.cache
def _libraries():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pytest.importorskip("tokenizers")
    torch.set_num_threads(1)
    return torch, transformers


def published(folder, architecture="RobertaForMaskedLM", **changes):
    """A random PyTorch model, saved beside a vocabulary."""
    torch, transformers = _libraries()
    sizes = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 16,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": 2,
        "intermediate_size": 40,
        "max_position_embeddings": TOKENS + PAD + 1,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    }
    model = getattr(transformers, architecture)(transformers.RobertaConfig(**sizes | changes))
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for value in model.parameters():
            value += torch.tensor(rng.normal(0, 0.2, value.shape).astype(np.float32))
    model.eval().save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(VOCABULARY)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return model


@pytest.mark.slow
def test_words_are_predicted_as_by_pytorch(tmp_path):
    torch, _ = _libraries()
    theirs = published(tmp_path)
    found = importers.load(tmp_path, "roberta")
    model = registry.build(found.config)
    text = found.tokenizer.texts(CAPTIONS, length=TOKENS, layout=found.config.model.layout)
    assert not text.mask.all()
    expected = theirs(
        input_ids=torch.tensor(text.token_ids, dtype=torch.long),
        attention_mask=torch.tensor(text.mask, dtype=torch.long),
    ).logits.detach()
    with jax.default_matmul_precision("highest"):
        words = jax.jit(lambda p, t: model.words(p, model.encode_text(p, t).states))
        logits = words(found.params, text)
    np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=1e-5)
    assert sharding.of_params(found.params, found.config, sharding.mesh(found.config))


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("RobertaForMaskedLM", {"hidden_act": "relu"}, "hidden_act='relu'; roberta reads 'gelu'"),
    ],
)
def test_what_is_not_read(tmp_path, architecture, changes, message):
    published(tmp_path, architecture, **changes)
    with pytest.raises(UsageError, match=message):
        importers.load(tmp_path, "roberta")


@pytest.mark.slow
def test_one_without_head_is_read_and_fills_in_nothing(tmp_path, capsys):
    torch, _ = _libraries()
    theirs = published(tmp_path / "in", "RobertaModel")
    out = tmp_path / "out"
    assert main(["import", "--model=roberta", f"--from={tmp_path / 'in'}", f"--out={out}"]) == 0
    found = checkpoint.load(out)
    text = vocabulary.stored_tokenizer(out).texts(CAPTIONS, length=TOKENS, layout="cls_first")
    expected = theirs(
        input_ids=torch.tensor(text.token_ids, dtype=torch.long),
        attention_mask=torch.tensor(text.mask, dtype=torch.long),
    ).last_hidden_state.detach()
    with jax.default_matmul_precision("highest"):
        states = jax.jit(lambda p, t: found.model.encode_text(p, t).states)(found.params, text)
    np.testing.assert_allclose(states[text.mask], expected[text.mask], atol=1e-5, rtol=1e-5)
    assert main(["fill", f"--model={out}", "--sentence=a <mask>"]) == 2
    assert "roberta has no head over words; ask a model" in capsys.readouterr().err
    assert re.search(r"[\d,]+ parameters, imported;", repr(mmt_jax.load(out)))


@pytest.fixture
def towers(tmp_path):
    """Workdirs of an imported RoBERTa and an imported CLIP, and their parameters by tower."""
    published(tmp_path / "roberta_in", "RobertaModel")
    test_clip.published(tmp_path / "clip_in", intermediate_size=96)
    found = {name: importers.load(tmp_path / f"{name}_in", name) for name in ("roberta", "clip")}
    for name, weights in found.items():
        checkpoint.write(tmp_path / name, weights.config, weights.params, weights.tokenizer)
    params = {"text": found["roberta"].params["text"], "image": found["clip"].params["image"]}
    return [tmp_path / name for name in found], params


def bridged(**sizes):
    sizes = {
        "width": 12,
        "heads": 2,
        "mlp_dim": 10,
        "cross_layers": 2,
        "tower_layers": DEPTH,
        "text_width": 16,
        "text_heads": 2,
        "text_mlp_dim": 40,
        "image_width": 24,
        "image_heads": 2,
        "image_size": test_clip.SIDE * test_clip.PATCH,
        "patch_size": test_clip.PATCH,
        "max_positions": TOKENS,
        "vocab_size": len(VOCABULARY),
        "pad_id": PAD,
        "feature_dim": 3 * test_clip.PATCH**2,
        "num_classes": 0,
    } | sizes
    return registry.build(
        Config(tag="mine", model=BridgeTowerConfig(**sizes), objective=ObjectiveConfig(mrm=0.0))
    )


@pytest.mark.slow
def test_bridgetower_starts_from_both(towers):
    workdirs, expected = towers
    model, said = bridged(), []
    params = init.params(workdirs, model, jax.random.key(0), said.append)
    assert trees.flatten(params).keys() == trees.flatten(model.abstract()).keys()
    for tower, wanted in expected.items():
        found = trees.flatten(params[tower])
        assert found.keys() == trees.flatten(wanted).keys()
        for path, leaf in trees.flatten(wanted).items():
            np.testing.assert_array_equal(found[path], leaf, err_msg=path)
    assert [line.split()[0] for line in said] == ["taken", "taken", "fresh:"]
    assert "text_cross" in said[2]
    assert "word_head" in said[2]


@pytest.mark.slow
def test_a_run_takes_the_sizes_and_the_vocabulary_of_its_towers(towers, tmp_path):
    (roberta, clip), _ = towers
    config = Config(
        tag="bridgetower_base",
        scale="tiny",
        init_from=f"{clip},{roberta}",  # in any order
        model=BridgeTowerConfig(width=12, heads=2, mlp_dim=10, cross_layers=2, tower_layers=2),
        objective=ObjectiveConfig(mrm=0.0),
        data=DataConfig(source="scenes@1/cc", size=8, text_length=8),
        batch_size=4,
    )
    made = prepare(config, tmp_path / "run")
    found = made.config.model
    assert (found.text_width, found.text_heads, found.text_mlp_dim) == (16, 2, 40)
    assert (found.image_width, found.image_size, found.patch_size) == (24, 12, 4)
    assert (found.tower_layers, found.max_positions) == (DEPTH, TOKENS)
    assert made.tokenizer.vocab_size == len(VOCABULARY)
    assert made.weights is not None
    made.store()
    assert prepare(config, tmp_path / "run").config == made.config  # it goes on


@pytest.mark.slow
def test_towers_of_other_depths_are_told_as_flags(tmp_path):
    published(tmp_path / "roberta_in")
    test_clip.published(tmp_path / "clip_in", layers=(2, 2), intermediate_size=96)
    for name in ("roberta", "clip"):
        found = importers.load(tmp_path / f"{name}_in", name)
        checkpoint.write(tmp_path / name, found.config, found.params, found.tokenizer)
    config = dataclasses.replace(
        bridged().config,
        init_from=f"{tmp_path / 'roberta'},{tmp_path / 'clip'}",
        data=DataConfig(source="scenes@1/cc", size=8, text_length=8),
        batch_size=4,
    )
    with pytest.raises(UsageError, match=r"tower_layers is 2 and there 3.*tower_layers=3\)"):
        prepare(config, tmp_path / "run")


def test_towers_of_other_sizes_are_refused(towers):
    workdirs, _ = towers
    with pytest.raises(UsageError, match=r"mine cannot start from .*roberta.*layers/2.* is extra"):
        init.params(workdirs, bridged(tower_layers=2), jax.random.key(0), print)


@pytest.mark.slow
def test_of_two_segments_the_first_is_taken(tmp_path):
    """`RobertaConfig()` has two; only the published checkpoints have one."""
    published(tmp_path / "in", "RobertaModel", type_vocab_size=2)
    found = importers.load(tmp_path / "in", "roberta")
    checkpoint.write(tmp_path / "out", found.config, found.params, found.tokenizer)
    params = init.params([tmp_path / "out"], bridged(), jax.random.key(0), lambda _: None)
    table = found.params["text"]["embed"]["segments"]["embedding"]
    assert table.shape[0] == 2
    ours = params["text"]["embed"]["segments"]["embedding"]
    np.testing.assert_array_equal(ours, table[:1])


@pytest.mark.slow
def test_a_family_with_nothing_in_common_is_refused(tmp_path):
    published(tmp_path / "in", "RobertaModel")
    found = importers.load(tmp_path / "in", "roberta")
    checkpoint.write(tmp_path / "out", found.config, found.params, found.tokenizer)
    config = Config(
        model=MMTConfig(width=16, heads=2, mlp_dim=40, vocab_size=len(VOCABULARY)),
        init_from=str(tmp_path / "out"),
        data=DataConfig(source="scenes@1/cc", size=8, text_length=8),
        batch_size=4,
    )
    with pytest.raises(UsageError, match=r"out, of family roberta: weights of mmt or bert or two_"):
        prepare(config, tmp_path / "run")


@pytest.mark.slow
def test_the_resolution_of_a_bridgetower_is_that_of_its_weights(tmp_path):
    small = bridged(image_size=2 * test_clip.PATCH)
    params = small.init(jax.random.key(1))
    tokenizer = vocabulary.train(["a dog"], 40)
    checkpoint.write(tmp_path / "small", small.config, params, tokenizer)
    config = dataclasses.replace(bridged().config, init_from=str(tmp_path / "small"))
    sized = init.sized(config, small.config.model)
    assert sized.model.image_size == 2 * test_clip.PATCH
    model = registry.build(sized)
    taken = init.params([tmp_path / "small"], model, jax.random.key(0), lambda _: None)
    np.testing.assert_array_equal(
        taken["image"]["positions"]["embedding"], params["image"]["positions"]["embedding"]
    )
