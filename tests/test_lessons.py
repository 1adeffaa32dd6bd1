"""Every lesson runs, in a short form, its claim holds, and it saves its picture. Their pages: test_lesson_pages.py."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.measure.bench import sass
from tests.example_tools import EXAMPLES, load_example


def run(lesson: str, folder: Path, **options: Any) -> Any:
    """Run a lesson's `main`, see that it saved a picture, and return what it found."""
    picture = folder / f"{lesson}.png"
    found = load_example(f"lesson_{lesson}").main(out=str(picture), **options)
    assert picture.read_bytes().startswith(b"\x89PNG")
    return found


def test_every_lesson_is_tested() -> None:
    lessons = {path.stem.removeprefix("lesson_") for path in EXAMPLES.glob("lesson_*.py")}
    assert lessons == {name.removeprefix("test_lesson_") for name in globals() if name.startswith("test_lesson_")}


def own_lines(source: str) -> int:
    """Count the lines that say what a program does: without imports, docstrings, comments and empty lines."""
    tree = ast.parse(source)
    beside: set[int] = set()
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and (is_text or isinstance(node, (ast.Import, ast.ImportFrom))):
            beside.update(range(node.lineno, (node.end_lineno or 0) + 1))
    lines = enumerate(source.splitlines(), 1)
    return sum(bool(line.strip()) and line.strip()[0] != "#" and n not in beside for n, line in lines)


@pytest.mark.parametrize("program", sorted(EXAMPLES.glob("lesson_*.py")), ids=lambda program: program.stem)
def test_a_lesson_is_short_and_its_options_are_those_of_main(program: Path) -> None:
    source = program.read_text()
    assert own_lines(source) <= 100
    if program.stem != "lesson_kernel":  # which chooses the simulator when it is imported
        options = set(re.findall(r'add_argument\("--(\w+)"', source))
        assert {"out"} <= options <= set(inspect.signature(load_example(program.stem).main).parameters)


def test_every_step_of_the_ladder_is_short() -> None:
    import gpuprop_kernels.ladder

    sources = list(Path(gpuprop_kernels.ladder.__file__).parent.glob("*.py"))
    steps = [source for source in sources if source.stem not in ("launch", "stepping")]
    assert len(steps) == 9
    assert all(len(step.read_text().splitlines()) < 60 for step in steps)


def test_lesson_softmax(tmp_path: Path) -> None:
    found = run("softmax", tmp_path)
    # The lecture prints 0.13 where e^-2 = 0.1353: cut off, not rounded.
    np.testing.assert_allclose(found["exponentials"], [164.0, 24.5, 0.18, 0.135], rtol=0.016)
    np.testing.assert_array_equal(np.round(found["probabilities"], 2), [0.87, 0.13, 0.0, 0.0])
    assert found["shifted"] < 1e-13
    largest = {name: np.log(float(np.finfo(name).max)) for name in ("float32", "float64")}
    assert found["failures"] == {name: int(np.ceil(value - 5.1)) for name, value in largest.items()}
    exponentials = [np.e**score for score in (5.1, 3.2, -1.7, -2.0)]
    shares = np.array(exponentials) / sum(exponentials)
    np.testing.assert_allclose(found["delta"], shares - [1, 0, 0, 0], rtol=1e-12)


def test_lesson_symmetry(tmp_path: Path) -> None:
    found = run("symmetry", tmp_path, epochs=500, rows=64)
    for equal in ("zeros", "all 0.1"):
        assert max(found[equal]["spread"]) == 0.0
        assert np.ptp(found[equal]["weights"][:, 0]) > 0.1  # it did learn something
        assert found[equal]["rank"] == 1
        assert found[equal]["accuracy"] < 0.7
    for different in ("0.1 +- 1e-7", "uniform, +- 0.12"):
        assert found[different]["spread"][-1] > 1.0
        assert found[different]["rank"] == 16
        assert found[different]["accuracy"] > 0.95
    assert found["0.1 +- 1e-7"]["spread"][0] < 1e-5


def test_lesson_algorithm(tmp_path: Path) -> None:
    source = (EXAMPLES / "lesson_algorithm.py").read_text()
    assert source[source.index("def lecture") : source.index("def descend")].count("\n") <= 40
    found = run("algorithm", tmp_path, rows=120, updates=5)
    assert max(found["gaps"]) < 1e-13
    assert found["cost"] == pytest.approx(found["loss"], rel=1e-13)
    assert found["same_bits"]
    assert max(found["differences"]) < 1e-13


def test_lesson_activations(tmp_path: Path) -> None:
    found = run("activations", tmp_path, size=1000, repeats=1)
    assert found["logistic"]["largest"] == 0.25
    # From where on 1 + e^-z rounds to 1 in float32, and from where on e^z underflows.
    assert found["logistic"]["above"] == pytest.approx(24 * np.log(2), abs=0.02)
    assert found["logistic"]["below"] == pytest.approx(150 * np.log(2), abs=0.02)
    assert found["tanh"]["above"] == found["tanh"]["below"]
    assert 9.0 <= found["tanh"]["above"] <= 10.0  # 9.01 where it is rounded correctly
    assert (found["relu"]["above"], found["relu"]["below"]) == (None, 0.0)
    for never in ("identity", "leaky_relu"):
        assert (found[never]["above"], found[never]["below"]) == (None, None)
    assert found["elu"]["below"] == pytest.approx(25 * np.log(2), abs=0.02)
    assert found["gelu"]["largest"] > 1.1


def test_lesson_gradients(tmp_path: Path) -> None:
    found = run("gradients", tmp_path, steps_per_decade=2)
    assert all(planted == named for planted, named in found["named"].items())
    assert len(found["named"]) == 5
    # The output layer stays right but for a factor that concerns all layers.
    assert {name for name, (_, top) in found["errors"].items() if top > 1e-6} == {"forgotten 1/m"}
    steps = found["steps"]
    for curve, order in (("forward differences, float64", 1), ("central differences, float64", 2)):
        error = np.array(found["curves"][curve])
        best = int(error.argmin())
        assert 0 < best < len(steps) - 1
        right_arm = (steps > 10 * steps[best]) & (steps < 0.05)
        slope = np.polyfit(np.log(steps[right_arm]), np.log(error[right_arm]), 1)[0]
        assert slope == pytest.approx(order, abs=0.1)
        left_arm = steps < steps[best] / 10
        assert np.polyfit(np.log(steps[left_arm]), np.log(error[left_arm]), 1)[0] == pytest.approx(-1, abs=0.25)
    assert (
        min(found["curves"]["central differences, float64"])
        < 1e-8
        < min(found["curves"]["central differences, float32"])
    )


def descend_all(networks: list[Any], updates: int, rate: float) -> Any:
    """Train all these 2-h-1 logistic networks on XOR at once, with three-dimensional arrays; return their outputs."""
    weights_1, weights_2 = (np.stack([network.weights[layer] for network in networks]) for layer in (0, 1))
    biases_1, biases_2 = (np.stack([network.biases[layer] for network in networks])[:, None] for layer in (0, 1))
    X, y = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), np.array([[0.0], [1.0], [1.0], [0.0]])
    for _ in range(updates):
        hidden = 1 / (1 + np.exp(-(X @ weights_1 + biases_1)))
        out = 1 / (1 + np.exp(-(hidden @ weights_2 + biases_2)))
        delta_2 = (out - y) * out * (1 - out) / 4
        delta_1 = delta_2 @ weights_2.transpose(0, 2, 1) * hidden * (1 - hidden)
        weights_2 -= rate * (hidden.transpose(0, 2, 1) @ delta_2)
        biases_2 -= rate * delta_2.sum(axis=1, keepdims=True)
        weights_1 -= rate * (X.T @ delta_1)
        biases_1 -= rate * delta_1.sum(axis=1, keepdims=True)
    return (1 / (1 + np.exp(-(1 / (1 + np.exp(-(X @ weights_1 + biases_1))) @ weights_2 + biases_2))))[:, :, 0]


def test_lesson_xor(tmp_path: Path) -> None:
    found = run("xor", tmp_path, seeds=8, longer=4)
    np.testing.assert_allclose(found["line"], 0.5, atol=1e-3)
    assert found["gap"] < 1e-12
    # All 400 seeds by other means, which agree with the lesson's about its eight.
    build = load_example("lesson_xor").build
    solved = {}
    for hidden in (2, 4):
        outputs = descend_all([build((2, hidden, 1), seed) for seed in range(400)], 1500, 8.0)
        solved[hidden] = ((outputs > 0.5) == [False, True, True, False]).all(axis=1)
        np.testing.assert_array_equal(found["solved"][hidden], solved[hidden][:8])
        errors = ((outputs[:8] - [0, 1, 1, 0]) ** 2 / 2).mean(axis=1)
        np.testing.assert_allclose(found["errors"][hidden], np.sort(errors), rtol=1e-6)
    assert 0.77 < solved[2].mean() < 0.83
    assert solved[4].all()
    outputs, errors = np.array(found["watch"].outputs), np.array(found["watch"].errors)
    np.testing.assert_array_equal(outputs[-1] > 0.5, [False, True, True, False])
    np.testing.assert_allclose(errors, ((outputs - [0, 1, 1, 0]) ** 2 / 2).mean(axis=1), rtol=1e-12)
    # The stuck one is not at a minimum: its error goes on falling, while its weights grow.
    stuck = found["stuck"]
    assert np.all(np.diff(stuck.errors[150:]) < 0)
    assert stuck.largest[-1] > stuck.largest[150]
    assert stuck.errors[-1] > 1 / 16


def test_lesson_depth(tmp_path: Path) -> None:
    found = run("depth", tmp_path, seeds=2, epochs=6)
    fade = {name: norms[-1] / norms[0] for name, norms in found["first"].items()}
    assert fade["logistic"] < 1e-10
    assert min(fade[name] for name in ("tanh", "relu", "leaky_relu", "elu", "softplus")) > 0.01
    assert found["shares"]["relu"]["dead"][0] > 0.4
    for layer in range(3):
        assert found["shares"]["relu"]["zero"][layer] > found["shares"]["relu"]["dead"][layer]
        for leaky in ("leaky_relu", "leaky_relu(0.1)"):
            assert found["shares"][leaky]["zero"][layer] < 0.01
            assert found["shares"][leaky]["dead"][layer] == 0.0
    # At Adam's default rate zeros are many, dead units few, and the network learns.
    X, y = gpuprop.datasets.load_digits()
    history = load_example("lesson_depth").train("relu", 0, X[:500], y[:500], 15, 0.001)
    for layer in (1, 2, 3):
        assert 0.2 < history[f"zero_share_{layer}"][-1] < 0.45
        assert history[f"dead_share_{layer}"][-1] < 0.2
    assert history["train_accuracy"][-1] > 0.97


def test_lesson_by_hand(tmp_path: Path) -> None:
    found = run("by_hand", tmp_path)
    assert found["f"] == (-12.0, -4.0, -4.0, 3.0)
    assert found["graph"] == pytest.approx(found["library"], rel=1e-14)


def test_lesson_optimizers(tmp_path: Path) -> None:
    found = run("optimizers", tmp_path, steps=150, epochs=2)
    needed = found["needed"]
    assert len(needed["valley"]) == 10
    assert all(steps is not None for steps in needed["valley"].values())
    assert needed["valley"]["momentum"] < needed["valley"]["sgd"] / 2
    # At the saddle the gradient is small; whoever divides by its size is off at once.
    assert needed["saddle"]["sgd"] is None
    adaptive = ("adagrad", "adadelta", "rmsprop", "adam", "adamax", "nadam", "adamw")
    assert max(needed["saddle"][name] for name in adaptive) < 20
    assert min(needed["saddle"][name] for name in ("momentum", "nesterov")) > 50
    assert all(curve[-1] < curve[0] for curve in found["losses"].values())
    animation = tmp_path / "paths.gif"
    load_example("lesson_optimizers").draw_animation(found["paths"], str(animation), frames=2)
    assert animation.read_bytes().startswith(b"GIF8")


def test_lesson_notations(tmp_path: Path) -> None:
    found = run("notations", tmp_path)
    values = {name: [term["value"] for term in terms] for name, terms in found["traces"].items()}
    assert values["mazur"] == values["lecture"] == values["code"]
    out_1, out_2 = 0.75136507, 0.772928465  # as published
    squared = [(out_1 - 0.01) * out_1 * (1 - out_1), (out_2 - 0.99) * out_2 * (1 - out_2)]
    np.testing.assert_allclose(found["deltas"]["squared error"], squared, rtol=1e-7)
    np.testing.assert_allclose(found["deltas"]["cross-entropy"], [out_1 - 0.01, out_2 - 0.99], rtol=1e-7)


def test_lesson_digits(tmp_path: Path) -> None:
    found = run("digits", tmp_path, epochs=60, splits=2)
    assert found["ours"]["accuracy"].mean() > 0.97
    textbook = found["textbook"]
    assert textbook["accuracy"].mean() > 0.95  # after 60 epochs of 1,000
    np.testing.assert_array_equal(textbook["curves"][:, -1], textbook["accuracy"])
    assert textbook["recall"].shape == (10,)


@pytest.mark.skipif("GPUPROP_TEST_FULL" not in os.environ, reason="two minutes; GPUPROP_TEST_FULL=1 runs it")
def test_digits_in_full(tmp_path: Path) -> None:
    """Both recipes on ten splits, as the page says; what a reader of the texts may expect."""
    found = run("digits", tmp_path)
    assert found["textbook"]["accuracy"].mean() == pytest.approx(0.970, abs=0.005)
    assert found["textbook"]["accuracy"].min() < 0.975 < found["textbook"]["accuracy"].max()  # 98 % is a good split
    assert found["ours"]["accuracy"].mean() >= 0.975
    assert len(found["ours"]["accuracy"]) == 10


def test_lesson_kernel(tmp_path: Path) -> None:
    # In a process of its own: the simulator is chosen when Numba is imported.
    program, picture = EXAMPLES / "lesson_kernel.py", tmp_path / "kernel.png"
    done = subprocess.run([sys.executable, program, "--out", picture], capture_output=True, text=True, check=True)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "largest difference from NumPy: " in done.stdout
    assert float(re.findall(r"from NumPy: (\S+) and (\S+)", done.stdout)[0][0]) < 1e-15
    delta, gradient = done.stdout.split("The outer-product accumulation")
    assert delta.count("\n  thread ") == 6
    assert gradient.count("\n  thread ") == 4
    # Thread 4 of the first is sample 2, unit 0: what comes down is -0.5 * 0.5 + 0.2 * -1.0.
    steps = delta.split("  thread 4\n")[1].split("\n\n")[0]
    assert re.findall(r"^    (\S+ = \S+)", steps, re.M) == [
        "element = 4", "n = 2", "i = 0", "error = 0", "j = 0", "error = -0.25", "j = 1", "error = -0.45", "a = 0.25",
    ]  # fmt: skip
    # Thread 3 of the second is weight (1, 1): sum over the samples of 0.5 * -0.2, 0.1 * 0.3, 0.5 * 0.2.
    totals = re.findall(r"^    total = (\S+)", gradient.split("  thread 3\n")[1], re.M)
    assert totals == ["0", "-0.1", "-0.07", "0.03"]


def test_lesson_ladder(tmp_path: Path) -> None:
    missing = sass.missing_tools()
    if missing:
        pytest.skip(f"compiling without a GPU: {missing}")
    found = run("ladder", tmp_path)
    shares = [report.fma_fraction for report in found.values()]
    assert shares[0] < 0.1
    assert shares[1] < 0.1 < 0.2 < shares[2] < shares[3] < shares[4]
    assert shares[4] >= 0.5
    assert shares[5] >= 0.5
    assert all(report.spilled == report.local == report.float64 == 0 for report in found.values())
    # Step 1 writes the accumulator back every time; from step 3 on global memory has left the inner loop, or nearly.
    assert any(op.startswith("STG") for op in found["naive"].loop)
    assert not any(op.startswith("STG") for op in found["coalesced"].loop)
    assert all("128" in op for op in found["double buffer"].loads("LDS"))


def test_lesson_tensor_cores(tmp_path: Path) -> None:
    lesson = load_example("lesson_tensor_cores")
    found = run("tensor_cores", tmp_path)
    assert (found["product"] == lesson.A @ lesson.B).all()
    # The threads' elements cover each matrix once.
    for which, shape in enumerate(((16, 8), (8, 8), (16, 8))):
        places = [place for thread in range(32) for place in lesson.places(thread)[which]]
        assert sorted(places) == list(np.ndindex(shape))
    worst = {precision: max(errors.values()) for precision, errors in found["errors"].items()}
    assert worst["float32"] < 1e-6
    assert worst["tf32x3"] < 1e-6
    assert 1e-5 < worst["tf32"] < 1e-3 < worst["bf16"] < 1e-2


def test_lesson_convergence(tmp_path: Path) -> None:
    found = run("convergence", tmp_path, epochs=12, seeds=1)
    last = {factor: {value: curves[:, -1].mean() for value, curves in runs.items()} for factor, runs in found.items()}
    rates = last["learning rate"]
    assert rates[0.001] < rates[0.01] < rates[0.1]
    assert rates[5.0] < 0.3
    assert last["width"][2,] < last["width"][32,] - 0.2
    assert last["depth"][(32,) * 10] < last["depth"][32,]
    assert last["activation"]["logistic"] < last["activation"]["tanh"]
    assert last["initial weights"]["zeros"] < 0.2
    assert last["wrong labels"][0.5] < last["wrong labels"][0.0]
    assert last["wrong labels"][0.5] > 0.5
    assert last["training images"][50] < last["training images"][200] < last["training images"][1347]
    assert min(last["optimizer"].values()) > 0.85
