"""A file of each format version is kept: what was written once stays readable, with the predictions that it had.

The expected numbers are formed here, from weights that are written out below.
"""

import math
from pathlib import Path

import numpy as np
import pytest

import gpuprop

STORED = Path(__file__).parent / "data"
VERSIONS = sorted(path.name for path in STORED.glob("v*"))

# Of both networks: two inputs, a hidden layer of two units, then one unit.
HIDDEN = [[0.5, -1.0], [0.25, 2.0]]
HIDDEN_BIASES = [0.125, -0.5]
OUTPUT = [1.5, -0.75]
OUTPUT_BIAS = 0.25
X = [[0.0, 0.0], [1.0, 0.0], [-2.0, 1.0], [0.5, 3.0]]


def net_input(x: list[float]) -> float:
    """The output unit's net input, with tanh in the hidden layer."""
    hidden = [math.tanh(sum(x[i] * HIDDEN[i][j] for i in range(2)) + HIDDEN_BIASES[j]) for j in range(2)]
    return sum(a * w for a, w in zip(hidden, OUTPUT, strict=True)) + OUTPUT_BIAS


def test_there_is_a_file_of_the_present_version() -> None:
    from gpuprop.estimators.stored_models import FORMAT_VERSION

    assert f"v{FORMAT_VERSION}" in VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_stored_classifier(version: str) -> None:
    model = gpuprop.load(STORED / version / "classifier.safetensors")
    assert isinstance(model, gpuprop.MLPClassifier)
    expected = [1 / (1 + math.exp(-net_input(x))) for x in X]
    np.testing.assert_allclose(model.predict_proba(X)[:, 1], expected, rtol=1e-12)
    assert model.predict(X).tolist() == ["yes" if p > 0.5 else "no" for p in expected]
    assert model.classes_.tolist() == ["no", "yes"]
    assert model.get_params()["alpha"] == 0.5
    assert model.n_iter_ == len(model.loss_curve_) == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_stored_network(version: str) -> None:
    network = gpuprop.load(STORED / version / "network.safetensors")
    assert isinstance(network, gpuprop.Network)
    scaled = [[(x - 1.0) * 0.5 for x in row] for row in X]
    np.testing.assert_allclose(network.forward(X)[:, 0], [net_input(x) for x in scaled], rtol=1e-5)
    assert network.feature_names == ("length", "width")
    assert network.target_name == "price"
