"""Estimators in other forms: files, pickles, scikit-learn's estimators, ONNX graphs, PyTorch's state dicts."""

import copy
import io
import json
import math
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import neural_network
from sklearn.base import clone
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression

import gpuprop
from gpuprop import MLPClassifier, MLPRegressor, ModelFileError
from gpuprop.estimators import stored_models as model_io
from gpuprop.maths import optimizers, schedules

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

KINDS = ["binary", "text", "multiclass", "multilabel", "one class", "one output", "several outputs", "poisson"]


def fitted(kind: Any, library: Any = gpuprop, **parameters: Any) -> Any:
    """Return a fitted estimator and its data."""
    parameters = {"hidden_layer_sizes": (6, 4), "max_iter": 5, "random_state": 0} | parameters
    if kind in ("one output", "several outputs", "poisson"):
        X, y = make_regression(50, 5, n_targets=3 if kind == "several outputs" else 1, random_state=0)
        loss = {"loss": "poisson"} if kind == "poisson" else {}
        return library.MLPRegressor(**parameters | loss).fit(X, np.exp(y / 300) if kind == "poisson" else y / 100), X
    if kind == "multilabel":
        X, y = make_multilabel_classification(50, 5, n_classes=3, random_state=0)
    else:
        X, y = make_classification(50, 5, n_informative=4, n_redundant=0, n_classes=3, random_state=0)
        y = {"binary": y > 0, "text": np.array(["a", "bc", "d"])[y], "multiclass": y, "one class": 0 * y}[kind]
    return library.MLPClassifier(**parameters).fit(X, y), X


def outputs(model: Any, X: Any) -> Any:
    return model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_file_gives_the_estimator_back(kind: Any, dtype: Any, tmp_path: Any) -> None:
    model, X = fitted(kind, dtype=dtype, device="cpu", early_stopping=kind == "binary")
    model.save(tmp_path / "m.safetensors")
    loaded: Any = gpuprop.load(tmp_path / "m.safetensors", "cpu")
    assert type(loaded) is type(model)
    assert loaded.get_params() == model.get_params()
    np.testing.assert_array_equal(outputs(loaded, X), outputs(model, X))
    predicted, expected = loaded.predict(X), model.predict(X)
    np.testing.assert_array_equal(predicted, expected)
    assert predicted.dtype == expected.dtype
    for name in ("n_iter_", "t_", "loss_", "best_loss_", "loss_curve_", "validation_scores_", "out_activation_"):
        assert getattr(loaded, name) == getattr(model, name)
    if hasattr(model, "classes_"):
        np.testing.assert_array_equal(loaded.classes_, model.classes_)
        assert loaded.classes_.dtype == model.classes_.dtype
    assert loaded.n_features_in_ == 5


def test_equal_fits_give_equal_bytes(tmp_path: Any) -> None:
    for name in ("a", "b"):
        fitted("multiclass")[0].save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_file_holds_parameters_beyond_scikit_learns(tmp_path: Any) -> None:
    model, X = fitted(
        "text",
        activation=["tanh", "leaky_relu(0.2)"],
        solver=optimizers.AdamW(weight_decay=0.02),
        learning_rate=schedules.Warmup(2, then=schedules.Cosine()),
        class_weight={"a": 1.5, "d": 2},
        n_iter_no_change=math.inf,
        dropout=(0.1, 0.2),
        random_state=np.random.RandomState(0),
        callbacks=[gpuprop.Callback()],
    )
    model.save(tmp_path / "m.safetensors")
    loaded = gpuprop.load(tmp_path / "m.safetensors")
    assert isinstance(loaded, MLPClassifier)
    np.testing.assert_array_equal(outputs(loaded, X), outputs(model, X))
    expected = model.get_params() | {"random_state": None, "callbacks": None, "activation": ("tanh", "leaky_relu(0.2)")}
    assert loaded.get_params() == expected | {"device": loaded.device_}


def test_activation_of_ones_own_is_asked_for(tmp_path: Any) -> None:
    cube = gpuprop.Activation("cube", lambda z: z**3, lambda z: 3 * z**2, derivative_of="z")
    model, X = fitted("one output", activation=cube)
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(ModelFileError, match="'cube'"):
        gpuprop.load(tmp_path / "m.safetensors")
    loaded = gpuprop.load(tmp_path / "m.safetensors", activations=[cube])
    assert isinstance(loaded, MLPRegressor)
    assert loaded.activation is cube
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_loaded_estimator_can_be_trained_further(tmp_path: Any) -> None:
    model, X = fitted("one output", warm_start=True, solver="sgd", momentum=0.0, shuffle=False)
    model.save(tmp_path / "m.safetensors")
    loaded = gpuprop.load(tmp_path / "m.safetensors")
    assert isinstance(loaded, MLPRegressor)
    y = X[:, 0]
    for one in (model, loaded):
        one.fit(X, y).partial_fit(X, y)  # without momentum there is nothing that a file lacks
    np.testing.assert_array_equal(loaded.coefs_[0], model.coefs_[0])
    assert loaded.loss_curve_ == model.loss_curve_
    assert len(pd.DataFrame(loaded.history_)) == 11


def test_feature_names_and_lbfgs(tmp_path: Any) -> None:
    X = pd.DataFrame(np.eye(3), columns=["one", "zwei", "trois"])
    model = MLPRegressor(solver="lbfgs", max_iter=5, random_state=0).fit(X, [1.0, 2.0, 3.0])
    model.save(tmp_path / "m.safetensors")
    loaded = gpuprop.load(tmp_path / "m.safetensors")
    assert isinstance(loaded, MLPRegressor)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.feature_names_in_.tolist() == list(X.columns)
    assert not hasattr(loaded, "loss_curve_")


def test_network_of_an_estimators_file(tmp_path: Any) -> None:
    model, X = fitted("multiclass")
    model.save(tmp_path / "m.safetensors")
    network = model_io.load_network(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(network.forward(X), model.predict_proba(X))


def test_what_a_file_cannot_hold_is_refused(tmp_path: Any) -> None:
    model, _ = fitted("binary")

    class Own(optimizers.SGD):
        name = "own"

    model.set_params(solver=Own())
    with pytest.raises(ValueError, match=r"solver: got .*Own"):
        model.save(tmp_path / "another")
    assert not (tmp_path / "another").exists()


def test_records_of_very_many_epochs_fit_into_a_file(tmp_path: Any) -> None:
    model, X = fitted("one output")
    n_epochs = 300_000  # of which all records would take more than the metadata of a file may
    model.loss_curve_ = [1.0 / 3 / (i + 1) for i in range(n_epochs)]
    model.history_ = {"epoch": list(range(1, n_epochs + 1)), "train_loss": model.loss_curve_}
    model.save(tmp_path / "m")
    restored = gpuprop.load(tmp_path / "m")
    assert isinstance(restored, MLPRegressor)
    assert restored.loss_curve_[-1] == model.loss_curve_[-1]
    assert restored.history_["epoch"][-1] == n_epochs
    assert 1000 <= len(restored.loss_curve_) == len(restored.history_["epoch"]) < n_epochs
    np.testing.assert_array_equal(restored.predict(X), model.predict(X))


LABELS = {
    "text": st.text(st.characters(exclude_characters="\0"), max_size=5),  # NumPy's text does not end in NUL
    "int8": st.integers(-128, 127),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "float16": st.integers(-2000, 2000).map(float),
    "float32": st.floats(width=32, allow_nan=False, allow_infinity=False).map(round).map(float),
    "datetime64[D]": st.integers(0, 10_000),
    "datetime64[ns]": st.integers(0, 10_000),
    "timedelta64[ns]": st.integers(0, 10_000),
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), kind=st.sampled_from(sorted(LABELS)))
def test_labels_come_back_as_they_were_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, kind: str
) -> None:
    labels = data.draw(st.lists(LABELS[kind], min_size=2, max_size=4, unique=True))
    classes = np.array(labels, dtype=str if kind == "text" else kind)
    assume(len(set(classes.tolist())) == len(labels))
    path = tmp_path_factory.mktemp("labels") / "m.safetensors"
    X = np.arange(12.0).reshape(-1, 1)
    y = classes[np.arange(12) % len(classes)]
    model = MLPClassifier((2,), max_iter=1, device="numpy", random_state=0)
    model.fit(X, y)
    if kind.endswith("]"):
        with pytest.raises(ValueError, match=r"classes_: got labels .* of dtype (datetime|timedelta)64"):
            model.save(path)
        assert not path.exists()
        return
    model.save(path)
    restored = gpuprop.load(path, device="numpy")
    assert isinstance(restored, MLPClassifier)
    assert restored.classes_.dtype == np.unique(y).dtype
    assert restored.classes_.tolist() == np.unique(y).tolist()
    assert restored.predict(X).tolist() == model.predict(X).tolist()


HOSTILE = {
    "no estimator": lambda m: m.pop("estimator"),
    "a list": lambda m: m.update(estimator=[]),
    "unknown parameter": lambda m: m["estimator"]["parameters"].update(ghost=1),
    "unknown object": lambda m: m["estimator"]["parameters"].update(solver={"pickle": "gASVAAAA"}),
    "unknown optimizer": lambda m: m["estimator"]["parameters"].update(solver={"optimizer": ["ghost", {}]}),
    "wrong setting": lambda m: m["estimator"]["parameters"].update(solver={"optimizer": ["adam", {"beta_1": 7}]}),
    "unknown record": lambda m: m["estimator"]["records"].update(predict=1),
    "wrong history": lambda m: m["estimator"]["records"].update(history_=3),
    "labels of objects": lambda m: m["estimator"]["labels"].update(values=[{"items": []}, 1, 2]),
    "labels of another dtype": lambda m: m["estimator"]["labels"].update(dtype="datetime64"),
    "too few labels": lambda m: m["estimator"]["labels"].update(values=[0, 1]),
    "labels that are no numbers": lambda m: m["estimator"]["labels"].update(values=["x", "y", "z"]),
    "another kind": lambda m: m.update(kind="regressor!"),
}


@pytest.mark.parametrize("change", HOSTILE)
def test_hostile_files_are_refused(change: Any, tmp_path: Any) -> None:
    model, _ = fitted("multiclass")
    model.save(tmp_path / "m.safetensors")
    tensors, metadata = model_io.read_file(tmp_path / "m.safetensors")
    HOSTILE[change](metadata)
    model_io.write_file(tmp_path / "hostile", tensors, metadata)
    with pytest.raises(ModelFileError) as refused:
        gpuprop.load(tmp_path / "hostile")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["text", "several outputs"])
def test_file_gives_an_ensemble_back(kind: Any, tmp_path: Any) -> None:
    estimator, X = fitted(kind)
    y = np.array(["a", "bc", "d"])[np.arange(50) % 3] if kind == "text" else X[:, :3]
    frame = pd.DataFrame(X, columns=[f"column {i}" for i in range(X.shape[1])])
    ensemble = gpuprop.MLPEnsemble(clone(estimator), 3, random_state=7).fit(frame, y)
    for name in ("one", "two"):
        ensemble.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    loaded: Any = gpuprop.load(tmp_path / "one")
    assert isinstance(loaded, gpuprop.MLPEnsemble)
    assert (loaded.n_networks, loaded.random_state, loaded.shared_order) == (3, 7, True)
    assert loaded.estimator.get_params() == ensemble.estimator.get_params() | {"device": loaded.estimator.device}
    for got, expected in zip(loaded.predict(frame, True), ensemble.predict(frame, True), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert loaded.feature_names_in_.tolist() == list(frame.columns)
    assert loaded.estimators_[1].loss_curve_ == ensemble.estimators_[1].loss_curve_
    with pytest.raises(ModelFileError, match="kind 'ensemble'"):
        model_io.load_network(tmp_path / "one")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, metadata: metadata.pop("members"), "metadata.members is missing"),
        (lambda tensors, metadata: metadata["members"].pop(), "member.1"),
        (lambda tensors, metadata: tensors.pop("member.1.biases.0"), "tensors, expected"),
        (lambda tensors, metadata: metadata["members"][0].update(kind="network"), "an unknown 'estimator'"),
        (lambda tensors, metadata: metadata["members"].append("x"), r"members\[2\]: got 'x', expected an object"),
        (lambda tensors, metadata: metadata["members"][0].update(kind="ensemble"), "kind 'ensemble'"),
        (lambda tensors, metadata: metadata["ensemble"]["parameters"].update(ghost=1), "ghost"),
        (lambda tensors, metadata: metadata.pop("ensemble"), "ensemble"),
    ],
)
def test_hostile_files_of_ensembles_are_refused(change: Any, message: Any, tmp_path: Any) -> None:
    from gpuprop.estimators.stored_models import read_file, write_file

    estimator, X = fitted("text")
    gpuprop.MLPEnsemble(clone(estimator), 2, random_state=0).fit(X, X[:, 0] > 0).save(tmp_path / "ensemble")
    tensors, metadata = read_file(tmp_path / "ensemble")
    change(tensors, metadata)
    write_file(tmp_path / "changed", tensors, metadata)
    with pytest.raises(ModelFileError, match=message):
        gpuprop.load(tmp_path / "changed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_iter": -1}, "max_iter"),
        ({"clip_norm": True}, "'clip_norm' parameter: got True, which is no number"),
        ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes must be > 0"),
        ({"solver": "adm"}, "did you mean 'adam'"),
        ({"dropout": [0.1] * 7}, "dropout: got 7 rates"),
        ({"class_weight": {"a": "heavy"}}, "class_weight: got {'a': 'heavy'}"),
    ],
)
def test_no_file_is_written_that_could_not_be_read(change: Any, message: str, tmp_path: Any) -> None:
    estimator, X = fitted("text")
    ensemble = gpuprop.MLPEnsemble(clone(estimator), 2, random_state=0).fit(X, X[:, 0] > 0)
    with pytest.raises(ValueError, match=message):
        copy.deepcopy(estimator).set_params(**change).save(tmp_path / "m")
    ensemble.estimator.set_params(**change)
    with pytest.raises(ValueError, match=message):
        ensemble.save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_unfitted_estimator_cannot_be_saved(tmp_path: Any) -> None:
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        MLPClassifier().save(tmp_path / "m")


@pytest.mark.parametrize("kind", ["text", "several outputs"])
def test_joblib_and_skops(kind: Any) -> None:
    skops = pytest.importorskip("skops.io", reason="the extra gpuprop[skops] is not installed")
    model, X = fitted(kind)
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    np.testing.assert_array_equal(outputs(joblib.load(file), X), outputs(model, X))
    content = skops.dumps(model)
    loaded = skops.loads(content, trusted=skops.get_untrusted_types(data=content))
    np.testing.assert_array_equal(outputs(loaded, X), outputs(model, X))


# --- scikit-learn --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_scikit_learns_estimator_and_back(kind: Any) -> None:
    model, X = fitted(kind)
    theirs = model.to_sklearn()
    assert type(theirs).__module__.startswith("sklearn.neural_network")
    np.testing.assert_allclose(outputs(theirs, X), outputs(model, X), rtol=1e-12)
    np.testing.assert_array_equal(theirs.predict(X).shape, model.predict(X).shape)
    back = type(model).from_sklearn(theirs, device="numpy")
    np.testing.assert_allclose(outputs(back, X), outputs(model, X), rtol=1e-12)
    assert back.get_params() == model.get_params() | {"device": "numpy"}
    assert back.loss_curve_ == model.loss_curve_
    assert back.history_["train_loss"] == model.loss_curve_


@pytest.mark.parametrize("kind", KINDS)
def test_what_scikit_learn_trained_is_taken_over(kind: Any) -> None:
    theirs, X = fitted(kind, neural_network, warm_start=True)
    model = getattr(gpuprop, type(theirs).__name__).from_sklearn(theirs)
    np.testing.assert_allclose(outputs(model, X), outputs(theirs, X), rtol=1e-12)
    if kind != "several outputs":  # whose loss is another number
        y = np.exp(X[:, 0])
        if kind == "multilabel":
            y = X[:, :3] > 0
        elif hasattr(theirs, "classes_"):
            y = np.resize(theirs.classes_, len(X))
        np.testing.assert_allclose(model.fit(X, y).loss_curve_, theirs.fit(X, y).loss_curve_, rtol=1e-9)


def test_what_scikit_learn_does_not_know_becomes_its_default() -> None:
    model, X = fitted("one output", solver="nadam", learning_rate="cosine", max_epochs=4, max_iter=200, loss="huber(2)")
    theirs = model.to_sklearn()
    assert (theirs.solver, theirs.learning_rate, theirs.loss, theirs.max_iter) == (
        "adam",
        "constant",
        "squared_error",
        4,
    )
    np.testing.assert_allclose(theirs.predict(X), model.predict(X), rtol=1e-12)
    theirs.partial_fit(X, X[:, 0])
    with pytest.raises(ValueError, match="'gelu'"):
        fitted("binary", activation="gelu")[0].to_sklearn()
    with pytest.raises(TypeError, match="expected scikit-learn's MLPClassifier"):
        MLPClassifier.from_sklearn(theirs)


# --- ONNX ----------------------------------------------------------------------------------------------------------


def run_onnx(graph: Any, X: Any) -> Any:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = runtime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"X": X})
    return result


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_graph_gives_equal_outputs(kind: Any, dtype: Any) -> None:
    pytest.importorskip("onnx", reason="the extra gpuprop[onnx] is not installed")
    model, X = fitted(kind, dtype=dtype)
    graph = model.to_onnx()
    assert json.loads(json.dumps([output.name for output in graph.graph.output])) == [
        "probabilities" if hasattr(model, "predict_proba") else "prediction"
    ]
    result = run_onnx(graph, X.astype(dtype))
    assert result.dtype == dtype
    expected = outputs(model, X).reshape(len(X), -1)
    np.testing.assert_allclose(result, expected, rtol=1e-4 if dtype == "float32" else 1e-12, atol=1e-6)


@pytest.mark.parametrize(
    "activation",
    [*gpuprop.activations.ACTIVATIONS, "leaky_relu(0.3)", "elu(0.5)"],
)
def test_onnx_graph_of_every_activation(activation: Any) -> None:
    pytest.importorskip("onnx", reason="the extra gpuprop[onnx] is not installed")
    model, X = fitted("one output", activation=activation, dtype="float32")
    result = run_onnx(model.to_onnx(), X.astype(np.float32))
    np.testing.assert_allclose(result[:, 0], model.predict(X), rtol=1e-4, atol=1e-5)


def test_onnx_does_not_know_activations_of_ones_own() -> None:
    pytest.importorskip("onnx", reason="the extra gpuprop[onnx] is not installed")
    cube = gpuprop.Activation("cube", lambda z: z**3, lambda z: 3 * z**2, derivative_of="z")
    with pytest.raises(ValueError, match="one of your own"):
        fitted("one output", activation=cube)[0].to_onnx()


# --- PyTorch -------------------------------------------------------------------------------------------------------


def test_torch_state_dict_can_be_loaded_as_arrays() -> None:
    """The layout of a state dict, without PyTorch: y = x W^T + b for each linear layer."""
    from gpuprop.estimators.exchange import _torch_arrays

    model, X = fitted("one output", activation="tanh")
    state = _torch_arrays(model.network_)
    assert list(state) == ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]
    a = X
    for layer in (0, 2, 4):
        a = a @ state[f"{layer}.weight"].T + state[f"{layer}.bias"]
        a = np.tanh(a) if layer < 4 else a
    np.testing.assert_allclose(a[:, 0], model.predict(X), rtol=1e-12)

    other, _ = fitted("one output", activation="tanh", random_state=1)
    np.testing.assert_array_equal(other.load_torch_state_dict(state).predict(X), model.predict(X))
    with pytest.raises(ValueError, match="state dict of shapes"):
        other.load_torch_state_dict({"0.weight": state["0.weight"]})


def test_torch_sequential_predicts_alike_and_back() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is no dependency of the tests: its Linux build is large")
    model, X = fitted("multiclass")
    layers = [torch.nn.Linear(5, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3)]
    net = torch.nn.Sequential(*layers, torch.nn.Softmax(dim=1)).double()
    net.load_state_dict(model.to_torch_state_dict())
    np.testing.assert_allclose(net(torch.from_numpy(X)).detach().numpy(), model.predict_proba(X), rtol=1e-10)
    other, _ = fitted("multiclass", random_state=1)
    np.testing.assert_array_equal(
        other.load_torch_state_dict(net.state_dict()).predict_proba(X), model.predict_proba(X)
    )
