"""We keep a file of each format version, and pickles of version 0.1: they stay readable, with the same predictions.

The expected numbers of the files are formed here, from weights that are written out below. Those of the pickles were
computed by the process of version 0.1 that wrote them.
"""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop import MLPClassifier

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


# --- pickles -------------------------------------------------------------------------------------------------------

PICKLES = STORED / "pickles-0.1"
EXPECTED = dict(np.load(PICKLES / "expected.npz"))


def unpickled(name: str) -> Any:
    return pickle.loads((PICKLES / f"{name}.pickle").read_bytes())


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")
@pytest.mark.parametrize("name", ["classifier", "regressor", "ensemble", "network", "network_huber"])
def test_pickle_of_version_0_1_predicts_as_before(name: str) -> None:
    model = unpickled(name)
    X = EXPECTED["rows" if name == "network" else "X"]
    for key, expected in EXPECTED.items():
        owner, _, method = key.partition(".")
        if owner == name and method in ("predict", "predict_proba", "forward"):
            got = getattr(model, method)(X)
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(got, expected, rtol=1e-5 if expected.dtype == np.float32 else 1e-12)
            else:
                np.testing.assert_array_equal(got, expected)


def test_parameter_that_a_pickle_lacks_has_its_default() -> None:
    """As in a pickle of a version that did not have the parameter yet."""
    model = MLPClassifier(alpha=0.5)
    del model.n_threads
    restored = pickle.loads(pickle.dumps(model))
    assert restored.get_params() == MLPClassifier(alpha=0.5).get_params()


def test_pickled_ensemble_of_version_0_1_knows_the_spread_of_its_members() -> None:
    _, std = unpickled("ensemble").predict(EXPECTED["X"], return_std=True)
    np.testing.assert_allclose(std, EXPECTED["ensemble.std"], rtol=1e-12)


def test_pickled_estimator_of_version_0_1_is_trained_further() -> None:
    """It goes on with optimizer, learning rate and the count of epochs without improvement, where it stood."""
    model = unpickled("regressor")
    model.partial_fit(EXPECTED["train_X"][:20], EXPECTED["train_y"][:20])
    np.testing.assert_allclose(model.predict(EXPECTED["X"]), EXPECTED["regressor.after_partial_fit"], rtol=1e-12)
