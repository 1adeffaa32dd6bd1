"""Why this prediction: gradients against finite differences, contributions that add up, importance by hand."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.model.explanations import Attributions
from tests.cli_tools import Cli, save_plants, write_plants, write_prices

RNG = np.random.default_rng(6)
X = RNG.normal(size=(7, 5)) * [1.0, 10.0, 0.1, 1.0, 3.0]
SCALING = gpuprop.InputScaling(shift=[0.0, 2.0, 0.0, -1.0, 0.5], scale=[1.0, 0.1, 5.0, 1.0, 0.3])


def network(loss: str = "categorical_cross_entropy", n_outputs: int = 3, **options: Any) -> gpuprop.Network:
    options = {"hidden_activation": ["tanh", "gelu"], "dtype": "float64", "device": "numpy", **options}
    return gpuprop.Network((5, 8, 6, n_outputs), loss=loss, seed=1, input_scaling=SCALING, **options)


CASES = [
    ("categorical_cross_entropy", 3),
    ("binary_cross_entropy", 1),
    ("binary_cross_entropy", 2),
    ("squared_error", 2),
    ("poisson", 1),
]


@pytest.mark.parametrize("of", ["output", "z"])
@pytest.mark.parametrize(("loss", "n_outputs"), CASES)
def test_input_gradients_are_those_of_finite_differences(loss: str, n_outputs: int, of: Any) -> None:
    net = network(loss, n_outputs)
    answer = net.forward if of == "output" else lambda points: net.net_inputs(points)[-1]
    for output in range(n_outputs):
        expected = np.empty_like(X)
        for column in range(5):
            step = np.zeros(5)
            step[column] = 1e-6
            expected[:, column] = (answer(X + step) - answer(X - step))[:, output] / 2e-6
        np.testing.assert_allclose(net.input_gradients(X, output, of=of), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_each_row_may_have_its_output_and_both_dtypes_agree(device: str) -> None:
    net = network(hidden_activation="relu").copy(device=device)
    largest = net.forward(X).argmax(axis=1)
    np.testing.assert_array_equal(net.input_gradients(X), net.input_gradients(X, largest))
    single = net.copy(dtype="float32").input_gradients(X, 1)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, net.input_gradients(X, 1), rtol=1e-3, atol=1e-5)
    many = np.tile(X, (700, 1))  # more than one chunk
    np.testing.assert_allclose(net.input_gradients(many, 0)[-7:], net.input_gradients(X, 0), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_integrated_gradients_add_up(activation: str, dtype: str) -> None:
    net = network(hidden_activation=activation, dtype=dtype)
    for of in ("output", "z"):
        found = gpuprop.integrated_gradients(net, X, of=of)
        assert (np.abs(found.gap) <= np.maximum(1e-3 * np.abs(found.difference), 1e-6)).all()
        np.testing.assert_allclose(found.values.sum(axis=1), found.difference + found.gap)
        np.testing.assert_array_equal(found.baseline, SCALING.shift)
    rows = np.arange(7)
    outputs, start = net.forward(X), net.forward(SCALING.shift[None])
    found = gpuprop.integrated_gradients(net, X)
    np.testing.assert_allclose(found.difference, outputs[rows, found.outputs] - start[0, found.outputs], atol=1e-6)


def test_contributions_in_a_linear_network_are_weights_times_ways() -> None:
    net = gpuprop.Network((5, 1), seed=0, dtype="float64", device="numpy")
    found = gpuprop.integrated_gradients(net, X, baseline=np.ones(5), n_steps=3)
    np.testing.assert_allclose(found.values, (X - 1) * net.weights[0][:, 0])
    assert found.steps.tolist() == [3] * 7
    sums = found.grouped(["a", "b", "a", "a", "b"])
    np.testing.assert_allclose(sums["a"], found.values[:, [0, 2, 3]].sum(axis=1))
    with pytest.raises(ValueError, match="expected a name for each of 5 inputs"):
        found.grouped(["a"])


def test_constant_outputs_have_no_contributions() -> None:
    net = gpuprop.Network((5, 3, 1), seed=0, init="zeros", device="numpy")
    found = gpuprop.integrated_gradients(net, X)
    assert isinstance(found, Attributions)
    assert not found.values.any()
    assert found.steps.max() == 64


def test_permutation_importance_finds_the_columns_that_count() -> None:
    rows = RNG.normal(size=(300, 4))
    y = 3 * rows[:, 0] + rows[:, 2] + 1.0
    net = gpuprop.Network((4, 1), seed=0, init="zeros", dtype="float64", device="numpy", feature_names=list("abcd"))
    net.weights[0][:, 0] = [3.0, 0.0, 1.0, 0.0]
    net.biases[0][:] = 1.0
    found = gpuprop.permutation_importance(net, rows, y, n_repeats=20)
    assert found.names == list("abcd")
    assert found.score == pytest.approx(1.0)
    assert found.mean[1] == found.mean[3] == pytest.approx(0.0, abs=1e-12)
    # Shuffling a column of weight w costs 2 w^2 var(x) / var(y) of R2 on the average.
    np.testing.assert_allclose(found.mean[[0, 2]], [2 * 9 / 10, 2 * 1 / 10], rtol=0.25)
    both = gpuprop.permutation_importance(net, rows, y, groups={"all": [0, 1, 2, 3], "none": [1]}, n_repeats=3)
    assert both.mean[0] > 1.5
    assert both.mean[1] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: net.input_gradients(X, 3), "output: got 3, expected whole numbers from 0 to 2"),
        (lambda net: net.input_gradients(X[0]), r"X: got shape \(5,\)"),
        (lambda net: net.input_gradients(X, of="loss"), "of: got 'loss'"),
        (lambda net: gpuprop.integrated_gradients(net, X, baseline=[0.0, 1.0]), r"baseline: got shape \(2,\)"),
        (lambda net: gpuprop.permutation_importance(net, X, [0] * 7, groups={"a": [9]}), r"groups\['a'\]"),
    ],
)
def test_wrong_questions_are_answered(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(network())


def test_networks_with_slopes_are_refused() -> None:
    net = gpuprop.Network((5, 4, 2), slopes=True, seed=0, device="numpy")
    with pytest.raises(ValueError, match=r"use gpuprop\.permutation_importance"):
        net.input_gradients(X)


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def contributions(text: str) -> dict[str, float]:
    lines = [line.split() for line in text.splitlines() if "|" in line]
    return {line[0]: float(line[1]) for line in lines}


def test_explain_a_row_of_a_table(cli: Cli, tmp_path: Path) -> None:
    for name, write, target in (("plants", write_plants, "label"), ("prices", write_prices, "y")):
        data, out = write(tmp_path / f"{name}.csv"), tmp_path / name
        cli.run("train", data, "--target", target, "--out", out, "--epochs", 20, "--hidden", 6, "--device", "numpy")
        result = cli.run("explain", out, data, "--row", 3, "--out", tmp_path / f"{name}.png")
        found = contributions(result.out)
        assert set(found) == ({"height", "width"} if name == "plants" else {"area", "age"})
        (line,) = (line for line in result.out.splitlines() if line.startswith("difference"))
        difference = float(line.split()[4].rstrip(","))
        assert sum(found.values()) == pytest.approx(difference, rel=2e-3, abs=1e-3)
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
        assert "expected 0 to" in cli.fail("explain", out, data, "--row", 999).err


def test_explain_an_image_and_arrays(cli: Cli, tmp_path: Path) -> None:
    cli.run("train", "digits", "--out", tmp_path / "d", "--epochs", 1, "--hidden", 4, "--device", "numpy")
    result = cli.run("explain", tmp_path / "d", "digits", "--row", 2, "--output", 5, "--out", tmp_path / "d.png")
    assert "output of class 5" in result.out
    assert "others" in result.out
    assert "##" in result.out or "==" in result.out
    assert "--output: got '11', expected 0, 1" in cli.fail("explain", tmp_path / "d", "digits", "--output", 11).err
    data = save_plants(tmp_path / "plants.npz")
    cli.run("train", data, "--out", tmp_path / "p", "--epochs", 1, "--hidden", 4, "--device", "numpy")
    assert set(contributions(cli.run("explain", tmp_path / "p", data).out)) == {"x0", "x1"}


def test_contributions_are_those_of_shap() -> None:
    """SHAP's GradientExplainer draws points on the way from a baseline, and its mean is the integral."""
    shap = pytest.importorskip("shap", reason="shap is not installed")
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from gpuprop.model.torch_module import torch_source, torch_state

    shape: dict[str, Any] = {"loss": "categorical_cross_entropy", "hidden_activation": "tanh"}
    net = gpuprop.Network((4, 6, 3), seed=1, device="numpy", **shape)
    names: dict[str, Any] = {"__file__": "m.py", "__name__": "m"}
    exec(torch_source(net, "m.safetensors"), names)
    model = names["Model"]().eval()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in torch_state(net).items()})
    rows = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
    baseline = np.full(4, 0.25, np.float32)
    explainer = shap.GradientExplainer(model, torch.from_numpy(baseline[None]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [explainer.shap_values(torch.from_numpy(rows), nsamples=400, rseed=seed) for seed in range(8)]
    theirs, spread = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(8)
    for output in range(3):
        ours = gpuprop.integrated_gradients(net, rows, output, baseline=baseline).values
        assert (np.abs(ours - theirs[:, :, output]) <= 5 * spread[:, :, output] + 1e-6).all()
