"""The contenders of `gpuprop.bench.peers`: the same training by gpuprop, scikit-learn, PyTorch, JAX and plain NumPy.

Every contender begins with the same weights and takes the same batches in the same order, in float32.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONFIGS", "CONTENDERS", "NEEDS", "Config", "Contender", "cross_entropy", "load"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Config:
    """A network, how it is trained, and on how many samples."""

    sizes: tuple[int, ...]
    activation: str
    optimizer: str
    learning_rate: float
    batch_size: int
    n_samples: int

    @property
    def steps(self) -> int:
        """Updates of an epoch."""
        return math.ceil(self.n_samples / self.batch_size)


# a to d: MNIST; e1 and e32: scikit-learn's digits, with batches of 1 and of 32. Sample numbers are whole batches in a
# to d, and short enough that an epoch of the slowest contender takes seconds.
CONFIGS = {
    "a": Config((784, 128, 10), "relu", "adam", 1e-3, 128, 15360),
    "b": Config((784, 256, 128, 10), "relu", "momentum", 0.05, 64, 15360),
    "c": Config((784, 512, 512, 10), "relu", "adam", 1e-3, 256, 15360),
    "d": Config((784, 1024, 1024, 1024, 10), "relu", "adam", 1e-3, 1024, 10240),
    "e1": Config((64, 32, 16, 10), "logistic", "sgd", 0.1, 1, 1792),
    "e32": Config((64, 32, 16, 10), "logistic", "sgd", 0.1, 32, 1792),
}
NEEDS = {"sklearn": "sklearn", "torch": "torch", "torch-fused": "torch", "jax": "optax"}
MOMENTUM = 0.9


def load(config: Config) -> tuple[Array, Array]:
    """Return float32 inputs between 0 and 1 and class indices."""
    if config.sizes[0] == 64:
        from sklearn.datasets import load_digits

        X, y = load_digits(return_X_y=True)
        X = X / 16
    else:
        import gpuprop

        (X, y), _ = gpuprop.datasets.load_mnist()
        X = X[: config.n_samples] / 255
    return np.ascontiguousarray(X[: config.n_samples], np.float32), y[: config.n_samples].astype(np.int64)


def initial(config: Config) -> list[tuple[Array, Array]]:
    """Return weights and biases of each layer, the same for every contender."""
    rng = np.random.default_rng(0)
    layers = []
    for fan_in, fan_out in zip(config.sizes, config.sizes[1:], strict=False):
        bound = math.sqrt(6 / (fan_in + fan_out))
        weights = rng.uniform(-bound, bound, (fan_in, fan_out)).astype(np.float32)
        layers.append((weights, np.zeros(fan_out, np.float32)))
    return layers


def cross_entropy(config: Config, layers: list[tuple[Array, Array]], X: Array, y: Array) -> float:
    """Return the loss of these parameters, in float64: one judge for all contenders."""
    a = X.astype(np.float64)
    for index, (weights, biases) in enumerate(layers):
        a = a @ np.asarray(weights, np.float64) + np.asarray(biases, np.float64)
        if index < len(layers) - 1:
            a = np.maximum(a, 0) if config.activation == "relu" else 1 / (1 + np.exp(-a))
    a -= a.max(axis=1, keepdims=True)
    return float((np.log(np.exp(a).sum(axis=1)) - a[np.arange(len(y)), y]).mean())


# --- contenders: each trains epochs and shows its parameters ---------------------------------------------------------


class Contender:
    """Trains; subclasses say how."""

    def __init__(self, config: Config, X: Array, y: Array) -> None:
        self.config, self.X, self.y = config, X, y

    def epochs(self, count: int) -> float:
        """Train so many epochs and return the seconds that one took."""
        begin = time.perf_counter()
        for _ in range(count):
            self.epoch()
        return (time.perf_counter() - begin) / count

    def epoch(self) -> None:
        """Train one epoch."""
        raise NotImplementedError

    def layers(self) -> list[tuple[Array, Array]]:
        """Return weights and biases of each layer as they are."""
        raise NotImplementedError


class Gpuprop(Contender):
    """A `Trainer` as users run it, history and all; rows are gathered by an order, which is that of the data."""

    device = "cpu"

    def __init__(self, config: Config, X: Array, y: Array) -> None:
        import gpuprop

        super().__init__(config, X, y)
        self.net = gpuprop.Network(
            config.sizes,
            hidden_activation=config.activation,
            loss="categorical_cross_entropy",
            device=self.device,
            seed=0,
        )
        for (weights, biases), own_weights, own_biases in zip(
            initial(config), self.net.weights, self.net.biases, strict=True
        ):
            own_weights[...], own_biases[...] = weights, biases

    def epochs(self, count: int) -> float:
        import gpuprop

        trainer = gpuprop.Trainer(
            self.net,
            optimizer=self.config.optimizer,
            learning_rate=self.config.learning_rate,
            batch_size=self.config.batch_size,
            epochs=count,
            shuffle=False,
        )
        trainer.fit(self.X, self.y)
        return float(sum(trainer.history["seconds"]) / count)

    def layers(self) -> list[tuple[Array, Array]]:
        return list(zip(self.net.weights, self.net.biases, strict=True))


class GpupropPlanned(Gpuprop):
    """Epochs in one compiled call, however short the timed run."""

    def __init__(self, config: Config, X: Array, y: Array) -> None:
        from gpuprop.backends import cpu_fused

        cpu_fused.LEAST_SAVING = 0.0
        super().__init__(config, X, y)


class GpupropDense(GpupropPlanned):
    """The same without skipping what is zero in the inputs."""

    def __init__(self, config: Config, X: Array, y: Array) -> None:
        from gpuprop.backends import cpu_fused

        cpu_fused.MOST_KEPT = 0.0
        super().__init__(config, X, y)


class GpupropSteps(Gpuprop):
    """Every step by the primitives."""

    def __init__(self, config: Config, X: Array, y: Array) -> None:
        from gpuprop.backends import cpu_fused

        cpu_fused.LEAST_SAVING = math.inf
        super().__init__(config, X, y)


class GpupropNumpy(Gpuprop):
    """Plain NumPy, the package's reference."""

    device = "numpy"


class Numpy(Contender):
    """What one writes in an afternoon: new arrays at every operation."""

    def __init__(self, config: Config, X: Array, y: Array) -> None:
        super().__init__(config, X, y)
        self.parameters = [array for layer in initial(config) for array in layer]
        self.first = [np.zeros_like(array) for array in self.parameters]
        self.second = [np.zeros_like(array) for array in self.parameters]
        self.targets = np.eye(config.sizes[-1], dtype=np.float32)[y]
        self.step = 0

    def epoch(self) -> None:
        c = self.config
        n_layers = len(c.sizes) - 1
        relu = c.activation == "relu"
        for start in range(0, len(self.X), c.batch_size):
            a = [self.X[start : start + c.batch_size]]
            for layer in range(n_layers):
                z = a[-1] @ self.parameters[2 * layer] + self.parameters[2 * layer + 1]
                if layer < n_layers - 1:
                    a.append(np.maximum(z, 0) if relu else 1 / (1 + np.exp(-z)))
                else:
                    e = np.exp(z - z.max(axis=1, keepdims=True))
                    a.append(e / e.sum(axis=1, keepdims=True))
            delta = (a[-1] - self.targets[start : start + c.batch_size]) / np.float32(len(a[0]))
            gradients: list[Any] = [None] * (2 * n_layers)
            for layer in range(n_layers - 1, -1, -1):
                gradients[2 * layer], gradients[2 * layer + 1] = a[layer].T @ delta, delta.sum(axis=0)
                if layer:
                    delta = delta @ self.parameters[2 * layer].T
                    delta = delta * (a[layer] > 0) if relu else delta * a[layer] * (1 - a[layer])
            self.update(gradients)

    def update(self, gradients: list[Array]) -> None:
        c = self.config
        self.step += 1
        rate, one = np.float32(c.learning_rate), np.float32(1)
        for i, g in enumerate(gradients):
            if c.optimizer == "adam":
                b1, b2 = np.float32(0.9), np.float32(0.999)
                corrected = np.float32(c.learning_rate * math.sqrt(1 - 0.999**self.step) / (1 - 0.9**self.step))
                self.first[i] = b1 * self.first[i] + (one - b1) * g
                self.second[i] = b2 * self.second[i] + (one - b2) * g**2
                self.parameters[i] = self.parameters[i] - corrected * self.first[i] / (
                    np.sqrt(self.second[i]) + np.float32(1e-8)
                )
            elif c.optimizer == "momentum":
                self.first[i] = np.float32(MOMENTUM) * self.first[i] - rate * g
                self.parameters[i] = self.parameters[i] + self.first[i]
            else:
                self.parameters[i] = self.parameters[i] - rate * g

    def layers(self) -> list[tuple[Array, Array]]:
        return list(zip(self.parameters[::2], self.parameters[1::2], strict=True))


class Sklearn(Contender):
    """``MLPClassifier.partial_fit``, which is one epoch, without its L2 penalty."""

    def __init__(self, config: Config, X: Array, y: Array) -> None:
        from sklearn.neural_network import MLPClassifier

        super().__init__(config, X, y)
        self.model = MLPClassifier(
            config.sizes[1:-1],
            activation=config.activation,
            solver="adam" if config.optimizer == "adam" else "sgd",
            alpha=0.0,
            batch_size=config.batch_size,
            learning_rate_init=config.learning_rate,
            momentum=MOMENTUM if config.optimizer == "momentum" else 0.0,
            nesterovs_momentum=False,
            shuffle=False,
            random_state=0,
        )
        # A first epoch makes the arrays; then the weights are put in and the optimizer is made anew.
        self.model.partial_fit(X, y, classes=np.arange(config.sizes[-1]))
        for own, (weights, _) in zip(self.model.coefs_, initial(config), strict=True):
            own[...] = weights
        for own in self.model.intercepts_:
            own[...] = 0
        optimizer = self.model._optimizer
        for name in ("ms", "vs", "velocities"):
            for state in getattr(optimizer, name, []):
                state[...] = 0
        if hasattr(optimizer, "t"):
            optimizer.t = 0

    def epoch(self) -> None:
        self.model.partial_fit(self.X, self.y)

    def layers(self) -> list[tuple[Array, Array]]:
        return list(zip(self.model.coefs_, self.model.intercepts_, strict=True))


class Torch(Contender):
    """Eager PyTorch on slices of one tensor."""

    fused = False

    def __init__(self, config: Config, X: Array, y: Array) -> None:
        import torch

        super().__init__(config, X, y)
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        modules: list[Any] = []
        for weights, biases in initial(config):
            linear = torch.nn.Linear(*weights.shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(weights.T.copy()))
                linear.bias.copy_(torch.from_numpy(biases))
            modules += [linear, torch.nn.ReLU() if config.activation == "relu" else torch.nn.Sigmoid()]
        self.linear = modules[::2]
        self.model = torch.nn.Sequential(*modules[:-1])
        self.inputs, self.targets = torch.from_numpy(X), torch.from_numpy(y)
        self.loss = torch.nn.CrossEntropyLoss()
        parameters = self.model.parameters()
        if config.optimizer == "adam":
            self.optimizer: Any = torch.optim.Adam(parameters, config.learning_rate, fused=self.fused or None)
        else:
            momentum = MOMENTUM if config.optimizer == "momentum" else 0.0
            self.optimizer = torch.optim.SGD(parameters, config.learning_rate, momentum, fused=self.fused or None)

    def epoch(self) -> None:
        size = self.config.batch_size
        for start in range(0, len(self.X), size):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(self.model(self.inputs[start : start + size]), self.targets[start : start + size])
            loss.backward()
            self.optimizer.step()

    def layers(self) -> list[tuple[Array, Array]]:
        return [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in self.linear]


class TorchFused(Torch):
    """The same with the optimizer's fused implementation."""

    fused = True


class Jax(Contender):
    """JAX with a whole epoch in one compiled ``lax.scan`` over batches that lie ready."""

    def __init__(self, config: Config, X: Array, y: Array) -> None:
        import jax
        import jax.numpy as jnp
        import optax

        super().__init__(config, X, y)
        self.jax = jax
        momentum = MOMENTUM if config.optimizer == "momentum" else None
        adam = config.optimizer == "adam"
        optimizer = optax.adam(config.learning_rate) if adam else optax.sgd(config.learning_rate, momentum)
        activation = jax.nn.relu if config.activation == "relu" else jax.nn.sigmoid

        def loss(parameters: Any, x: Any, targets: Any) -> Any:
            for index, (weights, biases) in enumerate(parameters):
                x = x @ weights + biases
                if index < len(parameters) - 1:
                    x = activation(x)
            return optax.softmax_cross_entropy_with_integer_labels(x, targets).mean()

        def step(carry: Any, batch: Any) -> Any:
            parameters, state = carry
            updates, state = optimizer.update(jax.grad(loss)(parameters, *batch), state, parameters)
            return (optax.apply_updates(parameters, updates), state), None

        self.scan = jax.jit(lambda carry, batches: jax.lax.scan(step, carry, batches)[0], donate_argnums=0)
        parameters = [(jnp.array(weights), jnp.array(biases)) for weights, biases in initial(config)]
        self.carry = (parameters, optimizer.init(parameters))
        shape = (config.steps, config.batch_size)
        self.batches = (jnp.array(X.reshape(*shape, -1)), jnp.array(y.reshape(shape).astype(np.int32)))

    def epoch(self) -> None:
        self.carry = self.scan(self.carry, self.batches)
        self.jax.block_until_ready(self.carry)

    def layers(self) -> list[tuple[Array, Array]]:
        return [(np.asarray(weights), np.asarray(biases)) for weights, biases in self.carry[0]]


class Floor(Contender):
    """No training: the dense multiplications of one, at the speed of gpuprop's register tile on data in the cache."""

    N_ROWS, N = 1024, 128

    def __init__(self, config: Config, X: Array, y: Array) -> None:
        from gpuprop.backends.cpu_tiles import multiplication, tile_shape

        super().__init__(config, X, y)
        self.shape = tile_shape(np.dtype(np.float32))
        self.multiply = multiplication(self.shape, False)
        width = self.shape.width
        self.a, self.b, self.out = (
            np.zeros(n, np.float32) for n in (self.N_ROWS * self.N, self.N * width, self.N_ROWS * width)
        )
        pairs = [m * n for m, n in zip(config.sizes, config.sizes[1:], strict=False)]
        products = config.n_samples * (3 * sum(pairs) - pairs[0])  # the first layer has no delta to pass on
        self.calls = max(1, round(products / (self.N_ROWS * self.N * width)))

    def epoch(self) -> None:
        n, width, none = self.N, self.shape.width, np.zeros(1, np.int64)
        lists = np.zeros((1, 1), np.int32)
        for _ in range(self.calls):
            self.multiply(self.a, 0, n, 1, self.N_ROWS, self.b, 0, width, False, lists, none, 0, n, self.out, 0, width)

    def layers(self) -> list[tuple[Array, Array]]:
        return []


CONTENDERS: dict[str, type[Contender]] = {
    "gpuprop": GpupropPlanned,
    "gpuprop-dense": GpupropDense,
    "gpuprop-steps": GpupropSteps,
    "gpuprop-numpy": GpupropNumpy,
    "numpy": Numpy,
    "sklearn": Sklearn,
    "torch": Torch,
    "torch-fused": TorchFused,
    "jax": Jax,
    "floor": Floor,
}
