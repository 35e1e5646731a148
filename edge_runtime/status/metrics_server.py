"""Serves the metrics over HTTP from threads of its own, whoever asks and however."""

import io
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from edge_runtime.errors import GruardError
from edge_runtime.status.metrics import CONTENT_TYPE, exposition
from edge_runtime.status.snapshot import Snapshot
from edge_runtime.status.verdict import ALARM, HEALTHY, judge

LOOPBACK = "127.0.0.1"
CONNECTIONS = 4
"""At a time; whoever comes then is turned away."""
LIMIT = 2.0
"""Seconds for a whole request, however slowly its bytes trickle in."""
_POLL = 0.1  # seconds that closing may take


def parse_address(text: str) -> tuple[str, int]:
    """`PORT`, `HOST:PORT` or `[IPV6]:PORT`; the host is this machine alone unless it is given.

    Raises GruardError.
    """
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        raise GruardError(f"--metrics {text}: give a port or ADDRESS:PORT, such as 127.0.0.1:9107")
    return host.removeprefix("[").removesuffix("]") or LOOPBACK, int(port)


class MetricsServer:
    """GET /metrics for Prometheus, GET /healthz for whoever restarts things; nothing else.

    log takes one line that says where. Raises GruardError when the address cannot be had.
    """

    def __init__(
        self,
        address: str,
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        host, port = parse_address(address)
        self._clock = clock
        self._latest: Snapshot | None = None
        self._server = _listen(host, port, self._page)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL,), name="metrics", daemon=True
        )
        self._thread.start()
        shown = f"[{host}]" if ":" in host else host
        log(f"metrics at http://{shown}:{self.port}/metrics")

    @property
    def port(self) -> int:
        """The port in use, also where 0 asked for any."""
        return int(self._server.server_address[1])

    def publish(self, snapshot: Snapshot) -> None:
        """Serve this one from now on."""
        self._latest = snapshot

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    def _page(self, path: str) -> tuple[HTTPStatus, str]:
        snapshot, now = self._latest, self._clock()
        if path == "/metrics":
            return HTTPStatus.OK, exposition(snapshot, now) if snapshot else ""
        if path == "/healthz":
            return _health(snapshot, now)
        return HTTPStatus.NOT_FOUND, "only /metrics and /healthz are here\n"


Page = Callable[[str], tuple[HTTPStatus, str]]


def _health(snapshot: Snapshot | None, now: float) -> tuple[HTTPStatus, str]:
    """An alarm is health: the run does what it is there for."""
    if snapshot is None:
        return HTTPStatus.SERVICE_UNAVAILABLE, "starting\n"
    verdict = judge(snapshot, now, "running")
    well = verdict.code in (HEALTHY, ALARM)
    return HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE, verdict.text + "\n"


def _listen(host: str, port: int, page: Page) -> "_Server":
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return _Server(family, address, page)
    except OSError as error:
        raise GruardError(f"--metrics {host}:{port}: {error.strerror or error}") from None


class _Server(ThreadingMixIn, TCPServer):
    """A thread a connection, a few at a time, and silence about whatever goes wrong in one."""

    # Not http.server.HTTPServer: that looks its own name up in the DNS, which may take long.
    daemon_threads = allow_reuse_address = True

    def __init__(self, family: int, address: Any, page: Page) -> None:
        self.address_family = family
        self.page = page
        self._room = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off is no news."""


class _Handler(BaseHTTPRequestHandler):
    """One request and one answer per connection (HTTP/1.0)."""

    server: _Server
    server_version, sys_version = "gruard", ""
    timeout = LIMIT

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_Hasty(self.connection, time.monotonic() + LIMIT))

    def do_GET(self) -> None:
        code, text = self.server.page(self.path.partition("?")[0])
        body = text.encode(errors="replace")
        self.send_response(code)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no news."""


class _Hasty(io.RawIOBase):
    """Reads a socket until a moment, after which it is too late."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._connection, self._until = connection, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)
