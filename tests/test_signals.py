"""Signals end a training at an update, with all that it needs to go on; none is lost, and none hits too early."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.training.checkpoint import newest
from gpuprop.training.signals import asked_to_end, end_if_asked, finishing, watching_signals

RNG = np.random.default_rng(5)
X, CLASSES = RNG.normal(size=(60, 4)), RNG.integers(0, 3, 60)
POSIX = pytest.mark.skipif(os.name != "posix", reason="the signals of POSIX")
OTHERS = [signal.SIGTERM, *([signal.SIGHUP, signal.SIGUSR1] if os.name == "posix" else [])]
ALL = [signal.SIGINT, *OTHERS]


def send(number: int) -> None:
    os.kill(os.getpid(), number)


class At(gpuprop.Callback):
    """Does something after an update of an epoch."""

    def __init__(self, epoch: int, step: int, what: Callable[[], Any]) -> None:
        self.place, self.what, self.seen = (epoch, step), what, 0

    def on_step_end(self, trainer: Any, epoch: int, step: int) -> None:
        self.seen += 1
        if (epoch, step) == self.place:
            self.what()


def trainer(checkpoint: Any = None, *callbacks: gpuprop.Callback, **options: Any) -> gpuprop.Trainer:
    net = gpuprop.Network((4, 7, 3), loss="categorical_cross_entropy", device="numpy", seed=0)
    given = {"batch_size": 16, "epochs": 4, "checkpoint": checkpoint, "callbacks": callbacks} | options
    return gpuprop.Trainer(net, **given)


def end_of(one: gpuprop.Trainer) -> Any:
    """Return what ends a training."""
    try:
        one.fit(X, CLASSES)
    except (KeyboardInterrupt, gpuprop.TrainingEnded) as error:
        return error
    return None


@pytest.fixture(autouse=True)
def handlers_are_put_back() -> Any:
    before = [signal.getsignal(number) for number in ALL]
    yield
    assert [signal.getsignal(number) for number in ALL] == before
    assert asked_to_end() is None


@POSIX
@pytest.mark.parametrize("number", ALL, ids=lambda number: number.name)
def test_a_signal_ends_a_training_at_the_next_update_with_a_checkpoint(number: signal.Signals, tmp_path: Path) -> None:
    at = At(3, 2, lambda: send(number))
    one = trainer(gpuprop.Checkpoint(tmp_path, "1 h"), at)
    error = end_of(one)
    if number == signal.SIGINT:
        assert isinstance(error, KeyboardInterrupt)
    else:
        assert isinstance(error, gpuprop.TrainingEnded)
        assert error.signal == number
        assert number.name in str(error)
    assert at.seen == 10
    assert one.epochs_done == len(one.history["epoch"]) == 2
    stored = newest(tmp_path)
    assert stored is not None
    assert stored.progress.within is not None
    assert (stored.progress.epochs_done, stored.progress.within.position) == (2, 2)
    whole = trainer().fit(X, CLASSES).network.host_parameters()
    for resume_from in (tmp_path, one.progress):  # from the update, or from the end of the epoch before
        np.testing.assert_array_equal(
            trainer().fit(X, CLASSES, resume_from=resume_from).network.host_parameters(), whole
        )


@POSIX
def test_a_second_signal_waits_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    class Twice(gpuprop.Checkpoint):
        def write(self, *arguments: Any, **options: Any) -> Path:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                send(number)
            file = super().write(*arguments, **options)
            send(signal.SIGINT)
            return file

    with pytest.raises(KeyboardInterrupt):
        trainer(Twice(tmp_path, "1 h"), At(1, 2, lambda: send(signal.SIGINT))).fit(X, CLASSES)
    assert newest(tmp_path) is not None


def test_a_second_interrupt_does_not_wait_otherwise() -> None:
    reached = []

    def twice() -> None:
        send(signal.SIGINT)
        reached.append(1)
        send(signal.SIGINT)
        reached.append(2)

    with pytest.raises(KeyboardInterrupt):
        trainer(None, At(2, 1, twice)).fit(X, CLASSES)
    assert reached == [1]


def test_an_interrupt_that_lands_in_a_finalizer_is_not_lost() -> None:
    """Python prints and forgets an exception there: five of 25 interrupts of a cold compile were lost so."""

    class Finalized:
        def __del__(self) -> None:
            send(signal.SIGINT)
            for _ in range(10):  # gives the handler its turn
                pass

    def drop() -> None:
        Finalized()

    one = trainer(None, At(1, 2, drop))
    with pytest.raises(KeyboardInterrupt):
        one.fit(X, CLASSES)
    assert one.epochs_done == 0


@pytest.mark.parametrize("where", ["on_fit_begin", "on_epoch_begin", "on_epoch_end", "on_fit_end"])
def test_an_interrupt_is_never_swallowed(where: str) -> None:
    def hook(self: Any, trainer: Any, epoch: int = 4, record: Any = None) -> None:
        if epoch == 4:
            send(signal.SIGINT)

    sending = type("Sending", (gpuprop.Callback,), {where: hook})()
    one = trainer(None, sending)
    with pytest.raises(KeyboardInterrupt):
        one.fit(X, CLASSES)
    assert one.epochs_done == {"on_fit_begin": 0, "on_epoch_begin": 3}.get(where, 4)


def test_estimators_end_at_an_update_too() -> None:
    model = gpuprop.MLPClassifier(
        (5,), callbacks=[At(3, 1, lambda: send(signal.SIGINT))], device="numpy", batch_size=20, random_state=0
    )
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(X, CLASSES)
    assert model.n_iter_ == len(model.loss_curve_) == 2


# --- the watch ---------------------------------------------------------------------------------------------------


@POSIX
def test_what_a_process_ignores_or_handles_is_left_alone() -> None:
    heard = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    handled = signal.signal(signal.SIGUSR1, lambda *_: heard.append("own"))
    try:
        with watching_signals():
            send(signal.SIGHUP)
            send(signal.SIGUSR1)
            assert asked_to_end() is None
        assert heard == ["own"]
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGUSR1, handled)


@POSIX
def test_watches_may_be_nested() -> None:
    with watching_signals(interrupts_only=True):
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        with watching_signals():
            send(signal.SIGTERM)
            assert asked_to_end() == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert asked_to_end() == signal.SIGTERM  # until the outermost context ends
        with pytest.raises(gpuprop.TrainingEnded):
            end_if_asked()


def test_a_signal_that_nobody_asked_for_takes_its_effect_at_the_end() -> None:
    reached = []

    def watched(error: BaseException | None) -> None:
        with watching_signals():
            send(signal.SIGINT)
            reached.append(1)
            if error is not None:
                raise error

    with pytest.raises(KeyboardInterrupt):
        watched(None)
    with pytest.raises(ZeroDivisionError):  # what is on its way already comes first
        watched(ZeroDivisionError())
    assert reached == [1, 1]


def test_other_threads_watch_nothing() -> None:
    found = []

    def watch() -> None:
        with watching_signals(), finishing():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


@POSIX
def test_without_checkpoints_sigterm_keeps_its_effect() -> None:
    program = """
import os, signal, gpuprop
class Send(gpuprop.Callback):
    def on_epoch_end(self, trainer, epoch, record):
        os.kill(os.getpid(), signal.SIGTERM)
gpuprop.Trainer(gpuprop.Network((2, 1), device="numpy"), epochs=2, callbacks=[Send()]).fit([[0.0, 1.0]], [1.0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGTERM
    assert done.stderr == ""
