"""Compiled kernels on disk: the second process compiles nothing, and whatever is wrong with the folder is no error."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING or find_spec("numba_cuda"):
    from gpuprop_kernels.target.cache import KernelCache, _describe, _prune

pytestmark = pytest.mark.gpu

# The device check runs one small kernel, whose numbers it looks at.
CHECK = """
from gpuprop_kernels.target.cache import KernelCache
compiled = []
save = KernelCache.save_overload
KernelCache.save_overload = lambda self, sig, data: (compiled.append(self), save(self, sig, data))
from gpuprop.backends import choose
print(choose("cuda").device, len(compiled))
"""


def processes(folder: Path, n: int = 1) -> list[str]:
    """Return what `n` processes at once say: the device, and how many kernels they have compiled."""
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", CHECK],
            env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(n)
    ]
    ends = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * n, ends
    return [out.strip() for out, _ in ends]


def test_the_second_process_compiles_nothing(tmp_path: Path) -> None:
    first = processes(tmp_path, 2)  # at once
    assert set(first) <= {"cuda:0 1", "cuda:0 0"}
    assert "cuda:0 1" in first
    (kept,) = tmp_path.rglob("*.nbc")
    assert processes(tmp_path) == ["cuda:0 0"]
    kept.write_bytes(kept.read_bytes()[:1000])
    assert processes(tmp_path) == ["cuda:0 1"]
    assert processes(tmp_path) == ["cuda:0 0"]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    assert processes(file) == ["cuda:0 1"]


def test_what_was_not_used_for_longest_leaves_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuprop_kernels.target.cache.LIMIT", 250)
    for age, name in enumerate(["new/a", "old/b", "new/c", "older/d", "older/e"]):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    _prune(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {"new", "new/a", "old", "old/b"}


def test_a_key_tells_apart_what_compiles_to_other_code() -> None:
    def scaled(by: Any) -> Any:
        return lambda z: z * by

    assert _describe(scaled(2.0)) == _describe(scaled(2.0))
    keys = {_describe(scaled(by)) for by in (2.0, 2, 3.0, True, (2.0,), scaled(2.0))}
    assert len(keys) == 6
    names: dict[str, Any] = {"__name__": "users", "factor": 1.0}
    exec("def own(z): return z * factor", names)
    one = _describe(names["own"])
    names["factor"] = 2.0
    assert _describe(names["own"]) != one
    names["factor"] = object()
    with pytest.raises(TypeError, match="got a object"):
        _describe(names["own"])


def test_what_has_no_key_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    unknown = object()

    class Dispatcher:
        targetoptions: dict[str, Any] = {}  # noqa: RUF012

        @staticmethod
        def py_func() -> Any:
            return unknown

    class Context:
        refresh = codegen = magic_tuple = lambda self: self

    assert KernelCache(Dispatcher()).load_overload("()", Context()) is None
    assert not list(tmp_path.rglob("*"))


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    assert processes(tmp_path) == ["cuda:0 1"]
    (kept,) = tmp_path.rglob("*.nbc")
    before = kept.stat()
    kept.parent.chmod(0o777)
    assert processes(tmp_path) == ["cuda:0 1"]
    assert kept.stat() == before
    kept.parent.chmod(0o755)
    assert processes(tmp_path) == ["cuda:0 0"]
