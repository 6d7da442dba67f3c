"""What a notebook holds after `mmt_jax.load`: a model that is asked about photos and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import special

from mmt_jax import detectors
from mmt_jax.configs.config import Config
from mmt_jax.data import schema
from mmt_jax.detectors.base import Detector
from mmt_jax.errors import UsageError
from mmt_jax.infer import fill as cloze
from mmt_jax.infer.export import signature
from mmt_jax.infer.inputs import Inputs, Reader, Record, batched, listed
from mmt_jax.infer.pairs import Items
from mmt_jax.infer.predict import Predictor
from mmt_jax.infer.search.index import Hit, best_matches
from mmt_jax.infer.show.explain import Explanation, explain
from mmt_jax.models import checks
from mmt_jax.photos.processors import Processor
from mmt_jax.text.base import Tokenizer
from mmt_jax.typing import Batch, Image, Text


class Answer(NamedTuple):
    """A label of a task, and how likely it is."""

    label: str
    probability: float


class Scorer(Reader):
    """A trained model that scores photos and captions, in float32.

    Attributes:
      predictor: the model, where it is one of JAX; others have their own `logits` and `_all_pairs`.
      labels: what the answers of a task's head are called, by number; () = not known.
      steps: how long it was trained; 0 = not here.
    """

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer,
        processor: Processor | None = None,
        *,
        predictor: Predictor | None = None,
        labels: Sequence[str] = (),
        steps: int = 0,
    ):
        super().__init__(config, tokenizer, processor)
        self.predictor, self.labels, self.steps = predictor, tuple(labels), steps

    def __repr__(self) -> str:
        told = [f"family {self.config.model.family}"]
        if self.predictor is None:
            told.append("an exported module")
        else:
            leaves = jax.tree.leaves(self.predictor.params)
            told.append(f"{sum(leaf.size for leaf in leaves):,} parameters")
            data = self.config.task.name or self.config.data.source
            told.append(f"{self.steps:,} steps on {data}" if self.steps else "imported")
        return f"<{self.name}: {', '.join(told)}; can {', '.join(self.abilities)}>"

    @property
    def abilities(self) -> tuple[str, ...]:
        """The methods that do what they say; the others refuse."""
        scores = self.config.objective.itm != "none"
        able = {"score": scores, "choose": scores, "answer": self._asked_about > 0}
        if self.predictor is not None:
            model = self.predictor.model
            able |= {
                "explain": scores,
                "embed_texts": model.embeds,
                "embed_images": model.embeds,
                "search": scores or model.embeds,
                "fill": bool(self.config.objective.mlm),
                "trace": True,
            }
        return tuple(name for name, can in able.items() if can)

    @property
    def _asked_about(self) -> int:
        return checks.asked_about(self.config)

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
            that holds these, or a photo in any form that `pictures.given` takes.
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

        Other arguments are those of `score`.

        Args:
          record: a photo, as `score` takes it; None for models that read sentences alone.
          sentence: with at least one blank.
          top: how many words.

        Returns:
          For each blank, in order, pieces of the vocabulary with their probabilities, best first.

        Raises:
          UsageError: this is a module, the model has learned no words, or the first fault of record
            or sentence.
        """
        predictor = self.own
        if record is not None and not predictor.model.fuses:
            raise UsageError(f"{self.name} reads sentences alone; give None in the photo's place")
        image = None if record is None else self._image(record, detector, size_divisor)
        return cloze.fill(predictor, self.tokenizer, sentence, image, top=top)

    def embed_texts(self, captions: Sequence[str], *, truncate: bool = False) -> np.ndarray:
        """Captions → [M, E] f32, whose inner products with `embed_images` rank photos.

        Raises:
          UsageError: the model has no embeddings, or as `score`.
        """
        return self._embeds().embed(self._text(captions, truncate))

    def embed_images(
        self,
        records: Record | Sequence[Record],
        *,
        detector: str | Detector | None = None,
        size_divisor: int | None = None,
    ) -> np.ndarray:
        """Photos, as `score` takes them → [N, E] f32; [E] if `records` is one and no list.

        Raises:
          UsageError: the model has no embeddings, or as `score`.
        """
        rows = self._embeds().embed(self._image(records, detector, size_divisor))
        return rows[0] if listed(records)[1] else rows

    def search(
        self,
        records: Sequence[Record] | Sequence[str],
        caption: str | None = None,
        *,
        photo: Record | None = None,
        top: int = 5,
        truncate: bool = False,
        detector: str | Detector | None = None,
        size_divisor: int | None = None,
    ) -> list[Hit]:
        """Places of the `top` photos that a sentence fits best, or captions that fit a photo.

        Best first, with the probability of a match where it has been learned. Scores are those of
        `Predictor.score`. Other arguments are those of `score`.

        Args:
          records: photos, as `score` takes them; captions where `photo` is given.
          caption: the sentence.
          photo: in place of the sentence, `search(captions, photo=photo)`.

        Raises:
          UsageError: the model neither scores pairs nor has embeddings, or as `score`.
        """
        predictor = self.own if self.config.objective.itm != "none" else self._embeds()
        if top < 1:
            raise UsageError(f"the number to be found is {top}; ask for 1 or more")
        if (caption is None) == (photo is None):
            raise UsageError("search photos with a caption, or captions with photo=")
        captions, photos = (records, [photo]) if caption is None else ([caption], records)
        image = self._image(photos, detector, size_divisor)
        return best_matches(predictor, self._text(captions, truncate), image, top=top)

    def answer(
        self,
        records: Record | Sequence[Record],
        question: str,
        *,
        top: int = 5,
        truncate: bool = False,
        detector: str | Detector | None = None,
        size_divisor: int | None = None,
    ) -> list[Answer]:
        """The likeliest answers to a question about a photo, or about two, best first.

        Other arguments are those of `score`.

        Args:
          records: a photo, as `score` takes it; a list of two for NLVR2.
          question: of VQAv2 and GQA; of NLVR2 and SNLI-VE the sentence.
          top: how many answers.

        Returns:
          Labels, numbers where none are known. VQAv2's are right or wrong each by itself, so that
          their probabilities do not sum to 1.

        Raises:
          UsageError: the model has no head for questions about photos, there are more or fewer
            photos than it reads, or the first fault of a photo or the question.
        """
        count = self._asked_about
        if not count:
            raise UsageError(
                f"{self.name} has no head for questions about photos; ask a model that was trained "
                f"on vqa, gqa, nlvr2 or snli_ve"
            )
        photos, _ = listed(records)
        if len(photos) != count:
            raise UsageError(
                f"{self.name} is asked about {count} photo{'s'[count == 1 :]} at once; give as many"
            )
        if top < 1:
            raise UsageError(f"the number of answers is {top}; ask for 1 or more")
        text = self.texts([question], truncate=truncate)
        detector = detectors.load(detector) if isinstance(detector, str) else detector  # once
        read = [self.images([photo], detector, size_divisor) for photo in photos]
        chances = np.asarray(signature.chances(self.config, self._answers(text, read)[0]))
        best = np.argsort(-chances, kind="stable")[:top].tolist()
        names = self.labels or range(len(chances))
        return [Answer(str(names[number]), float(chances[number])) for number in best]

    def _answers(self, text: Inputs, photos: Sequence[Inputs]) -> np.ndarray:
        """Text keys of B questions, image keys of their photos by place → logits [B, A]."""
        first, *others = (signature.image(self.config, photo) for photo in photos)
        numbers = np.zeros(len(first.mask), np.int32)
        return self.own.answers(Batch(schema.to_text(text), first, numbers, tuple(others)))

    def _embeds(self) -> Predictor:
        if not self.own.model.embeds:
            raise UsageError(
                f"{self.name} has no embeddings, for it reads caption and photo together; take "
                f"a model of two towers, such as baseline_baseline"
            )
        return self.own

    def trace(
        self,
        record: Record | None,
        caption: str | None,
        *,
        truncate: bool = False,
        detector: str | Detector | None = None,
        size_divisor: int | None = None,
    ) -> dict[str, Any]:
        """What the model computes of a photo and a caption, to be looked at, float32.

        T counts tokens, S regions or patches, behind the one slot that stands for the photo in
        CLIP, BridgeTower and TERN; padding included. D is a width, N a number of heads. Other
        arguments are those of `score`.

        Args:
          record: a photo, as `score` takes it; None = the caption alone.
          caption: a sentence; None = the photo alone.

        Returns:
          Of what follows, what the model has.
          `text`, `image`: states after the embedding and after each layer, lists of [T, D] and
          [S, D]; of TERN also after the projection, and after a last LayerNorm.
          `text_attention`, `image_attention`: with which weights a stream reads itself, a list of
          [N, T, T] and [N, S, S] by layer; `text_to_image`, `image_to_text`: the other, [N, T, S]
          and [N, S, T]; `text_to_all`, `image_to_all`: both at once, tokens first, [N, T, T + S]
          and [N, S, T + S]. Rows sum to 1, and padding weighs 0.
          `text_pooled`, `image_pooled`, `pooled`: the vectors [E] that stand for caption, photo
          and pair (for what is asked about, of a task's model) before the heads.
          `text_embedding`, `image_embedding`: as `embed_texts` and `embed_images`.
          `logits`: [2], whose softmax begins with the probability of a match; `words`: [T, V], of
          each token over the vocabulary; `answers`: [A], of a task, whose head reads one photo.

        Raises:
          UsageError: this is a module, neither is given, the model reads none of that kind, or as
            `score`.
        """
        predictor = self.own
        if record is None and caption is None:
            raise UsageError("there is nothing to trace; give a photo, a caption, or both")
        if record is not None and not predictor.model.fuses:
            raise UsageError(f"{self.name} reads no photos; give None in the photo's place")
        if caption is not None and "text" not in predictor.params:
            raise UsageError(f"{self.name} reads no captions; give None in the caption's place")
        text = None if caption is None else self._text([caption], truncate)
        image = None if record is None else self._image(record, detector, size_divisor)
        return jax.tree.map(lambda leaf: leaf[0], predictor.trace(text, image))

    def explain(self, record: Record, caption: str) -> Explanation:
        """What the score of a record and a caption rests on.

        Raises:
          UsageError: this is no workdir, or the record has a fault.
        """
        predictor = self.own
        self._check_scores()
        return explain(predictor, self.tokenizer, caption, self._image(record))

    def logits(self, inputs: Inputs) -> np.ndarray:
        """All keys of the signature, B pairs → [B, 2] f32; softmax(...)[:, 0] = match."""
        self._check_scores()
        image = signature.image(self.config, inputs)
        return self.own.logits(schema.to_text(inputs), image)

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
        return self.own.log_odds(texts_read, images_read, **how)

    @property
    def own(self) -> Predictor:
        """The model; raises UsageError where it is a module and none of JAX."""
        if self.predictor is None:
            raise UsageError(
                "a module tells nothing but scores and answers; give the workdir it was made of"
            )
        return self.predictor

    def _odds(self, records: Any, captions: Any, truncate: bool, *how: Any) -> np.ndarray:
        """Log odds, in the shape that `score` returns."""
        self._check_scores()
        photos, single = listed(records)
        images = self.images(photos, *how)
        odds = self.log_odds(self.texts(captions, truncate=truncate), images).T
        return odds[0] if single else odds

    def _check_scores(self) -> None:
        if self.config.objective.itm == "none":
            raise UsageError(
                f"{self.name} scores no pairs of image and text; score with a model that was "
                f"trained with an ITM loss"
            )
