"""``gpuprop bench peers``: gpuprop on the CPU beside NumPy, scikit-learn, PyTorch and JAX."""

from __future__ import annotations

import json as json_module
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from gpuprop.cli.options import Json, OptionError
from gpuprop.errors import GpupropError

__all__ = ["HELP", "peers"]

HELP = """Measure gpuprop on the CPU beside its peers, in processes that take turns.

Training is that of the same network from the same weights through the same batches, in float32; a contender whose loss
after an epoch differs is refused. Shown are medians of the same run. What is not installed is left out.

\b
Configs (default: all):
  a 784-128-10 relu Adam, batch 128         c 784-512-512-10 relu Adam, batch 256
  b 784-256-128-10 relu momentum, batch 64  d 784-1024x3-10 relu Adam, batch 1024
  e1, e32 64-32-16-10 logistic SGD, batch 1 and 32

\b
Contenders (default: all that are installed):
  gpuprop            whole epochs in one compiled call
  gpuprop-dense      the same, zeros of the inputs not skipped
  gpuprop-steps      one primitive at a time
  gpuprop-numpy      device "numpy"
  gpuprop-estimator  MLPClassifier (predictions only)
  numpy              a straightforward script
  sklearn, torch, torch-fused (its fused optimizer), jax (a scan over the epoch)
  floor              no training: its dense multiplications at the speed of the register tile

\b
Examples:
  gpuprop bench peers --quick
  gpuprop bench peers a e1 --contenders gpuprop,jax --threads 1
  gpuprop bench peers --report peers.json --picture peers.svg
  gpuprop bench peers --read peers.json --markdown
"""


def peers(
    configs: Annotated[
        list[str] | None, typer.Argument(metavar="[CONFIG]...", help="With configs, only trainings are measured.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="SUBJECTS", help="Of training, inference, accuracy, start, memory, install."),
    ] = None,
    contenders: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Comma-separated, gpuprop first.  [default: all installed]")
    ] = None,
    threads: Annotated[
        str | None, typer.Option(metavar="N,...", help="Threads of every contender.  [default: 1 and all cores]")
    ] = None,
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="Turns of each contender.")] = 11,
    quick: Annotated[
        bool, typer.Option("--quick", help="3 turns of a, c, e1 and e32 on one thread; no accuracies: minutes.")
    ] = False,
    picture: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the trainings, as SVG or PNG.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    read: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Show what --report wrote, or of it what is asked for; may be repeated."),
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write everything here, as JSON.")] = None,
    json: Json = False,
) -> None:
    """Measure or read, then show."""
    from gpuprop.measure.bench import documents as reports
    from gpuprop.measure.bench.peers import comparison
    from gpuprop.measure.bench.peers.configs import CONFIGS
    from gpuprop.measure.bench.peers.libraries import CONTENDERS, installed

    here = installed()
    chosen = (
        _known("--contenders", contenders.split(","), CONTENDERS) if contenders else list(CONTENDERS if read else here)
    )
    wanted = _known("CONFIG", configs or (["a", "c", "e1", "e32"] if quick else list(CONFIGS)), CONFIGS)
    counts = _threads(threads, quick)
    subjects = _known("--only", only.split(","), comparison.SUBJECTS) if only else list(comparison.SUBJECTS)
    if not only:
        subjects = ["training"] if configs else [s for s in subjects if not (quick and s == "accuracy")]
    if read:
        document = _read(read)
        document["results"] = [
            entry
            for entry in document["results"]
            if entry["contender"] in chosen
            and entry["subject"] in subjects
            and entry.get("config", wanted[0]) in wanted
            and (threads is None or entry.get("threads", counts[0]) in counts)
        ]
        _show(document, picture, markdown, json)
        return
    if report is not None:
        report.touch()
    turns = 3 if quick else rounds
    quiet = json or markdown
    entries: list[dict[str, Any]] = []
    refused: list[str] = []

    def measure(what: str, function: Callable[..., list[dict[str, Any]]], *arguments: Any) -> None:
        print(f"  {what} ...", file=sys.stderr, flush=True)
        try:
            entries.extend(function(chosen, *arguments))
        except GpupropError as error:
            refused.append(f"{what}: {error}")
            print(f"  refused: {error}", file=sys.stderr, flush=True)

    if not quiet:
        absent = sorted(set(CONTENDERS) - set(here))
        print(f"not installed: {', '.join(absent) or 'nobody'}")
    functions = {
        "inference": (comparison.inference, turns),
        "accuracy": (comparison.accuracy, lambda name: print(f"    {name}", file=sys.stderr, flush=True)),
        "start": (comparison.start, min(turns, 5)),
        "memory": (comparison.memory,),
        "install": (comparison.install,),
    }
    if "training" in subjects:
        for name in wanted:
            for count in counts:
                plural = "s" if count > 1 else ""
                measure(f"{name}: {CONFIGS[name]}, {count} thread{plural}", comparison.training, name, count, turns)
    for subject in subjects:
        if subject in functions:
            function, *rest = functions[subject]
            measure(f"{subject}: {comparison.SUBJECTS[subject]}", function, *rest)  # type: ignore[arg-type]
    document = reports.document("peers", _machine(), entries, rounds=turns, refused=refused)
    if report is not None:
        report.write_text(json_module.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
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


def _read(paths: list[Path]) -> dict[str, Any]:
    """Return one report of all; they must come from one machine with the same versions."""
    from gpuprop.measure.bench.documents import REPORT_FORMAT

    documents = []
    for path in paths:
        try:
            document = json_module.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OptionError(f"--read {path}: {error}") from None
        if not isinstance(document, dict) or (document.get("format"), document.get("kind")) != (REPORT_FORMAT, "peers"):
            raise OptionError(f"--read {path}: not a report of gpuprop bench peers")
        documents.append(document)
        for key in ("device", "versions"):
            if document[key] != documents[0][key]:
                raise OptionError(f"--read {path}: its {key} differ from those of {paths[0]}")
    return documents[0] | {"results": [entry for document in documents for entry in document["results"]]}


def _known(option: str, names: list[str], known: Any) -> list[str]:
    for name in names:
        if name not in known:
            raise OptionError(f"got {option} {name!r}, expected one or more of {', '.join(known)}")
    return names


def _threads(text: str | None, quick: bool) -> list[int]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if text is None:
        return [1] if quick or cores == 1 else [1, cores]
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise OptionError(f"got --threads {text!r}, expected numbers such as 1 or 1,4")
    return counts
