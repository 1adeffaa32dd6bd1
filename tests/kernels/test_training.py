"""Whole trainings on the kernels, in the simulator or on a device, against plain NumPy: the same curve and end."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.backends.cuda.kernel_plan import CudaPlan
from gpuprop.maths.optimizers import SGD
from gpuprop.measure.equivalence import tolerances
from tests.kernels import support as s

DEVICE = "cuda" if s.ON_DEVICE else "cuda-sim"
NAMES = ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy", "train_r2", "validation_r2")


@pytest.fixture(autouse=True)
def _no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUPROP_DEVICE", raising=False)


def blobs(n: int, features: int = 5, classes: int = 3, seed: int = 0) -> tuple[Any, Any, Any]:
    """Return bytes around one centre a class, classes, and sample weights."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    centres = rng.integers(60, 190, (classes, features))
    X = np.clip(centres[y] + 25 * rng.standard_normal((n, features)), 0, 255).astype(np.uint8)
    return X, y, rng.uniform(0.5, 2.0, n)


def train(device: str, sizes: tuple[int, ...], data: tuple[Any, ...], network: dict[str, Any], **how: Any) -> Any:
    options: dict[str, Any] = {
        "loss": "categorical_cross_entropy",
        "seed": 3,
        "input_scaling": gpuprop.InputScaling.divide(255),
    }
    net = gpuprop.Network(sizes, device=device, **(options | network))
    return gpuprop.Trainer(net, **how).fit(*data)


def same_run(sizes: tuple[int, ...], data: tuple[Any, ...], network: dict[str, Any], **how: Any) -> Any:
    """Train on both devices, hold history and parameters to the bound of a whole run, return the device's trainer."""
    ours, plain = (train(device, sizes, data, network, **how) for device in (DEVICE, "numpy"))
    dtype = plain.network.dtype
    bound = tolerances.CURVE[dtype]
    for name in NAMES:
        if plain.history.get(name, [None])[0] is not None:
            expected = np.array(plain.history[name])
            s.check(np.array(ours.history[name]), expected, bound * np.maximum(np.abs(expected), 1e-3), name)
    expected = plain.network.host_parameters()
    s.check(ours.network.host_parameters(), expected, bound * np.maximum(np.abs(expected), 0.1), "parameters")
    assert ours.history["epoch"] == plain.history["epoch"]
    assert ours.best_epoch == plain.best_epoch
    flat = ours.network.parameters
    padding = ours.network.copy(device="numpy")
    assert np.abs(s.download(flat)).sum() == pytest.approx(np.abs(padding.parameters).sum()), "padding must stay zero"
    return ours


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_twenty_updates_with_a_ragged_last_batch(dtype: str) -> None:
    X, y, _ = blobs(37)
    same_run((5, 6, 3), (X, y), {"dtype": dtype}, batch_size=8, epochs=4, learning_rate=0.02)


def test_everything_together() -> None:
    network = {
        "dtype": "float64", "hidden_activation": ["tanh", "silu"], "dropout": (0.1, 0.3), "l1": 1e-3, "l2": 1e-2,
    }  # fmt: skip
    how = {"clip_norm": 0.3, "max_norm": 0.9, "accumulation_steps": 2, "schedule": "cosine", "validation": 0.2}
    same_run((5, 9, 7, 3), blobs(33), network, batch_size=6, epochs=2, early_stopping=1, **how)


def test_penalties_weights_and_dropout_in_the_fused_update() -> None:
    network = {"dtype": "float64", "hidden_activation": "gelu", "dropout": 0.4, "l1": 1e-3, "l2": 1e-2}
    how = {"optimizer": "adamw", "conventions": "scikit-learn"}
    same_run((5, 6, 3), blobs(17), network, batch_size=8, epochs=2, **how)


@pytest.mark.parametrize("optimizer", ["sgd", "nadam"])
def test_more_than_sixteen_classes(optimizer: str) -> None:
    X, y, weight = blobs(9, classes=18)
    same_run((5, 6, 18), (X, y, weight), {"dtype": "float64"}, batch_size=8, epochs=2, optimizer=optimizer)


@pytest.mark.parametrize("n", [5, 9], ids=["n < batch", "n mod batch = 1"])
def test_a_regression_without_a_hidden_layer(n: int) -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((n, 3))
    network = {"dtype": "float64", "loss": "squared_error", "input_scaling": gpuprop.InputScaling.standard(X)}
    same_run((3, 2), (X, X[:, :2] - X[:, 2:]), network, batch_size=8, epochs=2, optimizer="momentum")


def test_one_number_a_sample_and_several_logistic_outputs() -> None:
    X, y, _ = blobs(9, features=1, classes=2)
    network = {"dtype": "float64", "loss": "binary_cross_entropy", "hidden_activation": "leaky_relu(0.2)"}
    same_run((1, 3, 1), (X, y), network, batch_size=4, epochs=1)
    labels = np.stack([y, 1 - y], axis=1)
    same_run((1, 3, 2), (X, labels), network | {"hidden_activation": "elu(0.5)"}, batch_size=4, epochs=1)


def test_the_plain_step_gives_the_loss_and_gradient_of_numpy() -> None:
    X, y, weight = blobs(11)
    options: dict[str, Any] = {"loss": "categorical_cross_entropy", "dropout": (0.2, 0.3), "l1": 0.01, "l2": 0.02}
    ours, plain = (
        gpuprop.Network((5, 6, 3), hidden_activation="softplus", dtype="float64", seed=1, device=device, **options)
        for device in (DEVICE, "numpy")
    )
    for step in (None, 3):
        found, expected = (net.loss_and_gradients(X, y, weight, dropout_step=step) for net in (ours, plain))
        assert found[0] == pytest.approx(expected[0], rel=1e-12)
        for got, wanted in zip(found[1] + found[2], expected[1] + expected[2], strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12)
    for got, wanted in zip(
        ours.activations(X) + ours.net_inputs(X), plain.activations(X) + plain.net_inputs(X), strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(ours.predict(X), plain.predict(X))
    assert ours.evaluate(X, y, weight) == pytest.approx(plain.evaluate(X, y, weight), rel=1e-12)


@pytest.mark.parametrize(
    ("network", "how"),
    [
        ({}, {}),
        ({"l1": 1e-3, "l2": 1e-2}, {}),
        ({"l2": 1e-2}, {"clip_norm": 0.2, "accumulation_steps": 2}),
    ],
    ids=["fused update", "penalties", "clipped and accumulated"],
)
def test_a_split_batch(network: dict[str, Any], how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # Three parts, as a large batch on a large GPU would have them; the ragged last batch leaves one part empty.
    monkeypatch.setattr("gpuprop_kernels.launch.choose_parts", lambda n_blocks, max_rows, multiprocessors: 3)
    X, y, weight = blobs(13)
    same_run((5, 6, 3), (X, y, weight), {"dtype": "float64"} | network, batch_size=7, epochs=1, **how)


class Steps(gpuprop.Callback):
    """Asks for every update by itself."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_step_end(self, trainer: gpuprop.Trainer, epoch: int, step: int) -> None:
        self.seen.append(step)


class OwnDescent(SGD):
    """An optimizer that no kernel knows."""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rates_of_groups_and_a_scaling_layer_take_one_kernel_after_the_other(dtype: str) -> None:
    """The equipment of RealMLP: the kernels know its parts one by one, and say so."""
    X, y, weight = blobs(14)
    network = {"dtype": dtype, "hidden_activation": "selu", "init": "lecun_normal"}
    trainer = same_run(
        (5, 7, 3), (X, y, weight), network, epochs=2, batch_size=4, learning_rate=0.02, schedule="coslog",
        learning_rate_factors={"biases": 0.1, "scale": 6.0, "W2": 0.5}, parametrization="neural-tangent",
        scaling_layer=True, label_smoothing=0.1, weight_decay=0.1, drop_last=True, validation=(X, y),
        keep_best="validation_accuracy",
    )  # fmt: skip
    assert trainer.plan_reason == (
        "steps: one kernel after the other, because parameters decay apart from the optimizer"
    )


def test_epochs_of_whole_batches_on_the_fused_kernels() -> None:
    trainer = same_run((5, 7, 3), blobs(14), {}, epochs=2, batch_size=4, drop_last=True, label_smoothing=0.2)
    assert trainer.steps_done == 6
    assert trainer.plan_reason.startswith("fused")


def test_updates_one_by_one_give_the_same_bits() -> None:
    X, y, _ = blobs(9)
    steps = Steps()
    one_by_one = train(DEVICE, (5, 4, 3), (X, y), {}, batch_size=4, epochs=1, callbacks=[steps])
    at_once = train(DEVICE, (5, 4, 3), (X, y), {}, batch_size=4, epochs=1)
    assert steps.seen == [1, 2, 3]
    assert one_by_one.network.host_parameters().tobytes() == at_once.network.host_parameters().tobytes()
    assert one_by_one.history["train_loss"] == at_once.history["train_loss"]


def test_an_optimizer_of_ones_own_takes_the_plain_step() -> None:
    X, y, _ = blobs(9)
    own, ours = (
        train(
            DEVICE, (5, 4, 3), (X, y), {"dtype": "float64"}, batch_size=4, epochs=1, optimizer=optimizer, clip_norm=0.2
        )
        for optimizer in (OwnDescent(), "sgd")
    )
    np.testing.assert_allclose(own.network.host_parameters(), ours.network.host_parameters(), rtol=1e-10, atol=1e-12)


def test_divergence_is_explained_and_the_last_epoch_kept() -> None:
    X = np.random.default_rng(0).standard_normal((8, 2)).astype(np.float32)
    net = gpuprop.Network((2, 3, 1), device=DEVICE, seed=0)
    before = net.host_parameters()
    with pytest.raises(gpuprop.NonFiniteLossError, match="training diverged in epoch 1") as caught:
        gpuprop.Trainer(net, optimizer="sgd", learning_rate=1e30, batch_size=4, epochs=2).fit(X, X[:, :1])
    assert "of layer" in caught.value.layer or caught.value.layer == "the loss"
    np.testing.assert_array_equal(net.host_parameters(), before)


def test_parameters_travel_and_stay_writable(tmp_path: Path) -> None:
    net = gpuprop.Network((5, 6, 3), device=DEVICE, seed=4)
    twin = net.copy(device="numpy")
    assert net.weights[0].shape == (5, 6)
    np.testing.assert_array_equal(net.host_parameters(), twin.parameters)
    net.weights[1][2, 1] = 7.0
    twin.weights[1][2, 1] = 7.0
    np.testing.assert_array_equal(net.host_parameters(), twin.parameters)
    net.save(tmp_path / "net.safetensors")
    for device in (DEVICE, "numpy"):
        np.testing.assert_array_equal(
            gpuprop.load(tmp_path / "net.safetensors", device).host_parameters(), twin.parameters
        )
    net.set_parameters(np.arange(net.n_parameters))
    np.testing.assert_array_equal(net.copy(device="numpy").parameters, np.arange(net.n_parameters))


def own_activations() -> Iterator[gpuprop.Activation]:
    cube, slope = (lambda z: z * z * z), (lambda z: 3 * z * z)
    yield gpuprop.Activation("cube", lambda z: z**3, lambda z: 3 * z**2, derivative_of="z", cuda=(cube, slope))
    yield gpuprop.Activation("no_cuda", lambda z: z**3, lambda z: 3 * z**2, derivative_of="z")


def test_an_activation_of_ones_own() -> None:
    with_cuda, without = own_activations()
    X, y, _ = blobs(9)
    same_run((5, 4, 3), (X, y), {"hidden_activation": with_cuda, "dtype": "float64"}, batch_size=4, epochs=1)
    with pytest.raises(ValueError, match=r"activation 'no_cuda': got no functions for CUDA, expected cuda="):
        train(DEVICE, (5, 4, 3), (X, y), {"hidden_activation": without}, batch_size=4, epochs=1)


def test_what_has_no_kernel_is_refused() -> None:
    X, y, _ = blobs(9)
    own = dataclasses.replace(gpuprop.losses.LOSSES["absolute_error"], name="own")
    with pytest.raises(ValueError, match="loss 'own': got one without a CUDA kernel"):
        train(DEVICE, (5, 4, 1), (X, y), {"loss": own}, batch_size=4, epochs=1)


@pytest.mark.parametrize(("loss", "outputs"), [("absolute_error", 2), ("huber(0.2)", 1), ("pinball(0.9)", 17)])
def test_robust_losses(loss: str, outputs: int) -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((9, 3))
    y = np.tanh(X @ rng.standard_normal((3, outputs)))
    data = (X, y, rng.uniform(0.5, 2.0, 9))
    scaling = gpuprop.InputScaling.standard(X)
    same_run(
        (3, 4, outputs), data, {"dtype": "float64", "loss": loss, "input_scaling": scaling}, batch_size=4, epochs=2
    )


def test_windows_of_an_epoch_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, _ = blobs(9)
    whole = train(DEVICE, (5, 4, 3), (X, y), {"l2": 0.1}, batch_size=2, epochs=1)
    monkeypatch.setattr("gpuprop.backends.cuda.kernel_plan.WINDOW_LAUNCHES", 6)  # two updates of three launches each
    entered: list[tuple[int, int]] = []
    enter = CudaPlan._enter

    def note(self: CudaPlan, begin: int, end: int) -> None:
        entered.append((begin, end))
        enter(self, begin, end)

    monkeypatch.setattr(CudaPlan, "_enter", note)
    in_windows = train(DEVICE, (5, 4, 3), (X, y), {"l2": 0.1}, batch_size=2, epochs=1)
    assert entered == [(0, 2), (2, 4), (4, 5)]
    assert whole.network.host_parameters().tobytes() == in_windows.network.host_parameters().tobytes()
    assert whole.history["train_loss"] == pytest.approx(in_windows.history["train_loss"], rel=1e-14)


def test_a_training_goes_on_on_another_device() -> None:
    X, y, _ = blobs(9)
    how: dict[str, Any] = {"batch_size": 4}
    options: dict[str, Any] = {"dtype": "float64"}
    expected = train("numpy", (5, 4, 3), (X, y), options, epochs=3, **how).network.host_parameters()
    first = train("numpy", (5, 4, 3), (X, y), options, epochs=1, **how)
    net = first.network.copy(device=DEVICE)
    second = gpuprop.Trainer(net, epochs=2, **how).fit(X, y, resume_from=first.progress)
    back = second.network.copy(device="numpy")
    third = gpuprop.Trainer(back, epochs=3, **how).fit(X, y, resume_from=second.progress)
    np.testing.assert_allclose(third.network.host_parameters(), expected, rtol=1e-9, atol=1e-12)
    other = gpuprop.Network((5, 7, 3), loss="categorical_cross_entropy", device=DEVICE, dtype="float64")
    with pytest.raises(ValueError, match="a network of 39 parameters, this one has 66; resume with a network"):
        gpuprop.Trainer(other, epochs=4, **how).fit(X, y, resume_from=third.progress)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_training_goes_on_from_a_checkpoint(streamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From within a window of updates, and from the end of an epoch, with the same bits; on the host nearly."""
    monkeypatch.setattr("gpuprop.backends.cuda.kernel_plan.WINDOW_LAUNCHES", 9)  # three updates of three launches each
    if streamed:
        monkeypatch.setenv("GPUPROP_DATA_MEMORY", "900")
    data = blobs(19)

    def trained(device: str, **options: Any) -> Any:
        net = gpuprop.Network(
            (5, 4, 3), loss="categorical_cross_entropy", seed=3, device=device, l2=0.1,
            input_scaling=gpuprop.InputScaling.divide(255),
        )  # fmt: skip
        checkpoint, resume_from = options.pop("checkpoint", None), options.pop("resume_from", None)
        trainer = gpuprop.Trainer(net, batch_size=3, epochs=2, validation=0.2, checkpoint=checkpoint, **options)
        return trainer.fit(*data, resume_from=resume_from)

    def bits(trainer: Any) -> list[bytes]:
        progress = trainer.progress
        losses = np.array(trainer.history["train_loss"])
        return [one.tobytes() for one in (progress.parameters, *progress.optimizer_state.values(), losses)]

    whole = trained(DEVICE, checkpoint=gpuprop.Checkpoint(tmp_path, "1 update", keep=20))
    files = sorted(tmp_path.iterdir())
    assert len(files) == 10
    assert bits(trained(DEVICE)) == bits(whole)  # looking at each update changes nothing
    for file in (files[1], files[4], files[6]):
        assert bits(trained(DEVICE, resume_from=file)) == bits(whole)
    np.testing.assert_allclose(
        trained("numpy", resume_from=files[6]).network.host_parameters(), whole.network.host_parameters(), atol=1e-5
    )
