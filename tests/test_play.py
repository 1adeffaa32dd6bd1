"""The page to play with computes what `gpuprop trace` and the Trainer compute, and fits its windows, in Chromium."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.learn.play import Problem, problem, render, worked_problem, xor_problem
from gpuprop.learn.play.javascript import code, text_code
from gpuprop.learn.trace import trace, worked_example
from gpuprop.maths.activations import OUTPUT_ACTIVATIONS
from gpuprop.maths.losses import LOSSES
from tests.browser import dom, files_served, needs_chromium
from tests.cli_tools import Cli


def answers(page: str, script: str, folder: Path, size: str = "1280,800") -> Any:
    """Return the JSON value that a script, run at the end of the page, gives."""
    tail = "<pre id='answer' hidden></pre><script>byId('answer').textContent = JSON.stringify((() => {"
    tail += script + "})())</script>"
    place = folder / "page.html"
    place.write_text(page.replace("</body>", f"{tail}</body>"), encoding="utf-8")
    found = re.search(r"<pre id=\"answer\"[^>]*>(.*?)</pre>", dom(place.as_uri(), folder / "profile", size), re.S)
    assert found is not None
    assert found[1], "the page's script failed"
    return json.loads(html.unescape(found[1]))


TERMS = """return PROBLEMS.map(one => one.rows.map((_, shown) =>
  termsOf(one, {weights: one.weights, biases: one.biases}, one.rows, shown, {rate: 0.5, trainBiases: true, all: false})
  .terms.map(term => [term.symbol, term.value])));"""


def network(sizes: tuple[int, ...], hidden: str, output: str | None, loss: str, **more: Any) -> gpuprop.Network:
    made = gpuprop.Network(
        sizes,
        hidden_activation=hidden,
        output_activation=output,
        loss=loss,
        dtype="float64",
        device="numpy",
        seed=1,
        **more,
    )
    for biases in made.biases:
        biases[...] = np.linspace(-0.3, 0.4, biases.size)
    return made


X = np.array([[0.5, -1.25, 0.75], [-2.0, 0.3, 1.5]])


def cases() -> dict[str, tuple[gpuprop.Network, Any, Any]]:
    """Every activation and every loss with a formula, penalties, softmax with both kinds of delta, depth."""
    hidden = [name for name in OUTPUT_ACTIVATIONS if name not in ("softmax", "exponential")]
    found: dict[str, tuple[gpuprop.Network, Any, Any]] = {"worked example": worked_example()}
    for name in hidden:
        found[name] = network((3, 3, 2), name, "identity", "squared_error"), X, [[0.2, -0.4], [1.0, 0.5]]
    found["elu(0.5)"] = network((3, 2, 1), "elu(0.5)", "tanh", "squared_error"), X, [0.2, -0.4]
    found["softmax"] = network((3, 2, 3), "tanh", None, "categorical_cross_entropy", l1=0.01, l2=0.1), X, [0, 2]
    found["squared softmax"] = network((3, 2, 3), "tanh", "softmax", "squared_error"), X, np.eye(3)[[0, 2]]
    found["binary"] = network((3, 3, 2, 1), "gelu", None, "binary_cross_entropy"), X, [1, 0]
    found["poisson"] = network((3, 2, 1), "silu", None, "poisson", l2=0.3), X, [3.0, 0.0]
    return found


def test_the_cases_have_every_loss_with_a_formula() -> None:
    losses = {name for name, loss in LOSSES.items() if loss.formula}
    assert {one.loss_function.name for one, _, _ in cases().values()} == losses


@needs_chromium
def test_every_number_is_that_of_the_trace(tmp_path: Path) -> None:
    """Symbols, their order, and values to 1e-9: of every activation and every loss that has a formula."""
    problems = [problem(name, *case) for name, case in cases().items()]
    found = answers(render(problems), TERMS, tmp_path)
    for one, rows in zip(problems, found, strict=True):
        _, inputs, targets = cases()[one.name]
        for terms, x, y in zip(rows, inputs, targets, strict=True):
            expected = trace(one.network, x, y, train_biases=True).to_dict()["terms"]
            assert [symbol for symbol, _ in terms] == [term["symbol"] for term in expected], one.name
            values = np.array([value for _, value in terms])
            np.testing.assert_allclose(
                values, [term["value"] for term in expected], rtol=1e-9, atol=1e-9, err_msg=one.name
            )


@needs_chromium
def test_a_thousand_updates_are_those_of_the_library(tmp_path: Path) -> None:
    """XOR: the whole batch, against the Trainer; the worked example: one row, against the trace; and back again."""
    script = """begin(1); const before = JSON.stringify(state.p); update(1000); const after = state.p; undo();
      const xor = [after, lossNow(), JSON.stringify(state.p) === before, history.length];
      begin(0); update(1000); return {xor, worked: state.losses[1000]};"""
    found = answers(render([worked_problem(), xor_problem()]), script, tmp_path)
    example = xor_problem()
    trained = example.network.copy_to(example.network.ops)
    points, targets = gpuprop.datasets.make_xor()
    assert found["xor"][1:] == [pytest.approx(trained.loss(points, targets), rel=1e-12), True, 0]
    gpuprop.Trainer(trained, optimizer="sgd", learning_rate=8.0, batch_size=4, epochs=1, shuffle=False).fit(
        np.tile(points, (1000, 1)), np.tile(targets, 1000)
    )
    for kind in ("weights", "biases"):
        for ours, theirs in zip(found["xor"][0][kind], getattr(trained, kind), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-7)
    assert found["worked"] == pytest.approx(trace(*worked_example(), rounds=1000).loss_after, rel=1e-9)


@needs_chromium
def test_the_gradient_of_a_batch_is_that_of_the_library(tmp_path: Path) -> None:
    example = xor_problem()
    points, targets = gpuprop.datasets.make_xor()
    found = answers(render([example]), "return {all: found.gradients, loss: lossNow()};", tmp_path)
    loss, weights, biases = example.network.loss_and_gradients(points, targets)
    assert found["loss"] == pytest.approx(loss, rel=1e-12)
    for ours, theirs in zip([*found["all"]["weights"], *found["all"]["biases"]], [*weights, *biases], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@needs_chromium
def test_what_a_hand_does(tmp_path: Path) -> None:
    """Keys and typed numbers change the number that is chosen and all that follows from it; steps go both ways."""
    script = """
      const pill = name => document.querySelector(`.pill[data-name="${name}"]`), key = (node, key) =>
        node.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
      const seen = {first: state.losses[0]};
      pill("w1").focus(); key(pill("w1"), "ArrowUp"); seen.weight = get(["w", 1, 0, 0]);
      byId("number").value = "-1.5"; byId("number").dispatchEvent(new Event("change"));
      seen.typed = state.p.weights[0][0][0];
      seen.loss = lossNow(); seen.spoken = pill("w1").getAttribute("aria-valuenow");
      key(pill("w1"), "Home"); seen.home = get(["w", 1, 0, 0]); seen.back = lossNow();
      document.activeElement.blur();
      key(document.body, "ArrowLeft"); seen.cursor = ui.cursor;
      key(document.body, "ArrowRight"); key(document.body, "ArrowRight");
      seen.updates = state.losses.length - 1; seen.start = ui.cursor; seen.brief = byId("now").textContent;
      key(document.body, "ArrowLeft");
      seen.again = state.losses.length - 1;
      seen.terms = found.terms.length;
      return seen;"""
    found = answers(render([worked_problem()]), script, tmp_path)
    network, x, y = worked_example()
    assert found["first"] == found["back"] == pytest.approx(network.loss(x, y), rel=1e-12)
    assert (found["weight"], found["typed"], found["spoken"], found["home"]) == (0.16, -1.5, "-1.5", 0.15)
    network.weights[0][0, 0] = -1.5
    assert found["loss"] == pytest.approx(network.loss(x, y), rel=1e-12)
    assert (found["cursor"], found["updates"], found["start"], found["again"]) == (found["terms"] - 2, 1, 0, 0)
    assert "net" in found["brief"]


FITS = """return [document.documentElement.scrollWidth, document.documentElement.scrollHeight, innerWidth, innerHeight,
  [...document.querySelectorAll("button, select, input")].filter(one => one.offsetParent && !one.labels?.length
    && !one.textContent.trim() && !one.ariaLabel).length];"""


@needs_chromium
def test_it_fits_a_laptop(tmp_path: Path) -> None:
    """A window of 1280 x 800 shows all of it; whatever can be operated has a name."""
    page = render([worked_problem(), xor_problem()])
    width, height, across, down, nameless = answers(page, FITS, tmp_path)
    assert (width <= across, height <= down, nameless) == (True, True, 0)


@needs_chromium
def test_it_fits_a_phone(tmp_path: Path) -> None:
    (tmp_path / "play.html").write_text(render([worked_problem(), xor_problem()]), encoding="utf-8")
    (tmp_path / "phone.html").write_text(
        """<!DOCTYPE html><iframe src="play.html" style="width: 390px; height: 844px; border: 0"></iframe>
        <pre></pre><script>
        document.querySelector("iframe").onload = event => {
          const page = event.target.contentWindow, sizes = [...page.document.querySelectorAll("svg .pill text")]
            .map(text => text.getBoundingClientRect().height);
          const width = page.document.documentElement.scrollWidth;
          document.querySelector("pre").textContent = `${width} ${Math.min(...sizes)}`;
        };</script>"""
    )
    with files_served(tmp_path) as address:
        found = re.search(r"<pre>(.*?)</pre>", dom(f"{address}/phone.html", tmp_path / "profile"))
    assert found is not None
    width, text = map(float, found[1].split())
    assert width <= 390
    assert text >= 12  # pixels, the height of a line


def test_it_loads_nothing() -> None:
    page = render([worked_problem()])
    assert "default-src 'none'" in page
    assert re.findall(r"(?:src|href)=|https?://(?!www\.w3\.org)|@import|url\(", page) == []


def test_formulas_as_javascript() -> None:
    assert code("1 - a**2") == "(1 - Math.pow(a, 2))"
    assert code("-ln(1 - a) if y == 0 else -ln(a)") == "((y === 0) ? (-ln((1 - a))) : (-ln(a)))"
    assert text_code("max(0, z)") == '"max(0, [z])"'
    assert text_code("z if z > 0 else p * z") == '(z > 0 ? "[z]   as [z] > 0" : "[p] * [z]   as [z] ≤ 0")'
    with pytest.raises(ValueError, match="known functions"):
        code("sin(z)")


def test_what_it_refuses() -> None:
    large = gpuprop.Network((17, 9, 4), seed=0)
    with pytest.raises(ValueError, match="at most 32 weights"):
        problem("large", large, np.zeros((1, 17)), np.zeros((1, 4)))
    residual = gpuprop.Network((2, 2, 2, 1), residual=True, seed=0)
    with pytest.raises(ValueError, match="residual"):
        problem("residual", residual, [[0.0, 1.0]], [1.0])
    own = gpuprop.Activation("cube", lambda z: z**3, lambda z: 3 * z**2, derivative_of="z")
    cubed = problem("cube", gpuprop.Network((2, 2, 1), hidden_activation=own, seed=0), [[0.0, 1.0]], [1.0])
    with pytest.raises(ValueError, match="'cube': has no formula"):
        render([cubed])
    robust = Problem("huber", gpuprop.Network((2, 1), loss="huber", seed=0), [([0.0, 1.0], [1.0])])
    with pytest.raises(ValueError, match="'huber': has no formula"):
        render([robust])


def test_a_title_cannot_end_the_script() -> None:
    network, x, y = worked_example()
    page = render([problem("</script><b>", network, x, y)], title="<i>")
    assert "</script><b>" not in page
    assert "&lt;i&gt;" in page


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cli = Cli(capsys)
    assert cli.run("play").out == "play.html: The worked example, XOR; open it in a browser\n"
    assert "<svg" in (tmp_path / "play.html").read_text()
    cli.run("train", "xor", "--hidden", "3", "--epochs", "2", "--out", "run")
    assert "run, The worked example, XOR" in cli.run("play", "run", "--data", "xor", "--out", "mine.html").out
    assert '"sizes": [2, 3, 1]' in (tmp_path / "mine.html").read_text()
    assert "needs --data" in cli.fail("play", "run").err
    assert "without MODEL" in cli.fail("play", "--data", "xor").err
