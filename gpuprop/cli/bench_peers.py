"""``gpuprop bench peers``: gpuprop on the CPU beside NumPy, scikit-learn, PyTorch and JAX."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from gpuprop.cli.options import Json, OptionError, known_names
from gpuprop.errors import GpupropError

__all__ = ["HELP", "peers"]

HELP = """Measure gpuprop on the CPU beside its peers, in processes that take turns.

All contenders train the same network from the same weights on the same batches, in float32; a contender whose loss
after an epoch differs is refused. The tables show medians of one run. Libraries that are not installed are left out.

\b
Configs (default: all):
  a 784-128-10 relu Adam, batch 128         c 784-512-512-10 relu Adam, batch 256
  b 784-256-128-10 relu momentum, batch 64  d 784-1024x3-10 relu Adam, batch 1024
  e1, e32 64-32-16-10 logistic SGD, batch 1 and 32

\b
Contenders (default: all that are installed):
  gpuprop            whole epochs in one compiled call
  gpuprop-dense      the same, without skipping the zeros of the inputs
  gpuprop-steps      one primitive at a time
  gpuprop-numpy      device "numpy"
  gpuprop-estimator  MLPClassifier (predictions only)
  numpy              a straightforward script
  sklearn, torch, torch-fused (its fused optimizer), jax (a scan over the epoch)
  floor              no training, only its dense multiplications, at the speed of the register tile

\b
Examples:
  gpuprop bench peers --quick
  gpuprop bench peers a e1 --contenders gpuprop,jax --threads 1
  gpuprop bench peers --report peers.json --picture peers.svg
  gpuprop bench peers --read peers.json --markdown
"""


def peers(
    configs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG]...", help="If configs are named, only trainings are measured, unless --only names others."
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="SUBJECTS",
            help="Some of training, inference, calls, accuracy, start, memory, install, with commas.  [default: all]",
        ),
    ] = None,
    contenders: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Contenders, separated by commas, gpuprop first.  [default: all installed]"),
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(metavar="N,...", help="Numbers of threads of every contender.  [default: 1 and all cores]"),
    ] = None,
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="Number of turns of each contender.")] = 11,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="3 turns of a, c, e1 and e32 on one thread, without accuracies; it takes minutes."
        ),
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the times of the trainings, as SVG or PNG.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    read: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Show the results in a file that --report wrote, or those that other options name; may be repeated.",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all results to this file, as JSON.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure or read, then show."""
    from gpuprop.cli.console import mark_saved
    from gpuprop.measure.bench import documents
    from gpuprop.measure.bench.peers import comparison
    from gpuprop.measure.bench.peers.configs import CONFIGS
    from gpuprop.measure.bench.peers.libraries import CONTENDERS, installed
    from gpuprop.measure.report_file import write_report

    here = installed()
    everybody = list(CONTENDERS if read else here)
    all_subjects = [s for s in comparison.SUBJECTS if not (quick and s == "accuracy")]
    all_configs = ["a", "c", "e1", "e32"] if quick else list(CONFIGS)
    chosen = comparison.Choice(
        contenders=known_names("--contenders", contenders.split(","), CONTENDERS) if contenders else everybody,
        configs=known_names("CONFIG", configs or all_configs, CONFIGS),
        subjects=_subjects(only, comparison.SUBJECTS) or (["training"] if configs else all_subjects),
        threads=_threads(threads) or (None if read else _usual_threads(quick)),
    )
    if read:
        try:
            document = documents.joined_reports(read, "peers")
        except ValueError as error:
            raise OptionError(f"--read {error}") from None
        document["results"] = [entry for entry in document["results"] if chosen.has(entry)]
        _show(document, picture, markdown, json)
        return
    if report is not None:
        report.touch()
    if not (json or markdown):
        absent = sorted(set(CONTENDERS) - set(here))
        print(f"not installed: {', '.join(absent) or 'nobody'}")
    turns = 3 if quick else rounds
    entries, refused = comparison.measure(chosen, turns, lambda line: print(line, file=sys.stderr, flush=True))
    document = documents.document("peers", _machine(), entries, rounds=turns, refused=refused)
    if report is not None:
        write_report(report, document)
        mark_saved()
    _show(document, picture, markdown, json)
    if refused:
        raise GpupropError(f"{len(refused)} of the comparisons were refused; the first: {refused[0]}")


def _show(document: dict[str, Any], picture: Path | None, markdown: bool, json: bool) -> None:
    from gpuprop.cli.console import print_json, print_table
    from gpuprop.measure.bench.peers import tables

    if picture is not None:
        if not any(entry["subject"] == "training" for entry in document["results"]):
            raise OptionError(f"--picture {picture}: no training was measured, and the picture shows trainings")
        tables.picture(document["results"]).savefig(picture)
    if json:
        print_json(document)
        return
    device, versions = document["device"], document["versions"]
    libraries = [f"{name} {versions[name]}" for name in ("numpy", "scikit-learn", "torch", "jax") if name in versions]
    line = f"{device['name']}, {device['processors']} processors; Python {versions['python']}, {', '.join(libraries)}"
    print(line + ("\n" if markdown else ""))
    for title, table in tables.tables(document["results"]):
        print(f"**{title}**\n\n{tables.markdown(table)}" if markdown else f"\n{title}\n")
        if not markdown:
            print_table(*table)


def _machine() -> dict[str, Any]:
    from gpuprop.backends import get_ops
    from gpuprop.measure import machine

    return machine.describe(get_ops("numpy"))


def _subjects(only: str | None, known: Iterable[str]) -> list[str]:
    return known_names("--only", only.split(","), known) if only else []


def _threads(text: str | None) -> list[int]:
    if text is None:
        return []
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise OptionError(f"got --threads {text!r}, expected numbers such as 1 or 1,4")
    return counts


def _usual_threads(quick: bool) -> list[int]:
    """Return one thread, and all cores unless the comparison is to be quick."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [1] if quick or cores == 1 else [1, cores]
