"""What an entry may do to the process that reads it, and what becomes of the others."""

import contextlib
import os

import numpy as np
import pytest

from mmt_jax.errors import UsageError
from mmt_jax.ingest import guarded


def entries(path, what):
    """Entries that do to the process what strangers' files may."""

    def ends():
        os.abort()

    def hangs():
        while True:
            pass

    def grows():
        return [bytes(1 << 20) for _ in range(1 << 12)]

    def large():
        return bytes(guarded.LARGEST + 1)

    def writes():
        with open(path / "file", "wb") as file:
            file.write(bytes(1 << 22))

    guarded.SECONDS = 1
    yield "first", lambda: np.arange(3)
    yield "bad", {f.__name__: f for f in (ends, hangs, grows, large, writes)}[what]
    print("what a library says is no message")
    yield "last", lambda: 7
    if what == "ends":
        os.abort()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("ends", "bad cannot be read .reading it ended the process"),
        ("hangs", "bad cannot be read .it takes more than"),
        ("grows", "bad needs more memory than a photo takes"),
        ("large", r"bytes are there; a photo has 268,435,456 at most"),
        ("writes", "bad cannot be read .*File too large"),
    ],
)
def test_an_entry_that_ends_hangs_or_fills_its_reader_costs_itself(
    tmp_path, monkeypatch, what, message
):
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__), prepend=os.pathsep)
    found = guarded.read(entries, tmp_path, what)
    where, first = next(found)
    assert (where, first.tolist()) == ("first", [0, 1, 2])
    where, fault = next(found)
    assert (where, type(fault)) == ("bad", UsageError)
    with pytest.raises(UsageError, match=message):
        raise fault
    assert next(found) == ("last", 7)
    with contextlib.ExitStack() as stack:
        if what == "ends":  # between two entries: what follows is not known
            stack.enter_context(pytest.raises(UsageError, match=r"cannot be read .*copy it again"))
        assert not list(found)
