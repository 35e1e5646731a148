"""Records from a broker into files of the inbox, `inbox/ASSET/mqtt-DAY.jsonl`.

A message is on the disk before the broker is told that it arrived, and the broker keeps what comes
while nobody listens, for a week and as far as its own limits allow. So a command that is killed
loses nothing, and what comes twice counts once (`fleet.ingest.runs`).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.address import MqttAddress, parse_mqtt_address, why_refused, why_unreachable
from edge_runtime.errors import GruardError, LimitedLog
from edge_runtime.files import open_regular, sync
from fleet.assets import name_problem
from fleet.ingest.batches import LONGEST_LINE
from fleet.ingest.inputs import INBOX

if TYPE_CHECKING:
    from paho.mqtt.client import ConnectFlags, MQTTMessage
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

SCHEMES = ("mqtt://", "mqtts://")
KEPT = 7 * 86400
"""Seconds for which the broker keeps messages after a command has ended."""
OTHERS = ("/status", "/set", "/set/result")
"""Endings of topics on which a sink sends or takes something other than records."""
_KEEP_ALIVE, _TURN = 15, 1.0  # seconds
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between attempts to connect; they double


@dataclass
class Received:
    """What came. messages: records, by topic of an asset. refused: of topics that name no asset."""

    messages: int = 0
    refused: int = 0
    assets: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        refused = f", {self.refused:,} on topics that name no asset" if self.refused else ""
        return f"{self.messages:,} records of {len(self.assets):,} assets received{refused}"


def parse_listening(target: str) -> MqttAddress:
    """Parse the address of records: TOPIC, or TOPIC/+ or TOPIC/# for an asset a topic.

    Raises GruardError, also when paho-mqtt is missing.
    """
    import edge_runtime.mqtt  # noqa: F401 - raises when paho is missing

    return parse_mqtt_address(target, subscribing=True, deep=True)


def asset_of(subscribed: str, topic: str) -> str:
    """Return the asset whose records come on `topic`; empty if they cannot be an asset's.

    It is what the topic has below the subscribed one, with dots between the levels.
    """
    base = subscribed.removesuffix("/#").removesuffix("/+")
    below = topic.removeprefix(f"{base}/") if topic != base else base.rpartition("/")[2]
    name = below.replace("/", ".")
    return "" if name_problem(name) else name


def listen(
    address: MqttAddress,
    seconds: float,
    out: Path,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Received:
    """Write the records that come within `seconds` into the inbox of `out`.

    clock: monotonic seconds. Connects again when the connection breaks. Raises GruardError when the
    broker refuses, and OSError when the disk does; what is not on the disk comes again with the
    next command.
    """
    listener = _Listener(address, out, LimitedLog(say, clock), clock)
    until, pause = clock() + seconds, _SHORTEST_PAUSE
    say(f"{address.name}: listening for {seconds / 60:.0f} min")
    while (left := until - clock()) > 0:
        if listener.serve(left):
            pause = _SHORTEST_PAUSE
        time.sleep(max(0.0, min(pause, until - clock())))
        pause = min(2 * pause, _LONGEST_PAUSE)
    return listener.received


class _Listener:
    """One subscription with a session that the broker keeps."""

    def __init__(
        self, address: MqttAddress, out: Path, log: LimitedLog, clock: Callable[[], float]
    ) -> None:
        from edge_runtime.mqtt import MQTT_5, BoundedClient

        self.received = Received()
        self._address, self._inbox, self._log = address, out / INBOX, log
        self._clock = clock
        self._waiting: list[MQTTMessage] = []
        self._refusal, self._greeted = "", False
        who = hashlib.sha256(f"{out.resolve()}\n{address.name}".encode()).hexdigest()[:16]
        self._client = BoundedClient(
            address, f"gruard-fleet-{who}", protocol=MQTT_5, manual_ack=True,
            reconnect_on_failure=False,
        )  # fmt: skip
        self._client.disable_logger()
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = lambda client, data, message: self._waiting.append(message)

    def serve(self, seconds: float) -> bool:
        """Listen until the connection breaks, at most `seconds`; return whether there was one."""
        self._greeted = False
        self._waiting.clear()  # not acknowledged, so these come again
        until = self._clock() + seconds
        try:
            self._client.connect(
                self._address.host, self._address.port, _KEEP_ALIVE, clean_start=False,
                properties=_session(),
            )  # fmt: skip
            while (left := until - self._clock()) > 0:
                status = self._client.turn(min(left, _TURN))
                if self._refusal:
                    raise GruardError(f"{self._address.name}: {self._refusal}")
                if status != 0:
                    raise ConnectionResetError(None, "the connection was lost")
                self._keep()
        except (OSError, ValueError) as error:
            if getattr(error, "filename", None):  # the disk, not the network
                raise
            why = f"{self._address.name}: {why_unreachable(error)}; trying again"
            self._log.trouble("network", why)
        finally:
            self._client.disconnect()
            if connection := self._client.socket():
                connection.close()
        return self._greeted

    def _keep(self) -> None:
        """Write what waits to the disk, then tell the broker that it arrived."""
        lines: dict[str, list[bytes]] = {}
        for message in self._waiting:
            if message.retain or message.topic.endswith(OTHERS):
                continue
            asset = asset_of(self._address.topic, message.topic)
            payload = bytes(message.payload).replace(b"\n", b" ")
            if not asset or len(payload) > LONGEST_LINE:
                self.received.refused += 1
                continue
            lines.setdefault(asset, []).append(payload)
        day = time.strftime("%Y-%m-%d", time.gmtime())
        for asset, payloads in lines.items():
            _append(self._inbox / asset / f"mqtt-{day}.jsonl", payloads)
            self.received.messages += len(payloads)
            self.received.assets.add(asset)
        for message in self._waiting:
            self._client.ack(message.mid, message.qos)
        self._waiting.clear()

    def _on_connect(
        self, client: Any, data: object, flags: ConnectFlags, reason: ReasonCode,
        properties: Properties | None,
    ) -> None:  # fmt: skip
        if reason.is_failure:
            self._refusal = why_refused(str(reason))
            return
        self._greeted = True
        self._log.over(f"{self._address.name}: connected", "network")
        client.subscribe(self._address.topic, qos=1)

    def _on_subscribe(
        self, client: Any, data: object, number: int, reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:  # fmt: skip
        if reasons[0].is_failure:
            self._refusal = f"the broker refuses the topic ({reasons[0]})"


def _append(file: Path, lines: list[bytes]) -> None:
    """Add whole lines to a file, durably. Raises OSError, and adds none then."""
    new = not file.parent.is_dir()
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_regular(file, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, 2 * LONGEST_LINE, max(0, size - 2 * LONGEST_LINE))
        size -= len(tail) - (tail.rfind(b"\n") + 1)  # half a line, of a command that was killed
        os.ftruncate(descriptor, size)
        data = b"".join(line + b"\n" for line in lines)
        try:
            if os.write(descriptor, data) < len(data):
                raise OSError(None, "the disk is full", str(file))
            os.fsync(descriptor)
        except OSError as error:
            os.ftruncate(descriptor, size)
            raise OSError(error.errno, error.strerror, str(file)) from None
    finally:
        os.close(descriptor)
    sync(file.parent)
    if new:
        sync(file.parent.parent)


def _session() -> Properties:
    """Return the properties of a session that outlasts the connection, with bounded packets."""
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    from edge_runtime.mqtt import LONGEST_PACKET

    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = KEPT
    properties.MaximumPacketSize = LONGEST_PACKET
    return properties
