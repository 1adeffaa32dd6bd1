"""Several networks of one shape in one launch: grid z counts them, and their arrays lie one after the other.

::

    parameters   | W1 .. bL of network 0 | W1 .. bL of network 1 | ...      `parameters` elements each; gradients alike
    state        | s of 0 | s of 1 | ... | t of 0 | t of 1 | ...            first one state array of all, then the next
    workspace    | a1 .. sums of 0       | a1 .. sums of 1       | ...      `workspace` elements each
    slots        | update 0: parts of 0, parts of 1, ... | update 1: ...    `slots` slots each, within an update
    order        | rows of an epoch of 0 | of 1 | ...                       a slot's start counts from the beginning

Networks share the rows of the data set and differ in everything that their slots and orders say: their rows, their
rate and the optimizer's other numbers, their penalties, the number of their update. A network without rows in a slot
has no such update: its blocks end at once and write nothing. So networks with fewer updates, and networks whose
training has ended, stay as they are while the others go on.

Offsets are added to int32 indices that a kernel computes anyway. A kernel for a lone network gets an int8 for `slots`:
for that type Numba compiles it without any of this, so that its machine code is that of a kernel which knows one
network. The arithmetic is the same, operation by operation, and so a network gets the same bits in any company.

Budget: no launch, no memory; an integer multiply-add for each array, one or two registers.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpuprop_kernels.target import block_z, device, i32, is_int32

__all__ = ["LONE", "Networks", "part_of", "slot_of", "without_rows"]


@dataclass(frozen=True)
class Networks:
    """The networks of a launch, and how far apart those of their arrays lie that are not shared.

    Attributes
    ----------
    count : int
    slots : int or None
        Slots of the schedule, of the scalars and of the losses from one network to the next; None for a lone network.
    parameters : int
        Elements of the flat parameters from one network to the next.
    workspace : int
        The same of the workspace.
    """

    count: int = 1
    slots: int | None = None
    parameters: int = 0
    workspace: int = 0


LONE = Networks()
"""One network, which every launcher serves unless it is told otherwise."""


@device
def slot_of(slot, slots):
    """Return the slot of this block's network; `slot` is that of the first one."""
    return i32(slot + block_z() * slots) if is_int32(slots) else slot


@device
def part_of(apart, slots):
    """Return where the part of this block's network begins in an array of all networks, or the number of its block."""
    return i32(block_z() * apart) if is_int32(slots) else i32(0)


@device
def without_rows(rows, slots):
    """Return whether this block's network has no rows in its slot; a lone network always has some."""
    return is_int32(slots) and rows == 0
