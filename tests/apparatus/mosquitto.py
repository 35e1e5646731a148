"""A real MQTT broker on a loopback port, and a listener."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Any

import paho.mqtt.publish
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

PATIENCE = 60.0  # seconds; only a failing test waits this long


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """Debian's mosquitto. options: more lines of its configuration. port: 0 is any free one."""

    def __init__(
        self, folder: Path, options: str = "allow_anonymous true\n", port: int = 0
    ) -> None:
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            raise OSError("mosquitto is missing: apt-get install mosquitto")
        self.port = port or free_port()
        self._program, self._configuration = program, folder / "mosquitto.conf"
        self._configuration.write_text(
            f"listener {self.port} 127.0.0.1\nuser root\nmax_queued_messages 0\n{options}"
        )
        self._process: subprocess.Popen[str] | None = None
        atexit.register(self.kill)  # also if the test fails
        self.start()

    def address(self, rest: str = "plant/pump", scheme: str = "mqtt") -> str:
        return f"{scheme}://127.0.0.1:{self.port}/{rest}"

    def start(self) -> None:
        process = subprocess.Popen(
            [self._program, "-c", str(self._configuration)],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, bufsize=1,
        )  # fmt: skip
        self._process, running, said = process, threading.Event(), list[str]()

        def listen() -> None:
            assert process.stderr
            for line in process.stderr:
                said.append(line)
                if line.endswith("running\n"):
                    running.set()

        threading.Thread(target=listen, daemon=True).start()
        assert running.wait(PATIENCE), f"mosquitto did not start: {said}"

    def signal(self, number: Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    def stop(self) -> None:
        """End the broker properly; it saves its sessions if its options say so."""
        self._end(SIGTERM)

    def kill(self) -> None:
        self._end(SIGKILL)

    def publish(
        self, topic: str, payload: str | bytes, retain: bool = False, **access: Any
    ) -> None:
        """Send one message. access: login and TLS arguments of paho's `single`."""
        paho.mqtt.publish.single(
            topic, payload, retain=retain, hostname="127.0.0.1", port=self.port, **access
        )

    def _end(self, number: Signals) -> None:
        if self._process:
            self._process.send_signal(number)
            self._process.wait(PATIENCE)
        self._process = None


def password_file(folder: Path, user: str, password: str) -> Path:
    """Write the broker's password file with one user."""
    path = folder / "users"
    subprocess.run(["mosquitto_passwd", "-b", "-c", path, user, password], check=True)
    path.chmod(0o600)
    return path


def own_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate for 127.0.0.1, and its key."""
    certificate, key = folder / "broker.pem", folder / "broker.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1", "-out", certificate, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


class Listener:
    """Subscribes to all topics, and again after every reconnection.

    session: name of a persistent session, for which the broker stores messages.
    """

    def __init__(self, port: int, login: tuple[str, str] | None = None, session: str = "") -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        self._changed = threading.Condition()
        self._subscriptions = 0
        self._client = Client(CallbackAPIVersion.VERSION2, session, clean_session=not session)
        if login:
            self._client.username_pw_set(*login)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = self._subscribed
        self._client.on_message = self._received
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self.wait_for_subscription(1)

    def on(self, topic: str) -> list[bytes]:
        """Return the messages on one topic so far."""
        with self._changed:
            return [payload for name, payload, _ in self.messages if name == topic]

    def wait_for(self, enough: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(enough, PATIENCE), self.messages[-5:]

    def wait_for_subscription(self, count: int) -> None:
        self.wait_for(lambda: self._subscriptions >= count)

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _subscribed(self, *_: object) -> None:
        with self._changed:
            self._subscriptions += 1
            self._changed.notify_all()

    def _received(self, client: Client, data: object, message: MQTTMessage) -> None:
        with self._changed:
            self.messages.append((message.topic, bytes(message.payload), message.retain))
            self._changed.notify_all()
