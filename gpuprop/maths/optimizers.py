"""The optimizers: how gradients become new parameters.

An optimizer holds its hyperparameters and nothing else. What it remembers between updates (velocities, moments)
lies in flat arrays that the caller owns, so that it can be copied to a device, saved and resumed. An update works
in place on flat one-dimensional arrays and allocates none: intermediate results go to work arrays.

In the formulas w is a parameter, g its gradient, lr the learning rate, t the step, counted from 1. Everything is
elementwise, and every state array is zero before the first update.

Here each optimizer stands readably, with its source, in NumPy. What compiled code computes is the scalar form of its
name in `gpuprop_kernels.formulas.rules`, from which the numbers of an update, bias corrections and the like, are taken
here too. A class of the user's own needs no form: it is run as it stands.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gpuprop.errors import unknown_name
from gpuprop.maths.hyperparameters import check_hyperparameters, hyperparameter
from gpuprop_kernels.formulas.rules import adam_numbers, adamax_numbers, nadam_numbers

__all__ = [
    "FLUSH_EVERY",
    "OPTIMIZERS",
    "SGD",
    "AdaDelta",
    "AdaGrad",
    "AdaMax",
    "Adam",
    "AdamW",
    "Lion",
    "Momentum",
    "NAdam",
    "Nesterov",
    "Optimizer",
    "RMSProp",
    "clip_by_norm",
    "get_optimizer",
    "limit_incoming_norm",
]

Array = npt.NDArray[Any]
State = Mapping[str, Array]

# A velocity whose gradient stays zero decays below the normal numbers and stays there, because 0.9 times the
# smallest ones rounds to themselves; arithmetic with those is slow. Measured after five epochs of MNIST
# (784-128-10, ReLU): 1.6 % of Adam's first moments were subnormal and made its update 1.5 times as long.
FLUSH_EVERY = 32
"""Updates between two flushes of subnormal numbers in the state."""


@dataclass(frozen=True)
class Optimizer(ABC):
    """Base class of the optimizers. One of your own defines :meth:`apply` and the four class attributes.

    Attributes
    ----------
    name : str
        What the command line and model files call it.
    slots : tuple of str
        Names of the state arrays, each as long as the parameters.
    default_learning_rate : float
        Used where no learning rate is given.
    scratch_arrays : int
        How many work arrays an update needs, at least 1.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import gpuprop
    >>> @dataclass(frozen=True)
    ... class Sign(gpuprop.optimizers.Optimizer):
    ...     name = "sign"
    ...     default_learning_rate = 0.001
    ...
    ...     def apply(self, w, g, state, lr, t, scratch):
    ...         w -= lr * (g > 0) - lr * (g < 0)
    >>> trainer = gpuprop.Trainer(gpuprop.Network((2, 4, 1), seed=0), optimizer=Sign())
    """

    name: ClassVar[str]
    slots: ClassVar[tuple[str, ...]] = ()
    default_learning_rate: ClassVar[float]
    scratch_arrays: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_hyperparameters(self)

    @property
    def hyperparameters(self) -> tuple[float, ...]:
        """The values of the fields, in their order."""
        return tuple(float(getattr(self, one.name)) for one in fields(self))

    @property
    def built_in(self) -> bool:
        """Whether this is one of gpuprop's own, and not of a class that a user has derived from one."""
        return type(self) is OPTIMIZERS.get(self.name)

    def update(
        self,
        parameters: Array,
        gradients: Array,
        state: State,
        learning_rate: float,
        step: int,
        scratch: Sequence[Array],
        n_weights: int,
    ) -> None:
        """Update ``parameters`` and ``state`` in place; at times, set subnormal numbers in the state to zero.

        Parameters
        ----------
        parameters : ndarray of shape (n,), float32 or float64
            All weights, then all biases.
        gradients : ndarray of shape (n,)
            dLoss/dw of the same dtype; not changed.
        state : mapping of str to ndarray of shape (n,)
            One array for each name in ``slots``.
        learning_rate : float
            The rate of this update.
        step : int
            The number of this update, from 1.
        scratch : sequence of ndarray of shape (n,)
            At least one work array, and at least ``scratch_arrays``; what they held is lost.
        n_weights : int
            Weight decay, where there is one, touches ``parameters[:n_weights]`` only.
        """
        # A NumPy float64 scalar would promote float32 arithmetic to float64; a Python float does not.
        self.apply(parameters, gradients, state, float(learning_rate), int(step), scratch)
        if step % FLUSH_EVERY == 0:
            for values in state.values():
                _flush_subnormals(values, scratch[0])

    @abstractmethod
    def apply(self, w: Array, g: Array, state: State, lr: float, t: int, scratch: Sequence[Array]) -> None:
        """Apply the optimizer's formula in place; :meth:`update` says what the arguments are."""


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent: ``w -= lr * g``.

    References
    ----------
    H. Robbins and S. Monro, "A stochastic approximation method", Annals of Mathematical Statistics 22, 1951.

    Examples
    --------
    >>> import gpuprop
    >>> network = gpuprop.Network((2, 4, 1), seed=0)
    >>> trainer = gpuprop.Trainer(network, optimizer=gpuprop.optimizers.SGD())
    """

    name = "sgd"
    default_learning_rate = 0.1

    def apply(self, w: Array, g: Array, state: State, lr: float, t: int, scratch: Sequence[Array]) -> None:
        """Apply the formula of the class in place."""
        w -= np.multiply(g, lr, out=scratch[0])


@dataclass(frozen=True)
class Momentum(Optimizer):
    """Gradient descent with momentum: ``v = mu * v - lr * g;  w += v``.

    The velocity v contains the rates of past steps, as in scikit-learn. PyTorch's does not (``v = mu * v + g;
    w -= lr * v``): the two agree as long as the rate does not change.

    Parameters
    ----------
    momentum : float, default=0.9
        mu, in [0, 1].

    Raises
    ------
    ValueError
        If a hyperparameter is out of its range.

    References
    ----------
    B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Computational
    Mathematics and Mathematical Physics 4(5), 1964.

    Examples
    --------
    >>> import gpuprop
    >>> network = gpuprop.Network((2, 4, 1), seed=0)
    >>> trainer = gpuprop.Trainer(network, optimizer=gpuprop.optimizers.Momentum(0.95))
    """

    momentum: float = hyperparameter(0.9, "[0, 1]")

    name = "momentum"
    slots = ("velocity",)
    default_learning_rate = 0.01

    def apply(self, w: Array, g: Array, state: State, lr: float, t: int, scratch: Sequence[Array]) -> None:
        """Apply the formula of the class in place."""
        velocity = state["velocity"]
        velocity *= self.momentum
        velocity -= np.multiply(g, lr, out=scratch[0])
        w += velocity


@dataclass(frozen=True)
class Nesterov(Optimizer):
    """Nesterov's momentum: ``v = mu * v - lr * g;  w += mu * v - lr * g``, with the new v in the second formula.

    This is the form in which w is the point looked ahead to, so that the gradient is always taken at w.

    Parameters
    ----------
    momentum : float, default=0.9
        mu, in [0, 1].

    Raises
    ------
    ValueError
        If a hyperparameter is out of its range.

    References
    ----------
    Y. Nesterov, "A method of solving a convex programming problem with convergence rate O(1/k^2)", Soviet
    Mathematics Doklady 27, 1983; in this form Y. Bengio et al., "Advances in optimizing recurrent networks",
    2013, arXiv:1212.0901, equation 7.

    Examples
    --------
    >>> import gpuprop
    >>> network = gpuprop.Network((2, 4, 1), seed=0)
    >>> trainer = gpuprop.Trainer(network, optimizer=gpuprop.optimizers.Nesterov(0.95))
    """

    momentum: float = hyperparameter(0.9, "[0, 1]")

    name = "nesterov"
    slots = ("velocity",)
    default_learning_rate = 0.01

    def apply(self, w: Array, g: Array, state: State, lr: float, t: int, scratch: Sequence[Array]) -> None:
        """Apply the formula of the class in place."""
        velocity, change = state["velocity"], scratch[0]
        np.multiply(g, lr, out=change)
        velocity *= self.momentum
        velocity -= change
        w -= change
        w += np.multiply(velocity, self.momentum, out=change)


@dataclass(frozen=True)
class AdaGrad(Optimizer):
    """AdaGrad: ``s += g^2;  w -= lr * g / (sqrt(s) + epsilon)``.

    Parameters
    ----------
    epsilon : float, default=1e-10
        Keeps the quotient finite where every gradient so far was zero; above 0.

    Raises
    ------
    ValueError
        If a hyperparameter is out of its range.

    References
    ----------
    J. Duchi, E. Hazan and Y. Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", JMLR 12, 2011. The paper adds its delta to sqrt(s) too.

    Examples
    --------
    >>> import gpuprop
    >>> network = gpuprop.Network((2, 4, 1), seed=0)
    >>> trainer = gpuprop.Trainer(network, optimizer=gpuprop.optimizers.AdaGrad())
    """

    epsilon: float = hyperparameter(1e-10, "(0, inf)")

    name = "adagrad"
    slots = ("squared_sum",)
    default_learning_rate = 0.01

    def apply(self, w: Array, g: Array, state: State, lr: float, t: int, scratch: Sequence[Array]) -> None:
        """Apply the formula of the class in place."""
        squared_sum, change = state["squared_sum"], scratch[0]
        squared_sum += np.multiply(g, g, out=change)
        _root_plus(squared_sum, self.epsilon, out=change)
        np.divide(g, change, out=change)
        change *= lr
        w -= change


@dataclass(frozen=True)
class AdaDelta(Optimizer):
    """AdaDelta: steps in units of past steps, ``w -= lr * d``.

    ``s = rho * s + (1 - rho) * g^2;  d = sqrt(u + epsilon) / sqrt(s + epsilon) * g;
    u = rho * u + (1 - rho) * d^2``. The paper has no learning rate, hence the default of 1.

    Parameters
    ----------
    rho : float, default=0.95
        Decay of both averages, in [0, 1).
    epsilon : float, default=1e-6
        Inside the roots, as in the paper; it sets the size of the first steps. Above 0.

    Raises
    ------
    ValueError
        If a hyperparameter is out of its range.

    References
    ----------
    M. D. Zeiler, "ADADELTA: an adaptive learning rate method", 2012, arXiv:1212.5701, algorithm 1.

    Examples
    --------
    >>> import gpuprop
    >>> network = gpuprop.Network((2, 4, 1), seed=0)
    >>> trainer = gpuprop.Trainer(network, optimizer=gpuprop.optimizers.AdaDelta(rho=0.9))
    """

    rho: float = hyperparameter(0.95, "[0, 1)")
    epsilon: float = hyperparameter(1e-6, "(0, inf)")

    name = "adadelta"
    slots = ("squared_average", "squared_change_average")
    default_learning_rate = 1.0
    scratch_arrays = 2

    def apply(self, w: Array, g: Array, state: State, lr: float, t: int, scratch: Sequence[Array]) -> None:
        """Apply the formula of the class in place."""
        squares, squared_changes = state["squared_average"], state["squared_change_average"]
        change, work = scratch[0], scratch[1]
        _average_square(squares, g, self.rho, work)
        np.add(squared_changes, self.epsilon, out=change)
        change /= np.add(squares, self.epsilon, out=work)
        np.sqrt(change, out=change)
        change *= g
        _average_square(squared_changes, change, self.rho, work)
        change *= lr
        w -= change


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """RMSProp: ``s = rho * s + (1 - rho) * g^2;  w -= lr * g / (sqrt(s) + epsilon)``.

    Parameters
    ----------
    rho : float, default=0.9
        Decay of the average of squares, in [0, 1).
    epsilon : float, default=1e-8
        Keeps the quotient finite for zero gradients; above 0.

    Raises
    ------
    ValueError
        If a hyperparameter is out of its range.

    References
    ----------
    T. Tieleman and G. Hinton, lecture 6.5 of "Neural networks for machine learning", Coursera, 2012.

    Examples
    --------
    >>> import gpuprop
    >>> network = gpuprop.Network((2, 4, 1), seed=0)
    >>> trainer = gpuprop.Trainer(network, optimizer=gpuprop.optimizers.RMSProp(rho=0.99))
    """

    rho: float = hyperparameter(0.9, "[0, 1)")
    epsilon: float = hyperparameter(1e-8, "(0, inf)")

    name = "rmsprop"
    slots = ("squared_average",)
    default_learning_rate = 0.001

    def apply(self, w: Array, g: Array, state: State, lr: float, t: int, scratch: Sequence[Array]) -> None:
        """Apply the formula of the class in place."""
        squares, change = state["squared_average"], scratch[0]
        _average_square(squares, g, self.rho, change)
        _root_plus(squares, self.epsilon, out=change)
        np.divide(g, change, out=change)
        change *= lr
        w -= change


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam: ``m = b1 * m + (1 - b1) * g;  v = b2 * v + (1 - b2) * g^2``, bias-corrected.

    ``w -= lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon)``. Epsilon stands where scikit-learn has it,
    which is the "more efficient order" at the end of the paper's section 2; the paper's algorithm 1 and PyTorch
    add it after the correction of v, which is the same as ``epsilon * sqrt(1 - b2^t)`` here.

    Parameters
    ----------
    beta_1 : float, default=0.9
        b1, decay of the first moment, in [0, 1).
    beta_2 : float, default=0.999
        b2, decay of the second moment, in [0, 1).
    epsilon : float, default=1e-8
        Keeps the quotient finite for zero gradients; above 0.

    Raises
    ------
    ValueError
        If a hyperparameter is out of its range.

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", 2014, arXiv:1412.6980.

    Examples
    --------
    >>> import gpuprop
    >>> network = gpuprop.Network((2, 4, 1), seed=0)
    >>> trainer = gpuprop.Trainer(network, optimizer=gpuprop.optimizers.Adam(beta_2=0.99))
    """

    beta_1: float = hyperparameter(0.9, "[0, 1)")
    beta_2: float = hyperparameter(0.999, "[0, 1)")
    epsilon: float = hyperparameter(1e-8, "(0, inf)")

    name = "adam"
    slots = ("first_moment", "second_moment")
    default_learning_rate = 0.001

    def corrected_rate(self, learning_rate: float, step: int) -> float:
        """Return ``lr * sqrt(1 - b2^t) / (1 - b1^t)``, the rate with both bias corrections in it."""
        return adam_numbers(learning_rate, step, (self.beta_1, self.beta_2, self.epsilon))[0]

    def apply(self, w: Array, g: Array, state: State, lr: float, t: int, scratch: Sequence[Array]) -> None:
        """Apply the formula of the class in place."""
        first, second, change = state["first_moment"], state["second_moment"], scratch[0]
        _average(first, g, self.beta_1, change)
        _average_square(second, g, self.beta_2, change)
        _root_plus(second, self.epsilon, out=change)
        np.divide(first, change, out=change)
        change *= self.corrected_rate(lr, t)
        w -= change


@dataclass(frozen=True)
class AdaMax(Optimizer):
    """AdaMax: Adam with the infinity norm, ``u = max(b2 * u, |g| + epsilon)`` in place of sqrt(v).

    ``m = b1 * m + (1 - b1) * g;  w -= lr / (1 - b1^t) * m / u``.

    Parameters
    ----------
    beta_1 : float, default=0.9
        b1, decay of the first moment, in [0, 1).
    beta_2 : float, default=0.999
        b2, decay of the norm, in [0, 1).
    epsilon : float, default=1e-8
        The paper has none and divides 0 by 0 where a gradient is zero from the start; it stands where PyTorch
        has it. Above 0.

    Raises
    ------
    ValueError
        If a hyperparameter is out of its range.

    References
    ----------
    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", 2014, arXiv:1412.6980, section 7.1.

    Examples
    --------
    >>> import gpuprop
    >>> network = gpuprop.Network((2, 4, 1), seed=0)
    >>> trainer = gpuprop.Trainer(network, optimizer=gpuprop.optimizers.AdaMax())
    """

    beta_1: float = hyperparameter(0.9, "[0, 1)")
    beta_2: float = hyperparameter(0.999, "[0, 1)")
    epsilon: float = hyperparameter(1e-8, "(0, inf)")

    name = "adamax"
    slots = ("first_moment", "infinity_norm")
    default_learning_rate = 0.002

    def apply(self, w: Array, g: Array, state: State, lr: float, t: int, scratch: Sequence[Array]) -> None:
        """Apply the formula of the class in place."""
        first, norm, change = state["first_moment"], state["infinity_norm"], scratch[0]
        _average(first, g, self.beta_1, change)
        np.absolute(g, out=change)
        change += self.epsilon
        norm *= self.beta_2
        np.maximum(norm, change, out=norm)
        np.divide(first, norm, out=change)
        change *= adamax_numbers(lr, t, self.hyperparameters)[0]
        w -= change


@dataclass(frozen=True)
class NAdam(Optimizer):
    """NAdam: Adam with Nesterov's momentum and a momentum that rises with the step.

    With ``mu_t = b1 * (1 - 0.96^(t * momentum_decay) / 2)``, ``M_t = mu_1 * ... * mu_t`` and the moments of Adam,
    ``w -= lr * sqrt(1 - b2^t) * ((1 - mu_t) / (1 - M_t) * g + mu_(t+1) / (1 - M_(t+1)) * m) / (sqrt(v) + epsilon)``.
    The schedule of mu is that of the paper, written as in PyTorch; epsilon stands as in :class:`Adam`.

    Parameters
    ----------
    beta_1 : float, default=0.9
        b1, decay of the first moment and the limit of mu, in [0, 1).
    beta_2 : float, default=0.999
        b2, decay of the second moment, in [0, 1).
    epsilon : float, default=1e-8
        Keeps the quotient finite for zero gradients; above 0.
    momentum_decay : float, default=0.004
        How fast mu rises from about b1 / 2 towards b1; 0 or more.

    Raises
    ------
    ValueError
        If a hyperparameter is out of its range.

    References
    ----------
    T. Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop, 2016, algorithm 8.

    Examples
    --------
    >>> import gpuprop
    >>> network = gpuprop.Network((2, 4, 1), seed=0)
    >>> trainer = gpuprop.Trainer(network, optimizer=gpuprop.optimizers.NAdam())
    """

    beta_1: float = hyperparameter(0.9, "[0, 1)")
    beta_2: float = hyperparameter(0.999, "[0, 1)")
    epsilon: float = hyperparameter(1e-8, "(0, inf)")
    momentum_decay: float = hyperparameter(0.004, "[0, inf)")

    name = "nadam"
    slots = ("first_moment", "second_moment")
    default_learning_rate = 0.002
    scratch_arrays = 2

    def corrected_rates(self, learning_rate: float, step: int) -> tuple[float, float]:
        """Return the factors of g and of m in the formula of the class, bias corrections included."""
        of_moment, *_, minus_of_gradient = nadam_numbers(learning_rate, step, self.hyperparameters)
        return -minus_of_gradient, of_moment

    def apply(self, w: Array, g: Array, state: State, lr: float, t: int, scratch: Sequence[Array]) -> None:
        """Apply the formula of the class in place."""
        first, second = state["first_moment"], state["second_moment"]
        change, work = scratch[0], scratch[1]
        _average(first, g, self.beta_1, work)
        _average_square(second, g, self.beta_2, work)
        gradient_rate, moment_rate = self.corrected_rates(lr, t)
        np.multiply(first, moment_rate, out=change)
        change += np.multiply(g, gradient_rate, out=work)
        change /= _root_plus(second, self.epsilon, out=work)
        w -= change


class _Decaying(Optimizer):
    """Base class of the optimizers that shrink weights apart from the gradient: ``w -= lr * weight_decay * w``."""

    weight_decay: float

    def update(
        self,
        parameters: Array,
        gradients: Array,
        state: State,
        learning_rate: float,
        step: int,
        scratch: Sequence[Array],
        n_weights: int,
    ) -> None:
        """Decay the weights, then apply the formula; see :meth:`Optimizer.update`."""
        weights = parameters[:n_weights]
        weights -= np.multiply(weights, float(learning_rate) * self.weight_decay, out=scratch[0][:n_weights])
        super().update(parameters, gradients, state, learning_rate, step, scratch, n_weights)


@dataclass(frozen=True)
class AdamW(_Decaying, Adam):
    """Adam with decoupled weight decay: ``w -= lr * weight_decay * w``, then Adam's update.

    The decay touches weights and not biases, and stays out of the moments, unlike an L2 penalty.

    Parameters
    ----------
    beta_1, beta_2, epsilon : float
        As in :class:`Adam`.
    weight_decay : float, default=0.01
        0 or more.

    Raises
    ------
    ValueError
        If a hyperparameter is out of its range.

    References
    ----------
    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", 2019, arXiv:1711.05101, algorithm 2;
    the decay is multiplied by the learning rate, as in PyTorch.

    Examples
    --------
    >>> import gpuprop
    >>> network = gpuprop.Network((2, 4, 1), seed=0)
    >>> trainer = gpuprop.Trainer(network, optimizer=gpuprop.optimizers.AdamW(weight_decay=0.1))
    """

    weight_decay: float = hyperparameter(0.01, "[0, inf)")

    name = "adamw"


@dataclass(frozen=True)
class Lion(_Decaying):
    """Lion: steps of one size, ``c = b1 * m + (1 - b1) * g;  w -= lr * (sign(c) + weight_decay * w)``.

    Then ``m = b2 * m + (1 - b2) * g``. The decay touches weights and not biases. Steps do not shrink with the
    gradient, so that the learning rate should be three to ten times smaller than Adam's, as the paper says.

    Parameters
    ----------
    beta_1 : float, default=0.9
        b1, share of the moment in the direction of a step, in [0, 1).
    beta_2 : float, default=0.99
        b2, decay of the moment, in [0, 1).
    weight_decay : float, default=0.01
        0 or more.

    Raises
    ------
    ValueError
        If a hyperparameter is out of its range.

    References
    ----------
    X. Chen et al., "Symbolic discovery of optimization algorithms", 2023, arXiv:2302.06675, algorithm 2.

    Examples
    --------
    >>> import gpuprop
    >>> network = gpuprop.Network((2, 4, 1), seed=0)
    >>> trainer = gpuprop.Trainer(network, optimizer=gpuprop.optimizers.Lion())
    """

    beta_1: float = hyperparameter(0.9, "[0, 1)")
    beta_2: float = hyperparameter(0.99, "[0, 1)")
    weight_decay: float = hyperparameter(0.01, "[0, inf)")

    name = "lion"
    slots = ("first_moment",)
    default_learning_rate = 0.001
    scratch_arrays = 2

    def apply(self, w: Array, g: Array, state: State, lr: float, t: int, scratch: Sequence[Array]) -> None:
        """Apply the formula of the class in place, without the decay."""
        moment, change, work = state["first_moment"], scratch[0], scratch[1]
        np.multiply(moment, self.beta_1, out=change)
        change += np.multiply(g, 1.0 - self.beta_1, out=work)
        np.sign(change, out=change)
        change *= lr
        w -= change
        _average(moment, g, self.beta_2, work)


#: The optimizers by name.
OPTIMIZERS: dict[str, type[Optimizer]] = {
    kind.name: kind for kind in (SGD, Momentum, Nesterov, AdaGrad, AdaDelta, RMSProp, Adam, AdaMax, NAdam, AdamW, Lion)
}


def get_optimizer(optimizer: str | Optimizer) -> Optimizer:
    """Return an optimizer by its name, with default hyperparameters; an instance is returned as it is.

    Raises
    ------
    ValueError
        If there is no optimizer of that name; the message suggests the nearest one.

    Examples
    --------
    >>> from gpuprop.optimizers import get_optimizer
    >>> get_optimizer("momentum")
    Momentum(momentum=0.9)
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    if optimizer not in OPTIMIZERS:
        raise unknown_name("optimizer", optimizer, OPTIMIZERS)
    return OPTIMIZERS[optimizer]()


def clip_by_norm(gradients: Array, max_norm: float, scratch: Array) -> float:
    """Scale gradients in place so that their Euclidean norm, over all of them together, is at most ``max_norm``.

    The squares are those of g / max|g|, so that neither do large gradients overflow nor tiny ones vanish; NumPy
    adds them pairwise, which loses little in float32 (N. J. Higham, SIAM J. Sci. Comput. 14, 1993).

    Parameters
    ----------
    gradients : ndarray of shape (n,)
        Left as they are where the norm is small enough, and where one of them is NaN or infinite: clipping
        would hide that.
    max_norm : float
        Above 0.
    scratch : ndarray of shape (n,)
        A work array of the same dtype; what it held is lost.

    Returns
    -------
    float
        The norm before clipping; NaN or infinity if a gradient is.

    References
    ----------
    R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training recurrent neural networks", 2013,
    arXiv:1211.5063, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuprop.optimizers import clip_by_norm
    >>> gradients = np.array([3.0, 4.0])
    >>> float(clip_by_norm(gradients, 1.0, np.empty(2)))
    5.0
    >>> gradients.round(2).tolist()
    [0.6, 0.8]
    """
    max_norm = _positive_norm(max_norm)
    largest = float(max(gradients.max(), -gradients.min()))
    if not 0.0 < largest < math.inf:
        return largest
    np.divide(gradients, largest, out=scratch)
    np.multiply(scratch, scratch, out=scratch)
    scaled_norm = math.sqrt(scratch.sum())
    norm = largest * scaled_norm
    if norm > max_norm:
        # In two steps, because the single factor max_norm / norm can be too small for float32.
        gradients /= largest
        gradients *= max_norm / scaled_norm
    return norm


def limit_incoming_norm(weights: Array, max_norm: float) -> None:
    """Scale the incoming weights of each unit in place to a Euclidean norm of at most ``max_norm``.

    Parameters
    ----------
    weights : ndarray of shape (fan_in, fan_out)
        Column j holds the incoming weights of unit j. Columns whose norm is small enough, or not finite, are
        left as they are.
    max_norm : float
        Above 0.

    References
    ----------
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15, 2014,
    section 5.1.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuprop.optimizers import limit_incoming_norm
    >>> weights = np.array([[3.0, 0.3], [4.0, 0.4]])
    >>> limit_incoming_norm(weights, 1.0)
    >>> weights.round(2).tolist()
    [[0.6, 0.3], [0.8, 0.4]]
    """
    max_norm = _positive_norm(max_norm)
    norms = np.sqrt(np.einsum("ij,ij->j", weights, weights, dtype=np.float64))
    too_long = (norms > max_norm) & (norms < math.inf)
    if too_long.any():
        factors = np.divide(max_norm, norms, out=np.ones_like(norms), where=too_long)
        weights *= factors.astype(weights.dtype)


def _positive_norm(max_norm: float) -> float:
    """Return ``max_norm`` as a Python float, or raise."""
    if not max_norm > 0:
        raise ValueError(f"got max_norm={max_norm!r}, expected a number above 0; use None for no limit")
    return float(max_norm)


def _flush_subnormals(values: Array, work: Array) -> None:
    """Set what is smaller than the smallest normal number to zero."""
    np.absolute(values, out=work)
    np.greater_equal(work, np.finfo(work.dtype).tiny, out=work)
    values *= work


def _average(mean: Array, sample: Array, decay: float, work: Array) -> None:
    """``mean = decay * mean + (1 - decay) * sample``; ``work`` may be ``sample``."""
    mean *= decay
    mean += np.multiply(sample, 1.0 - decay, out=work)


def _average_square(mean: Array, sample: Array, decay: float, work: Array) -> None:
    """``mean = decay * mean + (1 - decay) * sample**2``."""
    _average(mean, np.multiply(sample, sample, out=work), decay, work)


def _root_plus(squares: Array, epsilon: float, out: Array) -> Array:
    """``out = sqrt(squares) + epsilon``."""
    np.sqrt(squares, out=out)
    out += epsilon
    return out
