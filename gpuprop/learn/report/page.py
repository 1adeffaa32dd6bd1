"""The page of a report, section by section; a section for which something is missing says what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.learn.live.snapshot import image_shape
from gpuprop.learn.report import charts
from gpuprop.training.calibration import brier_score, reliability

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.training.scores import Report

__all__ = ["ReportContent", "ReportRow", "report_page"]

_TEMPLATE = Path(__file__).with_name("page.html")
_MOST_MISTAKES = 24
_MOST_CLASSES = 40
_MOST_CELLS = 12


@dataclass(frozen=True, eq=False)
class ReportRow:
    """A row of the test part.

    Attributes
    ----------
    number : int
        Its place in the test part, counted from 0.
    values : mapping of str to text, or ndarray
        Its cells by the names of the columns, or its pixels.
    """

    number: int
    values: Mapping[str, str] | NDArray[Any]


@dataclass(eq=False)
class ReportContent:
    """What a report shows.

    Attributes
    ----------
    title : str
    facts : sequence of (str, str)
        What stands at the top.
    history : mapping of str to sequences
    settings, versions, files : mapping of str to str
    columns : sequence of (name, kind, missing, treatment)
        Of a table.
    diagram : str
        The network as SVG, or nothing.
    report : Report or None
        The figures of the test part; the fields below are there with it.
    classes : sequence of str or None
        None for a regression.
    y, predicted : ndarray
    probabilities : ndarray of shape (n_samples, n_classes) or None
    row : callable
        Returns a `ReportRow` by its number.
    notes : list of str
        What is missing and why.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    history: Mapping[str, Sequence[float | None]]
    settings: Mapping[str, str]
    versions: Mapping[str, str]
    files: Mapping[str, str]
    columns: Sequence[tuple[str, str, str, str]] = ()
    diagram: str = ""
    report: Report | None = None
    classes: Sequence[str] | None = None
    y: NDArray[Any] | None = None
    predicted: NDArray[Any] | None = None
    probabilities: NDArray[Any] | None = None
    row: Any = None
    notes: list[str] = field(default_factory=list)


def report_page(content: ReportContent) -> str:
    """Return the page."""
    sections = [
        _facts(content),
        _notes(content),
        _curves(content),
        *(_of_classes(content) if content.classes is not None else _of_values(content)),
        _table("Columns", ("column", "kind", "missing", "what is done"), content.columns),
        _network(content),
        _table("Settings", ("option", "value"), list(content.settings.items())),
        _table("Versions", ("package", "version"), list(content.versions.items())),
        _table("Files", ("file", "SHA-256"), list(content.files.items())),
    ]
    page = _TEMPLATE.read_text(encoding="utf-8")
    return page.replace("{{title}}", escape(content.title)).replace("{{sections}}", "\n".join(filter(None, sections)))


def _section(title: str, inner: str, *, wide: bool = False) -> str:
    return f'<section class="card{" wide" if wide else ""}"><h2>{escape(title)}</h2>{inner}</section>'


def _facts(content: ReportContent) -> str:
    boxes = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in content.facts)
    return f'<div class="figures wide">{boxes}</div>'


def _notes(content: ReportContent) -> str:
    return "".join(f'<p class="soft wide">{escape(note)}</p>' for note in content.notes)


def _curves(content: ReportContent) -> str:
    history = content.history
    if not history.get("epoch"):
        return ""
    own = "r2" if "train_r2" in history else "accuracy"

    def there(name: str) -> bool:
        return any(value is not None for value in history.get(name, ()))

    groups: list[tuple[str, dict[str, str]]] = []
    for title, figure in (("loss", "loss"), ("R²" if own == "r2" else "accuracy", own)):
        kinds = {f"train_{figure}": "train", f"validation_{figure}": "validation"}
        groups.append((title, {name: kind for name, kind in kinds.items() if there(name)}))
    known = {"validation_loss", f"validation_{own}"}
    metrics = [name for name in history if name.startswith("validation_") and name not in known and there(name)]
    groups += [(name.removeprefix("validation_"), {name: "validation"}) for name in metrics]
    groups.append(("learning rate", {"learning_rate": "train"} if there("learning_rate") else {}))
    return "".join(_section(title, charts.curves(history, columns, title)) for title, columns in groups if columns)


def _figures(content: ReportContent) -> str:
    if content.report is None:
        return ""
    return _section("Test part", f'<pre class="scroll">{escape(content.report.text)}</pre>')


def _of_classes(content: ReportContent) -> list[str]:
    y, predicted, classes = content.y, content.predicted, content.classes
    if y is None or predicted is None or classes is None:
        return []
    sections = [_figures(content)]
    if len(classes) <= _MOST_CLASSES:
        counts = np.zeros((len(classes), len(classes)), int)
        np.add.at(counts, (y, predicted), 1)
        sections.append(_section("Confusion matrix", charts.matrix(counts, classes), wide=True))
    if content.probabilities is not None:
        found = reliability(y, content.probabilities)
        said = (
            f'<p class="soft">Expected calibration error {found.expected_error:.4f} (15 bins), Brier score '
            f"{brier_score(y, content.probabilities):.4f}.</p>"
        )
        sections.append(_section("Calibration", charts.reliability_diagram(found) + said))
    wrong = np.flatnonzero(y != predicted)
    if content.probabilities is not None:  # those that the network was surest of
        wrong = wrong[np.argsort(-content.probabilities[wrong, predicted[wrong]], kind="stable")]
    captions = {
        int(i): f"{classes[y[i]]}, taken for {classes[predicted[i]]}"
        + ("" if content.probabilities is None else f" ({content.probabilities[i, predicted[i]]:.1%})")
        for i in wrong[:_MOST_MISTAKES]
    }
    sections.append(_worst(content, captions, f"Worst mistakes: {len(wrong)} of {len(y)} rows"))
    return sections


def _of_values(content: ReportContent) -> list[str]:
    if content.y is None or content.predicted is None:
        return []
    y, predicted = (values.reshape(len(values), -1) for values in (content.y, content.predicted))
    errors = np.abs(predicted - y).sum(axis=1)
    worst = np.argsort(-errors, kind="stable")[:_MOST_MISTAKES]
    captions = {int(i): f"{_listed(y[i])}, predicted {_listed(predicted[i])}" for i in worst}
    return [
        _figures(content),
        _section("Predictions", charts.scatter(y, predicted)),
        _worst(content, captions, "Largest errors"),
    ]


def _listed(values: NDArray[Any]) -> str:
    return ", ".join(f"{value:.5g}" for value in values)


def _worst(content: ReportContent, captions: Mapping[int, str], title: str) -> str:
    if not captions or content.row is None:
        return ""
    rows = {number: content.row(number).values for number in captions}
    first = next(iter(rows.values()))
    if isinstance(first, np.ndarray):
        shape = image_shape(first.size)
        if shape is not None:
            figures = "".join(
                f"<figure>{charts.image(rows[number].reshape(shape), alt=caption)}"
                f"<figcaption>{escape(caption)}<br>row {number}</figcaption></figure>"
                for number, caption in captions.items()
            )
            return _section(title, f'<div class="pictures">{figures}</div>', wide=True)
        rows = {number: {f"x{i}": f"{value:.4g}" for i, value in enumerate(row)} for number, row in rows.items()}
    names = list(next(iter(rows.values())))[:_MOST_CELLS]
    cells = [
        (str(number), caption, *(rows[number].get(name, "") for name in names)) for number, caption in captions.items()
    ]
    return _table(title, ("row", "answer", *names), cells)


def _network(content: ReportContent) -> str:
    return (
        _section("Network", f'<div class="diagram scroll">{content.diagram}</div>', wide=True)
        if content.diagram
        else ""
    )


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    inner = f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    return _section(title, inner, wide=len(head) > 2)
