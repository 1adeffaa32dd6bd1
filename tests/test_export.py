"""Exports: the C header, compiled by gcc, and the ONNX file answer as the network does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.maths.activations import ACTIVATIONS
from gpuprop.model.c_header import c_header, c_test_program, rounded
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
