"""Compiled kernels on disk, so that a second process need not compile them again.

Numba's own cache keys a kernel by a pickle of what it closes over and by the date of one source file. Here a kernel
closes over device functions of many files, so the key is made of what determines the machine code:

    sources of this package, versions of Python, Numba and numba-cuda      a folder
    kernel, options, signature, architecture, and, down through every      a file in it
    closure, the functions and constants that it is made of

A file holds what numba-cuda itself would keep: its record of a kernel with PTX and machine code. A kernel that cannot
be keyed, written or read is compiled as if there were no cache: the folder may be read-only, a file may be cut short,
or a user's own function may refer to a value that cannot be keyed. A file is written under another name and then
renamed, so that two processes can work at once. The folder is ``gpuprop/kernels`` in NUMBA_CACHE_DIR, or else in
XDG_CACHE_HOME or ~/.cache. Beyond 512 MiB, the files that have not been used for longest are removed. Like Numba's
cache it holds pickles, and whoever can write there can run code as you: a folder that others may write to is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pickle
import sys
import tempfile
import time
import types
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numba_cuda
import numpy as np
from numba.cuda.core.caching import NullCache
from numba.cuda.dispatcher import CUDADispatcher, _Kernel
from numba.cuda.extending import _Intrinsic
from numba.cuda.serialize import dumps

from gpuprop_kernels.trusted_folders import why_untrusted

__all__ = ["KernelCache", "cache_folder"]

LIMIT = 512 * 2**20
"""The most bytes in the folder. A kernel takes up to a MiB; a training needs some ten kernels, selfcheck 300."""

_PACKAGE = Path(__file__).parents[1]
_LOGGER = logging.getLogger("gpuprop.kernels")


class KernelCache(NullCache):  # type: ignore[misc]
    """The cache that a dispatcher asks for a kernel before it compiles one.

    Parameters
    ----------
    dispatcher : CUDADispatcher
    """

    _compiling_since: float | None = None
    _said = False

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher

    @property
    def cache_path(self) -> str:
        """The folder."""
        return str(cache_folder())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the kernel for a signature, or None if it has to be compiled."""
        target_context.refresh()
        path = self._path(sig, target_context.codegen())
        if path is not None:
            with contextlib.suppress(Exception):  # whatever is wrong with a file, compiling gives the same kernel
                kernel = _Kernel._rebuild(**pickle.loads(path.read_bytes()))
                with contextlib.suppress(OSError):
                    os.utime(path)
                return kernel
        self._say()
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a kernel that has been compiled."""
        path = self._path(sig, data._codelibrary.codegen)
        if path is None:
            return
        with contextlib.suppress(OSError, pickle.PicklingError, RuntimeError):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(dumps(data._reduce_states()))
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink()
                raise
            _prune(path.parents[1])

    def _path(self, sig: Any, codegen: Any) -> Path | None:
        if not _is_trusted(cache_folder()):
            return None
        options = sorted(self._dispatcher.targetoptions.items(), key=lambda item: item[0])
        try:
            described = _describe((self._dispatcher.py_func, [str(sig), str(codegen.magic_tuple()), str(options)]))
        except TypeError:
            return None
        name = self._dispatcher.py_func.__name__
        return cache_folder() / f"{name}-{hashlib.sha256(described.encode()).hexdigest()[:32]}.nbc"

    @classmethod
    def _say(cls) -> None:
        """Log once that kernels are being compiled, when that has taken a second."""
        now = time.monotonic()
        if KernelCache._compiling_since is None:
            KernelCache._compiling_since = now
        elif not KernelCache._said and now - KernelCache._compiling_since > 1.0:
            KernelCache._said = True
            _LOGGER.info("compiling CUDA kernels, which are kept in %s for the next time", cache_folder())


@cache
def _sources() -> str:
    """Return a hash of this package's sources, and of the versions of what compiles them."""
    digest = hashlib.sha256(repr((sys.version, numba.__version__, numba_cuda.__version__)).encode())
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Return the folder of the compiled kernels of these sources and versions."""
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(base) / "gpuprop" / "kernels" / _sources()


@cache
def _is_trusted(folder: Path) -> bool:
    """Return whether kernels may be kept in a folder; if not, say why, once."""
    fault = why_untrusted(folder, Path(__file__))
    if fault is not None:
        _LOGGER.warning("%s", fault)
    return fault is None


def _prune(folder: Path) -> None:
    """Remove the files, of all versions, that have not been used for longest, down to `LIMIT`, and empty folders."""
    files = [(path.stat(), path) for path in folder.rglob("*") if path.is_file()]
    files.sort(key=lambda file: file[0].st_mtime_ns, reverse=True)
    kept = 0
    for stat, path in files:
        kept += stat.st_size
        if kept > LIMIT:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty
                path.parent.rmdir()


def _describe(value: Any) -> str:
    """Return a text that differs where compiled code would.

    Raises
    ------
    TypeError
        If a value may differ in a way that no text can show.
    """
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.dtype, np.generic)):
        return f"{type(value).__name__}:{value!r}"
    if isinstance(value, numba.types.Type):
        return f"type:{value}"
    if isinstance(value, (tuple, list)):
        return f"({','.join(_describe(one) for one in value)})"
    if isinstance(value, CUDADispatcher):
        return f"device:{_describe(value.py_func)}"
    if isinstance(value, _Intrinsic):
        return f"intrinsic:{_describe(value._defn)}"
    if isinstance(value, types.CodeType):
        return f"code:{value.co_code.hex()}:{value.co_names}:{_describe(value.co_consts)}"
    if isinstance(value, types.FunctionType):
        return _describe_function(value)
    if isinstance(value, (types.ModuleType, types.BuiltinFunctionType, type, np.ufunc)):
        return f"name:{value.__name__}"
    raise TypeError(f"got a {type(value).__name__}, expected numbers, functions and tuples of them")


def _describe_function(function: types.FunctionType) -> str:
    """Describe a function by its code and what it refers to; the globals of this package are among its sources."""
    closure = [cell.cell_contents for cell in function.__closure__ or ()]
    names = () if function.__module__.startswith("gpuprop_kernels") else function.__code__.co_names
    referred = [function.__globals__[name] for name in names if name in function.__globals__]
    return f"{function.__module__}.{function.__qualname__}:{_describe([function.__code__, closure, referred])}"
