"""``python -m gpuprop``, and the command ``gpuprop``: both call `main`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    Parameters
    ----------
    argv : sequence of str or None, default=None
        The arguments after the program's name; None takes those of the process.

    Returns
    -------
    int
        0, 1 (failed), 2 (wrong options) or 130 (interrupted).
    """
    try:
        from gpuprop import cli
    except KeyboardInterrupt:  # so early that the command line is not yet there to answer it
        return 130
    return cli.main(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
