"""A real MQTT broker on a loopback port, that a test may kill and start again."""

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import paho.mqtt.publish
import pytest

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"  # where Debian has daemons


class Broker:
    """mosquitto with the lines of `settings`; `login` is for the test's own messages."""

    def __init__(self, folder: Path, settings: str = "allow_anonymous true", **login: Any) -> None:
        self.port = _free_port()
        self._login = login
        self._file = folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        self._file.write_text(f"{user}listener {self.port} 127.0.0.1\n{settings}\n")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        program = shutil.which("mosquitto", path=_PATH)
        if program is None:
            pytest.fail("no mosquitto: apt-get install mosquitto")
        self._process = subprocess.Popen(
            [program, "-c", str(self._file)], stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr
        said = []
        for line in self._process.stderr:
            said.append(line)
            if line.rstrip().endswith("running"):
                return
        pytest.fail(f"mosquitto did not start: {''.join(said)}")

    def kill(self) -> None:
        """End it without a farewell."""
        self._process.kill()
        self._process.communicate()

    def publish(self, topic: str, payload: str | bytes, retain: bool = False) -> None:
        """Send one message."""
        paho.mqtt.publish.single(
            topic, payload, retain=retain, hostname="127.0.0.1", port=self.port, **self._login
        )


def password_file(folder: Path, user: str, password: str) -> Path:
    """The broker's file of users with one in it."""
    path = folder / "users"
    subprocess.run(["mosquitto_passwd", "-b", "-c", path, user, password], check=True)
    return path


def own_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody signed but itself, and its key."""
    certificate, key = folder / "broker.pem", folder / "broker.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1", "-out", certificate, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
