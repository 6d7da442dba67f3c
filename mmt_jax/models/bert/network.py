"""The language stack alone, trained on masked words: what `pretrained="bert"` rows start from."""

from __future__ import annotations

from jaxtyping import Float

from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import SENTENCE
from mmt_jax.models.base import Encoded
from mmt_jax.models.mmt.network import StreamNetwork
from mmt_jax.nn.heads import SentenceHead
from mmt_jax.typing import Array


class Bert(StreamNetwork):
    """Embeddings, language layers, word head; it scores no pairs."""

    itms = ("none",)
    trains = ("mlm",)
    answers_on = (SENTENCE,)

    def __init__(self, config: Config):
        super().__init__(config)
        model = config.model
        self.build_masked(config)
        if model.num_answers:
            self.answer_head = SentenceHead(model.width, model.num_answers, dropout=model.dropout)

    def pool(self, item: Encoded) -> Float[Array, "B D"]:
        return item.states[:, self.heads["text"]]


NETWORK = Bert
