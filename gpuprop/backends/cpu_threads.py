"""How many threads NumPy's BLAS uses while a network trains.

The fused tier (`gpuprop.backends.cpu_fused`) is one thread and calls no BLAS. Where the step is made of primitives,
BLAS multiplies with all its threads or with one, whichever a few multiplications of the training's own size show to
be faster: small ones lose by it, and on a busy machine all lose, because each waits for the slowest thread. BLAS's
own maximum, which OPENBLAS_NUM_THREADS and joblib's workers set, is never exceeded.

Of several limits the strictest holds, and what was before comes back when the last has ended. OpenBLAS keeps a number
for each thread of the caller: a limit counts for the thread that trains.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gpuprop.network import Network

__all__ = ["best_thread_count", "blas_threads", "limited_blas"]

#: Multiplications of numbers in a layer's product below which a second thread cannot pay for being woken; what such
#: trainings use is left as it is.
_WORTH_MEASURING = 2**24

_lock = threading.Lock()
_wanted: list[int] = []
_limiter: Any = None


@functools.cache
def _controller() -> Any:
    """Return the handles of what is loaded when first asked: NumPy's BLAS, not what SciPy may bring later."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def blas_threads() -> int:
    """Return how many threads BLAS may use now; 1 where no BLAS is found that can be asked."""
    return max((int(library["num_threads"]) for library in _controller().info()), default=1)


@contextlib.contextmanager
def limited_blas(n_threads: int | None) -> Iterator[None]:
    """Let BLAS use at most so many threads; None leaves it alone."""
    if n_threads is None:
        yield
        return
    with _lock:
        _wanted.append(n_threads)
        _apply()
    try:
        yield
    finally:
        with _lock:
            _wanted.remove(n_threads)
            _apply()


def _apply() -> None:
    """Set the strictest limit that is wanted, after what was there before."""
    global _limiter
    if _limiter is not None:
        _limiter.restore_original_limits()
        _limiter = None
    if _wanted:
        controller = _controller()
        most = max((int(library["num_threads"]) for library in controller.info()), default=1)
        _limiter = controller.limit(limits=min(*_wanted, most))


def best_thread_count(network: Network, n_rows: int) -> int | None:
    """Return 1 or all of BLAS's threads, whichever multiplies faster; None where there is nothing to choose.

    Measured for the largest layer and `n_rows` rows, the best of three each, in turn.
    """
    fan_in, fan_out = max(pairwise(network.layer_sizes), key=lambda layer: layer[0] * layer[1])
    if n_rows * fan_in * fan_out < _WORTH_MEASURING:
        return None
    most = blas_threads()
    if most == 1:
        return None
    a, b = np.ones((n_rows, fan_in), network.dtype), np.ones((fan_in, fan_out), network.dtype)
    out = np.empty((n_rows, fan_out), network.dtype)
    best = {1: np.inf, most: np.inf}
    for _ in range(3):
        for count in best:
            with limited_blas(count):
                begin = time.perf_counter()
                np.matmul(a, b, out=out)
                best[count] = min(best[count], time.perf_counter() - begin)
    return 1 if best[1] <= best[most] else most
