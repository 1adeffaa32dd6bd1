"""The network, which a user trains, saves and asks for predictions.

Its `gpuprop.core.spec.Spec` says what it computes, `gpuprop.training` trains it, `gpuprop.core.step` is one step of a
training, and the backend in ``network.ops`` does the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from gpuprop.arrays import namespace, on_gpu
from gpuprop.backends.devices import get_ops
from gpuprop.core.embedding import InputEmbedding
from gpuprop.core.layers import Layers
from gpuprop.core.parameters import Parameters
from gpuprop.core.spec import Spec
from gpuprop.errors import BackendUnavailableError, check_real
from gpuprop.maths.activations import Activation, get_activation
from gpuprop.maths.initializers import Initializer
from gpuprop.maths.losses import Loss, Metric, check_pair, get_loss
from gpuprop.maths.scaling import InputScaling
from gpuprop.model import arguments, evaluation
from gpuprop.model.explanations import Explained
from gpuprop.model.host_pass import host_outputs
from gpuprop.model.initial_weights import initial_parameters
from gpuprop.model.inputs import indices_of_labels
from gpuprop.model.lecture_notation import LectureNotation
from gpuprop.model.spec_views import SpecViews, check_place, former_spec, kept_options
from gpuprop.model.views import NetworkViews

if TYPE_CHECKING:
    from gpuprop.core.array_ops import Array
    from gpuprop.core.data import TrainingData
    from gpuprop.core.plan import Backend
    from gpuprop.core.workspace import Workspace

__all__ = ["Network"]


class Network(SpecViews, LectureNotation, Explained, NetworkViews):
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
        Initial weights: "zeros", "uniform", "uniform(EPSILON)", "glorot", "he", "lecun", "lecun_normal", or
        ``init(rng, fan_in, fan_out)``. None chooses by the activation of the layer: "he" for rectifying units,
        "glorot" otherwise.
    dropout : float or sequence of float, default=0.0
        Share of units dropped in training, in [0, 1): one number for the hidden layers, a pair (input, hidden), or
        one number for the input and for each hidden layer.
    l1, l2 : float, default=0.0
        Penalties ``l1 sum |W|`` and ``l2 / 2 sum W^2`` on the weights; part of the reported loss.
    slopes : bool, default=False
        Whether each hidden unit has a trained slope alpha, 1 at first: ``a = z + alpha (f(z) - z)``.
    batch_norm, residual : bool, default=False
        Whether net inputs of hidden layers are normalised over the batch, and whether a hidden layer adds the output
        of one of its size below it to its own: `gpuprop.core.blocks`. No fused kernel or compiled loop knows either.
    precision : {"float32", "tf32x3", "tf32", "bf16"}, default="float32"
        What both operands of each product are rounded to, as tensor cores do; see `gpuprop.core.precision`. GPUs of
        compute capability 8.0 or more multiply so.
    emulate : bool, default=False
        Whether another device may round the operands by itself, for a look at what a precision does: that is slower
        than float32. Without it, such a device refuses the precision. Where a network moves or is read from a file
        later on, it keeps its roundings, and emulates them where it must.
    embedding : InputEmbedding, mapping or None, default=None
        Trained functions that make vectors of numbers and categories before the first layer, whose inputs they give:
        ``layer_sizes[0]`` is their `n_outputs`, and data have their `n_inputs` columns. Networks with slopes or an
        embedding live on the host.
    input_scaling : InputScaling, mapping or None, default=None
        How inputs are scaled first; all methods take raw data.
    classes : sequence of labels or None, default=None
        The labels of the class indices; with them the network is a classifier under any loss.
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

    Raises
    ------
    ValueError
        If an argument is out of range, or the loss is not defined on the outputs of the output activation.
    BackendUnavailableError
        If a device that was asked for by name cannot be used.

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
        slopes: bool = False,
        batch_norm: bool = False,
        residual: bool = False,
        precision: str = "float32",
        emulate: bool = False,
        embedding: InputEmbedding | Mapping[str, Any] | None = None,
        input_scaling: InputScaling | Mapping[str, Any] | None = None,
        classes: Sequence[Any] | None = None,
        feature_names: Sequence[str] | None = None,
        target_name: str | None = None,
    ) -> None:
        sizes = arguments.check_layer_sizes(layer_sizes)
        found = get_loss(loss)
        if output_activation is None:
            output_activation = found.default_activation
        output = get_activation(output_activation, output=True)
        check_pair(found, output)
        spec = Spec(
            layer_sizes=sizes,
            activations=(*arguments.check_hidden_activations(hidden_activation, len(sizes) - 2), output),
            loss=found,
            dtype=arguments.check_dtype(dtype),
            seed=arguments.check_seed(seed),
            dropout=arguments.check_dropout(dropout, len(sizes) - 1),
            l1=check_real("l1", l1, 0.0),
            l2=check_real("l2", l2, 0.0),
            has_slopes=bool(slopes),
            embedding=arguments.check_embedding(embedding, sizes[0]),
            batch_norm=bool(batch_norm),
            residual=bool(residual),
            precision=precision,
        )
        arguments.check_blocks(spec)
        self.classes = arguments.check_classes(classes, sizes[-1])
        self.feature_names = arguments.check_feature_names(feature_names, spec.n_inputs)
        if target_name is not None and not isinstance(target_name, str):
            raise TypeError(f"target_name: got {target_name!r}, expected text or None")
        self.target_name = target_name
        self.ops: Backend = get_ops(device).in_precision(spec.precision, emulate=emulate)
        self.layers: Layers = self._placed(spec, initial_parameters(spec, init))
        self.input_scaling = input_scaling

    # --- parameters and device ---------------------------------------------------------------------------------

    def _placed(self, spec: Spec, flat: NDArray[Any]) -> Layers:
        """Return layers with these parameters on the network's device."""
        check_place(spec, self.ops)
        return Layers(spec, self.ops, Parameters.on_device(self.ops, flat, spec.layout))

    @property
    def parameters(self) -> Array:
        """The flat buffer of all weights, then all biases, on the device; a GPU pads the rows, see `Parameters`."""
        return self.layers.parameters.flat

    def host_parameters(self) -> NDArray[Any]:
        """Return a copy of all weights, then all biases, on the host: shape (n_parameters,), the same on any device."""
        return self.layers.parameters.to_host(self.ops)

    def set_parameters(self, flat: NDArray[Any]) -> None:
        """Overwrite weights and biases with what `host_parameters` returned."""
        device = Parameters.on_device(self.ops, np.asarray(flat, self.dtype), self.spec.layout)
        self.parameters[...] = device.flat

    def to(self, device: str) -> Network:
        """Move the parameters to another device, in place, and return the network."""
        return self.move_to(get_ops(device), self.host_parameters())

    def move_to(self, ops: Backend, flat: NDArray[Any]) -> Network:
        """Move the network to a backend, with these parameters; the old backend may have failed and is not used."""
        check_place(self.spec, ops)
        self.ops = self.layers.ops = ops.in_precision(self.precision, emulate=True)
        self.layers.parameters = Parameters.on_device(ops, flat, self.spec.layout)
        return self

    def copy(
        self, *, device: str | None = None, dtype: DTypeLike | None = None, precision: str | None = None
    ) -> Network:
        """Return an independent network with the same parameters, elsewhere or in another dtype or precision if asked.

        A copy in float64 has the precision "float32" unless another is asked for, which float64 refuses.
        """
        return self.copy_to(self.ops if device is None else get_ops(device), dtype, precision)

    def copy_to(self, ops: Backend, dtype: DTypeLike | None = None, precision: str | None = None) -> Network:
        """Return a copy as `copy` does, but on a given backend."""
        spec = arguments.with_numbers(self.spec, dtype, precision)
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        twin.ops = ops.in_precision(spec.precision, emulate=True)
        twin.layers = twin._placed(spec, self.host_parameters().astype(spec.dtype))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """Return the content of a copy or a pickle: the parameters once, on the host, and the device's name."""
        spec = self.spec
        state = {name: value for name, value in vars(self).items() if name not in ("ops", "layers")}
        return state | {"spec": spec, "device": self.device_, "flat": self.host_parameters()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a network; if this machine lacks its GPU, it comes back on the device that ``auto`` chooses."""
        device, flat = state.pop("device"), state.pop("flat")
        spec = state.pop("spec", None) or former_spec(state)
        vars(self).update(state)
        try:
            self.ops = get_ops(device)
        except BackendUnavailableError:
            self.ops = get_ops("auto")
        self.ops = self.ops.in_precision(spec.precision, emulate=True)
        self.layers = self._placed(spec, flat)

    # --- what it is --------------------------------------------------------------------------------------------

    def reseed(self, seed: int) -> None:
        """Draw dropout masks from another seed; the parameters do not change."""
        self.layers.spec = replace(self.spec, seed=arguments.check_seed(seed))

    @property
    def input_scaling(self) -> InputScaling | None:
        """How inputs are scaled first; a user may set it."""
        return self._input_scaling

    @input_scaling.setter
    def input_scaling(self, scaling: InputScaling | Mapping[str, Any] | None) -> None:
        if isinstance(scaling, Mapping):
            scaling = InputScaling.from_config(scaling)
        if scaling is not None and not isinstance(scaling, InputScaling):
            raise TypeError(f"input_scaling: got {scaling!r}, expected a gpuprop.InputScaling or None")
        if scaling is not None:
            scaling.check_width(self.spec.n_inputs)
        self._input_scaling = scaling

    @property
    def metric(self) -> Metric:
        """How an output is scored, by its largest value, by each value's side of 0.5, or by the squared residual."""
        if self.loss_function.name == "categorical_cross_entropy":
            return "class"
        if self.classes is not None:
            return "class" if self.layer_sizes[-1] > 1 else "labels"
        return "labels" if self.loss_function.classification else "residual"

    @property
    def is_classifier(self) -> bool:
        """Whether `predict` returns classes, which it does under a cross-entropy or if `classes` are given."""
        return self.metric != "residual"

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON values, for model files; not the parameters, not the device.

        Raises
        ------
        ValueError
            If the names of loss and activations do not say what they are: a loss that is not gpuprop's own, or two
            activations of your own under one name.
        """
        arguments.check_named((*self.hidden_activations, self.output_activation), self.loss_function)
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
            **kept_options(self.spec),
            "input_scaling": None if self.input_scaling is None else self.input_scaling.get_config(),
            "classes": None if self.classes is None else list(self.classes),
            "feature_names": None if self.feature_names is None else list(self.feature_names),
            "target_name": self.target_name,
        }

    # --- asking it ---------------------------------------------------------------------------------------------

    def _gather(self, X: ArrayLike, arrays: Callable[[Workspace], list[Array]], keep_z: bool) -> list[NDArray[Any]]:
        """Return arrays of all rows: on the host, or on the GPU for an `X` that lies there."""
        with self.ops.active():
            X = self.ops.adopt(X)
            brought = (lambda a: a.copy()) if on_gpu(X) else (lambda a: self.ops.to_numpy(a).copy())
            works = evaluation.chunks(self.layers, X, self._input_scaling, keep_z=keep_z)
            parts = [[brought(a) for a in arrays(work)] for work in works]
            return [
                namespace(pieces[0]).concatenate(pieces) if len(pieces) > 1 else pieces[0]
                for pieces in zip(*parts, strict=True)
            ]

    def forward(self, X: ArrayLike) -> NDArray[Any]:
        """Return the outputs for raw inputs of shape (n_samples, n_features): (n_samples, n_outputs).

        If the network and `X` are both on a GPU (`X` may be CuPy's, or any array with ``__cuda_array_interface__`` or
        DLPack), `X` is used in place and the result is a CuPy array; otherwise it is NumPy's. The same holds for
        `activations`, `net_inputs`, `predict` and the gradients of `loss_and_gradients`.
        """
        outputs = self.forward_plain(X)
        return self._gather(X, lambda work: [work.a[-1]], keep_z=False)[0] if outputs is None else outputs

    def forward_plain(self, X: object) -> NDArray[Any] | None:
        """Return the outputs by a short way for arrays of NumPy, or None for other data; see `host_outputs`."""
        return host_outputs(self.layers, X, self._input_scaling)

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
        y = indices_of_labels(y, self.classes)
        return evaluation.prepared(self.layers, X, y, sample_weight, self._input_scaling, self.metric)

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
        return evaluation.loss_and_score(self.layers, self.prepare(X, y, sample_weight), dropout_step)[0]

    def evaluate(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> tuple[float, float]:
        """Return the loss, and the accuracy of a classifier or R2 of a regression (over all outputs together)."""
        return self.evaluate_data(self.prepare(X, y, sample_weight))

    def evaluate_data(self, data: TrainingData, penalty_factor: float = 1.0) -> tuple[float, float]:
        """`evaluate` for data that `prepare` returned; the penalties are multiplied by `penalty_factor`."""
        return evaluation.loss_and_score(self.layers, data, None, penalty_factor)

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
            loss, gradients = evaluation.objective(self.layers, self.prepare(X, y, sample_weight), dropout_step)()
            if not on_gpu(X):
                gradients = Parameters(gradients.to_host(self.ops), self.spec.layout)
            return loss, [w.copy() for w in gradients.weights], [b.copy() for b in gradients.biases]

    def objective(
        self, data: TrainingData, dropout_step: int | None = None, penalty_factor: float = 1.0
    ) -> Callable[[], tuple[float, NDArray[Any]]]:
        """Return a function that gives the loss on `data` and its flat gradient, for the parameters at each call.

        This method allocates the arrays that the function works in, once; the gradient is the caller's own, on the
        host.
        """
        evaluate = evaluation.objective(self.layers, data, dropout_step, penalty_factor)

        def loss_and_gradient() -> tuple[float, NDArray[Any]]:
            loss, gradients = evaluate()
            return loss, gradients.to_host(self.ops)

        return loss_and_gradient

    # --- files -------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the network to a model file, which `gpuprop.load` reads.

        The file is in the format safetensors; equal networks give equal bytes. An existing file survives a failure.
        """
        from gpuprop.model.network_file import NetworkContent, write_network

        write_network(NetworkContent(self.get_config(), self.named_arrays()), path)
