"""The Trainer: epochs, row orders, validation, early stopping, callbacks.

`gpuprop.core.step` says what one update does, and a backend's plan chooses how the updates of an epoch are made.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gpuprop.backends.choosing import check_path
from gpuprop.backends.devices import host_ops
from gpuprop.core.updates import EpochUpdates, PausingFit
from gpuprop.errors import DeviceError, TrainingEnded, check_integer, check_real, unknown_name
from gpuprop.maths.optimizers import Optimizer, get_optimizer
from gpuprop.maths.schedules import Schedule, get_schedule
from gpuprop.model.network import Network
from gpuprop.training.agreement import AGREED, check_alike, end_of_epoch, from_root, together
from gpuprop.training.beginning import begin
from gpuprop.training.callbacks.base import Callback
from gpuprop.training.callbacks.progress import ProgressBar
from gpuprop.training.checkpoint import Checkpoint, StoredCheckpoint, found_checkpoint
from gpuprop.training.divergence import explain_divergence
from gpuprop.training.epoch_updates import updates_of
from gpuprop.training.kept_plans import give_back
from gpuprop.training.metrics import Metrics, monitored
from gpuprop.training.mpi import communicator_of
from gpuprop.training.orders import RowOrders, check_validation, counter_based_orders, in_order
from gpuprop.training.rates import Parametrization, check_factors
from gpuprop.training.records import LiveProgress, Progress, append_record, check_kept_column, even_columns
from gpuprop.training.run import Run, step_callbacks
from gpuprop.training.saving import at_boundary, save
from gpuprop.training.settings import different_place
from gpuprop.training.sharding import check_shards
from gpuprop.training.signals import finishing, watching_signals
from gpuprop.training.state import captured, captured_for_other_data, restore_callbacks
from gpuprop.training.stored import place_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gpuprop.core.communicator import Communicator
    from gpuprop.core.data import TrainingData
    from gpuprop.datasets.stored import StoredRows
    from gpuprop.training.profiling import Profile

__all__ = ["Trainer"]


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
        Stop after this many epochs without a lower validation loss (without validation data: training loss), or
        without a better figure of `monitor`, and restore the best parameters.
    keep_best : str or None, default=None
        At the end, restore the parameters of the best epoch by this column of the history: "validation_loss",
        "validation_accuracy" or "validation_r2", one of the same names with "train", or that of a metric; of equal
        epochs the last is kept. None keeps the last epoch of all, or with `early_stopping` or `monitor` the first one
        of the best figure.
    metrics : str, callable, a sequence or a mapping of these, default=()
        What else to compute of the validation rows after each epoch; the history gets a column ``validation_NAME`` for
        each. Names of scikit-learn's scorers that fit the task (``"f1_macro"``, ``"roc_auc"``,
        ``"neg_mean_absolute_error"``), functions ``metric(y, predicted)`` such as ``sklearn.metrics.f1_score``, and
        scorers ``scorer(estimator, X, y)``; a mapping gives them names. y and predicted are class indices, labels
        of 0 and 1, or values. Where a metric is not defined, because a class has no validation row, say, the history
        holds None.
    monitor : str or None, default=None
        The figure by which `early_stopping` stops and the best epoch is restored: a column of the history or the name
        of a metric, which is then computed. Which direction is better is known: losses fall and scores rise; of
        functions those fall whose names end in "_loss", "_error" or "_deviance". None takes the loss. Without
        `early_stopping` all epochs are made and the best is restored.
    accumulation_steps : int, default=1
        Batches whose gradients add up to one update, as if they were one batch of ``accumulation_steps * batch_size``.
    drop_last : bool, default=False
        Whether an epoch leaves out the rows at the end of its order that do not fill an update.
    learning_rate_factors : mapping of str to float, or None, default=None
        Factors of the learning rate for groups of parameters; 0 freezes a group. The groups are "weights", "biases",
        "W1" to "WL" and "b1" to "bL" for the weights and biases of one layer, "scale" for the factors of a scaling
        layer, and "slopes", "scales", "number_embedding" and "category_embedding" where the network has them; the
        factors of a parameter's groups are multiplied.
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
    shuffle : bool or "full", default=True
        Whether each epoch visits the rows in a new order. Rows that stay on disk are shuffled in blocks, with "full" as
        those in memory are; `gpuprop.datasets.open` says which formats can do so.
    row_orders : callable or None, default=None
        Source of the orders, ``row_orders(epoch, n_samples)`` with the epoch counted from 0; None draws them by `seed`.
        One that remembers something needs methods ``state()`` and ``restore(state)`` to be resumed.
    seed : int or None, default=None
        For row orders and the validation share; None takes the network's.
    conventions : {"gpuprop", "scikit-learn"}, default="gpuprop"
        What a batch's penalties and an epoch's mean loss are. "scikit-learn" divides the network's penalties by the
        batch's sum of sample weights (without them: by its rows), and averages batches by their rows, not weights.
    callbacks : sequence of Callback, default=()
        They may end the training, and change `learning_rate` between epochs. The attribute is a list, which may be
        changed at any time.
    verbose : bool, default=False
        Whether to show the progress: adds a `gpuprop.callbacks.ProgressBar` to `callbacks`.
    n_threads : int or None, default=None
        The most threads that train on the CPU; None stands for all that BLAS may use. At the start of a fit whose
        updates are large enough to be shared, some numbers of threads are tried, and the fastest is taken. The fused
        loops, which train most networks, give the same bits with any; BLAS does not, and with a number given here uses
        that one, so that equal runs give equal bits.
    plan : str, default="auto"
        How updates are made: "auto" lets the backend choose; "steps" (one primitive after the other), "fused" (whole
        epochs in one compiled call, or fused kernels), "joint", "block", "graph" or "streamed" ask for a path by name,
        and a fit that it cannot serve raises `gpuprop.PlanError`, which says why. See `plan_reason`.
    precision : {"float32", "tf32x3", "tf32", "bf16"} or None, default=None
        Gives the network this precision of its products, which it keeps; None leaves it as it is. The weights that are
        trained stay float32. See `gpuprop.core.precision`.
    emulate : bool, default=False
        Whether a device without tensor cores may emulate that precision, as `gpuprop.Network` says.
    communicator : {"mpi"}, Communicator or None, default=None
        The processes that share the work, each of which calls the same methods with the same data: "mpi" stands for
        those that ``mpirun`` has started (extra ``mpi``). 1, 2, 4 or 8 processes give the same bits. Rank 0 alone
        calls the callbacks and writes checkpoints. See `docs/scaling.md`.
    shards : int or None, default=None
        Into how many shards the rows of each update are cut, a power of two that is at least the number of processes.
        Their gradients are added in one fixed tree, on which the bits depend, and not on the number of processes.
        None stands for 8 with a `communicator`; without one updates are not cut. See `gpuprop.core.communicator`.
    checkpoint : Checkpoint, str, path or None, default=None
        Where to keep what the training needs to go on after the process was killed, see `gpuprop.Checkpoint`. With
        one, SIGTERM, SIGHUP and SIGUSR1 end a fit at its next update with a checkpoint, as Ctrl-C does.

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
        With `early_stopping`, `keep_best` or `monitor`: the epoch whose parameters were restored, counted from 1.
    resume_notes : tuple of str
        After a resume from a checkpoint: a phrase for each thing about the place of the training that has changed since
        (device, path, threads, processor, versions), so that its numbers agree up to rounding and not to the bit.
    plan_reason : str or None
        One sentence that says how updates are made and why, once the first epoch has begun.

    Raises
    ------
    ValueError
        If an argument is out of range.
    PlanError
        On fitting, if the plan that was asked for by name cannot make these updates.
    NonFiniteLossError
        On fitting, if the loss becomes infinite or NaN.

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
        metrics: Any = (),
        monitor: str | None = None,
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
        shuffle: bool | Literal["full"] = True,
        row_orders: RowOrders | None = None,
        seed: int | None = None,
        conventions: Literal["gpuprop", "scikit-learn"] = "gpuprop",
        callbacks: Sequence[Callback] = (),
        verbose: bool | int = False,
        n_threads: int | None = None,
        plan: str = "auto",
        precision: str | None = None,
        emulate: bool = False,
        communicator: Communicator | str | None = None,
        shards: int | None = None,
        checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
    ) -> None:
        self.network = network
        if precision is not None:
            network.use_precision(precision, emulate=emulate)
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
        metric, validated = "accuracy" if network.is_classifier else "r2", validation is not None
        self.metrics = Metrics(metrics, network, monitor)
        if self.metrics and not validated:
            raise ValueError(f"metrics: {', '.join(self.metrics)} need validation data; pass validation=")
        self.monitor = None if monitor is None else monitored(monitor, self.metrics, metric, validated=validated)
        self.keep_best = check_kept_column(keep_best, metric, validated=validated, more=self.metrics.columns)
        self.units: tuple[NDArray[Any], NDArray[Any]] | None = None
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
        if isinstance(shuffle, str) and shuffle != "full":
            raise unknown_name("shuffle", shuffle, ("full",))
        self.shuffle: bool | str = shuffle if shuffle == "full" else bool(shuffle)
        self.row_orders = row_orders or (counter_based_orders(self.seed) if shuffle else in_order)
        if conventions not in ("gpuprop", "scikit-learn"):
            raise unknown_name("conventions", conventions, ("gpuprop", "scikit-learn"))
        if conventions == "scikit-learn" and self.drop_last:
            raise ValueError("drop_last: scikit-learn's conventions train on all rows; use conventions='gpuprop'")
        self.conventions = conventions
        self.callbacks = [*callbacks, *([ProgressBar()] if verbose else [])]
        self._check_callbacks()
        self.n_threads = None if n_threads is None else check_integer("n_threads", n_threads, 1)
        self.plan = check_path(plan)
        self.communicator = communicator_of(communicator)
        self.shards = check_shards(shards, self.communicator)
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint | None) else Checkpoint(checkpoint)
        #: The settings that `from_settings` took.
        self.made_from: Mapping[str, Any] | None = None
        self._reset(Progress(0, 0, {}, {}))

    def __repr__(self) -> str:
        return f"Trainer({self.network!r}, {self._said()})"

    def _repr_html_(self) -> str:
        """Return the network's table and the settings for a notebook."""
        return f"{self.network._repr_html_()}<p>Trainer: {escape(self._said())}</p>"

    def _said(self) -> str:
        batches = "one batch" if self.batch_size is None else f"batches of {self.batch_size}"
        done = f"{self.epochs_done} of {self.epochs} epochs in {batches}"
        return f"{self.optimizer.name}, rate {self.learning_rate:g}, {done}"

    def settings(self) -> dict[str, Any]:
        """Return the attributes of a trainer that has not trained yet, for `from_settings`; without its network."""
        return {name: value for name, value in vars(self).items() if name != "network"}

    @classmethod
    def from_settings(
        cls, settings: Mapping[str, Any], network: Network, *, learning_rate: float, epochs: int
    ) -> Trainer:
        """Return a trainer with settings that have been checked before; only what is given here is new."""
        trainer = cls.__new__(cls)
        vars(trainer).update(settings)
        trainer.network, trainer.made_from = network, settings
        trainer.learning_rate = check_real("learning_rate", learning_rate, 0.0, open_minimum=True)
        trainer.epochs = epochs
        return trainer

    def _check_callbacks(self) -> None:
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(f"callbacks: got {callback!r}, expected objects derived from gpuprop.Callback")

    def _reset(self, progress: Progress) -> None:
        live = isinstance(progress, LiveProgress)
        self.history = {name: column if live else list(column) for name, column in progress.history.items()}
        even_columns(self.history, self.history)
        self.epochs_done = progress.epochs_done
        self.steps_done = progress.steps_done
        self.steps_per_epoch = 0
        self.n_samples = self.updates_before = 0
        self.best_epoch: int | None = None
        self._stop = False
        self._progress = progress
        self._run: Run | None = None
        self._reason: str | None = None

    def stop_training(self) -> None:
        """End the training after the current epoch; for callbacks."""
        self._stop = True

    @property
    def plan_reason(self) -> str | None:
        """How updates are made and why, in one sentence; None before a fit has begun its first epoch."""
        return self._reason if self._run is None else self._run.plan_reason

    @property
    def resume_notes(self) -> tuple[str, ...]:
        """What has changed about the place of the training since the checkpoint that it goes on from."""
        run = self._run
        if run is None or run.plan_name is None or not run.former_place:
            return ()
        return different_place(run.former_place, place_of(self.network, run.plan_name, run.threads))

    @property
    def progress(self) -> Progress:
        """A copy of where the training stands, for ``fit(..., resume_from=...)``, with the arrays on the host."""
        return self._progress if self._run is None else captured(self, self._run)

    def progress_for_other_data(self) -> Progress:
        """Return `progress` for a fit on another part of the data, such as the next ``partial_fit``.

        It knows nothing of the data, leaves parameters and learning rate as they then are, and knows no states of
        callbacks and of sources of row orders.
        """
        if self._run is None:
            return self._progress
        return captured_for_other_data(self, self._run)

    def __getstate__(self) -> dict[str, Any]:
        """Return the content of a copy or a pickle: where the training stands, but no plan and no data."""
        return vars(self) | {"_progress": self.progress, "_run": None, "_reason": self.plan_reason}

    # --- the training --------------------------------------------------------------------------------------------

    def fit(
        self,
        X: ArrayLike | StoredRows,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        resume_from: Progress | StoredCheckpoint | str | os.PathLike[str] | None = None,
    ) -> Trainer:
        """Train, starting from the network's parameters as they are.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features), or StoredRows
            What `gpuprop.datasets.open` returns is trained on without being in memory as a whole; y is None then. Of
            arrays, raw inputs; 8-bit data stays 8-bit in memory. Arrays on the network's own GPU (CuPy's, or any with
            ``__cuda_array_interface__`` or DLPack), here and below, are used there without a copy on the host.
        y : array_like of shape (n_samples,) or (n_samples, n_outputs), or None
            Class indices, one-hot rows or regression targets.
        sample_weight : array_like of shape (n_samples,) or None, default=None
        resume_from : Progress, StoredCheckpoint, path, "auto" or None, default=None
            Go on from there until `epochs` are completed in all, on any device: from a trainer's `progress`, from a
            checkpoint, from the newest checkpoint in a folder, or with "auto" from the newest one in the folder of
            `checkpoint`, if there is one yet. On the same device and with the same versions the training gives the
            bits of one that was never interrupted. None begins with a fresh optimizer and history.

        Returns
        -------
        Trainer
            This object.

        Raises
        ------
        ValueError
            If the data do not fit the network; see `gpuprop.model.inputs`.
        ResumeError
            If `resume_from` is of another network or optimizer, or of a training on other data; from a checkpoint
            also if any setting but `epochs` is another one.
        NonFiniteLossError
            If training diverges; network and optimizer are then those of the last completed epoch, as they also are
            after a ``KeyboardInterrupt`` or an error in a callback.
        TrainingEnded
            If SIGTERM, SIGHUP or SIGUSR1 ends a training with checkpoints.
        PlanError
            If `plan` names a path that cannot make the updates of this training.
        CommunicatorError
            If the processes of `communicator` have other data, settings or versions, or if one of them has failed.
        """
        with watching_signals(interrupts_only=self.checkpoint is None):
            for _ in self.training(X, y, sample_weight, resume_from=resume_from):
                pass
        return self

    def profile(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        callbacks: Sequence[Callback] = (),
    ) -> Profile:
        """Say where an epoch goes, see `gpuprop.training.profiling.profile`; ``print`` shows it as a table."""
        from gpuprop.training.profiling import profile

        return profile(self, X, y, sample_weight, callbacks=callbacks)

    def training(
        self,
        X: ArrayLike | TrainingData | StoredRows,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        resume_from: Progress | StoredCheckpoint | str | os.PathLike[str] | None = None,
    ) -> PausingFit:
        """Do as `fit`, pausing before the updates of each epoch, so that several trainings can be led side by side.

        Whoever makes the updates for the trainer must leave parameters and optimizer as the trainer would. Signals
        count if the caller runs within `gpuprop.training.signals.watching_signals`. `X` may be what
        `Network.prepare` returned; `y` is None then.
        """
        self._check_callbacks()
        if isinstance(resume_from, Progress | None):
            stored, progress = None, resume_from or Progress(0, 0, {}, {})
        else:
            stored = from_root(self.communicator, lambda: found_checkpoint(resume_from, self.checkpoint))
            progress = Progress(0, 0, {}, {}) if stored is None else stored.progress
        self._reset(progress)
        run = together(self.communicator, lambda: begin(self, (X, y, sample_weight), progress, stored))
        check_alike(self, run)
        self._run, self._progress = run, Progress(0, 0, {}, {})
        try:
            self._begin_callbacks(run)
            restore_callbacks(self, progress.callbacks)
            if run.rate is not None:
                self.learning_rate = run.rate
            yield from self._epochs(run)
            save(self, run, stopped=self._stop or run.stopped)
        except BaseException as error:
            if self.communicator is not None and not isinstance(error, AGREED):
                self.communicator.fail(error)
            self._go_back(run)
            for callback in run.begun_callbacks(self):
                with suppress(Exception):
                    callback.on_exception(self, error)
            raise
        finally:
            if run.windows is not None:
                run.windows.close()
        give_back(self.network, run.plan)
        if run.patience.keeps:
            self._restore(run.patience.parameters)
        for callback in run.begun_callbacks(self):
            callback.on_fit_end(self)

    def _begin_callbacks(self, run: Run) -> None:
        """Tell the callbacks that the training began: all at first, and those that have been added since."""
        self._check_callbacks()
        if not run.leads:
            return
        for callback in tuple(self.callbacks):
            if not any(callback is one for one in run.told):
                run.told.append(callback)
                callback.on_fit_begin(self)

    def _epochs(self, run: Run) -> PausingFit:
        """Go through the epochs that are left."""
        ended = run.stopped or run.patience.exhausted(self.epochs_done)
        while self.epochs_done < self.epochs and not ended:
            self._begin_callbacks(run)
            run.begin_epoch(self, self.epochs_done)
            watched = bool(step_callbacks(self))
            run.watch(watched if self.communicator is None else self.communicator.broadcast(watched))
            updates = updates_of(self, run.training, self.epochs_done, run.epoch_rate, run.windows)
            made = None
            if run.within is None or run.within.position == 0:
                # A plan of this trainer that kept `on_joined` would keep the trainer and its data in a circle.
                joining = updates if run.reason else replace(updates, on_joined=lambda: self._join(run))
                try:
                    made = yield joining
                except (KeyboardInterrupt, TrainingEnded):  # while a plan made the updates of several trainings
                    save(self, run)
                    raise
            # The end of each epoch checks for overflow, so NumPy's warnings about it would only repeat that.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
                totals = run.take(made) if made else run.make(self, updates, lambda n: at_boundary(self, run, n))
                record = self._complete(run, updates, totals, None if made is None else made.parameters)
                if self.callbacks or len(self.history) > len(record):  # some columns are not of the record
                    known = list(self.history)
                    for callback in run.begun_callbacks(self):
                        callback.on_epoch_end(self, self.epochs_done, record)
                    even_columns(self.history, known)
                end_of_epoch(self, run, record, stop=self._stop)
                if self.callbacks:  # one may have changed them
                    run.parameters = self.network.host_parameters()
            ended = self._stop or run.patience.exhausted(self.epochs_done)
            if self.epochs_done < self.epochs and not ended:
                at_boundary(self, run)

    def _join(self, run: Run) -> None:
        """Write down that this training's updates are made in the same calls as those of others from now on.

        That path has bits of its own. A resume must take it, also if the other trainings have ended by then.
        """
        run.reason = "joint: together with other networks"
        save(self, run)

    def _complete(
        self, run: Run, updates: EpochUpdates, totals: NDArray[np.float64], parameters: NDArray[Any] | None
    ) -> dict[str, Any]:
        """Evaluate an epoch whose updates have been made, extend the history, and return its new row.

        `parameters` are those of the network on the host, if they are there already.
        """
        if parameters is None:
            parameters = self.network.host_parameters()
        if not (math.isfinite(totals[0]) and math.isfinite(totals[1]) and np.isfinite(parameters).all()):
            self._restore(run.parameters)
            explain_divergence(run.plan_of(self.network, self.plan), updates, self.epochs_done, run.start)
        seen = updates.data.share(float(updates.weights.sum())) if self.drop_last else updates.data
        validation_loss, validation_score = None, None
        further: dict[str, float | None] = {}
        if run.scores is not None:
            factor = float(updates.penalty_factors.mean())
            with nullcontext() if run.plan is None else run.plan.active():
                validation_loss, validation_score, further = run.scores.evaluate(self.network, factor)
        metric = "r2" if run.training.data.metric == "residual" else "accuracy"
        loss = float(totals[0]) / seen.total_weight
        record: dict[str, Any] = {
            "epoch": self.epochs_done + 1,
            "train_loss": loss,
            f"train_{metric}": seen.score(float(totals[1])),
            "validation_loss": validation_loss,
            f"validation_{metric}": validation_score,
            **further,
            "learning_rate": float(updates.rates[-1]),
            "seconds": run.seconds,
        }
        with finishing():
            self.epochs_done += 1
            self.steps_done += self.steps_per_epoch
            self.network.count_updates(self.optimizer.name, self.updates_before + self.steps_done)
            append_record(self.history, record)
            run.complete_epoch(parameters)
            run.patience.watch(record, loss if validation_loss is None else validation_loss, parameters)
            self.best_epoch = run.patience.best_epoch
        return record

    def _go_back(self, run: Run) -> None:
        """Leave what belongs together: parameters, optimizer, rate and history of the last completed epoch."""
        run.go_back(self)
        self._restore(run.parameters)
        for column in self.history.values():
            del column[self.epochs_done :]
        even_columns(self.history, self.history)

    def _restore(self, parameters: NDArray[Any]) -> None:
        """Give the network these parameters; move it to the CPU first if its device has failed."""
        try:
            self.network.set_parameters(parameters)
        except DeviceError:
            self.network.move_to(host_ops(), parameters)
