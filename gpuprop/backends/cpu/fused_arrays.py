"""The arrays of the fused tier: what a kind of training compiles, its constants, and the work space of a step.

`gpuprop.backends.cpu.fused` allocates them for one network, `gpuprop.backends.cpu.joint` for many of one shape.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.backends.cpu import optimizer_loops
from gpuprop.backends.cpu.fused_step import GATHERED, GATHERED_PIECE, OWN, PIECE, Kind, Model, Work
from gpuprop.backends.cpu.panels import Panels, aligned, row_strides
from gpuprop.backends.cpu.tiles import tile_shape
from gpuprop.core.parameters import padded
from gpuprop.maths.dropout import keep_threshold

if TYPE_CHECKING:
    from gpuprop.core.rule import UpdateRule
    from gpuprop.core.spec import Spec
    from gpuprop.core.updates import Training

__all__ = ["kind_of", "model_of", "work_of", "works_of_team"]

Array = NDArray[Any]


def kind_of(training: Training, *, listed: bool) -> Kind:
    """Return what the compiled code of a training depends on; `listed` says whether zeros of the inputs are skipped."""
    spec, rule, output = training.layers.spec, training.rule, training.layers.spec.output_activation
    return Kind(
        dtype=spec.dtype,
        shape=tile_shape(spec.dtype),
        hidden=_hidden(spec) or (("identity", False),),
        output=output.base_name,
        output_from=output.derivative_of,
        loss=spec.loss.name,
        metric=training.data.metric,
        optimizer=rule.optimizer.name,
        penalised=spec.penalised,
        clipped=rule.clip_norm is not None,
        limited=rule.max_norm is not None,
        dropped=any(spec.dropout),
        listed=listed,
        grouped=rule.grouped,
        inputs_scaled=rule.scaling_layer is not None,
    )


def _hidden(spec: Spec) -> tuple[tuple[str, bool], ...]:
    """Return the different activations of the hidden layers, see `Kind.hidden`."""
    return tuple(dict.fromkeys((one.base_name, one.derivative_of == "z") for one in spec.hidden_activations))


def model_of(training: Training, panels: Panels, parameters: Array, state: list[Array]) -> Model:
    """Return the constants of a training, with its parameters and optimizer state in panels.

    An optimizer with fewer arrays than two does not touch the stand-ins for the others.
    """
    spec, rule = training.layers.spec, training.rule
    dtype, activations, optimizer = spec.dtype, spec.activations, rule.optimizer
    hidden = [name for name, _ in _hidden(spec)]
    first, second = (*state, parameters, parameters)[:2]
    return Model(
        units=panels.units,
        codes=np.array([hidden.index(one.base_name) for one in activations[:-1]], np.int64),
        from_z=np.array([one.derivative_of == "z" for one in activations], np.bool_),
        activation_parameters=np.array([one.parameter for one in activations]),
        weights_at=panels.weights_at,
        biases_at=panels.biases_at,
        transposed_at=panels.transposed_at,
        parameters=parameters,
        transposed=aligned(panels.transposed_size, dtype),
        first=first,
        second=second,
        hyperparameters=optimizer_loops.hyperparameters(optimizer),
        l1=spec.l1,
        l2=spec.l2,
        clip_norm=rule.clip_norm or 0.0,
        max_norm=rule.max_norm or 0.0,
        drop_thresholds=np.array([keep_threshold(rate) for rate in spec.dropout], np.uint64),
        drop_factors=np.array([1.0 / (1.0 - rate) for rate in spec.dropout]),
        drop_key=np.array([spec.seed & 0xFFFFFFFF, (spec.seed >> 32) & 0xFFFFFFFF], np.uint64),
        **_factors(spec, rule),
        **_scaling(rule, panels, dtype),
    )


def _factors(spec: Spec, rule: UpdateRule) -> dict[str, Any]:
    """Return the factors of rates and gradients as fields of `Model`; they are empty where there are none."""
    n_arrays = 2 * spec.n_layers if rule.grouped else 0
    return {
        "rate_factors": np.array(rule.rate_factors or (1.0,) * n_arrays, np.float64),
        "gradient_factors": np.array(rule.gradient_factors or (1.0,) * n_arrays, np.float64),
    }


def _scaling(rule: UpdateRule, panels: Panels, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return the fields of `Model` that belong to a scaling layer; without one they are empty."""
    layer, none = rule.scaling_layer, np.empty(0, dtype)
    if layer is None:
        names = ("scale", "scale_first", "scale_second", "scale_sums", "scale_weights")
        return dict.fromkeys(names, none) | {"scale_rate_factor": 1.0}
    n_features, n_panels = len(layer.factors), -(-int(panels.units[1]) // panels.shape.width)
    first, second = optimizer_loops.slots(rule.optimizer, layer.state, layer.factors)
    return {
        "scale": layer.factors,
        "scale_first": first,
        "scale_second": second,
        "scale_sums": np.zeros(n_panels * n_features, dtype),
        "scale_weights": aligned(n_features * padded(int(panels.units[1]), panels.shape.lanes), dtype),
        "scale_rate_factor": layer.rate_factor,
    }


def work_of(training: Training, panels: Panels, *, listed: bool) -> Work:
    """Allocate the arrays of a step; a limit on the gradient's norm looks at a whole gradient, which is kept then."""
    spec, n_rows, shape = training.layers.spec, training.update_size, panels.shape
    kept_gradient = panels.size if training.rule.clip_norm is not None else 0
    dtype, sizes, rows = spec.dtype, spec.layer_sizes, shape.rows
    strides = row_strides(sizes, shape)
    starts = np.cumsum([0, *(n_rows * stride for stride in strides)])
    keeps_z = any(activation.derivative_of == "z" for activation in spec.hidden_activations)
    dropped = any(spec.dropout)
    pairs = [(fan_in, padded(fan_out, shape.width)) for fan_in, fan_out in pairwise(sizes)]
    gathered = max((fan_out for fan_in, fan_out in pairs if n_rows * fan_in >= GATHERED), default=0)
    n_columns, n_listed = (sizes[0], n_rows) if listed else (0, 0)
    row_tiles, column_tiles = -(-n_listed // rows), -(-n_columns // rows)

    def numbers(*sizes: int) -> Array:
        return aligned(sizes, dtype)

    a = numbers(starts[-1] + rows)  # copying the last columns reads to the end of a tile
    return Work(
        at=starts[:-1].astype(np.int64),
        strides=np.array(strides, np.int64),
        a=a,
        z=numbers(starts[-1] if keeps_z else 0),
        inputs=numbers(starts[-1] + rows) if dropped else a,
        masks=numbers(starts[-1] if dropped else 0),
        delta=numbers(starts[-1] + shape.width),  # copying the last columns reads to the end of a panel
        y=numbers(n_rows, sizes[-1]),
        weight=numbers(n_rows),
        output_z=numbers(n_rows, sizes[-1]),
        output_a=numbers(n_rows, sizes[-1]),
        output_delta=numbers(n_rows, sizes[-1]),
        gradient=numbers(kept_gradient or max(GATHERED_PIECE if gathered else PIECE, rows * shape.width, max(sizes))),
        rows=numbers(n_rows * max(rows, GATHERED_PIECE // shape.width) if gathered else 0),
        columns=numbers(n_rows * gathered),
        totals=np.zeros(2),
        tile_totals=np.zeros((-(-n_rows // rows), 2)),
        penalties=np.zeros(sum(-(-fan_in // rows) for fan_in in sizes[:-1])),
        marks=np.zeros(max(n_columns, n_listed * column_tiles), np.uint8),
        column_lists=np.zeros((row_tiles, n_columns), np.int32),
        column_counts=np.zeros(row_tiles, np.int64),
        row_lists=np.zeros((column_tiles, n_listed), np.int32),
        row_counts=np.zeros(column_tiles, np.int64),
    )


def works_of_team(work: Work, n_threads: int) -> list[Work]:
    """Return the arrays of each thread of a team: some are its own to write, and all others are shared."""
    shared = work._asdict()
    own = [{name: aligned(shared[name].shape, shared[name].dtype) for name in OWN} for _ in range(1, n_threads)]
    return [work, *(work._replace(**arrays) for arrays in own)]
