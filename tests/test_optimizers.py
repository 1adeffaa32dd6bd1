"""Optimizers, clipping and max-norm against their papers, scikit-learn and PyTorch."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from gpuprop.maths.optimizers import (
    OPTIMIZERS,
    SGD,
    AdaDelta,
    Adam,
    AdaMax,
    AdamW,
    Momentum,
    NAdam,
    Nesterov,
    Optimizer,
    RMSProp,
    clip_by_norm,
    get_optimizer,
    limit_incoming_norm,
)
from gpuprop.measure.equivalence import oracle
from tests.references.optimizers import REFERENCES

Array = npt.NDArray[Any]

N_STEPS = 60
DTYPES = ["float32", "float64"]


def eps_of(dtype: str) -> float:
    return float(np.finfo(dtype).eps)


def n_weights_of(n: int) -> int:
    return n - n // 3


def make_problem(n: int, dtype: str) -> tuple[Array, Array, Array]:
    """Parameters, gradients of very different sizes, some zero or tiny, and a rate for every step."""
    rng = np.random.default_rng(n)
    gradients = rng.standard_normal((N_STEPS, n)) * 10.0 ** rng.uniform(-3, 1, n)
    special = [
        np.zeros(N_STEPS),  # never any gradient
        np.where(np.arange(N_STEPS) < 20, 0.0, rng.standard_normal(N_STEPS)),  # none at first
        np.where(np.arange(N_STEPS) < 20, rng.standard_normal(N_STEPS), 0.0),  # none at last
        1e-8 * rng.standard_normal(N_STEPS),  # as small as epsilon
        1e-30 * rng.standard_normal(N_STEPS),  # its square is 0 in float32
    ]
    for column, values in enumerate(special[: n - 1]):
        gradients[:, column] = values
    rates = rng.uniform(0.001, 0.1, N_STEPS)
    return rng.standard_normal(n).astype(dtype), gradients.astype(dtype), rates


class Run:
    """What a caller owns while it trains: parameters, state and work arrays."""

    def __init__(self, optimizer: Optimizer, start: Array, n_weights: int | None = None) -> None:
        self.optimizer = optimizer
        self.parameters = start.copy()
        self.state = {slot: np.zeros_like(start) for slot in optimizer.slots}
        self.scratch = [np.full_like(start, np.nan) for _ in range(optimizer.scratch_arrays)]
        self.n_weights = start.size if n_weights is None else n_weights
        self.step = 0

    def go(self, gradients: Array, rates: Any) -> Array:
        path = []
        for g, rate in zip(gradients, rates, strict=True):
            self.step += 1
            self.optimizer.update(self.parameters, g, self.state, rate, self.step, self.scratch, self.n_weights)
            path.append(self.parameters.copy())
        return np.array(path)


def oracle_path(optimizer: Optimizer, start: Array, gradients: Array, rates: Array, n_weights: int) -> Array:
    """Return the path by the package's float64 oracle, for an optimizer without a reference of its own."""
    place, state, path = start.astype(np.float64), oracle.optimizer_state(optimizer.name, start.size), []
    for step, (g, rate) in enumerate(zip(gradients.astype(np.float64), rates, strict=True), start=1):
        place = oracle.optimize(optimizer.name, place, g, state, rate, step, n_weights, **asdict(optimizer))
        path.append(place)
    return np.array(path)


def reference_path(optimizer: Optimizer, start: Array, gradients: Array, rates: Array, n_weights: int) -> Array:
    settings: dict[str, Any] = asdict(optimizer)
    names = {"momentum": "mu", "weight_decay": "decay"}
    settings = {names.get(name, name): value for name, value in settings.items()}
    if "decay" in settings:
        settings["decay"] = np.where(np.arange(start.size) < n_weights, settings["decay"], 0.0)
    if optimizer.name not in REFERENCES:
        return oracle_path(optimizer, start, gradients, rates, n_weights)
    return REFERENCES[optimizer.name](start.astype(np.float64), gradients.astype(np.float64), rates, **settings)


VARIANTS: list[Optimizer] = [
    *(kind() for kind in OPTIMIZERS.values()),
    Momentum(momentum=0.0),
    Nesterov(momentum=0.5),
    AdaDelta(rho=0.5, epsilon=1e-3),
    RMSProp(rho=0.0, epsilon=1e-2),
    Adam(beta_1=0.0, beta_2=0.5, epsilon=1e-3),
    AdaMax(beta_1=0.3, beta_2=0.6, epsilon=1e-3),
    NAdam(beta_1=0.99, beta_2=0.9, epsilon=1e-3, momentum_decay=0.5),
    AdamW(weight_decay=0.7),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 7, 17, 33, 1023])
@pytest.mark.parametrize("optimizer", VARIANTS, ids=str)
def test_follows_its_paper(optimizer: Optimizer, n: int, dtype: str) -> None:
    start, gradients, rates = make_problem(n, dtype)
    n_weights = n_weights_of(n)
    path = Run(optimizer, start, n_weights).go(gradients, rates)
    expected = reference_path(optimizer, start, gradients, rates, n_weights)
    # Rounding is relative to what is added up: the start, and the way gone if no two changes cancelled.
    way = np.abs(reference_path(optimizer, np.zeros(n), np.abs(gradients), rates, n_weights))
    bound = N_STEPS * eps_of(dtype) / 2 * (np.abs(start) + way)
    error = np.abs(path - expected)
    print(f"share of the bound: {(error / bound).max():.2f}")
    assert path.dtype == dtype
    assert (error <= bound).all()


def test_every_optimizer_has_a_reference() -> None:
    assert set(REFERENCES) <= set(OPTIMIZERS) == set(oracle.OPTIMIZER_SLOTS)
    assert all(kind.name == name for name, kind in OPTIMIZERS.items())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_changes_nothing_but_parameters_and_state(name: str, dtype: str) -> None:
    optimizer = get_optimizer(name)
    start, gradients, rates = make_problem(33, dtype)
    run = Run(optimizer, start)
    arrays = [run.parameters, *run.state.values()]
    before = gradients.copy()
    run.go(gradients, rates)
    np.testing.assert_array_equal(gradients, before)
    assert all(a is b for a, b in zip([run.parameters, *run.state.values()], arrays, strict=True))
    assert all(a.dtype == dtype for a in arrays)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_clipping_and_updating_allocate_no_array(name: str) -> None:
    n = 200_000
    run = Run(get_optimizer(name), np.ones(n, dtype=np.float32))
    gradients = np.ones((1, n), dtype=np.float32)
    run.go(gradients, [0.1])
    tracemalloc.start()
    try:
        run.optimizer.update(run.parameters, gradients[0], run.state, 0.1, 2, run.scratch, n // 2)
        clip_by_norm(gradients[0], 1.0, run.scratch[0])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < n / 4  # an array of bools would be n bytes


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_numpy_scalars_do_not_promote_float32(name: str) -> None:
    start, gradients, rates = make_problem(33, "float32")
    kind = OPTIMIZERS[name]
    plain = Run(kind(), start).go(gradients, [float(rate) for rate in rates])
    as_numpy = kind(**{field: np.float64(value) for field, value in asdict(kind()).items()})
    assert all(type(value) is float for value in asdict(as_numpy).values())
    np.testing.assert_array_equal(Run(as_numpy, start).go(gradients, rates), plain)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_run_gives_the_same_bits(name: str) -> None:
    start, gradients, rates = make_problem(17, "float32")
    whole = Run(get_optimizer(name), start).go(gradients, rates)
    first = Run(get_optimizer(name), start)
    first.go(gradients[:31], rates[:31])
    second = Run(get_optimizer(name), first.parameters)
    second.step = 31
    second.state = {slot: values.copy() for slot, values in first.state.items()}
    np.testing.assert_array_equal(second.go(gradients[31:], rates[31:]), whole[31:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zero_gradients_move_nothing_but_decayed_weights(name: str, dtype: str) -> None:
    start = np.linspace(-1, 1, 7).astype(dtype)
    optimizer = get_optimizer(name)
    path = Run(optimizer, start, n_weights=4).go(np.zeros((5, 7), dtype), [0.1] * 5)
    expected = start.astype(np.float64)
    if hasattr(optimizer, "weight_decay"):
        expected[:4] *= (1 - 0.1 * optimizer.weight_decay) ** 5
        np.testing.assert_allclose(path[-1], expected, rtol=10 * eps_of(dtype))
        start, path = start[4:], path[:, 4:]
    np.testing.assert_array_equal(path[-1], start)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_default_rate_goes_downhill(name: str) -> None:
    optimizer = get_optimizer(name)
    curvature = np.linspace(0.1, 2.0, 17)
    run = Run(optimizer, np.ones(17))
    losses = [0.5 * (curvature * run.parameters**2).sum()]
    for _ in range(200):
        run.go((curvature * run.parameters)[None], [optimizer.default_learning_rate])
        losses.append(0.5 * (curvature * run.parameters**2).sum())
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name, kind in OPTIMIZERS.items() if kind.slots and name != "adagrad"])
def test_nothing_stays_subnormal_after_the_last_gradient(name: str, dtype: str) -> None:
    optimizer = get_optimizer(name)
    gradients = np.zeros((2048 if dtype == "float32" else 15_360, 3), dtype)
    gradients[0] = [1.0, -1.0, math.nan]
    run = Run(optimizer, np.ones(3, dtype))
    run.go(gradients, [0.1] * len(gradients))
    for values in run.state.values():
        sizes = np.abs(values[:2])
        assert ((sizes == 0) | (sizes >= np.finfo(dtype).tiny)).all()
        assert np.isnan(values[2])


def test_nadam_computes_its_product_from_the_step_alone() -> None:
    for optimizer in (NAdam(), NAdam(beta_1=0.99, momentum_decay=1.0), NAdam(momentum_decay=0.0)):
        step, lr = 3000, 0.1
        mu = [optimizer.beta_1 * (1 - 0.96 ** (t * optimizer.momentum_decay) / 2) for t in range(1, step + 2)]
        rate = lr * math.sqrt(1 - optimizer.beta_2**step)
        expected = (
            rate * (1 - mu[step - 1]) / (1 - math.prod(mu[:step])),
            rate * mu[step] / (1 - math.prod(mu[: step + 1])),
        )
        assert optimizer.corrected_rates(lr, step) == pytest.approx(expected, rel=1e-13)
        assert optimizer.corrected_rates(lr, 10**9)[0] > 0


# --- other people's code ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "make_theirs"),
    [
        (SGD(), lambda w: SGDOptimizer(w, 0.05, momentum=0.0, nesterov=False)),
        (Momentum(0.8), lambda w: SGDOptimizer(w, 0.05, momentum=0.8, nesterov=False)),
        (Nesterov(0.8), lambda w: SGDOptimizer(w, 0.05, momentum=0.8, nesterov=True)),
        (Adam(), lambda w: AdamOptimizer(w, 0.05)),
        (Adam(0.8, 0.99, 1e-3), lambda w: AdamOptimizer(w, 0.05, beta_1=0.8, beta_2=0.99, epsilon=1e-3)),
    ],
    ids=str,
)
def test_agrees_with_scikit_learn(optimizer: Optimizer, make_theirs: Callable[[list[Array]], Any]) -> None:
    start, gradients, _ = make_problem(33, "float64")
    parameters = start.copy()
    theirs = make_theirs([parameters])
    expected = []
    for g in gradients:
        theirs.update_params([parameters], [g])
        expected.append(parameters.copy())
    path = Run(optimizer, start).go(gradients, [0.05] * N_STEPS)
    np.testing.assert_allclose(path, expected, rtol=1e-13, atol=1e-14)


@pytest.fixture
def torch() -> Iterator[Any]:
    """PyTorch with float64 as its default: in float32 its NAdam keeps the product of momenta in float32."""
    module = pytest.importorskip("torch", reason="PyTorch is not installed; it is no dependency of the tests")
    default = module.get_default_dtype()
    module.set_default_dtype(module.float64)
    yield module
    module.set_default_dtype(default)


IN_PYTORCH = {
    "sgd": "SGD",
    "momentum": "SGD",
    "nesterov": "SGD",
    "adagrad": "Adagrad",
    "adadelta": "Adadelta",
    "rmsprop": "RMSprop",
    "adam": "Adam",
    "adamax": "Adamax",
    "nadam": "NAdam",
    "adamw": "AdamW",
}


@pytest.mark.parametrize("name", IN_PYTORCH)
def test_agrees_with_pytorch(name: str, torch: Any) -> None:
    ours = get_optimizer(name)
    start, gradients, rates = make_problem(33, "float64")
    if "velocity" in ours.slots:
        rates = np.full(N_STEPS, 0.05)  # PyTorch's velocity does not contain the rate
    settings: dict[str, Any] = asdict(ours)
    betas = settings.pop("beta_1", None), settings.pop("beta_2", None)
    settings = {{"epsilon": "eps"}.get(key, key): value for key, value in settings.items()}
    if betas[0] is not None:
        settings["betas"] = betas
    if name == "rmsprop":
        settings["alpha"] = settings.pop("rho")
    if name == "nesterov":
        settings["nesterov"] = True
    n_weights = n_weights_of(33)
    weights = torch.tensor(start[:n_weights], requires_grad=True)
    biases = torch.tensor(start[n_weights:], requires_grad=True)
    groups = [{"params": [weights]}, {"params": [biases], "weight_decay": 0.0}]
    theirs = getattr(torch.optim, IN_PYTORCH[name])(groups, lr=0.05, **settings)
    expected = []
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        for group in theirs.param_groups:
            group["lr"] = rate
            if name in {"adam", "adamw", "nadam"}:  # PyTorch adds epsilon after the bias correction of v
                group["eps"] = ours.epsilon / math.sqrt(1 - ours.beta_2**t)  # type: ignore[attr-defined]
        weights.grad, biases.grad = torch.tensor(g[:n_weights]), torch.tensor(g[n_weights:])
        theirs.step()
        expected.append(np.concatenate([weights.detach().numpy(), biases.detach().numpy()]))
    path = Run(ours, start, n_weights).go(gradients, rates)
    np.testing.assert_allclose(path, expected, rtol=1e-11, atol=1e-12)


# --- names and hyperparameters ---------------------------------------------------------------------------------


def test_get_optimizer() -> None:
    mine = Adam(beta_1=0.5)
    assert get_optimizer(mine) is mine
    assert get_optimizer("adamw") == AdamW()
    with pytest.raises(ValueError, match=r"unknown optimizer 'adamm'; did you mean 'adam'\? \(known: ada"):
        get_optimizer("adamm")
    with pytest.raises(ValueError, match="unknown optimizer 3"):
        get_optimizer(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Momentum, {"momentum": 1.1}),
        (Nesterov, {"momentum": -0.1}),
        (RMSProp, {"rho": 1}),
        (AdaDelta, {"epsilon": 0.0}),
        (Adam, {"beta_1": 1.0}),
        (Adam, {"beta_2": math.nan}),
        (AdamW, {"weight_decay": -1e-9}),
        (AdamW, {"weight_decay": math.inf}),
        (NAdam, {"momentum_decay": -1}),
        (AdaMax, {"beta_1": "0.9"}),
        (Adam, {"beta_1": None}),
        (Adam, {"beta_1": True}),
        (Adam, {"beta_1": np.array([0.5])}),
    ],
)
def test_wrong_hyperparameters_are_refused(kind: type[Optimizer], settings: dict[str, Any]) -> None:
    ((name, _),) = settings.items()
    with pytest.raises(ValueError, match=rf"{kind.__name__} got {name}=.*, expected a number in .*default") as info:
        kind(**settings)
    assert "\n" not in str(info.value)


# --- limits on norms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 7, 33, 100_003])
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e4, 1e37])
def test_clip_by_norm(size: float, n: int, dtype: str) -> None:
    gradients = (size * np.random.default_rng(n).uniform(-1, 1, n)).astype(dtype)
    before = gradients.copy()
    true_norm = math.hypot(*before.tolist())
    precision = 4 * eps_of(dtype)

    assert clip_by_norm(gradients, 1.1 * true_norm, np.empty_like(gradients)) == pytest.approx(true_norm, rel=precision)
    np.testing.assert_array_equal(gradients, before)

    for limit in (0.3 * true_norm, 1e-3 * true_norm):
        clipped = before.copy()
        assert clip_by_norm(clipped, limit, np.empty_like(clipped)) == pytest.approx(true_norm, rel=precision)
        assert math.hypot(*clipped.tolist()) == pytest.approx(limit, rel=precision)
        np.testing.assert_allclose(clipped, before * (limit / true_norm), rtol=precision)
        assert clipped.dtype == dtype


def test_clip_by_norm_where_one_factor_would_not_fit() -> None:
    gradients = np.array([3e38, -3e38, 0.0], dtype=np.float32)
    assert clip_by_norm(gradients, 1e-3, np.empty_like(gradients)) == pytest.approx(3e38 * math.sqrt(2), rel=1e-6)
    np.testing.assert_allclose(gradients, [1e-3 / math.sqrt(2), -1e-3 / math.sqrt(2), 0.0], rtol=1e-6)
    largest = np.full(4, np.finfo(np.float64).max)
    assert clip_by_norm(largest, 1.0, np.empty_like(largest)) == math.inf
    np.testing.assert_allclose(largest, np.full(4, 0.5), rtol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_by_norm_leaves_zeros_and_non_finite_gradients(dtype: str) -> None:
    scratch = np.empty(3, dtype)
    for values, norm in [
        ([0.0, 0.0, 0.0], 0.0),
        ([5.0, math.inf, 1.0], math.inf),
        ([5.0, -math.inf, 1.0], math.inf),
        ([5.0, math.nan, math.inf], math.nan),
    ]:
        gradients = np.array(values, dtype)
        np.testing.assert_equal(clip_by_norm(gradients, 1.0, scratch), norm)
        np.testing.assert_array_equal(gradients, np.array(values, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (1, 17), (33, 7), (17, 33)])
def test_limit_incoming_norm(shape: tuple[int, int], dtype: str) -> None:
    weights = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    weights *= np.geomspace(1e-2, 1e2, shape[1], dtype=dtype)
    before = weights.copy()
    limit_incoming_norm(weights, 2.5)
    for column, was in zip(weights.T.tolist(), before.T.tolist(), strict=True):
        norm = math.hypot(*was)
        if norm <= 2.5:
            assert column == was
        else:
            assert column == pytest.approx([w * 2.5 / norm for w in was], rel=4 * eps_of(dtype))


def test_limit_incoming_norm_of_extreme_columns() -> None:
    weights = np.array([[3e30, math.nan, math.inf, 0.0, 3.0], [4e30, 9.0, 1.0, 0.0, 4.0]], dtype=np.float32)
    limit_incoming_norm(weights, 5.0)
    expected = np.array([[3, math.nan, math.inf, 0, 3], [4, 9, 1, 0, 4]], dtype=np.float32)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
def test_limits_must_be_positive(limit: float) -> None:
    with pytest.raises(ValueError, match=r"got max_norm=.*, expected a number above 0; use None"):
        clip_by_norm(np.ones(3), limit, np.empty(3))
    with pytest.raises(ValueError, match=r"got max_norm=.*, expected a number above 0; use None"):
        limit_incoming_norm(np.ones((3, 2)), limit)
