"""RealMLP's equipment, against a second implementation that has each part as a layer of its own.

`gpuprop` trains the scaling layer and the neural-tangent parametrisation through their product with the weights. The
reference here writes them as the paper does: ``z = (x * s) W / sqrt(fan_in) + b``, with gradients by the chain rule and
Adam as published, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gpuprop
from gpuprop.backends.devices import plan as choose_plan
from gpuprop.backends.installed import loops_fault
from gpuprop.core.updates import EpochUpdates
from gpuprop.maths.optimizers import Adam
from gpuprop.training.tabular_presets import network_for_table, preset, trainer_for_table

Array = NDArray[Any]

needs_loops = pytest.mark.skipif(loops_fault() is not None, reason="without Numba every training is made by steps")
PLANS = [("numpy", "steps"), *(pytest.param("cpu", plan, marks=needs_loops) for plan in ("steps", "fused"))]

RNG = np.random.default_rng(5)
N, D, SIZE, EPOCHS = 75, 6, 16, 4
X = RNG.normal(size=(N, D))
CLASSES = (X[:, 0] * X[:, 1] > 0).astype(int) + (X[:, 2] > 1)
NUMBERS = np.column_stack([np.sin(X[:, 0]), X[:, 1] * X[:, 3]])
#: As small as its interval allows in effect, because the reference divides by it before the square root of fan_in.
ADAM = Adam(beta_1=0.9, beta_2=0.95, epsilon=1e-30)


def rows(epoch: int, n_samples: int) -> Array:
    return np.random.default_rng([epoch, 9]).permutation(n_samples)


def selu(z: Array) -> tuple[Array, Array]:
    """SELU and its derivative (Klambauer et al., 2017)."""
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    negative = alpha * np.exp(np.minimum(z, 0))
    return scale * np.where(z > 0, z, negative - alpha), scale * np.where(z > 0, 1.0, negative)


def mish(z: Array) -> tuple[Array, Array]:
    """Mish and its derivative (Misra, 2020)."""
    t = np.tanh(np.log1p(np.exp(z)))
    return z * t, t + z * (1 - t * t) / (1 + np.exp(-z))


class Reference:
    """RealMLP-TD-S as the paper writes it, from the initial weights of a network."""

    def __init__(self, network: gpuprop.Network, activation: Callable[[Array], tuple[Array, Array]]) -> None:
        self.activation = activation
        self.fan_in = network.layer_sizes[:-1]
        self.scale = np.ones(D)
        self.weights = [
            np.array(W) * math.sqrt(n) for W, n in zip(network.weights, network.layer_sizes[:-1], strict=True)
        ]
        self.biases = [np.array(b) for b in network.biases]
        self.trained = [self.scale, *self.weights, *self.biases]
        n_layers = len(self.weights)
        self.rates = [6.0] + [1.0] * n_layers + [0.1] * n_layers
        self.first = [np.zeros_like(p) for p in self.trained]
        self.second = [np.zeros_like(p) for p in self.trained]

    def forward(self, x: Array) -> list[tuple[Array, Array]]:
        """Return each layer's input and the derivative of its activation at its net input."""
        layers, a = [], x * self.scale
        for layer, (W, b, n) in enumerate(zip(self.weights, self.biases, self.fan_in, strict=True)):
            z = a @ W / math.sqrt(n) + b
            is_output = layer == len(self.weights) - 1
            layers.append((a, np.ones_like(z) if is_output else self.activation(z)[1]))
            a = z if is_output else self.activation(z)[0]
        return [*layers, (a, a)]

    def update(self, x: Array, delta_of: Callable[[Array], Array], rate: float, step: int) -> None:
        """Make one update by Adam's algorithm 1 (Kingma and Ba, 2014)."""
        *layers, (z, _) = self.forward(x)
        delta = delta_of(z) / len(x)
        of_weights: list[Array] = []
        of_biases: list[Array] = []
        for (a, _), W, n, below in zip(
            reversed(layers), reversed(self.weights), reversed(self.fan_in), [*reversed(layers[:-1]), None], strict=True
        ):
            of_weights.insert(0, a.T @ delta / math.sqrt(n))
            of_biases.insert(0, delta.sum(axis=0))
            back = delta @ W.T / math.sqrt(n)
            delta = back if below is None else back * below[1]
        gradients = [(delta * x).sum(axis=0), *of_weights, *of_biases]
        for p, g, m, v, factor in zip(self.trained, gradients, self.first, self.second, self.rates, strict=True):
            m += 0.1 * (g - m)
            v += 0.05 * (g * g - v)
            corrected = v / (1 - 0.95**step)
            with np.errstate(invalid="ignore"):
                change = np.where(corrected > 0, m / (1 - 0.9**step) / np.sqrt(corrected), 0.0)
            p -= rate * factor * change

    def train(self, delta_of: Callable[..., Array], learning_rate: float) -> None:
        """Train with the rates of coslog4, leaving out each epoch's last, incomplete batch."""
        n_batches = N // SIZE
        for step in range(EPOCHS * n_batches):
            epoch, batch = divmod(step, n_batches)
            own = rows(epoch, N)[batch * SIZE : (batch + 1) * SIZE]
            turns = math.log2(1 + 15 * step / (EPOCHS * n_batches))
            rate = learning_rate * (1 - math.cos(2 * math.pi * turns)) / 2
            self.update(X[own], partial(delta_of, own=own), rate, step + 1)


def trained(device: str, plan: str, task: Any, y: Array, **options: Any) -> tuple[Reference, gpuprop.Trainer]:
    chosen = preset("tabular", task).with_options(
        hidden=(13, 11), batch_size=SIZE, epochs=EPOCHS, optimizer=ADAM, zero_output=False
    )
    n_outputs = 3 if task == "classification" else 2
    network = network_for_table(chosen, D, n_outputs, seed=2, device=device, dtype="float64")
    reference = Reference(network, selu if task == "classification" else mish)
    trainer = trainer_for_table(chosen, network, plan=plan, row_orders=rows, **options).fit(X, y)
    return reference, trainer


@pytest.mark.parametrize(("device", "plan"), PLANS)
def test_a_classifier_is_trained_as_the_paper_writes(device: str, plan: str) -> None:
    reference, trainer = trained(device, plan, "classification", CLASSES)
    targets = np.eye(3)[CLASSES] * 0.9 + 0.1 / 3

    def delta(z: Array, own: Array) -> Array:
        p = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(p / p.sum(axis=1, keepdims=True) - targets[own])

    reference.train(delta, 0.04)
    z = reference.forward(X)[-1][0]
    expected = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(trainer.network.forward(X), expected, atol=1e-10)
    assert trainer.progress.scaling_layer is not None
    np.testing.assert_allclose(trainer.progress.scaling_layer.factors, reference.scale, atol=1e-10)


@pytest.mark.parametrize(("device", "plan"), PLANS)
def test_a_regression_is_trained_as_the_paper_writes(device: str, plan: str) -> None:
    reference, trainer = trained(device, plan, "regression", NUMBERS)
    reference.train(lambda z, own: z - NUMBERS[own], 0.07)
    np.testing.assert_allclose(trainer.network.forward(X), reference.forward(X)[-1][0], atol=1e-10)


def test_the_presets_begin_as_the_paper_says() -> None:
    network = network_for_table(preset("tabular", "classification"), 400, 3, seed=0)
    weights, biases = [np.array(W) for W in network.weights], [np.array(b) for b in network.biases]
    assert [W.shape for W in weights] == [(400, 256), (256, 256), (256, 256), (256, 3)]
    for W, b in zip(weights[:-1], biases[:-1], strict=True):  # W / sqrt(fan_in) with W ~ N(0, 1), and b ~ N(0, 1)
        assert np.std(W) * math.sqrt(len(W)) == pytest.approx(1, abs=0.02)
        assert np.abs(W).max() * math.sqrt(len(W)) > 3.5  # a uniform distribution ends at sqrt(3)
        assert np.std(b) == pytest.approx(1, abs=0.2)
    assert not weights[-1].any()
    assert not biases[-1].any()
    assert {name.name for name in network.hidden_activations} == {"selu"}


@pytest.mark.parametrize(("device", "plan"), PLANS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_factor_of_zero_freezes_a_group(device: str, plan: str, dtype: str) -> None:
    network = gpuprop.Network((D, 9, 5, 2), seed=0, device=device, dtype=dtype)
    before = [np.array(p) for p in (*network.weights, *network.biases)]
    factors = {"W2": 0.0, "biases": 0.0}
    gpuprop.Trainer(network, learning_rate_factors=factors, epochs=2, batch_size=20, plan=plan).fit(X, NUMBERS)
    changed = [bool((np.array(p) != q).any()) for p, q in zip((*network.weights, *network.biases), before, strict=True)]
    assert changed == [True, False, True, False, False, False]


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "rmsprop"])
def test_the_neural_tangent_parametrisation_of_other_optimizers(optimizer: str) -> None:
    """One layer, whose W is trained by the optimizer itself: ``z = x W / sqrt(D)``."""
    network = gpuprop.Network((D, 2), seed=1, dtype="float64", device="numpy")
    network.biases[0][...] = 0
    W = np.array(network.weights[0]) * math.sqrt(D)
    frozen = {"biases": 0.0}
    trainer = gpuprop.Trainer(
        network, optimizer=optimizer, parametrization="neural-tangent", learning_rate_factors=frozen, epochs=3,
        batch_size=25, shuffle=False, learning_rate=0.05,
    ).fit(X, NUMBERS)  # fmt: skip
    own = gpuprop.optimizers.get_optimizer(optimizer)
    state = {slot: np.zeros(W.size) for slot in own.slots}
    flat = W.reshape(-1)
    for step in range(1, 10):
        x, y = (array[(step - 1) % 3 * 25 : ((step - 1) % 3 + 1) * 25] for array in (X, NUMBERS))
        gradient = x.T @ (x @ flat.reshape(W.shape) / math.sqrt(D) - y) / 25 / math.sqrt(D)
        own.update(flat, gradient.reshape(-1), state, 0.05, step, [np.zeros(W.size) for _ in range(3)], W.size)
    np.testing.assert_allclose(trainer.network.weights[0], flat.reshape(W.shape) / math.sqrt(D), rtol=1e-6)


@needs_loops
def test_two_threads_give_the_bits_of_one() -> None:
    """Layers so wide that the updates are shared."""
    wide = np.random.default_rng(0).normal(size=(600, 40)).astype(np.float32)

    def parameters(n_threads: int) -> Array:
        chosen = preset("tabular", "regression").with_options(hidden=(300, 200), batch_size=300, epochs=3)
        network = network_for_table(chosen, 40, 1, seed=0, device="cpu")
        trainer_for_table(chosen, network, plan="fused", n_threads=n_threads).fit(wide, wide[:, :1])
        return network.host_parameters()

    np.testing.assert_array_equal(parameters(1), parameters(2))


@pytest.mark.parametrize(("device", "plan"), PLANS)
def test_a_training_that_goes_on_from_its_progress_has_the_same_bits(device: str, plan: str) -> None:
    def trainer(epochs: int) -> gpuprop.Trainer:
        network = gpuprop.Network((D, 9, 2), seed=0, device=device)
        return gpuprop.Trainer(
            network, epochs=epochs, batch_size=20, scaling_layer=True, learning_rate_factors={"scale": 3.0}, plan=plan
        )

    whole, half = trainer(4).fit(X, NUMBERS), trainer(2).fit(X, NUMBERS)
    second = gpuprop.Trainer(
        half.network, epochs=4, batch_size=20, scaling_layer=True, learning_rate_factors={"scale": 3.0}, plan=plan
    ).fit(X, NUMBERS, resume_from=half.progress)
    np.testing.assert_array_equal(second.network.host_parameters(), whole.network.host_parameters())
    assert [*half.history["train_loss"], *second.history["train_loss"][2:]] == whole.history["train_loss"]


@pytest.mark.parametrize(("device", "plan"), PLANS)
def test_a_plan_goes_on_from_any_update(device: str, plan: str) -> None:
    """The state of a plan holds the scaling layer, too."""

    def begun(seed: int) -> tuple[Any, Any, EpochUpdates]:
        network = gpuprop.Network((D, 9, 2), seed=seed, device=device)
        trainer = gpuprop.Trainer(network, batch_size=20, scaling_layer=True, plan=plan, epochs=1, seed=0)
        updates = next(trainer.training(X, NUMBERS))
        made = choose_plan([updates.training], want=plan)
        made.begin_epoch(updates)
        return network, made, updates

    network, made, updates = begun(0)
    made.run(0, 2)
    (state,) = made.state()
    made.run(2, 4)
    other, again, _ = begun(1)
    again.restore(state)
    again.run(2, 4)
    np.testing.assert_array_equal(other.host_parameters(), network.host_parameters())
    np.testing.assert_array_equal(again.totals(), made.totals())
    made.rewind()  # the scaling layer, too, is as it was before the epoch
    assert updates.training.rule.scaling_layer is not None
    np.testing.assert_array_equal(updates.training.rule.scaling_layer.factors, np.ones(D))


def test_the_kept_epoch_is_the_last_of_the_best() -> None:
    network = gpuprop.Network((D, 16, 3), loss="categorical_cross_entropy", seed=0, device="numpy")
    kept = []

    class Keep(gpuprop.Callback):
        def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
            kept.append(trainer.network.host_parameters())

    trainer = gpuprop.Trainer(
        network, epochs=30, learning_rate=0.05, batch_size=16, validation=0.1, keep_best="validation_accuracy",
        callbacks=[Keep()],
    ).fit(X, CLASSES)  # fmt: skip
    accuracies = np.array(trainer.history["validation_accuracy"])
    assert (accuracies == accuracies.max()).sum() > 1  # there is a tie to break
    best = int(np.flatnonzero(accuracies == accuracies.max())[-1])
    assert trainer.best_epoch == best + 1
    np.testing.assert_array_equal(network.host_parameters(), kept[best])


def test_an_epoch_without_its_last_rows() -> None:
    """Rows that fill no batch change nothing, and do not count in the figures of the epoch."""
    rest = N % SIZE
    spoilt = X.copy()
    spoilt[N - rest :] = 1e6

    def history(data: Array) -> dict[str, list[Any]]:
        network = gpuprop.Network((D, 7, 2), seed=0, device="numpy")
        trainer = gpuprop.Trainer(network, batch_size=SIZE, epochs=3, drop_last=True, shuffle=False)
        trainer.fit(data, NUMBERS[: len(data)])
        return {name: values for name, values in trainer.history.items() if name != "seconds"}

    spoilt_history, short_history = history(spoilt), history(X[: N - rest])
    assert spoilt_history["train_loss"] == short_history["train_loss"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate_factors": {"bias": 0.1}}, r"unknown learning_rate_factors 'bias'; did you mean 'biases'\?"),
        ({"learning_rate_factors": {"W9": 0.1}}, r"unknown learning_rate_factors 'W9'"),
        ({"learning_rate_factors": {"scale": 2.0}}, r"'scale' needs scaling_layer=True"),
        ({"learning_rate_factors": {"biases": -1.0}}, r"learning_rate_factors\['biases'\]"),
        ({"parametrization": "ntk"}, r"unknown parametrization 'ntk'"),
        ({"label_smoothing": 0.1}, r"label_smoothing: needs a loss of classes, got 'squared_error'"),
        ({"keep_best": "validation_r2"}, r"keep_best='validation_r2' needs validation data"),
        ({"keep_best": "accuracy"}, r"unknown keep_best 'accuracy'"),
        ({"scaling_layer": True, "max_norm": 1.0}, r"scaling_layer: does not go with max_norm"),
        ({"drop_last": True, "conventions": "scikit-learn"}, r"drop_last: scikit-learn's conventions"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gpuprop.Trainer(gpuprop.Network((D, 2), seed=0, device="numpy"), **options)
