"""Files of data of every kind, their mutations, and their reading: the other half of `tests.fuzz_files`.

A file is either read, or refused by a DataError of one line without control characters.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd

from gpuprop import datasets
from gpuprop.errors import DataError
from tests.fuzz_models import check_message

__all__ = ["DATA", "LIMIT", "mutated", "read"]

#: What the environment allows compressed files.
LIMIT = ("GPUPROP_MAX_UNPACKED", "32MB")

_X = np.arange(24, dtype=np.float32).reshape(8, 3)
_Y = np.arange(8) % 2
_TEXT = (
    "size,city,day,paid\n" + "".join(f"{i}.5,{'Oslo' if i % 2 else 'Lima'},2024-01-0{i},{i % 2}\n" for i in range(1, 9))
).encode()
_NUMBERS = ("size,count,share,paid\n" + "".join(f"{i}.5,{i},0.{i},{i % 2}\n" for i in range(1, 9))).encode()
_IDX = struct.pack(">4B3I", 0, 0, 8, 3, 8, 2, 2) + bytes(range(32))


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _zip(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", content)
    return stream.getvalue()


def _parquet() -> bytes:
    stream = io.BytesIO()
    frame = pd.read_csv(io.BytesIO(_TEXT))
    frame["city"] = frame["city"].astype("category")
    frame.assign(**{"\x1b[31mname": "\x1b]0;x\x07"}).to_parquet(stream)
    return stream.getvalue()


#: A megabyte of zeros; gzip unpacks one such part after the other.
_MEGABYTE = gzip.compress(bytes(2**20), 9)

_PACKED: dict[str, Callable[[bytes], bytes]] = {
    "a.csv.gz": gzip.compress,
    "a.csv.bz2": bz2.compress,
    "a.csv.xz": lzma.compress,
    "a.csv.zip": _zip,
}
DATA: dict[str, bytes] = {
    "a.csv": _TEXT,
    "b.csv": _NUMBERS,
    "a.tsv": _NUMBERS.replace(b",", b"\t"),
    "a.txt": _TEXT.replace(b",", b"  ").replace(b"-", b"/"),
    **{name: pack(_NUMBERS) for name, pack in _PACKED.items()},
    "a.npy": _npy(np.column_stack([_X, _Y])),
    "a.npz": _npz(X=_X, y=_Y),
    "words.npz": _npz(x_train=_X, y_train=np.array(["\x1b[31ma", "b"])[_Y], x_test=_X, y_test=np.array(["a"] * 8)),
    "a-idx3-ubyte": _IDX,
    "a-idx3-ubyte.gz": gzip.compress(_IDX),
    "a.parquet": _parquet(),
    # Made to fill the memory, of which no reader may take more than it was allowed.
    "bomb.csv.gz": _MEGABYTE * 700,
    "bomb-idx1-ubyte.gz": gzip.compress(struct.pack(">4BI", 0, 0, 8, 1, 700 * 2**20)) + _MEGABYTE * 700,
    "bomb.npz": _npz(X=np.zeros((2**13, 2**13), np.uint8), y=np.zeros(2**13)),
}
"""A valid file of each kind under its name, and bombs."""

_TOKENS = (
    b"\x1b[31m",
    b"\x1b]0;t\x07",
    b"\x00",
    b'"',
    b"'",
    b",",
    b";",
    b"\t",
    b"|",
    b"\r",
    b"\n",
    b"\r\n",
    b"\n\n",
    b"nan",
    b"inf",
    b"-1e400",
    b"1,5",
    b"1.234,5",
    b"sep=;\n",
    b"# ",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xe2\x80\xae",
    b"=1+1",
    b"NA",
    b"None",
    b"{}",
    b"<html",
    b"PK\x03\x04",
    b"PAR1",
    b"9" * 400,
    b"," * 300,
    b"(2**62,)",
    b"|O",
    b"<f8",
)


def mutated(random: Random, name: str) -> tuple[str, bytes]:
    """Return the content of a file after at most four mutations, under its name or, at times, under another.

    Half of the compressed texts are mutated before they are compressed.
    """
    own = name if random.random() < 0.9 else random.choice(list(DATA))
    if name in _PACKED and random.random() < 0.5:
        return own, _PACKED[name](_mutated(random, bytearray(_NUMBERS)))
    return own, _mutated(random, bytearray(DATA[name]))


def _mutated(random: Random, content: bytearray) -> bytes:
    for _ in range(random.choice((0, 1, 1, 1, 2, 4))):
        at = random.randrange(len(content) + 1)
        change = random.randrange(8)
        if change == 0:
            content[at : at + 1] = bytes([random.randrange(256)])
        elif change == 1:
            content[at : at + 4] = random.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(4), b"\xff\xff\xff\x7f"))
        elif change == 2:
            del content[at:]
        elif change == 3:
            del content[at : at + random.randint(1, 40)]
        elif change == 4:
            content[at:at] = random.choice(_TOKENS)
        elif change == 5:
            end = at + random.randint(1, 60)
            content[at:at] = content[at:end] * random.choice((1, 2, 50))
        elif change == 6:
            other = DATA[random.choice([kind for kind in DATA if not kind.startswith("bomb")])]
            start = random.randrange(len(other) or 1)
            content[at:at] = other[start : start + random.randint(1, 200)]
        else:
            content[at : at + 8] = struct.pack("<Q", random.choice((2**63, 2**32, 2**31 - 1, 1)))
    return bytes(content)


def read(random: Random, path: Path) -> str:
    """Read a file in one of the ways that there are; return "read" or "refused"."""
    usual: list[Any] = [
        lambda: datasets.load(path),
        lambda: datasets.load_features(path),
        lambda: datasets.read_table(path),
        lambda: datasets.read_table(path, with_target=False),
    ]
    others: list[Any] = [
        lambda: datasets.load(path, header=random.choice((True, False)), target=random.choice((0, -1, "paid", "y"))),
        lambda: datasets.load(path, task=random.choice(("classification", "regression"))),
        lambda: datasets.load_features(path, n_features=random.choice((3, 4)), header=random.choice((None, True))),
        lambda: datasets.load_features(path, feature_names=["size", "count", "share"], target="paid"),
        lambda: datasets.load_test(path, classes=random.choice((None, [0, 1], ["a", "b"]))),
        lambda: datasets.read_table(path, kinds={"size": "text", "day": "number"}, na_values=["Oslo"]),
    ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            random.choice(random.choice((usual, others)))()
    except DataError as error:
        check_message(error)
        return "refused"
    return "read"
