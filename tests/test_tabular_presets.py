"""RealMLP's equipment, against a second implementation that has each part as a layer of its own.

`gpuprop` trains the scaling layer and the neural-tangent parametrisation through their product with the weights. The
reference here writes them as the paper does: ``z = (x * s) W / sqrt(fan_in) + b``, with gradients by the chain rule and
Adam as published, in float64.
"""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gpuprop
from gpuprop.backends.devices import plan as choose_plan
from gpuprop.backends.installed import loops_fault
from gpuprop.core.embedding import InputEmbedding
from gpuprop.core.updates import EpochUpdates
from gpuprop.maths.optimizers import Adam
from gpuprop.model.spec_views import check_place
from gpuprop.training.tabular_presets import network_for_table, preset, trainer_for_table

Array = NDArray[Any]

needs_loops = pytest.mark.skipif(loops_fault() is not None, reason="without Numba every training is made by steps")
PLANS = [("numpy", "steps"), *(pytest.param("cpu", plan, marks=needs_loops) for plan in ("steps", "fused"))]

RNG = np.random.default_rng(5)
N, D, SIZE, EPOCHS = 75, 6, 16, 4
X = RNG.normal(size=(N, D))
CLASSES = (X[:, 0] * X[:, 1] > 0).astype(int) + (X[:, 2] > 1)
NUMBERS = np.column_stack([np.sin(X[:, 0]), X[:, 1] * X[:, 3]])
#: Without an epsilon: the paper adds it to the root of the corrected second moment, and gpuprop, as scikit-learn, to
#: the root of the second moment as it is.
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


@needs_loops
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_fused_updates_are_those_of_steps_where_epsilon_shows(task: str) -> None:
    """One-hot inputs, whose zeros the fused loops skip, and an epsilon that tells every factor of a gradient."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 40, 300)
    data = np.column_stack([rng.normal(size=300), np.where(np.eye(40)[codes] > 0, 1.66, 0.0)])
    targets = codes % 3 if task == "classification" else np.sin(codes) + data[:, 0]

    def parameters(plan: str) -> Array:
        chosen = preset("tabular", task).with_options(  # type: ignore[arg-type]
            hidden=(70, 50), batch_size=64, epochs=3, optimizer=Adam(beta_2=0.95, epsilon=1e-3)
        )
        network = network_for_table(chosen, 41, 3 if task == "classification" else 1, device="cpu", dtype="float64")
        trainer = trainer_for_table(chosen, network, plan=plan, n_threads=1).fit(data, targets)
        assert trainer.plan_reason is not None
        assert trainer.plan_reason.startswith(plan)
        return network.host_parameters()

    expected = parameters("steps")
    for plan in ("fused", "dense"):
        np.testing.assert_allclose(parameters(plan), expected, atol=1e-11)


def test_an_input_that_no_training_row_has_counts_nothing() -> None:
    """A category's value that only a held-out or a later row has would get a random answer by untrained weights."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal(300), np.zeros(300), rng.integers(0, 2, 300)])
    chosen = preset("tabular", "regression").with_options(epochs=2)
    net = network_for_table(chosen, 3, 1, rows=X, seed=0, device="cpu")
    assert [bool(row.any()) for row in net.weights[0]] == [True, False, True]
    trainer_for_table(chosen, net, plan="steps").fit(X, X[:, :1])
    new = np.array([[0.3, 1.7, 1.0], [0.3, 0.0, 1.0]])
    assert np.ptp(net.predict(new)) == 0


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


# --- the larger preset -----------------------------------------------------------------------------------------------

EMBEDDING = InputEmbedding(n_numbers=3, n_plain=1, categories=(9, 4))
MIXED = np.column_stack([X[:, :3], CLASSES == 1, np.arange(N) % 9, np.arange(N) * 3 % 4]).astype(float)


def larger_network(activation: str = "selu", dtype: str = "float64", **options: Any) -> gpuprop.Network:
    sizes = (EMBEDDING.n_outputs, 7, 5, 3)
    network = gpuprop.Network(
        sizes, hidden_activation=activation, loss="categorical_cross_entropy", slopes=True, embedding=EMBEDDING,
        dtype=dtype, seed=0, **options,
    )  # fmt: skip
    for slopes in network.layers.parameters.slopes:
        slopes[...] = np.linspace(0.5, 1.5, len(slopes))
    return network


@pytest.mark.parametrize("device", ["numpy", "cpu"])
@pytest.mark.parametrize("activation", ["selu", "mish", "relu", "tanh"])
def test_gradients_of_slopes_and_embeddings_against_finite_differences(activation: str, device: str) -> None:
    network = larger_network(activation, device=device, l2=0.01)
    _, gradient = network.objective(network.prepare(MIXED, CLASSES))()
    start, expected = network.host_parameters(), np.zeros(network.n_parameters)
    for i in range(network.n_parameters):
        for sign in (1, -1):
            moved = start.copy()
            moved[i] += sign * 1e-6
            network.set_parameters(moved)
            expected[i] += sign * network.loss(MIXED, CLASSES) / 2e-6
    np.testing.assert_allclose(gradient, expected, atol=5e-9)
    assert (expected != 0).mean() > 0.95  # all categories occur


def test_what_an_embedding_computes() -> None:
    """The formula of the paper, number by number, and rows of the tables; codes out of range are the first row."""
    rng = np.random.default_rng(1)
    numbers, tables = (rng.normal(size=size) for size in EMBEDDING.sizes)
    x = MIXED[:4].copy()
    x[0, 4], x[1, 4] = 9, -1  # codes that training has not seen
    out = np.empty((4, EMBEDDING.n_outputs))
    EMBEDDING.forward(x, [numbers, tables], out)
    f = 16
    w1, b1, w2, b2 = np.split(numbers, np.cumsum([3 * f, 3 * f, 3 * f * 3]))
    expected = []
    for row in x:
        periodic = []
        for n, k in itertools.product(range(3), range(3)):
            waves = [math.cos(2 * math.pi * w1[n * f + i] * row[n] + b1[n * f + i]) for i in range(f)]
            periodic.append(sum(w2[(n * f + i) * 3 + k] * wave for i, wave in enumerate(waves)) + b2[n * 3 + k])
        code = int(row[4]) if 0 <= row[4] < 9 else 0
        first, second = tables[: 9 * 8].reshape(9, 8)[code], tables[9 * 8 :].reshape(4, 8)[int(row[5])]
        expected.append([*periodic, *row[:4], *first, *second])
    np.testing.assert_allclose(out, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_files_and_pickles_keep_slopes_and_embeddings(tmp_path: Path, dtype: str) -> None:
    network = larger_network(dtype=dtype, device="cpu")
    network.save(tmp_path / "model.safetensors")
    for again in (gpuprop.load(tmp_path / "model.safetensors", "cpu"), pickle.loads(pickle.dumps(network))):
        np.testing.assert_array_equal(again.host_parameters(), network.host_parameters())
        np.testing.assert_array_equal(again.forward(MIXED), network.forward(MIXED))


def test_a_device_that_cannot_compute_them_says_so() -> None:
    elsewhere: Any = SimpleNamespace(on_host=False, device="cuda:0")
    with pytest.raises(gpuprop.BackendUnavailableError, match="computed on the host only; use device='cpu'"):
        check_place(larger_network(device="numpy").spec, elsewhere)
    check_place(gpuprop.Network((2, 2), seed=0, device="numpy").spec, elsewhere)
    with pytest.raises(ValueError, match=r"embedding: gives 29 numbers, expected 5"):
        gpuprop.Network((5, 2), embedding=EMBEDDING)


def test_the_fitted_start() -> None:
    """Net inputs without biases have deviation 1, and a bias lies among the net inputs of five rows."""
    chosen = preset("tabular-large", "classification").with_options(hidden=(40, 30))
    network = network_for_table(chosen, EMBEDDING, 3, seed=0, rows=MIXED, device="cpu", dtype="float64")
    for layer, biases in enumerate(network.biases):
        net_inputs = network.net_inputs(MIXED)[layer] - biases
        np.testing.assert_allclose(net_inputs.std(axis=0), 1, rtol=1e-9)
        assert (-biases >= net_inputs.min(axis=0)).all()
        assert (-biases <= net_inputs.max(axis=0)).all()
        assert np.std(biases) > 0.1


@pytest.mark.parametrize(("device", "plan"), [("numpy", "steps"), ("cpu", "steps")])
def test_weight_decay_and_dropout_follow_their_schedules(device: str, plan: str) -> None:
    """Frozen parameters change by decay alone, whose product is known; and dropout ends where its schedule is 0."""
    network = gpuprop.Network((D, 8, 2), seed=0, device=device, dtype="float64", dropout=0.5)
    before = [np.array(p) for p in (*network.weights, *network.biases)]
    trainer = gpuprop.Trainer(
        network, epochs=4, batch_size=15, learning_rate=0.1, schedule="coslog", weight_decay=0.5, plan=plan,
        weight_decay_schedule="flat_cosine", weight_decay_factors={"W2": 3.0, "b1": 2.0, "biases": 1.0},
        dropout_schedule="flat_cosine", learning_rate_factors={"weights": 0.0, "biases": 0.0},
    )  # fmt: skip
    trainer.fit(X, NUMBERS)
    t = np.arange(20) / 20  # 5 updates an epoch
    rates = 0.1 * (1 - np.cos(2 * np.pi * np.log2(1 + 15 * t))) / 2
    decays = rates * 0.5 * (1 + np.cos(np.pi * (np.maximum(1, 2 * t) - 1))) / 2
    for now, old, factor in zip((*network.weights, *network.biases), before, (1, 3, 2, 1), strict=True):
        np.testing.assert_allclose(now, old * np.prod(1 - factor * decays), rtol=1e-9)
    # Of frozen parameters, the losses of the epochs differ by dropout alone (and by the decay, which is known).
    assert trainer.plan_reason is not None
    assert "steps" in trainer.plan_reason


def test_a_schedule_of_zero_drops_nothing() -> None:
    @dataclass(frozen=True)
    class Never(gpuprop.schedules.Schedule):
        name = "never"

        def rates(self, learning_rate: float, position: Any) -> Array:
            return np.zeros(position.steps_per_epoch)

    def parameters(dropout: float, schedule: Any) -> Array:
        network = gpuprop.Network((D, 8, 2), seed=0, device="numpy", dropout=dropout)
        return gpuprop.Trainer(network, epochs=2, dropout_schedule=schedule).fit(X, NUMBERS).network.host_parameters()

    np.testing.assert_array_equal(parameters(0.5, Never()), parameters(0.0, None))
    assert (parameters(0.5, None) != parameters(0.0, None)).any()


@needs_loops
def test_the_fused_loops_say_what_they_do_not_know() -> None:
    larger = larger_network(device="cpu")
    plain = gpuprop.Network((6, 3), loss="categorical_cross_entropy", seed=0, device="cpu")
    with pytest.raises(gpuprop.PlanError, match=r"plan 'fused': the network has slopes"):
        gpuprop.Trainer(larger, plan="fused").fit(MIXED, CLASSES)
    with pytest.raises(gpuprop.PlanError, match=r"plan 'fused': parameters decay apart"):
        gpuprop.Trainer(plain, plan="fused", weight_decay=0.1).fit(MIXED, CLASSES)


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
