"""A lock on the folder of a run: one training at a time, and a process that dies gives its lock back.

The system holds the lock, ``flock`` on POSIX and ``msvcrt.locking`` on Windows, for as long as the process has the file
open, however the process ends. Some network file systems have no locks. There the process that the file names is looked
up, and one of another machine counts as alive, since nobody here can know.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["LOCK_FILE", "FolderLock", "Holder"]

LOCK_FILE = ".gpuprop.lock"
"""The name of the file in the folder."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
_BYTE = 2**30  # Windows locks bytes, and the locked ones cannot be read: one far behind the text


@dataclass(frozen=True)
class Holder:
    """The process that trains in a folder, as the lock's file names it; the fields are 0 and "" if it cannot be read.

    Attributes
    ----------
    process : int
    host : str
    since : str
        The local time at which the process took the lock.
    """

    process: int = 0
    host: str = ""
    since: str = ""

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} since {self.since}" if self.process else "another process"


class FolderLock:
    """A lock on `folder`, which must exist when the lock is taken.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_FILE
        self._handle: int | None = None

    def take(self) -> Holder | None:
        """Take the lock, and return None; or return who holds it.

        Raises
        ------
        OSError
            If the folder cannot be written.
        """
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            taken = _locked(handle)
            # The one who held the lock may have removed the file between our opening and our locking.
            taken = taken and os.path.samestat(os.fstat(handle), self._path.stat())
        except OSError as error:
            if error.errno not in _NO_LOCKS and not isinstance(error, FileNotFoundError):
                os.close(handle)
                raise
            taken = error.errno in _NO_LOCKS and not _is_alive(_named(self._path))
        if not taken:
            os.close(handle)
            return _named(self._path)
        own = Holder(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S"))
        with suppress(OSError):  # a full disk: the lock holds without a name
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(asdict(own)).encode())
        self._handle = handle
        return None

    def take_again(self) -> Holder | None:
        """Take the lock on a folder that was deleted or renamed, and that exists again."""
        self.release()
        return self.take()

    @property
    def held(self) -> bool:
        """Whether the lock is still this object's: the folder may have been deleted, and made again by another."""
        if self._handle is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._handle), self._path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Give the lock back, and remove its file."""
        if self._handle is None:
            return
        if self.held and sys.platform != "win32":
            with suppress(OSError):  # the folder may have become read-only; a file without a lock hinders nobody
                self._path.unlink()
        os.close(self._handle)
        self._handle = None
        if sys.platform == "win32":  # an open file cannot be removed there
            with suppress(OSError):
                self._path.unlink()


def _locked(handle: int) -> bool:
    """Lock the open file until it is closed; return False if another process has locked it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(handle, _BYTE, os.SEEK_SET)
            try:
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            finally:
                os.lseek(handle, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _named(path: Path) -> Holder:
    """Return the process that the lock's file names."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Holder(int(found["process"]), str(found["host"]), str(found["since"]))
    except (OSError, ValueError, TypeError, KeyError):
        return Holder()


def _is_alive(named: Holder) -> bool:
    """Return whether the process goes on, as far as this machine can know: one of another host may."""
    if not named.process:
        return False
    if named.host != socket.gethostname() or sys.platform == "win32":  # Windows would send the signal 0 as a Ctrl-C
        return True
    try:
        os.kill(named.process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
