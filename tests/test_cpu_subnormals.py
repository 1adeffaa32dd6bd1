"""Trainings on the CPU take subnormal numbers for zero, and nothing else does."""

import threading
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop import MLPRegressor
from gpuprop.backends.cpu.ops import compiled_loops
from gpuprop.estimators.members import Job, fit_together

pytestmark = pytest.mark.skipif(compiled_loops() is None, reason="the mode is set by Numba's code")
TINY = float(np.finfo(np.float32).tiny)


def is_subnormal(values: Any) -> Any:
    return (values != 0) & (np.abs(values) < TINY)


def test_the_mode_ends_with_its_context_and_is_the_threads_own() -> None:
    from gpuprop.backends.cpu.subnormals import subnormals_flushed

    numbers = np.full(33, 1e-30, np.float32)
    elsewhere: list[Any] = []
    inside = threading.Event()

    def product() -> Any:
        return numbers * np.float32(1e-12)

    def multiply_when_told() -> None:
        inside.wait()
        elsewhere.append(product())

    thread = threading.Thread(target=multiply_when_told)
    thread.start()  # before: a new thread begins in the mode of the one that starts it
    with suppress(KeyboardInterrupt), subnormals_flushed():
        assert not product().any()
        with subnormals_flushed():
            assert not product().any()
        assert not product().any()
        inside.set()
        thread.join()
        raise KeyboardInterrupt
    assert is_subnormal(product()).all()
    assert is_subnormal(elsewhere[0]).all()


def trained(device: str) -> gpuprop.Network:
    """Halve the weights of an input that is always zero 140 times, which no gradient but the penalty's moves."""
    X = np.zeros((8, 2), np.float32)
    X[:, 1] = np.linspace(-1, 1, 8)
    network = gpuprop.Network((2, 5, 1), loss="squared_error", l2=5.0, dtype="float32", seed=0, device=device)
    gpuprop.Trainer(network, optimizer="sgd", learning_rate=0.1, batch_size=8, epochs=140).fit(X, X[:, 1])
    return network


def test_a_training_leaves_no_subnormal_weights() -> None:
    assert is_subnormal(trained("numpy").weights[0]).any()
    assert not is_subnormal(trained("cpu").weights[0]).any()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_neither_do_several_together() -> None:
    X = np.zeros((8, 2), np.float32)
    X[:, 1] = np.linspace(-1, 1, 8)
    models = [
        MLPRegressor(
            hidden_layer_sizes=(5,),
            solver=gpuprop.optimizers.SGD(),
            learning_rate_init=0.1,
            alpha=alpha,
            max_iter=140,
            tol=0,
            n_iter_no_change=200,
            random_state=0,
            device="cpu",
        )
        for alpha in (40.0, 48.0)
    ]
    assert not any(outcome.error for outcome in fit_together(Job(model, X, X[:, 1]) for model in models))
    for model in models:
        assert np.abs(model.coefs_[0][0]).max() < TINY
        assert not is_subnormal(model.coefs_[0]).any()


def test_the_mode_of_arm_compiles_without_a_parser_of_assembly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba loads none, and LLVM ends the process at inline assembly: seen on x86, and so it would be on ARM."""
    import llvmlite.binding as llvm
    from llvmlite import ir

    from gpuprop.backends.cpu import subnormals

    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.IntType(64), [ir.IntType(64)]), "flush")
    builder = ir.IRBuilder(function.append_basic_block())
    before = subnormals.read_arm(builder)
    subnormals.write_arm(builder, builder.or_(before, function.args[0]))
    builder.ret(before)
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        target = llvm.Target.from_triple("aarch64-unknown-linux-gnu")
    except RuntimeError:
        pytest.skip("this LLVM has no code generator for ARM")
    assembly = target.create_target_machine().emit_assembly(llvm.parse_assembly(str(module)))
    assert "asm" not in str(module)
    assert [line.split()[0] for line in assembly.splitlines() if "FPCR" in line] == ["mrs", "msr"]
