"""Exports: the C header, compiled by gcc, and the ONNX file answer as the network does."""

from __future__ import annotations

import importlib.util
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.estimators.as_sklearn import sklearn_estimator
from gpuprop.maths.activations import ACTIVATIONS
from gpuprop.model.c_header import c_header, c_test_program, rounded
from gpuprop.model.container import read_file, write_file
from gpuprop.model.torch_module import torch_source, torch_state
from gpuprop.model.unscaled import without_scaling
from tests.cli_tools import Cli

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc on this machine")
RNG = np.random.default_rng(5)
X = RNG.normal(size=(9, 6)).astype(np.float32)
SCALING = gpuprop.InputScaling(shift=RNG.normal(size=6), scale=RNG.uniform(0.5, 2.0, 6))
FAULT = ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror"]


def run_c(folder: Path, test: str) -> str:
    program = folder / "program"
    subprocess.run([*FAULT, str(folder / test), "-o", str(program), "-lm"], check=True, capture_output=True)
    return subprocess.run([program], check=True, capture_output=True, text=True).stdout


@needs_gcc
@pytest.mark.parametrize("int8", [False, True])
def test_c_answers_as_every_kind_of_network_does(tmp_path: Path, int8: bool) -> None:
    includes, calls, names = [], [], list(ACTIVATIONS)
    ends: list[tuple[str, int]] = [("categorical_cross_entropy", 3), ("binary_cross_entropy", 1), ("squared_error", 2)]
    for number, first in enumerate(names):
        loss, n_outputs = ends[number % 3]
        net = gpuprop.Network(
            (6, 7, 5, n_outputs), hidden_activation=[first, "leaky_relu(0.2)"], loss=loss, seed=number, device="numpy",
            input_scaling=SCALING if number % 2 else None,
        )  # fmt: skip
        outputs = (rounded(net) if int8 else net).forward(X)
        name = f"n{number}"
        (tmp_path / f"{name}.h").write_text(c_header(net, name, int8=int8))
        program = c_test_program(f"{name}.h", name, X, outputs, 1e-5)
        for old, new in (("int main(", f"int main_{name}("), (" inputs[", f" in_{name}["), ("inputs +", f"in_{name} +"),
                         (" expected[", f" ex_{name}[")):  # fmt: skip
            program = program.replace(old, new)
        includes.append(program)
        calls.append(f"failed |= main_{name}();")
    text = "\n".join(includes) + "\nint main(void) { int failed = 0; " + " ".join(calls) + " return failed; }\n"
    (tmp_path / "all.c").write_text(text)
    assert run_c(tmp_path, "all.c").count("9 rows") == len(names)


@needs_gcc
def test_a_wrong_answer_is_found(tmp_path: Path) -> None:
    net = gpuprop.Network((6, 3, 2), seed=0, device="numpy")
    (tmp_path / "m.h").write_text(c_header(net, "m"))
    (tmp_path / "t.c").write_text(c_test_program("m.h", "m", X, net.forward(X) + 0.01))
    with pytest.raises(subprocess.CalledProcessError):
        run_c(tmp_path, "t.c")


def test_a_scaling_is_folded_into_the_first_layer() -> None:
    for scaling in (SCALING, gpuprop.InputScaling.divide(255), None):
        net = gpuprop.Network((6, 4, 2), seed=0, dtype="float64", device="numpy", input_scaling=scaling)
        plain = without_scaling(net)
        assert plain.input_scaling is None
        np.testing.assert_allclose(plain.forward(X), net.forward(X), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [({}, "1x", "name: got '1x'"), ({"slopes": True}, "m", "slopes or embeddings"), ({}, "é", "name")],
)
def test_what_has_no_header_is_refused(options: dict[str, Any], name: str, message: str) -> None:
    net = gpuprop.Network((6, 3, 2), seed=0, device="numpy", **options)
    with pytest.raises(ValueError, match=message):
        c_header(net, name)


ENDS: list[tuple[str, int]] = [
    ("categorical_cross_entropy", 3), ("binary_cross_entropy", 1), ("squared_error", 2), ("binary_cross_entropy", 3),
    ("poisson", 1),
]  # fmt: skip


def answers(network: gpuprop.Network, rows: Any) -> Any:
    """What an export should answer."""
    return network.predict_proba(rows) if network.is_classifier else network.forward(rows)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pytorch_answers_as_every_kind_of_network_does(tmp_path: Path, dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for number, first in enumerate(ACTIVATIONS):
        loss, n_outputs = ENDS[number % len(ENDS)]
        net = gpuprop.Network(
            (6, 7, 5, n_outputs), hidden_activation=[first, "leaky_relu(0.2)"], loss=loss, seed=number, device="numpy",
            input_scaling=SCALING if number % 2 else None, dropout=0.3, dtype=dtype,
        )  # fmt: skip
        (tmp_path / "m.py").write_text(torch_source(net, "m.safetensors"))
        write_file(tmp_path / "m.safetensors", torch_state(net), {})
        spec = importlib.util.spec_from_file_location("m", tmp_path / "m.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.load()
        rows = torch.from_numpy(X.astype(dtype))
        bound: Any = {"rtol": 2e-5, "atol": 2e-6} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-13}
        np.testing.assert_allclose(model(rows).detach().numpy(), answers(net, X.astype(dtype)), **bound)
        model.train()
        assert not torch.equal(model(rows), model(rows))  # dropout is in its place


def test_the_source_for_pytorch_is_python_and_its_state_is_the_networks() -> None:
    net = gpuprop.Network((6, 4, 1), loss="binary_cross_entropy", seed=0, device="numpy", dropout=0.5)
    source = torch_source(net, "m.safetensors")
    compile(source, "m.py", "exec")
    assert "a1 = F.relu(self.linear1(x))" in source
    assert "self.linear2(F.dropout(a1, 0.5, self.training))" in source
    assert "torch.cat([1 - p, p], dim=1)" in source
    state = torch_state(net)
    assert list(state) == ["linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"]
    np.testing.assert_array_equal(state["linear2.weight"], np.asarray(net.weights[1]).T)
    cube = gpuprop.Activation("cube", lambda z: z**3, lambda z: 3 * z**2, derivative_of="z")
    with pytest.raises(ValueError, match="'cube': got one of your own"):
        torch_source(gpuprop.Network((2, 2, 1), hidden_activation=cube, device="numpy"), "m")
    with pytest.raises(ValueError, match="slopes"):
        torch_state(gpuprop.Network((2, 2, 1), slopes=True, device="numpy"))


@pytest.mark.parametrize(("loss", "n_outputs"), ENDS[:4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scikit_learn_answers_as_the_network_does(tmp_path: Path, loss: str, n_outputs: int, dtype: str) -> None:
    named = {("categorical_cross_entropy", 3): ["c", "a", "b"], ("binary_cross_entropy", 1): ["yes", "no"]}
    classes = named.get((loss, n_outputs))
    net = gpuprop.Network(
        (6, 7, 5, n_outputs), hidden_activation="tanh", loss=loss, seed=1, device="numpy", input_scaling=SCALING,
        dtype=dtype, classes=classes,
    )  # fmt: skip
    model = pickle.loads(pickle.dumps(sklearn_estimator(net)))
    assert type(model).__module__.startswith("sklearn.")
    assert [array.shape for array in model.coefs_] == [(6, 7), (7, 5), (5, n_outputs)]
    rows = X.astype(dtype)
    bound: Any = {"rtol": 2e-5, "atol": 2e-6} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-13}
    expected = answers(net, rows)
    if classes is not None:
        expected = expected[:, np.argsort(classes)]  # scikit-learn keeps classes sorted
        assert model.classes_.tolist() == sorted(classes)
        assert model.predict(rows).tolist() == [classes[i] for i in net.predict(rows)]
    found = model.predict_proba(rows) if net.is_classifier else model.predict(rows)
    np.testing.assert_allclose(found, expected, **bound)
    assert model.get_params()["hidden_layer_sizes"] == (7, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_activation": "gelu"}, "scikit-learn has no others"),
        ({"slopes": True}, "slopes"),
        ({"loss": "poisson"}, "exponential outputs"),
    ],
)
def test_what_is_none_of_scikit_learns_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sklearn_estimator(gpuprop.Network((6, 3, 2), seed=0, device="numpy", **options))


def test_the_command_writes_what_other_processes_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cli, run = Cli(capsys), tmp_path / "run"
    cli.run("train", "digits", "--out", run, "--epochs", 2, "--hidden", 16, "--device", "numpy")
    rows = gpuprop.datasets.load("digits").X[:20].astype(np.float32)
    network: Any = gpuprop.load(run)
    expected = network.predict_proba(rows)
    for name in ("digits.joblib", "digits.pkl"):
        cli.run("export", run, "--sklearn", tmp_path / name)
        code = (
            "import sys, joblib, numpy as np; X = np.load('x.npy'); sys.modules['gpuprop'] = None; "
            f"np.save('p.npy', joblib.load('{name}').predict_proba(X))"
        )
        np.save(tmp_path / "x.npy", rows)
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
        np.testing.assert_allclose(np.load(tmp_path / "p.npy"), expected, rtol=1e-4, atol=1e-6)
    cli.run("export", run, "--torch", tmp_path / "digits.py")
    state, _ = read_file(tmp_path / "digits.safetensors")
    assert state["linear1.weight"].shape == (16, 64)
    assert "a Python module" in cli.fail("export", run, "--torch", tmp_path / "a-b.py").err
    assert "ends in .joblib or .pkl" in cli.fail("export", run, "--sklearn", tmp_path / "model").err


@needs_gcc
def test_the_command_exports_a_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cli, run = Cli(capsys), tmp_path / "run"
    cli.run("train", "digits", "--out", run, "--epochs", 3, "--hidden", 16, "--device", "numpy")
    header = tmp_path / "digits.h"
    said = cli.run("export", run, "--c", header, "--int8", "--data", "digits").out
    figures = [float(word.rstrip(",")) for word in said.splitlines()[-1].split() if word.startswith("0.")]
    assert abs(figures[0] - figures[1]) < 0.03
    run_c(tmp_path, "digits_test.c")
    small = header.stat().st_size
    cli.run("export", run, "--c", header)
    run_c(tmp_path, "digits_test.c")
    assert small < header.stat().st_size
    assert "expected one of them" in cli.fail("export", run).err
    assert "belong to --c" in cli.fail("export", run, "--onnx", tmp_path / "m.onnx", "--int8").err
    runtime = pytest.importorskip("onnxruntime")
    cli.run("export", run, "--onnx", tmp_path / "m.onnx")
    session = runtime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    rows = gpuprop.datasets.load("digits").X[:20].astype(np.float32)
    network: Any = gpuprop.load(run)
    np.testing.assert_allclose(session.run(None, {"X": rows})[0], network.predict_proba(rows), rtol=1e-4, atol=1e-6)
