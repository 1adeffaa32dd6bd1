"""Steps whose rows threads share: NumPy's curve, the same bits for any number of threads, and no thread left over."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.backends import threads
from gpuprop.backends.installed import loops_fault
from gpuprop.backends.sharing import Crew
from gpuprop.core.embedding import InputEmbedding

pytestmark = [
    pytest.mark.skipif(loops_fault() is not None, reason="without Numba the rows are not shared"),
    pytest.mark.usefixtures("all_threads"),
]

RNG = np.random.default_rng(3)
#: The last batch of an epoch has 77 rows, which are one piece; 251 rows are two.
X, CLASSES, WEIGHTS = RNG.normal(size=(579, 41)), RNG.integers(0, 3, 579), RNG.uniform(0.5, 2, 579)


def network(device: str, **options: Any) -> gpuprop.Network:
    given: dict[str, Any] = {"hidden_activation": "silu", "loss": "categorical_cross_entropy", "seed": 0}
    given |= {"layer_sizes": (41, 211, 190, 3), "dtype": "float64", "device": device} | options
    return gpuprop.Network(given.pop("layer_sizes"), **given)


def trained(device: str, of_network: dict[str, Any] | None = None, **options: Any) -> gpuprop.Trainer:
    given: dict[str, Any] = {"optimizer": "adam", "batch_size": 251, "epochs": 2, "learning_rate": 0.01}
    return gpuprop.Trainer(network(device, **of_network or {}), **given | options).fit(X, CLASSES, WEIGHTS)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a training have so many threads, whatever processors there are and however long it takes."""

    def set_count(count: int) -> None:
        monkeypatch.setattr(threads.ThreadChoice, "following", lambda choice: (count, 10**9))
        monkeypatch.setattr(threads.ThreadChoice, "timed", lambda choice, n_updates: nullcontext())

    return set_count


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "adam": ({}, {}),
    "penalties and dropout": ({"l1": 1e-4, "l2": 1e-2, "dropout": 0.2}, {"optimizer": "momentum"}),
    "limits": ({}, {"clip_norm": 0.1, "max_norm": 1.0}),
    "several batches an update": ({}, {"accumulation_steps": 2}),
    "slopes": ({"slopes": True}, {"accumulation_steps": 2}),
    "embedding": ({"embedding": InputEmbedding(41), "layer_sizes": (164, 211, 100, 3)}, {}),
    "scaling layer": ({}, {"scaling_layer": True, "parametrization": "neural-tangent", "drop_last": True}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_shared_steps_follow_plain_numpy(kind: str, counted: Any) -> None:
    counted(2)
    of_network, options = KINDS[kind]
    shared, plain = trained("cpu", of_network, **options), trained("numpy", of_network, **options)
    assert "for the rows of a batch" in str(shared.plan_reason)
    np.testing.assert_allclose(shared.history["train_loss"], plain.history["train_loss"], rtol=1e-11)
    np.testing.assert_allclose(shared.network.parameters, plain.network.parameters, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["penalties and dropout", "slopes", "embedding"])
def test_any_number_of_threads_gives_the_same_bits(kind: str, counted: Any) -> None:
    of_network, options = KINDS[kind]
    found = []
    for count in (1, 2, 5):
        counted(count)
        found.append(trained("cpu", {"dtype": "float32", **of_network}, **options))
    for one in found[1:]:
        np.testing.assert_array_equal(one.network.parameters, found[0].network.parameters)
        assert one.history["train_loss"] == found[0].history["train_loss"]


def test_small_updates_and_functions_of_a_user_are_not_shared() -> None:
    tanh = gpuprop.Activation("own", np.tanh, lambda a: 1 - a * a)
    small = trained("cpu", {"layer_sizes": (41, 17, 3)}, plan="steps")
    own = trained("cpu", {"hidden_activation": tanh})
    assert "rows of a batch" not in str(small.plan_reason)
    assert "rows of a batch" not in str(own.plan_reason)


def test_a_training_leaves_no_thread_behind(counted: Any) -> None:
    counted(3)
    before = threading.active_count()
    one = trained("cpu")
    del one
    gc.collect()
    assert threading.active_count() == before


def test_a_fault_in_a_thread_reaches_the_caller(counted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpuprop.backends.cpu.ops import CpuOps

    def broken(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("no multiplication today")

    counted(2)
    monkeypatch.setattr(CpuOps, "hidden_delta", broken)
    with pytest.raises(RuntimeError, match="no multiplication today"):
        trained("cpu")


# --- a crew ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_threads", [1, 2, 7])
def test_a_crew_does_every_piece_once(n_threads: int) -> None:
    crew = Crew()
    done: list[int] = []
    with np.errstate(divide="raise"):
        for _ in range(50):
            crew.work_through(
                range(9), lambda piece: done.append(piece + (np.geterr()["divide"] != "raise")), n_threads
            )
    assert sorted(done) == sorted(list(range(9)) * 50)
    crew.end()
    crew.work_through(range(9), done.append, n_threads)  # threads are started anew
    crew.end()
    assert len(done) == 9 * 51


def test_a_thread_that_has_not_come_back_delays_nobody() -> None:
    crew, held = Crew(), threading.Event()
    main = threading.current_thread()

    def first(piece: int) -> None:
        if threading.current_thread() is main:
            held.wait(60)  # until the other thread has begun its piece
        else:
            held.set()

    crew.work_through(range(2), first, 2)
    (helper,) = crew._helpers
    helper._waits = False  # as if the processor had been taken from it
    done: list[int] = []
    crew.work_through(range(5), done.append, 2)
    assert done == list(range(5))
    crew.end()


def test_a_fresh_process_may_use_all_processors() -> None:
    code = """
import os
from gpuprop.backends.threads import allowed_threads, blas_threads
n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
assert allowed_threads() == min(n, blas_threads()), (allowed_threads(), n, blas_threads())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
