"""Records from a real broker: each arrives, also what comes while nobody listens or one dies."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_records import START, read, stream, text

pytest.importorskip("pyarrow", reason="the fleet is not tested: pip install '.[fleet]'")
pytest.importorskip("paho.mqtt", reason="MQTT is not tested: pip install '.[mqtt]'")
from edge_runtime.errors import GruardError
from fleet.ingest import listening
from fleet.ingest.listening import asset_of, listen, parse_listening
from tests.apparatus.mosquitto import Broker, password_file

ROOT = Path(__file__).resolve().parents[3]
RECORDS = stream([False] * 60)
LISTEN_AND_DIE = """
import os, signal, sys
from pathlib import Path
from edge_runtime.mqtt import BoundedClient
from fleet.ingest.listening import listen, parse_listening
BoundedClient.ack = lambda *words: os.kill(os.getpid(), signal.SIGKILL)
listen(parse_listening(sys.argv[1]), 1e6, Path(sys.argv[2]), print)
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    running = Broker(tmp_path)
    yield running
    running.kill()


def lines(out: Path) -> list[bytes]:
    return [line for file in sorted(out.rglob("mqtt-*.jsonl"))
            for line in file.read_bytes().splitlines()]  # fmt: skip


def receive(broker: Broker, topic: str, out: Path, count: int, say=lambda line: None):
    """Listen until the inbox has `count` lines."""
    address = parse_listening(broker.address(topic))
    return listen(address, 1.0, out, say, lambda: 2.0 * (len(lines(out)) >= count))


def subscribe(broker: Broker, topic: str, out: Path) -> None:
    """Begin a session, which the broker keeps: listen until one message has come."""
    seen: list[str] = []

    def say(sentence: str) -> None:
        seen.append(sentence)

    class Clock:
        def __call__(self) -> float:
            if not lines(out):
                broker.publish(topic.replace("/#", "/first"), text(RECORDS[:1], "first"))
            return 2.0 * bool(lines(out))

    listen(parse_listening(broker.address(topic)), 1.0, out, say, Clock())


def test_records_of_each_topic_are_those_of_an_asset(broker: Broker, tmp_path: Path) -> None:
    out = tmp_path / "said"
    subscribe(broker, "plant/#", out)
    sent = text(RECORDS, "8c1f0a6be2d4").splitlines()
    for number, line in enumerate(sent):
        broker.publish(f"plant/hall/pump-{number % 2}", line, qos=1)
    broker.publish("plant/hall/pump-0/status", "online", qos=1)
    broker.publish("plant/hall/pump-0/set/result", '{"ok":true}', qos=1)
    broker.publish("plant/a b", sent[0], qos=1)
    before = len(lines(out))
    got = receive(broker, "plant/#", out, before + len(sent))
    assert got.messages >= len(sent) and got.assets >= {"hall.pump-0", "hall.pump-1"}
    for asset in (0, 1):
        kept = lines(out / "inbox" / f"hall.pump-{asset}")
        assert kept == sent[asset::2]


def test_what_a_killed_command_had_not_confirmed_comes_again(
    broker: Broker, tmp_path: Path
) -> None:
    out = tmp_path / "said"
    subscribe(broker, "plant/#", out)
    for line in text(RECORDS, "8c1f0a6be2d4").splitlines():
        broker.publish("plant/pump", line, qos=1)
    address = broker.address("plant/#")
    died = subprocess.run(
        [sys.executable, "-c", LISTEN_AND_DIE, address, str(out)], cwd=ROOT, check=False,
        capture_output=True,
    )  # fmt: skip
    assert died.returncode == -signal.SIGKILL
    folder = out / "inbox" / "pump"
    first = len(lines(folder))
    assert first > 0
    file = next(folder.glob("*.jsonl"))
    file.write_bytes(file.read_bytes() + b'{"run":"8c1f0a6be2d4","ind')  # and it died in a line
    receive(broker, "plant/#", out, len(lines(out)) - 1 + len(RECORDS))
    totals = read([file])
    assert totals.records == len(RECORDS) and totals.bad == 0
    assert totals.repeated == first, "they came twice, and count once"


def test_a_broker_that_goes_and_comes_back(broker: Broker, tmp_path: Path) -> None:
    out, said = tmp_path / "said", list[str]()
    broker.kill()

    def say(sentence: str) -> None:
        said.append(sentence)
        if "trying again" in sentence:
            broker.start()

    class Clock:
        def __call__(self) -> float:
            if said[-1:] and "connected" in said[-1]:
                broker.publish("plant/pump", text(RECORDS[:1], "8c1f0a6be2d4"), qos=1)
            return 2.0 * bool(lines(out))

    listen(parse_listening(broker.address("plant/+")), 1.0, out, say, Clock())
    assert any("Connection refused" in line for line in said)
    assert json.loads(lines(out)[0])["time"] == START


def test_what_the_broker_refuses_is_said(tmp_path: Path) -> None:
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    users = password_file(tmp_path, "pump", "secret")
    broker = Broker(tmp_path, f"allow_anonymous false\npassword_file {users}\n")
    try:
        with pytest.raises(GruardError, match="GRUARD_MQTT_USER"):
            listen(parse_listening(broker.address("plant/#")), 1e6, tmp_path / "s", print)
    finally:
        broker.kill()


def test_topics_and_their_assets() -> None:
    for subscribed, topic, asset in (
        ("plant/#", "plant/pump-1", "pump-1"), ("plant/#", "plant/a/b", "a.b"),
        ("plant/+", "plant/pump", "pump"), ("plant/pump", "plant/pump", "pump"),
        ("plant/#", "plant/../x", ""), ("plant/#", "plant/", ""), ("plant/#", "plant/a b", ""),
        ("plant/#", "plant/.hidden", ""), ("plant/#", "plant/" + "x" * 99, ""),
    ):  # fmt: skip
        assert asset_of(subscribed, topic) == asset, topic
    for bad in ("mqtt://h/#", "mqtt://h/+/x", "mqtt://h/a/#/b", "mqtt://h/", "mqtt://h"):
        with pytest.raises(GruardError):
            parse_listening(bad)


def test_a_full_disk_confirms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "inbox" / "pump" / "mqtt.jsonl"
    listening._append(file, [b"{}"])
    script = (
        "import resource, signal, sys; from pathlib import Path; from fleet.ingest import listening"
        "\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
        "\nresource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))"
        "\ntry: listening._append(Path(sys.argv[1]), [b'{\"long\": 1}'] * 9)"
        "\nexcept OSError as error: print(error.filename, error.strerror)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], cwd=ROOT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert str(file) in done.stdout and file.read_bytes() == b"{}\n", "no half a line is left"
