"""Published task files, read entry by entry, so that the largest of them need little memory.

Errors name the file, and the line and entry of the fault. Any of them may be packed by gzip, with
`.gz` behind its name.
"""

from __future__ import annotations

import collections
import gzip
import io
import json
import os
import reprlib
import zlib
from collections.abc import Collection, Iterator
from typing import Any, TextIO

from mmt_jax.errors import UsageError

MAX_VALUE = 1 << 24  # characters of an entry, of which one that has no end would fill memory

_CHUNK = 1 << 20  # characters read at once
_DECODER = json.JSONDecoder()
_LITERAL = 16  # longer than any number or word of JSON that a chunk's end may cut in two
_PACKED = 200  # times its size is what a packed file may hold: text seldom goes past 20


def lines(path: str | os.PathLike) -> Iterator[tuple[str, str]]:
    """The lines of a text file: where each is (`FILE:LINE`), and its text without the line end.

    Raises:
      UsageError: there is no such file, or it is not UTF-8.
    """
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UsageError(f"{path}:{number}: not UTF-8 text ({error})") from None
            yield f"{path}:{number}", text.rstrip("\r\n")


def json_lines(path: str | os.PathLike) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file that holds one a line, and where each is; empty lines are passed over.

    Raises:
      UsageError: as `lines`, or a line is no JSON object.
    """
    for where, line in lines(path):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"{where}: not JSON ({error}); it must hold one object a line"
            ) from None
        if not isinstance(entry, dict):
            raise UsageError(f"{where}: not an object; it must hold one object a line")
        yield where, entry


def json_entries(
    path: str | os.PathLike, key: str | None = None
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The objects within a JSON file, which is never held in memory as a whole.

    Args:
      path: of the file.
      key: under which the file's object holds them; None = they are the file's own members.

    Yields:
      Where an entry is, its name (that of a member of an object; "" in a list), and the entry.

    Raises:
      UsageError: there is no such file, it is not JSON, has no `key`, or an entry is no object.
    """
    with open_text(path) as file:
        reader = _Reader(file, path)
        if key is not None:
            _find(reader, key, path)
        for where, name, entry in reader.entries():
            if not isinstance(entry, dict):
                raise UsageError(f"{where}: not an object; see the task's published files")
            yield where, name, entry


def _find(reader: _Reader, key: str, path: str | os.PathLike) -> None:
    """Goes to the value of `key` in the file's object."""
    names = []
    for name in reader.names():
        if name == key:
            return
        names.append(name)
        reader.skip()
    raise UsageError(f"{path} has no {key!r}; it has {', '.join(names) or 'nothing'}")


def json_members(path: str | os.PathLike, keys: Collection[str]) -> Iterator[tuple[str, str, Any]]:
    """The elements of some of the lists in a JSON file's object, in one pass.

    Yields:
      Where an element is, the key of its list, and the element, which may be anything.

    Raises:
      UsageError: as `json_entries`, but for keys that the file lacks and elements that are no
        objects.
    """
    with open_text(path) as file:
        reader = _Reader(file, path)
        for key in reader.names():
            if key not in keys:
                reader.skip()
                continue
            for where, _, element in reader.entries(f"{key}[{{}}]"):
                yield where, key, element


def field(entry: Any, name: str, kind: Any, where: str) -> Any:
    """A field of an entry that must be there.

    Raises:
      UsageError: it is missing or not of type `kind`.
    """
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: {reprlib.repr(entry)} is no object, it must have `{name}`")
    if name not in entry:
        raise UsageError(f"{where}: `{name}` is missing; there is {', '.join(entry) or 'nothing'}")
    value = entry[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        wanted = getattr(kind, "__name__", kind)  # such as int | float, which has no name
        raise UsageError(f"{where}: `{name}` must be {wanted}, not {reprlib.repr(value)}")
    return value


def open_text(path: str | os.PathLike) -> TextIO:
    """Opens a text file, packed or not; reading it may raise UnicodeDecodeError.

    Raises:
      UsageError: there is no such file. While reading: the packed file is damaged, or unpacks to
        more than text does.
    """
    return io.TextIOWrapper(_open(path), encoding="utf-8-sig", newline="\n")


def _open(path: str | os.PathLike) -> io.BufferedReader:
    try:
        file = open(path, "rb")  # noqa: SIM115, closed with what is returned
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if os.fspath(path).endswith(".gz"):
        return io.BufferedReader(_Unpacked(path, file))
    return file


class _Unpacked(io.RawIOBase):
    """What a gzip file holds, as it is read."""

    def __init__(self, path: str | os.PathLike, file: io.BufferedReader):
        self._path, self._packed = path, file
        self._file = gzip.GzipFile(fileobj=file)
        self._left = _PACKED * os.fstat(file.fileno()).st_size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            number = self._file.readinto(buffer)
        except (OSError, EOFError, zlib.error) as error:
            raise UsageError(f"{self._path} cannot be unpacked ({error}); fetch it again") from None
        self._left -= number
        if self._left < 0:
            raise UsageError(
                f"{self._path} unpacks to more than {_PACKED} times its size, which no text does; "
                f"it may be made to fill memory"
            )
        return number

    def close(self) -> None:
        self._packed.close()
        super().close()


class _Reader:
    """A JSON text of which only the part that is being read is in memory."""

    def __init__(self, file: TextIO, path: str | os.PathLike):
        self._file, self._path = file, path
        self._text, self._at = "", 0
        self._line, self._counted = 1, 0  # the line on which character `_counted` stands

    def names(self) -> Iterator[str]:
        """The names in the file's object; the value of each is to be taken before the next."""
        self._take("{")
        if self._peek() == "}":
            return
        while True:
            yield self._name()
            if self._take(",}") == "}":
                return

    def skip(self) -> None:
        """Drops the value that begins here, of which no more than an entry is in memory."""
        if self._peek() in ("[", "{"):
            collections.deque(self.entries(), maxlen=0)
        else:
            self._value()

    def entries(self, called: str = "entry {}") -> Iterator[tuple[str, str, Any]]:
        """Where, name and value of each entry of the list or object that begins here."""
        end = {"[": "]", "{": "}"}[self._take("[{")]
        if self._peek() == end:
            self._take(end)
            return
        number = 0
        while True:
            self._peek()
            where, name = f"{self._here()}, {called.format(number)}", ""
            if end == "}":
                name = self._name()
            yield where, name, self._value()
            if self._take("," + end) == end:
                return
            number += 1

    def _peek(self) -> str:
        """The next character that is no white space; "" at the end of the file."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _take(self, wanted: str) -> str:
        found = self._peek()
        if not found or found not in wanted:
            raise UsageError(
                f"{self._here()}: not JSON as published: here is {found or 'the end of the file'}, "
                f"it must be {' or '.join(wanted)}"
            )
        self._at += 1
        return found

    def _name(self) -> str:
        """The name of an object's member, and the colon behind it."""
        self._take('"')
        self._at -= 1
        name = self._value()
        self._take(":")
        return name

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = len(self._text) - error.pos < _LITERAL or "Unterminated" in error.msg
                if len(self._text) - self._at > MAX_VALUE:
                    raise UsageError(f"{self._here()}: not JSON (a value has no end)") from None
                if not (cut and self._more()):
                    self._at = error.pos
                    raise UsageError(f"{self._here()}: not JSON ({error.msg})") from None
            except (ValueError, RecursionError) as error:  # endless digits, or brackets in brackets
                raise UsageError(f"{self._here()}: not JSON ({error})") from None
            else:
                size = end - self._at
                # A number might go on behind the chunk, which `.`, `e` or `e+` may end.
                if end + 2 < len(self._text) or not self._more():
                    self._at += size
                    return value

    def _more(self) -> bool:
        """Reads on, and drops what has been read."""
        here = self._here()
        try:
            chunk = self._file.read(max(_CHUNK, len(self._text) - self._at))
        except UnicodeDecodeError as error:
            raise UsageError(f"{here}: not UTF-8 text ({error})") from None
        self._text, self._at, self._counted = self._text[self._at :] + chunk, 0, 0
        return bool(chunk)

    def _here(self) -> str:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return f"{self._path}:{self._line}"
