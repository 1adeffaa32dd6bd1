"""Precisions of products: the roundings bit by bit, products within their bounds, networks, trainings, files, commands.

The references share nothing with the package: tf32 by fractions, bf16 by ml_dtypes and by fractions, products and
gradients in float64.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone

import gpuprop
from gpuprop.core.precision import PRECISIONS, UNIT_ROUNDOFF, product, round_to_bf16, round_to_tf32, split
from gpuprop.core.spec import Spec
from gpuprop.errors import BackendUnavailableError, ModelFileError, PlanError, ResumeError
from gpuprop.model.network_file import NetworkContent, write_network
from tests.cli_tools import Cli

Array = NDArray[Any]

ROUNDED = PRECISIONS[1:]
KEPT_BITS = {"tf32": 11, "bf16": 8}
LARGEST = float(np.finfo(np.float32).max)
#: Shapes (n, k, m) of products: single numbers, odd sizes, long sums.
SHAPES = [(1, 1, 1), (1, 7, 17), (17, 1, 5), (3, 64, 33), (65, 129, 31), (8, 784, 10), (2, 1023, 3)]


def reference_rounding(x: float, kept_bits: int, *, ties_away: bool) -> float:
    """Return the nearest number of so many significant bits in float32's range, by exact fractions."""
    if not np.isfinite(x):
        return x
    value, magnitude = Fraction(x), abs(Fraction(x))
    exponent = -126
    while magnitude >= Fraction(2) ** (exponent + 1):
        exponent += 1
    spacing = Fraction(2) ** (exponent - kept_bits + 1)
    below = magnitude // spacing
    rest = magnitude / spacing - below
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and (ties_away or below % 2 == 1))
    found = (below + up) * spacing
    largest = (2 - Fraction(2) ** (1 - kept_bits)) * Fraction(2) ** 127
    sign = -1.0 if value < 0 else 1.0
    return sign * (float("inf") if found > largest else float(found))


def interesting_numbers() -> Array:
    """Return numbers at and beside ties, of every exponent, subnormal, near the overflow, and of random bits."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 3000, dtype=np.uint64).astype(np.uint32)
    ties = [(bits & ~np.uint32(low)) | np.uint32((low + 1) // 2) for low in (0x1FFF, 0xFFFF)]
    beside = [tie + np.uint32(step) for tie in ties for step in (1, 2**32 - 1)]
    subnormal = rng.integers(0, 2**23, 300, dtype=np.uint32)
    special = np.array([0, -0.0, 1, LARGEST, -LARGEST, np.inf, -np.inf, np.nan, 1e-45, 2.0**-126], np.float32)
    found = np.concatenate([bits, *ties, *beside, subnormal]).view(np.float32)
    return np.concatenate([found, special])


# --- the roundings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "rounded"), [("tf32", round_to_tf32), ("bf16", round_to_bf16)])
def test_roundings_are_those_of_exact_fractions(name: str, rounded: Callable[[Array], Array]) -> None:
    x = interesting_numbers()
    found = rounded(x)
    expected = [reference_rounding(float(one), KEPT_BITS[name], ties_away=name == "tf32") for one in x]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array(expected, np.float32))
    np.testing.assert_array_equal(np.signbit(found), np.signbit(x))  # -0 stays -0
    np.testing.assert_array_equal(rounded(found), found)


def test_bf16_is_that_of_ml_dtypes() -> None:
    x = interesting_numbers()
    x = x[~np.isnan(x)]
    np.testing.assert_array_equal(round_to_bf16(x), x.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_nan_stays_nan_whatever_its_bits() -> None:
    x = np.array([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0xFF800001], np.uint32).view(np.float32)
    assert np.isnan(round_to_tf32(x)).all()
    assert np.isnan(round_to_bf16(x)).all()
    assert np.isnan(split(x)[1]).all()


def test_split_leaves_one_unit_in_the_last_place() -> None:
    x = interesting_numbers()
    x = x[np.isfinite(round_to_tf32(x))]
    hi, lo = split(x)
    np.testing.assert_array_equal(hi, round_to_tf32(x))
    assert not (lo.view(np.uint32) & 0x1FFF).any()
    left = np.abs(hi.astype(np.float64) + lo - x)
    # Below 2^-113 lo is cut to multiples of 2^-136, the smallest number of tf32.
    assert (left <= np.maximum(np.spacing(np.abs(x)).astype(np.float64), 2.0**-136)).all()
    normal = np.abs(x) > 2.0**-100
    assert (left[normal] <= UNIT_ROUNDOFF["tf32x3"] * np.abs(x[normal].astype(np.float64))).all()
    assert (np.abs(lo)[normal] <= UNIT_ROUNDOFF["tf32"] * np.abs(x)[normal]).all()


# --- products -----------------------------------------------------------------------------------------------------


def operands(shape: tuple[int, int, int], scale: float = 1.0) -> tuple[Array, Array]:
    n, k, m = shape
    rng = np.random.default_rng(k)
    a = (scale * rng.standard_normal((n, k))).astype(np.float32)
    return a, (rng.standard_normal((k, m)) / scale).astype(np.float32)


def bound(precision: str, k: int) -> float:
    """Return the largest error of a product, relative to ``|A| |B|``.

    Each operand is rounded once, tf32x3 leaves out ``lo lo``, and a sum of k products rounds k times in any order; of
    tf32x3 there are three such sums, of which two are smaller by a factor of 2^-11, and two additions.
    """
    u, float32 = UNIT_ROUNDOFF[precision], UNIT_ROUNDOFF["float32"]
    of_operands = 0.0 if precision == "float32" else 2 * u + u * u
    left_out = UNIT_ROUNDOFF["tf32"] ** 2 if precision == "tf32x3" else 0.0
    return of_operands + left_out + (k + 3) * float32 * (1 + 2.0**-6)


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e15])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_products_keep_their_bounds(precision: str, shape: tuple[int, int, int], scale: float) -> None:
    a, b = operands(shape, scale)
    size = np.abs(a).astype(np.float64) @ np.abs(b)
    exact = a.astype(np.float64) @ b
    assert (np.abs(product(a, b, precision) - exact) <= bound(precision, shape[1]) * size).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_tf32x3_is_about_as_exact_as_float32(shape: tuple[int, int, int]) -> None:
    a, b = operands(shape)
    exact, largest = a.astype(np.float64) @ b, (np.abs(a).astype(np.float64) @ np.abs(b)).max()
    own, plain = (np.abs(product(a, b, name) - exact).max() for name in ("tf32x3", "float32"))
    assert own <= 2 * plain + 8 * UNIT_ROUNDOFF["float32"] * largest


@pytest.mark.parametrize("precision", ROUNDED)
def test_products_of_transposed_operands_into_an_array(precision: str) -> None:
    a, b = operands((5, 9, 4))
    out = np.empty((5, 4), np.float32)
    assert product(a, b, precision, out) is out
    own = product(np.ascontiguousarray(a.T).T, np.ascontiguousarray(b.T).T, precision)
    np.testing.assert_allclose(own, out, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(a, operands((5, 9, 4))[0])  # what is given stays as it is


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_products_of_rounded_operands_are_exact_up_to_their_sums(precision: str) -> None:
    a, b = operands((40, 1, 30))
    kept, away = KEPT_BITS[precision], precision == "tf32"
    left, right = (
        np.array([reference_rounding(float(one), kept, ties_away=away) for one in x.ravel()]).reshape(x.shape)
        for x in (a, b)
    )
    np.testing.assert_array_equal(product(a, b, precision), left @ right)


@pytest.mark.parametrize("precision", ROUNDED)
def test_products_of_numbers_that_are_not_finite(precision: str) -> None:
    b = np.eye(2, dtype=np.float32) + 1
    with np.errstate(invalid="ignore"):
        of_inf = product(np.array([[np.inf, 1]], np.float32), b, precision)
        of_nan = product(np.array([[np.nan, 1]], np.float32), b, precision)
        of_largest = product(np.array([[LARGEST / 2, 1]], np.float32), b / 4, precision)
        too_large = product(np.array([[LARGEST, 1]], np.float32), b / 4, precision)
    assert np.isnan(of_nan).all()
    # The low part of Inf is Inf - Inf: tf32x3 answers NaN where float32 answers Inf.
    assert np.isnan(of_inf).all() if precision == "tf32x3" else np.isposinf(of_inf).all()
    np.testing.assert_allclose(of_largest, [[LARGEST / 4, LARGEST / 8]], rtol=3 * UNIT_ROUNDOFF[precision])
    assert not np.isfinite(too_large).any()  # the largest number rounds up to Inf


@pytest.mark.parametrize("precision", ROUNDED)
def test_products_of_tiny_numbers(precision: str) -> None:
    a = np.array([[2.0**-130, 3 * 2.0**-135]], np.float32)  # subnormal
    b = np.array([[2.0**20], [2.0**20]], np.float32)
    spacing = 2.0**-133 if precision == "bf16" else 2.0**-136
    np.testing.assert_allclose(product(a, b, precision), a.astype(np.float64) @ b, rtol=0, atol=2.0**20 * spacing)
    assert not product(np.full((1, 1), 2.0**-149, np.float32), b[:1], "bf16").any()  # below bf16's smallest number


# --- networks -----------------------------------------------------------------------------------------------------


def network(precision: str = "bf16", **options: Any) -> gpuprop.Network:
    given = {"hidden_activation": "tanh", "seed": 3, "device": "cpu", "emulate": True, **options}
    return gpuprop.Network((5, 7, 6, 3), loss="categorical_cross_entropy", precision=precision, **given)


def reference_step(net: gpuprop.Network, X: Array, y: Array, rounded: Callable[[Array], Array]) -> list[Array]:
    """Return the gradients of a tanh network in float64, both operands of all products rounded, outputs first."""

    def times(a: Array, b: Array) -> Array:
        return rounded(a.astype(np.float32)).astype(np.float64) @ rounded(b.astype(np.float32)).astype(np.float64)

    a = [X]
    for layer, (w, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        z = times(a[-1], w) + b
        a.append(z if layer == len(net.weights) - 1 else np.tanh(z))
    exp = np.exp(a[-1] - a[-1].max(axis=1, keepdims=True))
    delta = (exp / exp.sum(axis=1, keepdims=True) - np.eye(3)[y]) / len(X)
    found: list[Array] = []
    for layer in reversed(range(len(net.weights))):
        found += [times(a[layer].T, delta), delta.sum(axis=0)]
        delta = times(delta, net.weights[layer].T) * (1 - a[layer] ** 2)
    return found


@pytest.mark.parametrize("device", ["cpu", "numpy"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_gradients_round_both_operands_of_all_three_products(precision: str, device: str) -> None:
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((11, 5)).astype(np.float32), rng.integers(0, 3, 11)
    net = network(precision, device=device)
    plain: Callable[[Array], Array] = lambda x: x  # noqa: E731
    rounded = {"tf32": round_to_tf32, "bf16": round_to_bf16}.get(precision, plain)
    _, weight_grads, bias_grads = net.loss_and_gradients(X, y)
    own = [one for pair in zip(reversed(weight_grads), reversed(bias_grads), strict=True) for one in pair]
    # A number that lies next to a tie may round to the other side: that is a whole unit of one operand of one product.
    tolerance = 3e-6 if rounded is plain else 0.02 * UNIT_ROUNDOFF[precision]
    for found, expected in zip(own, reference_step(net, X, y, rounded), strict=True):
        np.testing.assert_allclose(found, expected, atol=tolerance, rtol=3e-6)
    if precision != "float32":
        _, others, _ = network("float32", device=device).loss_and_gradients(X, y)
        assert any((one != other).any() for one, other in zip(weight_grads, others, strict=True))


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_outputs_of_one_row_and_of_many_are_rounded(precision: str) -> None:
    X = np.random.default_rng(2).standard_normal((9, 5)).astype(np.float32)
    net, plain = network(precision), network("float32")
    together, alone = net.forward(X), np.concatenate([net.forward(row[None]) for row in X])
    np.testing.assert_allclose(together, alone, atol=UNIT_ROUNDOFF[precision] * 0.05)
    assert 1e-6 < np.abs(together - plain.forward(X)).max() < 20 * UNIT_ROUNDOFF[precision]


def test_float32_is_what_it_was() -> None:
    net = network("float32", emulate=False)
    assert net.ops.precision == "float32"
    assert "precision" not in net.get_config()  # files of float32 stay as they were
    assert repr(net) == "Network(5-7-6-3, tanh, softmax + categorical_cross_entropy, float32, cpu)"


@pytest.mark.parametrize("device", ["cpu", "numpy"])
def test_a_device_without_tensor_cores_refuses_by_name(device: str) -> None:
    with pytest.raises(BackendUnavailableError, match=f"precision 'bf16': the device '{device}' has no instruction"):
        network(device=device, emulate=False)
    with pytest.raises(BackendUnavailableError, match=r"compute capability 8\.0"):
        gpuprop.Trainer(network("float32", device=device), precision="tf32x3")


def test_what_is_no_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown precision 'bfloat16'"):
        network("bfloat16")
    with pytest.raises(TypeError, match="precision: got 16"):
        network(16)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="precision: got 'tf32' for a network in float64"):
        network("tf32", dtype="float64")
    spec = network("tf32").spec
    with pytest.raises(ValueError, match="unknown precision"):
        Spec(**{**vars(spec), "precision": "half"})


def test_a_network_keeps_its_roundings_wherever_it_goes(tmp_path: Path) -> None:
    net = network("bf16")
    X = np.random.default_rng(3).standard_normal((6, 5)).astype(np.float32)
    outputs = net.forward(X)
    net.save(tmp_path / "model.safetensors")
    others = [gpuprop.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(net)), copy.copy(net), net.copy()]
    others.append(net.copy(device="numpy").to("cpu"))
    for other in others:
        assert (other.precision, other.ops.precision, other.spec.precision) == ("bf16", "bf16", "bf16")
        np.testing.assert_array_equal(other.forward(X), outputs)
        assert "float32 by bf16" in repr(other)
        assert "float32 with operands rounded to bf16" in str(other.summary())
    assert net.copy(precision="float32").precision == "float32"
    assert net.copy(dtype="float64").precision == "float32"
    np.testing.assert_allclose(net.copy(precision="float32").forward(X), net.copy(dtype="float64").forward(X), 1e-4)


def test_a_file_with_a_wrong_precision_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    net = network("bf16")
    write_network(NetworkContent(net.get_config() | {"precision": "fp16"}, net.named_arrays()), file)
    with pytest.raises(ModelFileError, match="fp16"):
        gpuprop.load(file)


def test_plans_that_round_nothing_are_refused() -> None:
    X, y = np.zeros((8, 5), np.float32), np.arange(8) % 3
    for want in ("fused", "dense"):
        with pytest.raises(PlanError, match="cpu, emulating bf16' offers steps"):
            gpuprop.Trainer(network(), plan=want, epochs=1).fit(X, y)
    trainer = gpuprop.Trainer(network(), epochs=1).fit(X, y)
    assert "operands of products rounded to bf16" in str(trainer.plan_reason)
    trainer = gpuprop.Trainer(network(device="numpy"), epochs=1).fit(X, y)
    assert "plain NumPy, with the operands of products rounded to bf16" in str(trainer.plan_reason)


# --- trainings ----------------------------------------------------------------------------------------------------


def digits_training(precision: str, seed: int = 0, **options: Any) -> gpuprop.Trainer:
    data = gpuprop.datasets.load("digits")
    net = gpuprop.Network(
        (64, 32, 10),
        loss="categorical_cross_entropy",
        seed=seed,
        device="cpu",
        input_scaling=gpuprop.InputScaling.divide(16),
    )
    given = {"epochs": 12, "batch_size": 64, "validation": 0.25, "plan": "steps", "learning_rate": 0.005, **options}
    return gpuprop.Trainer(net, precision=precision, emulate=True, **given).fit(data.X, data.y)


def test_tf32x3_follows_the_curve_of_float32() -> None:
    plain, own = (digits_training(name, epochs=5) for name in ("float32", "tf32x3"))
    # As two ways of adding up in float32 follow one another: see whole trainings in tests/test_plans.py.
    np.testing.assert_allclose(own.history["train_loss"], plain.history["train_loss"], rtol=1e-4)
    np.testing.assert_allclose(own.history["validation_loss"], plain.history["validation_loss"], rtol=1e-4)


def test_bf16_learns_digits_as_float32_does() -> None:
    """The short form of benchmarks/precision_mnist.py."""
    accuracies = {
        name: np.mean([digits_training(name, seed).history["validation_accuracy"][-1] for seed in range(3)])
        for name in ("float32", "bf16")
    }
    assert accuracies["float32"] > 0.95
    assert accuracies["bf16"] > accuracies["float32"] - 0.01


def test_master_weights_are_not_rounded() -> None:
    weights = digits_training("bf16", epochs=1).network.weights[0]
    assert weights.dtype == np.float32
    assert (round_to_bf16(weights) != weights).mean() > 0.9


def test_a_resume_in_another_precision_is_refused(tmp_path: Path) -> None:
    digits_training("bf16", epochs=2, checkpoint=tmp_path)
    data = gpuprop.datasets.load("digits")
    net = gpuprop.Network(
        (64, 32, 10),
        loss="categorical_cross_entropy",
        seed=0,
        device="cpu",
        input_scaling=gpuprop.InputScaling.divide(16),
    )
    options: dict[str, Any] = {"batch_size": 64, "validation": 0.25, "plan": "steps", "learning_rate": 0.005}
    with pytest.raises(ResumeError, match="network's precision was 'bf16' and is 'float32'"):
        gpuprop.Trainer(net, epochs=3, **options).fit(data.X, data.y, resume_from=tmp_path)
    resumed = gpuprop.Trainer(net, epochs=3, precision="bf16", emulate=True, **options)
    resumed.fit(data.X, data.y, resume_from=tmp_path)
    undisturbed = digits_training("bf16", epochs=3)
    np.testing.assert_array_equal(net.parameters, undisturbed.network.parameters)


def test_shards_round_too() -> None:
    X, y = np.random.default_rng(5).standard_normal((32, 5)).astype(np.float32), np.arange(32) % 3
    one = gpuprop.Trainer(network(), epochs=2, shards=4).fit(X, y)
    other = gpuprop.Trainer(network(), epochs=2).fit(X, y)
    np.testing.assert_allclose(one.network.parameters, other.network.parameters, atol=1e-3)
    plain = gpuprop.Trainer(network("float32"), epochs=2, shards=4).fit(X, y)
    assert (one.network.parameters != plain.network.parameters).any()


# --- estimators and commands --------------------------------------------------------------------------------------


def test_estimators_have_a_precision(tmp_path: Path) -> None:
    X = np.random.default_rng(4).standard_normal((60, 4))
    y = (X[:, 0] > 0).astype(int)
    with pytest.raises(BackendUnavailableError, match="bf16"):
        gpuprop.MLPClassifier((8,), precision="bf16", device="cpu").fit(X, y)
    with pytest.raises(ValueError, match="precision"):
        gpuprop.MLPClassifier(precision="half").fit(X, y)
    with pytest.raises(ValueError, match="float64"):
        gpuprop.MLPClassifier(precision="bf16", dtype="float64", emulate=True).fit(X, y)
    options: dict[str, Any] = {"precision": "bf16", "emulate": True, "random_state": 0, "device": "cpu"}
    for kind in (gpuprop.MLPClassifier, gpuprop.MLPRegressor):
        model = clone(kind(hidden_layer_sizes=(8,), tol=10.0, n_iter_no_change=1, **options)).fit(X, y)
        assert (model.network_.precision, model.network_.dtype) == ("bf16", np.float32)
        model.save(tmp_path / "model.safetensors")
        again: Any = gpuprop.load(tmp_path / "model.safetensors", device="cpu")
        assert (again.precision, again.emulate, again.network_.precision) == ("bf16", False, "bf16")
        np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_ensembles_and_searches_pass_it_on() -> None:
    X = np.random.default_rng(4).standard_normal((60, 4)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    one = gpuprop.MLPClassifier((8,), precision="bf16", emulate=True, tol=10.0, n_iter_no_change=1, device="cpu")
    ensemble = gpuprop.MLPEnsemble(one, n_networks=2, random_state=0).fit(X, y)
    assert [member.network_.precision for member in ensemble.estimators_] == ["bf16", "bf16"]
    alone = clone(ensemble.estimators_[1]).fit(X, y)
    np.testing.assert_array_equal(alone.network_.parameters, ensemble.estimators_[1].network_.parameters)
    search = gpuprop.search(one, {"precision": ["float32", "bf16"]}, X, y, cv=2)
    assert [candidate["precision"] for candidate in search.cv_results_["params"]] == ["float32", "bf16"]


def test_tables_have_a_precision() -> None:
    X = np.random.default_rng(4).standard_normal((60, 4))
    y = (X[:, 0] > 0).astype(int)
    options: dict[str, Any] = {"epochs": 2, "random_state": 0, "device": "cpu", "precision": "tf32"}
    with pytest.raises(BackendUnavailableError, match="tf32"):
        gpuprop.TabularClassifier(**options).fit(X, y)
    model = gpuprop.TabularClassifier(emulate=True, **options).fit(X, y)
    assert model.networks_[0].precision == "tf32"


def test_the_command_trains_in_a_precision(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cli = Cli(capsys)
    common = ("train", "xor", "--epochs", "3", "--device", "cpu", "--precision")
    refused = cli.fail(*common, "bf16", "--out", tmp_path / "refused")
    assert "precision 'bf16': the device 'cpu' has no instruction for it" in refused.err
    made = cli.run(*common, "bf16", "--emulate", "--out", tmp_path / "made")
    assert "operands rounded to bf16" in made.out
    assert gpuprop.load(tmp_path / "made" / "model.safetensors").precision == "bf16"
    assert "unknown precision 'fp8'" in cli.fail(*common, "fp8", "--out", tmp_path / "wrong").err
