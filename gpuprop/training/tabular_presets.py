"""What tables are trained with: the presets of RealMLP, the strongest multilayer perceptron that was tuned for tables.

Source: D. Holzmueller, L. Grinsztajn, I. Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees on
tabular data", NeurIPS 2024, arXiv:2407.04491, section 3 and appendix A. The preset "tabular" is its RealMLP-TD-S, and
"tabular-large" its RealMLP-TD. The columns of a table are prepared by `gpuprop.estimators.columns`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from gpuprop.core.embedding import InputEmbedding
from gpuprop.errors import check_integer, check_real, unknown_name
from gpuprop.maths.losses import get_loss
from gpuprop.maths.optimizers import Adam, Optimizer, get_optimizer
from gpuprop.maths.schedules import get_schedule
from gpuprop.model.arguments import check_hidden_activations
from gpuprop.model.network import Network
from gpuprop.training.rates import Parametrization, groups_of
from gpuprop.training.trainer import Trainer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

    from gpuprop.maths.schedules import Schedule
    from gpuprop.training.callbacks import Callback

__all__ = ["PRESETS", "TabularPreset", "fit_start", "network_for_table", "preset", "trainer_for_table"]

Task = Literal["classification", "regression"]

PRESETS = {
    "tabular": "RealMLP-TD-S, the simpler of the two published recipes",
    "tabular-large": "RealMLP-TD, with embeddings, slopes, dropout and weight decay: better, and several times slower",
}
"""Every preset by its name, with a short description."""


@dataclass(frozen=True)
class TabularPreset:
    """How a network for a table is made and trained.

    Attributes
    ----------
    task : {"classification", "regression"}
    hidden : tuple of int
        Units of each hidden layer.
    activation : str, Activation, or a sequence of them
        For all hidden layers, or one for each.
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
    slopes : bool
        Whether hidden units have trained slopes.
    embedded_numbers : bool
        Whether numbers are embedded by periodic functions.
    most_one_hot : int or None
        Categories of more values are embedded in 8 numbers; None makes a column of each value, whatever their number.
    dropout : float or tuple (input, hidden)
        Share of the hidden units that is dropped, or of the inputs and the hidden units.
    dropout_schedule : Schedule, str or None
        What lowers the dropout; None leaves it as it is.
    weight_decay : float
        Of the weights at first; `decay_schedule` lowers it.
    decay_schedule : Schedule or str
    decay_factors : mapping of str to float
        Of groups of parameters, see `gpuprop.Trainer`.
    fitted_start : bool
        Whether initial weights and biases follow from the training rows, see `fit_start`.
    l1, l2 : float
        Penalties, see `gpuprop.Network`.
    early_stopping : int or None
        Epochs that the training waits for a lower validation loss; None makes all epochs.
    batch_norm, residual : bool
        Of the hidden layers, see `gpuprop.core.blocks`; not with slopes or a start that is fitted to the rows.
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
    slopes: bool = False
    embedded_numbers: bool = False
    most_one_hot: int | None = None
    dropout: float | tuple[float, ...] = 0.0
    dropout_schedule: Schedule | str | None = None
    weight_decay: float = 0.0
    decay_schedule: Schedule | str = "flat_cosine"
    decay_factors: Mapping[str, float] = field(default_factory=dict)
    fitted_start: bool = False
    l1: float = 0.0
    l2: float = 0.0
    early_stopping: int | None = None
    batch_norm: bool = False
    residual: bool = False

    def __post_init__(self) -> None:
        """Check every setting.

        Raises
        ------
        TypeError, ValueError
            If one is not of its type, out of its range, or no known name.
        """
        for name, known in (("task", get_args(Task)), ("parametrization", get_args(Parametrization))):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        for one in fields(self):
            if one.type == "bool" and not isinstance(getattr(self, one.name), bool):
                raise TypeError(f"{one.name}: got {getattr(self, one.name)!r}, expected True or False")
        if not isinstance(self.hidden, (list, tuple)):
            raise TypeError(f"hidden: got {self.hidden!r}, expected the units of each layer, e.g. (256, 256)")
        for units in self.hidden:
            check_integer("hidden", units, 1)
        if (self.batch_norm or self.residual) and (self.slopes or self.fitted_start):
            raise ValueError("batch_norm, residual: they do not go together with slopes, nor with fitted_start")
        for name, least in (("epochs", 1), ("batch_size", 1), ("most_one_hot", 0), ("early_stopping", 1)):
            if getattr(self, name) is not None or name in ("epochs", "batch_size"):
                check_integer(name, getattr(self, name), least)
        for name in ("weight_decay", "l1", "l2"):
            check_real(name, getattr(self, name), 0.0)
        for name in ("label_smoothing", "validation_fraction"):
            check_real(name, getattr(self, name), 0.0, 1.0, open_maximum=True)
        if self.learning_rate is not None:
            check_real("learning_rate", self.learning_rate, 0.0, open_minimum=True)
        for rate in self.dropout if isinstance(self.dropout, (list, tuple)) else (self.dropout,):
            check_real("dropout", rate, 0.0, 1.0, open_maximum=True)
        for name in ("rate_factors", "decay_factors"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"{name}: got {getattr(self, name)!r}, expected factors by groups of parameters")
            for group, factor in getattr(self, name).items():
                check_real(f"{name}[{group!r}]", factor, 0.0)
        check_hidden_activations(self.activation, len(self.hidden))
        get_loss(self.loss)
        get_optimizer(self.optimizer)
        for schedule in (self.schedule, self.dropout_schedule, self.decay_schedule):
            get_schedule(schedule)

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
        if get_loss(name.loss).classification != (task == "classification"):
            raise ValueError(f"preset: got the loss {name.loss!r}, expected one for a {task}")
        return name
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    chosen = TabularPreset(task)
    if task == "regression":
        chosen = chosen.with_options(
            activation="mish", loss="squared_error", learning_rate=0.07, label_smoothing=0.0, clamped=True
        )
    if name == "tabular":
        return chosen
    # The reference decays a parameter by the square of the factor of its rate, except biases, which do not decay.
    return chosen.with_options(
        learning_rate=0.04 if task == "classification" else 0.2,
        rate_factors={"biases": 0.1, "scale": 6.0, "slopes": 0.1, "number_embedding": 0.1},
        decay_factors={"scale": 36.0, "slopes": 0.01, "number_embedding": 0.01, "category_embedding": 1.0},
        normal_biases=False,
        zero_output=False,
        slopes=True,
        embedded_numbers=True,
        most_one_hot=8,
        dropout=0.15,
        dropout_schedule="flat_cosine",
        weight_decay=0.02,
        fitted_start=True,
    )


def network_for_table(
    chosen: TabularPreset,
    n_features: int | InputEmbedding,
    n_outputs: int,
    *,
    rows: ArrayLike | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: DTypeLike = "float32",
    precision: str = "float32",
    emulate: bool = False,
    classes: Sequence[Any] | None = None,
) -> Network:
    """Return a new network for a table whose columns are numbers by now.

    Parameters
    ----------
    chosen : TabularPreset
    n_features : int or InputEmbedding
        Columns after their preparation, or how they are embedded.
    n_outputs : int
        The number of classes, or of target columns.
    rows : array_like of shape (n_samples, n_features) or None, default=None
        The prepared training rows. The preset's start may be fitted to them, and inputs that tell none of them apart
        get no weights, see `silence_constant_inputs`.
    seed : int, default=0
    device : str, default="auto"
    dtype : {"float32", "float64"}, default="float32"
    precision : str, default="float32"
    emulate : bool, default=False
        As of `gpuprop.Network`.
    classes : sequence of labels or None, default=None
    """
    embedding = n_features if isinstance(n_features, InputEmbedding) else None
    on_host = chosen.slopes or embedding is not None  # kernels do not know them
    network = Network(
        (n_features if isinstance(n_features, int) else n_features.n_outputs, *chosen.hidden, n_outputs),
        hidden_activation=chosen.activation,
        loss=chosen.loss,
        init="lecun_normal" if chosen.parametrization == "neural-tangent" else None,
        seed=seed,
        device="cpu" if on_host and device == "auto" else device,
        dtype=dtype,
        precision=precision,
        emulate=emulate,
        dropout=_dropout(chosen),
        l1=chosen.l1,
        l2=chosen.l2,
        slopes=chosen.slopes,
        embedding=embedding,
        classes=classes,
        batch_norm=chosen.batch_norm,
        residual=chosen.residual,
    )
    rng = np.random.default_rng(np.random.SeedSequence([seed, 2]))  # the weights are drawn from [seed]
    if chosen.normal_biases:
        for bias in network.biases[:-1]:
            bias[...] = network.ops.asarray(rng.standard_normal(bias.shape), network.dtype)
    if chosen.zero_output:
        network.weights[-1][...] = 0
    if rows is not None:
        if chosen.fitted_start:
            fit_start(network, rows, rng)
        if embedding is None:
            silence_constant_inputs(network, rows)
    return network


def silence_constant_inputs(network: Network, X: ArrayLike) -> None:
    """Set the weights of inputs to 0 that are 0 in all training rows, such as the ones of a category's rarest values.

    They get no gradient. With random weights a row that has the value, and that training has not seen, would get a
    random answer; without weights its answer follows from its other columns. (The authors' code has the same effect,
    because it scales such inputs to 0.)

    Parameters
    ----------
    network : Network
    X : array_like of shape (n_samples, n_features)
        The prepared training rows.
    """
    silent = ~np.asarray(X).any(axis=0)
    network.weights[0][np.flatnonzero(silent)] = 0


def fit_start(network: Network, X: ArrayLike, rng: np.random.Generator) -> None:
    """Fit the initial weights and biases of a network to data, layer by layer.

    The weights of each unit are divided by the standard deviation of its net inputs over the rows. Then its bias
    becomes minus a convex combination of the net inputs of five random rows, so that its kink lies among the data.

    Parameters
    ----------
    network : Network
        On the host; its biases are not read.
    X : array_like of shape (n_samples, n_features)
    rng : numpy.random.Generator

    Notes
    -----
    Holzmueller, Grinsztajn, Steinwart, arXiv:2407.04491, section 3 (there: "he+5"); Steinwart, "A sober look at neural
    network initializations", arXiv:1903.11482.
    """
    for layer, (weights, biases) in enumerate(zip(network.weights, network.biases, strict=True)):
        biases[...] = 0
        net_inputs = network.net_inputs(X)[layer]
        deviation = net_inputs.std(axis=0)
        deviation[deviation == 0] = 1
        weights /= deviation
        n_units = len(biases)
        rows = rng.integers(0, len(net_inputs), (5, n_units))
        shares = rng.exponential(size=(5, n_units))
        chosen = net_inputs[rows, np.arange(n_units)] / deviation
        biases[...] = -(shares / shares.sum(axis=0) * chosen).sum(axis=0)


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
        "keep_best": None if validation is None else f"validation_{metric}",
        "drop_last": True,
        "learning_rate_factors": _known(chosen.rate_factors, network, chosen),
        "parametrization": chosen.parametrization,
        "scaling_layer": chosen.scaling_layer,
        "label_smoothing": chosen.label_smoothing if network.loss_function.classification else 0.0,
        "weight_decay": chosen.weight_decay,
        "weight_decay_schedule": chosen.decay_schedule,
        "weight_decay_factors": _known(chosen.decay_factors, network, chosen),
        "dropout_schedule": chosen.dropout_schedule if any(network.dropout) else None,
        "early_stopping": chosen.early_stopping,
    }
    return Trainer(
        network, validation=validation, callbacks=callbacks, plan=plan, n_threads=n_threads, **(settings | options)
    )


def _dropout(chosen: TabularPreset) -> float | tuple[float, ...]:
    """Return the dropout of a network that has these hidden layers, or none."""
    if chosen.hidden:
        return chosen.dropout
    return chosen.dropout[:1] if isinstance(chosen.dropout, tuple) else 0.0


def _known(factors: Mapping[str, float], network: Network, chosen: TabularPreset) -> dict[str, float]:
    """Return the factors of groups that the network has."""
    own = {name for names in groups_of(network.spec) for name in names} | ({"scale"} if chosen.scaling_layer else set())
    return {name: factor for name, factor in factors.items() if name in own}
