"""Devices: names, what is said of missing ones, and machines that have CuPy or Numba in part or not at all.

Each machine is a process of its own, in which stub packages on PYTHONPATH stand before the installed ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.backends import ENVIRONMENT_VARIABLE, choose, devices, get_ops, installed
from gpuprop.errors import BackendUnavailableError

# As Python reports a module that is not there.
ABSENT = "raise ModuleNotFoundError('No module named {0!r}'.format(__name__), name=__name__)"

# CuPy's layout and its exception, https://docs.cupy.dev (cupy.cuda.runtime.CUDARuntimeError).
CUPY = {
    "cupy/__init__.py": "from cupy import cuda",
    "cupy/cuda/__init__.py": "from cupy.cuda import runtime",
}
NO_DRIVER = """
class CUDARuntimeError(RuntimeError):
    def __init__(self, status, message):
        self.status = status
        super().__init__(message)

def getDeviceCount():
    raise CUDARuntimeError({status}, {message!r})
"""
ONE_GPU = """
def getDeviceCount(): return 1
def driverGetVersion(): return {driver}
def runtimeGetVersion(): return 13000
"""
NEW_DRIVER, OLD_DRIVER, ANCIENT_DRIVER = (ONE_GPU.format(driver=version) for version in (13000, 12080, 11040))
INSUFFICIENT_DRIVER = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
NO_DEVICE = "cudaErrorNoDevice: no CUDA-capable device is detected"

# CuPy wraps the reason into a page of advice, with the reason as its cause.
CUPY_BROKEN = """
try:
    raise ImportError("libcuda.so.1: cannot open shared object file: No such file or directory")
except ImportError as exc:
    raise ImportError("=====\\nFailed to import CuPy.\\n\\nIf you installed CuPy via wheels, ...\\n=====") from exc
"""
NUMBA_CUDA = {"numba_cuda/__init__.py": "", "numba/__init__.py": "", "numba/cuda/__init__.py": ""}

REPORT = """
import json, sys
import gpuprop.backends as backends
result = {"imported": sorted({"cupy", "numba", "numba_cuda"} & set(sys.modules))}
result["info"] = {record.device: [record.usable, record.reason] for record in backends.availability()}
result["auto"] = [backends.choose("auto").device, backends.choose("auto").reason]
for device in ("cuda", "cuda:1", "cuda-sim"):
    try:
        result[device] = backends.choose(device).device
    except backends.BackendUnavailableError as error:
        result[device] = str(error)
print(json.dumps(result))
"""

TRAIN = """
import numpy as np, gpuprop
X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
y = np.array([0, 1, 1, 0])
for device in ("cpu", "numpy", "auto"):
    network = gpuprop.Network([2, 8, 1], hidden_activation="tanh", loss="binary_cross_entropy", seed=0, device=device)
    before = network.loss(X, y)
    gpuprop.Trainer(network, learning_rate=0.05, batch_size=4, epochs=200, seed=0).fit(X, y)
    assert network.loss(X, y) < 0.1 * before, device
print("trained")
"""


LOOPS = """
import numpy as np
from gpuprop.backends.cpu import loops
from gpuprop.backends.cpu import optimizer_loops
w, g = np.ones(5), np.full(5, 2.0)
optimizer_loops.update_pass("sgd", w.dtype)(w, g, w, w, (0.25,))
loops.scale(w, 4.0)
assert loops.sum_of_squares(w) == 20.0
print("computed")
"""


@pytest.fixture(autouse=True)
def _no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


def machine(folder: Path, stubs: dict[str, str], code: str, **environment: str) -> str:
    """Run `code` on a machine with these stubs, warnings being errors, and return what it prints."""
    for name, content in stubs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    path = os.pathsep.join([str(folder), str(Path(gpuprop.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def report(folder: Path, stubs: dict[str, str], *, nvidia: bool = True) -> dict[str, Any]:
    # A folder of its own: a stub of equal size, written within the same second, would be read from the old one's cache.
    folder = Path(tempfile.mkdtemp(dir=folder))
    patch = f"import gpuprop.backends.devices as d; d.nvidia_device_found = lambda: {nvidia}\n"
    found: dict[str, Any] = json.loads(machine(folder, stubs, patch + REPORT))
    assert found["imported"] == []  # import gpuprop.backends alone looks at neither
    assert found["info"]["cpu"][0]
    assert found["info"]["numpy"][0]
    device, reason = found["auto"]
    assert device == "cpu"
    assert reason.partition("; plain NumPy: ")[0] == f"device 'auto' chose cpu: {found['info']['cuda'][1]}"
    assert found["cuda"] == f"device 'cuda' cannot be used: {found['info']['cuda'][1]}"
    assert not any("\n" in reason for _, reason in found["info"].values())
    return found


@pytest.mark.parametrize(("name", "backend"), [("cpu", "numba"), ("numpy", "numpy")])
def test_named_cpu_devices(name: str, backend: str) -> None:
    choice = choose(name)
    assert (choice.device, choice.backend) == (name, backend)
    ops = get_ops(name)
    assert (ops.device, ops.backend) == (name, backend)
    np.testing.assert_array_equal(ops.to_numpy(ops.asarray([1, 2], np.float32)), np.array([1, 2], np.float32))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "unknown device 'gpu'; did you mean 'cuda'?"),
        ("gpu:1", "unknown device 'gpu:1'; did you mean 'cuda:1'?"),
        ("CUDA", "unknown device 'CUDA'; did you mean 'cuda'?"),
        ("cuda:", "unknown device 'cuda:'; did you mean 'cuda'?"),
        ("cudasim", "unknown device 'cudasim'; did you mean 'cuda-sim'?"),
        ("nunpy", "unknown device 'nunpy'; did you mean 'numpy'?"),
        ("cuda:x", "got device 'cuda:x', expected 'cuda:' and the number of a GPU, from 0"),
        ("cuda:-1", "got device 'cuda:-1', expected 'cuda:' and the number of a GPU, from 0"),
        ("cuda:1.0", "got device 'cuda:1.0', expected 'cuda:' and the number of a GPU, from 0"),
        ("cuda:N", "got device 'cuda:N', expected 'cuda:' and the number of a GPU, from 0"),
        ("cuda:\u0663", "got device 'cuda:\u0663', expected 'cuda:' and the number of a GPU, from 0"),
        ("", "unknown device ''"),
        ("cpu\n", "unknown device"),
    ],
)
def test_unknown_names_are_refused_with_a_suggestion(name: str, message: str) -> None:
    with pytest.raises(ValueError, match="device") as caught:
        choose(name)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_device_that_is_no_string() -> None:
    with pytest.raises(TypeError, match="got device 0 of type int, expected a string"):
        choose(0)  # type: ignore[arg-type]


def test_environment_variable_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "numpy")
    for asked in ("auto", "cpu", "cuda:7"):
        assert choose(asked).device == "numpy"
        assert get_ops(asked).device == "numpy"
    assert "GPUPROP_DEVICE" in choose("cpu").reason
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "")  # as good as not set
    assert choose("cpu").device == "cpu"


def test_environment_variable_is_validated_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "gpu")
    with pytest.raises(ValueError, match="unknown GPUPROP_DEVICE 'gpu'; did you mean 'cuda'"):
        choose("cpu")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "cuda:-3")
    with pytest.raises(ValueError, match="got GPUPROP_DEVICE 'cuda:-3', expected"):
        choose("cpu")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "cuda-sim")
    with pytest.raises(BackendUnavailableError, match="GPUPROP_DEVICE 'cuda-sim' cannot be used"):
        choose("cpu")


@pytest.mark.parametrize(("name", "device"), [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:007", "cuda:7")])
def test_a_usable_gpu_is_taken(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_cuda_usable", lambda index: (True, f"GPU {index}"))
    choice = choose(name)
    assert (choice.device, choice.backend) == (device, "cuda")
    assert choice.reason == f"device '{'cuda:7' if ':' in name else name}' chose {device}: GPU {device[-1]}"


def test_auto_never_takes_the_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_cuda_usable", lambda index: (False, "no GPU"))
    monkeypatch.setattr(devices, "_cuda_sim_usable", lambda: (True, "simulator"))
    assert choose("auto").device == "cpu"
    assert choose("cuda-sim").device == "cuda-sim"


def test_cupy_absent(tmp_path: Path) -> None:
    found = report(tmp_path, {"cupy.py": ABSENT})
    assert found["cuda"].endswith(
        "CuPy is not installed; pip install 'gpuprop[cu13]' for CUDA 13 or 'gpuprop[cu12]' for CUDA 12"
    )


def test_a_machine_without_an_nvidia_device_is_not_told_to_install_cuda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = report(tmp_path, {"cupy.py": ABSENT}, nvidia=False)
    assert found["cuda"] == "device 'cuda' cannot be used: this machine shows no NVIDIA device"
    assert found["info"]["cuda"] == [False, "this machine shows no NVIDIA device"]
    assert "pip install" not in found["auto"][1]
    # The driver's own program is a sign of a device.
    monkeypatch.setattr(installed, "Path", lambda place: tmp_path / place.strip("/"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not installed.nvidia_device_found()
    program = tmp_path / "nvidia-smi"
    program.touch(mode=0o755)
    assert installed.nvidia_device_found()
    program.unlink()
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    assert installed.nvidia_device_found()


@pytest.mark.parametrize(
    ("status", "message"),
    [(35, INSUFFICIENT_DRIVER), (100, NO_DEVICE), (800, "cudaErrorNotPermitted: operation not permitted")],
)
def test_cupy_without_a_driver(tmp_path: Path, status: int, message: str) -> None:
    runtime = NO_DRIVER.format(status=status, message=message)
    found = report(tmp_path, {**CUPY, "cupy/cuda/runtime.py": runtime})
    assert f"CuPy finds no working NVIDIA GPU (CUDARuntimeError: {message}); check the driver with" in found["cuda"]
    assert found["cuda"].endswith("and that you may read and write /dev/nvidia*")


def test_a_driver_too_old_for_the_toolkit(tmp_path: Path) -> None:
    found = report(tmp_path, {**CUPY, "cupy/cuda/runtime.py": OLD_DRIVER})
    assert found["cuda"].endswith(
        "the driver supports CUDA up to 12.8 and CuPy was built for 13.0; update the driver, or pip install "
        "'gpuprop[cu12]' in a fresh environment"
    )
    found = report(tmp_path, {**CUPY, "cupy/cuda/runtime.py": ANCIENT_DRIVER})
    assert found["cuda"].endswith("up to 11.4 and CuPy was built for 13.0; update the driver")


def test_packages_that_are_too_old(tmp_path: Path) -> None:
    stubs = {**CUPY, "cupy/cuda/runtime.py": NEW_DRIVER, **NUMBA_CUDA}
    stubs["numba_cuda/__init__.py"] = "__version__ = '0.29.1'"
    assert "numba-cuda 0.29.1 is too old, expected 0.30 or newer; pip install 'gpup" in report(tmp_path, stubs)["cuda"]
    stubs["cupy/__init__.py"] = "from cupy import cuda; __version__ = '13.6.0'"
    assert "CuPy 13.6.0 is too old, expected 14.2 or newer; pip install 'gpup" in report(tmp_path, stubs)["cuda"]


def test_cupy_broken_at_import(tmp_path: Path) -> None:
    found = report(tmp_path, {"cupy/__init__.py": CUPY_BROKEN})
    assert "CuPy cannot be imported (ImportError: libcuda.so.1: cannot open shared object file" in found["cuda"]
    assert "gpuprop[cu13]" in found["cuda"]


def test_cupy_that_misses_a_module_is_not_called_absent(tmp_path: Path) -> None:
    found = report(tmp_path, {"cupy/__init__.py": "import a_module_that_cupy_needs"})
    assert "CuPy cannot be imported (ModuleNotFoundError: No module named 'a_module_that_cupy_needs')" in found["cuda"]


def test_gpu_without_numba_cuda(tmp_path: Path) -> None:
    found = report(tmp_path, {**CUPY, "cupy/cuda/runtime.py": NEW_DRIVER, "numba_cuda.py": ABSENT})
    assert "numba-cuda is not installed; pip install 'gpuprop[cu13]'" in found["cuda"]
    assert "there is no GPU 1: CuPy finds 1, numbered from 0" in found["cuda:1"]


def test_gpu_with_everything(tmp_path: Path) -> None:
    # A GPU counts when a kernel has run on it: these packages are all there, and do nothing.
    found = report(tmp_path, {**CUPY, "cupy/cuda/runtime.py": NEW_DRIVER, **NUMBA_CUDA})
    assert "a kernel does not run on GPU 0 (ImportError: " in found["cuda"]


def test_processes_of_one_machine_take_its_gpus_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stubs = {**CUPY, "cupy/cuda/runtime.py": NEW_DRIVER.replace("return 1\n", "return 3\n", 1), **NUMBA_CUDA}
    ask = """
import gpuprop.backends as backends
for device in ("cuda", "auto", "cuda:0"):
    try:
        print(backends.choose(device).reason)
    except backends.BackendUnavailableError as error:
        print(error)
"""
    for variable, rank, gpu in [("MPI_LOCALRANKID", "2", 2), ("OMPI_COMM_WORLD_LOCAL_RANK", "4", 1)]:
        monkeypatch.setenv(variable, rank)
        found = machine(Path(tempfile.mkdtemp(dir=tmp_path)), stubs, ask).splitlines()
        wanted = [f"does not run on GPU {number}" for number in (gpu, gpu, 0)]
        assert all(one in line for one, line in zip(wanted, found, strict=True)), found
        monkeypatch.delenv(variable)


SIMULATE = """
import json, gpuprop.backends as backends
found = {"auto": backends.choose("auto").device}
for device in ("cuda", "cuda-sim"):
    try:
        found[device] = backends.choose(device).device
    except backends.BackendUnavailableError as error:
        found[device] = str(error)
print(json.dumps(found))
"""


def test_the_simulator_has_to_be_switched_on(tmp_path: Path) -> None:
    found = json.loads(machine(tmp_path, {"cupy.py": ABSENT}, SIMULATE, NUMBA_ENABLE_CUDASIM="0"))
    assert found["cuda-sim"] == (
        "device 'cuda-sim' cannot be used: Numba's simulator is off; set NUMBA_ENABLE_CUDASIM=1 in the environment "
        "before Python starts"
    )


def test_with_the_simulator_on_there_is_no_gpu(tmp_path: Path) -> None:
    stubs = {**CUPY, "cupy/cuda/runtime.py": NEW_DRIVER}
    found = json.loads(machine(tmp_path, stubs, SIMULATE, NUMBA_ENABLE_CUDASIM="1"))
    assert (found["auto"], found["cuda-sim"]) == ("cpu", "cuda-sim")
    assert found["cuda"] == (
        "device 'cuda' cannot be used: NUMBA_ENABLE_CUDASIM is set, so that Numba only simulates CUDA; unset it"
    )


def test_numba_absent(tmp_path: Path) -> None:
    stubs = {"numba.py": ABSENT, "cupy.py": ABSENT}
    found = report(tmp_path, stubs)
    assert found["cuda-sim"] == "device 'cuda-sim' cannot be used: Numba is not installed; pip install numba"
    assert found["info"]["cpu"][1] == "plain NumPy: Numba is not installed; pip install numba"
    assert found["auto"][1].endswith("; plain NumPy: Numba is not installed; pip install numba")
    assert machine(tmp_path, stubs, TRAIN).split() == ["trained"]


def test_numba_broken_at_import(tmp_path: Path) -> None:
    stubs = {"numba/__init__.py": "raise ImportError('Numba needs NumPy 2.3 or less. Got NumPy 2.4.')"}
    found = report(tmp_path, stubs)
    flaw = "Numba cannot be imported (ImportError: Numba needs NumPy 2.3 or less. Got NumPy 2.4.); pip install numba"
    assert found["info"]["cpu"] == [True, f"plain NumPy: {flaw}"]
    assert machine(tmp_path, stubs, TRAIN).split() == ["trained"]


def test_numba_switched_off(tmp_path: Path) -> None:
    code = "import gpuprop.backends as b; print(b.choose('cpu').backend, '|', b.choose('cpu').reason)"
    said = machine(tmp_path, {}, code, NUMBA_DISABLE_JIT="1").strip()
    assert said == "numpy | device 'cpu': NumPy with compiled loops; plain NumPy: NUMBA_DISABLE_JIT is set"
    assert machine(tmp_path, {}, TRAIN, NUMBA_DISABLE_JIT="1").split() == ["trained"]


def test_a_broken_cache_of_compiled_code_is_as_good_as_none(tmp_path: Path) -> None:
    """Files cut short, files that are no cache at all, and a folder that is none."""
    cache = tmp_path / "cache"
    assert machine(tmp_path, {}, LOOPS, NUMBA_CACHE_DIR=str(cache)).split() == ["computed"]
    kept = sorted(path for path in cache.rglob("*") if path.suffix in (".nbi", ".nbc"))
    assert {path.suffix for path in kept} == {".nbi", ".nbc"}
    for index, path in enumerate(kept):
        path.write_bytes(path.read_bytes()[: 100 * (index % 3)])
    assert machine(tmp_path, {}, LOOPS, NUMBA_CACHE_DIR=str(cache)).split() == ["computed"]
    (tmp_path / "file").write_text("not a folder")
    assert machine(tmp_path, {}, LOOPS, NUMBA_CACHE_DIR=str(tmp_path / "file")).split() == ["computed"]


def test_training_without_a_driver(tmp_path: Path) -> None:
    runtime = NO_DRIVER.format(status=35, message=INSUFFICIENT_DRIVER)
    assert machine(tmp_path, {**CUPY, "cupy/cuda/runtime.py": runtime}, TRAIN).split() == ["trained"]


class Recorder:
    """Stands for CuPy and numba.cuda on a machine with two GPUs, and says which of them was asked for."""

    def __init__(self) -> None:
        self.entered: list[tuple[str, Any]] = []

    def device(self, kind: str, index: int) -> Any:
        @contextmanager
        def enter() -> Iterator[None]:
            self.entered.append((kind, index))
            yield

        class Device:
            attributes = {"MultiProcessorCount": 40 + index, "MaxSharedMemoryPerBlockOptin": 101376}  # noqa: RUF012
            compute_capability = ("75", "120")[index]
            __enter__ = lambda one: (one.__dict__.setdefault("open", enter()).__enter__(), one)[1]  # noqa: E731
            __exit__ = lambda one, *error: one.__dict__.pop("open").__exit__(*error)  # noqa: E731

        return Device()


def test_the_second_gpu_is_the_one_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    numba = pytest.importorskip("numba")
    from gpuprop.backends.cuda.runtime import DeviceRuntime

    recorder = Recorder()

    class Stream:
        ptr = 7

        def __enter__(self) -> None:
            recorder.entered.append(("stream", self.ptr))

        def __exit__(self, *error: object) -> None:
            pass

    cupy = SimpleNamespace(
        cuda=SimpleNamespace(
            Device=lambda index: recorder.device("cupy", index), Stream=Stream, get_current_stream=lambda: Stream()
        )
    )
    gpus = [recorder.device("numba", index) for index in range(2)]
    cuda = SimpleNamespace(gpus=gpus, as_cuda_array=None, external_stream=lambda pointer: pointer)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "numba.cuda", cuda)
    monkeypatch.setitem(sys.modules, "numba.cuda.core", SimpleNamespace(config=SimpleNamespace()))
    monkeypatch.setattr(numba, "cuda", cuda, raising=False)
    runtime = DeviceRuntime(1)
    assert (runtime.device, runtime.multiprocessors, runtime.capability) == ("cuda:1", 41, (12, 0))
    recorder.entered.clear()
    with runtime.active():
        assert recorder.entered == [("cupy", 1), ("numba", 1), ("stream", 7)]
