"""MLPClassifier: labels in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import (
    _check_partial_fit_first_call,
    check_classification_targets,
    type_of_target,
    unique_labels,
)

from gpuprop.arrays import namespace, on_gpu, to_host
from gpuprop.estimators.base import BaseMLP, Role, if_stochastic
from gpuprop.estimators.labels import Labels, check_label_objects
from gpuprop.estimators.parameters import CONSTRAINTS, fit_method, set_parameters
from gpuprop.estimators.recognised import encoded
from gpuprop.estimators.undoing import as_before_if_it_fails

__all__ = ["MLPClassifier"]

Array = NDArray[Any]


class MLPClassifier(ClassifierMixin, BaseMLP):  # type: ignore[misc]  # scikit-learn has no type annotations
    """Multilayer perceptron for classification, in place of scikit-learn's class of the same name.

    It minimises the cross-entropy: binary for two classes or for several labels, categorical for more classes.

    Parameters
    ----------
    hidden_layer_sizes : array_like of int, or int, default=(100,)
        Units of each hidden layer.
    activation : str, Activation, or a list of them, default="relu"
        The activation of all hidden layers, or one for each: "identity", "logistic", "tanh" or "relu" as in
        scikit-learn, any other name in `gpuprop.activations.ACTIVATIONS`, such as "gelu", or an object of your own.
    solver : str or Optimizer, default="adam"
        "adam", "sgd" and "lbfgs" as in scikit-learn: "sgd" has momentum, see `momentum`; "lbfgs" uses all samples at
        once and suits small data sets. Also any other name in `gpuprop.optimizers.OPTIMIZERS`, such as "adamw", or an
        object from `gpuprop.optimizers`.
    alpha : float, default=0.0001
        Strength of the L2 penalty ``alpha / 2 sum W^2``, which is divided by the sum of the batch's sample weights.
    batch_size : int or "auto", default="auto"
        "auto" is ``min(200, n_samples)``.
    learning_rate : str or Schedule, default="constant"
        "invscaling" is ``learning_rate_init / (samples seen + 1)^power_t`` from the second epoch on; "adaptive"
        divides the rate by 5 when training would otherwise end; as in scikit-learn, solver "adam" ignores these two.
        With any solver: "exponential", "cosine", "one-cycle", "warmup", or an object from `gpuprop.schedules`.
    learning_rate_init : float or None, default=0.001
        The learning rate at the beginning; None takes the solver's own default.
    power_t : float, default=0.5
    max_iter : int, default=200
        Most epochs; for "lbfgs" most iterations.
    shuffle : bool, default=True
        Whether each epoch visits the rows in a new order.
    random_state : int, RandomState or None, default=None
        The source of initial weights, held-out rows and row orders, which are drawn exactly as scikit-learn does.
    tol : float, default=1e-4
        The least improvement of loss or validation score that counts.
    verbose : bool, default=False
        Whether to print the loss of each epoch.
    warm_start : bool, default=False
        Whether `fit` begins with the parameters of the last one.
    momentum : float, default=0.9
    nesterovs_momentum : bool, default=True
    early_stopping : bool, default=False
        Whether to hold out `validation_fraction` of the rows, to end when their score stops improving, and to restore
        the parameters of the best epoch.
    validation_fraction : float, default=0.1
    beta_1, beta_2, epsilon : float, default=0.9, 0.999, 1e-8
        Hyperparameters of "adam".
    n_iter_no_change : int, default=10
        Training ends when more epochs than this in a row have not improved by `tol`.
    max_fun : int, default=15000
        For "lbfgs": the most evaluations of the loss.
    max_epochs : int or None, default=None
        The same as `max_iter`, under a clearer name; set one of the two.
    l1 : float, default=0.0
        Strength of the L1 penalty ``l1 sum |W|``, which is divided as the L2 penalty is.
    weight_decay : float or None, default=None
        Decoupled weight decay; with it solver "adam" becomes "adamw".
    dropout : float or sequence of float, default=0.0
        The share of units that training drops: of the hidden layers, or (input, hidden), or one number for the input
        and each hidden layer.
    clip_norm : float or None, default=None
        If the gradient of all parameters together has a larger norm, it is shortened to this norm.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, by which the sample weights are multiplied; "balanced" weighs each class by the inverse
        of its frequency.
    label_smoothing : float, default=0.0
        The share of each training target that is spread evenly over all classes (for a label: over yes and no).
    device : str, default="auto"
        "auto", "cpu", "numpy", "cuda", "cuda:N" or "cuda-sim".
    dtype : {"float32", "float64"} or None, default=None
        The dtype of all arithmetic; None takes float32 for float32 data, else float64.
    precision : {"float32", "tf32x3", "tf32", "bf16"}, default="float32"
        What the operands of products are rounded to, see `gpuprop.Network`; scikit-learn has nothing like it. With any
        other than "float32", `dtype` None takes float32.
    emulate : bool, default=False
        Whether a device without tensor cores may emulate the precision; otherwise it refuses it.
    callbacks : list of gpuprop.Callback or None, default=None
    order_random_state : int, RandomState or None, default=None
        The source of held-out rows and row orders instead of `random_state`, so that networks with different initial
        weights can see the same rows in the same order.
    n_threads : int or None, default=None
        The most threads of a fit on the CPU, see `Trainer`; a short measurement chooses the number.
    plan : str, default="auto"
        The path by which the updates are made: "auto" leaves the choice to the backend; the name of a path, such as
        "steps", "fused" or "graph", asks for it, and the fit raises an error that says why if the path cannot serve.
    checkpoint : str, path, gpuprop.Checkpoint or None, default=None
        A folder. `fit` keeps checkpoints there, and goes on from them if it was killed: the result is that of a fit
        that was left alone. A fit that was finished there is not repeated. Each fit has a folder of its own in this
        one, found by parameters and data; SIGTERM, SIGHUP and SIGUSR1 end it at its next update, with a checkpoint and
        `gpuprop.TrainingEnded`. Not for ``partial_fit`` and "lbfgs".
    metrics : str, callable, a sequence or a mapping of these, or None, default=None
        What else to compute of the validation rows after each epoch, see `gpuprop.Trainer`: "f1_macro", say. Needs
        `early_stopping` or X_val; `partial_fit` has no validation rows. Classes are their positions in `classes_`.
    monitor : str or None, default=None
        What `early_stopping` watches: the name of a metric, or "loss". None watches the accuracy, or R2.
    batch_norm : bool, default=False
        Whether the net inputs of hidden layers are normalised over each batch, see `gpuprop.Network`; not with "lbfgs".
        `coefs_` and `intercepts_` are then those before the normalisation, and exports have it folded in.
    residual : bool, default=False
        Whether a hidden layer adds its input to its output where both have one size, see `gpuprop.Network`.

    Attributes
    ----------
    classes_ : ndarray or list of ndarray of shape (n_classes,)
    loss_, best_loss_ : float
        The loss of the last epoch, and the lowest (None with early stopping).
    loss_curve_ : list of float
        The mean loss over each epoch, while the parameters change; not for "lbfgs".
    validation_scores_, best_validation_score_ : list of float, float
        Accuracy on the held-out rows after each epoch, and the best; None without early stopping.
    history_ : dict of lists
        Columns "epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "learning_rate",
        "seconds"; not for "lbfgs".
    coefs_, intercepts_ : list of ndarray
        Weights (fan_in, fan_out) and biases (fan_out,) of each layer.
    n_iter_, t_ : int
        Epochs of the last fit, and samples trained on so far.
    n_layers_, n_outputs_ : int
        The number of layers, including the input layer, and of units of the output layer.
    out_activation_ : str
        "logistic" or "softmax".
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        The names of the columns, if X had names.
    network_ : gpuprop.Network
        The trained network; its ``l1`` and ``l2`` are the penalties before they are divided.
    device_, backend_ : str
        The device in use and the library that computes on it.
    plan_ : str
        A sentence that says by which path the last fit made its updates, and why. A model file does not hold it.

    Raises
    ------
    ValueError
        On fitting, if a parameter or the data are out of range.
    NonFiniteLossError
        On fitting, if the loss becomes infinite or NaN.

    Notes
    -----
    docs/scikit-learn.md lists where and why this differs from scikit-learn.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from gpuprop import MLPClassifier
    >>> X, y = make_classification(n_samples=100, random_state=1)
    >>> classifier = MLPClassifier(random_state=1, max_iter=300).fit(X, y)
    >>> classifier.predict_proba(X[:1]).shape
    (1, 2)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS | {
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
    }
    #: As scikit-learn has it.
    loss: ClassVar[str] = "log_loss"

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float | None = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        max_epochs: int | None = None,
        l1: float = 0.0,
        weight_decay: float | None = None,
        dropout: Any = 0.0,
        clip_norm: float | None = None,
        class_weight: Any = None,
        label_smoothing: float = 0.0,
        device: str = "auto",
        dtype: Any = None,
        precision: str = "float32",
        emulate: bool = False,
        callbacks: Any = None,
        order_random_state: Any = None,
        n_threads: int | None = None,
        plan: str = "auto",
        checkpoint: Any = None,
        metrics: Any = None,
        monitor: str | None = None,
        batch_norm: bool = False,
        residual: bool = False,
    ) -> None:
        set_parameters(self, locals())

    @fit_method
    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None) -> MLPClassifier:
        """Train.

        Parameters
        ----------
        X : array_like or sparse matrix of shape (n_samples, n_features)
        y : array_like of shape (n_samples,) or (n_samples, n_labels)
            Classes of any type, or for several labels a column of 0 and 1 for each.
        sample_weight : array_like of shape (n_samples,) or None, default=None
        X_val, y_val : array_like or None, default=None
            Rows that are not trained on, evaluated after each epoch; early stopping watches them instead of
            holding out rows of its own.

        Returns
        -------
        MLPClassifier
            This object.
        """
        self._fit(X, y, sample_weight, X_val=X_val, y_val=y_val)
        return self

    @if_stochastic
    @fit_method
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> MLPClassifier:
        """Train one more epoch, with the parameters and the optimizer as they are; not for "lbfgs".

        A call that fails, because training diverges on these rows, say, leaves the estimator as it was.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`; y need not contain all classes.
        classes : array_like of shape (n_classes,) or None, default=None
            All classes; the first call needs them.

        Returns
        -------
        MLPClassifier
            This object.
        """
        with as_before_if_it_fails(self):
            if not self._knows(classes) and _check_partial_fit_first_call(self, classes):
                several = type_of_target(y).startswith("multilabel")
                self.learn_labels(y if several else classes)
            self._fit(X, y, sample_weight, incremental=True)
        return self

    def _knows(self, classes: Any) -> bool:
        """Return whether these are the known classes, in their order; scikit-learn takes longer to see the same."""
        known = getattr(self, "classes_", None)
        return type(classes) is np.ndarray and known is not None and np.array_equal(classes, known)

    def predict(self, X: Any) -> Array:
        """Return the class of each row of X, or its labels: shape (n_samples,) or (n_samples, n_labels)."""
        return self.prediction_of(self._forward(X))

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class (or of each label), in the order of `classes_`."""
        return self.probabilities_of(self._forward(X))

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of `predict_proba`; minus infinity for a probability of 0."""
        with np.errstate(divide="ignore"):
            logarithms: Array = np.log(self.predict_proba(X))
        return logarithms

    def probabilities_of(self, outputs: Array) -> Array:
        """Return the probabilities that belong to the network's outputs, see `predict_proba`."""
        return np.hstack([1 - outputs, outputs]) if self.n_outputs_ == 1 else outputs

    def prediction_of(self, outputs: Array) -> Array:
        """Return the classes or labels that belong to the network's outputs, see `predict`."""
        if not (on_gpu(outputs) and self.classes_.dtype.kind in "biuf"):
            outputs = to_host(outputs)
            if self.is_multilabel:  # which may have been fitted on a sparse matrix, and then returns one
                found: Array = self._label_binarizer.inverse_transform(outputs)
                return found
        return self._labels_of(outputs)

    def _labels_of(self, outputs: Array) -> Array:
        """Return labels where the outputs lie."""
        if self.is_multilabel:
            indicators: Array = (outputs > 0.5).astype(np.int64)
            return indicators
        chosen = outputs.argmax(axis=1) if self.n_outputs_ > 1 else (outputs[:, 0] > 0.5).astype(np.int64)
        classes = self.classes_ if len(self.classes_) > 1 else np.repeat(self.classes_, 2)
        labels: Array = namespace(outputs).asarray(classes)[chosen]
        return labels

    def learn_labels(self, y: Any) -> None:
        """Take the classes or labels in `y` as those of this classifier: sets `classes_`."""
        self._label_binarizer = LabelBinarizer().fit(y)
        self.classes_ = self._label_binarizer.classes_

    @property
    def is_multilabel(self) -> bool:
        """Whether a row may have several labels; known once the labels are."""
        return str(self._label_binarizer.y_type_).startswith("multilabel")

    def _check_targets(self, y: Any, role: Role) -> Array:
        """Return y as a column for each output, and check that the classifier knows its classes."""
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        anew = not hasattr(self, "classes_") or (role == "fit" and not self.warm_start)
        all_of_them = self.warm_start and role != "validation"
        found = None if anew or self.is_multilabel else encoded(y, self.classes_, all_of_them=all_of_them)
        if found is not None:
            return found
        if y.dtype == object:
            check_label_objects(y)
        check_classification_targets(y)
        if anew:
            self.learn_labels(y)
        else:
            self._check_known(unique_labels(y), all_of_them=all_of_them)
        targets: Array = self._label_binarizer.transform(y).astype(bool)
        return targets

    def _labels(self, y: Array, incremental: bool) -> Labels | None:
        if self.class_weight is not None or self.early_stopping or not (incremental or self.warm_start):
            return None
        settings = (self._label_binarizer, self.warm_start, incremental, self.label_smoothing, self.network_.dtype)
        return Labels(y, self.classes_, settings)

    def _check_known(self, classes: Array, *, all_of_them: bool) -> None:
        if all_of_them and set(classes) != set(self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {self.classes_}, `y` has {classes}"
            )
        if len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {classes}."
            )

    def _weigh_classes(self, y: Any, weight: Array | None, incremental: bool) -> Array | None:
        if self.class_weight is None:
            return weight
        if incremental and self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' is not supported for partial_fit, which does not see all classes; compute "
                "the weights with sklearn.utils.class_weight.compute_class_weight and pass them as a dict"
            )
        of_class: Array = compute_sample_weight(self.class_weight, y)
        return of_class if weight is None else weight * of_class

    def _training_targets(self, targets: Array) -> Array:
        if self.label_smoothing == 0:
            return targets
        n_choices = self.n_outputs_ if self.out_activation_ == "softmax" else 2
        return np.asarray(targets * (1 - self.label_smoothing) + self.label_smoothing / n_choices)

    def _network_loss(self) -> Any:
        several_classes = self._label_binarizer.y_type_ == "multiclass"
        return "categorical_cross_entropy" if several_classes else "binary_cross_entropy"

    def _score_of(self, validation: Any) -> Callable[[Mapping[str, Any]], float]:
        return lambda record: float(record["validation_accuracy"])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
