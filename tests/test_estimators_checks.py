"""scikit-learn's own checks of an estimator, without exception."""

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpuprop import MLPClassifier, MLPRegressor


# The checks fit for a few epochs, or on data without a pattern: training does not converge, and says so.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [
        MLPClassifier(learning_rate_init=0.01, max_iter=40, device="cpu"),
        MLPRegressor(learning_rate_init=0.01, max_iter=40, device="cpu"),
    ],
)
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)
