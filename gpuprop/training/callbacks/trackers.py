"""Callbacks that report to trackers of experiments: TensorBoard and MLflow. Each is imported where it is used."""

from __future__ import annotations

import importlib
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.errors import BackendUnavailableError, check_integer
from gpuprop.training.callbacks.base import Callback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

__all__ = ["MLflow", "TensorBoard", "figures_of", "hyperparameters"]

_PARTS = ("train_", "validation_")


def hyperparameters(trainer: Any) -> dict[str, Any]:
    """Return what a tracker shows of a training's settings: numbers, texts and truth values by their names."""
    network = trainer.network
    activations = dict.fromkeys(activation.name for activation in network.hidden_activations)
    return {
        "layers": "-".join(map(str, network.layer_sizes)),
        "activation": ", ".join(activations),
        "loss": network.loss_function.name,
        "optimizer": trainer.optimizer.name,
        "learning_rate": trainer.learning_rate,
        "schedule": str(getattr(trainer.schedule, "name", "constant")),
        "batch_size": trainer.batch_size or trainer.n_samples,
        "epochs": trainer.epochs,
        "dropout": ", ".join(f"{rate:g}" for rate in network.dropout),
        "l1": network.l1,
        "l2": network.l2,
        "weight_decay": trainer.weight_decay,
        "dtype": network.dtype.name,
        "device": network.device_,
        "seed": trainer.seed,
    }


def figures_of(trainer: Any, record: Mapping[str, float | None]) -> dict[str, float]:
    """Return the numbers of an epoch by the columns of the history, those of callbacks that came before included."""
    n_epochs = len(trainer.history["epoch"])
    added = {name: column[-1] for name, column in trainer.history.items() if len(column) == n_epochs}
    known = {**record, **added}
    return {name: float(value) for name, value in known.items() if name != "epoch" and isinstance(value, int | float)}


def _loaded(module: str, extra: str) -> Any:
    """Return an optional library, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailableError(f"{module} is not installed: pip install 'gpuprop[{extra}]'") from error


class TensorBoard(Callback):
    """Write what TensorBoard shows: each figure of the history, histograms of the weights, and the settings.

    It needs tensorboardX (``pip install 'gpuprop[tensorboard]'``), and not TensorFlow. ``tensorboard --logdir DIR``
    shows the files.

    Parameters
    ----------
    log_dir : str or path
        A folder for this training; TensorBoard compares the folders beside it.
    X : array_like of shape (n_samples, n_features) or None, default=None
        Some raw inputs: their activations in each layer are shown as histograms, too.
    histogram_freq : int, default=1
        Histograms are written after each of so many epochs; 0 writes none.

    Raises
    ------
    ImportError
        If tensorboardX is not installed: ``pip install 'gpuprop[tensorboard]'``.

    Examples
    --------
    >>> import gpuprop
    >>> tracker = gpuprop.callbacks.TensorBoard("logs", histogram_freq=0)
    >>> trainer = gpuprop.Trainer(gpuprop.Network((2, 4, 1), seed=0), callbacks=[tracker])
    """

    def __init__(self, log_dir: str | os.PathLike[str], X: ArrayLike | None = None, *, histogram_freq: int = 1) -> None:
        self.log_dir = Path(log_dir)
        self.X = X
        self.histogram_freq = check_integer("histogram_freq", histogram_freq, 0)
        self._writer: Any = None

    def on_fit_begin(self, trainer: Any) -> None:
        """Open the file; what an earlier process wrote of epochs that are made again is not shown."""
        library = _loaded("tensorboardX", "tensorboard")
        self._close()
        self._writer = library.SummaryWriter(str(self.log_dir), purge_step=trainer.epochs_done + 1)

    def on_epoch_end(self, trainer: Any, epoch: int, record: Mapping[str, float | None]) -> None:
        """Write the figures and histograms of the epoch."""
        for name, value in figures_of(trainer, record).items():
            self._writer.add_scalar(_tag(name), value, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            self._write_histograms(trainer.network, epoch)
        self._writer.flush()

    def on_fit_end(self, trainer: Any) -> None:
        """Write the settings with the figures of the last epoch, and close the file."""
        last = {name: column[-1] for name, column in trainer.history.items() if column}
        figures = {f"hparam/{name}": float(value) for name, value in last.items() if isinstance(value, int | float)}
        self._writer.add_hparams(hyperparameters(trainer), figures, name="hparams", global_step=trainer.epochs_done)
        self._close()

    def on_exception(self, trainer: Any, error: BaseException) -> None:
        """Close the file."""
        self._close()

    def _write_histograms(self, network: Any, epoch: int) -> None:
        named: dict[str, Any] = {}
        for layer, (weights, biases) in enumerate(zip(network.weights, network.biases, strict=True), start=1):
            named[f"weights/layer_{layer}"] = network.ops.to_numpy(weights)
            named[f"biases/layer_{layer}"] = network.ops.to_numpy(biases)
        if self.X is not None:
            for layer, outputs in enumerate(network.activations(self.X)[1:], start=1):
                named[f"activations/layer_{layer}"] = outputs
        for name, values in named.items():
            self._writer.add_histogram(name, np.asarray(values, np.float64).reshape(-1), epoch)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_writer": None}


def _tag(column: str) -> str:
    """Return the place of a column in TensorBoard: ``train_loss`` and ``validation_loss`` share a section."""
    for part in _PARTS:
        if column.startswith(part):
            return f"{column.removeprefix(part)}/{part[:-1]}"
    return column


class MLflow(Callback):
    """Report a training to MLflow as a run: its settings, each figure of the history, and the model file.

    It needs MLflow, or its small core (``pip install 'gpuprop[mlflow]'``). A training that goes on from a checkpoint
    goes on in its run.

    Parameters
    ----------
    experiment : str, default="gpuprop"
        It is made if there is none of this name.
    run_name : str or None, default=None
    tracking_uri : str or None, default=None
        A server or a folder; None takes MLflow's own setting, such as the variable MLFLOW_TRACKING_URI.
    log_model : bool, default=True
        Whether the trained network becomes an artifact of the run, ``model.safetensors``.

    Attributes
    ----------
    run_id : str or None
        Of the run, once the first epoch has begun.

    Raises
    ------
    ImportError
        If MLflow is not installed: ``pip install 'gpuprop[mlflow]'``.

    Examples
    --------
    >>> import gpuprop
    >>> tracker = gpuprop.callbacks.MLflow("digits", run_name="128 units", log_model=False)
    >>> trainer = gpuprop.Trainer(gpuprop.Network((2, 4, 1), seed=0), callbacks=[tracker])
    """

    def __init__(
        self,
        experiment: str = "gpuprop",
        run_name: str | None = None,
        *,
        tracking_uri: str | None = None,
        log_model: bool = True,
    ) -> None:
        self.experiment = experiment
        self.run_name = run_name
        self.tracking_uri = tracking_uri
        self.log_model = log_model
        self.run_id: str | None = None
        self._client: Any = None

    def state(self) -> Mapping[str, Any] | None:
        """Return the identifier of the run."""
        return {"run_id": self.run_id}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on in the run of an earlier process."""
        self.run_id = state["run_id"]

    def on_fit_begin(self, trainer: Any) -> None:
        """Connect."""
        self.run_id = None
        self._client = _loaded("mlflow", "mlflow").MlflowClient(tracking_uri=self.tracking_uri)

    def on_epoch_begin(self, trainer: Any, epoch: int) -> None:
        """Begin the run before the first epoch."""
        if self.run_id is None:
            self._begin(trainer)

    def on_epoch_end(self, trainer: Any, epoch: int, record: Mapping[str, float | None]) -> None:
        """Report the figures of the epoch in one request."""
        if self.run_id is None:  # of an epoch that had begun before the training went on
            self._begin(trainer)
        kind = importlib.import_module("mlflow.entities").Metric
        now = int(time.time() * 1000)
        metrics = [kind(name, value, now, epoch) for name, value in figures_of(trainer, record).items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def on_fit_end(self, trainer: Any) -> None:
        """Report the model, and end the run."""
        if self.run_id is None:
            return
        if self.log_model:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "model.safetensors"
                trainer.network.save(file)
                self._client.log_artifact(self.run_id, str(file))
        self._client.set_terminated(self.run_id, status="FINISHED")

    def on_exception(self, trainer: Any, error: BaseException) -> None:
        """End the run as one that failed, or was killed by Ctrl-C or a signal."""
        if self.run_id is not None:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            self._client.set_terminated(self.run_id, status=status)

    def _begin(self, trainer: Any) -> None:
        found = self._client.get_experiment_by_name(self.experiment)
        place = self._client.create_experiment(self.experiment) if found is None else found.experiment_id
        run = self._client.create_run(place, run_name=self.run_name)
        self.run_id = run.info.run_id
        for name, value in hyperparameters(trainer).items():
            self._client.log_param(self.run_id, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_client": None}
