"""``gpuprop bench``: times of kernels, updates and epochs, beside those of other ways to compute the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuprop.cli.bench_peers import HELP, peers
from gpuprop.cli.bench_scale import HELP as SCALE_HELP
from gpuprop.cli.bench_scale import scale
from gpuprop.cli.device import use_device
from gpuprop.cli.options import Device, Json, OptionError, known_names, one_of, wrong_options
from gpuprop.core.precision import PRECISIONS
from gpuprop.errors import BackendUnavailableError

if TYPE_CHECKING:
    from gpuprop.core.ops import Ops
    from gpuprop.core.plan import Backend
    from gpuprop.measure.bench.documents import Table

__all__ = ["register"]

_HELP = """Measure this machine's device: kernels, updates, epochs.

Every contender must give the right numbers before it is timed; contenders take turns, and times are percentiles.
On a machine without a GPU, --device cuda reports the figures that need none: launches, operations, bytes, and floors
by data sheet.
"""

_KERNELS_HELP = """Time each kernel, the same mathematics composed of library calls, and the device's roof.

On a GPU the contenders are gpuprop's launch, CuPy's calls, and cuBLAS's product alone, timed by CUDA events around
replayed graphs. On the CPU they are the primitives of "cpu" (or "numpy"), NumPy's calls, and BLAS's product alone. The
roof is measured: the device's rate for a large product, and its bandwidth for a large copy.

\b
Examples:
  gpuprop bench kernels --device cpu
  gpuprop bench kernels --device cuda --only forward,gradient --shape 256x512x512
  gpuprop bench kernels --device cuda --precision all
  gpuprop bench kernels --device cuda --sass 8.6
"""

_STEP_HELP = """Time one update: forward pass, loss, backward pass, Adam; averaged over the updates of an epoch.

The other contenders are PyTorch, if it is installed (eager, and as a CUDA graph), and the same mathematics in CuPy's or
NumPy's calls. All train the same network from the same weights on the same images of MNIST.

\b
Examples:
  gpuprop bench step --device cpu --config a
  gpuprop bench step --device cuda --report step.json
"""

_EPOCH_HELP = """Time a whole epoch of MNIST; it draws a new order of rows and reads the loss at the end.

\b
Examples:
  gpuprop bench epoch --device cuda
  gpuprop bench epoch --device cpu --config a --rounds 3
"""

_TILE_HELP = """Multiply by the fused tier's register tile and by NumPy's BLAS, in turns, on one thread of the CPU.

The products are those of an update of the networks of `gpuprop bench peers`, without their output layers.

\b
Examples:
  gpuprop bench tile
  gpuprop bench tile --config a,c --rounds 11
"""

_TOGETHER_HELP = """Train many networks of one shape: together, one after the other, by torch.func.vmap and by jax.vmap.

Each network has weights and row orders of its own. "mnist" trains 784-64-10 on 3,200 images, "small" 8-16-4 on 160 rows
that are made up. PyTorch and JAX take part where they are installed. On the CPU trainings so short that compiling their
loops would not pay take turns: ten of "small" need 400 epochs. With --device cuda and without a GPU it prints what is
known all the same of an epoch: launches, bytes, floors, and blocks a multiprocessor.

\b
Examples:
  gpuprop bench together
  gpuprop bench together --config small --networks 100,1000 --epochs 60 --rounds 3
  gpuprop bench together --device cuda --networks 1,10,100,1000
"""

_SPEEDRUN_HELP = """Time how long a network takes to test accuracies of MNIST: 97.5, 98.0 and 98.5 %.

Each mark has a recipe, which is trained with one seed after the other until a t-test says with p < 0.01 that the mean
test accuracy is above the mark, at most --seeds times. The seconds are those of a training, without compiling.

\b
Examples:
  gpuprop bench speedrun
  gpuprop bench speedrun --mark 98 --seeds 64 --report speedrun.json
"""

Rounds = Annotated[int, typer.Option(metavar="N", min=1, help="Number of samples of each contender.")]
Report = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Write all results to this file, as JSON.")
]
Configs = Annotated[
    str, typer.Option("--config", metavar="NAMES", help="a (784-128-10), b (784-512-512-10), c (784-1024x3-10).")
]


Precisions = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="NAMES",
        help=f"Measure gpuprop's float32 also in these precisions: all, or some of {one_of(PRECISIONS[1:])}; a CPU "
        "emulates them.",
    ),
]
Torch = Annotated[bool, typer.Option("--torch/--no-torch", help="Whether PyTorch takes part where it is installed.")]


def register(app: typer.Typer) -> None:
    """Add the command group ``bench``."""
    bench = typer.Typer(help=_HELP, no_args_is_help=True, rich_markup_mode=None, add_completion=False)
    bench.command("kernels", help=_KERNELS_HELP, short_help="Each kernel against library calls.")(kernels)
    bench.command("step", help=_STEP_HELP, short_help="One update against other libraries.")(step)
    bench.command("epoch", help=_EPOCH_HELP, short_help="A whole epoch of MNIST.")(epoch)
    bench.command("scale", help=SCALE_HELP, short_help="Several processes for one training.")(scale)
    bench.command("tile", help=_TILE_HELP, short_help="The multiplication of the CPU's fused tier against BLAS.")(tile)
    bench.command("speedrun", help=_SPEEDRUN_HELP, short_help="Seconds to an accuracy of MNIST.")(speedrun)
    bench.command("together", help=_TOGETHER_HELP, short_help="Many networks of one shape, against vmap.")(together)
    bench.command(
        "peers",
        help=HELP,
        short_help="gpuprop on the CPU against scikit-learn, PyTorch and JAX.",
    )(peers)
    app.add_typer(bench, name="bench", short_help="Measure kernels, updates and epochs.")


def kernels(
    device: Device = "auto",
    only: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Kernels, such as forward,gradient.  [default: all]")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="NxKxM", help="Rows, inputs and outputs of the layer.  [default: each kernel's own shapes]"
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(metavar="NAME", help="float32 or float64.")] = "float32",
    precision: Precisions = "float32",
    rounds: Rounds = 30,
    sass: Annotated[
        str | None,
        typer.Option(
            metavar="X.Y", help="Also compile for this compute capability, and show figures of the machine code."
        ),
    ] = None,
    report: Report = None,
    json: Json = False,
) -> None:
    """Validate, time, print."""
    names, shapes, capability = _names(only), _shapes(shape), _capability(sass)
    if dtype not in ("float32", "float64"):
        raise OptionError(f"got --dtype {dtype!r}, expected float32 or float64")
    precisions = _precisions(precision)
    if dtype == "float64" and precisions != ["float32"]:
        raise OptionError("got --precision with --dtype float64, whose products round no operands")
    ops, reason = _device(device)
    from gpuprop.measure.bench import documents, paper
    from gpuprop.measure.bench import kernels as bench
    from gpuprop.measure.bench import precisions as model

    with wrong_options():
        chosen = list(bench.kernels(names, shapes, dtype))
    code = paper.machine_code(names, dtype, capability) if capability else []
    output = _Output(ops, reason, report, json)
    more: dict[str, Any] = {"machine_code": code} if code else {}
    gains = model.entries(chosen, precisions, None if ops is None else model.roof_of(ops))
    if gains and (ops is None or not ops.on_host):
        more["precision_model"] = gains
        output.table(model.table(gains))
    if ops is None:
        entries = paper.kernel_entries(chosen)
        output.finish("kernels", entries, documents.paper_table(entries), more | {"model": paper.MODEL}, code)
        return
    roof, results = bench.measure(chosen, ops, rounds=rounds, timed=not output.flaw, precisions=precisions)
    entries = []
    for group in results:
        output.progress(f"{group[0].kernel.name} {'x'.join(map(str, group[0].kernel.shape))}")
        entries += [result.entry(roof) for result in group]
    if roof is not None:
        more["roof"] = roof.entry(dtype)
        output.note(f"roof: {roof.flops[dtype] / 1e9:,.1f} GFLOP/s, {roof.bandwidth / 1e9:,.1f} GB/s; {roof.source}")
    output.finish("kernels", entries, documents.kernel_table(entries), more, code)


def step(
    device: Device = "auto",
    config: Configs = "a,b,c",
    precision: Precisions = "float32",
    torch: Torch = True,
    rounds: Rounds = 20,
    report: Report = None,
    json: Json = False,
) -> None:
    """Validate, time, print."""
    contenders = {"precisions": _precisions(precision), "torch": torch}
    _training("step", device, config, rounds, contenders, (report, json))


def epoch(
    device: Device = "auto",
    config: Configs = "a",
    precision: Precisions = "float32",
    torch: Torch = True,
    rounds: Rounds = 5,
    report: Report = None,
    json: Json = False,
) -> None:
    """Validate, time, print."""
    contenders = {"precisions": _precisions(precision), "torch": torch}
    _training("epoch", device, config, rounds, contenders, (report, json))


def tile(
    config: Annotated[str, typer.Option("--config", metavar="NAMES", help="Some of a, b, c, d.")] = "a,b,c,d",
    dtype: Annotated[str, typer.Option(metavar="NAME", help="float32 or float64.")] = "float32",
    rounds: Rounds = 11,
    report: Report = None,
    json: Json = False,
) -> None:
    """Validate, time, print."""
    chosen = known_names("--config", config.split(","), ("a", "b", "c", "d"))
    if dtype not in ("float32", "float64"):
        raise OptionError(f"got --dtype {dtype!r}, expected float32 or float64")
    ops, reason = _device("cpu")
    import numpy as np

    from gpuprop.measure.bench import tile as bench

    output, entries = _Output(ops, reason, report, json), []
    for entry in bench.entries(list(bench.products(chosen)), np.dtype(dtype), rounds):
        output.progress(f"{entry['config']}: {entry['what']}")
        entries.append(entry)
    output.finish("tile", entries, bench.table(entries))


def together(
    device: Device = "cpu",
    config: Annotated[str, typer.Option("--config", metavar="NAMES", help="Some of mnist, small.")] = "mnist,small",
    networks: Annotated[str, typer.Option(metavar="NUMBERS", help="How many networks.")] = "1,10,100",
    epochs: Annotated[int, typer.Option(metavar="N", min=1, help="Epochs of each training.")] = 12,
    rounds: Rounds = 5,
    report: Report = None,
    json: Json = False,
) -> None:
    """Validate, time, print."""
    from gpuprop.measure.bench import together as bench

    chosen = known_names("--config", config.split(","), bench.CASES)
    counts = [int(count) if count.strip().isdigit() else 0 for count in networks.split(",")]
    if min(counts) < 1:
        raise OptionError(f"got --networks {networks!r}, expected numbers such as 1,10,100")
    ops, reason = _device(device)
    output = _Output(ops, reason, report, json)
    if ops is None:
        from gpuprop.measure.bench import paper, together_paper

        found = list(together_paper.entries(chosen, counts))
        model = f"{paper.MODEL}; the table's floors and multiprocessors are those of an {together_paper.GPU}"
        output.finish("together", found, together_paper.table(found), {"model": model})
        return
    entries: list[dict[str, Any]] = []
    for name in chosen:
        output.progress(f"{bench.CASES[name]}")
        entries += bench.entries(name, counts, ops.device, epochs=epochs, rounds=rounds, contenders=bench.installed())
    output.finish("together", entries, bench.table(entries))


def speedrun(
    device: Device = "auto",
    mark: Annotated[str, typer.Option(metavar="PERCENT,...", help="Some of 97.5, 98, 98.5.")] = "97.5,98,98.5",
    seeds: Annotated[int, typer.Option(metavar="N", min=2, help="The most seeds of a mark.")] = 32,
    report: Report = None,
    json: Json = False,
) -> None:
    """Train, test the mean, print."""
    from gpuprop.measure.bench import speedrun as bench

    known = {f"{100 * one:g}": one for one in bench.MARKS}
    chosen = [known[name] for name in known_names("--mark", [f"{_number(one):g}" for one in mark.split(",")], known)]
    ops, reason = _device(device)
    if ops is None:
        raise BackendUnavailableError(reason)
    output, entries = _Output(ops, reason, report, json), []
    for entry in bench.entries(chosen, ops.device, seeds):
        output.progress(f"{entry['name']}: {entry['mean']:.2%} in {entry['median_seconds']:.2f} s")
        entries.append(entry)
    output.finish("speedrun", entries, bench.table(entries))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise OptionError(f"got --mark {text!r}, expected some of 97.5, 98, 98.5") from None


def _training(
    kind: str,
    device: str,
    config: str,
    rounds: int,
    contenders: dict[str, Any],
    where: tuple[Path | None, bool],
) -> None:
    from gpuprop.measure.bench.whole_updates import CONFIGS

    chosen = [CONFIGS[name] for name in known_names("--config", config.split(","), CONFIGS)]
    ops, reason = _device(device)
    from gpuprop.measure.bench import documents, paper
    from gpuprop.measure.bench import whole_updates as training

    output = _Output(ops, reason, *where)
    if ops is None:
        entries = paper.step_entries(chosen)
        output.finish(kind, entries, documents.paper_table(entries), {"model": paper.MODEL})
        return
    entries = []
    for one in chosen:
        output.progress(f"{'-'.join(map(str, one.sizes))}, batches of {one.batch_size}")
        entries += training.entries(one, ops, kind, rounds=0 if output.flaw else rounds, **contenders)
    output.finish(kind, entries, documents.training_table(entries))


class _Output:
    """The output of a benchmark: lines, tables, JSON, and the report file."""

    def __init__(self, ops: Ops | None, reason: str, report: Path | None, json: bool) -> None:
        from gpuprop.measure import machine

        if report is not None:
            report.touch()
        self._report, self._json = report, json
        self.flaw = "there is no GPU here" if ops is None else machine.clock_fault(ops)
        self._device = {"device": "cuda", "name": "none"} if ops is None else machine.describe(ops)
        self.note(reason)
        if ops is not None:
            self.note(", ".join(f"{name} {version}" for name, version in machine.versions().items()))

    def note(self, line: str) -> None:
        """Print a line, unless --json was given."""
        if not self._json:
            print(line)

    def table(self, table: Table) -> None:
        """Print a table, unless --json was given."""
        from gpuprop.cli.console import print_table

        if not self._json:
            print()
            print_table(*table)

    def progress(self, what: str) -> None:
        """Print what has been measured, if a user waits at a terminal."""
        from gpuprop.cli.console import is_terminal

        if not self._json and is_terminal():
            print(f"  {what}", flush=True)

    def finish(
        self, kind: str, entries: list[dict[str, Any]], table: Table, more: dict[str, Any] | None = None,
        code: Sequence[dict[str, Any]] = (),
    ) -> None:  # fmt: skip
        """Print the tables or the JSON document, and write the report."""
        from gpuprop.cli.console import mark_saved, print_json, print_table
        from gpuprop.measure.bench import documents
        from gpuprop.measure.report_file import write_report

        found = documents.document(kind, self._device, entries, no_times_because=self.flaw or "", **(more or {}))
        if self._report is not None:
            write_report(self._report, found)
            mark_saved()
        if self._json:
            print_json(found)
            return
        print()
        print_table(*table)
        if code:
            print()
            print_table(*documents.machine_code_table(code))
        print()
        if more and "model" in more:
            print(more["model"])
        elif self.flaw:
            print(f"no times: {self.flaw}")
        if self._report is not None:
            print(f"report: {self._report}")


def _device(name: str) -> tuple[Backend | None, str]:
    """Return the backend and the line that says why; no backend where a GPU was asked for and there is none."""
    from gpuprop.backends import get_ops

    try:
        reason = use_device(name)
    except BackendUnavailableError as error:
        return None, f"{error}; the figures below need no GPU"
    ops = get_ops(name)
    if ops.device == "cuda-sim":
        raise OptionError("got device cuda-sim, expected cpu, numpy or cuda: the simulator has no speed to measure")
    return ops, reason


def _names(only: str | None) -> list[str]:
    from gpuprop.measure.bench.kernels import KERNELS

    return list(KERNELS) if only is None else known_names("--only", only.split(","), KERNELS)


def _shapes(text: str | None) -> list[tuple[int, int, int]]:
    if text is None:
        return []
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if not match or not all(map(int, match.groups())):
        raise OptionError(f"got --shape {text!r}, expected rows, inputs and outputs such as 256x512x512")
    return [(int(match[1]), int(match[2]), int(match[3]))]


def _precisions(text: str) -> list[str]:
    return list(PRECISIONS) if text == "all" else known_names("--precision", text.split(","), PRECISIONS)


def _capability(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)\.(\d)", text)
    if not match:
        raise OptionError(f"got --sass {text!r}, expected a compute capability such as 8.6")
    return int(match[1]), int(match[2])
