"""gpuprop: backpropagation, made fast and made visible.

Multilayer perceptrons on NVIDIA GPUs and CPUs::

    import gpuprop

    (X, y), (X_test, y_test) = gpuprop.datasets.load_mnist()
    network = gpuprop.Network([784, 128, 10], loss="categorical_cross_entropy")
    gpuprop.Trainer(network, epochs=5).fit(X, y)

Every public name is loaded when it is first used (PEP 562), so that ``import gpuprop`` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuprop._moved import find_moved_modules
from gpuprop.lazy import lazy_names
from gpuprop.version import __version__

if TYPE_CHECKING:
    from gpuprop import backends, datasets, estimators
    from gpuprop.errors import (
        BackendUnavailableError,
        CommunicatorError,
        DataError,
        DeviceError,
        DeviceMemoryError,
        GpupropError,
        ModelFileError,
        NonFiniteLossError,
        PlanError,
        ResumeError,
        TrainingEnded,
    )
    from gpuprop.estimators import (
        MLPClassifier,
        MLPEnsemble,
        MLPRegressor,
        TabularClassifier,
        TabularRegressor,
        search,
    )
    from gpuprop.estimators.stored_models import load
    from gpuprop.estimators.trust import calibrate, conformal
    from gpuprop.learn import plots, trace
    from gpuprop.learn.gradient_check import check_gradients
    from gpuprop.maths import activations, initializers, losses, optimizers, schedules
    from gpuprop.maths.activations import Activation
    from gpuprop.maths.scaling import InputScaling
    from gpuprop.model.explanations import integrated_gradients, permutation_importance
    from gpuprop.model.network import Network
    from gpuprop.training import callbacks
    from gpuprop.training.callbacks import Callback
    from gpuprop.training.checkpoint import Checkpoint
    from gpuprop.training.rate_finder import find_learning_rate
    from gpuprop.training.trainer import Trainer

__all__ = [
    "Activation",
    "BackendUnavailableError",
    "Callback",
    "Checkpoint",
    "CommunicatorError",
    "DataError",
    "DeviceError",
    "DeviceMemoryError",
    "GpupropError",
    "InputScaling",
    "MLPClassifier",
    "MLPEnsemble",
    "MLPRegressor",
    "ModelFileError",
    "Network",
    "NonFiniteLossError",
    "PlanError",
    "ResumeError",
    "TabularClassifier",
    "TabularRegressor",
    "Trainer",
    "TrainingEnded",
    "__version__",
    "activations",
    "backends",
    "calibrate",
    "callbacks",
    "check_gradients",
    "conformal",
    "datasets",
    "estimators",
    "find_learning_rate",
    "initializers",
    "integrated_gradients",
    "load",
    "losses",
    "optimizers",
    "permutation_importance",
    "plots",
    "schedules",
    "search",
    "trace",
]

# Where each public name comes from: a module, or an object in one.
_SOURCES = {
    "Activation": "maths.activations:Activation",
    "BackendUnavailableError": "errors:BackendUnavailableError",
    "Callback": "training.callbacks:Callback",
    "Checkpoint": "training.checkpoint:Checkpoint",
    "CommunicatorError": "errors:CommunicatorError",
    "DataError": "errors:DataError",
    "DeviceError": "errors:DeviceError",
    "DeviceMemoryError": "errors:DeviceMemoryError",
    "GpupropError": "errors:GpupropError",
    "InputScaling": "maths.scaling:InputScaling",
    "MLPClassifier": "estimators:MLPClassifier",
    "MLPEnsemble": "estimators:MLPEnsemble",
    "MLPRegressor": "estimators:MLPRegressor",
    "ModelFileError": "errors:ModelFileError",
    "Network": "model.network:Network",
    "NonFiniteLossError": "errors:NonFiniteLossError",
    "PlanError": "errors:PlanError",
    "ResumeError": "errors:ResumeError",
    "TabularClassifier": "estimators:TabularClassifier",
    "TabularRegressor": "estimators:TabularRegressor",
    "Trainer": "training.trainer:Trainer",
    "TrainingEnded": "errors:TrainingEnded",
    "activations": "maths.activations",
    "backends": "backends",
    "calibrate": "estimators.trust:calibrate",
    "callbacks": "training.callbacks",
    "check_gradients": "learn.gradient_check:check_gradients",
    "conformal": "estimators.trust:conformal",
    "datasets": "datasets",
    "estimators": "estimators",
    "find_learning_rate": "training.rate_finder:find_learning_rate",
    "initializers": "maths.initializers",
    "integrated_gradients": "model.explanations:integrated_gradients",
    "load": "estimators.stored_models:load",
    "losses": "maths.losses",
    "optimizers": "maths.optimizers",
    "permutation_importance": "model.explanations:permutation_importance",
    "plots": "learn.plots",
    "schedules": "maths.schedules",
    "search": "estimators:search",
    "trace": "learn.trace",
}

find_moved_modules()

__getattr__, __dir__ = lazy_names(__name__, _SOURCES)
