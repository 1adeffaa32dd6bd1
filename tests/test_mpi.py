"""Updates cut into shards, in one process and in several that `mpirun` starts; CI also kills some of them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.core.communicator import LoneProcess, Sharding, add_in_a_tree
from gpuprop.training.sharding import check_shards
from tests.mpi_harness import WORKER, command, environment, mpirun
from tests.mpi_worker import Case, cases, digest, trained

needs_mpi = pytest.mark.skipif(
    mpirun() is None or importlib.util.find_spec("mpi4py") is None,
    reason="needs mpirun and mpi4py: pip install 'gpuprop[mpi]' mpich",
)


def run(n: int, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(n, *arguments), env=environment(), capture_output=True, text=True, check=False, timeout=600, **options
    )
    assert not check or done.returncode == 0, done.stderr
    return done


# --- one process -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_every_shard_has_one_process_and_every_row_one_shard(size: int) -> None:
    class Some(LoneProcess):
        def __init__(self, rank: int) -> None:
            self.rank, self.size = rank, size

    shardings = [Sharding(8, Some(rank)) for rank in range(size)]
    assert [shard for sharding in shardings for shard in sharding.own] == list(range(8))
    for n_rows in (0, 1, 7, 8, 9, 100):
        places = [shardings[0].rows(n_rows, shard) for shard in range(8)]
        assert [row for first, end in places for row in range(first, end)] == list(range(n_rows))
        counts = [end - first for first, end in places]
        assert max(counts) - min(counts) <= 1


def test_a_tree_adds_neighbours_first() -> None:
    rows = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    pairs = [rows[i] + rows[i + 1] for i in range(0, 8, 2)]
    expected = (pairs[0] + pairs[1]) + (pairs[2] + pairs[3])
    assert np.array_equal(add_in_a_tree(rows), expected)
    assert add_in_a_tree(rows[:1]) is not rows


class _Several(LoneProcess):
    """Some processes, of which this is the first."""

    def __init__(self, size: int) -> None:
        self.size = size


def test_shards_are_a_power_of_two_that_processes_divide() -> None:
    assert check_shards(None, None) is None
    assert check_shards(None, LoneProcess()) == 8
    assert check_shards(None, _Several(16)) == 16
    assert check_shards(2, _Several(2)) == 2
    with pytest.raises(ValueError, match="a power of two"):
        check_shards(6, None)
    with pytest.raises(gpuprop.CommunicatorError, match="got 3 processes for 8 shards of each update, expected one of"):
        check_shards(None, _Several(3))
    with pytest.raises(gpuprop.CommunicatorError, match="got 4 processes for 2 shards"):
        check_shards(2, _Several(4))
    with pytest.raises(ValueError, match="communicator: got 'dask'"):
        gpuprop.Trainer(gpuprop.Network((2, 1)), communicator="dask")


def test_paths_and_shards_go_together_or_are_refused() -> None:
    X, y = gpuprop.datasets.make_xor()

    def trainer(**options: Any) -> gpuprop.Trainer:
        network = gpuprop.Network((2, 3, 1), loss="binary_cross_entropy", device="numpy")
        return gpuprop.Trainer(network, epochs=1, **options)

    with pytest.raises(gpuprop.PlanError, match="shards, whose plan is 'sharded'"):
        trainer(shards=2, plan="steps").fit(X, y)
    with pytest.raises(gpuprop.PlanError, match="the number of shards is missing"):
        trainer(plan="sharded").fit(X, y)
    normalised = gpuprop.Network((2, 3, 1), loss="binary_cross_entropy", device="numpy", batch_norm=True)
    with pytest.raises(gpuprop.PlanError, match="averages over all rows of a batch"):
        gpuprop.Trainer(normalised, epochs=1, shards=2).fit(X, y)
    reason = trainer(shards=2, plan="sharded").fit(X, y).plan_reason
    assert reason is not None
    assert reason.startswith("sharded: 2 shards of each update, formed by one process")


@pytest.mark.parametrize("name", list(cases("numpy")))
@pytest.mark.parametrize("shards", [1, 8])
def test_shards_change_a_training_by_rounding_only(name: str, shards: int) -> None:
    network, options, data = cases("numpy")[name]
    options = {**options, "metrics": (), "epochs": 2}
    case: Case = ({**network, "dtype": "float64"}, options, data)
    whole, cut = trained(case, plan="steps"), trained(case, shards=shards)
    for column in whole.history:
        if column != "seconds" and whole.history[column][0] is not None:
            assert cut.history[column] == pytest.approx(whole.history[column], rel=1e-9)
    # Float64, some hundred updates, sums in another order.
    assert cut.network.host_parameters() == pytest.approx(whole.network.host_parameters(), rel=1e-7, abs=1e-9)


def test_a_resume_within_an_epoch_gives_the_same_bits(tmp_path: Path) -> None:
    class Ending(gpuprop.Callback):
        def on_step_end(self, trainer: gpuprop.Trainer, epoch: int, step: int) -> None:
            if epoch == 2 and step == 9:
                raise ZeroDivisionError

    case = cases("numpy")["digits, balanced, clipped, limited"]
    whole = trained(case, shards=4)
    checkpoint = gpuprop.Checkpoint(tmp_path, "5 updates")
    with pytest.raises(ZeroDivisionError):
        trained(case, shards=4, checkpoint=checkpoint, callbacks=[Ending()])
    network, options, data = case
    later = gpuprop.Trainer(gpuprop.Network(seed=3, **network), epochs=3, shards=4, checkpoint=checkpoint, **options)
    assert digest(later.fit(*data, resume_from="auto")) == digest(whole)
    other = gpuprop.Trainer(gpuprop.Network(seed=3, **network), epochs=3, shards=2, checkpoint=checkpoint, **options)
    with pytest.raises(gpuprop.ResumeError, match="shards was 4 and is 2"):
        other.fit(*data, resume_from="auto")


# --- several processes -------------------------------------------------------------------------------------------


@needs_mpi
@pytest.mark.parametrize(("n", "devices"), [(2, ("numpy", "cpu:1")), (4, ("numpy:2",))])
def test_any_number_of_processes_gives_the_same_bits(n: int, devices: tuple[str, ...], tmp_path: Path) -> None:
    run(n, str(WORKER), "bits", str(tmp_path / "out.json"), *devices)
    found = json.loads((tmp_path / "out.json").read_text())
    expected = {
        f"{device}: {name}": digest(trained(case, shards=8))
        for device, _, number in (one.partition(":") for one in devices)
        for name, case in list(cases(device).items())[: int(number or 99)]
    }
    assert found == expected


@needs_mpi
def test_every_process_ends_with_the_same_error_where_a_training_diverges(tmp_path: Path) -> None:
    run(2, str(WORKER), "diverging", str(tmp_path / "out.json"))
    found = json.loads((tmp_path / "out.json").read_text())
    assert len(set(found["messages"])) == 1
    assert found["messages"][0].startswith("training diverged in epoch 1, step 4 of 60: the loss became infinite")
    assert found["later"] == digest(trained(cases("numpy")["regression, weights"], shards=8))


@needs_mpi
def test_processes_with_other_data_or_options_are_named(tmp_path: Path) -> None:
    run(2, str(WORKER), "other_data", str(tmp_path / "out.json"))
    messages = json.loads((tmp_path / "out.json").read_text())["messages"]
    assert messages[0] == messages[1]
    assert messages[0].startswith("rank 1 differs from rank 0: batch_size is 5 and is 6; X is another array;")


@needs_mpi
def test_an_error_of_one_process_ends_the_others_at_once(tmp_path: Path) -> None:
    run(2, str(WORKER), "failing", str(tmp_path), check=False)
    told = "ZeroDivisionError: a callback has failed"
    assert (tmp_path / "rank-0.txt").read_text() == f"{told} (2 calls)"
    expected = f"CommunicatorError: rank 0 has left the training ({told}); this one ends, too (0 calls)"
    assert (tmp_path / "rank-1.txt").read_text() == expected


@needs_mpi
def test_the_command_writes_the_same_files_with_any_number_of_processes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    lines = [f"{a:.3f},{b:.3f},{c:.3f},{'yes' if a * b + c > 0 else 'no'}" for a, b, c in X]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["a,b,c,answer", *lines]))
    train = ["-m", "gpuprop", "train"]
    for data, options in {
        "digits": ["--hidden", "16", "--dropout", "0.2", "--epochs", "2", "--device", "numpy"],
        str(table): ["--target", "answer", "--epochs", "3", "--device", "numpy"],
    }.items():
        kind = Path(data).stem
        one = [sys.executable, *train, data, *options, "--shards", "8", "--out", f"{kind}-1"]
        subprocess.run(one, cwd=tmp_path, check=True, capture_output=True)
        said = run(2, *train, data, *options, "--out", f"{kind}-2", cwd=tmp_path)
        assert said.stdout.count("test accuracy:") == 1
        assert "formed by 2 processes" in said.stdout
        models = [(tmp_path / f"{kind}-{n}" / "model.safetensors").read_bytes() for n in (1, 2)]
        assert models[0] == models[1]
        histories = [(tmp_path / f"{kind}-{n}" / "history.csv").read_text() for n in (1, 2)]
        columns = [[line.rpartition(",")[0] for line in text.splitlines()] for text in histories]
        assert columns[0] == columns[1]
    # One process goes on where two have stopped; and what is wrong is said once.
    resumed = [sys.executable, *train, "--resume", "digits-2", "--epochs", "3"]
    subprocess.run(resumed, cwd=tmp_path, check=True, capture_output=True)
    refused = run(2, *train, "digits", "--out", "digits-1", cwd=tmp_path, check=False)
    assert refused.returncode != 0
    assert refused.stderr.count("gpuprop: error: digits-1") == 1
