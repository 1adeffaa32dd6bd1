"""The simulator's tensor cores: 32 Python threads meet, and one of them multiplies for all.

Roundings of operands are those of the instructions, bit by bit. A product of two rounded numbers is exact in float64;
products are added to the accumulator one after the other, k = 0, 1, ..., each sum rounded to float32. Hardware adds
several at once and cuts the sum off; how, is not documented.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["high_tf32", "mma_bf16", "mma_tf32", "pack_bf16", "round_tf32"]

_PATIENCE = 60.0
"""Seconds after which a warp some of whose threads stay away is given up."""

_creation = threading.Lock()


def _bits(x: Any) -> int:
    return int(np.float32(x).view(np.uint32))


def _number(bits: int) -> Any:
    return np.uint32(bits & 0xFFFFFFFF).view(np.float32)


def high_tf32(x: Any) -> Any:
    """Return the nearest number of tf32, ties away from zero, but for NaN, of which some become 0 or Inf."""
    return _number((_bits(x) + (1 << 12)) & 0xFFFFE000)


def round_tf32(x: Any) -> Any:
    """Return the nearest number of tf32, ties away from zero, once its low 13 bits are ignored, as `mma_tf32` does."""
    return x if np.isnan(x) else _number(_bits(x) + (1 << 12))


def _bf16(x: Any) -> int:
    bits = _bits(x)
    return 0x7FFF if np.isnan(x) else (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def pack_bf16(low: Any, high: Any) -> Any:
    """Return the word of the nearest two numbers of bfloat16, ties to even."""
    return _number(_bf16(high) << 16 | _bf16(low))


def _as_tf32(words: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Return the numbers of words, shape (..., k) -> (..., k): a tensor core ignores the low 13 bits."""
    return (words & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)


def _as_bf16(words: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Return the two numbers of each word, shape (..., k) -> (..., 2 k)."""
    halves = np.stack([words << np.uint32(16), words & np.uint32(0xFFFF0000)], axis=-1)
    return halves.view(np.float32).astype(np.float64).reshape(*words.shape[:-1], -1)


class _Warp:
    """Where the 32 threads of a warp meet for one instruction."""

    def __init__(self, numbers: Callable[[NDArray[np.uint32]], NDArray[np.float64]]) -> None:
        self.words: Any = np.zeros((32, 10), np.float32)
        self._numbers = numbers
        self._barrier = threading.Barrier(32, self._multiply, _PATIENCE)

    def meet(self, lane: int, words: tuple[Any, ...]) -> tuple[Any, ...]:
        """Hand in this lane's registers, and return its four results."""
        self.words[lane] = words
        self._barrier.wait()
        return tuple(self.results[lane])

    def _multiply(self) -> None:
        # words[lane], lane = 4 g + t: c (rows g, g + 8; columns 2 t, 2 t + 1), a (rows g, g + 8; words t, t + 4 of k),
        # b (words t, t + 4 of k; column g).
        registers = self.words.reshape(8, 4, 10)
        bits = np.ascontiguousarray(registers[:, :, 4:]).view(np.uint32)
        c = registers[:, :, :4].reshape(8, 4, 2, 2).transpose(2, 0, 1, 3).reshape(16, 8)
        a = self._numbers(np.ascontiguousarray(bits[:, :, :4].reshape(8, 4, 2, 2).transpose(3, 0, 2, 1)).reshape(16, 8))
        b = self._numbers(np.ascontiguousarray(bits[:, :, 4:].transpose(0, 2, 1)).reshape(8, 8))
        with np.errstate(all="ignore"):
            for k in range(a.shape[1]):
                c = (c + a[:, k, None] * b[None, :, k]).astype(np.float32)
        self.results = c.reshape(2, 8, 4, 2).transpose(1, 2, 0, 3).reshape(32, 4)


def _mma(numbers: Callable[[NDArray[np.uint32]], NDArray[np.float64]]) -> Callable[..., tuple[Any, ...]]:
    def mma(*words: Any) -> tuple[Any, ...]:
        current: Any = threading.current_thread()
        thread, manager = int(current.threadIdx.x), current._manager
        with _creation:
            warps = manager.__dict__.setdefault("warps", {})
            key = thread // 32, numbers
            if key not in warps:
                warps[key] = _Warp(numbers)
        found: tuple[Any, ...] = warps[key].meet(thread % 32, words)
        return found

    return mma


mma_tf32, mma_bf16 = _mma(_as_tf32), _mma(_as_bf16)
