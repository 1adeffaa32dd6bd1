"""Data as the estimators take them: rows that have passed scikit-learn's checks, on the host or on a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.base import is_classifier
from sklearn.utils.validation import validate_data

from gpuprop.arrays import is_sparse, on_gpu, plain_array, to_host

if TYPE_CHECKING:
    from gpuprop.estimators.labels import Labels

__all__ = ["Samples", "input_dtypes", "validated", "validated_inputs"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Samples:
    """Rows for training or validation.

    Attributes
    ----------
    X : array or CSR matrix of shape (n_samples, n_features)
    targets : ndarray of shape (n_samples, n_outputs)
    weight : ndarray of shape (n_samples,) or None
    plain : bool
        Whether X is known to be finite and contiguous, see `gpuprop.estimators.recognised`.
    labels : Labels or None
        What the targets were made of, where a later call may recognise it.
    recognised : bool
        Whether the targets are those that the last call made of the same labels.
    """

    X: Any
    targets: Array
    weight: Array | None
    plain: bool = False
    labels: Labels | None = None
    recognised: bool = False

    def arrays(self) -> tuple[Any, ...]:
        """Return X, targets and, where there are some, weights."""
        return (self.X, self.targets) if self.weight is None else (self.X, self.targets, self.weight)

    def at(self, rows: NDArray[np.intp]) -> Samples:
        """Return some of the rows."""
        return Samples(self.X[rows], self.targets[rows], None if self.weight is None else self.weight[rows])


def input_dtypes(estimator: Any) -> tuple[Any, ...]:
    """Return the dtypes that X may have; an X of any other dtype is converted to the first."""
    if estimator.dtype is not None:
        return (np.dtype(estimator.dtype),)
    return (np.float64, np.float32) if estimator.precision == "float32" else (np.float32,)


def validated(estimator: Any, X: Any, y: Any, dtype: tuple[Any, ...], *, reset: bool) -> tuple[Any, Any]:
    """Return X, dense or CSR, and y after scikit-learn's checks, which also read the columns of data frames."""
    _refuse_foreign(X)
    _refuse_images(X)
    X = plain_array(X)
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
    _refuse_images(X)
    X = plain_array(X)
    checked = validate_data(estimator, _stand_in(X), accept_sparse=("csr", "csc"), reset=False)
    return X if on_gpu(X) else checked


def _refuse_images(X: Any) -> None:
    """Refuse an array with more than two axes, such as images, and say what makes rows of it."""
    shape: tuple[int, ...] = getattr(X, "shape", ())
    if len(shape) > 2 and shape[0]:
        width = int(np.prod(shape[1:]))
        raise ValueError(
            f"Found array with dim {len(shape)}, while dim <= 2 is required; use X.reshape(len(X), -1), "
            f"shape {(shape[0], width)}"
        )


def _stand_in(X: Any) -> Any:
    """Return X; for an array on a GPU return one of its shape that occupies no memory, so that its shape is checked.

    `gpuprop.model.inputs` checks its numbers on the GPU.
    """
    return np.broadcast_to(np.float64(0), X.shape) if on_gpu(X) else X


def _refuse_foreign(X: Any) -> None:
    """Refuse arrays of other libraries under ``array_api_dispatch``, which promises results of the same kind."""
    if get_config()["array_api_dispatch"] and hasattr(X, "__dlpack__") and not isinstance(X, np.ndarray):
        raise TypeError(
            f"got an array of {type(X).__module__}, expected one of NumPy or SciPy: array_api_dispatch is not "
            "supported; convert it, e.g. with numpy.asarray, or switch array_api_dispatch off"
        )
