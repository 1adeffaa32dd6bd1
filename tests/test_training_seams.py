"""What the estimators need of the core: resumed trainings, scikit-learn's averages, sparse rows, copies of networks."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from gpuprop import Network, Trainer
from gpuprop.maths.losses import LOSSES, get_loss
from gpuprop.model import evaluation


def problem(n_samples: int = 23) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_samples, 5))
    return X, np.sin(X[:, :2]), rng.uniform(0.1, 3.0, n_samples)


def network(**parameters: Any) -> Network:
    return Network((5, 7, 2), hidden_activation="tanh", dtype="float64", seed=1, device="numpy", **parameters)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "nadam"])
def test_a_resumed_training_is_the_uninterrupted_one(optimizer: str) -> None:
    X, y, weight = problem()
    settings: dict[str, Any] = {"optimizer": optimizer, "batch_size": 6, "schedule": "adaptive"}
    whole = Trainer(network(dropout=0.2), epochs=7, **settings).fit(X, y, weight)

    half = network(dropout=0.2)
    first = Trainer(half, epochs=3, **settings).fit(X, y, weight)
    second = Trainer(half, epochs=7, **settings).fit(X, y, weight, resume_from=first.progress)
    np.testing.assert_array_equal(half.parameters, whole.network.parameters)
    assert second.history["train_loss"] == whole.history["train_loss"]
    assert (second.epochs_done, second.steps_done) == (7, 28)
    assert len(first.history["epoch"]) == 3


def test_scikit_learns_conventions_divide_penalties_and_count_rows() -> None:
    """One epoch at a rate of nearly nothing: the reported loss is an average of batch objectives at fixed weights."""
    X, y, weight = problem()
    net = network(l1=0.3, l2=0.7)
    order = np.arange(23)[::-1].copy()
    outputs = net.forward(X)
    per_sample = 0.5 * ((outputs - y) ** 2).sum(axis=1)
    all_weights = np.concatenate([w.ravel() for w in net.weights])
    penalty = 0.3 * np.abs(all_weights).sum() + 0.35 * (all_weights**2).sum()
    batches = [order[start : start + 6] for start in range(0, 23, 6)]
    objectives = [np.average(per_sample[b], weights=weight[b]) + penalty / weight[b].sum() for b in batches]
    expected = np.average(objectives, weights=[len(b) for b in batches])

    trainer = Trainer(
        net,
        optimizer="sgd",
        learning_rate=1e-12,
        batch_size=6,
        epochs=1,
        row_orders=lambda epoch, n: order,
        conventions="scikit-learn",
    )
    trainer.fit(X, y, weight)
    assert trainer.history["train_loss"][0] == pytest.approx(expected, rel=1e-9)


def test_batch_without_weight_changes_nothing() -> None:
    X, y, _ = problem(12)
    weight = np.repeat([1.0, 0.0], 6)
    net, shorter = network(l2=0.5), network(l2=0.5)
    settings: dict[str, Any] = {"optimizer": "sgd", "batch_size": 6, "epochs": 1, "shuffle": False}
    Trainer(net, conventions="scikit-learn", **settings).fit(X, y, weight)
    Trainer(shorter, conventions="scikit-learn", **settings).fit(X[:6], y[:6])
    np.testing.assert_allclose(net.parameters, shorter.parameters, rtol=1e-14)


def test_unknown_conventions_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'scikit-learn'"):
        Trainer(network(), conventions="sklearn")  # type: ignore[arg-type]


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csc_array, sparse.coo_array])
def test_sparse_rows_are_the_dense_ones(container: Any) -> None:
    X, y, _ = problem()
    X = np.where(X > 0, X, 0.0)
    dense, thin = network(), network()
    np.testing.assert_array_equal(thin.forward(container(X)), dense.forward(X))
    for net, data in ((dense, X), (thin, container(X))):
        Trainer(net, batch_size=4, epochs=3).fit(data, y)
    np.testing.assert_array_equal(thin.parameters, dense.parameters)


def test_a_share_of_sparse_rows_is_held_out() -> None:
    X, y, weight = problem()
    dense, thin = network(), network()
    for net, data in ((dense, X), (thin, sparse.csr_array(X))):
        Trainer(net, batch_size=4, epochs=2, validation=0.3).fit(data, y, weight)
    np.testing.assert_array_equal(thin.parameters, dense.parameters)


def test_sparse_data_with_an_infinity_are_refused() -> None:
    X = sparse.csr_matrix([[0.0, np.inf, 0.0, 0.0, 1.0]])
    with pytest.raises(ValueError, match="stored values of X: contains inf"):
        network().forward(X)


def test_wide_rows_are_worked_through_in_smaller_chunks() -> None:
    net = Network((2**23, 1), init="zeros", device="numpy")
    works = evaluation.chunks(net.layers, sparse.csr_matrix((5, 2**23)), None, keep_z=False)
    assert [work.n_rows for work in works] == [2, 2, 1]


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_of_a_network_keep_their_views(twin_of: Any) -> None:
    X, y, _ = problem()
    net = network(l2=0.1)
    twin = twin_of(net)
    np.testing.assert_array_equal(twin.parameters, net.parameters)
    assert twin.get_config() == net.get_config()
    assert np.shares_memory(twin.weights[0], twin.parameters)
    Trainer(twin, epochs=2, batch_size=5).fit(X, y)
    assert not np.array_equal(twin.parameters, net.parameters)
    assert np.shares_memory(twin.weights[1], twin.parameters)


@pytest.mark.parametrize("name", [*LOSSES, "huber(0.3)", "pinball(0.9)"])
def test_losses_can_be_pickled(name: str) -> None:
    a, y = np.array([[0.2, 0.7]]), np.array([[0.4, 0.6]])
    loss = get_loss(name)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(loss)).value(a, y), loss.value(a, y))
