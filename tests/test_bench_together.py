"""gpuprop bench together: every contender trains the same networks, and a wrong one is not timed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuprop.errors import GpupropError
from gpuprop.measure.bench import together
from gpuprop.measure.bench.peers.configs import initial
from tests.cli_tools import Cli


def test_all_contenders_that_are_here_end_at_the_same_losses(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    command = "bench together --config small --networks 1,3 --epochs 2 --rounds 1 --report"
    result = Cli(capsys)(*command.split(), report)
    assert result.status == 0
    results = json.loads(report.read_text())["results"]
    assert [(one["n_networks"], one["contender"]) for one in results] == [
        (count, name) for count in (1, 3) for name in together.installed()
    ]
    assert re.search(r"^small +3  together ", result.out, re.MULTILINE)


def test_a_contender_that_trains_wrongly_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def untrained(config: Any, X: Any, y: Any, orders: Any, device: str) -> Any:
        return lambda: [initial(config, seed) for seed in range(len(orders))]

    monkeypatch.setitem(together.CONTENDERS, "untrained", untrained)
    with pytest.raises(GpupropError, match="untrained: 2 networks of 8-16-4"):
        list(together.entries("small", [2], "numpy", epochs=2, rounds=1, contenders=["untrained"]))


def test_the_networks_differ_in_weights_and_orders() -> None:
    config = together.CASES["small"]
    orders = together.orders_of(config, 3, 2)
    assert len({tuple(order) for own in orders for order in own}) == 6
    assert sorted(orders[2, 1]) == list(range(config.n_samples))
    first, second = (initial(config, seed)[0][0] for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_wrong_numbers_of_networks_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    result = Cli(capsys).fail("bench", "together", "--networks", "1,many")
    assert "got --networks '1,many', expected numbers such as 1,10,100" in result.err


def test_without_a_gpu_it_says_what_is_known_of_an_epoch(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from gpuprop.backends import availability
    from gpuprop.measure.bench import sass

    if any(device.device == "cuda" and device.usable for device in availability()) or sass.missing_tools():
        pytest.skip("there is a GPU here, or Numba's package for CUDA is missing")
    report = tmp_path / "report.json"
    result = Cli(capsys)(*["bench", "together", "--device", "cuda", "--networks", "1,1000", "--report"], report)
    results = {(one["config"], one["n_networks"]): one for one in json.loads(report.read_text())["results"]}
    assert {name: results[name, 1000]["path"] for name in together.CASES} == {
        "mnist": "layer by layer",
        "small": "block",
    }
    for name, n_updates, launches in (("mnist", 100, 300), ("small", 5, 1)):
        one, many = results[name, 1], results[name, 1000]
        assert one["updates"] == n_updates
        assert one["launches"] == many["launches"] == launches
        assert many["bytes"] == 1000 * one["bytes"]
    # 8-16-4 has 212 parameters, and Adam two numbers more for each: once in and once out; 160 rows, each with a class.
    assert results["small", 1]["bytes"] == 2 * 3 * 212 * 4 + 160 * (8 + 4)
    assert results["small", 1000]["blocks_per_multiprocessor"] == pytest.approx(1000 / 108)
    # Tiles of 32x32: 25 x 2 and 2 x 1 for the weights, one for the biases of each layer.
    assert results["mnist", 1]["blocks_per_multiprocessor"] == pytest.approx((50 + 2 + 2) / 108)
    assert "no GPU took part" in result.out
    assert "seconds" not in report.read_text().replace("microseconds", "")
