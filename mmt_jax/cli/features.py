"""Makes a region folder of photos, with a detector.

  mmt features --detector=grid:work/clip --images=photos --out=my_photos --captions=captions.jsonl

{detectors}

Options of a detector follow its model: `labels=FILE` names classes; of classifiers, `features=NAME`
is the tensor that becomes a region's feature, `colours=unit|signed|raw|imagenet|clip` how they read
pixels, `scales=2x3` the grid of boxes; of a SavedModel, `boxes=`, `scores=` and `features=` name
outputs; of torchvision, `weights=` is a file in place of the published ones, which are downloaded.
EXIF orientation is applied. Captions, from JSON Lines of image_id and captions, COCO's or
Karpathy's JSON, or a token file, are joined by a photo's path below --images without its ending, or
by its number where COCO, Visual Genome or Flickr30k number it. --images may be what
`mmt data prepare` made: its split SPLIT is read, with the captions that it has.

Stopped, the same command goes on where it was. A photo that cannot be read, has no region, or has
no caption where there are captions, is left out and listed in SPLIT.skipped.jsonl in --out.

Needs pip install 'mmt_jax[photos]', TensorFlow ('mmt_jax[tf]') or torchvision for their detectors.
"""

from __future__ import annotations

import types

from mmt_jax.cli import flags
from mmt_jax.detectors import DETECTORS

DOING = "opening {detector}, for the photos of {images}"
FLAGS = (
    flags.Flag("detector", "NAME:MODEL", "what finds regions, of the table above", required=True),
    flags.Flag("images", "DIR", "photos, in folders below it too, or a corpus", required=True),
    *flags.REGION_FOLDER,
)

__doc__ = str(__doc__).format(
    detectors=flags.table(["detector", "MODEL"], [list(row) for row in DETECTORS.items()])
)


def run(args: types.SimpleNamespace) -> None:
    """Detects, and says what was left out."""
    from mmt_jax.detectors.folder import extract

    print(
        extract(
            args.detector,
            args.images,
            args.out,
            split=args.split,
            captions=args.captions,
            dtype=args.dtype,
        )
    )
