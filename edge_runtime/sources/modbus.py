"""Modbus/TCP: `modbus://host:502/UNIT?registers=CHANNEL:holding:40001:int16,…`.

Every channel is read by a request of its own, so a refused register is one missing reading.
"""

import math
import re
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

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
# Register 40001 of a data sheet is holding register 0 on the wire; both spellings are accepted.
_REFERENCES = {"holding": (40001, 400001), "input": (30001, 300001)}
_FUNCTIONS = {"holding": 3, "input": 4}
_REFUSED = 0x80  # added to the function by a device that refuses
_SHORTEST, _LONGEST = 2, 254
"""Bytes of an answer after its length: at least unit and function, at most what fits."""


@dataclass(frozen=True)
class Register:
    """The register of one channel. address: as sent, from 0. swapped: the low word is first."""

    channel: str
    kind: str
    address: int
    type: str
    scale: float = 1.0
    swapped: bool = False

    @property
    def words(self) -> int:
        """Number of 16-bit registers."""
        return struct.calcsize(_FORMATS[self.type]) // 2

    def value(self, words: Sequence[int]) -> float:
        """Return the reading in `words`, as many as `self.words`."""
        ordered = reversed(words) if self.swapped else words
        data = b"".join(word.to_bytes(2, "big") for word in ordered)
        return float(struct.unpack(_FORMATS[self.type], data)[0]) * self.scale


class Connection:
    """Requests to one device and their answers, by the Modbus messaging guide (V1.0b)."""

    def __init__(self, place: Endpoint) -> None:
        self._socket = socket.create_connection((place.host, place.port), timeout=_PATIENCE)
        self._number = 0

    def ask(self, unit: int, function: int, address: int, count: int) -> bytes:
        """Return the answer, from its function code on.

        Raises NoAnswerError when no valid one comes within `_PATIENCE` seconds; the connection is
        useless then. Raises SourceLostError when the device closed the connection.
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
    """A request without a valid answer; the message says what came instead."""


class Device:
    """One connection to a unit; reads all registers, one after the other."""

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
        """Read all registers. Raises SourceLostError when the device answers no request."""
        now = time.time()
        answers = [self._ask(register) for register in self._registers]
        if all(answer is None for answer in answers):
            raise SourceLostError("no answer")
        values = [math.nan if answer is None else answer for answer in answers]
        return Reading.of(now, values)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, register: Register) -> float | None:
        """Return the value, NaN when the device refuses it, None without a valid answer."""
        function = _FUNCTIONS[register.kind]
        try:
            answer = self._connection.ask(self._unit, function, register.address, register.words)
        except NoAnswerError as error:
            # A late answer must not be taken for the next one.
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
    """Open the registers of one unit, polled at the model's period."""
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
    """Return the register of each channel, in that order. Raises GruardError if one has none."""
    texts = filter(None, address.options.get("registers", "").split(","))
    by_channel = {register.channel: register for register in (_register(address, t) for t in texts)}
    if missing := [channel for channel in channels if channel not in by_channel]:
        raise GruardError(
            f"{address}: no register for {', '.join(missing)}; write "
            f"?registers={missing[0]}:holding:40001:int16,…"
        )
    return [by_channel[channel] for channel in channels]


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
    """Return the address as sent: 40001 of a data sheet is 0, 17 is 17, 0x9c41 is 40001."""
    if re.fullmatch(r"0x[0-9a-fA-F]{1,4}", text):
        return int(text, 16)
    number = int(text) if re.fullmatch(r"[0-9]{1,6}", text) else 1 << 20
    for first, count in zip(_REFERENCES[kind], (9999, 65536), strict=True):
        if first <= number < first + count:
            return number - first
    if number >= 1 << 16:
        raise GruardError(f"{address}: a {kind} register's address is 0 to 65535")
    return number
