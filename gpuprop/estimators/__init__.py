"""Estimators by scikit-learn's conventions: for arrays and for tables, ensembles of them, and searches.

Each name is loaded when it is first used, so that `gpuprop.load` can read a network without importing scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuprop.lazy import lazy_names

if TYPE_CHECKING:
    from gpuprop.estimators.classifier import MLPClassifier
    from gpuprop.estimators.ensemble import MLPEnsemble
    from gpuprop.estimators.regressor import MLPRegressor
    from gpuprop.estimators.searching import search
    from gpuprop.estimators.tabular import TabularClassifier, TabularRegressor

__all__ = ["MLPClassifier", "MLPEnsemble", "MLPRegressor", "TabularClassifier", "TabularRegressor", "search"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "MLPClassifier": "classifier:MLPClassifier",
        "MLPEnsemble": "ensemble:MLPEnsemble",
        "MLPRegressor": "regressor:MLPRegressor",
        "TabularClassifier": "tabular:TabularClassifier",
        "TabularRegressor": "tabular:TabularRegressor",
        "search": "searching:search",
    },
)
