"""The whole state of a training: taken from a fit at work, and checked against a trainer that is to go on from it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.backends.steps import scaling_on_host
from gpuprop.core.parameters import Parameters
from gpuprop.core.scaling_layer import ScalingLayer
from gpuprop.errors import ResumeError
from gpuprop.training.records import LiveProgress, Progress, Within
from gpuprop.training.settings import different_data, fingerprints
from gpuprop.training.sources import sources_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprop.training.run import Run

__all__ = ["captured", "captured_for_other_data", "check_data", "check_fit", "data_of", "restore_callbacks"]


def captured(trainer: Any, run: Run, *, with_data: bool = True) -> Progress:
    """Return where a training stands; all arrays are copies on the host.

    Parameters
    ----------
    trainer : Trainer
    run : Run
    with_data : bool, default=True
        Whether to take the SHA-256 of the data, which takes a moment the first time.
    """
    if run.making and run.plan is not None:
        (state,) = run.plan.state()
        parameters, optimizer, scaling = state.parameters, state.optimizer, state.scaling_layer
        within: Within | None = _within(run, state.position, state.totals, state.parts)
    else:
        # A network that is trained no more may have been moved, or given other parameters.
        parameters = trainer.network.host_parameters() if run.epoch_begun else run.parameters.copy()
        optimizer, scaling = _memory(run), _scaling(run)
        within = run.within
        if run.epoch_begun and within is None:
            within = _within(run, 0, np.zeros(2), {})
    states = [(type(one).__qualname__, one.state()) for one in trainer.callbacks]
    return Progress(
        **_said_of(trainer),
        history={name: list(column) for name, column in trainer.history.items()},
        optimizer_state=optimizer,
        scaling_layer=ScalingLayer.of(scaling) if scaling else None,
        parameters=parameters,
        learning_rates=(run.first_rate, trainer.learning_rate),
        patience=run.patience.state(),
        callbacks=[(name, dict(state)) for name, state in states if state is not None],
        sources=sources_of(trainer),
        data=data_of(run) if with_data and not run.lost else {},
        within=within,
    )


def captured_for_other_data(trainer: Any, run: Run) -> Progress:
    """Return where a training that has ended stands, as far as a training on other data goes on from it.

    The trainer is not used any more.
    """
    scaling, rule = _scaling(run), run.training.rule
    layer = ScalingLayer.of(scaling) if scaling else None
    if not run.ops.on_host:
        return Progress(
            **_said_of(trainer),
            history={name: list(column) for name, column in trainer.history.items()},
            optimizer_state=_memory(run),
            scaling_layer=layer,
            within=run.within,
        )
    settings, history = trainer.made_from, trainer.history
    if settings is None:  # whoever knows the trainer by a callback shall not see what later trainings add
        history = {name: list(column) for name, column in history.items()}
    return LiveProgress(
        **_said_of(trainer),
        history=history,
        optimizer_state=dict(rule.state),
        scaling_layer=layer,
        within=run.within,
        rule=None if settings is None or scaling else rule,
        made_for=(settings, run.training.layers),
    )


def _said_of(trainer: Any) -> dict[str, Any]:
    """Return what every record of a training says of its trainer."""
    return {
        "epochs_done": trainer.epochs_done,
        "steps_done": trainer.steps_done,
        "optimizer": trainer.optimizer.name,
        "updates_before": trainer.updates_before,
    }


def _memory(run: Run) -> dict[str, Any]:
    """Return copies on the host of what the optimizer remembers; none if it was lost with a device."""
    return {} if run.lost else {name: run.on_host(array) for name, array in run.training.rule.state.items()}


def _scaling(run: Run) -> dict[str, Any]:
    """Return copies on the host of the arrays of a scaling layer; none if they were lost with a device."""
    return {} if run.lost else scaling_on_host(run.training.rule, run.ops)


def _within(run: Run, position: int, totals: Any, parts: Mapping[str, Any]) -> Within:
    seconds = time.perf_counter() - run.begin
    return Within(position, np.array(totals, np.float64), dict(parts), run.epoch_rate, seconds, run.marks())


def data_of(run: Run) -> dict[str, str]:
    """Return the SHA-256 of the data; the first call computes it."""
    if run.fingerprints is None:
        run.fingerprints = fingerprints(run.data, run.ops)
    return run.fingerprints


def check_fit(trainer: Any, progress: Progress) -> None:
    """Refuse a progress that is not one of this network and optimizer.

    Raises
    ------
    ResumeError
        The message says what does not fit.
    """
    network, optimizer = trainer.network, trainer.optimizer
    if progress.optimizer not in (None, optimizer.name):
        raise ResumeError(
            f"resume_from: the training that it is of had the optimizer {progress.optimizer!r}, this one has "
            f"{optimizer.name!r}; resume with the same"
        )
    known = set(progress.optimizer_state)
    if known and known != set(optimizer.slots):
        raise ResumeError(
            f"resume_from: got {', '.join(sorted(known))} of the optimizer's memory, expected "
            f"{', '.join(sorted(optimizer.slots)) or 'none'} for {optimizer.name!r}; resume with the same optimizer"
        )
    if progress.optimizer is not None and optimizer.slots and not known and progress.steps_done:
        raise ResumeError("resume_from: the optimizer's memory was lost with the device; resume from a checkpoint")
    size = Parameters.count(network.spec.layout)
    arrays = [("parameters", progress.parameters)] if progress.parameters is not None else []
    for name, array in [*arrays, *progress.optimizer_state.items()]:
        if array.dtype != network.dtype and str(array.dtype) != network.dtype.name:
            raise ResumeError(
                f"resume_from: its {name.replace('_', ' ')} are {array.dtype}, the network is {network.dtype.name}; "
                "resume with a network of the same dtype"
            )
    if progress.parameters is not None and progress.parameters.shape != (size,):
        raise ResumeError(
            f"resume_from: it is of a network of {progress.parameters.size:,} parameters, this one has {size:,}; "
            "resume with a network of the same layers"
        )
    if (progress.scaling_layer is not None) != trainer.scaling_layer and progress.parameters is not None:
        raise ResumeError(f"resume_from: got scaling_layer={trainer.scaling_layer}, expected it as it was before")


def check_data(progress: Progress, known: Mapping[str, str]) -> None:
    """Refuse to go on with other data.

    Raises
    ------
    ResumeError
        If an array is not the one that the training began with; the message names each.
    """
    found = different_data(progress.data, known)
    if found:
        raise ResumeError(
            f"resume_from: the training had other data: {'; '.join(found)}; give it the data it began with"
        )


def restore_callbacks(trainer: Any, states: list[tuple[str, dict[str, Any]]]) -> None:
    """Give each callback the state of the one of its name; of several of one name, in their order."""
    left = list(states)
    for callback in trainer.callbacks:
        name = type(callback).__qualname__
        found = next((one for one in left if one[0] == name), None)
        if found is not None:
            left.remove(found)
            callback.restore(found[1])
