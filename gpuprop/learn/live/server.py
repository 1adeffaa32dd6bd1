"""A page on this machine that shows a run: a server on the loopback address reads the files that the run writes.

The server answers ``/`` with the page and ``/state.json`` with the current state of the run, and nothing else. It only
answers requests that name this machine as their host, because a script of another site could otherwise read the run
through the browser. It writes nothing.

One thread serves all clients, by ``asyncio``, and one more reads the files. A client that says nothing, or does not
take its answer, is left after some seconds; when there are too many, the one that came first has to go.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path
from typing import Any, Self

from gpuprop.errors import GpupropError
from gpuprop.learn.live.reader import RunReader

__all__ = ["HOST", "MAX_CLIENTS", "PATIENCE_SECONDS", "WatchServer", "make_server"]

HOST = "127.0.0.1"
MAX_CLIENTS = 100
PATIENCE_SECONDS = 10.0
"""The time in which a client has to send its request and to take the answer."""
_MAX_REQUEST = 16_384
"""The most bytes of a request; a browser sends less than a thousand."""

_PAGE = Path(__file__).with_name("watch.html")


class WatchServer:
    """Serves the page of a run; a context manager that closes the port.

    Parameters
    ----------
    reader : RunReader
    listening : socket
        Bound, and not yet serving.
    """

    def __init__(self, reader: RunReader, listening: socket.socket) -> None:
        self._reader, self._listening = reader, listening
        self._clients: dict[asyncio.Task[Any], None] = {}  # in the order of their coming
        self._file_reader = ThreadPoolExecutor(1, "gpuprop-watch")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving, self._asked_to_end = threading.Event(), asyncio.Event()

    @property
    def server_port(self) -> int:
        """The port of the page."""
        return int(self._listening.getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file_reader.shutdown(wait=False, cancel_futures=True)
        self._listening.close()

    def serve_forever(self) -> None:
        """Serve until Ctrl-C, or until another thread calls `shutdown`."""
        asyncio.run(self._serve())

    def shutdown(self) -> None:
        """Let `serve_forever` return, which another thread has called."""
        if self._serving.wait(PATIENCE_SECONDS) and self._loop is not None:
            self._loop.call_soon_threadsafe(self._asked_to_end.set)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._serve_client, sock=self._listening, limit=_MAX_REQUEST)
        self._serving.set()
        try:
            await self._asked_to_end.wait()
        finally:
            server.close()
            for client in self._clients:
                client.cancel()

    async def _serve_client(self, requests: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        """Read one request and answer it; a client that leaves, or takes too long, is no event to speak of."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._clients) >= MAX_CLIENTS:
            next(iter(self._clients)).cancel()
        self._clients[task] = None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                request = await requests.readuntil(b"\r\n\r\n")
                loop = asyncio.get_running_loop()
                answers.write(await loop.run_in_executor(self._file_reader, _answer, request, self._reader))
                answers.close()
                await answers.wait_closed()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):  # a TimeoutError is an OSError
            pass
        finally:
            del self._clients[task]
            answers.transport.abort()


def _answer(request: bytes, reader: RunReader) -> bytes:
    """Return the answer to a request, both as they go over the wire."""
    return _Exchange(request, reader).wfile.getvalue()


class _Exchange(BaseHTTPRequestHandler):
    """Answers a GET request for one of the two addresses; it reads from memory and writes there."""

    wfile: BytesIO

    def __init__(self, request: bytes, reader: RunReader) -> None:
        self._reader = reader
        self.client_address = (HOST, 0)
        self.rfile, self.wfile = BytesIO(request), BytesIO()
        self.handle_one_request()

    def do_GET(self) -> None:
        host = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host")
        if host not in (HOST, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.path == "/":
            self._send("text/html; charset=utf-8", _PAGE.read_bytes())
        elif self.path == "/state.json":
            self._send_state()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send_state(self) -> None:
        try:
            state = json.dumps(self._reader.state(), allow_nan=False).encode()
        except Exception:  # the page says so, and asks again
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
        else:
            self._send("application/json", state)

    def _send(self, kind: str, body: bytes) -> None:
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


def make_server(folder: Path, port: int) -> WatchServer:
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
    try:
        return WatchServer(RunReader(folder), socket.create_server((HOST, port)))
    except (OSError, OverflowError) as error:
        raise GpupropError(f"port {port} on {HOST}: {error}; choose another --port, or 0 for a free one") from error
