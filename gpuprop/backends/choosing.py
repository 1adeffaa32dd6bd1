"""What all backends share for choosing a plan: the names of paths, refusals, and the plan of steps on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from gpuprop.backends.sharded import AddUp, ShardedPlan, add_up_on_host
from gpuprop.backends.steps import StepsPlan
from gpuprop.backends.threads import threads_for_products
from gpuprop.errors import PlanError, unknown_name

if TYPE_CHECKING:
    from gpuprop.core.array_ops import ArrayOps
    from gpuprop.core.updates import Training

__all__ = ["PATHS", "check_path", "check_plan_name", "only_one", "plain_steps", "rounding_note", "sharded"]

PATHS = {
    "steps": "one primitive after the other",
    "fused": "whole epochs in one compiled call; on a GPU fused kernels, each launched by itself",
    "dense": "as fused, without skipping what is zero in the inputs",
    "joint": "several networks of one shape in the same compiled calls; on a GPU in the same launches",
    "block": "whole epochs in one launch, each network in one block of a GPU",
    "graph": "fused kernels, recorded as CUDA graphs",
    "streamed": "fused kernels, on rows that travel to the GPU while it works",
    "sharded": "a fixed number of shards of each update, which several processes may divide among themselves",
}
"""Every path by its name, with a short description."""


def check_path(want: object) -> str:
    """Return the name of a path, or "auto".

    Raises
    ------
    TypeError, ValueError
        If it is no text, or if no path has that name.
    """
    if not isinstance(want, str):
        raise TypeError(f"plan: got {want!r}, expected 'auto' or the name of a path such as 'steps'")
    if want != "auto" and want not in PATHS:
        raise unknown_name("plan", want, ("auto", *PATHS))
    return want


def check_plan_name(want: str, offered: Sequence[str], device: str) -> None:
    """Refuse the name of a path that does not exist or that a device does not offer; "auto" always passes.

    Raises
    ------
    ValueError
        If no path has that name.
    PlanError
        If the device does not offer it.
    """
    if check_path(want) == "auto" or want in offered:
        return
    names = ", ".join(offered)
    raise PlanError(f"plan {want!r} ({PATHS[want]}): the device {device!r} offers {names}; use plan='auto'")


def only_one(trainings: Sequence[Training], reason: str) -> Training:
    """Return the only training, or refuse several; `reason` says why several trainings take turns."""
    if len(trainings) != 1:
        raise PlanError(f"plan 'joint': {reason}")
    return trainings[0]


def rounding_note(ops: ArrayOps) -> str:
    """Return what a reason says of rounded operands: nothing if the backend's products have the plain precision."""
    return "" if ops.precision == "float32" else f", with the operands of products rounded to {ops.precision}"


def plain_steps(
    training: Training,
    because: str,
    around_updates: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> StepsPlan:
    """Return the plan of steps on the host, in which BLAS has one thread, or all of them for large products."""
    n_threads = threads_for_products(training)
    threads = "" if n_threads is None else f"; BLAS with {n_threads} {'thread' if n_threads == 1 else 'threads'}"
    return StepsPlan(training, f"steps: {because}{threads}", n_threads=n_threads, around_updates=around_updates)


def sharded(
    trainings: Sequence[Training],
    want: str,
    around_updates: Callable[[], AbstractContextManager[None]] = nullcontext,
    add_up: AddUp = add_up_on_host,
) -> ShardedPlan | None:
    """Return the plan of a training whose updates are cut into shards, or None if these are no such trainings.

    Raises
    ------
    PlanError
        If another path was asked for, if shards were asked for by name and their number was not given, or if the
        network normalises its batches.
    """
    if not any(training.sharding for training in trainings):
        if want == "sharded":
            raise PlanError("plan 'sharded': the number of shards is missing; pass shards=8, or a communicator")
        return None
    training = only_one(trainings, "trainings whose updates are cut into shards take turns")
    if want not in ("auto", "sharded"):
        raise PlanError(f"plan {want!r}: the updates are cut into shards, whose plan is 'sharded'; use plan='auto'")
    if training.layers.spec.batch_norm:
        raise PlanError(
            "plan 'sharded': batch normalisation averages over all rows of a batch, of which a shard has only some; "
            "leave out shards= and communicator=, or batch_norm"
        )
    return ShardedPlan(training, around_updates=around_updates, add_up=add_up)
