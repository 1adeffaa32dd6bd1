"""The Trainer: epochs, row orders, validation, early stopping, callbacks.

`gpuprop.core.step` says what one update does, and a backend's plan chooses how the updates of an epoch are made.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gpuprop.arrays import beside
from gpuprop.backends.choosing import check_path
from gpuprop.backends.devices import host_ops
from gpuprop.backends.devices import plan as choose_plan
from gpuprop.core.parameters import Parameters
from gpuprop.core.rule import UpdateRule
from gpuprop.core.updates import EpochUpdates, MadeElsewhere, PausingFit, Training
from gpuprop.errors import DeviceError, check_integer, check_real, unknown_name
from gpuprop.maths.losses import smoothed_labels
from gpuprop.maths.optimizers import Optimizer, get_optimizer
from gpuprop.maths.schedules import Position, Schedule, get_schedule
from gpuprop.model.network import Network
from gpuprop.training.callbacks import Callback
from gpuprop.training.divergence import explain_divergence
from gpuprop.training.inputs_scaling import continued
from gpuprop.training.orders import (
    RowOrders,
    check_validation,
    checked_order,
    counter_based_orders,
    hold_out,
    in_order,
)
from gpuprop.training.rates import Parametrization, check_factors, decay_factors, gradient_factors, rate_factors
from gpuprop.training.records import Patience, Progress, append_record, check_kept_column

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gpuprop.core.array_ops import Array
    from gpuprop.core.data import TrainingData
    from gpuprop.core.plan import Plan

__all__ = ["Trainer"]


@dataclass
class _Run:
    """What a fit works with: the training as a plan knows it, validation data, and the last good parameters."""

    training: Training
    validation: TrainingData | None
    last_good: NDArray[Any]


class Trainer:
    """Train a network by gradient descent.

    Parameters
    ----------
    network : Network
        It is trained in place.
    optimizer : str or Optimizer, default="adam"
        A name in `gpuprop.optimizers.OPTIMIZERS`, such as "sgd", "momentum", "adam" or "lion", or an object of a
        class there.
    learning_rate : float or None, default=None
        None takes the optimizer's own default.
    batch_size : int or None, default=128
        Samples of a batch; None is all of them.
    epochs : int, default=20
        Passes over the data, at most.
    validation : None, float or (X, y), default=None
        Data that is not trained on, evaluated after each epoch: a seeded random share of the rows, or a set of its own.
    schedule : str, Schedule or None, default=None
        A name in `gpuprop.schedules.SCHEDULES`, such as "constant" (also None), "cosine" or "one-cycle", or an object
        of a class there.
    clip_norm : float or None, default=None
        The gradient of all parameters together is shortened to at most this norm.
    max_norm : float or None, default=None
        After an update the incoming weights of each unit are shortened to at most this norm.
    early_stopping : int or None, default=None
        Stop after this many epochs without a lower validation loss (without validation data: training loss), and
        restore the best parameters.
    keep_best : str or None, default=None
        At the end, restore the parameters of the best epoch by this column of the history: "validation_loss",
        "validation_accuracy" or "validation_r2", or one of the same names with "train"; of equal epochs the last is
        kept. None keeps the last epoch of all, or with `early_stopping` the first one of the lowest loss.
    accumulation_steps : int, default=1
        Batches whose gradients add up to one update, as if they were one batch of ``accumulation_steps * batch_size``.
    drop_last : bool, default=False
        Whether an epoch leaves out the rows at the end of its order that do not fill an update.
    learning_rate_factors : mapping of str to float, or None, default=None
        Factors of the learning rate for groups of parameters; 0 freezes a group. The groups are "weights", "biases",
        "W1" to "WL" and "b1" to "bL" for the weights and biases of one layer, "scale" for the factors of a scaling
        layer, and "slopes", "number_embedding" and "category_embedding" where the network has them; the factors of a
        parameter's groups are multiplied.
    parametrization : {"standard", "neural-tangent"}, default="standard"
        How layers are written while they are trained: ``x W + b``, or ``x W / sqrt(fan_in) + b``, where W is trained
        and the network holds the quotient; see `gpuprop.training.rates`. The initial weights are the network's own;
        ``init="lecun_normal"`` are those of a standard normal W.
    scaling_layer : bool, default=False
        Whether to train one factor for each input, 1 at first. The first weights hold their product with the factors,
        so that the trained network has no further layer; see `gpuprop.core.scaling_layer`.
    label_smoothing : float, default=0.0
        For a classifier, train on ``(1 - s) y + s / K`` in place of the targets y, for K classes (K = 2 for a single
        output, or outputs that are labels of their own), with s in [0, 1). Validation takes the targets as they are.
        Source: Szegedy et al., "Rethinking the Inception architecture", 2016, section 7.
    weight_decay : float, default=0.0
        Before each update the weights are multiplied by ``1 - rate * weight_decay``, whatever the optimizer (Loshchilov
        and Hutter, arXiv:1711.05101), where rate is the update's learning rate without the factors of groups.
    weight_decay_schedule : str, Schedule or None, default=None
        Varies `weight_decay` as `schedule` varies the rate.
    weight_decay_factors : mapping of str to float, or None, default=None
        Factors of the decay for groups of parameters; without them weights have 1, and all others 0.
    dropout_schedule : str, Schedule or None, default=None
        Varies the network's shares of dropped units as `schedule` varies the rate.
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
    plan : str, default="auto"
        How updates are made: "auto" lets the backend choose; "steps" (one primitive after the other), "fused" (whole
        epochs in one compiled call, or fused kernels), "joint", "graph" or "streamed" ask for a path by name, and a
        fit that it cannot serve raises `gpuprop.PlanError`, which says why. See `plan_reason`.

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
        With `early_stopping` or `keep_best`: the epoch whose parameters were restored, counted from 1.
    plan_reason : str or None
        One sentence that says how updates are made and why, once the first epoch has begun.

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
        keep_best: str | None = None,
        accumulation_steps: int = 1,
        drop_last: bool = False,
        learning_rate_factors: Mapping[str, float] | None = None,
        parametrization: Parametrization = "standard",
        scaling_layer: bool = False,
        label_smoothing: float = 0.0,
        weight_decay: float = 0.0,
        weight_decay_schedule: str | Schedule | None = None,
        weight_decay_factors: Mapping[str, float] | None = None,
        dropout_schedule: str | Schedule | None = None,
        shuffle: bool = True,
        row_orders: RowOrders | None = None,
        seed: int | None = None,
        conventions: Literal["gpuprop", "scikit-learn"] = "gpuprop",
        callbacks: Sequence[Callback] = (),
        n_threads: int | None = None,
        plan: str = "auto",
    ) -> None:
        self.network = network
        self.optimizer = get_optimizer(optimizer)
        if learning_rate is None:
            learning_rate = self.optimizer.default_learning_rate
        self.learning_rate = check_real("learning_rate", learning_rate, 0.0, open_minimum=True)
        self.batch_size = None if batch_size is None else check_integer("batch_size", batch_size, 1)
        self.epochs = check_integer("epochs", epochs, 1)
        self.validation = check_validation(validation)
        self.schedule = get_schedule(schedule)
        self.clip_norm = None if clip_norm is None else check_real("clip_norm", clip_norm, 0.0, open_minimum=True)
        self.max_norm = None if max_norm is None else check_real("max_norm", max_norm, 0.0, open_minimum=True)
        self.early_stopping = None if early_stopping is None else check_integer("early_stopping", early_stopping, 1)
        metric = "accuracy" if network.is_classifier else "r2"
        self.keep_best = check_kept_column(keep_best, metric, validated=validation is not None)
        self.accumulation_steps = check_integer("accumulation_steps", accumulation_steps, 1)
        self.drop_last = bool(drop_last)
        self.scaling_layer = bool(scaling_layer)
        if self.scaling_layer and (self.max_norm is not None or self.clip_norm is not None):
            raise ValueError("scaling_layer: does not go with max_norm and clip_norm; leave them out")
        self.learning_rate_factors = check_factors(
            "learning_rate_factors", learning_rate_factors, network.spec, scaling=self.scaling_layer
        )
        self.weight_decay = check_real("weight_decay", weight_decay, 0.0)
        self.weight_decay_schedule = get_schedule(weight_decay_schedule)
        self.weight_decay_factors = check_factors(
            "weight_decay_factors", weight_decay_factors, network.spec, scaling=self.scaling_layer
        )
        self.dropout_schedule = None if dropout_schedule is None else get_schedule(dropout_schedule)
        if parametrization not in ("standard", "neural-tangent"):
            raise unknown_name("parametrization", parametrization, ("standard", "neural-tangent"))
        self.parametrization = parametrization
        self.label_smoothing = check_real("label_smoothing", label_smoothing, 0.0, 1.0, open_maximum=True)
        if self.label_smoothing and not network.loss_function.classification:
            raise ValueError(f"label_smoothing: needs a loss of classes, got {network.loss_function.name!r}")
        self.seed = network.seed if seed is None else check_integer("seed", seed, 0)
        self.row_orders = row_orders or (counter_based_orders(self.seed) if shuffle else in_order)
        if conventions not in ("gpuprop", "scikit-learn"):
            raise unknown_name("conventions", conventions, ("gpuprop", "scikit-learn"))
        if conventions == "scikit-learn" and self.drop_last:
            raise ValueError("drop_last: scikit-learn's conventions train on all rows; use conventions='gpuprop'")
        self.conventions = conventions
        self.callbacks = tuple(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(f"callbacks: got {callback!r}, expected objects derived from gpuprop.Callback")
        self.n_threads = None if n_threads is None else check_integer("n_threads", n_threads, 1)
        self.plan = check_path(plan)
        self._reset(Progress(0, 0, {}, {}))

    def _reset(self, progress: Progress) -> None:
        self.history = {column: list(values) for column, values in progress.history.items()}
        self.epochs_done = progress.epochs_done
        self.steps_done = progress.steps_done
        self._optimizer_state = progress.optimizer_state
        self._scaling_layer = progress.scaling_layer
        self.steps_per_epoch = 0
        self.n_samples = 0
        self.best_epoch: int | None = None
        self._stop = False
        self._plan: Plan | None = None
        self._reason: str | None = None

    def stop_training(self) -> None:
        """End the training after the current epoch; for callbacks."""
        self._stop = True

    @property
    def plan_reason(self) -> str | None:
        """How updates are made and why, in one sentence; None before a fit has begun its first epoch."""
        return self._reason if self._plan is None else self._plan.reason

    @property
    def progress(self) -> Progress:
        """Where the training stands, for ``fit(..., resume_from=...)``."""
        return Progress(
            self.epochs_done, self.steps_done, self._optimizer_state, self.history, scaling_layer=self._scaling_layer
        )

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
        PlanError
            If `plan` names a path that cannot make the updates of this training.
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
    ) -> PausingFit:
        """Do as `fit`, pausing before the updates of each epoch, so that several trainings can be led side by side.

        Whoever makes the updates for the trainer must leave parameters and optimizer as the trainer would.
        """
        self._reset(resume_from or Progress(0, 0, {}, {}))
        run = self._begin(X, y, sample_weight)
        patience = Patience(self.early_stopping, self.keep_best, run.last_good)
        try:
            for callback in self.callbacks:
                callback.on_fit_begin(self)
            for epoch in range(self.epochs_done, self.epochs):
                begin = time.perf_counter()
                for callback in self.callbacks:
                    callback.on_epoch_begin(self, epoch + 1)
                updates = self._updates_of(run, epoch)
                made = yield updates
                # The end of each epoch checks for overflow, so NumPy's warnings about it would only repeat that.
                with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
                    record = self._epoch(run, epoch, updates, made, begin)
                    watched = record["train_loss" if run.validation is None else "validation_loss"]
                    patience.watch(record, watched, run.last_good)
                    self.best_epoch = patience.best_epoch
                    for callback in self.callbacks:
                        callback.on_epoch_end(self, epoch + 1, record)
                if self._stop or patience.exhausted(epoch + 1):
                    break
        except BaseException:
            self._restore(run.last_good)
            raise
        if patience.keeps:
            self._restore(patience.parameters)
        for callback in self.callbacks:
            callback.on_fit_end(self)

    def _begin(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> _Run:
        """Check the data, bring them to the device, and allocate everything that the epochs will need."""
        network, ops = self.network, self.network.ops
        validation: TrainingData | None = None
        if isinstance(self.validation, float):
            with ops.active():
                given = (ops.adopt(X), ops.adopt(y), ops.adopt(sample_weight))
                X, y, sample_weight, held_out = hold_out(*given, self.validation, self.seed)
            validation = network.prepare(*held_out)
        elif self.validation is not None:
            validation = network.prepare(*self.validation)
        data = self._smoothed(network.prepare(X, y, sample_weight))
        self.n_samples = data.n_samples
        n_rows = data.n_samples - (data.n_samples % self._update_size if self.drop_last else 0)
        self.steps_per_epoch = -(-n_rows // self._update_size)
        training = Training(
            layers=network.layers,
            data=data,
            rule=self._update_rule(),
            part_size=self._part_size,
            update_size=self._update_size,
            n_updates=self.epochs * self.steps_per_epoch,
            watched=bool(self._step_callbacks),
            n_threads=self.n_threads,
            want=self.plan,
            n_rows=n_rows,
            varying_dropout=self.dropout_schedule is not None and any(network.dropout),
        )
        return _Run(training, validation, network.host_parameters())

    @property
    def _step_callbacks(self) -> list[Callback]:
        """Callbacks that want to be told of each update."""
        return [c for c in self.callbacks if type(c).on_step_end is not Callback.on_step_end]

    def _flat(self) -> Array:
        """Return zeros, as many as there are parameters."""
        return self.network.ops.asarray(np.zeros(self.network.parameters.size), self.network.dtype)

    def _update_rule(self) -> UpdateRule:
        """Return the rule of the updates; the optimizer continues from what it remembers."""
        old = self._optimizer_state
        self._optimizer_state = {
            name: self._in_layout(old[name]) if name in old else self._flat() for name in self.optimizer.slots
        }
        self._scaling_layer = (
            continued(
                self._scaling_layer,
                self.network,
                self.optimizer,
                rate_factor=self.learning_rate_factors.get("scale", 1.0),
                decay_factor=self.weight_decay_factors.get("scale", 0.0) if self.weight_decay else 0.0,
            )
            if self.scaling_layer
            else None
        )
        return UpdateRule(
            self.optimizer,
            state=self._optimizer_state,
            clip_norm=self.clip_norm,
            max_norm=self.max_norm,
            rate_factors=rate_factors(self.network.spec, self.learning_rate_factors, self.parametrization),
            gradient_factors=gradient_factors(self.network.spec, self.parametrization),
            decay_factors=decay_factors(self.network.spec, self.weight_decay_factors) if self.weight_decay else None,
            scaling_layer=self._scaling_layer,
        )

    def _smoothed(self, data: TrainingData) -> TrainingData:
        """Return the training data with smoothed labels, if that is asked for."""
        if self.label_smoothing == 0:
            return data
        with self.network.ops.active():
            targets = smoothed_labels(data.targets, self.label_smoothing, self.network.loss_function)
            return replace(data, targets=targets)

    def _in_layout(self, state: Array) -> Array:
        """Return an optimizer's array, from any device, in the layout of this one."""
        network = self.network
        return Parameters.in_layout(network.ops, state, network.spec.layout, network.dtype)

    @property
    def _part_size(self) -> int:
        """Samples of a batch."""
        return min(self.batch_size or self.n_samples, self.n_samples)

    @property
    def _update_size(self) -> int:
        """Samples of an update."""
        return min((self.batch_size or self.n_samples) * self.accumulation_steps, self.n_samples)

    def _updates_of(self, run: _Run, epoch: int) -> EpochUpdates:
        """Return the updates of an epoch, as a plan takes them."""
        order = checked_order(self.row_orders, epoch, self.n_samples)[: run.training.rows_of_epoch]
        data = self._weighted_by_rows(run.training.data, order)
        rates = self._scheduled(self.schedule, self.learning_rate, epoch)
        return EpochUpdates(
            training=run.training,
            data=data,
            order=order,
            weights=self._batch_weights(data, order),
            penalty_factors=self._penalty_factors(run.training.data, order),
            rates=rates,
            steps_done=self.steps_done,
            dropout_factors=self._scheduled(self.dropout_schedule, 1.0, epoch) if self.dropout_schedule else None,
            decays=rates * self._scheduled(self.weight_decay_schedule, self.weight_decay, epoch)
            if self.weight_decay
            else None,
        )

    def _epoch(
        self, run: _Run, epoch: int, updates: EpochUpdates, made: MadeElsewhere | None, begin: float
    ) -> dict[str, Any]:
        """Make the updates, unless a plan has made them; evaluate, extend the history, and return its new row."""
        if made is None:
            totals = self._make(updates, epoch)
        else:
            totals, self._reason = made
        parameters = self.network.host_parameters()
        if not (np.isfinite(totals).all() and np.isfinite(parameters).all()):
            self._restore(run.last_good)
            explain_divergence(self._plan_of(run.training), updates, epoch)
        run.last_good = parameters
        self.epochs_done += 1
        self.steps_done += self.steps_per_epoch

        seen = updates.data.share(float(updates.weights.sum())) if self.drop_last else updates.data
        loss = float(totals[0]) / seen.total_weight
        score = seen.score(float(totals[1]))
        validation_loss, validation_score = None, None
        if run.validation is not None:
            factor = float(updates.penalty_factors.mean())
            with nullcontext() if self._plan is None else self._plan.active():
                validation_loss, validation_score = self.network.evaluate_data(run.validation, factor)
        metric = "r2" if run.training.data.metric == "residual" else "accuracy"
        record: dict[str, Any] = {
            "epoch": epoch + 1,
            "train_loss": loss,
            f"train_{metric}": score,
            "validation_loss": validation_loss,
            f"validation_{metric}": validation_score,
            "learning_rate": float(updates.rates[-1]),
            "seconds": time.perf_counter() - begin,
        }
        append_record(self.history, record)
        return record

    def _scheduled(self, schedule: Schedule, value: float, epoch: int) -> NDArray[np.float64]:
        """Return what a schedule makes of the learning rate, or of another number, for each update of the epoch."""
        position = Position(
            epoch=epoch,
            step=self.steps_done,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.epochs,
            batch_size=self._update_size,
            n_samples=self.n_samples,
            train_losses=self.history.get("train_loss", ()),
        )
        return schedule.rates(value, position)

    def _weighted_by_rows(self, data: TrainingData, order: NDArray[np.int32]) -> TrainingData:
        """Under scikit-learn's conventions, rescale the weights so that each batch's sum is its number of rows.

        The gradient of a batch does not change; in the sums over the epoch, batches then count by their rows.
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
        """Return the factor of the penalties in each update of the epoch."""
        if self.conventions == "gpuprop":
            return np.ones(self.steps_per_epoch)
        weights = self._batch_weights(data, order)
        return np.divide(1.0, weights, out=np.zeros_like(weights), where=weights > 0)

    def _plan_of(self, training: Training) -> Plan:
        """Return the plan of the updates, chosen when it is first needed."""
        if self._plan is None:
            self._plan = choose_plan([training], want=self.plan)
        return self._plan

    def _make(self, updates: EpochUpdates, epoch: int) -> NDArray[np.float64]:
        """Make all updates of an epoch and return the totals."""
        plan, callbacks = self._plan_of(updates.training), self._step_callbacks
        with plan.active():
            plan.begin_epoch(updates)
            if not callbacks:
                plan.run(0, self.steps_per_epoch)
            else:
                for index in range(self.steps_per_epoch):
                    plan.run(index, index + 1)
                    for callback in callbacks:
                        callback.on_step_end(self, epoch + 1, index + 1)
            (totals,) = plan.totals()
        return np.asarray(totals)

    def _restore(self, parameters: NDArray[Any]) -> None:
        """Give the network these parameters; move it to the CPU first if its device has failed."""
        try:
            self.network.set_parameters(parameters)
        except DeviceError:
            self.network.move_to(host_ops(), parameters)
