"""Calls of one epoch: what is kept from call to call never changes a result, and how long a network trains counts."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_classification

import gpuprop
from gpuprop import MLPClassifier, MLPRegressor
from gpuprop.backends.cpu import fused
from gpuprop.estimators.draws import CumulativeShuffles, shuffles
from gpuprop.estimators.recognised import encoded
from gpuprop.training import kept_plans

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CLASSES = np.arange(3)
Change = Callable[[Any, Any, Any], Any]


def rows(n: int = 33) -> tuple[Any, Any]:
    X, y = make_classification(n, 7, n_informative=5, n_classes=3, random_state=0)
    return X, y


def model_of(kind: str, call: str, plan: str, **parameters: Any) -> Any:
    given: dict[str, Any] = {
        "hidden_layer_sizes": (9,), "batch_size": 10, "learning_rate_init": 0.02, "device": "cpu", "random_state": 0,
        "plan": plan,
    } | parameters  # fmt: skip
    if call == "fit":
        given |= {"max_iter": 1, "warm_start": True}
    return (MLPClassifier if kind == "classifier" else MLPRegressor)(**given)


def train(model: Any, call: str, X: Any, y: Any) -> None:
    if call == "fit":
        model.fit(X, y)
    else:
        model.partial_fit(X, y, **({"classes": CLASSES} if isinstance(model, MLPClassifier) else {}))


def assign(model: Any, X: Any, y: Any) -> None:
    model.coefs_ = [0.5 * one for one in model.coefs_]


def reseed(model: Any, X: Any, y: Any) -> None:
    model.network_.reseed(5)


#: What a user may do between two calls: to the model, or to the arrays in place.
CHANGES: dict[str, Change] = {
    "nothing": lambda model, X, y: None,
    "values of X": lambda model, X, y: X.__setitem__((slice(None, None, 2), 3), 1.5),
    "values of y": lambda model, X, y: y.__setitem__(slice(9), np.roll(y[:9], 1)),
    "coefs_": assign,
    "one weight": lambda model, X, y: model.coefs_[0].__setitem__((0, 0), 0.25),
    "batch_size": lambda model, X, y: model.set_params(batch_size=7),
    "rate": lambda model, X, y: model.set_params(learning_rate_init=0.1),
    "clip_norm": lambda model, X, y: model.set_params(clip_norm=0.01),
    "n_threads": lambda model, X, y: model.set_params(n_threads=1),
    "seed": lambda model, X, y: model.set_params(random_state=3),
    "shuffle": lambda model, X, y: model.set_params(shuffle=False),
    "masks": reseed,
}


@pytest.mark.parametrize("plan", ["fused", "steps"])
@pytest.mark.parametrize("call", ["partial_fit", "fit"])
@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_what_is_kept_is_never_stale(kind: str, call: str, plan: str) -> None:
    """A pickle keeps nothing, and Fortran order has scikit-learn check everything; the bits are the same."""
    for name, change in CHANGES.items():
        if plan == "steps" and name not in ("nothing", "values of X", "values of y", "coefs_", "batch_size"):
            continue
        if plan == "fused" and name == "clip_norm":
            continue  # a kind of its own, which would have to be compiled
        X, y = rows()
        y = y if kind == "classifier" else y + 0.5
        keeping, forgetting = model_of(kind, call, plan), model_of(kind, call, plan)
        for turn in range(4):
            if turn == 2:
                own = X.copy(), y.copy()
                change(forgetting, *own)
                change(keeping, X, y)
            train(keeping, call, X, y)
            forgetting = pickle.loads(pickle.dumps(forgetting))
            train(forgetting, call, np.asfortranarray(X.copy()), y.copy())
        assert keeping.plan_ == forgetting.plan_
        assert keeping.loss_curve_ == forgetting.loss_curve_, name
        np.testing.assert_array_equal(
            keeping.network_.host_parameters(), forgetting.network_.host_parameters(), err_msg=name
        )


def test_faults_are_found_in_arrays_that_were_sound_before() -> None:
    X, y = rows()
    model = model_of("classifier", "partial_fit", "fused")
    for _ in range(2):
        train(model, "partial_fit", X, y)
    before, made = model.network_.host_parameters(), dict(model.network_.updates_made)
    optimizer = copy.deepcopy(model._progress.optimizer_state)
    X[20, 3] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        train(model, "partial_fit", X, y)
    X[20, 3] = 1e200  # its square is infinite, and it is not
    y[4] = 9
    with pytest.raises(ValueError, match="classes not in"):
        train(model, "partial_fit", X, y)
    y[4] = 0
    with pytest.raises(ValueError, match="7 features"):
        train(model, "partial_fit", X[:, :5].copy(), y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        train(model, "partial_fit", X, y[:-1])
    with pytest.raises(ValueError, match="continuous"):
        train(model, "partial_fit", X, y + 0.5)
    np.testing.assert_array_equal(model.network_.host_parameters(), before)
    np.testing.assert_equal(model._progress.optimizer_state, optimizer)
    assert model.network_.updates_made == made


@pytest.mark.parametrize("classes", [[0, 1], [0, 1, 2], [-3, 5, 11, 40], [0.0, 2.0, 3.0], [False, True]], ids=str)
def test_labels_become_what_scikit_learn_makes_of_them(classes: list[Any]) -> None:
    from sklearn.preprocessing import LabelBinarizer

    rng, known = np.random.default_rng(0), np.array(classes)
    binarizer = LabelBinarizer().fit(known)
    for y in (rng.choice(known, 50), np.repeat(known[-1:], 5), known[:1]):
        found = encoded(y, known, all_of_them=False)
        assert found is not None
        np.testing.assert_array_equal(found, binarizer.transform(y).astype(bool))
    assert encoded(known[:-1], known, all_of_them=True) is None
    assert encoded(np.array([*classes, 99]), known, all_of_them=False) is None
    assert encoded(np.arange(30), np.arange(40), all_of_them=False) is None  # scikit-learn warns of so many classes


def test_an_error_after_the_epoch_takes_the_optimizer_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(gpuprop.Callback):
        fails = False

        def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
            if self.fails:
                raise RuntimeError("no disk")

    X, y = rows()
    callback = Failing()
    model, calm = (model_of("classifier", "partial_fit", "fused", callbacks=[callback]) for _ in range(2))
    for turn in range(4):
        train(calm, "partial_fit", X, y)
        if turn == 2:
            callback.fails = True
            with pytest.raises(RuntimeError, match="no disk"):
                train(model, "partial_fit", X, y)
            callback.fails = False
        train(model, "partial_fit", X, y)
    np.testing.assert_array_equal(model.network_.host_parameters(), calm.network_.host_parameters())
    np.testing.assert_equal(model._progress.optimizer_state, calm._progress.optimizer_state)


# --- the choice of the path -----------------------------------------------------------------------------------------


def paths(model: Any, call: str, count: int, between: Callable[[Any], Any] = lambda model: model) -> list[str]:
    X, y = rows()
    found = []
    for _ in range(count):
        train(model, call, X, y)
        found.append(model.plan_.partition(":")[0])
        model = between(model)
    return found


@pytest.mark.parametrize("call", ["partial_fit", "fit"])
def test_what_a_network_has_trained_counts_for_its_path(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four updates an epoch of 50 us each, and 600 us to be saved: the third call is the first one fused."""
    monkeypatch.setattr(fused, "LEAST_SAVING", 600e-6)
    one_by_one = {"max_iter": 1}
    expected = ["steps", "steps", "fused", "fused"]
    assert paths(model_of("classifier", call, "auto", **one_by_one), call, 4) == expected
    for between in (copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))):
        assert paths(model_of("classifier", call, "auto", **one_by_one), call, 4, between) == expected


def test_a_trainer_counts_too_by_optimizer_and_again_after_a_resume(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(fused, "LEAST_SAVING", 600e-6)
    X, y = rows()

    def network() -> gpuprop.Network:
        return gpuprop.Network(
            (7, 9, 3), loss="categorical_cross_entropy", dtype="float64", seed=0, device="cpu", l2=1e-4
        )

    def trainer(net: gpuprop.Network, epochs: int = 1, **options: Any) -> gpuprop.Trainer:
        return gpuprop.Trainer(net, batch_size=10, epochs=epochs, **options)

    def path(one: gpuprop.Trainer) -> str:
        return str(one.plan_reason).partition(":")[0]

    net = network()
    found = [path(trainer(net).fit(X, y)) for _ in range(3)]
    assert found == ["steps", "steps", "fused"]
    assert net.updates_made == {"adam": 12}
    assert path(trainer(net, optimizer="sgd").fit(X, y)) == "steps"
    assert net.copy().updates_made == net.updates_made == {"adam": 12, "sgd": 4}

    # A second training, after a first one that both processes find finished or make; the second is cut short in one.
    alone, killed = network(), network()
    for one in (alone, killed):
        trainer(one, checkpoint=tmp_path / str(id(one))).fit(X, y)
    whole = trainer(alone, 2).fit(X, y)
    cut = trainer(killed, 2, checkpoint=gpuprop.Checkpoint(tmp_path / "second", "1 epoch"))
    cut.callbacks.append(Stop())
    cut.fit(X, y)
    again = network()
    trainer(again, checkpoint=tmp_path / str(id(killed))).fit(X, y, resume_from="auto")
    assert again.updates_made == {"adam": 4}
    progress = cut.progress
    resumed = trainer(again, 2).fit(X, y, resume_from=progress)
    assert path(whole) == path(resumed) == "fused"
    assert alone.updates_made == again.updates_made
    np.testing.assert_array_equal(alone.host_parameters(), again.host_parameters())


class Stop(gpuprop.Callback):
    """It ends a training after an epoch."""

    def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
        trainer.stop_training()


def test_calls_of_a_trainer_give_the_bits_of_one_fit() -> None:
    X, y = rows()
    nets = [
        gpuprop.Network((7, 9, 3), loss="categorical_cross_entropy", dtype="float64", seed=0, device="cpu", l2=1e-4)
        for _ in range(2)
    ]
    whole = gpuprop.Trainer(nets[0], batch_size=10, epochs=3, plan="fused").fit(X, y)
    parts = gpuprop.Trainer(nets[1], batch_size=10, epochs=1, plan="fused").fit(X, y)
    for epochs in (2, 3):
        parts.epochs = epochs
        parts.fit(X, y, resume_from=parts.progress)
    np.testing.assert_array_equal(nets[0].host_parameters(), nets[1].host_parameters())
    assert whole.history["train_loss"] == parts.history["train_loss"]


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_a_kept_plan_holds_no_data_and_goes_with_its_network(monkeypatch: pytest.MonkeyPatch) -> None:
    kept_plans._kept.clear()
    X, y = rows()
    model = model_of("classifier", "partial_fit", "fused")
    train(model, "partial_fit", X, y)
    train(model, "partial_fit", X, y)
    assert len(kept_plans._kept) == 1
    data = weakref.ref(X)
    del X
    gc.collect()
    assert data() is None
    del model
    gc.collect()
    assert not kept_plans._kept
    monkeypatch.setattr(kept_plans, "MOST_BYTES", 10_000)
    models = [model_of("classifier", "partial_fit", "fused") for _ in range(3)]
    for one in models:
        train(one, "partial_fit", *rows())
    assert len(kept_plans._kept) < 3


def test_calls_with_other_numbers_of_rows_and_other_seeds_draw_their_own_orders() -> None:
    X, y = rows()
    keeping, forgetting = (model_of("classifier", "partial_fit", "fused") for _ in range(2))
    for stop, seed in ((33, 0), (33, 0), (21, 0), (21, 4), (33, 4), (33, 0)):
        for model in (keeping, forgetting):
            model.set_params(random_state=seed)
        train(keeping, "partial_fit", X[:stop].copy(), y[:stop].copy())
        forgetting = pickle.loads(pickle.dumps(forgetting))
        train(forgetting, "partial_fit", X[:stop].copy(), y[:stop].copy())
    assert keeping.loss_curve_ == forgetting.loss_curve_


@pytest.mark.parametrize("drawn", [False, True])
def test_row_orders_know_later_what_they_remembered(drawn: bool) -> None:
    """The states that are worked out later, in any order, are those of orders that say it at once."""
    network = gpuprop.Network((7, 3), seed=0, device="cpu")
    for _ in range(2):  # the second time the first order is known
        generators = [np.random.RandomState(3) for _ in range(2)]
        if drawn:
            for generator in generators:
                generator.uniform(size=5)
        at_once, later = CumulativeShuffles(generators[0], 9), shuffles(3, generators[1], 9, None if drawn else network)
        states, marks = [], []
        for epoch in range(4):
            states.append(at_once.state())
            marks.append(later.later())
            np.testing.assert_array_equal(at_once(epoch, 9), later(epoch, 9))
        np.testing.assert_equal(later.state(), at_once.state())
        for i in (2, 0, 3, 1):
            np.testing.assert_equal(marks[i](), states[i])
        later.restore(marks[1]())
        np.testing.assert_equal(later.later()(), states[1])


def test_the_records_of_calls_are_not_copied_from_call_to_call_unless_others_see_them() -> None:
    X, y = rows()
    model = model_of("classifier", "partial_fit", "fused")
    for _ in range(3):
        train(model, "partial_fit", X, y)
    columns, rule = dict(model._progress.history), model._progress.rule
    train(model, "partial_fit", X, y)
    assert rule is not None
    assert model._progress.rule is rule
    assert all(model._progress.history[name] is column for name, column in columns.items())
    assert pickle.loads(pickle.dumps(model))._progress.rule is None
    model.set_params(beta_1=0.5)
    for _ in range(2):
        train(model, "partial_fit", X, y)
    assert model._progress.rule.optimizer.beta_1 == 0.5

    seen = []

    class Look(gpuprop.Callback):
        def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
            seen.append(trainer)

    model.set_params(callbacks=[Look()])
    for _ in range(3):
        train(model, "partial_fit", X, y)
    assert [len(trainer.history["epoch"]) for trainer in seen] == [7, 8, 9]
