"""The compiled side of tensor cores: one instruction each, by inline PTX.

``mma.sync`` is executed by a whole warp. An operand of 32 bits travels as a float32, which holds either a number of
tf32 or two numbers of bfloat16 side by side; the fragments are drawn in `gpuprop_kernels.tensor_step`. All of it needs
compute capability 8.0 (NVIDIA, "PTX ISA", sections "mma", "cvt" and "Matrix fragments for mma.m16n8k8").
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.cuda import cgutils, types
from numba.cuda.extending import intrinsic

__all__ = ["high_tf32", "mma_bf16", "mma_tf32", "pack_bf16", "round_tf32"]

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_F32 = types.float32


def _mma(shape: str) -> Any:
    text = f"mma.sync.aligned.{shape} {{$0, $1, $2, $3}}, {{$4, $5, $6, $7}}, {{$8, $9}}, {{$10, $11, $12, $13}};"
    constraints = ",".join(["=f"] * 4 + ["r"] * 6 + ["f"] * 4)
    result = ir.LiteralStructType([_FLOAT] * 4)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = [builder.bitcast(word, _INT) for word in args[4:]] + list(args[:4])
        function = ir.InlineAsm(ir.FunctionType(result, [v.type for v in values]), text, constraints, side_effect=True)
        # A warp-wide instruction may not move into a branch.
        found = builder.call(function, values, attrs=("convergent", "nounwind"))
        return cgutils.pack_array(builder, [builder.extract_value(found, e) for e in range(4)])

    @intrinsic
    def mma(
        typing: Any, c0: Any, c1: Any, c2: Any, c3: Any, a0: Any, a1: Any, a2: Any, a3: Any, b0: Any, b1: Any
    ) -> Any:
        return types.UniTuple(_F32, 4)(*[_F32] * 10), generate

    return mma


mma_tf32 = _mma("m16n8k8.row.col.f32.tf32.tf32.f32")
mma_bf16 = _mma("m16n8k16.row.col.f32.bf16.bf16.f32")


def _asm(builder: Any, text: str, constraints: str, values: list[Any]) -> Any:
    """Return the word that an instruction without side effects makes, as a float32."""
    function = ir.InlineAsm(ir.FunctionType(_INT, [v.type for v in values]), text, constraints)
    return builder.bitcast(builder.call(function, values, attrs=("nounwind",)), _FLOAT)


@intrinsic
def round_tf32(typing: Any, x: Any) -> Any:
    """Return the nearest number of tf32, ties away from zero, once its low 13 bits are ignored, as `mma_tf32` does.

    It is ``cvt.rna.tf32.f32`` in two machine instructions: that one takes four where a store follows.
    """
    text = "{ .reg .pred p; setp.num.f32 p, $1, $1; mov.b32 $0, $1; @p add.s32 $0, $0, 4096; }"

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _asm(builder, text, "=r,f", list(args))

    return _F32(_F32), generate


@intrinsic
def high_tf32(typing: Any, x: Any) -> Any:
    """Return the nearest number of tf32, ties away from zero, but for NaN, of which some become 0 or Inf."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        half, kept = ir.Constant(_INT, 1 << 12), ir.Constant(_INT, -(1 << 13))
        return builder.bitcast(builder.and_(builder.add(builder.bitcast(args[0], _INT), half), kept), _FLOAT)

    return _F32(_F32), generate


@intrinsic
def pack_bf16(typing: Any, low: Any, high: Any) -> Any:
    """Return the word of the nearest two numbers of bfloat16, ties to even."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _asm(builder, "cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,f,f", list(args))

    return _F32(_F32, _F32), generate
