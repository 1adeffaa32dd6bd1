"""Modules that have moved: programs and pickles that use an old name get the module at its new place.

An import of an old name gives the module itself, not a copy: ``gpuprop.optimizers.Adam`` and
``gpuprop.maths.optimizers.Adam`` are one class. Nothing is imported before somebody asks for it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType

__all__ = ["MOVED", "find_moved_modules"]

MOVED = {
    "activations": "maths.activations",
    "array_api": "arrays",
    "backends.cpu_ops": "backends.cpu.ops",
    "backends.cuda_ops": "backends.cuda.ops",
    "backends.interchange": "arrays",
    "backends.numpy_ops": "backends.numpy.ops",
    "backends.ops": "core.ops",
    "bench": "measure.bench",
    "bench.device": "measure.bench.clocks",
    "bench.peers.report": "measure.bench.peers.tables",
    "bench.report": "measure.bench.documents",
    "bench.training": "measure.bench.whole_updates",
    "callbacks": "training.callbacks",
    "dropout": "maths.dropout",
    "equivalence": "measure.equivalence",
    "equivalence.cases.training": "measure.equivalence.cases.whole_networks",
    "estimators.files": "estimators.described",
    "estimators.joint_search": "estimators.searching",
    "exercises": "learn.exercises",
    "exercises.network": "learn.exercises.passes",
    "exercises.training": "learn.exercises.updates",
    "gradient_check": "learn.gradient_check",
    "hyperparameters": "maths.hyperparameters",
    "initializers": "maths.initializers",
    "live": "learn.live",
    "losses": "maths.losses",
    "machine": "measure.machine",
    "model_io": "estimators.stored_models",
    "network": "model.network",
    "optimizers": "maths.optimizers",
    "plots": "learn.plots",
    "scaling": "maths.scaling",
    "schedules": "maths.schedules",
    "step": "core.step",
    "together": "training.side_by_side",
    "trace": "learn.trace",
    "trace.report": "learn.trace.tracing",
    "updates": "core.updates",
    "validation": "model.inputs",
}
"""Old name to new name, both below ``gpuprop``. A folder's modules have moved with it, unless they have a line too."""


def _place_of(name: str) -> str | None:
    """Return the whole new name of a module whose old name is ``gpuprop.``..., or None if it has not moved."""
    package, _, rest = name.partition(".")
    if package != "gpuprop":
        return None
    old, inner = rest, ""
    while old:
        if old in MOVED:
            return f"gpuprop.{MOVED[old]}{inner}"
        old, _, last = old.rpartition(".")
        inner = f".{last}{inner}"
    return None


class _Moved(MetaPathFinder, Loader):
    """Finds a moved module, and loads it by importing it under its new name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for an old name."""
        return spec_from_loader(fullname, self) if _place_of(fullname) else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of the new name in the place of the empty one of the old name."""
        place = _place_of(module.__name__)
        if place is not None:
            sys.modules[module.__name__] = importlib.import_module(place)


def find_moved_modules() -> None:
    """Let imports look for a moved module first.

    An old folder's name stands for the new folder, in which Python would otherwise find ``gpuprop.trace.text`` and
    load it a second time, as a copy.
    """
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Moved())
