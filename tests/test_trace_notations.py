"""The notations of a trace: the same numbers under other names, in text, page and JSON, for any network."""

from __future__ import annotations

import numpy as np
import pytest

import gpuprop
from gpuprop.learn.trace.quantities import NOTATIONS
from tests.cli_tools import Cli

EXPECTED = {
    "mazur": ("w5+", "out_o1", "net_h1", "w5", "eta", "E"),
    "lecture": ("Theta^(2)_1,1+", "a^(3)_1", "z^(2)_1", "Theta^(2)_1,1", "alpha", "J"),
    "code": ("weights[1][0, 0]+", "a[2][0]", "z[1][0]", "weights[1][0, 0]", "learning_rate", "loss"),
}


@pytest.mark.parametrize("notation", NOTATIONS)
def test_the_worked_example(notation: str) -> None:
    found = gpuprop.trace.trace(*gpuprop.trace.worked_example(), notation=notation)
    new_weight, out, net, weight, rate, error = EXPECTED[notation]
    symbols = {term["symbol"]: term for term in found.to_dict()["terms"]}
    assert round(symbols[new_weight]["value"], 8) == 0.35891648
    assert symbols[new_weight]["formula"] == f"{weight} - {rate} * d{error}/d{weight}"
    assert round(symbols[net]["value"], 4) == 0.3775
    text = str(found)
    assert f"   {error} = 0.2910277736" in text.split("After 1 round")[1]
    assert f"   {out} = " in text.split("After 1 round")[1]
    others = {name for other, names in EXPECTED.items() if other != notation for name in names[:4]}
    assert not any(f" {name} " in text for name in others)


def test_biases_are_column_0_of_theta() -> None:
    network, x, y = gpuprop.trace.worked_example()
    network.biases[0][...] = 0.36, 0.37
    given = dict(gpuprop.trace.trace(network, x, y, notation="lecture").given)
    for symbol in (*given["weights"], *given["biases"]):
        row, column = (int(part) for part in symbol.index.split(","))
        assert symbol.value == network.theta(int(symbol.level))[row - 1, column]


@pytest.mark.parametrize("notation", NOTATIONS)
def test_a_path_through_a_large_network(notation: str) -> None:
    network = gpuprop.Network((40, 33, 17, 10), loss="categorical_cross_entropy", seed=0)
    x = np.random.default_rng(0).normal(size=(1, 40))
    reference = gpuprop.trace.trace(network, x, [3])
    found = gpuprop.trace.trace(network, x, [3], notation=notation)
    assert [term.value for term in found.terms] == [term.value for term in reference.terms]
    assert found.path.count(" -> ") == 3
    assert "<math>" in found.to_html()


def test_the_page_typesets_layers_as_superscripts() -> None:
    page = gpuprop.trace.trace(*gpuprop.trace.worked_example(), notation="lecture", rounds=2).to_html()
    assert "<msubsup><mi>Θ</mi><mtext>1,0</mtext><mtext>(1)</mtext></msubsup>" in page
    assert "<msubsup><mi>Θ</mi><mtext>1,1</mtext><mtext>(2)+</mtext></msubsup>" in page
    assert "<mi>J</mi>" in page


def test_the_command_line_and_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli(capsys)
    assert "Theta^(1)_1,2 = 0.2" in cli.run("trace", "--notation", "lecture").out
    assert "lecture" in cli.fail("trace", "--notation", "lektion").err
    with pytest.raises(ValueError, match="lecture"):
        gpuprop.trace.trace(*gpuprop.trace.worked_example(), notation="lektion")
