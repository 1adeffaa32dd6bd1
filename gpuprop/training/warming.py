"""Compile before it is needed: each kind of training is made once on a few rows, so that its loops are kept on disk.

What is compiled depends on activations, loss, optimizer, penalties and types of numbers, and not on any size. So a
small network stands for all of its kind, and is trained for one epoch by primitives and one by the fused loops. Where
ensembles and searches train several networks of a kind together, two are trained so, on rows with zeros and without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.backends.installed import loops_fault
from gpuprop.errors import BackendUnavailableError, PlanError, unknown_name
from gpuprop.maths.scaling import InputScaling
from gpuprop.model.network import Network
from gpuprop.model.output_choice import choose_outputs
from gpuprop.training.side_by_side import train_together
from gpuprop.training.tabular_presets import network_for_table, preset, trainer_for_table
from gpuprop.training.trainer import Trainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KINDS", "Warmed", "kept_in", "warm"]

_ROWS, _COLUMNS, _BATCH = 96, 64, 2  # with so many updates that subnormal numbers are looked for
_PLANS = ("steps", "fused")


@dataclass(frozen=True)
class _Kind:
    """Trainings that share what is compiled for them.

    `classes` holds a number of classes for each training, or None for a regression; `inputs` is the type of the data,
    where it is not the network's. `joint` says whether something trains several of its networks together.
    """

    description: str
    classes: tuple[int | None, ...]
    dtypes: tuple[str, ...] = ("float32", "float64")
    inputs: str | None = None
    l2: float = 0.0
    joint: bool = False

    @property
    def plans(self) -> tuple[str, ...]:
        """The paths that its trainings may take."""
        return (*_PLANS, "joint") if self.joint else _PLANS


KINDS = {
    "mnist": _Kind("`gpuprop train mnist`", (10,), ("float32",), "uint8"),
    "numbers": _Kind("`gpuprop train FILE` of arrays of numbers", (3, 2, None), ("float32",), "float64", 0.01),
    "classifier": _Kind("MLPClassifier, and ensembles and searches of it", (3, 2), l2=1e-4, joint=True),
    "regressor": _Kind("MLPRegressor, and ensembles and searches of it", (None,), l2=1e-4, joint=True),
    "tables": _Kind("`gpuprop train TABLE`, TabularClassifier and TabularRegressor", (3, None), ("float32",)),
}
"""Every kind by its name."""


@dataclass(frozen=True)
class Warmed:
    """What was compiled for a training.

    Attributes
    ----------
    kind, task, dtype, plan : str
        The training, as a user reads it.
    compiled : int
        The number of functions that were not there yet.
    seconds : float
    fault : str or None
        Why this path cannot make the training; nothing is then compiled for it.
    """

    kind: str
    task: str
    dtype: str
    plan: str
    compiled: int
    seconds: float
    fault: str | None = None


def warm(
    names: Sequence[str] = (), *, dtypes: Sequence[str] = (), options: Mapping[str, Any] | None = None
) -> Iterator[Warmed]:
    """Compile what kinds of training need, and yield what was done for each.

    Parameters
    ----------
    names : sequence of str, default=()
        Of `KINDS`; none are all of them.
    dtypes : sequence of {"float32", "float64"}, default=()
        None are those that each kind usually has.
    options : mapping of str to values, or None, default=None
        Settings in place of the kind's own: "hidden", "activation", "loss", "optimizer", "dropout", "l1" and "l2".

    Raises
    ------
    ValueError
        If a name or a setting is unknown.
    BackendUnavailableError
        If nothing can be compiled here.
    """
    fault = loops_fault()
    if fault is not None:
        raise BackendUnavailableError(f"there is nothing to compile: the device cpu is plain NumPy, because {fault}")
    for name in names:
        if name not in KINDS:
            raise unknown_name("kind", name, tuple(KINDS))
    given = {name: value for name, value in (options or {}).items() if value is not None}
    for name in names or KINDS:
        kind = KINDS[name]
        for dtype in dtypes or kind.dtypes:
            for n_classes in kind.classes:
                yield from _warm_one(name, n_classes, dtype, given)


def kept_in() -> list[str]:
    """Return the folders in which the compiled code of this process is kept; none if there is no place for it."""
    from gpuprop.backends.cpu.compiling import cache_folders

    return cache_folders()


def _warm_one(name: str, n_classes: int | None, dtype: str, options: Mapping[str, Any]) -> Iterator[Warmed]:
    from gpuprop.backends.cpu.compiling import counted

    X, y = _rows(KINDS[name].inputs or dtype, n_classes)
    task = "regression" if n_classes is None else f"{n_classes} classes"
    for plan in KINDS[name].plans:
        make = partial(_of_table if name == "tables" else _of_arrays, name, n_classes, dtype, options, plan)
        begin, fault = time.perf_counter(), None
        with counted() as compiled:
            try:
                if plan == "joint":
                    _train_together(make, X, y)
                else:
                    trainer = make().fit(X, y)
                    for rows in (X, X[:1]):  # one row is another loop
                        trainer.network.predict(rows)
            except PlanError as error:
                fault = str(error)
        yield Warmed(name, task, dtype, plan, len(compiled), time.perf_counter() - begin, fault)


def _train_together(make: Callable[[], Trainer], X: NDArray[Any], y: NDArray[Any]) -> None:
    """Train two networks in the same calls."""
    zeros = X.copy()
    zeros[:, 8:] = 0
    for rows in (X, zeros):
        for error in train_together([make().training(rows, y) for _ in range(2)]):
            if error is not None:
                raise error


def _rows(dtype: str, n_classes: int | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a few rows; whole numbers are mostly zeros, as pictures are."""
    random = np.random.default_rng(0)
    y = random.normal(size=_ROWS) if n_classes is None else np.arange(_ROWS) % n_classes
    if dtype != "uint8":
        return random.normal(size=(_ROWS, _COLUMNS)).astype(dtype), y
    X = np.zeros((_ROWS, _COLUMNS), np.uint8)
    X[:, : _COLUMNS // 8] = random.integers(0, 256, (_ROWS, _COLUMNS // 8))
    return X, y


def _of_arrays(name: str, n_classes: int | None, dtype: str, options: Mapping[str, Any], plan: str) -> Trainer:
    """Return the trainer of a network on rows of numbers."""
    kind = KINDS[name]
    _, y = _rows(kind.inputs or dtype, n_classes)
    end = choose_outputs(None if n_classes is None else list(range(n_classes)), y, options.get("loss"))
    hidden, activation = options.get("hidden", (64,)), options.get("activation", ("relu",))
    dropout = options.get("dropout", (0.0, 0.0))
    network = Network(
        (_COLUMNS, *hidden, end.n_outputs),
        hidden_activation=activation[0] if len(activation) == 1 else activation,
        output_activation=end.activation,
        loss=end.loss,
        seed=0,
        device="cpu",
        dtype=dtype,
        dropout=dropout if hidden else dropout[:1],
        l1=options.get("l1", 0.0),
        l2=options.get("l2", kind.l2),
        input_scaling=None if kind.inputs is None else InputScaling.divide(255.0),
    )
    optimizer = options.get("optimizer", "adam")
    return Trainer(network, optimizer=optimizer, batch_size=_BATCH, epochs=1, validation=0.25, plan=plan)


def _of_table(name: str, n_classes: int | None, dtype: str, options: Mapping[str, Any], plan: str) -> Trainer:
    """Return the trainer of a network on prepared columns of a table."""
    chosen = preset("tabular", "regression" if n_classes is None else "classification")
    chosen = chosen.with_options(**{"hidden": (32,), **options, "epochs": 1, "batch_size": _BATCH})
    network = network_for_table(chosen, _COLUMNS, n_classes or 1, device="cpu", dtype=dtype)
    return trainer_for_table(chosen, network, plan=plan)
