"""The language stack alone, trained on masked words: what `pretrained="bert"` rows start from."""

from __future__ import annotations

import jax
from jaxtyping import Float

from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import SENTENCE
from mmt_jax.models.base import Encoded, Network
from mmt_jax.models.mmt.network import check_streams, stack_sizes, token_embed
from mmt_jax.nn.heads import SentenceHead, WordHead
from mmt_jax.nn.primitives import Table, split
from mmt_jax.nn.streams import Streams
from mmt_jax.typing import Array, Text


class Bert(Network):
    """Embeddings, language layers, word head; it scores no pairs."""

    itms = ("none",)
    answers_on = (SENTENCE,)

    @classmethod
    def check(cls, config: Config) -> None:
        check_streams(config)

    def __init__(self, config: Config):
        model = config.model
        self.text = token_embed(config)
        self.streams = Streams(stack_sizes(config), model.layers)
        self.cls_index = model.cls_index
        if config.objective.mlm:
            self.word_head = WordHead(model.width, model.vocab_size)
        if model.num_answers:
            self.answer_head = SentenceHead(model.width, model.num_answers, dropout=model.dropout)

    @property
    def token_table(self) -> Table:
        return self.text.tokens

    def encode_text(self, text: Text, *, key: jax.Array | None = None) -> Encoded:
        key_embed, key_layers = split(key, 2)
        x = self.text(text.token_ids, text.segment_ids, text.mask, key=key_embed)
        states, keys_values = self.streams.encode("text", x, text.mask, key=key_layers)
        return Encoded(states[-1], text.mask, keys_values, ())

    def pool(self, item: Encoded) -> Float[Array, "B D"]:
        return item.states[:, self.cls_index]


NETWORK = Bert
