"""A carrier to an MQTT broker, which confirms each message (QoS 1); needs paho-mqtt."""

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

from edge_runtime.address import (
    MqttAddress,
    result_topic,
    set_topic,
    status_topic,
    why_refused,
    why_unreachable,
)
from edge_runtime.errors import LimitedLog
from edge_runtime.threads import MonitoredThread

if TYPE_CHECKING:
    from paho.mqtt.client import (
        Client,
        ConnectFlags,
        DisconnectFlags,
        MQTTMessage,
        MQTTMessageInfo,
    )
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from edge_runtime.mqtt import BoundedClient
    from edge_runtime.sinks.control import OwnerRequests

WINDOW = 50
"""Unconfirmed messages at a time: 250 a second with a round trip of 0.2 s."""
_KEEPALIVE = 20  # seconds; a silent connection is closed after some 30
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between attempts to connect; they double
_LISTENING = 1.0  # seconds of one wait for the broker
_LEAVE = 1.0  # seconds to say offline and disconnect
_TROUBLES = ("refused", "unreachable", "lost")  # topics of the log


class Mqtt:
    """A `Transport` (see outbox.py) to one topic.

    TOPIC/status (retained) is `online` while there is a connection, else `offline`; the broker
    publishes that when the connection breaks.
    control: obeys the messages of TOPIC/set, and its answers are published to TOPIC/set/result;
    None subscribes to nothing. retain: whether the broker keeps the last message for those who
    subscribe later. Raises GruardError when paho-mqtt is missing.
    """

    def __init__(
        self,
        address: MqttAddress,
        log: Callable[[str], None],
        control: OwnerRequests | None = None,
        retain: bool = False,
    ) -> None:
        self._address, self._first_log, self._retain = address, log, retain
        self._log = LimitedLog(log, time.monotonic)
        self._lock = threading.Lock()  # never held while paho is called: its callbacks take it
        self._under_way: dict[int, int] = {}  # message numbers by paho's ids
        self._early: set[int] = set()  # confirmed before `send` knew paho's id
        self._unnumbered: set[int] = set()  # paho's ids of messages that are no records
        self._resent: set[int] = set()  # under way when the connection broke
        self._connected, self._left = threading.Event(), threading.Event()
        self._stopping = threading.Event()
        self._met = False  # was connected before
        self._refused = False  # the broker said why it refuses this connection
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._wake: Callable[[], None] = lambda: None
        self._control = control
        self._client = self._new_client()
        self._thread = MonitoredThread(f"{address.name}, connection", self._serve)
        self.threads = (self._thread, *([control.thread] if control else []))

    def start(self, wake: Callable[[], None]) -> None:
        """Start the thread that connects, and connects again after a loss."""
        self._wake = wake
        self._client.connect_async(self._address.host, self._address.port, _KEEPALIVE)
        self._thread.start()
        if self._control:
            self._control.start(self._wake_thread)

    def room(self) -> int:
        """See `Transport`; 0 until all of an earlier connection is confirmed, to keep the order."""
        with self._lock:
            if not self._connected.is_set() or self._resent:
                return 0
            return WINDOW - len(self._under_way)

    def send(self, message: bytes, sequence: int) -> None:
        """Publish one message."""
        number = self._client.publish(self._address.topic, message, qos=1, retain=self._retain).mid
        self._wake_thread()
        with self._lock:
            if number in self._early:
                self._early.remove(number)
            else:
                self._under_way[number] = sequence

    def oldest(self) -> int | None:
        """See `Transport`."""
        with self._lock:
            return min(self._under_way.values(), default=None)

    def stop(self) -> None:
        """Publish offline and disconnect, without waiting for a silent broker."""
        if self._control:
            self._control.close()
        if self._connected.is_set():
            farewell = self._say("offline")
            self._wake_thread()
            with suppress(RuntimeError, ValueError):
                farewell.wait_for_publish(_LEAVE)
        self._client.disconnect()
        self._wake_thread()
        if self._connected.is_set():
            self._left.wait(_LEAVE)
        self._stopping.set()
        self._wake_thread()
        if self._thread.join(_LEAVE):
            self._waker.close()
            self._woken.close()

    def _wake_thread(self) -> None:
        """Wake the thread, which writes what there is."""
        with suppress(OSError):  # the thread is awake or has ended
            self._waker.send(b"\0")

    def _serve(self) -> None:
        """Serve connections. paho's own thread would die unseen from a malformed packet."""
        pause = _SHORTEST_PAUSE
        while not self._stopping.is_set():
            self._thread.beat()
            if self._served_once():
                pause = _SHORTEST_PAUSE
            self._stopping.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _served_once(self) -> bool:
        """Serve one connection until it ends; return whether the broker accepted it."""
        self._left.clear()
        self._refused = False
        try:
            self._client.reconnect()
        except (OSError, ValueError) as error:
            self._log_trouble("unreachable", why_unreachable(error))
            return False
        accepted = False
        try:
            while not self._stopping.is_set() and self._client.turn(_LISTENING, self._woken) == 0:
                self._thread.beat()
                self._publish_answers()
                accepted = accepted or self._connected.is_set()
        except Exception:  # paho raises anything for a malformed packet
            self._log_trouble("lost", "the broker sent something that is no MQTT")
        finally:
            self._connected.clear()
        return accepted

    def _new_client(self) -> BoundedClient:
        from edge_runtime.mqtt import BoundedClient

        control, identity = self._control, _client_id(self._address.topic)
        if control:
            client = BoundedClient(self._address, identity, lambda: control.put(None))
            client.on_message, client.on_subscribe = self._on_message, self._on_subscribe
        else:
            client = BoundedClient(self._address, identity)
        client.max_inflight_messages_set(2 * WINDOW)  # `room` limits them, so none waits in paho
        client.will_set(status_topic(self._address.topic), "offline", qos=1, retain=True)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish = self._on_publish
        # With this callback paho leaves writing to our thread; else `publish` writes from any.
        client.on_socket_register_write = lambda client, data, connection: None
        return client

    def _say(self, status: str) -> MQTTMessageInfo:
        return self._client.publish(status_topic(self._address.topic), status, qos=1, retain=True)

    def _publish_answers(self) -> None:
        """Publish the answers of `control`; called in our thread, before paho confirms them."""
        while self._control and (answer := self._control.answer()) is not None:
            number = self._client.publish(result_topic(self._address.topic), answer, qos=1).mid
            with self._lock:
                self._unnumbered.add(number)

    def _log_trouble(self, trouble: str, reason: str) -> None:
        self._log.trouble(trouble, f"{self._address.name}: {reason}; records wait")

    # Callbacks of paho, in our thread.

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
            self._log_trouble("refused", why_refused(str(reason)))
            return
        if self._control:
            client.subscribe(set_topic(self._address.topic), qos=1)
        greeting = self._say("online").mid
        with self._lock:
            self._unnumbered.add(greeting)
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
            self._log_trouble("lost", f"the connection {when}")

    def _on_subscribe(
        self,
        client: Client,
        data: object,
        number: int,
        reasons: list[ReasonCode],
        more: Properties | None,
    ) -> None:
        if reasons[0].is_failure:
            topic = set_topic(self._address.topic)
            sentence = f"{self._address.name}: the broker refuses {topic} ({reasons[0]})"
            self._log.trouble("control", f"{sentence}; allow this user to read it")

    def _on_message(self, client: Client, data: object, message: MQTTMessage) -> None:
        if self._control and not message.retain:  # a retained one would be obeyed at every start
            self._control.put(bytes(message.payload))

    def _on_publish(
        self, client: Client, data: object, number: int, reason: ReasonCode, more: Properties
    ) -> None:
        with self._lock:
            self._resent.discard(number)
            if number in self._unnumbered:
                self._unnumbered.remove(number)
            elif self._under_way.pop(number, None) is None:
                self._early.add(number)
        self._wake()


def _client_id(topic: str) -> str:
    """Return an id that is the same after every start on this machine.

    So a broker that still holds a dead connection closes it, and publishes offline, before the new
    connection publishes online.
    """
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii")
    except (OSError, UnicodeError):
        machine = platform.node()
    return "gruard-" + hashlib.sha256(f"{machine}\n{topic}".encode()).hexdigest()[:16]
