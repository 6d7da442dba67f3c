"""BERT, RoBERTa and CLIP's vision transformer against the PyTorch models they are taken from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmt_jax import params as trees
from mmt_jax.data import regions
from mmt_jax.nn import embed, primitives, vision
from mmt_jax.nn.layers import Sizes, Stack
from mmt_jax.typing import Image, Text

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.torch

WIDTH, HEADS, MLP, VOCAB, POSITIONS = 24, 3, 40, 50, 20
PATCH, GRID = 4, 3


@pytest.fixture(autouse=True)
def _exact():
    torch.set_num_threads(1)
    with jax.default_matmul_precision("highest"):
        yield


# our path → PyTorch's name, by the parts that differ
LAYER = {
    "embed/tokens": "embeddings.word_embeddings",
    "embed/positions": "embeddings.position_embeddings",
    "embed/segments": "embeddings.token_type_embeddings",
    "embed/norm": "embeddings.LayerNorm",
    "stack/layers/": "encoder.layer.",
    "attention/out": "attention.output.dense",
    "attention/norm": "attention.output.LayerNorm",
    "attention/": "attention.self.",
    "mlp/hidden": "intermediate.dense",
    "mlp/out": "output.dense",
    "mlp/norm": "output.LayerNorm",
}
CLIP = {
    "cls/embedding": "embeddings.class_embedding",
    "patches": "embeddings.patch_embedding",
    "positions": "embeddings.position_embedding",
    "first_norm": "pre_layrnorm",
    "last_norm": "post_layernorm",
    "stack/layers/": "encoder.layers.",
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/out": "self_attn.out_proj",
    "attention/norm": "layer_norm1",
    "mlp/hidden": "mlp.fc1",
    "mlp/out": "mlp.fc2",
    "mlp/norm": "layer_norm2",
}


def foreign(path, names):
    for ours, theirs in names.items():
        path = path.replace(ours, theirs)
    for leaf in ("kernel", "scale", "embedding"):
        path = path.removesuffix(f"/{leaf}") + (".weight" if path.endswith(f"/{leaf}") else "")
    return path.replace("/", ".")


def ours(network, arrays, names):
    """`arrays` by PyTorch's names → the tree of `network`'s parameters, and the names it used."""
    tree, used = {}, set()
    for path, leaf in trees.flatten(nnx.to_pure_dict(nnx.state(network, nnx.Param))).items():
        used.add(foreign(path, names))
        value = arrays[foreign(path, names)]
        if value.ndim == 4:  # convolution [D, colour, row, column] → [row · column · colour, D]
            value = value.transpose(2, 3, 1, 0)
        elif path.endswith("kernel"):
            value = value.T
        tree[path] = value.reshape(leaf.shape)
    return trees.unflatten(tree), used


def numpy(tensors):
    return {name: tensor.detach().numpy() for name, tensor in tensors}


def randomised(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def compare(network, names, reference, run, theirs):
    """States and gradients of a random projection of the last state; `theirs` are of PyTorch."""
    params, used = ours(network, numpy(reference.named_parameters()), names)
    weights = np.random.default_rng(0).standard_normal(theirs[-1].shape, np.float32)
    (theirs[-1] * torch.tensor(weights)).sum().backward()
    zeros = {n: np.zeros_like(p.detach()) for n, p in reference.named_parameters()}
    grads = zeros | numpy(
        (n, p.grad) for n, p in reference.named_parameters() if p.grad is not None
    )

    graph = nnx.graphdef(network)

    def loss(params):
        states = run(nnx.merge(graph, nnx.State(params)))
        return (states[-1] * weights).sum(), states

    (_, states), found = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    assert len(states) == len(theirs)
    for ours_, theirs_ in zip(states, theirs):
        np.testing.assert_allclose(ours_, theirs_.detach().numpy(), atol=1e-5, rtol=1e-5)
    wanted = trees.flatten(ours(network, grads, names)[0])
    for path, grad in trees.flatten(found).items():
        scale = np.abs(wanted[path]).max() + 1.0
        np.testing.assert_allclose(grad / scale, wanted[path] / scale, atol=1e-5, err_msg=path)
    return used


def captions(pad_id, *, masked=True):
    """Token ids [3, 9] padded behind, their mask, and segments; one real token is masked too."""
    rng = np.random.default_rng(1)
    ids = rng.integers(3, VOCAB, (3, 9))
    mask = np.arange(9) < np.array([[9], [6], [2]])
    ids = np.where(mask, ids, pad_id)
    if not masked:
        return ids, np.ones_like(mask), rng.integers(0, 2, ids.shape)
    mask[0, 4] = False
    return ids, mask, rng.integers(0, 2, ids.shape)


@pytest.mark.slow
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(
    ("kind", "eps", "depth", "act"), [("bert", 1e-12, 3, "gelu"), ("roberta", 1e-5, 2, "relu")]
)
def test_text_encoder_equals_pytorch(kind, eps, depth, act, masked):
    roberta = kind == "roberta"
    config, model = {
        "bert": (transformers.BertConfig, transformers.BertModel),
        "roberta": (transformers.RobertaConfig, transformers.RobertaModel),
    }[kind]
    config = config(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=depth,
        num_attention_heads=HEADS,
        intermediate_size=MLP,
        hidden_act=act,
        max_position_embeddings=POSITIONS,
        type_vocab_size=2,
        layer_norm_eps=eps,
        pad_token_id=int(roberta),
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    reference = randomised(model(config, add_pooling_layer=False))
    ids, mask, segments = captions(int(roberta), masked=masked)
    theirs = reference(
        input_ids=torch.tensor(ids),
        attention_mask=torch.tensor(mask.astype(np.int64)) if masked else None,
        token_type_ids=torch.tensor(segments),
        output_hidden_states=True,
    ).hidden_states

    sizes = Sizes(WIDTH, HEADS, MLP, eps=eps, activation=act)
    tables = embed.Tables(VOCAB, POSITIONS, 2)
    if roberta:
        frozen = ("tokens", "positions")
        tables = embed.Tables(VOCAB, POSITIONS, 2, pad_id=1, scheme="roberta", frozen=frozen)
    network = embed.TextEncoder(tables, sizes, depth, dtype="float32")
    text = Text(ids, segments, np.zeros_like(ids), mask)
    used = compare(network, LAYER, reference, lambda encoder: encoder(text), theirs)
    assert used == {name for name, _ in reference.named_parameters()}


@pytest.mark.slow
def test_vision_encoder_equals_pytorch():
    config = transformers.CLIPVisionConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=MLP,
        image_size=PATCH * GRID,
        patch_size=PATCH,
        attn_implementation="eager",
    )
    assert config.hidden_act == "quick_gelu"
    torch.manual_seed(0)
    reference = randomised(transformers.CLIPVisionModel(config))
    pixels = np.random.default_rng(0).random((2, PATCH * GRID, PATCH * GRID, 3), np.float32)
    standard = ((pixels - vision.PIXEL_MEAN) / vision.PIXEL_STD).astype(np.float32)
    out = reference(torch.tensor(standard.transpose(0, 3, 1, 2)), output_hidden_states=True)
    pooled = out.pooler_output[:, None]  # the last LayerNorm, on the class alone

    features, boxes = (x[:, :-1] for x in regions.patches(pixels, PATCH))
    image = Image(features, boxes, np.ones((2, GRID**2), bool))
    sizes = Sizes(WIDTH, HEADS, MLP, eps=1e-5, activation="quick_gelu", pre_norm=True)
    network = vision.VisionEncoder(sizes, 2, patch_dim=3 * PATCH**2, grid=GRID, dtype="float32")

    def run(vision):
        states = vision(image)
        return [*states, vision.last_norm(states[-1][:, :1])]

    used = compare(network, CLIP, reference, run, [*out.hidden_states, pooled])
    assert used == {name for name, _ in reference.named_parameters()}


def test_padded_patches_change_no_other():
    sizes = Sizes(WIDTH, HEADS, MLP, pre_norm=True)
    network = vision.VisionEncoder(sizes, 2, patch_dim=3, grid=GRID, dtype="float32")
    state = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), state)
    graph = nnx.graphdef(network)

    @jax.jit
    def run(image):
        return nnx.merge(graph, nnx.State(params))(image)[-1]

    features, boxes = rng.random((1, 5, 3)), rng.random((1, 5, 5))
    mask = np.arange(5)[None] < 3
    last = run(Image(features, boxes, mask))
    alone = run(Image(features[:, :3], boxes[:, :3], mask[:, :3]))
    np.testing.assert_allclose(last[:, :4], alone, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (7, 5), (2, 4), (1, 16)])
@pytest.mark.parametrize("size", [3, 6])
def test_positions_are_resized_as_pytorch_does(rows, columns, size):
    grid = np.random.default_rng(0).standard_normal((size, size, 4), np.float32)
    wanted = torch.nn.functional.interpolate(
        torch.tensor(grid.transpose(2, 0, 1)[None]), (rows, columns), mode="bicubic"
    )[0]
    _, boxes = regions.patches(np.zeros((rows, columns, 3), np.float32), 1)
    y, x = (boxes[:-1, :2] + boxes[:-1, 2:4]).T / 2
    found = jnp.einsum(
        "pi,pj,ijd->dp", vision.cubic_weights(y, size), vision.cubic_weights(x, size), grid
    )
    np.testing.assert_allclose(found.reshape(wanted.shape), wanted, atol=1e-5)


def test_a_row_that_is_frozen_takes_part_and_is_not_trained():
    graph = nnx.graphdef(primitives.Table(3, 2))

    def total(rows):
        table = nnx.merge(graph, nnx.State({"embedding": rows}))
        return table(jnp.array([0, 1, 1]), frozen=0).sum()

    value, grad = jax.value_and_grad(total)(jnp.arange(6.0).reshape(3, 2))
    assert value == 1 + 5 + 5
    np.testing.assert_array_equal(grad, [[0, 0], [2, 2], [0, 0]])


@pytest.mark.slow
def test_layers_run_by_number_after_a_passage_through_nested_dicts():
    """Keys of a nested dict are sorted as text: 0, 1, 10, 11, 2, …"""
    depth = 12
    stack = Stack(Sizes(8, 2, 8), depth)
    shapes = trees.flatten(nnx.to_pure_dict(nnx.state(stack, nnx.Param)))
    rng = np.random.default_rng(0)
    drawn = {path: rng.normal(0, 0.5, leaf.shape) for path, leaf in shapes.items()}
    graph, _ = nnx.split(stack)
    stack = nnx.merge(graph, nnx.State(jax.tree.map(jnp.asarray, trees.unflatten(drawn))))

    states = jnp.asarray(rng.normal(size=(1, 3, 8)), jnp.float32)
    mask = jnp.ones((1, 3), bool)
    trace = stack(states, mask)
    for number in range(depth):
        states = stack.layers[str(number)](states, mask)
        np.testing.assert_allclose(trace[number + 1], states, rtol=1e-5, atol=1e-5)
