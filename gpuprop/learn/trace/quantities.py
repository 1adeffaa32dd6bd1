"""Every number of a round with its symbol, in the notation of the worked example: net, out, delta, w1, w1+.

Inputs are i1, i2, ..., the units of the hidden layer h1, h2, ... (with several hidden layers h1.1, h1.2, ..., h2.1,
...), and outputs o1, o2, .... Weights are counted as in the texts: unit by unit, and for each unit in the order of its
inputs; in a large network they are named by the units at their ends, ``w(i7,h3)``. The methods count units and layers
from 0, and layer 0 holds the inputs.

Each notation is a class with these methods; `NOTATIONS` lists the three.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from gpuprop.learn.trace.expressions import Derivative, Symbol

if TYPE_CHECKING:
    from gpuprop.learn.trace.descent import LayerNumbers, Round

__all__ = ["NOTATIONS", "CodeQuantities", "LectureQuantities", "Quantities"]


class Quantities:
    """The symbols of one round, in the notation of the worked example.

    Parameters
    ----------
    numbers : Round
    layer_sizes : tuple of int
    learning_rate : float
    numbered : bool
        Whether weights are numbered, ``w1, w2, ...``, or named by the units at their ends.
    """

    #: Error, output, net input, weight, delta and target in a general rule, without the index of a unit.
    GENERAL: ClassVar[tuple[str, ...]] = ("E", "out", "net", "w", "delta", "target")
    LEARNING_RATE: ClassVar[str] = "eta"
    BIAS: ClassVar[str] = "b"

    def __init__(self, numbers: Round, layer_sizes: tuple[int, ...], learning_rate: float, numbered: bool) -> None:
        self._round = numbers
        self._top = len(layer_sizes) - 1
        self._numbered = numbered
        self._layer_sizes = layer_sizes
        self._weights_below = [0, 0]  # the number of weights before those into layer 1, 2, ...
        for fan_in, fan_out in pairwise(layer_sizes):
            self._weights_below.append(self._weights_below[-1] + fan_in * fan_out)
        self.error = self.final_error(numbers.loss)
        self.learning_rate = Symbol(self.LEARNING_RATE, "", learning_rate)

    @classmethod
    def final_error(cls, value: float) -> Symbol:
        """The error of the network."""
        return Symbol(cls.GENERAL[0], "", value)

    @classmethod
    def final_output(cls, top: int, k: int, value: float) -> Symbol:
        """Output k after the last round; `top` is the index of the output layer."""
        return Symbol("out", f"o{k + 1}", value)

    def unit(self, layer: int, j: int) -> str:
        """The name of a unit: i1, h1, o1."""
        if layer == 0:
            return f"i{j + 1}"
        if layer == self._top:
            return f"o{j + 1}"
        return f"h{j + 1}" if self._top == 2 else f"h{layer}.{j + 1}"

    def net(self, layer: int, j: int) -> Symbol:
        """The net input z."""
        return Symbol("net", self.unit(layer, j), self._value(layer, "z", j))

    def out(self, layer: int, j: int) -> Symbol:
        """The output a; in layer 0 the input."""
        if layer == 0:
            return Symbol("i", str(j + 1), float(self._round.inputs[j]))
        return Symbol("out", self.unit(layer, j), self._value(layer, "activations", j))

    def target(self, k: int) -> Symbol:
        """The target of output k."""
        return Symbol("target", self.unit(self._top, k), float(self._round.targets[k]))

    def output_error(self, k: int) -> Symbol:
        """Output k's share of the error."""
        return Symbol("E", self.unit(self._top, k), float(self._round.errors[k]))

    def weight(self, layer: int, i: int, j: int, *, new: bool = False) -> Symbol:
        """The weight into unit j of `layer`, from unit i of the layer below."""
        if self._numbered:
            number = self._weights_below[layer] + j * self._layer_sizes[layer - 1] + i + 1
            index = str(number)
        else:
            index = f"{self.unit(layer - 1, i)},{self.unit(layer, j)}"
        return Symbol("w", index, self._value(layer, "new_weights" if new else "weights", (i, j)), new)

    def bias(self, layer: int, j: int, *, new: bool = False) -> Symbol:
        """The bias of unit j."""
        return Symbol("b", self.unit(layer, j), self._value(layer, "new_biases" if new else "biases", j), new)

    def error_by_out(self, layer: int, j: int) -> Derivative:
        """``dE/dout``."""
        return Derivative(self.error, self.out(layer, j), self._value(layer, "backprop_error", j))

    def output_error_by_out(self, k: int, j: int, weight: Symbol) -> Derivative:
        """``dE_ok/dout_hj``: the share of output k in ``dE/dout`` of unit j of the last hidden layer."""
        share = self.delta(self._top, k).value * weight.value
        return Derivative(self.output_error(k), self.out(self._top - 1, j), share)

    def out_by_net(self, layer: int, j: int) -> Derivative:
        """``dout/dnet``; softmax has none."""
        return Derivative(self.out(layer, j), self.net(layer, j), self._value(layer, "derivative", j))

    def net_by_weight(self, layer: int, i: int, j: int) -> Derivative:
        """``dnet/dw``: the output that the weight multiplies."""
        return Derivative(self.net(layer, j), self.weight(layer, i, j), self.out(layer - 1, i).value)

    def delta(self, layer: int, j: int) -> Symbol:
        """``dE/dnet``."""
        return Symbol("delta", self.unit(layer, j), self._value(layer, "delta", j))

    def error_by_weight(self, layer: int, i: int, j: int) -> Derivative:
        """``dE/dw``."""
        return Derivative(self.error, self.weight(layer, i, j), self._value(layer, "weight_grads", (i, j)))

    def error_by_bias(self, layer: int, j: int) -> Derivative:
        """``dE/db``."""
        return Derivative(self.error, self.bias(layer, j), self._value(layer, "bias_grads", j))

    def _value(self, layer: int, name: str, index: Any) -> float:
        numbers: LayerNumbers = self._round.layers[layer - 1]
        return float(getattr(numbers, name)[index])


class CodeQuantities(Quantities):
    """The symbols as elements of the library's arrays: ``z[1][0]``, ``weights[0][1, 0]``; layer 0 holds the inputs."""

    GENERAL = ("loss", "a", "z", "weights", "delta", "y")
    LEARNING_RATE = "learning_rate"

    @classmethod
    def final_output(cls, top: int, k: int, value: float) -> Symbol:
        """``a[L][k]``."""
        return Symbol(f"a[{top}][{k}]", "", value)

    def unit(self, layer: int, j: int) -> str:
        """The unit's output."""
        return f"a[{layer}][{j}]"

    def net(self, layer: int, j: int) -> Symbol:
        """``z[l][j]``."""
        return Symbol(f"z[{layer}][{j}]", "", self._value(layer, "z", j))

    def out(self, layer: int, j: int) -> Symbol:
        """``a[l][j]``; ``a[0]`` is the sample."""
        inputs = self._round.inputs
        value = float(inputs[j]) if layer == 0 else self._value(layer, "activations", j)
        return Symbol(f"a[{layer}][{j}]", "", value)

    def target(self, k: int) -> Symbol:
        """``y[k]``."""
        return Symbol(f"y[{k}]", "", float(self._round.targets[k]))

    def output_error(self, k: int) -> Symbol:
        """``loss[k]``."""
        return Symbol(f"loss[{k}]", "", float(self._round.errors[k]))

    def weight(self, layer: int, i: int, j: int, *, new: bool = False) -> Symbol:
        """``weights[l - 1][i, j]``."""
        value = self._value(layer, "new_weights" if new else "weights", (i, j))
        return Symbol(f"weights[{layer - 1}][{i}, {j}]", "", value, new)

    def bias(self, layer: int, j: int, *, new: bool = False) -> Symbol:
        """``biases[l - 1][j]``."""
        value = self._value(layer, "new_biases" if new else "biases", j)
        return Symbol(f"biases[{layer - 1}][{j}]", "", value, new)

    def delta(self, layer: int, j: int) -> Symbol:
        """``delta[l][j]``."""
        return Symbol(f"delta[{layer}][{j}]", "", self._value(layer, "delta", j))


class LectureQuantities(Quantities):
    """The lecture's symbols: z^(l), a^(l), and Theta^(l) with the biases in column 0; layers and units count from 1.

    Layer 1 holds the inputs, so that layer l of the library is the lecture's layer l + 1. ``Theta^(l)`` leads from
    layer l to layer l + 1; `Network.theta` returns these matrices. The notation is that of Andrew Ng's Machine Learning
    course.
    """

    GENERAL = ("J", "a", "z", "Theta", "delta", "y")
    LEARNING_RATE = "alpha"
    BIAS = "Theta_0"

    @classmethod
    def final_output(cls, top: int, k: int, value: float) -> Symbol:
        """``a^(L)_k``."""
        return Symbol("a", str(k + 1), value, level=str(top + 1))

    def unit(self, layer: int, j: int) -> str:
        """The unit's output."""
        return f"a^({layer + 1})_{j + 1}"

    def net(self, layer: int, j: int) -> Symbol:
        """``z^(l)_j``."""
        return Symbol("z", str(j + 1), self._value(layer, "z", j), level=str(layer + 1))

    def out(self, layer: int, j: int) -> Symbol:
        """``a^(l)_j``."""
        inputs = self._round.inputs
        value = float(inputs[j]) if layer == 0 else self._value(layer, "activations", j)
        return Symbol("a", str(j + 1), value, level=str(layer + 1))

    def target(self, k: int) -> Symbol:
        """``y_k``."""
        return Symbol("y", str(k + 1), float(self._round.targets[k]))

    def output_error(self, k: int) -> Symbol:
        """``J_k``."""
        return Symbol("J", str(k + 1), float(self._round.errors[k]))

    def weight(self, layer: int, i: int, j: int, *, new: bool = False) -> Symbol:
        """``Theta^(l)_j,i``: the row is the unit that the weight enters."""
        value = self._value(layer, "new_weights" if new else "weights", (i, j))
        return Symbol("Theta", f"{j + 1},{i + 1}", value, new, level=str(layer))

    def bias(self, layer: int, j: int, *, new: bool = False) -> Symbol:
        """``Theta^(l)_j,0``."""
        value = self._value(layer, "new_biases" if new else "biases", j)
        return Symbol("Theta", f"{j + 1},0", value, new, level=str(layer))

    def delta(self, layer: int, j: int) -> Symbol:
        """``delta^(l)_j``."""
        return Symbol("delta", str(j + 1), self._value(layer, "delta", j), level=str(layer + 1))


#: The notations that a trace can be written in.
NOTATIONS: dict[str, type[Quantities]] = {
    "code": CodeQuantities,
    "mazur": Quantities,
    "lecture": LectureQuantities,
}
