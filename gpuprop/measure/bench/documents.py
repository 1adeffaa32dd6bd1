"""The report of a benchmark: one JSON document, and the tables that show it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpuprop.measure import machine
from gpuprop.measure.report_file import read_report

__all__ = [
    "REPORT_FORMAT",
    "Table",
    "document",
    "joined_reports",
    "kernel_table",
    "machine_code_table",
    "paper_table",
    "training_table",
]

REPORT_FORMAT = "gpuprop bench 1"
"""The "format" of a report, which benchmarks/render_results.py checks."""

Table = tuple[tuple[str, ...], list[list[str]], tuple[int, ...]]
"""Headers, rows, and the columns to set flush right."""


def document(kind: str, device: dict[str, Any], results: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return a report; `kind` is "kernels", "step", "epoch", "tile", "together", "speedrun" or "peers"."""
    return {
        "format": REPORT_FORMAT,
        "kind": kind,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "device": device,
        "versions": machine.versions(),
        **more,
        "results": results,
    }


def joined_reports(paths: Sequence[Path], kind: str) -> dict[str, Any]:
    """Read reports of one machine with the same versions, and return one report with the results of all.

    Raises
    ------
    ValueError
        If a file cannot be read, is not a report of this kind, or comes from another machine or other versions; the
        message begins with its path.
    """
    documents: list[dict[str, Any]] = []
    for path in paths:
        try:
            documents.append(read_report(path, REPORT_FORMAT, kind))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
        for key in ("device", "versions"):
            if documents[-1][key] != documents[0][key]:
                raise ValueError(f"{path}: its {key} differ from those of {paths[0]}")
    return documents[0] | {"results": [entry for one in documents for entry in one["results"]]}


def kernel_table(results: Sequence[dict[str, Any]]) -> Table:
    """Return the table of kernels, with times if there are any."""
    plain = ("kernel", "rows x in x out", "contender", "share of bound")
    rows = [[r["kernel"], _shape(r["shape"]), r["contender"], _number(r["share_of_bound"], ".3f")] for r in results]
    if not any("microseconds" in r for r in results):
        rows = [
            [*row, f"{r['flops'] / 1e6:.2f}", f"{r['bytes'] / 1e6:.3f}"] for row, r in zip(rows, results, strict=True)
        ]
        return (*plain, "MFLOP", "MB"), rows, (1, 3, 4, 5)
    for row, r in zip(rows, results, strict=True):
        row += [_number(r["microseconds"][p], ".1f") for p in ("p20", "p50", "p80")]
        row += [f"{r['gflop_per_s']:.1f}", f"{r['gb_per_s']:.1f}", f"{r['share_of_roof']:.2f}"]
    return (*plain, "us p20", "p50", "p80", "GFLOP/s", "GB/s", "of roof"), rows, (1, 3, 4, 5, 6, 7, 8, 9)


def training_table(results: Sequence[dict[str, Any]]) -> Table:
    """Return the table of updates or epochs."""
    headers: tuple[str, ...] = ("network", "batch", "contender", "loss")
    timed = any("microseconds" in r for r in results)
    rows = []
    for r in results:
        row = ["-".join(map(str, r["sizes"])), str(r["batch_size"]), r["contender"], f"{r['loss']:.4f}"]
        if timed:
            row += [_number(r["microseconds"][p], ",.1f") for p in ("p20", "p50", "p80")]
            row += [f"{r['samples_per_second']:,.0f}", f"{r['gflop_per_s']:,.1f}", f"{r['times_ours']:.2f}"]
        rows.append(row)
    if timed:
        headers += ("us p20", "p50", "p80", "samples/s", "GFLOP/s", "x gpuprop")
    return headers, rows, tuple(i for i in range(len(headers)) if i not in (0, 2))


def paper_table(results: Sequence[dict[str, Any]]) -> Table:
    """Return the table of the figures that need no GPU."""
    gpus = list(results[0]["floor_microseconds"]) if results else []
    rows = []
    for r in results:
        what = [r["kernel"], _shape(r["shape"])] if "kernel" in r else [_shape(r["sizes"], "-"), str(r["batch_size"])]
        figures = [str(r["launches"]), f"{r['flops'] / 1e6:,.2f}", f"{r['bytes'] / 1e6:,.3f}"]
        rows.append(what + figures + [f"{r['floor_microseconds'][gpu]:,.2f}" for gpu in gpus])
    first = ("kernel", "rows x in x out") if results and "kernel" in results[0] else ("network", "batch")
    headers = (*first, "launches", "MFLOP", "MB", *(f"floor us, {gpu.removeprefix('NVIDIA ')}" for gpu in gpus))
    return headers, rows, tuple(range(1, len(headers)))


def machine_code_table(results: Sequence[dict[str, Any]]) -> Table:
    """Return the table of compiled kernels."""
    rows = [
        [
            r["kernel"], r["variant"], str(r["registers"]), str(r["shared_bytes"]),
            str(r["spilled_bytes"]), str(r["blocks_per_multiprocessor"]), f"{r['fma_fraction']:.3f}",
        ]
        for r in results
    ]  # fmt: skip
    headers = ("kernel", "variant", "registers", "shared bytes", "spilled", "blocks", "FMA of inner loop")
    return headers, rows, (2, 3, 4, 5, 6)


def _shape(sizes: Sequence[int], between: str = "x") -> str:
    return between.join(map(str, sizes))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
