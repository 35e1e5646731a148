"""Messages to an MQTT broker, each confirmed by it (QoS 1); needs the package paho-mqtt."""

from __future__ import annotations

import hashlib
import platform
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.address import MISSING, MqttAddress, status_topic, why_refused, why_unreachable
from edge_runtime.errors import GruardError, LimitedLog
from edge_runtime.threads import WatchedThread

if TYPE_CHECKING:
    from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessageInfo
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from edge_runtime.mqtt import BoundedClient

WINDOW = 50
"""Messages under way at a time: at 0.2 s to the broker and back, 250 a second."""
_KEEPALIVE = 20  # seconds; a silent connection is given up after some 30
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between attempts to connect; they double
_LISTENING = 1.0  # seconds at once
_LEAVE = 1.0  # seconds for taking leave
_TROUBLES = ("refused", "unreachable", "lost")  # topics of the log


class Mqtt:
    """A Carrier (see outbox.py) to one topic.

    TOPIC/status says online while there is a connection and offline when there is none, retained;
    the broker itself says so when the connection breaks.
    Raises GruardError when paho-mqtt is missing.
    """

    def __init__(self, address: MqttAddress, log: Callable[[str], None]) -> None:
        self._address, self._first_log = address, log
        self._log = LimitedLog(log, time.monotonic)
        self._lock = threading.Lock()  # never held while paho is called: its callbacks take it
        self._under_way: dict[int, int] = {}  # numbers of messages by paho's numbers
        self._early: set[int] = set()  # confirmed before `send` knew paho's number
        self._greetings: set[int] = set()
        self._resent: set[int] = set()  # under way when the connection broke
        self._connected, self._left = threading.Event(), threading.Event()
        self._stopping = threading.Event()
        self._met = False  # whether there was a connection before
        self._refused = False  # whether the broker said why it ends this connection
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._wake: Callable[[], None] = lambda: None
        self._client = self._new_client()
        self.thread = WatchedThread(f"{address.name}, connection", self._serve)

    def start(self, wake: Callable[[], None]) -> None:
        """Connect in a thread of its own, again and again."""
        self._wake = wake
        self._client.connect_async(self._address.host, self._address.port, _KEEPALIVE)
        self.thread.start()

    def room(self) -> int:
        """None before all from an earlier connection is confirmed, or the order would be lost."""
        with self._lock:
            if not self._connected.is_set() or self._resent:
                return 0
            return WINDOW - len(self._under_way)

    def send(self, message: bytes, sequence: int) -> None:
        """Publish one message."""
        number = self._client.publish(self._address.topic, message, qos=1).mid
        self._go_on()
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
            self._go_on()
            with suppress(RuntimeError, ValueError):
                said.wait_for_publish(_LEAVE)
        self._client.disconnect()
        self._go_on()
        if self._connected.is_set():
            self._left.wait(_LEAVE)
        self._stopping.set()
        self._go_on()
        if self.thread.join(_LEAVE):
            self._waker.close()
            self._woken.close()

    def _go_on(self) -> None:
        """Let our thread see at once what there is to write."""
        with suppress(OSError):  # it is awake already, or has ended
            self._waker.send(b"\0")

    def _serve(self) -> None:
        """What paho's own thread does, but that one dies unseen of a packet that is malformed."""
        pause = _SHORTEST_PAUSE
        while not self._stopping.is_set():
            self.thread.beat()
            if self._served_once():
                pause = _SHORTEST_PAUSE
            self._stopping.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _served_once(self) -> bool:
        """Connect, and stay as long as the broker does; whether it let us in."""
        self._left.clear()
        self._refused = False
        try:
            self._client.reconnect()
        except (OSError, ValueError) as error:
            self._tell("unreachable", why_unreachable(error))
            return False
        let_in = False
        try:
            while not self._stopping.is_set() and self._client.turn(_LISTENING, self._woken) == 0:
                self.thread.beat()
                let_in = let_in or self._connected.is_set()
        except Exception:  # paho raises whatever a malformed packet makes it stumble over
            self._tell("lost", "the broker sent something that is no MQTT")
        finally:
            self._connected.clear()
        return let_in

    def _new_client(self) -> BoundedClient:
        try:
            from paho.mqtt.enums import CallbackAPIVersion

            from edge_runtime.mqtt import BoundedClient
        except ImportError:
            raise GruardError(MISSING) from None
        client = BoundedClient(CallbackAPIVersion.VERSION2, _client_id(self._address.topic))
        if self._address.tls is not None:
            client.tls_set_context(self._address.tls)
        if self._address.login is not None:
            client.username_pw_set(*self._address.login)
        client.max_inflight_messages_set(2 * WINDOW)  # the window is kept here; none waits in paho
        client.will_set(status_topic(self._address.topic), "offline", qos=1, retain=True)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish = self._on_publish
        # With it paho leaves all writing to our thread; without, `publish` writes from any.
        client.on_socket_register_write = lambda client, data, connection: None
        return client

    def _say(self, status: str) -> MQTTMessageInfo:
        return self._client.publish(status_topic(self._address.topic), status, qos=1, retain=True)

    def _tell(self, trouble: str, reason: str) -> None:
        self._log.trouble(trouble, f"{self._address.name}: {reason}; records wait")

    # What paho calls, in our thread.

    def _on_connect(
        self,
        client: Client,
        data: object,
        flags: ConnectFlags,
        reason: ReasonCode,
        more: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._refused = True
            self._tell("refused", why_refused(str(reason)))
            return
        greeting = self._say("online").mid
        with self._lock:
            self._greetings.add(greeting)
            self._resent = set(self._under_way)
            self._connected.set()
        sentence = f"{self._address.name}: connected"
        if not self._log.over(sentence, *_TROUBLES) and not self._met:
            self._first_log(sentence)
        self._met = True
        self._wake()

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
        if reason.is_failure and not self._refused:
            when = "broke" if was_connected else "ended before the broker let us in"
            self._tell("lost", f"the connection {when}")

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
