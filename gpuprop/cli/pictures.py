"""The pictures of a run: drawn when its model is in its place, so that a picture that fails costs nothing else.

matplotlib takes a third of a second to be imported. That happens beside the training, and not before its first epoch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from gpuprop.cli.console import heard_warnings, warn
from gpuprop.training.callbacks import Callback

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpuprop.training.run_folder import RunFolder
    from gpuprop.training.trainer import Trainer

__all__ = ["PictureCheck", "draw_pictures", "fault_of_drawing"]


class PictureCheck(Callback):
    """Finds out whether matplotlib can draw here, while the network trains, and says so if it cannot.

    A thread imports it after the first epoch, so that a long training tells its user early what it will lack.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._passed: bool | None = None

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: Mapping[str, float | None]) -> None:
        """Begin the import after the first epoch, and look after a later one what came of it."""
        if self._thread is None:
            self._thread = threading.Thread(target=_import_matplotlib, name="gpuprop-pictures", daemon=True)
            self._thread.start()
        elif not self._thread.is_alive():
            self.passes()

    def passes(self) -> bool:
        """Return whether matplotlib can draw; the first call draws, and warns if that fails."""
        if self._passed is None:
            if self._thread is not None:
                self._thread.join()
            fault = fault_of_drawing()
            self._passed = fault is None
            if fault is not None:
                warn(f"{fault}; the run will have no pictures")
        return self._passed


def _import_matplotlib() -> None:
    with suppress(Exception):  # the check meets the same error
        import matplotlib.backends.backend_agg
        import matplotlib.figure  # noqa: F401


def fault_of_drawing() -> str | None:
    """Return why matplotlib cannot draw here, or None."""
    try:
        with heard_warnings():
            from gpuprop.learn.plots import draw_nothing

            draw_nothing()
    except Exception as error:  # not installed, broken, or set up for a program that is not here, such as LaTeX
        return f"matplotlib cannot draw here: {_shortened(error)}"
    return None


def draw_pictures(folder: RunFolder, pictures: dict[str, Callable[[], Figure]]) -> None:
    """Draw each picture and put it into the folder of the run; one that fails is a warning.

    Parameters
    ----------
    folder : RunFolder
    pictures : dict
        For the name of each file, the function that returns its picture.
    """
    for name, draw in pictures.items():
        try:
            with _one_warning(name):
                draw().savefig(folder.staging / name)
            folder.publish()
        except Exception as error:
            (folder.staging / name).unlink(missing_ok=True)
            warn(f"{name} was not drawn: {_shortened(error)}")


@contextmanager
def _one_warning(name: str) -> Iterator[None]:
    """Print what the drawing of a picture warns of in one line, such as the letters that a font lacks."""
    with heard_warnings() as messages:
        yield
    if messages:
        more = f"; and {len(messages) - 1} more of this kind" if len(messages) > 1 else ""
        warn(f"{name}: {_shortened(messages[0])}{more}")


def _shortened(error: object) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"
