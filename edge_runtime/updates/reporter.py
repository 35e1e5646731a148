"""A device's report to its fleet: one retained MQTT message, TOPIC/ASSET; needs paho-mqtt."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_runtime.address import MqttAddress, why_refused, why_unreachable
from edge_runtime.errors import GruardError
from edge_runtime.mqtt import BoundedClient

if TYPE_CHECKING:
    from paho.mqtt.client import Client, ConnectFlags
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

    from edge_runtime.updates.update_check import DeviceReport

_ANSWER = 10.0  # seconds for the whole exchange
_KEEP_ALIVE = 20  # seconds
_LISTENING = 1.0  # seconds of one wait


class Reporter:
    """Publishes reports below the topic of `address`, with a connection for each.

    clock: monotonic seconds.
    """

    def __init__(self, address: MqttAddress, clock: Callable[[], float] = time.monotonic) -> None:
        self._address, self._clock = address, clock
        self._connected, self._refusal = False, ""

    def send(self, report: DeviceReport) -> None:
        """Publish `report`, and wait until the broker has confirmed it. Raises GruardError."""
        self._connected, self._refusal = False, ""
        client = BoundedClient(self._address, reconnect_on_failure=False)
        client.disable_logger()  # its errors are in our log
        client.on_connect = self._on_connect
        try:
            client.connect(self._address.host, self._address.port, _KEEP_ALIVE)
            self._publish(client, report)
            client.disconnect()
        except (OSError, ValueError) as error:
            raise GruardError(f"{self._address.name}: {why_unreachable(error)}") from None
        finally:
            if connection := client.socket():
                connection.close()
            client.on_connect = None  # break the reference cycle

    def _publish(self, client: BoundedClient, report: DeviceReport) -> None:
        end, message = self._clock() + _ANSWER, None
        topic = f"{self._address.topic}/{report.asset}"
        while message is None or not message.is_published():
            lost = client.turn(_LISTENING) != 0 or self._clock() > end
            if lost or self._refusal:
                why = self._refusal or "the broker does not confirm the report"
                raise GruardError(f"{self._address.name}: {why}")
            if self._connected and message is None:
                message = client.publish(topic, report.to_json(), qos=1, retain=True)

    def _on_connect(
        self,
        _client: Client,
        _data: object,
        _flags: ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self._refusal = why_refused(str(reason))
        else:
            self._connected = True
