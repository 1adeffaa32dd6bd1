"""Watch a kernel in Numba's simulator: the lines that each thread executes, with the numbers that change in them."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["Stepper"]


class Stepper:
    """Record what each thread of a kernel does, line by line.

    The simulator runs a Python thread for each CUDA thread, and Python calls a tracer at every line of it.

    Parameters
    ----------
    kernel : callable
        A kernel of the simulator (``NUMBA_ENABLE_CUDASIM=1``), which keeps the plain function as ``fn``.

    Attributes
    ----------
    source : list of str
        The lines of the kernel, without their indentation.
    steps : dict of int to list of str
        By ``threadIdx.x``, a line for each step: what changed, and the line of the kernel that changed it.
    """

    def __init__(self, kernel: Any) -> None:
        self._code = kernel.fn.__code__
        lines, self._first = inspect.getsourcelines(self._code)
        self.source = [line.strip() for line in lines]
        self.steps: dict[int, list[str]] = {}

    def run(self, launch: Callable[..., None], *arguments: Any) -> dict[int, list[str]]:
        """Call `launch`, which starts the kernel, watch every thread, and return `steps` by thread."""
        threading.settrace(self._trace)
        try:
            launch(*arguments)
        finally:
            threading.settrace(None)
        return dict(sorted(self.steps.items()))

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Tell Python, which asks at every function that a thread enters, to trace the kernel only."""
        if frame.f_code is not self._code:
            return None
        thread: Any = threading.current_thread()
        steps = self.steps.setdefault(thread.threadIdx.x, [])
        line, before = frame.f_lineno, dict(frame.f_locals)

        def local(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal line, before
            now = {name: value for name, value in frame.f_locals.items() if isinstance(value, (int, float))}
            changed = [f"{name} = {value:g}" for name, value in now.items() if before.get(name) is not value]
            if event in ("line", "return") and line > self._first:
                steps.append(f"{', '.join(changed):<16} {self.source[line - self._first]}")
            line, before = frame.f_lineno, now
            return local

        return local
