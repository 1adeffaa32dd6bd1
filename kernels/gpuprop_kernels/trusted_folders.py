"""Which folders compiled code may be read from: it is kept as pickles, and whoever can write a pickle runs code as you.

A folder is trusted if nobody but you, root and the owner of the code that is compiled can put files there, or put
another folder in its place. Who can change that code itself needs no cache to run something, so the folders above it
are not looked at.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

__all__ = ["why_untrusted"]


def why_untrusted(folder: Path, code: Path) -> str | None:
    """Return who else may write to a folder, with what to do about it, or None if it is trusted.

    Parameters
    ----------
    folder : Path
        It need not exist yet. On Windows, where modes say nothing, every folder is trusted.
    code : Path
        A file of the code that is compiled.
    """
    if sys.platform == "win32":
        return None
    try:
        code = code.resolve()
        owners = (os.geteuid(), 0, code.stat().st_uid)
        # A link is looked at where it stands, and so is what it points to.
        places = [Path(os.path.abspath(folder)), folder.resolve()]  # noqa: PTH100  (Path.absolute keeps "..")
        for place in dict.fromkeys(above for leaf in places for above in (leaf, *leaf.parents)):
            fault = None if place in code.parents else _fault(place, owners, shared=place not in places)
            if fault is not None:
                return (
                    f"{place}: {fault}, so compiled code is not kept in {folder}, and every process compiles anew; "
                    "take that right away (chmod go-w), or name a folder of your own in NUMBA_CACHE_DIR"
                )
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        return f"{folder}: cannot be looked at ({error}), so compiled code is not kept there"
    return None


def _fault(place: Path, owners: tuple[int, ...], *, shared: bool) -> str | None:
    """Return what is wrong with a folder or link; one with the sticky bit may be shared by all, as /tmp is."""
    try:
        found = place.lstat()
    except FileNotFoundError:
        return None  # who makes it is judged by the folder above
    if found.st_uid not in owners:
        return f"another user owns it (number {found.st_uid})"
    if stat.S_ISLNK(found.st_mode) or (shared and found.st_mode & stat.S_ISVTX):
        return None
    by_group = found.st_mode & stat.S_IWGRP and not _is_private_group(found.st_gid)
    if by_group or found.st_mode & stat.S_IWOTH:
        return f"other users may write there ({stat.filemode(found.st_mode)})"
    return None


def _is_private_group(number: int) -> bool:
    """Return whether a group is this user's own, as many systems give each user one, with a umask that trusts it."""
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(number), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return group.gr_name == user.pw_name and number == user.pw_gid and set(group.gr_mem) <= {user.pw_name}
