"""scikit-learn's own callbacks (from version 1.9, SLEP023): its progress bar and scoring monitor watch our epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gpuprop.training.callbacks import Callback

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # scikit-learn before 1.9 has no callbacks

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands for scikit-learn's class, and does nothing."""


if TYPE_CHECKING:
    from gpuprop.training.trainer import Trainer

__all__ = ["CallbackSupportMixin", "EpochTasks"]


class EpochTasks(Callback):
    """Tell scikit-learn's callbacks of a fit, and of each epoch as a task within it.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        It has callbacks from ``set_callbacks`` or from a meta-estimator.
    X, y, sample_weight
        The arguments of the fit.
    epochs : int
        Most epochs of the fit.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any, epochs: int) -> None:
        metadata = {} if sample_weight is None else {"sample_weight": sample_weight}
        self.task: dict[str, Any] = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        self.estimator = estimator
        self.fit_context = estimator._init_callback_context(max_subtasks=epochs)
        self.epoch_context: Any = None

    @staticmethod
    def wanted(estimator: Any) -> bool:
        """Whether the estimator has callbacks of scikit-learn's."""
        return bool(getattr(estimator, "_skl_callbacks", None))

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Begin the task of the fit."""
        self.fit_context.call_on_fit_task_begin(**self.task)

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Begin the task of an epoch."""
        self.epoch_context = self.fit_context.subcontext(task_name="epoch")
        self.epoch_context.call_on_fit_task_begin(**self.task)

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: Mapping[str, Any]) -> None:
        """End the task of the epoch, and hand over the model as it is now; a callback may end the training."""
        if self.epoch_context.call_on_fit_task_end(**self.task, reconstruction_attributes=self._fitted_attributes):
            trainer.stop_training()

    def on_fit_end(self, trainer: Trainer) -> None:
        """End the task of the fit."""
        self.fit_context.call_on_fit_task_end(**self.task, reconstruction_attributes=self._fitted_attributes)

    def _fitted_attributes(self) -> dict[str, Any]:
        """Return what a copy of the estimator needs to predict as this one does now."""
        names = ("n_features_in_", "feature_names_in_", "n_outputs_", "classes_", "_label_binarizer", "out_activation_")
        own = vars(self.estimator)
        return {name: own[name] for name in names if name in own} | {"network_": self.estimator.network_.copy()}
