"""A network and a trainer for a data set, as a recipe describes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpuprop.errors import check_integer, check_real
from gpuprop.maths.scaling import InputScaling
from gpuprop.model.network import Network
from gpuprop.model.output_choice import choose_outputs
from gpuprop.training.placement import plain_seconds
from gpuprop.training.trainer import Trainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.datasets import Dataset
    from gpuprop.datasets.stored import Statistics
    from gpuprop.training.callbacks import Callback
    from gpuprop.training.recipes import Recipe

    Part = tuple[NDArray[Any], NDArray[Any]]

__all__ = ["network_for", "plain_seconds_of", "scaling_for", "trainer_for"]


def scaling_for(scale: str, X: NDArray[Any], statistics: Statistics | None = None) -> InputScaling | None:
    """Return the input scaling that "standard" (of the columns of `X`), "none" or "divide:NUMBER" names.

    `statistics` are those of all rows, where `X` is only some of them.
    """
    if scale == "standard" and statistics is not None:
        return InputScaling.of_moments(statistics.mean, statistics.deviation)
    if scale == "standard":
        return InputScaling.standard(X)
    if scale == "none":
        return None
    return InputScaling.divide(float(scale.removeprefix("divide:")))


def network_for(
    dataset: Dataset,
    part: Part,
    recipe: Recipe,
    *,
    loss: str | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "float32",
    emulate: bool = False,
    statistics: Statistics | None = None,
) -> Network:
    """Return a new network for a data set.

    Parameters
    ----------
    dataset : Dataset
        The network keeps its classes and names.
    part : tuple (X, y)
        The rows that train it.
    recipe : Recipe
        Hidden layers, activation, scaling, dropout and penalties.
    loss : str or None, default=None
        None takes the one that suits the targets; see `gpuprop.model.output_choice`.
    seed : int, default=0
    device : str, default="auto"
    precision : str, default="float32"
    emulate : bool, default=False
        As of `gpuprop.Network`.
    statistics : Statistics or None, default=None
        Of all rows, where the part has only some of them.

    Raises
    ------
    ValueError
        If the loss does not suit the targets, or the recipe has an unknown name or a number out of range.
    """
    X, y = part
    end = choose_outputs(dataset.classes, y, loss)
    return Network(
        (X.shape[1], *recipe.hidden, end.n_outputs),
        hidden_activation=recipe.activation[0] if len(recipe.activation) == 1 else recipe.activation,
        output_activation=end.activation,
        loss=end.loss,
        seed=seed,
        device=device,
        precision=precision,
        emulate=emulate,
        dropout=recipe.dropout if recipe.hidden else recipe.dropout[:1],
        l1=recipe.l1,
        l2=recipe.l2,
        batch_norm=recipe.batch_norm,
        residual=recipe.residual,
        input_scaling=scaling_for(recipe.scale, X, statistics),
        classes=dataset.classes,
        feature_names=dataset.feature_names,
        target_name=dataset.target_name,
    )


def trainer_for(
    network: Network,
    recipe: Recipe,
    n_rows: int,
    callbacks: Sequence[Callback] = (),
    *,
    plan: str = "auto",
    metrics: Sequence[str] = (),
    monitor: str | None = None,
) -> Trainer:
    """Return the trainer of a network on `n_rows` rows; of a single row none can be held out for validation.

    `plan`, `metrics` and `monitor` are those of `gpuprop.Trainer`.
    """
    patience = check_integer("patience", recipe.patience, 1)
    share = check_real("validation_fraction", recipe.validation_fraction, 0.0, 1.0, open_maximum=True)
    return Trainer(
        network,
        optimizer=recipe.optimizer,
        learning_rate=recipe.lr,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        validation=share if share > 0 and n_rows > 1 else None,
        schedule=recipe.schedule,
        early_stopping=patience if recipe.early_stopping else None,
        callbacks=callbacks,
        metrics=metrics,
        monitor=monitor,
        plan=plan,
    )


def plain_seconds_of(dataset: Dataset, part: Part, recipe: Recipe) -> float:
    """Return about how long the training that a recipe describes takes in plain NumPy."""
    (n_rows, n_features), n_outputs = part[0].shape, len(dataset.classes or [0])
    batch_size = max(1, min(recipe.batch_size, n_rows))
    return plain_seconds((n_features, *recipe.hidden, n_outputs), batch_size, -(-n_rows // batch_size) * recipe.epochs)
