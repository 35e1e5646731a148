"""Inject faults on demand, to demonstrate the tiers.

`hang@1200` and `crash@2400` break the worker at that sample. `nan:CHANNEL@300+50`,
`stuck:CHANNEL@300+50` and `level:CHANNEL@300+50*AMOUNT` spoil a channel from sample 300 for 50
samples: no reading, the reading of sample 300 repeated, or AMOUNT (raw units) added.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_runtime.errors import GruardError
from edge_runtime.record import Float32
from edge_runtime.supervision.wire import Fault

FORMS = (
    "hang@INDEX, crash@INDEX, nan:CHANNEL@START+COUNT, stuck:CHANNEL@START+COUNT, "
    "level:CHANNEL@START+COUNT*AMOUNT"
)
_PROCESS = re.compile(r"(?P<kind>hang|crash)@(?P<index>\d{1,15})", re.ASCII)
_SENSOR = re.compile(
    r"(?P<kind>nan|stuck|level):(?P<channel>.+)@(?P<start>\d{1,15})\+(?P<count>\d{1,15})"
    r"(?:\*(?P<amount>[-+]?(?:\d{1,30}\.?\d{0,30}|\.\d{1,30})(?:e[-+]?\d{1,2})?))?",
    re.ASCII,
)


@dataclass(frozen=True)
class ProcessFault:
    """The worker hangs or crashes at sample `index`."""

    kind: Fault
    index: int


@dataclass(frozen=True)
class SensorFault:
    """A channel (its position) is spoilt for `count` samples from `start`; amount in raw units.

    text: the fault as the user wrote it.
    """

    kind: Literal["nan", "stuck", "level"]
    channel: int
    start: int
    count: int
    amount: float
    text: str

    def covers(self, index: int) -> bool:
        """Return whether the sample at `index` is spoilt."""
        return self.start <= index < self.start + self.count


class Injections:
    """All faults of a run; holds the reading that each stuck channel repeats."""

    def __init__(self, process: Sequence[ProcessFault], sensors: Sequence[SensorFault]) -> None:
        self._process = {fault.index: fault.kind for fault in process}
        self._sensors = tuple(sensors)
        self._held: dict[SensorFault, float] = {}

    def process_fault(self, index: int) -> Fault | None:
        """Return the fault that breaks the worker at this sample, if any."""
        return self._process.get(index)

    def starting(self, index: int) -> list[str]:
        """Return the sensor faults that start at this sample, as the user wrote them."""
        return [fault.text for fault in self._sensors if fault.start == index]

    def spoil(self, index: int, values: Float32) -> Float32:
        """Return `values` with every fault of this sample applied; `values` is not changed."""
        active = [fault for fault in self._sensors if fault.covers(index)]
        if not active:
            return values
        spoilt = values.copy()
        with np.errstate(over="ignore"):  # overflow gives infinity, which the mask handles
            for fault in active:
                true = float(spoilt[fault.channel])
                match fault.kind:
                    case "nan":
                        spoilt[fault.channel] = np.nan
                    case "level":
                        spoilt[fault.channel] = true + fault.amount
                    case "stuck":
                        spoilt[fault.channel] = self._held.setdefault(fault, true)
        return spoilt


def parse_injections(text: str, channels: Sequence[str]) -> Injections:
    """Parse a comma-separated list of faults. Raises GruardError naming the wrong one."""
    process: list[ProcessFault] = []
    sensors: list[SensorFault] = []
    for piece in filter(None, (part.strip() for part in text.split(","))):
        if match := _PROCESS.fullmatch(piece):
            kind: Fault = "hang" if match["kind"] == "hang" else "crash"
            process.append(ProcessFault(kind, int(match["index"])))
        else:
            sensors.append(_sensor_fault(piece, channels))
    return Injections(process, sensors)


def _sensor_fault(piece: str, channels: Sequence[str]) -> SensorFault:
    match = _SENSOR.fullmatch(piece)
    if not match or (match["kind"] == "level") != (match["amount"] is not None):
        raise GruardError(f"--inject: cannot read '{piece}'; the forms are {FORMS}")
    if match["channel"] not in channels:
        raise GruardError(
            f"--inject: '{piece}' names no channel of this bundle; "
            f"the channels are {', '.join(channels)}"
        )
    kind: Literal["nan", "stuck", "level"] = match["kind"]  # type: ignore[assignment]
    return SensorFault(
        kind,
        list(channels).index(match["channel"]),
        int(match["start"]),
        int(match["count"]),
        float(match["amount"] or 0.0),
        piece,
    )
