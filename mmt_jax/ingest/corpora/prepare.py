"""Prepares a corpus split by split: what is finished stays, on Beam each shard of a split too."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mmt_jax.errors import UsageError
from mmt_jax.ingest import corpora
from mmt_jax.ingest.corpora import base, examples, hashes, published
from mmt_jax.photos import pictures

LOCAL = "local"  # the runner that is none: this process alone, without Beam

_PHOTOS = 2_000  # of a shard that Beam writes: some 200 MB


@dataclasses.dataclass(frozen=True)
class _Survey:
    """A first pass over the annotations of a split."""

    items: int
    elements: int
    cut: int  # boxes that were cut at the photo's edges
    skipped: list[base.Skipped]
    doubts: list[str]
    digest: str  # of the annotations


def prepare(
    name: str,
    *,
    raw: str | os.PathLike,
    out: str | os.PathLike,
    exclude: Sequence[str | os.PathLike] = (),
    runner: str | None = None,
    beam_options: Sequence[str] = (),
    strict: bool = False,
    warn: Callable[[str], None] = lambda text: None,
) -> Iterator[dict[str, Any]]:
    """Prepares every split whose files are there and which is not finished yet.

    All annotations are read once before the first photo is, so that a damaged file costs no work.

    Args:
      name: of the corpus.
      raw: the folder of its published files.
      out: where `mmt/<name>/1.0.0` is made.
      exclude: prepared corpora, or files of ids, whose photos are kept out of splits for training.
      runner: one of Beam's, or LOCAL; None = Beam's DirectRunner for large corpora, else LOCAL.
      beam_options: options of Beam's pipeline, such as "direct_num_workers=4".
      strict: whether a difference from what is published is an error.
      warn: is told of each where it is none.

    Yields:
      The report of each split as it is finished, and of those that were. It lies beside the shards
      as `report-<split>.json`.

    Raises:
      UsageError: no such corpus, no files of it, a damaged one, a split that was prepared with
        other exclusions, or none of whose photos can be read.
    """
    corpus, source = corpora.get(name), base.Raw(raw)
    corpora.datasets_library()
    pictures.library()
    runner = runner or ("DirectRunner" if corpus.large else LOCAL)
    _check_runner(runner, beam_options)
    version = pathlib.Path(out) / "mmt" / name / corpora.VERSION
    if not (splits := corpus.splits(source)):
        raise UsageError(f"{raw} has no files of {name}; it must hold {corpus.wants}")
    if exclude and not any(map(base.training, splits)):
        raise UsageError(f"{name} has no split for training here; there is nothing to exclude from")
    exclusion = hashes.load(exclude) if exclude else None
    finished = _finished(version)
    for split in finished & set(splits):
        _check_same(version, split, exclusion)
    doubts = list(published.check_files(source, name))
    surveys = {split: _survey(corpus, source, split) for split in splits if split not in finished}
    doubts += [doubt for survey in surveys.values() for doubt in survey.doubts]
    if doubts and strict:
        raise UsageError(f"{'; '.join(doubts)} (--strict)")
    for doubt in doubts:
        warn(doubt)
    for split in splits:
        if split in surveys:
            part = pathlib.Path(out) / f".mmt-{name}-{split}"
            shards = None
            if runner != LOCAL:
                photos = surveys[split].items * len(corpus.pictures)
                shards = _shards(part, source, surveys[split], _sources(split, exclusion), photos)
            with _workplace(part, shards):
                _build(part, corpus, source, split, exclusion, shards, runner, beam_options)
                folder = part / "mmt" / name / corpora.VERSION
                _write_report(folder, corpus, split, surveys[split], exclusion, source)
                _adopt(folder, version, split)
        yield _report(version, split)


def _survey(corpus: base.Corpus, raw: base.Raw, split: str) -> _Survey:
    items = elements = cut = 0
    skipped, digest = [], hashlib.sha256()
    for entry in corpus.entries(raw, split):
        if isinstance(entry, base.Skipped):
            skipped.append(entry)
            continue
        items += 1
        elements += len(entry.fields[corpus.counts])
        cut += entry.cut
        fields = [np.asarray(field).tolist() for field in entry.fields.values()]
        digest.update(repr((entry.where, entry.pictures, fields)).encode("utf-8", "replace"))
    if not items:
        why = "; ".join(f"{number} × {reason}" for reason, number in base.reasons(skipped).items())
        raise UsageError(f"{raw.folder}: the split {split} has no example ({why or 'empty'})")
    doubts = list(published.check_counts(corpus, split, items, elements))
    return _Survey(items, elements, cut, skipped, doubts, digest.hexdigest())


def _shards(
    part: pathlib.Path, raw: base.Raw, survey: _Survey, sources: list[list[str]], photos: int
) -> tuple[pathlib.Path, int]:
    """Where Beam writes the shards of a split, and how many: the same for the same work."""
    number = -(-photos // _PHOTOS)
    work = json.dumps([str(raw.folder), survey.digest, sources, number])
    return part / hashlib.sha256(work.encode()).hexdigest()[:16], number


@contextlib.contextmanager
def _workplace(part: pathlib.Path, shards: tuple[pathlib.Path, int] | None) -> Iterator[None]:
    """A folder that holds nothing of earlier runs but their shards, and goes with the block.

    Where the block fails, the shards stay.
    """
    kept = shards[0] if shards else None

    def clear() -> None:
        for path in part.glob("*"):
            if path != kept:
                shutil.rmtree(path, ignore_errors=True)
        for path in (kept, part):
            with contextlib.suppress(OSError):  # it is not empty
                if path:
                    path.rmdir()

    clear()
    try:
        yield
    except BaseException:
        clear()
        raise
    shutil.rmtree(part, ignore_errors=True)


def _build(
    part: pathlib.Path,
    corpus: base.Corpus,
    raw: base.Raw,
    split: str,
    exclusion: hashes.Exclusion | None,
    shards: tuple[pathlib.Path, int] | None,
    runner: str,
    beam_options: Sequence[str],
) -> None:
    """Lets TFDS write the split, below `part`."""
    import tensorflow_datasets as tfds

    from mmt_jax.ingest.corpora import builder

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig()
    if runner != LOCAL:
        config = tfds.download.DownloadConfig(
            beam_runner=runner, beam_options=_pipeline_options(beam_options)
        )
    made = builder.Mmt(
        config=corpus.name,
        data_dir=part,
        raw=str(raw.folder),
        splits=[split],
        exclude=exclusion,
        shards=shards,
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS tells of a download, and of `part`
            made.download_and_prepare(download_config=config)
    except (OSError, RuntimeError) as error:  # array_record's of a full disk, Beam's of its workers
        *_, reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(
            f"the split {split} cannot be written below {part.parent} ({reason})"
        ) from None


def _check_runner(runner: str, beam_options: Sequence[str]) -> None:
    if runner == LOCAL:
        if beam_options:
            raise UsageError(
                "--beam_options are Beam's, without which this corpus is prepared; give "
                "--runner=DirectRunner too"
            )
        return
    try:
        from apache_beam.runners import create_runner
    except ImportError as error:
        raise UsageError(
            f"Apache Beam is missing here ({error}); run pip install 'mmt_jax[data]', or give "
            f"--runner={LOCAL}"
        ) from None
    try:
        create_runner(runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise UsageError(f"--runner={runner}: {error}") from None
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            _pipeline_options(beam_options).get_all_options()
    except SystemExit:  # of argparse, which has told all options and, last, what is wrong
        reason = said.getvalue().strip().rpartition("error: ")[2]
        raise UsageError(f"--beam_options: {reason}") from None


def _pipeline_options(options: Sequence[str]) -> Any:
    from apache_beam.options.pipeline_options import PipelineOptions

    return PipelineOptions([f"--{option.removeprefix('--')}" for option in options])


# ---- Reports, and splits that are finished -------------------------------------------------------


def _report_file(folder: pathlib.Path, split: str) -> pathlib.Path:
    return folder / f"report-{split}.json"


def _write_report(
    folder: pathlib.Path,
    corpus: base.Corpus,
    split: str,
    survey: _Survey,
    exclusion: hashes.Exclusion | None,
    raw: base.Raw,
) -> None:
    with open(examples.rejected(folder, split), "a", encoding="utf-8") as file:
        file.writelines(json.dumps(vars(entry)) + "\n" for entry in survey.skipped)
    with open(examples.rejected(folder, split), encoding="utf-8") as file:
        counts = base.reasons(base.Skipped(**json.loads(line)) for line in file)
    (info,) = corpora.document(folder / corpora.INFO)["splits"]
    report = {
        "corpus": corpus.name,
        "split": split,
        "raw": str(raw.folder),
        "examples": sum(map(int, info["shardLengths"])),
        "annotated": survey.items,
        corpus.counts: survey.elements,
        "boxes cut": survey.cut,
        "skipped": {key: value for key, value in counts.items() if key not in examples.REMOVED},
        "removed": {key: value for key, value in counts.items() if key in examples.REMOVED},
        "exclude": _sources(split, exclusion),
        "threshold": hashes.THRESHOLD,
        "doubts": survey.doubts,
    }
    _report_file(folder, split).write_text(json.dumps(report, indent=2), encoding="utf-8")


def _report(version: pathlib.Path, split: str) -> dict[str, Any]:
    return corpora.document(_report_file(version, split))


def _sources(split: str, exclusion: hashes.Exclusion | None) -> list[list[str]]:
    return (
        [list(source) for source in exclusion.sources] if exclusion and base.training(split) else []
    )


def _finished(version: pathlib.Path) -> set[str]:
    return set(corpora.splits(version)) if (version / corpora.INFO).is_file() else set()


def _check_same(version: pathlib.Path, split: str, exclusion: hashes.Exclusion | None) -> None:
    before = [digest for _, digest in _report(version, split)["exclude"]]
    if before != [digest for _, digest in _sources(split, exclusion)]:
        raise UsageError(
            f"{version} has a split {split} that was prepared with other --exclude; give another "
            f"--out, or remove that folder"
        )


def _adopt(folder: pathlib.Path, version: pathlib.Path, split: str) -> None:
    """Moves a finished split to its place; it counts once `dataset_info.json` names it."""
    version.mkdir(parents=True, exist_ok=True)
    for stale in version.glob(f"mmt-{split}.*"):  # of a move that was interrupted
        stale.unlink()
    info = corpora.document(folder / corpora.INFO)
    if (version / corpora.INFO).is_file():
        info["splits"] = corpora.document(version / corpora.INFO)["splits"] + info["splits"]
    (folder / corpora.INFO).write_text(json.dumps(info, indent=2), encoding="utf-8")
    others = [path for path in folder.iterdir() if path.name != corpora.INFO]
    for path in [*others, folder / corpora.INFO]:
        os.replace(path, version / path.name)
