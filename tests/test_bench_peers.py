"""``gpuprop bench peers``: one training by all who are installed, and the refusal to compare different ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpuprop.bench import peers
from gpuprop.bench.contenders import CONTENDERS, Config, cross_entropy
from gpuprop.errors import GpupropError


@pytest.mark.parametrize("optimizer", ["adam", "momentum", "sgd"])
def test_contenders_train_the_same_network(optimizer: str) -> None:
    """Two epochs by gpuprop's primitives, scikit-learn and the plain script end at the same loss to 1e-4."""
    config = Config((5, 7, 3), "relu", optimizer, 0.01, 8, 32)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(32, 5)).astype(np.float32)
    y = X[:, :3].argmax(axis=1)
    losses = []
    for name in ("numpy", "gpuprop-numpy", "sklearn"):
        contender = CONTENDERS[name](config, X, y)
        contender.epochs(2)
        losses.append(cross_entropy(config, contender.layers(), X, y))
    np.testing.assert_allclose(losses, losses[0], rtol=1e-4)


def test_different_losses_are_refused() -> None:
    def workers(loss: float) -> Any:
        losses = {"numpy": 0.5, "floor": None, "other": loss}
        return [SimpleNamespace(name=name, info={"loss": value}) for name, value in losses.items()]

    peers.refuse_different_losses(workers(0.501), "numpy")
    with pytest.raises(GpupropError, match=r"other has loss 0\.50400 after one epoch where numpy has 0\.50000"):
        peers.refuse_different_losses(workers(0.504), "numpy")


def test_help_names_the_contenders(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        peers.main(["--help"])
    assert "gpuprop-dense" in capsys.readouterr().out
