"""Batch normalisation and residual layers in estimators, and the network of an estimator that has not been fitted."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

import gpuprop
from gpuprop import MLPClassifier, MLPRegressor, TabularClassifier
from gpuprop.training.tabular_presets import preset as tabular_preset

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

rng = np.random.default_rng(0)
X = rng.normal(size=(160, 5)).astype(np.float32)
Y = np.array(["ant", "bee", "cow"])[(X[:, 0] > X[:, 1]).astype(int) + (X[:, 2] > 0)]
VALUES = (X[:, 0] * X[:, 1]).astype(np.float64)
BLOCKS: dict[str, Any] = {"batch_norm": True, "residual": True}
SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (12, 12, 12),
    "max_iter": 40,
    "random_state": 0,
    "batch_size": 32,
    "device": "numpy",
}


@pytest.mark.parametrize("blocks", [{"batch_norm": True}, {"residual": True}, BLOCKS])
def test_an_estimator_trains_the_layers_and_keeps_them(blocks: dict[str, Any], tmp_path: Path) -> None:
    model = MLPClassifier(learning_rate_init=0.01, **SMALL, **blocks).fit(X, Y)
    assert (model.network_.batch_norm, model.network_.residual) == (
        blocks.get("batch_norm", False), blocks.get("residual", False),
    )  # fmt: skip
    assert model.score(X, Y) > 0.85
    probabilities = model.predict_proba(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), probabilities)
    model.save(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(gpuprop.load(tmp_path / "model.safetensors").predict_proba(X), probabilities)
    assert clone(model).get_params()["residual"] == blocks.get("residual", False)


def test_initial_weights_are_those_without_the_layers_and_fits_are_seeded() -> None:
    plain, blocks = (MLPClassifier(**SMALL | more).network_for(X, Y) for more in ({}, BLOCKS))
    for one, other in zip(plain.weights, blocks.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    regressor = MLPRegressor(**SMALL, **BLOCKS)
    np.testing.assert_array_equal(regressor.fit(X, VALUES).predict(X), clone(regressor).fit(X, VALUES).predict(X))
    assert np.isfinite(cross_val_score(MLPRegressor(**SMALL, **BLOCKS), X, VALUES, cv=3)).all()


def test_scikit_learns_estimator_has_batch_normalisation_folded_in_and_no_residual_layer() -> None:
    model = MLPClassifier(**SMALL, batch_norm=True).fit(X, Y)
    np.testing.assert_allclose(model.to_sklearn().predict_proba(X), model.predict_proba(X), atol=1e-5)
    assert not np.allclose(model.to_sklearn().coefs_[0], model.coefs_[0])
    with pytest.raises(ValueError, match="residual"):
        MLPClassifier(**SMALL, residual=True).fit(X, Y).to_sklearn()


def test_wrong_values_are_refused() -> None:
    wrong: dict[str, Any] = {"batch_norm": "yes"}
    with pytest.raises(ValueError, match="'batch_norm' parameter"):
        MLPClassifier(**wrong).fit(X, Y)
    with pytest.raises(ValueError, match="'batch_norm' parameter has no meaning with solver 'lbfgs'"):
        MLPClassifier(solver="lbfgs", batch_norm=True).fit(X, Y)
    lbfgs = MLPRegressor(hidden_layer_sizes=(8, 8), solver="lbfgs", residual=True, random_state=0, max_iter=300).fit(
        X, VALUES
    )
    assert lbfgs.score(X, VALUES) > 0.8


@pytest.mark.parametrize("blocks", [{"batch_norm": True}, {"residual": True}])
def test_a_preset_for_tables_may_have_them(blocks: dict[str, Any]) -> None:
    preset = replace(tabular_preset("tabular", "classification"), hidden=(16, 16), epochs=30, **blocks)
    model = TabularClassifier(preset, random_state=0, device="numpy").fit(X, Y)
    assert model.score(X, Y) > 0.7
    (network,) = model.networks_
    assert (network.batch_norm, network.residual) == (blocks.get("batch_norm", False), blocks.get("residual", False))
    with pytest.raises(ValueError, match="do not go together with slopes"):
        replace(preset, slopes=True)


def test_network_for_is_what_fit_begins_with_and_leaves_the_estimator_alone() -> None:
    seed = np.random.RandomState(3)
    model = MLPClassifier((7,), activation="tanh", alpha=0.3, dropout=0.1, random_state=seed)
    network = model.network_for(X, Y)
    assert not hasattr(model, "network_")
    assert not hasattr(model, "classes_")
    assert network.layer_sizes == (5, 7, 3)
    assert (network.spec.l2, network.dropout) == (0.3, (0.0, 0.1))
    assert "tanh" in network.summary()
    still = MLPClassifier((7,), activation="tanh", alpha=0.0, learning_rate_init=1e-30, max_iter=1, random_state=seed)
    np.testing.assert_allclose(still.fit(X, Y).coefs_[0], network.weights[0], rtol=1e-6)
    assert MLPRegressor(hidden_layer_sizes=(3,)).network_for(X, np.stack([VALUES] * 2, axis=1)).layer_sizes == (5, 3, 2)
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        MLPClassifier((0,)).network_for(X, Y)
