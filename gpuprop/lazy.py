"""Public names that are loaded when they are first used (PEP 562), so that an import costs next to nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(package: str, sources: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package.

    Parameters
    ----------
    package : str
        Its ``__name__``.
    sources : mapping of str to str
        Where each name comes from, relative to the package: ``"module"`` is a submodule itself, ``"module:object"`` an
        object in it.
    """
    namespace = vars(sys.modules[package])

    def load(name: str) -> Any:
        """Load a public name when it is first used; afterwards it is an ordinary attribute."""
        if name not in sources:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = sources[name].partition(":")
        value: Any = importlib.import_module(f"{package}.{module}")
        if attribute:
            value = getattr(value, attribute)
        namespace[name] = value
        return value

    def names() -> list[str]:
        """Return what belongs to the package, without what it imports for itself."""
        own = (name for name in namespace if name.startswith("__"))
        return sorted({*own, *namespace.get("__all__", ()), *sources})

    return load, names
