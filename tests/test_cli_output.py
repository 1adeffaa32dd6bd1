"""What a command does when its display fails: the results are saved first, and what is only shown can only warn."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import pandas as pd
import pytest

import gpuprop
from gpuprop.__main__ import main
from gpuprop.cli.pictures import PictureCheck
from gpuprop.learn import plots
from gpuprop.learn.live.snapshot import LiveRun
from tests.cli_tools import Cli, contents, files_of_run, plants, read_csv, write_csv, write_plants

QUICK = ("--epochs", "2", "--hidden", "4", "--device", "numpy")
TREES = ("梅", "桜", "松")  # no single-byte encoding has them


class Refusing(io.TextIOBase):
    """A stream like a full disk, or like a pipe whose reader has gone: it takes some characters, then refuses."""

    def __init__(self, number: int, taken: int) -> None:
        self.error = OSError(number, os.strerror(number))
        self.left = taken
        self.text = ""

    def write(self, text: str) -> int:
        if len(text) > self.left:
            raise self.error
        self.left -= len(text)
        self.text += text
        return len(text)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPUPROP_DEVICE", raising=False)
    return Cli(capsys)


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    X, labels = plants()
    names = dict(zip(sorted(set(labels)), TREES, strict=True))
    return write_csv(tmp_path / "trees.csv", ["a", "b", "tree"], [X[:, 0], X[:, 1], [names[label] for label in labels]])


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    class Picture:
        def savefig(self, path: Path) -> None:
            path.write_bytes(b"picture")

    for name in ("loss_curves", "confusion_matrix", "predictions"):
        monkeypatch.setattr(plots, name, lambda *arguments, **options: Picture())


def train(data: Path, *options: object) -> int:
    return main(["train", str(data), *QUICK, "--target", "tree", "--out", "run", *map(str, options)])


# --- standard output -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_labels_that_the_display_lacks_are_printed_with_replacements(
    cli: Cli, trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    written = io.BytesIO()
    shown = io.TextIOWrapper(written, encoding=encoding, write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", shown)
        assert train(trees) == 0
        assert main(["evaluate", "run", str(trees)]) == 0
        assert main(["predict", "run", str(trees), "--out", "p.csv"]) == 0
    text = written.getvalue().decode(encoding)
    spelled = "梅" if encoding == "utf-8" else r"\u6885"
    assert text.count(f"{spelled} ") == 2
    assert text.count("test accuracy: ") == 2
    rows = read_csv(tmp_path / "p.csv")
    assert len(rows) == 60
    assert set(rows[0]) == {"prediction", *(f"p_{tree}" for tree in TREES)}
    assert {row["prediction"] for row in rows} <= set(TREES)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("fault", "taken"), [("closed", 0), (errno.EPIPE, 0), (errno.EPIPE, 700), (errno.ENOSPC, 200), (errno.ENOSPC, 700)]
)
def test_a_training_outlives_its_display(
    cli: Cli,
    trees: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: Any,
    taken: int,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None if fault == "closed" else Refusing(fault, taken))
        status = train(trees)
    err = capsys.readouterr().err
    assert (status, err.count("\n")) == (0, 1)
    assert err.startswith("gpuprop: warning: standard output cannot be written: ")
    assert files_of_run(tmp_path / "run") == ["confusion.png", "history.csv", "loss.png", "model.safetensors"]
    assert len(read_csv(tmp_path / "run" / "history.csv")) == 2


@pytest.mark.parametrize("fault", ["closed", errno.EPIPE, errno.ENOSPC])
def test_a_command_that_only_prints_has_failed_if_it_cannot(
    cli: Cli, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None if fault == "closed" else Refusing(fault, 20))
        assert main(["info"]) == 1
    err = capsys.readouterr().err
    if fault == errno.EPIPE:  # `gpuprop info | head -1` is no fault of anybody
        assert err == ""
    else:
        assert err.startswith("gpuprop: error: standard output cannot be written: ")


def test_without_standard_error_the_status_still_speaks(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        assert main(["train", "nowhere.csv"]) == 1
    assert cli("info").status == 0


# --- pictures, animations and live files -----------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["LaTeX is missing", "matplotlib is missing"])
def test_a_run_without_pictures_is_a_warning(
    cli: Cli, trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """It is said once, after the second epoch: matplotlib is loaded after the first, which does not wait for it."""
    if reason == "matplotlib is missing":
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setitem(mpl.rcParams, "text.usetex", True)
    result = cli("train", trees, *QUICK, "--target", "tree", "--out", "run")
    assert result.status == 0
    assert result.err.startswith("gpuprop: warning: matplotlib cannot draw here: ")
    assert result.err.endswith("; the run will have no pictures\n")
    assert result.err.count("\n") == 1
    assert files_of_run(tmp_path / "run") == ["history.csv", "model.safetensors"]
    assert result.last_line.startswith("test accuracy: ")


def test_whether_pictures_can_be_drawn_is_known_while_a_long_training_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("a font is broken")

    monkeypatch.setattr(plots, "draw_nothing", fail)
    check, nobody = PictureCheck(), cast("gpuprop.Trainer", None)
    check.on_epoch_end(nobody, 1, {})
    assert capsys.readouterr().err == ""
    while any(one.name == "gpuprop-pictures" for one in threading.enumerate()):
        time.sleep(0.01)
    for epoch in (2, 3):
        check.on_epoch_end(nobody, epoch, {})
    assert capsys.readouterr().err.count("matplotlib cannot draw here: a font is broken") == 1
    assert not check.passes()


def test_a_picture_that_fails_is_one_warning_and_the_others_are_drawn(
    cli: Cli, trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.run("train", write_plants(tmp_path / "plants.csv"), *QUICK, "--out", "run")
    old = contents(tmp_path / "run")

    def full(*arguments: object, **options: object) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "loss.png")

    monkeypatch.setattr(plots, "loss_curves", full)
    result = cli("train", trees, *QUICK, "--target", "tree", "--out", "run", "--overwrite")
    assert result.status == 0
    assert result.err.startswith("gpuprop: warning: loss.png was not drawn: ")
    # The letters of the labels are in no font that matplotlib brings: one line, however many they are.
    assert [line.split(":")[2].strip() for line in result.err.splitlines()[1:]] == ["confusion.png"]
    new = contents(tmp_path / "run")
    names = ["confusion.png", "history.csv", "model.safetensors"]
    assert files_of_run(tmp_path / "run") == names  # no curve of the old run is left
    assert all(new[name] != old[name] for name in names)


@pytest.mark.usefixtures("no_pictures")
def test_an_animation_that_cannot_be_written_is_refused_before_the_training(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpuprop.Trainer, "fit", lambda *arguments: pytest.fail("training began"))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.html").mkdir()
    for place in ("file/xor.html", "nowhere/xor.html", "folder.html"):
        result = cli.fail("train", "xor", "--animate", place)
        assert result.status == 1
        assert place in result.err
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = cli.fail("train", "xor", "--animate", "xor.gif")
    assert (result.status, ".html" in result.err) == (2, True)
    assert contents(tmp_path) == {"file": b"mine"}


@pytest.mark.usefixtures("no_pictures")
def test_an_animation_may_lie_in_the_folder_of_its_run(cli: Cli, tmp_path: Path) -> None:
    cli.run("train", "xor", "--epochs", 2, "--out", "run", "--animate", "run/xor.html")
    assert "run/xor.html" in {f"run/{name}" for name in contents(tmp_path / "run")}


@pytest.mark.usefixtures("no_pictures")
def test_what_only_watches_a_training_cannot_end_it(
    cli: Cli, trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(LiveRun, "on_epoch_end", broken)
    result = cli("train", trees, *QUICK, "--target", "tree", "--out", "run")
    assert (result.status, result.err.count("gpuprop: warning: what `gpuprop watch` shows ends here: ")) == (0, 1)
    assert gpuprop.load(tmp_path / "run").predict(pd.DataFrame({"a": [0.0], "b": [0.0]})).shape == (1,)
    assert len(read_csv(tmp_path / "run" / "history.csv")) == 2


@pytest.mark.usefixtures("no_pictures")
def test_a_model_finds_its_folder_even_if_that_was_deleted_meanwhile(
    cli: Cli, trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiveRun, "on_epoch_end", lambda *arguments: shutil.rmtree(tmp_path / "run"))
    result = cli("train", trees, *QUICK, "--target", "tree", "--out", "run")
    assert result.status == 0
    assert [line.split(":")[1] for line in result.err.splitlines()] == [" warning", " warning"]
    assert result.err.endswith("run was deleted or renamed during the training, and was made again\n")
    assert files_of_run(tmp_path / "run") == ["confusion.png", "history.csv", "loss.png", "model.safetensors"]
