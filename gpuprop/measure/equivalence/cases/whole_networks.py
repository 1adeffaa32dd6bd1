"""Cases of whole networks: inference, gradients, updates with everything that belongs to them, and trainings.

Training goes through `Trainer`, so that the fused updates of a GPU and its CUDA graphs are what is checked.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.core.parameters import Parameters
from gpuprop.maths.optimizers import OPTIMIZERS, get_optimizer
from gpuprop.maths.scaling import InputScaling
from gpuprop.measure.equivalence import oracle, tolerances
from gpuprop.measure.equivalence.case import DTYPES, Case, Check
from gpuprop.measure.equivalence.cases.output import targets_for
from gpuprop.model.network import Network
from gpuprop.training.callbacks import Callback
from gpuprop.training.side_by_side import train_together
from gpuprop.training.trainer import Trainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.ops import Ops

__all__ = ["cases"]


@dataclass(frozen=True)
class Recipe:
    """A network, its data, and how it is trained.

    Attributes
    ----------
    sizes : tuple of int
    loss : str
    hidden : tuple of str
        Activation of each hidden layer.
    n_samples : int
    source : str
        "uint8" rows divided by 255, or "float" rows scaled by column.
    weighted : bool
    network, how : dict
        Further options of `Network` and of `Trainer`.
    """

    sizes: tuple[int, ...]
    loss: str = "categorical_cross_entropy"
    hidden: tuple[str, ...] = ("relu",)
    n_samples: int = 31
    source: str = "uint8"
    weighted: bool = False
    network: dict[str, Any] = field(default_factory=dict)
    how: dict[str, Any] = field(default_factory=dict)


OPTIONS: dict[str, Any] = {"batch_size": 12, "epochs": 1, "optimizer": "sgd", "learning_rate": 0.05}
"""Three updates, the last of them ragged."""

EVERYTHING = {"dropout": (0.1, 0.3), "l1": 1e-3, "l2": 1e-2}

UPDATES = {
    "uint8 rows": Recipe((13, 9, 3)),
    "float rows, sample weights": Recipe((13, 9, 3), "squared_error", ("tanh",), source="float", weighted=True),
    "two hidden layers": Recipe((13, 9, 7, 3), hidden=("tanh", "silu")),
    "19 classes": Recipe((13, 9, 19), hidden=("gelu",), weighted=True),
    "no hidden layer": Recipe((13, 1), "binary_cross_entropy", ()),
    "counts": Recipe((13, 9, 2), "poisson", ("softplus",), source="float", how={"learning_rate": 0.01}),
    "dropout and penalties": Recipe((13, 9, 7, 3), hidden=("tanh", "silu"), weighted=True, network=EVERYTHING),
    "clipping": Recipe((13, 9, 3), how={"clip_norm": 0.1}),
    "max-norm": Recipe((13, 9, 3), how={"max_norm": 0.7, "optimizer": "nesterov"}),
    "accumulation": Recipe((13, 9, 3), network={"dropout": 0.3}, how={"batch_size": 5, "accumulation_steps": 3}),
    "everything": Recipe(
        (13, 9, 7, 3), hidden=("elu", "gelu"), weighted=True, network=EVERYTHING,
        how={"clip_norm": 0.3, "max_norm": 0.9, "accumulation_steps": 2, "batch_size": 6, "optimizer": "adam"},
    ),
    "a last batch of one row": Recipe((13, 9, 3), n_samples=25),
    "fewer rows than a batch": Recipe((13, 9, 3), n_samples=5),
    "17x33x7": Recipe((17, 33, 7), n_samples=40, how={"batch_size": 33}),
}  # fmt: skip
QUICK = ("uint8 rows", "19 classes", "everything")

IN_A_BLOCK = {
    "uint8 rows": UPDATES["uint8 rows"],
    "float rows, sample weights": UPDATES["float rows, sample weights"],
    "no hidden layer": UPDATES["no hidden layer"],
    "19 classes": UPDATES["19 classes"],
    "two hidden layers, dropout and penalties": Recipe(
        (13, 9, 7, 3), hidden=("silu", "silu"), weighted=True, network=EVERYTHING | {"dropout": (0.1, 0.3, 0.2)},
        how={"optimizer": "adamw"},
    ),
}  # fmt: skip
"""Networks that a block of a GPU can train; other devices take their usual path."""

SHORT = Recipe(
    (20, 17, 10), n_samples=300, weighted=True,
    how={"batch_size": 32, "epochs": 6, "optimizer": "adam", "clip_norm": 1.0},
)  # fmt: skip
"""Clipping keeps it out of a block, so that a GPU replays graphs."""


def cases() -> Iterator[Case]:
    """Yield the cases: without training first."""
    for dtype in DTYPES:
        for n in (1, 7, 4100):
            yield Case("inference", f"{n} rows", dtype, partial(inference, n), n == 7)
        yield Case("inference", "loss and score, penalties and sample weights", dtype, evaluation)
        for name in ("two hidden layers", "dropout and penalties", "19 classes"):
            check = partial(gradients, UPDATES[name])
            yield Case("whole gradient", name, dtype, check, name == "dropout and penalties")
        for name, recipe in UPDATES.items():
            yield Case("whole updates", name, dtype, partial(training, recipe, "pass", path="fused"), name in QUICK)
        for name, recipe in IN_A_BLOCK.items():
            check = partial(training, recipe, "pass", path="block")
            yield Case("one block, one network", name, dtype, check, "dropout" in name)
        for optimizer in OPTIMIZERS:
            recipe = Recipe((13, 9, 3), how={"optimizer": optimizer, "learning_rate": 0.01})
            yield Case("whole updates", optimizer, dtype, partial(training, recipe, "pass", path="fused"))
        yield Case("training", "60 updates", dtype, partial(training, SHORT, "curve"))
        yield Case("training", "1,500 images of MNIST, 784-128-10", dtype, mnist)
        yield Case("replay", "many updates at once, or one by one", dtype, replay)
        check = partial(together, {"clip_norm": 1.0})
        yield Case("together", "three networks in the same launches, or each alone", dtype, check)
        yield Case("together", "three networks in a block each, or each alone", dtype, partial(together, {}))


# --- data and networks ---------------------------------------------------------------------------------------------


def data_of(recipe: Recipe, dtype: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, InputScaling]:
    """Return raw rows, targets, sample weights and scaling."""
    rng = np.random.default_rng(10)
    n, width = recipe.n_samples, recipe.sizes[0]
    targets = targets_for(recipe.loss, rng, n, recipe.sizes[-1])
    pattern = rng.integers(30, 200, (recipe.sizes[-1], width))
    rows = np.clip(targets @ pattern + 25 * rng.standard_normal((n, width)), 0, 255).astype(np.uint8)
    weight = rng.uniform(0.5, 2, n) if recipe.weighted else None
    if recipe.source == "uint8":
        return rows, targets, weight, InputScaling.divide(255)
    scaling = InputScaling(np.linspace(-1, 1, width), np.linspace(0.2, 0.4, width))
    return rng.standard_normal((n, width)).astype(dtype), targets, weight, scaling


def network_of(recipe: Recipe, ops: Ops, dtype: Any, scaling: InputScaling) -> Network:
    """Return the recipe's network on the device."""
    return Network(
        recipe.sizes, hidden_activation=recipe.hidden, loss=recipe.loss, dtype=dtype, seed=3, device=ops.device,
        input_scaling=scaling, **recipe.network,
    )  # fmt: skip


def oracle_pass(
    network: Network, flat: NDArray[Any], rows: Any, y: Any, weight: Any, dropout_step: int | None = None
) -> oracle.Pass:
    """Run the oracle on raw rows with these parameters."""
    sizes, scaling = network.layer_sizes, network.input_scaling
    parameters = Parameters(flat, sizes)
    x = rows.astype(np.float64)
    if scaling is not None:
        x = (x - scaling.shift) * scaling.scale
    masks = None
    if dropout_step is not None:
        masks = [
            oracle.dropout_mask(len(x), sizes[layer], 1 - rate, network.seed, layer, dropout_step) if rate else None
            for layer, rate in enumerate(network.dropout)
        ]
    return oracle.forward_backward(
        x, y, parameters.weights, parameters.biases, [f.name for f in network.layer_activations],
        network.loss_function.name, sample_weight=weight, l1=network.l1, l2=network.l2, masks=masks,
    )  # fmt: skip


def _flat(run: oracle.Pass) -> NDArray[Any]:
    return np.concatenate([part.ravel() for part in run.weight_grads + run.bias_grads])


# --- without training ----------------------------------------------------------------------------------------------


def inference(n: int, ops: Ops, dtype: np.dtype[Any]) -> Iterator[Check]:
    """The outputs for any number of rows."""
    recipe = Recipe((13, 9, 7, 3), hidden=("tanh", "silu"), n_samples=n)
    rows, y, _, scaling = data_of(recipe, dtype)
    network = network_of(recipe, ops, dtype, scaling)
    expected = oracle_pass(network, network.host_parameters().astype(np.float64), rows, y, None).activations[-1]
    bound = tolerances.elementwise_bound("pass", expected, dtype, scale=1.0)
    yield Check("outputs", network.forward(rows), expected, bound)


def evaluation(ops: Ops, dtype: np.dtype[Any]) -> Iterator[Check]:
    """What is reported: penalties and weights included."""
    recipe = UPDATES["dropout and penalties"]
    rows, y, weight, scaling = data_of(recipe, dtype)
    network = network_of(recipe, ops, dtype, scaling)
    run = oracle_pass(network, network.host_parameters().astype(np.float64), rows, y, weight)
    loss, accuracy = network.evaluate(rows, y.argmax(axis=1), weight)
    yield Check("loss", loss, run.loss, tolerances.elementwise_bound("pass", run.loss, dtype, scale=1.0))
    right = np.average(oracle.hits(run.activations[-1], y), weights=weight)
    yield Check("accuracy", accuracy, right, tolerances.elementwise_bound("pass", 1.0, dtype))


def gradients(recipe: Recipe, ops: Ops, dtype: np.dtype[Any]) -> Iterator[Check]:
    """The gradient of the reported loss, through dropout where the recipe has it."""
    rows, y, weight, scaling = data_of(recipe, dtype)
    network = network_of(recipe, ops, dtype, scaling)
    run = oracle_pass(network, network.host_parameters().astype(np.float64), rows, y, weight, dropout_step=2)
    loss, weight_grads, bias_grads = network.loss_and_gradients(rows, y, weight, dropout_step=2)
    yield Check("loss", loss, run.loss, tolerances.elementwise_bound("pass", run.loss, dtype, scale=1.0))
    actual = np.concatenate([part.ravel() for part in weight_grads + bias_grads])
    yield Check("gradient", actual, _flat(run), tolerances.elementwise_bound("pass", _flat(run), dtype, scale=1.0))


# --- training ------------------------------------------------------------------------------------------------------


def orders(epoch: int, n_samples: int) -> NDArray[Any]:
    """Return the order of the rows in an epoch."""
    return np.random.default_rng([epoch, 77]).permutation(n_samples)


def trained(recipe: Recipe, ops: Ops, dtype: Any, **how: Any) -> Trainer:
    """Train on the device."""
    rows, y, weight, scaling = data_of(recipe, dtype)
    network = network_of(recipe, ops, dtype, scaling)
    return Trainer(network, row_orders=orders, **(OPTIONS | recipe.how | how)).fit(rows, y, weight)


def expected_run(
    start: Network, rows: Any, y: Any, weight: Any, how: dict[str, Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Train with the oracle; return the loss of each epoch and the parameters at the end."""
    flat, n = start.host_parameters().astype(np.float64), len(rows)
    state = oracle.optimizer_state(how["optimizer"], flat.size)
    n_weights = Parameters(flat, start.layer_sizes).n_weights
    w = np.ones(n) if weight is None else np.asarray(weight)
    size, losses, step = how["batch_size"] * how.get("accumulation_steps", 1), [], 0
    for epoch in range(how["epochs"]):
        order, total = orders(epoch, n), 0.0
        for first in range(0, n, size):
            index = order[first : first + size]
            run = oracle_pass(start, flat, rows[index], y[index], w[index], dropout_step=step)
            total += run.loss * float(w[index].sum())
            step += 1
            flat = _updated(start, flat, _flat(run), state, step, n_weights, how)
        losses.append(total / float(w.sum()))
    return np.array(losses), flat


def _updated(
    network: Network, flat: Any, gradient: Any, state: Any, step: int, n_weights: int, how: dict[str, Any]
) -> NDArray[Any]:
    if how.get("clip_norm") is not None:
        gradient = oracle.clip_by_norm(gradient, how["clip_norm"])
    name, rate = how["optimizer"], how["learning_rate"]
    flat = oracle.optimize(name, flat, gradient, state, rate, step, n_weights, **vars(get_optimizer(name)))
    if how.get("max_norm") is not None:
        for weights in Parameters(flat, network.layer_sizes).weights:
            weights[...] = oracle.limit_incoming_norm(weights, how["max_norm"])
    return np.asarray(flat)


def path_on(ops: Ops, path: str) -> str:
    """Return the path of this name on a GPU, which would train these small networks in blocks; others choose."""
    return path if ops.backend == "cuda" else "auto"


def training(recipe: Recipe, kind: str, ops: Ops, dtype: np.dtype[Any], *, path: str = "auto") -> Iterator[Check]:
    """A training beside the oracle's: a "pass" of a few updates, or a loss "curve"."""
    rows, y, weight, scaling = data_of(recipe, dtype)
    start = network_of(recipe, ops, dtype, scaling)
    losses, flat = expected_run(start, rows, y, weight, OPTIONS | recipe.how)
    trainer = trained(recipe, ops, dtype, plan=path_on(ops, path))
    yield from _compare(trainer, losses, flat, kind, dtype)


def _compare(trainer: Trainer, losses: Any, flat: Any, kind: str, dtype: np.dtype[Any]) -> Iterator[Check]:
    curve = tolerances.CURVE[dtype]
    bound = curve * losses if kind == "curve" else tolerances.elementwise_bound("pass", losses, dtype, scale=1.0)
    yield Check("loss", trainer.history["train_loss"], losses, bound)
    size = np.maximum(np.abs(flat), 0.1)
    bound = curve * size if kind == "curve" else tolerances.elementwise_bound("pass", flat, dtype, scale=1.0)
    yield Check("parameters", trainer.network.host_parameters(), flat, bound)


@functools.cache
def _images() -> tuple[NDArray[Any], NDArray[Any]]:
    from gpuprop.datasets import load_mnist

    (X, labels), _ = load_mnist()
    return X[:1500].copy(), np.eye(10)[labels[:1500]]


def mnist(ops: Ops, dtype: np.dtype[Any]) -> Iterator[Check]:
    """An epoch of real images: the sizes of practice."""
    rows, y = _images()
    how = OPTIONS | {"batch_size": 128}
    recipe, scaling = Recipe((784, 128, 10)), InputScaling.divide(255)
    start, network = (network_of(recipe, ops, dtype, scaling) for _ in range(2))
    losses, flat = expected_run(start, rows, y, None, how)
    trainer = Trainer(network, row_orders=orders, **how).fit(rows, y)
    yield from _compare(trainer, losses, flat, "curve", dtype)


class _OneByOne(Callback):
    """Asks to be called after each update, so that each is made by itself."""

    def on_step_end(self, trainer: Trainer, epoch: int, step: int) -> None:
        """Nothing."""


def replay(ops: Ops, dtype: np.dtype[Any]) -> Iterator[Check]:
    """An epoch at once (on a GPU: a CUDA graph) gives the bits of updates made one by one; a refused graph fails."""
    recipe = Recipe((20, 17, 10), n_samples=90, weighted=True, network={"dropout": 0.2, "l2": 1e-3})
    how: dict[str, Any] = {"batch_size": 8, "epochs": 2, "optimizer": "adam", "clip_norm": 1.0}  # so, it is no block's
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "CUDA graphs are not used", RuntimeWarning)
        at_once = trained(recipe, ops, dtype, **how)
    one_by_one = trained(recipe, ops, dtype, callbacks=[_OneByOne()], **how)
    assert math.isfinite(at_once.history["train_loss"][-1])
    yield Check("losses", at_once.history["train_loss"], one_by_one.history["train_loss"])
    yield Check("parameters", at_once.network.host_parameters(), one_by_one.network.host_parameters())


def together(common: dict[str, Any], ops: Ops, dtype: np.dtype[Any]) -> Iterator[Check]:
    """Networks of their own rows, rates, penalties and dropout get the bits of their lone fits from common launches.

    A GPU trains such networks in a block each, unless `common` has an option that only launches of layers serve.
    """
    recipes = [
        Recipe(
            (20, 17, 10), n_samples=90 - 13 * i, weighted=True, network={"dropout": 0.2 + 0.1 * i, "l2": 1e-3 * (1 + i)}
        )
        for i in range(3)
    ]
    how: list[dict[str, Any]] = [
        OPTIONS | {"batch_size": 8, "epochs": 2, "learning_rate": 0.01 * (1 + i)} | common for i in range(3)
    ]
    lone = [trained(recipe, ops, dtype, **options) for recipe, options in zip(recipes, how, strict=True)]
    trainings, trainers = [], []
    for recipe, options in zip(recipes, how, strict=True):
        rows, y, weight, scaling = data_of(recipe, dtype)
        trainers.append(Trainer(network_of(recipe, ops, dtype, scaling), row_orders=orders, **options))
        trainings.append(trainers[-1].training(rows, y, weight))
    for error in train_together(trainings):
        if error is not None:
            raise error
    for number, (one, other) in enumerate(zip(trainers, lone, strict=True)):
        expected = other.network.host_parameters()
        yield Check(f"losses of network {number}", one.history["train_loss"], other.history["train_loss"])
        yield Check(f"parameters of network {number}", one.network.host_parameters(), expected)
