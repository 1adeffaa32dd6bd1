"""The model that says whether a precision can be faster: rates of data sheets, shapes, and what it must not promise."""

from __future__ import annotations

import pytest

from gpuprop.measure.bench.precisions import LAUNCH, PER_CLOCK, gain, product_seconds, queried_roof
from gpuprop.measure.bench.roofline import DEVICES
from tests.cli_tools import Cli

T4, A100, RTX_4090, H100 = DEVICES
LARGE = (4096, 4096, 4096)


def test_rates_are_those_of_the_issue_of_data_centre_parts() -> None:
    # TFLOP/s of three passes: 156 / 3 = 52 against 19.5, and 494.7 / 3 = 165 against 66.9.
    for roof, ratio in ((A100, 52 / 19.5), (H100, 164.9 / 66.9)):
        assert gain(roof, LARGE, "tf32x3").at_most == pytest.approx(ratio, rel=0.01)


def test_tf32x3_is_not_faster_on_geforce_parts() -> None:
    for shape in (LARGE, (128, 784, 128), (1, 1, 1), (60_000, 784, 128)):
        for precision in ("tf32x3", "tf32"):
            found = gain(RTX_4090, shape, precision)
            assert not found.can_be_faster
            assert found.reason.startswith("not faster: its tensor cores")
    assert gain(RTX_4090, LARGE, "bf16").at_most == pytest.approx(2, rel=0.01)


def test_a_device_without_tensor_cores_gains_nothing() -> None:
    found = gain(T4, LARGE, "bf16")
    assert found.at_most is None
    assert not found.can_be_faster
    assert "no tensor cores" in found.reason


def test_small_products_gain_less() -> None:
    gains = [gain(A100, (n, n, n), "bf16").at_most or 0.0 for n in (8, 64, 256, 1024, 4096)]
    assert gains == sorted(gains)
    assert gains[0] < 1.1 < 10 < gains[-1]
    # A product of few rows reads its weights: there is nothing that a faster multiplication could gain.
    tall = gain(H100, (1, 20_000, 200_000), "bf16").at_most
    assert tall == pytest.approx(1, abs=0.05)


def test_seconds_are_launch_and_the_larger_of_arithmetic_and_memory() -> None:
    found = product_seconds(A100, LARGE, "float32")
    assert found == pytest.approx(LAUNCH + 2 * 4096**3 / 19.5e12)
    # One block: one of 108 multiprocessors computes.
    assert product_seconds(A100, (64, 4096, 64), "float32") == pytest.approx(
        LAUNCH + 108 * 2 * 64 * 4096 * 64 / 19.5e12
    )


@pytest.mark.parametrize(
    ("capability", "units", "megahertz", "memory_megahertz", "bits", "sheet"),
    [((8, 0), 108, 1410, 1215, 5120, A100), ((8, 9), 128, 2520, 10501, 384, RTX_4090)],
)
def test_rates_by_what_a_driver_says_are_those_of_the_data_sheet(
    capability: tuple[int, int], units: int, megahertz: int, memory_megahertz: int, bits: int, sheet: object
) -> None:
    attributes = {
        "MultiProcessorCount": units,
        "ClockRate": megahertz * 1000,
        "MemoryClockRate": memory_megahertz * 1000,
        "GlobalMemoryBusWidth": bits,
    }
    roof = queried_roof("some device", capability, attributes)
    assert roof is not None
    expected = next(one for one in DEVICES if one is sheet)
    for kind in ("float32", "tf32", "bf16"):
        assert roof.flops[kind] == pytest.approx(expected.flops[kind], rel=0.01)
    assert roof.bandwidth == pytest.approx(expected.bandwidth, rel=0.01)


def test_an_unknown_device_gets_no_promise() -> None:
    assert queried_roof("new", (99, 0), {}) is None
    assert all(set(rates) <= {"float32", "tf32", "bf16"} for rates in PER_CLOCK.values())
    assert PER_CLOCK[7, 5].keys() == {"float32"}


def test_the_command_prints_the_model_and_no_time_without_a_gpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpuprop.backends.devices._cuda_usable", lambda index: (False, "no GPU in this test"))
    monkeypatch.setattr("gpuprop.backends.devices._kernel_runs", lambda index: (False, "no GPU in this test"))
    result = Cli(capsys)("bench", "kernels", "--device", "cuda", "--only", "forward,update", "--precision", "tf32x3")
    assert result.status == 0, result.err
    assert "not faster: its tensor cores in 3 passes" in result.out
    assert "floors by arithmetic, not times" in result.out
    assert "update  " in result.out
    assert "expected one or more of" in Cli(capsys).fail("bench", "kernels", "--precision", "fp8").err
    assert "--dtype float64" in Cli(capsys).fail("bench", "kernels", "--dtype", "float64", "--precision", "all").err


def test_the_command_measures_precisions_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--only", "forward,delta,gradient", "--shape", "9x7x5", "--rounds", "1", "--precision", "all")
    out = Cli(capsys).run("bench", "kernels", "--device", "numpy", *options).out
    for kernel in ("forward", "delta", "gradient"):
        rows = [line for line in out.splitlines() if line.startswith(kernel)]
        assert sum("gpuprop" in row for row in rows) == 4
        assert any("gpuprop bf16" in row for row in rows)
