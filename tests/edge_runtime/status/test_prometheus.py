"""The metrics page against a strict parser, and its server against clients of every kind."""

import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from made_snapshot import ALARMING, SNAPSHOT, TOLD, snapshots

from edge_runtime.address import listening_address
from edge_runtime.detector.lasting_change import Finding
from edge_runtime.errors import GruardError
from edge_runtime.mute import Mute
from edge_runtime.status import metrics
from edge_runtime.status.metrics import CONNECTIONS, MetricsServer, exposition
from edge_runtime.status.snapshot import ChannelStatus, LearningStatus, Snapshot

PATIENCE = 60
SAMPLE = re.compile(r"([a-z_]+)(?:\{(.*)\})? (-?[0-9.e+-]+)", re.DOTALL)
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,|$)')
UNESCAPED = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(page: str) -> Series:
    """Every sample of a page; fails on whatever the exposition format does not allow."""
    found: Series = {}
    families: dict[str, str] = {}
    helped = family = ""
    assert page.endswith("\n")
    for line in page[:-1].split("\n"):
        if line.startswith("# HELP "):
            _, _, helped, text = line.split(" ", 3)
            assert text and "\\" not in text and helped not in families
        elif line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            assert family == helped and family.startswith("gruard_")
            assert (kind == "counter") == family.endswith("_total")
            assert kind in ("counter", "gauge")
            families[family] = kind
        else:
            name, labels, value = parse_sample(line)
            assert name == family, "samples stand below their family"
            assert (name, labels) not in found
            assert families[name] == "gauge" or value >= 0
            found[name, labels] = value
    return found


def parse_sample(line: str) -> tuple[str, frozenset[tuple[str, str]], float]:
    match = SAMPLE.fullmatch(line)
    assert match, line
    labels, rest = {}, match[2] or ""
    while rest:
        label = LABEL.match(rest)
        assert label and label[1] not in labels, line
        labels[label[1]] = re.sub(r'\\[\\"n]', lambda escape: UNESCAPED[escape[0]], label[2])
        rest = rest[label.end() :]
    return match[1], frozenset(labels.items()), float(match[3])


def value(page: str, name: str, **labels: str) -> float:
    return parse(page)[f"gruard_{name}", frozenset(labels.items())]


def test_values() -> None:
    page = exposition(ALARMING, TOLD + 2.5)
    assert value(page, "info", bundle="pump", version="3", model="55f037e9877e",
                 kernel="tflite-builtin") == 1  # fmt: skip
    assert value(page, "last_answer_age_seconds") == 2.5
    assert value(page, "start_time_seconds") == 1.7e9
    assert value(page, "worker_phase", phase="serving") == 1
    assert value(page, "worker_phase", phase="waiting to restart") == 0
    assert value(page, "records_total", tier="2") == 100
    assert value(page, "tier_changes_total", **{"from": "3", "to": "1"}) == 2
    assert value(page, "flags_total", flag="WARMUP") == 150
    assert value(page, "alarms_total") == 3 and value(page, "alarms_by_kind", kind="level") == 2
    assert value(page, "recurring_alarms_total") == 1
    assert value(page, "restarts_total") == 1 and value(page, "dropped_records_total") == 0
    assert value(page, "bad_cells_total") == 5 and value(page, "bad_rows_total") == 1
    assert value(page, "timing_total", trouble="duplicate") == 4
    assert value(page, "timing_total", trouble="paced by arrival") == 0
    assert value(page, "answer_median_seconds") == pytest.approx(0.002345)
    assert value(page, "tier") == value(page, "alarm") == value(page, "valid") == 1
    assert (value(page, "score"), value(page, "threshold")) == (40.25, 16.8)
    assert value(page, "channel_masked_total", channel="heat") == 21
    assert value(page, "channel_blamed", channel="flow") == 1
    assert value(page, "board_temperature_celsius") == 54.27
    assert value(page, "thread_alive", thread="journal") == 1
    assert value(page, "thread_hung", thread="journal") == 0
    assert value(page, "thread_silent_seconds", thread="journal") == 1.25
    assert value(page, "thread_restarts_total", thread="status file") == 0
    assert value(page, "skipped_entries_total") == value(page, "outages_total") == 0
    assert value(page, "board_condition", **{"is": "under-voltage"}) == 1
    assert value(page, "board_condition_since_boot", **{"is": "heat limit"}) == 0


def test_how_far_learning_is_has_rows_and_a_target() -> None:
    learning = LearningStatus(True, 3412, 8640, 52280.0, False, "", None, None)
    page = exposition(replace(SNAPSHOT, learning=learning), TOLD)
    assert value(page, "learning") == 1
    assert value(page, "learning_rows") == 3412 and value(page, "learning_target_rows") == 8640
    assert "learning_next" not in page and "learning" not in exposition(SNAPSHOT, TOLD)


def test_a_mute_and_its_end_are_there_while_it_holds() -> None:
    page = exposition(replace(SNAPSHOT, mute=Mute(1.6e9, 1.7e9, "cleaning")), TOLD)
    assert value(page, "muted") == 1 and value(page, "mute_end_time_seconds") == 1.7e9
    none = exposition(SNAPSHOT, TOLD)
    assert value(none, "muted") == 0 and "mute_end" not in none


def test_a_change_is_there_as_long_as_nobody_has_accepted_it() -> None:
    finding = Finding(1.6e9, ("flow", "heat", "flow"), 1, None, "")
    page = exposition(replace(SNAPSHOT, change=finding), TOLD)
    assert value(page, "changed") == value(page, "channel_changed", channel="flow") == 1
    assert value(page, "change_time_seconds") == 1.6e9
    accepted = exposition(replace(SNAPSHOT, change=replace(finding, accepted=1.65e9)), TOLD)
    assert value(accepted, "changed") == 0 and value(accepted, "change_time_seconds") == 1.6e9
    assert "channel_changed" not in accepted
    none = exposition(SNAPSHOT, TOLD)
    assert value(none, "changed") == 0 and "change_time" not in none


def test_what_is_not_known_is_left_out() -> None:
    page = exposition(replace(SNAPSHOT, answer=None, rate=None), TOLD)
    for name in ("gruard_score", "gruard_tier ", "gruard_samples_per_second", "gruard_board"):
        assert name not in page


@given(name=st.text())
@example('a\\"b\n{},= é\r')
def test_labels_are_escaped(name: str) -> None:
    channel = ChannelStatus(name, True, True, True, 7, 8)
    page = exposition(replace(SNAPSHOT, channels=(channel,)), TOLD)
    assert value(page, "channel_masked_total", channel=name) == 7


@given(snapshot=snapshots)
def test_any_snapshot_makes_a_correct_page(snapshot: Snapshot) -> None:
    channels = {channel.name: channel for channel in snapshot.channels}
    sound = replace(  # a real run has these, for they are its own words
        snapshot,
        counts=replace(snapshot.counts, transitions={"1→2": 3}),
        channels=tuple(channels.values()),
        threads=tuple({thread.name: thread for thread in snapshot.threads}.values()),
    )
    assert parse(exposition(sound, 0.0))


@pytest.mark.parametrize(
    "page",
    [
        "gruard_x 1\n",
        "# HELP gruard_x a\n# TYPE gruard_x counter\ngruard_x 1\n",
        '# HELP gruard_x a\n# TYPE gruard_x gauge\ngruard_x{a="b"c"} 1\n',
        '# HELP gruard_x a\n# TYPE gruard_x gauge\ngruard_x{a="\n"} 1\n',
        "# HELP gruard_x a\n# TYPE gruard_x gauge\ngruard_x 1\ngruard_x 2\n",
        "# HELP gruard_x a\n# TYPE gruard_x gauge\ngruard_x nan\n",
    ],
)
def test_the_parser_bites(page: str) -> None:
    with pytest.raises(AssertionError):
        parse(page)


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    made = MetricsServer("0", lambda line: None, lambda: TOLD)
    made.publish(SNAPSHOT)
    yield made
    made.close()


def connect(server: MetricsServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), PATIENCE)


def exchange(server: MetricsServer, request: bytes) -> bytes:
    """All that comes back for raw bytes; a broken connection counts as nothing more."""
    answer = b""
    with connect(server) as client, suppress(ConnectionError):
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        while data := client.recv(65536):
            answer += data
    return answer


def get(server: MetricsServer, path: str) -> tuple[int, str]:
    head, _, body = exchange(server, f"GET {path} HTTP/1.1\r\n\r\n".encode()).partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def test_metrics_over_http(server: MetricsServer) -> None:
    answer = exchange(server, b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert body.decode() == exposition(SNAPSHOT, TOLD)


def test_nothing_else_is_there(server: MetricsServer) -> None:
    assert get(server, "/")[0] == get(server, "/metrics/")[0] == get(server, "/../etc")[0] == 404
    for method in (b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"get"):
        answer = exchange(server, method + b" /metrics HTTP/1.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.0 501 ")


def test_health(server: MetricsServer) -> None:
    assert get(server, "/healthz") == (200, "healthy, no alarm\n")
    server.publish(ALARMING)
    assert get(server, "/healthz")[0] == 200  # an alarm is what the run is there for
    server.publish(replace(SNAPSHOT, process=replace(SNAPSHOT.process, told=TOLD - 60)))
    code, text = get(server, "/healthz")
    assert code == 503 and "answered nothing for 60 s" in text


def test_before_the_first_snapshot() -> None:
    server = MetricsServer("0", lambda line: None)
    assert get(server, "/metrics") == (200, "") and get(server, "/healthz")[0] == 503
    server.close()


def test_a_client_that_trickles_is_cut_off(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "LIMIT", 0.05)
    with connect(server) as client:
        client.sendall(b"GET /met")
        assert client.recv(100) == b""  # or this test runs into its own time limit


def test_fifty_slow_clients_starve_nobody(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "LIMIT", 10 * PATIENCE)  # nobody leaves by himself
    crowd = [connect(server) for _ in range(50)]
    assert len(crowd) > CONNECTIONS
    for client in crowd:
        with suppress(ConnectionError):
            client.sendall(b"GET /hea")
    assert get(server, "/healthz") == (200, "healthy, no alarm\n")
    with suppress(ConnectionError):
        assert crowd[0].recv(100) == b""  # the oldest made room
    crowd[-1].sendall(b"lthz HTTP/1.1\r\n\r\n")
    assert crowd[-1].recv(100).startswith(b"HTTP/1.0 200")  # the latest was left alone
    for client in crowd:
        client.close()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_crowd_of_slow_clients_starves_health(
    server: MetricsServer, data: st.DataObject
) -> None:
    """Clients that come, trickle, hang up half or wholly, in any order, and never wait."""
    crowd: list[socket.socket] = []
    for _ in range(data.draw(st.integers(1, 60))):
        deed = data.draw(st.sampled_from(["come", "come", "trickle", "half", "leave"]))
        if deed == "come" or not crowd:
            crowd.append(connect(server))
            continue
        client = data.draw(st.sampled_from(crowd))
        with suppress(OSError):
            if deed == "trickle":
                client.sendall(data.draw(st.binary(min_size=1, max_size=3)))
            elif deed == "half":
                client.shutdown(socket.SHUT_WR)
            else:
                client.close()
    assert get(server, "/healthz") == (200, "healthy, no alarm\n")
    for client in crowd:
        client.close()


def test_a_client_that_reads_slowly_holds_up_nobody(server: MetricsServer) -> None:
    many = tuple(ChannelStatus(f"channel {n:05}", True, True, True, 7, 8) for n in range(20_000))
    server.publish(replace(SNAPSHOT, channels=many))
    with connect(server) as slow:
        slow.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert slow.recv(10).startswith(b"HTTP/1.0 2")  # and no more
        assert get(server, "/healthz")[0] == 200


def test_a_taken_port_is_said(server: MetricsServer) -> None:
    with pytest.raises(GruardError, match=f"--metrics 127.0.0.1:{server.port}: .*in use"):
        MetricsServer(str(server.port), print)


def test_addresses() -> None:
    assert listening_address("9107") == ("127.0.0.1", 9107)
    assert listening_address(":9107") == ("127.0.0.1", 9107)  # never the whole world by a slip
    assert listening_address("0.0.0.0:9107") == ("0.0.0.0", 9107)
    assert listening_address("[::1]:9107") == ("::1", 9107)
    for text in ("", "a", "a:b", "127.0.0.1", "1:99999", "1:-1", "1:٣", "9" * 5000):
        with pytest.raises(GruardError, match="give a port"):
            listening_address(text)
    with pytest.raises(GruardError, match=r"--metrics no.such.host.invalid:1: "):
        MetricsServer("no.such.host.invalid:1", print)
    with pytest.raises(GruardError, match=r"--metrics hhh.*:1: .*label"):
        MetricsServer("h" * 5000 + ":1", print)


methods = st.sampled_from([b"GET", b"POST", b"get", b"", b"\x16\x03\x01", b"G" * 70_000])
paths = st.sampled_from([b"/metrics", b"/healthz", b"/", b"//", b"*", b"http://a/metrics"])
versions = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9", b"HTTP/2.0", b"", b"HTTP/1.\xff"])
headers = st.lists(
    st.sampled_from([b"Host: a", b"Content-Length: -1", b"Content-Length: 9999999", b":", b"\xff"])
    | st.binary(max_size=40),
    max_size=5,
)
requests = st.one_of(
    st.binary(max_size=300),
    st.tuples(methods, paths | st.binary(max_size=30), versions, headers).map(
        lambda parts: b" ".join(parts[:3]) + b"\r\n" + b"\r\n".join(parts[3]) + b"\r\n\r\n"
    ),
    headers.map(lambda lines: b"GET /metrics HTTP/1.1\r\n" + b"\r\n".join(lines * 60)),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=requests, cut=st.integers(0, 400))
def test_no_request_harms_the_server(
    server: MetricsServer, capfd: pytest.CaptureFixture[str], request: bytes, cut: int
) -> None:
    for raw in (request, request[:cut]):
        exchange(server, raw)
    assert get(server, "/healthz") == (200, "healthy, no alarm\n")
    assert capfd.readouterr() == ("", "")
