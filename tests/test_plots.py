"""The pictures: what they show, not how they look (which only eyes can judge)."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from gpuprop.learn import plots


def history(n_epochs: int = 4, *, metric: str = "accuracy", validation: bool = True) -> dict[str, list[Any]]:
    epochs = np.arange(1, n_epochs + 1)
    nothing = [None] * n_epochs
    return {
        "epoch": epochs.tolist(),
        "train_loss": (2.0 / epochs).tolist(),
        f"train_{metric}": (1 - 0.5 / epochs).tolist(),
        "validation_loss": (3.0 / epochs).tolist() if validation else nothing,
        f"validation_{metric}": (1 - 0.7 / epochs).tolist() if validation else nothing,
        "learning_rate": [0.1] * n_epochs,
        "seconds": [1.0] * n_epochs,
    }


def png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


@pytest.mark.parametrize(("metric", "label"), [("accuracy", "accuracy"), ("r2", "R²")])
def test_loss_curves_show_the_history(metric: str, label: str) -> None:
    figure = plots.loss_curves(history(metric=metric), title="a run")
    losses, scores = figure.axes
    train, validation = losses.get_lines()
    legend: Any = losses.get_legend()
    np.testing.assert_allclose(np.array(train.get_xydata()), np.array([[1, 2.0], [2, 1.0], [3, 2 / 3], [4, 0.5]]))
    np.testing.assert_allclose(np.array(validation.get_ydata()), np.array([3.0, 1.5, 1.0, 0.75]))
    np.testing.assert_allclose(np.array(scores.get_lines()[1].get_ydata()), 1 - 0.7 / np.arange(1, 5))
    assert scores.get_ylabel() == label
    # Told apart without colour.
    assert train.get_linestyle() != validation.get_linestyle()
    assert train.get_marker() != validation.get_marker()
    assert [text.get_text() for text in legend.get_texts()] == ["train", "validation"]


def test_loss_curves_without_validation() -> None:
    figure = plots.loss_curves(history(validation=False))
    assert [len(axes.get_lines()) for axes in figure.axes] == [1, 1]
    assert len(png(figure)) > 1000


@pytest.mark.parametrize(("n_epochs", "scale"), [(2, "linear"), (100, "log")])
def test_a_loss_over_decades_gets_a_logarithmic_axis(n_epochs: int, scale: str) -> None:
    assert plots.loss_curves(history(n_epochs)).axes[0].get_yscale() == scale


def test_one_epoch_is_a_point_that_can_be_seen() -> None:
    figure = plots.loss_curves(history(1))
    assert figure.axes[0].get_lines()[0].get_marker() == "o"
    assert len(png(figure)) > 1000


def test_confusion_matrix_counts() -> None:
    figure = plots.confusion_matrix([0, 0, 0, 1, 1, 2], [0, 1, 0, 1, 2, 2], ["a", "b", "c"])
    axes = figure.axes[0]
    counts = [int(text.get_text()) for text in axes.texts]
    assert counts == [2, 1, 0, 0, 1, 1, 0, 0, 1]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_confusion_matrix_of_a_class_that_never_occurs() -> None:
    figure = plots.confusion_matrix([0, 1], [0, 0], ["a", "b", "c"])
    assert [int(text.get_text()) for text in figure.axes[0].texts] == [1, 0, 0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("n_classes", [2, 26, 60, 100])
def test_confusion_matrix_of_many_classes_stays_legible(n_classes: int) -> None:
    y = np.arange(n_classes)
    axes = plots.confusion_matrix(y, y, [f"a rather long class name, number {i}" for i in y]).axes[0]
    assert len(axes.texts) == (n_classes**2 if n_classes <= 25 else 0)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert len(labels) <= 50
    assert all(len(label) <= 20 for label in labels)


def test_dollars_in_labels_are_no_formulas() -> None:
    assert len(png(plots.confusion_matrix([0, 1], [0, 1], ["$ \\frac", "$"], title="costs $5 _{"))) > 1000


def test_predictions_of_several_outputs() -> None:
    y = np.random.default_rng(0).normal(size=(20, 3))
    axes = plots.predictions(y, y + 0.1).axes[0]
    assert len(axes.collections) == 3
    np.testing.assert_allclose(np.asarray(axes.collections[1].get_offsets()), np.stack([y[:, 1], y[:, 1] + 0.1], 1))
    line = axes.get_lines()[0]
    np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())


def test_predictions_of_a_constant() -> None:
    assert len(png(plots.predictions(np.ones(5), np.ones((5, 1))))) > 1000


def test_no_state_of_pyplot_is_touched() -> None:
    code = (
        "from gpuprop import plots; import sys\n"
        "plots.loss_curves({'epoch': [1], 'train_loss': [1.0], 'train_accuracy': [1.0],"
        " 'validation_loss': [None], 'validation_accuracy': [None]}).savefig(sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "plots.confusion_matrix([0, 1], [0, 1], 'ab')\n"  # scikit-learn imports pyplot, and opens nothing
        "import matplotlib.pyplot as plt\n"
        "assert plt.get_fignums() == []"
    )
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        subprocess.run([sys.executable, "-c", code, file.name], check=True)
