"""The Ops protocol: the closed set of primitives that a training step is written in. Contracts only.

A backend is one implementation of these methods; `gpuprop.core.step` is the only caller of most of them. Arrays are
C-contiguous but for the backend's padding of rows, of one dtype and on the backend's device; that is established once,
by `asarray`. Each primitive writes into the arguments named in its contract and changes nothing else.

A backend that can do better than one primitive after the other has a method ``plan_updates`` beside them, which the
training loop asks for once: see `UpdatePlan`. One whose processor is slow on subnormal numbers has a method
``subnormals_flushed()``: a context, entered around updates, in which it takes them for zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

    from gpuprop.maths.activations import Activation
    from gpuprop.maths.losses import Loss, Metric
    from gpuprop.maths.optimizers import Optimizer
    from gpuprop.maths.scaling import InputScaling
    from gpuprop.model.network import Parameters, TrainingData

__all__ = ["Array", "Ops", "UpdatePlan"]

#: An array of the backend: ``numpy.ndarray`` on the CPU.
Array = Any


class Ops(Protocol):
    """What a backend must offer."""

    @property
    def device(self) -> str:
        """The device in use: "cpu", "numpy", ..."""
        ...

    @property
    def backend(self) -> str:
        """The library that computes: "numpy", "numba", ..."""
        ...

    @property
    def row_padding(self) -> int:
        """Rows of matrices lie this many elements, or a multiple of it, apart; what is between them holds zeros."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """Return a context in which the functions of an array's own library work on this device, in order."""
        ...

    def adopt(self, array: Any) -> Any:
        """Return what a user handed in as an array of this device if it lies on a GPU, else for NumPy to read.

        See `gpuprop.arrays` for what is copied.
        """
        ...

    def asarray(self, array: Any, dtype: DTypeLike) -> Array:
        """Return `array` on the device: C-contiguous, of `dtype`; the same object where nothing has to change.

        A sparse matrix stays sparse, as CSR.
        """
        ...

    def load(self, *arrays: Any) -> tuple[Any, ...]:
        """Return checked arrays of one data set as `take_batch` and ``plan_updates`` read them; None stays None.

        That is on the device, or, for a data set that is too large for it, something that stays on the host.
        """
        ...

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Return a host copy of a device array (on the CPU: the array itself)."""
        ...

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return a new array on the device, its contents undefined."""
        ...

    def synchronize(self) -> None:
        """Wait until everything asked for has been computed."""
        ...

    def take_batch(self, data: Array, order: Array, start: int, scaling: InputScaling | None, out: Array) -> None:
        """``out[i] = (data[order[start + i]] - shift) * scale`` for every row i of `out`.

        `data` is (n_samples, n_features), of the dtype of `out` or uint8, or CSR of the dtype of `out`, whose rows
        become dense here; without `scaling` rows are only converted.
        """
        ...

    def drop(
        self, a: Array, rate: float, seed: int, layer: int, step: int, first_row: int, mask: Array, out: Array
    ) -> None:
        """``mask = keep_mask(...) / (1 - rate)`` and ``out = a * mask``; see `gpuprop.maths.dropout`."""
        ...

    def forward(
        self,
        inputs: Array,
        weights: Array,
        biases: Array,
        activation: Activation,
        z: Array | None,
        out: Array,
    ) -> None:
        """``out = f(inputs @ weights + biases)``, the net input written to `z` unless that is None."""
        ...

    def output_delta(
        self,
        z: Array,
        a: Array,
        y: Array,
        sample_weight: Array | None,
        total_weight: float,
        activation: Activation,
        loss: Loss,
        metric: Metric,
        delta: Array,
        totals: Array,
    ) -> None:
        """``delta = w_i dL_i/dz / total_weight``; ``totals += (sum_i w_i L_i, sum_i w_i s_i)``.

        ``s_i`` is `gpuprop.losses.score` under `metric`; `totals` is a float64 pair.
        """
        ...

    def hidden_delta(
        self,
        delta: Array,
        weights: Array,
        activation: Activation,
        source: Array,
        mask: Array | None,
        out: Array,
    ) -> None:
        """``out = (delta @ weights.T) * mask * f'(source)``: fused activation-derivative-delta.

        `delta` and `weights` are those of the layer above, `source` is the output or the net input of this layer,
        whichever `activation` declares, taken before dropout's scaling.
        """
        ...

    def accumulate_gradient(
        self, inputs: Array, delta: Array, weight_grads: Array, bias_grads: Array, *, accumulate: bool
    ) -> None:
        """``weight_grads (+)= inputs.T @ delta``, ``bias_grads (+)= sum_i delta_i``: outer products over the batch.

        `accumulate` says whether to add to what is there or to overwrite it.
        """
        ...

    def add_penalty(
        self,
        parameters: Parameters,
        gradients: Parameters,
        l1: float,
        l2: float,
        total_weight: float,
        totals: Array,
    ) -> None:
        """Add ``l1 sign(W) + l2 W`` to the weight gradients and `total_weight` times the penalty to ``totals[0]``.

        The penalty is ``l1 sum |W| + l2 / 2 sum W^2``, over weights, not biases.
        """
        ...

    def update(
        self,
        parameters: Parameters,
        gradients: Parameters,
        optimizer: Optimizer,
        state: dict[str, Array],
        scratch: tuple[Array, ...],
        learning_rate: float,
        step: int,
        clip_norm: float | None,
        max_norm: float | None,
    ) -> None:
        """Clip the gradient, take one step of the optimizer (`step` counts from 1), constrain incoming weights."""
        ...


class UpdatePlan(Protocol):
    """The updates of a training run, with everything that they need allocated once.

    ``ops.plan_updates(network, data, rule, part_size=..., update_size=...)`` returns one, or None where the primitives
    are all there is. An update takes `update_size` rows of the epoch's order, in parts of at most `part_size`.
    """

    def begin_epoch(
        self,
        data: TrainingData,
        order: NDArray[np.int32],
        weights: NDArray[np.float64],
        penalty_factors: NDArray[np.float64],
        rates: NDArray[np.float64],
        steps_done: int,
    ) -> None:
        """Take what is new in an epoch.

        Parameters
        ----------
        data : TrainingData
            That of the plan, or the same rows with other sample weights.
        order : ndarray of shape (n_samples,)
            The order of the rows.
        weights, penalty_factors, rates : ndarray of shape (updates of an epoch,)
            For each update the sum of its sample weights, what the network's penalties are multiplied by, and the
            learning rate.
        steps_done : int
            Updates before this epoch.
        """
        ...

    def run(self, first: int, last: int) -> None:
        """Make the updates `first` to `last` - 1 of the epoch, counted from 0; each once, in order."""
        ...

    def totals(self) -> NDArray[np.float64]:
        """Return the sums over the epoch so far: weighted loss (penalties included) and weighted score."""
        ...

    def rewind(self) -> None:
        """Bring the optimizer's memory back to where it was at the beginning of the epoch."""
        ...

    def places(self) -> Iterator[tuple[str, Array]]:
        """Yield what the last update left, in the order of the algorithm: a name for messages, and an array."""
        ...
