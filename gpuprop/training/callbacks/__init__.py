"""Callbacks: their base class, and those that ship.

``gpuprop.callbacks.Callback`` is what to derive your own from. Each module of this package holds one kind.
"""

from gpuprop.training.callbacks.base import Callback
from gpuprop.training.callbacks.csv_file import CSVLogger
from gpuprop.training.callbacks.kept_models import ModelCheckpoint
from gpuprop.training.callbacks.progress import ProgressBar
from gpuprop.training.callbacks.trackers import MLflow, TensorBoard
from gpuprop.training.callbacks.units import UnitActivity

__all__ = ["CSVLogger", "Callback", "MLflow", "ModelCheckpoint", "ProgressBar", "TensorBoard", "UnitActivity"]
