"""The scaling of inputs that belongs to a network and travels in its file, so that users always hand in raw data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpuprop.arrays import beside, numpy_dtype

__all__ = ["InputScaling"]


@dataclass(frozen=True, eq=False)
class InputScaling:
    """What a network does to its inputs first: ``(X - shift) * scale``.

    Parameters
    ----------
    shift, scale : float or array_like of shape (n_features,)
        One number for all columns, or one for each.

    Raises
    ------
    ValueError
        If a number is not finite.

    Examples
    --------
    >>> import gpuprop
    >>> pixels = gpuprop.InputScaling.divide(255)  # uint8 images to [0, 1]
    """

    shift: NDArray[np.float64]
    scale: NDArray[np.float64]

    def __init__(self, shift: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> None:
        for name, value in (("shift", shift), ("scale", scale)):
            array = np.array(value, dtype=np.float64)
            if array.ndim > 1 or not np.isfinite(array).all():
                raise ValueError(f"InputScaling: {name} must be a finite number or one for each column")
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @classmethod
    def divide(cls, by: float) -> InputScaling:
        """Return the scaling ``X / by``; 255 brings 8-bit images to [0, 1]."""
        if not (np.isfinite(by) and by != 0):
            raise ValueError(f"InputScaling.divide: got {by}, expected a finite number other than 0")
        return cls(0.0, 1.0 / by)

    @classmethod
    def standard(cls, X: ArrayLike) -> InputScaling:
        """Return the scaling that gives each column of `X` mean 0 and standard deviation 1.

        A constant column becomes 0. `X` has shape (n_samples, n_features); use the training part only.
        """
        data = np.asarray(X)
        if data.ndim != 2 or len(data) == 0:
            raise ValueError(f"InputScaling.standard: got shape {data.shape}, expected (n_samples, n_features)")
        return cls.of_moments(data.mean(axis=0, dtype=np.float64), data.std(axis=0, dtype=np.float64))

    @classmethod
    def of_moments(cls, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> InputScaling:
        """Return the scaling `standard` of rows whose columns have these means and deviations."""
        # A column of one value has a deviation of rounding errors, not of information.
        constant = deviation <= 10 * np.finfo(np.float64).eps * np.abs(mean)
        return cls(mean, 1.0 / np.where(constant, 1.0, deviation))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> InputScaling:
        """Return the scaling that `get_config` described."""
        return cls(config["shift"], config["scale"])

    def get_config(self) -> dict[str, Any]:
        """Return shift and scale as JSON values."""
        return {"shift": self.shift.tolist(), "scale": self.scale.tolist()}

    def check_width(self, n_features: int) -> None:
        """Raise ``ValueError`` unless shift and scale are single numbers or have `n_features` entries."""
        for name, array in (("shift", self.shift), ("scale", self.scale)):
            if array.ndim == 1 and array.size != n_features:
                raise ValueError(f"input_scaling: {name} has {array.size} entries, expected {n_features}, one an input")

    def apply(self, rows: NDArray[Any]) -> None:
        """Scale `rows` in place, in the precision of `rows`."""
        dtype = numpy_dtype(rows)
        if self.shift.any():
            rows -= beside(self.shift.astype(dtype), rows)
        rows *= beside(self.scale.astype(dtype), rows)
