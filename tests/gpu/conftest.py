"""Tests that need a GPU, real or virtual; without one they are skipped, with the reason that ``gpuprop info`` gives."""

from __future__ import annotations

import os
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
    """The virtual GPU's counters: ``with counts.measure() as m`` counts launches, copies and waits of the block."""
    if "VGPU_LIBS" not in os.environ:
        pytest.skip("only the virtual GPU counts launches, copies and synchronisations")
    return pytest.importorskip("stats", reason="the virtual GPU's counters are not on the path")
