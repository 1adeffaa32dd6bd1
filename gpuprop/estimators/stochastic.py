"""The stochastic solvers: a `Trainer`, with scikit-learn's conventions, warnings and errors around it."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from gpuprop.core.updates import PausingFit
from gpuprop.errors import NonFiniteLossError
from gpuprop.estimators.convergence import Convergence
from gpuprop.estimators.kept_fits import KeptFit
from gpuprop.estimators.parameters import cannot_change, optimizer_of, schedule_of
from gpuprop.estimators.recognised import prepared
from gpuprop.estimators.samples import Samples
from gpuprop.model.network import Network
from gpuprop.training.callbacks import Callback
from gpuprop.training.metrics import Metric
from gpuprop.training.orders import RowOrders, in_order
from gpuprop.training.records import Progress
from gpuprop.training.trainer import Trainer

__all__ = ["NON_FINITE", "StochasticFit", "Task"]

#: How scikit-learn reports a training that has diverged.
NON_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be preprocessed."
)


#: The estimator's parameters that a trainer is made of, beside its rate and epochs.
_SETTINGS = (
    "solver", "weight_decay", "nesterovs_momentum", "momentum", "beta_1", "beta_2", "epsilon", "batch_size",
    "learning_rate", "clip_norm", "callbacks", "n_threads", "plan", "checkpoint",
)  # fmt: skip
#: These parameters and the settings of the trainer that the last call made of them for a network; checking them all
#: takes as long as three updates of a small network.
_checked: WeakKeyDictionary[Network, tuple[tuple[Any, ...], dict[str, Any]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Task:
    """What a fit trains on, and for how long.

    Attributes
    ----------
    samples : Samples
        The rows to train on.
    validation : Samples or None
        The rows to evaluate after each epoch.
    epochs : int
        Most epochs of this fit.
    row_orders : callable or None
        ``row_orders(epoch, n_samples)``; None visits the rows as they stand.
    resume_from : Progress or None
        Where the training before this one ended; it goes on from there: ``partial_fit``.
    learning_rate : float or None
        The rate to begin with; None takes the optimizer's own.
    watchers : sequence of Callback
        Callbacks beside the estimator's own.
    kept : KeptFit or None
        The checkpoints, and the one that this fit goes on from.
    metrics : mapping of str to Metric
        Of the validation rows.
    """

    samples: Samples
    validation: Samples | None
    epochs: int
    row_orders: RowOrders | None
    resume_from: Progress | None
    learning_rate: float | None
    watchers: Sequence[Callback] = ()
    kept: KeptFit | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)


class StochasticFit:
    """One fit, or ``partial_fit``, of an estimator that has its network already.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        The fit updates its ``network_``, ``history_``, ``plan_`` and, through `convergence`, its other records.
    task : Task
    convergence : Convergence
        Keeps the records of each epoch, and decides when the training ends.
    """

    def __init__(self, estimator: Any, task: Task, convergence: Convergence) -> None:
        self.estimator = estimator
        self.task = task
        self.convergence = convergence
        # The training may extend these columns themselves, see `gpuprop.training.records.LiveProgress`.
        self._known_epochs = 0 if task.resume_from is None else len(task.resume_from.history.get("epoch", ()))
        self.trainer = _trainer(estimator, task)
        self.trainer.callbacks = [convergence, *task.watchers, *self.trainer.callbacks]

    def run(self) -> PausingFit:
        """Train, pausing before the updates of each epoch, see `gpuprop.training.side_by_side`."""
        estimator, task, convergence = self.estimator, self.task, self.convergence
        estimator.n_iter_ = 0
        stored = None if task.kept is None else task.kept.stored
        try:
            yield from self.trainer.training(
                *prepared(estimator.network_, task.samples), resume_from=stored or task.resume_from
            )
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=6)
        except NonFiniteLossError as error:
            if not estimator.early_stopping:
                raise ValueError(f"{NON_FINITE} ({error})") from error
            convergence.record_loss(self.trainer, np.nan)
            convergence.record_score(np.nan)
            warnings.warn(f"{error}; the best parameters so far are restored", ConvergenceWarning, stacklevel=6)
        finally:
            estimator.plan_ = self.trainer.plan_reason
            if estimator.plan_ is None and stored is not None:
                estimator.plan_ = f"no updates: the fit was finished, and {stored.path} holds it"
            self._extend_history()
        if estimator.early_stopping:
            estimator.network_.set_parameters(convergence.best_parameters)
        if estimator.n_iter_ == task.epochs and not (convergence.single_epoch or convergence.stopped):
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({task.epochs}) reached and the optimization hasn't "
                "converged yet.",
                ConvergenceWarning,
                stacklevel=6,
            )

    @property
    def progress(self) -> Progress:
        """Where the training stands: a later ``partial_fit`` goes on there, with the parameters as they then are.

        As in scikit-learn, it draws its row orders anew; and the callbacks are still there.
        """
        return self.trainer.progress_for_other_data()

    def _extend_history(self) -> None:
        """Append the new epochs to the estimator's ``history_``."""
        history, known = self.estimator.history_, self._known_epochs
        before = len(history.get("epoch", ()))
        for column, values in self.trainer.history.items():
            if column not in history:
                history[column] = [None] * before
            history[column].extend(values[known:])
        n_epochs = len(history.get("epoch", ()))
        history.setdefault("epoch", [])[before:] = range(before + 1, n_epochs + 1)
        for values in history.values():  # a column that these epochs do not have
            values.extend([None] * (n_epochs - len(values)))


def _trainer(estimator: Any, task: Task) -> Trainer:
    n_samples = task.samples.X.shape[0]
    if estimator.batch_size != "auto" and estimator.batch_size > n_samples:
        warnings.warn(
            f"Got `batch_size` ({estimator.batch_size}) larger than sample size ({n_samples}). It is going to be "
            "clipped",
            stacklevel=7,
        )
    epochs_done = 0 if task.resume_from is None else task.resume_from.epochs_done
    epochs = max(task.epochs, epochs_done + 1)
    network, given = estimator.network_, tuple(map(vars(estimator).get, _SETTINGS))
    constant = task.validation is None and task.kept is None and all(map(cannot_change, given))
    known, rate = _checked.get(network) if constant else None, task.learning_rate
    if known is not None and rate is not None and all(map(operator.is_, known[0], given)):
        trainer = Trainer.from_settings(known[1], network, learning_rate=rate, epochs=epochs)
    else:
        trainer = _new_trainer(estimator, task, epochs)
        if constant:
            _checked[network] = given, trainer.settings()
    trainer.row_orders = task.row_orders or in_order
    return trainer


def _new_trainer(estimator: Any, task: Task, epochs: int) -> Trainer:
    return Trainer(
        estimator.network_,
        optimizer=optimizer_of(estimator),
        learning_rate=task.learning_rate,
        batch_size=200 if estimator.batch_size == "auto" else int(estimator.batch_size),
        epochs=epochs,
        validation=None if task.validation is None else task.validation.arrays(),
        schedule=schedule_of(estimator),
        clip_norm=estimator.clip_norm,
        shuffle=False,
        conventions="scikit-learn",
        callbacks=estimator.callbacks or (),
        metrics=task.metrics,
        n_threads=estimator.n_threads,
        plan=estimator.plan,
        checkpoint=None if task.kept is None else task.kept.checkpoint,
    )
