"""Files that the commands write: complete, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from gpuprop.cli.console import mark_saved
from gpuprop.errors import GpupropError

__all__ = ["check_writable", "written_whole"]


def check_writable(path: Path) -> None:
    """Raise `GpupropError` if a file cannot be written at `path`; commands ask before they compute for long.

    Nothing at `path` is touched: an empty file beside it proves that files can be made there, and is removed.
    """
    if path.is_dir():
        raise GpupropError(f"{path}: cannot be written: it is a folder; name a file")
    beside = _beside(Path(os.path.realpath(path)))
    try:
        beside.touch(exist_ok=False)
        beside.unlink()
    except OSError as error:
        raise GpupropError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def written_whole(path: Path, *, binary: bool = False) -> Iterator[IO[Any]]:
    """Open a file beside `path` that replaces it when all is written, and is removed if anything fails."""
    target = Path(os.path.realpath(path))
    beside = _beside(target)
    try:
        with beside.open("xb") if binary else _text_file(beside) as file:
            yield file
        beside.replace(target)
        mark_saved()
    except OSError as error:
        raise GpupropError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _beside(target: Path) -> Path:
    return target.with_name(f".gpuprop-{secrets.token_hex(8)}.tmp")


def _text_file(path: Path) -> IO[str]:
    """Make a UTF-8 file; what UTF-8 lacks, half of a surrogate pair in a label, is written as Python spells it."""
    return path.open("x", newline="", encoding="utf-8", errors="backslashreplace")
