"""How updates are made on a CUDA device: in one block, by fused kernels in graphs, or one primitive at a time.

A network that fits a block of the GPU trains there, see `gpuprop.backends.cuda.block_plan`. The plan of fused kernels
streams data that do not fit the device, whichever of its paths was asked for. Several networks share launches, see
`gpuprop.backends.cuda.together`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpuprop.backends.choosing import check_plan_name, sharded
from gpuprop.backends.cuda.block_plan import BlockPlan, block_fault, chooses_block
from gpuprop.backends.cuda.kernel_plan import CudaPlan
from gpuprop.backends.cuda.staged_sum import StagedSum
from gpuprop.backends.cuda.together import TogetherPlan, kernels_fault
from gpuprop.backends.steps import StepsPlan
from gpuprop.errors import PlanError

if TYPE_CHECKING:
    from gpuprop.backends.cuda.array_ops import CudaArrays
    from gpuprop.core.plan import Plan
    from gpuprop.core.updates import Training

__all__ = ["plan"]


def plan(ops: CudaArrays, trainings: Sequence[Training], want: str) -> Plan:
    """Choose how updates are made; see `gpuprop.core.plan.Backend.plan`."""
    with ops.active():
        shards = sharded(trainings, want, ops.active, StagedSum(ops.runtime))
    if shards is not None:
        return shards
    check_plan_name(want, ("steps", "fused", "graph", "streamed", "block", "joint"), ops.device)
    if len(trainings) > 1 or want == "joint":
        if want not in ("auto", "joint"):
            raise PlanError(f"plan {want!r} makes the updates of one network, got {len(trainings)}; use plan='joint'")
        return TogetherPlan(ops, trainings)
    (training,) = trainings
    fault = kernels_fault(training)
    if want == "steps" or (want == "auto" and fault is not None):
        because = "as asked for" if want == "steps" else f"because {fault}"
        return StepsPlan(training, f"steps: one kernel after the other, {because}", n_threads=training.n_threads)
    if fault is not None:
        raise PlanError(f"plan {want!r}: {fault}; use plan='steps' or 'auto'")
    if want == "block" and (fault := block_fault(ops, training)) is not None:
        raise PlanError(f"plan 'block': {fault}; use plan='auto'")
    if want == "block" or (want == "auto" and chooses_block(ops, training)):
        return BlockPlan(ops, [training], want)
    chosen = CudaPlan(ops, [training], want)
    if want not in ("auto", chosen.name):
        raise PlanError(f"plan {want!r}: {chosen.why_not(want)}; use plan={chosen.name!r} or 'auto'")
    return chosen
