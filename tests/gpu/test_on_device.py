"""Trainings on a GPU: the CPU's curve at full size, nothing between two updates, graphs and their fallback, faults."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gpuprop
from gpuprop.backends import choose, get_ops
from gpuprop.errors import DeviceError, DeviceMemoryError
from gpuprop.measure.equivalence import tolerances
from gpuprop.measure.machine import clock_fault
from tests.cli_tools import Cli

# Without numba-cuda these cannot be imported, and the tests are skipped by their fixture.
if TYPE_CHECKING or find_spec("numba_cuda"):
    from gpuprop.backends.cuda.kernel_plan import CudaPlan
    from gpuprop.backends.cuda.runtime import DeviceRuntime

pytestmark = pytest.mark.gpu

PIXELS = gpuprop.InputScaling.divide(255)


@pytest.fixture(scope="module")
def mnist() -> Any:
    from gpuprop import datasets

    return datasets.load_mnist()


def network(device: str, sizes: tuple[int, ...] = (784, 128, 10), **options: Any) -> gpuprop.Network:
    defaults: dict[str, Any] = {"loss": "categorical_cross_entropy", "seed": 0, "input_scaling": PIXELS}
    return gpuprop.Network(sizes, device=device, **(defaults | options))


def both(sizes: tuple[int, ...], options: dict[str, Any], data: tuple[Any, ...], **how: Any) -> list[gpuprop.Trainer]:
    """Train on the GPU and with plain NumPy."""
    return [gpuprop.Trainer(network(d, sizes, **options), **how).fit(*data) for d in ("cuda", "numpy")]


def largest_difference(ours: gpuprop.Trainer, plain: gpuprop.Trainer) -> float:
    """Return the largest relative difference of the loss curves, and print it."""
    names = [name for name in ("train_loss", "validation_loss") if plain.history[name][0] is not None]
    share = max(float(np.abs(np.array(ours.history[n]) / np.array(plain.history[n]) - 1).max()) for n in names)
    print(f"curves differ by {share:.3g}")
    return share


def small(n: int = 700, features: int = 20) -> tuple[Any, Any, Any]:
    """Return bytes around ten centres, classes and sample weights."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, n)
    X = np.clip(rng.integers(60, 190, (10, features))[y] + 30 * rng.standard_normal((n, features)), 0, 255)
    return X.astype(np.uint8), y, rng.uniform(0.5, 2.0, n)


def test_auto_takes_a_gpu_that_has_run_a_kernel() -> None:
    choice = choose("auto")
    assert choice.device == "cuda:0"
    assert "compute capability" in choice.reason


def test_two_epochs_of_mnist_reach_the_accuracy_of_the_cpu(mnist: Any) -> None:
    train, test = mnist
    ours, plain = both((784, 128, 10), {}, train, epochs=2, validation=test)
    # 938 updates in float32: rounding has grown tenfold since the 50 that the bound is for, most where Adam divides
    # by gradients that are nearly zero.
    assert largest_difference(ours, plain) < 100 * tolerances.CURVE[np.dtype("float32")]
    assert ours.history["validation_accuracy"][-1] > 0.955
    assert abs(ours.history["validation_accuracy"][-1] - plain.history["validation_accuracy"][-1]) < 0.003


def test_the_curve_of_the_cpu_in_float64(mnist: Any) -> None:
    (X, y), (X_test, y_test) = mnist
    train, test = (X[:4000], y[:4000]), (X_test[:500], y_test[:500])
    ours, plain = both((784, 128, 10), {"dtype": "float64"}, train, epochs=2, validation=test)
    assert largest_difference(ours, plain) < tolerances.CURVE[np.dtype("float64")]
    assert ours.history["validation_accuracy"] == plain.history["validation_accuracy"]


def test_dropout_ragged_tail_weights_and_early_stopping_together() -> None:
    X, y, weight = small()
    how: dict[str, Any] = {"validation": 0.2, "early_stopping": 2, "schedule": "cosine", "learning_rate": 0.01}
    options = {"dropout": (0.1, 0.3), "hidden_activation": ["relu", "silu"], "l2": 1e-3, "dtype": "float64"}
    ours, plain = both((20, 33, 17, 10), options, (X, y, weight), epochs=12, batch_size=32, **how)
    assert largest_difference(ours, plain) < tolerances.CURVE[np.dtype("float64")]
    assert ours.best_epoch == plain.best_epoch
    np.testing.assert_allclose(ours.network.host_parameters(), plain.network.host_parameters(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("sizes", "options", "how", "launches"),
    [
        ((20, 33, 10), {}, {}, 3),
        ((20, 33, 17, 10), {}, {}, 5),
        ((20, 33, 17), {}, {}, 4),
        ((20, 33, 10), {}, {"clip_norm": 1.0}, 4),
        ((20, 33, 10), {"l2": 0.1}, {}, 3),
        ((20, 33, 17), {"l2": 0.1}, {"clip_norm": 1.0}, 5),
        ((20, 10), {}, {}, 2),
    ],
    ids=["one hidden layer", "two", "17 classes", "clipping", "penalties", "17 classes, clipping, penalties", "none"],
)
def test_nothing_but_launches_between_two_updates(
    sizes: tuple[int, ...], options: dict[str, Any], how: dict[str, Any], launches: int, counts: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    X, y, _ = small()
    counted: list[dict[str, Any]] = []
    launch, replay = CudaPlan._launch, CudaPlan._replay

    def counting(inner: Any) -> Any:
        def call(self: CudaPlan, first: int, last: int) -> None:
            with counts.measure() as measured:
                inner(self, first, last)
            counted.append(measured["totals"] | {"updates": last - first})

        return call

    monkeypatch.setattr(CudaPlan, "_launch", counting(launch))
    monkeypatch.setattr(CudaPlan, "_replay", lambda self, first, last: self._launch(first, last))
    gpuprop.Trainer(network("cuda", sizes, **options), epochs=2, batch_size=64, plan="graph", **how).fit(X, y)
    eager = counted[-1]  # the second epoch: everything is compiled
    assert eager["launches"] == launches * eager["updates"]
    waits = ("syncs", "blocking_copies", "allocs", "async_allocs", "memset_count", "host_allocs")
    copies = tuple(f"{kind}_count" for kind in ("h2d", "d2h", "d2d", "h2h"))
    assert {name: eager[name] for name in waits + copies if eager[name]} == {}

    monkeypatch.setattr(CudaPlan, "_launch", launch)
    monkeypatch.setattr(CudaPlan, "_replay", counting(replay))
    counted.clear()
    gpuprop.Trainer(network("cuda", sizes, **options), epochs=2, batch_size=64, plan="graph", **how).fit(X, y)
    span = counted[-1]
    assert (span["graph_launches"], span["launches"]) == (1, 0)
    assert span["graph_kernels"] == launches * span["updates"]
    assert {name: span[name] for name in waits + copies if span[name]} == {}


def test_replays_give_the_bits_of_launches() -> None:
    X, y, weight = small()
    how: dict[str, Any] = {"epochs": 2, "batch_size": 64}
    replayed = gpuprop.Trainer(network("cuda", (20, 33, 10), dropout=0.2), plan="graph", **how).fit(X, y, weight)
    launched = gpuprop.Trainer(network("cuda", (20, 33, 10), dropout=0.2), plan="fused", **how).fit(X, y, weight)
    assert str(replayed.plan_reason).startswith("graph: ")
    assert launched.plan_reason == "fused: fused kernels, launched one by one as asked for"
    assert replayed.network.host_parameters().tobytes() == launched.network.host_parameters().tobytes()
    assert replayed.history["train_loss"] == launched.history["train_loss"]


@pytest.mark.parametrize("flaw", ["refused", "other numbers"])
def test_without_graphs_one_warning_and_the_same_numbers(flaw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, _ = small()
    how: dict[str, Any] = {"epochs": 2, "batch_size": 64, "plan": "graph"}
    right = gpuprop.Trainer(network("cuda", (20, 33, 10)), **how).fit(X, y)

    def record(self: DeviceRuntime, launches: Any) -> Any:
        if flaw == "refused":
            raise RuntimeError("the driver refuses to capture")
        return lambda: None

    monkeypatch.setattr(DeviceRuntime, "record", record)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours = gpuprop.Trainer(network("cuda", (20, 33, 10)), **how).fit(X, y)
    assert len(caught) == 1
    assert "CUDA graphs are not used on cuda:0: " in str(caught[0].message)
    assert ours.network.host_parameters().tobytes() == right.network.host_parameters().tobytes()


def test_out_of_memory_says_what_to_do() -> None:
    with pytest.raises(DeviceMemoryError, match=r"cuda:0: Out of memory allocating .* MiB are free; use a smaller"):
        get_ops("cuda").empty((2**20, 2**20), np.float32)
    assert network("cuda", (20, 3)).forward(np.zeros((2, 20), np.uint8)).shape == (2, 3)


def test_a_lost_device_leaves_the_last_completed_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    import cupy

    X, y, _ = small()
    kept: list[Any] = []

    class Loss(gpuprop.Callback):
        def on_epoch_end(self, trainer: gpuprop.Trainer, epoch: int, record: Mapping[str, float | None]) -> None:
            kept.append(trainer.network.host_parameters())
            if epoch == 2:

                def fail(*arguments: Any) -> None:
                    raise cupy.cuda.runtime.CUDARuntimeError(719)  # cudaErrorLaunchFailure

                monkeypatch.setattr(DeviceRuntime, "view", fail)
                monkeypatch.setattr(DeviceRuntime, "upload", fail)

    net = network("cuda", (20, 33, 10))
    with pytest.raises(DeviceError, match="cuda:0 failed: cudaErrorLaunchFailure"):
        gpuprop.Trainer(net, epochs=5, batch_size=64, callbacks=[Loss()]).fit(X, y)
    assert len(kept) == 2
    assert net.device_ == "cpu"
    np.testing.assert_array_equal(net.host_parameters(), kept[-1])
    assert net.evaluate(X, y)[1] > 0


def test_memory_that_runs_out_below_cupy_says_what_to_do_too() -> None:
    import cupy

    ops: Any = get_ops("cuda")
    with (
        pytest.raises(DeviceMemoryError, match=r"cuda:0: cudaErrorMemoryAllocation.*GPUPROP_DATA_MEMORY"),
        ops.runtime.active(),
    ):
        raise cupy.cuda.runtime.CUDARuntimeError(2)  # cudaErrorMemoryAllocation, as for pinned memory


def test_a_driver_too_old_for_the_toolkit_is_named(counts: Any) -> None:
    code = "import gpuprop.backends as b; print(b.choose('auto').reason)"
    environment = {**os.environ, "VGPU_DRIVER_VERSION": "12080"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "chose cpu: the driver supports CUDA up to 12.8 and CuPy was built for 13" in done.stdout, done.stderr


def test_images_with_dropout_weights_ragged_tail_and_early_stopping_give_the_curve_of_the_cpu(mnist: Any) -> None:
    X, y = mnist[0][0][:1500], mnist[0][1][:1500]
    weight = np.random.default_rng(1).uniform(0.5, 2.0, len(y))
    how: dict[str, Any] = {"validation": 0.1, "early_stopping": 2, "batch_size": 128, "learning_rate": 0.004}
    ours, plain = both((784, 32, 10), {"dropout": 0.2, "dtype": "float64"}, (X, y, weight), epochs=8, **how)
    assert largest_difference(ours, plain) < tolerances.CURVE[np.dtype("float64")]
    assert ours.best_epoch == plain.best_epoch
    assert ours.history["validation_accuracy"] == pytest.approx(plain.history["validation_accuracy"], rel=1e-12)


def test_a_live_bar_leaves_an_epoch_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # "!gpuprop train" in a notebook has a terminal, with a bar; asked for each update, a GPU launches them one by one.
    ran: list[int] = []
    run = CudaPlan.run

    def note(self: CudaPlan, first: int, last: int) -> None:
        ran.append(last - first)
        run(self, first, last)

    monkeypatch.setattr(CudaPlan, "run", note)
    monkeypatch.setattr("gpuprop.cli.progress.is_terminal", lambda: True)
    found = Cli(capsys).run(
        "train", "digits", "--device", "cuda", "--hidden", 8, "--epochs", 2, "--out", tmp_path / "run"
    )
    assert len(ran) == 2
    assert ran[0] == ran[1] > 1
    assert ("seconds: by the host's clock; nvidia-smi does not list" in found.out) is bool(clock_fault(get_ops("cuda")))


def test_changes_with_cupy_come_in_order() -> None:
    net, X = network("cuda", (20, 33, 10)), np.full((3, 20), 100, np.uint8)
    twin = net.copy(device="numpy")
    for one in (net, twin):
        one.weights[0][...] *= 3
        one.weights[1][:, 4] = 0.5
    np.testing.assert_allclose(net.forward(X), twin.forward(X), rtol=1e-5)
