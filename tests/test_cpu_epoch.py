"""Many updates in one compiled call against plain NumPy, and against themselves made one at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.backends import cpu_epoch

KINDS: list[dict[str, Any]] = [
    {"hidden_activation": "relu", "loss": "categorical_cross_entropy", "optimizer": "adam", "batch_size": 7},
    {"hidden_activation": "logistic", "loss": "squared_error", "optimizer": "sgd", "batch_size": 1},
    {
        "hidden_activation": "gelu",
        "loss": "poisson",
        "optimizer": "adamw",
        "l1": 0.01,
        "l2": 0.02,
        "batch_size": 17,
        "conventions": "scikit-learn",
    },
]


def train(device: str, dtype: str, sizes: tuple[int, ...], **options: Any) -> tuple[gpuprop.Network, gpuprop.Trainer]:
    options = dict(options)
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (33, sizes[0])).astype(np.uint8)
    y = rng.random((33, sizes[-1]))
    if options["loss"] == "categorical_cross_entropy":
        y = np.eye(sizes[-1])[y.argmax(axis=1)]
    names = ("hidden_activation", "loss", "l1", "l2")
    net = gpuprop.Network(
        sizes,
        dtype=dtype,
        seed=0,
        device=device,
        input_scaling=gpuprop.InputScaling.standard(X),
        **{name: options.pop(name) for name in names if name in options},
    )
    weight = rng.random(33) if options.pop("weighted", False) else None
    trainer = gpuprop.Trainer(net, **{"epochs": 10, "learning_rate": 0.01, **options})
    return net, trainer.fit(X, y, weight)


class Counter(gpuprop.Callback):
    """Counts updates, and shows that the parameters of each are there to be seen."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []
        self.seen: list[Any] = []

    def on_step_end(self, trainer: gpuprop.Trainer, epoch: int, step: int) -> None:
        self.calls.append((epoch, step))
        self.seen.append(trainer.network.parameters.copy())


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Plan also the shortest of trainings, and tell which ones were planned."""
    monkeypatch.setattr(cpu_epoch, "FEWEST_UPDATES", 1)
    plans: list[Any] = []
    asked = cpu_epoch.covers

    def covers(*arguments: Any) -> bool:
        plans.append(asked(*arguments))
        return bool(plans[-1])

    monkeypatch.setattr(cpu_epoch, "covers", covers)
    return plans


# Each kind in one dtype: compiling one takes seconds, and the loops inside are tested in both dtypes on their own.
@pytest.mark.parametrize(("options", "dtype"), [*zip(KINDS, ["float32", "float64", "float64"], strict=True)], ids=str)
def test_planned_updates_equal_plain_numpy(options: Any, dtype: str, planned: list[Any]) -> None:
    """Over odd shapes, with and without weights; bounds as for the curves of whole runs."""
    bound = 1e-9 if dtype == "float64" else 1e-4
    no_hidden_layer = [(17, 5)] if options is KINDS[0] else []  # a kind of its own, with its own compilation
    for index, sizes in enumerate([(1, 1, 1), (7, 17, 33, 3), (33, 7, 17, 1), *no_hidden_layer]):
        net, trainer = train("numpy", dtype, sizes, weighted=index % 2 == 1, **options)
        cpu, cpu_trainer = train("cpu", dtype, sizes, weighted=index % 2 == 1, **options)
        assert planned.pop()
        scale = float(np.abs(net.parameters).max())
        np.testing.assert_allclose(cpu.parameters, net.parameters, rtol=bound, atol=bound * scale)
        history, cpu_history = (
            {name: column for name, column in t.history.items() if column[0] is not None and name != "seconds"}
            for t in (trainer, cpu_trainer)
        )
        assert list(history) == list(cpu_history)
        for name, column in history.items():
            np.testing.assert_allclose(cpu_history[name], column, rtol=10 * bound, atol=bound)


def test_one_at_a_time_and_all_at_once_give_the_same_bits(planned: list[Any]) -> None:
    counter = Counter()
    at_once, _ = train("cpu", "float32", (7, 17, 33, 3), **KINDS[0])
    again, _ = train("cpu", "float32", (7, 17, 33, 3), **KINDS[0])
    watched, _ = train("cpu", "float32", (7, 17, 33, 3), callbacks=[counter], **KINDS[0])
    assert len(planned) == 3
    assert all(planned)
    np.testing.assert_array_equal(again.parameters, at_once.parameters)
    np.testing.assert_array_equal(watched.parameters, at_once.parameters)
    assert counter.calls == [(epoch, step) for epoch in range(1, 11) for step in range(1, 6)]
    assert len({seen.tobytes() for seen in counter.seen}) == 50
    np.testing.assert_array_equal(counter.seen[-1], at_once.parameters)


def test_divergence_is_explained(planned: list[Any]) -> None:
    with pytest.raises(gpuprop.NonFiniteLossError, match=r"epoch 1, step 2 of 33: the loss became.*learning rate"):
        train("cpu", "float32", (7, 17, 33, 3), **{**KINDS[1], "learning_rate": 1e25})
    assert all(planned)


@pytest.mark.parametrize(
    "options",
    [{"clip_norm": 1.0}, {"max_norm": 1.0}, {"accumulation_steps": 2}, {"batch_size": 33, "epochs": 1}],
    ids=str,
)
def test_what_is_not_covered_takes_the_primitives(
    options: Any, planned: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "batch_size" in options:
        monkeypatch.setattr(cpu_epoch, "LARGEST_STEP", 33 * 7)
    net, _ = train("numpy", "float64", (7, 5, 3), **{**KINDS[0], **options})
    cpu, _ = train("cpu", "float64", (7, 5, 3), **{**KINDS[0], **options})
    assert planned == [False]
    np.testing.assert_allclose(cpu.parameters, net.parameters, rtol=1e-9, atol=1e-12)
