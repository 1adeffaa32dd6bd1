"""Batch normalisation and residual layers, against finite differences, formulas of their own, and PyTorch."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gpuprop
from gpuprop.core.blocks import EPSILON
from gpuprop.core.moments import MOMENTUM
from gpuprop.core.parameters import Parameters
from gpuprop.errors import ModelFileError, PlanError
from gpuprop.maths.activations import get_activation
from gpuprop.model.c_header import c_header, c_test_program, rounded
from gpuprop.model.torch_module import torch_source, torch_state
from gpuprop.model.unscaled import folded_network
from tests.cli_tools import Cli, write_plants

Array = NDArray[Any]
SHAPES: list[dict[str, Any]] = [{"batch_norm": True}, {"residual": True}, {"batch_norm": True, "residual": True}]
RNG = np.random.default_rng(7)
#: Rows that no size of a tile divides, and layers of odd sizes.
X = RNG.normal(size=(37, 5)) * [1.0, 3.0, 0.2, 1.0, 1.0] + [0.0, 2.0, 0.0, -1.0, 0.0]
Y = RNG.integers(0, 3, 37)
SIZES = (5, 7, 7, 7, 4, 4, 3)
BOUNDS: dict[str, Any] = {
    "float64": {"rtol": 1e-11, "atol": 1e-13},
    "float32": {"rtol": 2e-4, "atol": 2e-5},
}


def made(device: str = "numpy", dtype: str = "float64", **options: Any) -> gpuprop.Network:
    given: dict[str, Any] = {"loss": "categorical_cross_entropy", "seed": 3, "hidden_activation": "tanh", **options}
    net = gpuprop.Network(SIZES, device=device, dtype=dtype, **given)
    rng = np.random.default_rng(1)
    own = net.layers.parameters
    for array in (*own.biases, *own.scales, *own.means):  # none of them is what it is at first
        array[...] += rng.normal(scale=0.3, size=array.shape)
    for array in own.variances:
        array[...] *= rng.uniform(0.5, 2.0, array.shape)
    return net


def oracle(
    net: gpuprop.Network, rows: Array, targets: Array, *, by_batch: bool
) -> tuple[float, dict[str, list[Array]]]:
    """Loss and gradients in float64, written for this test in another way: layer by layer, by whole Jacobians."""
    own = Parameters(net.host_parameters().astype(np.float64), net.spec.layout)
    names = [activation.name for activation in net.hidden_activations]
    kept, a = [], rows
    sizes = net.layer_sizes
    for layer, name in enumerate(names, start=1):
        x = a @ own.weights[layer - 1] + (0 if net.batch_norm else own.biases[layer - 1])
        m, v = x.mean(axis=0), x.var(axis=0)
        z = x
        if net.batch_norm:
            if not by_batch:
                m, v = own.means[layer - 1], own.variances[layer - 1]
            z = own.scales[layer - 1] * (x - m) / np.sqrt(v + EPSILON) + own.biases[layer - 1]
        f = get_activation(name)
        adds = net.residual and layer > 1 and sizes[layer] == sizes[layer - 1]
        out = f.function(z)
        kept.append((a, x, m, v, z, f.derivative(f.source(z, out)), adds))
        a = out + a if adds else out
    z = a @ own.weights[-1] + own.biases[-1]
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    n = len(rows)
    loss = float(-np.log(p[np.arange(n), targets]).mean())
    d = p.copy()
    d[np.arange(n), targets] -= 1
    d /= n
    weights, biases = [a.T @ d], [d.sum(axis=0)]
    scales: list[Array] = []
    up = d @ own.weights[-1].T
    for layer in range(len(names), 0, -1):
        a, x, m, v, z, slope, adds = kept[layer - 1]
        delta = up * slope
        biases.insert(0, delta.sum(axis=0))
        if net.batch_norm:
            gamma = own.scales[layer - 1]
            scales.insert(0, (delta * (x - m) / np.sqrt(v + EPSILON)).sum(axis=0))
            if by_batch:
                # The Jacobian of a unit's column: d xhat_i / d x_j = (1[i=j] - 1/n - xhat_i xhat_j / n) / s.
                columns = []
                for j in range(x.shape[1]):
                    s = np.sqrt(v[j] + EPSILON)
                    xhat = (x[:, j] - m[j]) / s
                    jacobian = (np.eye(n) - 1 / n - np.outer(xhat, xhat) / n) / s
                    columns.append(jacobian.T @ (gamma[j] * delta[:, j]))
                delta = np.stack(columns, axis=1)
            else:
                delta = delta * gamma / np.sqrt(v + EPSILON)
        weights.insert(0, a.T @ delta)
        up = delta @ own.weights[layer - 1].T + (up if adds else 0)
    return loss, {"weights": weights, "biases": biases, "scales": scales}


@pytest.mark.parametrize("options", SHAPES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("device", ["numpy", "cpu"])
@pytest.mark.parametrize("by_batch", [True, False])
def test_loss_and_gradients_are_the_formulas(options: dict[str, Any], dtype: str, device: str, by_batch: bool) -> None:
    for activation in ("tanh", "gelu", ["relu", "leaky_relu(0.2)", "silu", "logistic", "identity"]):
        net = made(device, dtype, hidden_activation=activation, **options)
        loss, gradients = oracle(net, X.astype(dtype).astype(float), Y, by_batch=by_batch)
        found, flat = net.objective(net.prepare(X.astype(dtype), Y), 0 if by_batch else None)()
        own = Parameters(flat, net.spec.layout)
        np.testing.assert_allclose(found, loss, rtol=BOUNDS[dtype]["rtol"])
        for kind, expected in gradients.items():
            for one, other in zip(getattr(own, kind), expected, strict=True):
                np.testing.assert_allclose(one, other, **BOUNDS[dtype])
        for averages in (*own.means, *own.variances):
            assert not averages.any()


@pytest.mark.parametrize("options", SHAPES)
@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_gradients_pass_the_check_with_dropout(options: dict[str, Any], device: str) -> None:
    net = made(device, dropout=(0.1, 0.3), l2=0.01, **options)
    for dropout_step in (4, None):
        report = gpuprop.check_gradients(net, X, Y, np.linspace(0.5, 2, 37), dropout_step=dropout_step)
        assert report.passed, str(report)
    names = [layer.name for layer in report.layers]
    assert ("layer 5 scales" in names) == ("batch_norm" in options)
    # A gradient that forgets the statistics of the batch is found out.
    if "batch_norm" in options:
        wrong = gpuprop.check_gradients(
            net, X, Y, gradients=lambda network, rows, y: network.loss_and_gradients(rows, y, dropout_step=0)
        )
        assert not wrong.passed


@pytest.mark.parametrize("options", SHAPES)
def test_a_batch_in_parts_has_the_gradients_of_its_parts(options: dict[str, Any]) -> None:
    """Each part is normalised by its own rows; what does not depend on the batch adds up as ever."""
    rows, labels = X[:36], Y[:36]
    net = made(**options)
    twin = net.copy()
    options = {"epochs": 1, "batch_size": 18, "accumulation_steps": 2, "learning_rate": 0.5, "shuffle": False}
    gpuprop.Trainer(net, optimizer="sgd", **options).fit(rows, labels)
    of_parts = [Parameters(twin.objective(twin.prepare(rows[i], labels[i]), 0)()[1], twin.spec.layout)
                for i in (slice(0, 18), slice(18, 36))]  # fmt: skip
    before = Parameters(twin.host_parameters(), twin.spec.layout)
    for kind in ("weights", "biases", "scales"):
        for layer, found in enumerate(getattr(net.layers.parameters, kind)):
            mean = (getattr(of_parts[0], kind)[layer] + getattr(of_parts[1], kind)[layer]) / 2
            np.testing.assert_allclose(found, getattr(before, kind)[layer] - 0.5 * mean, rtol=1e-10, atol=1e-12)


def test_running_averages_follow_the_batches() -> None:
    net = made(batch_norm=True)
    twin = net.copy()
    gpuprop.Trainer(net, optimizer="sgd", epochs=1, batch_size=37, learning_rate=1e-9, shuffle=False).fit(X, Y)
    x = X @ twin.weights[0]
    own, before = net.layers.parameters, twin.layers.parameters
    expected = (1 - MOMENTUM) * before.means[0] + MOMENTUM * x.mean(axis=0)
    np.testing.assert_allclose(own.means[0], expected, rtol=1e-12)
    expected = (1 - MOMENTUM) * before.variances[0] + MOMENTUM * x.var(axis=0, ddof=1)
    np.testing.assert_allclose(own.variances[0], expected, rtol=1e-12)


@pytest.mark.parametrize("optimizer", gpuprop.optimizers.OPTIMIZERS)
def test_no_optimizer_moves_running_averages(optimizer: str) -> None:
    """The averages of the first layer follow from the data alone if its weights are kept where they are."""
    nets = [made("cpu", "float32", batch_norm=True) for _ in range(2)]
    factors = {"W1": 0.0}
    for net, name in zip(nets, (optimizer, "sgd"), strict=True):
        options: dict[str, Any] = {"epochs": 2, "batch_size": 8, "clip_norm": 0.1, "seed": 1}
        gpuprop.Trainer(net, optimizer=name, learning_rate_factors=factors, **options).fit(X, Y)
    for kind in ("means", "variances"):
        one, other = (getattr(net.layers.parameters, kind)[0] for net in nets)
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("options", SHAPES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_answers_are_those_of_the_folded_network(options: dict[str, Any], dtype: str) -> None:
    for activation in ("relu", "gelu"):  # one that predictions overwrite in place, and one that loops compute
        net = made("cpu", dtype, hidden_activation=activation, **options)
        plain = folded_network(net)
        assert not plain.batch_norm
        assert plain.residual == net.residual
        for n in (1, 2, 5, 37):
            rows = X[:n].astype(dtype)
            slow = net.activations(rows)[-1]  # by the step's own forward pass
            np.testing.assert_allclose(net.forward(rows), slow, **BOUNDS[dtype])
            np.testing.assert_allclose(plain.forward(rows), slow, **BOUNDS[dtype])
        large = np.tile(X, (60, 1)).astype(dtype)
        np.testing.assert_allclose(net.forward(large)[:37], net.activations(X.astype(dtype))[-1], **BOUNDS[dtype])
        loss = oracle(net, X.astype(dtype).astype(float), Y, by_batch=False)[0]
        np.testing.assert_allclose(net.evaluate(X, Y)[0], loss, rtol=BOUNDS[dtype]["rtol"])


@pytest.mark.parametrize("options", SHAPES)
def test_it_learns_by_steps_and_says_so(options: dict[str, Any]) -> None:
    digits = gpuprop.datasets.load("digits")
    rows, labels = digits.X / 16, digits.y
    net = gpuprop.Network((64, 48, 48, 48, 10), loss="categorical_cross_entropy", seed=0, device="cpu", **options)
    trainer = gpuprop.Trainer(net, epochs=6, batch_size=64, validation=0.25).fit(rows, labels)
    assert trainer.history["validation_accuracy"][-1] > 0.9
    what = "because the network has batch normalisation or residual layers"
    assert what in str(trainer.plan_reason)
    again = gpuprop.Network((64, 48, 48, 48, 10), loss="categorical_cross_entropy", seed=0, device="cpu", **options)
    gpuprop.Trainer(again, epochs=6, batch_size=64, validation=0.25).fit(rows, labels)
    np.testing.assert_array_equal(net.host_parameters(), again.host_parameters())
    with pytest.raises(PlanError, match="batch normalisation or residual layers"):
        gpuprop.Trainer(net, epochs=1, plan="fused").fit(rows, labels)


@pytest.mark.parametrize("options", SHAPES)
def test_a_training_goes_on_to_the_same_bits(options: dict[str, Any], tmp_path: Path) -> None:
    whole, parts = (made("cpu", "float32", dropout=0.2, **options) for _ in range(2))
    settings: dict[str, Any] = {"epochs": 6, "batch_size": 8, "seed": 2}
    gpuprop.Trainer(whole, **settings).fit(X, Y)

    folder = tmp_path / "checkpoints"
    gpuprop.Trainer(parts, checkpoint=gpuprop.Checkpoint(folder), **(settings | {"epochs": 3})).fit(X, Y)
    fresh = made("cpu", "float32", dropout=0.2, **options)
    gpuprop.Trainer(fresh, checkpoint=gpuprop.Checkpoint(folder), **settings).fit(X, Y, resume_from="auto")
    np.testing.assert_array_equal(fresh.host_parameters(), whole.host_parameters())


@pytest.mark.parametrize("options", SHAPES)
def test_files_copies_and_pickles_keep_everything(options: dict[str, Any], tmp_path: Path) -> None:
    import copy
    import pickle

    net = made(**options)
    net.save(tmp_path / "net.safetensors")
    loaded = gpuprop.load(tmp_path / "net.safetensors")
    for other in (loaded, net.copy(), pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert isinstance(other, gpuprop.Network)
        assert other.spec == net.spec
        np.testing.assert_array_equal(other.host_parameters(), net.host_parameters())
    assert gpuprop.Network(**net.get_config(), device="numpy").spec == net.spec
    if net.batch_norm:
        net.layers.parameters.variances[1][2] = -1.0
        net.save(tmp_path / "wrong.safetensors")
        with pytest.raises(ModelFileError, match="a variance below 0"):
            gpuprop.load(tmp_path / "wrong.safetensors")


@pytest.mark.parametrize("options", SHAPES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_onnx_answers_as_the_network(options: dict[str, Any], dtype: str) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from gpuprop.estimators.onnx_graph import build

    net = made(dtype=dtype, **options)
    session = runtime.InferenceSession(
        build(net, classifier=True).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    bounds: Any = {
        "float64": {"rtol": 1e-6, "atol": 1e-7},
        "float32": {"rtol": 2e-4, "atol": 2e-5},
    }  # its tanh is float32's
    rows = X.astype(dtype)
    np.testing.assert_allclose(session.run(None, {"X": rows})[0], net.predict_proba(rows), **bounds[dtype])


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc on this machine")
@pytest.mark.parametrize("int8", [False, True])
def test_c_answers_as_the_network(tmp_path: Path, int8: bool) -> None:
    for options in SHAPES:
        net = made(dtype="float32", hidden_activation="gelu", **options)
        outputs = (rounded(net) if int8 else net).forward(X.astype(np.float32))
        (tmp_path / "m.h").write_text(c_header(net, "m", int8=int8))
        (tmp_path / "t.c").write_text(c_test_program("m.h", "m", X, outputs, 1e-5))
        subprocess.run(["gcc", "-std=c99", "-Wall", "-Werror", "t.c", "-o", "t", "-lm"], check=True, cwd=tmp_path)
        subprocess.run([tmp_path / "t"], check=True, capture_output=True)


@pytest.mark.parametrize("options", SHAPES)
def test_the_module_for_pytorch_answers_as_the_network(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    net = made(dropout=0.2, **options)
    names: dict[str, Any] = {"__file__": "m.py", "__name__": "m"}
    exec(torch_source(net, "m.safetensors"), names)
    model = names["Model"]().double()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in torch_state(net).items()})
    found = model.eval()(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(found, net.predict_proba(X), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("options", SHAPES)
def test_gradients_by_inputs_are_differences_of_the_output(options: dict[str, Any]) -> None:
    net = made(hidden_activation="gelu", **options)
    found = net.input_gradients(X[:4], output=1)
    h = 1e-6
    for column in range(5):
        up, down = X[:4].copy(), X[:4].copy()
        up[:, column] += h
        down[:, column] -= h
        numeric = (net.activations(up)[-1][:, 1] - net.activations(down)[-1][:, 1]) / (2 * h)
        np.testing.assert_allclose(found[:, column], numeric, rtol=1e-6, atol=1e-9)


def test_a_trace_folds_batch_normalisation_and_refuses_paths_around() -> None:
    net = made(batch_norm=True)
    traced = gpuprop.trace.trace(net, X[0], int(Y[0]), notation="code")
    np.testing.assert_allclose(traced.loss, net.loss(X[:1], Y[:1]), rtol=1e-9)
    with pytest.raises(ValueError, match="a residual network has paths"):
        gpuprop.trace.trace(made(residual=True), X[0], int(Y[0]))


def torch_twin(net: gpuprop.Network, torch: Any) -> tuple[Any, Any]:
    """A model of PyTorch with the same parameters: its layers, and its forward pass."""
    nn = torch.nn
    linear = [nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(net.layer_sizes)]
    norms = [nn.BatchNorm1d(width) for width in net.layer_sizes[1:-1]] if net.batch_norm else []
    model = nn.ModuleList([*linear, *norms]).to(getattr(torch, net.dtype.name))
    own = net.layers.parameters
    with torch.no_grad():
        for layer, (module, weights, biases) in enumerate(zip(linear, own.weights, own.biases, strict=True)):
            module.weight.copy_(torch.from_numpy(np.array(weights.T)))
            module.bias.copy_(torch.from_numpy(np.array(biases)))
            if norms and layer < len(norms):
                module.bias.zero_()
                module.bias.requires_grad_(False)
                norms[layer].bias.copy_(torch.from_numpy(np.array(biases)))
                norms[layer].weight.copy_(torch.from_numpy(np.array(own.scales[layer])))
                norms[layer].running_mean.copy_(torch.from_numpy(np.array(own.means[layer])))
                norms[layer].running_var.copy_(torch.from_numpy(np.array(own.variances[layer])))

    def forward(x: Any) -> Any:
        for layer, module in enumerate(linear[:-1]):
            z = module(x)
            z = torch.tanh(norms[layer](z) if norms else z)
            x = z + x if net.residual and layer > 0 and z.shape == x.shape else z
        return linear[-1](x)

    return model, forward


@pytest.mark.parametrize("options", SHAPES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_pytorch_trains_to_the_same_network(options: dict[str, Any], dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    net = made(dtype=dtype, **options)
    model, forward = torch_twin(net, torch)
    rows, labels = torch.from_numpy(X.astype(dtype)), torch.from_numpy(Y)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    for _ in range(5):
        for start in range(0, 37, 10):  # the last batch has seven rows
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(forward(rows[start : start + 10]), labels[start : start + 10]).backward()
            optimizer.step()
    trainer = gpuprop.Trainer(net, optimizer="momentum", learning_rate=0.1, epochs=5, batch_size=10, shuffle=False)
    trainer.fit(X.astype(dtype), Y)
    model.eval()
    expected = torch.softmax(forward(rows), dim=1).detach().numpy()
    bounds: Any = {"rtol": 1e-9, "atol": 1e-11} if dtype == "float64" else {"rtol": 2e-3, "atol": 2e-4}
    np.testing.assert_allclose(net.forward(X.astype(dtype)), expected, **bounds)


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ((4, 3), {"batch_norm": True}, "batch_norm: got no hidden layer"),
        ((4, 3), {"residual": True}, "residual: got hidden layers of no units"),
        ((8, 8, 3), {"residual": True}, "residual: got hidden layers of 8 units"),
        ((4, 8, 6, 3), {"residual": True}, "expected two neighbours of one size"),
        ((4, 8, 8, 3), {"residual": True, "slopes": True}, "slopes: got them together"),
    ],
)
def test_what_cannot_be_is_refused(sizes: tuple[int, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gpuprop.Network(sizes, device="numpy", **options)


def test_batches_of_one_row_are_refused() -> None:
    with pytest.raises(ValueError, match="one row has no variance"):
        gpuprop.Trainer(made(batch_norm=True), batch_size=1, epochs=1).fit(X, Y)
    # A last batch of one row is normalised to zero, and says nothing about the variance.
    net = made(batch_norm=True)
    gpuprop.Trainer(net, batch_size=36, epochs=1, shuffle=False).fit(X, Y)
    assert np.isfinite(net.host_parameters()).all()


def test_the_command_line_has_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cli, run = Cli(capsys), tmp_path / "run"
    shape = ("--hidden", "24x3", "--batch-norm", "--residual")
    cli.run("train", "digits", *shape, "--epochs", 3, "--out", run, "--device", "cpu")
    net = gpuprop.load(run)
    assert isinstance(net, gpuprop.Network)
    assert net.layer_sizes == (64, 24, 24, 24, 10)
    assert (net.batch_norm, net.residual) == (True, True)
    cli.run("evaluate", run, "digits")
    cli.run("report", run)
    cli.run("explain", run, "digits", "--row", 2)
    header = tmp_path / "net.h"
    cli.run("export", run, "--c", header, "--torch", tmp_path / "net.py")
    assert "next[j] += a[j];" in header.read_text()
    assert "+ a1" in (tmp_path / "net.py").read_text()
    assert "expected sizes" in cli.fail("train", "digits", "--hidden", "24x0").err
    table = write_plants(tmp_path / "plants.csv")
    assert "--residual for a table" in cli.fail("train", table, "--residual", "--out", tmp_path / "t").err
    assert "running averages, which are not trained" in net.summary()
    assert "batch norm, relu + input" in net.summary()
