"""Examples of model cards, as docs/systems.md has them, beside transformers on the same weights."""

import functools
import json
import os
import pathlib
import re

import jax
import numpy as np
import pytest

import mmt_jax
from mmt_jax.cli import main as cli
from mmt_jax.data import schema
from mmt_jax.errors import UsageError

pytestmark = [pytest.mark.torch, pytest.mark.slow]

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "systems.md"
CARDS = r"```python\n((?:(?!```).)*mmt_jax\.load\(\"work/bridgetower\"\).*?)```"
MATCHES = ["An image of two cats chilling on a couch", "A football player scoring a goal"]
LABELS = ["a photo of a cat", "a photo of a dog"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WHOLE = sorted({word.lower() for match in MATCHES for word in match.split()} - {"a"})
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *"'.,", *WHOLE]
WORDS += ["looking", "out", "window", *(f"##{letter}" for letter in LETTERS)]
REGIONS, FEATURES = 5, 7
TOKENS = 60
# Of photos: no published value, so that whoever does not read the folder is found out.
SIDE, PATCH, DIVISOR = 48, 8, 20


@functools.cache
def libraries():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizers, image = pytest.importorskip("tokenizers"), pytest.importorskip("PIL.Image")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    return torch, transformers, tokenizers, image


def randomised(model):
    torch = libraries()[0]
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for value in model.parameters():
            value += torch.tensor(rng.normal(0, 0.15, value.shape).astype(np.float32))
    return model.eval()


def wordpiece():
    transformers = libraries()[1]
    return transformers.BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})


def byte_level(*, lstrip=True):
    """The published vocabularies' <mask> takes the blank in front of it."""
    _, transformers, tokenizers, _ = libraries()
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *letters, "\u0120a", "<mask>"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    mask = transformers.AddedToken("<mask>", lstrip=lstrip, special=True)
    merges = [("\u0120", "a")]
    return transformers.RobertaTokenizer(vocab=vocabulary, merges=merges, mask_token=mask)


def clip_bpe():
    transformers = libraries()[1]
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(vocab={p: i for i, p in enumerate(pieces)}, merges=[])


SMALL = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}


def bert():
    transformers, tokenizer = libraries()[1], wordpiece()
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), num_hidden_layers=2, max_position_embeddings=TOKENS, **SMALL
    )
    return [transformers.BertForMaskedLM(config)], tokenizer, None


def roberta():
    transformers, tokenizer = libraries()[1], byte_level()
    config = transformers.RobertaConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=2,
        max_position_embeddings=TOKENS + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        **SMALL,
    )
    return [transformers.RobertaForMaskedLM(config)], tokenizer, None


def lxmert(features=FEATURES):
    transformers, tokenizer = libraries()[1], wordpiece()
    config = transformers.LxmertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=TOKENS,
        visual_feat_dim=features,
        num_qa_labels=4,
        num_object_labels=5,
        num_attr_labels=3,
        l_layers=1,
        r_layers=1,
        x_layers=2,
        **SMALL,
    )
    return [transformers.LxmertForPreTraining(config)], tokenizer, None


def clip():
    transformers, tokenizer = libraries()[1], clip_bpe()
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": TOKENS,
        "num_hidden_layers": 2,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {"num_hidden_layers": 2, "image_size": SIDE, "patch_size": PATCH}
    config = transformers.CLIPConfig(
        text_config=text | SMALL, vision_config=vision | SMALL, projection_dim=10
    )
    photos = transformers.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE)
    return [transformers.CLIPModel(config)], tokenizer, photos


def bridgetower():
    """Both heads of the published base model stand in one file, and each has a class."""
    transformers, tokenizer = libraries()[1], byte_level(lstrip=False)
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": TOKENS + 2}
    text |= {"num_hidden_layers": 2, **SMALL}
    vision = {"hidden_size": 64, "num_hidden_layers": 2, "patch_size": PATCH, "image_size": SIDE}
    config = transformers.BridgeTowerConfig(
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        text_config=text,
        vision_config=vision,
    )
    edge = {"shortest_edge": SIDE}
    photos = transformers.BridgeTowerImageProcessorPil(
        size=edge, crop_size=edge, size_divisor=DIVISOR
    )
    match = transformers.BridgeTowerForImageAndTextRetrieval(config)
    words = transformers.BridgeTowerForMaskedLM(config)
    words.bridgetower = match.bridgetower
    return [match, words], tokenizer, photos


@functools.cache
def load(workdir):
    return mmt_jax.load(workdir)


SYSTEMS = {f.__name__: f for f in (bert, roberta, lxmert, clip, bridgetower)}


def publish(name, folder, **sizes):
    """Writes a small model of that family as its authors do; returns heads, tokenizer, photos."""
    heads, tokenizer, photos = SYSTEMS[name](**sizes)
    heads = [randomised(heads[0]), *heads[1:]]
    heads[0].save_pretrained(folder)
    if len(heads) > 1:
        both = {key: value for head in heads for key, value in head.state_dict().items()}
        pytest.importorskip("safetensors.torch").save_file(
            {k: v.contiguous().clone() for k, v in both.items()}, folder / "model.safetensors"
        )
    tokenizer.save_pretrained(folder)
    if photos is not None:
        photos.save_pretrained(folder)
    return heads, tokenizer, photos


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Published folders, workdirs of them in `work/`, a photo and its regions; models by name."""
    libraries()[0].manual_seed(0)  # whatever other tests drew before these models are made
    root, models = tmp_path_factory.mktemp("cards"), {}
    for name in SYSTEMS:
        folder = root / "published" / name
        models[name] = publish(name, folder)
        argv = ["import", f"--from={folder}", f"--model={name}", f"--out={root / 'work' / name}"]
        assert cli.main(argv) == 0
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (70, 101, 3)).astype(np.uint8)
    libraries()[3].fromarray(pixels).save(root / "cats.jpg", quality=95)
    np.savez(root / "cats.npz", **regions())
    return root, models


def regions():
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 0.5, (REGIONS, 2))
    high = low + rng.uniform(0.1, 0.5, low.shape)
    boxes = np.concatenate([low, high, (high - low).prod(axis=1, keepdims=True)], axis=1)
    return {
        schema.BOXES: boxes.astype(np.float32),
        schema.FEATURES: rng.normal(size=(REGIONS, FEATURES)).astype(np.float32),
        schema.IMAGE_PADDING: np.zeros(REGIONS, np.int32),
    }


@pytest.fixture(scope="module")
def cards(work):
    """What the page's lines leave behind."""
    (block,) = re.findall(CARDS, PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    names, here = {}, os.getcwd()
    os.chdir(work[0])
    try:
        exec(block, names)
    finally:
        os.chdir(here)
    return names


def inputs(work, name, texts):
    """Theirs, of the one photo and some sentences."""
    torch, _, _, image = libraries()
    root, models = work
    _, tokenizer, photos = models[name]
    found = dict(tokenizer(list(texts), padding=True, return_tensors="pt"))
    if photos is not None:
        pixels = photos(image.open(root / "cats.jpg"), return_tensors="pt")
        found |= {key: value.expand(len(texts), *value.shape[1:]) for key, value in pixels.items()}
    if name == "lxmert":
        record = regions()
        parts = {"visual_feats": record[schema.FEATURES]}
        parts["visual_pos"] = record[schema.BOXES][:, [1, 0, 3, 2]]
        found |= {key: torch.tensor(np.stack([v] * len(texts))) for key, v in parts.items()}
    return found


def expected_words(tokenizer, ids, logits):
    """The five likeliest pieces at the first mask, as Hugging Face's `fill-mask` has them."""
    (place,) = np.flatnonzero(ids[0].numpy() == tokenizer.mask_token_id)
    top = logits[0, place].softmax(-1).topk(5)
    return [(tokenizer.decode([i]).strip(), p) for i, p in zip(top.indices, top.values.tolist())]


def same_words(found, expected):
    assert [word for word, _ in found] == [word for word, _ in expected]
    np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "head", "sentence"),
    [
        ("bert", 0, "Hello I'm a [MASK] model."),
        ("roberta", 0, "Hello I'm a <mask> model."),
        ("bridgetower", 1, "a <mask> looking out of the window"),
        ("lxmert", 0, "a [MASK] looking out of the window"),
    ],
)
def test_blanks_are_filled_as_by_transformers(work, cards, name, head, sentence):
    torch = libraries()[0]
    heads, tokenizer, _ = work[1][name]
    asked = inputs(work, name, [sentence])
    with torch.no_grad():
        out = heads[head](**asked)
    logits = out.prediction_logits if name == "lxmert" else out.logits
    same_words(cards[f"{name}_words"], expected_words(tokenizer, asked["input_ids"], logits))


@pytest.mark.parametrize("name", ["bridgetower", "lxmert"])
def test_matches_are_scored_as_by_transformers(work, cards, name):
    torch = libraries()[0]
    with torch.no_grad():
        out = work[1][name][0][0](**inputs(work, name, MATCHES))
    logits = out.cross_relationship_score if name == "lxmert" else out.logits
    expected = logits.softmax(-1)[:, 1].numpy()
    np.testing.assert_allclose(cards[f"{name}_match"], expected, atol=1e-4)
    assert np.ptp(expected) > 1e-3


def test_a_caption_is_chosen_as_by_transformers(work, cards):
    torch = libraries()[0]
    asked = inputs(work, "clip", LABELS)
    asked["pixel_values"] = asked["pixel_values"][:1]
    with torch.no_grad():
        expected = work[1]["clip"][0][0](**asked).logits_per_image.softmax(-1)[0].numpy()
    np.testing.assert_allclose(cards["clip_choice"], expected, atol=1e-4)
    assert expected.std() > 1e-3


def test_photos_are_prepared_as_the_folder_says(work):
    root, _ = work
    scorer = load(root / "work/bridgetower")
    own, other = scorer.record(root / "cats.jpg"), scorer.record(root / "cats.jpg", size_divisor=0)
    assert (scorer.processor.side, scorer.processor.divisor) == (SIDE, DIVISOR)
    assert own[schema.PIXELS][:4].max() == 0  # of 48 rows, 40 are photo
    assert other[schema.PIXELS][:4].max() > 0


def test_states_and_attention_are_those_of_transformers(work):
    torch = libraries()[0]
    root, models = work
    with torch.no_grad():
        theirs = models["lxmert"][0][0].lxmert
        theirs.config._attn_implementation = "eager"
        out = theirs(
            **inputs(work, "lxmert", MATCHES[:1]),
            output_hidden_states=True,
            output_attentions=True,
        )
    with jax.default_matmul_precision("highest"):
        found = load(root / "work/lxmert").trace(root / "cats.npz", MATCHES[0])
    real = out.language_output.shape[1]
    np.testing.assert_allclose(found["text"][-1][:real], out.language_output[0], atol=1e-4)
    np.testing.assert_allclose(found["image"][-1], out.vision_output[0], atol=1e-4)
    weights = out.cross_encoder_attentions[0][0].numpy()
    np.testing.assert_allclose(found["text_to_image"][0][:, :real], weights, atol=1e-4)
    assert {part.ndim for part in found["text_attention"]} == {3}


def test_fill_at_the_command_line(work, capsys):
    root, _ = work
    ask = ["fill", f"--model={root / 'work/bert'}", "--sentence=a <mask> and a <mask>"]
    assert cli.main([*ask, "--top=2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [len(words) for words in found] == [2, 2]
    assert cli.main([*ask, "--top=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{found[0][0]['probability']:.3f} {found[0][0]['word']}"
    assert lines[2] == ""


@pytest.mark.parametrize(
    ("name", "record", "sentence", "message"),
    [
        ("bert", "cats.jpg", "a <mask>", "bert reads sentences alone"),
        ("bert", None, "a cat", "has no blank; write <mask>"),
        ("bert", None, "a" * TOKENS + "<mask>", "the model reads 58"),
        ("lxmert", None, "a <mask>", "lxmert reads a photo beside the sentence"),
        ("lxmert", "cats.jpg", "a <mask>", "this model reads regions; give the detector"),
        ("clip", "cats.jpg", "a <mask>", "clip has no head over words"),
    ],
)
def test_what_cannot_be_filled_is_told(work, name, record, sentence, message):
    root, _ = work
    scorer = load(root / "work" / name)
    with pytest.raises(UsageError, match=message):
        scorer.fill(record and root / record, sentence)


def test_models_of_words_score_no_pairs(work):
    root, _ = work
    with pytest.raises(UsageError, match="bert scores no pairs of image and text"):
        load(root / "work/bert").score(root / "cats.jpg", ["a cat"])
    with pytest.raises(UsageError, match="bert reads no photos; give None"):
        load(root / "work/bert").trace(root / "cats.npz", "a cat")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image_mean", [0.5, 0.5, 0.5], r"image_mean=\[0.5, 0.5, 0.5\]; clip reads \[0.48"),
        ("resample", 2, "resample=2; clip reads 3"),
        ("size", {"height": SIDE, "width": SIDE}, "a square of the shorter side's length"),
        ("crop_size", 24, "cuts out 24"),
    ],
)
def test_photos_prepared_otherwise_are_refused(work, tmp_path, capsys, field, value, message):
    root, models = work
    folder = tmp_path / "in"
    models["clip"][0][0].save_pretrained(folder)
    models["clip"][1].save_pretrained(folder)
    settings = json.loads((root / "published/clip/preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | {field: value}))
    argv = ["import", f"--from={folder}", "--model=clip", f"--out={tmp_path / 'run'}"]
    assert cli.main(argv) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
