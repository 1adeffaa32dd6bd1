"""The exercises: what is right passes, what is often wrong is named, an empty hole is told, a file cannot hang."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuprop.learn.exercises import EXERCISES, check
from gpuprop.learn.exercises.checking import judge
from gpuprop.learn.exercises.runner import decode, encode
from tests.cli_tools import Cli

#: For each exercise what stands in place of the hole: right ones (key 0), and mistakes with a word of their names.
SOLUTIONS: dict[int, list[tuple[str, str]]] = {
    1: [
        ("a * (1 - a)", ""),
        ("1 / (1 + np.exp(-a)) * (1 - 1 / (1 + np.exp(-a)))", "a second time"),
        ("1 - a**2", "derivative of tanh"),
        ("a**2 - a", "sign is wrong"),
        ("a", "not right yet: got"),
    ],
    2: [
        ("-(y - a) * a * (1 - a)", ""),
        ("a - y", "a (1 - a) is missing"),
        ("(y - a) * a * (1 - a)", "sign is wrong"),
        ("2 * (a - y) * a * (1 - a)", "a factor 2 too much"),
        ("(a - y) * y * (1 - y)", "is the target's"),
    ],
    3: [
        ("(delta_above @ weights_above.T) * a * (1 - a)", ""),
        ("delta_above @ weights_above.T", "factor a (1 - a) is missing"),
        ("(delta_above @ weights_above.T) * a", "instead of a (1 - a)"),
    ],
    5: [
        ("(momentum * velocity - learning_rate * weight_grads, weights + velocity)", ""),
        ("(momentum * velocity + learning_rate * weight_grads, weights + velocity)", "that climbs"),
        ("(-learning_rate * weight_grads, weights + velocity)", "old velocity is forgotten"),
        ("(momentum * velocity - weight_grads, weights + velocity)", "learning rate is missing"),
    ],
    6: [
        ("np.exp(z - np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)) - z.max(1, keepdims=True))", ""),
        ("np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)", "overflows"),
        ("np.exp(z - z.max(axis=1, keepdims=True))", "not divided by the sum"),
        ("np.exp(z - z.max()) / np.exp(z - z.max()).sum()", "all samples together"),
        ("np.exp(z - z.max(axis=0)) / np.exp(z - z.max(axis=0)).sum(axis=0)", "axis 0"),
        ("np.full(z.shape[0], 0.5)", "returns shape (2,), expected (2, 4)"),
    ],
    7: [
        ("rng.normal(0, np.sqrt(2 / fan_in), (fan_in, fan_out))", ""),
        ("rng.uniform(-1, 1, (fan_in, fan_out)) * np.sqrt(6 / fan_in)", ""),  # the same moments, drawn otherwise
        ("np.zeros((fan_in, fan_out))", "weights are equal"),
        ("rng.normal(0, 2 / fan_in, (fan_in, fan_out))", "square root"),
        ("rng.normal(0, np.sqrt(1 / fan_in), (fan_in, fan_out))", "1 / fan_in"),
        ("rng.normal(0, np.sqrt(2 / fan_out), (fan_in, fan_out))", "2 / fan_out"),
        ("rng.normal(0, np.sqrt(2 / fan_in), (fan_out, fan_in))", "shape is (fan_out, fan_in)"),
        ("rng.random((fan_in, fan_out)) * np.sqrt(2 / fan_in)", "mean is not 0"),
        ("rng.normal(size=(fan_in, fan_out))", "variance 1:"),
    ],
}  # fmt: skip
#: Exercise 4 has statements in its hole, and divides at the end or does not.
ACCUMULATORS = [
    ("weight_grads += np.outer(a, d); bias_grads += d", " / n_samples", ""),
    ("weight_grads += np.outer(a, d); bias_grads += d", "", "1/m is forgotten"),
    ("weight_grads = np.outer(a, d); bias_grads = d", " / n_samples", "only the last sample"),
    ("weight_grads = np.outer(a, d); bias_grads = d", "", "and 1/m is missing"),
    ("weight_grads += np.outer(d, a); bias_grads += d", " / n_samples", "wrong way round"),
]
BOTH = """
    i = cuda.threadIdx.x + cuda.blockIdx.x * cuda.blockDim.x
    j = cuda.threadIdx.y + cuda.blockIdx.y * cuda.blockDim.y
"""
INSIDE = "row < error.shape[0] and column < error.shape[1]"
KERNELS = [
    ("j", "i", INSIDE, ""),
    ("j", "i", "True", "beyond the edge"),
    ("i", "j", INSIDE, "x and y are exchanged"),
    ("cuda.threadIdx.y", "cuda.threadIdx.x", INSIDE, "only the first block"),
    ("cuda.threadIdx.y + cuda.blockIdx.y", "cuda.threadIdx.x + cuda.blockIdx.x", INSIDE, "blocks overlap"),
]


def answers(number: int, source: str) -> list[list[Any]]:
    """Run a solution here, through the same encoding as the process of its own."""
    exercise = EXERCISES[number - 1]
    names: dict[str, Any] = {"np": np}
    exec(source, names)
    found = []
    for case in exercise.cases():
        with np.errstate(all="ignore"):
            answer = names[exercise.function](*(decode(encode(argument)) for argument in case))
        found.append(
            [decode(encode(np.asarray(a, float))) for a in (answer if isinstance(answer, tuple) else (answer,))]
        )
    return found


def filled(number: int, hole: str) -> str:
    """The task with its hole filled; of exercise 5 both."""
    template = EXERCISES[number - 1].template
    if number == 5:
        velocity, weights = hole[1:-1].rsplit(", ", 1)
        return template.replace("...", velocity, 1).replace("...", weights, 1)
    return template.replace("return ...", f"return {hole}", 1)


@pytest.mark.parametrize(
    ("number", "hole", "name"),
    [(number, hole, name) for number, holes in SOLUTIONS.items() for hole, name in holes],
)
def test_answers(number: int, hole: str, name: str) -> None:
    complaint = judge(EXERCISES[number - 1], answers(number, filled(number, hole)))
    assert name in complaint if name and complaint else complaint is None and not name


@pytest.mark.parametrize(("hole", "divided", "name"), ACCUMULATORS)
def test_accumulators(hole: str, divided: str, name: str) -> None:
    source = EXERCISES[3].template.replace("        ...", f"        {hole}", 1)
    source = source.replace("return weight_grads, bias_grads", f"return weight_grads{divided}, bias_grads{divided}")
    complaint = judge(EXERCISES[3], answers(4, source))
    assert name in complaint if name and complaint else complaint is None and not name


def test_untransposed_weights_are_named_by_numbers_and_by_shapes(tmp_path: Path) -> None:
    exercise = EXERCISES[2]
    square = [answers(3, filled(3, "(delta_above @ weights_above.T) * a * (1 - a)"))[1]]
    delta, weights, a = exercise.cases()[0]
    numbers = [[(delta @ weights) * a * (1 - a)], *square]
    assert "not transposed" in (judge(exercise, numbers) or "")
    file = tmp_path / "task.py"
    file.write_text(filled(3, "(delta_above @ weights_above) * a * (1 - a)"), encoding="utf-8")
    assert "which factor must be transposed?" in (check(exercise, file) or "")


@pytest.mark.parametrize(("row", "column", "inside", "name"), KERNELS)
def test_kernels(row: str, column: str, inside: str, name: str, tmp_path: Path) -> None:
    source = (
        EXERCISES[7]
        .template.replace("row = ...", f"{BOTH}    row = {row}")
        .replace("column = ...", f"column = {column}")
    )
    file = tmp_path / "task.py"
    file.write_text(source.replace("if ...", f"if {inside}").replace("    \n    i", "    i"), encoding="utf-8")
    complaint = check(EXERCISES[7], file)
    assert name in complaint if name and complaint else complaint is None and not name


@pytest.mark.parametrize("number", range(1, 9))
def test_an_empty_hole_is_told(number: int, tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text(EXERCISES[number - 1].template, encoding="utf-8")
    line = next(n for n, text in enumerate(EXERCISES[number - 1].template.splitlines(), 1) if "your turn" in text)
    assert f"the hole in line {line} is still empty" in (check(EXERCISES[number - 1], file) or "")


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("def logistic_derivative(a:", "line 1: SyntaxError"),
        ("def derivative(a):\n    return a", "defines no logistic_derivative"),
        ("\n\ndef logistic_derivative(a):\n    return a / b", "line 4: NameError: name 'b'"),
        ("import os\nos._exit(3)", "ended with status 3"),
        ("print('hello')\nwhile True: pass", "still running after 1 seconds"),
        ("def logistic_derivative(a):\n    return 'x'", "ValueError"),
        ("def logistic_derivative(a):\n    return a, a", "returns 2 arrays, expected 1"),
    ],
)
def test_files_that_are_no_answer(source: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text(source, encoding="utf-8")
    assert complaint in (check(EXERCISES[0], file, time_limit=1 if "while" in source else 60) or "")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli(capsys)
    listed = cli.run("exercise").out
    assert all(f"{n}  {task.title}\n" in listed for n, task in enumerate(EXERCISES, 1))
    assert cli.run("exercise", 2).out == EXERCISES[1].template
    file = tmp_path / "task.py"
    cli.run("exercise", 1, "--out", file)
    assert "is still empty" in cli.fail("exercise", 1, "--check", file).err
    assert "exists already" in cli.fail("exercise", 1, "--out", file).err
    file.write_text(textwrap.dedent("def logistic_derivative(a):\n    return a - a * a\n"), encoding="utf-8")
    assert cli.run("exercise", 1, "--check", file).out.startswith("right: logistic_derivative agrees with central")
    for wrong in (
        ["exercise", 9],
        ["exercise", 0],
        ["exercise", "--check", file],
        ["exercise", 1, "--out", 2, "--check", 3],
    ):
        assert cli.fail(*wrong).status == 2
    assert "cannot be read" in cli.fail("exercise", 1, "--check", tmp_path / "none.py").err


@pytest.mark.parametrize("number", range(1, 9))
def test_the_solution_is_right_and_stands_on_the_page(
    number: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cli = Cli(capsys)
    task = EXERCISES[number - 1]
    printed = cli.run("exercise", number, "--solution").out
    assert "..." not in printed
    place = tmp_path / "solution.py"
    place.write_text(printed)
    assert check(task, place) is None
    said = cli.run("exercise", number, "--hint").out
    page = Path(__file__).parent.parent / "docs" / "exercises.md"
    if page.exists():  # in a checkout
        text = page.read_text()
        assert printed in text
        assert " ".join(said.split()) in " ".join(text.split())


def test_help_is_asked_for_alone(capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli(capsys)
    assert "got --hint without N" in cli.fail("exercise", "--hint").err
    assert "got --hint and --solution, expected one of them" in cli.fail("exercise", 1, "--hint", "--solution").err
