"""`TabularClassifier` and `TabularRegressor` learn from tables of mixed columns, and predict for such tables."""

from __future__ import annotations

import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, _check_y, check_array, check_is_fitted, validate_data

from gpuprop.arrays import on_gpu, to_host
from gpuprop.core.communicator import Communicator
from gpuprop.core.embedding import InputEmbedding
from gpuprop.core.precision import PRECISIONS
from gpuprop.core.updates import PausingFit
from gpuprop.errors import TrainingEnded
from gpuprop.estimators.columns import Columns, as_frame, is_frame, with_gaps
from gpuprop.estimators.held_out import splits
from gpuprop.estimators.labels import check_label_objects
from gpuprop.estimators.parameters import fit_method, hidden_layer_sizes, set_parameters
from gpuprop.estimators.samples import Samples
from gpuprop.estimators.tabular_described import save_tabular
from gpuprop.maths.activations import Activation
from gpuprop.model.network import Network
from gpuprop.training.callbacks import Callback
from gpuprop.training.checkpoint import Checkpoint
from gpuprop.training.metrics import Metrics, monitored
from gpuprop.training.side_by_side import train_together
from gpuprop.training.tabular_presets import TabularPreset, network_for_table, preset, trainer_for_table
from gpuprop.training.targets import mean_and_deviation
from gpuprop.training.trainer import Trainer

__all__ = ["BaseTabular", "TabularClassifier", "TabularRegressor", "inputs_of"]

Array = NDArray[Any]

#: The type and range of every parameter, in scikit-learn's notation.
CONSTRAINTS: dict[str, list[Any]] = {
    "preset": [str, TabularPreset],
    "categorical_features": ["array-like", str, None],
    "numeric_features": ["array-like", str, None],
    "date_features": ["array-like", str, None],
    "drop": ["array-like", str, None],
    "missing_values": ["array-like"],
    "max_categories": [Interval(Integral, 2, None, closed="left")],
    "n_networks": [Interval(Integral, 1, None, closed="left")],
    "cv": [Interval(Integral, 2, None, closed="left"), None],
    "validation_fraction": [Interval(Real, 0, 1, closed="left"), None],
    "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left"), None],
    "activation": [str, Activation, None],
    "learning_rate": [Interval(Real, 0, None, closed="neither"), None],
    "batch_size": [Interval(Integral, 1, None, closed="left"), None],
    "epochs": [Interval(Integral, 1, None, closed="left"), None],
    "random_state": ["random_state"],
    "dtype": [StrOptions({"float32", "float64"})],
    "precision": [StrOptions(set(PRECISIONS))],
    "emulate": ["boolean"],
    "device": [str],
    "callbacks": [list, tuple, None],
    "n_threads": [Interval(Integral, 1, None, closed="left"), None],
    "plan": [str],
    "verbose": ["verbose"],
    "metrics": [str, list, tuple, dict, callable, None],
    "monitor": [str, None],
}

#: Parameters that have the names of a preset's settings; None leaves them as they are.
_SETTINGS = (
    "activation",
    "learning_rate",
    "batch_size",
    "epochs",
    "validation_fraction",
    "label_smoothing",
    "clamped",
)


class BaseTabular(BaseEstimator, metaclass=ABCMeta):  # type: ignore[misc]  # scikit-learn has no type annotations
    """Base class of `TabularClassifier` and `TabularRegressor`; not for direct use."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS
    _checkpoint: Checkpoint | None = None
    _divided: Mapping[str, Any] = MappingProxyType({})

    def checkpointed(self, checkpoint: Checkpoint) -> Self:
        """Have fits of a single network write checkpoints, and go on from the newest one if there is any."""
        self._checkpoint = checkpoint
        return self

    def divided(self, communicator: Communicator | None, shards: int | None) -> Self:
        """Have fits of a single network share their updates with other processes; see `gpuprop.Trainer`."""
        self._divided = {"communicator": communicator, "shards": shards}
        return self

    # --- the fit -------------------------------------------------------------------------------------------------

    @fit_method
    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None) -> Self:
        """Find the kinds of the columns, and train.

        Parameters
        ----------
        X : data frame or array_like of shape (n_samples, n_features)
            A frame of pandas, polars, pyarrow or any library that has ``to_pandas`` or ``__dataframe__``; gaps, text,
            dates and truth values are welcome. Of an array, say which columns are categories.
        y : array_like of shape (n_samples,); for a regression also (n_samples, n_outputs)
            Labels of any type, or numbers.
        sample_weight : array_like of shape (n_samples,) or None, default=None
        X_val, y_val : data frame or array_like, or None, default=None
            Rows by which the best epoch is chosen, instead of a share of X.

        Returns
        -------
        TabularClassifier or TabularRegressor
            This object.

        Raises
        ------
        gpuprop.estimators.columns.CellError
            If a cell is not what an option says that its column holds, or is infinite.
        ValueError
            If X and y do not fit together, or an option does not fit X.

        Notes
        -----
        Ctrl-C ends the training with a warning; the networks then have the parameters of their last complete epoch.
        """
        if (X_val is None) != (y_val is None):
            raise ValueError("got only one of X_val and y_val; pass both, or none")
        if X_val is not None and self.cv is not None:
            raise ValueError("got X_val and cv; leave one of them out: the folds take turns in choosing the best epoch")
        X, y = self._checked(X, y)
        targets = self._learn_targets(y)
        weight = None if sample_weight is None else _check_sample_weight(to_host(sample_weight), targets)
        weight = self._weigh_classes(y, weight)
        chosen = self.preset_in_use()
        self.columns_ = self._new_columns(chosen).fit(X)
        if self.verbose:
            print(self.columns_)
        rows = Samples(self.columns_.transform(X), targets, weight)
        validation = None if X_val is None else Samples(self._inputs(X_val), self._known_targets(y_val, X_val), None)
        self._train(chosen, rows, validation)
        return self

    def _train(self, chosen: TabularPreset, rows: Samples, validation: Samples | None) -> None:
        random_state = check_random_state(self.random_state)
        pairs = list(self._pairs(chosen, rows, validation, random_state))
        trainers = []
        for train, held_out in pairs:
            network = network_for_table(
                chosen,
                inputs_of(self.columns_, chosen),
                self.n_outputs_,
                rows=train.X,
                seed=int(random_state.randint(np.iinfo(np.int32).max)),
                dtype=self.dtype,
                device=self.device,
                precision=self.precision,
                emulate=self.emulate,
            )
            trainers.append(self._trainer(chosen, network, held_out))
        ended: list[Trainer] = []
        runs = [_run(trainer, train, ended) for trainer, (train, _) in zip(trainers, pairs, strict=True)]
        errors = [error for error in train_together(runs) if error is not None]
        for error in errors:
            if not isinstance(error, TrainingEnded):
                raise error
        self.networks_: list[Network] = [trainer.network for trainer in trainers]
        self.best_epochs_ = [
            trainer.epochs_done if trainer.best_epoch is None or trainer not in ended else trainer.best_epoch
            for trainer in trainers
        ]
        self.plan_ = trainers[0].plan_reason
        self.history_ = _joined([trainer.history for trainer in trainers])
        for error in errors:  # a signal has ended the training: the estimator is as after Ctrl-C
            raise error

    def _pairs(
        self, chosen: TabularPreset, rows: Samples, validation: Samples | None, random_state: np.random.RandomState
    ) -> Iterable[tuple[Samples, Samples | None]]:
        """Yield for each network the rows to train on, and those by which its best epoch is chosen."""
        n_samples = len(rows.X)
        if self.cv is not None and self.cv > n_samples:
            raise ValueError(f"cv={self.cv}: got {n_samples} rows, expected at least one for each fold")
        for _ in range(self.n_networks):
            if validation is not None:
                yield rows, validation
                continue
            classes = rows.targets if is_classifier(self) else None
            for kept, held_out in splits(
                n_samples, classes, random_state, share=chosen.validation_fraction, folds=self.cv
            ):
                yield rows.at(kept), rows.at(held_out) if len(held_out) else None

    def _trainer(self, chosen: TabularPreset, network: Network, held_out: Samples | None) -> Trainer:
        callbacks = [*(self.callbacks or ()), *([_Printer()] if self.verbose else [])]
        options: dict[str, Any] = {}
        if held_out is not None and not is_classifier(self):
            options = {"keep_best": "validation_loss"}
        if self.metrics or self.monitor is not None:
            options |= self._watched(network, validated=held_out is not None)
        trainer = trainer_for_table(
            chosen,
            network,
            validation=None if held_out is None else held_out.arrays(),
            callbacks=callbacks,
            plan=self.plan,
            n_threads=self.n_threads,
            checkpoint=self._checkpoint,
            **self._divided,
            **options,
        )
        trainer.units = self._units
        return trainer

    def _watched(self, network: Network, *, validated: bool) -> dict[str, Any]:
        """Return the trainer's options that follow from `metrics` and `monitor`."""
        metrics = Metrics(self.metrics, network, self.monitor)
        if self.monitor is None:
            return {"metrics": metrics}
        own = "accuracy" if is_classifier(self) else "r2"
        column = monitored(self.monitor, metrics, own, validated=validated)
        return {"metrics": metrics, "monitor": column, "keep_best": column}

    @property
    def _units(self) -> tuple[Array, Array] | None:
        """Mean and deviation by which targets are standardised; None for classes."""
        return None

    def preset_in_use(self) -> TabularPreset:
        """Return the preset with the estimator's own settings, all checked."""
        given = {name: getattr(self, name) for name in _SETTINGS if getattr(self, name, None) is not None}
        if self.hidden_layer_sizes is not None:
            given["hidden"] = hidden_layer_sizes(self)
        return preset(self.preset, "classification" if is_classifier(self) else "regression").with_options(**given)

    def _new_columns(self, chosen: TabularPreset) -> Columns:
        return Columns(
            categorical_features=self.categorical_features,
            numeric_features=self.numeric_features,
            date_features=self.date_features,
            drop=self.drop,
            missing_values=self.missing_values,
            max_categories=self.max_categories,
            most_one_hot=chosen.most_one_hot,
        )

    # --- data ----------------------------------------------------------------------------------------------------

    def _checked(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Return X and y of a fit after scikit-learn's checks; a frame stays a frame, an array an array."""
        y = _as_array(y)
        if is_frame(X):
            X = as_frame(X)
            validate_data(self, X, None if y is None else "no_validation", skip_check_array=True)
            if len(X) < 2:
                raise ValueError(f"X: got {len(X)} rows (n_samples={len(X)}), expected at least 2")
            y = _check_y(y, multi_output=True, y_numeric=not is_classifier(self), estimator=self)
            check_consistent_length(X, y)
            return X, y
        checked: tuple[Any, Any] = validate_data(
            self,
            _as_array(X),
            y,
            dtype=None,
            ensure_all_finite="allow-nan",
            ensure_min_samples=2,
            multi_output=True,
            y_numeric=not is_classifier(self),
        )
        return checked

    def _inputs(self, X: Any) -> Array:
        """Return the network's inputs for rows to predict for."""
        check_is_fitted(self)
        if is_frame(X):
            X = as_frame(X)
            if not (self.columns_.named and all(isinstance(name, str) for name in X.columns)):
                validate_data(self, X, reset=False, skip_check_array=True)
            if not len(X):
                raise ValueError("X: got no rows, expected at least one")
        else:
            X = validate_data(self, _as_array(X), reset=False, dtype=None, ensure_all_finite="allow-nan")
        return self.columns_.transform(X)

    def _outputs(self, X: Any) -> Iterable[Array]:
        """Yield the outputs of each network, (n_samples, n_outputs), float64."""
        inputs = self._inputs(X)
        return (to_host(network.forward(inputs)).astype(np.float64) for network in self.networks_)

    def save(self, path: str | Path) -> None:
        """Write the fitted estimator to one file, which `gpuprop.load` reads: networks, columns, labels and records.

        The format is that of ``Network.save``; equal fits give equal bytes. The file holds nothing that is executed,
        and not `callbacks`, `device`, `emulate`, `n_threads` and `plan`.

        Raises
        ------
        ModelFileError
            If the file cannot be written.
        ValueError
            If a parameter or a label is of a type that a file cannot hold.
        """
        check_is_fitted(self)
        save_tabular(self, path)

    # --- what the subclasses say ---------------------------------------------------------------------------------

    @abstractmethod
    def _learn_targets(self, y: Any) -> Array:
        """Take y as the targets of this estimator, and return what the networks are trained on."""

    @abstractmethod
    def _known_targets(self, y: Any, X: Any) -> Array:
        """Return the targets of validation rows in the form of `_learn_targets`."""

    def _weigh_classes(self, y: Any, weight: Array | None) -> Array | None:
        return weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags


class TabularClassifier(ClassifierMixin, BaseTabular):  # type: ignore[misc]  # scikit-learn has no type annotations
    """Classification of the rows of a table, whose columns may be numbers, text, dates, truth values, with gaps.

    It finds out what each column holds (see `gpuprop.estimators.columns.Columns`), and trains a multilayer perceptron
    by a published recipe that was tuned on many tables. There is nothing to scale, to encode or to impute.

    Parameters
    ----------
    preset : str or TabularPreset, default="tabular"
        The recipe, an object or a key of `gpuprop.training.tabular_presets.PRESETS`: "tabular" is RealMLP-TD-S;
        "tabular-large" is RealMLP-TD, which is better on the average, several times slower, and trained on the CPU.
    categorical_features, numeric_features, date_features : sequence of str, int or bool, or None, default=None
        Columns of which you know what they hold: their names, their positions, or a mask. None leaves it to the rules
        of `Columns`.
    drop : sequence of str, int or bool, or None, default=None
        Columns to leave out.
    missing_values : sequence of str or numbers, default=()
        Spellings of missing cells beside empty ones, None and NaN, such as ``["?", "-"]``.
    max_categories : int, default=100
        A column of text with more values is a text of many values, of which only the frequent ones count.
    n_networks : int, default=1
        Networks that train together, each with its own initial weights and validation rows; their probabilities are
        averaged.
    cv : int or None, default=None
        The number of folds: a network for each fold, which is trained on the others and chooses its best epoch by this
        one; all train together and are averaged. None holds out `validation_fraction` of the rows.
    validation_fraction : float or None, default=None
        The share of the rows by which the best epoch is chosen, at random but the same share of each class; 0 keeps the
        last epoch. None takes the preset's: 0.2.
    hidden_layer_sizes : array_like of int, int or None, default=None
        Units of each hidden layer; None takes the preset's: (256, 256, 256).
    activation : str, Activation or None, default=None
        Of the hidden layers, see `gpuprop.activations.ACTIVATIONS`; None takes the preset's: "selu".
    learning_rate : float or None, default=None
        The highest rate of the preset's schedule; None takes the preset's: 0.04.
    batch_size : int or None, default=None
        Rows of an update; None takes the preset's: 256, or all where there are fewer.
    epochs : int or None, default=None
        Passes over the rows; None takes the preset's: 256.
    label_smoothing : float or None, default=None
        The share of each training target that is spread evenly over all classes; None takes the preset's: 0.1.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, by which the sample weights are multiplied; "balanced" weighs each class by the inverse
        of its frequency.
    random_state : int, RandomState or None, default=None
        The source of initial weights, validation rows and row orders.
    dtype : {"float32", "float64"}, default="float32"
        Of the networks. In float32 the last digits of a prediction depend on how many rows are predicted for together.
    precision : {"float32", "tf32x3", "tf32", "bf16"}, default="float32"
        What the operands of products are rounded to, see `gpuprop.Network`.
    emulate : bool, default=False
        Whether a device without tensor cores may emulate the precision; otherwise it refuses it.
    device : str, default="auto"
        "auto", "cpu", "numpy", "cuda", "cuda:N" or "cuda-sim".
    callbacks : list of gpuprop.Callback or None, default=None
        Every network calls them.
    n_threads : int or None, default=None
        The most threads of a fit on the CPU, see `gpuprop.Trainer`.
    plan : str, default="auto"
        The path by which the updates are made, see `gpuprop.Trainer`.
    verbose : bool, default=False
        Whether to print the table of columns, and the progress.
    metrics : str, callable, a sequence or a mapping of these, or None, default=None
        What else to compute of the validation rows after each epoch, see `gpuprop.Trainer`: "f1_macro", say.
    monitor : str or None, default=None
        The figure by which the best epoch is chosen, and of equal ones the last: the name of a metric, or "loss". None
        takes the accuracy.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, with their type and spelling.
    columns_ : Columns
        What each column holds, and what is done with it; ``print(classifier.columns_)`` shows it.
    networks_ : list of gpuprop.Network
    history_ : dict of lists
        The columns of ``Trainer.history``; with several networks, their epochs follow each other, and a column
        "network" counts them from 1.
    best_epochs_ : list of int
        The epoch of each network whose parameters were kept, counted from 1.
    plan_ : str
        A sentence that says by which path the fit made its updates, and why. A model file does not hold it.
    n_features_in_, n_outputs_ : int
        The number of columns in X, and of outputs of each network.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        The names of the columns, if X had names.

    Raises
    ------
    ValueError
        On fitting, if a parameter or the table is not as expected; the message names the column.

    See Also
    --------
    MLPClassifier : In place of scikit-learn's class of the same name, for arrays of numbers.

    Notes
    -----
    At prediction the columns of a frame are found by their names, in any order and among others. Missing columns are
    one error that names them all; columns that were left out need not be there.

    References
    ----------
    D. Holzmueller, L. Grinsztajn and I. Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees on
    tabular data", NeurIPS 2024, arXiv 2407.04491.

    Examples
    --------
    >>> import pandas as pd
    >>> from gpuprop import TabularClassifier
    >>> passengers = pd.DataFrame(
    ...     {"sex": ["female", "male"] * 20, "age": [29.0, None, 4.0, 50.0] * 10, "survived": ["yes", "no"] * 20}
    ... )
    >>> X, y = passengers.drop(columns="survived"), passengers["survived"]
    >>> classifier = TabularClassifier(epochs=20, random_state=0).fit(X, y)
    >>> classifier.predict(pd.DataFrame({"age": [31], "cabin": ["C 85"], "sex": ["female"]})).tolist()
    ['yes']
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS | {
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "label_smoothing": [Interval(Real, 0, 1, closed="left"), None],
    }

    def __init__(
        self,
        preset: str | TabularPreset = "tabular",
        *,
        categorical_features: Any = None,
        numeric_features: Any = None,
        date_features: Any = None,
        drop: Any = None,
        missing_values: Any = (),
        max_categories: int = 100,
        n_networks: int = 1,
        cv: int | None = None,
        validation_fraction: float | None = None,
        hidden_layer_sizes: Any = None,
        activation: Any = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        label_smoothing: float | None = None,
        class_weight: Any = None,
        random_state: Any = None,
        dtype: str = "float32",
        precision: str = "float32",
        emulate: bool = False,
        device: str = "auto",
        callbacks: Any = None,
        n_threads: int | None = None,
        plan: str = "auto",
        verbose: bool | int = False,
        metrics: Any = None,
        monitor: str | None = None,
    ) -> None:
        set_parameters(self, locals())

    def predict(self, X: Any) -> Array:
        """Return the class of each row.

        Parameters
        ----------
        X : data frame or array_like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels as training saw them.
        """
        probabilities = self.predict_proba(X)
        labels: Array = self.classes_[probabilities.argmax(axis=1)]
        return labels

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, in the order of `classes_`: the mean over the networks.

        Parameters
        ----------
        X : data frame or array_like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
        """
        return _mean(self._outputs(X))

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of `predict_proba`; minus infinity for a probability of 0."""
        with np.errstate(divide="ignore"):
            logarithms: Array = np.log(self.predict_proba(X))
        return logarithms

    def _learn_targets(self, y: Any) -> Array:
        labels = self._labels(y)
        self.classes_, indices = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only, {self.classes_[0]!r}; a classifier needs at least two")
        self.n_outputs_ = len(self.classes_)
        return np.asarray(indices)

    def _known_targets(self, y: Any, X: Any) -> Array:
        check_consistent_length(X, y)
        labels = self._labels(_as_array(y))
        unknown = sorted(set(labels.tolist()) - set(self.classes_.tolist()))
        if unknown:
            raise ValueError(f"y_val has the classes {unknown[:5]}, which y has not; expected {self.classes_.tolist()}")
        return np.searchsorted(self.classes_, labels)

    def _labels(self, y: Any) -> Array:
        labels = column_or_1d(y, warn=True)
        if labels.dtype == object:
            missing = pd.isna(labels)
            if missing.any():
                row = int(np.argmax(missing))
                raise ValueError(f"Input y contains NaN: row {row} (counted from 0) has no label; leave such rows out")
            check_label_objects(labels)
        check_classification_targets(labels)
        return np.asarray(labels)

    def _weigh_classes(self, y: Any, weight: Array | None) -> Array | None:
        if self.class_weight is None:
            return weight
        of_class: Array = compute_sample_weight(self.class_weight, self._labels(y))
        return of_class if weight is None else weight * of_class


class TabularRegressor(RegressorMixin, BaseTabular):  # type: ignore[misc]  # scikit-learn has no type annotations
    """Regression on the rows of a table, whose columns may be numbers, text, dates, truth values, with gaps.

    It finds out what each column holds (see `gpuprop.estimators.columns.Columns`), and trains a multilayer perceptron
    by a published recipe that was tuned on many tables. There is nothing to scale, to encode or to impute, the targets
    included: they are standardised for the training.

    Parameters
    ----------
    preset : str or TabularPreset, default="tabular"
        The recipe, an object or a key of `gpuprop.training.tabular_presets.PRESETS`: "tabular" is RealMLP-TD-S;
        "tabular-large" is RealMLP-TD, which is better on the average, several times slower, and trained on the CPU.
    categorical_features, numeric_features, date_features : sequence of str, int or bool, or None, default=None
        Columns of which you know what they hold: their names, their positions, or a mask. None leaves it to the rules
        of `Columns`.
    drop : sequence of str, int or bool, or None, default=None
        Columns to leave out.
    missing_values : sequence of str or numbers, default=()
        Spellings of missing cells beside empty ones, None and NaN, such as ``["?", "-"]``.
    max_categories : int, default=100
        A column of text with more values is a text of many values, of which only the frequent ones count.
    n_networks : int, default=1
        Networks that train together, each with its own initial weights and validation rows; their predictions are
        averaged.
    cv : int or None, default=None
        The number of folds: a network for each fold, which is trained on the others and chooses its best epoch by this
        one; all train together and are averaged. None holds out `validation_fraction` of the rows.
    validation_fraction : float or None, default=None
        The share of the rows by which the best epoch is chosen, at random; 0 keeps the last epoch. None takes the
        preset's: 0.2.
    hidden_layer_sizes : array_like of int, int or None, default=None
        Units of each hidden layer; None takes the preset's: (256, 256, 256).
    activation : str, Activation or None, default=None
        Of the hidden layers, see `gpuprop.activations.ACTIVATIONS`; None takes the preset's: "mish".
    learning_rate : float or None, default=None
        The highest rate of the preset's schedule; None takes the preset's: 0.07.
    batch_size : int or None, default=None
        Rows of an update; None takes the preset's: 256, or all where there are fewer.
    epochs : int or None, default=None
        Passes over the rows; None takes the preset's: 256.
    clamped : bool or None, default=None
        Whether predictions are kept between the least and the largest target of the training. None takes the preset's:
        yes.
    random_state : int, RandomState or None, default=None
        The source of initial weights, validation rows and row orders.
    dtype : {"float32", "float64"}, default="float32"
        Of the networks. In float32 the last digits of a prediction depend on how many rows are predicted for together.
    precision : {"float32", "tf32x3", "tf32", "bf16"}, default="float32"
        What the operands of products are rounded to, see `gpuprop.Network`.
    emulate : bool, default=False
        Whether a device without tensor cores may emulate the precision; otherwise it refuses it.
    device : str, default="auto"
        "auto", "cpu", "numpy", "cuda", "cuda:N" or "cuda-sim".
    callbacks : list of gpuprop.Callback or None, default=None
        Every network calls them.
    n_threads : int or None, default=None
        The most threads of a fit on the CPU, see `gpuprop.Trainer`.
    plan : str, default="auto"
        The path by which the updates are made, see `gpuprop.Trainer`.
    verbose : bool, default=False
        Whether to print the table of columns, and the progress.
    metrics : str, callable, a sequence or a mapping of these, or None, default=None
        What else to compute of the validation rows after each epoch, see `gpuprop.Trainer`: "f1_macro", say.
    monitor : str or None, default=None
        The figure by which the best epoch is chosen, and of equal ones the last: the name of a metric, or "loss". None
        takes the loss.

    Attributes
    ----------
    columns_ : Columns
        What each column holds, and what is done with it; ``print(regressor.columns_)`` shows it.
    networks_ : list of gpuprop.Network
        Their outputs are standardised targets.
    target_mean_, target_deviation_ : ndarray of shape (n_outputs_,)
        What a prediction is: ``output * target_deviation_ + target_mean_``.
    target_ndim_ : int
        Dimensions of the targets, 1 or 2, and so of predictions.
    target_range_ : ndarray of shape (2, n_outputs_) or None
        The least and the largest target, between which predictions are kept; None if they are not.
    history_ : dict of lists
        The columns of ``Trainer.history``, in units of the standardised targets; with several networks, their epochs
        follow each other, and a column "network" counts them from 1.
    best_epochs_ : list of int
        The epoch of each network whose parameters were kept, counted from 1.
    plan_ : str
        A sentence that says by which path the fit made its updates, and why. A model file does not hold it.
    n_features_in_, n_outputs_ : int
        The number of columns in X, and of outputs of each network.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        The names of the columns, if X had names.

    Raises
    ------
    ValueError
        On fitting, if a parameter or the table is not as expected; the message names the column.

    See Also
    --------
    MLPRegressor : In place of scikit-learn's class of the same name, for arrays of numbers.

    Notes
    -----
    At prediction the columns of a frame are found by their names, in any order and among others. Missing columns are
    one error that names them all; columns that were left out need not be there.

    References
    ----------
    D. Holzmueller, L. Grinsztajn and I. Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees on
    tabular data", NeurIPS 2024, arXiv 2407.04491.

    Examples
    --------
    >>> import pandas as pd
    >>> from gpuprop import TabularRegressor
    >>> flats = pd.DataFrame(
    ...     {"district": ["north", "south"] * 20, "rooms": [1, 2, 3, 4] * 10, "rent": [500, 650, 900, 1050] * 10}
    ... )
    >>> regressor = TabularRegressor(epochs=40, random_state=0).fit(flats[["district", "rooms"]], flats["rent"])
    >>> rent = regressor.predict(pd.DataFrame({"rooms": [3], "district": ["north"]}))
    >>> bool(abs(rent[0] - 900) < 100)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS | {"clamped": ["boolean", None]}

    def __init__(
        self,
        preset: str | TabularPreset = "tabular",
        *,
        categorical_features: Any = None,
        numeric_features: Any = None,
        date_features: Any = None,
        drop: Any = None,
        missing_values: Any = (),
        max_categories: int = 100,
        n_networks: int = 1,
        cv: int | None = None,
        validation_fraction: float | None = None,
        hidden_layer_sizes: Any = None,
        activation: Any = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        clamped: bool | None = None,
        random_state: Any = None,
        dtype: str = "float32",
        precision: str = "float32",
        emulate: bool = False,
        device: str = "auto",
        callbacks: Any = None,
        n_threads: int | None = None,
        plan: str = "auto",
        verbose: bool | int = False,
        metrics: Any = None,
        monitor: str | None = None,
    ) -> None:
        set_parameters(self, locals())

    def predict(self, X: Any) -> Array:
        """Return the prediction for each row: the mean over the networks.

        Parameters
        ----------
        X : data frame or array_like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs), float64
            Of the shape of the targets of the training.
        """
        predictions = _mean(self._in_units(outputs) for outputs in self._outputs(X))
        return predictions[:, 0] if self.target_ndim_ == 1 else predictions

    def _in_units(self, outputs: Array) -> Array:
        values: Array = outputs * self.target_deviation_ + self.target_mean_
        return values if self.target_range_ is None else np.clip(values, *self.target_range_)

    @property
    def _units(self) -> tuple[Array, Array] | None:
        return self.target_mean_, self.target_deviation_

    def _learn_targets(self, y: Any) -> Array:
        self.target_ndim_ = int(np.ndim(y))
        values = np.asarray(y, np.float64).reshape(len(y), -1)
        self.n_outputs_ = values.shape[1]
        self.target_mean_, self.target_deviation_ = mean_and_deviation(values)
        chosen = self.preset_in_use()
        self.target_range_ = np.array([values.min(axis=0), values.max(axis=0)]) if chosen.clamped else None
        return (values - self.target_mean_) / self.target_deviation_

    def _known_targets(self, y: Any, X: Any) -> Array:
        check_consistent_length(X, y)
        values = np.asarray(check_array(_as_array(y), ensure_2d=False, dtype=np.float64, input_name="y_val"))
        values = values.reshape(len(values), -1)
        if values.shape[1] != self.n_outputs_:
            raise ValueError(f"y_val: got {values.shape[1]} columns, expected {self.n_outputs_} as in y")
        standardised: Array = (values - self.target_mean_) / self.target_deviation_
        return standardised

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


# --- helpers -------------------------------------------------------------------------------------------------------


def inputs_of(columns: Columns, chosen: TabularPreset) -> int | InputEmbedding:
    """Return the number of inputs, or how they are embedded."""
    n_numbers, n_plain, codes = columns.layout
    embedded = n_numbers if chosen.embedded_numbers else 0
    if not embedded and not codes:
        return n_numbers + n_plain
    return InputEmbedding(embedded, n_numbers - embedded + n_plain, codes)


class _Printer(Callback):
    """Print the progress of a training, at most ten lines."""

    def on_epoch_end(self, trainer: Any, epoch: int, record: Mapping[str, float | None]) -> None:
        """Print the figures of some epochs, the last one among them."""
        if epoch % max(1, trainer.epochs // 10) == 0 or epoch == trainer.epochs:
            known = {
                name: value for name, value in record.items() if name not in ("epoch", "seconds") and value is not None
            }
            figures = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in known.items())
            print(f"epoch {epoch} of {trainer.epochs}: {figures}")


def _run(trainer: Trainer, train: Samples, ended: list[Trainer]) -> PausingFit:
    """Train; add a training that came to its end to `ended`. Ctrl-C leaves the last complete epoch's parameters."""
    try:
        yield from trainer.training(*train.arrays(), resume_from=None if trainer.checkpoint is None else "auto")
        ended.append(trainer)
    except KeyboardInterrupt:
        warnings.warn(f"training interrupted by the user after {trainer.epochs_done} epochs", stacklevel=2)


def _joined(histories: list[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Return the history of a single network, or the epochs of several one after the other."""
    if len(histories) == 1:
        return histories[0]
    joined: dict[str, list[Any]] = {"network": []}
    for number, history in enumerate(histories, start=1):
        joined["network"] += [number] * len(history.get("epoch", ()))
        for column, values in history.items():
            joined.setdefault(column, []).extend(values)
    return joined


def _mean(arrays: Iterable[Array]) -> Array:
    """Return the mean of arrays of one shape."""
    return np.asarray(np.mean(list(arrays), axis=0))


def _as_array(values: Any) -> Any:
    """Return values on the host; lists of text, and pandas' own types, become arrays of objects.

    NumPy would make text of numbers beside text. What a masked array masks is missing.
    """
    if isinstance(values, np.ma.MaskedArray):
        return with_gaps(values)
    values = to_host(values) if on_gpu(values) else values
    if isinstance(values, pd.Series | pd.Index) and not isinstance(values.dtype, np.dtype):
        objects = values.to_numpy(dtype=object, na_value=np.nan)
        kind = pd.api.types.infer_dtype(objects, skipna=False)
        plain = {"integer": np.int64, "boolean": np.bool_, "floating": np.float64}
        return objects.astype(plain[kind]) if kind in plain else objects
    if isinstance(values, (list, tuple)) and np.asarray(values).dtype.kind in "US":
        return np.asarray(values, dtype=object)
    return values
