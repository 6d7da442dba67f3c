"""Published task files, read entry by entry, so that the largest of them need little memory.

A UsageError names the file, and the line or entry of the fault. Any of them may be packed by gzip,
with `.gz` behind its name.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import itertools
import json
import os
import reprlib
import resource
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ijson

from mmt_jax.errors import UsageError, reading

MAX_LINE = 1 << 24  # bytes, for a line that has no end would fill memory
MAX_GROWTH = 1 << 26  # bytes of memory that an entry of JSON may take
MAX_DEPTH = 20_000  # brackets in brackets, which cost time by the square

_CHUNK = 1 << 20  # bytes of JSON at once; a string that spans n of them is read n times over
_PACKED = 200  # times its size is what a packed file may hold: text seldom goes past 20


def byte_lines(path: str | os.PathLike, longest: int = MAX_LINE) -> Iterator[tuple[str, bytes]]:
    """Place (`FILE:LINE`) and content of the lines of a file, without what ends them.

    Of a line of more than `longest` bytes only the beginning is there.
    """
    with contextlib.closing(_File(path)) as file:
        for number in itertools.count(1):
            if not (line := file.readline(longest)):
                return
            rest = line
            while not rest.endswith(b"\n") and (rest := file.readline(longest)):
                pass
            yield f"{path}:{number}", line.rstrip(b"\r\n")


def lines(path: str | os.PathLike) -> Iterator[tuple[str, str]]:
    """`byte_lines` of text, which must be UTF-8, in lines of at most `MAX_LINE` bytes."""
    for where, line in byte_lines(path, MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise UsageError(f"{where}: more than {MAX_LINE:,} bytes, which no text has")
        try:
            yield where, line.decode()
        except UnicodeDecodeError as error:
            raise UsageError(f"{where}: not UTF-8 text ({error})") from None


def json_lines(path: str | os.PathLike) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file that holds one a line, and where each is; empty lines are left out."""
    for where, line in lines(path):
        if line.strip():
            yield where, parsed(line, where)


def parsed(line: str | bytes, where: str) -> dict[str, Any]:
    """The JSON object that a line must hold."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON ({error}); it must hold one object a line") from None
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: not an object; it must hold one object a line")
    return entry


def json_entries(
    path: str | os.PathLike, key: str | None = None
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The objects within a JSON file, which is never held in memory as a whole.

    `key` is that under which the file's object has a list of them; None = the file is a list of
    them, or an object whose members they are. Where an entry is, its name (that of a member of an
    object; "" in a list), and the entry.
    """
    for number, (name, entry) in enumerate(_json(path, key)):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict):
            raise UsageError(f"{where}: not an object; see the task's published files")
        yield where, name, entry


def json_members(path: str | os.PathLike, keys: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    """The elements of some of the lists in a JSON file's object, one list after the other.

    Where an element is, the key of its list, and the element, which may be anything. Keys that the
    file lacks have no elements.
    """
    for key in keys:
        for number, (_, element) in enumerate(_json(path, key, needed=False)):
            yield f"{path}, {key}[{number}]", key, element


def is_list(path: str | os.PathLike) -> bool:
    """Whether a JSON file is a list."""
    with contextlib.closing(_File(path)) as file:
        return file.starts_with(b"[")


def _json(
    path: str | os.PathLike, key: str | None, *, needed: bool = True
) -> Iterator[tuple[str, Any]]:
    """Name and value of each entry."""
    number = 0
    with contextlib.closing(_File(path)) as file:
        if not file.starts_with(b"{" if key else (b"{", b"[")):
            raise UsageError(f"{path} is no JSON as published: it must begin with {{")
        if key is None and file.starts_with(b"{"):
            entries = ijson.kvitems(file, "", use_float=True, buf_size=_CHUNK)
        else:
            prefix = "item" if key is None else f"{key}.item"
            values = ijson.items(file, prefix, use_float=True, buf_size=_CHUNK)
            entries = (("", value) for value in values)
        try:
            for entry in entries:
                yield entry
                number += 1
                file.mark()
        except (ijson.JSONError, ValueError, RecursionError) as error:
            raise UsageError(_fault(path, number, error)) from None
    if key is not None and not number:
        _check_key(path, key, needed)


def _fault(path: str | os.PathLike, number: int, error: Exception) -> str:
    """What is wrong with a file that is no JSON: with the line, where it is no long one."""
    with contextlib.closing(_File(path)) as file, contextlib.suppress(ValueError, RecursionError):
        try:
            json.loads(file.read(MAX_LINE))
        except json.JSONDecodeError as found:
            return f"{path}:{found.lineno}: not JSON ({found.msg})"
    return f"{path}, entry {number}: not JSON ({' '.join(str(error).split())[:200]})"


def _check_key(path: str | os.PathLike, key: str, needed: bool) -> None:
    """Says why a file's object has nothing in the list `key`, unless the list is empty."""
    values: dict[str, str] = {}  # what the value of each name begins with
    name = ""
    with contextlib.closing(_File(path)) as file:
        for prefix, event, value in ijson.parse(file):
            if (prefix, event) == ("", "map_key"):
                name = value
            elif name and prefix == name:
                values.setdefault(name, event)
    if key not in values and needed:
        raise UsageError(f"{path} has no {key!r}; it has {', '.join(values) or 'nothing'}")
    if values.get(key, "start_array") != "start_array":
        raise UsageError(f"{path}: {key!r} is not a list, as it is published")


def field(entry: Any, name: str, kind: Any, where: str) -> Any:
    """A field of an entry, which must be there and of type `kind`."""
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: {reprlib.repr(entry)} is no object, it must have `{name}`")
    if name not in entry:
        raise UsageError(f"{where}: `{name}` is missing; there is {', '.join(entry) or 'nothing'}")
    value = entry[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        wanted = getattr(kind, "__name__", kind)  # such as int | float, which has no name
        raise UsageError(f"{where}: `{name}` must be {wanted}, not {reprlib.repr(value)}")
    return value


class _File:
    """A file, packed or not, that fills no memory."""

    def __init__(self, path: str | os.PathLike):
        self._path = path
        with reading(path):
            self._raw = open(path, "rb")  # noqa: SIM115, closed by `close`
        self.close = self._raw.close
        self._packed = os.fspath(path).endswith(".gz")
        self._file = gzip.GzipFile(fileobj=self._raw) if self._packed else self._raw
        self._left = _PACKED * os.fstat(self._raw.fileno()).st_size
        self.mark()
        if self.starts_with(codecs.BOM_UTF8):
            self.read(len(codecs.BOM_UTF8))

    def starts_with(self, text: bytes | tuple[bytes, ...]) -> bool:
        """Whether what comes next is `text`, white space apart."""
        return self._do(lambda: self._file.peek(1 << 10)).lstrip().startswith(text)

    def mark(self) -> None:
        """Says that an entry begins, whose memory and depth are measured."""
        self._before, self._depth = _memory(), 0

    def readline(self, size: int) -> bytes:
        """A line, or its first or next `size` bytes."""
        return self._do(lambda: self._file.readline(size), counted=True)

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes of what `mark` begins."""
        if (grown := _memory() - self._before) > MAX_GROWTH:
            raise UsageError(f"{self._path} has an entry that takes {grown:,} bytes of memory")
        data = self._do(lambda: self._file.read(size), counted=True)
        self._depth += data.count(b"[") + data.count(b"{") - data.count(b"]") - data.count(b"}")
        if self._depth > MAX_DEPTH:
            raise UsageError(f"{self._path} is not JSON as published: brackets do not end")
        return data

    def _do(self, work: Callable[[], bytes], *, counted: bool = False) -> bytes:
        try:
            data = work()
        except (OSError, EOFError, zlib.error) as error:
            what = "unpacked" if self._packed else "read"
            raise UsageError(f"{self._path} cannot be {what} ({error}); fetch it again") from None
        self._left -= len(data) * counted
        if self._packed and self._left < 0:
            raise UsageError(
                f"{self._path} unpacks to more than {_PACKED} times its size, which no text does; "
                f"it may be made to fill memory"
            )
        return data


def _memory() -> int:
    """Bytes that the process holds, in memory or swapped out."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[5]) * resource.getpagesize()
    except OSError:  # no Linux: the most that it has held in memory
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
