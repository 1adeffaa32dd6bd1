"""Compiled code is read only from folders into which nobody else could have put it."""

from __future__ import annotations

import grp
import logging
import os
import pickle
import pwd
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import pytest

from gpuprop.backends.cpu import compiling
from gpuprop_kernels.trusted_folders import why_untrusted

CODE = Path(compiling.__file__)
STRANGER = 54_321


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "above" / "cache"
    folder.mkdir(parents=True, mode=0o755)
    return folder


@pytest.fixture
def owned_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], None]:
    """Give a file another owner, for those who ask for it itself (which needs a privilege in truth)."""
    owners: dict[Path, int] = {}
    lstat, stat = Path.lstat, Path.stat

    def told(asked: Callable[..., os.stat_result]) -> Callable[..., Any]:
        def tell(self: Path, **options: Any) -> Any:
            found = asked(self, **options)
            if self not in owners:
                return found
            fields = {name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
            return SimpleNamespace(**(fields | {"st_uid": owners[self]}))

        return tell

    monkeypatch.setattr(Path, "lstat", told(lstat))
    monkeypatch.setattr(Path, "stat", told(stat))
    return owners.__setitem__


@pytest.mark.parametrize(
    ("mode", "trusted"), [(0o700, True), (0o755, True), (0o777, False), (0o757, False), (0o1777, False)]
)
def test_the_mode_of_a_folder(folder: Path, mode: int, trusted: bool) -> None:
    folder.chmod(mode)
    fault = why_untrusted(folder, CODE)
    assert (fault is None) == trusted
    if fault is not None:
        assert fault.startswith(f"{folder}: other users may write there (drwx")
        assert "NUMBA_CACHE_DIR" in fault
        assert "\n" not in fault


@pytest.mark.parametrize(("mode", "trusted"), [(0o755, True), (0o777, False), (0o1777, True)])
def test_the_mode_of_a_folder_above(folder: Path, mode: int, trusted: bool) -> None:
    """Who may rename the folder can put another in its place; in a folder like /tmp only its owner may."""
    folder.parent.chmod(mode)
    assert (why_untrusted(folder, CODE) is None) == trusted
    assert (why_untrusted(folder / "new" / "er", CODE) is None) == trusted
    assert (why_untrusted(folder / ".." / "cache", CODE) is None) == trusted


def test_who_owns_it(folder: Path, owned_by: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (folder, folder.parent):
        owned_by(place, STRANGER)
        assert f"{place}: another user owns it (number {STRANGER})" in str(why_untrusted(folder, CODE))
        assert why_untrusted(folder, place / "code.py") is not None  # there is no such code
        owned_by(place, 0)
        assert why_untrusted(folder, CODE) is None
    # Who owns the code runs in this process anyway.
    owned_by(folder, STRANGER)
    owned_by(CODE.resolve(), STRANGER)
    assert why_untrusted(folder, CODE) is None
    # And root does not trust what a user owns.
    owned_by(CODE.resolve(), 0)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert why_untrusted(folder, CODE) is not None


def test_links(folder: Path, tmp_path: Path, owned_by: Any) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder, target_is_directory=True)
    assert why_untrusted(link, CODE) is None
    folder.chmod(0o777)
    assert why_untrusted(link, CODE) is not None
    folder.chmod(0o755)
    owned_by(link, STRANGER)  # he may let it point elsewhere
    assert why_untrusted(link, CODE) is not None
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    assert "cannot be looked at" in str(why_untrusted(circle / "cache", CODE))


def test_beside_the_code_only_the_folder_itself_counts(tmp_path: Path) -> None:
    package = tmp_path / "package"
    cache = package / "__pycache__"
    cache.mkdir(parents=True)
    (package / "loops.py").write_text("")
    package.chmod(0o777)
    assert why_untrusted(cache, package / "loops.py") is None
    assert why_untrusted(cache, CODE) is not None
    cache.chmod(0o777)
    assert why_untrusted(cache, package / "loops.py") is not None


@pytest.mark.parametrize(
    ("name", "primary", "members", "trusted"),
    [("ada", True, [], True), ("ada", True, ["ada"], True), ("ada", True, ["eve"], False), ("lab", True, [], False),
     ("ada", False, [], False)],
)  # fmt: skip
def test_a_group_of_one(
    name: str, primary: bool, members: list[str], trusted: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A umask of 002 is safe where each user has a group that nobody else is in."""
    folder.chmod(0o775)
    number = folder.stat().st_gid
    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_name=name, gr_mem=members))
    user = SimpleNamespace(pw_name="ada", pw_gid=number if primary else number + 1)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: user)
    assert (why_untrusted(folder, CODE) is None) == trusted


def test_a_group_that_nobody_knows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> Any:
        raise KeyError(number)

    folder.chmod(0o775)
    monkeypatch.setattr(grp, "getgrgid", unknown)
    assert why_untrusted(folder, CODE) is not None


def test_windows_has_no_modes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.chmod(0o777)
    monkeypatch.setattr(sys, "platform", "win32")
    assert why_untrusted(folder, CODE) is None


def test_it_is_said_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.chmod(0o777)
    with caplog.at_level(logging.INFO, "gpuprop.loops"):
        assert [compiling._is_trusted(str(folder)) for _ in range(3)] == [False] * 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]


planted: list[str] = []


class Planted:
    """A pickle that runs something when it is read."""

    def __reduce__(self) -> Any:
        return run_planted, ()


def run_planted() -> None:
    planted.append("code of another user ran")


def test_planted_code_does_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def double(x: Any) -> Any:
        return 2 * x

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(folder))
    assert compiling.compiled(double)(1) == 2
    (index,) = folder.rglob("*.nbi")
    code = pickle.dumps(numba.__version__) + pickle.dumps(Planted())
    index.write_bytes(code)
    assert compiling.compiled(double)(2) == 4
    assert planted == ["code of another user ran"]  # as Numba loads it: the test can fail
    index.write_bytes(code)
    folder.chmod(0o777)
    compiling._is_trusted.cache_clear()  # what was trusted once is looked at once in a process
    assert compiling.compiled(double)(3) == 6
    assert planted == ["code of another user ran"]
    assert index.read_bytes() == code
