"""The tables and the picture of ``gpuprop bench peers``, from the entries that `comparison` returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gpuprop.measure.bench.documents import Table
from gpuprop.measure.bench.peers.calls import WAYS
from gpuprop.measure.bench.peers.configs import CONFIGS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["markdown", "picture", "tables"]

Entry = dict[str, Any]

NAMES = {
    "gpuprop": "gpuprop",
    "gpuprop-dense": "gpuprop, zeros not skipped",
    "gpuprop-steps": "gpuprop, primitives",
    "gpuprop-numpy": "gpuprop, device numpy",
    "gpuprop-estimator": "gpuprop, MLPClassifier",
    "jax": "JAX",
    "torch": "PyTorch",
    "torch-fused": "PyTorch, fused Adam",
    "sklearn": "scikit-learn",
    "numpy": "plain NumPy",
    "floor": "dense floor",
}
"""The name of each contender in tables, in their order."""

# Colours from M. Okabe and K. Ito, "Color universal design", 2008; the markers tell them apart in print.
_MARKS = {
    "gpuprop": ("#D55E00", "o"),
    "jax": ("#0072B2", "s"),
    "torch": ("#009E73", "^"),
    "sklearn": ("#CC79A7", "D"),
    "numpy": ("#56B4E9", "v"),
    "floor": ("#000000", "|"),
}


def tables(entries: Sequence[Entry]) -> Iterator[tuple[str, Table]]:
    """Yield the title and the table of every subject that was measured."""
    by_subject: dict[str, list[Entry]] = {}
    for entry in entries:
        by_subject.setdefault(entry["subject"], []).append(entry)
    if "training" in by_subject:
        yield _training(by_subject["training"])
    if "calls" in by_subject:
        yield _calls(by_subject["calls"])
    if "inference" in by_subject:
        yield from _inference(by_subject["inference"])
    if "accuracy" in by_subject:
        yield _accuracy(by_subject["accuracy"])
    footprint = [subject for subject in ("start", "memory", "install") if subject in by_subject]
    if footprint:
        yield _footprint([entry for subject in footprint for entry in by_subject[subject]])


def _training(entries: Sequence[Entry]) -> tuple[str, Table]:
    best = _best(entries)
    contenders = [name for name in NAMES if name != "gpuprop" and any(c == name for _, c in best)]
    rows = []
    for config in dict.fromkeys(entry["config"] for entry in entries):
        own = best.get((config, "gpuprop"))
        cells = [_ratio(best.get((config, name)), own) for name in contenders]
        rows.append([f"{config}: {CONFIGS[config]}", "-" if own is None else f"{own:,.1f}", *cells])
    threads = sorted({entry["threads"] for entry in entries})
    of = f"threads: {', '.join(map(str, threads))}" + ("; each contender's better" if len(threads) > 1 else "")
    headers = ("training", "gpuprop, us an update", *(f"{NAMES[name]}, times" for name in contenders))
    return f"An update of the parameters ({of})", (headers, rows, tuple(range(1, len(headers))))


def _calls(entries: Sequence[Entry]) -> tuple[str, Table]:
    """Compare each way to ask for an epoch with an epoch of the same number of threads within a long fit."""
    found = {(e["config"], e["threads"], e["contender"], e["call"]): e["microseconds"] for e in entries}
    columns = [
        (contender, call, long)
        for contender, long, others in (
            ("gpuprop", "fit", ("partial_fit", "warm_start")),
            ("gpuprop", "Trainer", ("Trainer.training",)),
            ("sklearn", "fit", ("partial_fit", "warm_start")),
        )
        for call in (long, *others)
    ]
    rows = []
    for config, threads in dict.fromkeys((entry["config"], entry["threads"]) for entry in entries):
        cells = []
        for contender, call, long in columns:
            own = None if call == long else found.get((config, threads, contender, long))
            cells.append(_ratio(found.get((config, threads, contender, call)), own))
        rows.append([f"{config}, {threads} thread{'s' if threads > 1 else ''}", *cells])
    names = [f"{NAMES[contender]}: {WAYS[call]}" for contender, call, _ in columns]
    headers = ("calls", *names)
    title = "An update by the way that its epoch is asked for, in times of one within a long fit"
    return title, (headers, rows, tuple(range(1, len(headers))))


def _best(entries: Sequence[Entry]) -> dict[tuple[str, str], float]:
    """Return the microseconds of each config and contender, with the number of threads that is faster for it."""
    best: dict[tuple[str, str], float] = {}
    for entry in entries:
        key = entry["config"], entry["contender"]
        best[key] = min(best.get(key, float("inf")), entry["microseconds"])
    return best


#: What an entry of a report says of its case that was written when predictions were of one kind.
_FORMER = {"config": "a", "threads": 1, "dtype": "float32", "inputs": "contiguous"}


def _inference(entries: Sequence[Entry]) -> Iterator[tuple[str, Table]]:
    """Yield a table for each number of threads: gpuprop's times, and how many times as long the others take."""
    entries = [_FORMER | entry for entry in entries]
    sizes = sorted({entry["rows"] for entry in entries})
    headers = ("network and inputs", "contender", *(f"{size:,} row{'s' if size > 1 else ''}" for size in sizes))
    for threads in sorted({entry["threads"] for entry in entries}):
        found: dict[tuple[str, ...], dict[tuple[str, int], float]] = {}
        for entry in entries:
            if entry["threads"] == threads:
                case = found.setdefault(tuple(entry[key] for key in ("config", "dtype", "inputs")), {})
                case[entry["contender"], entry["rows"]] = entry["microseconds"]
        rows = []
        for (config, dtype, inputs), times in found.items():
            network = f"{config}, {dtype}, {inputs}"
            for name in (name for name in NAMES if any(contender == name for contender, _ in times)):
                own = name == "gpuprop"
                cells = [
                    _microseconds(times.get((name, size)))
                    if own
                    else _ratio(times.get((name, size)), times.get(("gpuprop", size)))
                    for size in sizes
                ]
                rows.append([network, f"{NAMES[name]}, {'us' if own else 'times'}", *cells])
                network = ""
        yield f"Probabilities (threads: {threads})", (headers, rows, tuple(range(2, len(headers))))


def _microseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _accuracy(entries: Sequence[Entry]) -> tuple[str, Table]:
    targets = list(dict.fromkeys(entry["target"] for entry in entries))
    found = {(entry["contender"], entry["target"]): entry for entry in entries}
    rows = []
    for name in NAMES:
        if (name, targets[0]) not in found:
            continue
        row = [NAMES[name]]
        for target in targets:
            entry = found[name, target]
            seconds = "-" if entry["seconds"] is None else f"{entry['seconds']:.2f}"
            epochs = "" if entry["epochs"] is None else f"{entry['epochs']:g} epochs, "
            row += [seconds, f"{epochs}{entry['reached']} of {entry['seeds']} seeds"]
        rows.append(row)
    headers = ("config a on MNIST", *(text for t in targets for text in (f"seconds to {t:.1%}", "median")))
    title = f"Training time to a test accuracy (threads: 1; at most {entries[0]['most_epochs']} epochs)"
    return title, (headers, rows, tuple(range(1, len(headers), 2)))


_FOOTPRINT: dict[Any, tuple[str, Callable[[float], str]]] = {
    "import_seconds": ("import, s", lambda value: f"{value:.2f}"),
    "first_epoch_seconds": ("first epoch done, s", lambda value: f"{value:.2f}"),
    ("memory", "bytes"): ("peak memory, MB", lambda value: f"{value / 1e6:,.0f}"),
    ("install", "bytes"): ("installed, MB", lambda value: f"{value / 1e6:,.0f}"),
}


def _footprint(entries: Sequence[Entry]) -> tuple[str, Table]:
    found: dict[Any, dict[str, Any]] = {}
    for entry in entries:
        for key, value in entry.items():
            column = (entry["subject"], key) if key == "bytes" else key
            if column in _FOOTPRINT:
                found.setdefault(column, {})[entry["contender"]] = value
    columns = [column for column in _FOOTPRINT if column in found]
    rows = [
        [NAMES[name], *(_FOOTPRINT[c][1](found[c][name]) if name in found[c] else "-" for c in columns)]
        for name in NAMES
        if any(name in found[column] for column in columns)
    ]
    headers = ("config a", *(_FOOTPRINT[column][0] for column in columns))
    return "Start and size", (headers, rows, tuple(range(1, len(headers))))


def _ratio(value: float | None, own: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f} us" if own is None else f"{value / own:.2f}" if value < 10 * own else f"{value / own:.1f}"


def markdown(table: Table) -> str:
    """Return a table as Markdown."""
    headers, rows, right = table
    rule = ["---:" if index in right else "---" for index in range(len(headers))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (headers, rule, *rows))


def picture(entries: Sequence[Entry]) -> Figure:
    """Draw microseconds an update by config and contender, on a logarithmic axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    measured = [entry for entry in entries if entry["subject"] == "training" and entry["contender"] in _MARKS]
    configs, best = list(dict.fromkeys(entry["config"] for entry in measured)), _best(measured)
    figure = Figure(figsize=(9.0, 0.8 + 0.55 * len(configs)), dpi=130, layout="constrained")
    axes = figure.subplots()
    for height, (name, (colour, marker)) in enumerate(reversed(_MARKS.items()), start=2):  # gpuprop on top
        # The floor of dense figures only: an online step is not made of multiplications.
        own = {c: best[c, name] for c in configs if (c, name) in best and (name != "floor" or c in "abcd")}
        if own:
            places = [configs.index(config) for config in own]
            axes.plot(list(own.values()), places, marker, color=colour, markersize=9 if name == "gpuprop" else 7,
                      markeredgewidth=2 if marker == "|" else 1, label=NAMES[name], zorder=height)  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_yticks(range(len(configs)), [f"{config}: {CONFIGS[config]}" for config in configs], fontsize=8)
    axes.invert_yaxis()
    axes.set_ylim(len(configs) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("microseconds an update (logarithmic)")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside upper center", ncols=len(_MARKS), frameon=False, fontsize=8)
    return figure
