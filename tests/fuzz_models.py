"""Model files of every kind, their edits, and their use: one half of `tests.fuzz_files`.

An edit changes metadata or tensors of a valid file, and the file is hashed again, as somebody who means harm would do.
Such a file is either refused when it is loaded, by a ModelFileError, or everything that a user does with the model
works; a ValueError in use, which says what does not fit, is counted apart.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd

import gpuprop
from gpuprop.core.embedding import InputEmbedding
from gpuprop.errors import GpupropError, ModelFileError
from gpuprop.maths.activations import ACTIVATIONS
from gpuprop.maths.losses import LOSSES
from gpuprop.maths.optimizers import OPTIMIZERS, AdamW
from gpuprop.maths.schedules import SCHEDULES, Cosine, Warmup
from gpuprop.model.container import read_file, write_file
from gpuprop.model.predictions import prediction_columns
from gpuprop.training.tabular_presets import preset

__all__ = ["MODELS", "Model", "check_message", "edited", "model_of", "use"]

ROWS = 24
_random = np.random.default_rng(0)
X = _random.normal(size=(ROWS, 3))
TWO, THREE = np.arange(ROWS) % 2, np.arange(ROWS) % 3
FRAME = pd.DataFrame(
    {
        "size": np.where(np.arange(ROWS) % 4, X[:, 0], np.nan),
        "city": np.array(["Oslo", "Lima", "Rome", "Bern"])[np.arange(ROWS) % 4],
        "member": np.array(["yes", "no"])[np.arange(ROWS) % 2],
        "day": pd.date_range("2020-01-01", periods=ROWS, freq="31D").astype(str),
        "constant": 1,
        "code": [f"k{i % 11}" for i in range(ROWS)],
    }
)
_FAST: dict[str, Any] = {"device": "numpy", "random_state": 0}
_SHORT: dict[str, Any] = {**_FAST, "hidden_layer_sizes": (4,), "max_iter": 3}
_TABLE: dict[str, Any] = {**_FAST, "hidden_layer_sizes": (4,), "epochs": 2}


@dataclass(frozen=True)
class Model:
    """What a valid file holds, and data that the model was made for."""

    tensors: dict[str, Any]
    metadata: dict[str, Any]
    X: Any
    y: Any


def _network(*sizes: int, **options: Any) -> tuple[Any, Any, Any]:
    network = gpuprop.Network(sizes, seed=0, device="numpy", **options)
    return network, X[:, : network.spec.n_inputs], THREE


def _embedded() -> tuple[Any, Any, Any]:
    embedding = InputEmbedding(n_numbers=1, n_plain=1, categories=(3, 2), n_frequencies=2)
    network = gpuprop.Network(
        (embedding.n_outputs, 4, 3), loss="categorical_cross_entropy", slopes=True, embedding=embedding, device="numpy"
    )
    return network, np.column_stack([X[:, :2], THREE, TWO]), THREE


def _classifier(y: Any, **options: Any) -> tuple[Any, Any, Any]:
    return gpuprop.MLPClassifier(**{**_SHORT, **options}).fit(X, y), X, y


def _regressor(y: Any, **options: Any) -> tuple[Any, Any, Any]:
    return gpuprop.MLPRegressor(**{**_SHORT, **options}).fit(X, y), X, y


def _named(y: Any) -> tuple[Any, Any, Any]:
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    return gpuprop.MLPClassifier(**_SHORT, class_weight={"x": 2.0, "y": 1.0}).fit(frame, y), frame, y


def _several(y: Any, inner: Any) -> tuple[Any, Any, Any]:
    return gpuprop.MLPEnsemble(inner, n_networks=2, random_state=0).fit(X, y), X, y


def _table(kind: Any, y: Any, **options: Any) -> tuple[Any, Any, Any]:
    return kind(**{**_TABLE, **options}).fit(FRAME, y), FRAME, y


def _large(kind: Any, y: Any) -> tuple[Any, Any, Any]:
    task: Any = "classification" if kind is gpuprop.TabularClassifier else "regression"
    recipe = preset("tabular-large", task).with_options(most_one_hot=3)
    return _table(kind, y, preset=recipe, max_categories=5, missing_values=("?", -1), n_networks=2)


MODELS: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "network": lambda: _network(3, 4, 2, 1),
    "network, classes": lambda: _network(
        3,
        4,
        3,
        loss="categorical_cross_entropy",
        classes=["a", "b", "c"],
        feature_names=["p", "q", "r"],
        target_name="kind",
        input_scaling=gpuprop.InputScaling.standard(X),
        dropout=(0.1, 0.2),
        l2=0.1,
    ),
    "network, slopes": lambda: _network(3, 4, 4, 2, slopes=True, dtype="float64", hidden_activation=["selu", "tanh"]),
    "network, embedding": _embedded,
    "classifier, two": lambda: _named(np.array(["x", "y"])[TWO]),
    "classifier, three": lambda: _classifier(
        THREE - 1, early_stopping=True, learning_rate="adaptive", solver="sgd", validation_fraction=0.3
    ),
    "classifier, labels": lambda: _classifier(
        np.column_stack([TWO, THREE > 1, TWO == 0]).astype(int), solver=AdamW(weight_decay=0.1), activation=["tanh"]
    ),
    "classifier, lbfgs": lambda: _classifier(TWO == 1, solver="lbfgs", activation="tanh"),
    "regressor": lambda: _regressor(X[:, 0], learning_rate=Warmup(2, Cosine()), dropout=0.1, clip_norm=1.0),
    "regressor, several": lambda: _regressor(X[:, :2], early_stopping=True, validation_fraction=0.2, loss="huber"),
    "regressor, counts": lambda: _regressor(THREE, loss="poisson", learning_rate="invscaling", solver="sgd"),
    "ensemble, classifiers": lambda: _several(np.array(["x", "y", "z"])[THREE], gpuprop.MLPClassifier(**_SHORT)),
    "ensemble, regressors": lambda: _several(X[:, 1], gpuprop.MLPRegressor(**_SHORT)),
    "table, classes": lambda: _table(gpuprop.TabularClassifier, np.array(["x", "y", "z"])[THREE]),
    "table, numbers": lambda: _table(gpuprop.TabularRegressor, X[:, :2]),
    "table, classes, large": lambda: _large(gpuprop.TabularClassifier, TWO),
    "table, numbers, large": lambda: _large(gpuprop.TabularRegressor, X[:, 0]),
}
"""How each model that a file can hold is made; what it returns has a ``save``, and the data of the model."""


def model_of(kind: str, folder: Path) -> Model:
    """Return what a valid file of this kind holds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted, rows, y = MODELS[kind]()
    path = folder / "valid.safetensors"
    fitted.save(path)
    return Model(*read_file(path), rows, y)


# --- edits -----------------------------------------------------------------------------------------------------------

_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    7,
    10**6,
    10**18,
    2**64,
    -(2**63),
    0.5,
    -0.5,
    1.0,
    1e-300,
    1e300,
    -1e300,
    "",
    "a",
    "0",
    "nan",
    "yes",
    "\x1b[31mred",
    "numpy",
    [],
    [1],
    ["a"],
    [[1]],
    [0.5, 0.5],
    {},
    {"a": 1},
    {"float": "nan"},
    {"float": "inf"},
    {"float": [1]},
    {"float": "x"},
    {"items": []},
    {"items": [["a", 1]]},
    {"items": [["a", [1]], [[1], 2]]},
    {"items": 5},
    {"activation": "mine"},
    {"activation": "relu"},
    {"activation": 5},
    {"optimizer": ["adam", {}]},
    {"optimizer": ["adam", {"beta_1": "x"}]},
    {"schedule": ["cosine", {}]},
    {"schedule": ["warmup", {"then": 5, "warmup_epochs": 3}]},
    {"schedule": ["step", {}]},
    {"preset": {}},
    {"preset": {"task": "regression"}},
    {"preset": {"task": "regression", "hidden": 5}},
)
_WORDS: tuple[str, ...] = (
    *ACTIVATIONS,
    *LOSSES,
    *OPTIMIZERS,
    *SCHEDULES,
    "float32",
    "float64",
    "number",
    "category",
    "date",
    "text",
    "boolean",
    "unused",
    "object",
    "int8",
    "bool",
    "constant",
    "adaptive",
    "balanced",
    "month",
    "%d",
    "lbfgs",
    "tabular-large",
    "network",
    "classifier",
    "regressor",
    "ensemble",
    "tabular-classifier",
    "tabular-regressor",
    "a",
    "1",
)


def edited(random: Random, model: Model, other: Model) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return tensors and metadata with one to three edits, some of which are parts of another model's file."""
    tensors, metadata = dict(model.tensors), copy.deepcopy(model.metadata)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        if random.random() < 0.15:
            _edit_tensor(random, tensors)
        else:
            _edit_metadata(random, metadata, other.metadata)
    return tensors, metadata


def _edit_tensor(random: Random, tensors: dict[str, Any]) -> None:
    name = random.choice(sorted(tensors)) if tensors else "weights.0"
    tensor = tensors.get(name, np.zeros(1, np.float32))
    change = random.randrange(8)
    if change == 0:
        tensors.pop(name, None)
    elif change == 1:
        tensors[random.choice(("weights.9", "member.0.x", "member.7.weights.0", "slopes.0", "x"))] = tensor
    elif change == 2:
        tensors[name] = tensor.reshape(random.choice(((-1,), (1, -1), (-1, 1), (*tensor.shape, 1))))
    elif change == 3:
        tensors[name] = tensor.astype(random.choice(("float64", "float32", "float16", "int64", "bool")))
    elif change == 4:
        tensors[name] = np.full_like(tensor, random.choice((np.nan, np.inf, -np.inf, 1e30, -1e30, 0, 1e-40)))
    elif change == 5:
        tensors[name] = tensor[: max(1, len(tensor) // 2)] if tensor.ndim else tensor
    elif change == 6:
        tensors[name] = np.concatenate([tensor, tensor]) if tensor.ndim else tensor
    else:
        other = random.choice(sorted(tensors)) if tensors else name
        tensors[name], tensors[other] = tensors.get(other, tensor), tensor


def _edit_metadata(random: Random, metadata: dict[str, Any], other: dict[str, Any]) -> None:
    """Change what is at a random place; the items of a list are places of one kind, and all kinds are as likely."""
    kinds: dict[str, list[tuple[Any, Any]]] = {}
    _places(metadata, "", kinds)
    if not kinds:
        metadata["kind"] = random.choice(_VALUES)
        return
    node, key = random.choice(kinds[random.choice(list(kinds))])
    if isinstance(node[key], (dict, list)) and random.random() < 0.3:
        _add(random, node[key], copy.deepcopy(random.choice(_VALUES)))
    else:
        _change(random, node, key, other)


def _places(node: Any, kind: str, kinds: dict[str, list[tuple[Any, Any]]]) -> None:
    for key in node if isinstance(node, dict) else range(len(node)):
        own = f"{kind}.{key}" if isinstance(node, dict) else f"{kind}[]"
        kinds.setdefault(own, []).append((node, key))
        if isinstance(node[key], (dict, list)):
            _places(node[key], own, kinds)


def _change(random: Random, node: Any, key: Any, other: Any) -> None:
    """Change a value, mostly to another one of its kind."""
    value = node[key]
    if random.random() < 0.7 and not isinstance(value, (dict, type(None))):
        node[key] = _neighbour(random, value)
        return
    change = random.randrange(5)
    if change == 0:
        del node[key]
    elif change == 1:
        _add(random, node, copy.deepcopy(value))
    elif change == 2:
        node[key] = _part(random, other)
    else:
        node[key] = copy.deepcopy(random.choice(_VALUES))


def _neighbour(random: Random, value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        factor = random.choice((0, 0.5, 1, 2, -1, 1e6, 1e30))
        near = value * factor + random.choice((0, 1, -1, 0.1))
        return int(near) if isinstance(value, int) and abs(near) < 1e18 else near if abs(near) < 1e300 else 0
    if isinstance(value, str):
        return random.choice((*_WORDS, value.upper(), value + "x", value[:-1], "\x1b]0;x\x07", "=1+1", "\u202e"))
    again = list(value)
    random.shuffle(again)
    return random.choice((again, again[1:], [*again, *again[:1]], []))


def _add(random: Random, node: Any, value: Any) -> None:
    if isinstance(node, dict):
        node[random.choice(("a", "callbacks", "device", "estimator", "plan", "init", "kind", "__class__"))] = value
    else:
        node.insert(random.randint(0, len(node)), value)


def _part(random: Random, tree: Any) -> Any:
    while isinstance(tree, (dict, list)) and tree and random.random() < 0.8:
        tree = random.choice(list(tree.values()) if isinstance(tree, dict) else tree)
    return copy.deepcopy(tree)


# --- use -------------------------------------------------------------------------------------------------------------


def check_message(error: Exception) -> None:
    """A message is one line, and shows the control characters of a file instead of obeying them."""
    assert str(error).isprintable(), f"the message has control characters: {str(error)!r}"


def use(path: Path, tensors: dict[str, Any], metadata: dict[str, Any], model: Model) -> str:
    """Write, load and use a file; return "refused", "worked", or "told" if a ValueError said what does not fit."""
    write_file(path, tensors, metadata)
    try:
        loaded = gpuprop.load(path, device="numpy")
    except ModelFileError as error:
        check_message(error)
        return "refused"
    told = False
    with warnings.catch_warnings(), np.errstate(all="ignore"), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for step in _network_uses(loaded) if isinstance(loaded, gpuprop.Network) else _estimator_uses(loaded):
            try:
                step(model.X, model.y)
            except (ValueError, GpupropError) as error:
                if not str(error):
                    raise
                told = True
    again = path.with_name("again.safetensors")
    loaded.save(again)
    gpuprop.load(again, device="numpy")
    return "told" if told else "worked"


def _network_uses(network: gpuprop.Network) -> list[Callable[[Any, Any], Any]]:
    outputs = network.layer_sizes[-1]

    def train(rows: Any, y: Any) -> None:
        targets = np.tile((np.arange(len(y)) % 2)[:, None], outputs)
        gpuprop.Trainer(network, epochs=1, batch_size=8).fit(rows, targets)

    return [
        lambda rows, y: repr(network),
        lambda rows, y: network.forward(rows),
        lambda rows, y: network.predict(rows),
        lambda rows, y: prediction_columns(network, rows),
        train,
    ]


def _estimator_uses(model: Any) -> list[Callable[[Any, Any], Any]]:
    uses: list[Callable[[Any, Any], Any]] = [
        lambda rows, y: repr(model),
        lambda rows, y: model.get_params(),
        lambda rows, y: model.set_params(**model.get_params(deep=False)),
        lambda rows, y: model.predict(rows),
        lambda rows, y: model.score(rows, y),
    ]
    if hasattr(model, "predict_proba"):
        uses.append(lambda rows, y: model.predict_proba(rows))
    if isinstance(model, gpuprop.MLPEnsemble):
        uses.append(lambda rows, y: model.predict(rows, return_std=True))
    if hasattr(model, "columns_"):
        uses.append(lambda rows, y: (str(model.columns_), model.columns_.table(), model.columns_.input_names))
        uses.append(lambda rows, y: _fit_anew(model, rows, y))
    if hasattr(model, "history_"):
        uses.append(lambda rows, y: pd.DataFrame(model.history_))
    if hasattr(model, "partial_fit"):
        uses += [lambda rows, y: model.partial_fit(rows, y)] * 2
        uses.append(lambda rows, y: model.predict(rows))
    return uses


def _fit_anew(model: Any, rows: Any, y: Any) -> None:
    from sklearn.base import clone

    anew = clone(model).set_params(epochs=1, hidden_layer_sizes=(3,), n_networks=1, cv=None)
    anew.fit(rows, y)
