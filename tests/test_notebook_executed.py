"""A notebook that trains and shows what it has, executed by nbconvert: one table of progress, and readable objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

nbconvert = pytest.importorskip("nbconvert", reason="needs nbconvert, of the extra dev")
pytest.importorskip("ipykernel", reason="needs ipykernel, of the extra dev")

CELLS = (
    """
import gpuprop
X, y = gpuprop.datasets.load_digits()
network = gpuprop.Network((64, 8, 10), loss="categorical_cross_entropy", seed=0, device="numpy")
trainer = gpuprop.Trainer(network, epochs=15, batch_size=300, validation=0.2, metrics=["f1_macro"], verbose=True)
_ = trainer.fit(X / 16, y)
""",
    "network",
    "trainer",
    "gpuprop.MLPClassifier((8,), random_state=0)",
    "print(network.summary())",
)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import nbformat
    from nbconvert.preprocessors import ExecutePreprocessor

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text.strip()) for text in CELLS])
    folder = tmp_path_factory.mktemp("notebook")
    ExecutePreprocessor(timeout=300, kernel_name="python3").preprocess(notebook, {"metadata": {"path": str(folder)}})
    return notebook


def shown(executed: Any, place: int) -> dict[str, str]:
    """Return what the only output of a cell holds, by its type."""
    (output,) = executed.cells[place].outputs
    data: dict[str, str] = output.get("data", {"text/plain": output.get("text", "")})
    return data


def test_a_training_is_one_table_whose_rows_are_the_last_epochs(executed: Any) -> None:
    table = shown(executed, 0)["text/html"]
    assert table.count("<table") == 1
    assert [f"<td>{epoch}/15</td>" in table.replace(" style='text-align:right'", "") for epoch in (1, 4, 15)] == [
        False, True, True,
    ]  # fmt: skip
    assert "f1_macro" in table


def test_network_trainer_and_estimator_show_themselves(executed: Any) -> None:
    network, trainer, estimator = (shown(executed, place) for place in (1, 2, 3))
    assert network["text/plain"].startswith("Network(64-8-10, relu")
    assert network["text/html"].startswith("<table>")
    assert trainer["text/plain"].endswith("15 of 15 epochs in batches of 300)")
    assert trainer["text/html"].startswith(network["text/html"])
    assert trainer["text/html"].endswith("<p>Trainer: adam, rate 0.001, 15 of 15 epochs in batches of 300</p>")
    assert estimator["text/plain"].startswith("MLPClassifier(hidden_layer_sizes=(8,)")
    assert "sk-" in estimator["text/html"]
    assert "softmax" in shown(executed, 4)["text/plain"]


def test_it_becomes_a_page(executed: Any, tmp_path: Path) -> None:
    page, _ = nbconvert.HTMLExporter().from_notebook_node(executed)
    assert page.count("f1_macro") >= 2
    assert "Traceback" not in page
