"""Tests that need a GPU, real or virtual; without one they are skipped, with the reason that ``gpuprop info`` gives."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuprop.backends import availability

    monkeypatch.delenv("GPUPROP_DEVICE", raising=False)
    found = next(device for device in availability() if device.device == "cuda")
    if not found.usable:
        pytest.skip(found.reason)


@pytest.fixture
def counts() -> Any:
    """A virtual GPU's counters: ``with counts.measure() as m`` counts launches, copies and waits of the block."""
    stats = pytest.importorskip("stats", reason="only a virtual GPU counts launches, copies and synchronisations")
    if not hasattr(stats, "measure"):
        pytest.skip("the module 'stats' here is not that of a virtual GPU")
    return stats
