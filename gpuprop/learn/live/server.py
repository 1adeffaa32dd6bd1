"""A page on this machine that shows a run: ``http.server`` on the loopback address reads the files that the run writes.

The server answers ``/`` with the page and ``/state.json`` with the current state of the run, and nothing else. It only
answers requests that name this machine as their host, because a script of another site could otherwise read the run
through the browser. It writes nothing.
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
    """Reads what a run has written so far, and keeps its last snapshot when the run ends and deletes the file.

    Parameters
    ----------
    folder : Path
        The folder that `gpuprop train` got as ``--out``; it need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._snapshot: dict[str, Any] = {}
        self._source: Path | None = None

    def state(self) -> dict[str, Any]:
        """Return the current state: status ("waiting", "running" or "finished"), history, snapshot."""
        staging = self._staging()
        if staging is None:
            finished = (self.folder / HISTORY_FILE).exists()
            history = _read_history(self.folder / HISTORY_FILE)
            if finished and not self._snapshot:
                self._snapshot = self._from_model(history)
            status = "finished" if finished else "waiting"
        else:
            if staging != self._source:  # another run has started: forget the last one
                self._source, self._snapshot = staging, {}
            history, status = _read_history(staging / HISTORY_FILE), "running"
            self._snapshot = _read_json(staging / SNAPSHOT_FILE) or self._snapshot
        return {"folder": str(self.folder), "status": status, "history": history, **self._snapshot}

    def _staging(self) -> Path | None:
        """Return the newest folder of a run that is going on, or None."""
        try:
            candidates = [path for path in self.folder.glob(".gpuprop-*") if (path / HISTORY_FILE).exists()]
            return max(candidates, key=lambda path: (path / HISTORY_FILE).stat().st_mtime, default=None)
        except OSError:  # the folder was deleted while we looked
            return None

    def _from_model(self, history: dict[str, list[float | None]]) -> dict[str, Any]:
        """Return the part of a snapshot that a finished run's model still gives."""
        from gpuprop.estimators.predictors import NetworkPredictor, load_predictor

        try:
            predictor = load_predictor(self.folder, "numpy")
        except (GpupropError, OSError):
            return {}
        network, pictures = predictor.network, isinstance(predictor, NetworkPredictor)
        done = len(history.get("epoch", ()))
        sizes = "-".join(map(str, network.layer_sizes))
        return {"epoch": done, "epochs": done, "network": sizes, "weights": weight_images(network, pictures=pictures)}


def _read_history(path: Path) -> dict[str, list[float | None]]:
    """Return the columns; an unfinished last line is left out."""
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
        0 takes a free port; ``server.server_port`` says which.

    Raises
    ------
    GpupropError
        If the port is taken or not allowed.
    """
    reader = RunReader(folder)

    class Handler(BaseHTTPRequestHandler):
        """Answers GET requests for the two addresses."""

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
            """Print nothing: one line for each request would fill the terminal."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise GpupropError(f"port {port} on {HOST}: {error}; choose another --port, or 0 for a free one") from error
