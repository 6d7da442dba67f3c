"""The language stack alone, trained on masked words: what `pretrained="bert"` rows start from."""

from __future__ import annotations

from jaxtyping import Float

from mmt_jax.configs.config import Config
from mmt_jax.configs.tasks import SENTENCE
from mmt_jax.errors import UsageError
from mmt_jax.models.base import Encoded
from mmt_jax.models.mmt.network import StreamNetwork
from mmt_jax.nn.heads import SentenceHead
from mmt_jax.typing import Array


class Bert(StreamNetwork):
    """Embeddings, language layers, word head; it scores no pairs."""

    itms = ("none",)
    trains = ("mlm",)
    answers_on = (SENTENCE,)

    @classmethod
    def check(cls, config: Config) -> None:
        super().check(config)
        given, untouched = vars(config.model), vars(type(config.model)())
        for name in ("cosine", "pooling", "text_dropout", "image_dropout", "embed_regions"):
            if given[name] != untouched[name]:
                raise UsageError(
                    f"config.model.{name}={given[name]} is for models of photos and captions; "
                    f"leave it out"
                )

    def __init__(self, config: Config):
        super().__init__(config)
        model = config.model
        self.build_masked(config)
        if model.num_answers:
            self.answer_head = SentenceHead(model.width, model.num_answers, dropout=model.dropout)

    def pool(self, item: Encoded) -> Float[Array, "B D"]:
        return item.states[:, self.heads["text"]]


NETWORK = Bert
