"""Pictures of networks: the numbers of a sample, the path of one derivative, large networks, the command."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import gpuprop
from gpuprop.learn.trace import trace, worked_example
from gpuprop.learn.trace.text import TextWriter
from tests.cli_tools import Cli
from tests.references.worked_example import PRINTED

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def markers(svg: str) -> dict[str, int]:
    """Count what is highlighted: lines and boxes."""
    found = [e.tag.removeprefix(SVG) for e in ElementTree.fromstring(svg).iter() if e.get("class") == "marker"]
    return {kind: found.count(kind) for kind in ("line", "rect")}


def test_values_of_the_worked_example() -> None:
    words = texts(trace(*worked_example()).to_svg("w5"))
    for symbol in ("net_h1", "out_h1", "net_o1", "out_o1", "delta_o1"):
        name = symbol.partition("_")[0].replace("delta", "δ")
        assert f"{name} {float(PRINTED[symbol]):.4g}" in words
    assert {"w1 = 0.15", "w8 = 0.55", "b 0.35", "target 0.99", "E", f"{float(PRINTED['E']):.4g}"} <= set(words)
    assert f"= 0.741365070 * 0.186815602 * 0.593269992 = {PRINTED['dE/dw5']}" in words


@pytest.mark.parametrize("notation", ["mazur", "code", "lecture"])
def test_every_weight_has_its_derivative(notation: str) -> None:
    network, x, y = worked_example()
    traced = trace(network, x, y, notation=notation)
    # A parameter moved by h, and the loss computed anew: nothing of the trace is used.
    for layer, weights in enumerate(network.weights, start=1):
        for (i, j), value in np.ndenumerate(weights.copy()):
            losses = []
            for h in (1e-5, -1e-5):
                weights[i, j] = value + h
                losses.append(network.loss(x, y))
            weights[i, j] = value
            name = TextWriter(network.dtype).write(traced.symbols.weight(layer, i, j))
            (explained,) = (word for word in texts(traced.to_svg(name)) if word.startswith("= "))
            shown = float(explained.rsplit("= ", 1)[1])
            assert shown == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-5)


def test_path_goes_from_the_weight_to_the_error() -> None:
    traced = trace(*worked_example())
    # w5 reaches E through o1 alone: its own line, o1 - E_o1, E_o1 - E; boxes h1, o1, E_o1, E.
    assert markers(traced.to_svg("w5")) == {"line": 3, "rect": 4}
    # w1 reaches it through h1 and both outputs.
    assert markers(traced.to_svg("w1")) == {"line": 1 + 2 + 2 + 2, "rect": 2 + 2 + 2 + 1}


def test_large_layers_are_elided_and_the_weight_is_not() -> None:
    network = gpuprop.Network((64, 33, 10), loss="categorical_cross_entropy", seed=0)
    traced = trace(network, np.linspace(0, 1, 64), 3)
    words = texts(traced.to_svg("w(i1,h33)"))  # i1 is 0: nobody's most active input
    assert {"and 59 more", "and 28 more", "and 5 more"} <= set(words)
    assert {"i1", "h33"} <= set(words)
    assert any(word.startswith("w(i1,h33) = ") for word in words)


def test_penalties_are_part_of_the_derivative() -> None:
    network = gpuprop.Network((1, 1), seed=0, l2=0.5)
    traced = trace(network, [1.0], 3.0)
    numbers = next(word for word in texts(traced.to_svg()) if word.startswith("= "))
    assert float(numbers.rsplit("= ", 1)[1]) == pytest.approx(traced.numbers.layers[0].weight_grads[0, 0], rel=1e-5)
    assert any("decay" in word for word in texts(traced.to_svg()))


def test_file_is_self_contained_and_for_both_colour_schemes() -> None:
    svg = trace(*worked_example()).to_svg()
    assert "prefers-color-scheme: dark" in svg
    assert re.findall(r"https?://[^\"]+", svg) == ["http://www.w3.org/2000/svg"]


def test_trace_page_shows_it() -> None:
    page = trace(*worked_example()).to_html()
    assert page.count("<svg") == 1
    assert "w5 = 0.4" in page


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match=r"weight: got 'w9', expected .* such as w6"):
        trace(*worked_example()).to_svg("w9")
    deep = trace(gpuprop.Network((1,) * 13, seed=0), [1.0], 1.0)
    with pytest.raises(ValueError, match="got a network of 13 layers"):
        deep.to_svg()
    assert "<svg" not in deep.to_html()


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli(capsys)
    out = tmp_path / "net.svg"
    assert str(out) in cli.run("diagram", "--out", out, "--weight", "w1").out
    assert any("dE/dw1 = " in word for word in texts(out.read_text(encoding="utf-8")))
    gpuprop.Network((2, 3, 1), seed=0, loss="binary_cross_entropy", classes=[0, 1]).save(tmp_path / "model.safetensors")
    cli.run("diagram", tmp_path, "--data", "xor", "--sample", 2, "--notation", "code", "--out", out)
    assert "a[1][2]" in texts(out.read_text(encoding="utf-8"))
    assert cli.fail("diagram", "--weight", "w9", "--out", tmp_path / "none.svg").status == 2
    assert not (tmp_path / "none.svg").exists()
    assert cli.fail("diagram", tmp_path).status == 2
