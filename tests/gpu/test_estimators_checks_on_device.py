"""scikit-learn's own checks of an estimator, on the device: NumPy's arrays in, a GPU in between, NumPy's arrays out."""

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpuprop import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.gpu


# The checks fit for a few epochs, or on data without a pattern: training does not converge, and says so.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [
        MLPClassifier(hidden_layer_sizes=(5,), learning_rate_init=0.05, max_iter=20, device="cuda"),
        MLPRegressor(hidden_layer_sizes=(5,), learning_rate_init=0.05, max_iter=20, device="cuda"),
    ],
)
def test_scikit_learns_checks_on_the_device(estimator: Any, check: Any) -> None:
    check(estimator)
