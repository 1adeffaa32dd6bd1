"""Initial weights: how a layer's weight matrix is drawn before training. Biases start at zero.

All draws are made in float64 on the host, so that networks of one seed start from the same numbers on every device
and in every dtype.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.errors import unknown_name
from gpuprop.maths.activations import OUTPUT_ACTIVATIONS, Activation, get_activation
from gpuprop.maths.records import base_name

__all__ = ["INITIALIZERS", "Initializer", "default_initializer", "get_initializer"]

#: ``initializer(rng, fan_in, fan_out) -> ndarray of shape (fan_in, fan_out)``
Initializer = Callable[[np.random.Generator, int, int], NDArray[Any]]


def zeros(rng: np.random.Generator, fan_in: int, fan_out: int) -> NDArray[np.float64]:
    """All zero: every hidden unit computes the same for ever, which is why weights must start random."""
    return np.zeros((fan_in, fan_out))


def uniform(rng: np.random.Generator, fan_in: int, fan_out: int, epsilon: float = 0.12) -> NDArray[np.float64]:
    """Uniform in [-epsilon, epsilon]; ``"uniform(0.5)"`` sets epsilon. Source: Ng, Machine Learning (2011), week 5."""
    return rng.uniform(-epsilon, epsilon, (fan_in, fan_out))


def glorot(rng: np.random.Generator, fan_in: int, fan_out: int) -> NDArray[np.float64]:
    """Uniform with variance ``2 / (fan_in + fan_out)``. Source: Glorot and Bengio (2010), eq. 16."""
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, (fan_in, fan_out))


def he(rng: np.random.Generator, fan_in: int, fan_out: int) -> NDArray[np.float64]:
    """Uniform with variance ``2 / fan_in``, for units that pass on half of it. Source: He et al. (2015), eq. 10."""
    limit = math.sqrt(6.0 / fan_in)
    return rng.uniform(-limit, limit, (fan_in, fan_out))


def lecun(rng: np.random.Generator, fan_in: int, fan_out: int) -> NDArray[np.float64]:
    """Uniform with variance ``1 / fan_in``. Source: LeCun et al., Efficient BackProp (1998), eq. 16."""
    limit = math.sqrt(3.0 / fan_in)
    return rng.uniform(-limit, limit, (fan_in, fan_out))


def lecun_normal(rng: np.random.Generator, fan_in: int, fan_out: int) -> NDArray[np.float64]:
    """Normal with variance ``1 / fan_in``: the neural-tangent parametrisation's ``W / sqrt(fan_in)``, W ~ N(0, 1).

    Source: Jacot, Gabriel, Hongler, "Neural tangent kernel", NeurIPS 2018, section 2; self-normalising networks begin
    so, too (Klambauer et al., 2017).
    """
    return rng.standard_normal((fan_in, fan_out)) / math.sqrt(fan_in)


#: The initializers by name; ``"uniform(0.1)"`` sets the bound.
INITIALIZERS: dict[str, Initializer] = {
    "zeros": zeros,
    "uniform": uniform,
    "glorot": glorot,
    "he": he,
    "lecun": lecun,
    "lecun_normal": lecun_normal,
}


def default_initializer(activation: str | Activation) -> str:
    """Return the initialiser that suits an activation: ``he`` for rectifying units, most others take ``glorot``.

    Examples
    --------
    >>> from gpuprop.initializers import default_initializer
    >>> default_initializer("relu"), default_initializer("tanh")
    ('he', 'glorot')
    """
    if isinstance(activation, Activation):
        return activation.initializer
    known = base_name(activation) in OUTPUT_ACTIVATIONS
    return get_activation(activation, output=True).initializer if known else "glorot"


def get_initializer(init: str | Initializer) -> Initializer:
    """Return the initialiser of this name, e.g. ``"he"`` or ``"uniform(0.5)"``; a callable is returned as it is.

    Raises
    ------
    ValueError
        If there is no such initializer, or its number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuprop.initializers import get_initializer
    >>> get_initializer("uniform(0.1)")(np.random.default_rng(0), 3, 2).shape
    (3, 2)
    """
    if callable(init):
        return init
    match = re.fullmatch(r"uniform\(([^()]+)\)", str(init).replace(" ", ""))
    if match:
        try:
            epsilon = float(match[1])
        except ValueError:
            epsilon = math.nan
        if not 0 < epsilon < math.inf:
            raise ValueError(f"init {init!r}: got epsilon {match[1]}, expected a positive number")
        return lambda rng, fan_in, fan_out: uniform(rng, fan_in, fan_out, epsilon)
    if init not in INITIALIZERS:
        raise unknown_name("init", init, INITIALIZERS)
    return INITIALIZERS[init]
