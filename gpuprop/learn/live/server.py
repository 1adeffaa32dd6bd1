"""A page on this machine that shows a run: ``http.server`` on the loopback address, and the files that the run writes.

It answers ``/`` with the page and ``/state.json`` with what is known now, to requests that name this machine as their
host (another site's script could otherwise read along through the browser), and nothing else. Nothing is written.
"""

from __future__ import annotations

import csv
import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gpuprop.errors import GpupropError
from gpuprop.learn.live.snapshot import HISTORY_FILE, SNAPSHOT_FILE, weight_images

__all__ = ["HOST", "RunReader", "make_server"]

HOST = "127.0.0.1"
_PAGE = Path(__file__).with_name("watch.html")


class RunReader:
    """Reads what a run has written so far; keeps the last snapshot when the run ends and takes its own away.

    Parameters
    ----------
    folder : Path
        The ``--out`` of `gpuprop train`; it need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._snapshot: dict[str, Any] = {}
        self._source: Path | None = None

    def state(self) -> dict[str, Any]:
        """Return what is known now: status ("waiting", "running" or "finished"), history, snapshot."""
        staging = self._staging()
        if staging is None:
            finished = (self.folder / HISTORY_FILE).exists()
            history = _read_history(self.folder / HISTORY_FILE)
            if finished and not self._snapshot:
                self._snapshot = self._from_model(history)
            status = "finished" if finished else "waiting"
        else:
            if staging != self._source:  # another run: nothing of the last one holds
                self._source, self._snapshot = staging, {}
            history, status = _read_history(staging / HISTORY_FILE), "running"
            self._snapshot = _read_json(staging / SNAPSHOT_FILE) or self._snapshot
        return {"folder": str(self.folder), "status": status, "history": history, **self._snapshot}

    def _staging(self) -> Path | None:
        """The newest folder of a run that is going on."""
        try:
            candidates = [path for path in self.folder.glob(".gpuprop-*") if (path / HISTORY_FILE).exists()]
            return max(candidates, key=lambda path: (path / HISTORY_FILE).stat().st_mtime, default=None)
        except OSError:  # it went while we looked
            return None

    def _from_model(self, history: dict[str, list[float | None]]) -> dict[str, Any]:
        """What a finished run's model still tells."""
        from gpuprop.estimators.stored_models import load_network

        try:
            network = load_network(self.folder, "numpy")
        except (GpupropError, OSError):
            return {}
        done = len(history.get("epoch", ()))
        sizes = "-".join(map(str, network.layer_sizes))
        return {"epoch": done, "epochs": done, "network": sizes, "weights": weight_images(network)}


def _read_history(path: Path) -> dict[str, list[float | None]]:
    """Return the columns; a line that is being written is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    names, *rows = list(csv.reader(text[: text.rfind("\n") + 1].splitlines())) or [[]]
    rows = [row for row in rows if len(row) == len(names)]
    return {name: [_number(row[index]) for row in rows] for index, name in enumerate(names)}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def make_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Return a server for a run's folder, bound to the loopback address and not yet serving.

    Parameters
    ----------
    folder : Path
    port : int
        0 takes a free one; ``server.server_port`` says which.

    Raises
    ------
    GpupropError
        If the port cannot be had.
    """
    reader = RunReader(folder)

    class Handler(BaseHTTPRequestHandler):
        """Two addresses, GET only."""

        def do_GET(self) -> None:
            host = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host")
            if host not in (HOST, "localhost"):
                self.send_error(HTTPStatus.FORBIDDEN)
            elif self.path == "/":
                self._answer("text/html; charset=utf-8", _PAGE.read_bytes())
            elif self.path == "/state.json":
                self._answer("application/json", json.dumps(reader.state()).encode())
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def _answer(self, kind: str, body: bytes) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
            self.send_header("Content-Security-Policy", policy)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: a request a second would fill the terminal."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise GpupropError(f"port {port} on {HOST}: {error}; choose another --port, or 0 for a free one") from error
