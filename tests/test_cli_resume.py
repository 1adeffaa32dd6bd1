"""``gpuprop train --resume``: a training that was killed or stopped ends with the bytes of one that was left alone."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.cli.progress import EpochTable
from gpuprop.learn import plots
from gpuprop.model.container import CHECKPOINTS
from gpuprop.training import checkpoint
from gpuprop.training.run_folder import RunFolder
from gpuprop.training.run_lock import LOCK_FILE
from gpuprop.training.run_manifest import Manifest
from tests.cli_tools import Cli, contents, files_of_run, read_csv, save_plants, save_prices, write_plants, write_prices

STATUS = {"SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 0, "SIGINT": 130}
OPTIONS = ("--hidden", "5", "--epochs", "6", "--seed", "2", "--batch-size", "16")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has none of these signals")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """On the device that has nothing to compile, and without pictures, which take most of the time of a short run."""

    class Picture:
        def savefig(self, path: Path) -> None:
            path.write_bytes(b"picture")

    for name in ("loss_curves", "confusion_matrix", "predictions"):
        monkeypatch.setattr(plots, name, lambda *arguments, **options: Picture())
    monkeypatch.setenv("GPUPROP_DEVICE", "numpy")
    monkeypatch.chdir(tmp_path)
    return Cli(capsys)


@pytest.fixture
def when(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], object]]:
    """Call what ``when["3 begins"]`` or ``when["3 ends"]`` holds, once, as an epoch begins or ends."""
    calls: dict[str, Callable[[], object]] = {}
    end = EpochTable.on_epoch_end

    def begin(self: EpochTable, trainer: object, epoch: int) -> None:
        calls.pop(f"{epoch} begins", lambda: None)()

    def ends(self: EpochTable, trainer: Any, epoch: int, record: Any) -> None:
        end(self, trainer, epoch, record)
        calls.pop(f"{epoch} ends", lambda: None)()

    monkeypatch.setattr(EpochTable, "on_epoch_begin", begin)
    monkeypatch.setattr(EpochTable, "on_epoch_end", ends)
    return calls


def history(folder: str) -> list[list[tuple[str, str]]]:
    rows = read_csv(Path(folder) / "history.csv")
    return [[(name, value) for name, value in row.items() if name != "seconds"] for row in rows]


def assert_same_run(one: str, other: str) -> None:
    assert (Path(one) / "model.safetensors").read_bytes() == (Path(other) / "model.safetensors").read_bytes()
    assert history(one) == history(other)
    assert files_of_run(Path(one)) == files_of_run(Path(other))


# --- signals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "make"),
    [("SIGTERM", save_plants), ("SIGHUP", write_prices), ("SIGUSR1", save_prices), ("SIGINT", write_plants)],
)
def test_a_signal_ends_a_training_with_a_model_and_a_resume_gives_the_same_bytes(
    cli: Cli, tmp_path: Path, when: dict[str, Callable[[], object]], name: str, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path / ("data.npz" if make.__name__.startswith("save") else "data.csv"))
    cli.run("train", path, *OPTIONS, "--out", "left-alone")
    when["4 begins"] = lambda: signal.raise_signal(getattr(signal, name))
    result = cli("train", path, *OPTIONS, "--out", "stopped")
    assert result.status == STATUS[name]
    assert result.err.count("\n") == 1
    assert "after 3 of 6 epochs; the model of epoch 3 is saved in stopped" in result.err
    assert "`gpuprop train --resume stopped` goes on" in result.err
    assert ("requeue" in result.err) == (name == "SIGUSR1")
    assert len(history("stopped")) == 3
    gpuprop.load("stopped")
    when["5 ends"] = lambda: signal.raise_signal(signal.SIGTERM)  # a second time, by another signal
    assert cli("train", "--resume", "stopped").status == 143
    cli.run("train", "--resume", "stopped")
    assert_same_run("stopped", "left-alone")
    assert "is complete; --epochs N asks for more" in cli.run("train", "--resume", "stopped").out


def test_a_schedulers_warning_while_data_are_read_is_no_failure(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_plants(tmp_path / "plants.npz")
    monkeypatch.setattr("gpuprop.datasets.load", lambda *arguments, **options: signal.raise_signal(signal.SIGUSR1))
    result = cli("train", path, "--out", "run")
    assert (result.status, result.out) == (0, "")
    assert result.err == "gpuprop: ended by SIGUSR1 before the training began: requeue the job\n"
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


@pytest.mark.parametrize("make", [save_prices, write_prices])
def test_before_a_model_is_published_the_checkpoint_has_one(
    cli: Cli, tmp_path: Path, when: dict[str, Callable[[], object]], make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path / ("data.npz" if make is save_prices else "data.csv"))
    when["1 begins"] = lambda: signal.raise_signal(signal.SIGTERM)
    result = cli.fail("train", path, "--seed", 2, "--epochs", 20, "--out", "run")
    assert "ended by SIGTERM before the first epoch was complete; `gpuprop train --resume run` goes on" in result.err
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert "run: the training has not come to its end" in cli("evaluate", "run", path).err
    newest = max((tmp_path / "run" / ".checkpoints").rglob("*.safetensors"), key=lambda file: file.stat().st_mtime_ns)
    damaged = newest.with_name("checkpoint-000099.safetensors")
    damaged.write_bytes(newest.read_bytes()[:-1])
    assert cli("predict", "run", path, "--out", "predictions.csv").status == 0
    damaged.unlink()
    predictions = [float(row["prediction"]) for row in read_csv(tmp_path / "predictions.csv")]
    assert np.mean(predictions) == pytest.approx(250_000, rel=0.5)  # in the units of the data
    refused = cli.fail("train", path, "--out", "run")
    assert "has not come to its end; `gpuprop train --resume run` goes on with it; or add --overwrite" in refused.err
    cli.run("train", "--resume", "run")
    assert float(cli.run("evaluate", "run", path).last_line.split()[-1]) > 0.9


def test_a_killed_training_of_a_table_goes_on_to_the_same_bytes(cli: Cli, tmp_path: Path) -> None:
    write_plants(tmp_path / "plants.csv")
    cli.run("train", "plants.csv", *OPTIONS, "--out", "left-alone")
    program = (
        "import os, signal, sys; from gpuprop.cli import runs; from gpuprop.__main__ import main\n"
        "from gpuprop.cli.progress import EpochTable\n"
        "runs.EVERY = '1 epoch'\n"
        "end = lambda self, trainer, epoch, record: epoch == 4 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "EpochTable.on_epoch_end = end\n"
        "main(['train', 'plants.csv', *sys.argv[1:], '--out', 'run'])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(gpuprop.__file__).parents[1]), *sys.path])}
    process = subprocess.run([sys.executable, "-c", program, *OPTIONS], env=environment, capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert isinstance(gpuprop.load("run"), gpuprop.TabularClassifier)
    result = cli.run("train", "--resume", "run")
    assert "\n      1/6 " not in result.out  # it did not begin again
    assert_same_run("run", "left-alone")


def test_a_training_without_a_checkpoint_begins_again(
    cli: Cli, tmp_path: Path, when: dict[str, Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    path = save_plants(tmp_path / "plants.npz")
    cli.run("train", path, *OPTIONS, "--out", "left-alone")
    when["3 ends"] = kill
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "__exit__", lambda *arguments: None)
        with pytest.raises(Killed):
            cli("train", path, *OPTIONS, "--out", "run")
    (tmp_path / "run" / LOCK_FILE).unlink()  # its process, this one, has not died
    cli.run("train", "--resume", "run")
    assert_same_run("run", "left-alone")


# --- what a resume takes and refuses ---------------------------------------------------------------------------


@pytest.fixture
def stopped(cli: Cli, tmp_path: Path, when: dict[str, Callable[[], object]]) -> Cli:
    """A command line in a folder with a training of plants.npz that was stopped after 3 of 6 epochs."""
    save_plants(tmp_path / "plants.npz")
    when["4 begins"] = lambda: signal.raise_signal(signal.SIGTERM)
    assert cli("train", "plants.npz", *OPTIONS, "--out", "run").status == 143
    return cli


def test_changed_options_are_refused_by_their_names(stopped: Cli, tmp_path: Path) -> None:
    before = contents(tmp_path)
    given = ("--hidden", "7,8", "--lr", "0.5", "--seed", "2", "--batch-size", "16", "--overwrite")
    result = stopped.fail("train", "other.npz", "--resume", "run", *given)
    assert (
        "DATA was plants.npz and is other.npz; --hidden was 5 and is 7,8; --lr was not given and is 0.5" in result.err
    )
    assert "; --overwrite is given; leave these out: only --epochs, --device and --emulate may change" in result.err
    assert "--seed" not in result.err
    assert contents(tmp_path) == before
    stopped.run("train", "plants.npz", "--resume", "run", *OPTIONS)  # what has not changed may be said again


def test_changed_data_are_refused_by_their_names(stopped: Cli, tmp_path: Path) -> None:
    save_plants(tmp_path / "plants.npz", seed=1)
    before = contents(tmp_path)
    result = stopped.fail("train", "--resume", "run")
    assert "X is another array" in result.err
    assert contents(tmp_path) == before
    save_plants(tmp_path / "plants.npz")
    stopped.run("train", "--resume", "run")


def test_more_epochs_may_be_asked_for_and_fewer_than_are_done_not(stopped: Cli) -> None:
    assert "epochs" in stopped.fail("train", "--resume", "run", "--epochs", 2).err
    stopped.run("train", "--resume", "run", "--epochs", 8)
    assert len(history("run")) == 8
    assert "is complete" in stopped.run("train", "--resume", "run").out
    stopped.run("train", "--resume", "run", "--epochs", 9)
    assert [row["epoch"] for row in read_csv(Path("run/history.csv"))] == [str(epoch) for epoch in range(1, 10)]


def test_a_run_is_resumed_from_another_folder(stopped: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "saved in ../run" in stopped.run("train", "--resume", "../run").out
    manifest = Manifest.read(tmp_path / "run")
    assert manifest is not None
    assert (manifest.complete, manifest.epochs_done) == (True, 6)


def test_there_must_be_something_to_resume(cli: Cli, tmp_path: Path) -> None:
    assert "there is no such folder" in cli.fail("train", "--resume", "run").err
    (tmp_path / "run" / CHECKPOINTS / "0123").mkdir(parents=True)
    for settings in ("", "{}", "[", '"text"'):
        (tmp_path / "run" / CHECKPOINTS / "0123" / "settings.json").write_text(settings)
        assert "holds no training that can be resumed" in cli.fail("train", "--resume", "run").err
    (tmp_path / "run" / CHECKPOINTS / "0123" / "settings.json").write_text('{"format": 9}')
    assert "of another version" in cli.fail("train", "--resume", "run").err
    result = cli.fail("train")
    assert (result.status, "got no DATA" in result.err) == (2, True)


# --- folders and disks that fail -------------------------------------------------------------------------------


def test_a_training_goes_on_without_checkpoints_and_its_model_is_saved_elsewhere(
    cli: Cli, tmp_path: Path, when: dict[str, Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_plants(tmp_path / "plants.npz")
    cli.run("train", path, *OPTIONS, "--out", "left-alone")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(checkpoint, "_FIRST", 0.0)
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if temporary not in Path(target).absolute().parents:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        replace(source, target)

    when["2 begins"] = lambda: monkeypatch.setattr(os, "replace", full)
    result = cli("train", path, *OPTIONS, "--out", "run")
    monkeypatch.setattr(os, "replace", replace)
    assert result.status == 1
    (place,) = temporary.iterdir()
    warnings = [line for line in result.err.splitlines() if ": warning: " in line]
    assert sum("a checkpoint could not be written, and the training goes on" in line for line in warnings) == 1
    assert f"run cannot be written any more: model and history are saved in {place}" in result.err
    last = f"gpuprop: error: run: could not take the files of the run, which are in {place}"
    assert result.err.splitlines()[-1] == last
    assert (place / "model.safetensors").read_bytes() == (tmp_path / "left-alone" / "model.safetensors").read_bytes()
    assert history(str(place)) == history("left-alone")


def test_a_second_training_into_one_folder_is_refused_while_the_first_lives(
    cli: Cli, tmp_path: Path, when: dict[str, Callable[[], object]]
) -> None:
    path = save_plants(tmp_path / "plants.npz")
    second: list[Any] = []
    when["2 begins"] = lambda: second.append(cli.fail("train", path, *OPTIONS, "--out", "run", "--overwrite"))
    assert cli("train", path, *OPTIONS, "--out", "run").status == 0
    assert "run: a training goes on in it, of process" in second[0].err
    assert len(history("run")) == 6
