"""The Trainer: reproducible runs, validation, early stopping, callbacks, accumulation, and what ends a run early."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.training.orders import counter_based_orders

X_BLOBS = np.random.default_rng(5).normal(size=(90, 4)).astype(np.float32)
Y_BLOBS = (X_BLOBS[:, 0] + X_BLOBS[:, 1] * X_BLOBS[:, 2] > 0).astype(np.int64)


def classifier(**options: Any) -> gpuprop.Network:
    options = {"hidden_activation": "tanh", "loss": "categorical_cross_entropy", "seed": 3, **options}
    return gpuprop.Network((4, 9, 2), **options)


def digest(net: gpuprop.Network) -> str:
    return hashlib.sha256(np.asarray(net.parameters).tobytes()).hexdigest()


# --- the same seed, the same bits -----------------------------------------------------------------------------

RUN = """
import sys; sys.path.insert(0, {root!r})
from tests.test_training import classifier, digest, X_BLOBS, Y_BLOBS
import gpuprop
net = classifier(dropout=(0.1, 0.3))
gpuprop.Trainer(net, epochs=3, batch_size=16, validation=0.2).fit(X_BLOBS, Y_BLOBS)
print(digest(net))
"""


def test_same_seed_same_bits_in_one_process_and_in_two(pytestconfig: pytest.Config) -> None:
    digests = set()
    for _ in range(2):
        net = classifier(dropout=(0.1, 0.3))
        gpuprop.Trainer(net, epochs=3, batch_size=16, validation=0.2).fit(X_BLOBS, Y_BLOBS)
        digests.add(digest(net))
    code = RUN.format(root=str(pytestconfig.rootpath))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert digests == {done.stdout.strip()}


def test_another_seed_another_run() -> None:
    first, second = classifier(seed=1), classifier(seed=1)
    gpuprop.Trainer(first, epochs=1, batch_size=16).fit(X_BLOBS, Y_BLOBS)
    gpuprop.Trainer(second, epochs=1, batch_size=16, seed=9).fit(X_BLOBS, Y_BLOBS)
    assert digest(first) != digest(second)


def test_float32_follows_the_float64_curve() -> None:
    curves = []
    for dtype in ("float32", "float64"):
        trainer = gpuprop.Trainer(classifier(dtype=dtype), epochs=9, batch_size=16).fit(X_BLOBS, Y_BLOBS)
        curves.append(trainer.history["train_loss"])
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-4)


# --- row orders -----------------------------------------------------------------------------------------------


def test_orders_are_permutations_keyed_by_seed_and_epoch() -> None:
    orders = counter_based_orders(7)
    for epoch in (0, 1, 10**6):
        assert sorted(orders(epoch, 33)) == list(range(33))
    np.testing.assert_array_equal(orders(4, 33), counter_based_orders(7)(4, 33))
    assert not np.array_equal(orders(4, 33), orders(5, 33))
    assert not np.array_equal(orders(4, 33), counter_based_orders(8)(4, 33))


def test_own_orders_decide() -> None:
    seen = []

    def reversed_rows(epoch: int, n_samples: int) -> Any:
        seen.append((epoch, n_samples))
        return np.arange(n_samples)[::-1]

    own, turned = classifier(), classifier()
    gpuprop.Trainer(own, epochs=2, batch_size=16, row_orders=reversed_rows).fit(X_BLOBS, Y_BLOBS)
    gpuprop.Trainer(turned, epochs=2, batch_size=16, shuffle=False).fit(X_BLOBS[::-1], Y_BLOBS[::-1])
    assert seen == [(0, 90), (1, 90)]
    assert digest(own) == digest(turned)


@pytest.mark.parametrize(
    ("order", "message"),
    [(np.arange(5), "expected 90 row numbers"), (np.arange(90.0), "float64"), (np.arange(1, 91), "rows 1 to 90")],
)
def test_wrong_orders_are_refused(order: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gpuprop.Trainer(classifier(), row_orders=lambda epoch, n: order).fit(X_BLOBS, Y_BLOBS)


# --- batches --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 89, 90, 91, 1000, None])
def test_any_batch_size(batch_size: int | None) -> None:
    trainer = gpuprop.Trainer(classifier(), epochs=2, batch_size=batch_size, learning_rate=0.01)
    trainer.fit(X_BLOBS, Y_BLOBS)
    assert trainer.steps_per_epoch == {1: 90, 89: 2}.get(batch_size or 90, 1)
    assert trainer.steps_done == 2 * trainer.steps_per_epoch
    assert trainer.history["train_loss"][1] < trainer.history["train_loss"][0]


@pytest.mark.parametrize("options", [{}, {"dropout": (0.2, 0.4), "l1": 0.001, "l2": 0.01}])
def test_micro_batches_equal_one_large_batch(options: Any) -> None:
    small, large = (classifier(dtype="float64", **options) for _ in range(2))
    weight = np.random.default_rng(0).random(90)
    a = gpuprop.Trainer(small, batch_size=8, accumulation_steps=4, epochs=3).fit(X_BLOBS, Y_BLOBS, weight)
    b = gpuprop.Trainer(large, batch_size=32, epochs=3).fit(X_BLOBS, Y_BLOBS, weight)
    assert a.steps_done == b.steps_done == 9
    np.testing.assert_allclose(small.parameters, large.parameters, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(a.history["train_loss"], b.history["train_loss"], rtol=1e-9)


def test_zero_weights_are_as_if_the_rows_were_absent() -> None:
    with_them, without = (classifier(dtype="float64") for _ in range(2))
    weight = (np.arange(90) < 60).astype(float)
    gpuprop.Trainer(with_them, optimizer="sgd", batch_size=None, epochs=5).fit(X_BLOBS, Y_BLOBS, weight)
    gpuprop.Trainer(without, optimizer="sgd", batch_size=None, epochs=5).fit(X_BLOBS[:60], Y_BLOBS[:60])
    np.testing.assert_allclose(with_them.parameters, without.parameters, rtol=1e-9, atol=1e-12)


# --- history, validation, early stopping ----------------------------------------------------------------------

COLUMNS = [
    "epoch",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "learning_rate",
    "seconds",
]


def test_history() -> None:
    net = classifier()
    trainer = gpuprop.Trainer(net, epochs=3, validation=(X_BLOBS[:20], Y_BLOBS[:20]), schedule="exponential")
    history = trainer.fit(X_BLOBS[20:], Y_BLOBS[20:]).history
    assert list(history) == COLUMNS
    assert all(len(column) == 3 for column in history.values())
    assert history["epoch"] == [1, 2, 3]
    loss, accuracy = net.evaluate(X_BLOBS[:20], Y_BLOBS[:20])
    assert history["validation_loss"][-1] == loss
    assert history["validation_accuracy"][-1] == accuracy
    np.testing.assert_allclose(history["learning_rate"], 0.001 * 0.95 ** np.arange(3))


def test_train_loss_is_the_mean_over_the_epoch() -> None:
    """With a learning rate too small to move anything, it is the loss of the data."""
    net = classifier(dtype="float64", l2=0.1, l1=0.01)
    weight = np.random.default_rng(0).random(90)
    expected = net.evaluate(X_BLOBS, Y_BLOBS, weight)
    trainer = gpuprop.Trainer(net, optimizer="sgd", learning_rate=1e-12, batch_size=16, epochs=1)
    history = trainer.fit(X_BLOBS, Y_BLOBS, weight).history
    assert history["train_loss"][0] == pytest.approx(expected[0], rel=1e-9)
    assert history["train_accuracy"][0] == pytest.approx(expected[1], rel=1e-12)


def test_regression_reports_r2() -> None:
    rng = np.random.default_rng(0)
    y = X_BLOBS @ rng.normal(size=(4, 2)) + 3.0
    net = gpuprop.Network((4, 16, 2), seed=0)
    history = (
        gpuprop.Trainer(net, epochs=150, batch_size=16, learning_rate=0.01, validation=0.2).fit(X_BLOBS, y).history
    )
    assert [name for name in history if "r2" in name] == ["train_r2", "validation_r2"]
    assert history["validation_r2"][-1] > 0.95


def test_validation_share_is_held_out_and_seeded() -> None:
    net = classifier()
    trainer = gpuprop.Trainer(net, epochs=1, validation=0.25)
    trainer.fit(X_BLOBS, Y_BLOBS)
    assert trainer.n_samples == 90 - 22
    losses = [
        gpuprop.Trainer(classifier(), epochs=1, validation=0.25, seed=seed).fit(X_BLOBS, Y_BLOBS).history
        for seed in (0, 0, 1)
    ]
    assert losses[0]["validation_loss"] == losses[1]["validation_loss"] != losses[2]["validation_loss"]


def test_early_stopping_restores_the_best_parameters() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 90)  # nothing to learn: validation soon gets worse
    net = gpuprop.Network((4, 64, 2), loss="categorical_cross_entropy", seed=0)
    validation = (X_BLOBS[:30], labels[:30])
    trainer = gpuprop.Trainer(
        net, epochs=500, batch_size=10, learning_rate=0.01, validation=validation, early_stopping=4
    )
    trainer.fit(X_BLOBS[30:], labels[30:])
    losses = trainer.history["validation_loss"]
    best = int(np.argmin(losses))
    assert trainer.epochs_done == len(losses) == best + 1 + 4 < 500
    assert trainer.best_epoch == best + 1
    assert net.evaluate(*validation)[0] == min(losses)


def test_early_stopping_without_validation_watches_the_training_loss() -> None:
    net = classifier()
    trainer = gpuprop.Trainer(net, optimizer="sgd", learning_rate=1e-9, early_stopping=2, epochs=50, shuffle=False)
    trainer.fit(X_BLOBS, Y_BLOBS)
    assert trainer.epochs_done < 50


def test_a_second_fit_goes_on_from_the_parameters() -> None:
    net = classifier()
    trainer = gpuprop.Trainer(net, epochs=3)
    first = trainer.fit(X_BLOBS, Y_BLOBS).history["train_loss"]
    second = trainer.fit(X_BLOBS, Y_BLOBS).history["train_loss"]
    assert len(second) == 3
    assert second[0] < first[0]


# --- callbacks, and what ends a run early ---------------------------------------------------------------------


class Recorder(gpuprop.Callback):
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def on_fit_begin(self, trainer: gpuprop.Trainer) -> None:
        self.calls.append(("begin", trainer.steps_per_epoch))

    def on_epoch_begin(self, trainer: gpuprop.Trainer, epoch: int) -> None:
        self.calls.append(("epoch", epoch))

    def on_step_end(self, trainer: gpuprop.Trainer, epoch: int, step: int) -> None:
        self.calls.append(("step", epoch, step))

    def on_epoch_end(self, trainer: gpuprop.Trainer, epoch: int, record: Mapping[str, float | None]) -> None:
        self.calls.append(("end", epoch, record["train_loss"] == trainer.history["train_loss"][-1]))
        if epoch == 2:
            trainer.stop_training()

    def on_fit_end(self, trainer: gpuprop.Trainer) -> None:
        self.calls.append(("done", trainer.epochs_done))


def test_callbacks_are_called_in_order_and_may_stop() -> None:
    recorder = Recorder()
    gpuprop.Trainer(classifier(), epochs=9, batch_size=50, callbacks=[recorder]).fit(X_BLOBS, Y_BLOBS)
    epochs = [[("epoch", e), ("step", e, 1), ("step", e, 2), ("end", e, True)] for e in (1, 2)]
    assert recorder.calls == [("begin", 2), *epochs[0], *epochs[1], ("done", 2)]


def test_unit_activity_counts_zeros_and_dead_units() -> None:
    network = gpuprop.Network((2, 3, 2, 1), init=lambda rng, fan_in, fan_out: np.ones((fan_in, fan_out)), seed=0)
    network.weights[0][:, 1] = -1.0  # dead on inputs that are positive
    X = np.array([[1.0, 1.0], [1.0, 1.0], [-3.0, -3.0], [2.0, 2.0]])
    activity = gpuprop.callbacks.UnitActivity(X[:2])
    trainer = gpuprop.Trainer(network, learning_rate=1e-9, epochs=2, callbacks=[activity]).fit(X, np.zeros(4))
    assert trainer.history["zero_share_1"] == trainer.history["dead_share_1"] == [1 / 3, 1 / 3]
    assert trainer.history["zero_share_2"] == [0.0, 0.0]
    activity.X = X  # the second unit wakes up on the third row, where the two others are silent
    trainer.fit(X, np.zeros(4))
    assert trainer.history["zero_share_1"] == [5 / 12, 5 / 12]
    assert trainer.history["dead_share_1"] == [0.0, 0.0]


class Interrupt(gpuprop.Callback):
    """Raises in the middle of the third epoch, and remembers the parameters at the end of the second."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.kept = error, np.zeros(0)

    def on_step_end(self, trainer: gpuprop.Trainer, epoch: int, step: int) -> None:
        if (epoch, step) == (3, 2):
            raise self.error

    def on_epoch_end(self, trainer: gpuprop.Trainer, epoch: int, record: Mapping[str, float | None]) -> None:
        self.kept = np.array(trainer.network.parameters)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("boom")])
def test_an_interrupted_run_keeps_the_last_completed_epoch(error: BaseException) -> None:
    net, interrupt = classifier(), Interrupt(error)
    trainer = gpuprop.Trainer(net, epochs=9, batch_size=20, callbacks=[interrupt])
    with pytest.raises(type(error)):
        trainer.fit(X_BLOBS, Y_BLOBS)
    np.testing.assert_array_equal(net.parameters, interrupt.kept)
    assert trainer.epochs_done == len(trainer.history["epoch"]) == 2


def test_divergence_names_epoch_step_and_layer_and_keeps_good_parameters() -> None:
    net = gpuprop.Network((4, 9, 1), seed=0)
    start = net.parameters.copy()
    X = X_BLOBS.copy()
    trainer = gpuprop.Trainer(net, optimizer="sgd", learning_rate=1e25, batch_size=30, epochs=5)
    with pytest.raises(gpuprop.NonFiniteLossError, match=r"epoch 1, step 2 of 3.*layer.*learning rate") as caught:
        trainer.fit(X, X[:, 0])
    assert (caught.value.epoch, caught.value.step) == (1, 2)
    assert "layer" in caught.value.layer
    np.testing.assert_array_equal(net.parameters, start)


def test_divergence_in_a_later_epoch_keeps_the_epoch_before() -> None:
    class Spoil(gpuprop.Callback):
        """A rate that explodes in epoch 3, through the schedule that a user might write."""

        kept = np.zeros(0)

        def on_epoch_end(self, trainer: gpuprop.Trainer, epoch: int, record: Mapping[str, float | None]) -> None:
            self.kept = np.array(trainer.network.parameters)
            if epoch == 2:
                trainer.learning_rate = 1e30

    spoil = Spoil()
    net = gpuprop.Network((4, 9, 1), seed=0)
    trainer = gpuprop.Trainer(net, optimizer="momentum", batch_size=30, epochs=5, callbacks=[spoil])
    with pytest.raises(gpuprop.NonFiniteLossError) as caught:
        trainer.fit(X_BLOBS, X_BLOBS[:, 0])
    assert caught.value.epoch == 3
    np.testing.assert_array_equal(net.parameters, spoil.kept)
    assert np.isfinite(net.parameters).all()


def test_a_parameter_that_is_already_broken_is_named() -> None:
    net = gpuprop.Network((4, 9, 9, 1), seed=0)
    net.weights[1][3, 4] = np.nan
    with pytest.raises(gpuprop.NonFiniteLossError, match=r"epoch 1, step 1 .*output of layer 2"):
        gpuprop.Trainer(net, epochs=1).fit(X_BLOBS, X_BLOBS[:, 0])


# --- options --------------------------------------------------------------------------------------------------


def test_max_norm_and_clip_norm() -> None:
    net = classifier()
    gpuprop.Trainer(net, learning_rate=0.1, epochs=3, max_norm=0.7).fit(X_BLOBS, Y_BLOBS)
    assert max(np.sqrt((w**2).sum(axis=0)).max() for w in net.weights) <= 0.7 * (1 + 1e-6)
    net = classifier(dtype="float64")
    start = net.parameters.copy()
    gpuprop.Trainer(net, optimizer="sgd", learning_rate=1.0, epochs=1, batch_size=None, clip_norm=0.01).fit(
        X_BLOBS, Y_BLOBS
    )
    assert np.linalg.norm(net.parameters - start) == pytest.approx(0.01, rel=1e-9)


@pytest.mark.parametrize(
    "optimizer",
    gpuprop.optimizers.OPTIMIZERS,
)
def test_every_optimizer_learns_with_its_default_rate(optimizer: str) -> None:
    net = classifier()
    trainer = gpuprop.Trainer(net, optimizer=optimizer, epochs=60, batch_size=10).fit(X_BLOBS, Y_BLOBS)
    assert trainer.history["train_loss"][-1] < 0.8 * trainer.history["train_loss"][0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": "adm"}, ValueError, "did you mean 'adam'"),
        ({"optimizer": "adma"}, ValueError, "did you mean 'adam'"),
        ({"schedule": "cosin"}, ValueError, "did you mean 'cosine'"),
        ({"learning_rate": 0}, ValueError, "above 0"),
        ({"learning_rate": "fast"}, TypeError, "expected a number"),
        ({"batch_size": 0}, ValueError, "at least 1"),
        ({"batch_size": 3.5}, TypeError, "an integer"),
        ({"epochs": -1}, ValueError, "at least 1"),
        ({"validation": 1.5}, ValueError, "below 1"),
        ({"validation": (X_BLOBS,)}, ValueError, "got 1 arrays"),
        ({"clip_norm": -1}, ValueError, "clip_norm"),
        ({"max_norm": 0}, ValueError, "max_norm"),
        ({"early_stopping": 0}, ValueError, "early_stopping"),
        ({"accumulation_steps": 0}, ValueError, "accumulation_steps"),
        ({"callbacks": [print]}, TypeError, "derived from gpuprop.Callback"),
    ],
)
def test_bad_options_are_refused(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gpuprop.Trainer(classifier(), **options)


@pytest.mark.parametrize(
    ("X", "y", "validation", "message"),
    [
        (X_BLOBS[:0], Y_BLOBS[:0], None, "no rows"),
        (X_BLOBS, Y_BLOBS[:5], None, "got 5 rows, expected 90"),
        (X_BLOBS[:1], Y_BLOBS[:1], 0.5, "cannot be split"),
        (X_BLOBS, Y_BLOBS[:5], 0.5, "cannot be split"),
        (X_BLOBS, Y_BLOBS, (X_BLOBS[:, :2], Y_BLOBS), "got 2 columns, expected 4"),
    ],
)
def test_bad_data_leaves_the_network_alone(X: Any, y: Any, validation: Any, message: str) -> None:
    net = classifier()
    before = digest(net)
    with pytest.raises(ValueError, match=message):
        gpuprop.Trainer(net, validation=validation).fit(X, y)
    assert digest(net) == before


def test_mnist_learns() -> None:
    (X, y), (X_test, y_test) = gpuprop.datasets.load_mnist()
    net = gpuprop.Network((784, 32, 10), loss="categorical_cross_entropy", seed=0,
                          input_scaling=gpuprop.InputScaling.divide(255))  # fmt: skip
    gpuprop.Trainer(net, epochs=1, batch_size=64).fit(X[:20000], y[:20000])
    assert net.evaluate(X_test, y_test)[1] > 0.9
