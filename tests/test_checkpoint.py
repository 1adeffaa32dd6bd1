"""Checkpoints: a training that was killed goes on with the bits of one that was left alone."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.backends.installed import loops_fault
from gpuprop.core.embedding import InputEmbedding
from gpuprop.training.checkpoint import newest, read_checkpoint
from gpuprop.training.packing import pack, unpack
from gpuprop.training.side_by_side import train_together
from tests import kill_harness

needs_loops = pytest.mark.skipif(loops_fault() is not None, reason="without Numba every training is made by steps")

N, SIZE = 37, 5
RNG = np.random.default_rng(7)
X, CLASSES, WEIGHT = RNG.normal(size=(N, 6)), RNG.integers(0, 3, N), RNG.random(N) + 0.5
NUMBERS = np.sin(X[:, :1])


class KilledError(BaseException):
    """What ends a training without any clean-up of its own."""


class Killing(gpuprop.Checkpoint):
    """Ends the training once so many checkpoints are written."""

    left = 1

    def write(self, *arguments: Any, **options: Any) -> Path:
        file = super().write(*arguments, **options)
        self.left -= 1
        if self.left == 0:
            raise KilledError
        return file


class Drawn:
    """Row orders that remember a ``RandomState``, as the estimators' do."""

    def __init__(self) -> None:
        self.random, self.order = np.random.RandomState(3), np.arange(N)

    def __call__(self, epoch: int, n_samples: int) -> Any:
        self.order = self.random.permutation(self.order)
        return self.order

    def state(self) -> dict[str, Any]:
        _, key, position, _, _ = self.random.get_state()
        return {"key": key, "position": position, "order": self.order}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.random.set_state(("MT19937", state["key"], state["position"], 0, 0.0))
        self.order = state["order"]


class Slower(gpuprop.Callback):
    """Lowers the rate at the beginning of an epoch and by what it has seen of updates and losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.steps = 0

    def state(self) -> dict[str, Any]:
        return {"losses": self.losses, "steps": self.steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.losses, self.steps = state["losses"], state["steps"]

    def on_fit_begin(self, trainer: Any) -> None:
        self.losses, self.steps = [], 0

    def on_epoch_begin(self, trainer: Any, epoch: int) -> None:
        trainer.learning_rate *= 0.9

    def on_step_end(self, trainer: Any, epoch: int, step: int) -> None:
        self.steps += 1
        if self.steps % 3 == 0:
            trainer.learning_rate *= 0.99

    def on_epoch_end(self, trainer: Any, epoch: int, record: Mapping[str, float | None]) -> None:
        self.losses.append(record["train_loss"] or 0.0)
        trainer.history.setdefault("sum_of_losses", []).append(sum(self.losses))
        if self.steps >= 24:
            trainer.stop_training()


Make = Callable[..., gpuprop.Trainer]


def case(network: dict[str, Any] | None = None, **options: Any) -> Make:
    """Return a function that makes a new trainer of a case; callables among the options make theirs anew."""

    def make(device: str, checkpoint: Any = None, **more: Any) -> gpuprop.Trainer:
        given: dict[str, Any] = {"loss": "categorical_cross_entropy", "dtype": "float64", "l2": 0.01, "seed": 0} | (
            network or {}
        )
        found = {name: value() if isinstance(value, type) else value for name, value in options.items()}
        if "callbacks" in found:
            found["callbacks"] = [found["callbacks"]]
        sizes = given.pop("sizes", (6, 9, 3))
        net = gpuprop.Network(sizes, device=device, **given)
        return gpuprop.Trainer(net, **{"epochs": 3, "batch_size": SIZE, "checkpoint": checkpoint} | found | more)

    return make


CASES = {
    "adam": case(validation=0.2, early_stopping=2),
    "momentum, float32": case({"dtype": "float32"}, optimizer="momentum", schedule="one-cycle"),
    "rmsprop": case(optimizer="rmsprop", clip_norm=0.1, max_norm=0.9, schedule="adaptive", keep_best="train_loss"),
    "dropout": case({"dropout": 0.3}, dropout_schedule="cosine", weight_decay=0.1, weight_decay_schedule="cosine"),
    "parts": case(accumulation_steps=2, drop_last=True, label_smoothing=0.1),
    "tables": case(
        scaling_layer=True, parametrization="neural-tangent", learning_rate_factors={"scale": 6.0, "biases": 0.1}
    ),
    "embedded": case(
        {"sizes": (InputEmbedding(3, 3, ()).n_outputs, 9, 3), "slopes": True, "embedding": InputEmbedding(3, 3, ())},
        learning_rate_factors={"slopes": 0.1},
    ),
    "scikit-learn": case(conventions="scikit-learn", optimizer="nesterov", row_orders=Drawn),
    "callbacks": case(callbacks=Slower, epochs=9, keep_best="train_accuracy"),
}


def fit(trainer: gpuprop.Trainer, **options: Any) -> gpuprop.Trainer:
    return trainer.fit(X, CLASSES, WEIGHT, **options)


def outcome(trainer: gpuprop.Trainer) -> dict[str, bytes]:
    """Everything that a training leaves, but for the seconds that it took."""
    progress = trainer.progress
    arrays = {"network": trainer.network.host_parameters(), "last": progress.parameters} | progress.optimizer_state
    if progress.scaling_layer is not None:
        arrays |= dict(progress.scaling_layer.arrays())
    plain = {name: column for name, column in trainer.history.items() if name != "seconds"}
    plain["ends"] = [trainer.epochs_done, trainer.steps_done, trainer.best_epoch, trainer.learning_rate]
    return {name: np.asarray(array).tobytes() for name, array in arrays.items()} | {
        name: json.dumps(column).encode() for name, column in plain.items()
    }


def killed_after(
    n_checkpoints: int, make: Make, device: str, folder: Path, every: str = "1 update", **more: Any
) -> bool:
    """Train until so many checkpoints are written; return False if the training ended before."""
    checkpoint = Killing(folder, every)
    checkpoint.left = n_checkpoints
    try:
        fit(make(device, checkpoint, **more))
    except KilledError:
        return True
    return False


# --- every update boundary ---------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushing takes most of the time of a checkpoint, and shows only when the machine loses its power."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.mark.parametrize("name", CASES)
def test_a_training_goes_on_from_any_update_to_the_same_end(name: str, tmp_path: Path) -> None:
    make = CASES[name]
    expected = outcome(fit(make("numpy")))
    assert outcome(fit(make("numpy", gpuprop.Checkpoint(tmp_path, "1 update", keep=100)))) == expected
    files = sorted(tmp_path.iterdir())
    assert len(files) >= 9
    for file in files:  # the last one is of a training that has ended
        assert outcome(fit(make("numpy"), resume_from=file)) == expected, file.name


@pytest.mark.parametrize(
    "plan", ["steps", pytest.param("fused", marks=needs_loops), pytest.param("dense", marks=needs_loops)]
)
def test_the_compiled_paths_go_on_with_the_same_bits(plan: str, tmp_path: Path) -> None:
    make = CASES["adam"]
    expected = outcome(fit(make("cpu", plan=plan)))
    for n in (1, 3, 6, 11):
        assert killed_after(n, make, "cpu", tmp_path / str(n), plan=plan)
        assert outcome(fit(make("cpu", tmp_path / str(n), plan=plan), resume_from="auto")) == expected


@needs_loops
def test_trainings_that_share_their_updates_go_on_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpuprop.backends.cpu.joint_plan.not_worth_joining", lambda trainings: None)

    def some(folder: Path | None) -> list[gpuprop.Trainer]:
        kept = [None if folder is None else gpuprop.Checkpoint(folder / str(k), "1 epoch") for k in range(3)]
        return [case({"seed": k})("cpu", kept[k], epochs=4) for k in range(3)]

    def together(trainers: list[gpuprop.Trainer], resume_from: str | None = None) -> list[dict[str, bytes]]:
        runs = [one.training(X, CLASSES, WEIGHT, resume_from=resume_from) for one in trainers]
        assert train_together(runs) == [None] * len(trainers)
        assert all(str(one.plan_reason).startswith("joint: ") for one in trainers)
        return [outcome(one) for one in trainers]

    class Interrupt(gpuprop.Callback):
        def __init__(self, by_signal: bool) -> None:
            self.by_signal = by_signal

        def on_epoch_begin(self, trainer: Any, epoch: int) -> None:
            if epoch == 3 and self.by_signal:
                os.kill(os.getpid(), signal.SIGINT)

        def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
            if epoch == 3:
                raise KeyboardInterrupt  # the two others stand an epoch later

    expected = together(some(None))
    for by_signal, epochs_done in ((True, [2, 2, 2]), (False, [3, 2, 3])):
        folder = tmp_path / str(by_signal)
        trainers = some(folder)
        trainers[1].callbacks.append(Interrupt(by_signal))
        with pytest.raises(KeyboardInterrupt):
            together(trainers)
        found = [newest(folder / str(k)) for k in range(3)]
        assert [one.progress.epochs_done for one in found if one is not None] == epochs_done
        if not by_signal:  # also without its company
            shutil.copytree(folder / "1", folder / "alone")
            alone = case({"seed": 1})("cpu", folder / "alone", epochs=4)
            assert together([alone], resume_from="auto") == expected[1:2]
        assert together(some(folder), resume_from="auto") == expected


@needs_loops
def test_a_training_that_ends_first_leaves_the_others_on_their_common_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpuprop.backends.cpu.joint_plan.not_worth_joining", lambda trainings: None)

    def some(folder: Path | None) -> list[gpuprop.Trainer]:
        kept = [None if folder is None else Killing(folder / str(k), "1 epoch") for k in range(2)]
        for one in kept:
            if one is not None:
                one.left = 2  # the first says that updates are shared, the second that the only epoch is done
        return [case({"seed": k})("cpu", kept[k], epochs=1) for k in range(2)]

    expected = some(None)
    train_together([one.training(X, CLASSES, WEIGHT) for one in expected])
    with pytest.raises(KilledError):
        train_together([one.training(X, CLASSES, WEIGHT) for one in some(tmp_path)])
    again = [case({"seed": k})("cpu", tmp_path / str(k), epochs=1) for k in range(2)]
    train_together([one.training(X, CLASSES, WEIGHT, resume_from="auto") for one in again[1:]])
    assert outcome(again[1]) == outcome(expected[1])
    assert outcome(again[0].fit(X, CLASSES, WEIGHT, resume_from="auto")) == outcome(expected[0])


def test_another_device_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    make = CASES["tables"]
    expected = fit(make("cpu")).network.host_parameters()
    assert killed_after(5, make, "numpy", tmp_path)
    trainer = fit(make("cpu", tmp_path, n_threads=1), resume_from="auto")
    np.testing.assert_allclose(trainer.network.host_parameters(), expected, rtol=1e-9, atol=1e-12)
    assert "device was 'numpy' and is 'cpu'" in trainer.resume_notes
    assert fit(make("numpy", tmp_path), resume_from=sorted(tmp_path.iterdir())[0]).resume_notes == ()


@needs_loops
def test_a_longer_training_stays_on_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More epochs would let the device choose another path, whose bits are others."""
    make = CASES["adam"]
    fit(make("cpu", tmp_path))
    monkeypatch.setattr("gpuprop.backends.cpu.fused.LEAST_SAVING", 0.0)
    longer, fresh = make("cpu", tmp_path, epochs=4), make("cpu", epochs=4)
    assert str(fit(fresh).plan_reason).startswith("fused")
    assert str(fit(longer, resume_from="auto").plan_reason).startswith("steps")
    assert outcome(longer) == outcome(fit(make("cpu", epochs=4, plan="steps")))


def test_many_inputs_are_named_in_a_short_message(tmp_path: Path) -> None:
    def trainer(scale: float) -> gpuprop.Trainer:
        scaling = gpuprop.InputScaling.standard(np.arange(200.0).reshape(2, 100) * scale)
        return gpuprop.Trainer(gpuprop.Network((100, 1), device="numpy", seed=0, input_scaling=scaling), epochs=1)

    rows = np.ones((3, 100)), np.ones(3)
    trainer(1.0).fit(*rows)
    kept = trainer(1.0)
    kept.checkpoint = gpuprop.Checkpoint(tmp_path)
    kept.fit(*rows)
    with pytest.raises(gpuprop.ResumeError, match=r"X is another array|input_scaling was .*SHA-256") as caught:
        trainer(2.0).fit(*rows, resume_from=tmp_path)
    assert len(str(caught.value)) < 900


def test_more_epochs_may_be_asked_for(tmp_path: Path) -> None:
    make = CASES["adam"]
    fit(make("numpy", tmp_path, epochs=2))
    found = fit(make("numpy", tmp_path, epochs=5), resume_from=tmp_path)
    assert outcome(found) == outcome(fit(make("numpy", epochs=5)))


def test_a_divergence_after_a_resume_names_its_update(tmp_path: Path) -> None:
    def trainer(**options: Any) -> gpuprop.Trainer:
        return case()("numpy", epochs=2, batch_size=5, row_orders=Drawn(), **options)

    spoilt = X.copy()
    order = Drawn()(0, N)
    spoilt[order[20:25]] = 1.7e308  # the fifth update
    with pytest.raises(KilledError):
        trainer(checkpoint=Killing(tmp_path, "1 update")).fit(spoilt, CLASSES)
    second = trainer(checkpoint=tmp_path)
    with pytest.raises(gpuprop.NonFiniteLossError, match=r"epoch 1, step 5 of 8.*of the checkpoint are kept"):
        second.fit(spoilt, CLASSES, resume_from="auto")
    assert np.isfinite(second.network.host_parameters()).all()
    assert all(np.isfinite(array).all() for array in second.progress.optimizer_state.values())


# --- the folder --------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_a_model_file(tmp_path: Path) -> None:
    plain = fit(CASES["momentum, float32"]("numpy", tmp_path / "plain"))
    (*_, file) = sorted((tmp_path / "plain").iterdir())
    np.testing.assert_array_equal(gpuprop.load(file).host_parameters(), plain.network.host_parameters())
    best = fit(CASES["rmsprop"]("numpy", tmp_path / "best"))  # the file's model is the best one, not the last
    (*_, file) = sorted((tmp_path / "best").iterdir())
    np.testing.assert_array_equal(gpuprop.load(file).host_parameters(), best.network.host_parameters())

    def negate(network: gpuprop.Network) -> None:
        network.set_parameters(-network.host_parameters())

    checkpoint = gpuprop.Checkpoint(tmp_path / "finished", finish=negate, extra={"mean": 3.5})
    finished = fit(CASES["adam"]("numpy", checkpoint))
    (stored,) = [newest(checkpoint.path)]
    assert stored is not None
    assert stored.extra == {"mean": 3.5}
    np.testing.assert_array_equal(gpuprop.load(stored.path).host_parameters(), -finished.network.host_parameters())


def test_the_newest_generations_stay_and_leftovers_go(tmp_path: Path) -> None:
    (tmp_path / ".gpuprop-0123456789abcdef.tmp").write_bytes(b"of a writer that was killed")
    (tmp_path / "mine.txt").write_text("stays")
    fit(CASES["adam"]("numpy", gpuprop.Checkpoint(tmp_path, "1 epoch", keep=2)))
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "checkpoint-000002.safetensors",
        "checkpoint-000003.safetensors",
        "mine.txt",
    ]
    fit(CASES["parts"]("numpy", gpuprop.Checkpoint(tmp_path, "1 epoch", keep=1)))  # a new training, from the beginning
    found = newest(tmp_path)
    assert found is not None
    assert found.settings["accumulation_steps"] == 2
    assert len([*tmp_path.iterdir()]) == 2


@pytest.mark.parametrize(
    ("every", "steps"), [("1 epoch", [8, 16, 24]), ("3 updates", [3, 6, 9, 12, 15, 18, 21, 24]), ("1 h", [24])]
)
def test_checkpoints_come_when_they_are_due(every: str, steps: list[int], tmp_path: Path) -> None:
    written = []

    class Noting(gpuprop.Checkpoint):
        def write(self, *arguments: Any, **options: Any) -> Path:
            written.append(options["steps_done"])
            return super().write(*arguments, **options)

    fit(case()("numpy", Noting(tmp_path, every)))
    assert written == steps


@pytest.mark.parametrize("every", ["soon", "60", "0 s", "1.5 epochs", "-3 s", "5 parsecs", "", "1 epoch 2"])
def test_an_interval_that_is_none_is_refused(every: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"every: got .*expected a"):
        gpuprop.Checkpoint(tmp_path, every)


def test_intervals_are_read_in_any_spelling(tmp_path: Path) -> None:
    for every in ("60s", "60 seconds", "1.5 min", "2 minutes", "1h", "2 epochs", "1 update", "500 UPDATES"):
        assert gpuprop.Checkpoint(tmp_path, every).every == every
    with pytest.raises(TypeError, match="every: got 60, expected a time"):
        gpuprop.Checkpoint(tmp_path, 60)  # type: ignore[arg-type]


def test_a_folder_without_checkpoints_says_so(tmp_path: Path) -> None:
    assert newest(tmp_path / "none") is None
    with pytest.raises(gpuprop.ResumeError, match="holds no checkpoint"):
        fit(CASES["adam"]("numpy"), resume_from=tmp_path)
    with pytest.raises(gpuprop.ResumeError, match="pass checkpoint="):
        fit(CASES["adam"]("numpy"), resume_from="auto")
    assert fit(CASES["adam"]("numpy", tmp_path), resume_from="auto").epochs_done == 3


def test_a_model_file_is_no_checkpoint(tmp_path: Path) -> None:
    gpuprop.Network((2, 1), device="numpy").save(tmp_path / "model.safetensors")
    with pytest.raises(gpuprop.ModelFileError, match="expected 'checkpoint'"):
        read_checkpoint(tmp_path / "model.safetensors")


# --- disasters while a checkpoint is written ---------------------------------------------------------------------


def test_a_checkpoint_cut_anywhere_leaves_the_one_before(tmp_path: Path) -> None:
    make = CASES["adam"]
    expected = outcome(fit(make("numpy")))
    assert killed_after(5, make, "numpy", tmp_path / "run")
    _, last = sorted((tmp_path / "run").iterdir())
    content = last.read_bytes()
    for i, cut in enumerate([0, 1, 7, 8, 9, 700, len(content) // 2, len(content) - 1]):
        for name in (last.name, ".gpuprop-0123456789abcdef.tmp"):  # after the rename, or before it
            folder = tmp_path / f"{i}{name}"
            shutil.copytree(tmp_path / "run", folder)
            (folder / last.name).unlink()
            (folder / name).write_bytes(content[:cut])
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                found = newest(folder)
                resumed = fit(make("numpy", folder), resume_from="auto")
            assert found is not None
            assert found.progress.within is not None
            assert found.progress.within.position == 4
            assert (len(found.skipped) == 1) == (name == last.name) == bool(heard)
            assert outcome(resumed) == expected


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    assert killed_after(2, CASES["adam"], "numpy", tmp_path)
    _, last = sorted(tmp_path.iterdir())
    content = bytearray(last.read_bytes())
    content[-5] ^= 1
    last.write_bytes(content)
    with pytest.warns(RuntimeWarning, match=r"skipped a checkpoint.*SHA-256"):
        found = newest(tmp_path)
    assert found is not None
    assert found.generation == 1


def test_a_leftover_that_cannot_be_removed_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".gpuprop-0123456789abcdef.tmp").write_bytes(b"of a writer that was killed")

    def failing(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(Path, "unlink", failing)
    fit(CASES["adam"]("numpy", gpuprop.Checkpoint(tmp_path, "1 epoch")))
    assert newest(tmp_path) is not None


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "I/O error")])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_loses_no_training(
    error: OSError, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, calls = CASES["adam"], []
    expected = outcome(fit(make("numpy")))

    def failing(*arguments: Any) -> None:
        calls.append(arguments)
        raise error

    place: Any = os if call == "fsync" else Path
    monkeypatch.setattr(place, call, failing)
    with pytest.warns(RuntimeWarning, match="a checkpoint could not be written, and the training goes on") as heard:
        trainer = fit(make("numpy", gpuprop.Checkpoint(tmp_path, "1 update")))
    assert len(heard) == 1
    assert len(calls) > 10
    assert outcome(trainer) == expected
    assert not [*tmp_path.iterdir()]


# --- what does not fit is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 6}, "batch_size was 5 and is 6"),
        ({"learning_rate": 0.5}, "learning_rate was 0.001 and is 0.5"),
        ({"optimizer": "nadam"}, "optimizer was"),
        ({"optimizer": gpuprop.optimizers.Adam(beta_1=0.8)}, "'beta_1': 0.9"),
        ({"schedule": "cosine"}, "schedule was"),
        ({"seed": 5}, "seed was 0 and is 5"),
        ({"early_stopping": 3, "validation": 0.3}, "validation was 0.2 and is 0.3"),
        ({"epochs": 1}, "epochs is 1, and 2 have begun"),
        ({"shuffle": False}, "row_orders was"),
    ],
)
def test_another_setting_is_named(options: dict[str, Any], named: str, tmp_path: Path) -> None:
    assert killed_after(11, CASES["adam"], "numpy", tmp_path)
    trainer = CASES["adam"]("numpy", tmp_path, **options)
    before = trainer.network.host_parameters()
    with pytest.raises(gpuprop.ResumeError, match="is of another training") as caught:
        fit(trainer, resume_from="auto")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(trainer.network.host_parameters(), before)


def test_another_network_is_named(tmp_path: Path) -> None:
    assert killed_after(1, CASES["adam"], "numpy", tmp_path)
    other = case({"sizes": (6, 8, 3), "dropout": 0.1}, validation=0.2, early_stopping=2)
    with pytest.raises(gpuprop.ResumeError, match=r"network's layer_sizes was \[6, 9, 3\].*network's dropout"):
        fit(other("numpy", tmp_path), resume_from="auto")


def test_other_data_are_named(tmp_path: Path) -> None:
    assert killed_after(1, CASES["adam"], "numpy", tmp_path)
    changed = CLASSES.copy()
    changed[:9] = (changed[:9] + 1) % 3
    for X_given, y, weight, named in (
        (X[::-1], CLASSES, WEIGHT, "X is another array"),
        (X, changed, WEIGHT, "y is another array"),
        (X, CLASSES, None, "sample_weight is missing"),
    ):
        trainer = CASES["adam"]("numpy", tmp_path)
        with pytest.raises(gpuprop.ResumeError, match=named):
            trainer.fit(X_given, y, weight, resume_from="auto")


# --- packing -----------------------------------------------------------------------------------------------------


def test_states_come_back_as_they_were() -> None:
    state = {
        "numbers": [0.1, float("inf"), float("nan"), -0.0, 1e-310],
        "long": [float("nan"), None, float("-inf"), *(np.pi * k for k in range(30))],
        "counts": [*range(40)],
        "nothing": [None] * 20,
        "mixed": [1, 2.5, "three", None, True, [np.arange(3)]],
        "array": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "empty": np.zeros((0, 3), np.float32),
        "deep": {"a": {"b": ()}},
        "scalar": np.float64(0.1),
    }
    tensors: dict[str, Any] = {}
    packed = json.loads(json.dumps(pack(state, tensors, "state")))
    found = unpack(packed, tensors)
    assert repr(found["numbers"]) == repr(state["numbers"])
    for name in ("long", "counts", "nothing"):
        assert repr(found[name]) == repr(state[name])
    assert len(json.dumps(packed)) < 700
    np.testing.assert_array_equal(found["array"], state["array"])
    assert (found["empty"].shape, found["empty"].dtype) == ((0, 3), np.float32)
    assert (found["deep"], found["scalar"], found["mixed"][:5]) == (
        {"a": {"b": []}},
        0.1,
        [1, 2.5, "three", None, True],
    )
    for wrong in (object(), {1: 2}, {"$tensor": "x"}):
        with pytest.raises(TypeError, match="state: got"):
            pack(wrong, {}, "state")


# --- kill -9 -----------------------------------------------------------------------------------------------------


def test_trainings_killed_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    """The short form of ``python tests/kill_harness.py --kills 1000``."""
    counts = kill_harness.run(tmp_path, kills=60, seed=0)
    assert counts.lost == 0
    assert counts.equal == counts.trainings > 0
    assert counts.kills >= 60
