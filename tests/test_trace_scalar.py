"""A formula by hand: its gradients against differences, its text, its page, its command."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from gpuprop.learn.trace import trace_scalar
from tests.cli_tools import Cli

FORMULAS: dict[str, dict[str, float]] = {
    "(x + y) * z": {"x": -2, "y": 5, "z": -4},
    "logistic(w*i + b) ** 2 / 2 + exp(-w)": {"w": 0.5, "i": 2, "b": -1},
    "x*x - x/y": {"x": 3, "y": -0.25},
    "max(0, a) * max(a, b)": {"a": 1.5, "b": 4},
    "tanh(log(x) + x**y)": {"x": 0.7, "y": 1.3},
    "(w*x - t)**2": {"w": -0.5, "x": 2, "t": 0.25},
}


@pytest.mark.parametrize("formula", FORMULAS)
def test_gradients_are_those_of_differences(formula: str) -> None:
    point = FORMULAS[formula]
    names: dict[str, Any] = {name: getattr(math, name) for name in ("exp", "log", "tanh")}
    names |= {"logistic": lambda z: 1 / (1 + math.exp(-z)), "max": max}

    def f(**moved: float) -> float:
        return float(eval(formula, names | point | moved))

    found = trace_scalar(formula, **point)
    assert found.value == pytest.approx(f(), rel=1e-14)
    for name, value in point.items():
        difference = (f(**{name: value + 1e-6}) - f(**{name: value - 1e-6})) / 2e-6
        assert found.gradients[name] == pytest.approx(difference, rel=1e-8, abs=1e-9)


def test_the_lectures_example() -> None:
    found = trace_scalar()
    assert (found.value, found.gradients) == (-12.0, {"x": -4.0, "y": -4.0, "z": 3.0})
    lines = {line.strip() for line in str(found).splitlines()}
    assert {"q1 = x + y = -2 + 5 = 3", "f = q1 * z = 3 * (-4) = -12"} <= lines
    assert {"dq1/dx = 1", "df/dq1 = -4", "df/dz = 3"} <= lines
    assert "df/dx = df/dq1 * dq1/dx = -4 * 1 = -4" in lines


def test_a_value_used_twice_adds_its_gradients_up() -> None:
    assert "df/dx = df/df * df/dx + df/df * df/dx = 1 * 3 + 1 * 3 = 6" in str(trace_scalar("x * x", x=3))


def test_page_and_picture() -> None:
    found = trace_scalar("logistic(w*i + b)", w=0.5, i=2, b=-1)
    words = [element.text for element in ElementTree.fromstring(found.to_svg()).iter() if element.text]
    assert "q3 = logistic(q2)" not in words  # the last one is called f
    assert {"f = logistic(q2)", "df/dw = 0.5", "0.25"} <= set(words)
    page = found.to_html()
    HTMLParser().feed(page)
    assert "default-src 'none'" in page
    assert "df/dw = df/dq1 * dq1/dw = 0.25 * 2 = 0.5" in page


@pytest.mark.parametrize(
    ("formula", "values", "message"),
    [
        ("(x +", {"x": 1}, "expected a formula"),
        ("x", {"x": 1}, "expected an operation"),
        ("x + y", {"x": 1}, "y has no value"),
        ("x + 1", {"x": 1, "y": 2}, "got a value for y"),
        ("sin(x)", {"x": 1}, "unknown function 'sin'"),
        ("max(x)", {"x": 1}, "got 'max(x)'"),
        ("__import__('os') + x", {"x": 1}, "unknown function '__import__'"),
        ("x.real + 1", {"x": 1}, "got 'x.real'"),
        ("1 / x", {"x": 0}, "cannot be computed"),
        ("log(x)", {"x": -1}, "cannot be computed"),
        ("exp(x)", {"x": 1000}, "cannot be computed"),
        ("(x*x) * x", {"x": 1e200}, "is not finite"),
        ("x ** 0.5", {"x": -1}, "cannot be computed"),
        ("x + 1", {"x": math.nan}, "expected a finite number"),
        ("(-2) ** x", {"x": 2}, "derivative of"),
    ],
)
def test_what_is_refused(formula: str, values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=r".*") as complaint:
        trace_scalar(formula, **values)
    assert message in str(complaint.value)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli(capsys)
    assert "f = q1 * z = 3 * (-4) = -12" in cli.run("trace", "--scalar").out
    found = json.loads(cli.run("trace", "--formula", "x * x", "--at", "x=3", "--json").out)
    assert (found["value"], found["gradients"]) == (9.0, {"x": 6.0})
    page = tmp_path / "page.html"
    cli.run("trace", "--scalar", "--html", page)
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    for wrong in (["--at", "x"], ["--at", "x=a"], ["--formula", "x*y", "--at", "x=1"], ["model", "--scalar"]):
        assert cli.fail("trace", *wrong).status == 2
