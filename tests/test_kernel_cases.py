"""Guards of the simulated tier: no case may vanish unseen, and no kernel may live outside its package."""

from __future__ import annotations

import re
from pathlib import Path

from tests.background import collected

ROOT = Path(__file__).parent.parent

SIMULATED_CASES = 460
"""Raise it with the tests; fewer collected cases are a failure."""


def test_number_of_simulated_cases() -> None:
    cases = collected(ROOT / "tests" / "kernels", NUMBA_ENABLE_CUDASIM="1")
    assert sum(map(len, cases.values())) >= SIMULATED_CASES


def test_kernels_live_in_their_package_only() -> None:
    # `numba.cuda` is imported by the target package alone, and started (`kernel[grid, block]`) by launch alone.
    for folder in ("gpuprop", "kernels", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if "target" not in path.parts and path != ROOT / "gpuprop" / "measure" / "bench" / "sass.py":
                assert not re.search(r"^\s*@cuda\.jit|cuda\.jit\(", text, re.M), f"{path} makes a CUDA kernel"
            if path.is_relative_to(ROOT / "kernels" / "gpuprop_kernels") and "target" not in path.parts:
                assert "numba.cuda" not in re.sub(r'"""[\s\S]*?"""', "", text), f"{path} imports numba.cuda"
                assert not re.search(r"^(?:from|import) (?:gpuprop|cupy)\b", text, re.M), f"{path} imports upwards"


def test_every_module_of_the_kernels_is_in_the_index() -> None:
    folder = ROOT / "kernels" / "gpuprop_kernels"
    index = (ROOT / "kernels" / "README.md").read_text(encoding="utf-8")
    for path in folder.glob("*.py"):
        if path.name != "__init__.py":
            assert f"`{path.name}`" in index, f"{path.name} is missing from the index"
