"""The fenced blocks of README and of the pages in docs/: what they show is what tests run."""

import dataclasses
import pathlib
import re
import types

BLOCK = re.compile(
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """One block."""

    page: pathlib.Path
    line: int
    language: str
    text: str


def blocks(page):
    """All of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("language")) + 1
        yield Block(page, line, found["language"], found["text"])


def code(page, title):
    """The block whose first line is the comment `title`."""
    (found,) = [each.text for each in blocks(page) if each.text.startswith(f"# {title}\n")]
    return found


def module(page, path):
    """The block of that path, run as the module that it would be."""
    made = types.ModuleType(path.removesuffix(".py").replace("/", "."))
    exec(compile(code(page, path), path, "exec"), vars(made))
    return made
