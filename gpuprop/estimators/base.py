"""What both estimators share: from checked data to a trained network, by scikit-learn's conventions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.base import BaseEstimator, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from gpuprop.arrays import beside, is_sparse, on_gpu, to_host
from gpuprop.backends.threads import limited_blas
from gpuprop.core.updates import PausingFit
from gpuprop.errors import NonFiniteLossError
from gpuprop.estimators import lbfgs
from gpuprop.estimators.convergence import Convergence
from gpuprop.estimators.exchange import Exchange
from gpuprop.estimators.parameters import (
    CONSTRAINTS,
    hidden_activations,
    hidden_layer_sizes,
    max_epochs,
    optimizer_of,
    schedule_of,
)
from gpuprop.estimators.scikit_learn_callbacks import CallbackSupportMixin, EpochTasks
from gpuprop.maths.activations import Activation
from gpuprop.model.network import Network
from gpuprop.training.callbacks import Callback
from gpuprop.training.orders import RowOrders
from gpuprop.training.records import Progress
from gpuprop.training.trainer import Trainer

__all__ = ["BaseMLP", "Role", "input_dtypes", "validated", "validated_inputs"]

Array = NDArray[Any]
#: What targets are for.
Role = Literal["fit", "partial_fit", "validation"]

#: gpuprop's names of output activations that scikit-learn calls otherwise.
_SCIKIT_LEARN_NAMES = {"exponential": "exp"}
_NON_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be preprocessed."
)


class _ParameterViews(list[Array]):
    """``coefs_`` and ``intercepts_``: views of the network's parameters; assigning an element writes into it."""

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            for position, one in zip(range(*index.indices(len(self))), value, strict=True):
                self[position] = one
        else:
            self[index][...] = value


@dataclass(frozen=True)
class _Samples:
    """Rows to train on or to validate with: X (n, n_features), targets (n, n_outputs), weights (n,) or None."""

    X: Any
    targets: Array
    weight: Array | None

    def arrays(self) -> tuple[Any, ...]:
        """Return X, targets and, where there are some, weights."""
        return (self.X, self.targets) if self.weight is None else (self.X, self.targets, self.weight)


class BaseMLP(Exchange, CallbackSupportMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no type annotations
    """Base class of `MLPClassifier` and `MLPRegressor`; not for direct use.

    A subclass says what its targets are: `_check_targets` (labels to arrays), `_network_loss` (the loss for these
    targets) and `_validation_score` (what early stopping watches).
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS

    # --- the fit -------------------------------------------------------------------------------------------------

    def _fit(self, *arguments: Any, **options: Any) -> Any:
        """Train; the arguments are those of `_training`."""
        for _ in self._training(*arguments, **options):
            pass
        return self

    def _training(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        incremental: bool = False,
        X_val: Any = None,
        y_val: Any = None,
    ) -> PausingFit:
        """Train, pausing before the updates of each epoch, see `gpuprop.training.side_by_side`.

        `incremental` is ``partial_fit``: one epoch, going on with network and optimizer as they are.
        """
        hidden = hidden_layer_sizes(self)
        epochs = max_epochs(self)
        self._refuse_contradictions(incremental, X_val, y_val)
        first_pass = not hasattr(self, "network_") or not (self.warm_start or incremental)
        samples = self._check_samples(X, y, sample_weight, incremental, reset=first_pass)
        validation = None if X_val is None else self._check_validation(X_val, y_val)
        random_state = check_random_state(self.random_state)
        sizes = (samples.X.shape[1], *hidden, samples.targets.shape[1])
        if first_pass:
            self._initialize(sizes, samples.X.dtype, random_state)
        elif sizes != self.network_.layer_sizes:
            raise ValueError(
                f"the network has layers {self.network_.layer_sizes}, got data and hidden_layer_sizes for {sizes}; "
                "use warm_start=False to begin anew"
            )
        if self.solver == "lbfgs":
            self._fit_lbfgs(samples, epochs)
        else:
            watched = EpochTasks.wanted(self) and not incremental
            watchers = [EpochTasks(self, X, y, sample_weight, epochs)] if watched else []
            rows_state = random_state
            if self.order_random_state is not None:
                rows_state = check_random_state(self.order_random_state)
            yield from self._fit_stochastic(samples, validation, rows_state, epochs, incremental, watchers)

    def _refuse_contradictions(self, incremental: bool, X_val: Any, y_val: Any) -> None:
        if (X_val is None) != (y_val is None):
            raise ValueError("got only one of X_val and y_val; pass both, or none")
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        if self.solver != "lbfgs":
            return
        for name in ("dropout", "clip_norm", "callbacks", "weight_decay"):
            value = getattr(self, name)
            if value is not None and np.any(np.asarray(value, dtype=object) != 0):
                raise InvalidParameterError(f"The {name!r} parameter has no meaning with solver 'lbfgs', got {value!r}")
        if X_val is not None:
            raise ValueError("X_val has no meaning with solver 'lbfgs', which has no epochs to evaluate it after")

    def _check_samples(self, X: Any, y: Any, sample_weight: Any, incremental: bool, *, reset: bool) -> _Samples:
        X, y = validated(self, X, y, input_dtypes(self), reset=reset)
        targets = self._check_targets(y, "partial_fit" if incremental else "fit")
        weight = None if sample_weight is None else _check_sample_weight(to_host(sample_weight), X)
        weight = self._weigh_classes(y, weight, incremental)
        return _Samples(X, targets.reshape(len(targets), -1), weight)

    def _check_validation(self, X_val: Any, y_val: Any) -> _Samples:
        X_val, y_val = validated(self, X_val, y_val, (np.float64, np.float32), reset=False)
        targets = self._check_targets(y_val, "validation")
        return _Samples(X_val, targets.reshape(len(targets), -1), None)

    def _initialize(self, sizes: tuple[int, ...], dtype: Any, random_state: np.random.RandomState) -> None:
        """Build the network, draw its weights as scikit-learn does, and begin the records."""
        activations = hidden_activations(self, len(sizes) - 2)
        loss = self._network_loss()
        network = Network(
            sizes,
            hidden_activation=activations,
            loss=loss,
            dtype=dtype,
            seed=0,
            device=self.device,
            init="zeros",
            dropout=self.dropout,
            l1=self.l1,
            l2=self.alpha,
        )
        network.set_parameters(_initial_parameters(sizes, self._logistic_layers(activations), random_state))
        if any(network.dropout):
            network.reseed(int(random_state.randint(2**31 - 1)))
        self._set_network(network)
        self.n_iter_ = 0
        self.t_ = 0
        if self.solver != "lbfgs":
            self._begin_records()

    def _begin_records(self) -> None:
        self.history_: dict[str, list[Any]] = {}
        self.loss_curve_: list[float] = []
        self._no_improvement_count = 0
        self.best_loss_ = None if self.early_stopping else np.inf
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_validation_score_ = -np.inf if self.early_stopping else None

    def _set_network(self, network: Network) -> None:
        """Take `network` as the model, with nothing to go on from but its parameters."""
        self.network_ = network
        self.n_outputs_ = network.layer_sizes[-1]
        self.n_layers_ = len(network.layer_sizes)
        name = network.output_activation.name
        self.out_activation_ = _SCIKIT_LEARN_NAMES.get(name, name)
        self._progress: Progress | None = None
        self._best_parameters = network.host_parameters()

    def _logistic_layers(self, activations: list[Activation]) -> list[bool]:
        """Say for each layer whether it is drawn as for logistic units; the output layer follows the hidden ones."""
        logistic = [activation.name == "logistic" for activation in activations]
        return [*logistic, logistic[-1] if logistic else bool(self.activation == "logistic")]

    # --- the solvers ---------------------------------------------------------------------------------------------

    def _fit_lbfgs(self, samples: _Samples, epochs: int) -> None:
        samples = replace(samples, targets=self._training_targets(samples.targets))
        data = self.network_.prepare(*samples.arrays())
        with limited_blas(self.n_threads):
            self.loss_, self.n_iter_ = lbfgs.minimize(
                self.network_,
                data,
                tol=self.tol,
                max_iter=epochs,
                max_fun=self.max_fun,
                verbose=bool(self.verbose),
            )
        if not np.isfinite(self.network_.host_parameters()).all():
            raise ValueError(_NON_FINITE)

    def _fit_stochastic(
        self,
        samples: _Samples,
        validation: _Samples | None,
        random_state: np.random.RandomState,
        epochs: int,
        incremental: bool,
        watchers: Sequence[Callback],
    ) -> PausingFit:
        if self.early_stopping and validation is None:
            samples, validation = self._hold_out(samples, random_state)
        samples = replace(samples, targets=self._training_targets(samples.targets))
        if not hasattr(self, "loss_curve_") or self.early_stopping != (self.validation_scores_ is not None):
            self._begin_records()  # the fit before this one had another solver or rule
        resume_from = self._progress if incremental else None
        trainer = self._trainer(samples, validation, random_state, epochs, resume_from)
        convergence = Convergence(
            self,
            tol=self.tol if self.early_stopping else self.tol * self._loss_scale,
            validation_score=self._score_of(validation) if self.early_stopping else None,
            single_epoch=incremental,
        )
        trainer.callbacks = (convergence, *watchers, *trainer.callbacks)
        self.n_iter_ = 0
        try:
            yield from trainer.training(*samples.arrays(), resume_from=resume_from)
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=5)
        except NonFiniteLossError as error:
            if not self.early_stopping:
                raise ValueError(f"{_NON_FINITE} ({error})") from error
            convergence.record_loss(trainer, np.nan)
            convergence.record_score(np.nan)
            warnings.warn(f"{error}; the best parameters so far are restored", ConvergenceWarning, stacklevel=5)
        finally:
            self._keep(trainer, resume_from)
        if self.early_stopping:
            self.network_.set_parameters(self._best_parameters)
        if self.n_iter_ == epochs and not (incremental or convergence.stopped):
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({epochs}) reached and the optimization hasn't converged "
                "yet.",
                ConvergenceWarning,
                stacklevel=5,
            )

    def _hold_out(self, samples: _Samples, random_state: np.random.RandomState) -> tuple[_Samples, _Samples]:
        """Split off `validation_fraction`, by scikit-learn's draws: stratified where there is one column of classes."""
        X = samples.X
        parts = train_test_split(
            np.arange(X.shape[0]),
            *samples.arrays()[1:],
            random_state=random_state,
            test_size=self.validation_fraction,
            stratify=samples.targets if is_classifier(self) and self.n_outputs_ == 1 else None,
        )
        weights = (None, None) if samples.weight is None else parts[4:]
        if len(parts[1]) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        kept, held_out = (beside(rows, X) if on_gpu(X) else rows for rows in parts[:2])
        return _Samples(X[kept], parts[2], weights[0]), _Samples(X[held_out], parts[3], weights[1])

    def _trainer(
        self,
        samples: _Samples,
        validation: _Samples | None,
        random_state: np.random.RandomState,
        epochs: int,
        resume_from: Progress | None,
    ) -> Trainer:
        n_samples = samples.X.shape[0]
        if self.batch_size != "auto" and self.batch_size > n_samples:
            warnings.warn(
                f"Got `batch_size` ({self.batch_size}) larger than sample size ({n_samples}). It is going to be "
                "clipped",
                stacklevel=6,
            )
        epochs_done = 0 if resume_from is None else resume_from.epochs_done
        return Trainer(
            self.network_,
            optimizer=optimizer_of(self),
            learning_rate=self.learning_rate_init if resume_from is None else self._current_rate,
            batch_size=200 if self.batch_size == "auto" else int(self.batch_size),
            epochs=max(epochs, epochs_done + 1),
            validation=None if validation is None else validation.arrays(),
            schedule=schedule_of(self),
            clip_norm=self.clip_norm,
            shuffle=False,
            row_orders=_cumulative_shuffles(random_state, n_samples) if self.shuffle else None,
            conventions="scikit-learn",
            callbacks=self.callbacks or (),
            n_threads=self.n_threads,
        )

    def _keep(self, trainer: Trainer, resume_from: Progress | None) -> None:
        """Keep what a later ``partial_fit`` goes on from, and append the new epochs to ``history_``."""
        to_numpy = trainer.network.ops.to_numpy
        progress = trainer.progress
        state = {name: to_numpy(array) for name, array in progress.optimizer_state.items()}
        self._progress = replace(progress, optimizer_state=state)
        self._current_rate = trainer.learning_rate
        known = 0 if resume_from is None else len(resume_from.history.get("epoch", ()))
        before = len(self.history_.get("epoch", ()))
        for column, values in progress.history.items():
            self.history_.setdefault(column, [None] * before).extend(values[known:])
        self.history_["epoch"] = list(range(1, len(self.history_.get("epoch", ())) + 1))

    # --- what the subclasses say ---------------------------------------------------------------------------------

    #: The reported loss is this many times scikit-learn's, see docs/scikit-learn.md.
    _loss_scale = 1.0

    def _check_targets(self, y: Any, role: Role) -> Array:
        raise NotImplementedError

    def _weigh_classes(self, y: Any, weight: Array | None, incremental: bool) -> Array | None:
        return weight

    def _training_targets(self, targets: Array) -> Array:
        return targets

    def _network_loss(self) -> Any:
        raise NotImplementedError

    def _score_of(self, validation: Any) -> Callable[[Mapping[str, Any]], float]:
        raise NotImplementedError

    # --- the fitted model ----------------------------------------------------------------------------------------

    def _forward(self, X: Any) -> Array:
        # Plain arrays skip scikit-learn's validation, which takes longer than a row; it says what is wrong with others.
        if "network_" in vars(self) and not hasattr(self, "feature_names_in_"):
            outputs = self.network_.forward_plain(X)
            if outputs is not None:
                return outputs
        check_is_fitted(self)
        return self.network_.forward(validated_inputs(self, X))

    def _fitted_network(self, attribute: str) -> Network:
        # Not through check_is_fitted: an attribute that is not there yet is an AttributeError.
        if "network_" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no {attribute} before fit")
        network: Network = self.network_
        return network

    @property
    def coefs_(self) -> list[Array]:
        """Weights of each layer, (fan_in, fan_out): on the CPU writable views, from a GPU read-only copies."""
        network = self._fitted_network("coefs_")
        return _host_views(network, network.weights)

    @coefs_.setter
    def coefs_(self, values: list[Array]) -> None:
        network = self._fitted_network("coefs_")
        for own, value in zip(network.weights, values, strict=True):
            own[...] = network.ops.asarray(value, network.dtype)

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of each layer, (fan_out,): on the CPU writable views, from a GPU read-only copies."""
        network = self._fitted_network("intercepts_")
        return _host_views(network, network.biases)

    @intercepts_.setter
    def intercepts_(self, values: list[Array]) -> None:
        network = self._fitted_network("intercepts_")
        for own, value in zip(network.biases, values, strict=True):
            own[...] = network.ops.asarray(value, network.dtype)

    @property
    def device_(self) -> str:
        """The device in use."""
        return self._fitted_network("device_").device_

    @property
    def backend_(self) -> str:
        """The library that computes."""
        return self._fitted_network("backend_").backend_

    def _stochastic(self) -> bool:
        """Whether there is a ``partial_fit``: for `available_if`, so it raises instead of returning False."""
        if self.solver == "lbfgs":
            raise AttributeError("partial_fit is only available for stochastic optimizers. lbfgs is not stochastic.")
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def input_dtypes(estimator: BaseMLP) -> tuple[Any, ...]:
    """Return the dtypes that X may have; the first takes the place of others."""
    return (np.float64, np.float32) if estimator.dtype is None else (np.dtype(estimator.dtype),)


def validated(estimator: Any, X: Any, y: Any, dtype: tuple[Any, ...], *, reset: bool) -> tuple[Any, Any]:
    """Return X, dense or CSR, and y after scikit-learn's checks, which also read the columns of data frames."""
    _refuse_foreign(X)
    given, X, y = X, _stand_in(X), to_host(y)
    X, y = validate_data(
        estimator,
        X,
        y,
        accept_sparse=("csr", "csc"),
        multi_output=True,
        y_numeric=not is_classifier(estimator),
        dtype=dtype,
        reset=reset,
    )
    if on_gpu(given):
        X = given if given.dtype in dtype else given.astype(dtype[0])
    return (X.tocsr() if is_sparse(X) else X), y


def validated_inputs(estimator: Any, X: Any) -> Any:
    """Return inputs to predict for, after scikit-learn's checks."""
    _refuse_foreign(X)
    checked = validate_data(estimator, _stand_in(X), accept_sparse=("csr", "csc"), reset=False)
    return X if on_gpu(X) else checked


def _stand_in(X: Any) -> Any:
    """Return X; for an array on a GPU one of its shape that occupies no memory, on which its shape can be checked.

    Its numbers are checked on the GPU, see `gpuprop.model.inputs`.
    """
    return np.broadcast_to(np.float64(0), X.shape) if on_gpu(X) else X


def _refuse_foreign(X: Any) -> None:
    """Refuse arrays of other libraries under ``array_api_dispatch``, where the same kind of array should come back."""
    if get_config()["array_api_dispatch"] and hasattr(X, "__dlpack__") and not isinstance(X, np.ndarray):
        raise TypeError(
            f"got an array of {type(X).__module__}, expected one of NumPy or SciPy: array_api_dispatch is not "
            "supported; convert it, e.g. with numpy.asarray, or switch array_api_dispatch off"
        )


def _initial_parameters(
    sizes: tuple[int, ...], logistic: list[bool], random_state: np.random.RandomState
) -> NDArray[np.float64]:
    """Draw weights and biases as scikit-learn does: uniform, bounded by Glorot's rule, layer by layer.

    Source: Glorot and Bengio (2010); scikit-learn takes a third of the variance for layers of logistic units.
    """
    weights, biases = [], []
    for (fan_in, fan_out), is_logistic in zip(pairwise(sizes), logistic, strict=True):
        bound = np.sqrt((2.0 if is_logistic else 6.0) / (fan_in + fan_out))
        weights.append(random_state.uniform(-bound, bound, (fan_in, fan_out)).ravel())
        biases.append(random_state.uniform(-bound, bound, fan_out))
    return np.concatenate([*weights, *biases])


def _cumulative_shuffles(random_state: np.random.RandomState, n_samples: int) -> RowOrders:
    """Return scikit-learn's row orders: each epoch shuffles the order of the one before it."""
    order = np.arange(n_samples)

    def orders(epoch: int, n_samples: int) -> Array:
        nonlocal order
        shuffled = np.arange(n_samples)
        random_state.shuffle(shuffled)
        order = order[shuffled]
        return order

    return orders


def _host_views(network: Network, arrays: list[Any]) -> list[Array]:
    """Return the network's arrays as NumPy arrays; what is only a copy is made read-only."""
    views = _ParameterViews(network.ops.to_numpy(array) for array in arrays)
    for view, array in zip(views, arrays, strict=True):
        if view is not array:
            view.flags.writeable = False
    return views
