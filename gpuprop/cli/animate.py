"""``gpuprop train --animate``: record a training of a small network, and write it as a GIF or as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpuprop.cli.pictures import fault_of_drawing

if TYPE_CHECKING:
    from gpuprop.learn.live.frames import Recorder

__all__ = ["check_animation", "write_film"]


def check_animation(path: Path) -> None:
    """Refuse a file that no animation can be written to.

    Raises
    ------
    ValueError
        If the file's name ends neither in .gif nor in .html, or a GIF cannot be drawn here.
    """
    if path.suffix.lower() not in (".gif", ".html"):
        raise ValueError(f"animate: got {str(path)!r}, expected a name that ends in .gif or .html")
    against = fault_of_drawing() if path.suffix.lower() == ".gif" else None
    if against:
        raise ValueError(f"animate: {against}; give a name that ends in .html, which needs no matplotlib")


def write_film(path: Path, recorder: Recorder, title: str) -> None:
    """Write a page if `path` ends in ``.html``, else a GIF; an error leaves no part of the file."""
    from gpuprop.cli.files import written_whole
    from gpuprop.learn.live.animation import to_html, write_gif

    if path.suffix.lower() == ".html":
        with written_whole(path) as page:
            page.write(to_html(recorder, title))
    else:
        with written_whole(path, binary=True) as picture:
            write_gif(recorder, picture, title)
