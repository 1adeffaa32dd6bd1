"""Data sets: the ones that come with gpuprop, and readers for the user's own files.

``read_table`` takes a table of any columns, from a file or ``openml:NAME``, and returns a ``RawTable``. ``load`` takes
a name (``mnist``, ``digits``, ``xor``) or any source of numbers, and returns a ``Dataset``. ``open`` takes files and
folders whose rows are to stay on disk, and returns ``StoredRows``. ``augmented`` takes arrays whose rows are to be
changed at random while a network is trained on them, by ``Deformations`` of images, say. Heavy packages are imported
only when a function needs them.
"""

from __future__ import annotations

from gpuprop.datasets.augmented import AugmentedRows, augmented
from gpuprop.datasets.bundled import load_digits, load_mnist, make_xor
from gpuprop.datasets.dataset import Dataset, encode_like, encode_target, split
from gpuprop.datasets.deformations import Deformations
from gpuprop.datasets.loading import is_table, load, load_features, load_test, read_table, short_name
from gpuprop.datasets.raw_table import RawTable
from gpuprop.datasets.stored import StoredRows
from gpuprop.datasets.stored_opening import is_stored, open

__all__ = [
    "AugmentedRows",
    "Dataset",
    "Deformations",
    "RawTable",
    "StoredRows",
    "augmented",
    "encode_like",
    "encode_target",
    "is_stored",
    "is_table",
    "load",
    "load_digits",
    "load_features",
    "load_mnist",
    "load_test",
    "make_xor",
    "open",
    "read_table",
    "short_name",
    "split",
]
