"""BERT's published weights: the language stack that models of the study start from."""

import dataclasses
import functools
import shutil

import jax
import numpy as np
import pytest
import small_models
import tiny

from experiments.studies import STUDIES
from mmt_jax import hub as importers
from mmt_jax import params as trees
from mmt_jax.cli import main
from mmt_jax.configs import variants
from mmt_jax.configs.config import Config, DataConfig, ObjectiveConfig, Study
from mmt_jax.configs.models import LxmertConfig, TernConfig
from mmt_jax.errors import UsageError
from mmt_jax.models import registry
from mmt_jax.study.plan import amend, plan
from mmt_jax.study.results import claim_folder
from mmt_jax.text import vocabulary
from mmt_jax.train import checkpoint, init
from mmt_jax.train.run import prepare

pytestmark = pytest.mark.torch

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "cube", "ball", "##s", "two"]
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 16,
}


@functools.cache
def _libraries():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pytest.importorskip("tokenizers")
    torch.set_num_threads(1)
    return torch, transformers


def published(folder, architecture="BertForMaskedLM", **config):
    """A random PyTorch model, saved beside a vocabulary."""
    torch, transformers = _libraries()
    model = getattr(transformers, architecture)(transformers.BertConfig(**SIZES | config)).eval()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for value in model.parameters():
            value += torch.tensor(rng.normal(0, 0.2, value.shape).astype(np.float32))
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return model


def run(model, text):
    torch, _ = _libraries()
    return model(
        input_ids=torch.tensor(text.token_ids, dtype=torch.long),
        attention_mask=torch.tensor(text.mask),
        output_hidden_states=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "BertForPreTraining"])
def test_words_are_predicted_as_by_pytorch(tmp_path, architecture):
    theirs = published(tmp_path, architecture)
    found = importers.load(tmp_path, "bert")
    model = registry.build(found.config)
    text = found.tokenizer.texts(
        ["a red cube", "two balls"], length=8, layout=found.config.model.layout
    )
    out = run(theirs, text)
    expected = out.logits if architecture == "BertForMaskedLM" else out.prediction_logits

    @jax.jit
    def words(params, text):
        return model.words(params, model.encode_text(params, text).states)

    with jax.default_matmul_precision("highest"):
        logits = words(found.params, text)
    np.testing.assert_allclose(
        logits[text.mask], expected.detach().numpy()[text.mask], atol=1e-5, rtol=1e-5
    )


def imported(tmp_path, architecture="BertModel"):
    """PyTorch's model, and the workdir that is made of it by command."""
    theirs = published(tmp_path / "in", architecture)
    out = tmp_path / "bert"
    main.main(["import", "--model=bert", f"--from={tmp_path / 'in'}", f"--out={out}"])
    return theirs, out


def states(model, params, text):
    with jax.default_matmul_precision("highest"):
        return jax.jit(lambda p, t: model.encode_text(p, t).states)(params, text)


@pytest.mark.slow
def test_a_bert_without_head_is_read_and_fills_in_nothing(tmp_path, capsys):
    theirs, out = imported(tmp_path)
    found = checkpoint.load(out)
    text = vocabulary.stored_tokenizer(out).texts(
        ["a red cube", "two"], length=6, layout="cls_first"
    )
    expected = run(theirs, text).last_hidden_state.detach().numpy()
    mine = states(found.model, found.params, text)
    np.testing.assert_allclose(mine[text.mask], expected[text.mask], atol=1e-5, rtol=1e-5)
    assert "word_head" not in found.params
    assert main.main(["fill", f"--model={out}", "--sentence=a <mask> cube"]) == 2
    assert "bert has no head over words; ask a model" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_starts_its_rows_of_bert_from_what_is_given(tmp_path):
    _, out = imported(tmp_path)
    study = amend(STUDIES["bert"], seeds=2, overrides={"init_from": str(out)})
    runs = plan(study, tmp_path / "study")
    start = {(run.tag, run.seed): run.config.init_from for run in runs}
    assert start == {
        (tag, seed): given
        for seed in range(2)
        for tag, given in [
            ("data_cc", None),
            ("data_cc-with-bert", str(out)),
            ("baseline_baseline", str(out)),
            ("baseline_baseline-no-bert-transfer", None),
        ]
    }
    # The same sizes and the same words on both sides, so that only the weights differ.
    for run in runs:
        if run.config.init_from is None:
            model = run.config.model
            assert (model.width, model.heads, model.layout) == (24, 2, "cls_first")
            assert model.layers.count("text") + model.layers.count("merged") == 3
            assert vocabulary.load(str(run.config.data.vocab)).vocab_size == len(WORDS)
    for run in runs:
        claim_folder(run)
    claim_folder(plan(amend(study, overrides={"init_from": f"{out}/"}), tmp_path / "study")[1])
    shutil.copytree(out, tmp_path / "other")
    other = amend(study, overrides={"init_from": str(tmp_path / "other")})
    with pytest.raises(UsageError, match="init_from"):
        claim_folder(plan(other, tmp_path / "study")[1])


@pytest.mark.slow
def test_what_stands_for_bert_is_a_language_stack(tmp_path):
    run = small_models.make_workdir(tmp_path / "run", small_models.config(("merged",)))
    study = amend(STUDIES["bert"], overrides={"init_from": str(run)})
    with pytest.raises(UsageError, match="init_from is BERT in this study"):
        plan(study, tmp_path / "study")


@pytest.mark.slow
def test_rows_about_heads_do_not_take_those_of_bert(tmp_path):
    _, out = imported(tmp_path)
    rows = ("data_cc-with-bert", "architecture_heads1-768")
    study = Study("heads", rows, seeds=1, scale="pilot", overrides={"init_from": str(out)})
    with pytest.raises(UsageError, match="heads, which is what architecture_heads1-768 is about"):
        plan(study, tmp_path / "study")


@pytest.mark.slow
def test_a_row_of_a_file_starts_where_it_says(tmp_path):
    row = tiny.row(tmp_path, tag="mine", init_from="there")
    runs = plan(Study("both", ("data_cc-with-bert", row), seeds=1), tmp_path)
    assert {run.tag: run.config.init_from for run in runs}["mine"] == "there"


@pytest.mark.slow
def test_a_study_without_rows_of_bert_starts_all_of_them_there(tmp_path):
    _, out = imported(tmp_path)
    rows = ("data_cc", "data-ft_cc", "architecture_coattention")
    runs = plan(Study("ours", rows, seeds=1, overrides={"init_from": str(out)}), tmp_path / "study")
    assert [run.config.init_from for run in runs] == [
        str(out),
        str(tmp_path / "study/runs/data_cc/seed0"),  # which itself started there
        str(out),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tag", "layers"),
    [
        ("baseline_baseline-no-bert-transfer", ("text",) * 3 + ("image",) * 2),
        ("loss_single-modality-contrastive1024", ("text",) + ("single",) * 2),
        ("data_cc", ("text",) + ("merged",) * 2),
    ],
)
def test_a_row_takes_the_sizes_of_what_it_starts_from(tmp_path, tag, layers):
    theirs, out = imported(tmp_path)
    config = dataclasses.replace(
        variants.get_config(tag, scale="pilot"),
        init_from=str(out),
        data=DataConfig(source="scenes@1/cc", size=20, text_length=8, max_regions=4),
        batch_size=4,
        objective=dataclasses.replace(variants.get_config(tag).objective, candidates=4),
    )
    made = prepare(config, tmp_path / "run")
    model = made.config.model
    sizes = (model.width, model.mlp_dim, model.heads, model.head_dim, model.max_positions)
    assert sizes == (24, 40, 2, 12, 16)
    assert (model.layout, model.vocab_size, model.layers) == ("cls_first", len(WORDS), layers)
    assert any(line.startswith(f"sizes of {out}: --config.model.width=24 ") for line in made.said)
    text = made.tokenizer.texts(["a red cube", "two"], length=6, layout="cls_first")
    depth = layers.count("text") + layers.count("single")  # those that read no photo
    expected = run(theirs, text).hidden_states[depth].detach().numpy()
    mine = states(made.model, made.weights, text)
    np.testing.assert_allclose(mine[text.mask], expected[text.mask], atol=1e-5, rtol=1e-5)

    wide = dataclasses.replace(config, model=dataclasses.replace(config.model, width=32))
    with pytest.raises(UsageError) as error:
        prepare(wide, tmp_path / "run")
    assert "config.model.width is 32 and there 24" in str(error.value)
    assert "sizes and objective (--config.model.width=24), or" in str(error.value)
    made.store()
    assert prepare(config, tmp_path / "run").config == made.config  # it goes on


@pytest.mark.slow
@pytest.mark.parametrize(("family", "layers"), [("tern", 2), ("lxmert", 3)])
def test_other_systems_take_the_sizes_of_their_text_encoder(tmp_path, family, layers):
    _, out = imported(tmp_path)
    model, objective = {
        "tern": (
            TernConfig(width=8, image_width=8, mlp_dim=8, image_mlp_dim=8, text_layers=2),
            ObjectiveConfig(itm="contrastive", candidates=0, mlm=0.0, mrm=0.0),
        ),
        "lxmert": (LxmertConfig(region_layers=1, cross_layers=1), ObjectiveConfig()),
    }[family]
    config = Config(
        tag=family,
        init_from=str(out),
        model=model,
        objective=objective,
        data=DataConfig(source="scenes@1/cc", size=20, text_length=8, max_regions=4),
        batch_size=4,
    )
    made = prepare(config, tmp_path / "run")
    found = made.config.model
    if family == "tern":
        assert (found.text_width, found.text_heads, found.text_mlp_dim) == (24, 2, 40)
        assert (found.text_layers, made.config.objective.candidates) == (layers, 4)
        told = "the first 2 of 3, as many as config.model.text_layers has room for"
        assert f"layers taken from {out}: {told}" in made.said
    else:
        assert not any(line.startswith("layers taken from") for line in made.said)
        assert (found.width, found.heads, found.mlp_dim, found.language_layers) == (24, 2, 40, 3)
    stored = trees.flatten(checkpoint.load(out).params)
    np.testing.assert_array_equal(
        trees.flatten(made.weights)["text/stack/layers/1/mlp/hidden/kernel"],
        stored["streams/layers/1/text/mlp/hidden/kernel"],
    )
    if family == "tern":  # a run that has begun keeps its layers, and says so
        made.store()
        more = dataclasses.replace(model, text_layers=3)
        on = prepare(dataclasses.replace(config, model=more), tmp_path / "run")
        assert on.config == made.config
        (told,) = [line for line in on.said if line.startswith(f"sizes of {tmp_path / 'run'}, as")]
        assert "--config.model.text_layers=2" in told


@pytest.mark.slow
def test_text_encoders_start_from_it(tmp_path):
    theirs = published(tmp_path / "in")
    found = importers.load(tmp_path / "in", "bert")
    checkpoint.write(tmp_path / "bert", found.config, found.params, found.tokenizer)
    sizes = {f: getattr(found.config.model, f) for f in ("max_positions", "vocab_size", "pad_id")}
    text_sizes = {"text_width": 24, "text_heads": 2, "text_mlp_dim": 40}
    small = {"width": 8, "image_width": 8, "mlp_dim": 8, "image_mlp_dim": 8}
    model = TernConfig(**sizes, **text_sizes, **small, text_layers=2, feature_dim=5, num_classes=0)
    objective = ObjectiveConfig(itm="contrastive", mlm=0.0, mrm=0.0)
    built = registry.build(Config(tag="mine", model=model, objective=objective))
    params = init.params([tmp_path / "bert"], built, jax.random.key(0), lambda _: None)
    assert trees.flatten(params).keys() == trees.flatten(built.abstract()).keys()
    text = found.tokenizer.texts(["a red cube", "two"], length=6, layout="cls_first")
    with jax.default_matmul_precision("highest"):
        states = built.apply(params, built.network.text_states, text)
    # The embedding and both layers; the third layer of BERT is not asked.
    for mine, expected in zip(states[:3], run(theirs, text).hidden_states, strict=False):
        expected = expected.detach().numpy()
        np.testing.assert_allclose(mine[text.mask], expected[text.mask], atol=1e-5, rtol=1e-5)
    wide = dataclasses.replace(model, text_mlp_dim=48)
    built = registry.build(Config(tag="mine", model=wide, objective=objective))
    with pytest.raises(UsageError, match="text/stack/layers/0/mlp/hidden/kernel is"):
        init.params([tmp_path / "bert"], built, jax.random.key(0), lambda _: None)


@pytest.mark.parametrize(
    ("architecture", "config", "message"),
    [
        ("BertForMaskedLM", {"hidden_act": "relu"}, "hidden_act='relu'; bert reads 'gelu'"),
        ("BertForMaskedLM", {"layer_norm_eps": 1e-5}, "layer_norm_eps=1e-05; bert reads 1e-12"),
    ],
)
def test_what_is_not_read(tmp_path, architecture, config, message):
    published(tmp_path, architecture, **config)
    with pytest.raises(UsageError, match=message):
        importers.load(tmp_path, "bert")
