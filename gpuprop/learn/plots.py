"""Pictures of a training run: loss curves, the confusion matrix, predictions against true values.

Every function returns a new matplotlib ``Figure``, made without pyplot: there is no global state, no window, and
nothing to close. ``figure.savefig(path)`` writes the picture; a notebook displays a figure by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpuprop.training.class_report import confusion_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gpuprop.training.profiling import Profile
    from gpuprop.training.rate_finder import RateSearch

__all__ = [
    "attributions",
    "confusion_matrix",
    "draw_nothing",
    "learning_rates",
    "loss_curves",
    "predictions",
    "profile",
]

# The curves differ in line and marker as well as in colour, for print and for colour-blind readers (the colours are
# from M. Okabe and K. Ito, "Color universal design", 2008).
_TRAIN: dict[str, Any] = {"color": "#0072B2", "linestyle": "-", "marker": "o"}
_VALIDATION: dict[str, Any] = {"color": "#D55E00", "linestyle": "--", "marker": "s"}
_METRICS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKED_POINTS = 12
_DPI = 130

# Each cell of a confusion matrix shows its number up to the first count of classes; each class has a label up to the
# second.
_MAX_NUMBERED = 25
_MAX_LABELLED = 50


def loss_curves(history: Mapping[str, Sequence[float | None]], *, title: str = "") -> Figure:
    """Draw loss and score by epoch.

    Parameters
    ----------
    history : mapping of str to sequences
        `Trainer.history`. The validation curves are left out if their columns hold None.
    title : str, default=""

    Returns
    -------
    Figure
        The losses are on the left, accuracy (or R2) beside them, and the metrics, if there are any, on the right.

    Raises
    ------
    GpupropError
        If matplotlib is not installed or broken.

    Examples
    --------
    >>> import gpuprop
    >>> network = gpuprop.Network((2, 4, 1), seed=0, device="numpy")
    >>> trainer = gpuprop.Trainer(network, epochs=3).fit(*gpuprop.datasets.make_xor())
    >>> figure = gpuprop.plots.loss_curves(trainer.history)
    """
    metric, name = ("r2", "R²") if "train_r2" in history else ("accuracy", "accuracy")
    metrics = _metrics_in(history, metric)
    figure = _figure(14.5 if metrics else 10.0, 4.0, title, left=0.8)
    losses, scores, *others = figure.subplots(1, 3 if metrics else 2, gridspec_kw={"wspace": 0.2})
    _curves(losses, history, "loss")
    losses.set_ylabel("loss")
    values = [value for value in (*history["train_loss"], *history["validation_loss"]) if value is not None]
    if min(values) > 0 and max(values) > 20 * min(values):
        _logarithmic(losses)
    _curves(scores, history, metric)
    scores.set_ylabel(name)
    losses.legend(loc="upper right")
    scores.legend(loc="lower right")
    for axes in others:
        _metric_curves(axes, history, metrics)
    return figure


def confusion_matrix(y: ArrayLike, predicted: ArrayLike, classes: Sequence[Any], *, title: str = "") -> Figure:
    """Draw how often each class was predicted as each other class.

    Parameters
    ----------
    y, predicted : array_like of int, shape (n_samples,)
        True and predicted class indices.
    classes : sequence
        The names of the classes, in the order of the indices.
    title : str, default=""

    Returns
    -------
    Figure
        Rows are true classes, columns predicted ones.

    Raises
    ------
    GpupropError
        If matplotlib is not installed or broken.

    Examples
    --------
    >>> import gpuprop
    >>> figure = gpuprop.plots.confusion_matrix([0, 1, 1], [0, 1, 0], ["no", "yes"])
    """
    labels = [_shortened(str(label)) for label in classes]
    n_classes = len(labels)
    counts = confusion_counts(y, predicted, n_classes)
    side = float(np.clip(2.4 + 0.42 * n_classes, 3.8, 13.0))
    numbered = n_classes <= _MAX_NUMBERED
    longest = max(map(_inches, labels))
    upright = max(map(len, labels)) > 3
    height = (longest if upright else 0.2) + 0.5
    figure = _figure(side if numbered else 1.2 * side, side, title, left=longest + 0.55, bottom=height)
    axes = figure.subplots()
    image = axes.imshow(counts, cmap="Blues", interpolation="nearest")
    if numbered:
        _number_cells(axes, counts, image.cmap(0.0), image.cmap(1.0))
    else:
        figure.colorbar(image, ax=axes)  # in place of the numbers
    every = -(-n_classes // _MAX_LABELLED)
    places = np.arange(0, n_classes, every)
    axes.set_xticks(places, labels[::every], rotation="vertical" if upright else "horizontal")
    axes.set_yticks(places, labels[::every])
    axes.set(xlabel="predicted class", ylabel="true class")
    return figure


def _number_cells(axes: Axes, counts: NDArray[np.int64], light: Any, dark: Any) -> None:
    """Write its number into each cell of a matrix, in the colour that stands out from the cell's."""
    middle = (counts.min() + counts.max()) / 2
    for (row, column), count in np.ndenumerate(counts):
        color = dark if count < middle else light
        axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=9)


def predictions(y: ArrayLike, predicted: ArrayLike, *, title: str = "") -> Figure:
    """Draw a regression's predictions against the true values; on the dashed line the two are equal.

    Parameters
    ----------
    y, predicted : array_like of shape (n_samples,) or (n_samples, n_outputs)
        True and predicted values; each output has its own colour and marker.
    title : str, default=""

    Raises
    ------
    GpupropError
        If matplotlib is not installed or broken.

    Examples
    --------
    >>> import gpuprop
    >>> figure = gpuprop.plots.predictions([1.0, 2.0, 3.0], [1.1, 1.9, 3.2])
    """
    true, guess = (np.asarray(values, dtype=np.float64) for values in (y, predicted))
    true, guess = true.reshape(len(true), -1), guess.reshape(len(guess), -1)
    figure = _figure(5.6, 5.2, title, left=0.95)
    axes = figure.subplots()
    n_outputs = true.shape[1]
    for output in range(n_outputs):
        axes.scatter(
            true[:, output],
            guess[:, output],
            s=14,
            alpha=float(np.clip(30 / np.sqrt(true.size), 0.15, 0.8)),
            marker="os^Dv"[output % 5],
            edgecolors="none",
            label=f"output {output + 1}",
        )
    ends = [float(min(true.min(), guess.min())), float(max(true.max(), guess.max()))]
    axes.plot(ends, ends, color="black", linestyle="--", linewidth=1, label="equal")
    axes.set(xlabel="true value", ylabel="predicted value", aspect="equal", adjustable="datalim")
    axes.grid(alpha=0.3)
    if n_outputs > 1:
        axes.legend(frameon=False)
    return figure


def learning_rates(found: RateSearch, *, title: str = "") -> Figure:
    """Draw the loss at growing learning rates, and the rates that are suggested.

    Parameters
    ----------
    found : RateSearch
        What `gpuprop.find_learning_rate` returns.
    title : str, default=""

    Raises
    ------
    GpupropError
        If matplotlib is not installed or broken.

    Examples
    --------
    >>> import gpuprop
    >>> X, y = gpuprop.datasets.make_xor(100, noise=0.1)
    >>> trainer = gpuprop.Trainer(gpuprop.Network((2, 4, 1), seed=0, device="numpy"), batch_size=8)
    >>> figure = gpuprop.plots.learning_rates(gpuprop.find_learning_rate(trainer, X, y))
    """
    figure = _figure(6.4, 4.2, title, left=0.8)
    axes = figure.subplots()
    axes.plot(found.rates, found.losses, color="#999999", linewidth=0.8, label="batch")
    axes.plot(found.rates, found.smoothed, color=_TRAIN["color"], linewidth=1.8, label="smoothed")
    for name, rate, style in (
        ("valley", found.valley, {"color": _VALIDATION["color"], "marker": "s"}),
        ("steepest", found.steepest, {"color": _METRICS[0], "marker": "o"}),
    ):
        height = float(found.smoothed[int(np.abs(found.rates - rate).argmin())])
        axes.plot([rate], [height], linestyle="none", markersize=8, label=f"{name}: {rate:.2g}", **style)
    low, high = float(found.smoothed.min()), float(found.smoothed.max())
    margin = 0.1 * (high - low or 1.0)
    axes.set(xlabel="learning rate", ylabel="loss", xscale="log", ylim=(low - margin, high + margin))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def attributions(
    sums: Mapping[str, float],
    *,
    most: int = 12,
    values: ArrayLike | None = None,
    pixels: ArrayLike | None = None,
    title: str = "",
) -> Figure:
    """Draw what columns contribute to an output as bars, or what the pixels of an image do as pictures.

    Parameters
    ----------
    sums : mapping of str to float
        The contribution of each column.
    most : int, default=12
        The most columns: those of the largest contributions.
    values : array_like of shape (n_features,) or None, default=None
        The contribution of each pixel; needed with `pixels`.
    pixels : array_like of shape (rows, columns) or None, default=None
        The image.
    title : str, default=""

    Raises
    ------
    GpupropError
        If matplotlib is not installed or broken.

    Examples
    --------
    >>> import gpuprop
    >>> figure = gpuprop.plots.attributions({"age": 0.4, "price": -0.1})
    """
    if pixels is not None and values is not None:
        figure = _figure(8.4, 3.8, title, left=0.2, bottom=0.2)
        left, right, key, room = figure.subplots(1, 4, width_ratios=(1, 1, 0.05, 0.12))  # room for the numbers
        room.set_axis_off()
        gray = np.asarray(pixels)
        signed = np.asarray(values, np.float64).reshape(gray.shape)
        largest = float(np.abs(signed).max()) or 1.0
        left.imshow(gray, cmap="gray_r")
        left.set_title("input")
        shown = right.imshow(signed, cmap="RdBu", vmin=-largest, vmax=largest)
        right.set_title("contributions")
        figure.colorbar(shown, cax=key)
        for axes in (left, right):
            axes.set(xticks=[], yticks=[])
        return figure
    listed = sorted(sums.items(), key=lambda item: abs(item[1]))[-most:]
    labels = [_shortened(name) for name, _ in listed]
    left = max(map(_inches, labels)) + 0.2
    figure = _figure(5.4 + left, 1.2 + 0.32 * len(listed), title, left=left)
    axes = figure.subplots()
    heights = [value for _, value in listed]
    colours = [_TRAIN["color"] if value >= 0 else _VALIDATION["color"] for value in heights]
    axes.barh(labels, heights, color=colours)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_xlabel("contribution to the output")
    axes.grid(alpha=0.3, axis="x")
    return figure


def profile(found: Profile, *, title: str = "") -> Figure:
    """Draw where an epoch goes, in the order of the epoch.

    Parameters
    ----------
    found : Profile
        What ``Trainer.profile`` returns.
    title : str, default=""

    Raises
    ------
    GpupropError
        If matplotlib is not installed or broken.

    Examples
    --------
    >>> import gpuprop
    >>> X, y = gpuprop.datasets.make_xor(100, noise=0.1)
    >>> trainer = gpuprop.Trainer(gpuprop.Network((2, 4, 1), seed=0, device="numpy"), epochs=2)
    >>> figure = gpuprop.plots.profile(trainer.profile(X, y))
    """
    names, seconds = list(found.parts), list(found.parts.values())
    left = max(map(_inches, names)) + 0.2
    figure = _figure(5.4 + left, 1.2 + 0.32 * len(names), title, left=left)
    axes = figure.subplots()
    axes.barh(names[::-1], [1e3 * value for value in seconds[::-1]], color=_TRAIN["color"])
    for place, value in enumerate(seconds[::-1]):
        axes.text(1e3 * value, place, f" {value / found.seconds:.1%}", va="center", fontsize=9)
    axes.set_xlabel(f"milliseconds of an epoch of {1e3 * found.seconds:.3g} ms")
    axes.margins(x=0.15)
    axes.grid(alpha=0.3, axis="x")
    return figure


def draw_nothing() -> None:
    """Draw a picture that holds a word, and throw it away: this fails where the other pictures would fail.

    Raises
    ------
    Exception
        What matplotlib raises if it is not installed, or is set up for LaTeX, a font or a style that is not there.

    Examples
    --------
    >>> import gpuprop
    >>> gpuprop.plots.draw_nothing()
    """
    from io import BytesIO

    figure = _figure(2.0, 2.0, "loss")
    figure.savefig(BytesIO(), format="png", dpi=20)


def _figure(width: float, height: float, title: str, *, left: float = 0.1, bottom: float = 0.6) -> Figure:
    """Return a figure with margins in inches.

    They are given and not found by a layout engine, which takes longer than the drawing: it lays out each text again.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI)
    top = 0.15
    if title:
        top = 0.5
        figure.suptitle(title.replace("$", r"\$"), y=1 - 0.12 / height)
    figure.subplots_adjust(left / width, bottom / height, 1 - 0.35 / width, 1 - top / height)
    return figure


def _inches(label: str) -> float:
    """Return how wide a label beside an axis is."""
    from matplotlib import rcParams
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    size = FontProperties(size=rcParams["xtick.labelsize"])
    width, _, _ = text_to_path.get_text_width_height_descent(label, size, ismath=False)
    return float(width) / 72


def _curves(axes: Axes, history: Mapping[str, Sequence[float | None]], quantity: str) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = history["epoch"]
    for part, style in (("train", _TRAIN), ("validation", _VALIDATION)):
        values = history[f"{part}_{quantity}"]
        if values[0] is not None:
            every = max(1, len(epochs) // _MARKED_POINTS)
            axes.plot(epochs, values, label=part, markersize=4, linewidth=1.5, markevery=every, **style)  # type: ignore[arg-type]
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def _metrics_in(history: Mapping[str, Sequence[float | None]], own: str) -> list[str]:
    """Return the columns of metrics of the validation rows, see `gpuprop.Trainer`."""
    columns = [name for name in history if name.startswith("validation_")]
    return [
        name
        for name in columns
        if name not in ("validation_loss", f"validation_{own}") and any(value is not None for value in history[name])
    ]


def _metric_curves(axes: Axes, history: Mapping[str, Sequence[float | None]], columns: Sequence[str]) -> None:
    """Draw the metrics of the validation rows; their lines and markers differ as well as their colours."""
    from matplotlib.ticker import MaxNLocator

    epochs = history["epoch"]
    every = max(1, len(epochs) // _MARKED_POINTS)
    for number, column in enumerate(columns):
        values = [np.nan if value is None else value for value in history[column]]
        style: dict[str, Any] = {"linestyle": ("-", "--", "-.", ":")[number % 4], "marker": "os^Dv"[number % 5]}
        axes.plot(
            epochs,  # type: ignore[arg-type]
            values,
            label=column.removeprefix("validation_"),
            color=_METRICS[number % len(_METRICS)],
            markersize=4,
            linewidth=1.5,
            markevery=every,
            **style,
        )
    axes.set(xlabel="epoch", ylabel="metrics of the validation rows")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(loc="best")


def _logarithmic(axes: Axes) -> None:
    """Make the vertical axis logarithmic, with plain numbers at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _shortened(label: str) -> str:
    """Return a label that fits beside an axis, with dollar signs escaped, which would begin a formula."""
    return (label if len(label) <= 20 else f"{label[:19]}…").replace("$", r"\$")
