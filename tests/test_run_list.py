"""Runs: folders are numbered, `gpuprop runs` compares them, `gpuprop report` writes a page that holds all it shows."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

import gpuprop
from gpuprop.cli.run_list import sparkline
from gpuprop.learn.report.charts import image, matrix, ticks
from gpuprop.training.calibration import brier_score, expected_calibration_error, reliability
from tests.cli_tools import Cli, save_plants, write_plants, write_prices


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


class Page(HTMLParser):
    """Checks that tags are closed, and collects titles, texts and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.titles: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        return

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)


def test_runs_are_numbered_listed_and_compared(cli: Cli, tmp_path: Path) -> None:
    data, runs = save_plants(tmp_path / "plants.npz"), tmp_path / "runs"
    for rate in ("0.001", "0.05"):
        cli.run("train", data, "--out", f"{runs}/", "--lr", rate, "--epochs", 5, "--device", "numpy")
    assert sorted(path.name for path in runs.iterdir()) == ["001-plants", "002-plants"]
    said = cli.run("runs", runs).out
    header, *rows = said.splitlines()[1:]
    assert header.split()[:2] == ["run", "--lr"]
    assert [row.split()[1] for row in rows] == ["0.001", "0.05"]
    sorted_rows = cli.run("runs", runs, "--sort", "validation_loss").out.splitlines()[2:]
    assert sorted_rows[0].split()[1] == "0.05"
    found = json.loads(cli.run("runs", runs, "--json").out)
    assert [run["epochs_done"] for run in found] == [5, 5]
    assert all(run["best"]["validation_loss"] > 0 and len(run["model"]) == 64 for run in found)
    assert "1 run;" in cli.run("runs", runs / "001-plants").out
    assert "holds no run" in cli.run("runs", tmp_path).out
    assert "expected one of epoch" in cli.fail("runs", runs, "--sort", "f1").err
    assert "there is no such folder" in cli.fail("runs", tmp_path / "none").err


def test_sparklines_rise_and_fall() -> None:
    assert sparkline([]) == ""
    line = sparkline([float(value) for value in range(40)])
    assert len(line) == 16
    assert list(line) == sorted(line)
    assert len(set(sparkline([1.0, None, 1.0, float("nan")]))) == 1


@pytest.mark.parametrize("kind", ["images", "table", "prices"])
def test_a_report_is_one_page_that_holds_all_it_shows(cli: Cli, tmp_path: Path, kind: str) -> None:
    data = {"images": "digits", "table": tmp_path / "t.csv", "prices": tmp_path / "p.csv"}[kind]
    if kind == "table":
        write_plants(tmp_path / "t.csv")
    if kind == "prices":
        write_prices(tmp_path / "p.csv")
    out = tmp_path / "run"
    target = () if kind == "images" else ("--target", "label" if kind == "table" else "y")
    cli.run("train", data, *target, "--out", out, "--epochs", 1, "--hidden", 4, "--device", "numpy", "--metric",
            "neg_mean_absolute_error" if kind == "prices" else "f1_macro")  # fmt: skip
    assert f"report: {out / 'report.html'}" in cli.run("report", out).out
    text = (out / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    titles = " / ".join(page.titles)
    expected = {
        "images": ["f1_macro", "Test part", "Confusion matrix", "Calibration", "Worst mistakes", "Network"],
        "table": ["loss", "accuracy", "Test part", "Confusion matrix", "Calibration", "Columns"],
        "prices": ["loss", "R²", "neg_mean_absolute_error", "Predictions", "Largest errors", "Columns"],
    }  # fmt: skip
    assert all(title in titles for title in [*expected[kind], "Settings", "Versions", "Files"])
    assert json.loads((out / "run.json").read_text())["files"]["model.safetensors"] in text
    if kind == "images":
        assert len(page.addresses) == 24
        return
    Path(str(data)).unlink()  # the page without the data
    said = cli.run("report", out, "--out", tmp_path / "other.html").out
    assert "note: The test part is not shown" in said
    assert "Test part" not in Page((tmp_path / "other.html").read_text(encoding="utf-8")).titles
    assert "holds no run" in cli.fail("report", tmp_path).err


def test_mistakes_have_a_scale_of_their_own() -> None:
    shares = [
        int(share) for share in re.findall(r"--share: (\d+)%", matrix(np.array([[97, 3], [0, 400]]), ["<a>", "b"]))
    ]
    assert shares[1] == 85  # three of a hundred, and the strongest colour
    assert shares[2] == 0
    assert "<a>" not in matrix(np.eye(2, dtype=int), ["<a>", "b"])


def test_pictures_are_png_with_the_pixels() -> None:
    pixels = np.arange(12.0).reshape(3, 4)
    content = base64.b64decode(image(pixels, alt='"').split("base64,")[1].split('"')[0])
    assert struct.unpack(">II", content[16:24]) == (4, 3)
    start = content.index(b"IDAT") + 4
    (length,) = struct.unpack(">I", content[start - 8 : start - 4])
    lines = zlib.decompress(content[start : start + length])
    gray = np.frombuffer(lines, np.uint8).reshape(3, 5)[:, 1:]
    np.testing.assert_array_equal(gray, np.rint(255 * (1 - pixels / 11)))


def test_ticks_are_round() -> None:
    assert ticks(0.13, 0.87) == [0.2, 0.4, 0.6, 0.8]
    assert ticks(-3.0, 1234.0) == [0.0, 500.0, 1000.0]
    assert ticks(1e-5, 3e-5)[0] == 1e-5


def test_calibration_by_hand_and_by_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(3), 200)
    y = rng.integers(0, 3, 200)
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == y
    expected = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert expected_calibration_error(y, shares) == pytest.approx(expected)
    assert brier_score(y, shares) == pytest.approx(brier_score_loss(y, shares, labels=[0, 1, 2], scale_by_half=False))
    assert reliability(y, shares, 5).counts.sum() == 200
    network = gpuprop.Network((2, 2), loss="categorical_cross_entropy", seed=0, device="numpy")
    assert 0 <= expected_calibration_error([0, 1], network.forward([[0.0, 1.0], [1.0, 0.0]])) <= 1
