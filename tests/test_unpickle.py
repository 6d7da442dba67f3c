"""Pickles of strangers: what is read, what is refused, what damage does."""

import collections
import contextlib
import fractions
import io
import os
import pickle
import resource
import subprocess

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from mmt_jax.errors import UsageError
from mmt_jax.ingest import unpickle

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


BOMBS = {
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
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_nothing_is_allocated_for_a_number_alone(bomb):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match="it "):
        unpickle.loads(BOMBS[bomb], "it")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_the_flags_of_a_dtype_are_not_believed():
    """Found by the fuzz: numpy takes f32 for objects where the state says so, and frees them."""
    data = pickle.dumps(np.ones(3, np.float32), 2)
    end = b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"  # elsize, alignment, flags
    assert end in data
    read = unpickle.loads(data.replace(end, end[:-2] + b"\x3ft"), "it")
    assert read.dtype == np.float32
    assert not read.dtype.hasobject
    assert read.tolist() == [1, 1, 1]


def test_a_pickle_changes_nothing_of_ours():
    """BUILD sets attributes of what was named before, here defaults of a function."""
    build = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nN}X\x0c\x00\x00\x00__defaults__)s\x86b."
    with contextlib.suppress(UsageError):
        unpickle.loads(build, "it")
    again = unpickle.loads(pickle.dumps(ITEM["features"]), "it")
    np.testing.assert_array_equal(again, ITEM["features"])
    assert unpickle._reconstruct.__defaults__ is None


# Longer: `FUZZ=20000 pytest tests/test_unpickle.py`.
@hypothesis.settings(
    max_examples=int(os.environ.get("FUZZ", "200")), derandomize=True, deadline=None, database=None
)
@hypothesis.given(
    data=st.sampled_from([pickle.dumps(ITEM, protocol) for protocol in (0, 2, 5)]),
    at=st.integers(0, 2000),
    cut=st.integers(0, 8),
    insert=st.binary(max_size=8),
)
def test_damaged_pickles_are_read_or_refused(data, at, cut, insert):
    at %= len(data)
    with contextlib.suppress(UsageError):
        unpickle.loads(data[:at] + insert + data[at + cut :], "it")


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


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it cannot be read"),
        (b"\x89HDF", "it cannot be read"),
        (npy(ITEM["features"])[:-1], "it cannot be read"),
        (npy(np.zeros(3)).replace(b"(3,), ", b"(3" + b"9" * 12 + b",),"), "announces"),
    ],
)
def test_damaged_npy(data, message):
    with pytest.raises(UsageError, match=message):
        unpickle.load_array(io.BytesIO(data), "it")


def test_files(tmp_path):
    path = tmp_path / "photo.pkl"
    path.write_bytes(pickle.dumps([1]))
    assert unpickle.load(path) == [1]
    os.truncate(path, unpickle.MAX_BYTES + 1)
    with pytest.raises(UsageError, match=r"photo\.pkl has 268,435,457 bytes"):
        unpickle.load(path)
    with pytest.raises(UsageError, match=r"none\.pkl cannot be read"):
        unpickle.load(tmp_path / "none.pkl")
