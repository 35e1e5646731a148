"""A snapshot as Prometheus reads it: the text exposition format, version 0.0.4.

Serves the metrics over HTTP from one thread of its own, whoever asks and however.
"""

import selectors
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal, get_args

from edge_runtime.address import listening_address
from edge_runtime.errors import GruardError
from edge_runtime.plain import shown
from edge_runtime.sources.sample_clock import Event
from edge_runtime.status.board import CONDITIONS
from edge_runtime.status.health import ALARM, HEALTHY, judge
from edge_runtime.status.snapshot import Answer, BoardHealth, Counts, Snapshot
from edge_runtime.supervision.policy import WorkerPhase
from edge_runtime.threads import BEAT, WatchedThread

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Metric:
    """One family. samples: a value for each set of labels."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: tuple[tuple[Labels, float], ...]


def exposition(snapshot: Snapshot, now: float) -> str:
    """The page for one scrape at monotonic time `now`."""
    return "".join(_family(metric) for metric in _metrics(snapshot, now) if metric.samples)


def _metrics(snapshot: Snapshot, now: float) -> list[Metric]:
    return [
        *_run(snapshot, now),
        *_counted(snapshot.counts),
        *(_answered(snapshot.answer) if snapshot.answer else ()),
        *_change(snapshot),
        *_channels(snapshot),
        *_threads(snapshot),
        *(_board(snapshot.health) if snapshot.health else ()),
    ]


def _run(snapshot: Snapshot, now: float) -> list[Metric]:
    model, process = snapshot.model, snapshot.process
    about = {"bundle": model.name, "version": str(model.version), "model": model.hash}
    phases = [({"phase": phase.value}, phase.value == model.phase) for phase in WorkerPhase]
    missing = [] if model.hash else [({"reason": model.waiting}, 1.0)]
    rate = snapshot.rate
    return [
        _gauge("info", "What is run; always 1.", [(about | {"kernel": model.kernel}, 1.0)]),
        _value("start_time_seconds", "Start of the run, epoch seconds.", process.started),
        _value("last_answer_age_seconds", "Time since the last snapshot.", now - process.told),
        _gauge("worker_phase", "1 for what the worker is doing.", phases),
        _gauge("no_bundle", "1 while only the fallback answers, and why.", missing),
        _value("samples_per_second", "Pace, over a second or so.", rate),
    ]


def _counted(counts: Counts) -> list[Metric]:
    changes = [
        (dict(zip(("from", "to"), change.split("→"), strict=True)), float(count))
        for change, count in counts.transitions.items()
    ]
    median, slowest = counts.latency_median_ms, counts.latency_max_ms
    timing = {str(event): 0 for event in get_args(Event)} | dict(counts.timing)
    return [
        _counter("records", "Records by the tier that vouches.", _each("tier", counts.tiers)),
        _counter("tier_changes", "Changes of tier.", changes),
        _counter("flags", "Records by flag.", _each("flag", counts.flags)),
        _counter("alarms", "Alarms; one that pauses counts once.", [({}, counts.alarms)]),
        _counter("recurring_alarms", "Of them, those that recur.", [({}, counts.recurring)]),
        # No counter: an alarm moves to another kind when the diagnosis learns more.
        _gauge("alarms_by_kind", "Alarms by the kind named last.", _each("kind", counts.kinds)),
        _counter("restarts", "Restarts of the worker.", [({}, counts.restarts)]),
        _counter("dropped_records", "Records no sink took.", [({}, counts.dropped)]),
        _counter("skipped_entries", "Journal entries that are no records.", [({}, counts.skipped)]),
        _counter("outages", "Times that the source was away.", [({}, counts.outages)]),
        _counter("bad_cells", "Unreadable cells.", [({}, counts.bad_cells)]),
        _counter("bad_rows", "Unreadable rows.", [({}, counts.bad_rows)]),
        _counter("timing", "What befell the times of readings.", _each("trouble", timing)),
        _value("answer_median_seconds", "Usual time to a record.", median and median / 1e3),
        _value("answer_slowest_seconds", "Longest time to a record.", slowest and slowest / 1e3),
    ]


def _answered(answer: Answer) -> list[Metric]:
    return [
        _value("tier", "Who answers now: 1 model, 2 model alone, 3 fallback.", answer.tier),
        _value("valid", "Whether a healthy model vouches.", answer.valid),
        _value("alarm", "Whether an alarm is on.", answer.alarm),
        _value("score", "Of the last record; higher is stranger.", answer.score),
        _value("threshold", "Of the detector that answered.", answer.threshold),
    ]


def _change(snapshot: Snapshot) -> list[Metric]:
    change = snapshot.change
    is_open = change is not None and change.accepted is None
    channels = dict.fromkeys(change.channels, 1) if change and is_open else {}
    return [
        _value("changed", "Whether a change was reported that nobody has accepted.", is_open),
        _value("change_time_seconds", "Of its report, epoch.", change.since if change else None),
        _gauge("channel_changed", "1 for those it is on.", _each("channel", channels)),
    ]


def _channels(snapshot: Snapshot) -> list[Metric]:
    channels = snapshot.channels
    masked = {c.name: c.masked_records for c in channels}
    imputed = {c.name: c.imputed_records for c in channels}
    blamed = {c.name: int(c.blamed) for c in channels}
    return [
        _counter("channel_masked", "Records without the reading.", _each("channel", masked)),
        _counter("channel_imputed", "Records that distrust it.", _each("channel", imputed)),
        _gauge("channel_blamed", "Whether the alarm is about it.", _each("channel", blamed)),
    ]


def _threads(snapshot: Snapshot) -> list[Metric]:
    threads = [({"thread": thread.name}, thread) for thread in snapshot.threads]
    return [
        _gauge(
            "thread_alive",
            "Whether it is at work, or has nothing more to do.",
            [(name, thread.alive or thread.ended) for name, thread in threads],
        ),
        _gauge(
            "thread_hung",
            "Whether it has not shown itself for a minute.",
            [(name, thread.hung) for name, thread in threads],
        ),
        _gauge(
            "thread_silent_seconds",
            "Since it last showed itself.",
            [(name, thread.silent) for name, thread in threads],
        ),
        _counter(
            "thread_restarts",
            "Restarts after an exception.",
            [(name, thread.restarts) for name, thread in threads],
        ),
    ]


def _board(health: BoardHealth) -> list[Metric]:
    bits = health.throttled
    on, had = _conditions(bits), _conditions(bits and bits >> 16)
    return [
        _value("board_temperature_celsius", "Its hottest sensor.", health.temperature),
        _gauge("board_condition", "Power and throttling now.", on),
        _gauge("board_condition_since_boot", "The same, ever since boot.", had),
    ]


def _conditions(bits: int | None) -> list[tuple[Labels, float]]:
    if bits is None:
        return []
    return [({"is": name}, bits >> bit & 1) for bit, name in CONDITIONS.items()]


def _gauge(name: str, text: str, samples: Iterable[tuple[Labels, float]]) -> Metric:
    return Metric(f"gruard_{name}", "gauge", text, tuple(samples))


def _counter(name: str, text: str, samples: Iterable[tuple[Labels, float]]) -> Metric:
    return Metric(f"gruard_{name}_total", "counter", text, tuple(samples))


def _value(name: str, text: str, value: float | None) -> Metric:
    return _gauge(name, text, [] if value is None else [({}, value)])


def _each(label: str, counts: Mapping[str, int]) -> list[tuple[Labels, float]]:
    return [({label: name}, count) for name, count in counts.items()]


def _family(metric: Metric) -> str:
    head = f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"
    return head + "".join(
        f"{metric.name}{_labels(labels)} {_number(value)}\n" for labels, value in metric.samples
    )


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _labels(labels: Labels) -> str:
    inside = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""


CONNECTIONS = 32
"""At a time; whoever comes then takes the place of the one that has been there the longest."""
LIMIT = 2.0
"""Seconds for a whole request and its answer, however slowly the bytes trickle."""
_LONGEST = 16_384  # bytes of a request
_AT_ONCE = 65_536  # bytes taken or given in one turn
_REST = 0.1  # seconds before the next try to accept, when descriptors ran out


@dataclass(eq=False)
class _Client:
    """One connection. until: when it is closed, finished or not. answer: None while it asks."""

    connection: socket.socket
    until: float
    asked: bytearray = field(default_factory=bytearray)
    answer: memoryview | None = None


class MetricsServer:
    """GET /metrics for Prometheus, GET /healthz for whoever restarts things; nothing else.

    A client that is slow holds up nobody: none is waited for, each has its time, and a new one
    takes the place of the oldest.
    log takes one line that says where. Raises GruardError when the address cannot be had.
    """

    def __init__(
        self,
        address: str,
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        host, port = listening_address(address)
        self._clock = clock
        self._latest: Snapshot | None = None
        self._listener = _listen(host, port)
        self._wake, self._woken = socket.socketpair()
        self._clients: dict[socket.socket, _Client] = {}  # the oldest first
        self._closing = False
        self.thread = WatchedThread("metrics server", self._serve)
        self.thread.start()
        shown = f"[{host}]" if ":" in host else host
        log(f"metrics at http://{shown}:{self.port}/metrics")

    @property
    def port(self) -> int:
        """The port in use, also where 0 asked for any."""
        return int(self._listener.getsockname()[1])

    def publish(self, snapshot: Snapshot) -> None:
        """Serve this one from now on."""
        self._latest = snapshot

    def close(self) -> None:
        """Listen no more."""
        self._closing = True
        self._wake.close()
        self.thread.join(LIMIT)
        self._woken.close()
        self._listener.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            try:
                selector.register(self._listener, selectors.EVENT_READ)
                selector.register(self._woken, selectors.EVENT_READ)
                while not self._closing:
                    self.thread.beat()
                    for key, _ in selector.select(self._patience()):
                        self._attend(selector, key.fileobj)
                    self._drop_late(selector)
            finally:
                for client in list(self._clients.values()):
                    self._drop(selector, client)

    def _patience(self) -> float:
        """Seconds until the oldest client's time is over."""
        oldest = next(iter(self._clients.values()), None)
        return BEAT if oldest is None else min(max(oldest.until - time.monotonic(), 0.0), BEAT)

    def _attend(self, selector: selectors.BaseSelector, ready: object) -> None:
        if ready is self._listener:
            self._accept(selector)
        elif isinstance(ready, socket.socket) and (client := self._clients.get(ready)):
            try:
                done = self._hear(selector, client) if client.answer is None else _tell(client)
            except BlockingIOError:
                return
            except OSError:
                done = True  # a client that breaks off is no news
            if done:
                self._drop(selector, client)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor is left: perhaps the oldest client has one to spare
            self._drop_oldest(selector)
            time.sleep(_REST)
            return
        if len(self._clients) >= CONNECTIONS:
            self._drop_oldest(selector)
        connection.setblocking(False)
        self._clients[connection] = _Client(connection, time.monotonic() + LIMIT)
        selector.register(connection, selectors.EVENT_READ)

    def _hear(self, selector: selectors.BaseSelector, client: _Client) -> bool:
        """Take what came; whether there is nothing more to do for the client."""
        data = client.connection.recv(_AT_ONCE)
        client.asked += data
        if data and not _is_whole(client.asked) and len(client.asked) <= _LONGEST:
            return False
        if not client.asked.strip():
            return True
        client.answer = memoryview(_answer(bytes(client.asked), self._page))
        selector.modify(client.connection, selectors.EVENT_WRITE)
        return _tell(client)

    def _drop_late(self, selector: selectors.BaseSelector) -> None:
        now = time.monotonic()
        for client in [client for client in self._clients.values() if client.until <= now]:
            self._drop(selector, client)

    def _drop_oldest(self, selector: selectors.BaseSelector) -> None:
        if oldest := next(iter(self._clients.values()), None):
            self._drop(selector, oldest)

    def _drop(self, selector: selectors.BaseSelector, client: _Client) -> None:
        del self._clients[client.connection]
        selector.unregister(client.connection)
        with suppress(OSError):
            client.connection.shutdown(socket.SHUT_WR)
            client.connection.recv(_AT_ONCE)  # or what is left unread resets the answer on its way
        client.connection.close()

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


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address, family=family, backlog=CONNECTIONS)
    except (OSError, UnicodeError) as error:  # a name that is too long cannot be encoded
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise GruardError(f"--metrics {shown(host, str)}:{port}: {reason}") from None
    listener.setblocking(False)
    return listener


def _is_whole(asked: bytearray) -> bool:
    """Whether a request is all there: up to the empty line behind its headers."""
    return b"\r\n\r\n" in asked or b"\n\n" in asked


def _answer(asked: bytes, page: Page) -> bytes:
    """What is sent for a request, whole or not (HTTP/1.0: one a connection)."""
    words = asked.partition(b"\n")[0].decode("latin-1").split()
    if len(words) != 3 or not words[2].startswith("HTTP/") or not _is_whole(bytearray(asked)):
        code, text = HTTPStatus.BAD_REQUEST, "this is no HTTP request\n"
    elif words[0] != "GET":
        code, text = HTTPStatus.NOT_IMPLEMENTED, "only GET is here\n"
    else:
        code, text = page(words[1].partition("?")[0])
    body = text.encode(errors="replace")
    head = (
        f"HTTP/1.0 {code.value} {code.phrase}\r\nServer: gruard\r\n"
        f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _tell(client: _Client) -> bool:
    """Send what the client takes; whether that was all."""
    assert client.answer is not None
    sent = client.connection.send(client.answer[:_AT_ONCE])
    client.answer = client.answer[sent:]
    return not client.answer
