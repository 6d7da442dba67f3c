"""What a folder of photos holds, in the layouts that people have; docs/photos.md lists them.

A split is what the name of a file of captions (`captions_train2017.json`), of a shard
(`val-00000.tar`), or else of a photo's folder says as a word, else "train"; Karpathy's file has
three.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import json
import pathlib
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator

from mmt_jax import photo as naming
from mmt_jax.data import captions, parquet
from mmt_jax.errors import UsageError, reading, reason
from mmt_jax.photos import pictures
from mmt_jax.text.base import prepare

_SPLIT = re.compile(r"(?<![a-z])((?:train|val|validation|dev|test)(?:20\d\d)?)(?![a-z0-9])")
_CAPTIONS = (".jsonl", ".json", ".token", ".txt", ".tsv")


@dataclasses.dataclass(frozen=True)
class Found:
    """A photo.

    Attributes:
      image_id: as captions, or else its name, say.
      name: its path within the folder, that of its shard before it.
      captions: none where it has none.
      file: that changes where it does.
      read: the bytes of its own file; a UsageError where they cannot be read.
    """

    image_id: int
    name: str
    captions: tuple[str, ...]
    file: pathlib.Path
    read: Callable[[], bytes]


@dataclasses.dataclass(frozen=True)
class Left:
    """Something that is left out: what kind of thing, how many, and why the first of them."""

    kind: str
    why: str
    count: int = 1


Entries = Iterator[Found | Left]


def splits(
    folder: pathlib.Path, given: pathlib.Path | None = None
) -> dict[str, list[pathlib.Path]]:
    """The splits of a folder, each with its shards or files of captions.

    Args:
      folder: that holds photos or shards.
      given: the file of captions; None = it is looked for.

    Raises:
      UsageError: there is no such folder, or neither photo nor shard in it.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    found: dict[str, list[pathlib.Path]] = {}
    if given is None and (shards := _shards(folder)):
        for path in shards:
            found.setdefault(_split(path.relative_to(folder).as_posix()), []).append(path)
        return found
    for path in [given] if given else _caption_files(folder):
        for name in captions.splits(path) or (_split(path.name),):
            found.setdefault(name, []).append(path)
    if not found:
        for path in pictures.find(folder):
            found.setdefault(_split(path.relative_to(folder).as_posix()), [])
    return found


def _shards(folder: pathlib.Path) -> list[pathlib.Path]:
    """Tar files, or else parquet files, which beside pictures only tell about these."""
    if found := sorted(folder.rglob("*.tar")):
        return found
    found = sorted(folder.rglob("*.parquet"))
    paths = folder.rglob("*") if found else ()
    return [] if any(path.suffix.lower() in naming.PICTURES for path in paths) else found


def entries(folder: pathlib.Path, split: str, files: list[pathlib.Path], *, only: bool) -> Entries:
    """The photos of a split, and what is left out of it; arguments as `splits` has them.

    If it is the `only` split of the folder, photos without captions are of it too.
    """
    if files and (read := {".tar": _tar, ".parquet": _parquet}.get(files[0].suffix)):
        for path in files:
            yield from read(folder, path)
    elif files:
        yield from _captioned(folder, split, files, only)
    else:
        for path in pictures.find(folder):
            name = path.relative_to(folder).as_posix()
            if _split(name) == split:
                beside = path.with_suffix(".txt")
                said = _lines(beside.read_bytes()) if beside.is_file() else ()
                yield _checked(of_file(path, naming.image_id(name), name, said))


def _split(name: str) -> str:
    match = _SPLIT.search(name.lower())
    return match[1] if match else "train"


def _caption_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Files of captions of the first place that has some."""
    for place in (folder, folder / "annotations", folder.parent):
        paths = sorted(place.glob("*.*"))
        beside = {path.stem for path in paths if path.suffix.lower() in naming.PICTURES}
        named = [path for path in paths if path.suffix in _CAPTIONS and path.stem not in beside]
        if found := [path for path in named if captions.splits(path) is not None]:
            return found
    return []


def _captioned(folder: pathlib.Path, split: str, files: list[pathlib.Path], only: bool) -> Entries:
    of: dict[int, tuple[str, ...]] = {}
    names: dict[int, int | str] = {}
    for path in files:
        known = captions.read(path, split)
        for number, said in known.of.items():
            of[number] = of.get(number, ()) + said
        names |= known.names
        if known.faults:
            yield Left("damaged captions", known.faults[0][1], len(known.faults))
    taken = set()
    for path in pictures.find(folder):
        name = path.relative_to(folder).as_posix()
        parts = [folder.resolve().name, *name.split("/")]
        ids = [naming.image_id("/".join(parts[i:])) for i in (1, 0, *range(2, len(parts)))]
        number = next((each for each in ids if each in of), None)
        if number is not None or only:
            number = ids[0] if number is None else number
            taken.add(number)
            yield _checked(of_file(path, number, name, of.get(number, ())))
    if lacking := [number for number in of if number not in taken]:
        why = f"photo {naming.stem(str(names[lacking[0]]))} of {files[0]} is not in {folder}"
        yield Left("photos that only the captions name", why, len(lacking))


def _tar(folder: pathlib.Path, path: pathlib.Path) -> Entries:
    shard = path.relative_to(folder).with_suffix("").as_posix()

    def key(member: tarfile.TarInfo) -> str:
        head, slash, last = member.name.rpartition("/")
        return head + slash + last.partition(".")[0]

    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as members:
            plain = (each for each in members if each.isreg() and not each.issparse())
            for name, own in itertools.groupby(plain, key):
                yield from _sample(path, f"{shard}/{name}", list(own))
    except (tarfile.TarError, OSError) as error:
        yield Left("damaged shards", f"{path} is not whole ({reason(error)})")


def _sample(path: pathlib.Path, name: str, members: Iterable[tarfile.TarInfo]) -> Entries:
    """A photo of a shard, if its members make one."""
    of = {"." + each.name.rpartition(".")[2].lower(): each for each in members}
    photo = next((of[ending] for ending in naming.PICTURES if ending in of), None)
    if photo is None:
        yield Left("members without photo", f"{path}: {name} has no picture")
        return
    said: tuple[str, ...] = ()
    with open(path, "rb") as file:
        for ending in (".txt", ".json"):
            if ending in of and not said:
                file.seek(of[ending].offset_data)
                said = _lines(file.read(of[ending].size), ending)
    number, full = naming.image_id(name), name + pathlib.PurePosixPath(photo.name).suffix
    yield _checked(of_file(path, number, full, said, photo.offset_data, photo.size))


def _parquet(folder: pathlib.Path, path: pathlib.Path) -> Entries:
    shard = path.relative_to(folder).with_suffix("").as_posix()
    parquet.library()  # whose want is no damage
    try:
        for group, row, key, said, photo in parquet.rows(path):
            if photo is None:
                yield Left("members without photo", f"{path}: {key} has no picture")
                continue
            number, name = naming.image_id(f"{shard}/{key}"), f"{shard}/{key}.jpg"
            read = functools.partial(parquet.photo, path, group, row)
            yield _checked(Found(number, name, _texts(said), path, read), photo)
    except UsageError as error:
        yield Left("damaged shards", str(error))


def _lines(data: bytes, ending: str = ".txt") -> tuple[str, ...]:
    """The captions of a text, one a line, or of a JSON object; () where there is none."""
    try:
        text: object = data.decode()
        if ending == ".json":
            held = json.loads(data)
            text = held.get("caption") or held.get("text") if isinstance(held, dict) else None
    except ValueError:  # UnicodeDecodeError too
        return ()
    return _texts(text)


def _texts(text: object) -> tuple[str, ...]:
    """The captions among the lines of a text, or in a list."""
    said = text.splitlines() if isinstance(text, str) else text
    said = said if isinstance(said, list) else []
    return tuple(line.strip() for line in said if isinstance(line, str) and prepare(line))


def _checked(found: Found, held: bytes | None = None) -> Found | Left:
    """A photo, if the head and the end of its file are those of one; `held` are its bytes."""
    try:
        data = found.read() if held is None else held
        pictures.check(io.BytesIO(data), f"{found.file.parent / found.name}")
    except UsageError as error:
        return Left("damaged photos", str(error))
    return found


def of_file(
    path: pathlib.Path,
    number: int,
    name: str,
    said: tuple[str, ...],
    start: int = 0,
    size: int = -1,
) -> Found:
    """A photo whose bytes are a file, or `size` of them from `start` on."""
    return Found(number, name, said, path, functools.partial(_bytes, path, start, size))


def _bytes(path: pathlib.Path, start: int, size: int) -> bytes:
    with reading(path), open(path, "rb") as file:
        file.seek(start)
        return file.read(size)
