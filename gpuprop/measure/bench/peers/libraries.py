"""The contenders from scikit-learn, PyTorch and JAX, each as its own users train; and the table of all contenders."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from gpuprop.measure.bench.peers.configs import Array, Config, Layers, initial
from gpuprop.measure.bench.peers.contenders import (
    MOMENTUM,
    Contender,
    Floor,
    GpupropDense,
    GpupropEstimator,
    GpupropFused,
    GpupropNumpy,
    GpupropSteps,
    Numpy,
    classifier,
)

__all__ = ["CONTENDERS", "LIBRARIES", "installed"]


class Sklearn(Contender):
    """``MLPClassifier.partial_fit``, which is one epoch, without its L2 penalty."""

    def begin(self, seed: int) -> None:
        from sklearn import neural_network

        config = self.config
        self.model = classifier(neural_network, config, shuffle=False)
        # A first epoch, on one batch, makes the arrays; then the weights are set and the optimizer's state is cleared.
        rows = slice(config.batch_size)
        self.model.partial_fit(self.X[rows], self.y[rows], classes=np.arange(config.sizes[-1]))
        for own, (weights, _) in zip(self.model.coefs_, initial(config, seed), strict=True):
            own[...] = weights
        for own in self.model.intercepts_:
            own[...] = 0
        optimizer = self.model._optimizer
        for name in ("ms", "vs", "velocities"):
            for state in getattr(optimizer, name, []):
                state[...] = 0
        if hasattr(optimizer, "t"):
            optimizer.t = 0

    def epoch(self, order: Array | None = None) -> None:
        self.model.shuffle = order is not None  # scikit-learn draws its own order
        self.model.partial_fit(self.X, self.y)

    def layers(self) -> Layers:
        return list(zip(self.model.coefs_, self.model.intercepts_, strict=True))

    def predictor(self, dtype: str = "float32", scale: float | None = None) -> Callable[[Array], Array]:
        predict: Callable[[Array], Array] = self.model.predict_proba
        return predict


class Torch(Contender):
    """Eager PyTorch on slices of one tensor."""

    fused = False

    def begin(self, seed: int) -> None:
        import torch

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        config = self.config
        modules: list[Any] = []
        for weights, biases in initial(config, seed):
            linear = torch.nn.Linear(*weights.shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(weights.T.copy()))
                linear.bias.copy_(torch.from_numpy(biases))
            modules += [linear, torch.nn.ReLU() if config.activation == "relu" else torch.nn.Sigmoid()]
        self.torch, self.linear = torch, modules[::2]
        self.model = torch.nn.Sequential(*modules[:-1])
        self.inputs, self.targets = torch.from_numpy(self.X), torch.from_numpy(self.y)
        self.loss = torch.nn.CrossEntropyLoss()
        parameters = self.model.parameters()
        if config.optimizer == "adam":
            self.optimizer: Any = torch.optim.Adam(parameters, config.learning_rate, fused=self.fused or None)
        else:
            momentum = MOMENTUM if config.optimizer == "momentum" else 0.0
            self.optimizer = torch.optim.SGD(parameters, config.learning_rate, momentum, fused=self.fused or None)

    def epoch(self, order: Array | None = None) -> None:
        for rows in self.batches(None if order is None else self.torch.from_numpy(order)):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(self.model(self.inputs[rows]), self.targets[rows])
            loss.backward()
            self.optimizer.step()

    def layers(self) -> Layers:
        return [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in self.linear]

    def predictor(self, dtype: str = "float32", scale: float | None = None) -> Callable[[Array], Array]:
        torch, model = self.torch, self.model

        def predict(X: Array) -> Any:
            with torch.inference_mode():
                return torch.softmax(model(torch.from_numpy(X)), 1).numpy()

        return predict


class TorchFused(Torch):
    """The same with the optimizer's fused implementation."""

    fused = True


class Jax(Contender):
    """JAX with a whole epoch in one compiled ``lax.scan`` over batches that were cut before."""

    def __init__(self, config: Config, X: Array, y: Array) -> None:
        import jax
        import jax.numpy as jnp
        import optax

        self.jax, self.jnp = jax, jnp
        momentum = MOMENTUM if config.optimizer == "momentum" else None
        adam = config.optimizer == "adam"
        self.optimizer = optax.adam(config.learning_rate) if adam else optax.sgd(config.learning_rate, momentum)
        activation = jax.nn.relu if config.activation == "relu" else jax.nn.sigmoid

        def scores(parameters: Any, x: Any) -> Any:
            for index, (weights, biases) in enumerate(parameters):
                x = x @ weights + biases
                if index < len(parameters) - 1:
                    x = activation(x)
            return x

        def loss(parameters: Any, x: Any, targets: Any) -> Any:
            return optax.softmax_cross_entropy_with_integer_labels(scores(parameters, x), targets).mean()

        def step(carry: Any, batch: Any) -> Any:
            parameters, state = carry
            updates, state = self.optimizer.update(jax.grad(loss)(parameters, *batch), state, parameters)
            return (optax.apply_updates(parameters, updates), state), None

        def cut(x: Any, order: Any) -> Any:
            return x[order].reshape(-1, config.batch_size, *x.shape[1:])

        self.scan = jax.jit(lambda carry, batches: jax.lax.scan(step, carry, batches)[0], donate_argnums=0)
        self.shuffle = jax.jit(lambda x, y, order: (cut(x, order), cut(y, order)))
        self.forward = jax.jit(lambda parameters, x: jax.nn.softmax(scores(parameters, x)))
        self.data = jnp.array(X), jnp.array(y.astype(np.int32))
        self.n_whole = len(X) // config.batch_size * config.batch_size  # a scan takes whole batches
        super().__init__(config, X, y)

    @cached_property
    def batches_as_they_lie(self) -> Any:
        """Inputs and targets of all batches in the order of the data set, made once."""
        return self.shuffle(*self.data, np.arange(self.n_whole))

    def begin(self, seed: int) -> None:
        jnp = self.jnp
        parameters = [(jnp.array(weights), jnp.array(biases)) for weights, biases in initial(self.config, seed)]
        self.carry = (parameters, self.optimizer.init(parameters))

    def epoch(self, order: Array | None = None) -> None:
        batches = self.batches_as_they_lie if order is None else self.shuffle(*self.data, order[: self.n_whole])
        self.carry = self.scan(self.carry, batches)
        self.jax.block_until_ready(self.carry)

    def layers(self) -> Layers:
        return [(np.asarray(weights), np.asarray(biases)) for weights, biases in self.carry[0]]

    def predictor(self, dtype: str = "float32", scale: float | None = None) -> Callable[[Array], Array]:
        parameters = self.carry[0]
        return lambda X: np.asarray(self.forward(parameters, X))


CONTENDERS: dict[str, type[Contender]] = {
    "gpuprop": GpupropFused,
    "gpuprop-dense": GpupropDense,
    "gpuprop-steps": GpupropSteps,
    "gpuprop-numpy": GpupropNumpy,
    "gpuprop-estimator": GpupropEstimator,
    "numpy": Numpy,
    "sklearn": Sklearn,
    "torch": Torch,
    "torch-fused": TorchFused,
    "jax": Jax,
    "floor": Floor,
}

#: The modules that each contender imports, as a user would write them.
LIBRARIES = {
    "gpuprop": ("gpuprop",),
    "numpy": ("numpy",),
    "sklearn": ("sklearn.neural_network",),
    "torch": ("torch",),
    "jax": ("jax", "optax"),
}


def installed() -> list[str]:
    """Return the names of the contenders whose libraries are installed."""

    def there(name: str) -> bool:
        modules = LIBRARIES.get(name.partition("-")[0], ())
        return all(importlib.util.find_spec(module.partition(".")[0]) for module in modules)

    return [name for name in CONTENDERS if there(name)]
