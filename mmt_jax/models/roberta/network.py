"""RoBERTa (Liu et al., 2019, arXiv 1907.11692): a text tower, trained on masked words."""

from __future__ import annotations

from jaxtyping import Float

from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import SENTENCE
from mmt_jax.models import checks
from mmt_jax.models.base import Encoded, Network, sizes
from mmt_jax.nn.embed import Tables, TextEncoder
from mmt_jax.nn.heads import SentenceHead
from mmt_jax.typing import Array, Key, Text


class Roberta(Network):
    """Text encoder and word head; it scores no pairs."""

    itms = ("none",)
    trains = ("mlm",)
    answers_on = (SENTENCE,)

    @classmethod
    def check(cls, config: Config) -> None:
        checks.heads(config.model, "")

    def __init__(self, config: Config):
        model = config.model
        self.text = TextEncoder(
            Tables.roberta(
                model.vocab_size, model.max_positions, pad_id=model.pad_id, segments=model.segments
            ),
            sizes(config, model.width, model.heads, model.mlp_dim, eps=model.eps),
            model.text_layers,
            dtype=config.dtype,
        )
        self.build_masked(config, eps=model.eps)
        if model.num_answers:
            self.answer_head = SentenceHead(model.width, model.num_answers, dropout=model.dropout)

    def encode_text(self, text: Text, *, key: Key = None) -> Encoded:
        return Encoded(self.text_states(text, key=key)[-1], text.mask, {}, ())

    def pool(self, item: Encoded) -> Float[Array, "B D"]:
        return item.states[:, 0]


NETWORK = Roberta
