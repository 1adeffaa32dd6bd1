"""Activation functions and their derivatives, in NumPy, with their sources.

Every activation ``a = f(z)`` is a pair of small functions. The derivative is taken from the output ``a`` wherever the
output determines it, because then a layer need not remember its net input ``z``; gelu and silu are not monotonic, so
theirs is taken from ``z``. All of them stay finite for net inputs of +-1e4 in float32 and float64.

The record of an activation holds what the rest of the package needs to know of it: names and help texts, default
initializers, ONNX graphs, the formulas of traces and the cases of tests follow from it. What compiled code computes is
the scalar form of the same name in `gpuprop_kernels.formulas.elementwise`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpuprop.errors import unknown_name
from gpuprop.maths.records import base_name, comparable, named, numbered

__all__ = ["ACTIVATIONS", "OUTPUT_ACTIVATIONS", "Activation", "get_activation"]

Array = NDArray[np.floating[Any]]
OutputRange = Literal["real", "nonnegative", "positive", "unit"]


@dataclass(frozen=True, eq=False)
class Activation:
    """An activation function together with its derivative.

    Two of gpuprop's own are equal if they have the same name, two of a user's if all that they are made of is.

    Parameters
    ----------
    name : str
        What it is called in messages and model files.
    function : callable
        ``function(z) -> a``, elementwise on an array of any shape; keeps the shape.
    derivative : callable
        ``derivative(a) -> da/dz`` or ``derivative(z) -> da/dz``, elementwise, see `derivative_of`.
    derivative_of : {"output", "z"}, default="output"
        What `derivative` takes. With ``"z"`` the workspace keeps the net input of the layer.
    cuda : tuple of two callables or None, default=None
        The same pair as scalar functions that Numba can compile for a CUDA device.
    output_range : {"real", "nonnegative", "positive", "unit"}, default="real"
        The values that `function` takes: any, ``>= 0``, ``> 0`` or between 0 and 1. It decides which losses may follow.
    kinks : tuple of float, default=()
        Net inputs where the derivative or its slope jumps; gradient checks step around them.
    hidden : bool, default=True
        Whether a hidden layer may use it.
    parameter : float, default=0
        The number in a name such as ``leaky_relu(0.2)``; 0 where the function takes none.
    initializer : str, default="glorot"
        The initializer that suits a layer of it, see `gpuprop.maths.initializers`.
    formula, derivative_formula : str, default=""
        The pair as traces show it, in Python's notation: of ``z``, the output ``a`` and the parameter ``p``, by
        ``exp``, ``ln``, ``tanh``, ``max``, ``logistic`` and the normal distribution's ``Phi`` and ``phi``. Without a
        formula a trace shows the function's name.
    onnx : tuple of str, default=()
        Operators of ONNX, applied one after the other; ``"Mul"`` multiplies by z.
    overwrite : callable or None, default=None
        ``overwrite(z)`` writes ``function(z)`` over z, without a large array of its own; only elementwise functions
        that NumPy computes as fast as compiled loops do have it.

    Raises
    ------
    ValueError
        If the derivative disagrees with central differences of the function, or shapes change.

    Examples
    --------
    >>> import numpy as np, gpuprop
    >>> cube = gpuprop.Activation("cube", lambda z: z**3, lambda z: 3 * z**2, derivative_of="z")
    """

    name: str
    function: Callable[[Array], Array]
    derivative: Callable[[Array], Array]
    derivative_of: Literal["output", "z"] = "output"
    cuda: tuple[Callable[..., Any], Callable[..., Any]] | None = None
    output_range: OutputRange = "real"
    kinks: tuple[float, ...] = ()
    built_in: bool = field(default=False, repr=False)
    hidden: bool = field(default=True, repr=False)
    parameter: float = field(default=0.0, repr=False)
    initializer: str = field(default="glorot", repr=False)
    formula: str = field(default="", repr=False)
    derivative_formula: str = field(default="", repr=False)
    onnx: tuple[str, ...] = field(default=(), repr=False)
    overwrite: Callable[[Array], object] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.derivative_of not in ("output", "z"):
            raise ValueError(f"derivative_of must be 'output' or 'z', got {self.derivative_of!r}")
        if self.output_range not in ("real", "nonnegative", "positive", "unit"):
            raise unknown_name("output_range", self.output_range, ["real", "nonnegative", "positive", "unit"])
        if not self.built_in:
            _check_pair(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Activation):
            return NotImplemented
        if self is other or (self.built_in and other.built_in):
            return self.name == other.name
        return all(comparable(getattr(self, one.name)) == comparable(getattr(other, one.name)) for one in fields(self))

    def __hash__(self) -> int:
        return hash(self.name)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what a pickle holds; one of an earlier version may lack some fields of gpuprop's own activations."""
        self.__dict__.update(state)
        if self.built_in:
            self.__dict__.update(vars(get_activation(self.name, output=True)))

    @property
    def base_name(self) -> str:
        """The name without the parameter, which for ``leaky_relu(0.2)`` is ``leaky_relu``."""
        return base_name(self.name)

    def source(self, z: Array | None, a: Array) -> Array:
        """Return the array that `derivative` takes: the net input or the output."""
        if self.derivative_of == "output":
            return a
        if z is None:
            raise ValueError(f"activation {self.name!r} needs the net input z, which was not kept")
        return z


def _check_pair(activation: Activation) -> None:
    """Refuse a derivative that is not the derivative: compare it with central differences in float64."""
    if activation.name in _BUILT_IN:
        raise ValueError(f"the name {activation.name!r} is taken by a built-in activation; choose another")
    # An irregular grid, so that no point sits exactly on a kink of a piecewise function.
    z = np.linspace(-4.0, 4.0, 161) + 0.0123456789
    step = 1e-5
    with np.errstate(all="ignore"):
        a = np.asarray(activation.function(z.copy()))
        if a.shape != z.shape:
            raise ValueError(
                f"activation {activation.name!r}: got output of shape {a.shape} for input of shape {z.shape}; "
                "the function must work elementwise"
            )
        low, high = activation.function(z - step), activation.function(z + step)
        expected = (np.asarray(high) - np.asarray(low)) / (2 * step)
        got = np.asarray(activation.derivative(activation.source(z.copy(), a)))
    if got.shape != z.shape:
        raise ValueError(f"activation {activation.name!r}: got a derivative of shape {got.shape}, expected {z.shape}")
    wrong = ~(np.abs(got - expected) <= 1e-5 * (1.0 + np.abs(expected)))
    if wrong.any():
        worst = int(np.argmax(wrong))
        raise ValueError(
            f"activation {activation.name!r}: its derivative is {got[worst]:.6g} at z = {z[worst]:.4f} where finite "
            f"differences of the function give {expected[worst]:.6g}; "
            f"correct it, or derivative_of={activation.derivative_of!r}"
        )


def identity(z: Array) -> Array:
    """``a = z``; any z. The linear unit of Widrow and Hoff (1960)."""
    return z


def _leave(z: Array) -> None:
    """Overwrite z by `identity`."""


def identity_derivative(a: Array) -> Array:
    """``da/dz = 1``."""
    return np.ones_like(a)


def logistic(z: Array) -> Array:
    """``a = 1 / (1 + exp(-z))``, in (0, 1); any z.

    Written with ``exp(-|z|)``, which cannot overflow and keeps full relative precision in both tails.
    Source: Rumelhart, Hinton, Williams (1986).
    """
    e = np.exp(-np.abs(z))
    numerator = np.where(z >= 0, np.ones_like(e), e)
    a: Array = numerator / (e + 1)
    return a


def logistic_derivative(a: Array) -> Array:
    """``da/dz = a (1 - a)``."""
    return a * (1 - a)


def tanh(z: Array) -> Array:
    """``a = tanh(z)``, in (-1, 1); any z. Source: LeCun et al., Efficient BackProp (1998)."""
    return np.tanh(z)


def _overwrite_by_tanh(z: Array) -> None:
    np.tanh(z, out=z)


def tanh_derivative(a: Array) -> Array:
    """``da/dz = 1 - a^2``, as ``(1 - a)(1 + a)``, which does not cancel near saturation."""
    return (1 - a) * (1 + a)


def relu(z: Array) -> Array:
    """``a = max(0, z)``; any z. Source: Nair and Hinton (2010)."""
    return np.maximum(z, 0)


def _overwrite_by_relu(z: Array) -> None:
    np.maximum(z, 0, out=z)


def relu_derivative(a: Array) -> Array:
    """``da/dz = 1`` where ``a > 0``, else 0 (at the kink z = 0 too)."""
    active: NDArray[np.bool_] = a > 0
    return active.astype(a.dtype)


def leaky_relu(z: Array, slope: float) -> Array:
    """``a = z`` where ``z > 0``, else ``slope * z``; ``slope`` in (0, 1). Source: Maas, Hannun, Ng (2013)."""
    scaled: Array = slope * z
    return np.maximum(z, scaled)


def leaky_relu_derivative(a: Array, slope: float) -> Array:
    """``da/dz = 1`` where ``a > 0``, else ``slope``."""
    return np.where(a > 0, a.dtype.type(1), a.dtype.type(slope))


def elu(z: Array, alpha: float) -> Array:
    """``a = z`` where ``z > 0``, else ``alpha (exp(z) - 1)``. Source: Clevert, Unterthiner, Hochreiter (2015)."""
    return np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))


def elu_derivative(a: Array, alpha: float) -> Array:
    """``da/dz = 1`` where ``a > 0``, else ``a + alpha``."""
    return np.where(a > 0, a.dtype.type(1), a + alpha)


def softplus(z: Array) -> Array:
    """``a = log(1 + exp(z))``, positive; written ``max(z, 0) + log1p(exp(-|z|))``. Source: Dugas et al. (2001)."""
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def softplus_derivative(a: Array) -> Array:
    """``da/dz = logistic(z) = 1 - exp(-a) = -expm1(-a)``."""
    return -np.expm1(-a)


def gelu(z: Array) -> Array:
    """``a = z Phi(z)``, Phi the normal distribution function. Source: Hendrycks and Gimpel (2016), exact form."""
    from scipy.special import ndtr

    normal_distribution: Array = ndtr(z)
    return z * normal_distribution


def gelu_derivative(z: Array) -> Array:
    """``da/dz = Phi(z) + z phi(z)``, phi the normal density; from z, since gelu is not monotonic."""
    from scipy.special import ndtr

    normal_distribution: Array = ndtr(z)
    density = np.exp(-0.5 * z * z) * (1 / math.sqrt(2 * math.pi))
    return normal_distribution + z * density


def silu(z: Array) -> Array:
    """``a = z logistic(z)``. Source: Elfwing, Uchibe, Doya (2017)."""
    return z * logistic(z)


def silu_derivative(z: Array) -> Array:
    """``da/dz = s (1 + z (1 - s))`` with ``s = logistic(z)``; from z, since silu is not monotonic."""
    s = logistic(z)
    return s * (1 + z * (1 - s))


#: Scale and alpha of selu, for which activations of mean 0 and variance 1 stay so from layer to layer.
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def selu(z: Array) -> Array:
    """``a = scale z`` where ``z > 0``, else ``scale alpha (exp(z) - 1)``. Source: Klambauer et al. (2017)."""
    return np.where(z > 0, _SELU_SCALE * z, _SELU_SCALE * _SELU_ALPHA * np.expm1(np.minimum(z, 0)))


def selu_derivative(a: Array) -> Array:
    """``da/dz = scale`` where ``a > 0``, else ``a + scale alpha``."""
    return np.where(a > 0, a.dtype.type(_SELU_SCALE), a + _SELU_SCALE * _SELU_ALPHA)


def mish(z: Array) -> Array:
    """``a = z tanh(softplus(z))``. Source: Misra (2019)."""
    return z * np.tanh(softplus(z))


def mish_derivative(z: Array) -> Array:
    """``da/dz = t + z logistic(z) (1 - t^2)`` with ``t = tanh(softplus(z))``; from z, since mish is not monotonic."""
    t = np.tanh(softplus(z))
    derivative: Array = t + z * logistic(z) * (1 - t * t)
    return derivative


def softmax(z: Array) -> Array:
    """``a_k = exp(z_k) / sum_j exp(z_j)`` over the last axis; output layers only. Source: Bridle (1990).

    The largest net input of the row is subtracted first: the result is the same, and no exponential overflows.
    """
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    a: Array = e / e.sum(axis=-1, keepdims=True)
    return a


def exponential(z: Array) -> Array:
    """``a = exp(z)``, positive; output layers only (the inverse of Poisson regression's log link).

    Saturates at the fourth root of the largest number of the dtype (4e9 in float32), so that squared errors, their
    gradients and sums of both stay finite.
    """
    limit = z.dtype.type(0.25 * np.log(np.finfo(z.dtype).max))
    return np.exp(np.minimum(z, limit))


def exponential_derivative(a: Array) -> Array:
    """``da/dz = a``."""
    return a


def _no_elementwise_derivative(a: Array) -> Array:
    raise ValueError("softmax has no elementwise derivative; losses.output_delta multiplies by its Jacobian")


def _built_in(
    name: str,
    function: Callable[[Array], Array],
    derivative: Callable[[Array], Array],
    *,
    derivative_of: Literal["output", "z"] = "output",
    output_range: OutputRange = "real",
    **more: Any,
) -> Activation:
    return Activation(name, function, derivative, derivative_of, None, output_range, built_in=True, **more)


def _leaky_relu(slope: float) -> Activation:
    if not 0 < slope < 1:
        raise ValueError(f"the slope of leaky_relu must lie between 0 and 1, got {slope}")
    return _built_in(
        numbered("leaky_relu", slope, 0.01),
        partial(leaky_relu, slope=slope),
        partial(leaky_relu_derivative, slope=slope),
        kinks=(0.0,),
        parameter=slope,
        initializer="he",
        formula="z if z > 0 else p * z",
        derivative_formula="1 if z > 0 else p",
        onnx=("LeakyRelu",),
    )


def _elu(alpha: float) -> Activation:
    if not 0 < alpha < np.inf:
        raise ValueError(f"the alpha of elu must be positive, got {alpha}")
    return _built_in(
        numbered("elu", alpha, 1.0),
        partial(elu, alpha=alpha),
        partial(elu_derivative, alpha=alpha),
        kinks=(0.0,),
        parameter=alpha,
        initializer="he",
        formula="z if z > 0 else p * (exp(z) - 1)",
        derivative_formula="1 if z > 0 else a + p",
        onnx=("Elu",),
    )


_PARAMETRIC: dict[str, Callable[[float], Activation]] = {"leaky_relu": _leaky_relu, "elu": _elu}
_BUILT_IN: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        _built_in(
            "identity",
            identity,
            identity_derivative,
            formula="z",
            derivative_formula="1",
            onnx=("Identity",),
            overwrite=_leave,
        ),
        _built_in(
            "logistic",
            logistic,
            logistic_derivative,
            output_range="unit",
            formula="1 / (1 + exp(-z))",
            derivative_formula="a * (1 - a)",
            onnx=("Sigmoid",),
        ),
        _built_in(
            "tanh",
            tanh,
            tanh_derivative,
            formula="tanh(z)",
            derivative_formula="1 - a**2",
            onnx=("Tanh",),
            overwrite=_overwrite_by_tanh,
        ),
        _built_in(
            "relu",
            relu,
            relu_derivative,
            output_range="nonnegative",
            kinks=(0.0,),
            initializer="he",
            formula="max(0, z)",
            derivative_formula="1 if z > 0 else 0",
            onnx=("Relu",),
            overwrite=_overwrite_by_relu,
        ),
        _leaky_relu(0.01),
        _elu(1.0),
        _built_in(
            "softplus",
            softplus,
            softplus_derivative,
            output_range="positive",
            initializer="he",
            formula="ln(1 + exp(z))",
            derivative_formula="1 - exp(-a)",
            onnx=("Softplus",),
        ),
        _built_in(
            "gelu",
            gelu,
            gelu_derivative,
            derivative_of="z",
            initializer="he",
            formula="z * Phi(z)",
            derivative_formula="Phi(z) + z * phi(z)",
            onnx=("Gelu",),
        ),
        _built_in(
            "silu",
            silu,
            silu_derivative,
            derivative_of="z",
            initializer="he",
            formula="z / (1 + exp(-z))",
            derivative_formula="logistic(z) * (1 + z * (1 - logistic(z)))",
            onnx=("Sigmoid", "Mul"),
        ),
        _built_in(
            "selu",
            selu,
            selu_derivative,
            kinks=(0.0,),
            initializer="lecun",
            formula=f"{_SELU_SCALE} * z if z > 0 else {_SELU_SCALE * _SELU_ALPHA} * (exp(z) - 1)",
            derivative_formula=f"{_SELU_SCALE} if z > 0 else a + {_SELU_SCALE * _SELU_ALPHA}",
            onnx=("Selu",),
        ),
        _built_in(
            "mish",
            mish,
            mish_derivative,
            derivative_of="z",
            initializer="he",
            formula="z * tanh(ln(1 + exp(z)))",
            derivative_formula="tanh(ln(1 + exp(z))) + z * logistic(z) * (1 - tanh(ln(1 + exp(z)))**2)",
            onnx=("Mish",),
        ),
        _built_in(
            "softmax",
            softmax,
            _no_elementwise_derivative,
            output_range="unit",
            hidden=False,
            onnx=("Softmax",),
        ),
        _built_in(
            "exponential",
            exponential,
            exponential_derivative,
            output_range="positive",
            hidden=False,
            formula="exp(z)",
            derivative_formula="a",
            onnx=("Exp",),
        ),
    )
}

#: Names that a hidden layer may use; ``"leaky_relu(0.2)"`` and ``"elu(0.5)"`` set the parameter.
ACTIVATIONS = tuple(name for name, activation in _BUILT_IN.items() if activation.hidden)
#: Names that an output layer may use.
OUTPUT_ACTIVATIONS = tuple(_BUILT_IN)


def get_activation(activation: str | Activation, *, output: bool = False) -> Activation:
    """Return the activation of this name; an `Activation` is returned as it is.

    Parameters
    ----------
    activation : str or Activation
        A name such as ``"relu"``, ``"leaky_relu(0.2)"``, or an object.
    output : bool, default=False
        Whether it is for an output layer, where softmax and exponential are allowed too.

    Raises
    ------
    ValueError
        If the name is unknown, or only an output layer may use it.

    Examples
    --------
    >>> from gpuprop.activations import get_activation
    >>> get_activation("leaky_relu(0.2)").parameter
    0.2
    """
    if isinstance(activation, Activation):
        found = activation
    else:
        suggested = OUTPUT_ACTIVATIONS if output else ACTIVATIONS
        found = named("activation", activation, _BUILT_IN, _PARAMETRIC, suggested)
    if not output and not found.hidden:
        raise ValueError(
            f"activation {found.name!r} is for the output layer only; hidden layers take one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    return found
