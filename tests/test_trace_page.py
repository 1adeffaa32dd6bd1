"""The page: well-formed MathML, every number on it, nothing loaded, nothing from a model file executed."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

import gpuprop
from gpuprop.learn.trace import trace, worked_example
from tests.references.worked_example import PRINTED, same_digits

#: Elements that MathML Core renders, and how many children those with a fixed number take.
FIXED = {"mfrac": 2, "msub": 2, "msup": 2, "msubsup": 3}
FREE = {"math", "mstyle", "mrow", "mi", "mn", "mo", "mtext", "mspace"}

LARGE = gpuprop.Network((17, 9, 4), loss="categorical_cross_entropy", seed=0)
PAGES = {
    "worked example": trace(*worked_example()).to_html(),
    "updated, 100 rounds": trace(*worked_example(), rounds=100, weights="updated").to_html(),
    "path": trace(LARGE, np.linspace(-1, 1, 17), 2).to_html(),
    "penalties": trace(gpuprop.Network((2, 2, 1), seed=0, l1=0.1, l2=0.1), [1, -1], 0.5, train_biases=True).to_html(),
}


def formulas(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(unescape(found)) for found in re.findall("<math>.*?</math>", page)]


class Tags(HTMLParser):
    """Collects tags, and checks that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", PAGES)
def test_elements_nest(name: str) -> None:
    tags = Tags()
    tags.feed(PAGES[name])
    assert tags.open == []


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_loaded(name: str) -> None:
    tags = Tags()
    tags.feed(PAGES[name])
    names = {tag for tag, _ in tags.seen}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "base", "form"})
    assert not any({"src", "href", "style", "onload", "onclick"} & set(attributes) for _, attributes in tags.seen)
    assert "default-src 'none'" in PAGES[name]
    assert not re.search(r"https?:|url\(|@import", PAGES[name])


@pytest.mark.parametrize("name", PAGES)
def test_mathml_is_well_formed(name: str) -> None:
    found = formulas(PAGES[name])
    assert len(found) > 20
    for formula in found:
        for element in formula.iter():
            assert element.tag in FREE or len(element) == FIXED[element.tag], element.tag


def test_page_is_for_phones_and_both_colour_schemes() -> None:
    page = PAGES["worked example"]
    assert '<meta name="viewport" content="width=device-width' in page
    assert "prefers-color-scheme: dark" in page
    assert '<html lang="en">' in page


def test_every_number_is_on_the_page() -> None:
    results = re.findall(r'class="value">(.*?)</span>', PAGES["worked example"])
    texts = ("".join(ElementTree.fromstring(unescape(result)).itertext()).lstrip("=") for result in results)
    shown = [float(text.replace("\N{MINUS SIGN}", "-")) for text in texts]
    for symbol, printed in PRINTED.items():
        assert any(same_digits(number, printed) for number in shown), symbol


def test_powers_of_ten_are_typeset() -> None:
    page = trace(*worked_example(), rounds=1000).to_html()
    assert not re.search(r"<mn>[^<]*e", page)
    assert "<msup><mn>10</mn>" in page


def test_labels_of_a_model_are_escaped() -> None:
    network = gpuprop.Network(
        (17, 9, 2), loss="categorical_cross_entropy", seed=0, classes=["<script>alert(1)</script>", "<b>"]
    )
    page = trace(network, np.ones(17), 0).to_html()
    assert "(class &lt;script&gt;" in page
    assert "<script" not in page


def test_names_of_activations_are_escaped() -> None:
    mean = gpuprop.Activation("<i>&mean", lambda z: z * 1.0, lambda a: np.ones_like(a))
    page = trace(gpuprop.Network((1, 2, 1), hidden_activation=mean, seed=0), [1.0], 0.0).to_html()
    assert "<i>&mean" not in page
    assert "&lt;i&gt;&amp;mean" in page
