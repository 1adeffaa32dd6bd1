"""The launcher of whole epochs: networks of one shape, a block each, in one launch.

::

    block_epoch.train_network[k blocks, threads, stream, bytes of shared memory]

A launcher allocates nothing and waits for nothing, like those of `launch`. The shared memory is asked for at the
launch, so that one compiled kernel serves every shape. Beyond 48 KiB a device gives it only to kernels that have been
allowed it (`target.allow_shared_memory`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpuprop_kernels.arguments import Batch, Dropout, Rows, check_indices, int32s, numba_type
from gpuprop_kernels.block_epoch import BlockRule, train_network_kernel
from gpuprop_kernels.block_layout import BlockLayout
from gpuprop_kernels.target import allow_shared_memory

__all__ = ["BlockRule", "Networks", "train_networks"]

Array = Any


@dataclass(frozen=True)
class Networks:
    """The networks of a launch.

    Attributes
    ----------
    count : int
    parameters : array of shape (count * n_parameters,)
    state : array
        The optimizer's first state of all networks, then the second.
    layers : int32 array
        The table of `layout` on the device.
    layout : BlockLayout
    dropout : Dropout or None
        The constants of each network's layers, the inputs first; also of layers that drop nothing. None if none does.
    """

    count: int
    parameters: Array
    state: Array
    layers: Array
    layout: BlockLayout
    dropout: Dropout | None = None


def train_networks(
    networks: Networks, rows: Rows, targets: Array, sample_weights: Array | None, scalars: Array, losses: Array,
    penalties: Array | None, batch: Batch, *, rule: BlockRule, last: int, targets_ld: int,
) -> None:  # fmt: skip
    """Make the updates ``batch.slot`` to `last` - 1 of each network that has rows in them.

    Update u of network i has slot ``u * count + i``; it leaves its loss and score there in `losses`, and sum W^2 and
    sum |W| in `penalties`, as pairs.
    """
    check_indices(networks.parameters, networks.state, rows.data, targets)
    layout, dtype = networks.layout, networks.parameters.dtype
    mask, keep = (
        (batch.schedule, scalars) if networks.dropout is None else (networks.dropout.mask, networks.dropout.keep)
    )
    n_bytes = layout.size * dtype.itemsize
    run = train_network_kernel(rule, numba_type(dtype))[networks.count, rule.threads, batch.stream, n_bytes]
    allow_shared_memory(run, n_bytes)
    run(
        rows.data, batch.order, rows.shift, rows.scale, targets,
        scalars if sample_weights is None else sample_weights, networks.parameters, networks.state, mask, keep,
        networks.layers, batch.schedule, scalars, losses, losses if penalties is None else penalties,
        *int32s(batch.slot, last, layout.n_layers, layout.n_parameters, rows.ld, targets_ld),
    )  # fmt: skip
