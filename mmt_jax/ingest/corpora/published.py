"""What is publicly known of the published files: checksums, and how much a split holds.

Each number with where it was found. Where the files of a corpus have no line here, nothing public
was found that could be checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from mmt_jax.ingest.corpora import base

# The first half of the SHA-256 of archives, which are checked where they still lie in the raw
# folder.
SHA256 = {
    # TFDS 4.9.10, url_checksums/coco.txt.
    "annotations_trainval2014.zip": "031296bbc80c45a1d1f76bf9a90ead27",
    "annotations_trainval2017.zip": "113a836d90195ee1f884e704da6304df",
    # TFDS 4.9.10, datasets/ref_coco and visual genome: both parts of its photos.
    "images.zip": "51c682d2721f880150720bb416e0346a",
    "images2.zip": "99da1a0ddf87011319ff3b05cf9176ff",
    # ParlAI, parlai/tasks/vqa_v2/build.py.
    "v2_Questions_Train_mscoco.zip": "05a64b6e2582d06d7585f5429674a9a3",
    "v2_Questions_Val_mscoco.zip": "e71f6c5c3e97a51d050f28243e262b28",
    "v2_Questions_Test_mscoco.zip": "982e2e687a86514b78ea83af356d1519",
    "v2_Annotations_Train_mscoco.zip": "fb101bcefe91422c543c2bb6d70af11e",
    "v2_Annotations_Val_mscoco.zip": "0caae7c8d1dafd852727f5ac046bc1ef",
}
_OF = {
    "coco_captions": ("annotations_trainval2014.zip", "annotations_trainval2017.zip"),
    "visual_genome": ("images.zip", "images2.zip"),
    "vqav2": tuple(name for name in SHA256 if name.startswith("v2_")),
}

# Examples, and elements of the corpus's `counts`, of each split; None where it is not known.
COUNTS: dict[tuple[str, str], tuple[int | None, int | None]] = {
    # ViLBERT's tools/DownloadConcptualCaption/README.md.
    ("conceptual_captions", "train"): (3_318_333, 3_318_333),
    ("conceptual_captions", "val"): (15_840, 15_840),
    # Photos: TFDS's catalogue, coco_captions/2014: 82,783 + 30,504, 5,000, 5,000. Captions: the
    # counts that public READMEs of BLIP's and other training data give.
    ("coco_captions", "train"): (113_287, 566_747),
    ("coco_captions", "val"): (5_000, 25_010),
    ("coco_captions", "test"): (5_000, 25_010),
    ("coco_captions", "train2014"): (82_783, 414_113),
    ("coco_captions", "val2014"): (40_504, None),
    # codesota.com on COCO's captions of 2017.
    ("coco_captions", "train2017"): (118_287, None),
    ("coco_captions", "val2017"): (5_000, None),
    # The corpus's page, as several public READMEs quote it.
    ("visual_genome", "train"): (108_077, None),
    # The official split of its authors, five captions a photo; so the card of intro/flickr8k.
    ("flickr8k", "train"): (6_000, 30_000),
    ("flickr8k", "val"): (1_000, 5_000),
    ("flickr8k", "test"): (1_000, 5_000),
    # The task's page, as several public READMEs quote it.
    ("vqav2", "train"): (82_783, 443_757),
    ("vqav2", "val"): (40_504, 214_354),
    ("vqav2", "test"): (81_434, 447_793),
    # The card of lmms-lab/GQA, and public READMEs.
    ("gqa", "train"): (72_140, 943_000),
    ("gqa", "val"): (10_234, 132_062),
    ("gqa", "testdev"): (398, 12_578),
    # The card of TIGER-Lab/Mantis-Instruct.
    ("nlvr2", "train"): (86_373, 86_373),
    ("nlvr2", "dev"): (6_982, 6_982),
}


def check_files(raw: base.Raw, corpus: str) -> Iterator[str]:
    """What is wrong with the archives that lie in a raw folder."""
    for name in _OF.get(corpus, ()):
        if path := raw.find(name):
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if not found.startswith(SHA256[name]):
                yield f"{path} has the SHA-256 {found}, but {SHA256[name]}… is published"


def check_counts(corpus: base.Corpus, split: str, items: int, elements: int) -> Iterator[str]:
    """Where a split holds more or less than is published."""
    known = COUNTS.get((corpus.name, split), (None, None))
    for number, published, what in zip(
        (items, elements), known, ("examples", corpus.counts), strict=True
    ):
        if published not in (None, number):
            yield f"{split} has {number:,} {what}, but {published:,} are published"
