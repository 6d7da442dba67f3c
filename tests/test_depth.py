"""Towers as deep as published, from a saved folder to all that is made of it.

Layers are known by number, and keys of nested dicts are sorted as text, 0, 1, 10, 11, 2, …: where
the order of the keys counts, a tower of eleven layers or more is another model.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import small_models as small
import test_attention as attention
import test_bert_import as bert
import test_bridgetower as bridgetower
import test_bridgetower_parity as bridgetower_parity
import test_clip as clip
import test_lxmert as lxmert
import test_roberta as roberta
import test_tern as tern
import tiny
from reference import transformer

import mmt_jax
from mmt_jax.cli import main as cli
from mmt_jax.configs import variants
from mmt_jax.data import schema
from mmt_jax.infer.export import savedmodel, signature
from mmt_jax.infer.predict import Predictor
from mmt_jax.nn.heads import scored
from mmt_jax.text import pretrained
from mmt_jax.train import checkpoint

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.tf, pytest.mark.slow]

TOLERANCE = 1e-5  # of the greatest value


@dataclasses.dataclass(frozen=True)
class Published:
    """A PyTorch model that was saved to a folder, and P pairs for it.

    Attributes:
      model: of PyTorch.
      ask: a model of PyTorch → hidden states by name, layer by layer, and the log odds [P] of the
        pairs, or logits over words.
      inputs: the pairs, by keys of the exported signature.
    """

    model: Any
    ask: Callable[[Any], tuple[dict[str, list], Any]]
    inputs: dict[str, np.ndarray]


def of_bert(folder, depth):
    model = bert.published(folder, num_hidden_layers=depth)
    text = pretrained.read(folder).texts(["a red cube", "two"], length=6, layout="cls_first")

    def ask(model):
        out = bert.run(model, text)
        return {"text": out.hidden_states}, out.logits

    return Published(model, ask, schema.from_text(text))


def of_roberta(folder, depth, *, parts=1):
    """In so many parts, about, of which the index says what they hold."""
    model = roberta.published(folder, num_hidden_layers=depth)
    if parts > 1:
        (folder / "model.safetensors").unlink()
        size = sum(4 * value.numel() for value in model.parameters())
        model.save_pretrained(folder, max_shard_size=size // parts)
        assert len(list(folder.glob("model-*-of-*.safetensors"))) > 10
    text = pretrained.read(folder).texts(roberta.CAPTIONS, length=12, layout="cls_first")

    def ask(model):
        out = bert.run(model, text)
        return {"text": out.hidden_states}, out.logits

    return Published(model, ask, schema.from_text(text))


def of_clip(folder, *layers):
    model = clip.published(folder, layers=layers)
    text = pretrained.read(folder).texts(clip.CAPTIONS, length=clip.TOKENS, layout="cls_first")

    def ask(model):
        out = clip.run(model, text, clip.photos(3))
        states = {
            "text": out.text_model_output.hidden_states,
            "image": out.vision_model_output.hidden_states,
        }
        return states, out.logits_per_text.diagonal()

    return Published(model, ask, schema.from_text(text) | {schema.PIXELS: clip.photos(3)})


def of_lxmert(folder, *layers):
    sizes = dict(zip(("l_layers", "r_layers", "x_layers"), layers))
    model = lxmert.published("LxmertForPreTraining", **sizes)
    lxmert.saved(model, folder)
    text, image, tensors = lxmert.pairs(model)

    def ask(model):
        out = model(**tensors, output_hidden_states=True)
        logits = out.cross_relationship_score
        states = {"text": out.language_hidden_states, "image": out.vision_hidden_states}
        return states, logits[:, 1] - logits[:, 0]

    return Published(model, ask, schema.from_text(text) | schema.from_image(image))


def of_bridgetower(folder, *layers):
    model = bridgetower_parity.published("match", layers=layers)
    bridgetower_parity.saved(model, folder)
    text, _, tensors = bridgetower_parity.pairs()

    def ask(model):
        out = model(**tensors, output_hidden_states=True)
        of_text, of_image, cross = out.hidden_states
        states = {"text": of_text, "image": [x.permute(1, 0, 2) for x in of_image]}
        states |= dict(zip(("cross text", "cross image"), zip(*cross)))
        return states, out.logits[:, 1] - out.logits[:, 0]

    return Published(
        model,
        ask,
        schema.from_text(text) | {schema.PIXELS: bridgetower.photos(bridgetower_parity.PAIRS)},
    )


def of_tern(folder, *layers):
    sizes = dict(zip(("text_layers", "image_layers", "shared_layers"), layers))
    case = dataclasses.replace(tern.PUBLISHED, **sizes)
    model = tern.randomised(tern.Original(case))
    tern.publish(folder, model, **tern.yaml(case))
    text, image = tern.inputs(padded=True)

    def ask(model):
        of_text, of_image, *vectors = model(
            torch.tensor(text.token_ids.astype(np.int64)),
            torch.tensor(text.mask),
            torch.tensor(image.features),
            torch.tensor(image.boxes[..., [1, 0, 3, 2]]),
            torch.tensor(image.mask),
        )
        return {"text": of_text, "image": of_image}, (vectors[0] * vectors[1]).sum(-1)

    return Published(model, ask, schema.from_text(text) | schema.from_image(image))


CASES = {
    "bert 12": functools.partial(of_bert, depth=12),
    "roberta 12": functools.partial(of_roberta, depth=12),
    "roberta 24": functools.partial(of_roberta, depth=24, parts=12),
    "clip 12 12": lambda folder: of_clip(folder, 12, 12),
    "clip 12 24": lambda folder: of_clip(folder, 12, 24),
    "lxmert 9 5 5": lambda folder: of_lxmert(folder, 9, 5, 5),
    "lxmert 2 1 11": lambda folder: of_lxmert(folder, 2, 1, 11),
    "bridgetower 12 6": lambda folder: of_bridgetower(folder, 12, 6),
    "bridgetower 24 6": lambda folder: of_bridgetower(folder, 24, 6),
    "tern 12 4 2": lambda folder: of_tern(folder, 12, 4, 2),
}


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A case by name → what was published, and the folder and the workdir that have it."""

    @functools.cache
    def make(name):
        root = tmp_path_factory.mktemp("deep")
        (root / "in").mkdir()
        published = CASES[name](root / "in")
        argv = ["import", f"--from={root / 'in'}", f"--model={name.split()[0]}"]
        assert cli.main([*argv, f"--out={root / 'run'}"]) == 0
        return published, root / "run"

    with jax.default_matmul_precision("highest"), torch.no_grad():
        yield make


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A workdir → the default signature of its SavedModel, which only the test calls."""
    tf = pytest.importorskip("tensorflow")
    monkeypatch.setattr(savedmodel, "_PROBES", ())  # each costs two compilations of many layers

    def make(workdir):
        out = tmp_path / "saved_model"
        assert cli.main(["export", f"--workdir={workdir}", f"--out={out}"]) == 0
        return tf.saved_model.load(str(out)).signatures["default"]

    return make


def near(found, expected, name=""):
    expected = np.asarray(expected)
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * scale, err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_pytorch(deep, name):
    published, workdir = deep(name)
    states, scores = published.ask(published.model)
    inputs = published.inputs
    text = schema.to_text(inputs)
    trained = checkpoint.load(workdir)
    predictor = Predictor(trained.model, trained.params)
    if not trained.model.fuses:
        near(predictor.words(text, None)[text.mask], np.asarray(scores)[text.mask])
        return
    near(np.diagonal(mmt_jax.load(workdir).log_odds(inputs, inputs)), scores)
    if name.startswith("lxmert"):
        image = signature.image(trained.model.config, inputs)
        trace = predictor.trace(text, image)
        for stream, mask in (("text", text.mask), ("image", image.mask)):
            pairs = zip(trace[stream][1:], states[stream], strict=True)  # theirs lacks the input
            for number, (found, expected) in enumerate(pairs):
                near(np.asarray(found)[mask], np.asarray(expected)[mask], f"{stream} {number}")


BACK = [name for name in CASES if not name.startswith("tern")]  # which transformers has not


@pytest.mark.parametrize("name", BACK)
def test_it_goes_back_to_pytorch(deep, tmp_path, name):
    published, workdir = deep(name)
    out = tmp_path / "out"
    export = ["export", f"--workdir={workdir}", f"--out={out}", "--format=huggingface"]
    assert cli.main(export) == 0
    again = type(published.model).from_pretrained(out)
    answers = (jax.tree.leaves(published.ask(model)) for model in (again, published.model))
    for found, expected in zip(*answers, strict=True):
        near(found, expected)


SERVED = ["clip 12 12", "lxmert 2 1 11", "bridgetower 12 6", "tern 12 4 2"]


@pytest.mark.parametrize("name", SERVED)
def test_tensorflow_says_what_pytorch_says(deep, served, name):
    published, workdir = deep(name)
    logits = served(workdir)(**published.inputs)["output"].numpy()
    _, scores = published.ask(published.model)
    near(logits[:, 0] - logits[:, 1], scores)


# ---- A study's model, which PyTorch has not ---------------------------------------------------


def by_hand(params, layers):
    """Both streams' states, padding left out, before layer 0 and after each, by number."""
    streams = dict(zip(("text", "image"), attention.embedded(params)))
    trace = [streams]
    for number, kind in enumerate(layers):
        own, updated = params["streams"]["layers"][str(number)], {}
        for stream, letters in zip(streams, attention.READS[kind]):
            read = [name for name in streams if name[0].upper() in letters]
            if read:
                sources = [(streams[name], own[name]) for name in read]
                updated[stream] = transformer(streams[stream], own[stream], sources)
        trace.append(streams := streams | updated)
    return trace


def test_the_studys_layers_run_by_number(served, tmp_path):
    chosen = variants.get_config("architecture_vilbert-12block").model
    assert len(chosen.layers) > 10
    spec = dataclasses.replace(tiny.SPEC, vocab_size=small.TOKENIZER.vocab_size)
    model = tiny.model(chosen.layers, family=chosen.family, objective=attention.NO_HEADS, spec=spec)
    params = tiny.params(model)
    checkpoint.write(tmp_path / "run", model.config, params, small.TOKENIZER)
    expected = by_hand(params, chosen.layers)
    text, image = attention.TEXT, attention.IMAGE
    trained = checkpoint.load(tmp_path / "run")
    found = Predictor(trained.model, trained.params).trace(text, image)
    for name, letter, mask in (("text", 0, text.mask), ("image", 1, image.mask)):
        reads = [True, *(bool(attention.READS[kind][letter]) for kind in chosen.layers)]
        wanted = [states[name] for states, new in zip(expected, reads, strict=True) if new]
        for number, pair in enumerate(zip(found[name], wanted, strict=True)):
            near(pair[0][mask], pair[1], f"{name}, state {number}")

    def logits(network, text, image):
        pooled = network.pool_text(text[None, -1]), network.pool_image(image[None, -1])
        return scored(network.score(*pooled, key=None), network.calibration)[1]

    last = {name: x.astype(np.float32) for name, x in expected[-1].items()}
    match, other = model.apply(params, logits, last["text"], last["image"])[0]
    inputs = schema.from_text(text) | schema.from_image(image)
    near(mmt_jax.load(tmp_path / "run").log_odds(inputs, inputs)[0, 0], match - other)
    match_, other_ = served(tmp_path / "run")(**inputs)["output"].numpy()
    near(match_ - other_, match - other)
