"""Where an epoch goes: one epoch of a copy of the training, taken apart by the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.backends.devices import plan as choose_plan
from gpuprop.core.plan import CountedLaunches
from gpuprop.training.beginning import begin
from gpuprop.training.callbacks.base import Callback
from gpuprop.training.epoch_updates import updates_of
from gpuprop.training.rate_finder import probe_of
from gpuprop.training.records import Progress, append_record
from gpuprop.training.run import step_callbacks
from gpuprop.training.sources import restore_sources, sources_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Profile", "profile"]

#: What each primitive of the algorithm is called in a profile, in its order.
_PRIMITIVES = {
    "take_batch": "take the rows of batches",
    "drop": "drop units",
    "forward": "forward: x W + b, and f",
    "output_delta": "loss, and the output's delta",
    "hidden_delta": "deltas of hidden layers",
    "accumulate_gradient": "gradients of weights and biases",
    "add_penalty": "penalties",
    "update": "optimizer",
}
_BETWEEN = "between these, in Python"
_WHOLE = "updates, in one compiled call after the other"
_CALLBACKS = "callbacks"


@dataclass(frozen=True)
class Profile:
    """One epoch, taken apart.

    Attributes
    ----------
    parts : dict of str to float
        Seconds of each part, in the order of the epoch; they add up to `seconds`.
    seconds : float
        Of the epoch.
    first_use : float
        How much longer the epoch before it took: compiling, loading, allocating.
    preparing : float
        Seconds for checking the data and bringing them to the device, once in a fit.
    plan_reason : str
        How updates are made and why.
    advice : str
        One sentence.
    launches : dict of str to (int, int)
        On a GPU with fused kernels: how often an epoch launches each kernel, and the bytes that these launches must
        move at least; counted, not timed.
    """

    parts: dict[str, float]
    seconds: float
    first_use: float
    preparing: float
    plan_reason: str
    advice: str
    launches: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        width = max(map(len, self.parts))
        lines = [
            f"{name:<{width}}  {1e3 * seconds:>10.3f} ms  {seconds / self.seconds:>6.1%}"
            for name, seconds in self.parts.items()
        ]
        lines.append(f"{'an epoch':<{width}}  {1e3 * self.seconds:>10.3f} ms")
        lines.append(f"once: preparing {1e3 * self.preparing:.1f} ms, first use {1e3 * self.first_use:.1f} ms")
        if self.launches:
            lines.append("launches of an epoch, and the bytes that they must move:")
            lines += [
                f"  {name:<22}{n:>8,}{n_bytes / 2**20:>12,.1f} MiB" for name, (n, n_bytes) in self.launches.items()
            ]
        return "\n".join([*lines, f"plan: {self.plan_reason}", self.advice])


@dataclass
class _Clock:
    """Adds up the seconds of parts."""

    parts: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - began


class _TimedOps:
    """The primitives of a backend, each of which is timed until the device has done it."""

    def __init__(self, ops: Any, clock: _Clock) -> None:
        self._real, self._clock = ops, clock

    def __getattr__(self, name: str) -> Any:
        primitive: Callable[..., Any] = getattr(self._real, name)
        if name not in _PRIMITIVES:
            return primitive

        def timed(*arguments: Any, **options: Any) -> Any:
            with self._clock.part(name):
                result = primitive(*arguments, **options)
                self._real.synchronize()
            return result

        setattr(self, name, timed)
        return timed


def profile(
    trainer: Any,
    X: ArrayLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    callbacks: Sequence[Callback] = (),
) -> Profile:
    """Train a copy of the network for two epochs, and say where the second one went.

    Network and trainer stay as they are. On a GPU each primitive is waited for, which takes longer than an epoch that
    is left alone.

    Parameters
    ----------
    trainer : Trainer
    X, y, sample_weight
        As for ``Trainer.fit``.
    callbacks : sequence of Callback, default=()
        Those that take part. The trainer's own do not unless they are given here, because they would write their files
        and print their lines as they do in a training.

    Examples
    --------
    >>> import gpuprop
    >>> X, y = gpuprop.datasets.make_xor()
    >>> net = gpuprop.Network((2, 8, 1), loss="binary_cross_entropy", seed=0, device="numpy")
    >>> found = gpuprop.Trainer(net, batch_size=4).profile(X, y)
    >>> abs(sum(found.parts.values()) - found.seconds) < 1e-9
    True
    """
    sources = sources_of(trainer)
    try:
        probe = probe_of(trainer)
        probe.learning_rate, probe.schedule = trainer.learning_rate, trainer.schedule
        probe.callbacks = list(callbacks)
        began = time.perf_counter()
        run = begin(probe, (X, y, sample_weight), Progress(0, 0, {}, {}), None)
        preparing = time.perf_counter() - began
        plan = choose_plan([run.training], want=trainer.plan)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
            for callback in probe.callbacks:
                callback.on_fit_begin(probe)
            epochs = [_epoch(probe, run, plan, min(epoch, probe.epochs - 1)) for epoch in range(2)]
            for callback in probe.callbacks:
                callback.on_fit_end(probe)
        launches = plan.launches() if isinstance(plan, CountedLaunches) else {}
    finally:
        restore_sources(trainer, sources)
    (first, _), (seconds, parts) = epochs
    advice = _advice(parts, seconds)
    return Profile(parts, seconds, max(0.0, first - seconds), preparing, plan.reason, advice, launches)


def _epoch(probe: Any, run: Any, plan: Any, epoch: int) -> tuple[float, dict[str, float]]:
    """Make an epoch; return its seconds, and those of its parts."""
    ops, layers, clock, inner = probe.network.ops, probe.network.layers, _Clock(), _Clock()
    watching, n_updates = step_callbacks(probe), run.training.updates_of_epoch
    of_call = 1 if watching else plan.updates_of_call
    began = time.perf_counter()
    if probe.callbacks:
        with clock.part(_CALLBACKS):
            for callback in probe.callbacks:
                callback.on_epoch_begin(probe, epoch + 1)
    with clock.part("row order and rates"):
        updates = updates_of(probe, run.training, epoch, probe.learning_rate)
    with plan.active():
        with clock.part("begin the epoch"):
            plan.begin_epoch(updates)
        layers.ops = _TimedOps(ops, inner)
        try:
            for update in range(0, n_updates, of_call):
                with clock.part("updates"):
                    plan.run(update, min(update + of_call, n_updates))
                if watching:
                    with clock.part(_CALLBACKS):
                        for callback in watching:
                            callback.on_step_end(probe, epoch + 1, update + 1)
            with clock.part("updates"):
                ops.synchronize()
        finally:
            layers.ops = ops
        with clock.part("sums, and parameters to the host"):
            (totals,) = plan.totals()
            probe.network.host_parameters()
        figures: tuple[Any, Any, dict[str, Any]] = (None, None, {})
        if run.scores is not None:
            with clock.part("validation"):
                figures = run.scores.evaluate(probe.network, 1.0)
    probe.steps_done += n_updates
    probe.epochs_done += 1
    if probe.callbacks:
        with clock.part(_CALLBACKS):
            record = _record(probe, run, totals, figures, float(updates.rates[-1]), time.perf_counter() - began)
            for callback in probe.callbacks:
                callback.on_epoch_end(probe, probe.epochs_done, record)
    seconds = time.perf_counter() - began
    parts = dict(clock.parts)
    whole = parts.pop("updates")
    if inner.parts:
        known = {text: inner.parts[name] for name, text in _PRIMITIVES.items() if name in inner.parts}
        middle = known | {_BETWEEN: whole - sum(known.values())}
    else:
        middle = {_WHOLE: whole}
    order = ("row order and rates", "begin the epoch")
    called = {name: parts.pop(name) for name in (_CALLBACKS,) if name in parts}
    found = {name: parts.pop(name) for name in order} | middle | parts | called
    found["the rest"] = seconds - sum(found.values())
    return seconds, found


def _record(probe: Any, run: Any, totals: Any, figures: tuple[Any, Any, Any], rate: float, seconds: float) -> Any:
    """Return the row of the history that callbacks get, and add it to the copy's history."""
    data, (loss, score, further) = run.training.data, figures
    metric = "r2" if data.metric == "residual" else "accuracy"
    record = {
        "epoch": probe.epochs_done,
        "train_loss": float(totals[0]) / data.total_weight,
        f"train_{metric}": data.score(float(totals[1])),
        "validation_loss": loss,
        f"validation_{metric}": score,
        **further,
        "learning_rate": rate,
        "seconds": seconds,
    }
    append_record(probe.history, record)
    return record


def _advice(parts: dict[str, float], seconds: float) -> str:
    """Return a sentence about the largest part."""
    name = max(parts, key=lambda one: parts[one])
    share = f"{parts[name] / seconds:.0%} of the epoch"
    if name == _BETWEEN:
        return f"advice: {share} is Python between primitives; larger batches make fewer updates."
    if name == _CALLBACKS:
        return f"advice: {share} is callbacks; one that is called after every update costs the most."
    if name == "validation":
        return f"advice: {share} is validation; fewer validation rows, or cheaper metrics, would do."
    if name == "take the rows of batches":
        return f"advice: {share} copies rows; 8-bit or float32 data are copied faster than float64."
    if name == _WHOLE:
        return f"advice: {share} is compiled updates, which is where an epoch belongs."
    if name in _PRIMITIVES.values():
        return f"advice: {share} is arithmetic ({name}); a smaller network, or a GPU, would shorten it."
    return f"advice: {share} is not training ({name}): the data are few for the work around an epoch."
