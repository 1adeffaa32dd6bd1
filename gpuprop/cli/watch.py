"""``gpuprop watch``: a page on this machine that shows a run while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]

_HELP = """Show the run in DIR live in a browser: loss, accuracy, throughput, first-layer weights, current mistakes.

DIR is the --out of `gpuprop train`, which may create it later. The page is served to this machine only. Ctrl-C ends the
page and leaves the training alone.

\b
Examples:
  gpuprop watch gpuprop-mnist
  gpuprop watch gpuprop-mnist --port 8080
"""


def register(app: typer.Typer) -> None:
    """Add the command ``watch``."""
    app.command("watch", help=_HELP, short_help="Show a run live in a browser.")(watch)


def watch(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run.")],
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port of the page; 0 takes a free one.")
    ] = 8265,
) -> None:
    """Serve until Ctrl-C."""
    from gpuprop.learn.live.server import HOST, make_server

    with make_server(folder, port) as server:
        print(f"watching {folder}: open http://{HOST}:{server.server_port}/ (Ctrl-C ends)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
