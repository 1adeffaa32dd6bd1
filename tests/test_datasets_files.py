"""The readers of files: each format read back exactly, and each way of being broken answered by one clear line."""

from __future__ import annotations

import bz2
import cProfile
import csv
import gzip
import io
import lzma
import math
import re
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from gpuprop import datasets
from gpuprop.datasets import checks
from gpuprop.datasets.idx import parse_idx, read_idx
from gpuprop.datasets.npy import read_array
from gpuprop.errors import DataError, printable

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    """Write IDX as its specification says, independently of the reader."""
    code = IDX_CODES[array.dtype.str[1:]]
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, code, array.ndim]) + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


def npy_bytes(array: np.ndarray[Any, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def npy_header(text: str, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\x01\x00" else "<I", len(text)) + text.encode()


@contextmanager
def nothing_but_data_errors() -> Iterator[None]:
    """Let the block succeed or raise a ``DataError`` of one line; anything else fails the test."""
    try:
        yield
    except DataError as error:
        if "\n" in str(error):
            raise AssertionError(f"not one line: {error}") from error


def refused(path: Path | str, message: str, function: Callable[..., Any] = datasets.load, **options: Any) -> None:
    """Assert that reading raises one line that begins with the source and holds the message (a pattern)."""
    with pytest.raises(DataError) as caught:
        function(path, **options)
    text = str(caught.value)
    assert text.startswith(printable(str(path)))
    assert str(path) not in text[1:], text  # not one error wrapped in another
    assert re.search(message, text), text
    assert "\n" not in text


# Files as such


def test_missing_and_impossible_files(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "data.doc").write_text("text")
    refused(tmp_path / "none.csv", "no such file")
    refused(tmp_path / "empty.csv", "is empty")
    refused(tmp_path / "folder.csv", "is a folder")
    refused(tmp_path / "data.doc", r"unknown kind '\.doc', expected \.csv, .*IDX")
    refused("mnits", "no such file or data set; did you mean 'mnist'")
    refused("x" * 5000, "no such file or data set")
    refused("/dev/null", "is not a regular file")
    refused("a\0b.csv", "cannot be read")
    refused("x" * 5000 + ".npy", "cannot be read")


def test_a_file_larger_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / name for name in ("a.csv", "a-idx2.gz", "a.npy", "a.npz", "a.parquet")]
    X, y = np.ones((60, 2)), np.arange(60) % 2
    pd.DataFrame(X, columns=["a", "b"]).to_csv(paths[0], index=False)
    paths[1].write_bytes(gzip.compress(idx_bytes(X)))
    np.save(paths[2], X)
    np.savez(paths[3], X=X, y=y)
    pd.DataFrame(X, columns=["a", "b"]).to_parquet(paths[4])
    monkeypatch.setattr(checks, "physical_memory", lambda: 100)
    for path in paths:
        refused(path, "expected at most this machine's 100 bytes")


# IDX


@given(
    array=st.sampled_from(sorted(IDX_CODES)).flatmap(
        lambda code: arrays(np.dtype(code), array_shapes(min_dims=1, max_dims=4, max_side=5))
    ),
    packed=st.booleans(),
)
@in_one_folder
def test_idx_round_trip(array: np.ndarray[Any, Any], packed: bool, tmp_path: Path) -> None:
    path = tmp_path / ("a.idx.gz" if packed else "a.idx")
    path.write_bytes(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
    read = read_idx(path)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("packed", [False, True])
def test_idx_cut_anywhere_is_refused(tmp_path: Path, packed: bool) -> None:
    data = idx_bytes(np.arange(12, dtype=np.int16).reshape(2, 3, 2))
    data = gzip.compress(data) if packed else data
    path = tmp_path / ("a.idx.gz" if packed else "a.idx")
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refused(path, "is empty|ends at offset|truncated|end too early|not a valid gzip", read_idx)


@given(data=st.data())
@in_one_folder
def test_idx_with_wrong_bytes_never_escapes(data: st.DataObject, tmp_path: Path) -> None:
    packed = data.draw(st.booleans())
    content = idx_bytes(np.arange(6, dtype=np.uint8).reshape(2, 3))
    content = gzip.compress(content) if packed else content
    position = data.draw(st.integers(0, len(content) - 1))
    content = content[:position] + bytes([data.draw(st.integers(0, 255))]) + content[position + 1 :]
    path = tmp_path / ("a.idx.gz" if packed else "a.idx")
    path.write_bytes(content)
    with nothing_but_data_errors():
        read_idx(path)


HEADER = bytes([0, 0, 8, 1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG" + bytes(20), r"got bytes 89 50 at offset 0, expected 00 00"),
        (bytes([0, 0, 7, 1]), r"type code 07 at offset 2, expected one of 08, 09"),
        (bytes([0, 0, 8, 0]), r"0 dimensions at offset 3"),
        (bytes([0, 0, 8, 3, 0, 0, 0, 1]), r"ends at offset 8, expected 3 dimension sizes \(12 bytes at offset 4\)"),
        (bytes([0, 0, 8, 255]) + b"\xff" * 1020, r"expected at least one row|truncated"),
        (HEADER + struct.pack(">I", 0), r"declares 0 bytes"),
        (HEADER + struct.pack(">I", 5) + b"abc", r"declares 5 bytes \(5 of uint8\) from offset 8, expected at most 3"),
        (HEADER + struct.pack(">I", 2) + b"abc", r"goes on after offset 10"),
        (HEADER + b"\xff\xff\xff\xff" + b"abc", r"declares 4294967295 bytes"),
    ],
)
def test_idx_with_a_false_header(tmp_path: Path, content: bytes, message: str) -> None:
    for name, data in (("a.idx", content), ("a.idx.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(data)
        # compressed, a file that is too short shows at its end instead of by its size
        refused(tmp_path / name, message if name == "a.idx" else f"{message}|truncated", read_idx)


def test_gz_that_promises_too_much_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.idx.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + b"\x00\x01\x00\x00" * 3))
    refused(path, r"declares 281474976710656 bytes \(65536 x 65536 x 65536 of uint8\)", read_idx)


def test_gzip_is_seen_from_the_bytes(tmp_path: Path) -> None:
    array = np.arange(4, dtype=np.uint8).reshape(2, 2)
    for name, data in (("a.idx.gz", idx_bytes(array)), ("a.idx", gzip.compress(idx_bytes(array)))):
        (tmp_path / name).write_bytes(data)
        np.testing.assert_array_equal(read_idx(tmp_path / name), array)


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> Path:
    path.write_bytes(gzip.compress(idx_bytes(array)) if path.suffix == ".gz" else idx_bytes(array))
    return path


def test_idx_images_with_labels(tmp_path: Path) -> None:
    images = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
    path = write_idx(tmp_path / "some-images-idx3-ubyte.gz", images)
    labels = write_idx(tmp_path / "other.idx", np.array([7, 3, 7, 5], np.uint8))
    refused(path, "got no file of labels")
    data = datasets.load(path, labels=labels)
    assert (data.name, data.classes, data.y.tolist()) == ("some-images-idx3-ubyte", [3, 5, 7], [2, 0, 2, 1])
    assert data.X.dtype == np.uint8
    np.testing.assert_array_equal(data.X, images.reshape(4, 6))
    np.testing.assert_array_equal(datasets.load_features(path, n_features=6), data.X)
    X, y = datasets.load_test(path, classes=[5, 7, 3], n_features=6, labels=labels)
    np.testing.assert_array_equal(X, data.X)
    assert y.tolist() == [1, 2, 1, 0]
    write_idx(tmp_path / "some-labels-idx1-ubyte.gz", np.array([1, 2, 1, 2], np.uint8))
    assert datasets.load(path).classes == [1, 2]


def test_idx_files_that_do_not_belong_together(tmp_path: Path) -> None:
    images = write_idx(tmp_path / "x.idx", np.ones((4, 2), np.uint8))
    labels = write_idx(tmp_path / "y.idx", np.ones(3, np.uint8))
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (images, {"labels": labels}, rf"{labels}: got 3 labels at offset 4, expected 4"),
        (images, {"labels": images}, r"got 2 dimensions at offset 3, expected 1"),
        (labels, {"labels": labels}, r"is it the labels"),
        (images, {"labels": tmp_path / "none"}, r"no such file"),
        (images, {"target": 0}, r"no target column to choose"),
    ]
    for source, arguments, message in cases:
        with pytest.raises(DataError, match=message):
            datasets.load(source, **arguments)
    refused(images, "got 2 features, expected 3", datasets.load_features, n_features=3)


def test_idx_with_nan(tmp_path: Path) -> None:
    path = write_idx(tmp_path / "x.idx", np.array([[1, 2], [3, np.nan]]))
    refused(path, "row 2, element 2: got a missing value or NaN", datasets.load_features)


# NPY


@given(
    array=st.one_of(
        *(
            arrays(np.dtype(d), array_shapes(max_dims=3, max_side=5))
            for d in ("?", "i1", ">i4", "u8", "f2", "<f4", ">f8")
        ),
        arrays(np.dtype("<U3"), 4),
    ),
    fortran=st.booleans(),
    version=st.sampled_from([(1, 0), (2, 0)]),
)
@settings(deadline=None)
def test_npy_round_trip(array: np.ndarray[Any, Any], fortran: bool, version: tuple[int, int]) -> None:
    data = npy_bytes(np.asfortranarray(array) if fortran else array, version=version)
    read = read_array(io.BytesIO(data), len(data), "a.npy")
    assert read.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(read, array)


def test_npy_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = npy_bytes(np.arange(6.0).reshape(3, 2))
    path = tmp_path / "a.npy"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refused(path, "at offset|from offset|is empty")


@given(position=st.integers(0, 127), byte=st.integers(0, 255))
@settings(deadline=None)
def test_npy_with_a_wrong_byte_never_escapes(position: int, byte: int) -> None:
    data = bytearray(npy_bytes(np.arange(6.0).reshape(3, 2)))
    data[position] = byte
    with nothing_but_data_errors():
        read_array(io.BytesIO(data), len(data), "a.npy")


def described(descr: str = "'<f8'", shape: str = "(2, 2)") -> bytes:
    return npy_header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04" + bytes(30), r"got bytes 50 4b 03 04 00 00 at offset 0, expected 93"),
        (b"\x93NUMPY\x09\x00" + bytes(30), r"NPY version 09 00 at offset 6"),
        (npy_header("{}" * 3000, b"\x02\x00")[:12] + b"\xff" * 20, r"header of 6000 bytes at offset 8"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100), r"header of 4294967295 bytes at offset 8"),
        (npy_header("(" * 9000), r"no valid NPY header at offset 10"),
        (npy_header("__import__('os').abort()"), r"no valid NPY header at offset 10"),
        (described("'|O'") + bytes(32), r"dtype object, expected bools"),
        (described("[('a', '<f8')]") + bytes(32), r"expected bools"),
        (described("'<c16'") + bytes(64), r"dtype complex128"),
        (described("'<M8[s]'") + bytes(32), r"dtype datetime64"),
        (described("'<U0'", "(1000000000000000, 2)"), r"expected bools"),
        (
            described(shape="(1000000000000000,)") + bytes(32),
            r"8000000000000000 bytes from offset \d+, got 32 bytes: trunc",
        ),
        (described(shape="(4611686018427387904, 4)") + bytes(32), r"truncated"),
        (described(shape="(-2, -2)") + bytes(32), r"declares shape -2, -2"),
        (described(shape="(0, 2)"), r"declares shape 0, 2, expected at least one row"),
        (described() + bytes(33), r"32 bytes from offset \d+, got 33 bytes: oversized"),
    ],
)
def test_npy_with_a_false_header(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    refused(path, message)


def test_npy_is_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([[{}, 1]], object), allow_pickle=True)
    refused(path, "dtype object")


def test_npy_columns_are_features_and_target(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    table = np.array([[0.5, 2, 7], [1.5, 3, 8], [2.5, 2, 9]])
    np.save(path, table)
    data = datasets.load(path)
    assert (data.classes, data.task, data.feature_names) == ([7, 8, 9], "classification", None)
    np.testing.assert_array_equal(data.X, table[:, :2])
    data = datasets.load(path, target="1")
    assert (data.classes, data.y.tolist()) == ([2, 3], [0, 1, 0])
    np.testing.assert_array_equal(data.X, table[:, [0, 2]])
    data = datasets.load(path, target=-3)
    assert (data.task, data.y.tolist()) == ("regression", [0.5, 1.5, 2.5])
    np.testing.assert_array_equal(datasets.load_features(path, n_features=3), table)
    X, y = datasets.load_test(path, classes=[9, 8, 7], n_features=2)
    np.testing.assert_array_equal(X, table[:, :2])
    assert y.tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.ones((2, 3)), {"target": 3}, r"target index 3, expected -3 to 2"),
        (np.ones((2, 3)), {"target": "-4"}, r"target index -4, expected -3 to 2"),
        (np.ones((2, 3)), {"target": "a"}, r"columns have no names"),
        (np.ones((2, 1)), {}, r"got 1 column\(s\), expected at least one feature beside the target"),
        (np.ones(3), {}, r"1 dimension\(s\), expected 2"),
        (np.ones((2, 2, 2)), {}, r"NPZ file with arrays X and y"),
        (np.array([[1.0, np.inf], [2.0, 3.0]]), {}, r"row 1, column 2: got inf, expected a finite number"),
        (np.array([["a", "b"]]), {}, r"holds text"),
        (np.ones((2, 2)), {"labels": "y.idx"}, r"labels file, which belongs to IDX"),
    ],
)
def test_npy_with_the_wrong_columns(tmp_path: Path, array: np.ndarray[Any, Any], options: Any, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    refused(tmp_path / "a.npy", message, **options)


def test_npy_features_of_the_wrong_shape(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.ones(4))
    refused(path, r"shape \(4,\), expected at least 2 dimensions", datasets.load_features)
    np.save(path, np.ones((4, 3, 2)))
    assert datasets.load_features(path, n_features=6).shape == (4, 6)
    refused(path, "got 6 features, expected 7", datasets.load_features, n_features=7)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("?", "u1"), ("u1", "u1"), ("i1", "f4"), ("u2", "f4"), ("f2", "f4"), (">f4", "f4"), ("i4", "f8"), ("f8", "f8")],
)
def test_features_keep_their_values(tmp_path: Path, dtype: str, expected: str) -> None:
    array = np.array([[0, 1], [1, 1], [1, 0]], dtype)
    if array.dtype.kind != "b":
        array[2, 1] = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else np.finfo(array.dtype).max
    np.save(tmp_path / "a.npy", np.asfortranarray(array))
    X = datasets.load_features(tmp_path / "a.npy")
    assert X.dtype == np.dtype(expected)
    assert X.flags.c_contiguous
    np.testing.assert_array_equal(X, array)


# NPZ


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "a.npz"
    X = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
    save(path, X=X, y=np.array(["b", "a", "b", "c"]), more=np.array([{}], object))
    data = datasets.load(path)
    assert (data.classes, data.y.tolist(), data.X.dtype.name) == (["a", "b", "c"], [1, 0, 1, 2], "uint8")
    np.testing.assert_array_equal(data.X, X.reshape(4, 6))
    np.testing.assert_array_equal(datasets.load_features(path), data.X)


def test_npz_targets_of_several_shapes(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, X=np.ones((3, 2)), y=np.array([[0], [1], [0]]))
    assert datasets.load(path).y.shape == (3,)
    np.savez(path, X=np.ones((3, 2)), y=np.arange(6.0).reshape(3, 2))
    data = datasets.load(path)
    assert (data.task, data.y.shape) == ("regression", (3, 2))


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        (
            {"x_train": np.ones((2, 2))},
            {},
            r"holds the arrays 'x_train', expected X and y: no array 'y'.*--arrays X=NAME",
        ),
        ({"a": np.ones((2, 2))}, {}, r"holds the arrays 'a', expected X and y: no array 'X'"),
        ({"X": np.ones((2, 2))}, {}, r"no array 'y'"),
        ({"X": np.ones((2, 2)), "y": np.ones(3)}, {}, r"y of shape \(3,\), expected 2 rows"),
        ({"X": np.ones((2, 2)), "y": np.float64(3)}, {}, r"y of shape \(\)"),
        ({"X": np.ones(2), "y": np.ones(2)}, {}, r"expected at least 2 dimensions"),
        ({"X": np.array([["a"]]), "y": np.ones(1)}, {}, r"holds text"),
        ({"X": np.array([[1.0], [np.nan]]), "y": np.ones(2)}, {}, r"row 2, column 1: got a missing value or NaN"),
        ({"X": np.ones((2, 2)), "y": np.array([{}, 1], object)}, {}, r"dtype object"),
        ({"X": np.ones((2, 2)), "y": np.arange(2)}, {"target": 0}, r"no target column to choose"),
    ],
)
def test_npz_with_the_wrong_arrays(tmp_path: Path, arrays: dict[str, Any], options: Any, message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    refused(tmp_path / "a.npz", message, **options)


def test_npz_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=np.arange(6.0).reshape(3, 2), y=np.arange(3))
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refused(path, "is empty|not a valid NPZ")


@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
@in_one_folder
def test_npz_with_a_wrong_byte_never_escapes(position: int, byte: int, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, X=np.arange(6.0).reshape(3, 2), y=np.arange(3))
    data = bytearray(path.read_bytes())
    data[position % len(data)] = byte
    path.write_bytes(data)
    with nothing_but_data_errors():
        datasets.load(path)


def test_npz_bombs(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", described(shape="(1000000000000000,)") + bytes(10**6))
    refused(path, r"truncated")  # the array's header promises more than the archive does
    data = bytearray(path.read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(data)
    refused(path, r"declares 4294967294 bytes in \d+ packed ones at offset 0, more than 1032 to 1")
    np.savez_compressed(path, X=np.zeros((10**6, 3)), y=np.zeros(10**6, int))
    refused(
        path, r"bytes unpack to 32000256 or more, expected at most 20000000;.*max_unpacked=32", max_unpacked=2 * 10**7
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("X.npy", npy_bytes(np.ones((2, 2))))
    refused(path, r"unknown compression")


def test_compressed_data_are_bounded_before_they_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file holds one to ten megabytes and may unpack a tenth of one: two are not taken in any case."""
    from pyarrow import Table, parquet

    rows = b"1,2,3,4,5,6,7,8,9,0\n" * 150_000
    files: dict[str, bytes] = {
        "a.csv.gz": gzip.compress(rows * 3, 1),
        "a.csv.xz": lzma.compress(rows, preset=0),
        "a.csv.bz2": bz2.compress(rows, 1),
        "line.csv.gz": gzip.compress(b"1" * 10**7, 1),
        "a-idx3-ubyte.gz": gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 10, 1000, 1000) + bytes(10**7), 1),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a.csv", rows)
    np.savez_compressed(tmp_path / "a.npz", X=np.zeros((10**4, 125)), y=np.zeros(10**4))
    cells = ["x" * 10**4] * 1000  # one text of which a code stands in each row
    parquet.write_table(Table.from_pydict({"t": cells, "y": range(1000)}), tmp_path / "a.parquet")
    parquet.write_table(Table.from_pydict({"n": [1] * 10**5, "y": [0] * 10**5}), tmp_path / "n.parquet")
    for name in (*files, "a.zip", "a.npz", "a.parquet", "n.parquet"):
        tracemalloc.start()
        refused(tmp_path / name, r"is compressed, and its \d+ bytes unpack to \d+ or more", max_unpacked=10**5)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * 10**6, f"{name}: {peak} bytes"
    monkeypatch.setenv("GPUPROP_MAX_UNPACKED", "200KB")
    refused(tmp_path / "a.csv.gz", r"expected at most 200000;.*GPUPROP_MAX_UNPACKED=\d")
    monkeypatch.setenv("GPUPROP_MAX_UNPACKED", "200 MB")
    assert datasets.load_features(tmp_path / "a.npz").shape == (10**4, 125)
    monkeypatch.setenv("GPUPROP_MAX_UNPACKED", "much")
    with pytest.raises(DataError, match="GPUPROP_MAX_UNPACKED: got 'much', expected a number of bytes"):
        datasets.load(tmp_path / "a.npz")


# CSV


def written(tmp_path: Path, text: str | bytes, name: str = "a.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


IRIS = "sepal,petal,wild,kind\n5.1,3,True,setosa\n4.9,2,False,virginica\n6.2,1,True,setosa\n"


def test_csv_with_names(tmp_path: Path) -> None:
    data = datasets.load(written(tmp_path, IRIS))
    assert (data.name, data.feature_names, data.target_name) == ("a", ("sepal", "petal", "wild"), "kind")
    assert (data.classes, data.y.tolist(), data.X.dtype.name) == (["setosa", "virginica"], [0, 1, 0], "float64")
    np.testing.assert_array_equal(data.X, [[5.1, 3, 1], [4.9, 2, 0], [6.2, 1, 1]])


@pytest.mark.parametrize(
    ("target", "classes", "y"),
    [
        ("wild", [False, True], [1, 0, 1]),
        (2, [False, True], [1, 0, 1]),
        ("petal", [1, 2, 3], [2, 1, 0]),
        ("-3", [1, 2, 3], [2, 1, 0]),
    ],
)
def test_csv_target(tmp_path: Path, target: str | int, classes: list[Any], y: list[int]) -> None:
    text = "\n".join(line.rpartition(",")[0] + ",1.5" for line in IRIS.splitlines()).replace("1.5", "kind", 1)
    data = datasets.load(written(tmp_path, text), target=target)
    assert (data.classes, data.y.tolist()) == (classes, y)


@pytest.mark.parametrize("separator", [",", ";", "\t", ", "])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.TXT", "a.data"])
def test_csv_without_names(tmp_path: Path, separator: str, name: str) -> None:
    text = "5.1,3,setosa\r\n\r\n4.9,2,virginica\r\n".replace(",", separator)
    data = datasets.load(written(tmp_path, text, name))
    assert (data.feature_names, data.target_name, data.classes) == (None, None, ["setosa", "virginica"])
    np.testing.assert_array_equal(data.X, [[5.1, 3], [4.9, 2]])


@pytest.mark.parametrize(
    ("text", "has_header"),
    [
        ("a,b\n1,2\n3,4\n", True),
        ("1,2\n3,4\n", False),
        ("0,1,2\n5,6,7\n7,8,9\n", True),  # as pandas names nameless columns
        ("id,2019,2020\n1,2,3\n4,5,6\n", True),
        ("5.1,setosa\n4.9,virginica\n", False),
        ('"5.1","x, y"\n"4.9","z"\n', False),
        ("\ufeffa,b\n1,2\n3,4\n", True),
        ("\n\n  \na,b\n1,2\n3,4\n", True),
    ],
)
def test_csv_header_is_found(tmp_path: Path, text: str, has_header: bool) -> None:
    path = written(tmp_path, text)
    assert (datasets.load(path).feature_names is not None) == has_header


def test_csv_header_can_be_said(tmp_path: Path) -> None:
    path = written(tmp_path, "2019,2020\n1,2\n3,4\n")
    assert datasets.load(path, header=True).feature_names == ("2019",)
    assert len(datasets.load(path).X) == 3


def test_csv_with_quotes_line_breaks_and_names_for_missing_values(tmp_path: Path) -> None:
    data = datasets.load(written(tmp_path, 'a,"the\nkind"\n1,"x\ny"\n2,NA\n3,None\n'))
    assert (data.target_name, data.classes) == ("the\nkind", ["NA", "None", "x\ny"])


@given(
    header=st.lists(st.text('a,;"\n 1', min_size=1).map("n{}".format), min_size=2, max_size=2, unique_by=str.strip),
    labels=st.lists(st.text('a,;"\n 1é').map("k{}".format), min_size=2, max_size=8).filter(lambda x: len(set(x)) > 1),
    line_end=st.sampled_from(["\n", "\r\n", "\n\n"]),
)
@in_one_folder
def test_csv_loses_no_row(tmp_path: Path, header: list[str], labels: list[str], line_end: str) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator=line_end, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerows([header, *enumerate(labels)])
    first_line = stream.getvalue().partition("\n")[0]
    assume(first_line.count(",") >= first_line.count(";"))  # else the separator would be taken for another
    data = datasets.load(written(tmp_path, stream.getvalue()))
    assert (data.feature_names, data.target_name) == ((header[0].strip(),), header[1].strip())
    assert data.X[:, 0].tolist() == list(range(len(labels)))
    assert data.classes == sorted(set(labels))
    assert [data.classes[i] for i in data.y] == labels


@given(arrays(np.float64, (3, 2), elements=st.floats(-1e300, 1e300, allow_subnormal=False)))
@in_one_folder
def test_csv_numbers_are_those_of_the_file(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    rows = "".join(f"{a!r},{b!r},t\n" for a, b in array.tolist())
    X = datasets.load_features(written(tmp_path, "a,b,t\n" + rows), feature_names=["a", "b"], target="t")
    np.testing.assert_allclose(X, array, rtol=1e-15)  # pandas before 3.1 reads some numbers to their neighbour


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", r"line 3 has 1 fields, expected 2"),
        ("a,b\n1,2\n3,4,5\n", r"line 3 has 3 fields, expected 2"),
        ("a,b\n1,2,\n3,4\n", r"line 2 has 3 fields, expected 2"),
        ("a,b\n1,2,5\n", r"line 2 has 3 fields, expected 2"),
        ("a,b,c\n1,2\n", r"line 2 has 2 fields, expected 3"),
        ("a,b\n\n1,x\n,y\n", r"line 4, column 'a': got a missing value or NaN, expected a finite number"),
        (",5,x\n1,6,y\n", r"line 1, column 1: got a missing value"),  # a gap is no name
        ("a,b\n1,x\nnan,y\n", r"line 3, column 'a': got ('nan'|a missing value or NaN), expected a"),
        ("a,b\n1,x\n-inf,y\n", r"line 3, column 'a': got -inf"),
        ("a,b\n1,x\n1e999,y\n", r"line 3, column 'a': got (inf|'1e999'), expected a"),
        ("a,b\n1,x\n2,\n", r"line 3, column 'b': got a missing value, expected a target"),
        ("a,b,c\n1,red,x\n2,blue,y\n", r"line 2, column 'b': got 'red', expected a number"),
        ("1,red,x\n2,blue,y\n", r"line 1, column 2: got 'red', expected a number"),
        ('a,b\n"1\n2",x\n3,y\n', r"line 3, column 'a': got '1\\n2', expected a number"),
        ("a,a,c\n1,2,x\n", r"got several columns named 'a'"),
        ("a,b\n", r"no rows of data"),
        ("\n\n", r"holds only blank lines"),
        ("a\n1\n2\n", r"got 1 column\(s\), expected at least one feature"),
        ("a,b\n1,x\n2,x\n", r"got only one class, 'x'"),
        ('a,b\n1,"x\n', r"line 2|not a valid CSV"),
        (b"a,b\n1,\xe9\n2,y\n", r"byte e9 at offset 6, expected UTF-8"),
        ("a,b\n1,x\n".encode("utf-16"), r"byte ff at offset 0, expected UTF-8"),
        (b"\x00\x01\x02\xff\xfe", r"offset 3, expected UTF-8"),
        (b"\x93NUMPY", r"offset 0, expected UTF-8"),
    ],
)
def test_csv_with_something_wrong(tmp_path: Path, text: str | bytes, message: str) -> None:
    refused(written(tmp_path, text), message)


def test_csv_encoding_error_far_into_the_file(tmp_path: Path) -> None:
    start = b"a,b\n" + b"1,xxxxxxx\n" * 100_000
    refused(written(tmp_path, start + b"1,\xff\n"), rf"byte ff at offset {len(start) + 2}")


def test_csv_wrong_target(tmp_path: Path) -> None:
    path = written(tmp_path, IRIS)
    refused(
        path, r"has no column 'knd'; did you mean 'kind'\? \(columns: 'sepal', 'petal', 'wild', 'kind'\)", target="knd"
    )
    refused(path, r"target index 4, expected -4 to 3", target=4)
    refused(path, r"text targets such as 'setosa'", task="regression")
    refused(path, r"labels file", labels="y.idx")


@given(st.binary(min_size=1, max_size=60))
@in_one_folder
def test_csv_of_arbitrary_bytes_never_escapes(tmp_path: Path, content: bytes) -> None:
    with nothing_but_data_errors():
        datasets.load(written(tmp_path, content))


@given(st.text(alphabet='01.e-,;\t"\n\r xa', min_size=1, max_size=60))
@in_one_folder
def test_csv_of_arbitrary_fields_never_escapes(tmp_path: Path, text: str) -> None:
    with nothing_but_data_errors():
        data = datasets.load(written(tmp_path, text))
        assert np.isfinite(data.X).all()
        assert len(data.X) == len(data.y) > 0


def test_csv_integers_beyond_64_bits_are_numbers(tmp_path: Path) -> None:
    data = datasets.load(written(tmp_path, "a,b\n100000000000000000000000,x\n1,y\n"))
    assert data.X[:, 0].tolist() == [1e23, 1.0]


# Files for a model that exists


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    train = datasets.load(written(tmp_path, IRIS))
    path = written(tmp_path, "kind,wild,petal,sepal\nvirginica,True,7,8\n", "b.csv")
    X, y = datasets.load_test(path, classes=train.classes, n_features=3, feature_names=train.feature_names)
    np.testing.assert_array_equal(X, [[8, 7, 1]])
    assert y.tolist() == [1]
    X = datasets.load_features(path, n_features=3, feature_names=train.feature_names, target="kind")
    np.testing.assert_array_equal(X, [[8, 7, 1]])


def test_columns_without_names_are_found_by_position(tmp_path: Path) -> None:
    path = written(tmp_path, "1,2,3\n4,5,6\n")
    X, y = datasets.load_test(path, classes=None, n_features=2, feature_names=["a", "b"])
    np.testing.assert_array_equal(X, [[1, 2], [4, 5]])
    assert y.tolist() == [3.0, 6.0]
    np.testing.assert_array_equal(datasets.load_features(path, feature_names=["a", "b", "c"]), [[1, 2, 3], [4, 5, 6]])
    named = written(tmp_path, "u,v\n1,2\n", "b.csv")
    np.testing.assert_array_equal(datasets.load_features(named, n_features=2), [[1, 2]])


def test_columns_that_do_not_fit_a_model(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b,kind\n1,2,x\n3,4,z\n")
    test, features = datasets.load_test, datasets.load_features
    refused(path, r"line 3: got class 'z', expected one of 'x', 'y'", test, classes=["x", "y"])
    refused(path, r"has no column 'aa'; did you mean 'a'", features, feature_names=["aa", "b"], target="kind")
    refused(path, r"unexpected columns 'kind'; remove them", features, feature_names=["a", "b"])
    refused(
        path, r"columns beside the features: 'b', 'kind', expected exactly one", test, classes=None, feature_names=["a"]
    )
    refused(path, r"beside the features: none", test, classes=None, feature_names=["a", "b", "kind"])
    refused(
        path, r"column 'a' is a feature, not a target", test, classes=None, feature_names=["a", "b", "kind"], target="a"
    )
    refused(path, r"got 2 features, expected 5", test, classes=None, n_features=5)
    refused(path, r"column 'kind': got 'x', expected a number", features, n_features=3)


def test_an_empty_target_does_not_hinder_predictions(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b,kind\n1,2,\n3,4,\n")
    X = datasets.load_features(path, feature_names=["b", "a"], target="kind")
    np.testing.assert_array_equal(X, [[2, 1], [4, 3]])


# Parquet


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    frame = pd.DataFrame({"a": [1.5, 2.5, 3.5], "b": [True, False, True], "kind": ["x", "y", "x"]})
    frame.to_parquet(path)
    data = datasets.load(path)
    assert (data.feature_names, data.target_name, data.classes) == (("a", "b"), "kind", ["x", "y"])
    np.testing.assert_array_equal(data.X, [[1.5, 1], [2.5, 0], [3.5, 1]])
    X = datasets.load_features(path, feature_names=["b", "a"], target="kind")
    np.testing.assert_array_equal(X, data.X[:, ::-1])


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"a": [1.0, None], "y": [0, 1]}, r"row 2, column 'a': got a missing value or NaN"),
        ({"a": pd.array([1, None], "Int64"), "y": [0, 1]}, r"row 2, column 'a': got a missing value or NaN"),
        ({"a": ["u", "v"], "y": [0, 1]}, r"row 1, column 'a': got 'u', expected a number"),
        (
            {"a": pd.to_datetime(["2020-01-01"] * 2), "y": [0, 1]},
            r"row 1, column 'a': got '2020-01-01', expected a number",
        ),
        ({"a": [1, 2], "y": ["u", None]}, r"row 2, column 'y': got a missing value, expected a target"),
        ({"a": [[1], [2]], "y": [0, 1]}, r"column 'a'.*expected"),
        ({"a": [], "y": []}, r"no rows of data"),
    ],
)
def test_parquet_with_something_wrong(tmp_path: Path, frame: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame(frame).to_parquet(path)
    refused(path, message)


def test_parquet_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame({"a": [1.5, 2.5], "y": [0, 1]}).to_parquet(path)
    data = path.read_bytes()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        refused(path, "is empty|no PAR1|not a valid Parquet file")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    refused(path, r"pip install 'gpuprop\[parquet\]'")


# OpenML


def fetched(monkeypatch: pytest.MonkeyPatch, result: Any) -> list[Any]:
    """Put ``result`` (an exception is raised) in place of the network; return the list of names asked for."""
    asked: list[Any] = []

    def fetch(name: str, *, as_frame: bool) -> Any:
        asked.append((name, as_frame))
        if isinstance(result, Warning):
            warnings.warn(result, stacklevel=1)
            raise OSError("no route")
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    return asked


def bunch(targets: list[str]) -> SimpleNamespace:
    frame = pd.DataFrame(
        {
            "kind": pd.Categorical(["b", "a", "b"]),
            "u": [1, 2, 3],
            "v": pd.array([4, 5, 6], "Int64"),
            "w": [0.5, 1.5, 2.5],
        }
    )
    return SimpleNamespace(frame=frame, target_names=targets)


def test_openml_without_a_name() -> None:
    refused("openml:", "got no name")


def test_openml(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fetched(monkeypatch, bunch(["kind"]))
    data = datasets.load("openml:some-data")
    assert asked == [("some-data", True)]
    assert (data.name, data.feature_names, data.target_name) == ("some-data", ("u", "v", "w"), "kind")
    assert (data.classes, data.y.tolist()) == (["a", "b"], [1, 0, 1])
    np.testing.assert_array_equal(data.X, [[1, 4, 0.5], [2, 5, 1.5], [3, 6, 2.5]])
    fetched(monkeypatch, bunch(["kind"]))
    X, y = datasets.load_test("openml:some-data", classes=["b", "a"], feature_names=["w", "u", "v"])
    np.testing.assert_array_equal(X, data.X[:, [2, 0, 1]])
    assert y.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("result", "options", "message"),
    [
        (
            OSError("<urlopen error [Errno -3]\nno route>"),
            {},
            r"cannot be fetched: <urlopen error \[Errno -3\] no route>",
        ),
        (ValueError("No known data set"), {}, r"cannot be fetched: No known data set"),
        (RuntimeError(), {}, r"cannot be fetched: RuntimeError"),
        (bunch([]), {}, r"has the targets none; give one as target"),
        (bunch(["u", "v"]), {}, r"has the targets 'u', 'v'; give one as target"),
        (UserWarning("A network error occurred while downloading"), {}, r"cannot be fetched: no route"),
        (bunch(["kind"]), {"target": "w"}, r"row 1, column 'kind': got 'b', expected a number"),
        (bunch(["kind"]), {"labels": "y.idx"}, r"labels file"),
    ],
)
def test_openml_with_something_wrong(monkeypatch: pytest.MonkeyPatch, result: Any, options: Any, message: str) -> None:
    fetched(monkeypatch, result)
    refused("openml:some-data", message, **options)


def test_sizes_are_computed_without_overflow() -> None:
    """A product of sizes that is small modulo 2**64 must not pass for a small array."""
    side = 2**32 - 1
    assert (side * side * 2**32) % 2**64 < math.prod((side, side, 2**32))
    content = bytes([0, 0, 8, 4]) + struct.pack(">4I", 2**31, 2**31, 4, 1)
    assert (2**31 * 2**31 * 4) % 2**64 == 0
    with pytest.raises(DataError, match="18446744073709551616 bytes"):
        parse_idx(io.BytesIO(content), len(content), "a.idx", compressed=False)


@pytest.mark.parametrize("names", [True, False])
def test_csv_of_very_many_columns_is_read_in_linear_time(tmp_path: Path, names: bool) -> None:
    """Counted in calls of functions: pandas alone makes 78 for each column, and there were 840."""
    calls = []
    for width in (50, 2000, 6000):  # the first imports pandas
        line = ",".join(f"c{i}" for i in range(width)) + "\n"
        rows = "".join(",".join(str(i * j % 9 + 1) for i in range(width)) + "\n" for j in range(2))
        path = written(tmp_path, line * names + rows)
        profile = cProfile.Profile()
        known = tuple(f"c{i}" for i in range(width))
        data = profile.runcall(datasets.load_features, path, header=names, feature_names=known)
        assert data.shape == (2, width)
        profile.create_stats()
        calls.append(sum(count for _, count, *_ in profile.stats.values()))
    assert calls[2] - calls[1] < 120 * 4000
    assert calls[2] < 3.2 * calls[1]
