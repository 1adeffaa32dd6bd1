"""``gpuprop selfcheck``: compare this machine's device with the float64 oracle, and write a report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuprop.cli.device import use_device
from gpuprop.cli.options import Device, Json

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuprop.core.plan import Backend
    from gpuprop.measure.equivalence.case import Outcome
    from gpuprop.measure.equivalence.selfcheck import Group, SelfCheck

__all__ = ["register"]

_HELP = """Check that this machine's device computes the right numbers; run this first on a new GPU.

Every step of backpropagation is compared with a float64 reference: in float32 and float64, with every activation, loss
and optimizer, on ragged shapes and through whole trainings. Each must stay within its error bound, write to no other
memory, and give the same bits twice. The exit status is 1 if anything fails. The first run compiles the kernels of a
GPU, which takes minutes; they are kept on disk if possible.

\b
Examples:
  gpuprop selfcheck
  gpuprop selfcheck --device cuda --report selfcheck.json
  gpuprop selfcheck --device cuda-sim
"""

TIMED_ROUNDS = 10

_HEADERS = ("step", "precision", "cases", "checks", "share of bound", "nearest to its bound")


def register(app: typer.Typer) -> None:
    """Add the command ``selfcheck``."""
    app.command("selfcheck", help=_HELP, short_help="Check that a device computes the right numbers.")(selfcheck)


def selfcheck(
    device: Device = "auto",
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write device, versions, errors and times to this file, as JSON."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Run about a sixth of the cases, once each; on cuda-sim this is always so.")
    ] = False,
    json: Json = False,
) -> None:
    """Run the cases, print the table, and exit with 1 on failure."""
    from gpuprop.cli.console import mark_saved, print_json

    chosen = use_device(device)
    from gpuprop.backends import get_ops
    from gpuprop.measure.equivalence.selfcheck import SelfCheck
    from gpuprop.measure.report_file import write_report

    if report is not None:
        report.touch()  # a report that cannot be written should fail now, not after five minutes
    ops = get_ops(device)
    check = SelfCheck(ops, quick=quick or ops.device == "cuda-sim")
    if json:
        for _ in check.run():
            pass
    else:
        print(chosen)
        _print_head(check)
        with _progress(check) as show:
            for outcome in check.run():
                show(outcome)
        _print_result(check)
    found = check.report() | {"timings": _timings(check, ops)}
    if report is not None:
        write_report(report, found)
        mark_saved()
    if json:
        print_json(found)
    else:
        for timing in found["timings"]:
            network = "-".join(map(str, timing["sizes"]))
            print(f"an update of {network}, {timing['contender']}: {timing['microseconds']['p50']:,.1f} microseconds")
        if report is not None:
            print(f"report: {report}")
    if not check.passed:
        raise typer.Exit(1)


def _timings(check: SelfCheck, ops: Backend) -> list[dict[str, Any]]:
    """Return the times of an update if the device has passed and its times count."""
    from gpuprop.measure.bench.whole_updates import CONFIGS, entries

    if check.quick or check.clock_fault or not check.passed:
        return []
    return entries(CONFIGS["a"], ops, "step", rounds=TIMED_ROUNDS)


def _print_head(check: SelfCheck) -> None:
    from gpuprop.measure.machine import versions

    print(", ".join(f"{name} {version}" for name, version in versions().items()))
    how = "once each" if check.quick else "each twice, for equal bits"
    print(f"{len(check.cases)} cases, {how}; the first use of a kernel compiles it", flush=True)


@contextmanager
def _progress(check: SelfCheck) -> Iterator[Callable[[Outcome], None]]:
    """Show the progress of the run, as a bar on a terminal, else as a line for each step; show failures at once."""
    from gpuprop.cli.console import is_terminal, terminal

    if is_terminal():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=terminal(), transient=True) as bar:
            task = bar.add_task("starting", total=len(check.cases))

            def advance(outcome: Outcome) -> None:
                bar.update(task, advance=1, description=f"{outcome.case.group}, {outcome.case.dtype}")
                if not outcome.passed:
                    bar.console.print(_failure(outcome), markup=False)

            yield advance
        return
    seen: list[str] = []

    def line(outcome: Outcome) -> None:
        step = f"{outcome.case.group}, {outcome.case.dtype}"
        if step not in seen:
            seen.append(step)
            print(f"[{len(check.outcomes)}/{len(check.cases)}] {step}", flush=True)
        if not outcome.passed:
            print(_failure(outcome), flush=True)

    yield line


def _failure(outcome: Outcome) -> str:
    return f"FAILED {outcome.case.title}: {outcome.error}"


def _row(group: Group) -> list[str]:
    worst = group.worst
    named = f"{worst.case.name}: {worst.worst}" if worst.passed else f"FAILED {worst.case.name}"
    checks = sum(outcome.n_checks for outcome in group.outcomes)
    return [group.name, group.dtype, str(len(group.outcomes)), str(checks), f"{worst.share:.2f}", named]


def _print_result(check: SelfCheck) -> None:
    from gpuprop.cli.console import print_table

    print()
    print_table(_HEADERS, [_row(group) for group in check.groups()], right=(2, 3, 4))
    print()
    for outcome in check.failures:
        print(_failure(outcome))
    if check.outcomes and check.outcomes[-1].lost:
        print(f"the device failed; {len(check.cases) - len(check.outcomes)} cases were not run")
    took = f"no times: {check.clock_fault}" if check.clock_fault else f"in {check.seconds:.0f} s"
    verdict = "passed" if check.passed else f"FAILED, {len(check.failures)} cases"
    print(
        f"selfcheck: {verdict}, {len(check.outcomes)} of {len(check.cases)} cases run on {check.device['name']}; {took}"
    )
