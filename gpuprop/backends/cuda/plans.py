"""How updates are made on a CUDA device: by fused kernels, recorded as graphs if possible, or one primitive at a time.

The plan of fused kernels streams data that do not fit the device, whichever of its paths was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpuprop.backends.choosing import check_plan_name, only_one, sharded
from gpuprop.backends.cuda.kernel_plan import CudaPlan
from gpuprop.backends.steps import StepsPlan
from gpuprop.errors import PlanError

if TYPE_CHECKING:
    from gpuprop.backends.cuda.array_ops import CudaArrays
    from gpuprop.core.plan import Plan
    from gpuprop.core.updates import Training

__all__ = ["plan"]


def plan(ops: CudaArrays, trainings: Sequence[Training], want: str) -> Plan:
    """Choose how updates are made; see `gpuprop.core.plan.Backend.plan`."""
    shards = sharded(trainings, want)
    if shards is not None:
        return shards
    check_plan_name(want, ("steps", "fused", "graph", "streamed"), ops.device)
    training = only_one(trainings, f"{ops.device} trains one network after the other")
    fault = None
    if not training.rule.optimizer.built_in:
        fault = f"there is no kernel for the optimizer {training.rule.optimizer.name!r}"
    elif training.only_steps is not None:
        fault = training.only_steps
    elif not training.rule.plain:
        fault = "the fused kernels know one learning rate for all parameters, and no trained factors of the inputs"
    if want == "steps" or (want == "auto" and fault is not None):
        because = "as asked for" if want == "steps" else f"because {fault}"
        return StepsPlan(training, f"steps: one kernel after the other, {because}", n_threads=training.n_threads)
    if fault is not None:
        raise PlanError(f"plan {want!r}: {fault}; use plan='steps' or 'auto'")
    chosen = CudaPlan(ops, training, want)
    if want not in ("auto", chosen.name):
        raise PlanError(f"plan {want!r}: {chosen.why_not(want)}; use plan={chosen.name!r} or 'auto'")
    return chosen
