"""How updates are made on a CPU with compiled loops: by steps, fused, or jointly for several networks.

The choice follows from sizes and options alone, never from what happens to be compiled already, so that a training
gives the same bits the first time and later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpuprop.backends.choosing import check_plan_name, only_one, plain_steps, rounding_note, sharded
from gpuprop.backends.cpu import fused, joint
from gpuprop.backends.cpu.joint_plan import JointPlan, groups_of
from gpuprop.backends.cpu.shared_steps import SharedStepsPlan, worth_sharing
from gpuprop.backends.cpu.subnormals import subnormals_flushed
from gpuprop.errors import PlanError

if TYPE_CHECKING:
    from gpuprop.backends.steps import StepsPlan
    from gpuprop.core.plan import Plan
    from gpuprop.core.updates import Training

__all__ = ["plan"]


def plan(trainings: Sequence[Training], want: str) -> Plan:
    """Choose how updates are made; see `gpuprop.core.plan.Backend.plan`."""
    shards = sharded(trainings, want, subnormals_flushed)
    if shards is not None:
        return shards
    ops = trainings[0].layers.ops
    if ops.precision != "float32":
        check_plan_name(want, ("steps",), f"cpu, emulating {ops.precision}")
        training = only_one(trainings, f"networks whose products have the precision {ops.precision} take turns")
        return _steps(training, f"because the fused loops round no operands{rounding_note(ops)}")
    check_plan_name(want, ("steps", "fused", "dense", "joint"), "cpu")
    if len(trainings) > 1 or want == "joint":
        return _joint(trainings, want)
    (training,) = trainings
    fault = fused.cannot_fuse(training)
    if want in ("fused", "dense"):
        if fault is not None:
            raise PlanError(f"plan {want!r}: {fault}; use plan='steps' or 'auto'")
        return fused.FusedPlan(training, skips_zeros=want == "fused")
    if want == "steps":
        return _steps(training, "as asked for")
    fault = fault or fused.not_worth_fusing(training)
    return fused.FusedPlan(training) if fault is None else _steps(training, f"because {fault}")


def _joint(trainings: Sequence[Training], want: str) -> JointPlan:
    """Return the plan of several trainings, if at least two of them can share their calls, or one has done so.

    Short trainings do so only if the path was asked for by name.
    """
    if want not in ("auto", "joint"):
        raise PlanError(f"plan {want!r} makes the updates of one network, got {len(trainings)}; use plan='joint'")
    groups = groups_of(trainings, asked=want == "joint")
    if not groups:
        faults = [joint.cannot_join(training) for training in trainings]
        able = [training for training, fault in zip(trainings, faults, strict=True) if fault is None]
        fault = next((fault for fault in faults if fault is not None), "there is only one network")
        if len(able) > 1:
            fault = joint.not_worth_joining(able) or "no two networks are of one kind"
        raise PlanError(f"plan 'joint': {fault}")
    return JointPlan(trainings, groups)


def _steps(training: Training, why: str) -> StepsPlan:
    because = f"one primitive after the other, {why}"
    if worth_sharing(training):
        return SharedStepsPlan(training, because)
    return plain_steps(training, because, subnormals_flushed)
