"""What Numba's compiler imports for functions that are not compiled here, and how it is spared.

Numba finds out whether ``np.dot`` can be compiled by importing SciPy's linear algebra, which takes a third of a second.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

__all__ = ["spare_scipy"]


def spare_scipy() -> None:
    """Import Numba's functions of arrays without SciPy; where a function calls its BLAS, Numba still looks for it."""
    if "numba.np.arraymath" in sys.modules or importlib.util.find_spec("scipy") is None:
        return
    linear_algebra: Any = importlib.import_module("numba.np.linalg")
    look = linear_algebra.ensure_blas
    linear_algebra.ensure_blas = lambda: None
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        linear_algebra.ensure_blas = look
