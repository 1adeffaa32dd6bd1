"""Whole updates and epochs: gpuprop against PyTorch and against the same mathematics composed of array calls.

All contenders start from the same weights and visit the same rows of the same uint8 images in the same order. After an
epoch they must have the same loss, to one part in a hundred, before anything is timed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.backends.devices import plan
from gpuprop.core.rule import UpdateRule
from gpuprop.core.updates import EpochUpdates, Training
from gpuprop.errors import GpupropError
from gpuprop.maths.optimizers import Adam
from gpuprop.maths.scaling import InputScaling
from gpuprop.measure.bench.clocks import namespace
from gpuprop.measure.bench.measure import Contender, HostClock, Spread, take_turns
from gpuprop.measure.bench.roofline import step_work
from gpuprop.measure.bench.trained import CONFIGS, RATE, STEP_UPDATES, Config, Trained
from gpuprop.model.network import Network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.ops import Ops
    from gpuprop.core.plan import Backend

__all__ = ["CONFIGS", "Composed", "Config", "Gpuprop", "Trained", "contenders", "entries", "measure", "validate"]


class Gpuprop(Trained):
    """The updates that `gpuprop.Trainer` makes, on the backend given."""

    def __init__(self, ops: Ops, *arguments: Any) -> None:
        self.name, self._ops = f"gpuprop ({ops.device.partition(':')[0]})", ops
        if ops.precision != "float32":
            self.name += f" {ops.precision}"
        super().__init__(*arguments)

    def prepare(self, rows: NDArray[Any], labels: NDArray[Any]) -> None:
        network = Network(
            self.config.sizes, loss="categorical_cross_entropy", seed=0, device=self._ops.device,
            input_scaling=InputScaling.divide(255), precision=self._ops.precision, emulate=True,
        )  # fmt: skip
        network.set_parameters(self.start.flat)
        adam, size = Adam(), network.parameters.size
        state = {slot: network.ops.asarray(np.zeros(size), network.dtype) for slot in adam.slots}
        self._data, batch_size = network.prepare(rows, labels), min(self.config.batch_size, self.n_samples)
        n_updates = 100 * self.n_updates
        self._training = Training(
            network.layers, self._data, UpdateRule(adam, state), batch_size, batch_size, n_updates
        )
        self._plan, self._network = plan([self._training]), network
        self.begin(self.order)

    def begin(self, order: NDArray[np.int32]) -> None:
        n = self.n_updates
        weights = self._data.batch_weights(order, self.config.batch_size)
        rates, factors = np.full(n, RATE), np.ones(n)
        self._plan.begin_epoch(EpochUpdates(self._training, self._data, order, weights, factors, rates, self.step))

    def updates(self) -> None:
        with self._plan.active():
            self._plan.run(0, self.n_updates)
        self.step += self.n_updates

    def loss(self) -> float:
        return float(self._plan.totals()[0, 0]) / self.n_samples

    def parameters(self) -> NDArray[Any]:
        return self._network.host_parameters()


class Composed(Trained):
    """A straightforward program for NumPy or CuPy: every operation makes new arrays."""

    def __init__(self, xp: Any, *arguments: Any) -> None:
        self.name, self._xp = f"{xp.__name__} calls", xp
        super().__init__(*arguments)

    def prepare(self, rows: NDArray[Any], labels: NDArray[Any]) -> None:
        xp = self._xp
        self._rows, self._y = xp.asarray(rows), xp.asarray(self.targets)
        self._p = [xp.array(array) for array in self.start.weights + self.start.biases]
        self._m, self._v = ([xp.zeros_like(p) for p in self._p] for _ in range(2))
        self.begin(self.order)

    def begin(self, order: NDArray[np.int32]) -> None:
        self._order, self._total = self._xp.asarray(order), self._xp.zeros((), np.float64)

    def updates(self) -> None:
        for start in range(0, self.n_samples, self.config.batch_size):
            index = self._order[start : start + self.config.batch_size]
            self.step += 1
            self._update(self._gradients(self._rows[index], self._y[index]))

    def _gradients(self, rows: Any, y: Any) -> list[Any]:
        xp, n_layers = self._xp, len(self.config.sizes) - 1
        weights, biases = self._p[:n_layers], self._p[n_layers:]
        a = [rows.astype(np.float32) * np.float32(1 / 255)]
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            a.append(xp.maximum(a[-1] @ w + b, 0))
        z = a[-1] @ weights[-1] + biases[-1]
        z = z - z.max(axis=1, keepdims=True)
        e = xp.exp(z)
        total = e.sum(axis=1, keepdims=True)
        self._total += (y * (xp.log(total) - z)).sum()
        delta = (e / total - y) * np.float32(1 / len(y))
        grads_w: list[Any] = []
        grads_b: list[Any] = []
        for layer in range(n_layers - 1, -1, -1):
            grads_w.insert(0, a[layer].T @ delta)
            grads_b.insert(0, delta.sum(axis=0))
            if layer:
                delta = (delta @ weights[layer].T) * (a[layer] > 0)
        return grads_w + grads_b

    def _update(self, gradients: list[Any]) -> None:
        adam = Adam()
        rate = np.float32(adam.corrected_rate(RATE, self.step))
        b1, b2, one, epsilon = (np.float32(x) for x in (adam.beta_1, adam.beta_2, 1, adam.epsilon))
        for i, g in enumerate(gradients):
            self._m[i] = b1 * self._m[i] + (one - b1) * g
            self._v[i] = b2 * self._v[i] + (one - b2) * g**2
            self._p[i] = self._p[i] - rate * self._m[i] / (self._xp.sqrt(self._v[i]) + epsilon)

    def loss(self) -> float:
        return float(self._total) / self.n_samples

    def parameters(self) -> NDArray[Any]:
        flat = self._xp.concatenate([p.ravel() for p in self._p])
        return np.asarray(flat.get() if hasattr(flat, "get") else flat)


def contenders(
    config: Config, ops: Backend, n_samples: int, precisions: Sequence[str] = (), *, torch: bool = True
) -> list[Trained]:
    """Return gpuprop and those of its contenders that are installed, with the first `n_samples` images of MNIST.

    gpuprop is there in float32 and in all the `precisions`, which a CPU emulates; `torch` says whether PyTorch may
    take part.
    """
    from gpuprop.datasets import load_mnist

    (X, labels), _ = load_mnist()
    rows = np.ascontiguousarray(X[:n_samples])
    start = Network(config.sizes, loss="categorical_cross_entropy", seed=0, device="numpy").host_parameters()
    arguments = (config, rows, labels[:n_samples], start)
    with ops.active():
        found: list[Trained] = [Gpuprop(ops, *arguments), Composed(namespace(ops), *arguments)]
        rounding = [name for name in precisions if name != "float32"]
        found += [Gpuprop(ops.in_precision(name, emulate=ops.on_host), *arguments) for name in rounding]
    if torch and importlib.util.find_spec("torch"):
        from gpuprop.measure.bench.torch_training import TorchCompiled, TorchEager, TorchGraph, torch_device

        device = torch_device(ops)
        if device is not None:
            found.append(TorchEager(device, *arguments))
        if device is not None and device.startswith("cuda"):
            found.append(TorchGraph(device, *arguments))
            if importlib.util.find_spec("triton"):  # what torch.compile makes code with
                found.append(TorchCompiled(device, *arguments))
    return found


def validate(trained: Sequence[Trained], ops: Ops) -> dict[str, float]:
    """Train an epoch with each, and return the losses.

    Raises
    ------
    GpupropError
        If a loss differs from the composed contender's by more than one part in a hundred, or a parameter is not
        finite.
    """
    losses = {}
    with ops.active():
        for one in trained:
            one.updates()
            losses[one.name] = one.loss()
    expected = next(losses[one.name] for one in trained if isinstance(one, Composed))
    for one in trained:
        with ops.active():
            finite = np.isfinite(one.parameters()).all()
        if not finite or abs(losses[one.name] - expected) > 0.01 * expected:
            raise GpupropError(
                f"{one.name} on {one.config.name}: got loss {losses[one.name]:.6g} after an epoch, expected "
                f"{expected:.6g}; nothing was timed; run gpuprop selfcheck"
            )
    return losses


def measure(trained: Sequence[Trained], ops: Ops, *, rounds: int, whole_epochs: bool) -> dict[str, Spread]:
    """Return the seconds of an epoch of each contender, or with `whole_epochs` False of its updates alone.

    The host's clock stops when the device has finished: every library can wait for it.
    """

    def wait() -> None:
        ops.synchronize()
        for one in trained:
            one.synchronize()

    def stream(run: Any) -> Any:
        def on_stream() -> None:
            with ops.active():
                run()

        return on_stream

    timed = [Contender(one.name, stream(one.epoch if whole_epochs else one.updates), dict) for one in trained]
    return take_turns(HostClock(wait), timed, rounds, cold=False)


def entries(
    config: Config, ops: Backend, kind: str, *, rounds: int, precisions: Sequence[str] = (), torch: bool = True
) -> list[dict[str, Any]]:
    """Return what an update ("step") or an "epoch" takes with each contender, as JSON values; no times for 0 rounds.

    See `contenders` for `precisions` and `torch`.
    """
    n_samples = 60_000 if kind == "epoch" else min(60_000, STEP_UPDATES * config.batch_size)
    trained = contenders(config, ops, n_samples, precisions, torch=torch)
    losses = validate(trained, ops)
    spreads = measure(trained, ops, rounds=rounds, whole_epochs=kind == "epoch") if rounds else {}
    work, found = step_work(config.sizes, config.batch_size, 4, len(Adam().slots)), []
    for one in trained:
        entry: dict[str, Any] = {
            "config": config.name,
            "sizes": list(config.sizes),
            "batch_size": config.batch_size,
            "contender": one.name,
            "loss": losses[one.name],
            "flops": work.flops,
            "bytes": work.bytes,
        }
        spread = spreads.get(one.name)
        if spread is not None:
            units = 1 if kind == "epoch" else one.n_updates
            entry["microseconds"] = {p: getattr(spread, p) / units * 1e6 for p in ("p20", "p50", "p80")}
            entry["samples"] = spread.samples
            entry["gflop_per_s"] = work.flops * one.n_updates / spread.p50 * 1e-9
            entry["samples_per_second"] = n_samples / spread.p50
            entry["times_ours"] = spread.p50 / spreads[trained[0].name].p50
        found.append(entry)
    return found
