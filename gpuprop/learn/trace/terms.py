"""The terms of a round, each a symbol, a formula and a value, in the order of the algorithm.

The terms show every unit of a network with few weights. Of a larger network they show a single path, through the most
active unit of each layer to the output with the largest error; the contribution of the other units to a sum on that
path is one number, ``others``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpuprop.learn.trace import formulas
from gpuprop.learn.trace.expressions import (
    Call,
    Derivative,
    Expression,
    Number,
    Quantity,
    Quotient,
    Sum,
    Symbol,
    evaluate,
)
from gpuprop.learn.trace.formulas import minus, times
from gpuprop.learn.trace.quantities import NOTATIONS

if TYPE_CHECKING:
    from gpuprop.learn.trace.descent import DescentRule, Round
    from gpuprop.model.network import Network

__all__ = ["MAX_WEIGHTS", "Section", "Term", "TermBuilder"]

#: Of a network with more weights than this only one path is shown, because the whole would fill many screens.
MAX_WEIGHTS = 32
#: The same holds if a layer has more units than this, because its sums would not fit on a line.
MAX_UNITS = 8


@dataclass(frozen=True)
class Term:
    """One line of the computation.

    Attributes
    ----------
    symbol : Symbol or Derivative
        The quantity that is computed.
    formula : expression
        Its formula; see `gpuprop.learn.trace.expressions`.

    Examples
    --------
    >>> import gpuprop
    >>> steps = gpuprop.trace(*gpuprop.trace.worked_example())
    >>> steps.terms[0].symbol.name, round(steps.terms[0].value, 4)
    ('net', 0.3775)
    """

    symbol: Quantity
    formula: Expression

    @property
    def value(self) -> float:
        """The result that the library's step computed."""
        return self.symbol.value


@dataclass(frozen=True)
class Section:
    """The terms of one stage of the algorithm.

    Attributes
    ----------
    title : str
    remark : str
        One sentence that says what the stage does.
    rule : tuple of expressions
        The same as a chain of equal expressions, in symbols without values; it may be empty.
    terms : tuple of Term

    Examples
    --------
    >>> import gpuprop
    >>> steps = gpuprop.trace(*gpuprop.trace.worked_example())
    >>> steps.sections[0].title
    'Forward: hidden layer (logistic)'
    """

    title: str
    remark: str
    rule: tuple[Expression, ...]
    terms: tuple[Term, ...]


class TermBuilder:
    """Writes the terms of one round of a network.

    Parameters
    ----------
    network : Network
    numbers : Round
    rule : DescentRule
    notation : {"code", "mazur", "lecture"}, default="mazur"

    Attributes
    ----------
    whole : bool
        Whether all units are shown, or only one path.
    units : list of lists of int
        The units of each layer that are shown, inputs first.
    quantities : Quantities
        The symbols of the round.
    """

    def __init__(self, network: Network, numbers: Round, rule: DescentRule, notation: str = "mazur") -> None:
        self._network = network
        self._round = numbers
        self._rule = rule
        self._top = network.n_layers
        self.whole = network.n_weights <= MAX_WEIGHTS and max(network.layer_sizes) <= MAX_UNITS
        if self.whole:
            self.units = [list(range(size)) for size in network.layer_sizes]
        else:
            activity = [numbers.inputs, *(layer.activations for layer in numbers.layers[:-1]), numbers.errors]
            self.units = [[int(np.argmax(np.abs(a)))] for a in activity]
        self.quantities = NOTATIONS[notation](numbers, network.layer_sizes, rule.learning_rate, numbered=self.whole)
        # The symbols of the general rules, without the index of a unit.
        self._general = [Symbol(name, "", math.nan) for name in self.quantities.GENERAL]

    def given(self) -> list[tuple[str, list[Symbol]]]:
        """Return the numbers that the round starts from: inputs, targets, weights, biases and the learning rate."""
        q, layers = self.quantities, range(1, self._top + 1)
        return [
            ("inputs", [q.out(0, i) for i in self.units[0]]),
            ("targets", [q.target(k) for k in self.units[-1]]),
            ("weights", [q.weight(layer, i, j) for layer in layers for j, i in self._edges(layer)]),
            ("biases", [q.bias(layer, j) for layer in layers for j in self.units[layer]]),
            ("learning rate", [q.learning_rate]),
        ]

    def sections(self) -> tuple[Section, ...]:
        """Return all terms, stage by stage."""
        layers = range(1, self._top + 1)
        stages = [self._forward_section(layer) for layer in layers]
        loss = self._network.loss_function.name
        addends = (
            "the outputs' shares and the penalty" if self._network.l1 or self._network.l2 else "the outputs' shares"
        )
        stages.append(Section(f"Error: {loss}", f"The error is the sum of {addends}.", (), tuple(self._errors())))
        for layer in reversed(layers):
            stages += [self._delta_section(layer), self._gradient_section(layer)]
            if self._rule.weights == "updated":  # before the next deltas are formed with them
                stages.append(self._update_section(self._name(layer), [layer]))
        if self._rule.weights == "original":
            stages.append(self._update_section("all layers", layers))
        return tuple(stages)

    def _name(self, layer: int) -> str:
        if layer == self._top:
            return "output layer"
        return "hidden layer" if self._top == 2 else f"hidden layer {layer}"

    def _forward_section(self, layer: int) -> Section:
        activation = self._network.layer_activations[layer - 1].name
        remark = "Each unit sums its weighted inputs and applies its activation function."
        return Section(f"Forward: {self._name(layer)} ({activation})", remark, (), tuple(self._forward(layer)))

    def _delta_section(self, layer: int) -> Section:
        error, out, net, _, delta, target = self._general
        rule: tuple[Expression, ...] = (delta, Derivative(error, net, math.nan))
        if layer < self._top and self._rule.weights == "updated":
            remark = "This is the variant: these deltas are formed with weights that have already been updated."
        elif layer < self._top:
            remark = "A hidden unit has a share in the error of each unit that it feeds; the weights are the old ones."
        elif self._canonical:
            remark = f"With this loss the derivative of {self._network.output_activation.name} cancels."
            rule += (minus(out, target),)
        else:
            remark = "A delta says how the error changes with a unit's net input."
        return Section(f"Backward: {self._name(layer)}", remark, rule, tuple(self._deltas(layer)))

    def _gradient_section(self, layer: int) -> Section:
        error, out, net, weight, delta, _ = self._general
        last = times(delta, Derivative(net, weight, math.nan))
        chain = (Derivative(error, out, math.nan), Derivative(out, net, math.nan), Derivative(net, weight, math.nan))
        softmax = self._network.layer_activations[layer - 1].name == "softmax"  # it has no dout/dnet of one unit
        rule = (Derivative(error, weight, math.nan), *(() if softmax else (times(*chain),)), last)
        return Section(
            f"Gradients: {self._name(layer)}",
            "The chain rule gives the derivative by each weight.",
            rule,
            tuple(self._gradients(layer)),
        )

    def _update_section(self, name: str, layers: Iterable[int]) -> Section:
        error, _, _, weight, _, _ = self._general
        rule = (
            Symbol(weight.name, "", math.nan, new=True),
            minus(weight, times(self.quantities.learning_rate, Derivative(error, weight, math.nan))),
        )
        terms = [term for layer in layers for term in self._updates(layer)]
        return Section(f"Update: {name}", "Each weight takes a step against its gradient.", rule, tuple(terms))

    @property
    def _canonical(self) -> bool:
        return self._network.output_activation.name == self._network.loss_function.canonical

    # --- forward -------------------------------------------------------------------------------------------------

    def _forward(self, layer: int) -> Iterator[Term]:
        q, activation = self.quantities, self._network.layer_activations[layer - 1]
        for j in self.units[layer]:
            products = [times(q.weight(layer, i, j), q.out(layer - 1, i)) for i in self.units[layer - 1]]
            yield Term(q.net(layer, j), self._sum(q.net(layer, j), layer - 1, products, q.bias(layer, j)))
            if activation.name != "softmax":
                yield Term(q.out(layer, j), formulas.activation_formula(activation, q.net(layer, j)))
        if activation.name == "softmax":
            yield from self._softmax()

    def _softmax(self) -> Iterator[Term]:
        """Yield the terms of softmax, which subtracts the largest net input first so that no exponential overflows."""
        q, top = self.quantities, self._top
        z = self._round.layers[-1].z.astype(np.float64)
        largest = Symbol("m", "", float(z.max()))
        total = Symbol("S", "", float(np.exp(z - z.max()).sum()))
        units = self.units[top]
        exponentials = [formulas.exp(minus(q.net(top, k), largest)) for k in units]
        if self.whole:
            yield Term(largest, Call("max", lambda *values: max(values), tuple(q.net(top, k) for k in units)))
        else:
            yield Term(largest, Call(f"max of all {len(z)} net", lambda: float(z.max()), ()))
        yield Term(total, self._sum(total, top, exponentials))
        for k, exponential in zip(units, exponentials, strict=True):
            yield Term(q.out(top, k), Quotient(exponential, total))

    def _errors(self) -> Iterator[Term]:
        q, loss = self.quantities, self._network.loss_function
        for k in self.units[-1]:
            yield Term(q.output_error(k), formulas.error_formula(loss, q.out(self._top, k), q.target(k)))
        shares: list[Expression] = [q.output_error(k) for k in self.units[-1]]
        penalty = self._penalty()
        if penalty is not None:
            yield penalty
            yield Term(q.error, self._sum(q.error, self._top, shares, penalty.symbol))
        else:
            yield Term(q.error, self._sum(q.error, self._top, shares))

    def _penalty(self) -> Term | None:
        l1, l2 = self._network.l1, self._network.l2
        if not (l1 or l2):
            return None
        weights = np.concatenate([layer.weights.ravel() for layer in self._round.layers]).astype(np.float64)
        absolute, squares = float(np.abs(weights).sum()), float(weights @ weights)
        parts: list[Expression] = []
        if l1:
            parts.append(times(Symbol("l", "1", l1), Symbol("sum of |w|", "", absolute)))
        if l2:
            parts.append(times(Quotient(Symbol("l", "2", l2), Number(2.0)), Symbol("sum of w^2", "", squares)))
        return Term(Symbol("penalty", "", l1 * absolute + 0.5 * l2 * squares), _summed(parts))

    # --- backward ------------------------------------------------------------------------------------------------

    def _deltas(self, layer: int) -> Iterator[Term]:
        yield from self._output_deltas() if layer == self._top else self._hidden_deltas(layer)

    def _output_deltas(self) -> Iterator[Term]:
        q, top = self.quantities, self._top
        activation, loss = self._network.output_activation, self._network.loss_function
        softmax = activation.name == "softmax"
        if softmax and not self._canonical:
            yield from self._softmax_deltas()
            return
        for k in self.units[top]:
            out, target, net = q.out(top, k), q.target(k), q.net(top, k)
            if not softmax:
                yield Term(q.error_by_out(top, k), formulas.error_gradient_formula(loss, out, target))
                yield Term(q.out_by_net(top, k), formulas.derivative_formula(activation, net, out))
            chain = minus(out, target) if self._canonical else times(q.error_by_out(top, k), q.out_by_net(top, k))
            yield Term(q.delta(top, k), chain)

    def _softmax_deltas(self) -> Iterator[Term]:
        """Yield ``delta_k = out_k (g_k - sum_j g_j out_j)``: every output depends on every net input."""
        q, top, layer = self.quantities, self._top, self._round.layers[-1]
        mean = Symbol("g", "", float(layer.backprop_error.astype(np.float64) @ layer.activations))
        for k in self.units[top]:
            gradient = formulas.error_gradient_formula(self._network.loss_function, q.out(top, k), q.target(k))
            yield Term(q.error_by_out(top, k), gradient)
        products = [times(q.error_by_out(top, k), q.out(top, k)) for k in self.units[top]]
        yield Term(mean, self._sum(mean, top, products))
        for k in self.units[top]:
            yield Term(q.delta(top, k), times(q.out(top, k), minus(q.error_by_out(top, k), mean)))

    def _hidden_deltas(self, layer: int) -> Iterator[Term]:
        q, activation = self.quantities, self._network.layer_activations[layer - 1]
        updated = self._rule.weights == "updated"
        # Above the last hidden layer each delta is the derivative of one output's error; with softmax, of all errors.
        split = layer == self._top - 1 and self._network.output_activation.name != "softmax"
        for j in self.units[layer]:
            shares: list[Expression] = []
            for k in self.units[layer + 1]:
                weight = q.weight(layer + 1, j, k, new=updated)
                share = times(q.delta(layer + 1, k), weight)
                if split:
                    derivative = q.output_error_by_out(k, j, weight)
                    yield Term(derivative, share)
                    shares.append(derivative)
                else:
                    shares.append(share)
            error = q.error_by_out(layer, j)
            yield Term(error, self._sum(error, layer + 1, shares))
            slope = q.out_by_net(layer, j)
            yield Term(slope, formulas.derivative_formula(activation, q.net(layer, j), q.out(layer, j)))
            yield Term(q.delta(layer, j), times(error, slope))

    def _gradients(self, layer: int) -> Iterator[Term]:
        q = self.quantities
        for j, i in self._edges(layer):
            factor = q.net_by_weight(layer, i, j)
            yield Term(factor, q.out(layer - 1, i))
            product = times(q.delta(layer, j), factor)
            yield Term(q.error_by_weight(layer, i, j), _summed([product, *self._decay(q.weight(layer, i, j))]))
        if self._rule.train_biases:
            for j in self.units[layer]:
                yield Term(q.error_by_bias(layer, j), q.delta(layer, j))

    def _decay(self, weight: Symbol) -> list[Expression]:
        """Return the terms that the penalties add to the derivative by a weight."""
        added: list[Expression] = []
        if self._network.l1:
            sign = Call("sign", lambda w: float(np.sign(w)), (weight,))
            added.append(times(Symbol("l", "1", self._network.l1), sign))
        if self._network.l2:
            added.append(times(Symbol("l", "2", self._network.l2), weight))
        return added

    def _updates(self, layer: int) -> Iterator[Term]:
        q = self.quantities
        for j, i in self._edges(layer):
            change = times(q.learning_rate, q.error_by_weight(layer, i, j))
            yield Term(q.weight(layer, i, j, new=True), minus(q.weight(layer, i, j), change))
        if self._rule.train_biases:
            for j in self.units[layer]:
                change = times(q.learning_rate, q.error_by_bias(layer, j))
                yield Term(q.bias(layer, j, new=True), minus(q.bias(layer, j), change))

    # --- what they share -----------------------------------------------------------------------------------------

    def _edges(self, layer: int) -> Iterable[tuple[int, int]]:
        """Return the weights into a layer that are shown, unit by unit: pairs (unit, unit below)."""
        return ((j, i) for j in self.units[layer] for i in self.units[layer - 1])

    def _sum(self, total: Quantity, layer: int, shown: Sequence[Expression], *more: Expression) -> Expression:
        """Return the sum over the units of `layer` that gives `total`; units not shown are one number, ``others``."""
        terms: list[Expression] = [*shown]
        if len(shown) < self._network.layer_sizes[layer]:
            rest = total.value - math.fsum(evaluate(term) for term in (*shown, *more))
            terms.append(Symbol("others", "", rest))
        return _summed([*terms, *more])


def _summed(terms: list[Expression]) -> Expression:
    """Return the sum of the terms; a single term stays as it is."""
    return terms[0] if len(terms) == 1 else Sum(tuple(terms))
