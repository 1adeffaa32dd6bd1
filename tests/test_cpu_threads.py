"""Threads of BLAS during a training: chosen, limited, restored; two trainings at once; fork and spawn."""

from __future__ import annotations

import contextlib
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.backends.cpu import fused
from gpuprop.backends.threads import blas_threads, limited_blas, threads_beside_a_team, threads_for_products
from gpuprop.core.rule import UpdateRule
from gpuprop.core.updates import Training
from gpuprop.maths.optimizers import get_optimizer

pytestmark = pytest.mark.usefixtures("all_threads")


class Watch(gpuprop.Callback):
    """Notes how many threads BLAS has while the training runs."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def on_step_end(self, trainer: gpuprop.Trainer, epoch: int, step: int) -> None:
        self.seen.add(blas_threads())


def train(**options: Any) -> Any:
    # Of the kind that MNIST is, whose loops the README's lines and others need too: compiled once for all of them.
    X = np.random.default_rng(0).integers(0, 256, (64, 7)).astype(np.uint8)
    scaling = gpuprop.InputScaling.divide(255)
    net = gpuprop.Network((7, 17, 3), loss="categorical_cross_entropy", input_scaling=scaling, seed=0, device="cpu")
    gpuprop.Trainer(net, epochs=2, batch_size=13, **options).fit(X, X[:, :3].argmax(axis=1))
    return net.parameters


def test_a_training_has_the_threads_it_asks_for_and_gives_them_back() -> None:
    before = blas_threads()
    watch = Watch()
    train(n_threads=1, callbacks=[watch])
    assert watch.seen == {1}
    assert blas_threads() == before
    with pytest.raises(ValueError, match="n_threads"):
        train(n_threads=0)


def test_of_two_limits_the_stricter_holds_whichever_ends_first() -> None:
    before = blas_threads()
    outer, inner = limited_blas(before), limited_blas(1)
    with outer, inner:
        assert blas_threads() == 1
    assert blas_threads() == before
    with contextlib.ExitStack() as later:
        with limited_blas(before):
            later.enter_context(limited_blas(1))
        assert blas_threads() == 1
    assert blas_threads() == before


def test_sizes_alone_say_how_many_threads_blas_has() -> None:
    net = gpuprop.Network((64, 64, 3), loss="squared_error", seed=0, device="numpy")
    data = net.prepare(np.zeros((8, 64)), np.zeros((8, 3)))
    training = Training(net.layers, data, UpdateRule(get_optimizer("sgd"), state={}), 8, 8, n_updates=1)
    found = [threads_for_products(replace(training, part_size=size)) for size in (8, 200, 2_000_000)]
    assert found == [None, 1, blas_threads()]
    assert threads_for_products(replace(training, n_threads=3)) == 3
    allowed = [replace(training, part_size=size, n_threads=3) for size in (8, 200, 2_000_000)]
    assert [threads_beside_a_team(one) for one in allowed] == [1, 1, min(3, blas_threads())]


def test_two_trainings_in_two_threads_give_the_bits_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "LEAST_SAVING", 0.0)
    alone = train()
    with ThreadPoolExecutor(2) as pool:
        for parameters in pool.map(lambda _: train(), range(4)):
            np.testing.assert_array_equal(parameters, alone)


def _train_in_child(queue: Any) -> None:
    fused.LEAST_SAVING = 0.0
    queue.put(train())


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_child_trains_like_its_parent(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    monkeypatch.setattr(fused, "LEAST_SAVING", 0.0)
    context: Any = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_train_in_child, args=(queue,))
    child.start()
    from_child = queue.get(timeout=120)
    child.join()
    np.testing.assert_array_equal(from_child, train())
