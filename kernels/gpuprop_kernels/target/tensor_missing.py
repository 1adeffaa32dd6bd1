"""What stands in for tensor cores under a compiler for which gpuprop has no body of them: names that refuse.

`gpuprop_kernels.tensor_step` refuses a tile of tensor cores before any of these is compiled.
"""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["high_tf32", "mma_bf16", "mma_tf32", "pack_bf16", "round_tf32"]


def _refuse(*words: Any) -> NoReturn:
    raise NotImplementedError("tensor cores: gpuprop has no code for them under this compiler; use precision='float32'")


high_tf32: Any = _refuse
mma_bf16: Any = _refuse
mma_tf32: Any = _refuse
pack_bf16: Any = _refuse
round_tf32: Any = _refuse
