"""Prepares a corpus split by split: what is finished stays, and each shard of what is not."""

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

from mmt_jax.data import prepared
from mmt_jax.errors import UsageError, optional
from mmt_jax.ingest import corpora
from mmt_jax.ingest.corpora import base, examples, hashes, published
from mmt_jax.photos import pictures

LOCAL = "local"  # the runner that is none: this process alone, without Beam


@dataclasses.dataclass(frozen=True)
class _Survey:
    """A first pass over the annotations of a split."""

    items: int
    elements: int  # of the field that the corpus `counts`
    cut: int  # boxes that were cut at the edges of their photos
    skipped: list[base.Skipped]
    doubts: list[str]  # differences from what is published
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
    prepared.datasets_library()
    pictures.library()
    runner = runner or ("DirectRunner" if corpus.large else LOCAL)
    _check_runner(runner, beam_options)
    if not (splits := corpus.splits(source)):
        raise UsageError(f"{raw} has no files of {name}; it must hold {corpus.wants}")
    if exclude and not any(map(base.training, splits)):
        raise UsageError(f"{name} has no split for training here; there is nothing to exclude from")
    exclusion = hashes.load(exclude) if exclude else None
    job = _Job(corpus, source, pathlib.Path(out), exclusion, runner, beam_options)
    surveys = {split: job.survey(split) for split in splits if not job.finished(split)}
    doubts = list(published.check_files(source, name))
    doubts += [doubt for survey in surveys.values() for doubt in survey.doubts]
    if doubts and strict:
        raise UsageError(f"{'; '.join(doubts)} (--strict)")
    for doubt in doubts:
        warn(doubt)
    for split in splits:
        if split in surveys:
            job.prepare(split, surveys[split])
        yield job.report(split)


@dataclasses.dataclass(frozen=True)
class _Job:
    """What `prepare` was asked for."""

    corpus: base.Corpus
    raw: base.Raw
    out: pathlib.Path
    exclusion: hashes.Exclusion | None
    runner: str
    beam_options: Sequence[str]

    @property
    def version(self) -> pathlib.Path:
        return self.out / "mmt" / self.corpus.name / corpora.VERSION

    def sources(self, split: str) -> list[list[str]]:
        """What is kept out of a split, and a digest of it."""
        out = self.exclusion if base.training(split) else None
        return [list(source) for source in out.sources] if out else []

    def report(self, split: str) -> dict[str, Any]:
        return prepared.document(self.version / f"report-{split}.json")

    def finished(self, split: str) -> bool:
        """Whether a split is there, prepared with the same exclusions."""
        info = self.version / prepared.INFO
        if not info.is_file() or split not in corpora.splits(self.version):
            return False
        before = [digest for _, digest in self.report(split)["exclude"]]
        if before != [digest for _, digest in self.sources(split)]:
            raise UsageError(
                f"{self.version} has a split {split} that was prepared with other --exclude; give "
                f"another --out, or remove that folder"
            )
        return True

    def survey(self, split: str) -> _Survey:
        """Reads a split's annotations."""
        items = elements = cut = 0
        skipped, digest = [], hashlib.sha256()
        for entry in self.corpus.entries(self.raw, split):
            if isinstance(entry, base.Skipped):
                skipped.append(entry)
                continue
            items += 1
            elements += len(entry.fields[self.corpus.counts])
            cut += entry.cut
            fields = [np.asarray(field).tolist() for field in entry.fields.values()]
            digest.update(repr((entry.where, entry.pictures, fields)).encode("utf-8", "replace"))
        if not items:
            why = "; ".join(
                f"{count} × {reason}" for reason, count in base.reasons(skipped).items()
            )
            raise UsageError(
                f"{self.raw.folder}: the split {split} has no example ({why or 'empty'})"
            )
        doubts = list(published.check_counts(self.corpus, split, items, elements))
        return _Survey(items, elements, cut, skipped, doubts, digest.hexdigest())

    def prepare(self, split: str, survey: _Survey) -> None:
        """Writes a split beside its place, and moves it there."""
        part = self.out / f".mmt-{self.corpus.name}-{split}"
        work = [str(self.raw.folder), survey.digest, self.sources(split)]
        with _workplace(part, work) as shards:
            self._build(split, survey, part, shards)
            folder = part / "mmt" / self.corpus.name / corpora.VERSION
            self._write_report(split, survey, folder)
            self._adopt(split, folder)

    def _build(self, split: str, survey: _Survey, part: pathlib.Path, shards: pathlib.Path) -> None:
        """Lets TFDS write the split, below `part`."""
        import tensorflow_datasets as tfds

        from mmt_jax.ingest.corpora import builder
        from mmt_jax.ingest.corpora.shards import PHOTOS

        if not sys.stderr.isatty():
            tfds.disable_progress_bar()
        config = tfds.download.DownloadConfig()
        if self.runner != LOCAL:
            config.beam_runner = self.runner
            config.beam_options = _pipeline_options(self.beam_options)
        made = builder.Mmt(
            config=self.corpus.name,
            data_dir=part,
            raw=str(self.raw.folder),
            splits=[split],
            exclude=self.exclusion,
            parts=(shards, -(-survey.items * len(self.corpus.pictures) // PHOTOS)),
        )
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS tells of a download there
                made.download_and_prepare(download_config=config)
        except (OSError, RuntimeError) as error:  # array_record's of a full disk, Beam's of workers
            *_, reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UsageError(
                f"the split {split} cannot be written below {self.out} ({reason})"
            ) from None

    def _write_report(self, split: str, survey: _Survey, folder: pathlib.Path) -> None:
        with open(examples.rejected(folder, split), "a+", encoding="utf-8") as file:
            file.writelines(json.dumps(vars(entry)) + "\n" for entry in survey.skipped)
            file.seek(0)
            counts = base.reasons(base.Skipped(**json.loads(line)) for line in file)
        (info,) = prepared.document(folder / prepared.INFO)["splits"]
        report = {
            "corpus": self.corpus.name,
            "split": split,
            "raw": str(self.raw.folder),
            "examples": sum(map(int, info["shardLengths"])),
            "annotated": survey.items,
            self.corpus.counts: survey.elements,
            "boxes cut": survey.cut,
            "skipped": {key: n for key, n in counts.items() if key not in examples.REMOVED},
            "removed": {key: n for key, n in counts.items() if key in examples.REMOVED},
            "exclude": self.sources(split),
            "threshold": hashes.THRESHOLD,
            "doubts": survey.doubts,
        }
        path = folder / f"report-{split}.json"
        path.write_text(json.dumps(report, indent=2), encoding="utf-8")

    def _adopt(self, split: str, folder: pathlib.Path) -> None:
        """Moves a finished split to its place; it counts once `dataset_info.json` names it."""
        self.version.mkdir(parents=True, exist_ok=True)
        for stale in self.version.glob(f"mmt-{split}.*"):  # of a move that was interrupted
            stale.unlink()
        info = prepared.document(folder / prepared.INFO)
        if (self.version / prepared.INFO).is_file():
            info["splits"] = (
                prepared.document(self.version / prepared.INFO)["splits"] + info["splits"]
            )
        (folder / prepared.INFO).write_text(json.dumps(info, indent=2), encoding="utf-8")
        for path in sorted(folder.iterdir(), key=lambda path: path.name == prepared.INFO):
            os.replace(path, self.version / path.name)


@contextlib.contextmanager
def _workplace(part: pathlib.Path, work: list[Any]) -> Iterator[pathlib.Path]:
    """A folder for a split's shards in `part`, which goes with the block.

    Where the block fails, the shards that are whole stay for the same work, and nothing else.
    """
    shards = part / hashlib.sha256(json.dumps(work).encode()).hexdigest()[:16]

    def clear() -> None:
        for path in part.glob("*"):
            if path != shards:
                shutil.rmtree(path, ignore_errors=True)
        for path in (shards, part):
            with contextlib.suppress(OSError):  # it is not empty, or not there
                path.rmdir()

    clear()
    try:
        yield shards
    except BaseException:
        clear()
        raise
    shutil.rmtree(part, ignore_errors=True)


def _check_runner(runner: str, beam_options: Sequence[str]) -> None:
    if runner == LOCAL:
        if beam_options:
            raise UsageError(
                "--beam_options are Beam's, without which this corpus is prepared; give "
                "--runner=DirectRunner too"
            )
        return
    with optional(f"--runner={runner} needs Apache Beam (or give --runner={LOCAL})", "data"):
        from apache_beam.runners import create_runner
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
