"""TabularClassifier and TabularRegressor learn tables of mixed columns, and work inside scikit-learn's tools."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline

import gpuprop
from gpuprop import TabularClassifier, TabularRegressor
from gpuprop.errors import ModelFileError
from gpuprop.estimators.held_out import splits
from gpuprop.model.container import read_file, write_file

SMALL: dict[str, Any] = {
    "hidden_layer_sizes": (16,),
    "epochs": 30,
    "random_state": 0,
    "device": "cpu",
    "plan": "steps",
}
N = 240


def passengers(seed: int = 0) -> tuple[pd.DataFrame, Any]:
    """Return a table like the Titanic's, in which sex, class and age decide, and the labels."""
    rng = np.random.default_rng(seed)
    sex, travel = rng.choice(["male", "female"], N), rng.integers(1, 4, N)
    age = np.where(rng.uniform(size=N) < 0.2, np.nan, rng.uniform(1, 80, N).round(1))
    survived = (sex == "female") * 2 - travel + (age < 12) * 2 > 0
    frame = pd.DataFrame(
        {
            "PassengerId": np.arange(1, N + 1),
            "Pclass": travel,
            "Name": [f"Passenger {i}" for i in range(N)],
            "Sex": sex,
            "Age": age,
            "Embarked": rng.choice(np.array(["S", "C", "Q", None], dtype=object), N),
            "Boarded": pd.date_range("1912-04-10", periods=N, freq="h"),
        }
    )
    return frame, np.where(survived, "yes", "no")


@pytest.fixture(scope="module")
def fitted() -> TabularClassifier:
    return TabularClassifier(**SMALL | {"epochs": 100}).fit(*passengers())


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the made tables, written by the same rule as the cases' own."""
    folder = tmp_path_factory.mktemp("tables")
    X = np.tile(np.random.default_rng(0).normal(size=(60, 3)).round(3), (5, 1))
    i, cities = np.arange(300), np.array(["Porto", "Lima", "Oslo", "Accra"])
    frame = pd.DataFrame(
        {
            "id": [f"K-{1000 + one}" for one in i],
            "city": np.where(i % 11 == 0, "", cities[i % 4]),
            "joined": [f"2024-{1 + one % 12:02d}-{1 + one % 28:02d}" for one in i],
            "member": np.where(X[:, 1] > 0, "yes", "no"),
            "income": np.where(i % 9 == 0, np.nan, (3000 + 500 * X[:, 0]).round(2)),
            "spent": (100 + 40 * X[:, 0] + 25 * (i % 4) + 10 * (X[:, 1] > 0)).round(2),
        }
    )
    frame.to_csv(folder / "mixed.csv", index=False)
    (folder / "mixed_new.csv").write_text(
        "spent_last_year,city,id,member,income,joined\n"
        "1,Quito,N-0,yes,3100,2025-02-01\n1,,N-1,no,,\n1,Oslo,N-2,yes,2900.5,2025-03-09\n"
    )
    return folder


# --- what comes out ----------------------------------------------------------------------------------------------


def test_a_table_of_mixed_columns_is_learnt(mixed: Path) -> None:
    frame = pd.read_csv(mixed / "mixed.csv")
    spent = frame.pop("spent")
    train, test, y, y_test = train_test_split(frame, spent, random_state=0)
    regressor = TabularRegressor(**SMALL | {"hidden_layer_sizes": (128, 128), "epochs": 256}).fit(train, y)
    assert regressor.score(test, y_test) > 0.9
    assert {row.name: row.kind for row in regressor.columns_.table()} == {
        "id": "identifier",
        "city": "category",
        "joined": "date",
        "member": "boolean",
        "income": "number",
    }
    new = pd.read_csv(mixed / "mixed_new.csv")
    predictions = regressor.predict(new)
    assert predictions.shape == (3,)
    assert np.isfinite(predictions).all()
    with pytest.raises(ValueError, match="X lacks the columns 'city', 'income' "):
        regressor.predict(new.drop(columns=["income", "id", "city"]))


def test_a_table_like_the_titanics_is_learnt(fitted: TabularClassifier) -> None:
    new, survived = passengers(seed=1)
    assert fitted.score(new, survived) > 0.9
    assert fitted.classes_.tolist() == ["no", "yes"]
    kinds = {row.name: row.kind for row in fitted.columns_.table()}
    assert [name for name, kind in kinds.items() if kind == "identifier"] == ["PassengerId", "Name"]
    assert fitted.n_features_in_ == 7
    assert fitted.feature_names_in_.tolist() == list(new.columns)


def test_probabilities_are_those_of_the_formulas(fitted: TabularClassifier) -> None:
    frame, _ = passengers(seed=2)
    (network,) = fitted.networks_
    a = fitted.columns_.transform(frame).astype(np.float64)
    (w1, w2), (b1, b2) = ([np.asarray(p, np.float64) for p in ps] for ps in (network.weights, network.biases))
    z = a @ w1 + b1
    hidden = 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * np.expm1(z))  # selu
    outputs = np.exp(hidden @ w2 + b2)
    expected = outputs / outputs.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fitted.predict_proba(frame), expected, atol=1e-5)
    np.testing.assert_allclose(fitted.predict_log_proba(frame), np.log(expected), atol=1e-4)
    assert (fitted.predict(frame) == fitted.classes_[expected.argmax(axis=1)]).all()


def test_predictions_do_not_depend_on_the_form_of_the_table(fitted: TabularClassifier) -> None:
    frame, _ = passengers(seed=3)
    expected = fitted.predict_proba(frame)
    others = [
        frame[frame.columns[::-1]].assign(more=1),
        frame.drop(columns=["PassengerId", "Name"]),
        pa.Table.from_pandas(frame),
        frame.astype({"Sex": "category", "Pclass": float}),
        frame.convert_dtypes(),
    ]
    for other in others:
        np.testing.assert_array_equal(fitted.predict_proba(other), expected)
    unseen = frame.assign(Embarked="Belfast", Sex=None, Age=np.nan)
    assert np.isfinite(fitted.predict_proba(unseen)).all()


def test_frames_of_polars() -> None:
    polars = pytest.importorskip("polars")
    frame, y = passengers()
    classifier = TabularClassifier(**SMALL).fit(polars.from_pandas(frame), y)
    np.testing.assert_array_equal(
        classifier.predict_proba(polars.from_pandas(frame)),
        TabularClassifier(**SMALL).fit(frame, y).predict_proba(frame),
    )


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["007", "042"]),
        np.array(["007", "042"], dtype=object),
        np.array([3, 7]),
        np.array([1.0, 2.0]),
        np.array([True, False]),
        pd.Categorical(["b", "a"]),
        pd.array([5, 6], dtype="Int64"),
        pd.array([True, False], dtype="boolean"),
        pd.array(["x", "y"], dtype="string"),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_labels_keep_type_and_spelling(labels: Any, tmp_path: Path) -> None:
    frame, survived = passengers()
    y = pd.Series(labels)[(survived == "yes").astype(int)].reset_index(drop=True)
    classifier = TabularClassifier(**SMALL | {"epochs": 2}).fit(frame, y)
    expected = sorted(labels.tolist())
    assert classifier.classes_.tolist() == expected
    assert [type(label) for label in classifier.classes_.tolist()] == [type(label) for label in expected]
    predicted = classifier.predict(frame)
    assert set(predicted.tolist()) <= set(expected)
    classifier.save(tmp_path)
    again = gpuprop.load(tmp_path, device="cpu")
    assert isinstance(again, TabularClassifier)
    assert again.classes_.dtype == classifier.classes_.dtype
    assert again.predict(frame).tolist() == predicted.tolist()


def test_targets_of_a_regression() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 3))
    y = np.c_[1e7 + X[:, 0], 1e-4 * X[:, 1]]
    regressor = TabularRegressor(**SMALL | {"epochs": 100}).fit(X, y)
    far = regressor.predict(X * 100)
    assert regressor.predict(X).shape == (N, 2)
    assert min(r2_score(y, regressor.predict(X), multioutput="raw_values")) > 0.8
    assert (far.min(axis=0) >= y.min(axis=0)).all()
    assert (far.max(axis=0) <= y.max(axis=0)).all()
    free = TabularRegressor(**SMALL | {"epochs": 100, "clamped": False}).fit(X, y)
    assert free.target_range_ is None
    assert (free.predict(X * 100).max(axis=0) > y.max(axis=0)).any()
    constant = TabularRegressor(**SMALL | {"epochs": 2}).fit(X, np.full(N, 3.5))
    np.testing.assert_allclose(constant.predict(X), 3.5)


# --- the training ------------------------------------------------------------------------------------------------


def test_the_best_epoch_is_kept() -> None:
    frame, y = passengers()
    new, y_new = passengers(seed=1)
    classifier = TabularClassifier(**SMALL).fit(frame, y, X_val=new, y_val=y_new)
    accuracies = classifier.history_["validation_accuracy"]
    (best,) = classifier.best_epochs_
    assert accuracies[best - 1] == max(accuracies)
    assert max(accuracies) not in accuracies[best:]  # the last of equals
    assert accuracy_score(y_new, classifier.predict(new)) == pytest.approx(max(accuracies))
    assert len(accuracies) == 30
    last = TabularClassifier(**SMALL | {"validation_fraction": 0}).fit(frame, y)
    assert last.best_epochs_ == [30]
    assert last.history_["validation_accuracy"] == [None] * 30


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_large_preset_embeds_numbers_and_categories(task: str, tmp_path: Path) -> None:
    frame, y = passengers()
    frame = frame.assign(Cabin=np.array([f"C{i}" for i in range(12)])[np.arange(N) % 12])
    estimator: Any = TabularClassifier if task == "classification" else TabularRegressor
    targets = y if task == "classification" else (y == "yes").astype(float)
    large = estimator(**SMALL | {"preset": "tabular-large", "epochs": 60}).fit(frame, targets)
    assert large.score(frame, targets) > (0.85 if task == "classification" else 0.5)
    embedding = large.networks_[0].spec.embedding
    assert (embedding.n_numbers, embedding.categories) == (3, (13,))  # Pclass, Age, Boarded; Cabin
    large.save(tmp_path)
    again = gpuprop.load(tmp_path, device="cpu")
    assert isinstance(again, estimator)
    np.testing.assert_array_equal(again.predict(frame), large.predict(frame))
    pickled = pickle.loads(pickle.dumps(large))
    np.testing.assert_array_equal(pickled.predict(frame), large.predict(frame))


def test_several_networks_are_averaged() -> None:
    frame, y = passengers()
    new, _ = passengers(seed=1)
    both = TabularClassifier(**SMALL | {"n_networks": 2, "cv": 3, "epochs": 5}).fit(frame, y)
    assert len(both.networks_) == len(both.best_epochs_) == 6
    outputs = [network.forward(both.columns_.transform(new)) for network in both.networks_]
    np.testing.assert_allclose(both.predict_proba(new), np.mean(outputs, axis=0, dtype=np.float64), rtol=1e-6)
    assert len({outputs[i].tobytes() for i in range(6)}) == 6
    assert both.history_["network"] == [1 + i // 5 for i in range(30)]
    assert both.history_["epoch"] == [1, 2, 3, 4, 5] * 6
    regressor = TabularRegressor(**SMALL | {"cv": 2, "epochs": 5}).fit(frame, frame["Pclass"])
    single = [
        np.clip(network.forward(regressor.columns_.transform(new))[:, 0] * s + m, 1, 3)
        for network in regressor.networks_
        for s, m in [(frame["Pclass"].std(ddof=0), frame["Pclass"].mean())]
    ]
    np.testing.assert_allclose(regressor.predict(new), np.mean(single, axis=0), rtol=1e-5)


@pytest.mark.parametrize("n_samples", [7, 33, 100])
@pytest.mark.parametrize("stratified", [False, True])
def test_rows_are_held_out(n_samples: int, stratified: bool) -> None:
    random_state = np.random.RandomState(0)
    classes = np.array([0, 0, 0, 0, 1, 1, 2] * 15)[:n_samples] if stratified else None
    (share,) = splits(n_samples, classes, random_state, share=0.2, folds=None)
    folds = list(splits(n_samples, classes, random_state, share=0.2, folds=3))
    for kept, held_out in (share, *folds):
        assert sorted([*kept, *held_out]) == list(range(n_samples))
    assert len(share[1]) <= 0.2 * n_samples
    assert {len(kept) for kept, _ in folds} == {n_samples - n_samples // 3}
    assert len(np.unique(np.concatenate([held_out for _, held_out in folds]))) == n_samples // 3 * 3
    if classes is not None:
        assert set(classes[share[0]]) == {0, 1, 2}
        for _, held_out in (share, *folds):
            counts = np.bincount(classes[held_out], minlength=3)
            assert (abs(counts - np.bincount(classes) * len(held_out) / n_samples) <= 1).all()


def test_weights_of_rows_and_classes_count() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 2))
    noisy = np.where(rng.uniform(size=N) < 0.5, X[:, 0] > 0, X[:, 0] <= 0)
    y = np.where(np.arange(N) % 2, X[:, 0] > 0, noisy)  # every second row is worth nothing
    weighted = TabularClassifier(**SMALL).fit(X, y, sample_weight=np.arange(N) % 2)
    assert weighted.score(X, X[:, 0] > 0) > 0.9
    rare = X[:, 0] + rng.normal(size=N) > 1.5
    shares = [
        TabularClassifier(**SMALL | {"class_weight": weight}).fit(X, rare).predict(X).mean()
        for weight in (None, "balanced", {False: 1.0, True: 50.0})
    ]
    assert shares == sorted(shares)
    assert shares[2] > shares[0] + 0.1


def test_options_win_over_the_preset(capsys: pytest.CaptureFixture[str]) -> None:
    frame, y = passengers()

    class Epochs(gpuprop.Callback):
        seen = 0

        def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
            Epochs.seen += 1
            assert trainer.batch_size == 50
            assert trainer.learning_rate == 0.02
            assert trainer.label_smoothing == 0.3

    options = {"batch_size": 50, "learning_rate": 0.02, "label_smoothing": 0.3, "activation": "tanh"}
    options |= {"hidden_layer_sizes": (8, 4), "epochs": 3, "callbacks": [Epochs()], "verbose": True}
    classifier = TabularClassifier(**SMALL | options).fit(frame, y)
    assert Epochs.seen == 3
    (network,) = classifier.networks_
    assert network.layer_sizes[1:] == (8, 4, 2)
    assert network.hidden_activations[0].name == "tanh"
    printed = capsys.readouterr().out
    assert "PassengerId  identifier" in printed
    assert "epoch 3 of 3: train loss" in printed
    default = TabularClassifier(epochs=1, random_state=0, device="cpu").fit(frame, y)
    assert default.networks_[0].layer_sizes[1:] == (256, 256, 256, 2)
    assert default.networks_[0].hidden_activations[0].name == "selu"


def test_an_interrupted_training_leaves_its_last_epoch() -> None:
    class Impatient(gpuprop.Callback):
        def on_epoch_begin(self, trainer: Any, epoch: int) -> None:
            if epoch == 4:
                raise KeyboardInterrupt

    frame, y = passengers()
    classifier = TabularClassifier(**SMALL | {"callbacks": [Impatient()], "n_networks": 2})
    with pytest.warns(UserWarning, match="training interrupted by the user after 3 epochs"):
        classifier.fit(frame, y)
    assert classifier.best_epochs_ == [3, 3]
    assert classifier.history_["epoch"] == [1, 2, 3] * 2
    assert classifier.predict(frame).shape == (N,)


def test_equal_seeds_give_equal_bits() -> None:
    frame, y = passengers()
    first, second = (TabularClassifier(**SMALL | {"n_networks": 2}).fit(frame, y).predict_proba(frame) for _ in "ab")
    np.testing.assert_array_equal(first, second)
    other = TabularClassifier(**SMALL | {"n_networks": 2, "random_state": 1}).fit(frame, y).predict_proba(frame)
    assert (other != first).any()


def test_the_columns_options_reach_the_columns() -> None:
    frame, y = passengers()
    frame = frame.assign(Age=frame["Age"].astype(object).where(frame["Age"].notna(), "?"))
    options = {"categorical_features": ["Pclass"], "drop": ["Boarded"], "missing_values": ["?"]}
    classifier = TabularClassifier(**SMALL | options).fit(frame, y)
    kinds = {row.name: (row.kind, row.missing > 0) for row in classifier.columns_.table()}
    assert kinds["Pclass"] == ("category", False)
    assert kinds["Age"] == ("number", True)
    assert kinds["Boarded"] == ("left out", False)
    coded = np.c_[np.arange(N) % 3, np.random.default_rng(0).normal(size=N)]
    array = TabularClassifier(**SMALL | {"categorical_features": [0], "epochs": 60}).fit(coded, coded[:, 0] == 1)
    assert array.score(coded, coded[:, 0] == 1) > 0.95


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "y", "message"),
    [
        ({"preset": "tabullar"}, None, "unknown preset 'tabullar'; did you mean 'tabular'"),
        ({"cv": 1}, None, "'cv' parameter .* must be an int in the range"),
        ({"cv": 500}, None, "cv=500: got 240 rows"),
        ({}, ["a"] * N, "y has one class only, 'a'"),
        ({}, ["a", None] * (N // 2), r"row 1 \(counted from 0\) has no label"),
        ({}, ["a", 1] * (N // 2), "got labels of the types int, str, expected text only"),
        ({}, np.linspace(0, 1, N), "Unknown label type: continuous"),
        ({"drop": ["Nmae"]}, None, "drop: unknown column 'Nmae'; did you mean 'Name'"),
        ({"activation": "sellu"}, None, "unknown activation 'sellu'"),
    ],
)
def test_a_fit_that_cannot_be(options: dict[str, Any], y: Any, message: str) -> None:
    frame, survived = passengers()
    with pytest.raises((ValueError, TypeError), match=message):
        TabularClassifier(**SMALL | options).fit(frame, survived if y is None else y)


def test_validation_rows_must_fit() -> None:
    frame, y = passengers()
    classifier = TabularClassifier(**SMALL)
    with pytest.raises(ValueError, match="got only one of X_val and y_val"):
        classifier.fit(frame, y, X_val=frame)
    with pytest.raises(ValueError, match=r"y_val has the classes \['perhaps'\], which y has not"):
        classifier.fit(frame, y, X_val=frame[:2], y_val=["yes", "perhaps"])
    with pytest.raises(ValueError, match="got X_val and cv"):
        clone(classifier).set_params(cv=3).fit(frame, y, X_val=frame, y_val=y)
    with pytest.raises(ValueError, match="y_val: got 2 columns, expected 1"):
        TabularRegressor(**SMALL).fit(frame, frame["Pclass"], X_val=frame[:2], y_val=np.zeros((2, 2)))


# --- files -------------------------------------------------------------------------------------------------------


def test_a_model_file_gives_the_same_bits(fitted: TabularClassifier, tmp_path: Path) -> None:
    frame, _ = passengers(seed=4)
    fitted.save(tmp_path / "a")
    again = gpuprop.load(tmp_path / "a", device="cpu")
    assert isinstance(again, TabularClassifier)
    np.testing.assert_array_equal(again.predict_proba(frame), fitted.predict_proba(frame))
    assert again.columns_.table() == fitted.columns_.table()
    assert again.best_epochs_ == fitted.best_epochs_
    assert again.history_["train_loss"] == fitted.history_["train_loss"]
    assert again.feature_names_in_.tolist() == fitted.feature_names_in_.tolist()
    assert again.get_params()["epochs"] == 100
    again.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    pickled = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(pickled.predict_proba(frame), fitted.predict_proba(frame))


def test_a_regression_with_folds_comes_out_of_its_file(tmp_path: Path) -> None:
    frame, _ = passengers()
    targets = frame[["Pclass", "PassengerId"]]
    regressor = TabularRegressor(**SMALL | {"cv": 2, "epochs": 3, "missing_values": ["?", -1]}).fit(frame, targets)
    regressor.save(tmp_path)
    again = gpuprop.load(tmp_path, device="cpu")
    assert isinstance(again, TabularRegressor)
    np.testing.assert_array_equal(again.predict(frame), regressor.predict(frame))
    assert len(again.networks_) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole["columns"]["columns"].pop(),
        lambda whole: whole["columns"].update(columns=[]),
        lambda whole: whole["labels"].update(values=["a"]),
        lambda whole: whole["labels"].update(dtype="O8(os)"),
        lambda whole: whole["parameters"].update(shell="rm"),
        lambda whole: whole.pop("history"),
        lambda whole: whole.update(n_features="seven"),
        lambda whole: whole["columns"]["columns"][3].update(kind="unused", found="x"),
    ],
)
def test_a_damaged_file_is_refused(fitted: TabularClassifier, tmp_path: Path, damage: Any) -> None:
    fitted.save(tmp_path / "a")
    tensors, metadata = read_file(tmp_path / "a")
    metadata = json.loads(json.dumps(metadata))
    damage(metadata["ensemble"])
    write_file(tmp_path / "b", tensors, metadata)
    with pytest.raises(
        ModelFileError,
        match=r"b: (its metadata do not make a tabular-classifier: .|metadata.ensemble.[a-z]|the unused column holds)",
    ):
        gpuprop.load(tmp_path / "b")


# --- scikit-learn's tools ----------------------------------------------------------------------------------------


def test_life_in_a_pipeline_and_a_search() -> None:
    frame, y = passengers()
    chosen = ColumnTransformer([("some", "passthrough", ["Sex", "Pclass", "Age"])], verbose_feature_names_out=False)
    pipeline = make_pipeline(chosen.set_output(transform="pandas"), TabularClassifier(**SMALL))
    assert pipeline.fit(frame, y).score(frame, y) > 0.9
    grid = {"tabularclassifier__learning_rate": [1e-6, 0.04]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(frame, y)
    assert search.best_params_ == {"tabularclassifier__learning_rate": 0.04}
    assert cross_val_score(TabularRegressor(**SMALL), frame, frame["Pclass"], cv=2).shape == (2,)
    found = gpuprop.search(TabularClassifier(**SMALL), {"learning_rate": [1e-6, 0.04]}, frame, y, cv=2)
    assert found.best_params_ == {"learning_rate": 0.04}


def test_life_in_a_calibration() -> None:
    frame, y = passengers()
    calibrated = CalibratedClassifierCV(TabularClassifier(**SMALL), cv=2).fit(frame, y)
    assert calibrated.score(frame, y) > 0.85
    np.testing.assert_allclose(calibrated.predict_proba(frame).sum(axis=1), 1)


def test_a_clone_is_unfitted_and_equal(fitted: TabularClassifier) -> None:
    twin = clone(fitted)
    assert twin.get_params() == fitted.get_params()
    assert not hasattr(twin, "networks_")


def test_the_larger_preset_learns_what_needs_its_embeddings(tmp_path: Path) -> None:
    """A number that matters by its place in a period, and a category of twelve values: files and gaps included."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"phase": rng.uniform(-2, 2, 500), "town": rng.choice(list("abcdefghijkl"), 500)})
    y = np.sin(6 * frame["phase"]) + frame["town"].map(lambda town: ord(town) % 3)
    options = SMALL | {"hidden_layer_sizes": (32, 32), "epochs": 200, "batch_size": 64}
    larger = TabularRegressor("tabular-large", **options).fit(frame[:400], y[:400])
    assert larger.score(frame[400:], y[400:]) > 0.99
    larger.save(tmp_path)
    loaded = gpuprop.load(tmp_path, "cpu")
    new = frame[400:].assign(town=["new", None] * 50)
    for known in (loaded, pickle.loads(pickle.dumps(larger))):
        np.testing.assert_array_equal(known.predict(new), larger.predict(new))
        np.testing.assert_array_equal(known.predict(frame), larger.predict(frame))
