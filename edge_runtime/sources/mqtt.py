"""MQTT: `mqtt://host/topic`, a JSON object a message, or `mqtt://host/topic/+`, a channel a topic.

Retained messages are old, so a source leaves them out.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edge_runtime.address import MqttAddress, parse_mqtt_address, why_refused, why_unreachable
from edge_runtime.errors import Complaints
from edge_runtime.sources import csvcell
from edge_runtime.sources.decoders import JsonDecoder, nothing
from edge_runtime.sources.source import (
    Polled,
    Reading,
    Reconnecting,
    Source,
    SourceLostError,
    Threaded,
    TimeLimit,
    needed_period,
)

if TYPE_CHECKING:
    from paho.mqtt.client import Client, ConnectFlags, MQTTMessage
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from edge_runtime.mqtt import BoundedClient

FRESH_PERIODS = 2.0
"""Periods for which a channel's last value counts, so that jitter makes no gap."""
_KEEP_ALIVE = 15  # seconds of silence after which the broker is pinged
_ANSWER = 5.0  # seconds that a broker may take to accept the subscription
_MOST_WAITING = 1000  # messages read at once when a sample is due
_LISTENING = 1.0  # seconds of one wait
_LONGEST = 1 << 16  # bytes of a message; 256 channels with names and numbers need some 10,000
_TOO_LONG = f"is a message of more than {_LONGEST} bytes"
_OTHER_VERSION = "Unsupported protocol version"  # paho's words

Message = tuple[str, "bytes | None"]
"""Topic and payload; the payload is None when the message was too long."""
NextMessage = Callable[[float], "Message | None"]


class Messages:
    """One subscription; gives topic and payload of each message.

    Uses MQTT 5, or 3.1.1 if the broker does not know 5. retained: give retained messages, too.
    Raises SourceLostError when the broker cannot be reached or refuses.
    """

    def __init__(self, address: MqttAddress, retained: bool = False) -> None:
        self._topic, self._retained = address.topic, retained
        if not self._open(address, newest=True):
            self._open(address, newest=False)

    def _open(self, address: MqttAddress, newest: bool) -> bool:
        """Connect and subscribe; return False when the broker seems not to know MQTT 5."""
        self._waiting: deque[Message] = deque()
        self._refusal = ""
        self._greeted = self._subscribed = False
        self._client = _new_client(address, newest, self._on_skipped)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        connected = False
        try:
            self._connect(address, newest)
            connected = True
            self._await_subscription()
        except BaseException as error:
            self.close()
            if isinstance(error, SourceLostError) and newest and connected and not self._greeted:
                return False
            raise
        return True

    def next(self, timeout: float) -> Message | None:
        """Return the next message, None when none comes within `timeout` seconds."""
        limit = TimeLimit(timeout)
        while not self._waiting:
            self._work(limit.left() or 0.0)
            if not self._waiting and not limit.left():
                return None
        return self._waiting.popleft()

    def close(self) -> None:
        """Disconnect from the broker."""
        self._client.disconnect()
        if open_socket := self._client.socket():
            open_socket.close()
        # Break the reference cycle, so that its descriptors are closed now.
        self._client.on_connect = self._client.on_subscribe = self._client.on_message = None

    def _connect(self, address: MqttAddress, newest: bool) -> None:
        try:
            self._client.connect(
                address.host, address.port, _KEEP_ALIVE, properties=_largest() if newest else None
            )
        except (OSError, ValueError) as error:
            raise SourceLostError(why_unreachable(error)) from None

    def _await_subscription(self) -> None:
        limit = TimeLimit(_ANSWER)
        while not self._subscribed:
            if not limit.left():
                raise SourceLostError("the broker does not answer")
            self._work(limit.left() or 0.0)

    def _work(self, seconds: float) -> None:
        try:
            status = self._client.turn(min(seconds, _LISTENING))
        except Exception:  # paho raises anything for a malformed packet
            raise SourceLostError("the broker sent something that is no MQTT") from None
        if self._refusal:
            raise SourceLostError(self._refusal)
        if status != 0:
            raise SourceLostError("the connection to the broker was lost")

    def _on_connect(
        self,
        client: Client,
        _data: object,
        _flags: ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._greeted = str(reason) != _OTHER_VERSION
            self._refusal = why_refused(str(reason))
        else:
            self._greeted = True
            client.subscribe(self._topic)

    def _on_subscribe(
        self,
        _client: Client,
        _data: object,
        _id: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        self._subscribed = True
        if reasons[0].is_failure:
            self._refusal = f"the broker refuses the topic ({reasons[0]})"

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        if self._retained or not message.retain:
            self._waiting.append((message.topic, bytes(message.payload)))

    def _on_skipped(self) -> None:
        self._waiting.append(("", None))


class JsonSamples:
    """One sample per message: a JSON object of all channels, with or without a time."""

    live = True

    def __init__(
        self,
        next_message: NextMessage,
        close: Callable[[], None],
        name: str,
        channels: Sequence[str],
        complaints: Complaints,
    ) -> None:
        self._next, self.close = next_message, close
        self._name, self._complaints, self._width = name, complaints, len(channels)
        self._decoder = JsonDecoder(name, channels, complaints)

    def read(self, timeout: float | None) -> Reading | None:
        """Return the reading of the next message, all NaN if it is not a JSON object."""
        message = self._next(math.inf if timeout is None else timeout)
        if message is None:
            return None
        text = _text(message[1])
        if text is None:
            self._complaints.row(self._name, "", _TOO_LONG)
            return nothing(self._width)
        return self._decoder.decode(text)


class TopicSamples:
    """One channel per topic: the fresh last value of each makes the sample of a period."""

    def __init__(
        self,
        next_message: NextMessage,
        topic: str,
        channels: Sequence[str],
        period: float,
        complaints: Complaints,
        name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._next, self._clock, self._period = next_message, clock, period
        self._channels = {topic.removesuffix("+") + channel: channel for channel in channels}
        self._last = dict.fromkeys(channels, (-math.inf, math.nan))  # time, value
        self._name, self._complaints = name, complaints

    def collect(self, seconds: float) -> None:
        """Take the messages of `seconds`, then those that wait."""
        limit = TimeLimit(seconds, self._clock)
        waiting = _MOST_WAITING
        while waiting and (message := self._next(limit.left() or 0.0)):
            self._note(*message)
            waiting -= not limit.left()

    def measure(self) -> Reading | None:
        """Return the present sample, None when no channel has a fresh value."""
        oldest = self._clock() - FRESH_PERIODS * self._period
        fresh = [value if when >= oldest else None for when, value in self._last.values()]
        if all(value is None for value in fresh):
            return None
        values = [math.nan if value is None else value for value in fresh]
        return Reading.of(time.time(), values)

    def _note(self, topic: str, payload: bytes | None) -> None:
        channel = self._channels.get(topic)
        text = _text(payload)
        if text is None:
            self._complaints.row(self._name, topic, _TOO_LONG)
        if channel is None:
            return
        try:
            value = csvcell.number(text.strip()) if text else math.nan
        except ValueError:
            self._complaints.cell(f"{self._name}, {channel}", text or "")
            value = math.nan
        self._last[channel] = (self._clock(), value)


def open_mqtt(
    target: str, channels: Sequence[str], period: float | None, complaints: Complaints
) -> Threaded:
    """Open the samples published under the topic of an MQTT address."""
    broker = parse_mqtt_address(target, subscribing=True)
    _new_client(broker)  # raises at once when paho is missing
    pace = needed_period(period, broker.name) if broker.topic.endswith("/+") else None

    def connected() -> Source:
        messages = Messages(broker)
        if pace is None:
            return JsonSamples(messages.next, messages.close, broker.name, channels, complaints)
        samples = TopicSamples(messages.next, broker.topic, channels, pace, complaints, broker.name)
        return Polled(samples.measure, pace, messages.close, wait=samples.collect)

    return Threaded(Reconnecting(broker.name, connected, complaints), broker.name, complaints)


def _new_client(
    address: MqttAddress, newest: bool = True, on_skipped: Callable[[], None] = lambda: None
) -> BoundedClient:
    from edge_runtime.mqtt import MQTT_3, MQTT_5, BoundedClient

    protocol = MQTT_5 if newest else MQTT_3
    client = BoundedClient(
        address, on_skipped=on_skipped, protocol=protocol, reconnect_on_failure=False
    )
    client.disable_logger()  # its errors are in our log
    return client


def _largest() -> Properties:
    """Return the properties that tell an MQTT 5 broker the longest packet."""
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    from edge_runtime.mqtt import LONGEST_PACKET

    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = LONGEST_PACKET
    return properties


def _text(payload: bytes | None) -> str | None:
    """Decode a message, with replacements for bad bytes; None when it is too long."""
    if payload is None or len(payload) > _LONGEST:
        return None
    return payload.decode("utf-8", errors="replace")
