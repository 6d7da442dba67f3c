"""The fenced blocks of README and of the pages in docs/: what they show is what tests run."""

import dataclasses
import pathlib
import re
import types

BLOCK = re.compile(
    r"(?:^<!-- needs: (?P<needs>.+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """One block: `needs` has what readers have and tests do not; lines with any are not run."""

    page: pathlib.Path
    line: int
    language: str
    text: str
    needs: tuple[str, ...]


def blocks(page):
    """All of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        needs = tuple((found["needs"] or "").split(", ")) if found["needs"] else ()
        line = text.count("\n", 0, found.start("language")) + 1
        yield Block(page, line, found["language"], found["text"], needs)


def code(page, title):
    """The block whose first line is the comment `title`."""
    (found,) = [each.text for each in blocks(page) if each.text.startswith(f"# {title}\n")]
    return found


def module(page, path):
    """The block of that path, run as the module that it would be."""
    made = types.ModuleType(path.removesuffix(".py").replace("/", "."))
    exec(compile(code(page, path), path, "exec"), vars(made))
    return made
