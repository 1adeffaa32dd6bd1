"""The primitives of CUDA devices without tensor cores, old GPUs and Numba's simulator: they emulate their roundings.

The functions of arrays round the operands of a product, and the same kernels as for float32 multiply them. The three
products of ``tf32x3`` become one by writing their operands one after the other: ``[lo, hi, hi] @ [[hi], [lo], [hi]]``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpuprop.backends.choosing import check_plan_name, only_one, rounding_note, sharded
from gpuprop.backends.cuda.ops import CudaOps
from gpuprop.backends.steps import StepsPlan
from gpuprop.core.precision import left_parts, right_parts
from gpuprop.errors import BackendUnavailableError

if TYPE_CHECKING:
    from gpuprop.core.array_ops import Array
    from gpuprop.core.plan import Backend, Plan
    from gpuprop.core.updates import Training
    from gpuprop.maths.activations import Activation

__all__ = ["EmulatingOps"]


class EmulatingOps(CudaOps):
    """`CudaOps` where tensor cores are missing: a precision of theirs is refused, or emulated on request."""

    #: Operands are rounded before a kernel gets them.
    kernel_precision = "float32"

    def in_precision(self, precision: str, *, emulate: bool = False) -> Backend:
        if precision not in (self.precision, "float32") and not emulate:
            raise BackendUnavailableError(
                f"precision {precision!r}: the device {self.device!r} has no instruction for it, which GPUs of compute "
                "capability 8.0 or more have; use precision='float32', or emulate=True to round the operands here"
            )
        twin = copy.copy(self)
        twin.precision = precision
        return twin

    def plan(self, trainings: Sequence[Training], *, want: str = "auto") -> Plan:
        shards = sharded(trainings, want)
        if shards is not None or self.precision == "float32":
            return shards or super().plan(trainings, want=want)
        check_plan_name(want, ("steps",), f"{self.device}, emulating {self.precision}")
        training = only_one(trainings, f"networks whose products have the precision {self.precision} take turns")
        because = f"because {self.device} has no tensor cores for it{rounding_note(self)}"
        return StepsPlan(training, f"steps: one kernel after the other, {because}", n_threads=training.n_threads)

    def forward(
        self,
        inputs: Array,
        weights: Array,
        biases: Array,
        activation: Activation,
        z: Array | None,
        out: Array,
    ) -> None:
        inputs, weights = self._operands(inputs, weights, axes=(1, 0))
        super().forward(inputs, weights, biases, activation, z, out)

    def hidden_delta(
        self,
        delta: Array,
        weights: Array,
        activation: Activation,
        source: Array,
        mask: Array | None,
        out: Array,
    ) -> None:
        delta, weights = self._operands(delta, weights, axes=(1, 1))
        super().hidden_delta(delta, weights, activation, source, mask, out)

    def accumulate_gradient(
        self, inputs: Array, delta: Array, weight_grads: Array, bias_grads: Array, *, accumulate: bool
    ) -> None:
        with self.active():
            sums = bias_grads + delta.sum(axis=0) if accumulate else delta.sum(axis=0)
            inputs, delta = self._operands(inputs, delta, axes=(0, 0))
            super().accumulate_gradient(inputs, delta, weight_grads, bias_grads, accumulate=accumulate)
            bias_grads[...] = sums  # the deltas of which are not rounded

    def _operands(self, left: Array, right: Array, axes: tuple[int, int]) -> tuple[Array, Array]:
        """Return the rounded operands of a product over these axes of theirs."""
        if self.precision == "float32":
            return left, right
        with self.runtime.active():
            rounded = (left_parts(left, self.precision), right_parts(right, self.precision))
            joined = [np.concatenate(parts, axis=axis) for parts, axis in zip(rounded, axes, strict=True)]
            return self.asarray(joined[0], left.dtype), self.asarray(joined[1], right.dtype)
