"""Metrics for Prometheus: a snapshot in the text exposition format 0.0.4, served over HTTP.

`exposition` makes the text. `MetricsServer` serves it from one thread to any client.
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
from edge_runtime.mute import Mute
from edge_runtime.plain import shown
from edge_runtime.sources.sample_clock import Event
from edge_runtime.status.board import CONDITIONS
from edge_runtime.status.health import ALARM, HEALTHY, judge
from edge_runtime.status.snapshot import Answer, BoardHealth, Counts, LearningStatus, Snapshot
from edge_runtime.supervision.policy import WorkerPhase
from edge_runtime.threads import BEAT, MonitoredThread

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
CONNECTIONS = 32
"""At a time; a new client beyond that replaces the oldest one."""
LIMIT = 2.0
"""Seconds for a whole request and its answer, however slowly the bytes come."""
_LONGEST = 16_384  # bytes of a request
_AT_ONCE = 65_536  # bytes received or sent in one turn
_REST = 0.1  # seconds before the next attempt to accept, when descriptors ran out

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Metric:
    """One metric family. samples: a value for each set of labels."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: tuple[tuple[Labels, float], ...]


def exposition(snapshot: Snapshot, now: float) -> str:
    """Return the page for one scrape at monotonic time `now`."""
    return "".join(family(metric) for metric in _metrics(snapshot, now) if metric.samples)


def _metrics(snapshot: Snapshot, now: float) -> list[Metric]:
    return [
        *_run(snapshot, now),
        *_counted(snapshot.counts),
        *(_answered(snapshot.answer) if snapshot.answer else ()),
        *_change(snapshot),
        *_mute(snapshot.mute),
        *(_learning(snapshot.learning) if snapshot.learning else ()),
        *_channels(snapshot),
        *_threads(snapshot),
        *(_board(snapshot.health) if snapshot.health else ()),
    ]


def _run(snapshot: Snapshot, now: float) -> list[Metric]:
    model, process = snapshot.model, snapshot.process
    about = {"bundle": model.name, "version": str(model.version), "model": model.hash}
    phases = [({"phase": phase.value}, phase.value == model.phase) for phase in WorkerPhase]
    missing = [] if model.hash else [({"reason": model.waiting}, 1.0)]
    return [
        _gauge("info", "The model; always 1.", [(about | {"kernel": model.kernel}, 1.0)]),
        _value("start_time_seconds", "Start of the run, epoch seconds.", process.started),
        _value("last_answer_age_seconds", "Time since the last snapshot.", now - process.told),
        _gauge("worker_phase", "1 for the phase of the worker.", phases),
        _gauge("no_bundle", "1 while only the fallback answers, and why.", missing),
        _value("samples_per_second", "Rate since the last snapshot.", snapshot.rate),
    ]


def _counted(counts: Counts) -> list[Metric]:
    changes = [
        (dict(zip(("from", "to"), change.split("→"), strict=True)), float(count))
        for change, count in counts.transitions.items()
    ]
    median, slowest = counts.latency_median_ms, counts.latency_max_ms
    timing = {str(event): 0 for event in get_args(Event)} | dict(counts.timing)
    return [
        _counter("records", "Records by tier.", _each("tier", counts.tiers)),
        _counter("tier_changes", "Changes of tier.", changes),
        _counter("flags", "Records by flag.", _each("flag", counts.flags)),
        _counter("alarms", "Alarms; one that pauses counts once.", [({}, counts.alarms)]),
        _counter("recurring_alarms", "Of them, those that recur.", [({}, counts.recurring)]),
        # No counter: an alarm moves to another kind when the diagnosis learns more.
        _gauge("alarms_by_kind", "Alarms by the kind named last.", _each("kind", counts.kinds)),
        _counter("restarts", "Restarts of the worker.", [({}, counts.restarts)]),
        _counter("dropped_records", "Records that were not written.", [({}, counts.dropped)]),
        _counter("skipped_entries", "Journal entries that are no records.", [({}, counts.skipped)]),
        _counter("outages", "Times that the source was away.", [({}, counts.outages)]),
        _counter("bad_cells", "Unreadable cells.", [({}, counts.bad_cells)]),
        _counter("bad_rows", "Unreadable rows.", [({}, counts.bad_rows)]),
        _counter("timing", "Irregular times of readings.", _each("trouble", timing)),
        _value("answer_median_seconds", "Median time to a record.", median and median / 1e3),
        _value("answer_slowest_seconds", "Longest time to a record.", slowest and slowest / 1e3),
    ]


def _answered(answer: Answer) -> list[Metric]:
    return [
        _value("tier", "Who answers now: 1 model, 2 model alone, 3 fallback.", answer.tier),
        _value("valid", "Whether a healthy model is behind the record.", answer.valid),
        _value("alarm", "Whether an alarm is on.", answer.alarm),
        _value("score", "Of the last record; higher is stranger.", answer.score),
        _value("threshold", "Of the detector that answered.", answer.threshold),
    ]


def _change(snapshot: Snapshot) -> list[Metric]:
    change = snapshot.change
    is_open = change is not None and change.accepted is None
    channels = dict.fromkeys(change.channels, 1) if change and is_open else {}
    return [
        _value("changed", "Whether a reported change is not accepted yet.", is_open),
        _value("change_time_seconds", "Of its report, epoch.", change.since if change else None),
        _gauge("channel_changed", "1 for the channels that changed.", _each("channel", channels)),
    ]


def _mute(mute: Mute | None) -> list[Metric]:
    return [
        _value("muted", "Whether the owner muted alarms.", mute is not None),
        _value("mute_end_time_seconds", "Of the mute, epoch.", mute.ends if mute else None),
    ]


def _learning(learning: LearningStatus) -> list[Metric]:
    return [
        _value("learning", "Whether no model was learned yet.", learning.active),
        _value("learning_rows", "Readings on the disk.", learning.rows),
        _value("learning_target_rows", "Readings to learn from.", learning.target),
        _value("learning_last_time_seconds", "Of the last result, epoch.", learning.last),
        _value("learning_next_time_seconds", "When it is learned again, epoch.", learning.next),
    ]


def _channels(snapshot: Snapshot) -> list[Metric]:
    channels = snapshot.channels
    masked = {c.name: c.masked_records for c in channels}
    imputed = {c.name: c.imputed_records for c in channels}
    blamed = {c.name: int(c.blamed) for c in channels}
    return [
        _counter("channel_masked", "Records without the reading.", _each("channel", masked)),
        _counter("channel_imputed", "Records that distrust it.", _each("channel", imputed)),
        _gauge("channel_blamed", "Whether the alarm blames it.", _each("channel", blamed)),
    ]


def _threads(snapshot: Snapshot) -> list[Metric]:
    threads = snapshot.threads
    alive, hung = {t.name: t.alive or t.ended for t in threads}, {t.name: t.hung for t in threads}
    silent = {t.name: t.silent for t in threads}
    restarts = {t.name: t.restarts for t in threads}
    return [
        _gauge("thread_alive", "Whether it runs, or has finished.", _each("thread", alive)),
        _gauge("thread_hung", "Whether it has not beaten for a minute.", _each("thread", hung)),
        _gauge("thread_silent_seconds", "Since its last beat.", _each("thread", silent)),
        _counter("thread_restarts", "Restarts after an exception.", _each("thread", restarts)),
    ]


def _board(health: BoardHealth) -> list[Metric]:
    bits = health.throttled
    on, had = _conditions(bits), _conditions(bits and bits >> 16)
    return [
        _value("board_temperature_celsius", "Of its hottest sensor.", health.temperature),
        _gauge("board_condition", "Power and throttling now.", on),
        _gauge("board_condition_since_boot", "The same, at any time since boot.", had),
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


def _each(label: str, values: Mapping[str, float]) -> list[tuple[Labels, float]]:
    return [({label: name}, value) for name, value in values.items()]


def family(metric: Metric) -> str:
    """Return the lines of one metric."""
    head = f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"
    return head + "".join(
        f"{metric.name}{_labels(labels)} {_number(value)}\n" for labels, value in metric.samples
    )


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _labels(labels: Labels) -> str:
    inside = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""


@dataclass(eq=False)
class _Client:
    """One connection, closed at `until`. answer: what is left to send, None before the request."""

    connection: socket.socket
    until: float
    request: bytearray = field(default_factory=bytearray)
    answer: memoryview | None = None


class MetricsServer:
    """Serves GET /metrics for Prometheus and GET /healthz for health checks, nothing else.

    A slow client delays no other: sockets never block, each client has `LIMIT` seconds, and a new
    one replaces the oldest.
    log takes one line with the address. Raises GruardError when the address cannot be used.
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
        self.thread = MonitoredThread("metrics server", self._serve)
        self.thread.start()
        shown = f"[{host}]" if ":" in host else host
        log(f"metrics at http://{shown}:{self.port}/metrics")

    @property
    def port(self) -> int:
        """The port in use, also where 0 asked for any."""
        return int(self._listener.getsockname()[1])

    def publish(self, snapshot: Snapshot) -> None:
        """Serve this snapshot from now on."""
        self._latest = snapshot

    def close(self) -> None:
        """Stop serving."""
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
                    for key, _ in selector.select(self._timeout()):
                        self._serve_ready(selector, key.fileobj)
                    self._drop_late(selector)
            finally:
                for client in list(self._clients.values()):
                    self._drop(selector, client)

    def _timeout(self) -> float:
        """Return the seconds until the oldest client's time is over."""
        oldest = next(iter(self._clients.values()), None)
        return BEAT if oldest is None else min(max(oldest.until - time.monotonic(), 0.0), BEAT)

    def _serve_ready(self, selector: selectors.BaseSelector, ready: object) -> None:
        if ready is self._listener:
            self._accept(selector)
        elif isinstance(ready, socket.socket) and (client := self._clients.get(ready)):
            try:
                done = self._receive(selector, client) if client.answer is None else _send(client)
            except BlockingIOError:
                return
            except OSError:
                done = True  # the client has disconnected
            if done:
                self._drop(selector, client)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor is left; the oldest client's becomes free
            self._drop_oldest(selector)
            time.sleep(_REST)
            return
        if len(self._clients) >= CONNECTIONS:
            self._drop_oldest(selector)
        connection.setblocking(False)
        self._clients[connection] = _Client(connection, time.monotonic() + LIMIT)
        selector.register(connection, selectors.EVENT_READ)

    def _receive(self, selector: selectors.BaseSelector, client: _Client) -> bool:
        """Receive a part of the request, and answer it when whole; return whether it is done."""
        data = client.connection.recv(_AT_ONCE)
        client.request += data
        if data and not _is_whole(client.request) and len(client.request) <= _LONGEST:
            return False
        if not client.request.strip():
            return True
        client.answer = memoryview(self._answer(bytes(client.request)))
        selector.modify(client.connection, selectors.EVENT_WRITE)
        return _send(client)

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
            client.connection.recv(_AT_ONCE)  # unread bytes would make close() reset the answer
        client.connection.close()

    def _answer(self, request: bytes) -> bytes:
        """Return the response to a request, whole or not (HTTP/1.0: one per connection)."""
        words = request.partition(b"\n")[0].decode("latin-1").split()
        if len(words) != 3 or not words[2].startswith("HTTP/") or not _is_whole(request):
            code, text = HTTPStatus.BAD_REQUEST, "this is no HTTP request\n"
        elif words[0] != "GET":
            code, text = HTTPStatus.NOT_IMPLEMENTED, "only GET is supported\n"
        else:
            code, text = self._page(words[1].partition("?")[0])
        body = text.encode(errors="replace")
        head = (
            f"HTTP/1.0 {code.value} {code.phrase}\r\nServer: gruard\r\n"
            f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def _page(self, path: str) -> tuple[HTTPStatus, str]:
        snapshot, now = self._latest, self._clock()
        if path == "/metrics":
            return HTTPStatus.OK, exposition(snapshot, now) if snapshot else ""
        if path == "/healthz":
            return _health(snapshot, now)
        return HTTPStatus.NOT_FOUND, "only /metrics and /healthz are served\n"


def _health(snapshot: Snapshot | None, now: float) -> tuple[HTTPStatus, str]:
    """Return OK also in alarm, because then the run works as intended."""
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


def _is_whole(request: bytes | bytearray) -> bool:
    """Return whether a request is complete: it ends with the empty line after its headers."""
    return b"\r\n\r\n" in request or b"\n\n" in request


def _send(client: _Client) -> bool:
    """Send as much as the client takes; return whether that was all."""
    assert client.answer is not None
    sent = client.connection.send(client.answer[:_AT_ONCE])
    client.answer = client.answer[sent:]
    return not client.answer
