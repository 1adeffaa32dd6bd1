"""What tables are trained with: the presets of RealMLP, the strongest multilayer perceptron that was tuned for tables.

Source: D. Holzmueller, L. Grinsztajn, I. Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees on
tabular data", NeurIPS 2024, arXiv:2407.04491, section 3 and appendix A. The preset "tabular" is its RealMLP-TD-S. The
columns of a table are prepared by `gpuprop.estimators.columns`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gpuprop.errors import unknown_name
from gpuprop.maths.optimizers import Adam, Optimizer
from gpuprop.model.network import Network
from gpuprop.training.trainer import Trainer

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from gpuprop.maths.schedules import Schedule
    from gpuprop.training.callbacks import Callback
    from gpuprop.training.rates import Parametrization

__all__ = ["PRESETS", "TabularPreset", "network_for_table", "preset", "trainer_for_table"]

Task = Literal["classification", "regression"]

PRESETS = {"tabular": "RealMLP-TD-S, the simpler of the two published recipes"}
"""Every preset by its name, with a short description."""


@dataclass(frozen=True)
class TabularPreset:
    """How a network for a table is made and trained.

    Attributes
    ----------
    task : {"classification", "regression"}
    hidden : tuple of int
        Units of each hidden layer.
    activation : str
    loss : str
        A classifier has one output for each class, also for two.
    epochs, batch_size : int
        Where a table has fewer rows than a batch, they are one batch. Rows that do not fill one are left out.
    learning_rate : float or None
        None takes the optimizer's own default.
    schedule : Schedule or str
    optimizer : Optimizer or str
    rate_factors : mapping of str to float
        Of groups of parameters, see `gpuprop.Trainer`.
    parametrization : {"standard", "neural-tangent"}
    scaling_layer : bool
        Whether there is a trained factor for each input.
    label_smoothing : float
        Of a classifier.
    normal_biases : bool
        Whether the biases of the hidden layers begin as standard normal numbers; else they are 0.
    zero_output : bool
        Whether the last layer begins with zeros.
    clamped : bool
        Whether predictions of a regression are kept within the range of the training targets.
    validation_fraction : float
        Share of the rows by which the epoch is chosen whose parameters are kept.
    dropout : tuple (input, hidden)
    l1, l2 : float
    early_stopping : int or None
        Epochs that the training waits for a lower validation loss; None makes all epochs.
    """

    task: Task
    hidden: tuple[int, ...] = (256, 256, 256)
    activation: str = "selu"
    loss: str = "categorical_cross_entropy"
    epochs: int = 256
    batch_size: int = 256
    learning_rate: float | None = 0.04
    schedule: Schedule | str = "coslog"
    optimizer: Optimizer | str = field(default_factory=lambda: Adam(beta_1=0.9, beta_2=0.95))
    rate_factors: Mapping[str, float] = field(default_factory=lambda: {"biases": 0.1, "scale": 6.0})
    parametrization: Parametrization = "neural-tangent"
    scaling_layer: bool = True
    label_smoothing: float = 0.1
    normal_biases: bool = True
    zero_output: bool = True
    clamped: bool = False
    validation_fraction: float = 0.2
    dropout: tuple[float, ...] = (0.0, 0.0)
    l1: float = 0.0
    l2: float = 0.0
    early_stopping: int | None = None

    def with_options(self, **given: Any) -> TabularPreset:
        """Return the preset with the settings that are given and not None.

        Raises
        ------
        TypeError
            If there is no such setting.
        """
        known = [one.name for one in fields(self) if one.name != "task"]
        for name in given:
            if name not in known:
                raise TypeError(f"got the setting {name!r}, expected one of {', '.join(known)}")
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def preset(name: str | TabularPreset, task: Task) -> TabularPreset:
    """Return the preset of a name; a `TabularPreset` is returned as it is.

    Parameters
    ----------
    name : str or TabularPreset
        A key of `PRESETS`, or an object.
    task : {"classification", "regression"}

    Raises
    ------
    ValueError
        If there is no such preset, or it is for another task.

    Examples
    --------
    >>> from gpuprop.training.tabular_presets import preset
    >>> preset("tabular", "regression").activation
    'mish'
    """
    if isinstance(name, TabularPreset):
        if name.task != task:
            raise ValueError(f"preset: got one for a {name.task}, expected one for a {task}")
        return name
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    if task == "classification":
        return TabularPreset(task)
    return TabularPreset(
        task, activation="mish", loss="squared_error", learning_rate=0.07, label_smoothing=0.0, clamped=True
    )


def network_for_table(
    chosen: TabularPreset,
    n_features: int,
    n_outputs: int,
    *,
    seed: int = 0,
    device: str = "auto",
    dtype: DTypeLike = "float32",
    classes: Sequence[Any] | None = None,
) -> Network:
    """Return a new network for a table whose columns are numbers by now.

    Parameters
    ----------
    chosen : TabularPreset
    n_features : int
        Columns after their preparation.
    n_outputs : int
        The number of classes, or of target columns.
    seed : int, default=0
    device : str, default="auto"
    dtype : {"float32", "float64"}, default="float32"
    classes : sequence of labels or None, default=None
    """
    network = Network(
        (n_features, *chosen.hidden, n_outputs),
        hidden_activation=chosen.activation,
        loss=chosen.loss,
        init="lecun_normal" if chosen.parametrization == "neural-tangent" else None,
        seed=seed,
        device=device,
        dtype=dtype,
        dropout=chosen.dropout if chosen.hidden else chosen.dropout[:1],
        l1=chosen.l1,
        l2=chosen.l2,
        classes=classes,
    )
    rng = np.random.default_rng(np.random.SeedSequence([seed, 2]))  # the weights are drawn from [seed]
    if chosen.normal_biases:
        for bias in network.biases[:-1]:
            bias[...] = network.ops.asarray(rng.standard_normal(bias.shape), network.dtype)
    if chosen.zero_output:
        network.weights[-1][...] = 0
    return network


def trainer_for_table(
    chosen: TabularPreset,
    network: Network,
    *,
    validation: Any = None,
    callbacks: Sequence[Callback] = (),
    plan: str = "auto",
    n_threads: int | None = None,
    **options: Any,
) -> Trainer:
    """Return the trainer of such a network.

    Parameters
    ----------
    chosen : TabularPreset
    network : Network
    validation : None, float or (X, y), default=None
        Rows by which the epoch is chosen whose parameters are kept: the one of the highest accuracy or R2, and of
        equal ones the last. Without them the last epoch is kept.
    callbacks : sequence of Callback, default=()
    plan : str, default="auto"
    n_threads : int or None, default=None
    **options
        Further arguments of `gpuprop.Trainer`, which win over those of the preset.
    """
    metric = "accuracy" if network.is_classifier else "r2"
    settings: dict[str, Any] = {
        "optimizer": chosen.optimizer,
        "learning_rate": chosen.learning_rate,
        "batch_size": chosen.batch_size,
        "epochs": chosen.epochs,
        "schedule": chosen.schedule,
        "early_stopping": chosen.early_stopping,
        "keep_best": None if validation is None else f"validation_{metric}",
        "drop_last": True,
        "learning_rate_factors": {
            name: factor for name, factor in chosen.rate_factors.items() if chosen.scaling_layer or name != "scale"
        },
        "parametrization": chosen.parametrization,
        "scaling_layer": chosen.scaling_layer,
        "label_smoothing": chosen.label_smoothing if network.loss_function.classification else 0.0,
    }
    return Trainer(
        network, validation=validation, callbacks=callbacks, plan=plan, n_threads=n_threads, **(settings | options)
    )
