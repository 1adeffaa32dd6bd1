"""When a fit ends: scikit-learn's rule, the learning rates that depend on it, and the lines that it prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.estimators.parameters import rate_rule
from gpuprop.training.callbacks import Callback
from gpuprop.training.metrics import Metric, falls

if TYPE_CHECKING:
    from gpuprop.training.trainer import Trainer

__all__ = ["Convergence", "MonitoredScore"]

#: The estimator's attributes that the callback keeps.
_RECORDS = (
    "n_iter_", "t_", "loss_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_"
)  # fmt: skip
#: At a rate of this or less the adaptive rule ends the training instead of dividing the rate.
SMALLEST_RATE = 1e-6


class MonitoredScore:
    """What early stopping watches in the row of an epoch: a column, with its sign changed where lower is better.

    Parameters
    ----------
    column : str
    metrics : mapping of str to Metric
    """

    def __init__(self, column: str, metrics: Mapping[str, Metric]) -> None:
        self._column, self._sign = column, -1.0 if falls(column, metrics) else 1.0

    def __call__(self, record: Mapping[str, Any]) -> float:
        """Return the score of an epoch; minus infinity where the metric is not defined."""
        figure = record[self._column]
        return -np.inf if figure is None else self._sign * float(figure)


class Convergence(Callback):
    """Keep the estimator's records after each epoch, and end the training when it has converged.

    It has converged when more than `n_iter_no_change` epochs in a row failed to improve the training loss, or with
    `early_stopping` the validation score, by `tol`. With ``learning_rate="adaptive"`` the rate is then divided by 5,
    and training ends when it is too small for that.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        The callback updates its fitted attributes ``loss_, loss_curve_, n_iter_, t_, best_loss_, validation_scores_,
        best_validation_score_``.
    tol : float
        In the units of the loss, or of the score with early stopping.
    validation_score : callable or None
        ``validation_score(record) -> float``, with early stopping.
    single_epoch : bool
        Whether the training ends after one epoch: ``partial_fit``.
    no_improvement_count : int
        Epochs in a row, before this training, that did not improve by `tol`.
    best_parameters : ndarray of shape (n_parameters,)
        The parameters with the best validation score before this training.

    Attributes
    ----------
    no_improvement_count, best_parameters
        As above, with the epochs of this training.
    stopped : bool
        Whether the training has converged.
    """

    def __init__(
        self,
        estimator: Any,
        *,
        tol: float,
        validation_score: Callable[[Mapping[str, Any]], float] | None,
        single_epoch: bool,
        no_improvement_count: int,
        best_parameters: NDArray[Any],
    ) -> None:
        self.estimator = estimator
        self.tol = tol
        self.validation_score = validation_score
        self.single_epoch = single_epoch
        self.rate_rule = rate_rule(estimator)
        self.no_improvement_count = no_improvement_count
        self.best_parameters = best_parameters
        self.stopped = False

    def state(self) -> dict[str, Any]:
        """Return the estimator's records and what decides when the training ends, for a training that goes on."""
        known = {name: getattr(self.estimator, name) for name in _RECORDS if hasattr(self.estimator, name)}
        known |= {"no_improvement_count": self.no_improvement_count, "stopped": self.stopped}
        return known if self.validation_score is None else known | {"best_parameters": self.best_parameters}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        for name in _RECORDS:
            if name in state:
                value = state[name]
                setattr(self.estimator, name, list(value) if isinstance(value, list) else value)
        self.no_improvement_count, self.stopped = state["no_improvement_count"], state["stopped"]
        if self.validation_score is not None:
            self.best_parameters = np.array(state["best_parameters"])

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: Mapping[str, Any]) -> None:
        """Record the epoch; end the training or change the learning rate if the rule says so."""
        self.record_loss(trainer, float(record["train_loss"]))
        if self.validation_score is None:
            self._watch_loss()
        else:
            self._watch_score(trainer, self.validation_score(record))
        estimator = self.estimator
        if self.rate_rule == "invscaling":
            try:
                trainer.learning_rate = self.initial_rate(trainer) / (estimator.t_ + 1) ** estimator.power_t
            except OverflowError:  # of a huge power_t
                trainer.learning_rate = 0.0
        if self.no_improvement_count > estimator.n_iter_no_change:
            self._give_up(trainer)
        if self.single_epoch:
            trainer.stop_training()

    def initial_rate(self, trainer: Trainer) -> float:
        """Return `learning_rate_init`, or the optimizer's own rate if that is None."""
        given = self.estimator.learning_rate_init
        return float(trainer.optimizer.default_learning_rate if given is None else given)

    def record_loss(self, trainer: Trainer, loss: float) -> None:
        """Count the epoch and note its training loss."""
        estimator = self.estimator
        estimator.n_iter_ += 1
        estimator.loss_ = loss
        estimator.t_ += trainer.n_samples
        estimator.loss_curve_.append(loss)
        self._say(f"Iteration {estimator.n_iter_}, loss = {loss:.8f}")

    def record_score(self, score: float) -> None:
        """Note the validation score, which is NaN after a divergence."""
        self.estimator.validation_scores_.append(score)
        self._say(f"Validation score: {score:f}")

    def _watch_loss(self) -> None:
        estimator, loss = self.estimator, self.estimator.loss_
        failed = loss > estimator.best_loss_ - self.tol
        self.no_improvement_count = self.no_improvement_count + 1 if failed else 0
        estimator.best_loss_ = min(loss, estimator.best_loss_)

    def _watch_score(self, trainer: Trainer, score: float) -> None:
        estimator, network = self.estimator, trainer.network
        self.record_score(score)
        failed = score < estimator.best_validation_score_ + self.tol
        self.no_improvement_count = self.no_improvement_count + 1 if failed else 0
        if score > estimator.best_validation_score_:
            estimator.best_validation_score_ = score
            self.best_parameters = network.host_parameters()

    def _give_up(self, trainer: Trainer) -> None:
        """End the training, or with the adaptive rule divide the rate and begin to count anew."""
        watched = "Training loss" if self.validation_score is None else "Validation score"
        reason = (
            f"{watched} did not improve more than tol={self.estimator.tol:f} "
            f"for {self.estimator.n_iter_no_change} consecutive epochs."
        )
        if self.rate_rule == "adaptive" and trainer.learning_rate > SMALLEST_RATE:
            trainer.learning_rate /= 5.0
            self.no_improvement_count = 0
            self._say(f"{reason} Setting learning rate to {trainer.learning_rate:f}")
            return
        too_small = " Learning rate too small." if self.rate_rule == "adaptive" else ""
        self._say(f"{reason}{too_small} Stopping.")
        self.stopped = True
        trainer.stop_training()

    def _say(self, line: str) -> None:
        if self.estimator.verbose:
            print(line)
