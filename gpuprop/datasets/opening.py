"""How files are opened: plain or compressed, which their first bytes tell and not their names."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from gpuprop.datasets.checks import check_file, data_error, listed, open_file, refuse_unpacked

#: The first bytes of a file tell what it holds (the formats' specifications; pandas knows the same compressions).
COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\3\4": "zip",
}
BINARY = {
    b"PAR1": "a Parquet file; name it with the ending .parquet",
    b"\x93NUMPY": "an NPY file; name it with the ending .npy",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save the sheet as CSV",
    b"SQLite format 3": "an SQLite database; export the table as CSV",
    b"ARROW1": "an Arrow file; write it as Parquet",
    b"\x89HDF": "an HDF5 file; write the arrays as NPZ",
    b"%PDF": "a PDF; save the table as CSV",
    b"\x89PNG": "a picture",
}
TEXTS = {
    b"<!DOCTYPE": "a web page, not the data; download the file itself",
    b"<html": "a web page, not the data; download the file itself",
    b"version https://git-lfs": "a pointer of Git LFS, not the data; fetch them with: git lfs pull",
    b"@relation": "an ARFF file; save it as CSV, or read it as openml:NAME",
    b"@RELATION": "an ARFF file; save it as CSV, or read it as openml:NAME",
    b"{": "JSON; save the table as CSV",
    b"[{": "JSON; save the table as CSV",
}
ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".zip")
BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


def bare_name(path: Path) -> str:
    """Return a file's name without the ending of its compression: ``iris.csv`` for ``iris.csv.gz``."""
    return path.name[: -len(path.suffix)] if path.suffix.lower() in ENDINGS else path.name


def ending(path: Path) -> str:
    """Return the ending that says what a file holds, in lower case: ``.csv`` for ``iris.csv.gz``.

    A zip archive that does not tell it by its own name, such as ``iris.zip``, tells it by the name of its only file.
    """
    found = Path(bare_name(path)).suffix.lower()
    if not found and path.suffix.lower() == ".zip" and path.is_file():
        try:
            with zipfile.ZipFile(path) as archive:
                members = [info.filename for info in archive.infolist() if not _is_clutter(info.filename)]
        except BROKEN:
            return found
        return Path(members[0]).suffix.lower() if len(members) == 1 else ".csv"
    return found


def first_bytes(path: Path, count: int = 16) -> bytes:
    """Return the first bytes of a regular file that is not empty."""
    stream, _ = open_file(path)
    with stream:
        return stream.read(count)


def kind_by_content(start: bytes, kinds: dict[bytes, str]) -> str | None:
    """Return what the first bytes of a file say that it is, or None."""
    return next((kind for magic, kind in kinds.items() if start.startswith(magic)), None)


def hint(start: bytes) -> str:
    """Return ``"; it is a web page, ..."`` if the first bytes of a file say that it is something else, or ""."""
    known = {**BINARY, **TEXTS, b"PK\3\4": "a zip archive, as NPZ files are", b"\x1f\x8b": "gzip-compressed; unpack it"}
    kind = next((kind for magic, kind in known.items() if start and magic.startswith(start[: len(magic)])), None)
    return f"; it is {kind}" if kind and len(start) > 1 else ""


class _Bounded(io.RawIOBase):
    """A stream of unpacked bytes that ends with an error before they fill the memory, or if there are too few."""

    def __init__(self, stream: IO[bytes], least: int, check: Callable[[int], None]) -> None:
        self._stream, self._least, self._check, self._count = stream, least, check, 0
        check(least)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._count += len(data)
        self._check(self._count)
        if len(buffer) and not data and self._count < self._least:
            raise EOFError
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def open_unpacked(path: Path, max_unpacked: int | None = None) -> Iterator[IO[bytes]]:
    """Open a file for reading and unpack it if its first bytes say that it is compressed.

    Raises
    ------
    DataError
        If the file cannot be read, if a zip archive does not hold exactly one file, or if compressed data are damaged
        or unpack to too much, see `gpuprop.datasets.checks.refuse_unpacked`.
    """
    n_bytes = check_file(path)
    compression = kind_by_content(first_bytes(path), COMPRESSIONS)
    if compression is None:
        with path.open("rb") as plain:
            yield plain
        return

    def check(count: int) -> None:
        refuse_unpacked(path, count, n_bytes, max_unpacked)

    try:
        with (
            _opened(path, compression) as (stream, least),
            io.BufferedReader(_Bounded(stream, least, check)) as unpacked,
        ):
            yield cast("IO[bytes]", unpacked)
    except BROKEN as error:
        reason = "they end too early" if isinstance(error, EOFError) else error
        raise data_error(path, f"holds damaged {compression} data ({reason}); get the file again") from None


@contextmanager
def _opened(path: Path, compression: str) -> Iterator[tuple[IO[bytes], int]]:
    """Open a compressed file; yield a stream and how many bytes it must give, where its reader does not check that."""
    if compression == "zip":
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not _is_clutter(info.filename)]
            if any(info.filename in ("[Content_Types].xml", "mimetype") for info in members):
                raise data_error(path, "is a spreadsheet or another office file; save the sheet as CSV UTF-8")
            if members and all(info.filename.endswith(".npy") for info in members):
                raise data_error(path, "is an NPZ file; name it with the ending .npz")
            if len(members) != 1:
                names = listed([info.filename for info in members]) or "none"
                raise data_error(path, f"is a zip archive of the files {names}, expected one; unpack the one to read")
            if members[0].flag_bits & 1:
                raise data_error(path, "is a zip archive with a password; unpack it first")
            with archive.open(members[0]) as member:
                yield member, members[0].file_size
        return
    if compression == "zstd":
        try:
            import zstandard
        except ImportError:
            raise data_error(
                path, "is compressed with zstd, which needs: pip install zstandard (or unpack it: unzstd FILE)"
            ) from None
        try:
            size = zstandard.frame_content_size(first_bytes(path, 18))
            with zstandard.open(path, "rb") as stream:
                yield stream, size
        except zstandard.ZstdError as error:
            raise OSError(str(error)) from None
        return
    openers: dict[str, Callable[[Path], Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
    with openers[compression](path) as stream:
        yield stream, 0


def _is_clutter(name: str) -> bool:
    return name.endswith("/") or name.startswith("__MACOSX/") or name.rpartition("/")[2] == ".DS_Store"
