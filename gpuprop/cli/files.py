"""Files that the commands write: complete, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from gpuprop.errors import GpupropError

__all__ = ["written_whole"]


@contextmanager
def written_whole(path: Path, *, binary: bool = False) -> Iterator[IO[Any]]:
    """Open a file beside `path` that replaces it when all is written, and is removed if anything fails."""
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".gpuprop-{secrets.token_hex(8)}.tmp")
    try:
        with beside.open("xb") if binary else beside.open("x", newline="", encoding="utf-8") as file:
            yield file
        beside.replace(target)
    except OSError as error:
        raise GpupropError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
