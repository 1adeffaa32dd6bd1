"""Importing gpuprop: cheap, complete, and one version."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpuprop
from gpuprop._moved import MOVED

HEAVY = ["numba", "scipy", "sklearn", "matplotlib", "pandas", "typer", "rich", "cupy", "safetensors"]


def run(code: str, **variables: str) -> str:
    """Run `code` in a Python of its own, warnings being errors, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(Path(gpuprop.__file__).parents[1]), **variables}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("statement", ["import gpuprop", "import gpuprop.backends", "from gpuprop import model_io"])
def test_import_leaves_the_heavy_modules_alone(statement: str) -> None:
    loaded = run(f"{statement}; import sys; print(*sys.modules)").split()
    assert "gpuprop" in loaded
    assert set(HEAVY).isdisjoint(loaded)


def test_building_and_running_a_network_leaves_the_heavy_modules_alone() -> None:
    code = (
        "import gpuprop; gpuprop.Network([2, 3, 1], seed=0, device='cpu'); "
        "gpuprop.Network([2, 3, 1], seed=0, device='numpy').forward([[0.0, 1.0]])"
    )
    loaded = run(f"{code}; import sys; print(*sys.modules)").split()
    assert "gpuprop.model.network" in loaded
    assert set(HEAVY).isdisjoint(loaded)


def test_loading_a_network_leaves_the_estimators_alone(tmp_path: Path) -> None:
    gpuprop.Network([2, 3, 1], seed=0, device="numpy").save(tmp_path)
    loaded = run(f"import sys, gpuprop; gpuprop.load({str(tmp_path)!r}, 'numpy'); print(*sys.modules)").split()
    assert "safetensors" in loaded
    assert {"sklearn", "scipy", "gpuprop.estimators.base"}.isdisjoint(loaded)


def test_the_former_model_io_has_its_public_names() -> None:
    import gpuprop.model_io as model_io  # type: ignore[import-not-found]

    expected = {"load", "load_network", "read_file", "save_network", "save_ensemble", "write_file"}
    assert set(model_io.__all__) == expected | {"FORMAT_VERSION", "MODEL_FILE_NAME"}
    assert all(hasattr(model_io, name) for name in model_io.__all__)


@pytest.mark.parametrize("name", gpuprop.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(gpuprop, name) is not None
    assert name in dir(gpuprop)
    # The second time it is an ordinary attribute and the same object.
    assert vars(gpuprop)[name] is getattr(gpuprop, name)


def test_a_name_in_a_fresh_process_is_what_its_module_defines() -> None:
    code = "import gpuprop; print(gpuprop.load.__module__, gpuprop.Network.__module__, gpuprop.trace.__name__)"
    assert run(code).split() == ["gpuprop.estimators.stored_models", "gpuprop.model.network", "gpuprop.learn.trace"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'gpuprop' has no attribute 'Netwrok'"):
        _ = gpuprop.Netwrok
    assert not hasattr(gpuprop, "_sources")


def test_the_package_is_typed_and_has_a_version() -> None:
    assert (Path(gpuprop.__file__).parent / "py.typed").exists()
    assert [part.isdigit() for part in gpuprop.__version__.split(".")[:2]] == [True, True]


#: Modules in folders that moved as a whole, whose own names have no line in the table.
INSIDE_A_MOVED_FOLDER = {
    "bench.kernels.forward": "measure.bench.kernels.forward",
    "equivalence.oracle": "measure.equivalence.oracle",
    "exercises.checking": "learn.exercises.checking",
    "live.frames": "learn.live.frames",
    "trace.scalar": "learn.trace.scalar",
    "trace.text": "learn.trace.text",
}


@pytest.mark.parametrize("first", ["old", "new"])
def test_a_module_under_its_old_name_is_the_same_module(first: str) -> None:
    pairs = [(f"gpuprop.{old}", f"gpuprop.{new}") for old, new in (MOVED | INSIDE_A_MOVED_FOLDER).items()]
    code = f"""
from importlib import import_module
for old, new in {pairs!r}:
    names = {"[old, new]" if first == "old" else "[new, old]"}
    modules = [import_module(name) for name in names]
    assert modules[0] is modules[1] and modules[0].__name__ == new, (old, new)
print("same")
"""
    # The CUDA backend can be imported on any machine in the simulator.
    assert run(code, NUMBA_ENABLE_CUDASIM="1") == "same\n"


def test_no_file_lies_where_a_moved_module_was() -> None:
    root = Path(gpuprop.__file__).parent
    for old in MOVED:
        place = root.joinpath(*old.split("."))
        assert not place.with_suffix(".py").exists()
        assert not (place / "__init__.py").exists()
