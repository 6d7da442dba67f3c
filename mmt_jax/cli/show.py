"""Draws a photo's regions and, with a model, what a score rests on, as PNG or HTML.

usage: mmt show --image=FILE|--record=FILE.npz --caption=TEXT [--model=WORKDIR] --out=FILE

  mmt show --image=dog.jpg --detector=frozen_graph:detector.pb --caption="a dog" --out=dog.png
  mmt show --record=work/photo.npz --model=work/cc --caption="a red circle" --out=work/circle.html

Regions are drawn with what the detector calls them. With a model, which is a workdir of `mmt train`
or `mmt import`: the attention from each word to each region, the mean over layers and heads, where
its words read regions (not in single-modality, image-query and two-tower models); and the change in
the log odds of a match when a word is replaced by the mask token, or a region is read by nobody.
Below 0, the word or region speaks for the match. A page, .html, needs nothing beside it, and has
the letters and signs that a picture's font lacks.
"""

from __future__ import annotations

import dataclasses
import pathlib
import types
import typing

from mmt_jax.cli import flags
from mmt_jax.errors import UsageError

FLAGS = (
    flags.Flag("image", "FILE", "a photo"),
    flags.Flag("record", "FILE.npz", "a photo's record, in its place"),
    flags.Flag("detector", "NAME:MODEL", "what finds the photo's regions; see `mmt features`"),
    flags.Flag("caption", "TEXT", "what the photo is held against", required=True),
    flags.Flag("model", "WORKDIR", "whose score is explained"),
    flags.Flag("out", "FILE.png|.html", "the new file; nothing is overwritten", required=True),
)


def run(args: types.SimpleNamespace) -> None:
    """Detects, explains and draws."""
    out = pathlib.Path(args.out)
    if out.exists():
        raise UsageError(f"{out} exists and is not overwritten; remove it or name another file")
    if out.suffix not in (".png", ".html"):
        raise UsageError(f"--out={out} must end in .png or .html")
    if bool(args.record) == bool(args.image):
        raise UsageError("give either --record=FILE.npz or --image=FILE; see `mmt show --help`")
    from mmt_jax.files import whole

    view = _view(args)
    with whole(out) as part:
        if out.suffix == ".png":
            from mmt_jax.infer.show import figure

            figure.write(view, part)
        else:
            from mmt_jax.infer.show import page

            part.write_text(page.render(view), encoding="utf-8")
    print(f"wrote {out}")


def _view(args: types.SimpleNamespace):
    from mmt_jax.data import schema
    from mmt_jax.infer import api
    from mmt_jax.infer.show import view as views

    scorer = api.load(args.model) if args.model else None
    model = scorer.config.model if scorer else None
    if args.image and not (model and model.pixels):
        view, record = _detected(args, scorer)
    else:
        pixels = scorer.record(args.image) if scorer and args.image else None
        record = pixels or schema.read_record(args.record)
        if schema.PIXELS in record and not (model and model.pixels):
            raise UsageError(
                f"{args.record} holds pixels, no regions; give --model that reads them"
            )
        if schema.PIXELS not in record:
            schema.validate_record(record, name=args.record, global_region=False)
        view = views.View(*views.of_record(record, model), args.caption)
    if scorer is None:
        return view
    scorer.check_record(record, args.record or args.image)
    return dataclasses.replace(view, explanation=scorer.explain(record, args.caption))


def _detected(args: types.SimpleNamespace, scorer):
    """A photo's regions in the order in which the model reads them, and its record."""
    import numpy as np

    from mmt_jax import detectors
    from mmt_jax.data import regions
    from mmt_jax.detectors import base
    from mmt_jax.infer.show import view as views
    from mmt_jax.photo import BOXES, SCORES
    from mmt_jax.photos import pictures

    if not args.detector:
        raise UsageError("--detector=NAME:MODEL is missing: it finds the photo's regions")
    picture, detector = pictures.read(args.image), detectors.load(args.detector)
    photo = base.answer(detector, picture, args.image)
    reading: dict[str, typing.Any] = {"max_regions": base.MAX_REGIONS}
    if scorer:
        data, wanted = scorer.config.data, scorer.config.model.global_region
        reading = {"max_regions": data.max_regions, "reading": data.regions}
        reading["global_region"] = wanted
    boxes = photo.rows[BOXES]
    rows = regions.slots(np.array([0, len(boxes)]), photo.rows.get(SCORES), **reading)[0]
    names = views.names(photo, rows, detector.labels)
    view = views.View(picture, boxes[rows, :4], names, args.caption)
    return view, base.record(photo, **reading)
