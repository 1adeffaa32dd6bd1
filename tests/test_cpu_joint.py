"""Networks that share compiled calls on the CPU get the bits that each gets alone in the fused tier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.backends.cpu.ops import compiled_loops
from gpuprop.estimators.tabular import TabularClassifier
from gpuprop.training.side_by_side import train_together

pytestmark = pytest.mark.skipif(compiled_loops() is None, reason="nothing can be compiled here")

#: Setting for setting, what the networks of a case have of their own.
RATES: list[dict[str, Any]] = [
    {"learning_rate": 0.01 * (1 + i), "schedule": ("constant", "cosine", "one-cycle")[i % 3]} for i in range(5)
]
GROUPED: list[dict[str, Any]] = [
    {"learning_rate_factors": {"biases": 0.1 * (1 + i), "scale": 6.0}, "scaling_layer": True} | RATES[i]
    for i in range(5)
]
NORMS: list[dict[str, Any]] = [{"clip_norm": 0.1 * (1 + i), "max_norm": 2.0} for i in range(5)]


def rows_of(i: int, dtype: str, *, images: bool = False) -> tuple[Any, Any, Any]:
    """Return rows of which each network has some of its own, and another number of them."""
    random = np.random.default_rng(0)
    X = random.integers(1, 256, (97, 45)) * (random.random((97, 45)) < 0.1) if images else random.normal(size=(97, 7))
    y, weight = random.integers(0, 3, 97), random.random(97)
    own = np.arange(97) % 5 != i if i < 3 else slice(None)
    return X[own].astype("uint8" if images else dtype), y[own], weight[own] if i % 2 else None


def trained(
    own: list[dict[str, Any]], plan: str, dtype: str, *, images: bool = False, network: dict[str, Any] | None = None
) -> list[gpuprop.Trainer]:
    """Train a network for each entry of `own`, together or each alone."""
    trainers, runs = [], []
    for i, settings in enumerate(own):
        rows = rows_of(i, dtype, images=images)
        sizes = (rows[0].shape[1], 37 if images else 17, 5, 3)
        one = gpuprop.Network(
            sizes, loss="categorical_cross_entropy", hidden_activation=("tanh", "silu"), seed=i, dtype=dtype,
            device="cpu", l1=1e-3 * (i == 1), l2=1e-3 * i, **(network or {}),
        )  # fmt: skip
        trainers.append(gpuprop.Trainer(one, batch_size=8, epochs=5, plan=plan, **settings))
        runs.append(trainers[-1].training(*rows))
    if plan == "joint":
        assert train_together(runs) == [None] * len(runs)
        assert all(str(one.plan_reason).startswith("joint: ") for one in trainers)
    else:
        for run in runs:
            assert train_together([run]) == [None]
            assert str(trainers[0].plan_reason).startswith("fused: ")
    return trainers


def assert_same_bits(together: list[gpuprop.Trainer], alone: list[gpuprop.Trainer]) -> None:
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.network.host_parameters(), other.network.host_parameters())
        assert {name: column for name, column in one.history.items() if name != "seconds"} == {
            name: column for name, column in other.history.items() if name != "seconds"
        }
        ours, theirs = one.progress, other.progress
        for name, array in theirs.optimizer_state.items():
            np.testing.assert_array_equal(ours.optimizer_state[name], array)
        if theirs.scaling_layer is not None and ours.scaling_layer is not None:
            for (name, array), (_, expected) in zip(
                ours.scaling_layer.arrays(), theirs.scaling_layer.arrays(), strict=True
            ):
                np.testing.assert_array_equal(array, expected, err_msg=name)


# Each pair is two kinds to compile; the other half of the pairs would compile as much again.
@pytest.mark.parametrize(
    ("own", "dtype"), [(RATES, "float32"), (GROUPED, "float64")], ids=["rates, float32", "rates by group, float64"]
)
def test_networks_of_their_own_rows_rates_and_penalties(own: list[dict[str, Any]], dtype: str) -> None:
    assert_same_bits(trained(own, "joint", dtype), trained(own, "fused", dtype))


def test_networks_whose_gradients_and_weights_are_limited() -> None:
    assert_same_bits(trained(NORMS, "joint", "float32"), trained(NORMS, "fused", "float32"))


def test_networks_that_drop_units() -> None:
    dropped = {"dropout": 0.2}
    assert_same_bits(
        trained(RATES, "joint", "float32", network=dropped), trained(RATES, "fused", "float32", network=dropped)
    )


def test_zeros_of_images_are_skipped() -> None:
    assert_same_bits(trained(RATES, "joint", "float32", images=True), trained(RATES, "fused", "float32", images=True))


@pytest.mark.parametrize("n_networks", [5, 2])
def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch, n_networks: int) -> None:
    """Five networks are trained by three threads in parts of an epoch; two by three threads that share each update."""
    from gpuprop.backends.cpu import joint

    expected = trained(RATES[:n_networks], "fused", "float32")
    monkeypatch.setattr(joint, "allowed_threads", lambda: 3)
    monkeypatch.setattr(joint, "_WORTH_A_THREAD", 1e-6)
    if n_networks == 2:
        monkeypatch.setattr(joint, "most_threads", lambda products, limit: 3)
    assert_same_bits(trained(RATES[:n_networks], "joint", "float32"), expected)


def test_every_update_is_in_one_piece_and_after_the_earlier_ones() -> None:
    from gpuprop.backends.cpu.joint import _pieces

    for n_networks in (1, 2, 3, 10, 1000):
        for n_threads in (1, 2, 3, 16):
            for first, last in ((0, 1), (3, 20), (0, 100)):
                done = np.zeros((n_networks, last), int)
                ended: list[Any] = []
                for piece in _pieces(n_networks, first, last, n_threads):
                    assert piece.before is None or any(piece.before is one for one in ended)
                    done[piece.begin : piece.end, piece.first : piece.stop] += 1
                    assert piece.enters == (piece.first == first)
                    assert piece.leaves == (piece.stop == last)
                    ended.append(piece.after)
                assert (done[:, first:] == 1).all()
                assert not done[:, :first].any()


def test_short_trainings_take_turns_and_long_ones_do_not() -> None:
    from gpuprop.backends.cpu.joint import not_worth_joining

    def some(n_networks: int, epochs: int) -> list[Any]:
        runs = []
        for seed in range(n_networks):
            net = gpuprop.Network((7, 17, 3), loss="categorical_cross_entropy", seed=seed, device="cpu")
            runs.append(gpuprop.Trainer(net, batch_size=10, epochs=epochs).training(*rows_of(3, "float32")[:2]))
        return [next(run).training for run in runs]

    assert not_worth_joining(some(10, 100)) is not None
    assert not_worth_joining(some(10, 1000)) is None
    assert not_worth_joining(some(100, 100)) is None


@pytest.mark.parametrize("cv", [None, 3])
def test_the_networks_of_a_table_train_together(monkeypatch: pytest.MonkeyPatch, cv: int | None) -> None:
    from gpuprop.backends.cpu import joint_plan

    X, y, _ = rows_of(3, "float64")
    names = np.array(["no", "yes", "maybe"])[y]

    def fitted() -> TabularClassifier:
        model = TabularClassifier(
            n_networks=2, cv=cv, device="cpu", random_state=0, hidden_layer_sizes=(16, 16), epochs=3, batch_size=8
        )
        return model.fit(X, names)

    alone = fitted()
    monkeypatch.setattr(joint_plan, "not_worth_joining", lambda trainings: None)
    together = fitted()
    assert str(together.plan_).startswith(f"joint: {2 if cv is None else 6} networks")
    assert together.best_epochs_ == alone.best_epochs_
    np.testing.assert_allclose(together.predict_proba(X), alone.predict_proba(X), rtol=1e-4, atol=1e-6)
