"""Activations, losses and optimizers: records, scalar forms and oracle know the same ones, and agree on them."""

from __future__ import annotations

import ast
import copy
import dataclasses
import itertools
import math
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest

import gpuprop
from gpuprop.maths.activations import ACTIVATIONS, OUTPUT_ACTIVATIONS, get_activation
from gpuprop.maths.initializers import INITIALIZERS, default_initializer
from gpuprop.maths.losses import LOSSES, get_loss
from gpuprop.maths.optimizers import OPTIMIZERS, Adam, get_optimizer
from gpuprop.measure.equivalence import oracle
from gpuprop_kernels import formulas
from gpuprop_kernels.formulas.elementwise import ELEMENTWISE
from gpuprop_kernels.formulas.rules import MOST_NUMBERS, RULES
from gpuprop_kernels.formulas.terms import LOSS_TERMS

#: The elementary functions of Python's own float64.
PLAIN = SimpleNamespace(
    exp=math.exp,
    expm1=math.expm1,
    log=math.log,
    sqrt=math.sqrt,
    tanh=math.tanh,
    logistic=lambda z: 1 / (1 + math.exp(-z)),
    softplus=lambda z: max(z, 0) + math.log1p(math.exp(-abs(z))),
    normal_distribution=lambda z: 0.5 * math.erfc(-z / math.sqrt(2)),
)


# --- the same facts in all places ------------------------------------------------------------------------------------


def test_records_forms_and_oracle_know_the_same_names() -> None:
    assert {*ELEMENTWISE, "softmax"} == {*oracle.ACTIVATIONS, "softmax"} == {*OUTPUT_ACTIVATIONS}
    assert {name for name, form in ELEMENTWISE.items() if form.hidden} == {*ACTIVATIONS}
    assert {*LOSS_TERMS} == {*LOSSES}
    assert {*RULES} == {*OPTIMIZERS} == {*oracle.OPTIMIZER_SLOTS}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_form_and_record_of_an_activation(name: str) -> None:
    form, record = ELEMENTWISE[name], get_activation(name, output=True)
    assert (form.derivative_of, form.parameter) == (record.derivative_of, record.parameter)
    assert record.onnx
    assert record.formula
    assert record.derivative_formula
    assert record.initializer in INITIALIZERS
    assert default_initializer(name) == default_initializer(record) == record.initializer


@pytest.mark.parametrize("name", LOSS_TERMS)
def test_form_and_record_of_a_loss(name: str) -> None:
    form, record = LOSS_TERMS[name], get_loss(name)
    assert (form.canonical, form.parameter) == (record.canonical, record.parameter)


@pytest.mark.parametrize("name", RULES)
def test_form_and_record_of_an_optimizer(name: str) -> None:
    form, record = RULES[name], get_optimizer(name)
    assert form.hyperparameters == tuple(one.name for one in dataclasses.fields(record))
    assert form.arrays == len(record.slots) == len(oracle.OPTIMIZER_SLOTS[name])
    assert form.decays == hasattr(record, "weight_decay")
    assert 1 <= len(form.numbers(0.1, 1, record.hyperparameters)) <= MOST_NUMBERS


# --- the forms are plain Python --------------------------------------------------------------------------------------


def test_forms_import_neither_numba_nor_gpuprop() -> None:
    for path in Path(formulas.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [one.name for one in node.names] if isinstance(node, ast.Import) else []
            assert not {name.partition(".")[0] for name in names} & {"numba", "gpuprop", "cupy"}, path
            assert not any(name.startswith("gpuprop_kernels.target") for name in names), path


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_form_of_an_activation_in_plain_python(name: str) -> None:
    f, derivative = ELEMENTWISE[name].build(numba.float64, PLAIN)
    p = ELEMENTWISE[name].parameter
    for z in (-30.0, -2.5, -1e-3, 1e-3, 0.7, 3.0):
        a = f(z, p)
        expected, slope = (float(one(np.asarray(z))) for one in oracle.ACTIVATIONS[name])
        assert a == pytest.approx(expected, rel=1e-13, abs=1e-15)
        source = z if ELEMENTWISE[name].derivative_of == "z" else a
        assert derivative(source, p) == pytest.approx(slope, rel=1e-12, abs=1e-15)
    assert math.isnan(f(math.nan, p))


@pytest.mark.parametrize("name", LOSS_TERMS)
def test_form_of_a_loss_in_plain_python(name: str) -> None:
    terms = LOSS_TERMS[name].build(numba.float64, PLAIN, LOSS_TERMS[name].parameter)
    for a, y in itertools.product((0.1, 0.5, 0.9), (0.0, 0.5, 1.0)):
        both = np.array([[a]]), np.array([[y]])
        assert terms.value(0.0, a, y) == pytest.approx(float(get_loss(name).value(*both)[0]), rel=1e-13, abs=1e-15)
        assert terms.gradient(a, y) == pytest.approx(float(oracle.loss_slope(name, *both)[0, 0]), rel=1e-13)
    assert math.isnan(terms.gradient(math.nan, 0.5))


@pytest.mark.parametrize("name", RULES)
def test_form_of_an_optimizer_in_plain_python(name: str) -> None:
    optimizer, rule = get_optimizer(name), RULES[name].build(numba.float64, PLAIN)
    place, s, t, state = 1.0, 0.0, 0.0, oracle.optimizer_state(name, 1)
    expected = np.ones(1)
    for step, g in enumerate((0.3, -0.1, 0.0, 2.0), start=1):
        c = RULES[name].numbers(0.1, step, optimizer.hyperparameters)
        place, s, t = rule(place, g, s, t, c)
        expected = oracle.optimize(name, expected, np.array([g]), state, 0.1, step, 1, **vars(optimizer))
        assert place == pytest.approx(expected[0], rel=1e-13)
    assert math.isnan(rule(place, math.nan, s, t, c)[0])


# --- records are compared and stored ---------------------------------------------------------------------------------

RECORDS = [
    *(get_activation(name, output=True) for name in (*OUTPUT_ACTIVATIONS, "leaky_relu(0.2)", "elu(0.5)")),
    *(get_loss(name) for name in (*LOSSES, "huber(1.35)", "pinball(0.9)")),
    *(get_optimizer(name) for name in OPTIMIZERS),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_copies_of_a_record_are_equal(record: Any) -> None:
    for twin in (copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert twin == record
        assert hash(twin) == hash(record)
        assert twin.built_in
    assert sum(record == other for other in RECORDS) == 1


def test_a_users_own_record_is_not_one_of_ours() -> None:
    cube = gpuprop.Activation("cube", lambda z: z**3, lambda z: 3 * z**2, derivative_of="z")
    assert cube == dataclasses.replace(cube)
    assert cube != dataclasses.replace(cube, kinks=(1.0,))
    mine = dataclasses.replace(get_loss("huber"), gradient=lambda a, y: 0 * a)
    assert mine != get_loss("huber")
    assert not mine.built_in
    assert not dataclasses.replace(get_loss("huber"), name="own").built_in

    class Mine(Adam):
        pass

    assert not Mine().built_in


def test_records_of_an_old_pickle() -> None:
    """It was written before the modules moved, and before records had all their fields."""
    held = pickle.loads((Path(__file__).parent / "data" / "v1" / "records.pickle").read_bytes())
    for name, activation in held["activations"].items():
        ours = get_activation(name, output=True)
        assert activation == ours
        assert (activation.onnx, activation.parameter, activation.hidden) == (ours.onnx, ours.parameter, ours.hidden)
    for name, loss in held["losses"].items():
        assert loss == get_loss(name)
        assert loss.built_in
    assert [optimizer.built_in for optimizer in held["optimizers"]] == [True, True]
