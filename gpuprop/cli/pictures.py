"""The pictures of a run: drawn when its model is in its place, so that a picture that fails costs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gpuprop.cli.console import heard_warnings, warn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpuprop.training.run_folder import RunFolder

__all__ = ["draw_pictures", "reason_against_pictures"]


def reason_against_pictures() -> str:
    """Return why matplotlib cannot draw here, or an empty string: what can be known before a training is said then."""
    from gpuprop.learn.plots import draw_nothing

    try:
        with heard_warnings():
            draw_nothing()
    except Exception as error:  # not installed, broken, or set up for a program that is not here, such as LaTeX
        return f"matplotlib cannot draw here: {_shortened(error)}"
    return ""


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
