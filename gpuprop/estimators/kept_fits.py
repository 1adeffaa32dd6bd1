"""Checkpoints of estimators: a fit that was killed goes on where it stood, and one that was finished is not repeated.

Each fit has a folder of its own in the folder that the parameter `checkpoint` names: ``fit-`` and a digest of the
parameters and the data. So the members of an ensemble and the candidates of a search share one parameter, and a fit
with other parameters or data begins anew beside the others.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state

from gpuprop.arrays import to_host
from gpuprop.training.checkpoint import Checkpoint, StoredCheckpoint, newest
from gpuprop.training.settings import described

if TYPE_CHECKING:
    from gpuprop.estimators.samples import Samples

__all__ = ["KeptFit", "keeps_fits", "kept_fit"]

#: Parameters that do not change what is computed, or only its last bits.
_NOT_COMPARED = ("checkpoint", "callbacks", "verbose", "device", "emulate", "n_threads", "plan", "warm_start")


@dataclass(frozen=True)
class KeptFit:
    """The checkpoints of one fit.

    Attributes
    ----------
    checkpoint : Checkpoint
        Where the fit keeps its own.
    stored : StoredCheckpoint or None
        The newest one of an earlier process.
    random_state : int, RandomState
        What the fit draws from: the estimator's own; or a seed, which the checkpoints hold, if that is None.
    """

    checkpoint: Checkpoint
    stored: StoredCheckpoint | None
    random_state: Any


def kept_fit(estimator: Any, parts: list[Samples | None]) -> KeptFit | None:
    """Return the checkpoints of a fit, or None if it keeps none.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        With the network that a ``warm_start`` goes on from.
    parts : list of Samples or None
        The rows to train on, and those for validation.

    Warns
    -----
    RuntimeWarning
        If a checkpoint is damaged; the one before it is taken.

    Raises
    ------
    ModelFileError
        If the folder cannot be read.
    """
    if estimator.checkpoint is None:
        return None
    given = estimator.checkpoint
    template = given if isinstance(given, Checkpoint) else Checkpoint(given)
    folder = template.path / f"fit-{_key(estimator, parts)}"
    stored = newest(folder)
    random_state, extra = estimator.random_state, dict(template.extra)
    if random_state is None:
        drawn = int(check_random_state(None).randint(np.iinfo(np.int32).max))
        random_state = extra["seed"] = drawn if stored is None else stored.extra["seed"]
    own = Checkpoint(folder, template.every, template.keep, extra=extra, finish=template.finish)
    return KeptFit(own, stored, random_state)


def keeps_fits(estimator: Any) -> bool:
    """Return whether the fits of an estimator, or of the last step of a pipeline, keep checkpoints."""
    last = estimator[-1] if isinstance(estimator, Pipeline) and len(estimator) else estimator
    return getattr(last, "checkpoint", None) is not None


def _key(estimator: Any, parts: list[Samples | None]) -> str:
    """Return a digest of everything that a fit begins with; equal in every process."""
    own = estimator.get_params(deep=False)
    settings = {name: _plain(value) for name, value in own.items() if name not in _NOT_COMPARED}
    for name in ("metrics", "monitor"):  # what an earlier version did not know changes no digest
        if settings[name] is None:
            del settings[name]
    settings["estimator"] = type(estimator).__qualname__
    settings["begins with"] = _start(estimator)
    settings["data"] = [
        None if part is None else joblib.hash([to_host(part.X), to_host(part.targets), to_host(part.weight)])
        for part in parts
    ]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, np.random.RandomState):
        return joblib.hash(value.get_state())
    return described(value.tolist() if isinstance(value, np.ndarray) else value)


def _start(estimator: Any) -> Any:
    """Return what a ``warm_start`` goes on from."""
    if not (estimator.warm_start and hasattr(estimator, "network_")):
        return None
    records = [getattr(estimator, name, None) for name in ("t_", "best_loss_", "loss_curve_", "validation_scores_")]
    return joblib.hash([estimator.network_.host_parameters(), *records])
