"""The callbacks that ship: what they show and write is the history, whenever they are added and however a fit ends."""

from __future__ import annotations

import csv
import pickle
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.training.callbacks import trackers
from gpuprop.training.callbacks.progress import NotebookTable

X = np.random.default_rng(2).normal(size=(50, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


def trainer(*callbacks: gpuprop.Callback, **options: Any) -> gpuprop.Trainer:
    network = gpuprop.Network((4, 5, 2), loss="categorical_cross_entropy", seed=1, device="numpy")
    options = {"epochs": 4, "batch_size": 10, "validation": 0.2, **options}
    return gpuprop.Trainer(network, callbacks=callbacks, **options)


class Interrupt(gpuprop.Callback):
    """Ends the training by an error in the third epoch."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error or RuntimeError("enough")

    def on_epoch_begin(self, trainer: Any, epoch: int) -> None:
        if epoch == 3:
            raise self.error


class Heard(gpuprop.Callback):
    """Writes down what it is told, and adds a column."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_fit_begin(self, trainer: Any) -> None:
        self.calls.append("fit")

    def on_epoch_begin(self, trainer: Any, epoch: int) -> None:
        self.calls.append(f"begin {epoch}")

    def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
        self.calls.append(f"end {epoch}")
        trainer.history.setdefault("heard", []).append(float(epoch))

    def on_fit_end(self, trainer: Any) -> None:
        self.calls.append("done")

    def on_exception(self, trainer: Any, error: BaseException) -> None:
        self.calls.append(f"{error} after {trainer.epochs_done}")
        raise ValueError("lost")


class Adds(gpuprop.Callback):
    """Adds another callback in the second epoch."""

    def __init__(self, late: gpuprop.Callback) -> None:
        self.late = late

    def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
        if epoch == 2:
            trainer.callbacks.append(self.late)


def test_a_callback_added_late_works_like_one_added_early(tmp_path: Path) -> None:
    late, file = Heard(), gpuprop.callbacks.CSVLogger(tmp_path / "h.csv")
    made = trainer(Adds(late), file).fit(X, Y)
    assert late.calls == ["fit", "begin 3", "end 3", "begin 4", "end 4", "done"]
    assert made.history["heard"] == [None, None, 3.0, 4.0]
    with (tmp_path / "h.csv").open(newline="") as text:
        assert [row["heard"] for row in csv.DictReader(text)] == ["", "", "3.0", "4.0"]
    with pytest.raises(TypeError, match="expected objects derived from"):
        trainer(Adds("no callback")).fit(X, Y)  # type: ignore[arg-type]


def test_callbacks_are_told_of_an_error_and_cannot_hide_it() -> None:
    heard = Heard()
    with pytest.raises(RuntimeError, match="enough"):
        trainer(heard, Interrupt()).fit(X, Y)
    assert heard.calls[-1] == "enough after 2"


# --- progress ---------------------------------------------------------------------------------------------------


def test_verbose_prints_a_line_for_each_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    made = trainer(verbose=True, metrics=["f1_macro"])
    pickle.loads(pickle.dumps(made.fit(X, Y)))
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == [
        "epoch",
        "loss",
        "accuracy",
        "val.",
        "loss",
        "val.",
        "acc.",
        "f1_macro",
        "rate",
        "seconds",
    ]
    assert [line.split()[0] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]
    assert [float(line.split()[5]) for line in lines] == pytest.approx(made.history["validation_f1_macro"], abs=1e-4)
    trainer().fit(X, Y)
    assert capsys.readouterr().out == ""


def test_a_notebook_gets_one_table_that_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[str] = []
    handle = SimpleNamespace(update=pages.append)

    def display(page: str, display_id: bool) -> Any:
        pages.append(page)
        return handle

    shown = SimpleNamespace(HTML=str, display=display)
    shell = SimpleNamespace(kernel=None)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=shown))
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    made = trainer(gpuprop.callbacks.ProgressBar(), epochs=30).fit(X, Y)
    assert "epoch 0 of 30" in pages[0]
    assert "epoch 30 of 30" in pages[-1]
    assert pages[-1].count("<tr>") == 13  # the header and the last dozen
    assert f"<td>{made.history['train_loss'][-1]:.4g}</td>" in pages[-1]
    assert "NaN" not in pages[-1]
    assert isinstance(NotebookTable("accuracy").page(made), str)
    pages.clear()
    with pytest.raises(RuntimeError, match="enough"):
        trainer(gpuprop.callbacks.ProgressBar(), Interrupt()).fit(X, Y)
    assert "epoch 2 of 4" in pages[-1]


# --- files ------------------------------------------------------------------------------------------------------


def test_the_csv_file_is_the_history(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "h.csv"
    made = trainer(gpuprop.callbacks.CSVLogger(file, separator=";"), gpuprop.callbacks.UnitActivity(X)).fit(X, Y)
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text, delimiter=";"))
    assert list(rows[0]) == list(made.history)
    for name, column in made.history.items():
        assert [float(row[name]) for row in rows] == column


def test_the_csv_file_of_a_resumed_training_has_all_epochs(tmp_path: Path) -> None:
    kept, file = str(tmp_path / "kept"), tmp_path / "h.csv"
    trainer(epochs=2, checkpoint=kept).fit(X, Y)
    made = trainer(gpuprop.callbacks.CSVLogger(file), epochs=5, checkpoint=kept).fit(X, Y, resume_from="auto")
    assert made.epochs_done == 5
    with file.open(newline="") as text:
        assert [row["epoch"] for row in csv.DictReader(text)] == ["1", "2", "3", "4", "5"]


def test_model_checkpoints_hold_the_best_epoch(tmp_path: Path) -> None:
    best = gpuprop.callbacks.ModelCheckpoint(tmp_path / "best.safetensors", "accuracy")
    each = gpuprop.callbacks.ModelCheckpoint(tmp_path / "epoch-{epoch:02d}.safetensors", save_best_only=False)
    made = trainer(best, each, epochs=7, learning_rate=0.05).fit(X, Y)
    column = made.history["validation_accuracy"]
    assert (best.best, best.best_epoch) == (max(column), int(np.argmax(column)) + 1)
    one = gpuprop.load(tmp_path / "best.safetensors").host_parameters()
    np.testing.assert_array_equal(
        one, gpuprop.load(tmp_path / f"epoch-0{best.best_epoch}.safetensors").host_parameters()
    )
    assert len(list(tmp_path.glob("epoch-*"))) == 7
    with pytest.raises(ValueError, match="unknown monitor 'f1'"):
        trainer(gpuprop.callbacks.ModelCheckpoint(tmp_path, "f1")).fit(X, Y)


# --- trackers ---------------------------------------------------------------------------------------------------


def events(folder: Path) -> Any:
    """Yield the events in TensorBoard's files: length, checksum, protocol buffer, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.rglob("events*")):
        content, place = file.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            yield Event.FromString(content[place + 12 : place + 12 + length])
            place += 16 + length


def test_tensorboard_files_hold_figures_histograms_and_settings(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    made = trainer(gpuprop.callbacks.TensorBoard(tmp_path, X[:7], histogram_freq=2), metrics=["f1_macro"])
    made.fit(X, Y)
    scalars: dict[str, list[tuple[int, float]]] = {}
    histograms: dict[str, list[tuple[int, float]]] = {}
    plugins = set()
    for event in events(tmp_path):
        for value in event.summary.value:
            if value.HasField("histo"):
                histograms.setdefault(value.tag, []).append((event.step, value.histo.num))
            elif value.HasField("simple_value"):
                scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
            plugins.add(value.metadata.plugin_data.plugin_name)
    for tag, column in {"loss/train": "train_loss", "f1_macro/validation": "validation_f1_macro"}.items():
        steps, figures = zip(*scalars[tag], strict=True)
        assert steps == (1, 2, 3, 4)
        assert figures == pytest.approx(made.history[column], rel=1e-6)
    assert histograms["weights/layer_1"] == [(2, 20.0), (4, 20.0)]
    assert histograms["activations/layer_2"] == [(2, 14.0), (4, 14.0)]
    assert "hparams" in plugins
    pickle.loads(pickle.dumps(made))


def test_a_training_that_failed_closes_its_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    board = gpuprop.callbacks.TensorBoard(tmp_path, histogram_freq=0)
    with pytest.raises(RuntimeError, match="enough"):
        trainer(board, Interrupt()).fit(X, Y)
    assert max(event.step for event in events(tmp_path)) == 2


def test_mlflow_gets_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "runs").as_uri()
    client = mlflow.MlflowClient(tracking_uri=uri)
    tracker = gpuprop.callbacks.MLflow("plants", "first", tracking_uri=uri)
    kept = str(tmp_path / "kept")
    trainer(tracker, epochs=2, checkpoint=kept).fit(X, Y)
    first = tracker.run_id
    again = gpuprop.callbacks.MLflow("plants", tracking_uri=uri)
    made = trainer(again, epochs=4, checkpoint=kept).fit(X, Y, resume_from="auto")
    assert again.run_id == first  # a resumed training goes on in its run
    run = client.get_run(first)
    assert (run.info.status, run.data.params["layers"], run.data.params["optimizer"]) == ("FINISHED", "4-5-2", "adam")
    logged = [metric.value for metric in client.get_metric_history(first, "train_loss")]
    assert logged == pytest.approx(made.history["train_loss"])
    assert [file.path for file in client.list_artifacts(first)] == ["model.safetensors"]
    for error, status in ((RuntimeError("enough"), "FAILED"), (KeyboardInterrupt(), "KILLED")):
        with pytest.raises(type(error)):
            trainer(again, Interrupt(error)).fit(X, Y)
        assert client.get_run(again.run_id).info.status == status


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    for callback, extra in (
        (gpuprop.callbacks.TensorBoard(tmp_path), "tensorboard"),
        (gpuprop.callbacks.MLflow(), "mlflow"),
    ):
        with pytest.raises(gpuprop.BackendUnavailableError, match=rf"pip install 'gpuprop\[{extra}\]'"):
            trainer(callback).fit(X, Y)


def test_hyperparameters_are_plain_values() -> None:
    made = trainer().fit(X, Y)
    assert all(isinstance(value, int | float | str) for value in trackers.hyperparameters(made).values())
