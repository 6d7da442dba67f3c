"""TERN against PyTorch models built of BertModel and TransformerEncoder, as its two codes do."""

import argparse
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import tern as experiment
from mmt_jax import hub as importers
from mmt_jax import params as trees
from mmt_jax.configs.config import Config, DataSpec, ObjectiveConfig, resolve, with_spec
from mmt_jax.configs.models import TernConfig
from mmt_jax.errors import UsageError
from mmt_jax.infer.predict import Predictor
from mmt_jax.models import registry
from mmt_jax.models import weights as engine
from mmt_jax.models.bert import weights as bert
from mmt_jax.models.tern import weights as tern
from mmt_jax.nn.primitives import even_out
from mmt_jax.objectives import losses
from mmt_jax.train import sharding
from mmt_jax.typing import Batch, Image, Text
from tests import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.torch

VOCAB, POSITIONS, FEATURES, TOKENS, REGIONS, PAIRS = 40, 12, 12, 7, 5, 4


@pytest.fixture(autouse=True)
def _exact():
    torch.set_num_threads(1)
    with jax.default_matmul_precision("highest"):
        yield


@dataclasses.dataclass(frozen=True)
class Case:
    """Sizes of one model."""

    reading: str = "original"
    text_layers: int = 2
    image_layers: int = 2
    shared_layers: int = 1
    text_heads: int = 2
    image_heads: int = 2
    image_mlp_dim: int = 20
    heads: int = 3
    mlp_dim: int = 20
    width: int = 12

    def ours(self, *, itm="contrastive", mlm=0.0, mrm=0.0, **options):
        model = TernConfig(
            **dataclasses.asdict(self),
            **options,
            text_width=16,
            text_mlp_dim=24,
            image_width=FEATURES,
            max_positions=POSITIONS,
            feature_dim=FEATURES,
            num_classes=0,
            vocab_size=VOCAB,
            pad_id=0,
        )
        return registry.build(
            Config(model=model, objective=ObjectiveConfig(itm=itm, mlm=mlm, mrm=mrm))
        )


def bert_model(case):
    config = transformers.BertConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        num_hidden_layers=case.text_layers,
        num_attention_heads=case.text_heads,
        intermediate_size=24,
        max_position_embeddings=POSITIONS,
        attn_implementation="eager",
    )
    return transformers.BertModel(config)


class Container(torch.nn.Module):
    """Parts by name, so that keys are those of the published checkpoints."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class Original(torch.nn.Module):
    """mesnico/TERN: post-LN layers with ReLU, [CLS] and the photo's slot pooled."""

    def __init__(self, case):
        super().__init__()
        nn = torch.nn

        def stack(width, heads, mlp_dim, depth):
            layer = nn.TransformerEncoderLayer(width, heads, mlp_dim, 0.0, batch_first=True)
            return nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)

        boxes = nn.Sequential(
            nn.Linear(FEATURES + 5, FEATURES), nn.ReLU(), nn.Linear(FEATURES, FEATURES)
        )
        self.img_txt_enc = Container(
            txt_enc=Container(bert_model=bert_model(case), map=nn.Linear(16, case.width)),
            img_enc=Container(
                transformer_encoder=stack(
                    FEATURES, case.image_heads, case.image_mlp_dim, case.image_layers
                ),
                pos_encoding_image=Container(map=boxes),
                fc=nn.Linear(FEATURES, case.width),
            ),
            img_proj=nn.Linear(FEATURES, case.width),
            cap_proj=nn.Linear(16, case.width),
            transformer_encoder_1=stack(case.width, case.heads, case.mlp_dim, case.shared_layers),
        )

    def forward(self, ids, text_mask, features, boxes, image_mask):
        """Boxes are x1, y1, x2, y2."""
        parts = self.img_txt_enc
        text = parts.txt_enc.bert_model(ids, text_mask, output_hidden_states=True)
        area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
        slots = torch.cat([features, boxes, area[..., None]], dim=-1)
        slots = parts.img_enc.pos_encoding_image.map(torch.nn.functional.pad(slots, (0, 0, 1, 0)))
        mask = torch.nn.functional.pad(image_mask, (1, 0), value=True)
        own = _states(parts.img_enc.transformer_encoder, slots, mask)
        of_text = _states(parts.transformer_encoder_1, parts.cap_proj(text[2][-1]), text_mask)
        of_image = _states(parts.transformer_encoder_1, parts.img_proj(own[-1]), mask)
        pooled = of_text[-1][:, 0], of_image[-1][:, 0]
        vectors = [x / x.pow(2).sum(1, keepdim=True).sqrt() for x in pooled]
        return list(text[2]) + of_text, own + of_image, *vectors


def _states(stack, x, mask):
    states = [x]
    for layer in stack.layers:
        states.append(layer(states[-1], src_key_padding_mask=~mask))
    return states


class SampleNorm(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.alpha = torch.nn.Parameter(torch.ones(width))
        self.bias = torch.nn.Parameter(torch.zeros(width))

    def forward(self, x):
        spread = x.std(dim=-1, keepdim=True) + 1e-6
        return self.alpha * (x - x.mean(dim=-1, keepdim=True)) / spread + self.bias


class PreNormLayer(torch.nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm_1, self.norm_2 = SampleNorm(width), SampleNorm(width)
        self.attn = torch.nn.MultiheadAttention(width, heads, batch_first=True)
        self.hidden, self.out = torch.nn.Linear(width, 20), torch.nn.Linear(20, width)

    def forward(self, x):
        inner = self.norm_1(x)
        x = x + self.attn(inner, inner, inner, need_weights=False)[0]
        return x + self.out(torch.nn.functional.gelu(self.hidden(self.norm_2(x))))


class Kaylode(torch.nn.Module):
    """kaylode/tern: pre-LN layers over regions alone, projections of each token, their mean."""

    def __init__(self, case):
        super().__init__()
        nn = torch.nn

        def projection(width):
            return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, case.width))

        self.bert = bert_model(case)
        self.features, self.boxes = nn.Linear(FEATURES, FEATURES), nn.Linear(5, FEATURES)
        self.slot_1 = nn.Parameter(torch.zeros(1, FEATURES))
        self.slot_2 = nn.Parameter(torch.zeros(1, FEATURES))
        layers = [PreNormLayer(FEATURES, case.image_heads) for _ in range(case.image_layers)]
        self.layers, self.norm = nn.ModuleList(layers), SampleNorm(FEATURES)
        self.cap_proj, self.img_proj = projection(16), projection(FEATURES)

    def forward(self, ids, features, boxes):
        text = list(self.bert(ids, output_hidden_states=True)[2])
        area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
        x = self.features(features) + self.boxes(torch.cat([boxes, area[..., None]], dim=-1))
        own = [torch.cat([(self.slot_1 + self.slot_2).expand(len(x), 1, -1), x], dim=1)]
        for layer in self.layers:
            own.append(layer(own[-1]))
        own.append(self.norm(own[-1]))
        of_text, of_image = self.cap_proj(text[-1]), self.img_proj(own[-1])
        pooled = of_text.mean(1), of_image.mean(1)
        vectors = [x / x.pow(2).sum(1, keepdim=True).sqrt() for x in pooled]
        return [*text, of_text], [*own, of_image], *vectors


def randomised(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def inputs(*, padded):
    rng = np.random.default_rng(0)
    words = np.array([TOKENS, 4, 3, 6]) if padded else np.full(PAIRS, TOKENS)
    regions = np.array([2, REGIONS, 1, 3]) if padded else np.full(PAIRS, REGIONS)
    text_mask = np.arange(TOKENS) < words[:, None]
    ids = np.where(text_mask, rng.integers(1, VOCAB, text_mask.shape), 0).astype(np.int32)
    image_mask = np.arange(REGIONS) < regions[:, None]
    corners = np.sort(rng.random((PAIRS, REGIONS, 2, 2)), axis=2).reshape(PAIRS, REGIONS, 4)
    area = (corners[..., 2] - corners[..., 0]) * (corners[..., 3] - corners[..., 1])
    boxes = np.concatenate([corners, area[..., None]], axis=-1).astype(np.float32)
    features = rng.normal(size=(PAIRS, REGIONS, FEATURES)).astype(np.float32)
    return Text(ids, np.zeros_like(ids), ids, text_mask), Image(features, boxes, image_mask)


def compare(built, params, text, image, theirs, grads):
    """States, embeddings and gradients of a random function of the embeddings."""
    of_text, of_image, *vectors = theirs
    weights = np.random.default_rng(1).normal(size=(PAIRS, PAIRS)).astype(np.float32)
    ((vectors[0] @ vectors[1].T) * torch.tensor(weights)).sum().backward()

    def loss(params):
        states = (
            built.apply(params, built.network.text_states, text),
            built.apply(params, built.network.image_states, image),
        )
        encoded = built.encode_text(params, text), built.encode_image(params, image)
        vectors = built.embed_text(params, encoded[0]), built.embed_image(params, encoded[1])
        return ((vectors[0] @ vectors[1].T) * weights).sum(), (states, vectors)

    (_, (states, found)), ours = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    slot = np.pad(image.mask, ((0, 0), (1, 0)), constant_values=True)
    for mine, yours, mask in zip(states, (of_text, of_image), (text.mask, slot), strict=True):
        for a, b in zip(mine, yours, strict=True):
            np.testing.assert_allclose(a[mask], b.detach().numpy()[mask], atol=2e-5, rtol=1e-5)
    for a, b in zip(found, vectors, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), atol=1e-5)
    for path, expected in trees.flatten(grads()).items():
        gradient = trees.flatten(ours)[path]
        scale = np.abs(expected).max() + 1.0
        np.testing.assert_allclose(gradient / scale, expected / scale, atol=1e-5, err_msg=path)
    return trees.flatten(ours)


def converter(built, table, rename=str):
    """Arrays by PyTorch's names → ours, without the calibration, which PyTorch's have not."""
    wanted = {name: leaf for name, leaf in built.abstract().items() if name != "calibration"}

    def convert(arrays):
        renamed = {rename(name): array for name, array in arrays.items()}
        return engine.convert(renamed, table, wanted, name="the reference")

    return convert


def gradients(reference):
    zeros = {n: np.zeros_like(p.detach()) for n, p in reference.named_parameters()}
    return zeros | numpy((n, p.grad) for n, p in reference.named_parameters() if p.grad is not None)


def numpy(tensors):
    return {name: tensor.detach().numpy() for name, tensor in tensors}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "padded"),
    [
        (Case(), True),
        (Case(text_layers=1, image_layers=3, shared_layers=2, heads=2, image_heads=3), False),
        (Case(shared_layers=0, text_heads=4, width=8, heads=4), True),
    ],
)
def test_the_original_equals_pytorch(case, padded):
    reference, built = randomised(Original(case)), case.ours()
    text, image = inputs(padded=padded)

    convert = converter(built, tern.TABLE, tern.rename)
    params = tern.fresh(built.config) | convert(numpy(reference.named_parameters()))
    theirs = reference(
        torch.tensor(text.token_ids.astype(np.int64)),
        torch.tensor(text.mask),
        torch.tensor(image.features),
        torch.tensor(image.boxes[..., [1, 0, 3, 2]]),
        torch.tensor(image.mask),
    )

    found = compare(built, params, text, image, theirs, lambda: convert(gradients(reference)))
    assert not found["text/embed/tokens/embedding"][0].any()  # padding is never trained
    dead = [n for n, p in reference.named_parameters() if p.grad is None or not p.grad.any()]
    assert {name.split(".")[-2] for name in dead} <= {"map", "fc", "dense"}  # pooler.dense


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        Case(reading="kaylode", shared_layers=0),
        Case(reading="kaylode", shared_layers=0, text_layers=1, image_layers=1, image_heads=3),
    ],
)
def test_the_reimplementation_equals_pytorch(case):
    reference, built = randomised(Kaylode(case)), case.ours()
    text, image = inputs(padded=False)

    convert = converter(built, kaylode_table())
    params = tern.fresh(built.config) | convert(numpy(reference.named_parameters()))
    theirs = reference(
        torch.tensor(text.token_ids.astype(np.int64)),
        torch.tensor(image.features),
        torch.tensor(image.boxes[..., [1, 0, 3, 2]]),
    )

    compare(built, params, text, image, theirs, lambda: convert(gradients(reference)))


def kaylode_table():
    """Names of the reference above."""

    def norm(theirs, ours):
        return (
            engine.Row(f"{theirs}.alpha", (f"{ours}/scale",)),
            engine.Row(f"{theirs}.bias", (f"{ours}/bias",)),
        )

    layer, ours = "layers.{i}", "image/stack/layers/{i}"
    return (
        *bert.text_encoder("bert", "text"),
        *engine.skip("not read", "bert.pooler.dense.weight", "bert.pooler.dense.bias"),
        *engine.linear("features", "image/embed/features"),
        *engine.linear("boxes", "image/embed/boxes"),
        engine.Row("slot_1", ("image/embed/features_cls/embedding",)),
        engine.Row("slot_2", ("image/embed/boxes_cls/embedding",)),
        *norm(f"{layer}.norm_1", f"{ours}/attention/norm"),
        *norm(f"{layer}.norm_2", f"{ours}/mlp/norm"),
        *engine.multihead(f"{layer}.attn", f"{ours}/attention"),
        *engine.linear(f"{layer}.hidden", f"{ours}/mlp/hidden"),
        *engine.linear(f"{layer}.out", f"{ours}/mlp/out"),
        *norm("norm", "image/stack/last_norm"),
        *engine.linear("cap_proj.0", "project_text/mlp/hidden"),
        *engine.linear("cap_proj.2", "project_text/mlp/out"),
        *engine.linear("img_proj.0", "project_image/mlp/hidden"),
        *engine.linear("img_proj.2", "project_image/mlp/out"),
    )


@pytest.mark.parametrize("reading", ["original", "kaylode"])
def test_features_are_evened_out_before_they_are_embedded(reading):
    _, image = inputs(padded=True)
    plain, evened = (Case(reading=reading).ours(even_out=on) for on in (False, True))
    params = tiny.params(plain)
    by_hand = dataclasses.replace(image, features=np.asarray(even_out(image.features)))
    wanted = plain.encode_image(params, by_hand).heads[0]
    np.testing.assert_allclose(evened.encode_image(params, image).heads[0], wanted, atol=1e-6)
    assert not np.allclose(wanted, plain.encode_image(params, image).heads[0], atol=1e-2)


def test_evened_out_features_are_signed_roots_of_mean_0_and_deviation_1():
    features = np.float32([[16.0, 4.0, 4.0, 0.0], [-16.0, 0.0, 4.0, 4.0], [0.0] * 4])
    roots = np.float64([[4.0, 2.0, 2.0, 0.0], [-4.0, 0.0, 2.0, 2.0]])
    deviations = np.sqrt([[2.0], [6.0]])  # of 4, 2, 2, 0 with mean 2; of -4, 0, 2, 2 with mean 0
    wanted = (roots - [[2.0], [0.0]]) / deviations
    np.testing.assert_allclose(even_out(features), [*wanted, [0.0] * 4], atol=1e-4)
    assert np.isfinite(jax.grad(lambda x: even_out(x)[2, 0])(features)).all()


@pytest.mark.parametrize("on", [False, True])
def test_hidden_features_are_the_same_of_all_regions_of_a_photo(on):
    _, image = inputs(padded=False)
    alike = dataclasses.replace(
        image,
        features=np.broadcast_to(image.features[:1, :1], image.features.shape),
        boxes=np.zeros_like(image.boxes),
    )
    sizes = Case(reading="kaylode", image_layers=0, shared_layers=0)
    built = sizes.ours(image_dropout=0.5, even_out=on)
    params = tiny.params(built)
    np.testing.assert_array_equal(  # without a key nothing is hidden
        built.encode_image(params, alike).heads[0],
        sizes.ours(even_out=on).encode_image(params, alike).heads[0],
    )
    # The embedding is linear in the features: the slot aside, a region without most of them.
    params = {**params, "image": jax.tree.map(np.zeros_like, params["image"])}
    params["image"]["embed"]["features"]["kernel"] = np.eye(FEATURES, dtype=np.float32)
    states = built.apply(params, lambda net: net.image(alike, key=jax.random.key(0))[0])[:, 1:]
    np.testing.assert_array_equal(states, np.broadcast_to(states[:, :1], states.shape))
    assert (states[0] != states[1]).any()  # each photo has its own
    whole = np.asarray(even_out(alike.features) if on else alike.features)
    kept = np.asarray(states != 0)
    assert 0.2 < kept.mean() < 0.8
    np.testing.assert_allclose(states[kept], 2 * whole[kept], rtol=1e-5)


PUBLISHED = Case(image_heads=4, image_mlp_dim=2048, heads=4, mlp_dim=2048)  # as its code has them


def yaml(case):
    """What TERN's yaml file says of a model."""
    return {
        "text-model": {
            "name": "bert",
            "word-dim": 16,
            "extraction-hidden-layer": case.text_layers,
            "pre-extracted": False,
            "layers": 0,
        },
        "image-model": {
            "transformer-layers": case.image_layers,
            "pos-encoding": "concat-and-process",
            "feat-dim": FEATURES,
        },
        "model": {
            "embed-size": case.width,
            "text-aggregation": "first",
            "image-aggregation": "first",
            "layers": case.shared_layers,
            "shared-transformer": True,
            "dropout": 0.1,
        },
        "training": {"measure": "dot", "margin": 0.2},
    }


YAML = yaml(PUBLISHED)
WORDS = ("a", "red", "cube", "two", "ball", "##s")


def publish(folder, reference, **config):
    """A folder of `reference`, its checkpoint as TERN's code writes it."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    vocabulary = [*special, *(f"word{i}" for i in range(VOCAB - len(special)))]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    bert = reference.img_txt_enc.txt_enc.bert_model.config.to_dict()
    values = {"model_type": "tern", **YAML, "bert": bert} | config
    (folder / "config.json").write_text(json.dumps(values))
    checkpoint = {
        "epoch": 3,
        "model": reference.state_dict(),
        "best_ndcg": np.float64(0.7),
        "opt": argparse.Namespace(config="configs/tern.yaml", num_epochs=30),
        "config": YAML,
    }
    torch.save(checkpoint, folder / "model_best_rsum.pth.tar")
    return folder


@pytest.mark.slow
def test_published_weights_embed_as_pytorch(tmp_path):
    reference = randomised(Original(PUBLISHED))
    imported = importers.load(publish(tmp_path, reference), "tern")
    built = registry.build(imported.config)
    text = imported.tokenizer.texts(["a red cube", "two balls"] * 2, length=6, layout="cls_first")
    assert text.token_ids[1].tolist() == [2, 8, 9, 10, 3, 0]  # [CLS] two ball ##s [SEP] [PAD]
    _, image = inputs(padded=True)
    theirs = reference(
        torch.tensor(text.token_ids.astype(np.int64)),
        torch.tensor(text.mask),
        torch.tensor(image.features),
        torch.tensor(image.boxes[..., [1, 0, 3, 2]]),
        torch.tensor(image.mask),
    )
    for items, vectors in zip((text, image), theirs[2:], strict=True):
        found = Predictor(built, imported.params).embed(items)
        np.testing.assert_allclose(found, vectors.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image-model": {**YAML["image-model"], "pos-encoding": "project-and-sum"}}, "pos-encodi"),
        ({"model": {**YAML["model"], "text-aggregation": "gru"}}, "text-aggregation='gru'"),
        ({"bert": {}}, "lacks bert.intermediate_size"),
        ({"model_type": "bert"}, "of the type 'bert'"),
        ({"model": {**YAML["model"], "layers": 2}}, "shared/layers/1"),
    ],
)
def test_other_folders_are_told(tmp_path, config, message):
    folder = publish(tmp_path, Original(PUBLISHED), **config)
    with pytest.raises(UsageError, match=message):
        importers.load(folder, "tern")


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in trees.flatten(tree).values())


@pytest.mark.slow
@pytest.mark.parametrize("case", [Case(), Case(reading="kaylode", shared_layers=0)])
def test_scores_are_cosines_whatever_the_padding(case):
    built = case.ours()
    params = tiny.params(built)
    text, image = inputs(padded=True)
    scores = Predictor(built, params).score(text, image)
    longer = jax.tree.map(lambda x: np.pad(x, [(0, 0), (0, 3)] + [(0, 0)] * (x.ndim - 2)), image)
    np.testing.assert_allclose(Predictor(built, params).score(text, longer), scores, atol=1e-5)
    embeddings = Predictor(built, params).embed(text), Predictor(built, params).embed(image)
    for rows in embeddings:
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(scores, embeddings[0] @ embeddings[1].T, atol=1e-6)
    pairs = built.fuse(params, built.encode_text(params, text), built.encode_image(params, image))
    np.testing.assert_allclose(pairs.scores[-1], np.diag(scores), atol=1e-5)
    assert pairs.image.shape[1] == REGIONS


@pytest.mark.slow
@pytest.mark.parametrize("case", [Case(), Case(reading="kaylode", shared_layers=0)])
def test_every_parameter_is_trained_and_has_its_place_on_a_mesh(case):
    config = case.ours(mlm=1.0, mrm=1.0).config
    hidden = {"mlm_rate": 0.5, "mrm_rate": 0.9, "candidates": 2}
    built = registry.build(
        dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, mask_id=4),
            objective=dataclasses.replace(config.objective, **hidden),
        )
    )
    text, image = inputs(padded=True)
    words = np.where(text.mask, np.arange(TOKENS) - 1, -2).astype(np.int32)
    text = dataclasses.replace(text, word_ids=words)
    batch = jax.tree.map(jnp.asarray, Batch(text, image, np.arange(PAIRS, dtype=np.int32)))
    params = tiny.params(built)

    def loss(params):
        return losses.compute(built, params, batch, key=jax.random.key(0))[0]

    grads = trees.flatten(jax.jit(jax.grad(loss))(params))
    assert [path for path, leaf in grads.items() if not np.any(leaf)] == []
    placed = sharding.of_params(params, config, sharding.mesh(config))
    assert trees.flatten(placed).keys() == grads.keys()


def test_configs_that_cannot_be():
    with pytest.raises(UsageError, match=r"config\.model\.reading='rpe' is unknown"):
        Case(reading="rpe").ours()
    with pytest.raises(UsageError, match=r"width is 12; it must be a multiple of .*heads, 5"):
        Case(heads=5).ours()
    with pytest.raises(UsageError, match="itm='classification' is unknown to the family tern"):
        Case().ours(itm="classification")


# ---- Experiments ---------------------------------------------------------------------------------

UNUSED = (768 + 1) * 1024 + (2048 + 1) * 1024 + (768 + 1) * 768  # map, fc, BERT's pooler
PUBLISHED_SIZES = {"original": 198_674_176 - UNUSED, "kaylode": 26_393_344}  # the latter: no text


@pytest.mark.parametrize("tag", ["original", "kaylode"])
@pytest.mark.parametrize("scale", ["full", "tiny", "pilot"])
def test_experiments_are_models(tag, scale):
    config = resolve(experiment.get_config(f"{tag},scale={scale}"))
    spec = DataSpec(feature_dim=2048, num_classes=0, vocab_size=30522, pad_id=0)
    parts = registry.build(with_spec(config, spec)).abstract()
    assert (config.tag, config.model.reading) == (f"tern_{tag}", tag)
    if scale == "full":
        ours = ("calibration",) if tag == "original" else ("calibration", "text")
        parts = {name: part for name, part in parts.items() if name not in ours}
        assert count(parts) == PUBLISHED_SIZES[tag]


def test_experiments_that_are_not_there():
    for wrong in ("rpe", "original,scale=huge"):
        with pytest.raises(UsageError, match="write original or kaylode"):
            experiment.get_config(wrong)
