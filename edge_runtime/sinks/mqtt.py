"""Messages to an MQTT broker, each confirmed by it (QoS 1); needs the package paho-mqtt."""

from __future__ import annotations

import hashlib
import platform
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.errors import GruardError
from edge_runtime.mqtt_address import MISSING, MqttAddress, why_refused, why_unreachable

if TYPE_CHECKING:
    from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessageInfo
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

WINDOW = 50
"""Messages under way at a time: at 0.2 s to the broker and back, 250 a second."""
_KEEPALIVE = 20  # seconds; a silent connection is given up after some 30
_LONGEST_PAUSE = 30  # seconds between attempts to connect
_LEAVE = 1.0  # seconds for taking leave


class Mqtt:
    """A Carrier (see posting.py) to one topic.

    TOPIC/status says online while there is a connection and offline when there is none, retained;
    the broker itself says so when the connection breaks.
    Raises GruardError when paho-mqtt is missing.
    """

    def __init__(self, address: MqttAddress, log: Callable[[str], None]) -> None:
        self._address, self._log = address, log
        self._lock = threading.Lock()  # never held while paho is called: its callbacks take it
        self._under_way: dict[int, int] = {}  # numbers of messages by paho's numbers
        self._early: set[int] = set()  # confirmed before `send` knew paho's number
        self._greetings: set[int] = set()
        self._resent: set[int] = set()  # under way when the connection broke
        self._connected, self._left = threading.Event(), threading.Event()
        self._trouble: str | None = None
        self._wake: Callable[[], None] = lambda: None
        self._client = self._new_client()

    def start(self, wake: Callable[[], None]) -> None:
        """Connect in a thread of paho's, again and again."""
        self._wake = wake
        self._client.connect_async(self._address.host, self._address.port, _KEEPALIVE)
        self._client.loop_start()

    def room(self) -> int:
        """None before all from an earlier connection is confirmed, or the order would be lost."""
        with self._lock:
            if not self._connected.is_set() or self._resent:
                return 0
            return WINDOW - len(self._under_way)

    def send(self, message: bytes, sequence: int) -> None:
        """Publish one message."""
        number = self._client.publish(self._address.topic, message, qos=1).mid
        with self._lock:
            if number in self._early:
                self._early.remove(number)
            else:
                self._under_way[number] = sequence

    def oldest(self) -> int | None:
        """The number of the first message that the broker did not confirm."""
        with self._lock:
            return min(self._under_way.values(), default=None)

    def stop(self) -> None:
        """Say offline and disconnect; a broker that does not answer is left alone."""
        if self._connected.is_set():
            said = self._say("offline")
            with suppress(RuntimeError, ValueError):
                said.wait_for_publish(_LEAVE)
        self._client.disconnect()
        if self._connected.is_set():
            self._left.wait(_LEAVE)

    def _new_client(self) -> Client:
        try:
            from paho.mqtt.enums import CallbackAPIVersion

            from edge_runtime.mqtt_client import BoundedClient
        except ImportError:
            raise GruardError(MISSING) from None
        client = BoundedClient(CallbackAPIVersion.VERSION2, _client_id(self._address.topic))
        if self._address.tls is not None:
            client.tls_set_context(self._address.tls)
        if self._address.login is not None:
            client.username_pw_set(*self._address.login)
        client.max_inflight_messages_set(2 * WINDOW)  # the window is kept here; none waits in paho
        client.reconnect_delay_set(1, _LONGEST_PAUSE)
        client.will_set(f"{self._address.topic}/status", "offline", qos=1, retain=True)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_connect_fail, client.on_publish = self._on_connect_fail, self._on_publish
        return client

    def _say(self, status: str) -> MQTTMessageInfo:
        return self._client.publish(f"{self._address.topic}/status", status, qos=1, retain=True)

    def _tell(self, trouble: str | None, text: str) -> None:
        """Log `text`, once for as long as the trouble lasts."""
        if trouble != self._trouble:
            self._log(f"{self._address.name}: {text}")
        self._trouble = trouble

    # What paho calls, in its own thread.

    def _on_connect(
        self,
        client: Client,
        data: object,
        flags: ConnectFlags,
        reason: ReasonCode,
        more: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._tell(str(reason), f"{why_refused(str(reason))}; records wait")
            return
        greeting = self._say("online").mid
        with self._lock:
            self._greetings.add(greeting)
            self._resent = set(self._under_way)
            self._connected.set()
        self._tell("none", "connected")
        self._wake()

    def _on_connect_fail(self, client: Client, data: object) -> None:
        reason = why_unreachable(sys.exc_info()[1])
        self._tell(reason, f"{reason}; records wait")

    def _on_disconnect(
        self,
        client: Client,
        data: object,
        flags: DisconnectFlags,
        reason: ReasonCode,
        more: Properties | None,
    ) -> None:
        was_connected = self._connected.is_set()
        self._connected.clear()
        self._left.set()
        if was_connected and reason.is_failure:
            self._tell("lost", "the connection broke; records wait")

    def _on_publish(
        self, client: Client, data: object, number: int, reason: ReasonCode, more: Properties
    ) -> None:
        with self._lock:
            self._resent.discard(number)
            if number in self._greetings:
                self._greetings.remove(number)
            elif self._under_way.pop(number, None) is None:
                self._early.add(number)
        self._wake()


def _client_id(topic: str) -> str:
    """The same after every start on this machine, so that a broker that still holds a dead
    connection closes it, and says offline, before the new one says online.
    """
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii")
    except (OSError, UnicodeError):
        machine = platform.node()
    return "gruard-" + hashlib.sha256(f"{machine}\n{topic}".encode()).hexdigest()[:16]
