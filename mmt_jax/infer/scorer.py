"""What a notebook holds after `mmt_jax.load`: a model that is asked about photos and sentences."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from scipy import special

from mmt_jax.configs.config import Config
from mmt_jax.data import schema
from mmt_jax.detectors.base import Detector
from mmt_jax.errors import UsageError
from mmt_jax.infer import fill as cloze
from mmt_jax.infer.export import signature
from mmt_jax.infer.inputs import Inputs, Reader, Record, batched
from mmt_jax.infer.pairs import Items
from mmt_jax.infer.predict import Predictor
from mmt_jax.infer.show.explain import Explanation, explain
from mmt_jax.photos.processors import Processor
from mmt_jax.text.base import Tokenizer
from mmt_jax.typing import Image, Text


class Scorer(Reader):
    """A trained model that scores photos and captions, in float32.

    Attributes:
      predictor: the model, where it is one of JAX; others have their own `logits` and `_all_pairs`.
    """

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer,
        processor: Processor | None = None,
        *,
        predictor: Predictor | None = None,
    ):
        super().__init__(config, tokenizer, processor)
        self.predictor = predictor

    def score(
        self,
        records: Record | Sequence[Record],
        captions: Sequence[str],
        *,
        truncate: bool = False,
        detector: str | Detector | None = None,
        size_divisor: int | None = None,
    ) -> np.ndarray:
        """The probability that photo and caption match, for each photo with each caption.

        Args:
          records: one photo or a list of them. A photo is a dict of `image/bboxes` [R, 5] f32,
            `image/detection_features` [R, F] f32 and `image/padding_mask` [R] i32 (or, where the
            model reads pixels, `image/pixels` [H, W, 3] f32 in 0..1), or the path of an npz file
            that holds these, or that of a photo.
          captions: plain sentences.
          truncate: cut captions that are too long, as training does, in place of refusing them.
          detector: of photos' regions, as `detectors.load` takes it, or gives it; models that read
            pixels need none.
          size_divisor: of BridgeTower's photos, see `processors.Processor`; None = as its weights
            came with, or 32.

        Returns:
          [photos, captions] f32; [captions] if `records` is one photo and no list.

        Raises:
          UsageError: the model scores no pairs, or the first fault of a record or caption, and its
            remedy.
        """
        return special.expit(self._odds(records, captions, truncate, detector, size_divisor))

    def choose(
        self,
        records: Record | Sequence[Record],
        captions: Sequence[str],
        *,
        truncate: bool = False,
        detector: str | Detector | None = None,
        size_divisor: int | None = None,
    ) -> np.ndarray:
        """The probability of each caption, given that one of them is the photo's.

        The softmax of the log odds over captions: classification without training, as CLIP's
        (Radford et al., 2021, section 3.1). Arguments, shapes and errors are those of `score`.
        """
        odds = self._odds(records, captions, truncate, detector, size_divisor)
        return special.softmax(odds, axis=-1)

    def fill(
        self,
        record: Record | None,
        sentence: str,
        *,
        top: int = 5,
        detector: str | Detector | None = None,
        size_divisor: int | None = None,
    ) -> list[list[cloze.Word]]:
        """The likeliest words at each `<mask>` (or `[MASK]`) of a sentence.

        Args:
          record: a photo, as `score` takes it; None for models that read sentences alone.
          sentence: with at least one blank.
          top: how many words.
          detector, size_divisor: as of `score`.

        Returns:
          For each blank, in order, pieces of the vocabulary with their probabilities, best first.

        Raises:
          UsageError: this is a module, the model has learned no words, or the first fault of record
            or sentence.
        """
        predictor = self._own
        if record is not None and not predictor.model.fuses:
            raise UsageError(f"{self.name} reads sentences alone; give None in the photo's place")
        image = None if record is None else self._image(record, detector, size_divisor)
        return cloze.fill(predictor, self.tokenizer, sentence, image, top=top)

    def trace(self, record: Record, caption: str) -> dict[str, list[np.ndarray]]:
        """Hidden states and attention maps of a record and a caption, to be looked at.

        Of LXMERT; `Explanation.attention` is there for other models too.

        Returns:
          `text` and `image`: states after the embedding and after each layer, [S, D], S tokens
          (padding included) or regions. `text_attention`, `image_attention`: the weights with which
          each unimodal layer reads, [N, S, S]. `text_to_image`, `image_to_text`: those of each
          cross-modal layer, [N, T, R] and [N, R, T].

        Raises:
          UsageError: this is a module, the model is none that can be traced, or the record or
            caption has a fault.
        """
        predictor = self._own
        if not hasattr(predictor.model.network, "trace"):
            raise UsageError(
                f"{self.name} is of the family {self.config.model.family}, and LXMERT alone can be "
                f"traced; `explain` tells what words read of regions"
            )
        text = schema.to_text(self.texts([caption], truncate=False))
        found = predictor.trace(text, self._image(record))
        return jax.tree.map(lambda leaf: leaf[0], found)

    def explain(self, record: Record, caption: str) -> Explanation:
        """What the score of a record and a caption rests on.

        Raises:
          UsageError: this is no workdir, or the record has a fault.
        """
        predictor = self._own
        self._check_scores()
        return explain(predictor, self.tokenizer, caption, self._image(record))

    def logits(self, inputs: Inputs) -> np.ndarray:
        """All keys of the signature, B pairs → [B, 2] f32; softmax(...)[:, 0] = match."""
        self._check_scores()
        image = signature.image(self.config, inputs)
        return self._own.logits(schema.to_text(inputs), image)

    def log_odds(
        self,
        texts: Inputs | Items,
        images: Inputs | Items,
        *,
        pairs: int = 256,
        progress: bool = False,
    ) -> np.ndarray:
        """Text keys of M captions, image keys of N photos → log odds of a match, [M, N] f32.

        They rank as probabilities do, but do not saturate. Other arguments as of `Predictor.score`.
        """
        self._check_scores()
        return self._all_pairs(batched(texts), batched(images), pairs=pairs, progress=progress)

    def _all_pairs(self, texts: Items, images: Items, **how: Any) -> np.ndarray:
        def image(rows: np.ndarray) -> Image:
            return signature.image(self.config, images.fetch(rows))

        def text(rows: np.ndarray) -> Text:
            return schema.to_text(texts.fetch(rows))

        texts_read, images_read = Items(texts.mask, text), Items(images.mask, image)
        return self._own.log_odds(texts_read, images_read, **how)

    @property
    def _own(self) -> Predictor:
        if self.predictor is None:
            raise UsageError(
                "a module tells nothing but its scores; give the workdir it was made of"
            )
        return self.predictor

    def _image(self, record: Record, *how: Any) -> Image:
        return signature.image(self.config, self.images([record], *how))

    def _odds(self, records: Any, captions: Any, truncate: bool, *how: Any) -> np.ndarray:
        """Log odds, in the shape that `score` returns."""
        self._check_scores()
        single = isinstance(records, Mapping | str | os.PathLike)
        images = self.images([records] if single else list(records), *how)
        odds = self.log_odds(self.texts(captions, truncate=truncate), images).T
        return odds[0] if single else odds

    def _check_scores(self) -> None:
        if self.config.objective.itm == "none":
            raise UsageError(
                f"{self.name} scores no pairs of image and text; score with a model that was "
                f"trained with an ITM loss"
            )
