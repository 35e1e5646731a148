"""MQTT with a real broker: samples, outages, credentials, TLS; and messages of all kinds."""

import json
import socket
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_run import LiveRun, is_alarm, is_answer, is_gap, live_run

from edge_runtime.address import MqttAddress, parse_mqtt_address, refuse_own_messages
from edge_runtime.errors import Complaints, GruardError
from edge_runtime.sources import mqtt
from edge_runtime.sources.mqtt import JsonSamples, TopicSamples
from edge_runtime.sources.open_source import open_source
from edge_runtime.sources.source import Polled, SourceLostError
from tests.apparatus.descriptors import beyond_1024
from tests.apparatus.mosquitto import Broker, own_certificate, password_file

SECRET = "hunter2-Geheim"
NORMAL, STRANGE = {"a": 1, "b": 2}, {"a": 500, "b": 2}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    found = Broker(tmp_path)
    yield found
    found.kill()


def answered(run: LiveRun, broker: Broker, message: dict[str, Any], **access: Any) -> None:
    """Publish until a record answers; MQTT does not tell when a subscription is there."""
    wanted = is_alarm if message["a"] > 100 else is_answer
    run.until(wanted, lambda: broker.publish("pump", json.dumps(message), **access))


def test_a_killed_broker_is_a_gap_and_the_run_goes_on_when_it_is_back(
    broker: Broker, tmp_path: Path
) -> None:
    with live_run(f"mqtt://127.0.0.1:{broker.port}/pump", tmp_path) as run:
        answered(run, broker, NORMAL)
        broker.kill()
        run.until(is_gap)
        run.logged("trying again")
        broker.start()
        answered(run, broker, STRANGE)
        run.logged("is back")
        summary = run.stop()
    assert summary["outages"] == 1 and summary["flags"]["GAP"] > 0
    assert f"gruard: mqtt://127.0.0.1:{broker.port}/pump: the connection to the broker" in run.log


def test_a_broker_may_come_after_the_run(broker: Broker, tmp_path: Path) -> None:
    broker.kill()
    with live_run(f"mqtt://127.0.0.1:{broker.port}/pump", tmp_path) as run:
        run.logged("no connection (Connection refused); trying again")
        broker.start()
        answered(run, broker, NORMAL)
        assert run.stop()["outages"] == 1


def test_channels_by_topic_make_a_sample(broker: Broker, tmp_path: Path) -> None:
    def publish() -> None:
        broker.publish("pump/a", "500")
        broker.publish("pump/b", "2.5")
        broker.publish("pump/unknown", "no channel")

    with live_run(f"mqtt://127.0.0.1:{broker.port}/pump/+", tmp_path) as run:
        run.until(is_alarm, publish)
        run.until(is_gap)  # nothing is published any more
        assert run.stop()["outages"] == 0


def test_what_the_broker_had_kept_is_old(broker: Broker, tmp_path: Path) -> None:
    broker.publish("pump", json.dumps(STRANGE), retain=True)
    with live_run(f"mqtt://127.0.0.1:{broker.port}/pump", tmp_path) as run:
        answered(run, broker, NORMAL)
        run.stop()
    assert not any(is_alarm(record) for record in run.records)


@pytest.mark.long
@pytest.mark.parametrize("with_file", [True, False])
def test_the_right_password_is_let_in_and_the_wrong_one_explained_and_never_shown(
    tmp_path: Path, with_file: bool
) -> None:
    users = password_file(tmp_path, "pump", SECRET)
    broker = Broker(tmp_path, f"allow_anonymous false\npassword_file {users}\n")
    auth = {"username": "pump", "password": SECRET}
    address = f"mqtt://127.0.0.1:{broker.port}/pump"
    environment = {"GRUARD_MQTT_USER": "pump", "GRUARD_MQTT_PASSWORD": SECRET}
    if with_file:
        secret = tmp_path / "secret"
        secret.write_text(f"pump:{SECRET}\n")
        secret.chmod(0o600)
        address += f"?password-file={secret}"
        environment.clear()
    try:
        with live_run(address, tmp_path, **environment) as run:
            answered(run, broker, NORMAL, auth=auth)
            shown = command_lines(run.process.pid)
            run.stop()
            assert SECRET not in run.log + json.dumps(run.records) + shown
        wrong = {"GRUARD_MQTT_USER": "pump", "GRUARD_MQTT_PASSWORD": f"wrong-{SECRET}"}
        with live_run(f"mqtt://127.0.0.1:{broker.port}/pump", tmp_path, **wrong) as run:
            run.logged("the broker does not take the user name or password; set GRUARD_MQTT_USER")
            shown = command_lines(run.process.pid)
            run.stop()
            assert SECRET not in run.log + json.dumps(run.records) + shown
    finally:
        broker.kill()


def command_lines(pid: int) -> str:
    """The command lines of a process and its children, as everybody on the machine sees them."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return "".join(Path(f"/proc/{each}/cmdline").read_text() for each in [pid, *children])


def test_tls_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    certificate, key = own_certificate(tmp_path)
    settings = f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}\n"
    broker = Broker(tmp_path, settings)
    try:
        trusting = f"mqtts://127.0.0.1:{broker.port}/pump?ca={certificate}"
        with live_run(trusting, tmp_path) as run:
            answered(run, broker, NORMAL, tls={"ca_certs": str(certificate)})
            assert run.stop()["outages"] == 0
        with live_run(f"mqtts://127.0.0.1:{broker.port}/pump", tmp_path) as run:
            run.logged("certificate is not trusted")
            assert "name the authority that signed it with ?ca=FILE" in run.log
            run.stop()
    finally:
        broker.kill()


def test_tls_to_a_broker_without(broker: Broker, tmp_path: Path) -> None:
    with live_run(f"mqtts://127.0.0.1:{broker.port}/pump", tmp_path) as run:
        run.logged("no connection (")
        run.stop()


def settings(text: str, **environ: str) -> MqttAddress:
    return parse_mqtt_address(text, environ, subscribing=True)


def test_a_password_is_not_in_what_is_printed() -> None:
    found = settings("mqtt://h/t", GRUARD_MQTT_USER="u", GRUARD_MQTT_PASSWORD=SECRET)
    assert found.login == ("u", SECRET) and SECRET not in f"{found!r} {found} {found.name}"


def test_ports_have_defaults() -> None:
    assert (settings("mqtt://h/t").port, settings("mqtts://h/t").port) == (1883, 8883)
    assert settings("mqtt://[::1]:99/a/b").host == "::1"
    assert settings("mqtt://h/a%20b/c").topic == "a b/c"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mqtt://h", "no topic is named"),
        ("mqtt:h/t", "is written mqtt://HOST:PORT/TOPIC"),
        ("mqtt://h:99999/t", "is written mqtt://HOST:PORT/TOPIC"),
        ("mqtt://h/t?ca=x", "mqtt: has no such option; it has password-file"),
        ("mqtt://h/+/t", "TOPIC/[+] for a channel a topic"),
        ("mqtt://h/t/#", "TOPIC/[+] for a channel a topic"),
        ("mqtt://h/+", "TOPIC/[+] for a channel a topic"),
        ("mqtts://h/t?ca=/no/such", "/no/such: no such file"),
        ("mqtt://h/t?password-file=/no/such", "/no/such: cannot be read"),
    ],
)
def test_addresses_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(GruardError, match=words):
        open_source(text, ("a", "b"), 1.0, Complaints())


@pytest.mark.parametrize(
    ("source", "sink", "published"),
    [
        ("mqtt://h/t", "mqtt://h/t", "t"),
        ("mqtt://h/t", "mqtt://h/t?what=all", "t"),
        ("mqtt://h/a/t?password-file=/x", "mqtt://H:1883/a%2Ft", "a/t"),
        ("mqtt://h/t/+", "mqtt://h/t/pump", "t/pump"),
        ("mqtt://h/t/+", "mqtt://h/t", "t/status"),
        ("mqtt://h/t/status", "mqtt://h/t", "t/status"),
        ("mqtt://h/t/set/result", "mqtt://h/t?control=1", "t/set/result"),
        ("mqtts://h/t", "mqtts://h:8883/t?ca=/x", "t"),
        ("mqtt://localhost/t", "mqtt://[::1]/t", "t"),
        ("mqtt://127.0.0.1/t", "mqtt://localhost/t", "t"),
    ],
)
def test_a_run_that_would_read_its_own_records_is_refused(
    source: str, sink: str, published: str
) -> None:
    with pytest.raises(GruardError) as caught:
        refuse_own_messages(source, ["-", "mqtt://elsewhere/t", sink])
    source, sink = source.partition("?")[0], sink.partition("?")[0]
    assert caught.value.exit_code == 2 and str(caught.value) == (
        f"--source {source} would read what --sink {sink} publishes to {published}; "
        "give the sink another topic"
    )


@pytest.mark.parametrize(
    ("source", "sink"),
    [
        ("mqtt://h/t", "mqtt://h/u"),
        ("mqtt://h/t", "mqtt://h/t/records?what=all&control=1"),
        ("mqtt://h/t", "mqtt://other/t"),
        ("mqtt://h/t", "mqtt://h:1884/t"),
        ("mqtt://h/t/+", "mqtt://h/t/a/b"),
        ("mqtt://h/t/+", "mqtt://h/u/a"),
        ("mqtt:t", "mqtt://h/t"),
        ("t", "t"),
    ],
)
def test_what_a_run_publishes_elsewhere_is_its_own_affair(source: str, sink: str) -> None:
    refuse_own_messages(source, [sink])


def test_a_password_needs_a_user() -> None:
    with pytest.raises(GruardError, match="GRUARD_MQTT_USER is not") as caught:
        settings("mqtt://h/t", GRUARD_MQTT_PASSWORD=SECRET)
    assert SECRET not in str(caught.value)


def test_a_password_file_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"u:{SECRET}")
    secret.chmod(0o644)
    with pytest.raises(GruardError, match="chmod o=") as caught:
        settings(f"mqtt://h/t?password-file={secret}")
    assert SECRET not in str(caught.value)


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "edge_runtime.mqtt", raising=False)
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(GruardError, match=r"pip install 'gruard\[mqtt\]'"):
        open_source("mqtt://h/t", ("a", "b"), 1.0, Complaints())


def test_a_broker_that_never_answers_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "_ANSWER", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = settings(f"mqtt://127.0.0.1:{server.getsockname()[1]}/t")
        with pytest.raises(SourceLostError, match="does not answer"):
            mqtt.Messages(broker)


@contextmanager
def speaking(*conversations: Callable[[socket.socket], None]) -> Iterator[MqttAddress]:
    """A broker of bytes: what it says in each connection after the CONNECT."""

    def serve() -> None:
        for say in conversations:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                asked.append(connection.recv(300))
                say(connection)

    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield settings(f"mqtt://127.0.0.1:{server.getsockname()[1]}/t")
        thread.join(60)
        assert not thread.is_alive()
    versions = [packet[packet.index(b"MQTT") + 4] for packet in asked]
    assert versions == [5, 4][: len(conversations)] or versions == [5]


GREETING_5, SUBSCRIBED_5 = b"\x20\x03\x00\x00\x00", b"\x90\x04\x00\x01\x00\x00"
GREETING_4, SUBSCRIBED_4 = b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x00"


def greet(connection: socket.socket, newest: bool = True) -> None:
    connection.sendall(GREETING_5 if newest else GREETING_4)
    connection.recv(300)  # SUBSCRIBE
    connection.sendall(SUBSCRIBED_5 if newest else SUBSCRIBED_4)


@pytest.mark.parametrize("newest", [True, False])
def test_a_broker_that_refuses_the_topic_is_told(newest: bool) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.sendall(GREETING_5 if newest else GREETING_4)
        connection.recv(300)  # SUBSCRIBE
        connection.sendall((SUBSCRIBED_5[:-1] + b"\x87") if newest else SUBSCRIBED_4[:-1] + b"\x80")

    def older(connection: socket.socket) -> None:
        connection.sendall(b"\x20\x02\x00\x01")  # a version that it does not know

    conversations = [refuse] if newest else [older, refuse]
    with (
        speaking(*conversations) as broker,
        pytest.raises(SourceLostError, match="the broker refuses the topic"),
    ):
        mqtt.Messages(broker)


def length(number: int) -> bytes:
    """A length as MQTT has it: seven bits a byte, the low ones first."""
    low, high = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + length(high) if high else bytes([low])


def heard(messages: mqtt.Messages, count: int) -> list[tuple[str, bytes | None]]:
    found = [messages.next(60.0) for _ in range(count)]
    return [message for message in found if message]


@pytest.mark.parametrize("newest", [True, False])
def test_a_message_of_a_hundred_megabytes_is_skipped_without_a_place_in_memory(
    newest: bool,
) -> None:
    def say(connection: socket.socket) -> None:
        greet(connection, newest)
        small = b"\x00\x01t" + b"\x00" * newest + b"7"
        piece, pieces = bytes(1 << 20), 100
        for kind in (b"\x30", b"\x31"):  # the second one was kept, and is nobody's
            connection.sendall(kind + length(pieces << 20))
            for _ in range(pieces):
                connection.sendall(piece)
            connection.sendall(b"\x30" + length(len(small)) + small)
        connection.recv(1)

    def refuse(connection: socket.socket) -> None:
        connection.sendall(b"\x20\x02\x00\x01")  # "unacceptable protocol version"

    with speaking(*([say] if newest else [refuse, say])) as address:
        messages = mqtt.Messages(address)
        tracemalloc.start()
        found = heard(messages, 3)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        messages.close()
    assert found == [("", None), ("t", b"7"), ("t", b"7")] and peak < 2 << 20


@pytest.mark.parametrize(
    "packet",
    [
        b"\x90" + length(200 << 20),  # no message: nothing says where the next packet begins
        b"\x32" + length(200 << 20),  # a message to be confirmed, which nobody asked for
        b"\x30\xff\xff\xff\xff\x01",
        b"\x30\xff\xff",
        b"\x00\x00",
    ],
)
def test_another_long_packet_is_a_lost_connection(packet: bytes) -> None:
    def say(connection: socket.socket) -> None:
        greet(connection)
        connection.sendall(packet)

    with speaking(say) as address:
        messages = mqtt.Messages(address)
        with pytest.raises(SourceLostError, match="lost"):
            messages.next(60.0)
        messages.close()


def test_a_broker_that_hangs_up_on_mqtt_5_is_asked_in_3_1_1() -> None:
    def say(connection: socket.socket) -> None:
        greet(connection, newest=False)
        connection.sendall(b"\x30\x04\x00\x01t1")
        connection.recv(1)

    with speaking(lambda connection: None, say) as address:
        messages = mqtt.Messages(address)
        assert messages.next(60.0) == ("t", b"1")
        messages.close()


def test_a_broker_beyond_1024_descriptors_is_heard() -> None:
    def say(connection: socket.socket) -> None:
        greet(connection)
        connection.sendall(b"\x30\x05\x00\x01t\x001")
        connection.recv(1)

    with beyond_1024(), speaking(say) as address:
        messages = mqtt.Messages(address)
        assert messages.next(60.0) == ("t", b"1")
        messages.close()


def test_a_real_broker_keeps_a_long_message_to_itself(broker: Broker) -> None:
    messages = mqtt.Messages(settings(f"mqtt://127.0.0.1:{broker.port}/pump"))
    broker.publish("pump", "9" * (1 << 20))
    broker.publish("pump", "7")
    assert messages.next(60.0) == ("pump", b"7")
    messages.close()


class Messages:
    """Messages that are all there; `now` is the clock of whoever takes them."""

    def __init__(self, *messages: tuple[str, bytes]) -> None:
        self.waiting, self.now = list(messages), 1000.0

    def next(self, timeout: float) -> tuple[str, bytes] | None:
        if self.waiting:
            return self.waiting.pop(0)
        self.now += timeout
        return None


def json_samples(complaints: Complaints, *payloads: bytes) -> JsonSamples:
    messages = Messages(*(("t", payload) for payload in payloads))
    return JsonSamples(messages.next, lambda: None, "mqtt://h/t", ("a", "b"), complaints)


def test_a_message_is_a_sample_and_a_broken_one_a_row_of_nothing() -> None:
    complaints = Complaints()
    payloads = [b'{"b": 2, "a": 1, "time": 7}', b"\xff{", b'{"a": "x"}', b"[" * 70_000]
    source = json_samples(complaints, *payloads)
    readings = [source.read(0.0) for _ in payloads]
    expected = [[1, 2], [np.nan, np.nan], [np.nan, np.nan], [np.nan, np.nan]]
    np.testing.assert_array_equal([r.values for r in readings if r], expected)
    assert readings[0] and readings[0].time == 7.0
    assert (complaints.cells, complaints.rows) == (1, 2) and source.read(0.0) is None


def test_a_value_that_is_too_long_is_missing_and_told() -> None:
    waiting = [("t/a", b"1"), ("t/b", b"2"), ("t/a", None), ("t/other", None)]
    complaints = Complaints()
    samples = TopicSamples(
        lambda timeout: waiting.pop(0) if waiting else None, "t/+", ("a", "b"), 1.0, complaints, "m"
    )
    samples.collect(0.0)
    reading = samples.measure()
    assert reading and not waiting and complaints.rows == 2
    np.testing.assert_array_equal(reading.row, [np.nan, 2])


def test_a_silent_channel_is_missing_after_two_periods_and_then_the_others_go_on() -> None:
    messages = Messages(("t/a", b"1"), ("t/b", b" 2 \n"), ("t/a/deep", b"9"), ("x", b"9"))
    complaints = Complaints()
    samples = TopicSamples(
        messages.next, "t/+", ("a", "b"), 1.0, complaints, "m", lambda: messages.now
    )
    source = Polled(samples.measure, 1.0, clock=lambda: messages.now, wait=samples.collect)
    found = []
    for _ in range(5):
        messages.waiting.append(("t/a", b"3"))
        reading = source.read(None)
        found.append(reading.row.tolist() if reading else None)
    np.testing.assert_array_equal(found, [[3, 2], [3, 2], [3, 2], [3, np.nan], [3, np.nan]])
    silence = [source.read(None) for _ in range(3)]
    assert [bool(reading) for reading in silence] == [True, False, False]
    messages.waiting += [("t/a", b"on"), ("t/b", b"")]
    reading = source.read(None)
    assert reading and np.isnan(reading.row).all() and complaints.cells == 1
