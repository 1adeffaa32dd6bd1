"""The fused tier: whole epochs in one compiled call, from online gradient descent to layers of a thousand units.

`gpuprop.backends.cpu.plans` chooses it. `FusedPlan` allocates everything and makes any number of updates in one call;
`gpuprop.backends.cpu.fused_step` says what is computed.

It covers the built-in activations, losses and optimizers and all that `gpuprop.Trainer` offers, except accumulated
batches and sparse data. For those, and for a user's own functions, the step is made one primitive at a time.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from gpuprop.arrays import is_sparse
from gpuprop.backends.cpu import loops
from gpuprop.backends.cpu.columns import scaling_columns
from gpuprop.backends.cpu.compiling import announced
from gpuprop.backends.cpu.fused_arrays import kind_of, model_of, work_of, works_of_team
from gpuprop.backends.cpu.fused_step import Batches, Work, alone, epoch
from gpuprop.backends.cpu.panels import Panels, aligned
from gpuprop.backends.cpu.subnormals import subnormals_flushed
from gpuprop.backends.cpu.team import Team, team_of, together
from gpuprop.backends.cpu.tiles import tile_shape
from gpuprop.backends.steps import Memory, places_of, put_back, taken_out
from gpuprop.backends.threads import ThreadChoice, limited_blas, most_threads, threads_beside_a_team
from gpuprop.core.plan import Renewable, TrainingState

if TYPE_CHECKING:
    from gpuprop.core.data import TrainingData
    from gpuprop.core.updates import EpochUpdates, Training

__all__ = [
    "LEAST_SAVING", "MOST_KEPT", "WIDEST_PAIR", "FusedPlan", "can_list", "cannot_fuse", "mostly_zero",
    "not_worth_fusing", "saved_by_update", "too_wide",
]  # fmt: skip

Array = NDArray[Any]

#: The seconds that the tier must be expected to save. The first such training pays some five seconds for compiling.
#: The updates that the network has made before count like those to come, so that calls of one epoch each take the tier
#: once it would have saved so much. The choice follows from sizes and from what was trained, not from what is compiled
#: already, so that a training always gives the same bits.
LEAST_SAVING = 1.0
#: An update of the tier takes so many seconds less than one by primitives: those of its calls, and some for a product
#: of two numbers. With AVX-512 a core saves a third of a product's time. With AVX2 it saves 4e-12 to 7e-12 where zeros
#: are skipped, and next to nothing where there are none; two cores, of which BLAS would use one, save 1e-11. The
#: number of threads has no say, because it changes no bit. Of products beyond the first thousand million the tier saves
#: a tenth.
_SAVED_BY_UPDATE, _SAVED_BEYOND = 5e-5, 2e-12
_SAVED_BY_PRODUCT = {64: 1e-11, 32: 6e-12, 16: 6e-12}  # by the bytes of a vector
_MANY_PRODUCTS = 1_000_000_000

#: The tier loses where two neighbouring layers both have more units than this. It reads the weights once for each block
#: of rows with 131,072 inputs in all. Of wide layers these are few rows, and BLAS, which cuts products in two
#: directions, is faster: with 2,048 and 2,048 units the tier takes 0.74 (256 samples) and 0.98 (1,024) of the time of
#: the primitives, with 4,096 and 4,096 units 1.14.
WIDEST_PAIR = 2048

#: Skipping zeros pays if at most this share of the products with inputs is left.
MOST_KEPT = 0.75

#: The products of two numbers in a compiled call. It takes some tenths of a second, and an interrupt waits for its end.
PRODUCTS_OF_CALL = 10_000_000_000


def cannot_fuse(training: Training) -> str | None:
    """Return why fused updates cannot make a training, or None if they can."""
    spec, rule = training.layers.spec, training.rule
    if training.update_size > training.part_size:
        return "the gradients of several batches add up to one update"
    if is_sparse(training.data.inputs):
        return "the inputs are sparse"
    if training.only_steps is not None:
        return training.only_steps
    if not rule.plain and rule.clip_norm is not None:
        return "the gradient's norm is limited while parameters have learning rates of their own"
    for activation in spec.activations:
        if not loops.knows(activation, spec.loss):
            return f"there are no compiled loops for {activation.name} with the loss {spec.loss.name}"
    if not rule.optimizer.built_in:
        return f"there is no compiled loop for the optimizer {rule.optimizer.name!r}"
    return None


def not_worth_fusing(training: Training) -> str | None:
    """Return why a training is faster by the primitives, or None if it is faster fused."""
    if (training.updates_before + training.n_updates) * saved_by_update(training) < LEAST_SAVING:
        return "the training is so short that compiling its loops would take longer than they save"
    return too_wide(training)


def saved_by_update(training: Training) -> float:
    """Return the seconds that an update is expected to save."""
    products, dtype = training.products, training.layers.spec.dtype
    few, by_product = min(products, _MANY_PRODUCTS), _SAVED_BY_PRODUCT[tile_shape(dtype).lanes * dtype.itemsize]
    return _SAVED_BY_UPDATE + by_product * few + _SAVED_BEYOND * (products - few)


def too_wide(training: Training) -> str | None:
    """Return why BLAS multiplies faster than the tiles, or None."""
    if any(min(pair) > WIDEST_PAIR for pair in pairwise(training.layers.spec.layer_sizes)):
        return f"two neighbouring layers have more than {WIDEST_PAIR:,} units each, which BLAS multiplies faster"
    return None


def can_list(training: Training) -> bool:
    """Return whether lists of what is not zero in the inputs can save time.

    A layer of one tile uses a list only once, which saves less than making it costs: 64-32-16-10 took 6 % longer with
    batches of 32, and 23 % longer with single samples.
    """
    spec = training.layers.spec
    return spec.layer_sizes[1] > tile_shape(spec.dtype).width and not any(spec.dropout)


def mostly_zero(data: TrainingData, columns: tuple[Array, Array]) -> bool:
    """Return whether skipping zeros of the inputs saves more than finding them costs, judged by at most 256 rows.

    A tile can skip a column that is zero in all its rows, or a row that is zero in all its columns.
    """
    rows = tile_shape(columns[0].dtype).rows
    some = data.inputs[:: max(1, data.n_samples // 256)]
    there = some[: len(some) // rows * rows, : data.inputs.shape[1] // rows * rows]
    if there.size == 0:
        return False
    shift, factor = columns[0][: there.shape[1]], columns[1][: there.shape[1]]
    there = (there - shift) * factor != 0 if data.scaling is not None else there != 0
    kept = there.reshape(-1, rows, there.shape[1]).any(axis=1).mean()
    kept += there.reshape(len(there), -1, rows).any(axis=2).mean()
    return bool(kept / 2 < MOST_KEPT)


class FusedPlan(Renewable):
    """`gpuprop.core.plan.Plan` that makes any number of updates in one compiled call.

    Parameters
    ----------
    training : Training
        `cannot_fuse` must return None for it.
    skips_zeros : bool, default=True
        Whether to skip products with zeros of the inputs, if `mostly_zero` finds that this pays.
    """

    threads = None  # any number gives the same bits

    def __init__(self, training: Training, *, skips_zeros: bool = True) -> None:
        self.name = "fused" if skips_zeros else "dense"
        self._training: Training | None = training
        self._made_for, rule = _made_for(training), training.rule
        self._layers, self._rule, self._update_size = training.layers, rule, training.update_size
        spec, products, dtype = self._layers.spec, training.products, self._layers.spec.dtype
        self._columns = scaling_columns(training.data.scaling, spec.layer_sizes[0], dtype)
        # A limit on norms needs all gradients, or all weights, at once.
        limited = rule.clip_norm is not None or rule.max_norm is not None
        self._threads = ThreadChoice(0 if limited else products, training.n_threads)
        self.updates_of_call = max(1, PRODUCTS_OF_CALL // products)
        self._panels = panels = Panels(spec.layer_sizes, tile_shape(dtype))
        may_skip = skips_zeros and not any(spec.dropout)
        listed = may_skip and mostly_zero(training.data, self._columns) and can_list(training)
        self._listed = listed if may_skip and can_list(training) else None
        self._seen = ref(training.data.inputs)
        self._packed = self._none = np.empty(0, dtype)
        self._memory_before = Memory(rule)
        self._panel_parameters = aligned(panels.size, dtype)
        self._state = [aligned(panels.size, dtype) for _ in rule.optimizer.slots]
        self._called, self._position = False, 0
        self._batches: Batches | None = None
        # Whether the panels are what the next update reads, and whether they are newer than the network's arrays.
        self._entered = self._newer = False
        self._teams: dict[int, tuple[list[Team], list[Work]]] = {}
        self._work = work_of(training, panels, listed=bool(self._listed))
        self._model = model_of(training, panels, self._panel_parameters, self._state)
        self._networks = epoch(kind_of(training, listed=bool(self._listed)))
        self._members = alone(self._work.totals)

    @property
    def reason(self) -> str:
        """The path in one sentence."""
        most = self._threads.most
        threads = "1 thread" if most == 1 else f"up to {most} threads"
        return f"{self.name}: whole epochs in one compiled call, {threads}"

    @functools.cached_property
    def n_bytes(self) -> int:
        arrays = [one for one in (*self._work, *self._model, *self._state) if isinstance(one, np.ndarray)]
        return self._memory_before.n_bytes + sum(one.nbytes for one in arrays)

    def release(self) -> None:
        self._write_back()
        self._training = self._batches = None

    def renew(self, training: Training, want: str) -> bool:
        if training.rule.scaling_layer is not None or self._rule.scaling_layer is not None:
            return False  # the model holds the arrays of its scaling layer, and each training has a layer of its own
        if want not in ("auto", self.name) or _made_for(training) != self._made_for or is_sparse(training.data.inputs):
            return False
        if training.rule is not self._rule and cannot_fuse(training):
            return False
        if want == "auto" and (self.name == "dense" or not_worth_fusing(training)):
            return False
        data = training.data
        # `mostly_zero` takes as long as many an update, and what it answers changes no result.
        if self._listed is not None and self._seen() is not data.inputs:
            if mostly_zero(data, self._columns) != self._listed:
                return False
            self._seen = ref(data.inputs)
        arrays = training.rule.state.values()
        if any(new is not old for new, old in zip(arrays, self._rule.state.values(), strict=True)):
            self._packed = self._none
            self._memory_before.follow(training.rule)
        self._training, self._rule, self._entered = training, training.rule, False
        return True

    def active(self) -> AbstractContextManager[None]:
        assert self._training is not None, "a plan that was released is renewed before it works"
        return limited_blas(threads_beside_a_team(self._training))

    def begin_epoch(self, *updates: EpochUpdates) -> None:
        (epoch,) = updates
        data = epoch.data
        self._batches = Batches(
            inputs=data.inputs,
            targets=data.targets,
            sample_weight=self._none if data.sample_weight is None else data.sample_weight,
            order=epoch.order,
            batch_weights=epoch.weights,
            penalty_factors=epoch.penalty_factors,
            rates=epoch.rates,
            size=self._update_size,
            scaled=data.scaling is not None,
            shift=self._columns[0],
            factor=self._columns[1],
        )
        self._members.steps_done[0], self._position = epoch.steps_done, 0
        self._write_back()
        self._entered = False  # between epochs the network may change
        self._memory_before.keep()
        self._work.totals[...] = 0.0

    def run(self, first: int, last: int) -> None:
        if self._packed is not self._layers.parameters.flat:  # the network has been on another device
            self._connect()
        if not self._entered:
            for own, packed in self._pieces:
                packed[...] = own
        self._entered = self._newer = True
        for n_threads, start, stop in self._threads.calls(first, last, self.updates_of_call):
            self._call(n_threads, start, stop)
        self._position = last
        if self._training is not None and self._training.watched:
            self._write_back()
            self._entered = False  # a callback may change the network

    def _write_back(self) -> None:
        """Copy parameters and optimizer state from the panels to the network's arrays, if those are older."""
        if self._newer:
            for own, packed in self._pieces:
                own[...] = packed
            self._newer = False

    def _call(self, n_threads: int, start: int, stop: int) -> None:
        """Make updates; all threads of a team work on each update together."""
        teams, works = self._team(n_threads)

        def updates(team: Team) -> None:
            with subnormals_flushed():  # each thread has its own mode
                self._networks(self._batches, works[team.thread], self._model, team, self._members, 0, 1, start, stop)

        with contextlib.nullcontext() if self._called else announced():
            if n_threads == 1:
                updates(teams[0])
            else:
                together(updates, teams)
        self._called = True

    def _team(self, n_threads: int) -> tuple[list[Team], list[Work]]:
        """Return the members of a team, and the arrays of each: some are its own to write, all others are shared."""
        if n_threads not in self._teams:
            self._teams[n_threads] = team_of(n_threads), works_of_team(self._work, n_threads)
        return self._teams[n_threads]

    def _connect(self) -> None:
        """Pair each piece of parameters and optimizer state in the network's layout with its place in panels."""
        self._packed = self._layers.parameters.flat
        given = (self._packed, *(self._rule.state[name] for name in self._rule.optimizer.slots))
        pairs = zip(given, (self._panel_parameters, *self._state), strict=True)
        self._pieces = [piece for flat, panels in pairs for piece in self._panels.pieces(flat, panels)]
        if self._rule.scaling_layer is not None:
            unscaled = self._rule.scaling_layer.weights.reshape(-1)
            self._pieces += self._panels.first_layer_pieces(unscaled, self._model.scale_weights)

    def totals(self) -> NDArray[np.float64]:
        self._write_back()
        return self._work.totals.copy()[None, :]

    def state(self) -> tuple[TrainingState, ...]:
        assert self._training is not None, "a plan that was released is renewed before it works"
        self._write_back()
        return (taken_out(self._training, self._position, self._work.totals),)

    def restore(self, *states: TrainingState) -> None:
        (state,) = states
        assert self._training is not None, "a plan that was released is renewed before it works"
        put_back(self._training, state)
        self._empty_panels()
        self._work.totals[...] = state.totals
        self._position = state.position

    def rewind(self, *places: int) -> None:
        self._memory_before.restore()
        self._empty_panels()

    def _empty_panels(self) -> None:
        """Clear the panels, including their padding, where a training that diverged may have left NaN."""
        for panels in (self._panel_parameters, *self._state, self._model.scale_weights):
            panels[...] = 0
        self._entered = self._newer = False

    def places(self) -> Iterator[tuple[str, Array]]:
        self._write_back()
        spec, work = self._layers.spec, self._work
        n_rows, layers = work.y.shape[0], range(1, spec.n_layers + 1)

        def of(array: Array, layer: int) -> Array:
            at, stride, width = int(work.at[layer]), int(work.strides[layer]), spec.layer_sizes[layer]
            return array[at : at + n_rows * stride].reshape(n_rows, stride)[:, :width]

        yield from ((f"the output of layer {layer}", of(work.a, layer)) for layer in layers[:-1])
        yield f"the output of layer {spec.n_layers}", work.output_a
        yield "the loss", work.totals
        yield from ((f"the delta of layer {layer}", of(work.delta, layer)) for layer in reversed(layers))
        yield from places_of(self._layers.parameters)


def _made_for(training: Training) -> tuple[Any, ...]:
    """Return everything about a training, beside the values of its arrays, that a plan for it depends on."""
    rule, data = training.rule, training.data
    return (
        training.layers,
        training.layers.ops,
        training.layers.spec,
        training.part_size,
        training.update_size,
        training.varying_dropout,
        training.n_threads,
        most_threads(training.products, training.n_threads),
        data.metric,
        data.scaling,
        rule.optimizer,
        rule.clip_norm,
        rule.max_norm,
        rule.rate_factors,
        rule.gradient_factors,
    )
