"""What README and the pages of docs/ say of models, commands and files is so."""

import pathlib
import re
import runpy
import shlex

import pytest

from mmt_jax.cli import list as list_command
from mmt_jax.cli import main
from mmt_jax.nn.kinds import KINDS
from mmt_jax.study.claims import CLAIMS

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def read(page):
    return page.read_text(encoding="utf-8")


def commands(text):
    """Of the lines that begin with `mmt`, those that a backslash continues put together."""
    text = text.replace("\\\n", " ")
    return re.findall(r"^mmt (?!.*…)(.+?)(?:\s+#.*)?$", text, flags=re.MULTILINE)


COMMANDS = sorted({line for page in PAGES for line in commands(read(page))})


def test_the_readme_is_read_at_once():
    lines = read(ROOT / "README.md").splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if len(line) > 120] == []


def test_the_table_has_every_model_as_the_list_command_has_it():
    cells = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in read(ROOT / "docs" / "models.md").splitlines()
        if line.startswith("| `") and " × " in line
    ]

    def yes(value):
        return "yes" if value else "no"

    expected = [
        [
            row["tag"],
            row["corpus"],
            f"{row['itm']} {row['candidates'] or ''}".strip(),
            yes(row["mrm"]),
            yes(row["mlm"]),
            f"{row['heads']} × {row['head_dim']}",
            str(row["layers"]),
            row["attention"],
            row["notes"],
        ]
        for row in list_command.rows()
    ]
    assert cells == expected
    assert len(cells) == 57


def test_the_drawing_has_every_kind_of_attention_as_the_table_has_it():
    drawn = (ROOT / "docs" / "figures" / "kinds.svg").read_text()
    made = runpy.run_path(str(ROOT / "docs" / "kinds.py"))
    assert drawn == made["drawing"](), "python docs/kinds.py > docs/figures/kinds.svg"
    panels = re.findall(r'<g id="(\w+)".*?</g>', drawn, flags=re.DOTALL)
    assert panels == [*KINDS]
    (words,) = re.findall(r'<g id="language_query" .*?</g>', drawn, flags=re.DOTALL)
    read = re.findall(r'href="#([\w-]+)"[^>]*fill="#3f51b5"', words)
    assert read == ["text-text", "text-image"]
    assert made["FILLS"]["image"] not in words


def test_the_study_page_has_every_claim():
    table = re.findall(r"^\| (C\d+) \| (.+) \| (.+) \|$", read(ROOT / "docs" / "study.md"), re.M)
    assert table == [(claim.id, claim.statement, claim.source) for claim in CLAIMS.values()]


def test_a_page_shows_every_command():
    shown = {line.partition(" -")[0] for line in commands(read(ROOT / "docs" / "commands.md"))}
    for name in main.commands():
        assert any(f"{line} ".startswith(f"{name} ") for line in shown), name


@pytest.mark.parametrize("line", COMMANDS)
def test_the_flags_of_each_command_exist(line, capsys):
    arguments = shlex.split(line)
    assert main.main([arg for arg in arguments if not arg.startswith("-")] + ["--help"]) == 0
    usage = capsys.readouterr().out
    for flag in arguments:
        if flag.startswith("--"):
            shown = "--config" if flag.startswith("--config.") else flag.split("=")[0]
            assert shown in usage


@pytest.mark.parametrize("page", [page for page in PAGES if "](" in read(page)], ids=str)
def test_linked_files_are_there(page):
    links = [link for link in re.findall(r"\]\(([\w./-]+)\)", read(page))]
    assert [link for link in links if not (page.parent / link).exists()] == []
