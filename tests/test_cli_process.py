"""The command line as a process of its own: signals, pipes, terminals, equal bytes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

import gpuprop
from tests.cli_tools import assert_one_complaint, contents, read_csv, write_plants

GPUPROP = [sys.executable, "-m", "gpuprop"]
ROOT = Path(__file__).parents[1]


def environment(**variables: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("GPUPROP_DEVICE", "COLUMNS")}
    # The tests start in folders of their own, where the package is found only if it is installed.
    path = os.pathsep.join(filter(None, [str(ROOT), inherited.get("PYTHONPATH")]))
    return {**inherited, "PYTHONPATH": path, **variables}


def start(*arguments: str, folder: Path, stdout: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*GPUPROP, *arguments],
        cwd=folder,
        env=environment(),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupt_when(process: subprocess.Popen[str], pattern: str) -> tuple[str, str]:
    """Send SIGINT when a line of output matches `pattern`; return what came after it, and stderr."""
    assert process.stdout is not None
    for line in process.stdout:
        if re.match(pattern, line):
            break
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=60)


def test_sigint_saves_the_last_completed_epoch(tmp_path: Path) -> None:
    # Long enough for the fused tier, which it shares with the README's lines: compiled once for both.
    process = start("train", "mnist", "--hidden", "16", "--epochs", "1000", folder=tmp_path)
    out, err = interrupt_when(process, r" +2/1000 ")
    assert process.returncode == 130
    assert_one_complaint(err)
    found = re.search(r"interrupted after (\d+) of 1000 epochs; the model of epoch \1 is saved", err)
    assert found is not None
    assert len(read_csv(tmp_path / "gpuprop-mnist" / "history.csv")) == int(found[1])
    assert re.fullmatch(r"test accuracy: [01]\.\d{4}", out.splitlines()[-1])
    assert gpuprop.load(tmp_path / "gpuprop-mnist").layer_sizes == (784, 16, 10)


def test_sigint_in_the_first_epoch_leaves_a_checkpoint(tmp_path: Path) -> None:
    # An epoch of this network takes many seconds.
    process = start("train", "mnist", "--hidden", "1000,1000", folder=tmp_path)
    _, err = interrupt_when(process, r" +epoch ")
    assert process.returncode == 130
    assert_one_complaint(err)
    assert "before the first epoch was complete; `gpuprop train --resume gpuprop-mnist` goes on" in err
    assert [path.name for path in (tmp_path / "gpuprop-mnist").iterdir()] == [".checkpoints"]
    assert gpuprop.load(tmp_path / "gpuprop-mnist").layer_sizes == (784, 1000, 1000, 10)


@pytest.mark.parametrize("arguments", [("train", "nowhere.csv"), ("train", "xor", "--epochs", "-1"), ("nonsense",)])
def test_errors_are_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    process = start(*arguments, folder=tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == (1 if "nowhere.csv" in arguments else 2)
    assert_one_complaint(err)
    assert out == ""


def test_a_pipe_that_nobody_reads_is_no_error(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = start("info", folder=tmp_path, stdout=write_end)
    os.close(write_end)
    _, err = process.communicate(timeout=60)
    assert err == ""
    assert process.returncode == 1


def test_equal_seeds_give_equal_bytes_in_two_processes(tmp_path: Path) -> None:
    write_plants(tmp_path / "plants.csv")
    models = []
    for name in ("a", "b"):
        arguments = ["train", "plants.csv", "--epochs", "5", "--dropout", "0.1,0.3", "--device", "numpy", "--out", name]
        variables = environment(PYTHONHASHSEED="1" if name == "a" else "2")
        subprocess.run([*GPUPROP, *arguments], cwd=tmp_path, env=variables, check=True, capture_output=True)
        models.append((tmp_path / name / "model.safetensors").read_bytes())
    assert models[0] == models[1]
    pictures = [contents(tmp_path / name)["confusion.png"] for name in ("a", "b")]
    assert pictures[0] == pictures[1]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="pseudo-terminals exist on POSIX systems only")
def test_a_terminal_gets_a_live_bar(tmp_path: Path) -> None:
    own, its = os.openpty()
    process = subprocess.Popen(
        [*GPUPROP, "train", "digits", "--epochs", "8"],
        cwd=tmp_path,
        env=environment(TERM="xterm-256color", COLUMNS="110", NO_COLOR=""),
        stdout=its,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(its)
    shown = b""
    while True:
        try:
            part = os.read(own, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(own)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    text = shown.decode()
    assert "samples/s" in text
    assert re.search(r"loss [\d.]+ +accuracy [\d.]+", text)
    assert len(re.findall(r" \d/8 +\d", text)) == 8
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    assert re.search(r"test accuracy: [01]\.\d{4}\s*$", text)
