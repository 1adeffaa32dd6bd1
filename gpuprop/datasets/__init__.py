"""Data sets: the ones that come with gpuprop, and readers for the user's own files.

The command line calls ``load``, which takes a name (``mnist``, ``digits``, ``xor``), ``openml:NAME`` or a file, and
returns a ``Dataset``. Heavy packages are imported only when a function needs them.
"""

from __future__ import annotations

from gpuprop.datasets.bundled import load_digits, load_mnist, make_xor
from gpuprop.datasets.dataset import Dataset, split
from gpuprop.datasets.loading import load, load_features, load_test

__all__ = [
    "Dataset",
    "load",
    "load_digits",
    "load_features",
    "load_mnist",
    "load_test",
    "make_xor",
    "split",
]
