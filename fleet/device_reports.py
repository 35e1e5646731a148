"""What devices report about updates, from an MQTT broker: the newest report of each asset."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from edge_runtime.address import parse_mqtt_address
from edge_runtime.errors import GruardError, LimitedLog
from edge_runtime.plain import build, parse_json
from edge_runtime.sources.mqtt import Messages
from edge_runtime.sources.source import SourceLostError
from edge_runtime.updates.update_check import DeviceReport

MOST = 100_000
"""Reports that are kept, and messages that are read at once."""
AGAIN = 2.0
"""Seconds until a broker that is away is tried again."""


class ReportReader:
    """Reads retained reports below the topic at `target`, and reads on after the broker was away.

    log takes one line. reports: the newest by asset. connected: whether the broker answers.
    """

    def __init__(
        self,
        target: str,
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._address = parse_mqtt_address(f"{target.rstrip('/')}/+", subscribing=True)
        self._log, self._sleep = LimitedLog(log, clock), sleep
        self._messages: Messages | None = None
        self._reports: dict[str, DeviceReport] = {}

    @property
    def reports(self) -> Mapping[str, DeviceReport]:
        """The newest report by asset."""
        return self._reports

    @property
    def connected(self) -> bool:
        """Whether the broker answers."""
        return self._messages is not None

    def read(self, timeout: float) -> None:
        """Take the reports that come, at most `timeout` seconds after the last one."""
        try:
            if self._messages is None:
                self._messages = Messages(self._address, retained=True)
                self._log.over(f"{self._address.name}: connected", "broker")
            for _ in range(MOST):
                if (message := self._messages.next(timeout)) is None:
                    return
                self._take(*message)
                timeout = 0.0
        except SourceLostError as error:
            self.close()
            self._log.trouble("broker", f"{self._address.name}: {error}; tried again")
            self._sleep(AGAIN)

    def close(self) -> None:
        """Disconnect."""
        if self._messages:
            self._messages.close()
        self._messages = None

    def _take(self, topic: str, payload: bytes | None) -> None:
        """Keep a report, if it is one, and of the asset that its topic names."""
        try:
            report = build(DeviceReport, parse_json(payload or b""), topic)
            if topic.rpartition("/")[2] != report.asset:
                raise GruardError(f"{topic}: is a report of another asset")
        except (GruardError, ValueError) as error:
            self._log.trouble("report", f"a message is no report and is ignored: {error}")
            return
        if report.asset in self._reports or len(self._reports) < MOST:
            self._reports[report.asset] = report
