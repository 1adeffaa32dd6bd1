"""Benchmarks on a GPU: contenders agree, a kernel is one launch, the clock works; what it says is not looked at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from gpuprop.backends import get_ops
from gpuprop.measure import machine
from gpuprop.measure.bench import whole_updates as training
from gpuprop.measure.bench.kernels import KERNELS, contenders_of, validate
from gpuprop.measure.bench.whole_updates import CONFIGS, Config
from tests.cli_tools import Cli

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", KERNELS)
def test_contenders_of_a_kernel_agree(name: str, dtype: str) -> None:
    ops, kernel = get_ops("cuda"), KERNELS[name]((33, 17, 7), dtype)
    contenders = contenders_of(kernel, ops)
    assert [contender.name for contender in contenders][:2] == ["gpuprop", "cupy calls"]
    assert None not in [validate(kernel, contender, ops) for contender in contenders][:2]


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_one_launch(name: str, counts: Any) -> None:
    ops, kernel = get_ops("cuda"), KERNELS[name]((33, 17, 7), "float32")
    own = contenders_of(kernel, ops)[0]
    assert own.capturable
    validate(kernel, own, ops)
    with ops.active(), counts.measure() as counted:
        own.run()
    totals = counted["totals"]
    assert (totals["launches"], totals["allocs"], totals["h2d_count"], totals["syncs"]) == (1, 0, 0, 0)


@pytest.mark.parametrize("cold", [False, True])
def test_the_clock_replays_what_can_be_captured(cold: bool, counts: Any) -> None:
    from gpuprop.backends.cuda.ops import CudaOps
    from gpuprop.measure.bench.measure import SPAN_CALLS, DeviceClock

    ops = cast("CudaOps", get_ops("cuda"))
    own, composed = contenders_of(KERNELS["forward"]((33, 17, 7), "float32"), ops)[:2]
    clock = DeviceClock(ops)
    with ops.active():
        replayed, launched = (clock.prepare(contender, cold=cold) for contender in (own, composed))
        with counts.measure() as counted:
            assert replayed() > 0
        assert counted["totals"]["graph_launches"] == 1
        assert counted["totals"]["graph_kernels"] == (1 if cold else SPAN_CALLS)
        with counts.measure() as counted:
            assert launched() > 0
        assert counted["totals"]["graph_launches"] == 0


def test_contenders_of_a_training_agree() -> None:
    ops = get_ops("cuda")
    trained = training.contenders(Config("tiny", (784, 17, 10), 32), ops, 400)
    losses = training.validate(trained, ops)
    assert losses["gpuprop (cuda)"] == pytest.approx(losses["cupy calls"], rel=1e-4)
    assert training.measure(trained, ops, rounds=1, whole_epochs=True)["gpuprop (cuda)"].p50 > 0


def commands() -> Sequence[tuple[str, ...]]:
    return (("kernels", "--only", "update", "--shape", "5x4x3"), ("step", "--config", "a"))


@pytest.mark.parametrize("arguments", commands(), ids=lambda arguments: arguments[0])
def test_times_only_of_a_gpu_that_nvidia_smi_lists(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGS, "a", Config("a", (784, 17, 10), 32))
    report = tmp_path / "r.json"
    result = Cli(capsys).run("bench", *arguments, "--device", "cuda", "--report", report)
    found, counts = json.loads(report.read_text()), machine.clock_fault(get_ops("cuda")) is None
    assert ("no times: " in result.out) is not counts
    assert all(("microseconds" in entry) is counts for entry in found["results"])
