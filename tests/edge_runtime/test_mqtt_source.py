"""MQTT with a real broker: samples, outages, credentials, TLS; and messages of all kinds."""

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_run import LiveRun, is_alarm, is_answer, is_gap, live_run

from edge_runtime.errors import GruardError
from edge_runtime.mqtt_address import MqttAddress, parse_mqtt_address
from edge_runtime.sources import mqtt
from edge_runtime.sources.complaints import Complaints
from edge_runtime.sources.mqtt import JsonSamples, TopicSamples
from edge_runtime.sources.open_source import open_source
from edge_runtime.sources.polled import Polled
from edge_runtime.sources.source import SourceLostError
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
        ("mqtt:h/t", "no broker is named; write mqtt://HOST/TOPIC"),
        ("mqtt://h:99999/t", "no broker is named"),
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
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(GruardError, match=r"pip install 'gruard\[mqtt\]'"):
        open_source("mqtt://h/t", ("a", "b"), 1.0, Complaints())


def test_a_broker_that_never_answers_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "_ANSWER", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = settings(f"mqtt://127.0.0.1:{server.getsockname()[1]}/t")
        with pytest.raises(SourceLostError, match="does not answer"):
            mqtt.Messages(broker)


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
        found.append(reading.values.tolist() if reading else None)
    np.testing.assert_array_equal(found, [[3, 2], [3, 2], [3, 2], [3, np.nan], [3, np.nan]])
    silence = [source.read(None) for _ in range(3)]
    assert [bool(reading) for reading in silence] == [True, False, False]
    messages.waiting += [("t/a", b"on"), ("t/b", b"")]
    reading = source.read(None)
    assert reading and np.isnan(reading.values).all() and complaints.cells == 1
