"""The beginning of a fit: its data on the device, its rule of updates, and the state that it goes on from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.core.data import TrainingData
from gpuprop.core.parameters import Parameters
from gpuprop.core.rule import UpdateRule
from gpuprop.core.updates import Training
from gpuprop.datasets.stored import StoredRows
from gpuprop.maths.losses import smoothed_labels
from gpuprop.training.inputs_scaling import continued
from gpuprop.training.known_targets import prepared
from gpuprop.training.metrics import ValidationScores, falls
from gpuprop.training.orders import hold_out
from gpuprop.training.rates import decay_factors, gradient_factors, rate_factors
from gpuprop.training.records import LiveProgress, Patience
from gpuprop.training.run import Run, step_callbacks
from gpuprop.training.saving import check_settings
from gpuprop.training.settings import fingerprints, settings_of
from gpuprop.training.sharding import sharding_of
from gpuprop.training.sources import restore_sources
from gpuprop.training.state import check_data, check_fit
from gpuprop.training.windows import Windows, windows_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.array_ops import Array, ArrayOps
    from gpuprop.training.checkpoint import StoredCheckpoint
    from gpuprop.training.records import Progress

__all__ = ["begin"]

_SCALING = "network's input_scaling"
"""The name that `gpuprop.training.settings` gives it."""


def begin(trainer: Any, given: tuple[Any, Any, Any], progress: Progress, stored: StoredCheckpoint | None) -> Run:
    """Check the data, bring them to the device, and put the network where the training goes on.

    Parameters
    ----------
    trainer : Trainer
    given : tuple (X, y, sample_weight)
    progress : Progress
    stored : StoredCheckpoint or None
        The checkpoint that the progress is of.

    Raises
    ------
    ResumeError
        If progress or checkpoint are of another training; the network then is as it was.
    """
    network = trainer.network
    settings = settings_of(trainer) if trainer.checkpoint is not None or stored is not None else {}
    windows: Windows | None = None
    if isinstance(given[0], StoredRows):
        data, windows = _windowed(trainer, *given)
    else:
        data = _prepared(trainer, *given)
    known = _fingerprints(data, windows, network.ops) if progress.data or windows else None
    if stored is not None:  # a scaling of the inputs follows from the data, which are to be named then
        check_settings(stored, trainer, {**settings, _SCALING: stored.settings.get(_SCALING)})
    rule = progress.rule_for(trainer.made_from, network.layers) if isinstance(progress, LiveProgress) else None
    if rule is None:
        check_fit(trainer, progress)
    if known is not None and progress.data:
        check_data(progress, known)
    if stored is not None:
        check_settings(stored, trainer, settings)
    trainer.updates_before = _updates_before(trainer, progress)
    n_samples = None if windows is None else windows.stored.n_samples
    training = _training(trainer, data[""], n_samples, progress, stored, rule)
    parameters = network.host_parameters()
    run = Run(
        training=training,
        data=data,
        patience=_patience(trainer, parameters),
        settings=settings,
        first_rate=trainer.learning_rate,
        parameters=parameters,
        ops=network.ops,
        row_padding=network.layers.parameters.row_padding,
        within=progress.within,
        former_place={} if stored is None else stored.place,
        stopped=stored is not None and stored.stopped,
        windows=windows,
        scores=None
        if data["validation "] is None
        else ValidationScores(trainer.metrics, data["validation "], trainer.units, training.sharding),
    )
    run.fingerprints = known
    if progress.parameters is not None:
        network.set_parameters(progress.parameters)
        network.count_updates(trainer.optimizer.name, trainer.updates_before + progress.steps_done)
        run.parameters = network.host_parameters()
    if rule is None:
        run.training = replace(training, rule=_rule(trainer, progress))
    run.patience.restore(progress.patience)
    trainer.best_epoch = run.patience.best_epoch
    restore_sources(trainer, progress.sources)
    if progress.learning_rates is not None and trainer.learning_rate in progress.learning_rates:
        run.first_rate, run.rate = progress.learning_rates
    if trainer.checkpoint is not None and run.leads:
        trainer.checkpoint.begin(progress.epochs_done, _steps(progress), resumed=stored is not None)
    return run


def _patience(trainer: Any, parameters: NDArray[Any]) -> Patience:
    watched = {trainer.keep_best, trainer.monitor} - {None}
    return Patience(
        trainer.early_stopping,
        trainer.keep_best,
        parameters,
        monitor=trainer.monitor,
        falling={column for column in watched if falls(column, trainer.metrics)},
    )


def _steps(progress: Progress) -> int:
    return progress.steps_done + (0 if progress.within is None else progress.within.position)


def _prepared(trainer: Any, X: Any, y: Any, sample_weight: Any) -> dict[str, TrainingData | None]:
    """Return the data on the device, and those for validation, before any label is smoothed."""
    network, ops = trainer.network, trainer.network.ops
    validation: TrainingData | None = None
    if isinstance(trainer.validation, float):
        with ops.active():
            given = (ops.adopt(X), ops.adopt(y), ops.adopt(sample_weight))
            X, y, sample_weight, held_out = hold_out(*given, trainer.validation, trainer.seed)
        validation = network.prepare(*held_out)
    elif trainer.validation is not None:
        validation = network.prepare(*trainer.validation)
    data = X if isinstance(X, TrainingData) else prepared(network, X, y, sample_weight)
    return {"": data, "validation ": validation}


def _windowed(trainer: Any, rows: StoredRows, y: Any, weight: Any) -> tuple[dict[str, TrainingData | None], Windows]:
    """Return what `_prepared` returns for rows that stay on disk; a share for validation is whole pieces, in memory."""
    if y is not None or weight is not None:
        raise ValueError(f"y, sample_weight: {rows.kind} have their targets with them; leave these out")
    network, validation = trainer.network, None
    if isinstance(trainer.validation, float):
        rows, held_out = rows.held_out(trainer.validation, trainer.seed)
        validation = network.prepare(*held_out)
    elif trainer.validation is not None:
        validation = network.prepare(*trainer.validation)
    update_size = min((trainer.batch_size or rows.n_samples) * trainer.accumulation_steps, rows.n_samples)
    windows = windows_of(rows, trainer, update_size)
    return {"": windows.data, "validation ": validation}, windows


def _fingerprints(data: dict[str, TrainingData | None], windows: Windows | None, ops: ArrayOps) -> dict[str, str]:
    """Return what a resume must find unchanged of the data."""
    if windows is None:
        return fingerprints(data, ops)
    return windows.fingerprints | fingerprints({"validation ": data["validation "]}, ops)


def _training(
    trainer: Any,
    data: TrainingData | None,
    n_samples: int | None,
    progress: Progress,
    stored: StoredCheckpoint | None,
    rule: UpdateRule | None,
) -> Training:
    """Return the training as plans know it; without `rule`, with one that knows nothing yet.

    `n_samples` are the rows of the data set, where those in memory are fewer.
    """
    assert data is not None, "only validation data may be missing"
    smoothed = _smoothed(trainer, data) if n_samples is None else data
    network, n_samples = trainer.network, n_samples or data.n_samples
    part_size = min(trainer.batch_size or n_samples, n_samples)
    update_size = min((trainer.batch_size or n_samples) * trainer.accumulation_steps, n_samples)
    n_rows = n_samples - (n_samples % update_size if trainer.drop_last else 0)
    n_threads, place = trainer.n_threads, {} if stored is None else stored.place
    here = place.get("device") == network.device_
    if n_threads is None and here:
        n_threads = place.get("threads")
    trainer.n_samples, trainer.steps_per_epoch = n_samples, -(-n_rows // update_size)
    if network.batch_norm and part_size < 2:
        raise ValueError(
            "batch_size: got batches of one row, expected two or more: one row has no variance to divide by"
        )
    return Training(
        layers=network.layers,
        data=smoothed,
        rule=UpdateRule(trainer.optimizer, {}) if rule is None else rule,
        part_size=part_size,
        update_size=update_size,
        n_updates=(trainer.epochs - progress.epochs_done) * trainer.steps_per_epoch,
        watched=bool(step_callbacks(trainer)),
        n_threads=n_threads,
        want=trainer.plan,
        n_rows=n_rows,
        joined=here and place.get("plan") == "joint",
        varying_dropout=trainer.dropout_schedule is not None and any(network.dropout),
        updates_before=trainer.updates_before + progress.steps_done,
        sharding=sharding_of(trainer.shards, trainer.communicator),
    )


def _updates_before(trainer: Any, progress: Progress) -> int:
    """Return the updates that the network had made with this optimizer before this training began."""
    if progress.parameters is not None:
        return progress.updates_before
    # `steps_done` belongs to this training, also where it goes on with other parameters.
    return max(0, int(trainer.network.updates_made.get(trainer.optimizer.name, 0)) - progress.steps_done)


def _smoothed(trainer: Any, data: TrainingData) -> TrainingData:
    """Return the training data with smoothed labels, if that is asked for."""
    network = trainer.network
    if trainer.label_smoothing == 0:
        return data
    with network.ops.active():
        targets = smoothed_labels(data.targets, trainer.label_smoothing, network.loss_function)
        return replace(data, targets=targets)


def _rule(trainer: Any, progress: Progress) -> UpdateRule:
    """Return the rule of the updates, with what the optimizer remembers."""
    network, spec, old = trainer.network, trainer.network.spec, progress.optimizer_state
    taken_over = isinstance(progress, LiveProgress)
    layer = None
    if trainer.scaling_layer:
        layer = continued(
            progress.scaling_layer,
            network,
            trainer.optimizer,
            rate_factor=trainer.learning_rate_factors.get("scale", 1.0),
            decay_factor=trainer.weight_decay_factors.get("scale", 0.0) if trainer.weight_decay else 0.0,
        )
    return UpdateRule(
        trainer.optimizer,
        state={
            name: _in_layout(network, old[name], copied=not taken_over) if name in old else _flat(network)
            for name in trainer.optimizer.slots
        },
        clip_norm=trainer.clip_norm,
        max_norm=trainer.max_norm,
        rate_factors=rate_factors(spec, trainer.learning_rate_factors, trainer.parametrization),
        gradient_factors=gradient_factors(spec, trainer.parametrization),
        decay_factors=decay_factors(spec, trainer.weight_decay_factors) if trainer.weight_decay else None,
        scaling_layer=layer,
    )


def _in_layout(network: Any, state: Array, *, copied: bool) -> Array:
    """Return an optimizer's array, from any device, in the layout of this one."""
    array = Parameters.in_layout(network.ops, state, network.spec.layout, network.dtype)
    return array.copy() if copied else array


def _flat(network: Any) -> Array:
    """Return zeros, as many as there are parameters."""
    return network.ops.asarray(np.zeros(network.parameters.size), network.dtype)
