"""The network: layer sizes, activations, loss, and all parameters in one flat buffer; and the workspace of a batch.

A `Network` is what is trained, saved and asked for predictions. How it is trained is `gpuprop.training`'s business,
what one step does is in `gpuprop.core.step`, and the arithmetic itself is done by the backend in ``network.ops``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from gpuprop.arrays import beside, contiguous, namespace, on_gpu, to_host
from gpuprop.backends import get_ops
from gpuprop.backends.numpy.ops import NumpyOps
from gpuprop.core import step
from gpuprop.core.ops import Array, Ops
from gpuprop.errors import BackendUnavailableError, DeviceMemoryError, check_integer, check_real
from gpuprop.maths.activations import Activation, get_activation
from gpuprop.maths.initializers import Initializer, default_initializer, get_initializer
from gpuprop.maths.losses import Loss, Metric, check_pair, get_loss, penalty
from gpuprop.maths.scaling import InputScaling
from gpuprop.model.inputs import check_inputs, check_sample_weight, check_targets

__all__ = ["Network", "Parameters", "TrainingData", "TrainingWorkspace", "Workspace"]

#: Rows that inference and whole-data gradients work through at a time: large enough that the multiplications run at
#: full speed, small enough that the activations of a wide network stay in tens of megabytes.
CHUNK_ROWS = 4096
#: Numbers that the widest layer of a chunk may have: sparse data can have 100,000 columns and more.
CHUNK_ELEMENTS = 2**24
#: Rows of plain data that inference on the CPU works through at a time: few enough for the second cache, and many
#: enough that BLAS's threads, where it has several, do not meet more often than they work.
BLOCK_ROWS = 1024
#: Those of all backends, see `gpuprop.core.ops.Ops.row_padding`.
ROW_PADDINGS = (1, 8)


class Parameters:
    """One flat buffer, and the weights and biases of each layer as views of it.

    All weights come first (W1, ..., WL, each row-major), then all biases, so that penalties and weight decay, which
    spare the biases, touch one contiguous slice. A backend may pad the rows of the matrices, and the biases, with
    zeros to a multiple of `row_padding` elements; on the host nothing is padded.

    Parameters
    ----------
    flat : array of shape (Parameters.count(layer_sizes, row_padding),)
    layer_sizes : tuple of int
    row_padding : int, default=1
    """

    def __init__(self, flat: Array, layer_sizes: tuple[int, ...], row_padding: int = 1) -> None:
        self.flat = flat
        self.layer_sizes = layer_sizes
        self.row_padding = row_padding
        self.weights: list[Array] = []
        self.biases: list[Array] = []
        start = 0
        for fan_in, fan_out in pairwise(layer_sizes):
            width = padded(fan_out, row_padding)
            self.weights.append(flat[start : start + fan_in * width].reshape(fan_in, width)[:, :fan_out])
            start += fan_in * width
        self.n_weights = start
        for fan_out in layer_sizes[1:]:
            self.biases.append(flat[start : start + fan_out])
            start += padded(fan_out, row_padding)

    @staticmethod
    def count(layer_sizes: tuple[int, ...], row_padding: int = 1) -> int:
        """Return the number of weights and biases, padding included."""
        return sum((fan_in + 1) * padded(fan_out, row_padding) for fan_in, fan_out in pairwise(layer_sizes))

    def repacked(self, row_padding: int) -> Parameters:
        """Return a copy of parameters on the host with another padding."""
        flat = np.zeros(self.count(self.layer_sizes, row_padding), self.flat.dtype)
        copy = Parameters(flat, self.layer_sizes, row_padding)
        for own, other in zip(self.weights + self.biases, copy.weights + copy.biases, strict=True):
            other[...] = own
        return copy

    def to_host(self, ops: Ops) -> NDArray[Any]:
        """Return a flat copy on the host, without padding."""
        if self.row_padding == 1:
            return np.array(ops.to_numpy(self.flat))
        host = Parameters(ops.to_numpy(self.flat), self.layer_sizes, self.row_padding)
        return np.asarray(host.repacked(1).flat)

    @staticmethod
    def on_device(ops: Ops, flat: NDArray[Any], layer_sizes: tuple[int, ...]) -> Parameters:
        """Return a device copy of a flat buffer of the host, in the backend's padding."""
        if ops.row_padding > 1:
            flat = Parameters(flat, layer_sizes).repacked(ops.row_padding).flat
        return Parameters(ops.asarray(flat, flat.dtype), layer_sizes, ops.row_padding)

    @staticmethod
    def in_layout(ops: Ops, flat: Array, layer_sizes: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a flat array of any backend in the layout of this one: the same object where nothing has to change.

        Raises
        ------
        ValueError
            If it is no array of these layers.
        """
        flat = ops.adopt(flat)
        if flat.size == Parameters.count(layer_sizes, ops.row_padding):
            return ops.asarray(flat, dtype)
        for row_padding in ROW_PADDINGS:
            if flat.size == Parameters.count(layer_sizes, row_padding):
                host = np.asarray(to_host(flat), dtype)
                bare = Parameters(host, layer_sizes, row_padding).repacked(1).flat
                return Parameters.on_device(ops, bare, layer_sizes).flat
        expected = Parameters.count(layer_sizes)
        raise ValueError(f"got a state of {flat.size} numbers, expected {expected}; resume with the network it is of")


def padded(n: int, multiple: int) -> int:
    """Return `n` rounded up to a multiple."""
    return -(-n // multiple) * multiple


class Workspace:
    """The arrays that a forward pass writes, allocated once for batches of up to `n_rows` rows.

    Attributes
    ----------
    a : list of L + 1 arrays
        ``a[0]`` is the batch itself, ``a[l]`` the output of layer l.
    inputs : list of L arrays
        What layer l + 1 reads: ``a[l]``, or a copy of it with units dropped.
    z : list of L + 1 arrays or None
        Net inputs, kept only where a derivative or the loss needs them (index 0 is None).
    masks : list of L arrays or None
        Dropout's factor for each unit of ``a[l]``: 0 or ``1 / (1 - rate)``.
    """

    _SLICED: tuple[str, ...] = ("a", "inputs", "z", "masks")

    def __init__(self, network: Network, n_rows: int, *, keep_z: bool = False) -> None:
        self.n_rows = n_rows

        def rows_of(width: int) -> Array:
            return network.ops.empty((n_rows, width), network.dtype)

        self.a = [rows_of(width) for width in network.layer_sizes]
        self.inputs = list(self.a[:-1])
        self.masks: list[Array | None] = [None] * network.n_layers
        self.z: list[Array | None] = [None]
        for layer, activation in enumerate(network.layer_activations, start=1):
            # The loss of the output layer is computed from z, where it is exact; see gpuprop.losses.
            needed = keep_z or activation.derivative_of == "z" or layer == network.n_layers
            self.z.append(rows_of(network.layer_sizes[layer]) if needed else None)
        self._views: dict[int, Workspace] = {}

    def rows(self, n_rows: int) -> Any:
        """Return this workspace narrowed to its first `n_rows` rows, for the smaller last batch."""
        if n_rows == self.n_rows:
            return self
        if n_rows not in self._views:
            view = copy.copy(self)
            view.n_rows = n_rows
            for name in self._SLICED:
                setattr(view, name, [None if array is None else array[:n_rows] for array in getattr(self, name)])
            self._views = {n_rows: view}
        return self._views[n_rows]


class TrainingWorkspace(Workspace):
    """The arrays of a training step: those of the forward pass, deltas, gradients, targets and running totals.

    Attributes
    ----------
    delta : list of L + 1 arrays
        ``delta[l] = dL/dz`` of layer l; index 0 is None, the input has no delta.
    gradients : Parameters
        In the layout of the parameters.
    y, sample_weight : list of one array
        Targets and weights of the batch.
    totals : array of shape (2,), float64
        Sums over the epoch so far: weighted loss (penalties included) and weighted score.
    """

    _SLICED = (*Workspace._SLICED, "delta", "y", "sample_weight")

    def __init__(self, network: Network, n_rows: int, *, with_dropout: bool = True, keep_z: bool = False) -> None:
        super().__init__(network, n_rows, keep_z=keep_z)
        ops, dtype = network.ops, network.dtype
        for layer, rate in enumerate(network.dropout):
            if with_dropout and rate > 0:
                self.inputs[layer] = ops.empty(self.a[layer].shape, dtype)
                self.masks[layer] = ops.empty(self.a[layer].shape, dtype)
        self.delta: list[Array | None] = [
            None,
            *(ops.empty((n_rows, width), dtype) for width in network.layer_sizes[1:]),
        ]
        count = Parameters.count(network.layer_sizes, ops.row_padding)
        self.gradients = Parameters(ops.empty(count, dtype), network.layer_sizes, ops.row_padding)
        self.y = [ops.empty((n_rows, network.layer_sizes[-1]), dtype)]
        self.sample_weight = [ops.empty(n_rows, dtype)]
        self.totals = ops.asarray(np.zeros(2), np.float64)


_AnyWorkspace = TypeVar("_AnyWorkspace", Workspace, TrainingWorkspace)


@dataclass(frozen=True)
class TrainingData:
    """A data set that has been checked and brought to the device, or left on the host if it is too large for it.

    Attributes
    ----------
    inputs : array or CSR matrix of shape (n_samples, n_features)
        Of the network's dtype, or uint8.
    scaling : InputScaling or None
        What is left to do to each batch of `inputs`.
    targets : array of shape (n_samples, n_outputs)
    sample_weight : array of shape (n_samples,) or None
        On the device.
    wide_weight : array of shape (n_samples,) or None
        The same in float64, on the host or, where they were handed in on a GPU, there: batch totals are formed of it.
    total_weight : float
        Sum of the sample weights; the number of samples where there are none.
    metric : {"class", "labels", "residual"}
    total_variation : float
        Weighted sum of squares of the targets about their mean: the denominator of R2. 0 where no R2 is formed.
    """

    inputs: Array
    scaling: InputScaling | None
    targets: Array
    sample_weight: Array | None
    wide_weight: Array | None
    total_weight: float
    metric: Metric
    total_variation: float

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return int(self.inputs.shape[0])

    def batch_weights(self, order: NDArray[np.int32], batch_size: int) -> NDArray[np.float64]:
        """Return the sum of weights of each batch of `order`, on the host."""
        weight, starts = self.wide_weight, np.arange(0, len(order), batch_size)
        if weight is None:
            return np.minimum(len(order) - starts, batch_size).astype(np.float64)
        if isinstance(weight, np.ndarray):
            return np.asarray(np.add.reduceat(weight[order], starts))
        xp = namespace(weight)
        last = beside(np.zeros(-len(order) % batch_size), weight)
        batches = xp.concat([xp.take(weight, beside(order, weight)), last])
        return np.asarray(to_host(xp.sum(xp.reshape(batches, (-1, batch_size)), axis=1)))

    def score(self, total: float) -> float:
        """Turn the sum of scores over all samples into accuracy, or R2 for a regression."""
        if self.metric != "residual":
            return total / self.total_weight
        if self.total_variation == 0:  # constant targets: as scikit-learn's r2_score has it
            return 1.0 if total == 0 else 0.0
        return 1.0 - total / self.total_variation


class Network:
    """A multilayer perceptron.

    Parameters
    ----------
    layer_sizes : sequence of int
        Units of each layer, input and output included: ``(784, 128, 10)``.
    hidden_activation : str, Activation, or a sequence of them, default="relu"
        For all hidden layers, or one for each.
    output_activation : str, Activation or None, default=None
        None takes the one that belongs to the loss: identity for squared_error, logistic for binary_cross_entropy,
        softmax for categorical_cross_entropy, exponential for poisson.
    loss : str or Loss, default="squared_error"
    dtype : {"float32", "float64"}, default="float32"
    seed : int or None, default=None
        Initial weights, row orders and dropout masks follow from it. None draws one (see `seed`).
    device : str, default="auto"
        "auto", "cpu", "numpy", "cuda", "cuda:N" or "cuda-sim"; the variable ``GPUPROP_DEVICE`` overrides it.
    init : str, callable or None, default=None
        Initial weights: "zeros", "uniform", "uniform(EPSILON)", "glorot", "he", "lecun", or
        ``init(rng, fan_in, fan_out)``. None chooses by the activation of the layer: "he" for rectifying units,
        "glorot" otherwise.
    dropout : float or sequence of float, default=0.0
        Share of units dropped in training, in [0, 1): one number for the hidden layers, a pair (input, hidden), or
        one number for the input and for each hidden layer.
    l1, l2 : float, default=0.0
        Penalties ``l1 sum |W|`` and ``l2 / 2 sum W^2`` on the weights; part of the reported loss.
    input_scaling : InputScaling, mapping or None, default=None
        What is done to inputs first; all methods take raw data.
    classes : sequence of labels or None, default=None
        What the class indices stand for; with them the network is a classifier under any loss.
    feature_names : sequence of str or None, default=None
    target_name : str or None, default=None
        Names of the inputs and of what is predicted, kept in the model file.

    Attributes
    ----------
    weights, biases : list of arrays
        ``weights[l]`` (fan_in, fan_out) and ``biases[l]`` (fan_out,), l from 0: writable views of `parameters`.
    parameters : array of shape (n_parameters,)
        The flat buffer: all weights, then all biases.
    device_, backend_ : str
        The device in use and the library that computes on it.

    Examples
    --------
    >>> import gpuprop
    >>> net = gpuprop.Network((2, 4, 1), loss="binary_cross_entropy", seed=0)
    >>> net.forward([[0.0, 1.0]]).shape
    (1, 1)
    """

    def __init__(
        self,
        layer_sizes: Sequence[int],
        *,
        hidden_activation: str | Activation | Sequence[str | Activation] = "relu",
        output_activation: str | Activation | None = None,
        loss: str | Loss = "squared_error",
        dtype: DTypeLike = "float32",
        seed: int | None = None,
        device: str = "auto",
        init: str | Initializer | None = None,
        dropout: float | Sequence[float] = 0.0,
        l1: float = 0.0,
        l2: float = 0.0,
        input_scaling: InputScaling | Mapping[str, Any] | None = None,
        classes: Sequence[Any] | None = None,
        feature_names: Sequence[str] | None = None,
        target_name: str | None = None,
    ) -> None:
        self.layer_sizes = _check_layer_sizes(layer_sizes)
        self.n_layers = len(self.layer_sizes) - 1
        self.loss_function = get_loss(loss)
        if output_activation is None:
            output_activation = self.loss_function.default_activation
        self.layer_activations: tuple[Activation, ...] = (
            *_check_hidden_activations(hidden_activation, self.n_layers - 1),
            get_activation(output_activation, output=True),
        )
        check_pair(self.loss_function, self.layer_activations[-1])
        self.dtype = _check_dtype(dtype)
        self.seed = _check_seed(seed)
        self.dropout = _check_dropout(dropout, self.n_layers)
        self.l1 = check_real("l1", l1, 0.0)
        self.l2 = check_real("l2", l2, 0.0)
        self.classes = _check_classes(classes, self.layer_sizes[-1])
        self.feature_names = _check_feature_names(feature_names, self.layer_sizes[0])
        if target_name is not None and not isinstance(target_name, str):
            raise TypeError(f"target_name: got {target_name!r}, expected text or None")
        self.target_name = target_name
        self.input_scaling = input_scaling
        self.ops: Ops = get_ops(device)
        self._place(self._initial_parameters(init))

    # --- parameters and device ---------------------------------------------------------------------------------

    def _initial_parameters(self, init: str | Initializer | None) -> NDArray[Any]:
        """Draw the weights in float64, layer by layer from one stream; the biases are zero."""
        size = Parameters.count(self.layer_sizes)
        try:
            flat = np.zeros(size, self.dtype)
        except (MemoryError, ValueError):
            gib = size * self.dtype.itemsize / 2**30
            sizes = "-".join(map(str, self.layer_sizes))
            raise MemoryError(
                f"a network of {sizes} has {size:,} parameters, {gib:,.1f} GiB; use smaller layers"
            ) from None
        rng = np.random.default_rng(np.random.SeedSequence(self.seed))
        for weights, activation in zip(Parameters(flat, self.layer_sizes).weights, self.layer_activations, strict=True):
            initializer = get_initializer(default_initializer(activation.name) if init is None else init)
            drawn = np.asarray(initializer(rng, *weights.shape))
            if drawn.shape != weights.shape:
                raise ValueError(f"init: got weights of shape {drawn.shape}, expected {weights.shape}")
            weights[...] = drawn
        return flat

    def _place(self, flat: NDArray[Any]) -> None:
        self._parameters = Parameters.on_device(self.ops, flat, self.layer_sizes)

    @property
    def parameters(self) -> Array:
        """The flat buffer of all weights, then all biases, on the device; a GPU pads the rows, see `Parameters`."""
        return self._parameters.flat

    def host_parameters(self) -> NDArray[Any]:
        """Return a copy of all weights, then all biases, on the host: shape (n_parameters,), the same on any device."""
        return self._parameters.to_host(self.ops)

    def set_parameters(self, flat: NDArray[Any]) -> None:
        """Overwrite weights and biases with what `host_parameters` returned."""
        device = Parameters.on_device(self.ops, np.asarray(flat, self.dtype), self.layer_sizes)
        self._parameters.flat[...] = device.flat

    @property
    def weights(self) -> list[Array]:
        """Views of the weight matrices, (fan_in, fan_out)."""
        return self._parameters.weights

    @property
    def biases(self) -> list[Array]:
        """Views of the bias vectors, (fan_out,)."""
        return self._parameters.biases

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
        return np.column_stack([self.ops.to_numpy(self.biases[index]), self.ops.to_numpy(self.weights[index]).T])

    def set_theta(self, layer: int, theta: ArrayLike) -> None:
        """Write a layer's weights and biases from the lecture's matrix; see `theta`."""
        index = self._layer_index(layer)
        fan_in, fan_out = self.weights[index].shape
        values = np.asarray(theta, self.dtype)
        if values.shape != (fan_out, 1 + fan_in):
            raise ValueError(f"theta: got shape {values.shape}, expected {(fan_out, 1 + fan_in)}, biases in column 0")
        self.biases[index][...] = self.ops.asarray(values[:, 0], self.dtype)
        self.weights[index][...] = self.ops.asarray(values[:, 1:].T, self.dtype)

    def _layer_index(self, layer: int) -> int:
        if check_integer("layer", layer, 1) > self.n_layers:
            raise ValueError(f"layer: got {layer}, expected 1 to {self.n_layers}")
        return int(layer) - 1

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases."""
        return Parameters.count(self.layer_sizes)

    @property
    def n_weights(self) -> int:
        """Length of the weights in `parameters`: ``parameters[:n_weights]`` are the weights, the rest the biases."""
        return self._parameters.n_weights

    @property
    def device_(self) -> str:
        """The device in use."""
        return self.ops.device

    @property
    def backend_(self) -> str:
        """The library that computes."""
        return self.ops.backend

    def to(self, device: str) -> Network:
        """Move the parameters to another device, in place, and return the network."""
        return self.move_to(get_ops(device), self.host_parameters())

    def move_to(self, ops: Ops, flat: NDArray[Any]) -> Network:
        """Go on with these parameters on a backend that is at hand; the old one is not asked for anything."""
        self.ops = ops
        self._place(flat)
        return self

    def copy(self, *, device: str | None = None, dtype: DTypeLike | None = None) -> Network:
        """Return an independent network with the same parameters, on another device or in another dtype if asked."""
        return self.copy_to(self.ops if device is None else get_ops(device), dtype)

    def copy_to(self, ops: Ops, dtype: DTypeLike | None = None) -> Network:
        """`copy` for a backend that is at hand."""
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        twin.ops = ops
        twin.dtype = self.dtype if dtype is None else _check_dtype(dtype)
        twin._place(self.host_parameters().astype(twin.dtype))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle holds: the parameters once, on the host, and the device's name."""
        state = {name: value for name, value in vars(self).items() if name not in ("ops", "_parameters")}
        return state | {"device": self.device_, "flat": self.host_parameters()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore; a network of a GPU that this machine lacks comes back on the device that ``auto`` chooses."""
        device, flat = state.pop("device"), state.pop("flat")
        vars(self).update(state)
        try:
            self.ops = get_ops(device)
        except BackendUnavailableError:
            self.ops = get_ops("auto")
        self._place(flat)

    # --- what it is --------------------------------------------------------------------------------------------

    @property
    def hidden_activations(self) -> tuple[Activation, ...]:
        """Activation of each hidden layer."""
        return self.layer_activations[:-1]

    @property
    def output_activation(self) -> Activation:
        """Activation of the output layer."""
        return self.layer_activations[-1]

    @property
    def input_scaling(self) -> InputScaling | None:
        """What is done to inputs first; may be set."""
        return self._input_scaling

    @input_scaling.setter
    def input_scaling(self, scaling: InputScaling | Mapping[str, Any] | None) -> None:
        if isinstance(scaling, Mapping):
            scaling = InputScaling.from_config(scaling)
        if scaling is not None and not isinstance(scaling, InputScaling):
            raise TypeError(f"input_scaling: got {scaling!r}, expected a gpuprop.InputScaling or None")
        if scaling is not None:
            scaling.check_width(self.layer_sizes[0])
        self._input_scaling = scaling

    @property
    def metric(self) -> Metric:
        """What counts as right: the largest output, every output on its side of 0.5, or the squared residual."""
        if self.loss_function.name == "categorical_cross_entropy":
            return "class"
        if self.classes is not None:
            return "class" if self.layer_sizes[-1] > 1 else "labels"
        return "labels" if self.loss_function.classification else "residual"

    @property
    def is_classifier(self) -> bool:
        """Whether `predict` returns classes: under a cross-entropy, or where `classes` are given."""
        return self.metric != "residual"

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON values, for model files; not the parameters, not the device."""
        return {
            "layer_sizes": list(self.layer_sizes),
            "hidden_activation": [activation.name for activation in self.hidden_activations],
            "output_activation": self.output_activation.name,
            "loss": self.loss_function.name,
            "dtype": self.dtype.name,
            "seed": self.seed,
            "dropout": list(self.dropout),
            "l1": self.l1,
            "l2": self.l2,
            "input_scaling": None if self.input_scaling is None else self.input_scaling.get_config(),
            "classes": None if self.classes is None else list(self.classes),
            "feature_names": None if self.feature_names is None else list(self.feature_names),
            "target_name": self.target_name,
        }

    def __repr__(self) -> str:
        hidden = ", ".join(dict.fromkeys(activation.name for activation in self.hidden_activations))
        return (
            f"Network({'-'.join(map(str, self.layer_sizes))}{', ' + hidden if hidden else ''}, "
            f"{self.output_activation.name} + {self.loss_function.name}, {self.dtype.name}, {self.device_})"
        )

    # --- asking it ---------------------------------------------------------------------------------------------

    def _chunks(self, X: ArrayLike, keep_z: bool = False) -> Iterator[Workspace]:
        """Run the forward pass over all rows, a chunk at a time."""
        inputs, scaling = check_inputs(X, self.layer_sizes[0], self.dtype, self.input_scaling)
        (data,) = self.ops.load(inputs)
        n_samples = inputs.shape[0]
        order = self.ops.asarray(np.arange(n_samples), np.int32)
        work = self._room_for(n_samples, lambda n_rows: Workspace(self, n_rows, keep_z=keep_z))
        for start in range(0, n_samples, work.n_rows):
            part = work.rows(min(work.n_rows, n_samples - start))
            self.ops.take_batch(data, order, start, scaling, part.a[0])
            step.forward_pass(self, part)
            yield part

    def _gather(self, X: ArrayLike, arrays: Callable[[Workspace], list[Array]], keep_z: bool) -> list[NDArray[Any]]:
        """Return arrays of all rows: on the host, or on the GPU for an `X` that lies there."""
        with self.ops.active():
            X = self.ops.adopt(X)
            brought = (lambda a: a.copy()) if on_gpu(X) else (lambda a: self.ops.to_numpy(a).copy())
            parts = [[brought(a) for a in arrays(work)] for work in self._chunks(X, keep_z)]
            return [
                namespace(pieces[0]).concatenate(pieces) if len(pieces) > 1 else pieces[0]
                for pieces in zip(*parts, strict=True)
            ]

    def forward(self, X: ArrayLike) -> NDArray[Any]:
        """Return the outputs for raw inputs of shape (n_samples, n_features): (n_samples, n_outputs).

        A network on a GPU answers to an array on a GPU (CuPy's, or any with ``__cuda_array_interface__`` or DLPack)
        with CuPy arrays, and uses it where it lies; in all other cases the answer is NumPy's. The same holds for
        `activations`, `net_inputs`, `predict` and the gradients of `loss_and_gradients`.
        """
        outputs = self.forward_plain(X)
        return self._gather(X, lambda work: [work.a[-1]], keep_z=False)[0] if outputs is None else outputs

    def forward_plain(self, X: object) -> NDArray[Any] | None:
        """`forward` without detours, for data that need none; None where they do, and where a number is not finite.

        Plain is a C-contiguous NumPy array of the network's dtype and width, on the CPU and without input scaling. It
        is read in place, a block of rows at a time, and nothing but the result and one block's layers is allocated.
        """
        if (
            type(X) is not np.ndarray
            or X.dtype != self.dtype
            or X.ndim != 2
            or X.shape[1] != self.layer_sizes[0]
            or len(X) == 0
            or not X.flags.c_contiguous
            or self._input_scaling is not None
            or not isinstance(self.ops, NumpyOps)
        ):
            return None
        n_rows = min(BLOCK_ROWS, len(X))
        outputs = np.empty((len(X), self.layer_sizes[-1]), self.dtype)
        hidden = [np.empty((n_rows, width), self.dtype) for width in self.layer_sizes[1:-1]]
        forward = self.ops.forward
        for start in range(0, len(X), n_rows):
            a = X[start : start + n_rows]
            # A sum of squares tells at a tenth of the time that all are finite; that one is not, if they are not huge.
            if not math.isfinite(np.dot(flat := a.reshape(-1), flat)) and not np.isfinite(a).all():
                return None
            layers = hidden if len(a) == n_rows else [layer[: len(a)] for layer in hidden]
            for weights, biases, activation, out in zip(
                self.weights,
                self.biases,
                self.layer_activations,
                [*layers, outputs[start : start + n_rows]],
                strict=True,
            ):
                forward(a, weights, biases, activation, None, out)
                a = out
        return outputs

    def activations(self, X: ArrayLike) -> list[NDArray[Any]]:
        """Return every layer's outputs: the (scaled) inputs first, the network's outputs last."""
        return self._gather(X, lambda work: work.a, keep_z=False)

    def net_inputs(self, X: ArrayLike) -> list[NDArray[Any]]:
        """Return every layer's net inputs z, from the first hidden layer to the output layer."""
        return self._gather(X, lambda work: cast("list[Array]", work.z[1:]), keep_z=True)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return what the network says about each sample.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)

        Returns
        -------
        ndarray
            A classifier's class indices, (n_samples,); for several logistic outputs, which are classes of their own,
            0 or 1 in each column; the outputs of a regression, (n_samples, n_outputs).
        """
        with self.ops.active():
            return self.decide(self.forward(X))

    def decide(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """Return what `predict` makes of outputs that `forward` gave."""
        if self.metric == "class":
            return cast("NDArray[Any]", outputs.argmax(axis=1))
        if self.metric == "labels":
            labels = (outputs > 0.5).astype(np.int64)
            return labels[:, 0] if outputs.shape[1] == 1 else labels
        return outputs

    def prepare(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> TrainingData:
        """Check a data set and bring it to the device; see `gpuprop.model.inputs` for what is refused.

        Arrays that lie on the device already are used there, not copied.
        """
        ops, dtype = self.ops, self.dtype
        with ops.active():
            inputs, scaling = check_inputs(ops.adopt(X), self.layer_sizes[0], dtype, self.input_scaling)
            n_samples = inputs.shape[0]
            targets, class_indices = check_targets(
                ops.adopt(y), n_samples, self.layer_sizes[-1], dtype, self.loss_function
            )
            weight = check_sample_weight(ops.adopt(sample_weight), n_samples, dtype)
            wide_weight = None if weight is None else contiguous(weight, np.dtype(np.float64))
            metric = "class" if class_indices and self.metric == "residual" else self.metric
            loaded_inputs, loaded_targets, loaded_weight = ops.load(inputs, targets, weight)
            return TrainingData(
                inputs=loaded_inputs,
                scaling=scaling,
                targets=loaded_targets,
                sample_weight=loaded_weight,
                wide_weight=wide_weight,
                total_weight=float(n_samples if wide_weight is None else wide_weight.sum()),
                metric=metric,
                total_variation=_total_variation(targets, wide_weight) if metric == "residual" else 0.0,
            )

    def loss(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, *, dropout_step: int | None = None
    ) -> float:
        """Return the loss, penalties included: what training minimises.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
        y : array_like of shape (n_samples,) or (n_samples, n_outputs)
            Targets; class indices or one-hot rows for a classifier.
        sample_weight : array_like of shape (n_samples,) or None, default=None
            The loss is then the weighted mean over the samples.
        dropout_step : int or None, default=None
            Apply the dropout masks of this update (counted from 0); None drops nothing.
        """
        return self._loss_and_score(self.prepare(X, y, sample_weight), dropout_step)[0]

    def evaluate(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> tuple[float, float]:
        """Return the loss, and the accuracy of a classifier or R2 of a regression (over all outputs together)."""
        return self.evaluate_data(self.prepare(X, y, sample_weight))

    def evaluate_data(self, data: TrainingData, penalty_factor: float = 1.0) -> tuple[float, float]:
        """`evaluate` for data that `prepare` returned; the penalties are multiplied by `penalty_factor`."""
        return self._loss_and_score(data, None, penalty_factor)

    def _loss_and_score(
        self, data: TrainingData, dropout_step: int | None, penalty_factor: float = 1.0
    ) -> tuple[float, float]:
        work = self._whole_data_workspace(data.n_samples, dropout_step)
        order = self.ops.asarray(np.arange(data.n_samples), np.int32)
        for start in range(0, data.n_samples, work.n_rows):
            part = work.rows(min(work.n_rows, data.n_samples - start))
            step.take_batch(self, part, data, order, start)
            step.forward_pass(self, part, dropout_step, first_row=start)
            step.output_delta(self, part, data, data.total_weight)
        loss_total, score_total = self.ops.to_numpy(work.totals)
        loss = float(loss_total) / data.total_weight
        if self.l1 or self.l2:
            weights = self.ops.to_numpy(self.parameters)[: self.n_weights]
            loss += penalty_factor * penalty(weights, self.l1, self.l2)
        return loss, data.score(float(score_total))

    def loss_and_gradients(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, *, dropout_step: int | None = None
    ) -> tuple[float, list[NDArray[Any]], list[NDArray[Any]]]:
        """Return the loss and its gradient with respect to every weight and bias.

        Parameters
        ----------
        X, y, sample_weight, dropout_step
            As for `loss`.

        Returns
        -------
        loss : float
        weight_grads : list of ndarray
            Shapes of `weights`.
        bias_grads : list of ndarray
            Shapes of `biases`. All arrays are the caller's own.
        """
        with self.ops.active():
            X = self.ops.adopt(X)
            loss, gradients = self._objective(self.prepare(X, y, sample_weight), dropout_step)()
            if not on_gpu(X):
                gradients = Parameters(gradients.to_host(self.ops), self.layer_sizes)
            return loss, [w.copy() for w in gradients.weights], [b.copy() for b in gradients.biases]

    def objective(
        self, data: TrainingData, dropout_step: int | None = None, penalty_factor: float = 1.0
    ) -> Callable[[], tuple[float, NDArray[Any]]]:
        """Return a function that gives the loss on `data` and its flat gradient, for the parameters of the moment.

        The arrays that it works in are allocated here, once; the gradient is the caller's own, on the host.
        """
        evaluate = self._objective(data, dropout_step, penalty_factor)

        def loss_and_gradient() -> tuple[float, NDArray[Any]]:
            loss, gradients = evaluate()
            return loss, gradients.to_host(self.ops)

        return loss_and_gradient

    def _objective(
        self, data: TrainingData, dropout_step: int | None, penalty_factor: float = 1.0
    ) -> Callable[[], tuple[float, Parameters]]:
        """Return a function that gives the loss on `data`, and its gradient in an array that the next call reuses."""
        work = self._whole_data_workspace(data.n_samples, dropout_step)
        order = self.ops.asarray(np.arange(data.n_samples), np.int32)
        total_weight = data.total_weight

        def loss_and_gradients() -> tuple[float, Parameters]:
            work.totals[...] = 0.0
            step.loss_and_gradients(
                self, work, data, order, 0, data.n_samples, total_weight, dropout_step, penalty_factor
            )
            return float(self.ops.to_numpy(work.totals)[0]) / total_weight, work.gradients

        return loss_and_gradients

    def _whole_data_workspace(self, n_samples: int, dropout_step: int | None) -> TrainingWorkspace:
        with_dropout = dropout_step is not None
        return self._room_for(n_samples, lambda n_rows: TrainingWorkspace(self, n_rows, with_dropout=with_dropout))

    def _room_for(self, n_samples: int, workspace: Callable[[int], _AnyWorkspace]) -> _AnyWorkspace:
        """Return a workspace for a chunk of the samples: of `_chunk_rows`, or as many as the device has room for."""
        n_rows = min(self._chunk_rows, n_samples)
        while True:
            try:
                return workspace(n_rows)
            except DeviceMemoryError:
                if n_rows == 1:
                    raise
                n_rows //= 2

    @property
    def _chunk_rows(self) -> int:
        """`CHUNK_ROWS`, or fewer where a row is so wide that a chunk would exceed `CHUNK_ELEMENTS`."""
        return max(1, min(CHUNK_ROWS, CHUNK_ELEMENTS // max(self.layer_sizes)))

    # --- files -------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the network to a model file, which `gpuprop.load` reads.

        The file is in the format safetensors; equal networks give equal bytes. An existing file survives a failure.
        """
        from gpuprop.model.network_file import NetworkContent, write_network

        weights, biases = ([self.ops.to_numpy(array) for array in arrays] for arrays in (self.weights, self.biases))
        write_network(NetworkContent(self.get_config(), weights, biases), path)


def _total_variation(targets: Array, weight: Array | None) -> float:
    """Return the weighted sum of squares of the targets about their mean."""
    centred = targets - np.average(targets, axis=0, weights=weight)
    total = len(targets) if weight is None else float(weight.sum())
    return float(np.average(centred**2, axis=0, weights=weight).sum()) * total


def _check_layer_sizes(layer_sizes: Sequence[int]) -> tuple[int, ...]:
    if isinstance(layer_sizes, (str, int)) or not hasattr(layer_sizes, "__iter__"):
        raise TypeError(f"layer_sizes: got {layer_sizes!r}, expected a sequence such as (784, 128, 10)")
    sizes = tuple(check_integer("layer_sizes", size, 1) for size in layer_sizes)
    if len(sizes) < 2:
        raise ValueError(f"layer_sizes: got {sizes}, expected at least an input and an output layer, e.g. (2, 4, 1)")
    return sizes


def _check_hidden_activations(
    given: str | Activation | Sequence[str | Activation], n_hidden: int
) -> tuple[Activation, ...]:
    if isinstance(given, (str, Activation)):
        return (get_activation(given),) * n_hidden
    if not isinstance(given, Sequence):
        raise TypeError(f"hidden_activation: got {given!r}, expected a name, an Activation, or a list of them")
    if len(given) != n_hidden:
        raise ValueError(
            f"hidden_activation: got {len(given)} activations, expected one for each of the {n_hidden} hidden layers"
        )
    return tuple(get_activation(one) for one in given)


def _check_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = np.dtype(object)
    if found not in (np.float32, np.float64) or not found.isnative:
        raise ValueError(f"dtype: got {dtype!r}, expected 'float32' or 'float64'")
    return found


def _check_seed(seed: int | None) -> int:
    if seed is None:
        return int(np.random.default_rng().integers(2**63))
    number = check_integer("seed", seed, 0)
    if number >= 2**64:
        raise ValueError(f"seed: got {seed}, expected an integer below 2**64")
    return number


def _check_dropout(dropout: float | Sequence[float], n_layers: int) -> tuple[float, ...]:
    """Return the rate of the input and of each hidden layer."""
    if isinstance(dropout, Sequence) and not isinstance(dropout, str):
        rates = [check_real("dropout", rate, 0.0, 1.0, open_maximum=True) for rate in dropout]
        if len(rates) == n_layers:
            return tuple(rates)
        if len(rates) == 2:
            return (rates[0],) + (rates[1],) * (n_layers - 1)
        raise ValueError(
            f"dropout: got {len(rates)} rates, expected one number, a pair (input, hidden), or {n_layers} "
            "(the input and each hidden layer)"
        )
    rate = check_real("dropout", dropout, 0.0, 1.0, open_maximum=True)
    return (0.0,) + (rate,) * (n_layers - 1)


def _check_classes(classes: Sequence[Any] | None, n_outputs: int) -> tuple[Any, ...] | None:
    if classes is None:
        return None
    labels = tuple(label.item() if isinstance(label, np.generic) else label for label in classes)
    expected = 2 if n_outputs == 1 else n_outputs
    if len(labels) != expected:
        raise ValueError(f"classes: got {len(labels)} labels, expected {expected} for {n_outputs} output(s)")
    for label in labels:
        if not isinstance(label, (str, int, float, bool)) or (isinstance(label, float) and not math.isfinite(label)):
            raise TypeError(f"classes: got {label!r}, expected text, numbers or booleans")
    return labels


def _check_feature_names(names: Sequence[str] | None, n_features: int) -> tuple[str, ...] | None:
    if names is None:
        return None
    if len(names) != n_features or not all(isinstance(name, str) for name in names):
        raise ValueError(f"feature_names: got {len(names)} names, expected {n_features} strings, one an input")
    return tuple(names)
