"""The contenders: gpuprop in its tiers, a plain NumPy script, and the floor; `libraries` has the others.

Every contender begins with the same weights and, while it is timed, takes the same batches in the same order, in
float32.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.measure.bench.peers.configs import Array, Config, Layers, initial, probabilities

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprop.training.trainer import Trainer

__all__ = ["MOMENTUM", "Contender", "classifier"]

MOMENTUM = 0.9


def classifier(module: Any, config: Config, **options: Any) -> Any:
    """Return the ``MLPClassifier`` of scikit-learn's or gpuprop's module that trains a config."""
    return module.MLPClassifier(
        config.sizes[1:-1],
        activation=config.activation,
        solver="adam" if config.optimizer == "adam" else "sgd",
        alpha=0.0,
        batch_size=config.batch_size,
        learning_rate_init=config.learning_rate,
        momentum=MOMENTUM if config.optimizer == "momentum" else 0.0,
        nesterovs_momentum=False,
        random_state=0,
        **options,
    )


Judge = Callable[[float], bool]
"""A function of the seconds of an epoch, called after each, that returns whether the network is good enough."""


class Contender:
    """A contender trains one network; subclasses say how.

    Parameters
    ----------
    config : Config
    X : ndarray of shape (n_samples, n_features), float32
    y : ndarray of shape (n_samples,), int64
        Class indices.
    """

    def __init__(self, config: Config, X: Array, y: Array) -> None:
        self.config, self.X, self.y = config, X, y
        self.begin(0)

    def begin(self, seed: int) -> None:
        """Start anew, with the initial weights of this seed and a fresh optimizer."""

    def epoch(self, order: Array | None = None) -> None:
        """Train one epoch on the rows in this order, or in the order of the data set."""
        raise NotImplementedError

    def layers(self) -> Layers:
        """Return the current parameters."""
        raise NotImplementedError

    def predictor(self, dtype: str = "float32", scale: float | None = None) -> Callable[[Array], Array]:
        """Return the function from rows to probabilities that a user of this library would call.

        Parameters
        ----------
        dtype : {"float32", "float64"}, default="float32"
            In which the network computes; only gpuprop and the script know another than float32.
        scale : float or None, default=None
            What the network multiplies its inputs by first.
        """
        raise NotImplementedError

    def epochs(self, count: int) -> float:
        """Train so many epochs, the rows in the order of the data set, and return the seconds that one took."""
        begin = time.perf_counter()
        for _ in range(count):
            self.epoch()
        return (time.perf_counter() - begin) / count

    def learn(self, seed: int, most_epochs: int, judge: Judge) -> None:
        """Start anew and train, every epoch in a new order, until the judge says that the network is good enough."""
        self.begin(seed)
        rng = np.random.default_rng(seed)
        for _ in range(most_epochs):
            begin = time.perf_counter()
            self.epoch(rng.permutation(len(self.X)))
            if judge(time.perf_counter() - begin):
                return

    def batches(self, order: Array | None) -> Iterator[slice | Array]:
        """Yield the rows of each batch, in a form that indexes an array."""
        size = self.config.batch_size
        for start in range(0, len(self.X), size):
            rows = slice(start, start + size)
            yield rows if order is None else order[rows]


class Gpuprop(Contender):
    """A `Trainer` as users run it, with its history; images of bytes stay bytes."""

    device = "cpu"
    plan = "auto"

    def begin(self, seed: int) -> None:
        from gpuprop.maths.scaling import InputScaling
        from gpuprop.model.network import Network

        self.net = Network(
            self.config.sizes,
            hidden_activation=self.config.activation,
            loss="categorical_cross_entropy",
            input_scaling=InputScaling.divide(255) if self.X.dtype == np.uint8 else None,
            device=self.device,
            seed=seed,
        )
        for layer, (weights, biases) in enumerate(initial(self.config, seed)):
            self.net.weights[layer][...], self.net.biases[layer][...] = weights, biases

    def _trainer(self, epochs: int, **options: Any) -> Trainer:
        from gpuprop.training.trainer import Trainer

        config = self.config
        return Trainer(
            self.net,
            optimizer=config.optimizer,
            learning_rate=config.learning_rate,
            batch_size=config.batch_size,
            epochs=epochs,
            plan=self.plan,
            **options,
        )

    def epochs(self, count: int) -> float:
        trainer = self._trainer(count, shuffle=False).fit(self.X, self.y)
        return float(sum(trainer.history["seconds"]) / count)

    def learn(self, seed: int, most_epochs: int, judge: Judge) -> None:
        from gpuprop.training.callbacks import Callback

        class Stop(Callback):
            def on_epoch_end(self, trainer: Trainer, epoch: int, record: Mapping[str, float | None]) -> None:
                if judge(record["seconds"] or 0.0):
                    trainer.stop_training()

        self.begin(seed)
        self._trainer(most_epochs, callbacks=[Stop()], seed=seed).fit(self.X, self.y)

    def layers(self) -> Layers:
        return list(zip(self.net.weights, self.net.biases, strict=True))

    def predictor(self, dtype: str = "float32", scale: float | None = None) -> Callable[[Array], Array]:
        from gpuprop.maths.scaling import InputScaling

        net = self.net.copy(dtype=dtype)
        net.input_scaling = None if scale is None else InputScaling(0.0, scale)
        return net.forward


class GpupropFused(Gpuprop):
    """Epochs in one compiled call, even if the timed run is short."""

    plan = "fused"


class GpupropDense(Gpuprop):
    """The same without skipping what is zero in the inputs."""

    plan = "dense"


class GpupropSteps(Gpuprop):
    """Every step by calls of the primitives."""

    plan = "steps"


class GpupropNumpy(Gpuprop):
    """Plain NumPy, the package's reference."""

    device = "numpy"


class GpupropEstimator(Contender):
    """gpuprop's `MLPClassifier`, asked for probabilities; it trains as `Gpuprop` does."""

    def begin(self, seed: int) -> None:
        from gpuprop.estimators import MLPClassifier

        self.model = MLPClassifier(self.config.sizes[1:-1], random_state=seed, max_iter=1)
        self.model.partial_fit(self.X[:256], self.y[:256], classes=np.arange(self.config.sizes[-1]))

    def layers(self) -> Layers:
        return list(zip(self.model.coefs_, self.model.intercepts_, strict=True))

    def predictor(self, dtype: str = "float32", scale: float | None = None) -> Callable[[Array], Array]:
        self.model.network_ = self.model.network_.copy(dtype=dtype)
        return self.model.predict_proba


class Numpy(Contender):
    """A straightforward script: every operation makes new arrays."""

    def begin(self, seed: int) -> None:
        self.parameters = [array for layer in initial(self.config, seed) for array in layer]
        self.first = [np.zeros_like(array) for array in self.parameters]
        self.second = [np.zeros_like(array) for array in self.parameters]
        self.targets = np.eye(self.config.sizes[-1], dtype=np.float32)[self.y]
        self.step = 0

    def epoch(self, order: Array | None = None) -> None:
        n_layers = len(self.config.sizes) - 1
        relu = self.config.activation == "relu"
        for rows in self.batches(order):
            a = [self.X[rows]]
            for layer in range(n_layers):
                z = a[-1] @ self.parameters[2 * layer] + self.parameters[2 * layer + 1]
                if layer < n_layers - 1:
                    a.append(np.maximum(z, 0) if relu else 1 / (1 + np.exp(-z)))
                else:
                    e = np.exp(z - z.max(axis=1, keepdims=True))
                    a.append(e / e.sum(axis=1, keepdims=True))
            delta = (a[-1] - self.targets[rows]) / np.float32(len(a[0]))
            gradients: list[Any] = [None] * (2 * n_layers)
            for layer in range(n_layers - 1, -1, -1):
                gradients[2 * layer], gradients[2 * layer + 1] = a[layer].T @ delta, delta.sum(axis=0)
                if layer:
                    delta = delta @ self.parameters[2 * layer].T
                    delta = delta * (a[layer] > 0) if relu else delta * a[layer] * (1 - a[layer])
            self.update(gradients)

    def update(self, gradients: list[Array]) -> None:
        """Apply the optimizer to every parameter."""
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

    def layers(self) -> Layers:
        return list(zip(self.parameters[::2], self.parameters[1::2], strict=True))

    def predictor(self, dtype: str = "float32", scale: float | None = None) -> Callable[[Array], Array]:
        layers = [(weights.astype(dtype), biases.astype(dtype)) for weights, biases in self.layers()]
        factor = None if scale is None else np.dtype(dtype).type(scale)

        def predict(X: Array) -> Array:
            return probabilities(self.config, layers, X if factor is None else X * factor, dtype)

        return predict


class Floor(Contender):
    """No training, only its dense multiplications, at the speed of gpuprop's register tile on data in the cache."""

    N_ROWS, N = 1024, 128

    def begin(self, seed: int) -> None:
        from gpuprop.backends.cpu.tiles import multiplication, tile_shape

        self.shape = tile_shape(np.dtype(np.float32))
        self.multiply = multiplication(self.shape, False)
        width = self.shape.width
        self.a, self.b, self.out = (
            np.zeros(n, np.float32) for n in (self.N_ROWS * self.N, self.N * width, self.N_ROWS * width)
        )
        pairs = [m * n for m, n in zip(self.config.sizes, self.config.sizes[1:], strict=False)]
        products = self.config.n_samples * (3 * sum(pairs) - pairs[0])  # the first layer has no delta to pass on
        self.calls = max(1, round(products / (self.N_ROWS * self.N * width)))

    def epoch(self, order: Array | None = None) -> None:
        n, width, none = self.N, self.shape.width, np.zeros(1, np.int64)
        lists = np.zeros((1, 1), np.int32)
        for _ in range(self.calls):
            self.multiply(
                self.a, 0, n, 1, self.shape.rows * n, self.N_ROWS, self.b, 0, width, False, lists, none, 0, n,
                self.out, 0, width, self.b, 0, 0, 0,
            )  # fmt: skip

    def layers(self) -> Layers:
        return []
