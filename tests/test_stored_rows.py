"""Rows that stay on disk: their files, their statistics, and trainings on them that equal those in memory."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from sklearn import neural_network

import gpuprop
from gpuprop.datasets import stored_arrays
from gpuprop.datasets.stored import StoredRows
from gpuprop.training.windowed_orders import BlockwiseOrders, WindowedOrders
from gpuprop.training.windows import windows_of

Array = NDArray[Any]
N, WIDTH = 1003, 5


def data(*, regression: bool = False, dtype: str = "float32") -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    X = (
        rng.integers(0, 256, (N, WIDTH)).astype(dtype)
        if dtype == "uint8"
        else rng.normal(2, 3, (N, WIDTH)).astype(dtype)
    )
    if regression:
        return X, np.stack([X[:, 0] - X[:, 1], X[:, 2] ** 2], axis=1).astype(np.float64)
    return X, (X[:, 0] > X[:, 1]).astype(np.int64) + (X[:, 2] > X[:, 3])


def npy_pair(folder: Path, X: Array, y: Array) -> Path:
    np.save(folder / "X.npy", X)
    np.save(folder / "y.npy", y)
    return folder


def npy_table(folder: Path, X: Array, y: Array) -> Path:
    np.save(folder / "table.npy", np.column_stack([X, y]))
    return folder / "table.npy"


def npz_folder(folder: Path, X: Array, y: Array) -> Path:
    for part, rows in enumerate(np.array_split(np.arange(N), 13)):
        np.savez(folder / f"part-{part:02d}.npz", X=X[rows], y=y[rows])
    return folder


def parquet_folder(folder: Path, X: Array, y: Array) -> Path:
    for part, rows in enumerate(np.array_split(np.arange(N), 3)):
        columns = {f"x{i}": X[rows, i] for i in range(WIDTH)} | {"y": y[rows]}
        pq.write_table(pa.table(columns), folder / f"part-{part}.parquet", row_group_size=70)
    return folder


def arrow_folder(folder: Path, X: Array, y: Array) -> Path:
    """A stream, a file, and a compressed file."""
    for end, rows in zip(("a.arrows", "b.arrow", "c.feather"), np.array_split(np.arange(N), 3), strict=True):
        table = pa.table({f"x{i}": X[rows, i] for i in range(WIDTH)} | {"y": y[rows]})
        options = pa.ipc.IpcWriteOptions(compression="zstd" if end == "c.feather" else None)
        make = pa.ipc.new_stream if end == "a.arrows" else pa.ipc.new_file
        with make(str(folder / end), table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=70)
    return folder


def idx_pair(folder: Path, X: Array, y: Array) -> Path:
    for name, rows in (("a-images-idx3-ubyte", X.reshape(N, WIDTH, 1)), ("a-labels-idx1-ubyte", y)):
        header = bytes([0, 0, 8, rows.ndim]) + b"".join(struct.pack(">I", size) for size in rows.shape)
        (folder / name).write_bytes(header + rows.astype(np.uint8).tobytes())
    return folder / "a-images-idx3-ubyte"


FORMATS: dict[str, tuple[Callable[[Path, Array, Array], Path], str]] = {
    "npy pair": (npy_pair, "float32"),
    "npy table": (npy_table, "float64"),
    "npz folder": (npz_folder, "uint8"),
    "parquet folder": (parquet_folder, "float32"),
    "arrow folder": (arrow_folder, "float32"),
    "idx pair": (idx_pair, "uint8"),
}


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut arrays into pieces of a few rows."""
    monkeypatch.setattr(stored_arrays, "BLOCK_BYTES", 400)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_rows_classes_and_statistics_of_the_arrays(name: str, tmp_path: Path) -> None:
    write, dtype = FORMATS[name]
    X, y = data(dtype=dtype)
    rows = gpuprop.datasets.open(write(tmp_path, X, y))
    assert (rows.n_samples, rows.n_features, rows.dtype, rows.task) == (N, WIDTH, np.dtype(dtype), "classification")
    assert [int(label) for label in rows.classes or ()] == [0, 1, 2]
    assert len(rows.pieces) > 10
    parts = list(rows.blocks())
    assert np.array_equal(np.concatenate([X for X, _ in parts]), X)
    assert np.array_equal(np.concatenate([y for _, y in parts]), y)
    assert rows.statistics.mean == pytest.approx(X.mean(axis=0, dtype=np.float64), rel=1e-12)
    assert rows.statistics.deviation == pytest.approx(X.astype(np.float64).std(axis=0), rel=1e-12)
    assert rows.statistics.counts.tolist() == np.bincount(y).tolist()


def test_targets_of_a_regression_and_of_text_are_understood(tmp_path: Path) -> None:
    X, y = data(regression=True)
    rows = gpuprop.datasets.open(npy_pair(tmp_path, X, y))
    assert (rows.task, rows.n_outputs, rows.classes) == ("regression", 2, None)
    scaled, mean, deviation = rows.standardised()
    assert mean == pytest.approx(y.mean(axis=0), rel=1e-12)
    assert deviation == pytest.approx(y.std(axis=0), rel=1e-12)
    read = np.concatenate([y for _, y in scaled.blocks()])
    assert read == pytest.approx((y - y.mean(axis=0)) / y.std(axis=0), abs=1e-12)
    names = np.array(["ant", "bee", "cow"])[data()[1]]
    table = pa.table({"a": X[:, 0], "b": X[:, 1], "kind": names})
    pq.write_table(table, tmp_path / "kinds.parquet", row_group_size=50)
    assert gpuprop.datasets.open(tmp_path / "kinds.parquet").classes == ["ant", "bee", "cow"]


def orders_of(rows: StoredRows, trainer: gpuprop.Trainer, batch_size: int) -> WindowedOrders:
    return windows_of(rows, trainer, batch_size).orders


# The compiled loops take a while to compile: one format suffices for them.
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in FORMATS),
        ("parquet folder", {"shards": 4}),
        ("npy pair", {"shuffle": False}),
        *((name, {"shuffle": "full"}) for name in ("npy pair", "npy table", "idx pair")),
        ("npz folder", {"plan": "fused", "device": "cpu"}),
    ],
)
def test_a_training_equals_the_one_in_memory_bit_for_bit(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    write, dtype = FORMATS[name]
    X, y = data(dtype=dtype)
    rows = gpuprop.datasets.open(write(tmp_path, X, y), memory=12_000)
    options = dict(options)
    device = options.pop("device", "numpy")
    scaling = gpuprop.InputScaling(rows.statistics.mean, 1 / rows.statistics.deviation)

    def trainer(**more: Any) -> gpuprop.Trainer:
        network = gpuprop.Network(
            (WIDTH, 9, 3), loss="categorical_cross_entropy", input_scaling=scaling, device=device, seed=1
        )
        how = {"batch_size": 37, "epochs": 3, "label_smoothing": 0.1, "seed": 5}
        return gpuprop.Trainer(network, **{**how, **options, **more})

    apart = trainer().fit(rows)
    orders = orders_of(rows, apart, 37)
    assert len(orders.windows(0)) > 3
    # A full shuffle visits the rows as a training in memory does by itself.
    whole = trainer(**({"row_orders": orders} if options.get("shuffle", True) is True else {})).fit(X, y)
    assert np.array_equal(apart.network.host_parameters(), whole.network.host_parameters())
    for column in whole.history:
        assert column == "seconds" or apart.history[column] == whole.history[column]
    assert apart.plan_reason is not None
    assert "the rows stay on disk" in apart.plan_reason


def test_orders_are_permutations_that_mix_the_rows_of_several_pieces() -> None:
    starts = tuple(np.cumsum([0, *([40] * 25), 3]).tolist())
    orders = BlockwiseOrders(starts, window_rows=200, seed=7)
    first, second = orders(0, N), orders(1, N)
    assert sorted(first) == list(range(N))
    assert sorted(second) == list(range(N))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, BlockwiseOrders(starts, 200, 7)(0, N))
    assert len({row // 40 for row in first[:50]}) > 3
    assert max(sum(starts[one + 1] - starts[one] for one in pieces) for pieces in orders.windows(0)) <= 200


@pytest.mark.parametrize("shuffle", [True, "full"])
def test_a_stopped_training_goes_on_with_the_same_bits(shuffle: Any, tmp_path: Path) -> None:
    class Ending(gpuprop.Callback):
        def on_step_end(self, trainer: gpuprop.Trainer, epoch: int, step: int) -> None:
            if epoch == 2 and step == 11:
                raise ZeroDivisionError

    X, y = data(regression=True)
    rows = gpuprop.datasets.open(npy_pair(tmp_path, X, y), memory=16_000)

    def trainer(**more: Any) -> gpuprop.Trainer:
        network = gpuprop.Network((WIDTH, 6, 2), device="numpy", seed=1)
        return gpuprop.Trainer(
            network,
            batch_size=20,
            epochs=3,
            learning_rate=1e-3,
            validation=0.1,
            early_stopping=5,
            shuffle=shuffle,
            **more,
        )

    whole = trainer().fit(rows)
    assert whole.history["validation_r2"][0] is not None
    checkpoint = gpuprop.Checkpoint(tmp_path / "checkpoints", "3 updates")
    with pytest.raises(ZeroDivisionError):
        trainer(checkpoint=checkpoint, callbacks=[Ending()]).fit(rows)
    later = trainer(checkpoint=checkpoint).fit(rows, resume_from="auto")
    assert np.array_equal(later.network.host_parameters(), whole.network.host_parameters())
    np.save(tmp_path / "X.npy", X[::-1])
    other = gpuprop.datasets.open(tmp_path / "X.npy", target=0)
    with pytest.raises((gpuprop.ResumeError, ValueError)):
        trainer(checkpoint=checkpoint).fit(other, resume_from="auto")


def test_what_cannot_be_is_refused_with_a_reason(tmp_path: Path) -> None:
    X, y = data()
    rows = gpuprop.datasets.open(npy_pair(tmp_path, X, y), memory=16_000)
    network = gpuprop.Network((WIDTH, 3), loss="categorical_cross_entropy", device="numpy")
    with pytest.raises(ValueError, match="have their targets with them"):
        gpuprop.Trainer(network).fit(rows, y)
    (tmp_path / "parts").mkdir()
    apart = gpuprop.datasets.open(npz_folder(tmp_path / "parts", X, y), memory=16_000)
    with pytest.raises(ValueError, match="row_orders: parts is read a block at a time"):
        gpuprop.Trainer(network, row_orders=lambda epoch, n: np.arange(n)).fit(apart)
    with pytest.raises(ValueError, match="shuffle: parts is read a block at a time"):
        gpuprop.Trainer(network, shuffle="full").fit(apart)
    shutil.rmtree(tmp_path / "parts")
    with pytest.raises(ValueError, match=r"shuffle.*'ful'"):
        gpuprop.Trainer(network, shuffle="ful")  # type: ignore[arg-type]
    with pytest.raises(gpuprop.DataError, match="expected at most 16,000; take a smaller share"):
        rows.held_out(0.9, seed=0)
    with pytest.raises(gpuprop.DataError, match="expected at most a quarter of the memory"):
        gpuprop.datasets.open(tmp_path, memory=100)
    with pytest.raises(gpuprop.DataError, match="there is no such file"):
        gpuprop.datasets.open(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(gpuprop.DataError, match=r"got a folder of .*npy.*txt"):
        gpuprop.datasets.open(tmp_path)


@pytest.mark.parametrize("name", ["parquet", "npz"])
def test_sample_weights_on_disk_count_as_those_in_memory(name: str, tmp_path: Path) -> None:
    X, y = data(regression=True)
    y, weight = y[:, 0], np.random.default_rng(8).uniform(0, 3, N)
    weight[5:50] = 0
    if name == "npz":
        for part, rows_of_file in enumerate(np.array_split(np.arange(N), 13)):
            columns = {"X": X[rows_of_file], "y": y[rows_of_file], "weight": weight[rows_of_file]}
            np.savez(tmp_path / f"{part:02d}.npz", allow_pickle=False, **columns)
    else:
        columns = {"weight": weight, "y": y} | {f"x{i}": X[:, i] for i in range(WIDTH)}
        pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=70)
    target = None if name == "npz" else "y"
    rows = gpuprop.datasets.open(tmp_path, memory=16_000, sample_weight="weight", target=target)
    assert rows.n_features == WIDTH

    def trainer(**options: Any) -> gpuprop.Trainer:
        network = gpuprop.Network((WIDTH, 6, 1), device="numpy", l2=0.01, seed=1)
        return gpuprop.Trainer(network, batch_size=20, epochs=2, learning_rate=1e-3, **options)

    apart = trainer().fit(rows)
    whole = trainer(row_orders=orders_of(rows, apart, 20)).fit(X, y, weight)
    assert np.array_equal(apart.network.host_parameters(), whole.network.host_parameters())
    assert apart.history["train_loss"] == whole.history["train_loss"]
    # In memory the targets' variation is that of targets in float32.
    assert apart.history["train_r2"] == pytest.approx(whole.history["train_r2"], rel=1e-6)
    assert len(rows.held_out(0.05, 0)[1]) == 3
    assert trainer(validation=0.05).fit(rows).history["validation_loss"][0] is not None
    with pytest.raises(ValueError, match="need conventions='gpuprop'"):
        trainer(conventions="scikit-learn").fit(rows)
    with pytest.raises(gpuprop.DataError, match=r"'w'|and w"):
        gpuprop.datasets.open(tmp_path, sample_weight="w", target=target)


def test_wrong_sample_weights_are_refused(tmp_path: Path) -> None:
    X, y = data()
    weight = np.ones(N)
    weight[7] = -1
    np.savez(tmp_path / "00.npz", X=X, y=y, weight=weight)
    with pytest.raises(gpuprop.DataError, match=r"row 8 of a block of .*got the sample weight -1"):
        _ = gpuprop.datasets.open(tmp_path, sample_weight="weight").weights
    np.save(tmp_path / "table.npy", X)
    with pytest.raises(gpuprop.DataError, match="which Parquet, Arrow and NPZ files may have"):
        gpuprop.datasets.open(tmp_path / "table.npy", sample_weight="weight")


def test_what_is_no_table_of_arrows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.arrow").write_bytes(b"ARROW1 and no more")
    with pytest.raises(gpuprop.DataError, match="is no file or stream of Arrow's"):
        gpuprop.datasets.open(tmp_path)
    text = pa.table({"a": [1.0, 2.0], "y": pa.array(["yes", "no"]).dictionary_encode()})
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), text.schema) as writer:
        writer.write_table(text)
    with pytest.raises(gpuprop.DataError, match="expected columns without a dictionary"):
        gpuprop.datasets.open(tmp_path)


def test_partial_fit_over_pieces_gives_what_it_gives_in_scikit_learn(tmp_path: Path) -> None:
    X, y = data()
    rows = gpuprop.datasets.open(npz_folder(tmp_path, X, y))
    models = [
        library.MLPClassifier((6,), random_state=3, learning_rate_init=0.01) for library in (neural_network, gpuprop)
    ]
    for model in models:
        for _ in range(2):
            for piece in rows.blocks():
                model.partial_fit(*piece, classes=rows.classes)
    theirs, ours = models
    assert len(ours.loss_curve_) == 26
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-5)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-4, atol=1e-6)


def test_a_reader_that_fails_ends_the_training_with_its_error(tmp_path: Path) -> None:
    X, y = data(dtype="float32")
    rows = gpuprop.datasets.open(npy_pair(tmp_path, X, y), memory=12_000)
    X[700, 3] = np.nan
    np.save(tmp_path / "X.npy", X)
    network = gpuprop.Network((WIDTH, 3), loss="categorical_cross_entropy", device="numpy")
    with pytest.raises(gpuprop.DataError, match="row 701"):
        gpuprop.Trainer(network, batch_size=10, epochs=1).fit(rows)


_IN_LITTLE_MEMORY = """
import sys, resource
import numpy as np, gpuprop
rows = gpuprop.datasets.open(sys.argv[1], memory=32 * 2**20)
network = gpuprop.Network((100, 8, 2), loss="categorical_cross_entropy", device="numpy", seed=0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
np.ones((500, 500)) @ np.ones((500, 500))  # BLAS has its buffers from now on
bytes_now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (bytes_now + 160 * 2**20, -1))
gpuprop.Trainer(network, epochs=1, batch_size=2000).fit(rows)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_memory_is_bounded_by_the_setting(tmp_path: Path) -> None:
    """Rows of 320 MB are trained on within 160 MiB of address space beyond what the program takes before."""
    shape, made = (800_000, 100), np.random.default_rng(0).normal(size=(8000, 100)).astype(np.float32)
    table = np.lib.format.open_memmap(tmp_path / "X.npy", mode="w+", dtype=np.float32, shape=shape)
    for first in range(0, len(table), len(made)):
        table[first : first + len(made)] = made
    table.flush()
    np.save(tmp_path / "y.npy", np.tile(made[:, 0] > 0, 100).astype(np.uint8))
    # Each further thread would reserve 64 MiB of addresses for its own heap, and BLAS as much for each of its threads.
    env = os.environ | {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _IN_LITTLE_MEMORY, str(tmp_path)], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 100 * 1024  # KiB
