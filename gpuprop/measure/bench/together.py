"""Many networks of one shape: gpuprop together and in turn, `torch.func.vmap` and ``jax.vmap``.

Every network has initial weights and row orders of its own, as members of an ensemble or seeds of a search have. All
contenders begin with the same weights, take the same batches, and must end every network at the same loss before
they are timed. What is timed is a whole training of all networks: gpuprop keeps histories and watches for divergence.
PyTorch and JAX stack the parameters of all networks in arrays with a leading axis; `vmap` makes the gradient of one
network that of all, and one optimizer updates the stacked arrays. JAX compiles before it is timed.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.errors import GpupropError
from gpuprop.measure.bench.peers.configs import Array, Config, Layers, cross_entropy, initial, load
from gpuprop.model.network import Network
from gpuprop.training.side_by_side import train_together
from gpuprop.training.trainer import Trainer

if TYPE_CHECKING:
    from gpuprop.measure.bench.documents import Table

__all__ = ["CASES", "CONTENDERS", "entries", "installed", "table"]

CASES = {
    "mnist": Config((784, 64, 10), "relu", "adam", 1e-3, 32, 3200, 0.02),
    "small": Config((8, 16, 4), "relu", "adam", 1e-2, 32, 160, 0.02),
}
"""The networks and their trainings, by the name of their data; losses may differ as Adam's epsilon has two places."""

#: Trains the networks for some epochs and returns their parameters.
Train = Callable[[], list[Layers]]


def data_of(name: str) -> tuple[Array, Array]:
    """Return the inputs, float32, and the classes of a case."""
    config = CASES[name]
    if name == "mnist":
        return load(config)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((config.n_samples, config.sizes[0])).astype(np.float32)
    return X, (X @ rng.standard_normal((config.sizes[0], config.sizes[-1]))).argmax(axis=1)


def orders_of(config: Config, n_networks: int, epochs: int) -> Array:
    """Return the row orders, (n_networks, epochs, n_samples)."""
    rng = np.random.default_rng(1)
    orders = [rng.permutation(config.n_samples) for _ in range(n_networks * epochs)]
    return np.reshape(orders, (n_networks, epochs, config.n_samples)).astype(np.int32)


# --- contenders ------------------------------------------------------------------------------------------------------


def _trainers(config: Config, orders: Array, device: str) -> list[Trainer]:
    trainers = []
    for seed, own in enumerate(orders):
        network = Network(config.sizes, loss="categorical_cross_entropy", device=device, seed=seed)
        for layer, (weights, biases) in enumerate(initial(config, seed)):
            network.weights[layer][...], network.biases[layer][...] = (
                network.ops.asarray(one, np.float32) for one in (weights, biases)
            )
        trainer = Trainer(
            network,
            optimizer=config.optimizer,
            learning_rate=config.learning_rate,
            batch_size=config.batch_size,
            epochs=len(own),
        )
        trainer.row_orders = partial(_order, own)
        trainers.append(trainer)
    return trainers


def _order(orders: Array, epoch: int, n_samples: int) -> Array:
    order: Array = orders[epoch]
    return order


def _layers(trainer: Trainer) -> Layers:
    parameters = trainer.network.copy(device="numpy")
    return list(zip(parameters.weights, parameters.biases, strict=True))


def together(config: Config, X: Array, y: Array, orders: Array, device: str) -> Train:
    """gpuprop, all networks side by side."""

    def train() -> list[Layers]:
        trainers = _trainers(config, orders, device)
        for error in train_together([trainer.training(X, y) for trainer in trainers]):
            if error is not None:
                raise error
        return [_layers(trainer) for trainer in trainers]

    return train


def in_turn(config: Config, X: Array, y: Array, orders: Array, device: str) -> Train:
    """gpuprop, one network after the other."""
    return lambda: [_layers(trainer.fit(X, y)) for trainer in _trainers(config, orders, device)]


def torch_vmap(config: Config, X: Array, y: Array, orders: Array, device: str) -> Train:
    """`torch.func.vmap` of the gradient, and the fused Adam on stacked parameters."""
    import torch

    rows, classes = torch.from_numpy(X).to(device), torch.from_numpy(y.astype(np.int64)).to(device)
    batches = torch.from_numpy(_batches(config, orders)).to(device)

    def loss(parameters: Sequence[Any], x: Any, targets: Any) -> Any:
        for weights, biases in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
            x = torch.relu(x @ weights + biases)
        return torch.nn.functional.cross_entropy(x @ parameters[-2] + parameters[-1], targets)

    gradients = torch.func.vmap(torch.func.grad(loss))

    def train() -> list[Layers]:
        stacked = [torch.from_numpy(one).to(device) for one in _stacked(config, len(orders))]
        optimizer = torch.optim.Adam(stacked, config.learning_rate, fused=True)
        for batch in batches:
            for parameter, gradient in zip(stacked, gradients(stacked, rows[batch], classes[batch]), strict=True):
                parameter.grad = gradient
            optimizer.step()
        return _unstacked([one.cpu().numpy() for one in stacked])

    return train


def jax_vmap(config: Config, X: Array, y: Array, orders: Array, device: str) -> Train:
    """``jax.vmap`` of a training that is one compiled ``lax.scan`` over its batches; on JAX's own device."""
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.adam(config.learning_rate)
    rows, classes = jnp.array(X), jnp.array(y.astype(np.int32))

    def loss(parameters: Sequence[Any], x: Any, targets: Any) -> Any:
        for weights, biases in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
            x = jax.nn.relu(x @ weights + biases)
        scores = x @ parameters[-2] + parameters[-1]
        return optax.softmax_cross_entropy_with_integer_labels(scores, targets).mean()

    def training(parameters: Sequence[Any], batches: Any) -> Any:
        def step(carry: Any, batch: Any) -> Any:
            now, state = carry
            updates, state = optimizer.update(jax.grad(loss)(now, rows[batch], classes[batch]), state, now)
            return (optax.apply_updates(now, updates), state), None

        return jax.lax.scan(step, (parameters, optimizer.init(parameters)), batches)[0][0]

    compiled = jax.jit(jax.vmap(training))
    batches = jnp.array(_batches(config, orders).swapaxes(0, 1))

    def train() -> list[Layers]:
        stacked = [jnp.array(one) for one in _stacked(config, len(orders))]
        return _unstacked([np.asarray(one) for one in compiled(stacked, batches)])

    return train


CONTENDERS = {"together": together, "in turn": in_turn, "torch.func.vmap": torch_vmap, "jax.vmap": jax_vmap}
"""The contenders by their names."""

#: The modules that a contender needs beside gpuprop.
_NEEDS = {"torch.func.vmap": ("torch",), "jax.vmap": ("jax", "optax")}


def installed() -> list[str]:
    """Return the names of the contenders whose libraries are installed."""
    return [name for name in CONTENDERS if all(map(importlib.util.find_spec, _NEEDS.get(name, ())))]


def _batches(config: Config, orders: Array) -> Array:
    """Return the rows of each update, (updates, n_networks, batch_size)."""
    return orders.reshape(len(orders), -1, config.batch_size).swapaxes(0, 1).astype(np.int64)


def _stacked(config: Config, n_networks: int) -> list[Array]:
    """Return weights and biases of each layer in turn, with a leading axis for the networks."""
    networks = [initial(config, seed) for seed in range(n_networks)]
    return [
        np.stack([network[layer][kind] for network in networks]) for layer in range(len(networks[0])) for kind in (0, 1)
    ]


def _unstacked(stacked: Sequence[Array]) -> list[Layers]:
    pairs = list(zip(stacked[::2], stacked[1::2], strict=True))
    return [[(weights[i], biases[i]) for weights, biases in pairs] for i in range(len(stacked[0]))]


# --- the comparison --------------------------------------------------------------------------------------------------


def entries(
    name: str, counts: Sequence[int], device: str, *, epochs: int, rounds: int, contenders: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield a result for each number of networks and each contender.

    Parameters
    ----------
    name : str
        Of `CASES`.
    counts : sequence of int
        Numbers of networks.
    device : str
        Of gpuprop, and of PyTorch.
    epochs, rounds : int
        Of each training, and trainings of each contender.
    contenders : sequence of str
        Of `CONTENDERS`.

    Raises
    ------
    GpupropError
        If a contender ends a network at another loss than gpuprop's lone fit.
    """
    config, (X, y) = CASES[name], data_of(name)
    n_updates = epochs * config.n_samples // config.batch_size
    for count in counts:
        orders = orders_of(config, count, epochs)
        trains = {one: CONTENDERS[one](config, X, y, orders, device) for one in contenders}
        expected = _losses(config, X, y, in_turn(config, X, y, orders, device)())
        for one, train in trains.items():
            found = _losses(config, X, y, train())
            if not np.allclose(found, expected, rtol=config.tolerance):
                raise GpupropError(f"{one}: {count} networks of {config} end at {found}, expected {expected}")
        seconds: dict[str, list[float]] = {one: [] for one in trains}
        for _ in range(rounds):
            for one, train in trains.items():
                begin = time.perf_counter()
                train()
                seconds[one].append(time.perf_counter() - begin)
        for one, took in seconds.items():
            samples = [1e6 * second / n_updates for second in took]
            yield {
                "config": name,
                "network": str(config),
                "n_networks": count,
                "contender": one,
                "epochs": epochs,
                "microseconds": {"median": statistics.median(samples), "samples": samples},
            }


def _losses(config: Config, X: Array, y: Array, networks: Sequence[Layers]) -> list[float]:
    return [cross_entropy(config, layers, X, y) for layers in networks]


def table(results: Sequence[dict[str, Any]]) -> Table:
    """Return the table of results: the time of an update of all networks, also in times of that of gpuprop together."""
    headers = ("config", "networks", "contender", "us an update of all", "us a network", "times together")
    ours = {
        (one["config"], one["n_networks"]): one["microseconds"]["median"]
        for one in results
        if one["contender"] == "together"
    }
    rows = []
    for one in results:
        took, count = one["microseconds"]["median"], one["n_networks"]
        ratio = took / ours.get((one["config"], count), took)
        rows.append(
            [one["config"], str(count), one["contender"], f"{took:,.1f}", f"{took / count:,.2f}", f"{ratio:.2f}"]
        )
    return headers, rows, (1, 3, 4, 5)
