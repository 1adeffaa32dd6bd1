"""The folder of a run: claimed by one process, filled by one switch, and sound at whatever moment a process dies."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import gpuprop
from gpuprop.model.container import CHECKPOINTS
from gpuprop.training.run_folder import FILES, RunFolder, RunFolderError
from gpuprop.training.run_lock import LOCK_FILE, FolderLock
from gpuprop.training.run_manifest import MANIFEST, Manifest, stored_runs
from tests.cli_tools import contents

DONE = Manifest("0123456789abcdef", True, 3, 3)


def write_run(folder: Path, name: str = "new", *, pictures: bool = True) -> None:
    """Write the files of a run that are all told by `name`, with a model that loads."""
    network = gpuprop.Network((2, 1), seed=len(name), device="numpy", target_name=name)
    network.save(folder / "model.safetensors")
    (folder / "history.csv").write_text(name)
    if pictures:
        (folder / "loss.png").write_text(name)


def publish(path: Path, name: str, **options: Any) -> None:
    with RunFolder(path, **options) as folder:
        write_run(folder.staging, name)
        folder.publish(Manifest(folder.run, True, 3, 3))


def runs_in(path: Path) -> dict[str, str]:
    """Return for each file of a run whose it is."""
    found = {name: (path / name).read_text() for name in ("history.csv", "loss.png") if (path / name).exists()}
    return found | {"model.safetensors": str(gpuprop.load(path, "numpy").target_name)}


# --- a folder without accidents --------------------------------------------------------------------------------


def test_a_folder_is_filled_at_once_or_not_at_all(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "run")
    with folder:
        write_run(folder.staging)
        (folder.staging / "live.json").write_text("not kept")
    assert list(tmp_path.iterdir()) == []  # left without publishing
    with folder:
        (folder.staging / "history.csv").write_text("1")
        folder.publish(DONE)
        (folder.staging / "loss.png").write_text("2")
        folder.publish()
    assert folder.published == ["history.csv", "loss.png"]
    manifest = Manifest.read(folder.path)
    assert manifest is not None
    assert sorted(manifest.files) == ["history.csv", "loss.png"]
    assert manifest.holds(folder.path)
    with RunFolder(folder.path, overwrite=True) as again:
        (again.staging / "loss.png").write_text("3")
        again.publish(DONE)
    assert not manifest.holds(folder.path)
    assert sorted(contents(folder.path)) == ["loss.png", MANIFEST]
    assert "model.safetensors" in FILES  # `gpuprop.load` looks for it in the folder


@pytest.mark.parametrize("name", ["history.csv", MANIFEST])
def test_a_run_is_not_overwritten_unasked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunFolderError, match="pass overwrite=True, or choose another folder"), RunFolder(tmp_path):
        pass
    with pytest.raises(RunFolderError, match="add --overwrite, or choose another --out"):
        RunFolder(tmp_path, to_overwrite="add --overwrite", to_move="choose another --out").__enter__()
    assert contents(tmp_path) == {name: b"mine"}


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[" * 100_000, '{"format": 1}', '{"format": 2, "run": "a"}', "{}", "\ud800"]
)
def test_what_is_no_manifest_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text, errors="surrogatepass")
    assert Manifest.read(tmp_path) is None
    DONE.write(tmp_path)
    assert Manifest.read(tmp_path) == DONE


# --- one training at a time ------------------------------------------------------------------------------------


def test_a_second_training_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as first:
        for options in ({}, {"overwrite": True}, {"run": first.run}):
            with pytest.raises(RunFolderError, match=f"a training goes on in it, of process {os.getpid()} "):
                RunFolder(tmp_path / "run", **options).__enter__()
        assert first.staging.is_dir()
    publish(tmp_path / "run", "new")
    assert sorted(contents(tmp_path / "run")) == ["history.csv", "loss.png", "model.safetensors", MANIFEST]


def test_a_dead_process_keeps_no_lock_and_its_leftovers_go(tmp_path: Path) -> None:
    program = (
        "import os, sys, time; from pathlib import Path; from gpuprop.training.run_folder import RunFolder\n"
        "folder = RunFolder(Path('run')).__enter__(); (folder.staging / 'history.csv').write_text('dead')\n"
        "print('claimed', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        with pytest.raises(RunFolderError, match=f"a training goes on in it, of process {process.pid} "):
            RunFolder(tmp_path / "run").__enter__()
        process.send_signal(signal.SIGKILL)
    assert [path.name for path in (tmp_path / "run").glob("*") if path.name != LOCK_FILE] != []
    publish(tmp_path / "run", "new")
    assert sorted(contents(tmp_path / "run")) == ["history.csv", "loss.png", "model.safetensors", MANIFEST]


@pytest.mark.parametrize("named", ["nobody", "the dead", "the living", "another machine"])
def test_where_there_are_no_locks_the_process_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refused(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    with ExitStack() as stack:
        if named == "the living":
            assert FolderLock(tmp_path).take() is None
        elif named != "nobody":
            child = stack.enter_context(subprocess.Popen([sys.executable, "-c", ""]))
            child.wait()
            host = "elsewhere" if named == "another machine" else os.uname().nodename
            (tmp_path / LOCK_FILE).write_text(json.dumps({"process": child.pid, "host": host, "since": "now"}))
        assert (FolderLock(tmp_path).take() is None) == (named in ("nobody", "the dead"))


# --- a process that dies while it publishes --------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the end of a process: from one system call on, none happens any more."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Let the process die at the n-th system call that changes a folder or flushes something."""
    left = [10**9]

    def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return call(*arguments, **options)

        return called

    with monkeypatch.context() as patch:
        for name in ("replace", "unlink", "rename", "mkdir", "rmdir"):
            patch.setattr(os, name, guarded(getattr(os, name)))
        patch.setattr(os, "fsync", guarded(lambda handle: None))  # no power is cut here, and flushing takes its time
        yield lambda n: left.__setitem__(0, n)


@pytest.mark.parametrize("again", ["another run", "the run that was stopped, resumed"])
def test_at_no_moment_does_a_folder_hold_a_mixture_of_two_runs(
    tmp_path: Path, kill_at: Callable[[int], None], again: str
) -> None:
    states, n = set(), 0
    while True:
        path = tmp_path / str(n)
        publish(path, "old")
        old = Manifest.read(path)
        assert old is not None
        (path / "notes.txt").write_text("mine")
        folder = RunFolder(path, overwrite=True, run=None if again == "another run" else old.run).__enter__()
        write_run(folder.staging)
        kill_at(n)
        try:
            folder.publish(Manifest(folder.run, True, 9, 9))
            survived = True
        except Killed:
            survived = False
        kill_at(10**9)
        whose = runs_in(path)
        assert len(set(whose.values())) == 1, whose
        assert (path / "notes.txt").read_text() == "mine"
        manifest = Manifest.read(path)
        if manifest is not None and manifest.holds(path):  # what reads as a run is whole, and the one that it says
            assert sorted(manifest.files) == sorted(whose)
            assert (manifest.epochs_done == 9) == (whose["history.csv"] == "new")
        states.add((*whose, *whose.values()))
        folder._lock.release()  # as the system does for a dead process
        publish(path, "newest", overwrite=True)
        assert set(runs_in(path).values()) == {"newest"}
        assert not list(path.glob(".gpuprop*"))
        if survived:
            break
        n += 1
    assert n > 10
    assert len(states) >= 4  # the old run, its model alone, the new model alone, the new run: each was met


# --- folders and disks that fail -------------------------------------------------------------------------------


def test_a_folder_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as folder:
        shutil.rmtree(tmp_path / "run")
        assert folder.fill(write_run, DONE) == tmp_path / "run"
        assert folder.made_again
    assert set(runs_in(tmp_path / "run").values()) == {"new"}
    assert not list((tmp_path / "run").glob(".gpuprop*"))


def test_a_folder_that_was_renamed_is_made_again_unless_another_run_has_taken_its_place(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunFolder(path) as folder:
        path.rename(tmp_path / "moved")
        publish(path, "other")
        place = folder.fill(write_run, DONE)
    assert place != path
    assert place.parent == tmp_path
    assert set(runs_in(path).values()) == {"other"}
    assert set(runs_in(place).values()) == {"new"}
    with RunFolder(path, overwrite=True) as folder, ExitStack() as stack:
        path.rename(tmp_path / "moved too")
        stack.enter_context(RunFolder(path))  # it lives
        place = folder.fill(write_run, DONE)
    assert set(runs_in(place).values()) == {"new"}
    assert not path.exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("failing", ["the folder", "its neighbours too"])
def test_what_the_folder_cannot_take_is_saved_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, failing: str
) -> None:
    path, temporary = tmp_path / "disk" / "run", tmp_path / "temporary"
    temporary.mkdir()
    publish(path, "old")
    before = contents(path)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(path.parent)
    place = path if failing == "the folder" else path.parent
    replace = os.replace

    def refused(source: Any, target: Any) -> None:
        if place in Path(target).absolute().parents:
            raise OSError(code, os.strerror(code), str(target))
        replace(source, target)

    with RunFolder(path, overwrite=True) as folder:
        monkeypatch.setattr(os, "replace", refused)
        found = folder.fill(write_run, DONE)
        monkeypatch.setattr(os, "replace", replace)
    assert found.parent == (path.parent if failing == "the folder" else temporary)
    assert set(runs_in(found).values()) == {"new"}
    manifest = Manifest.read(found)
    assert manifest is not None
    assert manifest.holds(found)
    assert contents(path) == before


def test_what_can_be_saved_nowhere_is_an_error_and_the_old_run_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path / "run", "old")
    before = contents(tmp_path)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(gpuprop.ModelFileError, match="cannot be written"),
        RunFolder(tmp_path / "run", overwrite=True) as folder,
    ):
        folder.fill(write_run, DONE)
    assert contents(tmp_path) == before


# --- what a run leaves for a resume ----------------------------------------------------------------------------


def test_a_training_without_a_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as folder:
        folder.remember({"epochs": 3})
        assert [stored.settings for stored in stored_runs(tmp_path / "run")] == [{"epochs": 3}]
        assert not folder.has_checkpoints
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_has_not_ended_is_offered_for_resume(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunFolder(path) as folder:
        folder.remember({"epochs": 3})
        (folder.checkpoints / "checkpoint-000001.safetensors").write_text("much work")
    with pytest.raises(RunFolderError, match="has not come to its end; resume it; or pass overwrite=True, or choose"):
        RunFolder(path).__enter__()
    (stored,) = stored_runs(path)
    assert (stored.run, stored.complete) == (folder.run, False)
    with RunFolder(path, run=stored.run) as resumed:
        assert resumed.has_checkpoints
        write_run(resumed.staging)
        resumed.publish(Manifest(resumed.run, True, 3, 3))
    assert [stored.complete for stored in stored_runs(path)] == [True]
    with pytest.raises(RunFolderError, match=r"holds a run already \(model.safetensors, history.csv, loss.png, run"):
        RunFolder(path).__enter__()
    with RunFolder(path, overwrite=True) as newer:
        newer.remember({"epochs": 9})
        assert [stored.run for stored in stored_runs(path)] == [folder.run, newer.run]  # the one to resume is the last
        write_run(newer.staging)
        newer.publish(Manifest(newer.run, True, 9, 9))
        newer.tidy(complete=True)
    assert [stored.run for stored in stored_runs(path)] == [newer.run]
    assert sorted(file.name for file in (path / CHECKPOINTS).iterdir()) == [newer.run]
