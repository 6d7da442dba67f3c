"""Published files, read entry by entry: JSON, lines, packed files, and what damages them."""

import gzip
import json
import subprocess
import sys
import tracemalloc

import pytest

from mmt_jax import readers
from mmt_jax.errors import UsageError

NESTED = {"info": {"version": "2.0", "n": [1, {"x": "]}"}]}, "rows": [{"a": 12}, {"b": 'ü"]'}, {}]}


def write(folder, name, content):
    path = folder / name
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
@pytest.mark.parametrize("indent", [None, 2])
def test_entries_do_not_depend_on_where_chunks_end(tmp_path, monkeypatch, chunk, indent):
    monkeypatch.setattr(readers, "_CHUNK", chunk)
    path = write(tmp_path, "x.json", json.dumps(NESTED, indent=indent))
    assert [entry for _, _, entry in readers.json_entries(path, "rows")] == NESTED["rows"]
    path = write(tmp_path, "y.json", json.dumps({"k": {"v": 1.25}, "l": {"v": -30}}, indent=indent))
    named = {name: entry for _, name, entry in readers.json_entries(path)}
    assert named == {"k": {"v": 1.25}, "l": {"v": -30}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_members_of_several_lists(tmp_path, encoding):
    first = [12345, -1.5e10, 'Hündchen\n"', {"k": [[]]}, None, True, []]
    document = {"no": NESTED, "yes": first, "number": -1.5e3, "empty": [], "last": [1]}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document, ensure_ascii=False), encoding=encoding)
    found = list(readers.json_members(path, ("last", "empty", "absent", "yes")))
    expected = [(f"{path}, yes[{number}]", "yes", value) for number, value in enumerate(first)]
    assert found == [(f"{path}, last[0]", "last", 1), *expected]
    assert [type(value) for _, _, value in found[1:3]] == [int, float]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 5}', "'a' is not a list"),
        ('{"a" 1}', r"x\.json:1: not JSON"),
        ('{"a": [' + "[" * 100_000, "brackets do not end"),
        ('{"a": ["' + "x" * 5000, "not JSON"),
        ('{"a": [NaN]}', "entry 0: not JSON"),
    ],
)
def test_members_that_are_damaged(tmp_path, content, message):
    path = write(tmp_path, "x.json", content)
    with pytest.raises(UsageError, match=message):
        list(readers.json_members(path, ("a",)))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"n": "9" * 500}, r"x: `n` must be int \| float, not '9+\.\.\.9+'"),
        ({"m": 1}, "x: `n` is missing; there is m"),
        ([1], r"x: \[1\] is no object, it must have `n`"),
    ],
)
def test_fields_that_are_wrong_are_told_in_short(entry, message):
    with pytest.raises(UsageError, match=f"^{message}$"):
        readers.field(entry, "n", int | float, "x")


@pytest.mark.parametrize("empty", ["[]", "{}", " [ ] ", '{"rows": []}'])
def test_files_without_entries(tmp_path, empty):
    path = write(tmp_path, "x.json", empty)
    assert not list(readers.json_entries(path, "rows" if "rows" in empty else None))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('[{"a": 1},\n {"a": 2},\n {"a": nope}]', ":3: not JSON"),
        ('[{"a": 1},\n {"a": 2}\n', ":3: not JSON"),
        ("[1, 2]", "entry 0: not an object"),
        ("", "must begin with"),
    ],
)
def test_a_broken_file_is_told_with_its_line(tmp_path, content, part):
    path = write(tmp_path, "x.json", content)
    with pytest.raises(UsageError, match=str(path)) as error:
        list(readers.json_entries(path))
    assert part in str(error.value)


def test_a_syntax_error_is_told_before_the_rest_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_CHUNK", 100)
    path = write(tmp_path, "x.json", '[{"a": 1, oops' + " " * 10_000 + "\xff")
    with pytest.raises(UsageError, match="not JSON"):
        list(readers.json_entries(path))


def test_what_stands_before_the_key_does_not_fill_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "_CHUNK", 1 << 14)
    images = [{"id": number, "name": f"{number:012}.jpg"} for number in range(20_000)]
    path = write(tmp_path, "x.json", {"images": images, "annotations": [{"id": 7}]})
    tracemalloc.start()
    try:
        assert [entry for _, _, entry in readers.json_entries(path, "annotations")] == [{"id": 7}]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 4


def test_missing_files_keys_and_encodings(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.json cannot be read: No such file"):
        list(readers.json_entries(tmp_path / "gone.json"))
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        list(readers.lines(tmp_path))
    path = write(tmp_path, "x.json", {"questions": [], "info": 1})
    with pytest.raises(UsageError, match=r"has no 'rows'; it has questions, info"):
        list(readers.json_entries(path, "rows"))
    (tmp_path / "latin.tsv").write_bytes(b"one\ntw\xf6\n")
    with pytest.raises(UsageError, match=r"latin\.tsv:2: not UTF-8"):
        list(readers.lines(tmp_path / "latin.tsv"))


def test_lines_are_counted_where_they_are_empty_too(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbfone\r\n\nthree")
    found = [(where.rpartition(":")[2], line) for where, line in readers.lines(tmp_path / "x.txt")]
    assert found == [("1", "one"), ("2", ""), ("3", "three")]


@pytest.mark.parametrize("kind", ["line", "string", "list"])
def test_an_entry_without_end_is_refused_before_it_fills_memory(tmp_path, kind):
    """In a process of its own, whose memory is measured: the files unpack to 250 MB."""
    begin = {"line": b"", "string": b'{"a": ["', "list": b'[{"a": ['}[kind]
    unit = b"1," if kind == "list" else b"xy"
    name = "x.txt.gz" if kind == "line" else "x.json.gz"
    with gzip.open(tmp_path / name, "wb", compresslevel=1) as file:
        file.write(begin)
        for _ in range(60):
            file.write(unit * (1 << 21))
    code = f"""
import resource
from mmt_jax import readers
from mmt_jax.errors import UsageError
readers._PACKED = 1e9
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read = readers.lines if {kind == "line"} else readers.json_entries
    list(read({str(tmp_path / name)!r}))
except UsageError as error:
    print(error, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ("bytes, which no text has" if kind == "line" else "bytes of memory") in said.stdout
    assert int(said.stdout.split()[-1]) < 200_000  # kB


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b'{"a": 1}\n' * 50_000), "more than 200 times its size"),
        (gzip.compress(b'{"a": 1}\n')[:-12], "cannot be unpacked"),
        (b'{"a": 1}\n', "cannot be unpacked"),
    ],
    ids=["bomb", "truncated", "not gzip"],
)
@pytest.mark.parametrize("read", [readers.lines, readers.json_entries])
def test_packed_files_that_are_damaged_or_bombs(tmp_path, content, message, read):
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        list(read(tmp_path / "x.gz"))
