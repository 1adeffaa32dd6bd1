"""The launches that a plan counts for a profile are those that an epoch makes."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gpuprop

if TYPE_CHECKING or find_spec("numba_cuda"):
    from gpuprop_kernels import launch

pytestmark = pytest.mark.gpu

KERNELS = (
    "load_batch", "forward_layer", "output_head", "wide_output", "hidden_delta", "accumulate_gradients", "sum_slabs",
    "update_parameters", "limit_incoming_norm",
)  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "batch", "options", "dropout"),
    [
        ((20, 12, 10, 3), 16, {}, 0.0),
        ((20, 12, 18), 16, {"clip_norm": 1.0, "max_norm": 2.0}, (0.2, 0.5)),
        ((20, 3), 8, {"accumulation_steps": 2}, 0.0),
        ((784, 40, 10), 256, {}, 0.0),
    ],
)
def test_a_profile_counts_the_launches_of_an_epoch(
    sizes: tuple[int, ...], batch: int, options: dict[str, Any], dropout: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (2 * batch + 5, sizes[0])).astype(np.uint8), np.arange(2 * batch + 5) % sizes[-1]
    scaling = gpuprop.InputScaling.divide(255)
    net = gpuprop.Network(
        sizes, loss="categorical_cross_entropy", seed=0, device="cuda", dropout=dropout, input_scaling=scaling
    )
    trainer = gpuprop.Trainer(net, batch_size=batch, plan="fused", **options)
    made: list[str] = []
    for name in KERNELS:
        real = getattr(launch, name)

        def counted(*arguments: Any, _name: str = name, _real: Any = real, **how: Any) -> Any:
            made.append(_name)
            return _real(*arguments, **how)

        monkeypatch.setattr(launch, name, counted)
    found = trainer.profile(X, y)  # two epochs
    assert {name: 2 * count for name, (count, _) in found.launches.items()} == Counter(made)
    assert all(n_bytes > 0 for _, n_bytes in found.launches.values())
    assert "launches of an epoch" in str(found)
    n = net.parameters.size
    moved = sum(n_bytes for _, n_bytes in found.launches.values())
    assert moved > found.launches["accumulate_gradients"][0] * n * 4
