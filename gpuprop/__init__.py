"""gpuprop: backpropagation, made fast and made visible.

Multilayer perceptrons on NVIDIA GPUs and CPUs::

    import gpuprop

    (X, y), (X_test, y_test) = gpuprop.datasets.load_mnist()
    network = gpuprop.Network([784, 128, 10], loss="categorical_cross_entropy")
    gpuprop.Trainer(network, epochs=5).fit(X, y)

Every public name is loaded when it is first used (PEP 562), so that ``import gpuprop`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gpuprop._moved import find_moved_modules
from gpuprop.version import __version__

if TYPE_CHECKING:
    from gpuprop import backends, datasets, estimators
    from gpuprop.errors import (
        BackendUnavailableError,
        DataError,
        DeviceError,
        DeviceMemoryError,
        GpupropError,
        ModelFileError,
        NonFiniteLossError,
        PlanError,
    )
    from gpuprop.estimators import MLPClassifier, MLPEnsemble, MLPRegressor, search
    from gpuprop.estimators.stored_models import load
    from gpuprop.learn import plots, trace
    from gpuprop.learn.gradient_check import check_gradients
    from gpuprop.maths import activations, initializers, losses, optimizers, schedules
    from gpuprop.maths.activations import Activation
    from gpuprop.maths.scaling import InputScaling
    from gpuprop.model.network import Network
    from gpuprop.training import callbacks
    from gpuprop.training.callbacks import Callback
    from gpuprop.training.trainer import Trainer

__all__ = [
    "Activation",
    "BackendUnavailableError",
    "Callback",
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
    "Trainer",
    "__version__",
    "activations",
    "backends",
    "callbacks",
    "check_gradients",
    "datasets",
    "estimators",
    "initializers",
    "load",
    "losses",
    "optimizers",
    "plots",
    "schedules",
    "search",
    "trace",
]

# Where each public name comes from: a module, or an object in one; a name that is not here is a submodule.
_SOURCES = {
    "Activation": "maths.activations:Activation",
    "BackendUnavailableError": "errors:BackendUnavailableError",
    "Callback": "training.callbacks:Callback",
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
    "Trainer": "training.trainer:Trainer",
    "activations": "maths.activations",
    "callbacks": "training.callbacks",
    "check_gradients": "learn.gradient_check:check_gradients",
    "initializers": "maths.initializers",
    "load": "estimators.stored_models:load",
    "losses": "maths.losses",
    "optimizers": "maths.optimizers",
    "plots": "learn.plots",
    "schedules": "maths.schedules",
    "search": "estimators:search",
    "trace": "learn.trace",
}

find_moved_modules()


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used; afterwards it is an ordinary attribute."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _SOURCES.get(name, name).partition(":")
    value: Any = importlib.import_module(f"{__name__}.{module}")
    if attribute:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
