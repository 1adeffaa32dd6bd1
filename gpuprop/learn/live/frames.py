"""Records a small network while it learns: its weights, the activations of some samples, and the decision boundary.

The recorder takes a frame after each epoch. When it has too many, it drops every second frame, and from then on only
every second epoch gives one. So a training of any length becomes an animation of at most `MAX_FRAMES` frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpuprop.backends.numpy.ops import NumpyOps
from gpuprop.training.callbacks import Callback

if TYPE_CHECKING:
    from gpuprop.model.network import Network
    from gpuprop.training.trainer import Trainer

__all__ = ["MAX_FRAMES", "MAX_PARAMETERS", "Frame", "Recorder"]

MAX_FRAMES = 120
MAX_PARAMETERS = 600
"""The lines of a network with more parameters could not be told apart on a screen."""
N_SAMPLES = 4
GRID = 48
N_POINTS = 300


@dataclass(frozen=True)
class Frame:
    """The network at one moment of its training.

    Attributes
    ----------
    epoch : int
        0 for the frame before the first epoch.
    loss : float or None
        The training loss of the epoch; None before the first.
    weights : list of ndarray
    activations : list of ndarray of shape (n_samples, n_units)
        The activations of the first samples, layer by layer, inputs first.
    boundary : ndarray of shape (GRID, GRID) or None
        Only for a network with two inputs: the output over the plane of the inputs, rows from the top. If the network
        has several outputs, it is the index of the largest one, scaled to 0 to 1.
    """

    epoch: int
    loss: float | None
    weights: list[NDArray[Any]]
    activations: list[NDArray[Any]]
    boundary: NDArray[Any] | None


class Recorder(Callback):
    """Records the frames of a training.

    Parameters
    ----------
    X, y : array_like
        The training data. Some samples give the activations, all of them the extent of the plane.

    Attributes
    ----------
    frames : list of Frame
    losses : list of float
        The training loss of every epoch.
    extent : tuple of float
        Left, right, bottom and top of the plane of a network with two inputs.
    points : ndarray of shape (n, 3)
        The samples in the plane, with their targets in the third column.
    names : tuple of str
        What the two inputs of a plane are called.

    Raises
    ------
    ValueError
        When training begins, if the network has more than `MAX_PARAMETERS` parameters.
    """

    def __init__(self, X: ArrayLike, y: ArrayLike) -> None:
        X, y = np.asarray(X), np.asarray(y)
        self._samples = X[:N_SAMPLES]
        self._plane: NDArray[Any] | None = None
        self.extent = (0.0, 1.0, 0.0, 1.0)
        self.points = np.empty((0, 3))
        self.names = ("x1", "x2")
        if X.shape[1] == 2:
            low, high = X.min(axis=0).astype(float), X.max(axis=0).astype(float)
            margin = 0.25 * np.where(high > low, high - low, 1.0)
            self.extent = (low[0] - margin[0], high[0] + margin[0], low[1] - margin[1], high[1] + margin[1])
            across = np.linspace(self.extent[0], self.extent[1], GRID)
            down = np.linspace(self.extent[3], self.extent[2], GRID)
            self._plane = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
            targets = y if y.ndim == 1 else y[:, 0] if y.shape[1] == 1 else y.argmax(axis=1)
            self.points = np.column_stack([X, targets])[:N_POINTS].astype(float)
        self.frames: list[Frame] = []
        self.losses: list[float] = []
        self._every = 1

    @staticmethod
    def check(network: Network) -> None:
        """Raise `ValueError` if the network is too large for a picture."""
        if network.n_parameters > MAX_PARAMETERS:
            raise ValueError(
                f"animate: got a network of {network.n_parameters:,} parameters, expected at most {MAX_PARAMETERS}; "
                "use fewer hidden units"
            )

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Record the network as it starts."""
        self.check(trainer.network)
        self.frames, self.losses, self._every = [self._frame(trainer, 0, None)], [], 1
        if trainer.network.feature_names is not None and self._plane is not None:
            first, second = trainer.network.feature_names
            self.names = (first, second)

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: Mapping[str, float | None]) -> None:
        """Record this epoch if its turn has come; drop every second frame if there are too many."""
        loss = float(record["train_loss"] or 0.0)
        self.losses.append(loss)
        if epoch % self._every == 0:
            self.frames.append(self._frame(trainer, epoch, loss))
        if len(self.frames) > MAX_FRAMES:
            self.frames, self._every = self.frames[::2], 2 * self._every

    def on_fit_end(self, trainer: Trainer) -> None:
        """Record the network as the training leaves it, whatever epoch that is."""
        if self.losses and self.frames[-1].epoch != trainer.epochs_done:
            self.frames.append(self._frame(trainer, trainer.epochs_done, self.losses[-1]))

    def _frame(self, trainer: Trainer, epoch: int, loss: float | None) -> Frame:
        network = trainer.network.copy_to(NumpyOps())  # a simulated device would need long for the plane
        boundary = None
        if self._plane is not None:
            outputs = network.forward(self._plane)
            shown = outputs[:, 0] if outputs.shape[1] == 1 else outputs.argmax(axis=1) / (outputs.shape[1] - 1)
            boundary = np.asarray(shown, dtype=np.float64).reshape(GRID, GRID)
        return Frame(
            epoch,
            loss,
            [np.array(network.ops.to_numpy(weights), dtype=np.float64) for weights in network.weights],
            [np.array(layer, dtype=np.float64) for layer in network.activations(self._samples)],
            boundary,
        )
