"""Sound states: what a training leaves fits together, can be resumed, copied and pickled, and is never poisoned."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.learn.live.frames import Recorder
from gpuprop.learn.live.snapshot import LiveRun
from gpuprop.training.callbacks import UnitActivity
from gpuprop.training.records import Progress
from gpuprop.training.side_by_side import train_together

RNG = np.random.default_rng(5)
X, CLASSES = RNG.normal(size=(60, 4)), RNG.integers(0, 3, 60)


def network(**options: Any) -> gpuprop.Network:
    given: dict[str, Any] = {"loss": "categorical_cross_entropy", "dtype": "float64", "device": "numpy", "seed": 0}
    return gpuprop.Network((4, 7, 3), **given | options)


def trainer(net: gpuprop.Network | None = None, **options: Any) -> gpuprop.Trainer:
    return gpuprop.Trainer(net or network(), **{"batch_size": 16, "epochs": 3} | options)


def lengths(one: gpuprop.Trainer) -> set[int]:
    return {len(column) for column in one.history.values()}


# --- a progress --------------------------------------------------------------------------------------------------


def test_two_resumes_from_one_progress_are_equal() -> None:
    first = trainer().fit(X, CLASSES)
    progress = first.progress
    resumed = [trainer(first.network, epochs=6).fit(X, CLASSES, resume_from=progress) for _ in range(2)]
    undisturbed = trainer(epochs=6).fit(X, CLASSES)
    for one in resumed:
        np.testing.assert_array_equal(one.progress.parameters, undisturbed.network.host_parameters())
        for name, array in one.progress.optimizer_state.items():
            np.testing.assert_array_equal(array, undisturbed.progress.optimizer_state[name])
        assert one.history["train_loss"] == undisturbed.history["train_loss"]


def test_a_progress_taken_on_the_way_does_not_move() -> None:
    class Take(gpuprop.Callback):
        taken: Progress

        def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
            if epoch == 2:
                self.taken = trainer.progress

    take = Take()
    whole = trainer(epochs=5, callbacks=[take]).fit(X, CLASSES)
    resumed = trainer(epochs=5).fit(X, CLASSES, resume_from=take.taken)
    np.testing.assert_array_equal(resumed.network.host_parameters(), whole.network.host_parameters())


def test_a_progress_taken_within_an_epoch_goes_on_there() -> None:
    class Take(gpuprop.Callback):
        taken: Progress

        def on_step_end(self, trainer: Any, epoch: int, step: int) -> None:
            if (epoch, step) == (2, 3):
                self.taken = trainer.progress

    take = Take()
    whole = trainer(callbacks=[take]).fit(X, CLASSES)
    assert take.taken.within is not None
    assert (take.taken.epochs_done, take.taken.within.position) == (1, 3)
    resumed = trainer().fit(X, CLASSES, resume_from=take.taken)
    np.testing.assert_array_equal(resumed.network.host_parameters(), whole.network.host_parameters())
    assert resumed.history["train_loss"] == whole.history["train_loss"]


@pytest.mark.parametrize(
    ("options", "net", "message"),
    [
        ({"optimizer": "momentum"}, {}, "had the optimizer 'adam', this one has 'momentum'"),
        ({"optimizer": "nadam"}, {}, "had the optimizer 'adam', this one has 'nadam'"),  # with arrays of the same names
        ({}, {"dtype": "float32"}, "are float64, the network is float32"),
        ({"scaling_layer": True}, {}, "scaling_layer=True, expected it as it was"),
    ],
)
def test_a_progress_that_does_not_fit_is_refused(options: Any, net: Any, message: str) -> None:
    progress = trainer().fit(X, CLASSES).progress
    other = trainer(network(**net), **options)
    before = other.network.host_parameters()
    with pytest.raises(gpuprop.ResumeError, match=message):
        other.fit(X, CLASSES, resume_from=progress)
    np.testing.assert_array_equal(other.network.host_parameters(), before)


def test_a_progress_of_other_layers_or_data_is_refused() -> None:
    progress = trainer().fit(X, CLASSES).progress
    wider = gpuprop.Network((4, 8, 3), loss="categorical_cross_entropy", dtype="float64", device="numpy")
    with pytest.raises(gpuprop.ResumeError, match="of 59 parameters, this one has 67"):
        trainer(wider).fit(X, CLASSES, resume_from=progress)
    with pytest.raises(gpuprop.ResumeError, match="other data: X is another array; give it the data it began with"):
        trainer().fit(X + 1e-9, CLASSES, resume_from=progress)
    with pytest.raises(gpuprop.ResumeError, match="validation X is new"):
        trainer(validation=(X, CLASSES)).fit(X, CLASSES, resume_from=progress)
    elsewhere = replace(progress, data={})  # what is unknown is not checked
    assert trainer(epochs=4).fit(X[:40], CLASSES[:40], resume_from=elsewhere).epochs_done == 4


def test_a_resumed_training_remembers_its_best_epoch() -> None:
    """The resumed part only finds worse epochs; at its end the best one of all is restored."""
    options: dict[str, Any] = {"early_stopping": 30, "validation": (X, CLASSES), "learning_rate": 0.05}
    first = trainer(**options).fit(X, CLASSES)
    best = first.network.host_parameters()
    worse = trainer(first.network, epochs=6, **{**options, "learning_rate": 8.0})
    worse.fit(X, CLASSES, resume_from=first.progress)
    assert min(worse.history["validation_loss"][3:]) > first.history["validation_loss"][2]
    assert worse.best_epoch == first.best_epoch == 3
    np.testing.assert_array_equal(worse.network.host_parameters(), best)


def test_patience_goes_on_where_it_was() -> None:
    options: dict[str, Any] = {"early_stopping": 4, "validation": (X, (CLASSES + 1) % 3), "epochs": 40}
    whole = trainer(**options).fit(X, CLASSES)
    n_epochs = whole.epochs_done
    assert whole.best_epoch == n_epochs - 4 < 36
    half = trainer(**{**options, "epochs": n_epochs - 2}).fit(X, CLASSES)  # it has waited for two epochs
    resumed = trainer(half.network, **options).fit(X, CLASSES, resume_from=half.progress)
    assert resumed.epochs_done == n_epochs
    np.testing.assert_array_equal(resumed.network.host_parameters(), whole.network.host_parameters())


def test_a_rate_that_a_callback_has_changed_is_kept() -> None:
    class Halve(gpuprop.Callback):
        def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
            trainer.learning_rate /= 2

    whole = trainer(epochs=4, callbacks=[Halve()]).fit(X, CLASSES)
    half = trainer(epochs=2, callbacks=[Halve()]).fit(X, CLASSES)
    resumed = trainer(epochs=4, callbacks=[Halve()]).fit(X, CLASSES, resume_from=half.progress)
    assert resumed.history["learning_rate"] == whole.history["learning_rate"]
    chosen = trainer(epochs=3, learning_rate=0.02).fit(X, CLASSES, resume_from=half.progress)
    assert chosen.history["learning_rate"][-1] == 0.02  # a rate of one's own counts


# --- interrupts --------------------------------------------------------------------------------------------------


class Interrupt(gpuprop.Callback):
    """Raises within the third epoch, or in its validation."""

    def __init__(self, where: str) -> None:
        self.where = where

    def at(self, trainer: Any, where: str) -> None:
        if trainer.epochs_done == 2 and where == self.where:
            raise KeyboardInterrupt

    def on_epoch_begin(self, trainer: Any, epoch: int) -> None:
        trainer.learning_rate *= 0.5
        self.at(trainer, "beginning")

    def on_step_end(self, trainer: Any, epoch: int, step: int) -> None:
        if step == 3:
            self.at(trainer, "middle")


@pytest.mark.parametrize("where", ["beginning", "middle", "validation"])
def test_after_an_interrupt_parameters_and_optimizer_belong_together(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"validation": (X, CLASSES), "epochs": 5}
    whole = trainer(**options, callbacks=[Interrupt("nowhere")]).fit(X, CLASSES)
    interrupt = Interrupt(where)
    one = trainer(**options, callbacks=[interrupt])
    if where == "validation":
        evaluate = gpuprop.Network.evaluate_data

        def interrupted(self: gpuprop.Network, *arguments: Any) -> Any:
            interrupt.at(one, "validation")
            return evaluate(self, *arguments)

        monkeypatch.setattr(gpuprop.Network, "evaluate_data", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one.fit(X, CLASSES)
    assert (one.epochs_done, lengths(one)) == (2, {2})
    monkeypatch.undo()
    resumed = trainer(one.network, **options, callbacks=[Interrupt("nowhere")])
    resumed.fit(X, CLASSES, resume_from=one.progress)
    np.testing.assert_array_equal(resumed.network.host_parameters(), whole.network.host_parameters())
    assert resumed.history["learning_rate"] == whole.history["learning_rate"]


def test_an_error_after_shared_updates_takes_them_back() -> None:
    """Where a plan has made the updates of several trainings, an error in one's validation undoes that one's."""

    class Broken(gpuprop.Callback):
        def on_epoch_begin(self, trainer: Any, epoch: int) -> None:
            if epoch == 3:
                trainer.network.evaluate_data = None

    def some(first: list[gpuprop.Callback]) -> list[gpuprop.Trainer]:
        nets = [network(device="cpu", seed=seed) for seed in range(3)]
        callbacks = [first, [], []]
        return [
            trainer(net, validation=(X, CLASSES), epochs=4, callbacks=own)
            for net, own in zip(nets, callbacks, strict=True)
        ]

    broken, sound = some([Broken()]), some([])
    errors = train_together([one.training(X, CLASSES) for one in broken])
    assert [type(error) for error in errors] == [TypeError, type(None), type(None)]
    train_together([one.training(X, CLASSES) for one in sound])
    half = trainer(network(device="cpu"), validation=(X, CLASSES), epochs=2)
    train_together([half.training(X, CLASSES), trainer(network(device="cpu", seed=1), epochs=2).training(X, CLASSES)])
    for name, array in broken[0].progress.optimizer_state.items():
        np.testing.assert_array_equal(array, half.progress.optimizer_state[name])
    np.testing.assert_array_equal(broken[0].network.host_parameters(), half.network.host_parameters())


# --- divergence --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_divergence_leaves_an_optimizer_that_goes_on(optimizer: str) -> None:
    spoilt = X.copy()
    spoilt[7] = 1.7e308
    undisturbed = trainer(optimizer=optimizer).fit(X, CLASSES)
    one = trainer(undisturbed.network.copy(), optimizer=optimizer, epochs=5)
    known = replace(undisturbed.progress, data={})
    with pytest.raises(gpuprop.NonFiniteLossError):
        one.fit(spoilt, CLASSES, resume_from=known)
    for name, array in one.progress.optimizer_state.items():
        np.testing.assert_array_equal(array, undisturbed.progress.optimizer_state[name])
    np.testing.assert_array_equal(one.network.host_parameters(), undisturbed.network.host_parameters())


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_bad_batch_does_not_poison_partial_fit(solver: str) -> None:
    def model() -> gpuprop.MLPClassifier:
        return gpuprop.MLPClassifier((5,), solver=solver, random_state=0, batch_size=10, device="numpy", shuffle=False)

    spoilt, sound = model(), model()
    for part in range(3):
        rows = slice(20 * part, 20 * part + 20)
        if part == 1:
            with pytest.raises(ValueError, match="non-finite"), np.errstate(all="ignore"):
                spoilt.partial_fit(np.full((20, 4), 1.7e308), CLASSES[rows], classes=[0, 1, 2])
        for one in (spoilt, sound):
            one.partial_fit(X[rows], CLASSES[rows], classes=[0, 1, 2])
    for found, expected in zip(spoilt.coefs_, sound.coefs_, strict=True):
        np.testing.assert_array_equal(found, expected)


# --- callbacks and history ---------------------------------------------------------------------------------------


class Steps(gpuprop.Callback):
    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, trainer: Any, epoch: int, step: int) -> None:
        self.steps += 1


def test_callbacks_may_come_and_go_at_any_time() -> None:
    late, left = Steps(), Steps()

    class Change(gpuprop.Callback):
        def on_epoch_begin(self, trainer: Any, epoch: int) -> None:
            if epoch == 2:
                trainer.callbacks.append(late)
                trainer.callbacks.remove(left)

    one = trainer(callbacks=(Change(), left))
    one.callbacks += (after := Steps(),)
    one.fit(X, CLASSES)
    assert (left.steps, late.steps, after.steps) == (4, 8, 12)
    one.callbacks.append(print)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"derived from gpuprop.Callback"):
        one.fit(X, CLASSES)


def test_a_callback_that_comes_late_is_told_of_updates_that_would_be_shared() -> None:
    late = Steps()

    class Add(gpuprop.Callback):
        def on_fit_begin(self, trainer: Any) -> None:
            trainer.callbacks.append(late)

    pair = [trainer(network(device="cpu"), callbacks=[Add()]), trainer(network(device="cpu", seed=1))]
    train_together([one.training(X, CLASSES) for one in pair])
    assert late.steps == 12


def test_columns_of_a_callback_are_whole_after_a_resume() -> None:
    activity = UnitActivity(X)
    whole = trainer(callbacks=[activity], epochs=6).fit(X, CLASSES)
    plain = trainer(epochs=2).fit(X, CLASSES)
    watched = trainer(epochs=4, callbacks=[activity]).fit(X, CLASSES, resume_from=plain.progress)
    last = trainer(epochs=6).fit(X, CLASSES, resume_from=watched.progress)
    assert lengths(last) == {6}
    for column in ("zero_share_1", "dead_share_1"):
        assert last.history[column] == [None, None, *whole.history[column][2:4], None, None]


def test_columns_of_different_length_are_impossible() -> None:
    class Uneven(gpuprop.Callback):
        def __init__(self, error: bool) -> None:
            self.error = error

        def on_epoch_end(self, trainer: Any, epoch: int, record: Mapping[str, Any]) -> None:
            if epoch != 2:
                trainer.history.setdefault("sometimes", []).append(epoch)
            if epoch == 3 and self.error:
                raise RuntimeError("in the middle of an epoch's end")

    one = trainer(epochs=4, callbacks=[Uneven(error=False)]).fit(X, CLASSES)
    assert one.history["sometimes"] == [1, None, 3, 4]
    one = trainer(epochs=4, callbacks=[Uneven(error=True)])
    with pytest.raises(RuntimeError):
        one.fit(X, CLASSES)
    assert lengths(one) == {3}

    class Twice(gpuprop.Callback):
        def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
            trainer.history.setdefault("twice", []).extend([1, 2])

    one = trainer(callbacks=[Twice()])
    with pytest.raises(ValueError, match=r"history\['twice'\]: got 2 entries in 1 epochs"):
        one.fit(X, CLASSES)
    assert lengths(one) == {1}


# --- copies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_trainer_and_its_callbacks_can_be_copied(twin_of: Any, tmp_path: Path) -> None:
    callbacks = [UnitActivity(X), Recorder(X, CLASSES), LiveRun(tmp_path, X, CLASSES), Steps()]
    settings: dict[str, Any] = {"early_stopping": 9, "schedule": "cosine", "validation": 0.2, "callbacks": callbacks}
    one = trainer(epochs=3, **settings, checkpoint=tmp_path / "kept").fit(X, CLASSES)
    twin = twin_of(one)
    assert twin.history == one.history
    assert twin.plan_reason == one.plan_reason
    assert (twin.callbacks[3].steps, len(twin.callbacks[1].frames)) == (9, 4)
    for resumed in (one, twin):
        resumed.epochs = 5
        resumed.fit(X, CLASSES, resume_from=resumed.progress)
    np.testing.assert_array_equal(twin.network.host_parameters(), one.network.host_parameters())
    whole = trainer(epochs=5, **{**settings, "schedule": one.schedule}).fit(X, CLASSES)
    assert whole.history.keys() == one.history.keys()


def test_a_trainer_can_be_pickled_within_its_training() -> None:
    class Pickle(gpuprop.Callback):
        def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
            if epoch == 2:
                others, trainer.callbacks = trainer.callbacks, []
                taken.append(pickle.dumps(trainer))
                trainer.callbacks = others

    taken: list[bytes] = []
    whole = trainer(callbacks=[Pickle()]).fit(X, CLASSES)
    twin = pickle.loads(taken[0])
    twin.fit(X, CLASSES, resume_from=twin.progress)
    np.testing.assert_array_equal(twin.network.host_parameters(), whole.network.host_parameters())


@pytest.mark.parametrize(("device", "plan"), [("numpy", "auto"), ("cpu", "steps"), ("cpu", "fused")])
def test_nothing_of_a_training_outlives_its_trainer(device: str, plan: str) -> None:
    """Its data may fill a device's memory, and Python's search for circles may come much later."""
    one = trainer(network(device=device), callbacks=[gpuprop.Callback()], plan=plan, validation=0.25)
    gc.collect()
    gc.disable()
    try:
        one.fit(X, CLASSES)
        seen = weakref.ref(one)
        del one
        assert seen() is None
    finally:
        gc.enable()
