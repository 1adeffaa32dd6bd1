"""The updates of k networks of one kind: the compiled step of the fused tier, network by network, in several threads.

One call makes some updates of some networks, one network after the other, by the code that also trains a network alone
(`gpuprop.backends.cpu.fused_step.epoch`). So each network gets the bits of its lone fit in that tier, whatever its
company, the number of threads, and who takes which network. Threads take networks, or parts of their epoch where there
are few networks, and each has a work space of its own. While a network is at work its parameters and its optimizer's
memory stay in the second cache. Networks with the same rows in the same order could share each batch, if all of them
made one update and then all the next; an update of 784-64-10 with 32 rows would save the 12 us of reading its rows and
the 7 us of listing what is not zero in them, of 80 to 140, and its 600 KB would come from the third cache every time.

Where there are fewer networks than threads, and updates are large enough, the threads make each update together.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import typeof
from numpy.typing import NDArray

from gpuprop.backends.cpu import fused
from gpuprop.backends.cpu.columns import scaling_columns
from gpuprop.backends.cpu.compiling import announced
from gpuprop.backends.cpu.fused_arrays import kind_of, model_of, work_of, works_of_team
from gpuprop.backends.cpu.fused_step import Batches, Members, Model, Work, epoch
from gpuprop.backends.cpu.panels import Home, Panels, aligned, panel_copier
from gpuprop.backends.cpu.subnormals import subnormals_flushed
from gpuprop.backends.cpu.team import team_of
from gpuprop.backends.cpu.team import together as team_together
from gpuprop.backends.cpu.tiles import tile_shape
from gpuprop.backends.cpu.tuples import ROW_BYTES, keep
from gpuprop.backends.sharing import work_through
from gpuprop.backends.steps import Memory
from gpuprop.backends.threads import allowed_threads, most_threads

if TYPE_CHECKING:
    from collections.abc import Hashable

    from gpuprop.core.updates import EpochUpdates, Training

__all__ = ["JointUpdates", "cannot_join", "kinds_of", "not_worth_joining"]

Array = NDArray[Any]

#: An update takes about so many seconds, and so many more for each product of two numbers; and a call so long that a
#: further thread pays, which takes a tenth of a millisecond to start.
_UPDATE, _PRODUCT, _WORTH_A_THREAD = 2e-6, 1.5e-11, 4e-4
#: Each thread takes so many pieces of a call at least, if there is work for so many: the last ones end alike then.
_PIECES = 8


def cannot_join(training: Training) -> str | None:
    """Return why a training should run alone, or None if it can share calls with others of its shape.

    Networks of one shape may differ in everything but their layers, the optimizer's kind and the size of their batches.
    """
    if training.watched:
        return "a callback wants to be told of each update"
    return fused.cannot_fuse(training) or fused.too_wide(training)


def not_worth_joining(trainings: Sequence[Training]) -> str | None:
    """Return why trainings of one kind are too short, taken together, to compile their loops, or None."""
    saved = sum((one.updates_before + one.n_updates) * fused.saved_by_update(one) for one in trainings)
    if saved < fused.LEAST_SAVING:
        return "the trainings are so short that compiling their loops would take longer than they save"
    return None


def kinds_of(trainings: Sequence[Training]) -> list[tuple[bool, list[int]]]:
    """Return the groups of trainings that can share calls: whether zeros are skipped, and their places."""
    skips: dict[Hashable, bool] = {}
    kinds: dict[Hashable, list[int]] = {}
    for place, training in enumerate(trainings):
        if cannot_join(training) is None:
            data = training.data
            # Without penalties the code for them adds zeros, which changes nothing.
            kind = kind_of(training, listed=False)._replace(penalised=True)
            key = kind, typeof(data.inputs), typeof(data.targets)
            if key not in skips:  # what the rows of one fold say holds for the others, and changes no bit
                skips[key] = fused.can_list(training) and fused.mostly_zero(data, _columns(training))
            kinds.setdefault(key, []).append(place)
    return [(skips[key], places) for key, places in kinds.items()]


def _columns(training: Training) -> tuple[Array, Array]:
    spec = training.layers.spec
    return scaling_columns(training.data.scaling, spec.layer_sizes[0], spec.dtype)


class _Piece(NamedTuple):
    """Some networks in some updates; `before` is set when the earlier updates of the call are made, `after` at the end.

    `enters` and `leaves` say whether these are the first and the last updates of the call.
    """

    begin: int
    end: int
    first: int
    stop: int
    enters: bool
    leaves: bool
    before: threading.Event | None
    after: threading.Event


class JointUpdates:
    """The updates of networks of one kind, see `kinds_of`.

    Parameters
    ----------
    trainings : sequence of Training
    listed : bool
        Whether zeros of the inputs are skipped.
    """

    def __init__(self, trainings: Sequence[Training], *, listed: bool) -> None:
        self._trainings, self._listed = trainings, listed
        k, one = len(trainings), trainings[0]
        spec, self._products = one.layers.spec, one.products
        self._panels = panels = Panels(spec.layer_sizes, tile_shape(spec.dtype))
        limits = [training.n_threads for training in trainings if training.n_threads is not None]
        self._most_threads = min([allowed_threads(), *limits])
        # A limit on norms needs all gradients, or all weights, at once: these updates are one thread's.
        limited = one.rule.clip_norm is not None or one.rule.max_norm is not None
        self._team_threads = 1 if limited else most_threads(self._products, min(limits, default=None))

        self._panel_parameters = aligned((k, panels.size), spec.dtype)
        self._state = [aligned((k, panels.size), spec.dtype) for _ in one.rule.optimizer.slots]
        self._batches = [self._batches_of(training) for training in trainings]
        self._memories = [Memory(training.rule) for training in trainings]
        self._flats_before = [training.layers.parameters.flat.copy() for training in trainings]
        self._members = Members(
            batches=aligned((k, ROW_BYTES), np.dtype(np.uint8)),
            models=aligned((k, ROW_BYTES), np.dtype(np.uint8)),
            active=np.empty(0, np.int64),
            n_updates=np.array([training.updates_of_epoch for training in trainings]),
            steps_done=np.zeros(k, np.int64),
            totals=np.zeros((k, 2)),
        )
        self._homes, self._flats = aligned((k, ROW_BYTES), np.dtype(np.uint8)), [panels.units] * k
        self._models = [self._model_of(i, training) for i, training in enumerate(trainings)]
        for i, (batches, model) in enumerate(zip(self._batches, self._models, strict=True)):
            keep(batches, self._members.batches, i)
            keep(model, self._members.models, i)
        self._home: Home | None = None
        penalised = any(training.layers.spec.penalised for training in trainings)
        self._copy = panel_copier(panels.shape)
        self._networks = epoch(kind_of(one, listed=listed)._replace(penalised=penalised))
        self._works: list[Work] = []
        self._called = False

    def _batches_of(self, training: Training) -> Batches:
        """Return a network's data, and arrays for what each epoch has of its own."""
        data, n_updates, (shift, factor) = training.data, training.updates_of_epoch, _columns(training)
        return Batches(
            inputs=data.inputs,
            targets=data.targets,
            sample_weight=np.empty(0 if data.sample_weight is None else data.n_samples, shift.dtype),
            order=np.empty(training.rows_of_epoch, np.int32),
            batch_weights=np.empty(n_updates),
            penalty_factors=np.empty(n_updates),
            rates=np.empty(n_updates),
            size=training.update_size,
            scaled=data.scaling is not None,
            shift=shift,
            factor=factor,
        )

    def _model_of(self, i: int, training: Training) -> Model:
        return model_of(training, self._panels, self._panel_parameters[i], [array[i] for array in self._state])

    def begin(self, epochs: Sequence[EpochUpdates], places: Sequence[int]) -> None:
        """Take what is new in an epoch of the networks at these places among the trainings."""
        self._epochs, active = epochs, np.array(places, np.int64)
        self._members = self._members._replace(active=active)
        self._members.totals[active] = 0.0
        for i, one in zip(places, epochs, strict=True):
            training, batches = one.training, self._batches[i]
            self._members.steps_done[i] = one.steps_done
            batches.order[...], batches.rates[...] = one.order, one.rates
            batches.batch_weights[...], batches.penalty_factors[...] = one.weights, one.penalty_factors
            if one.data.sample_weight is not None:
                batches.sample_weight[...] = one.data.sample_weight
            self._memories[i].keep()
            flat = training.layers.parameters.flat
            if flat is not self._flats[i]:  # at first, and if the network has been on another device
                self._settle(i, training)
            self._flats_before[i][...] = flat

    def _settle(self, i: int, training: Training) -> None:
        """Note where the network's own arrays lie."""
        rule, panels, none = training.rule, self._panels, self._panel_parameters[0, :0]
        flat = self._flats[i] = training.layers.parameters.flat
        first, second = (*(rule.state[name] for name in rule.optimizer.slots), none, none)[:2]
        panel_first, panel_second = (*(array[i] for array in self._state), none, none)[:2]
        layer, model = rule.scaling_layer, self._models[i]
        home = Home(
            units=panels.units,
            weights_at=panels.weights_at,
            biases_at=panels.biases_at,
            parameters=flat,
            first=first,
            second=second,
            unscaled=none if layer is None else layer.weights.reshape(-1),
            panel_parameters=self._panel_parameters[i],
            panel_first=panel_first,
            panel_second=panel_second,
            panel_unscaled=model.scale_weights,
        )
        self._home = self._home or home
        keep(home, self._homes, i)

    # --- the calls -----------------------------------------------------------------------------------------------

    def run(self, first: int, last: int) -> None:
        """Make the updates `first` to `last` - 1 of the networks of this epoch.

        They begin with the networks' own arrays, and leave in them what they make.
        """
        with contextlib.nullcontext() if self._called else announced():
            n_networks = len(self._epochs)
            if n_networks < self._team_threads and n_networks < self._most_threads:
                self._run_in_turn(first, last)
            else:
                self._run_side_by_side(first, last)
        self._called = True

    def _run_side_by_side(self, first: int, last: int) -> None:
        """Let threads take networks."""
        n_networks = len(self._epochs)
        seconds = (last - first) * n_networks * (_UPDATE + _PRODUCT * self._products)
        n_threads = max(1, min(self._most_threads, n_networks, int(seconds / _WORTH_A_THREAD)))
        while len(self._works) < n_threads:
            self._works.append(work_of(self._trainings[0], self._panels, listed=self._listed))
        left, (team,) = list(self._works), team_of(1)
        batches, model = self._batches[0], self._models[0]  # they say of which types all are

        def worker() -> Callable[[_Piece], None]:
            work = left.pop()

            def make(piece: _Piece) -> None:
                begin, end, start, stop, enters, leaves, before, after = piece
                try:
                    if before is not None:
                        before.wait()
                    with subnormals_flushed():  # each thread has its own mode
                        active = self._members.active
                        if enters:
                            self._copy(self._home, self._homes, active, begin, end, True)
                        self._networks(batches, work, model, team, self._members, begin, end, start, stop)
                        if leaves:
                            self._copy(self._home, self._homes, active, begin, end, False)
                finally:
                    after.set()  # also after an error: nobody shall wait for ever

            return make

        work_through(_pieces(n_networks, first, last, n_threads), worker, n_threads)

    def _run_in_turn(self, first: int, last: int) -> None:
        """Let all threads make the updates of each network together."""
        n_threads = self._team_threads
        if not self._works:
            self._works.append(work_of(self._trainings[0], self._panels, listed=self._listed))
        teams, works = team_of(n_threads), works_of_team(self._works[0], n_threads)
        batches, model = self._batches[0], self._models[0]
        n_networks, active = len(self._epochs), self._members.active
        self._copy(self._home, self._homes, active, 0, n_networks, True)

        def updates(team: Any) -> None:
            with subnormals_flushed():
                self._networks(
                    batches, works[team.thread], model, team, self._members, 0, n_networks, first, last
                )  # fmt: skip

        team_together(updates, teams)
        self._copy(self._home, self._homes, active, 0, n_networks, False)

    # --- what is left --------------------------------------------------------------------------------------------

    def totals(self) -> NDArray[np.float64]:
        """Return each network's sums of weighted loss and score; NaN for one that has met a number that is not finite.

        Such a network gets back the parameters and the memory with which it began the epoch.
        """
        active = self._members.active
        totals = self._members.totals[active]
        sound = np.isfinite(totals).all(axis=1) & np.isfinite(self._panel_parameters[active]).all(axis=1)
        for place in np.flatnonzero(~sound).tolist():
            i = int(active[place])
            self._epochs[place].training.layers.parameters.flat[...] = self._flats_before[i]
            self.rewind(i)
        totals[~sound] = np.nan
        return totals

    def start_from(self, i: int, totals: NDArray[np.float64]) -> None:
        """Go on from the sums of earlier updates of this epoch."""
        self._members.totals[i] = totals

    def rewind(self, i: int) -> None:
        """Restore the memory of the optimizer of network i to what it was at the beginning of the epoch."""
        self._memories[i].restore()
        for panels in (self._panel_parameters, *self._state):  # a training that diverged may leave NaN in the padding
            panels[i] = 0
        self._models[i].scale_weights[...] = 0


def _pieces(n_networks: int, first: int, last: int, n_threads: int) -> Iterator[_Piece]:
    """Cut updates into pieces: some networks make all updates, or a part of them where there are few networks."""
    wanted = _PIECES * n_threads if n_threads > 1 else 1
    size = -(-n_networks // wanted)
    n_groups = -(-n_networks // size)
    n_parts = max(1, min(-(-wanted // n_groups), last - first)) if n_groups % n_threads else 1
    cuts = [first + (last - first) * part // n_parts for part in range(n_parts + 1)]
    before: list[threading.Event | None] = [None] * n_groups
    for part, (start, stop) in enumerate(itertools.pairwise(cuts)):
        for group in range(n_groups):
            begin, after = group * size, threading.Event()
            yield _Piece(
                begin, min(begin + size, n_networks), start, stop, part == 0, part == n_parts - 1, before[group], after
            )
            before[group] = after
