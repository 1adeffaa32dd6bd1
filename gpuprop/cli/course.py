"""The course of ``gpuprop train``: claim the folder, train, save, draw, report, and say how it ended."""

from __future__ import annotations

import math
import os
import re
import signal
import statistics
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuprop.cli.animate import check_animation
from gpuprop.cli.console import mark_saved, warn
from gpuprop.cli.files import check_writable
from gpuprop.cli.options import wrong_options
from gpuprop.cli.pictures import PictureCheck, draw_pictures
from gpuprop.cli.progress import harmless
from gpuprop.cli.resuming import settings_of
from gpuprop.cli.runs import pictures, shape
from gpuprop.errors import GpupropError, ResumeError, TrainingEnded
from gpuprop.training.run_list import numbered_folder

if TYPE_CHECKING:
    from gpuprop.backends import Choice
    from gpuprop.cli.runs import Run
    from gpuprop.learn.live.frames import Recorder
    from gpuprop.training.callbacks import Callback
    from gpuprop.training.run_folder import RunFolder
    from gpuprop.training.run_manifest import StoredRun
    from gpuprop.training.trainer import Trainer

__all__ = ["Course", "nothing_to_save_yet"]

_GUESSED = "a run whose target was only guessed replaces no other: name the target with --target, and add --overwrite"


_FAR = 1000.0
"""How many times the loss of a guess is a training that has gone wrong."""


class Course:
    """What ``gpuprop train`` does with a training.

    Parameters
    ----------
    run : Run
    device : Choice
    options : mapping
        All options of the command, by their parameters' names.
    stored : StoredRun or None
        The training that is resumed.
    """

    def __init__(self, run: Run, device: Choice, options: Mapping[str, Any], stored: StoredRun | None) -> None:
        self._run, self._stored = run, stored
        self._settings = settings_of(options, device.device)
        self._animate: Path | None = options["animate"]
        seed, n_networks = options["seed"], options.get("networks", 1)  # an older run has not kept the latter
        self._other_seeds = [(seed + i) % 2**32 for i in range(1, n_networks)]
        self._film: Recorder | None = None
        self._can_draw = PictureCheck()
        if self._animate is not None:
            with wrong_options():
                check_animation(self._animate)
                self._film = run.recorder()
        run.describe(device.reason)
        self._folder = self._claim(options)

    def _claim(self, options: Mapping[str, Any]) -> RunFolder:
        from gpuprop.training.run_folder import RunFolder

        guessed, name = self._run.target_guessed, re.sub(r"[^\w.+-]+", "-", self._run.name)
        out = Path(options["resume"] or options["out"] or f"gpuprop-{name}")
        if options["resume"] is None and str(options["out"] or "").endswith(("/", os.sep)):
            out = numbered_folder(out, name)
        return RunFolder(
            out,
            overwrite=options["overwrite"] and not guessed,
            run=None if self._stored is None else self._stored.run,
            to_overwrite=_GUESSED if guessed else "add --overwrite",
            to_move="choose another --out",
            to_resume=f"`gpuprop train --resume {out}` goes on with it",
        )

    def follow(self) -> None:
        """Train, and do all that belongs to it.

        Raises
        ------
        KeyboardInterrupt, TrainingEnded
            If the user or a signal has ended the training; the message says what is saved.
        """
        from gpuprop.training.signals import finishing, watching_signals

        with watching_signals(), self._folder as folder:
            folder.remember(self._settings)
            if self._animate is not None:
                check_writable(self._animate)
            stopped = self._train()
            with finishing():  # from here on a second signal must not lose the model
                place = self._save(complete=stopped is None)
            try:
                if self._can_draw.passes() and place == folder.path:
                    draw_pictures(folder, pictures(self._run))
                self._say_end(place, complete=stopped is None)
                self._report()
                if self._other_seeds and stopped is None and place == folder.path:
                    self._compare_seeds()
            except KeyboardInterrupt:
                stopped = stopped or KeyboardInterrupt()
        if stopped is not None:
            raise self._explained(stopped, place)
        if place != folder.path:
            raise GpupropError(f"{folder.path}: could not take the files of the run, which are in {place}")

    def _train(self) -> KeyboardInterrupt | TrainingEnded | None:
        """Train; return what has ended the training early, if at least one epoch is complete."""
        folder, run = self._folder, self._run
        onlookers: list[Callback] = [harmless(self._can_draw, "the check of matplotlib")]
        if self._film is not None:
            onlookers.append(harmless(self._film, "the animation"))
        try:
            stopped = run.fit(folder, onlookers)
        except Exception as error:
            if folder.has_checkpoints and not isinstance(error, ResumeError):
                warn(f"the last checkpoint is kept; {self._how_to_go_on} goes on from it")
            raise
        if stopped is not None and run.trainer.epochs_done == 0:
            kept = f"{self._how_to_go_on} goes on" if folder.has_checkpoints else "nothing was written"
            raise _with_message(stopped, f"before the first epoch was complete; {kept}")
        return stopped

    def _save(self, *, complete: bool) -> Path:
        """Save model and history, and return where they are; after this, nothing is lost any more."""
        from gpuprop.model.container import MODEL_FILE_NAME
        from gpuprop.training import run_folder
        from gpuprop.training.run_manifest import Manifest

        folder, run = self._folder, self._run

        def write(place: Path) -> None:
            run.save(place / MODEL_FILE_NAME)
            run_folder.write_history(place / run_folder.HISTORY, run.history)

        place = folder.fill(write, Manifest(folder.run, complete, run.trainer.epochs_done, run.trainer.epochs))
        mark_saved()
        if place != folder.path:
            warn(f"{folder.path} cannot be written any more: model and history are saved in {place}")
            return place
        if folder.made_again:
            warn(f"{folder.path} was deleted or renamed during the training, and was made again")
        folder.tidy(complete=complete)
        return place

    def _say_end(self, place: Path, *, complete: bool) -> None:
        """Say how the updates were made, which epoch was kept, and where the files are."""
        folder, run = self._folder, self._run
        trainer = run.trainer
        print(f"plan: {trainer.plan_reason}")
        flaw = _too_large_a_rate(trainer, None if run.classes is None else len(run.classes))
        if flaw:
            warn(flaw)
        kept = run.kept()
        if kept and complete:
            print(f"kept: epoch {trainer.best_epoch} of {trainer.epochs_done}, {kept}")
        if self._animate is not None and self._film is not None:
            _write_film(self._animate, self._film, f"{run.name}, {shape(trainer.network)}")
        print(f"saved in {place}: {', '.join(folder.published or ('model.safetensors', 'history.csv'))}\n")

    def _report(self) -> None:
        """Say how good the model is on the test part."""
        from gpuprop.cli.console import print_report
        from gpuprop.training.scores import report_of

        try:
            report = report_of(*self._run.test_part, self._run.classes)
            figures = self._run.figures()
            if figures:
                report = replace(report, text="\n".join([report.text, *map(_said, figures, figures.values())]))
            print_report(report)
        except Exception as error:
            warn(f"the model is saved, but the report on the test part failed: {error or type(error).__name__}")

    def _compare_seeds(self) -> None:
        """Train from other seeds, and say and write how far the scores lie apart; network 0 is the saved one."""
        from gpuprop.training import run_folder
        from gpuprop.training.scores import report_of

        try:
            own = report_of(*self._run.test_part, self._run.classes)
            scores = [own.score, *self._run.scores_of(self._other_seeds)]
            rows = [f"{network},{score!r}" for network, score in enumerate(scores)]
            text = "\n".join([f"network,test_{own.metric.lower()}", *rows]) + "\n"
            (self._folder.staging / run_folder.SEEDS).write_text(text, encoding="utf-8")
            self._folder.publish()
            print(
                f"\nfrom {len(scores)} seeds: test {own.metric} {statistics.mean(scores):.4f} ± "
                f"{statistics.stdev(scores):.4f}, from {min(scores):.4f} to {max(scores):.4f} ({run_folder.SEEDS})"
            )
        except Exception as error:
            warn(f"the model is saved, but trainings from other seeds failed: {error or type(error).__name__}")

    def _explained(self, stopped: KeyboardInterrupt | TrainingEnded, place: Path) -> KeyboardInterrupt | TrainingEnded:
        done, epochs = self._run.trainer.epochs_done, self._run.trainer.epochs
        saved = f"after {done} of {epochs} epochs; the model of epoch {done} is saved in {place}"
        return _with_message(stopped, f"{saved}; {self._how_to_go_on} goes on")

    @property
    def _how_to_go_on(self) -> str:
        return f"`gpuprop train --resume {self._folder.path}`"


@contextmanager
def nothing_to_save_yet() -> Iterator[None]:
    """Let SIGUSR1 end the command as a success while data are read; other signals have their usual effect then."""
    number = getattr(signal, "SIGUSR1", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*arguments: object) -> None:
        raise TrainingEnded("ended by SIGUSR1 before the training began: requeue the job", signal=number)

    before = signal.getsignal(number)
    if before == signal.SIG_DFL:
        signal.signal(number, end)
    try:
        yield
    finally:
        if before == signal.SIG_DFL:
            signal.signal(number, before)


def _too_large_a_rate(trainer: Trainer, n_classes: int | None) -> str:
    """Return that the learning rate was too large, if the loss is far above that of a guess, or an empty string."""
    if n_classes is None and trainer.units is None:
        return ""  # the targets are in units of their own
    losses = trainer.history.get("train_loss") or [0.0]
    guess = 0.5 * trainer.network.layer_sizes[-1] if n_classes is None else math.log(max(2, n_classes))
    if losses[-1] <= _FAR * guess:
        return ""
    return (
        f"the training loss is {losses[-1]:.3g}, and a guess has {guess:.2g}: the learning rate "
        f"{max(trainer.history['learning_rate']):.3g} is too large; --lr find looks for one"
    )


def _said(name: str, figure: float | None) -> str:
    return f"test {name}: {'not defined' if figure is None else f'{figure:.4f}'}"


def _with_message(stopped: KeyboardInterrupt | TrainingEnded, message: str) -> KeyboardInterrupt | TrainingEnded:
    """Return the same kind of end with a message for the user."""
    if isinstance(stopped, TrainingEnded):
        requeue = ": requeue the job with it" if stopped.signal == getattr(signal, "SIGUSR1", None) else ""
        return TrainingEnded(f"ended by {stopped.signal.name} {message}{requeue}", signal=stopped.signal)
    return KeyboardInterrupt(f"interrupted {message}")


def _write_film(path: Path, film: Recorder, title: str) -> None:
    from gpuprop.cli.animate import write_film

    try:
        write_film(path, film, title)
    except Exception as error:
        warn(f"the model is saved, but the animation is not: {error or type(error).__name__}")
    else:
        print(f"animation: {path}")
