"""A call that fails leaves the estimator as it was: as if the call had never been made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from gpuprop.training.records import LiveProgress

__all__ = ["as_before_if_it_fails"]


@contextmanager
def as_before_if_it_fails(estimator: Any) -> Iterator[None]:
    """Give the estimator its attributes back if the body raises an error, and its random generators their positions.

    A network that was there before gets its parameters back. Records that grow (``loss_curve_`` and the columns of
    ``history_``) are cut to the length that they had.
    """
    attributes = dict(vars(estimator))
    network = attributes.get("network_")
    parameters = None if network is None else network.host_parameters()
    updates_made = None if network is None else network.updates_made
    histories = [(value, dict(value)) for value in attributes.values() if isinstance(value, dict)]
    records = [value for value in attributes.values() if isinstance(value, list)]
    records += [column for history, _ in histories for column in history.values() if isinstance(column, list)]
    progress = attributes.get("_progress")
    if isinstance(progress, LiveProgress):  # the next call goes on with its arrays and columns
        records += progress.history.values()
        memory = [(array, array.copy()) for array in progress.optimizer_state.values()]
    else:
        memory = []
    lengths = [(record, len(record)) for record in records]
    generators = [(one, one.get_state()) for one in _generators(estimator)]
    try:
        yield
    except Exception:
        for name in [name for name in vars(estimator) if name not in attributes]:
            delattr(estimator, name)
        vars(estimator).update(attributes)
        if network is not None:
            network.set_parameters(parameters)
            network.updates_made = updates_made
        for array, copy in memory:
            array[...] = copy
        for history, columns in histories:
            history.clear()
            history.update(columns)
        for record, length in lengths:
            del record[length:]
        for generator, state in generators:
            generator.set_state(state)
        raise


def _generators(estimator: Any) -> list[np.random.RandomState]:
    """Return what the estimator draws from and others may hold, too; a seed makes a generator for each call."""
    given = (estimator.random_state, getattr(estimator, "order_random_state", None))
    own = [check_random_state(None)] if given[0] is None else []  # that of ``numpy.random`` itself
    return own + [one for one in given if isinstance(one, np.random.RandomState)]
