"""``gpuprop bench scale``: what several processes gain here, and what several machines would gain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gpuprop.cli.console import print_json, print_table
from gpuprop.cli.options import Json, OptionError, parse_hidden

if TYPE_CHECKING:
    from gpuprop.measure.bench.scaling import Timing

__all__ = ["HELP", "scale"]

HELP = """Measure how several processes of this machine share updates, and model what machines on a network would gain.

Strong scaling keeps the rows of an update, weak scaling gives each process as many as one has. The model divides the
gradient's time here by the number of machines and adds what the network takes; the assumptions stand below it.

\b
Examples:
  gpuprop bench scale
  gpuprop bench scale --layers 784,1024,1024,10 --batch-size 4096 --processes 1,2,4
"""

_MACHINES = (2, 8, 64)


def scale(
    layers: Annotated[str, typer.Option(metavar="SIZES", help="Units of all layers.")] = "784,512,512,10",
    batch_size: Annotated[int, typer.Option(metavar="N", min=8, help="Rows of an update.")] = 1024,
    processes: Annotated[str, typer.Option(metavar="N,...", help="Numbers of processes, powers of two.")] = "1,2",
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu or numpy.")] = "cpu",
    seconds: Annotated[float, typer.Option(metavar="S", min=0.05, help="Seconds of updates a measurement.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Measure, model, print."""
    from gpuprop.measure.bench import scaling

    sizes, counts = parse_hidden(layers), parse_hidden(processes)
    if len(sizes) < 2 or not counts or any(n & (n - 1) for n in counts):
        raise OptionError(f"got --layers {layers} and --processes {processes}, expected sizes and powers of two")
    settings = scaling.Settings(sizes, batch_size, device, seconds)
    strong, weak = scaling.scaled(settings, sorted({1, *counts}))
    n_bytes, alone = 4 * settings.n_parameters, strong[1].update
    rows_at: dict[str, dict[int, int | None]] = {
        network.name: {
            machines: scaling.break_even(alone / batch_size, 0.0, n_bytes, machines, network) for machines in _MACHINES
        }
        for network in scaling.NETWORKS
    }
    if as_json:
        print_json(
            {
                "layer_sizes": sizes,
                "batch_size": batch_size,
                "strong": {n: one._asdict() for n, one in strong.items()},
                "weak": {n: one._asdict() for n, one in weak.items()},
                "rows_of_an_update_from_which_machines_are_half_used": rows_at,
            }
        )
        return
    print(f"{'-'.join(map(str, sizes))}, {settings.n_parameters:,} parameters, {batch_size:,} rows an update, {device}")
    for what, timings in (("the same rows (strong scaling)", strong), ("rows for each (weak scaling)", weak)):
        print(f"\n{what}:")
        ideal = (lambda n: alone / n) if timings is strong else (lambda n: alone)
        print_table(
            ("processes", "ms an update", "of it adding", "efficiency"),
            [_row(n, one, ideal(n)) for n, one in timings.items()],
            right=(0, 1, 2, 3),
        )
    print("\nrows of an update from which so many machines do at least half of what they could (model):")
    print_table(
        ("network", *(f"{machines} machines" for machines in _MACHINES)),
        [(name, *("never" if rows is None else f"{rows:,}" for rows in row.values())) for name, row in rows_at.items()],
        right=(1, 2, 3),
    )
    print(
        "assumptions: each machine is as fast as one process here; an update sends the gradient twice, less a share;\n"
        "log2(machines) latencies of 50, 20 and 5 us for each of two collectives; nothing overlaps, nobody waits"
    )


def _row(n: int, timing: Timing, ideal: float) -> tuple[str, ...]:
    update, adding = timing
    return str(n), f"{1e3 * update:.2f}", f"{1e3 * adding:.2f}", f"{ideal / update:.0%}"
