"""`gpuprop watch` beside runs that die and clients that misbehave; a run whose live files cannot be written."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.learn.live import process, server, snapshot
from gpuprop.learn.live.reader import RunReader
from gpuprop.learn.live.server import HOST
from gpuprop.learn.live.snapshot import HISTORY_FILE, SNAPSHOT_FILE, LiveRun
from tests.browser import dom, needs_chromium
from tests.cli_tools import read_csv
from tests.test_live import digits_run, get, served

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


# --- dead runs -------------------------------------------------------------------------------------------------


@pytest.fixture
def other() -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A process that waits, and what it says of itself."""
    code = (
        f"import json, runpy; m = runpy.run_path({process.__file__!r}); print(json.dumps(m['this_process']())); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child:
        yield child, json.loads(child.stdout.readline())
        child.kill()


def run_of(identity: dict[str, Any], folder: Path, name: str = ".gpuprop-abc", age: float = 0.0) -> Path:
    """Write what a run has there after an epoch."""
    staging = folder / name
    staging.mkdir(parents=True)
    (staging / HISTORY_FILE).write_text("epoch,train_loss\n1,0.5\n")
    (staging / SNAPSHOT_FILE).write_text(json.dumps({"epoch": 1, "process": identity}))
    for file in staging.iterdir():
        os.utime(file, (time.time() - age, time.time() - age))
    return staging


@needs_proc
def test_a_killed_run_is_dead(tmp_path: Path, other: Any) -> None:
    child, identity = other
    run_of(identity, tmp_path, age=3600)
    reader = RunReader(tmp_path)
    state = reader.state()
    assert (state["status"], state["history"]["train_loss"]) == ("running", [0.5])  # an epoch may take an hour
    assert 3590 < state["silent"] < 3700
    child.kill()
    until(lambda: Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
    assert reader.state()["status"] == "dead"  # its parent has not asked for it yet
    child.wait()
    state = reader.state()
    assert (state["status"], state["history"]["train_loss"], state["epoch"]) == ("dead", [0.5], 1)
    assert "process" not in state
    assert not state["resumable"]
    kept = tmp_path / ".checkpoints" / "0123" / "checkpoint-000001.safetensors"
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert reader.state()["resumable"]


@needs_proc
def test_another_process_of_the_same_number_is_not_the_run(tmp_path: Path, other: Any) -> None:
    _, identity = other
    run_of(identity | {"started": identity["started"] - 1}, tmp_path)
    assert RunReader(tmp_path).state()["status"] == "dead"


def test_a_run_elsewhere_lives_by_its_heartbeat(tmp_path: Path) -> None:
    for machine in ("another boot pid:[1]", None):
        identity = {"pid": os.getpid(), "started": 1, "machine": machine}
        folder = tmp_path / str(machine)
        staging = run_of(identity, folder, age=process.SILENCE_SECONDS / 2)
        assert RunReader(folder).state()["status"] == "running"
        shutil.rmtree(staging)
        run_of(identity, folder, age=process.SILENCE_SECONDS * 2)
        assert RunReader(folder).state()["status"] == "dead"


@needs_proc
def test_which_of_several_runs_is_shown(tmp_path: Path) -> None:
    living = process.this_process()
    dead = living | {"started": 1}
    reader = RunReader(tmp_path)
    run_of(dead, tmp_path, ".gpuprop-old", age=100)
    (tmp_path / HISTORY_FILE).write_text("epoch,train_loss\n1,0.25\n")
    assert reader.state()["status"] == "finished"  # after the dead one
    run_of(dead, tmp_path, ".gpuprop-new", age=-100)
    assert reader.state()["status"] == "dead"
    staging = run_of(living, tmp_path, ".gpuprop-living", age=50)
    assert reader.state()["status"] == "running"
    shutil.rmtree(staging)
    assert reader.state()["status"] == "dead"


def test_a_run_gives_signs_of_life_from_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "BEAT_SECONDS", 0.01)
    seen: list[str] = []

    class Look(gpuprop.Callback):
        def on_epoch_begin(self, trainer: gpuprop.Trainer, epoch: int) -> None:
            if epoch == 1:
                seen.append(RunReader(tmp_path).state()["status"])
                file = tmp_path / ".gpuprop-abc" / SNAPSHOT_FILE
                os.utime(file, (1, 1))
                until(lambda: file.stat().st_mtime > 1)

    X, y = gpuprop.datasets.make_xor()
    network = gpuprop.Network((2, 3, 1), loss="binary_cross_entropy", seed=0, device="numpy")
    (tmp_path / ".gpuprop-abc").mkdir()
    live = LiveRun(tmp_path / ".gpuprop-abc", X, y)
    gpuprop.Trainer(network, epochs=1, callbacks=[live, Look()]).fit(X, y)
    assert seen == ["running"]

    # The thread ends with the training, and also with one that fails, once nobody holds its callback.
    def hearts() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "gpuprop-heartbeat"]

    until(lambda: not hearts())
    live.on_fit_begin(gpuprop.Trainer(network))
    assert len(hearts()) == 1
    del live
    until(lambda: not hearts())


# --- a page for any loss ---------------------------------------------------------------------------------------


def strict_json(text: str) -> Any:
    """Read JSON as the standard has it, which knows no infinity and no NaN."""

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_an_infinite_loss_is_valid_json(tmp_path: Path) -> None:
    staging = run_of(process.this_process(), tmp_path)
    (staging / HISTORY_FILE).write_text("epoch,train_loss,validation_loss\n1,inf,\n2,nan,-inf\n3,0.5,1e999\n")
    (staging / SNAPSHOT_FILE).write_text('{"epoch": NaN, "weights": [Infinity, 1e999, 0.5]}')
    with served(tmp_path) as port:
        state = strict_json(get(port, "/state.json")[1])
    assert state["history"] == {
        "epoch": [1, 2, 3],
        "train_loss": ["Infinity", "NaN", 0.5],
        "validation_loss": [None, "-Infinity", "Infinity"],
    }
    assert (state["epoch"], state["weights"]) == ("NaN", ["Infinity", "Infinity", 0.5])


def test_pictures_of_the_largest_weights() -> None:
    network = gpuprop.Network((3, 2, 1), seed=0, device="numpy", dtype="float64")
    network.weights[0][...] = np.finfo(np.float64).max * np.array([[1.0, -1.0], [0.0, 0.5], [-0.5, 0.0]])
    assert snapshot.weight_images(network)["images"] == [[255, 128, 64], [0, 191, 128]]


@needs_chromium
def test_the_page_shows_what_is_not_finite_and_what_is_dead(tmp_path: Path) -> None:
    staging = run_of(process.this_process() | {"started": 1}, tmp_path, age=600)
    (staging / HISTORY_FILE).write_text("epoch,train_loss,train_accuracy\n1,0.25,0.5\n2,nan,0.5\n3,inf,0.5\n")
    with served(tmp_path) as port:
        page = dom(f"http://{HOST}:{port}/", tmp_path / "profile")
    assert "<b>Infinity</b>" in page
    assert "2 infinite or NaN values are not drawn" in page
    assert "dead: the process of this run ended" in page
    assert page.count("<circle") == 1
    assert "NaN," not in page


# --- clients ---------------------------------------------------------------------------------------------------


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_idle_clients_hold_no_threads_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE_SECONDS", 1.5)
    with served(tmp_path) as port, ExitStack() as closing:
        get(port, "/state.json")
        before = threading.active_count()
        clients = [closing.enter_context(socket.create_connection((HOST, port), timeout=20)) for _ in range(300)]
        assert get(port, "/state.json")[0] == 200
        assert threading.active_count() == before
        # The first of them had to go at once, all others when their time was over: also one that sends on and on.
        assert is_closed(clients[0])
        clients[-1].sendall(b"GET / HT")
        assert all(map(is_closed, clients))


def test_clients_that_leave_are_not_spoken_of(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    digits_run(tmp_path)
    reset = struct.pack("ii", 1, 0)  # close by a reset
    with served(tmp_path) as port:
        for sent in (b"", b"GET /st", b"GET /state.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3, b"\xff\0\r\n\r\n"):
            for rude in (False, True):
                with socket.create_connection((HOST, port), timeout=20) as client:
                    if rude:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                    client.sendall(sent)
        with socket.create_connection((HOST, port), timeout=20) as client:
            client.sendall(b"x" * 100_000)
            assert is_closed(client)
        assert get(port, "/state.json")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_fault_of_the_reader_is_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(self: RunReader) -> Any:
        raise MemoryError

    monkeypatch.setattr(RunReader, "state", fail)
    with served(tmp_path) as port:
        assert get(port, "/state.json")[0] == 500
        assert get(port, "/")[0] == 200
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    staging = tmp_path / ".gpuprop-abc"
    staging.mkdir()
    os.mkfifo(staging / HISTORY_FILE)
    os.mkfifo(staging / SNAPSHOT_FILE)
    assert RunReader(tmp_path).state()["history"] == {}
    (staging / HISTORY_FILE).unlink()
    (staging / HISTORY_FILE).write_text("epoch\n" + "1" * 200_000 + "\n")  # longer than the csv module reads
    assert RunReader(tmp_path).state()["history"] == {}


# --- live files that cannot be written -------------------------------------------------------------------------


class Damage(gpuprop.Callback):
    """Harms the folder before the second epoch, and mends it before the fourth."""

    def __init__(self, harm: Callable[[], object], mend: Callable[[], object]) -> None:
        self._harm, self._mend = harm, mend

    def on_epoch_begin(self, trainer: gpuprop.Trainer, epoch: int) -> None:
        if epoch == 2:
            self._harm()
        if epoch == 4:
            self._mend()


@pytest.mark.parametrize("how", ["deleted", "renamed", "no folder", "full disk"])
def test_a_folder_that_cannot_be_written_ends_no_training(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, beside = tmp_path / "staging", tmp_path / "beside"
    folder.mkdir()
    full = False

    def write_text(self: Path, text: str, **options: Any) -> int:
        with self.open("w", **options) as file:
            file.write(text[: 10 if full else None])
        if full:
            raise OSError(28, "No space left on device")
        return len(text)

    def fill(on: bool) -> None:
        nonlocal full
        full = on
        if on:  # the line of the history that was being appended is cut
            (folder / HISTORY_FILE).unlink()
            (folder / HISTORY_FILE).mkdir()
        else:
            (folder / HISTORY_FILE).rmdir()

    def make_a_file() -> None:
        shutil.rmtree(folder)
        folder.touch()

    def make_a_folder() -> None:
        folder.unlink()
        folder.mkdir()

    harms: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "deleted": (lambda: shutil.rmtree(folder), folder.mkdir),
        "renamed": (lambda: folder.rename(beside), lambda: beside.rename(folder)),
        "no folder": (make_a_file, make_a_folder),
        "full disk": (lambda: fill(True), lambda: fill(False)),
    }
    monkeypatch.setattr(Path, "write_text", write_text)
    X, y = gpuprop.datasets.make_xor()
    networks = [gpuprop.Network((2, 3, 1), loss="binary_cross_entropy", seed=0, device="numpy") for _ in range(2)]
    with pytest.warns(UserWarning, match="cannot be written: .*; the training goes on") as heard:
        trainer = gpuprop.Trainer(
            networks[0], epochs=5, callbacks=[Damage(*harms[how]), LiveRun(folder, X, y)], batch_size=2
        ).fit(X, y)
    assert len(heard) == 1
    gpuprop.Trainer(networks[1], epochs=5, batch_size=2).fit(X, y)
    np.testing.assert_array_equal(networks[0].parameters, networks[1].parameters)
    rows = read_csv(folder / HISTORY_FILE)  # whole again
    assert [float(row["train_loss"]) for row in rows] == trainer.history["train_loss"]
    assert json.loads((folder / SNAPSHOT_FILE).read_text())["epoch"] == 5
    assert sorted(path.name for path in folder.iterdir()) == [HISTORY_FILE, SNAPSHOT_FILE]


def test_a_training_that_goes_on_keeps_its_earlier_lines(tmp_path: Path) -> None:
    X, y = gpuprop.datasets.make_xor()
    network = gpuprop.Network((2, 3, 1), loss="binary_cross_entropy", seed=0, device="numpy")
    first = gpuprop.Trainer(network, epochs=2).fit(X, y)
    trainer = gpuprop.Trainer(network, epochs=4, callbacks=[LiveRun(tmp_path, X, y)])
    trainer.fit(X, y, resume_from=first.progress)
    rows = read_csv(tmp_path / HISTORY_FILE)
    assert [float(row["train_loss"]) for row in rows] == trainer.history["train_loss"]
