"""A formula as a graph of values: computed forwards, and differentiated backwards by the chain rule.

The formula is written in Python; it may use ``+ - * / **``, parentheses, numbers, names, and the functions ``exp``,
``log``, ``tanh``, ``logistic`` and ``max(a, b)``. Python's own parser takes it apart, and nothing in it is run.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gpuprop.errors import unknown_name

__all__ = ["Computation", "Node", "compute"]


def _logistic(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


#: For each operation its value, and the derivative of this value by each input, as functions of the inputs.
_OPERATIONS: dict[str, tuple[Callable[..., float], tuple[Callable[..., float], ...]]] = {
    "+": (lambda a, b: a + b, (lambda a, b: 1.0, lambda a, b: 1.0)),
    "-": (lambda a, b: a - b, (lambda a, b: 1.0, lambda a, b: -1.0)),
    "*": (lambda a, b: a * b, (lambda a, b: b, lambda a, b: a)),
    "/": (lambda a, b: a / b, (lambda a, b: 1 / b, lambda a, b: -a / b**2)),
    "neg": (lambda a: -a, (lambda a: -1.0,)),
    "max": (max, (lambda a, b: float(a > b), lambda a, b: float(a <= b))),
    "exp": (math.exp, (math.exp,)),
    "log": (math.log, (lambda a: 1 / a,)),
    "tanh": (math.tanh, (lambda a: 1 - math.tanh(a) ** 2,)),
    "logistic": (_logistic, (lambda a: _logistic(a) * (1 - _logistic(a)),)),
    "**": (
        lambda a, b: float(a**b),
        (lambda a, b: b * a ** (b - 1), lambda a, b: a**b * math.log(a) if a > 0 else math.nan),
    ),
}
_SIGNS: dict[type[ast.AST], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}


@dataclass(eq=False)
class Node:
    """One value of the graph.

    Attributes
    ----------
    name : str
        A variable's name, a number as it is written, or ``q1, q2, ..., f`` for a result.
    formula : str
        The operation on earlier values that gives this one; empty for a variable or a number.
    value : float
    inputs : tuple of Node
    local : tuple of float
        The derivative of this value by each input.
    gradient : float
        The derivative of the whole formula by this value.
    operation : str
        ``+``, ``*``, ``exp``, ...; empty for a variable or a number.
    """

    name: str
    formula: str
    value: float
    inputs: tuple[Node, ...] = ()
    local: tuple[float, ...] = ()
    operation: str = ""
    gradient: float = 0.0

    @property
    def constant(self) -> bool:
        """Whether this is a number of the formula; its gradient is of no interest."""
        return not self.operation and not self.name.isidentifier()


@dataclass(frozen=True)
class Computation:
    """A formula computed forwards and differentiated backwards.

    Attributes
    ----------
    formula : str
    nodes : list of Node
        Variables first, in the order of the formula, then the results in the order in which they are computed.
    """

    formula: str
    nodes: list[Node] = field(default_factory=list)

    @property
    def value(self) -> float:
        """The result."""
        return self.nodes[-1].value

    @property
    def gradients(self) -> dict[str, float]:
        """The derivative of the result by each variable."""
        return {node.name: node.gradient for node in self.variables}

    @property
    def variables(self) -> list[Node]:
        """The nodes that are variables."""
        return [node for node in self.nodes if not node.operation and not node.constant]

    @property
    def results(self) -> list[Node]:
        """The nodes that are results of operations, in the order in which they are computed."""
        return [node for node in self.nodes if node.operation]


def compute(formula: str, values: Mapping[str, float]) -> Computation:
    """Compute a formula value by value, and its derivative by each of its variables; see `trace_scalar`."""
    try:
        tree = ast.parse(formula.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ValueError(f"formula: got {formula!r}, expected a formula such as (x + y) * z") from error
    graph = _Graph(formula, {name: float(value) for name, value in values.items()})
    result = graph.add(tree)
    if not result.operation:
        raise ValueError(f"formula: got {formula!r}, expected an operation such as (x + y) * z")
    result.name = "f"
    unused = set(values) - {node.name for node in graph.leaves.values()}
    if unused:
        raise ValueError(f"got a value for {', '.join(sorted(unused))}, which {formula!r} does not contain")
    found = Computation(formula.strip(), [*graph.leaves.values(), *graph.results])
    result.gradient = 1.0
    for node in reversed(graph.results):
        for part, local in zip(node.inputs, node.local, strict=True):
            part.gradient += node.gradient * local
    if not all(math.isfinite(node.gradient) or node.constant for node in found.nodes):
        raise ValueError(
            f"formula: the derivative of {formula!r} is not finite at these values of its variables; choose others"
        )
    return found


class _Graph:
    """Turns Python's syntax tree into nodes with values."""

    def __init__(self, formula: str, values: dict[str, float]) -> None:
        self._formula = formula
        self._values = values
        self.leaves: dict[str, Node] = {}
        self.results: list[Node] = []

    def add(self, tree: ast.AST) -> Node:
        """Return the node of a part of the formula; a variable has one node, however often the formula uses it."""
        match tree:
            case ast.Name(id=name):
                if name not in self._values:
                    raise ValueError(f"{name} has no value; give one for each variable of {self._formula!r}")
                return self._leaf(name, self._values[name])
            case ast.Constant(value=bool()):
                pass
            case ast.Constant(value=int() | float() as number):
                return self._leaf(f"{number:g}", float(number))
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return self._leaf(f"{-number:g}", -float(number))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._result("neg", self.add(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _SIGNS:
                return self._result(_SIGNS[type(op)], self.add(left), self.add(right))
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                functions = [key for key in _OPERATIONS if key.isalpha() and key != "neg"]
                if name not in functions:
                    raise unknown_name("function", name, functions)
                if len(arguments) == len(_OPERATIONS[name][1]):
                    return self._result(name, *map(self.add, arguments))
        raise ValueError(
            f"formula: got {ast.unparse(tree)!r}, expected numbers, names, + - * / **, exp, log, tanh, logistic, max"
        )

    def _leaf(self, name: str, value: float) -> Node:
        if not math.isfinite(value):
            raise ValueError(f"{name}: got {value}, expected a finite number")
        return self.leaves.setdefault(name, Node(name, "", value))

    def _result(self, operation: str, *inputs: Node) -> Node:
        compute, derivatives = _OPERATIONS[operation]
        numbers, names = [node.value for node in inputs], [node.name for node in inputs]
        formula = f"{operation}({', '.join(names)})" if operation.isalpha() else f" {operation} ".join(names)
        if operation == "neg":
            formula = f"-{names[0]}"
        try:
            value = compute(*numbers)
            local = tuple(derivative(*numbers) for derivative in derivatives)
        except (ArithmeticError, ValueError, TypeError) as error:
            raise ValueError(f"formula: {formula} cannot be computed at {', '.join(map(str, numbers))}") from error
        if not math.isfinite(value):
            raise ValueError(f"formula: {formula} is not finite at {', '.join(map(str, numbers))}")
        node = Node(f"q{len(self.results) + 1}", formula, value, inputs, local, operation)
        self.results.append(node)
        return node
