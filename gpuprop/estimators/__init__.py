"""Estimators by scikit-learn's conventions: `MLPClassifier` and `MLPRegressor`, ensembles of them, and searches.

Each name is loaded when it is first used, so that `gpuprop.load` can read a network without importing scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpuprop.estimators.classifier import MLPClassifier
    from gpuprop.estimators.ensemble import MLPEnsemble
    from gpuprop.estimators.regressor import MLPRegressor
    from gpuprop.estimators.searching import search

__all__ = ["MLPClassifier", "MLPEnsemble", "MLPRegressor", "search"]

_MODULES = {
    "MLPClassifier": "classifier",
    "MLPEnsemble": "ensemble",
    "MLPRegressor": "regressor",
    "search": "searching",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used; afterwards it is an ordinary attribute."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
