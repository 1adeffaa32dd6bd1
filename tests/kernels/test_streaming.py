"""Data sets that are streamed in chunks: the bits of a resident run, room that is short, sizes past 32-bit indices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.backends import get_ops
from gpuprop.backends.cuda.ops import CudaOps
from gpuprop.backends.cuda.residence import ENVIRONMENT_VARIABLE, HostRows
from gpuprop.backends.cuda.streaming import RowStream
from gpuprop.errors import DeviceMemoryError
from tests.kernels.test_training import DEVICE, blobs, train

Ops = Any


@pytest.fixture(autouse=True)
def _no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUPROP_DEVICE", raising=False)
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[RowStream]:
    """The streams that trainings open."""
    opened: list[RowStream] = []
    init = RowStream.__init__

    def note(self: RowStream, *arguments: Any) -> None:
        init(self, *arguments)
        opened.append(self)

    monkeypatch.setattr(RowStream, "__init__", note)
    return opened


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "float inputs, ragged": ({"dtype": "float64"}, {"batch_size": 4, "epochs": 1}),
    "everything": (
        {"dropout": (0.1, 0.3), "l2": 1e-2},
        {"batch_size": 3, "accumulation_steps": 2, "conventions": "scikit-learn", "validation": 0.2},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_bits_of_a_resident_run(case: str, streams: list[RowStream], monkeypatch: pytest.MonkeyPatch) -> None:
    network, how = CASES[case]
    X, y, weight = blobs(20)
    data = (X.astype(np.float64), y) if "dtype" in network else (X, y, weight)
    how = {"epochs": 2, **how}
    resident = train(DEVICE, (5, 4, 3), data, network, **how)
    assert not streams
    # A row takes (8 + 8) * 8 bytes of float64, or 16 of uint8 and (8 + 1) * 4: two chunks of one update of 4 or 6 rows.
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "1100" if "dtype" in network else "650")
    streamed = train(DEVICE, (5, 4, 3), data, network, **how)
    assert [stream.chunk_rows for stream in streams] == [4 if "dtype" in network else 6]
    assert streamed.network.host_parameters().tobytes() == resident.network.host_parameters().tobytes()
    for name in ("train_loss", "train_accuracy", "validation_loss"):
        assert streamed.history[name] == resident.history[name]


def test_answers_of_a_network_whose_data_stay_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, weight = blobs(5)
    net = gpuprop.Network((5, 4, 3), loss="categorical_cross_entropy", seed=0, device=DEVICE)
    monkeypatch.setattr("gpuprop.model.evaluation.CHUNK_ROWS", 3)
    expected = net.forward(X), net.evaluate(X, y, weight), net.loss_and_gradients(X, y)[1][0]
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "10")
    assert isinstance(net.prepare(X, y).inputs, HostRows)
    found = net.forward(X), net.evaluate(X, y, weight), net.loss_and_gradients(X, y)[1][0]
    assert found[1] == expected[1]
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[2], expected[2])


def test_an_update_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, _ = blobs(27)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "100")
    with pytest.raises(
        DeviceMemoryError, match=r"two updates of 8 rows need .* lower batch_size or accumulation_steps"
    ):
        train(DEVICE, (5, 4, 3), (X, y), {}, epochs=1, batch_size=8)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "lots")
    with pytest.raises(ValueError, match="GPUPROP_DATA_MEMORY: got 'lots', expected bytes such as 500000000, 500M or"):
        train(DEVICE, (5, 4, 3), (X, y), {}, epochs=1)


def test_out_of_memory_makes_smaller_chunks(streams: list[RowStream], monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, _ = blobs(11)
    resident = train(DEVICE, (5, 4, 3), (X, y), {}, epochs=1, batch_size=2)
    asarray, empty = CudaOps.asarray, CudaOps.empty
    tried: list[int] = []

    def no_upload(self: CudaOps, array: Any, dtype: Any) -> Any:
        if np.shape(array) == (11, 5):
            raise DeviceMemoryError("no room for all of it")
        return asarray(self, array, dtype)

    def little(self: CudaOps, shape: Any, dtype: Any) -> Any:
        if np.dtype(dtype) == np.uint8 and not isinstance(shape, int):
            tried.append(shape[0])
            if shape[0] > 4:
                raise DeviceMemoryError("no room for a chunk")
        return empty(self, shape, dtype)

    monkeypatch.setattr(CudaOps, "asarray", no_upload)
    monkeypatch.setattr(CudaOps, "empty", little)
    streamed = train(DEVICE, (5, 4, 3), (X, y), {}, epochs=1, batch_size=2)
    assert tried[:3] == [12, 6, 2]
    assert [stream.chunk_rows for stream in streams] == [2]
    assert streamed.network.host_parameters().tobytes() == resident.network.host_parameters().tobytes()


def test_what_32_bits_cannot_index_is_streamed(tmp_path: Path) -> None:
    ops: Ops = get_ops(DEVICE)
    # 2**32 elements that take no room: a file that is all hole but for two of its rows.
    huge = np.memmap(tmp_path / "huge", np.uint8, "w+", shape=(2**22, 1024))
    huge[-1] = huge[7] = np.arange(1024) % 251
    inputs, targets, weight = ops.load(huge, np.ones((2**22, 1), np.float32), None)
    assert weight is None
    assert isinstance(inputs, HostRows)
    assert isinstance(targets, HostRows)
    rows = ops.empty((2, 1024), np.float32)
    order = ops.asarray([5, 2**22 - 1, 7], np.int32)
    ops.take_batch(inputs, order, 1, None, rows)
    np.testing.assert_array_equal(ops.to_numpy(rows), huge[[2**22 - 1, 7]])
    stream = RowStream(ops, [huge, None, None], 3)
    stream.begin(np.array([1, 2, 3, 2**22 - 1], np.int32), None)
    stream.fetch(1)
    np.testing.assert_array_equal(ops.to_numpy(stream.buffers[1][0])[0], huge[-1])
