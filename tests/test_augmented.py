"""Rows that are changed at random while a network is trained on them, and deformations of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

import gpuprop
from gpuprop.datasets import AugmentedRows, Deformations, augmented
from gpuprop.training.windows import windows_of

X = np.random.default_rng(1).integers(0, 256, (1003, 12)).astype(np.uint8)
Y = (X[:, 0] > X[:, 1]).astype(int) + (X[:, 2] > X[:, 3])


def trainer(**options: Any) -> gpuprop.Trainer:
    net = gpuprop.Network(
        (12, 8, 3), loss="categorical_cross_entropy", seed=0, input_scaling=gpuprop.InputScaling.divide(255)
    )
    return gpuprop.Trainer(net, **{"batch_size": 32, "epochs": 3, "label_smoothing": 0.1, **options})


def darker(rows: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    changed: NDArray[Any] = rows // rng.integers(1, 4, (len(rows), 1), np.uint8)
    return changed


def same(rows: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    return rows


def parameters(made: gpuprop.Trainer) -> NDArray[Any]:
    return made.network.host_parameters()


def test_rows_left_as_they_are_train_as_the_arrays_do_in_the_same_order() -> None:
    rows = augmented(X, Y, same, block_rows=50)
    made = trainer().fit(rows)
    orders = windows_of(rows, trainer(), 32).orders
    assert len(orders.windows(0)) > 3
    other = trainer(row_orders=orders).fit(X, Y)
    np.testing.assert_array_equal(parameters(made), parameters(other))
    assert "the rows change in each epoch" in str(made.plan_reason)


def test_changed_rows_are_those_of_seed_epoch_and_piece() -> None:
    rows, other = augmented(X, Y, darker, seed=4, block_rows=50), augmented(X, Y, darker, seed=5, block_rows=50)
    first = rows.read_in_epoch(2, 0)[0]
    np.testing.assert_array_equal(first, augmented(X, Y, darker, seed=4, block_rows=50).read_in_epoch(2, 0)[0])
    for another in (rows.read_in_epoch(2, 1), rows.read_in_epoch(3, 0), other.read_in_epoch(2, 0), rows.read(2)):
        assert (another[0] != first).any()
    np.testing.assert_array_equal(rows.read(2)[0], X[100:150])
    np.testing.assert_array_equal(rows.read_in_epoch(2, 7)[1], Y[100:150])
    assert len({rows.fingerprint, other.fingerprint, augmented(X, Y, same, seed=4, block_rows=50).fingerprint}) == 3


def test_a_training_on_changed_rows_equals_one_on_arrays_that_were_changed_before() -> None:
    rows = augmented(X, Y, darker, block_rows=50)
    whole = np.concatenate([rows.read_in_epoch(place, 0)[0] for place in range(len(rows.pieces))])
    made = trainer(epochs=1).fit(rows)
    other = trainer(epochs=1, row_orders=windows_of(rows, trainer(), 32).orders).fit(whole, Y)
    np.testing.assert_array_equal(parameters(made), parameters(other))


class StopAt(gpuprop.Callback):
    """Interrupt the training after an update."""

    def on_step_end(self, trainer: gpuprop.Trainer, epoch: int, step: int) -> None:
        if (epoch, step) == (2, 9):
            raise KeyboardInterrupt


def test_a_training_that_was_interrupted_goes_on_with_the_same_rows(tmp_path: Path) -> None:
    def rows() -> AugmentedRows:
        return augmented(X, Y, darker, block_rows=50)

    place = tmp_path / "state.checkpoint"
    undisturbed = trainer(plan="steps").fit(rows())
    stopped = trainer(plan="steps", checkpoint=place, callbacks=[StopAt()])
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(rows())
    resumed = trainer(plan="steps", checkpoint=place).fit(rows(), resume_from="auto")
    np.testing.assert_array_equal(parameters(resumed), parameters(undisturbed))
    with pytest.raises(gpuprop.ResumeError, match="stored rows"):
        trainer(plan="steps").fit(augmented(X, Y, darker, seed=1, block_rows=50), resume_from=place)


def test_a_share_for_validation_is_not_changed_and_values_can_be_targets() -> None:
    def gone(rows: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        return np.zeros_like(rows)

    made = trainer(validation=0.3, epochs=8, learning_rate=0.02, label_smoothing=0.0)
    _, (held_out, _) = augmented(X, Y, gone, block_rows=50).held_out(0.3, 0)
    assert held_out.any()
    made.fit(augmented(X, Y, gone, block_rows=50))  # what it learns is the share of each class
    assert made.history["train_accuracy"][-1] < 0.6
    values = (X[:, 0] - 100.0) / 50
    net = gpuprop.Network((12, 8, 1), seed=0, input_scaling=gpuprop.InputScaling.divide(255))
    rows = augmented(X.astype(np.float32), values, same, block_rows=100)
    assert (rows.task, rows.dtype, rows.classes) == ("regression", np.dtype("float32"), None)
    history = gpuprop.Trainer(net, epochs=20, batch_size=32, learning_rate=0.01).fit(rows).history
    assert history["train_r2"][-1] > 0.9
    named = augmented(X, np.array(["ant", "bee", "cow"])[Y], same)
    assert named.classes == ["ant", "bee", "cow"]
    np.testing.assert_array_equal(named.read(0)[1], Y[:500])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \(1003, 12\) and \(7,\)"):
        augmented(X, Y[:7], same)
    wrong = augmented(X, Y, lambda rows, rng: rows[:, :3])
    with pytest.raises(ValueError, match=r"augment: it made rows of shape \(500, 3\)"):
        trainer().fit(wrong)
    with pytest.raises(ValueError, match="rows that change in each epoch have their targets"):
        trainer().fit(augmented(X, Y, same), Y)
    with pytest.raises(ValueError, match="expected images of 28 x 28"):
        Deformations()(X, np.random.default_rng(0))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_deformed_images_are_those_of_scipy(dtype: str) -> None:
    shape, n = (9, 14), 7
    images = np.random.default_rng(2).integers(0, 256, (n, *shape)).astype(dtype)
    change = Deformations(shape, rotation=20, shear=15, scaling=0.3, elastic=30, sigma=2.5)
    found = change(images.reshape(n, -1), np.random.default_rng(3))
    assert found.dtype == dtype
    rng = np.random.default_rng(3)  # the same numbers, in the same order
    turn, slant = np.deg2rad(rng.uniform(-1, 1, (2, n)) * [[20], [15]])
    tall, wide = rng.uniform(0.7, 1.3, (2, n))
    noise = [rng.random((n, *shape), np.float32) * 2 - 1 for _ in range(2)]
    centre = (np.array(shape) - 1) / 2
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).reshape(2, -1) - centre[:, None]
    for one in range(n):
        rotation = np.array([[np.cos(turn[one]), -np.sin(turn[one])], [np.sin(turn[one]), np.cos(turn[one])]])
        matrix = rotation @ np.array([[1, 0], [np.tan(slant[one]), 1]]) @ np.diag([tall[one], wide[one]])
        places = (matrix @ grid + centre[:, None]).reshape(2, *shape)
        for axis in range(2):
            smooth = ndimage.gaussian_filter(noise[axis][one].astype(float), 2.5, mode="constant", truncate=6)
            places[axis] += 30 * smooth
        expected = ndimage.map_coordinates(images[one].astype(float), places, order=1, mode="grid-constant")
        error = np.abs(found[one].reshape(shape).astype(float) - expected).max()
        assert error <= (0.51 if dtype == "uint8" else 2e-3)


def test_no_deformation_leaves_the_images_and_a_displacement_stays_small() -> None:
    images = np.random.default_rng(2).integers(0, 256, (5, 784)).astype(np.uint8)
    still = Deformations(rotation=0, shear=0, scaling=0, elastic=0)
    np.testing.assert_array_equal(still(images, np.random.default_rng(0)), images)
    down, right = Deformations(rotation=0, shear=0, scaling=0)._places(400, np.random.default_rng(0))
    moved = np.stack([down - np.arange(28)[:, None], right - np.arange(28)])
    assert 0.5 < moved[:, :, 8:20, 8:20].std() < 1.5


@pytest.mark.parametrize(
    "setting", [{"rotation": -1}, {"shear": 90}, {"scaling": 1.0}, {"elastic": np.nan}, {"sigma": 0}, {"shape": (0, 8)}]
)
def test_settings_out_of_range_are_named(setting: dict[str, Any]) -> None:
    (name,) = setting
    with pytest.raises(ValueError, match=name):
        Deformations(**setting)
