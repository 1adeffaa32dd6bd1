"""The statistics of speedruns, on accuracies that are made up; and one short run of the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gpuprop.measure.bench import speedrun
from tests.cli_tools import Cli


def test_p_is_that_of_scipys_test_of_a_mean() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 5, 31):
        accuracies = rng.normal(0.981, 0.001, n).tolist()
        expected = stats.ttest_1samp(accuracies, 0.98, alternative="greater").pvalue
        assert speedrun.p_value(accuracies, 0.98) == pytest.approx(expected, rel=1e-9)
    assert speedrun.p_value([0.99, 0.99], 0.98) == 0
    assert speedrun.p_value([0.98, 0.98], 0.98) == 1
    assert speedrun.verdict([0.99], 0.98) == speedrun.Verdict(0.99, None, None, False)


def made_up(mean: float, rng: np.random.Generator, asked: list[int]) -> speedrun.Attempt:
    def attempt(seed: int) -> tuple[float, float]:
        asked.append(seed)
        return float(rng.normal(mean, 0.001)), 1.0

    return attempt


def test_a_mean_at_the_mark_is_called_met_in_at_most_one_of_a_hundred_cases() -> None:
    rng, n_runs = np.random.default_rng(1), 2000
    met = sum(speedrun.run(made_up(0.98, rng, []), 0.98, 32)[1] for _ in range(n_runs))
    assert met <= stats.binom.ppf(0.999, n_runs, speedrun.LEVEL)
    assert met > 0  # the looks are not so strict that none is


def test_a_mean_above_the_mark_is_met_with_few_seeds_and_one_below_never_is() -> None:
    rng = np.random.default_rng(2)
    asked: list[int] = []
    made, met = speedrun.run(made_up(0.985, rng, asked), 0.98, 32)
    assert (met, len(made), asked) == (True, speedrun.FIRST_LOOK, list(range(speedrun.FIRST_LOOK)))
    needed = [len(speedrun.run(made_up(0.9805, rng, []), 0.98, 64)[0]) for _ in range(50)]
    assert np.median(needed) in (32, 64)  # half a deviation takes about (2.7 / 0.5)^2 seeds
    made, met = speedrun.run(made_up(0.979, rng, []), 0.98, 20)
    assert (met, len(made)) == (False, 20)
    assert speedrun.run(made_up(0.99, rng, []), 0.98, 3)[1] is False  # fewer than the first look takes


def test_the_command_trains_and_reports(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(speedrun.MARKS, 0.975, speedrun.Recipe((8,), 1, 512, 0.01))
    report = tmp_path / "speedrun.json"
    result = Cli(capsys).run(
        "bench", "speedrun", "--mark", "97.5", "--seeds", "2", "--device", "cpu", "--report", report
    )
    (entry,) = json.loads(report.read_text())["results"]
    assert (entry["mark"], entry["seeds"], entry["met"], len(entry["accuracies"])) == (0.975, 2, False, 2)
    assert 0.3 < entry["mean"] < 0.975
    assert "784-8-10, 1 epoch" in result.out
    assert "not shown" in result.out
    for mark in ("97", "best"):
        assert "97.5" in Cli(capsys).fail("bench", "speedrun", "--mark", mark).err


def test_the_page_says_what_the_histories_and_the_report_hold() -> None:
    root = Path(__file__).parent.parent
    results = root / "benchmarks" / "results" / "cpu"
    if not results.exists():
        pytest.skip("only a checkout has the histories of the runs")
    page = (root / "docs" / "mnist.md").read_text(encoding="utf-8")
    for name in ("dropout", "deformations"):
        lines = (results / f"mnist-{name}.csv").read_text(encoding="utf-8").splitlines()
        last = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}`"))
        assert f"| {last['epoch']} |" in row
        assert f"{float(last['validation_accuracy']):.2%}" in row.replace(" %", "%")
    for entry in json.loads((results / "speedrun-epyc.json").read_text(encoding="utf-8"))["results"]:
        (row,) = (line for line in page.splitlines() if line.startswith(f"| {100 * entry['mark']:.1f} %"))
        again = speedrun.verdict(entry["accuracies"], entry["mark"])
        assert (entry["met"], again.met) == (True, True)
        for said in (entry["name"], f"| {entry['seeds']} |", f"{100 * entry['mean']:.2f} %", f"{entry['p']:.1g}"):
            assert said in row
