"""PyTorch as a contender: eager, compiled, and one update as a CUDA graph. Imported only where PyTorch is installed.

The eager one has run on the CPU. The compiled one and the CUDA graph have run nowhere yet, and none on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.measure.bench.trained import RATE, Trained

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.ops import Ops

__all__ = ["TorchCompiled", "TorchEager", "TorchGraph", "torch_device"]


def torch_device(ops: Ops) -> str | None:
    """Return PyTorch's name of the device, or None if PyTorch cannot use it."""
    import torch

    if not ops.device.startswith("cuda"):
        return "cpu"
    return ops.device if ops.device != "cuda-sim" and torch.cuda.is_available() else None


class TorchEager(Trained):
    """Linear layers, cross-entropy, and Adam in PyTorch's fused implementation."""

    name = "torch eager"
    capturable = False

    def __init__(self, device: str, *arguments: Any) -> None:
        self._device = device
        super().__init__(*arguments)

    def prepare(self, rows: NDArray[Any], labels: NDArray[Any]) -> None:
        import torch

        self._torch = torch
        modules: list[Any] = []
        for w, b in zip(self.start.weights, self.start.biases, strict=True):
            linear = torch.nn.Linear(*w.shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(w.T)))
                linear.bias.copy_(torch.from_numpy(b.copy()))
            modules += [linear, torch.nn.ReLU()]
        self._linear = modules[::2]
        self._model = torch.nn.Sequential(*modules[:-1]).to(self._device)
        self._rows = torch.from_numpy(rows).to(self._device)
        self._y = torch.from_numpy(labels.astype(np.int64)).to(self._device)
        self._loss = torch.nn.CrossEntropyLoss()
        self._optimizer = torch.optim.Adam(self._model.parameters(), RATE, fused=True, capturable=self.capturable)
        self._total = torch.zeros((), device=self._device)
        self.begin(self.order)

    def begin(self, order: NDArray[np.int32]) -> None:
        self._order = self._torch.from_numpy(order.astype(np.int64)).to(self._device)
        self._total.zero_()

    def updates(self) -> None:
        for start in range(0, self.n_samples, self.config.batch_size):
            self.step += 1
            self._optimizer.zero_grad(set_to_none=True)
            self._update(self._order[start : start + self.config.batch_size])

    def _update(self, index: Any) -> None:
        x = self._rows[index].float() * (1 / 255)
        loss = self._loss(self._model(x), self._y[index])
        loss.backward()
        self._optimizer.step()
        self._total += loss.detach() * len(index)

    def loss(self) -> float:
        return float(self._total) / self.n_samples

    def parameters(self) -> NDArray[Any]:
        weights = [layer.weight.detach().cpu().numpy().T.ravel() for layer in self._linear]
        return np.concatenate(weights + [layer.bias.detach().cpu().numpy() for layer in self._linear])

    def synchronize(self) -> None:
        """Wait for PyTorch's own stream."""
        if self._device != "cpu":
            self._torch.cuda.synchronize()


class TorchCompiled(TorchEager):
    """The network by ``torch.compile``, forwards and backwards; the optimizer is the same."""

    name = "torch compiled"

    def prepare(self, rows: NDArray[Any], labels: NDArray[Any]) -> None:
        super().prepare(rows, labels)
        self._model = self._torch.compile(self._model)


class TorchGraph(TorchEager):
    """One update, captured as a CUDA graph and replayed; the update of the smaller last batch is eager."""

    name = "torch CUDA graph"
    capturable = True

    def prepare(self, rows: NDArray[Any], labels: NDArray[Any]) -> None:
        super().prepare(rows, labels)
        torch = self._torch
        self._index = torch.zeros(self.config.batch_size, dtype=torch.int64, device=self._device)
        before = [p.detach().clone() for p in self._model.parameters()]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # warm-up, as PyTorch's notes on CUDA graphs ask for
                self._optimizer.zero_grad(set_to_none=True)
                self._update(self._index)
        torch.cuda.current_stream().wait_stream(side)
        self._optimizer.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._update(self._index)
        with torch.no_grad():  # undo the warm-up's updates
            for parameter, old in zip(self._model.parameters(), before, strict=True):
                parameter.copy_(old)
                for state in self._optimizer.state[parameter].values():
                    state.zero_()
        self._total.zero_()

    def updates(self) -> None:
        size = self.config.batch_size
        for start in range(0, self.n_samples, size):
            self.step += 1
            index = self._order[start : start + size]
            if len(index) == size:
                self._index.copy_(index)
                self._graph.replay()
            else:
                self._update_apart(index)

    def _update_apart(self, index: Any) -> None:
        """Make an update whose gradients are other arrays than the graph's."""
        kept = [p.grad for p in self._model.parameters()]
        self._optimizer.zero_grad(set_to_none=True)
        self._update(index)
        for parameter, gradient in zip(self._model.parameters(), kept, strict=True):
            parameter.grad = gradient
