"""Elements of the arrays in a large JSON document, one by one: COCO's files exceed memory."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Collection, Iterator
from typing import Any, TextIO

from mmt_jax.config import UsageError

MAX_ELEMENT = 1 << 24  # characters

_CHUNK = 1 << 16
_SPACE = re.compile(r"[ \t\n\r]+")
_DECODER = json.JSONDecoder()


def elements(path: pathlib.Path, keys: Collection[str]) -> Iterator[tuple[str, int, Any]]:
    """Walks over a document that is one object.

    Args:
      path: the file, in UTF-8.
      keys: of the object, whose values must be arrays; other values are passed over.

    Yields:
      Key, number of the element from 0, and the element.

    Raises:
      UsageError: no such file, no JSON, truncated, or an element larger than `MAX_ELEMENT`.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = _Text(file, path)
            text.take("{")
            while not text.follows("}"):
                key = text.value()
                text.take(":")
                if text.peek() == "[":
                    for number, element in enumerate(_array(text)):
                        if key in keys:
                            yield key, number, element
                elif key in keys:
                    raise UsageError(f"{path}: {key} must be an array")
                else:
                    text.value()
                if not text.follows(","):
                    text.take("}")
                    return
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 ({error})") from None


def _array(text: _Text) -> Iterator[Any]:
    text.take("[")
    if text.follows("]"):
        return
    while True:
        yield text.value()
        if not text.follows(","):
            text.take("]")
            return


class _Text:
    """A window of the document that moves on as values are taken from it."""

    def __init__(self, file: TextIO, path: pathlib.Path):
        self._file = file
        self._path = path
        self._window = ""
        self._at = 0
        self._line = 1
        self._ended = False

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            match = _SPACE.match(self._window, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._window):
                return self._window[self._at]
            if self._ended:
                return ""
            self._more(_CHUNK)

    def follows(self, character: str) -> bool:
        """Takes the character if it comes next."""
        if self.peek() != character:
            return False
        self._at += 1
        return True

    def take(self, character: str) -> None:
        """Takes the character, which must come next."""
        if not self.follows(character):
            raise self._fault(f"{character!r} was expected")

    def value(self) -> Any:
        """Takes a whole value."""
        self.peek()
        size = _CHUNK
        while True:
            try:
                value, end = _DECODER.raw_decode(self._window, self._at)
                # A number may go on beyond the window, which `.`, `e` or `e+` may end.
                if end + 2 < len(self._window) or self._ended:
                    self._at = end
                    return value
            except RecursionError:
                raise self._fault("it is nested too deeply") from None
            except ValueError as error:
                if self._ended:
                    raise self._fault(str(error)) from None
            if len(self._window) - self._at > MAX_ELEMENT:
                raise self._fault("a value has no end")
            self._more(size)
            size *= 2

    def _more(self, size: int) -> None:
        self._line += self._window.count("\n", 0, self._at)
        read = self._file.read(size)
        self._window, self._at = self._window[self._at :] + read, 0
        self._ended = not read

    def _fault(self, what: str) -> UsageError:
        line = self._line + self._window.count("\n", 0, self._at)
        return UsageError(f"{self._path}:{line}: no JSON ({what}); the file is cut off or damaged")
