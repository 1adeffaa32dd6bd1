"""What a training does at its update boundaries: it takes a checkpoint if one is due, and ends if a signal asks."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

from gpuprop.backends.devices import host_ops
from gpuprop.errors import ModelFileError, ResumeError
from gpuprop.training.agreement import first_signal
from gpuprop.training.settings import different_settings
from gpuprop.training.signals import asked_to_end, end_if_asked, finishing
from gpuprop.training.state import captured
from gpuprop.training.stored import model_tensors, packed_progress, place_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.training.checkpoint import StoredCheckpoint
    from gpuprop.training.run import Run

__all__ = ["at_boundary", "check_settings", "save"]


def at_boundary(trainer: Any, run: Run, made: int = 0) -> None:
    """Take a checkpoint if one is due, and end the training if a signal has asked for that.

    Parameters
    ----------
    trainer : Trainer
    run : Run
    made : int, default=0
        Updates of an epoch that is not complete.

    Raises
    ------
    KeyboardInterrupt, TrainingEnded
        See `gpuprop.training.signals.end_if_asked`.
    """
    asked = first_signal(trainer.communicator, asked_to_end())
    checkpoint = trainer.checkpoint if run.leads else None
    if checkpoint is not None and (asked or checkpoint.due(trainer.epochs_done, trainer.steps_done + made)):
        save(trainer, run)
    end_if_asked(asked)


def save(trainer: Any, run: Run, *, stopped: bool = False) -> None:
    """Write a checkpoint, if the trainer has any; where that fails, say so once, and go on."""
    if trainer.checkpoint is None or not run.leads:
        return
    with finishing():
        try:
            _write(trainer, run, stopped)
            run.unwritten = False
        except ModelFileError as error:
            if not run.unwritten:
                warnings.warn(
                    f"a checkpoint could not be written, and the training goes on: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )
            run.unwritten = True


def _write(trainer: Any, run: Run, stopped: bool) -> None:
    began, network, checkpoint = time.monotonic(), trainer.network, trainer.checkpoint
    progress = captured(trainer, run)
    assert progress.parameters is not None, "they have just been copied"
    config, tensors = _model(trainer, run, progress.parameters)
    tensors = dict(tensors)
    kept = run.patience.keeps and run.patience.best_epoch is not None
    plain = checkpoint.finish is None and not kept
    described = {
        "progress": packed_progress(progress, tensors, model_is_trained=plain),
        "epochs": trainer.epochs,
        "stopped": stopped,
        "settings": run.settings,
        "place": place_of(network, run.plan_name, run.threads),
        "extra": checkpoint.extra,
    }
    made = 0 if progress.within is None else progress.within.position
    checkpoint.write(
        tensors,
        {"kind": "checkpoint", "parameters": config, "checkpoint": described},
        epochs_done=progress.epochs_done,
        steps_done=progress.steps_done + made,
        began=began,
    )


def _model(trainer: Any, run: Run, parameters: NDArray[Any]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the model that the training would leave if it ended now: the best one so far where one is kept."""
    network, finish = trainer.network, trainer.checkpoint.finish
    if run.patience.keeps and run.patience.best_epoch is not None:
        parameters = run.patience.parameters
    if finish is None:
        return network.get_config(), model_tensors(network.spec, parameters)
    twin = network.copy_to(host_ops())
    twin.set_parameters(parameters)
    finish(twin)
    return twin.get_config(), twin.named_arrays()


def check_settings(stored: StoredCheckpoint, trainer: Any, settings: dict[str, Any]) -> None:
    """Refuse to go on with a training from a checkpoint of another one.

    Raises
    ------
    ResumeError
        The message names each difference.
    """
    rates = stored.progress.learning_rates
    then, now = dict(stored.settings), dict(settings)
    if rates is not None and trainer.learning_rate not in rates:
        then["learning_rate"], now["learning_rate"] = rates[0], trainer.learning_rate
    found = different_settings(then, now)
    done = stored.progress.epochs_done + (stored.progress.within is not None)
    if trainer.epochs < done:
        found.append(f"epochs is {trainer.epochs}, and {done} have begun")
    if found:
        raise ResumeError(
            f"{stored.path}: is of another training: {'; '.join(found)}; resume with the same settings, or train anew"
        )
