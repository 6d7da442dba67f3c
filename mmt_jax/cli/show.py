"""Draws a photo's regions and, with a model, what a score rests on, as PNG or HTML.

  mmt show --image=dog.jpg --detector=frozen_graph:detector.pb --caption="a dog" --out=dog.png
  mmt show --record=work/photo.npz --model=work/cc --caption="a red circle" --out=work/circle.html

Regions are drawn with what the detector calls them. With a model, which is a workdir of `mmt train`
or `mmt import`: the attention from each word to each region, the mean over layers and heads, as a
multiple of an even share, where its words read regions (not in single-modality, image-query and
two-tower models); and the change in the log odds of a match when a word is replaced by the mask
token, or a region is read by nobody. Below 0, the word or region speaks for the match. A page,
.html, needs nothing beside it, and has the letters and signs that a picture's font lacks.
"""

from __future__ import annotations

import dataclasses
import types
import typing

from mmt_jax.cli import flags, photo
from mmt_jax.errors import UsageError

if typing.TYPE_CHECKING:
    from mmt_jax.infer.show.view import View

DOING = "reading the photo"
FLAGS = (
    *photo.FLAGS,
    flags.Flag("caption", "TEXT", "what the photo is held against", required=True),
    flags.Flag("model", "WORKDIR", "whose score is explained"),
    flags.Flag("out", "FILE.png|.html", "the new file; nothing is overwritten", required=True),
)


def run(args: types.SimpleNamespace) -> None:
    """Detects, explains and draws."""
    from mmt_jax.files import check_new, whole

    out = check_new(args.out)
    if out.suffix not in (".png", ".html"):
        raise UsageError(f"--out={out} must end in .png or .html")
    view = _view(args, photo.given(args))
    with whole(out) as part:
        if out.suffix == ".png":
            from mmt_jax.infer.show import figure

            figure.write(view, part)
        else:
            from mmt_jax.infer.show import page

            part.write_text(page.render(view), encoding="utf-8")
    print(f"wrote {out}")


def _view(args: types.SimpleNamespace, path: str) -> View:
    from mmt_jax.infer import api
    from mmt_jax.infer.show import view as views

    scorer = api.load(args.model) if args.model else None
    config = scorer.config if scorer else None
    if args.image and not (config and config.model.pixels):
        if not args.detector:
            raise UsageError("--detector=NAME:MODEL is missing: it finds the photo's regions")
        view, record = views.of_photo(path, args.detector, args.caption, config)
    else:
        view, record = None, path
        if scorer and args.image:
            record = scorer.record(path, detector=args.detector)
    told = scorer.explain(record, args.caption) if scorer else None  # refuses what it cannot read
    view = view or views.of_record(record, args.caption, config)
    return dataclasses.replace(view, explanation=told)
