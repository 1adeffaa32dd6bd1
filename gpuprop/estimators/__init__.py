"""scikit-learn's multilayer perceptrons on gpuprop's training: drop-in estimators, and what scikit-learn leaves out.

The estimators are scikit-learn's conventions and validation; the training is `gpuprop.training`'s.
"""

from gpuprop.estimators.classifier import MLPClassifier
from gpuprop.estimators.ensemble import MLPEnsemble
from gpuprop.estimators.joint_search import search
from gpuprop.estimators.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPEnsemble", "MLPRegressor", "search"]
