"""What both estimators share: from checked data to a trained network, by scikit-learn's conventions."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight

from gpuprop.arrays import to_host
from gpuprop.backends.threads import limited_blas
from gpuprop.core.updates import PausingFit
from gpuprop.estimators import lbfgs
from gpuprop.estimators.convergence import Convergence, MonitoredScore
from gpuprop.estimators.draws import generator, hold_out, initial_parameters, shuffles
from gpuprop.estimators.exchange import Exchange
from gpuprop.estimators.fitted import ParameterViews
from gpuprop.estimators.kept_fits import kept_fit
from gpuprop.estimators.labels import Labels
from gpuprop.estimators.parameters import (
    CONSTRAINTS,
    Method,
    cannot_change,
    check_parameters,
    hidden_activations,
    hidden_layer_sizes,
    max_epochs,
)
from gpuprop.estimators.recognised import plain_rows, targets_of
from gpuprop.estimators.samples import Samples, input_dtypes, validated
from gpuprop.estimators.scikit_learn_callbacks import CallbackSupportMixin, EpochTasks
from gpuprop.estimators.stochastic import NON_FINITE, StochasticFit, Task
from gpuprop.maths.activations import Activation
from gpuprop.model.network import Network
from gpuprop.training.metrics import Metric, Metrics, monitored
from gpuprop.training.records import Progress
from gpuprop.training.signals import watching_signals

__all__ = ["BaseMLP", "Role", "if_stochastic"]

Array = NDArray[Any]
#: What targets are for.
Role = Literal["fit", "partial_fit", "validation"]

_ParameterViews = ParameterViews  # its place in pickles of ``coefs_`` and ``intercepts_`` from version 0.1

#: The parameters of an estimator that were valid at the last check; a value that can change is not among them.
_valid: WeakKeyDictionary[Any, tuple[Any, ...]] = WeakKeyDictionary()


@functools.cache
def _parameter_names(kind: Any) -> tuple[str, ...]:
    return tuple(kind._get_param_names())


class BaseMLP(Exchange, CallbackSupportMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no type annotations
    """Base class of `MLPClassifier` and `MLPRegressor`; not for direct use.

    A subclass says what its targets are: `_check_targets` (labels to arrays), `_network_loss` (the loss for these
    targets) and `_score_of` (what early stopping watches).
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS

    def _validate_params(self) -> None:
        """Check the parameters, unless each is the object that it was at the last check and cannot have changed."""
        values = tuple(map(vars(self).get, _parameter_names(cast("Any", type(self)))))
        known = _valid.get(self)
        if known is not None and all(map(operator.is_, values, known)):
            return
        super()._validate_params()
        if all(map(cannot_change, values)):
            _valid[self] = values

    # --- the fit -------------------------------------------------------------------------------------------------

    def _fit(self, *arguments: Any, **options: Any) -> Any:
        """Train; the arguments are those of `training`."""
        with watching_signals(interrupts_only=self.checkpoint is None):
            for _ in self.training(*arguments, **options):
                pass
        return self

    def training(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        incremental: bool = False,
        X_val: Any = None,
        y_val: Any = None,
    ) -> PausingFit:
        """Train as ``fit`` does, but pause before the updates of each epoch.

        `gpuprop.training.side_by_side` trains several estimators together by this method. It does not check the
        parameters; the caller calls ``_validate_params`` first.

        Parameters
        ----------
        X, y, sample_weight, X_val, y_val
            As for ``fit``.
        incremental : bool, default=False
            Whether this is ``partial_fit``: one epoch, with network and optimizer as they are.
        """
        hidden = hidden_layer_sizes(self)
        epochs = max_epochs(self)
        self._refuse_contradictions(incremental, X_val, y_val)
        first_pass = not hasattr(self, "network_") or not (self.warm_start or incremental)
        samples = self._check_samples(X, y, sample_weight, incremental, reset=first_pass)
        validation = None if X_val is None else self._check_validation(X_val, y_val)
        kept = None if incremental or self.solver == "lbfgs" else kept_fit(self, [samples, validation])
        network = None if first_pass else self.network_
        seed = self.random_state if kept is None else kept.random_state
        random_state = generator(seed, network)
        sizes = (samples.X.shape[1], *hidden, samples.targets.shape[1])
        if first_pass:
            self._initialize(sizes, samples.X.dtype, random_state)
        elif sizes != self.network_.layer_sizes:
            raise ValueError(
                f"the network has layers {self.network_.layer_sizes}, got data and hidden_layer_sizes for {sizes}; "
                "use warm_start=False to train a new network"
            )
        if self.solver == "lbfgs":
            self._fit_lbfgs(samples, epochs)
            return
        drawn = first_pass
        if self.order_random_state is not None:
            seed, drawn = self.order_random_state, False
            random_state = check_random_state(seed)
        if self.early_stopping and validation is None:
            stratified = is_classifier(self) and self.n_outputs_ == 1
            samples, validation = hold_out(samples, self.validation_fraction, random_state, stratified=stratified)
            drawn = True
        resume_from: Progress | None = self._progress if incremental else None
        watched = EpochTasks.wanted(self) and not incremental
        task = Task(
            samples=samples
            if samples.recognised
            else replace(samples, targets=self._training_targets(samples.targets)),
            validation=validation,
            epochs=epochs,
            row_orders=shuffles(seed, random_state, samples.X.shape[0], None if drawn else self.network_)
            if self.shuffle
            else None,
            resume_from=resume_from,
            learning_rate=self.learning_rate_init if resume_from is None else self._current_rate,
            watchers=[EpochTasks(self, X, y, sample_weight, epochs)] if watched else [],
            kept=kept,
            metrics={} if incremental or validation is None else self._metrics(),
        )
        yield from self._fit_stochastic(task, incremental)

    def _refuse_contradictions(self, incremental: bool, X_val: Any, y_val: Any) -> None:
        if (X_val is None) != (y_val is None):
            raise ValueError("got only one of X_val and y_val; pass both, or none")
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        if self.metrics and X_val is None and not (incremental or self.early_stopping):
            raise ValueError("metrics need validation rows: set early_stopping=True, or pass X_val and y_val to fit")
        if self.monitor is not None and not (incremental or self.early_stopping):
            raise ValueError(f"monitor={self.monitor!r} is what early stopping watches; set early_stopping=True")
        if self.solver != "lbfgs":
            return
        for name in (
            "dropout", "clip_norm", "callbacks", "weight_decay", "checkpoint", "metrics", "monitor", "batch_norm",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and np.any(np.asarray(value, dtype=object) != 0):
                raise InvalidParameterError(f"The {name!r} parameter has no meaning with solver 'lbfgs', got {value!r}")
        if self.plan != "auto":
            raise InvalidParameterError(f"The 'plan' parameter has no meaning with solver 'lbfgs', got {self.plan!r}")
        if X_val is not None:
            raise ValueError("X_val has no meaning with solver 'lbfgs', which has no epochs to evaluate it after")

    def _check_samples(self, X: Any, y: Any, sample_weight: Any, incremental: bool, *, reset: bool) -> Samples:
        dtypes = input_dtypes(self)
        plain = not reset and sample_weight is None and plain_rows(self, X, y, dtypes)
        labels = self._labels(y, incremental) if plain else None
        known = None if labels is None else targets_of(self.network_, labels)
        if known is not None:
            return Samples(X, known, None, plain, labels, recognised=True)
        if not plain:
            X, y = validated(self, X, y, dtypes, reset=reset)
        targets = self._check_targets(y, "partial_fit" if incremental else "fit")
        weight = None if sample_weight is None else _check_sample_weight(to_host(sample_weight), X)
        weight = self._weigh_classes(y, weight, incremental)
        plain = plain and weight is None
        return Samples(X, targets.reshape(len(targets), -1), weight, plain, labels)

    def _check_validation(self, X_val: Any, y_val: Any) -> Samples:
        X_val, y_val = validated(self, X_val, y_val, (np.float64, np.float32), reset=False)
        targets = self._check_targets(y_val, "validation")
        return Samples(X_val, targets.reshape(len(targets), -1), None)

    def _initialize(self, sizes: tuple[int, ...], dtype: Any, random_state: np.random.RandomState) -> None:
        """Build the network, draw its weights as scikit-learn does, and begin the records."""
        network = self.new_network(sizes, dtype)
        logistic = self._logistic_layers(network.hidden_activations)
        parameters = network.host_parameters()  # weights and biases come first
        drawn = initial_parameters(sizes, logistic, random_state)
        parameters[: drawn.size] = drawn
        network.set_parameters(parameters)
        if any(network.dropout):
            network.reseed(int(random_state.randint(2**31 - 1)))
        self.take_network(network)
        self.n_iter_ = 0
        self.t_ = 0
        if self.solver != "lbfgs":
            self._begin_records()

    def new_network(self, sizes: tuple[int, ...], dtype: Any) -> Network:
        """Return a network by the estimator's parameters, with all weights and biases zero.

        Parameters
        ----------
        sizes : tuple of int
            The sizes of the layers, the inputs' first.
        dtype : dtype
        """
        return Network(
            sizes,
            hidden_activation=hidden_activations(self, len(sizes) - 2),
            loss=self._network_loss(),
            dtype=dtype,
            precision=self.precision,
            emulate=self.emulate,
            seed=0,
            device=self.device,
            init="zeros",
            dropout=self.dropout,
            l1=self.l1,
            l2=self.alpha,
            batch_norm=self.batch_norm,
            residual=self.residual,
        )

    def network_for(self, X: Any, y: Any) -> Network:
        """Return the network with which `fit` would begin on such data, initial weights included.

        The estimator stays as it is, fitted or not.

        Parameters
        ----------
        X, y
            As for ``fit``; a few rows suffice if y has every class.

        Examples
        --------
        >>> import gpuprop
        >>> X, y = gpuprop.datasets.load_digits()
        >>> network = gpuprop.MLPClassifier((32, 16), random_state=0).network_for(X, y)
        >>> network.layer_sizes
        (64, 32, 16, 10)
        """
        check_parameters(self)
        one = clone(self)
        samples = one._check_samples(X, y, None, incremental=False, reset=True)
        sizes = (samples.X.shape[1], *hidden_layer_sizes(one), samples.targets.shape[1])
        one._initialize(sizes, samples.X.dtype, generator(one.random_state, None))
        network: Network = one.network_
        return network

    def take_network(self, network: Network) -> None:
        """Take `network` as the fitted model; a later fit goes on from nothing but its parameters."""
        super().take_network(network)
        self._progress: Progress | None = None
        self._best_parameters = network.host_parameters()

    def _begin_records(self) -> None:
        self.history_: dict[str, list[Any]] = {}
        self.loss_curve_: list[float] = []
        self._no_improvement_count = 0
        self.best_loss_ = None if self.early_stopping else np.inf
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_validation_score_ = -np.inf if self.early_stopping else None

    def _logistic_layers(self, activations: Sequence[Activation]) -> list[bool]:
        """Return whether each layer is drawn as for logistic units; the output layer follows the last hidden one."""
        logistic = [activation.name == "logistic" for activation in activations]
        return [*logistic, logistic[-1] if logistic else bool(self.activation == "logistic")]

    # --- the solvers ---------------------------------------------------------------------------------------------

    def _fit_lbfgs(self, samples: Samples, epochs: int) -> None:
        self.plan_ = lbfgs.PLAN
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
            raise ValueError(NON_FINITE)

    def _fit_stochastic(self, task: Task, incremental: bool) -> PausingFit:
        if not hasattr(self, "loss_curve_") or self.early_stopping != (self.validation_scores_ is not None):
            self._begin_records()  # the fit before this one had another solver or rule
        convergence = Convergence(
            self,
            tol=self.tol if self.early_stopping else self.tol * self._loss_scale,
            validation_score=self._watched_score(task) if self.early_stopping else None,
            single_epoch=incremental,
            no_improvement_count=self._no_improvement_count,
            best_parameters=self._best_parameters,
        )
        fit = StochasticFit(self, task, convergence)
        try:
            yield from fit.run()
        finally:
            self._progress, self._current_rate = fit.progress, fit.trainer.learning_rate
            self._no_improvement_count = convergence.no_improvement_count
            self._best_parameters = convergence.best_parameters
        # Squares of gradients overflow first; the parameters are finite then, but would never move again.
        if incremental and not all(np.isfinite(one).all() for one in self._progress.optimizer_state.values()):
            raise ValueError(f"{NON_FINITE} (the optimizer's memory of the gradients became infinite)")

    def _metrics(self) -> Mapping[str, Metric]:
        if self.metrics is None and self.monitor is None:
            return {}
        return Metrics(self.metrics, self.network_, self.monitor)

    def _watched_score(self, task: Task) -> Callable[[Mapping[str, Any]], float]:
        """Return the function of the row of an epoch that early stopping watches; higher is better."""
        if self.monitor is None:
            return self._score_of(task.validation)
        own = "accuracy" if is_classifier(self) else "r2"
        return MonitoredScore(monitored(self.monitor, task.metrics, own, validated=True), task.metrics)

    # --- what the subclasses say ---------------------------------------------------------------------------------

    #: The reported loss is this many times scikit-learn's, see docs/scikit-learn.md.
    _loss_scale = 1.0

    def _check_targets(self, y: Any, role: Role) -> Array:
        raise NotImplementedError

    def _labels(self, y: Array, incremental: bool) -> Labels | None:
        """Return what the targets follow from, if a later call may recognise it."""
        return None

    def _weigh_classes(self, y: Any, weight: Array | None, incremental: bool) -> Array | None:
        return weight

    def _training_targets(self, targets: Array) -> Array:
        return targets

    def _network_loss(self) -> Any:
        raise NotImplementedError

    def _score_of(self, validation: Any) -> Callable[[Mapping[str, Any]], float]:
        raise NotImplementedError

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickle; a parameter that the version which wrote it did not have gets its default."""
        super().__setstate__(state)
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if name not in vars(self):
                setattr(self, name, parameter.default)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def if_stochastic(method: Method) -> Method:
    """Offer `method` only with a stochastic solver; a decorator."""
    available: Method = available_if(_is_stochastic)(method)
    return available


def _is_stochastic(estimator: BaseMLP) -> bool:
    """Return True, or raise the error that `available_if` passes on."""
    if estimator.solver == "lbfgs":
        raise AttributeError("partial_fit is only available for stochastic optimizers. lbfgs is not stochastic.")
    return True
