"""A real HTTP server on a loopback port that serves a folder, and misbehaves on request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

Answer = Callable[["Request"], None]
"""Answers one request instead of the folder."""
PATIENCE = 60.0  # seconds; only a failing test waits this long


class UpdateServer:
    """Serves `folder`, and counts. ranges: whether it knows range requests. port: 0 for any.

    instead: by the end of a path, what answers such requests. requests: path and range of each.
    """

    def __init__(self, folder: Path, ranges: bool = True, port: int = 0) -> None:
        self.folder, self.ranges = folder, ranges
        self.instead: dict[str, Answer] = {}
        self.requests: list[tuple[str, str]] = []
        self.released = threading.Event()
        """Ends the answers that `stalls` holds."""
        owner = self

        class Handler(Request):
            server_of = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def ranges_of(self, ending: str) -> list[str]:
        """Return the ranges that were asked for, of paths with this ending; "" for all bytes."""
        return [wanted for path, wanted in self.requests if path.endswith(ending)]

    def stop(self) -> None:
        """End the server; connections are refused afterwards."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class Request(BaseHTTPRequestHandler):
    """One request. The methods named after misbehaviour are answers for `UpdateServer.instead`."""

    server_of: UpdateServer

    def do_GET(self) -> None:
        """Answer a request."""
        path, owner = unquote(self.path), self.server_of
        owner.requests.append((path, self.headers.get("Range", "")))
        answer = next((a for end, a in owner.instead.items() if path.endswith(end)), Request.plain)
        try:
            answer(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def content(self) -> bytes | None:
        """Return what the folder has for this path; None for nothing."""
        file = self.server_of.folder / unquote(self.path).lstrip("/")
        return file.read_bytes() if file.is_file() else None

    def plain(self) -> None:
        """Answer as a good server does."""
        if (content := self.content()) is None:
            self.send_error(404)
            return
        wanted = self.headers.get("Range", "")
        if not (wanted and self.server_of.ranges):
            self.send(200, content)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            self.send_error(416)
            return
        place = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(206, content[start:], {"Content-Range": place})

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send a whole answer."""
        self.begin(status, {"Content-Length": str(len(body)), **(headers or {})})
        self.wfile.write(body)

    def begin(self, status: int, headers: dict[str, str]) -> None:
        """Send the header of an answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def status(number: int) -> Answer:
    """Answer with an HTTP status."""
    return lambda request: request.send_error(number)


def body(content: bytes) -> Answer:
    """Answer with other bytes."""
    return lambda request: request.send(200, content)


def endless(request: Request) -> None:
    """Send bytes for ever."""
    request.begin(200, {})
    while True:
        request.wfile.write(bytes(1 << 16))


def cut_after(count: int) -> Answer:
    """Send so many bytes of the right answer, then close the connection."""

    def answer(request: Request) -> None:
        content = request.content() or b""
        request.begin(200, {"Content-Length": str(len(content))})
        request.wfile.write(content[:count])
        request.close_connection = True

    return answer


def stalls(header: bytes, then: bytes = b"") -> Answer:
    """Send `header` and `then` as they are, and nothing more until the server is released."""

    def answer(request: Request) -> None:
        request.wfile.write(header + then)
        request.wfile.flush()
        request.server_of.released.wait(PATIENCE)
        request.close_connection = True

    return answer


def trickles(before: bytes) -> Answer:
    """Send `before`, and then one byte at a time, each soon after the other, for ever."""

    def answer(request: Request) -> None:
        request.wfile.write(before)
        while not request.server_of.released.wait(0.01):
            request.wfile.write(b"x")
            request.wfile.flush()

    return answer
