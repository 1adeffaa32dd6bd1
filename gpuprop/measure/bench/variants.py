"""Every kernel that the launchers can choose, with the signature it is compiled for: the compile proof covers them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Selection", "Variant", "flat_variants", "product_variants"]


@dataclass(frozen=True)
class Variant:
    """A kernel to compile."""

    family: str
    """``forward`` or ``delta`` (also with `` dropout``), ``forward gathering`` (also `` by column``), ``gradient``,
    ``gradient update`` (both also with `` gathering``), ``wide`` (as ``forward``, without dropout), or the name of a
    kernel without a tile."""
    option: str
    tile: str
    """Name of the tile; empty for a kernel without one."""
    dtype: str
    threads: int
    kernel: Any
    signature: tuple[Any, ...]

    @property
    def operands(self) -> tuple[str, ...]:
        """A key that kernels share if they read and multiply by the same functions."""
        source = self.option.split()[1] if "gathering" in self.family else ""
        return self.family.split()[0], source, self.tile, self.dtype


@dataclass(frozen=True)
class Selection:
    """Which kernels to compile, and for which architectures.

    Parameters
    ----------
    tile : str
        Name of a tile; empty for the kernels without one.
    capabilities : tuple of (int, int)
    options : tuple of str
        Only variants with one of these options; empty for all.
    activation, dtype : str
    """

    tile: str
    capabilities: tuple[tuple[int, int], ...]
    options: tuple[str, ...] = ()
    activation: str = "relu"
    dtype: str = "float32"

    def variants(self) -> list[Variant]:
        """Return the selected kernels, not compiled yet."""
        every = product_variants(self.tile, self.dtype, self.activation) if self.tile else flat_variants(self.dtype)
        return [v for v in every if not self.options or v.option in self.options]

    def has(self, report: Any) -> bool:
        """Return whether a report is on one of the selected kernels and architectures."""
        return (
            (report.tile, report.dtype) == (self.tile, self.dtype)
            and report.capability in self.capabilities
            and (not self.options or report.option in self.options)
        )

    def as_json(self) -> dict[str, Any]:
        """Return the selection as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Selection:
        """Return the selection that `as_json` described."""
        capabilities = tuple((int(major), int(minor)) for major, minor in row["capabilities"])
        return cls(**{**row, "capabilities": capabilities, "options": tuple(row["options"])})


def product_variants(tile_name: str, dtype: str, activation: str = "relu") -> Iterator[Variant]:
    """Yield the kernels that multiply with this tile: forward, delta, gradient and their gathering variants."""
    from gpuprop_kernels import target
    from gpuprop_kernels.activations import Activation
    from gpuprop_kernels.delta import hidden_delta_kernel
    from gpuprop_kernels.forward import forward_kernel
    from gpuprop_kernels.gradient import gradient_kernel
    from gpuprop_kernels.optimizers import STATE_ARRAYS
    from gpuprop_kernels.shapes import FULL, NAMED_TILES, NO_OPTIMIZER
    from gpuprop_kernels.wide import wide_output_kernel

    tile, dt, chosen = NAMED_TILES[tile_name], getattr(target, dtype), Activation(activation)
    a, i, integer, byte = dt[::1], target.int32[::1], target.int32, target.uint8[::1]
    lone = (target.int8, integer, integer)  # one network: see `gpuprop_kernels.networks`

    def variant(family: str, option: str, kernel: Any, *signature: Any) -> Variant:
        return Variant(family, option, tile_name, dtype, tile.threads, kernel, signature)

    keep_z = chosen.derivative_of == "z"
    dense_only = tile_name in FULL
    for source in ("dense",) if dense_only else ("dense", "bytes", "floats", "bytes_by_column"):
        kernel = forward_kernel(tile, dt, chosen, source, keep_z, False)
        data = byte if source.startswith("bytes") else a
        family = "forward" + " gathering" * (source != "dense") + " by column" * source.endswith("column")
        option = activation if source == "dense" else f"{activation} {source}"
        yield variant(family, option, kernel, data, i, a, a, a, a, a, a, i, a, i, *[integer] * 5, *lone)
    # Several networks in one launch: the loop is the same, and offsets are added before and after it.
    many = (integer, integer, integer)
    if not dense_only:
        kernel = forward_kernel(tile, dt, chosen, "bytes", keep_z, False)
        signature = (byte, i, a, a, a, a, a, a, i, a, i, *[integer] * 5, *many)
        yield variant("forward gathering", f"{activation} together", kernel, *signature)
    kernel = hidden_delta_kernel(tile, dt, chosen, False)
    yield variant("delta", f"{activation} together", kernel, a, a, a, a, a, i, a, i, *[integer] * 5, *many)
    if not dense_only and tile.shape not in NO_OPTIMIZER:
        kernel = gradient_kernel(tile, dt, "adam", "bytes")
        signature = (byte, i, a, a, a, a, a, a, a, i, i, integer, a, *[integer] * 4, *many)
        yield variant("gradient update gathering", "adam together", kernel, *signature)
    kernel = forward_kernel(tile, dt, chosen, "dense", keep_z, True)
    yield variant(
        "forward dropout", f"{activation} dropout", kernel, a, i, a, a, a, a, a, a, i, a, i, *[integer] * 5, *lone
    )
    for dropout in (False, True):
        kernel = hidden_delta_kernel(tile, dt, chosen, dropout)
        option = f"{activation} dropout" if dropout else activation
        yield variant(
            "delta dropout" if dropout else "delta", option, kernel, a, a, a, a, a, i, a, i, *[integer] * 5, *lone
        )
    for mode, source, tallies in (
        ("store", "dense", (False, False)), ("accumulate", "dense", (False, False)), ("slab", "bytes", (False, False)),
        ("store", "bytes", (True, True)), ("sgd", "bytes", (False, False)), ("adam", "bytes", (False, False)),
        ("adam", "dense", (False, False)), ("adamw", "floats", (True, False)),
    ):  # fmt: skip
        if dense_only or ((mode in STATE_ARRAYS or any(tallies)) and tile.shape in NO_OPTIMIZER):
            continue
        kernel = gradient_kernel(tile, dt, mode, source, *tallies)
        data = byte if source == "bytes" else a
        family = "gradient" + " update" * (mode in STATE_ARRAYS) + " gathering" * (source != "dense")
        signature = (data, i, a, a, a, a, a, a, a, i, i, integer, a, *[integer] * 4, *lone)
        option = " ".join([mode, source, *["tallied"] * any(tallies)])
        yield variant(family, option, kernel, *signature)
    pair = Activation("softmax"), "categorical_cross_entropy", "class"
    for source in ("dense",) if dense_only else ("dense", "bytes", "bytes_by_column"):
        kernel = wide_output_kernel(tile, dt, source, *pair, True)
        arrays = (a if source == "dense" else byte, i, *[a] * 10, target.uint32[::1], i)
        family = "wide" + " gathering" * (source != "dense") + " by column" * source.endswith("column")
        option = "softmax" if source == "dense" else f"softmax {source}"
        yield variant(family, option, kernel, *arrays, integer, a, *[integer] * 5, *lone)


def flat_variants(dtype: str) -> Iterator[Variant]:
    """Yield the kernels without a tile: head, rows, updates, reductions."""
    from gpuprop_kernels import max_norm, target, update
    from gpuprop_kernels.activations import HIDDEN, Activation
    from gpuprop_kernels.block_epoch import train_network_kernel
    from gpuprop_kernels.forward import BATCH_BLOCK, load_batch_kernel
    from gpuprop_kernels.head import HEAD, head_kernel
    from gpuprop_kernels.optimizers import STATE_ARRAYS
    from gpuprop_kernels.rows import ROWS, loss_rows_kernel, softmax_rows_kernel

    dt = getattr(target, dtype)
    a, i, integer, byte = dt[::1], target.int32[::1], target.int32, target.uint8[::1]
    lone = (target.int8, integer, integer)  # one network: see `gpuprop_kernels.networks`

    def variant(family: str, option: str, threads: int, kernel: Any, *signature: Any) -> Variant:
        return Variant(family, option, "", dtype, threads, kernel, signature)

    pairs = [
        ("softmax", "categorical_cross_entropy", "class"), ("logistic", "binary_cross_entropy", "threshold"),
        ("identity", "squared_error", "residual"), ("exponential", "poisson", "residual"),
        ("softmax", "squared_error", "residual"), ("identity", "absolute_error", "residual"),
        ("softplus", "huber(1.5)", "residual"), ("identity", "pinball(0.9)", "residual"),
    ]  # fmt: skip
    head_signature = (a, a, a, a, a, i, a, a, a, a, a, a, i, a, i, integer, a, *[integer] * 3, *lone)
    for output, loss, metric in pairs:
        out = Activation(output)
        if loss == "categorical_cross_entropy":
            head = head_kernel(HEAD, dt, 10, out, loss, metric, Activation("relu"), False, False)
            yield variant("head", "together", HEAD.threads, head, *head_signature[:-3], integer, integer, integer)
        for hidden in HIDDEN if loss == "categorical_cross_entropy" else ("relu",):
            head = head_kernel(HEAD, dt, 10, out, loss, metric, Activation(hidden), False, False)
            yield variant("head", f"{output} {loss} {hidden}", HEAD.threads, head, *head_signature)
        rows = loss_rows_kernel(ROWS, dt, out, loss, metric, True)
        signature = (a, a, a, i, a, a, i, integer, a, integer, integer, integer)
        yield variant("rows", f"{output} {loss}", ROWS.threads, rows, *signature)
    yield variant("softmax", "", ROWS.threads, softmax_rows_kernel(ROWS, dt), a, a, integer, integer, integer)
    for optimizer in STATE_ARRAYS:
        kernel = update.update_kernel(dt, optimizer, True, True)
        signature = (a, a, a, a, a, a, i, integer, lone[0], *[integer] * 5, dt)
        yield variant("update", optimizer, update.UPDATE_BLOCK, kernel, *signature)
    kernel = update.update_kernel(dt, "adam", True, True)
    signature = (a, a, a, a, a, a, i, integer, integer, *[integer] * 5, dt)
    yield variant("update", "together", update.UPDATE_BLOCK, kernel, *signature)
    kernel = update.sum_slabs_kernel(dt, False, True, True)
    yield variant("sum slabs", "", update.UPDATE_BLOCK, kernel, *[a] * 6, i, integer, lone[0], *[integer] * 4)
    kernel, threads = max_norm.limit_norm_kernel(dt), max_norm.NORM_COLUMNS * max_norm.NORM_ROWS
    yield variant("limit norm", "", threads, kernel, a, i, integer, lone[0], *[integer] * 3, dt, integer)
    for rule in _block_rules():
        kernel, data = train_network_kernel(rule, dt), byte if rule.source.startswith("bytes") else a
        option = " ".join(["one network", rule.optimizer, rule.hidden.name, *["with everything"] * rule.dropout])
        signature = (data, i, a, a, a, a, a, a, i, a, i, i, a, a, a, *[integer] * 6)
        yield variant("block", option, rule.threads, kernel, *signature)
    kernel = load_batch_kernel(dt, "bytes", True)
    yield variant(
        "load batch", "bytes dropout", BATCH_BLOCK, kernel, byte, i, a, a, a, i, a, i, *[integer] * 4, lone[0], integer
    )


def _block_rules() -> Iterator[Any]:
    """Yield what the kernel of whole epochs is compiled for here: the plainest rule, and one with everything."""
    from gpuprop_kernels.activations import Activation
    from gpuprop_kernels.block_epoch import BlockRule

    output = (Activation("softmax"), "categorical_cross_entropy", "class")
    yield BlockRule(256, "bytes", Activation("relu"), *output, "adam", False, False, False)
    yield BlockRule(256, "floats_by_column", Activation("gelu"), *output, "adamw", True, True, True)
