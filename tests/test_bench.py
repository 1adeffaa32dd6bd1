"""Benchmarks: every contender computes the same, nothing wrong is timed, no time is shown that does not count."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuprop.backends import get_ops
from gpuprop.errors import BackendUnavailableError, GpupropError
from gpuprop.measure import machine
from gpuprop.measure.bench import kernels, paper
from gpuprop.measure.bench import whole_updates as training
from gpuprop.measure.bench.kernels import KERNELS, contenders_of, validate
from gpuprop.measure.bench.measure import Contender, HostClock, Spread, take_turns
from gpuprop.measure.bench.roofline import DEVICES, Roof, Work, measure_roof, step_work
from gpuprop.measure.bench.whole_updates import CONFIGS, Composed, Config, Gpuprop
from tests.cli_tools import Cli

SHAPES = [(1, 1, 1), (7, 17, 3), (33, 7, 16)]
SMALL_ROOF = Roof("this device", {"float32": 1e10, "float64": 1e10}, 1e10, "made up")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPUPROP_DEVICE", raising=False)
    monkeypatch.setattr(kernels, "measure_roof", lambda *_, **__: SMALL_ROOF)
    return Cli(capsys)


# --- kernels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_contenders_of_a_kernel_agree(name: str, shape: Any, dtype: str) -> None:
    kernel = KERNELS[name](shape, dtype)
    for device in ("numpy", "cpu") if dtype == "float32" else ("numpy",):
        ops = get_ops(device)
        contenders = contenders_of(kernel, ops)
        assert [c.name for c in contenders][:2] == ["gpuprop", "numpy calls"]
        shares = [validate(kernel, contender, ops) for contender in contenders]
        assert None not in shares[:2]


def test_a_wrong_contender_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, ops = KERNELS["forward"]((3, 4, 5), "float32"), get_ops("numpy")
    right = kernel.composed(np)

    def slightly_off() -> dict[str, Any]:
        return {"a": right.read()["a"] + np.float32(1e-5)}

    monkeypatch.setattr(kernel, "composed", lambda xp: Contender("off", right.run, slightly_off))
    roof, results = kernels.measure([kernel], ops, rounds=1, timed=False)
    assert roof is None
    with pytest.raises(GpupropError, match=r"forward 3x4x5, off: the error is .* times its bound; nothing was timed"):
        list(results)


@pytest.mark.parametrize("name", KERNELS)
def test_work_of_a_kernel(name: str) -> None:
    one, two = (KERNELS[name]((n, 16, 12), "float64").work for n in (8, 16))
    assert one.flops > 0
    assert one.bytes > 0
    grows = name not in ("update", "max_norm")
    assert (two.flops == 2 * one.flops) is grows
    assert (two.bytes > one.bytes) is grows
    assert KERNELS[name]((8, 16, 12), "float32").work.bytes < one.bytes


# --- times --------------------------------------------------------------------------------------------------------


def test_percentiles_and_turns() -> None:
    assert Spread.of([5, 1, 4, 2, 3]) == Spread(1.8, 3.0, 4.2, 5)
    log: list[str] = []

    class Clock:
        def prepare(self, contender: Contender, *, cold: bool) -> Callable[[], float]:
            def sample() -> float:
                log.append(contender.name)
                return float(len(log))

            return sample

    contenders = [Contender(name, lambda: None, dict) for name in "ab"]
    spreads = take_turns(Clock(), contenders, 3, cold=True)
    assert log == ["a", "b"] * 3
    assert (spreads["a"].p50, spreads["b"].p50) == (3, 4)


def test_the_clock_of_the_host_counts_calls_and_waits() -> None:
    calls: list[int] = []
    waits: list[int] = []
    sample = HostClock(lambda: waits.append(len(calls))).prepare(Contender("x", lambda: calls.append(1), dict))
    before, n = len(waits), len(calls)
    assert sample() > 0
    assert waits[before:] == [n, len(calls)]
    assert len(calls) > n


def test_floors() -> None:
    roof = Roof("x", {"float32": 2e12, "float64": 1e12}, 1e11, "made up")
    assert roof.floor(Work(4e6, 100), "float32") == pytest.approx(2e-6)
    assert roof.floor(Work(4e6, 100), "float64") == pytest.approx(4e-6)
    assert roof.floor(Work(4e6, 5e5), "float64") == pytest.approx(5e-6)
    measured = measure_roof(np, HostClock(), "float32", rounds=1, size=64, copied=2**16)
    assert 0 < measured.flops["float32"] < 1e15
    assert 0 < measured.bandwidth < 1e14


def test_work_of_an_update_by_hand() -> None:
    # 2-3-1, batch 4: forward 2*4*(6 + 3), delta of the hidden layer 2*4*3, gradients 2*4*(6 + 3); 13 parameters.
    work = step_work((2, 3, 1), 4, itemsize=4, state_arrays=2)
    assert work.flops == 72 + 24 + 72
    assert work.bytes == 2 * 3 * 13 * 4 + 4 * 2 + 4 * 4
    assert [config.launches for config in CONFIGS.values()] == [3, 5, 7]
    assert all(device.source for device in DEVICES)


# --- updates and epochs -------------------------------------------------------------------------------------------

TINY = Config("tiny", (784, 5, 10), 16)


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_contenders_of_a_training_agree(device: str) -> None:
    ops = get_ops(device)
    trained = training.contenders(TINY, ops, 40)
    assert [type(one) for one in trained[:2]] == [Gpuprop, Composed]
    losses = training.validate(trained, ops)
    ours, plain = (losses[one.name] for one in trained[:2])
    assert ours == pytest.approx(plain, rel=1e-5)
    np.testing.assert_allclose(trained[0].parameters(), trained[1].parameters(), rtol=1e-3, atol=1e-5)
    for one in trained:
        one.epoch()
    assert trained[0].loss() == pytest.approx(trained[1].loss(), rel=1e-4)
    spreads = training.measure(trained, ops, rounds=1, whole_epochs=False)
    assert all(spread.p50 > 0 for spread in spreads.values())


def test_a_contender_that_trains_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ops = get_ops("numpy")
    trained = training.contenders(TINY, ops, 40)
    monkeypatch.setattr(Gpuprop, "loss", lambda self: 3.0)
    with pytest.raises(GpupropError, match=r"gpuprop \(numpy\) on tiny: got loss 3 after an epoch, expected 2\."):
        training.validate(trained, ops)


# --- the command --------------------------------------------------------------------------------------------------


def test_kernels_on_the_cpu(cli: Cli) -> None:
    arguments = ("bench", "kernels", "--device", "numpy", "--only", "forward,update", "--shape", "9x7x5")
    result = cli.run(*arguments, "--rounds", 2, "--report", "k.json")
    assert "roof: 10.0 GFLOP/s, 10.0 GB/s; made up" in result.out
    report = json.loads(Path("k.json").read_text())
    assert [r["kernel"] for r in report["results"]] == ["forward"] * 3 + ["update"] * 2
    spread = report["results"][0]["microseconds"]
    assert 0 < spread["p20"] <= spread["p50"] <= spread["p80"]
    assert report["results"][0]["gflop_per_s"] == pytest.approx(2 * 9 * 7 * 5 / spread["p50"] * 1e-3)
    assert report["roof"]["source"] == "made up"


@pytest.mark.parametrize("kind", ["step", "epoch"])
def test_step_and_epoch(kind: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIGS, "a", TINY)
    contenders = training.contenders
    monkeypatch.setattr(
        training,
        "contenders",
        lambda config, ops, n, *more, **options: contenders(config, ops, min(n, 64), *more, **options),
    )
    result = cli.run("bench", kind, "--device", "numpy", "--config", "a", "--rounds", 2, "--json")
    first, second = json.loads(result.out)["results"][:2]
    assert (first["contender"], second["contender"]) == ("gpuprop (numpy)", "numpy calls")
    assert first["times_ours"] == 1
    assert second["times_ours"] == pytest.approx(second["microseconds"]["p50"] / first["microseconds"]["p50"])


def test_a_device_whose_times_do_not_count_shows_none(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "clock_fault", lambda ops: "an emulator")
    monkeypatch.setitem(CONFIGS, "a", TINY)
    for arguments in (("kernels", "--shape", "9x7x5"), ("step", "--config", "a")):
        result = cli.run("bench", *arguments, "--device", "numpy", "--report", "r.json")
        assert result.out.rstrip().splitlines()[-2] == "no times: an emulator"
        text = Path("r.json").read_text()
        assert not re.search(r"microseconds|per_s|roof|samples", text)
        assert "share_of_bound" in text or "loss" in text


def no_gpu(name: str) -> None:
    raise BackendUnavailableError(f"device {name!r} cannot be used: CuPy is not installed")


def test_without_a_gpu_only_what_is_known(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuprop.backends.choose", no_gpu)
    for arguments, launches in ((("kernels", "--only", "head"), 1), (("step", "--config", "b"), 5)):
        result = cli.run("bench", *arguments, "--device", "cuda", "--report", "r.json")
        assert "CuPy is not installed; the figures below need no GPU" in result.out
        assert paper.MODEL in result.out
        report = json.loads(Path("r.json").read_text())
        assert report["results"][0]["launches"] == launches
        assert set(report["results"][0]["floor_microseconds"]) == {device.name for device in DEVICES}
        assert report["no_times_because"] == "there is no GPU here"
        assert '"microseconds"' not in Path("r.json").read_text()


def test_machine_code_needs_its_compilers(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuprop.measure.bench.sass.missing_tools", lambda: "ptxas is not installed")
    result = cli.fail("bench", "kernels", "--device", "numpy", "--only", "update", "--sass", "8.6")
    assert "ptxas is not installed; machine code needs pip install 'gpuprop[test]'" in result.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("kernels --only forwrad", "expected one or more of gather, forward"),
        ("kernels --shape 3x4", "such as 256x512x512"),
        ("kernels --shape 0x4x5", "such as 256x512x512"),
        ("kernels --only head --shape 3x4x17", "use kernel 'wide'"),
        ("kernels --dtype float16", "expected float32 or float64"),
        ("kernels --sass sm_86", "such as 8.6"),
        ("step --config z", "expected one or more of a, b, c"),
        ("step --rounds 0", "--rounds"),
        ("epoch --device cqu", "did you mean 'cpu'"),
    ],
)
def test_wrong_options(arguments: str, expected: str, cli: Cli) -> None:
    result = cli.fail("bench", *arguments.split())
    assert (result.status, expected in result.err) == (2, True)


def test_the_simulator_has_no_speed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator = get_ops("numpy")
    monkeypatch.setattr(simulator, "device", "cuda-sim")
    monkeypatch.setattr("gpuprop.backends.choose", lambda name: type("Chosen", (), {"reason": ""}))
    monkeypatch.setattr("gpuprop.backends.get_ops", lambda name: simulator)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert "the simulator has no speed" in cli.fail("bench", "step", "--device", "cuda-sim").err


def test_the_tile_beside_blas(cli: Cli) -> None:
    pytest.importorskip("numba", reason="without Numba there is no tile")
    found = json.loads(cli.run("bench", "tile", "--config", "a", "--rounds", 1, "--json").out)
    assert found["kind"] == "tile"
    assert [(one["config"], one["what"]) for one in found["results"]] == [("a", "forward"), ("a", "gradient")]
    rates = found["results"][0]["gflop_per_s"]
    assert found["results"][0]["ratio"] == pytest.approx(rates["tile"] / rates["blas"])
    assert "float16" in cli.fail("bench", "tile", "--dtype", "float16").err


def test_a_wrong_tile_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba", reason="without Numba there is no tile")
    from gpuprop.measure.bench import tile

    monkeypatch.setattr(tile, "_rows_times_panels", lambda left, right: (lambda times: None, lambda: left @ right + 1))
    with pytest.raises(GpupropError, match="the tile multiplies wrongly"):
        list(tile.entries(list(tile.products(["a"])), np.dtype(np.float32), 1))
