"""What the processes of one training agree on: that they train the same, and what one of them has decided or met.

Every process computes everything but the shards of gradients and of validation by itself, from the same numbers. What
could differ between them is decided once and told to all: time, signals, files, and what callbacks do, all of which
only the process of rank 0 looks at, and signals, which any of them may get.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from gpuprop.errors import CommunicatorError, GpupropError, NonFiniteLossError, TrainingEnded
from gpuprop.training.settings import (
    described,
    different_data,
    different_place,
    different_settings,
    settings_of,
)
from gpuprop.training.state import data_of
from gpuprop.training.stored import place_of

if TYPE_CHECKING:
    import signal

    from gpuprop.core.communicator import Communicator
    from gpuprop.training.run import Run

__all__ = ["AGREED", "check_alike", "end_of_epoch", "first_signal", "from_root", "together"]

_Value = TypeVar("_Value")

#: What ends a training everywhere at the same moment, so that nobody has to be told.
AGREED = (NonFiniteLossError, TrainingEnded, KeyboardInterrupt, CommunicatorError)


class _Outcome(NamedTuple):
    """What a process has got, or why it got nothing."""

    value: Any
    error: Exception | None


def _outcome(function: Callable[[], Any]) -> _Outcome:
    try:
        return _Outcome(function(), None)
    except Exception as error:
        return _Outcome(None, error)


def from_root(communicator: Communicator | None, function: Callable[[], _Value]) -> _Value:
    """Call a function in the process of rank 0 alone, and return its value, or raise its error, everywhere."""
    if communicator is None or communicator.size == 1:
        return function()
    found = _outcome(function) if communicator.rank == 0 else _Outcome(None, None)
    error = communicator.broadcast(None if found.error is None else _portable(found.error))
    if error is not None:
        raise found.error or error
    value: _Value = communicator.broadcast(found.value)
    return value


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent: one that cannot be made again from its text is one of gpuprop's own."""
    try:
        return type(error)(str(error))
    except Exception:
        return GpupropError(str(error))


def together(communicator: Communicator | None, function: Callable[[], _Value]) -> _Value:
    """Call a function in every process; where it fails in one, the others raise an error, too, that says so.

    Raises
    ------
    CommunicatorError
        If the function failed elsewhere only.
    """
    if communicator is None or communicator.size == 1:
        return function()
    found = _outcome(function)
    told = None if found.error is None else f"{type(found.error).__name__}: {found.error}"
    faults = communicator.gather(told)
    if found.error is not None:
        raise found.error
    for rank, fault in enumerate(faults):
        if fault is not None:
            raise CommunicatorError(f"rank {rank} cannot begin the training: {fault}")
    value: _Value = found.value
    return value


def check_alike(trainer: Any, run: Run) -> None:
    """Refuse to train with processes that have other data, options, parameters or versions.

    Raises
    ------
    CommunicatorError
        In every process; the message names each that differs from the one of rank 0, and in what.
    """
    communicator = trainer.communicator
    if communicator is None or communicator.size == 1:
        return
    network = trainer.network
    data_of(run)  # which may take a moment: all at once
    options = {name: described(getattr(trainer, name)) for name in ("epochs", "learning_rate", "n_threads", "shards")}
    with suppress(ValueError):  # functions without a name cannot be compared
        options |= settings_of(trainer)
    place = place_of(network, None, None) | {"device": network.device_.partition(":")[0]}
    options["checkpoint"] = trainer.checkpoint is not None
    options["network's parameters"] = f"those of CRC {_crc(run):08x}"
    all_of_them = communicator.gather((options, place, data_of(run)))
    first, complaints = all_of_them[0], []
    for rank, (theirs, there, data) in enumerate(all_of_them):
        phrases = [
            *different_settings(first[0], theirs),
            *different_place(first[1], there),
            *different_data(first[2], data),
        ]
        if phrases:
            complaints.append(f"rank {rank} differs from rank 0: {'; '.join(phrases)}".replace(" was ", " is "))
    if complaints:
        raise CommunicatorError(
            f"{'; '.join(complaints)}; start all processes with the same program, data and versions"
        )


def _crc(run: Run) -> int:
    return zlib.crc32(np.ascontiguousarray(run.parameters).view(np.uint8).data)


def first_signal(communicator: Communicator | None, asked: signal.Signals | None) -> signal.Signals | None:
    """Return the signal that has asked any of the processes to end: that of the lowest rank."""
    if communicator is None or communicator.size == 1:
        return asked
    return next((one for one in communicator.gather(asked) if one is not None), None)


def end_of_epoch(trainer: Any, run: Run, record: Mapping[str, Any], *, stop: bool) -> None:
    """Take over what the callbacks of rank 0 have done after an epoch, and check that all have the same parameters.

    Parameters
    ----------
    trainer : Trainer
    run : Run
    record : mapping
        The epoch's row of the history.
    stop : bool
        Whether a callback has ended the training.

    Raises
    ------
    CommunicatorError
        If a process has come to other parameters: its processor or its libraries compute otherwise.
    """
    communicator = trainer.communicator
    if communicator is None or communicator.size == 1:
        return
    root = communicator.rank == 0
    before = _crc(run)
    now = trainer.network.host_parameters() if root and trainer.callbacks else run.parameters
    changed = now if root and not np.array_equal(now, run.parameters, equal_nan=True) else None
    found = communicator.gather((before, (trainer.learning_rate, stop, dict(record), changed) if root else None))
    others = [rank for rank, (crc, _) in enumerate(found) if crc != found[0][0]]
    if others:
        raise CommunicatorError(
            f"rank {others[0]} has other parameters than rank 0 after epoch {trainer.epochs_done}: their processors or "
            "libraries compute differently; use like machines"
        )
    told = found[0][1]
    if root or told is None:
        return
    rate, stop, row, parameters = told
    trainer.learning_rate = rate
    if stop:
        trainer.stop_training()
    for name, value in row.items():
        if name in trainer.history:
            trainer.history[name][-1] = value
    if parameters is not None:
        trainer.network.set_parameters(parameters)
