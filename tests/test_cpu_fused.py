"""The fused tier against plain NumPy, against itself made one update at a time, and with zeros skipped."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import llvmlite.binding
import numpy as np
import pytest

import gpuprop
from gpuprop.backends.cpu import fused, fused_step
from gpuprop.backends.cpu.panels import Panels, transposition
from gpuprop.backends.cpu.tiles import TileShape, column_lister, multiplication, row_lister, tile_shape
from gpuprop.backends.threads import ThreadChoice
from gpuprop.maths.activations import ACTIVATIONS
from gpuprop.maths.losses import LOSSES
from gpuprop.maths.optimizers import OPTIMIZERS

DTYPES = ["float32", "float64"]


# --- the tile --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_listed_and_dense_products_are_those_of_numpy(dtype: str) -> None:
    """Sums of n products in order: n + 4 roundings of |a| |b|; the listed product has the same bits."""
    shape = tile_shape(np.dtype(dtype))
    dense, listed = multiplication(shape, False), multiplication(shape, True)
    rng = np.random.default_rng(0)
    for n_rows, n, narrow in [(1, 1, True), (7, 17, False), (33, 7, True), (17, 33, False)]:
        wide = shape.lanes if narrow else shape.width
        a = (rng.normal(size=(n_rows, n)) * (rng.random((n_rows, n)) < 0.2)).astype(dtype)
        b = rng.normal(size=(n, wide)).astype(dtype)
        stride = n + 2 * shape.rows
        rows = np.zeros((n_rows, stride), dtype)
        rows[:, :n] = a
        lists, counts = np.zeros((-(-n_rows // shape.rows), n), np.int32), np.zeros(n_rows, np.int64)
        column_lister(shape.rows)(rows.ravel(), stride, n_rows, np.zeros(n, np.uint8), lists, counts)
        outs = [np.full((n_rows, wide), np.nan, dtype) for _ in range(2)]
        for multiply, out in zip((dense, listed), outs, strict=True):
            left, right = (rows.ravel(), 0, stride, 1, shape.rows * stride, n_rows), (b.ravel(), 0, wide, narrow)
            multiply(*left, *right, lists, counts, 0, n, out.reshape(-1), 0, wide, b.ravel(), 0, n * wide, 16)
        exact = a.astype(np.float64) @ b.astype(np.float64)
        bound = (n + 4) * np.finfo(dtype).eps / 2 * (np.abs(a) @ np.abs(b)).astype(np.float64)
        assert (np.abs(outs[0] - exact) <= bound + np.finfo(dtype).tiny).all()
        np.testing.assert_array_equal(outs[1], outs[0])
        assert counts[: len(lists)].sum() < lists.size or n_rows * n == 1


def test_lists_name_what_is_not_zero() -> None:
    x = np.zeros((5, 8), np.float32)
    x[0, 1], x[3, 4], x[4, 0] = 1.0, np.nan, -1.0
    marks, names, counts = np.zeros(40, np.uint8), np.zeros((3, 7), np.int32), np.zeros(3, np.int64)
    column_lister(2)(x.ravel(), 8, 5, marks, names, counts)
    assert [row[:count].tolist() for row, count in zip(names, counts, strict=True)] == [[1], [4], [0]]
    names, counts = np.zeros((4, 5), np.int32), np.zeros(4, np.int64)
    row_lister(2)(x.ravel(), 8, 5, marks, names, counts)
    assert [row[:count].tolist() for row, count in zip(names, counts, strict=True)] == [[0, 4], [], [3], []]


@pytest.mark.parametrize("shape", [TileShape(8, 2, 16), TileShape(6, 2, 4)])
def test_panels_hold_every_parameter_once(shape: TileShape) -> None:
    sizes = (7, 33, 17, 1)
    panels = Panels(sizes, shape)
    flat = np.arange(1.0, 1 + sum((m + 1) * n for m, n in [(7, 33), (33, 17), (17, 1)]), dtype=np.float32)
    packed, back = np.zeros(panels.size, np.float32), np.zeros_like(flat)
    for (own, there), (returned, _) in zip(panels.pieces(flat, packed), panels.pieces(back, packed), strict=True):
        there[...] = own
        returned[...] = there
    np.testing.assert_array_equal(back, flat)
    np.testing.assert_array_equal(np.sort(packed[packed != 0]), flat)
    # The transposed panels of the second layer are the panels of the transposed matrix.
    turned = Panels((17, 33), shape)
    expected, got = np.zeros(turned.size, np.float32), np.zeros(panels.transposed_size, np.float32)
    weights = flat[7 * 33 : 7 * 33 + 33 * 17].reshape(33, 17)
    for own, there in turned.pieces(np.concatenate([weights.T.ravel(), np.zeros(33, np.float32)]), expected):
        there[...] = own
    at, to = int(panels.weights_at[1]), int(panels.transposed_at[0])
    transposition(shape)(packed, at, 33, 17, got, to, 0, 17)
    np.testing.assert_array_equal(got[to : to + turned.n_weights], expected[: turned.n_weights])


# --- trainings -------------------------------------------------------------------------------------------------------

#: Every activation and most losses, with all that a Trainer offers; the optimizers are tested one by one in
#: test_cpu_loops.py. Each kind is compiled for seconds, hence few of them, and all pairs only when asked for.
KINDS: list[dict[str, Any]] = [
    {"hidden_activation": "relu", "loss": "categorical_cross_entropy", "optimizer": "adam"},
    {
        "hidden_activation": ["gelu", "tanh", "elu(0.5)", "softplus"],
        "loss": "huber(0.3)",
        "optimizer": "momentum",
        "l1": 0.01,
        "l2": 0.02,
        "dropout": (0.1, 0.3),
        "batch_size": 1,
    },
    {
        "hidden_activation": ["logistic", "silu", "leaky_relu(0.2)", "identity"],
        "loss": "poisson",
        "optimizer": "adamw",
        "l2": 0.02,
        "clip_norm": 0.01,
        "max_norm": 1.0,
        "conventions": "scikit-learn",
    },
]


def all_pairs() -> list[dict[str, Any]]:
    """Return as few kinds as hold every pair of activations, losses and optimizers.

    One for each loss with each optimizer. The hidden layers have four activations, another group with each loss and
    with each optimizer, so that every group comes to every loss and to every optimizer.
    """
    activations = [*ACTIVATIONS, "leaky_relu(0.2)"]
    groups = [[activations[(at + i) % len(activations)] for i in range(4)] for at in range(0, len(activations), 4)]
    return [
        {"hidden_activation": groups[(row + column) % len(groups)], "loss": loss, "optimizer": optimizer, "l2": 0.01}
        for row, loss in enumerate([*LOSSES, "pinball(0.9)"])
        for column, optimizer in enumerate(OPTIMIZERS)
    ]


if os.environ.get("GPUPROP_ALL_PAIRS"):
    KINDS += all_pairs()


def test_all_pairs_are_all_pairs() -> None:
    kinds = all_pairs()
    activations = {a for kind in kinds for a in kind["hidden_activation"]}
    losses, optimizers = {kind["loss"] for kind in kinds}, {kind["optimizer"] for kind in kinds}
    assert activations >= set(ACTIVATIONS)
    assert (losses >= set(LOSSES), optimizers) == (True, set(OPTIMIZERS))
    assert {(a, k["loss"]) for k in kinds for a in k["hidden_activation"]} == set(
        itertools.product(activations, losses)
    )
    assert {(a, k["optimizer"]) for k in kinds for a in k["hidden_activation"]} == set(
        itertools.product(activations, optimizers)
    )


@pytest.fixture
def zeros_skipped(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Fuse also the shortest of trainings; tell for each whether zeros were skipped."""
    monkeypatch.setattr(fused, "LEAST_SAVING", 0.0)
    plans: list[bool] = []
    looked = fused.mostly_zero

    def mostly_zero(*arguments: Any) -> bool:
        plans.append(looked(*arguments))
        return plans[-1]

    monkeypatch.setattr(fused, "mostly_zero", mostly_zero)
    return plans


def train(
    device: str, dtype: str, sizes: tuple[int, ...], *, weighted: bool = False, zeros: float = 0.0, **options: Any
) -> tuple[gpuprop.Network, gpuprop.Trainer]:
    rng = np.random.default_rng(0)
    X = rng.integers(1, 256, (61, sizes[0])).astype(np.uint8)
    X[rng.random(X.shape) < zeros] = 0
    y = rng.random((61, sizes[-1]))
    if options["loss"] == "binary_cross_entropy":
        y = np.round(y)
    if options["loss"] == "categorical_cross_entropy":
        y = np.eye(sizes[-1])[y.argmax(axis=1)]
    names = ("hidden_activation", "loss", "l1", "l2", "dropout")
    net = gpuprop.Network(
        sizes,
        dtype=dtype,
        seed=0,
        device=device,
        input_scaling=gpuprop.InputScaling.divide(255),
        **{name: options.pop(name) for name in names if name in options},
    )
    weight = rng.random(61) if weighted else None
    trainer = gpuprop.Trainer(net, **{"epochs": 5, "learning_rate": 0.01, "batch_size": 13, **options})
    return net, trainer.fit(X, y, weight)


#: With all 61 samples in a batch, large enough for the factors of its gradients to be copied.
WIDE = (fused_step.GATHERED // 61 + 5, 37, 3)


@pytest.mark.parametrize(("number", "options"), [*enumerate(KINDS)], ids=str)
def test_fused_updates_equal_plain_numpy(number: int, options: Any, zeros_skipped: list[bool]) -> None:
    """Over odd shapes, with and without weights; bounds as for the curves of whole runs."""
    # float32 without l1, whose kink at zero turns a rounding into a change of sign.
    dtype, bound = ("float32", 1e-4) if number == 2 else ("float64", 1e-9)
    several, drops = not isinstance(options["hidden_activation"], str), "dropout" in options
    shapes = [(7, 17, 33, 1, 5, 3), (33, 5, 7, 17, 40, 1)] if several else [(1, 1, 1), (7, 17, 33, 3), WIDE]
    if number == 0:
        shapes = [*shapes, (5, 3)]
    for index, sizes in enumerate(shapes):
        if sizes == WIDE:
            options = {**options, "batch_size": 61}
        net, trainer = train("numpy", dtype, sizes, weighted=index % 2 == 1, **options)
        cpu, cpu_trainer = train("cpu", dtype, sizes, weighted=index % 2 == 1, **options)
        assert zeros_skipped == [] if drops else zeros_skipped.pop() is False
        scale = float(np.abs(net.parameters).max())
        np.testing.assert_allclose(cpu.parameters, net.parameters, rtol=bound, atol=bound * scale)
        for name, column in trainer.history.items():
            if column[0] is not None and name != "seconds":
                np.testing.assert_allclose(cpu_trainer.history[name], column, rtol=10 * bound, atol=bound)


@pytest.mark.parametrize(("sizes", "batch_size"), [((40, 17, 3), 13), (WIDE, 61)], ids=["narrow", "wide"])
def test_skipping_zeros_changes_no_bit(
    sizes: tuple[int, ...], batch_size: int, zeros_skipped: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**KINDS[0], "batch_size": batch_size, "zeros": 0.95}
    skipped, _ = train("cpu", "float64", sizes, **options)
    assert zeros_skipped == [True]
    again, _ = train("cpu", "float64", sizes, **options)
    monkeypatch.setattr(fused, "MOST_KEPT", 0.0)
    dense, _ = train("cpu", "float64", sizes, **options)
    assert zeros_skipped == [True, True, False]
    np.testing.assert_array_equal(skipped.parameters, dense.parameters)
    np.testing.assert_array_equal(skipped.parameters, again.parameters)


class Fixed(ThreadChoice):
    """A choice of threads that is none."""

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads

    def following(self) -> tuple[int, int]:
        return self.n_threads, 7  # updates of a call

    def timed(self, n_updates: int) -> Any:
        return contextlib.nullcontext()


@pytest.mark.parametrize("n_threads", [2, 3, 7])
@pytest.mark.parametrize(
    ("sizes", "dtype", "options"),
    [
        ((40, 17, 3), "float32", {**KINDS[0], "zeros": 0.95, "batch_size": 13, "weighted": True, "l1": 0.01}),
        (WIDE, "float64", {**KINDS[0], "batch_size": 61}),
        ((7, 17, 33, 1, 5, 3), "float64", KINDS[1]),
    ],
    ids=["listed", "gathered", "dropout"],
)
def test_threads_change_no_bit(
    sizes: tuple[int, ...],
    dtype: str,
    options: Any,
    n_threads: int,
    zeros_skipped: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More threads than processors, and than tiles in a batch, included."""
    results = []
    for count in (1, n_threads):
        monkeypatch.setattr(fused, "ThreadChoice", lambda products, limit, count=count: Fixed(count))
        net, trainer = train("cpu", dtype, sizes, **options)
        results.append((net.parameters, trainer.history["train_loss"], *trainer.progress.optimizer_state.values()))
    for one, several in zip(*results, strict=True):
        np.testing.assert_array_equal(several, one)


def test_limits_on_norms_are_one_threads(zeros_skipped: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    shared = []

    def choice(products: int, limit: int | None) -> Fixed:
        shared.append(products)
        return Fixed(1)

    monkeypatch.setattr(fused, "ThreadChoice", choice)
    train("cpu", "float32", (5, 3), **KINDS[0], clip_norm=1.0)
    train("cpu", "float32", (5, 3), **KINDS[0], max_norm=1.0)
    train("cpu", "float32", (5, 3), **KINDS[0])
    assert shared == [0, 0, 3 * 13 * 15]


class Counter(gpuprop.Callback):
    """Counts updates, and shows that the parameters of each are there to be seen."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def on_step_end(self, trainer: gpuprop.Trainer, epoch: int, step: int) -> None:
        self.seen.append(trainer.network.parameters.tobytes())


def test_one_at_a_time_and_all_at_once_give_the_same_bits(zeros_skipped: list[bool]) -> None:
    counter = Counter()
    at_once, _ = train("cpu", "float64", (7, 17, 33, 3), **KINDS[0])
    watched, _ = train("cpu", "float64", (7, 17, 33, 3), callbacks=[counter], **KINDS[0])
    assert len(zeros_skipped) == 2
    np.testing.assert_array_equal(watched.parameters, at_once.parameters)
    assert len(set(counter.seen)) == 25


def test_decay_leaves_no_subnormal_numbers(zeros_skipped: list[bool]) -> None:
    """Arithmetic with them takes a hundred times as long; weights that nothing but decay changes come to them."""
    options = {name: value for name, value in KINDS[2].items() if name not in ("optimizer", "l2")}
    rng = np.random.default_rng(0)
    X, y = rng.integers(1, 256, (64, 5)).astype(np.uint8), rng.random((64, 1))  # compiled above for such inputs
    X[:, 0] = 0
    left = []
    for device in ("numpy", "cpu"):
        net = gpuprop.Network(
            (5, 4, 3, 4, 3, 1),
            hidden_activation=options["hidden_activation"],
            loss=options["loss"],
            l2=1e-38,
            seed=0,
            device=device,
            input_scaling=gpuprop.InputScaling.divide(255),
        )
        trainer = gpuprop.Trainer(
            net,
            optimizer=gpuprop.optimizers.AdamW(weight_decay=10.0),
            learning_rate=0.01,
            batch_size=8,
            epochs=128,
            **{name: options[name] for name in ("clip_norm", "max_norm", "conventions")},
        ).fit(X, y)
        arrays = [net.parameters, *trainer.progress.optimizer_state.values()]
        tiny = np.finfo(np.float32).tiny
        left.append([int(((array != 0) & (np.abs(array) < tiny)).sum()) for array in arrays])
        # Without fused multiply-add the tenth that decays is itself too small: such a weight stays where it is.
        assert np.abs(net.weights[0][0]).max() <= 10 * tiny < np.abs(net.weights[0][1:]).max()
    assert left[0][0] > 0  # the reference flushes the optimizer's state only
    assert left[1] == [0, 0, 0]
    assert zeros_skipped == [False]


OTHER_PROCESSORS = """
import sys

import numpy as np

from gpuprop.backends.cpu.tiles import tile_shape
from tests import test_cpu_fused

shape = tile_shape(np.dtype("float32"))
assert shape.lanes == int(sys.argv[1]), shape
test_cpu_fused.test_listed_and_dense_products_are_those_of_numpy("float32")
test_cpu_fused.test_panels_hold_every_parameter_once(shape)
"""


@pytest.mark.skipif(
    not (llvmlite.binding.get_host_cpu_features() or {}).get("avx2"), reason="the tile of AVX2 needs such a processor"
)
@pytest.mark.parametrize(("name", "features", "lanes"), [("haswell", "+avx2,+fma", "8"), ("generic", "", "4")])
def test_tiles_of_other_processors(name: str, features: str, lanes: str) -> None:
    environment = {**os.environ, "NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    command = [sys.executable, "-W", "error", "-c", OTHER_PROCESSORS, lanes]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_divergence_is_explained(zeros_skipped: list[bool]) -> None:
    with pytest.raises(gpuprop.NonFiniteLossError, match=r"epoch 1, step 2 of 5: .* became.*learning rate"):
        train("cpu", "float64", (7, 17, 33, 3), **{**KINDS[0], "learning_rate": 1e200})
    assert zeros_skipped == [False]


@pytest.mark.parametrize(("bytes_of_vector", "fuses"), [(64, True), (32, False), (16, False)])
def test_what_a_product_saves_follows_from_the_width_of_vectors(
    bytes_of_vector: int, fuses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """784-128-10 in 3,000 batches of 128: 0.44 ms are saved in each with AVX-512, 0.28 with AVX2."""
    for dtype in (np.dtype("float32"), np.dtype("float64")):
        shape = TileShape(8, 2, bytes_of_vector // dtype.itemsize)
        monkeypatch.setattr(fused, "tile_shape", lambda dtype, shape=shape: shape)
        spec = SimpleNamespace(dtype=dtype, layer_sizes=(784, 128, 10))
        layers = SimpleNamespace(spec=spec)
        training: Any = SimpleNamespace(products=39_027_840, updates_before=0, n_updates=3_000, layers=layers)
        assert (fused.not_worth_fusing(training) is None) == fuses


def test_what_is_not_covered_takes_the_primitives(zeros_skipped: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Accumulated batches, wide layers, short trainings; they are counted as plans if they are fused."""
    plain, _ = train("numpy", "float64", (7, 5, 3), accumulation_steps=2, **KINDS[0])
    cpu, _ = train("cpu", "float64", (7, 5, 3), accumulation_steps=2, **KINDS[0])
    np.testing.assert_allclose(cpu.parameters, plain.parameters, rtol=1e-9, atol=1e-12)
    monkeypatch.setattr(fused, "WIDEST_PAIR", 4)
    train("cpu", "float64", (7, 5, 3), **KINDS[0])
    monkeypatch.setattr(fused, "WIDEST_PAIR", 5)
    monkeypatch.setattr(fused, "LEAST_SAVING", 0.5)
    train("cpu", "float64", (7, 5, 3), **KINDS[0])
    assert zeros_skipped == []
