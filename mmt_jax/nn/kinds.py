"""Which states each stream's queries read, layer by layer: what the study varies."""

from __future__ import annotations

import dataclasses

from mmt_jax.errors import UsageError

STREAMS = ("text", "image")


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a layer's queries read, by stream. A stream that reads nothing passes through."""

    text: tuple[str, ...] = ()
    image: tuple[str, ...] = ()
    tied: bool = False  # both streams use one set of weights

    def reads(self, stream: str) -> tuple[str, ...]:
        """The streams that `stream` reads."""
        return self.text if stream == "text" else self.image

    def is_read(self, stream: str) -> bool:
        """Whether any stream reads `stream`."""
        return stream in self.text or stream in self.image

    @property
    def multimodal(self) -> bool:
        """Whether both streams take part."""
        return {*self.text, *self.image} == {*STREAMS}

    def needs_key_bias(self, stream: str) -> bool:
        """Whether a bias on the keys of `stream` can change any attention.

        It adds the same to each score that a query has with this stream: the softmax cancels it
        unless the query also reads keys with another bias.
        """
        return not self.tied and any(stream in r and len(r) > 1 for r in (self.text, self.image))


KINDS = {
    "text": Kind(text=("text",)),
    "image": Kind(image=("image",)),
    "single": Kind(text=("text",), image=("image",)),
    "merged": Kind(text=STREAMS, image=STREAMS),
    "coattention": Kind(text=("image",), image=("text",)),
    "language_query": Kind(text=STREAMS),
    "language_query_self": Kind(text=STREAMS, image=("image",)),
    "image_query": Kind(image=STREAMS),
    "image_query_self": Kind(image=STREAMS, text=("text",)),
    "single_stream": Kind(text=STREAMS, image=STREAMS, tied=True),
}


def kinds(layers: tuple[str, ...]) -> tuple[Kind, ...]:
    """The rows of KINDS that `layers` names; UsageError: a name is not in the table."""
    for name in layers:
        if name not in KINDS:
            raise UsageError(
                f"config.model.layers has {name!r}, which is no kind of layer; "
                f"there are {', '.join(KINDS)}"
            )
    return tuple(KINDS[name] for name in layers)
