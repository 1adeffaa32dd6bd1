"""The Trainer: epochs, row orders, validation, early stopping, callbacks.

What one update does is in `gpuprop.core.step`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpuprop.arrays import beside, is_sparse, namespace, on_gpu
from gpuprop.backends.numpy.ops import NumpyOps
from gpuprop.backends.threads import best_thread_count, limited_blas
from gpuprop.core import step
from gpuprop.core.ops import Array, UpdatePlan
from gpuprop.core.updates import EpochUpdates, PlainUpdates, Training
from gpuprop.errors import DeviceError, NonFiniteLossError, check_integer, check_real, unknown_name
from gpuprop.maths.optimizers import Optimizer, get_optimizer
from gpuprop.maths.schedules import Position, Schedule, get_schedule
from gpuprop.model.network import Network, Parameters, TrainingData, TrainingWorkspace
from gpuprop.training.callbacks import Callback

__all__ = ["Progress", "RowOrders", "Trainer", "counter_based_orders"]

#: ``row_orders(epoch, n_samples)`` returns the order in which an epoch (counted from 0) visits the rows.
RowOrders = Callable[[int, int], NDArray[Any]]


def counter_based_orders(seed: int) -> RowOrders:
    """Return row orders keyed by (seed, epoch): any epoch's order can be drawn without those before it."""

    def orders(epoch: int, n_samples: int) -> NDArray[Any]:
        key = np.array([seed & 0xFFFFFFFFFFFFFFFF, epoch], np.uint64)
        return np.random.Generator(np.random.Philox(key=key)).permutation(n_samples)

    return orders


@dataclass(frozen=True)
class Progress:
    """Where a training stands: everything beside the parameters that its next update depends on.

    Attributes
    ----------
    epochs_done, steps_done : int
        Completed epochs and updates.
    optimizer_state : dict of arrays
        What the optimizer remembers, by the names in its ``slots``; on the device, and not copied.
    history : dict of lists
        The epochs so far.
    """

    epochs_done: int
    steps_done: int
    optimizer_state: dict[str, Array]
    history: dict[str, list[Any]]


@dataclass
class _Run:
    """What a fit works with: data on the device, the plan of its updates, and the last good parameters."""

    data: TrainingData
    validation: TrainingData | None
    rule: step.UpdateRule
    last_good: NDArray[Any]
    plan: UpdatePlan | None = None
    n_threads: int | None = None


class Trainer:
    """Train a network by gradient descent.

    Parameters
    ----------
    network : Network
        It is trained in place.
    optimizer : str or Optimizer, default="adam"
        "sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "adamax", "nadam", "adamw", or an
        object from `gpuprop.optimizers`.
    learning_rate : float or None, default=None
        None takes the optimizer's own default.
    batch_size : int or None, default=128
        Samples of a batch; None is all of them.
    epochs : int, default=20
        Passes over the data, at most.
    validation : None, float or (X, y), default=None
        Data that is not trained on, evaluated after each epoch: a seeded random share of the rows, or a set of its own.
    schedule : str, Schedule or None, default=None
        "constant" (also None), "invscaling", "adaptive", "exponential", "cosine", "one-cycle", "warmup", or an object
        from `gpuprop.schedules`.
    clip_norm : float or None, default=None
        The gradient of all parameters together is shortened to at most this norm.
    max_norm : float or None, default=None
        After an update the incoming weights of each unit are shortened to at most this norm.
    early_stopping : int or None, default=None
        Stop after this many epochs without a lower validation loss (without validation data: training loss), and
        restore the best parameters.
    accumulation_steps : int, default=1
        Batches whose gradients add up to one update, as if they were one batch of ``accumulation_steps * batch_size``.
    shuffle : bool, default=True
        Whether each epoch visits the rows in a new order.
    row_orders : callable or None, default=None
        Source of the orders, ``row_orders(epoch, n_samples)`` with the epoch counted from 0; None draws them by `seed`.
    seed : int or None, default=None
        For row orders and the validation share; None takes the network's.
    conventions : {"gpuprop", "scikit-learn"}, default="gpuprop"
        What a batch's penalties and an epoch's mean loss are. "scikit-learn" divides the network's penalties by the
        batch's sum of sample weights (without them: by its rows), and averages batches by their rows, not weights.
    callbacks : sequence of Callback, default=()
        They may end the training, and change `learning_rate` between epochs.
    n_threads : int or None, default=None
        The most threads that train on the CPU; None stands for all that BLAS may use. At the start of a fit whose
        updates are large enough to be shared, some numbers of threads are tried, and the fastest is taken. The fused
        loops, which train most networks, give the same bits with any; BLAS does not, and with a number given here uses
        that one, so that equal runs give equal bits.

    Attributes
    ----------
    history : dict of lists
        One entry an epoch: "epoch" (from 1), "train_loss", "train_accuracy", "validation_loss",
        "validation_accuracy", "learning_rate" (of the last update), "seconds"; for a regression "train_r2" and
        "validation_r2" instead of the accuracies. Training figures are means over the epoch, while the parameters
        move. Without validation data its columns hold None.
    epochs_done, steps_done : int
        Completed epochs and updates.
    best_epoch : int or None
        With `early_stopping`: the epoch whose parameters were restored, counted from 1.

    Examples
    --------
    >>> import gpuprop
    >>> X, y = gpuprop.datasets.make_xor()
    >>> net = gpuprop.Network((2, 8, 1), hidden_activation="tanh", loss="binary_cross_entropy", seed=0)
    >>> trainer = gpuprop.Trainer(net, learning_rate=0.05, batch_size=4, epochs=200).fit(X, y)
    >>> net.predict(X).tolist()
    [0, 1, 1, 0]
    """

    def __init__(
        self,
        network: Network,
        *,
        optimizer: str | Optimizer = "adam",
        learning_rate: float | None = None,
        batch_size: int | None = 128,
        epochs: int = 20,
        validation: float | tuple[ArrayLike, ...] | None = None,
        schedule: str | Schedule | None = None,
        clip_norm: float | None = None,
        max_norm: float | None = None,
        early_stopping: int | None = None,
        accumulation_steps: int = 1,
        shuffle: bool = True,
        row_orders: RowOrders | None = None,
        seed: int | None = None,
        conventions: Literal["gpuprop", "scikit-learn"] = "gpuprop",
        callbacks: Sequence[Callback] = (),
        n_threads: int | None = None,
    ) -> None:
        self.network = network
        self.optimizer = get_optimizer(optimizer)
        if learning_rate is None:
            learning_rate = self.optimizer.default_learning_rate
        self.learning_rate = check_real("learning_rate", learning_rate, 0.0, open_minimum=True)
        self.batch_size = None if batch_size is None else check_integer("batch_size", batch_size, 1)
        self.epochs = check_integer("epochs", epochs, 1)
        self.validation = _check_validation(validation)
        self.schedule = get_schedule(schedule)
        self.clip_norm = None if clip_norm is None else check_real("clip_norm", clip_norm, 0.0, open_minimum=True)
        self.max_norm = None if max_norm is None else check_real("max_norm", max_norm, 0.0, open_minimum=True)
        self.early_stopping = None if early_stopping is None else check_integer("early_stopping", early_stopping, 1)
        self.accumulation_steps = check_integer("accumulation_steps", accumulation_steps, 1)
        self.seed = network.seed if seed is None else check_integer("seed", seed, 0)
        self.row_orders = row_orders or (counter_based_orders(self.seed) if shuffle else _in_order)
        if conventions not in ("gpuprop", "scikit-learn"):
            raise unknown_name("conventions", conventions, ("gpuprop", "scikit-learn"))
        self.conventions = conventions
        self.callbacks = tuple(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(f"callbacks: got {callback!r}, expected objects derived from gpuprop.Callback")
        self.n_threads = None if n_threads is None else check_integer("n_threads", n_threads, 1)
        self._step_callbacks = [c for c in self.callbacks if type(c).on_step_end is not Callback.on_step_end]
        self._reset(Progress(0, 0, {}, {}))

    def _reset(self, progress: Progress) -> None:
        self.history = {column: list(values) for column, values in progress.history.items()}
        self.epochs_done = progress.epochs_done
        self.steps_done = progress.steps_done
        self._optimizer_state = progress.optimizer_state
        self.steps_per_epoch = 0
        self.n_samples = 0
        self.best_epoch: int | None = None
        self._stop = False

    def stop_training(self) -> None:
        """End the training after the current epoch; for callbacks."""
        self._stop = True

    @property
    def progress(self) -> Progress:
        """Where the training stands, for ``fit(..., resume_from=...)``."""
        return Progress(self.epochs_done, self.steps_done, self._optimizer_state, self.history)

    # --- the training --------------------------------------------------------------------------------------------

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        resume_from: Progress | None = None,
    ) -> Trainer:
        """Train, starting from the network's parameters as they are.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Raw inputs; 8-bit data stays 8-bit in memory. Arrays on the network's own GPU (CuPy's, or any with
            ``__cuda_array_interface__`` or DLPack), here and below, are used there without a copy on the host.
        y : array_like of shape (n_samples,) or (n_samples, n_outputs)
            Class indices, one-hot rows or regression targets.
        sample_weight : array_like of shape (n_samples,) or None, default=None
        resume_from : Progress or None, default=None
            Go on from there until `epochs` are completed in all, on any device. None begins with a fresh optimizer
            and history.

        Returns
        -------
        Trainer
            This object.

        Raises
        ------
        ValueError
            If the data do not fit the network; see `gpuprop.model.inputs`.
        NonFiniteLossError
            If training diverges; the network then has the parameters of the last completed epoch, as it also has
            after a ``KeyboardInterrupt`` or an error in a callback.
        """
        for _ in self.training(X, y, sample_weight, resume_from=resume_from):
            pass
        return self

    def training(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        resume_from: Progress | None = None,
    ) -> Training:
        """Do as `fit`, pausing before the updates of each epoch, so that several trainings can be led side by side.

        Whoever makes the updates instead of the trainer leaves parameters and optimizer as they would be then.
        """
        self._reset(resume_from or Progress(0, 0, {}, {}))
        run = self._begin(X, y, sample_weight)
        best_loss, best_parameters = np.inf, run.last_good
        try:
            for callback in self.callbacks:
                callback.on_fit_begin(self)
            for epoch in range(self.epochs_done, self.epochs):
                begin = time.perf_counter()
                for callback in self.callbacks:
                    callback.on_epoch_begin(self, epoch + 1)
                updates = self._updates_of(run, epoch)
                totals = yield updates
                # Overflow is looked for at the end of each epoch; NumPy's warnings about it would only repeat that.
                with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
                    record = self._epoch(run, epoch, updates, totals, begin)
                    watched = record["train_loss" if run.validation is None else "validation_loss"]
                    if self.early_stopping is not None and watched < best_loss:
                        best_loss, best_parameters, self.best_epoch = watched, run.last_good, epoch + 1
                    for callback in self.callbacks:
                        callback.on_epoch_end(self, epoch + 1, record)
                if self._stop or self._out_of_patience(epoch + 1):
                    break
        except BaseException:
            self._restore(run.last_good)
            raise
        if self.early_stopping is not None:
            self._restore(best_parameters)
        for callback in self.callbacks:
            callback.on_fit_end(self)

    def _thread_count(self, plan: UpdatePlan) -> int | None:
        """Return the threads that BLAS may use; None leaves that as it is."""
        if self.n_threads is not None:
            return self.n_threads
        if isinstance(plan, PlainUpdates) and isinstance(self.network.ops, NumpyOps):
            return best_thread_count(self.network, self._part_size)
        return None

    def _begin(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> _Run:
        """Check the data, bring them to the device, and allocate everything that the epochs will need."""
        network, ops = self.network, self.network.ops
        validation: TrainingData | None = None
        if isinstance(self.validation, float):
            with ops.active():
                given = (ops.adopt(X), ops.adopt(y), ops.adopt(sample_weight))
                X, y, sample_weight, held_out = _hold_out(*given, self.validation, self.seed)
            validation = network.prepare(*held_out)
        elif self.validation is not None:
            validation = network.prepare(*self.validation)
        data = network.prepare(X, y, sample_weight)
        self.n_samples = data.n_samples
        self.steps_per_epoch = -(-data.n_samples // self._update_size)
        return _Run(data, validation, self._update_rule(), network.host_parameters())

    def _flat(self) -> Array:
        """Return zeros, as many as there are parameters."""
        return self.network.ops.asarray(np.zeros(self.network.parameters.size), self.network.dtype)

    def _update_rule(self) -> step.UpdateRule:
        """Return the rule of the updates; the optimizer goes on from what it remembers."""
        old = self._optimizer_state
        self._optimizer_state = {
            name: self._in_layout(old[name]) if name in old else self._flat() for name in self.optimizer.slots
        }
        return step.UpdateRule(
            self.optimizer,
            state=self._optimizer_state,
            scratch=(),
            clip_norm=self.clip_norm,
            max_norm=self.max_norm,
        )

    def _in_layout(self, state: Array) -> Array:
        """Return an optimizer's array, of whatever device, as this one lays it out."""
        network = self.network
        return Parameters.in_layout(network.ops, state, network.layer_sizes, network.dtype)

    def _plan(self, data: TrainingData, rule: step.UpdateRule) -> UpdatePlan:
        """Return the backend's own way of making many updates, or else one step after the other."""
        network, ops, part_size = self.network, self.network.ops, self._part_size
        own: UpdatePlan | None = None
        if hasattr(ops, "plan_updates"):
            own = ops.plan_updates(
                network,
                data,
                rule,
                part_size=part_size,
                update_size=self._update_size,
                n_updates=self.epochs * self.steps_per_epoch,
            )
        if own is not None:
            return own
        n_scratch = max(1, self.optimizer.scratch_arrays)  # clipping needs one
        rule = replace(rule, scratch=tuple(self._flat() for _ in range(n_scratch)))
        return PlainUpdates(network, TrainingWorkspace(network, part_size), data, rule, self._update_size)

    @property
    def _part_size(self) -> int:
        """Samples of a batch."""
        return min(self.batch_size or self.n_samples, self.n_samples)

    @property
    def _update_size(self) -> int:
        """Samples of an update."""
        return min((self.batch_size or self.n_samples) * self.accumulation_steps, self.n_samples)

    def _updates_of(self, run: _Run, epoch: int) -> EpochUpdates:
        """Return what the updates of an epoch are."""
        order = self._order(epoch)
        data = self._weighted_by_rows(run.data, order)
        return EpochUpdates(
            network=self.network,
            rule=run.rule,
            data=data,
            order=order,
            weights=self._batch_weights(data, order),
            penalty_factors=self._penalty_factors(run.data, order),
            rates=self._rates(epoch),
            steps_done=self.steps_done,
            n_updates=self.epochs * self.steps_per_epoch,
            part_size=self._part_size,
            update_size=self._update_size,
            watched=bool(self._step_callbacks),
        )

    def _epoch(
        self, run: _Run, epoch: int, updates: EpochUpdates, totals: NDArray[np.float64] | None, begin: float
    ) -> dict[str, Any]:
        """Make the updates, unless their totals are here; evaluate, extend the history, and return its new row."""
        if totals is None:
            totals = self._make(run, updates, epoch)
        parameters = self.network.host_parameters()
        if not (np.isfinite(totals).all() and np.isfinite(parameters).all()):
            self._explain_divergence(run, epoch, updates)
        run.last_good = parameters
        self.epochs_done += 1
        self.steps_done += self.steps_per_epoch

        loss = float(totals[0]) / updates.data.total_weight
        score = updates.data.score(float(totals[1]))
        validation_loss, validation_score = None, None
        if run.validation is not None:
            factor = float(updates.penalty_factors.mean())
            with limited_blas(run.n_threads):
                validation_loss, validation_score = self.network.evaluate_data(run.validation, factor)
        metric = "r2" if run.data.metric == "residual" else "accuracy"
        record: dict[str, Any] = {
            "epoch": epoch + 1,
            "train_loss": loss,
            f"train_{metric}": score,
            "validation_loss": validation_loss,
            f"validation_{metric}": validation_score,
            "learning_rate": float(updates.rates[-1]),
            "seconds": time.perf_counter() - begin,
        }
        for column, value in record.items():
            self.history.setdefault(column, []).append(value)
        return record

    def _order(self, epoch: int) -> NDArray[np.int32]:
        """Return the epoch's row order, checked: a wrong one would read rows that do not exist."""
        order = np.asarray(self.row_orders(epoch, self.n_samples))
        if order.shape != (self.n_samples,) or order.dtype.kind not in "iu":
            raise ValueError(
                f"row_orders: got {order.dtype} of shape {order.shape}, expected {self.n_samples} row numbers"
            )
        if order.min() < 0 or order.max() >= self.n_samples:
            raise ValueError(f"row_orders: got rows {order.min()} to {order.max()}, expected 0 to {self.n_samples - 1}")
        return np.ascontiguousarray(order, dtype=np.int32)

    def _rates(self, epoch: int) -> NDArray[np.float64]:
        """Return the learning rate of each update of the epoch."""
        position = Position(
            epoch=epoch,
            step=self.steps_done,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.epochs,
            batch_size=self._update_size,
            n_samples=self.n_samples,
            train_losses=self.history.get("train_loss", ()),
        )
        return self.schedule.rates(self.learning_rate, position)

    def _weighted_by_rows(self, data: TrainingData, order: NDArray[np.int32]) -> TrainingData:
        """Under scikit-learn's conventions, rescale the weights so that each batch's sum is its number of rows.

        The gradient of a batch stays what it is; in the sums over the epoch, batches then count by their rows.
        """
        if self.conventions == "gpuprop" or data.wide_weight is None:
            return data
        ops = self.network.ops
        sums = self._batch_weights(data, order)
        batch = np.empty(len(order), np.int64)
        batch[order] = np.arange(len(order)) // self._update_size
        # A batch whose weights are all zero keeps them: it has no loss and no gradient.
        factors = np.divide(np.bincount(batch), sums, out=np.zeros_like(sums), where=sums > 0)
        with ops.active():
            weight = data.wide_weight * beside(factors[batch], data.wide_weight)
            total = float(weight.sum())
            return replace(
                data,
                sample_weight=ops.asarray(weight, self.network.dtype),
                wide_weight=weight,
                total_weight=total,
                total_variation=data.total_variation * total / data.total_weight,
            )

    def _batch_weights(self, data: TrainingData, order: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return the sum of sample weights of each update of the epoch."""
        with self.network.ops.active():
            return data.batch_weights(order, self._update_size)

    def _penalty_factors(self, data: TrainingData, order: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return what the penalties are multiplied by in each update of the epoch."""
        if self.conventions == "gpuprop":
            return np.ones(self.steps_per_epoch)
        weights = self._batch_weights(data, order)
        return np.divide(1.0, weights, out=np.zeros_like(weights), where=weights > 0)

    def _make(
        self, run: _Run, updates: EpochUpdates, epoch: int, after_update: Callable[[int], None] | None = None
    ) -> NDArray[np.float64]:
        """Make all updates of an epoch and return the totals; `after_update` is called with the index of each."""
        if run.plan is None:
            run.plan = self._plan(run.data, run.rule)
            run.n_threads = self._thread_count(run.plan)
        plan, flushed = run.plan, getattr(self.network.ops, "subnormals_flushed", nullcontext)
        plan.begin_epoch(
            updates.data,
            updates.order,
            updates.weights,
            updates.penalty_factors,
            updates.rates,
            updates.steps_done,
        )
        with limited_blas(run.n_threads):
            if after_update is None and not self._step_callbacks:
                with flushed():
                    plan.run(0, self.steps_per_epoch)
                return plan.totals()
            for index in range(self.steps_per_epoch):
                with flushed():
                    plan.run(index, index + 1)
                if after_update is not None:
                    after_update(index)
                else:
                    for callback in self._step_callbacks:
                        callback.on_step_end(self, epoch + 1, index + 1)
            return plan.totals()

    def _out_of_patience(self, epoch: int) -> bool:
        return self.early_stopping is not None and epoch - (self.best_epoch or 0) >= self.early_stopping

    # --- parameters on the host, and what went wrong -------------------------------------------------------------

    def _restore(self, parameters: NDArray[Any]) -> None:
        """Give the network these parameters; on the CPU, if the device that it was on has failed."""
        try:
            self.network.set_parameters(parameters)
        except DeviceError:
            self.network.move_to(NumpyOps("cpu"), parameters)

    def _explain_divergence(
        self,
        run: _Run,
        epoch: int,
        updates: EpochUpdates,
    ) -> NoReturn:
        """Find the update and the layer where the first non-finite number arose, and raise.

        A step is deterministic, so the epoch is trained once more from where it began, now looking at every update;
        that costs nothing while training goes well.
        """
        plan = run.plan
        assert plan is not None, "updates that were made by another hand are finite"
        self._restore(run.last_good)
        plan.rewind()

        def look(index: int) -> None:
            place = _first_non_finite(self.network, plan)
            if place:
                raise NonFiniteLossError(
                    f"training diverged in epoch {epoch + 1}, step {index + 1} of {self.steps_per_epoch}: {place} "
                    f"became infinite or NaN; the parameters of the last completed epoch ({epoch}) are kept; lower "
                    f"the learning rate (now {updates.rates[index]:g}), set clip_norm, or scale the inputs",
                    epoch=epoch + 1,
                    step=index + 1,
                    layer=place,
                )

        self._make(run, updates, epoch, after_update=look)
        raise NonFiniteLossError(
            f"training diverged in epoch {epoch + 1}, but not when the epoch was repeated: the device does not "
            f"compute reproducibly; the parameters of the last completed epoch ({epoch}) are kept",
            epoch=epoch + 1,
            step=self.steps_per_epoch,
            layer="unknown",
        )


def _first_non_finite(network: Network, plan: UpdatePlan) -> str:
    """Name the first array, in the order of the algorithm, that an update left with a non-finite number."""
    for place, array in plan.places():
        if not np.isfinite(network.ops.to_numpy(array)).all():
            return place
    return ""


def _in_order(epoch: int, n_samples: int) -> NDArray[Any]:
    """The rows as they stand: ``shuffle=False``."""
    return np.arange(n_samples)


def _check_validation(validation: Any) -> float | tuple[Any, ...] | None:
    if validation is None:
        return None
    if isinstance(validation, (tuple, list)):
        if len(validation) not in (2, 3):
            raise ValueError(f"validation: got {len(validation)} arrays, expected (X, y) or (X, y, sample_weight)")
        return tuple(validation)
    return check_real("validation", validation, 0.0, 1.0, open_minimum=True, open_maximum=True)


def _hold_out(
    X: Any, y: Any, sample_weight: ArrayLike | None, share: float, seed: int
) -> tuple[Any, Any, Any, tuple[Any, Any, Any]]:
    """Split off a seeded random share of the rows, at least one; return the rest, and the share."""
    X, y = X.tocsr() if is_sparse(X) else _array(X), _array(y)
    n_samples = X.shape[0] if X.ndim else 0
    if n_samples < 2 or y.shape[:1] != X.shape[:1]:
        raise ValueError(f"validation={share:g}: got X of shape {X.shape} and y of shape {y.shape}, cannot be split")
    weight = None if sample_weight is None else _array(sample_weight)
    if weight is not None and weight.shape != X.shape[:1]:
        raise ValueError(f"sample_weight: got shape {weight.shape}, expected ({n_samples},)")
    shuffled = np.random.default_rng(np.random.SeedSequence([seed, 1])).permutation(n_samples)
    n_held_out = min(max(1, round(share * n_samples)), n_samples - 1)
    held, kept = np.sort(shuffled[:n_held_out]), np.sort(shuffled[n_held_out:])
    rest, share_of_them = (
        (_rows(X, which), _rows(y, which), None if weight is None else _rows(weight, which)) for which in (kept, held)
    )
    return (*rest, share_of_them)


def _array(values: Any) -> Any:
    """Return an array: one that lies on a GPU as it is, anything else as NumPy's."""
    return values if on_gpu(values) else np.asarray(values)


def _rows(array: Any, which: NDArray[np.int64]) -> Any:
    """Return rows of an array, where it lies."""
    return array[which] if is_sparse(array) else namespace(array).take(array, beside(which, array), axis=0)
