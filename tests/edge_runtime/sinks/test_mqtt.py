"""Records over MQTT, to a real broker that is killed, stopped, locked and encrypted."""

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from made_journal import Log
from test_sinks import record

from edge_runtime.address import parse_mqtt_address
from edge_runtime.journal.frames import Entry
from edge_runtime.journal.journal import LENGTH
from edge_runtime.journal.segments import JournalDisk, Segments
from edge_runtime.record import Record
from edge_runtime.sinks.mqtt import Mqtt
from edge_runtime.sinks.open_sink import JournalPlace, open_sinks
from edge_runtime.sinks.sink import Existing, Sink
from tests.apparatus.descriptors import beyond_1024
from tests.apparatus.mosquitto import Broker, Listener

TOPIC = "plant/pump"
ROOMY = 10_000_000


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.signal(signal.SIGCONT)
    broker.kill()


@pytest.fixture
def listener(broker: Broker) -> Iterator[Listener]:
    listener = Listener(broker.port)
    yield listener
    listener.stop()


def sink_to(target: str, log: Log, journal: Path | None = None) -> Sink:
    place = None if journal is None else JournalPlace(journal, ROOMY)
    return open_sinks([target], Existing.REFUSED, log, True, place)


def indices(payloads: list[bytes]) -> list[int]:
    return [json.loads(payload)["index"] for payload in payloads]


def write(sink: Sink, *records: Record) -> None:
    for item in records:
        sink.write(item)


def write_through(sink: Sink, journal: Path, first: int, end: int) -> None:
    """Records `first` to `end`, no faster than the journal takes them, as a machine gives them."""
    for start in range(first, end, 2000):
        stop = min(start + 2000, end)
        write(sink, *map(record, range(start, stop)))
        last, limit = f'"index":{stop - 1},'.encode(), time.monotonic() + 60
        while not any(last in file.read_bytes() for file in journal.iterdir() if file.is_file()):
            assert time.monotonic() < limit, f"record {stop - 1} never comes to the disk"
            time.sleep(0.01)


def test_every_record_is_delivered_in_order_with_its_run(
    broker: Broker, listener: Listener
) -> None:
    log = Log()
    for _ in range(2):
        sink = sink_to(broker.address("plant/pump?what=all"), log)
        write(sink, *map(record, range(500)))
        sink.close()
        assert sink.dropped == 0
    listener.wait_for(lambda: len(listener.messages) >= 1004)
    records = [json.loads(payload) for payload in listener.on(TOPIC)]
    assert [item["index"] for item in records] == [*range(500), *range(500)]
    assert len({item["run"] for item in records}) == 2
    expected = json.loads(record(7).to_json())
    assert records[7] == {"run": records[0]["run"], **expected}
    assert list(records[7]) == ["run", *expected]
    assert log.lines == [f"{broker.address()}: connected"] * 2


def test_by_default_only_alarms_are_sent_and_the_last_message_is_kept(
    broker: Broker, listener: Listener
) -> None:
    sink = sink_to(broker.address(), Log())
    alarm, fallback = {"alarm": True}, {"tier": 3, "valid": False}
    changes = {3: {}, 20: alarm, 25: {}, 40: fallback, 44: fallback | alarm, 50: {}}
    state: dict[str, object] = {}
    for index in range(100):
        state = changes.get(index, state)
        sink.write(replace(record(index), **state))
    sink.close()
    listener.wait_for(lambda: len(listener.messages) >= 5)
    # The alarm of 20 may come back, and has at 44; it is over after a pause of 40 records. The
    # changes of tier at 40, 44 and 50 are no alarms.
    assert indices(listener.on(TOPIC)) == [0, 20, 90]
    assert sink.dropped == 0
    late = Listener(broker.port)
    late.wait_for(lambda: len(late.messages) >= 2)
    kept = {topic: payload for topic, payload, retained in late.messages if retained}
    assert indices([kept[TOPIC]]) == [90] and kept[f"{TOPIC}/status"] == b"offline"
    late.stop()


def test_the_status_says_whether_it_is_there(broker: Broker, listener: Listener) -> None:
    sink = sink_to(broker.address(), Log())
    listener.wait_for(lambda: b"online" in [payload for _, payload, _ in listener.messages])
    late = Listener(broker.port)
    late.wait_for(lambda: bool(late.messages))
    assert late.messages == [(f"{TOPIC}/status", b"online", True)]
    late.stop()
    sink.close()
    listener.wait_for(lambda: len(listener.messages) >= 2)
    assert listener.on(f"{TOPIC}/status") == [b"online", b"offline"]


def test_with_a_journal_a_broker_that_was_away_misses_nothing(tmp_path: Path) -> None:
    log = Log()
    broker = Broker(
        tmp_path, f"allow_anonymous true\npersistence true\npersistence_location {tmp_path}/\n"
    )
    listener = Listener(broker.port, session="listener")
    sink = sink_to(broker.address("plant/pump?what=all"), log, tmp_path / "journal")
    write(sink, *map(record, range(300)))
    listener.wait_for(lambda: len(listener.messages) >= 100)
    broker.stop()
    log.wait_for("the connection broke; records wait")
    write_through(sink, tmp_path / "journal", 300, 11_500)  # more than fit into memory
    log.wait_for("no connection (Connection refused); records wait")
    broker.start()
    write(sink, *map(record, range(11_500, 11_600)))
    listener.wait_for(lambda: b'"index":11599,' in listener.messages[-1][1])
    sink.close()
    assert sink.dropped == 0
    found = indices(listener.on(TOPIC))
    assert list(dict.fromkeys(found)) == list(range(11_600))  # in order, but for what came twice
    listener.stop()
    broker.kill()


def test_a_run_sends_what_the_run_before_could_not(tmp_path: Path) -> None:
    broker, log = Broker(tmp_path), Log()
    broker.kill()
    target, journal = broker.address("plant/pump?what=all"), tmp_path / "journal"
    sink = sink_to(target, log, journal)
    write(sink, *map(record, range(20)))
    sink.close()
    assert sink.dropped == 0
    log.wait_for("the last 20 records wait in the journal")
    broker.start()
    listener = Listener(broker.port)
    sink = sink_to(target, log, journal)
    listener.wait_for(lambda: len(listener.messages) >= 21)
    sink.close()
    assert indices(listener.on(TOPIC)) == list(range(20))
    sink = sink_to(target, log, journal)
    sink.write(record(77))
    sink.close()
    listener.wait_for(lambda: len(listener.on(TOPIC)) >= 21)
    assert indices(listener.on(TOPIC)) == [*range(20), 77]
    listener.stop()
    broker.kill()


def test_an_entry_of_another_program_stops_delivery_in_no_run(
    broker: Broker, listener: Listener, tmp_path: Path
) -> None:
    """One intact but foreign entry, and every later run used to deliver nothing, exit code 0."""
    log, journal, target = Log(), tmp_path / "journal", broker.address("plant/pump")
    sink = sink_to(target, log, journal)
    listener.wait_for(lambda: bool(listener.messages))
    write(sink, record(0))
    listener.wait_for(lambda: len(listener.on(TOPIC)) == 1)
    sink.close()
    foreign = Segments(JournalDisk(journal), ROOMY)
    foreign.append(Entry(foreign.newest + 1, b'{"somebody":"else"}'))
    foreign.close()
    for index in (1, 2):
        sink = sink_to(target, log, journal)
        write(sink, record(index))
        listener.wait_for(lambda index=index: len(listener.on(TOPIC)) == index + 1)
        sink.close()
        assert sink.skipped == (index == 1) and sink.dropped == 0
    assert indices(listener.on(TOPIC)) == [0, 1, 2]
    assert sum("is skipped" in line for line in log.lines) == 1


def test_a_broker_that_talks_nonsense_is_left_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What made paho's own thread end, and with it all delivery: a packet that is malformed."""
    monkeypatch.setattr("edge_runtime.sinks.mqtt._SHORTEST_PAUSE", 0.01)
    log = Log()
    nonsense = [b"\x20\x02\x00", b"\x30\x03\xff\xff\xff", b"\xf0\xff\xff\xff\xff\xff", b"\x40\x00"]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        sink = sink_to(f"mqtt://127.0.0.1:{port}/{TOPIC}", log)
        sink.write(record(0))
        for answer in nonsense:
            connection, _ = listening.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"\x20\x02\x00\x00" + answer)
    broker = Broker(tmp_path, port=port)
    listener = Listener(port)
    listener.wait_for(lambda: len(listener.on(TOPIC)) == 1)
    connection_thread = sink.threads[-1]
    assert connection_thread.alive and connection_thread.restarts == 0
    sink.close()
    listener.stop()
    broker.kill()


def test_a_broker_that_hangs_up_before_it_answers_is_told_of() -> None:
    log = Log()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"mqtt://127.0.0.1:{listening.getsockname()[1]}/{TOPIC}"
        sink = sink_to(address, log)
        listening.accept()[0].close()
        log.wait_for(f"{address}: the connection ended before the broker let us in; records wait")
    sink.close()


def test_a_broker_beyond_1024_descriptors_gets_every_record(
    broker: Broker, listener: Listener
) -> None:
    """With select it lost them all, and no line said so."""
    log = Log()
    with beyond_1024():
        sink = sink_to(broker.address("plant/pump?what=all"), log)
        write(sink, *map(record, range(20)))
        listener.wait_for(lambda: len(listener.on(TOPIC)) == 20)
        sink.close()
    assert indices(listener.on(TOPIC)) == list(range(20)) and sink.dropped == 0
    assert log.lines == [f"{broker.address()}: connected"]


def test_a_message_does_not_wait_for_the_connection_to_look_round(
    broker: Broker, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.sinks.mqtt._LISTENING", 1000.0)
    monkeypatch.setattr("edge_runtime.sinks.mqtt._KEEPALIVE", 3600)  # or the broker would wake it
    carrier, changed = Mqtt(parse_mqtt_address(broker.address()), Log()), threading.Event()

    def until(happened: Callable[[], bool]) -> None:
        while not happened():
            assert changed.wait(60.0)
            changed.clear()

    carrier.start(changed.set)
    until(lambda: carrier.room() > 0)
    for number in range(20):
        carrier.send(b"%d" % number, number)
        until(lambda: carrier.oldest() is None)
    carrier.stop()
    listener.wait_for(lambda: listener.on(f"{TOPIC}/status") == [b"online", b"offline"])
    assert listener.on(TOPIC) == [b"%d" % number for number in range(20)]


def test_a_message_of_200_kilobytes_to_the_sink_costs_neither_connection_nor_records() -> None:
    def until(connection: socket.socket, words: bytes) -> None:
        heard = b""
        while words not in heard:
            heard += connection.recv(4096)

    log = Log()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sink = sink_to(f"mqtt://127.0.0.1:{listening.getsockname()[1]}/{TOPIC}", log)
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"\x20\x02\x00\x00" + b"\x30\x80\x80\x0d" + bytes(13 << 14))
            sink.write(record(0))
            until(connection, b'"index":0,')
            confirmed = b"".join(b"\x40\x02\x00" + bytes([number]) for number in (1, 2))
            connection.sendall(confirmed)
            sink.close()
    assert sink.dropped == 0
    assert [line.rpartition(": ")[2] for line in log.lines] == ["connected"]


@pytest.mark.long
def test_without_a_journal_drops_are_counted_and_told_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.sinks.outbox.FAREWELL", 60.0)  # on a busy machine, too
    broker, log = Broker(tmp_path), Log()
    broker.kill()
    sink = sink_to(broker.address("plant/pump?what=all"), log)
    write(sink, *map(record, range(LENGTH + 70)))
    log.wait_for("no connection")
    broker.start()
    log.wait_for("back; 70 records were dropped")
    sink.close()
    assert sink.dropped == 70
    broker.kill()


def test_what_no_broker_took_at_the_end_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.sinks.outbox.FAREWELL", 0.1)
    broker = Broker(tmp_path)
    broker.kill()
    sink = sink_to(broker.address("plant/pump?what=all"), Log())
    write(sink, *map(record, range(12)))
    sink.close()
    assert sink.dropped == 12


@pytest.mark.long
def test_a_broker_that_stands_still_holds_up_nothing(
    broker: Broker, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_to(broker.address("plant/pump?what=all"), Log())
    sink.write(record(0))
    listener.wait_for(lambda: len(listener.on(TOPIC)) == 1)
    broker.signal(signal.SIGSTOP)
    write(sink, *map(record, range(1, 3000)))  # would hang here, if it waited
    broker.signal(signal.SIGCONT)
    listener.wait_for(lambda: len(listener.on(TOPIC)) == 3000)
    assert indices(listener.on(TOPIC)) == list(range(3000))
    broker.signal(signal.SIGSTOP)
    monkeypatch.setattr("edge_runtime.sinks.outbox.FAREWELL", 0.1)
    write(sink, *map(record, range(3000, 3010)))
    sink.close()
    assert sink.dropped == 10


LOCKED = "allow_anonymous false\npassword_file {}\n"


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Broker]:
    """A broker that lets in pump with the password secret."""
    passwords = tmp_path / "passwords"
    tool = "mosquitto_passwd"
    subprocess.run([tool, "-b", "-c", passwords, "pump", "secret"], check=True)
    passwords.chmod(0o600)
    broker = Broker(tmp_path, LOCKED.format(passwords))
    yield broker
    broker.kill()


def test_a_wrong_password_is_told_in_one_line_and_never_shown(
    locked: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.sinks.outbox.FAREWELL", 0.1)
    monkeypatch.setenv("GRUARD_MQTT_USER", "pump")
    monkeypatch.setenv("GRUARD_MQTT_PASSWORD", "guess")
    log = Log()
    sink = sink_to(locked.address(), log)
    log.wait_for("the broker does not take the user name or password; set GRUARD_MQTT_USER")
    sink.write(record(0))
    sink.close()
    assert sink.dropped == 1
    assert len(log.lines) == 1 and "guess" not in log.lines[0]


@pytest.mark.parametrize("how", ["environment", "file"])
def test_the_right_password_lets_in(
    locked: Broker, how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    login = tmp_path / "login"
    if how == "file":
        login.write_text("pump:secret\n")
        login.chmod(0o600)
    else:
        monkeypatch.setenv("GRUARD_MQTT_USER", "pump")
        monkeypatch.setenv("GRUARD_MQTT_PASSWORD", "secret")
    rest = f"plant/pump?password-file={login}" if how == "file" else "plant/pump"
    listener = Listener(locked.port, ("pump", "secret"))
    sink = sink_to(locked.address(rest), Log())
    sink.write(record(5))
    sink.close()
    listener.wait_for(lambda: len(listener.messages) >= 3)
    assert indices(listener.on(TOPIC)) == [5] and sink.dropped == 0
    listener.stop()


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def test_tls_with_a_certificate_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
        "-keyout", key, "-out", certificate,
    )  # fmt: skip
    broker = Broker(tmp_path, f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}\n")
    trusting, doubting = Log(), Log()
    sink = sink_to(broker.address(f"plant/pump?ca={certificate}", "mqtts"), trusting)
    sink.write(record(0))
    trusting.wait_for("connected")
    sink.close()
    assert sink.dropped == 0
    monkeypatch.setattr("edge_runtime.sinks.outbox.FAREWELL", 0.1)
    sink = sink_to(broker.address("plant/pump", "mqtts"), doubting)
    doubting.wait_for("the broker's certificate is not trusted (self-signed certificate); name")
    sink.close()
    broker.kill()
