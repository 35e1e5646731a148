"""Modbus/TCP: `modbus://host:502/UNIT?registers=CHANNEL:holding:40001:int16,…`.

Every channel is asked for on its own, so that one the device refuses is one missing reading.
"""

import math
import re
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_runtime.address import Address, Endpoint, endpoint
from edge_runtime.errors import Complaints, GruardError
from edge_runtime.files import readable
from edge_runtime.sources.source import (
    Polled,
    Reading,
    Reconnecting,
    SourceLostError,
    Threaded,
    TimeLimit,
    needed_period,
)

_PORT = 502
_PATIENCE = 1.0  # seconds for a connection or an answer
_FORMATS = {"int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "float32": ">f"}
# Register 40001 of a data sheet is holding register 0 on the wire; both ways to write it are read.
_REFERENCES = {"holding": (40001, 400001), "input": (30001, 300001)}
_FUNCTIONS = {"holding": 3, "input": 4}
_REFUSED = 0x80  # added to the function by a device that refuses
_SHORTEST, _LONGEST = 2, 254
"""Bytes of an answer after its length: the unit and at least a function, at most what fits."""


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


class Connection:
    """Questions to one device and their answers, as the Modbus messaging guide has them (V1.0b)."""

    def __init__(self, place: Endpoint) -> None:
        self._socket = socket.create_connection((place.host, place.port), timeout=_PATIENCE)
        self._number = 0

    def ask(self, unit: int, function: int, address: int, count: int) -> bytes:
        """Return the answer, from its function code on.

        Raises NoAnswerError when none that makes sense comes within `_PATIENCE`; the connection is
        of no more use then. Raises SourceLostError when the device hung up.
        """
        self._number = self._number + 1 & 0xFFFF
        question = struct.pack(">HHHBBHH", self._number, 0, 6, unit, function, address, count)
        self._socket.sendall(question)
        limit = TimeLimit(_PATIENCE)
        number, protocol, length = struct.unpack(">HHH", self._take(6, limit))
        if protocol or not _SHORTEST <= length <= _LONGEST:
            raise NoAnswerError("was answered in another protocol")
        answer = self._take(length, limit)
        if number != self._number or answer[0] != unit or answer[1] & ~_REFUSED != function:
            raise NoAnswerError("was answered with nonsense")
        return answer[1:]

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _take(self, size: int, limit: TimeLimit) -> bytes:
        data = b""
        while len(data) < size:
            if not readable(self._socket.fileno(), limit.left()):
                raise NoAnswerError("was not answered")
            piece = self._socket.recv(size - len(data))
            if not piece:
                raise SourceLostError("the connection was closed")
            data += piece
        return data


class NoAnswerError(Exception):
    """A question without a sensible answer; the message says what came instead."""


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
        self._place, self._unit, self._registers = place, unit, registers
        self._name, self._complaints = name, complaints
        self._connection = Connection(place)

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
        self._connection.close()

    def _ask(self, register: Register) -> float | None:
        """The value, NaN when the device refuses it, None when nothing sensible was answered."""
        function = _FUNCTIONS[register.kind]
        try:
            answer = self._connection.ask(self._unit, function, register.address, register.words)
        except NoAnswerError as error:
            # A late answer must not be taken for that to the next question.
            self._connection.close()
            self._connection = Connection(self._place)
            self._complain(register, str(error))
            return None
        if answer[0] & _REFUSED:
            code = answer[1] if len(answer) > 1 else "?"
            self._complain(register, f"was refused, exception {code}")
            return math.nan
        words = answer[2:]
        if answer[1:2] != bytes([2 * register.words]) or len(words) != 2 * register.words:
            self._complain(register, f"was answered with {len(words)} bytes")
            return math.nan
        return register.value(struct.unpack(f">{register.words}H", words))

    def _complain(self, register: Register, what: str) -> None:
        where = f"{self._name}, {register.channel}"
        self._complaints.silent_cell(where, f"{register.kind} register {register.address} {what}")


def open_modbus(
    address: Address, channels: Sequence[str], period: float | None, complaints: Complaints
) -> Threaded:
    """The registers of one unit, asked at the model's period."""
    name, place = str(address), endpoint(address, _PORT)
    if not (re.fullmatch(r"[0-9]{1,3}", place.rest) and int(place.rest) < 256):
        raise GruardError(f"{name}: the unit is missing; write modbus://HOST:PORT/UNIT, 1 to 247")
    unit, pace = int(place.rest), needed_period(period, name)
    registers = parse_registers(address, channels)

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
