"""Pickles of strangers: what is read, what is refused, what damage does."""

import collections
import fractions
import io
import os
import pickle
import subprocess

import convert_samples as samples
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from mmt_jax.errors import UsageError
from mmt_jax.ingest import unpickle
from mmt_jax.ingest.features.convert import convert

ITEM = {
    "features": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "half": np.ones(3, np.float16),
    "names": np.array(["a", "bc"]),
    "objects": np.array([{"x": 1}, None], object),
    "scalar": np.float32(1.5),
    "count": np.int64(36),
    "bytes": b"\x00\xff",
    "nested": [(1, 2.5, True), {"s": {1, 2}}, frozenset("ab"), "Hündchen", 2**70],
    "ordered": collections.OrderedDict(a=1),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_containers(protocol):
    read = unpickle.loads(pickle.dumps(ITEM, protocol), "it")
    assert read.keys() == ITEM.keys()
    for name, value in ITEM.items():
        np.testing.assert_equal(read[name], value, name)
        assert isinstance(read[name], type(value)), name
        if isinstance(value, np.ndarray):
            assert read[name].dtype == value.dtype, name


def test_the_names_of_older_numpy():
    data = pickle.dumps(ITEM["features"], 2)
    assert b"numpy._core.multiarray" in data
    older = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    np.testing.assert_array_equal(unpickle.loads(older, "it"), ITEM["features"])


class Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Runs(os.system, "true"), "system"),
        (Runs(eval, "1"), "eval"),
        (Runs(bytearray, 10**12), "bytearray"),
        (Runs(getattr, "", "join"), "getattr"),
        (Runs(np.load, "x"), "load"),
        (Runs(np.frombuffer, b""), "frombuffer"),
        ([{"deep": (Runs(subprocess.run, "true"),)}], "run"),
        (fractions.Fraction(1, 2), "fractions.Fraction"),
        (np.ma.masked, "numpy.ma"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_anything_else_is_refused_by_name(value, name, protocol):
    with pytest.raises(UsageError, match=rf"photo\.pkl.*{name}.*may run any code"):
        unpickle.loads(pickle.dumps(value, protocol), "photo.pkl")


def npy(value, **options):
    file = io.BytesIO()
    np.save(file, value, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "value", [ITEM["features"], ITEM["fortran"], ITEM["names"], np.float32(3), np.zeros((0, 4))]
)
def test_npy_arrays(value):
    read = unpickle.load_array(io.BytesIO(npy(value)), "it")
    np.testing.assert_array_equal(read, value)
    assert read.dtype == value.dtype


def test_npy_of_objects():
    read = unpickle.load_array(io.BytesIO(npy(np.array({"bbox": ITEM["features"]}))), "it")
    np.testing.assert_array_equal(read.item()["bbox"], ITEM["features"])
    with pytest.raises(UsageError, match=r"asks for .*system"):
        unpickle.load_array(io.BytesIO(npy(np.array(Runs(os.system, "true"), object))), "it")


# ---- In the process that reads them --------------------------------------------------------------

FLAGS = pickle.dumps(np.ones(3, np.float32), 2)
END = b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"  # of a dtype: elsize, alignment, flags
DAMAGED = {
    "memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "bytearray": b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",
    "bytes": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"ab.",
    "array": pickle.dumps(Runs(np.ndarray, (10**12,), np.dtype("f8"))),
    "shape": pickle.dumps(np.zeros(3)).replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"),
    "objects": pickle.dumps(np.array([None] * 3)).replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"),
    "dtype": pickle.dumps(Runs(np.dtype, "V999999999")),
    "persistent": b"Pmine\n.",
    "extension": b"\x80\x02\x82\x01.",
    "digits": b"L" + b"9" * 5000 + b"L\n.",
    # numpy takes numbers for objects where the state of a dtype says so, and frees them.
    "flags": FLAGS.replace(END, END[:-2] + b"\x3ft"),
    "cut": pickle.dumps(ITEM)[:100],
    # Sets attributes of what was named before, here defaults of a function.
    "build": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n"
    b"N}X\x0c\x00\x00\x00__defaults__)s\x86b.",
    "array of lists": pickle.dumps([[]] * 10),
}


def test_damaged_pickles_and_bombs_cost_nothing_but_themselves(tmp_path):
    """Whatever they do to the process that reads them, the photos around them are read."""
    path = samples.mmt(tmp_path)
    assert END in FLAGS
    for number, (name, data) in enumerate(DAMAGED.items()):
        (path / f"{number}-{name}.pkl").write_bytes(data)
    summary = convert("mmt-pickle", path, tmp_path / "out")
    assert (summary.photos, summary.left) == (2, {"damaged": len(DAMAGED)})
    listed = summary.report.read_text()
    assert all(f"{name}.pkl" in listed for name in DAMAGED)


# Longer: `FUZZ=20000 pytest tests/test_unpickle.py`.
def test_any_damage_is_read_or_refused(tmp_path):
    """Mutated pickles, 200 in one folder."""
    rows = []

    @hypothesis.settings(
        max_examples=int(os.environ.get("FUZZ", "200")),
        derandomize=True,
        deadline=None,
        database=None,
    )
    @hypothesis.given(
        data=st.sampled_from([pickle.dumps(ITEM, protocol) for protocol in (0, 2, 5)]),
        at=st.integers(0, 2000),
        cut=st.integers(0, 8),
        insert=st.binary(max_size=8),
    )
    def collect(data, at, cut, insert):
        at %= len(data)
        rows.append(data[:at] + insert + data[at + cut :])

    collect()
    path = samples.mmt(tmp_path)
    for number, data in enumerate(rows):
        (path / f"damaged-{number}.pkl").write_bytes(data)
    summary = convert("mmt-pickle", path, tmp_path / "out")
    assert (summary.photos, summary.left) == (2, {"damaged": len(rows)})
