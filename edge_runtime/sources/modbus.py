"""Modbus/TCP: `modbus://host:502/UNIT?registers=CHANNEL:holding:40001:int16,…`.

Every channel is asked for on its own, so that one the device refuses is one missing reading.
"""

import logging
import math
import re
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_runtime.address import Address, Endpoint, endpoint
from edge_runtime.errors import GruardError
from edge_runtime.sources.complaints import Complaints
from edge_runtime.sources.polled import Polled
from edge_runtime.sources.reconnecting import Reconnecting
from edge_runtime.sources.source import Reading, SourceLostError, needed_period
from edge_runtime.sources.threaded import Threaded

_PORT = 502
_PATIENCE = 1.0  # seconds for a connection or an answer
_FORMATS = {"int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "float32": ">f"}
# Register 40001 of a data sheet is holding register 0 on the wire; both ways to write it are read.
_REFERENCES = {"holding": (40001, 400001), "input": (30001, 300001)}
_MISSING = "Modbus needs the package pymodbus; install it with pip install 'gruard[modbus]'"


@dataclass(frozen=True)
class Register:
    """Where one channel is. address: as sent, from 0. swapped: the low word comes first."""

    channel: str
    kind: str
    address: int
    type: str
    scale: float = 1.0
    swapped: bool = False

    @property
    def words(self) -> int:
        """How many registers of 16 bits it takes."""
        return struct.calcsize(_FORMATS[self.type]) // 2

    def value(self, words: Sequence[int]) -> float:
        """The reading in `words`, as many as `self.words`."""
        ordered = reversed(words) if self.swapped else words
        data = b"".join(word.to_bytes(2, "big") for word in ordered)
        return float(struct.unpack(_FORMATS[self.type], data)[0]) * self.scale


class Device:
    """One connection to a unit; measures all registers, one after the other."""

    def __init__(
        self,
        place: Endpoint,
        unit: int,
        registers: Sequence[Register],
        name: str,
        complaints: Complaints,
    ) -> None:
        from pymodbus.client import ModbusTcpClient

        self._place, self._unit, self._registers = place, unit, registers
        self._name, self._complaints = name, complaints
        self._client: Any = ModbusTcpClient(
            place.host, port=place.port, timeout=_PATIENCE, retries=0
        )
        self._connect()

    def measure(self) -> Reading:
        """One reading. Raises SourceLostError when the device answers for nothing at all."""
        now = time.time()
        answers = [self._ask(register) for register in self._registers]
        if all(answer is None for answer in answers):
            raise SourceLostError("no answer")
        values = [math.nan if answer is None else answer for answer in answers]
        with np.errstate(over="ignore"):  # beyond float32 means infinite, which the mask handles
            return Reading(now, np.array(values, np.float32))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _connect(self) -> None:
        # pymodbus would connect by itself, but tell nobody why it cannot.
        self._client.socket = socket.create_connection(
            (self._place.host, self._place.port), timeout=_PATIENCE
        )

    def _ask(self, register: Register) -> float | None:
        """The value, NaN when the device refuses it, None when nothing sensible was answered."""
        from pymodbus.exceptions import ConnectionException, ModbusException

        read = getattr(self._client, f"read_{register.kind}_registers")
        try:
            answer = read(register.address, count=register.words, device_id=self._unit)
        except ConnectionException:
            raise SourceLostError("the connection was closed") from None
        except ModbusException:
            # A late answer must not be taken for that to the next question.
            self._client.close()
            self._connect()
            self._complain(register, "was not answered")
            return None
        if answer.isError():
            code = getattr(answer, "exception_code", "?")
            self._complain(register, f"was refused, exception {code}")
            return math.nan
        words = getattr(answer, "registers", [])
        if len(words) != register.words:
            self._complain(register, f"was answered with {len(words)} words")
            return math.nan
        return register.value(words)

    def _complain(self, register: Register, what: str) -> None:
        where = f"{self._name}, {register.channel}"
        self._complaints.silent_cell(where, f"{register.kind} register {register.address} {what}")


def open_modbus(
    address: Address, channels: Sequence[str], period: float | None, complaints: Complaints
) -> Threaded:
    """The registers of one unit, asked at the model's period."""
    try:
        import pymodbus  # noqa: F401
    except ImportError:
        raise GruardError(_MISSING) from None
    name, place = str(address), endpoint(address, _PORT)
    if not (re.fullmatch(r"[0-9]{1,3}", place.rest) and int(place.rest) < 256):
        raise GruardError(f"{name}: the unit is missing; write modbus://HOST:PORT/UNIT, 1 to 247")
    unit, pace = int(place.rest), needed_period(period, name)
    registers = parse_registers(address, channels)
    logging.getLogger("pymodbus.logging").disabled = True  # what it would say is told by us

    def connect() -> Polled:
        device = Device(place, unit, registers, name, complaints)
        return Polled(device.measure, pace, device.close)

    return Threaded(Reconnecting(name, connect, complaints), name, complaints)


def parse_registers(address: Address, channels: Sequence[str]) -> list[Register]:
    """The register of each channel, in that order. Raises GruardError for one without."""
    texts = filter(None, address.options.get("registers", "").split(","))
    found = {register.channel: register for register in (_register(address, t) for t in texts)}
    if missing := [channel for channel in channels if channel not in found]:
        raise GruardError(
            f"{address}: no register for {', '.join(missing)}; write "
            f"?registers={missing[0]}:holding:40001:int16,…"
        )
    return [found[channel] for channel in channels]


def _register(address: Address, text: str) -> Register:
    parts = text.split(":")
    if len(parts) < 4 or parts[1] not in _REFERENCES or parts[3] not in _FORMATS:
        raise GruardError(
            f"{address}: a register is CHANNEL:KIND:ADDRESS:TYPE, the kind "
            f"{' or '.join(_REFERENCES)}, the type {', '.join(_FORMATS)}; then perhaps :scale=0.1 "
            "or :swapped"
        )
    channel, kind, number, type_, *more = parts
    scale, swapped = 1.0, False
    for each in more:
        if each == "swapped":
            swapped = True
        elif re.fullmatch(r"scale=-?[0-9]{1,18}(\.[0-9]{1,18})?(e-?[0-9]{1,2})?", each):
            scale = float(each.removeprefix("scale="))
        else:
            raise GruardError(f"{address}, {channel}: write :scale=NUMBER or :swapped, no more")
    return Register(channel, kind, _number(address, kind, number), type_, scale, swapped)


def _number(address: Address, kind: str, text: str) -> int:
    """A register's address as sent: 40001 of a data sheet is 0, 17 is 17, 0x9c41 is 40001."""
    if re.fullmatch(r"0x[0-9a-fA-F]{1,4}", text):
        return int(text, 16)
    number = int(text) if re.fullmatch(r"[0-9]{1,6}", text) else 1 << 20
    for first, count in zip(_REFERENCES[kind], (9999, 65536), strict=True):
        if first <= number < first + count:
            return number - first
    if number >= 1 << 16:
        raise GruardError(f"{address}: a {kind} register's address is 0 to 65535")
    return number
