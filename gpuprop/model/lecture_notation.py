"""A network's layers as the matrices of a well-known lecture: Andrew Ng's Machine Learning course."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.errors import check_integer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gpuprop.core.layers import Layers

__all__ = ["LectureNotation"]


class LectureNotation:
    """The part of a network that reads and writes ``Theta^(l)``."""

    layers: Layers

    def theta(self, layer: int) -> NDArray[Any]:
        """Return a layer's weights and biases as the lecture's matrix, a copy.

        ``Theta^(l)`` leads from layer l to layer l + 1, where layer 1 holds the inputs: one row for each unit it leads
        to, the biases in column 0, for inputs to which ``a_0 = 1`` has been prefixed. Notation of Andrew Ng's
        Machine Learning course.

        Parameters
        ----------
        layer : int
            From 1 to ``n_layers``: ``theta(1)`` holds ``weights[0]`` and ``biases[0]``.

        Returns
        -------
        ndarray of shape (fan_out, 1 + fan_in)
        """
        index = self._layer_index(layer)
        return np.column_stack(
            [
                self.layers.ops.to_numpy(self.layers.biases[index]),
                self.layers.ops.to_numpy(self.layers.weights[index]).T,
            ]
        )

    def set_theta(self, layer: int, theta: ArrayLike) -> None:
        """Write a layer's weights and biases from the lecture's matrix; see `theta`."""
        index = self._layer_index(layer)
        fan_in, fan_out = self.layers.weights[index].shape
        values = np.asarray(theta, self.layers.spec.dtype)
        if values.shape != (fan_out, 1 + fan_in):
            raise ValueError(f"theta: got shape {values.shape}, expected {(fan_out, 1 + fan_in)}, biases in column 0")
        self.layers.biases[index][...] = self.layers.ops.asarray(values[:, 0], self.layers.spec.dtype)
        self.layers.weights[index][...] = self.layers.ops.asarray(values[:, 1:].T, self.layers.spec.dtype)

    def _layer_index(self, layer: int) -> int:
        if check_integer("layer", layer, 1) > self.layers.spec.n_layers:
            raise ValueError(f"layer: got {layer}, expected 1 to {self.layers.spec.n_layers}")
        return int(layer) - 1
