"""Ours beside Hugging Face's PyTorch: the same weights, inputs and pairs, measured in turns.

  python benchmarks/peers.py --model=lxmert
  python benchmarks/peers.py --model=lxmert --width=768 --layers=9,5,5 --vocab=30522 --compile
  python benchmarks/peers.py --model=bridgetower --width=768 --layers=12,6 --vocab=50265 \
    --image-size=288 --tokens=50

A random PyTorch model is saved and imported as a published one is. Heads are 64 wide and MLPs four
times the width, as published. Captions and photos have no padding, and there is no dropout. Three
tasks: the match scores of some pairs; their loss and its gradient; and the scores of every caption
with every photo, ours with each item encoded once (`infer.pairs.score_matrix`), PyTorch's from
tokens and regions for each pair. Both compute in full float32 unless --precision says otherwise:
tf32 is what both do by default on recent GPUs; bfloat16 is ours with config.dtype, PyTorch with
torch.autocast.

PyTorch's threads wait without spinning unless OMP_WAIT_POLICY=active is set: where other work is
going on, threads that spin for a core make a small model a hundred times slower, and the ratio
says nothing. The load of the machine is printed too.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # is read while torch is imported

import jax
import numpy as np
import torch
import transformers
from timing import machine, paired_seconds

from mmt_jax import hub as importers
from mmt_jax.data import regions
from mmt_jax.infer.predict import Predictor
from mmt_jax.models import registry
from mmt_jax.models.base import Model
from mmt_jax.nn.heads import MATCH
from mmt_jax.nn.vision import PIXEL_MEAN, PIXEL_STD
from mmt_jax.typing import Array, Image, Params, Text

HEAD_DIM = 64
# How exact JAX's and PyTorch's products of float32 are.
PRECISIONS = {
    "float32": ("highest", "highest"),
    "tf32": ("tensorfloat32", "high"),
    "bfloat16": ("tensorfloat32", "high"),
}
LAYERS = {"lxmert": "2,1,2", "bridgetower": "3,2"}
THEIR_MATCH = 1  # which of two logits says that a pair matches
# The special tokens, where both libraries have them; captions are made of what comes after.
SPECIAL = {
    "lxmert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "bridgetower": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
}


@dataclasses.dataclass(frozen=True)
class Peer:
    """A PyTorch model, and M captions and N photos as each side takes them, in numpy.

    Attributes:
      network: of transformers.
      logits: `their_texts` and `their_images` of P pairs → [P, 2].
      vocabulary: files beside the weights, by name.
    """

    network: Any
    logits: Callable[..., torch.Tensor]
    vocabulary: Mapping[str, str]
    texts: Text
    images: Image
    their_texts: Mapping[str, np.ndarray]
    their_images: Mapping[str, np.ndarray]


def lxmert(args: argparse.Namespace, texts: Text, rng: np.random.Generator) -> Peer:
    """LXMERT with a match head; layers of captions, of regions, and of both."""
    language, objects, cross = args.layers
    network = transformers.LxmertForPreTraining(
        transformers.LxmertConfig(
            vocab_size=args.vocab,
            hidden_size=args.width,
            num_attention_heads=args.width // HEAD_DIM,
            intermediate_size=4 * args.width,
            max_position_embeddings=args.tokens,
            l_layers=language,
            r_layers=objects,
            x_layers=cross,
            visual_feat_dim=args.features,
            task_obj_predict=False,
            task_qa=False,
        )
    )
    shape = args.images, args.regions
    low, size = rng.random((2, *shape, 2), np.float32) / 2
    (y1, x1), (y2, x2) = np.moveaxis(low, -1, 0), np.moveaxis(low + size, -1, 0)
    boxes = np.stack([y1, x1, y2, x2, size.prod(axis=-1)], axis=-1)
    features = rng.random((*shape, args.features), np.float32)
    images = Image(features, boxes, np.ones(shape, bool))
    return Peer(
        network,
        lambda **inputs: network.cls.seq_relationship(network.lxmert(**inputs).pooled_output),
        {"vocab.txt": "\n".join(_words(args))},
        texts,
        images,
        {"input_ids": np.asarray(texts.token_ids, np.int64)},
        {"visual_feats": features, "visual_pos": np.stack([x1, y1, x2, y2], axis=-1)},
    )


def bridgetower(args: argparse.Namespace, texts: Text, rng: np.random.Generator) -> Peer:
    """BridgeTower with a match head; layers of each tower, and of the cross-modal encoder."""
    tower, cross = args.layers
    network = transformers.BridgeTowerForImageAndTextRetrieval(
        transformers.BridgeTowerConfig(
            hidden_size=args.width,
            num_attention_heads=args.width // HEAD_DIM,
            num_hidden_layers=cross,
            text_config={
                "vocab_size": args.vocab,
                "hidden_size": args.width,
                "num_hidden_layers": tower,
                "num_attention_heads": args.width // HEAD_DIM,
                "intermediate_size": 4 * args.width,
                "max_position_embeddings": args.tokens + 2,  # RoBERTa's: none up to the padding's
            },
            vision_config={
                "hidden_size": args.width,
                "num_hidden_layers": tower,
                "patch_size": args.patch_size,
                "image_size": args.image_size,
            },
        )
    )
    pixels = rng.random((args.images, args.image_size, args.image_size, 3), np.float32)
    standard = ((pixels - PIXEL_MEAN) / PIXEL_STD).astype(np.float32)
    return Peer(
        network,
        lambda **inputs: network(**inputs).logits,
        {
            "vocab.json": json.dumps({word: i for i, word in enumerate(_words(args))}),
            "merges.txt": "#version: 0.2\n",
        },
        texts,
        regions.pixel_image(pixels, args.patch_size, global_region=False),
        {"input_ids": np.asarray(texts.token_ids, np.int64)},
        {"pixel_values": np.ascontiguousarray(standard.transpose(0, 3, 1, 2))},
    )


PEERS = {"lxmert": lxmert, "bridgetower": bridgetower}


def _words(args: argparse.Namespace) -> list[str]:
    special = SPECIAL[args.model]
    return [*special, *(f"word{i}" for i in range(args.vocab - len(special)))]


def make(args: argparse.Namespace) -> Peer:
    """The peer that flags ask for; its weights and inputs are the same each time."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    shape = args.captions, args.tokens
    texts = Text(
        rng.integers(len(SPECIAL[args.model]), args.vocab, shape, np.int32),
        np.zeros(shape, np.int32),
        np.tile(np.arange(args.tokens, dtype=np.int32), (args.captions, 1)),
        np.ones(shape, bool),
    )
    peer = PEERS[args.model](args, texts, rng)
    peer.network.eval()
    return peer


def imported(peer: Peer, model: str, dtype: str) -> tuple[Model, Params]:
    """Ours, by way of a folder as PyTorch models are published in."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        peer.network.save_pretrained(folder)
        for file, content in peer.vocabulary.items():
            (folder / file).write_text(content, encoding="utf-8")
        found = importers.load(folder, model)
    config = dataclasses.replace(found.config, dtype=dtype)
    return registry.build(config), jax.device_put(found.params)


class Ours:
    """The three tasks in JAX; results are on the host, or will be waited for."""

    def __init__(self, peer: Peer, model: str, precision: str):
        self._peer = peer
        dtype = "bfloat16" if precision == "bfloat16" else "float32"
        self._model, self._params = imported(peer, model, dtype)
        self._scores = jax.jit(self._logits)
        self._grad = jax.jit(jax.value_and_grad(self._loss))

    @property
    def size(self) -> int:
        """How many parameters there are."""
        return sum(leaf.size for leaf in jax.tree.leaves(self._params))

    def rows(self, captions: np.ndarray, photos: np.ndarray) -> tuple[Text, Image]:
        """The inputs of some pairs, on the device."""
        text = jax.tree.map(lambda leaf: leaf[captions], self._peer.texts)
        image = jax.tree.map(lambda leaf: leaf[photos], self._peer.images)
        return jax.device_put((text, image))

    def forward(self, pairs: tuple[Text, Image]) -> np.ndarray:
        """[P] log-odds of a match."""
        logits = np.asarray(self._scores(self._params, *pairs))
        return logits[:, MATCH] - logits[:, 1 - MATCH]

    def backward(self, pairs: tuple[Text, Image]) -> tuple[Array, Params]:
        """The loss, and its gradient."""
        return self._grad(self._params, *pairs)

    def matrix(self, pairs: int) -> np.ndarray:
        """[M, N]."""
        predictor = Predictor(self._model, self._params)
        return predictor.score(self._peer.texts, self._peer.images, pairs=pairs)

    def _logits(self, params: Params, text: Text, image: Image) -> Array:
        model = self._model
        encoded = model.encode_text(params, text), model.encode_image(params, image)
        return model.fuse(params, *encoded).logits[-1]

    def _loss(self, params: Params, text: Text, image: Image) -> Array:
        return -jax.nn.log_softmax(self._logits(params, text, image))[:, MATCH].mean()


class Theirs:
    """The three tasks in PyTorch; everything is ready when a call returns."""

    def __init__(self, peer: Peer, precision: str, *, compiled: bool):
        self._mixed = precision == "bfloat16"
        self._device = "cuda" if jax.default_backend() == "gpu" else "cpu"
        self._peer = peer
        peer.network.to(self._device)
        self._call = torch.compile(peer.logits) if compiled else peer.logits

    def _logits(self, **inputs: torch.Tensor) -> torch.Tensor:
        mixed = torch.autocast(self._device, torch.bfloat16)
        with mixed if self._mixed else contextlib.nullcontext():
            return self._call(**inputs).float()

    def rows(self, captions: np.ndarray, photos: np.ndarray) -> dict[str, torch.Tensor]:
        """The inputs of some pairs, on the device."""
        arrays = {key: value[captions] for key, value in self._peer.their_texts.items()}
        arrays |= {key: value[photos] for key, value in self._peer.their_images.items()}
        return {key: torch.from_numpy(value).to(self._device) for key, value in arrays.items()}

    def forward(self, pairs: Mapping[str, torch.Tensor]) -> np.ndarray:
        """[P] log-odds of a match."""
        with torch.no_grad():
            logits = self._logits(**pairs).cpu().numpy()
        return logits[:, THEIR_MATCH] - logits[:, 1 - THEIR_MATCH]

    def backward(self, pairs: Mapping[str, torch.Tensor]) -> None:
        """Leaves the gradient in the parameters."""
        self._peer.network.zero_grad(set_to_none=True)
        torch.log_softmax(self._logits(**pairs), -1)[:, THEIR_MATCH].mean().neg().backward()
        if self._device == "cuda":
            torch.cuda.synchronize()

    def matrix(self, pairs: int) -> np.ndarray:
        """[M, N], `pairs` at once; a last batch that is not full begins again at the first pair."""
        shape = len(self._peer.texts.mask), len(self._peer.images.mask)
        total = shape[0] * shape[1]
        parts = []
        for start in range(0, total, pairs):
            chunk = np.arange(start, start + pairs) % total
            parts.append(self.forward(self.rows(*np.unravel_index(chunk, shape))))
        return np.concatenate(parts)[:total].reshape(shape)


def measure(ours: Ours, others: Mapping[str, Theirs], args: argparse.Namespace) -> None:
    """Prints the agreement, then the median times of each task and their ratios to ours."""
    sides: dict[str, Any] = {"ours": ours, **others}
    chosen = np.arange(args.pairs) % args.captions, np.arange(args.pairs) % args.images
    rows = {name: side.rows(*chosen) for name, side in sides.items()}
    expected = ours.matrix(args.pairs)
    print(f"scores    from {expected.min():.4f} to {expected.max():.4f}")
    for name, other in others.items():
        pair = np.abs(ours.forward(rows["ours"]) - other.forward(rows[name])).max()
        whole = np.abs(expected - other.matrix(args.pairs)).max()
        print(f"greatest difference to {name}: {whole:.1e} of all pairs, {pair:.1e} forward")
    tasks = {
        f"forward, {args.pairs} pairs": lambda name: sides[name].forward(rows[name]),
        "forward and backward": lambda name: sides[name].backward(rows[name]),
        f"{args.captions} × {args.images} scores": lambda name: sides[name].matrix(args.pairs),
    }
    for task, call in tasks.items():
        calls = {name: functools.partial(call, name) for name in sides}
        seconds = paired_seconds(calls, repeats=args.repeats)
        cells = [f"ours {seconds['ours'] * 1e3:,.1f} ms"]
        for name in others:
            ratio = seconds[name] / seconds["ours"]
            cells.append(f"{name} {seconds[name] * 1e3:,.1f} ms, {ratio:.2f} × ours")
        print(f"{task:<22}" + "; ".join(cells), flush=True)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="lxmert", choices=PEERS)
    parser.add_argument("--width", type=int, default=HEAD_DIM, help=f"a multiple of {HEAD_DIM}")
    parser.add_argument("--layers", help="LXMERT: language,region,cross; BridgeTower: tower,cross")
    parser.add_argument("--vocab", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=20, help="of each caption")
    parser.add_argument("--regions", type=int, default=36, help="of each photo, for LXMERT")
    parser.add_argument("--features", type=int, default=2048, help="of each region")
    parser.add_argument("--image-size", type=int, default=64, help="pixels, for BridgeTower")
    parser.add_argument("--patch-size", type=int, default=16)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--captions", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=32, help="at once")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    layers = args.layers or LAYERS[args.model]
    args.layers = [int(number) for number in layers.split(",")]
    wanted = LAYERS[args.model].count(",") + 1
    if len(args.layers) != wanted or args.width % HEAD_DIM or args.width < HEAD_DIM:
        parser.error(f"{args.model} takes {wanted} numbers of layers, and widths of {HEAD_DIM} · n")

    ours_by, theirs_by = PRECISIONS[args.precision]
    torch.set_float32_matmul_precision(theirs_by)
    torch.backends.cudnn.allow_tf32 = theirs_by != "highest"
    peer = make(args)
    ours = Ours(peer, args.model, args.precision)
    others = {"PyTorch": Theirs(peer, args.precision, compiled=False)}
    if args.compile:
        others["torch.compile"] = Theirs(peer, args.precision, compiled=True)
    print(f"machine   {machine()}")
    print(f"load      {os.getloadavg()[0]:.1f} tasks before")
    print(
        f"peer      transformers {transformers.__version__}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {os.environ['OMP_WAIT_POLICY']}"
    )
    print(
        f"model     {args.model}, width {args.width}, layers {layers}, {ours.size:,} parameters, "
        f"{args.precision}"
    )
    with jax.default_matmul_precision(ours_by):
        measure(ours, others, args)


if __name__ == "__main__":
    main()
