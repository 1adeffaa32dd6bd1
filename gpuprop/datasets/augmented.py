"""Data sets whose rows are changed at random each time that they are trained on: augmentation, made on the fly.

`augmented` takes arrays and a function that changes rows. ``Trainer.fit`` takes what it returns in the place of arrays,
and a thread makes the rows of the next updates while the current ones are made, as it reads rows that stay on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpuprop.datasets.dataset import encode_target
from gpuprop.datasets.stored import Part, Piece, StoredRows
from gpuprop.errors import check_integer

__all__ = ["Augmentation", "AugmentedRows", "augmented"]

Augmentation = Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]
"""``augment(X, rng)`` returns rows of the shape of X, changed by what it draws from rng; X stays as it is."""

_WINDOWS = 8
"""Into about how many windows an epoch is divided: the rows of one are made while another is trained on."""


@dataclass(frozen=True, eq=False, kw_only=True)
class AugmentedRows(StoredRows):
    """Rows in memory that are changed at random in each epoch; `augmented` makes them.

    Attributes
    ----------
    augment : callable
        ``augment(X, rng)``.
    seed : int
        Equal seeds give equal rows, whatever has been trained before, and by any number of threads.
    contents : str
        The SHA-256 of the rows and targets.

    Raises
    ------
    ValueError
        When rows are read, if `augment` returns rows of another shape.

    Examples
    --------
    >>> import gpuprop
    >>> X, y = gpuprop.datasets.load_digits()
    >>> rows = gpuprop.datasets.augmented(X, y, lambda X, rng: X + rng.standard_normal(X.shape), block_rows=100)
    >>> rows.read_in_epoch(0, 1)[0].shape, rows.kind
    ((100, 64), 'rows that change in each epoch')
    """

    augment: Augmentation
    seed: int
    contents: str

    kind: ClassVar[str] = "rows that change in each epoch"
    said: ClassVar[str] = "the rows change in each epoch"

    def read_in_epoch(self, place: int, epoch: int) -> Part:
        """Return inputs and targets of a piece, changed by random numbers that epoch, piece and seed decide."""
        X, y = self.read(place)
        key = np.array([self.seed & 0xFFFFFFFFFFFFFFFF, (epoch << 32) + place], np.uint64)
        changed = self.augment(X, np.random.Generator(np.random.Philox(key=key, counter=1 << 192)))
        if changed.shape != X.shape:
            raise ValueError(f"augment: it made rows of shape {changed.shape} from rows of shape {X.shape}")
        return np.ascontiguousarray(changed, X.dtype), y

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the rows, of the seed and of the function's name or settings."""
        own = getattr(self.augment, "__qualname__", None) or repr(self.augment)
        pieces = [piece[1:] for piece in self.pieces]
        return hashlib.sha256(repr((self.contents, own, self.seed, pieces)).encode()).hexdigest()


def augmented(
    X: ArrayLike, y: ArrayLike, augment: Augmentation, *, seed: int = 0, task: str = "auto", block_rows: int = 500
) -> AugmentedRows:
    """Return a data set whose rows are changed at random each time that a network is trained on them.

    Parameters
    ----------
    X : array_like of shape (n_samples, n_features)
        uint8, float32 or float64. It is not copied and must not be changed.
    y : array_like of shape (n_samples,) or (n_samples, n_outputs)
        Class labels, or values.
    augment : callable
        ``augment(X, rng)`` takes some rows and a `numpy.random.Generator`, and returns rows of the same shape; it runs
        in a thread of its own. `Deformations` is one for images.
    seed : int, default=0
    task : {"auto", "classification", "regression"}, default="auto"
        What y is, as for `load`.
    block_rows : int, default=500
        Rows that `augment` gets at once. Blocks are visited in a random order, and the rows of about an eighth of the
        data set are shuffled together, see `gpuprop.training.windows`.

    Returns
    -------
    AugmentedRows
        For ``Trainer.fit``. A share for validation, ``Trainer(validation=0.1)``, holds rows that are not changed.

    Raises
    ------
    TypeError, ValueError
        If X and y do not have as many rows, X has not two dimensions, or a number is out of range.

    Examples
    --------
    >>> import gpuprop
    >>> import numpy as np
    >>> X, y = gpuprop.datasets.load_digits()
    >>> def noisy(X, rng):
    ...     return np.clip(X + rng.integers(-1, 2, X.shape), 0, 16)
    >>> rows = gpuprop.datasets.augmented(X, y, noisy)
    >>> net = gpuprop.Network((64, 32, 10), loss="categorical_cross_entropy", seed=0)
    >>> gpuprop.Trainer(net, epochs=2).fit(rows).epochs_done
    2
    """
    inputs, labels = np.ascontiguousarray(X), np.asarray(y)
    if inputs.ndim != 2 or len(inputs) != len(labels) or not len(inputs):
        raise ValueError(f"X, y: got shapes {inputs.shape} and {labels.shape}, expected as many rows of both, in 2-D X")
    if inputs.dtype not in (np.uint8, np.float32, np.float64):
        inputs = inputs.astype(np.float64)
    targets, classes = encode_target("y", labels, task)
    size, n_outputs = check_integer("block_rows", block_rows, 1), 1 if targets.ndim == 1 else targets.shape[1]
    source = Path("rows in memory")
    starts = range(0, len(inputs), size)

    def read(piece: Piece) -> Part:
        chosen = slice(piece.first, piece.first + piece.n_rows)
        return inputs[chosen], targets[chosen] if classes is None else labels[chosen]

    digest = hashlib.sha256(np.ascontiguousarray(targets).tobytes())
    digest.update(inputs.reshape(-1).view(np.uint8).data)
    row_bytes = inputs.shape[1] * inputs.dtype.itemsize + 8 * (n_outputs if classes is None else len(classes))
    return AugmentedRows(
        name=str(source),
        pieces=tuple(Piece(source, first, min(size, len(inputs) - first)) for first in starts),
        n_features=inputs.shape[1],
        dtype=inputs.dtype,
        task="regression" if classes is None else "classification",
        classes=classes,
        n_outputs=n_outputs,
        feature_names=None,
        target_name=None,
        memory=row_bytes * (2 * len(inputs) // _WINDOWS + 4 * size),
        read_piece=read,
        augment=augment,
        seed=check_integer("seed", seed, 0),
        contents=digest.hexdigest(),
    )
