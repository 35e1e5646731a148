"""Modbus/TCP: `modbus://host:502/UNIT?registers=CHANNEL:holding:40001:int16,…`.

Neighbouring registers are read by one request, so a lost answer costs one sample and one wait. If
a device refuses that, each register is read by itself: a refused one is one missing reading.
"""

import math
import re
import socket
import struct
import time
from collections import Counter, deque
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
_PATIENCE, _LEAST_PATIENCE = 1.0, 0.2
"""Seconds to wait for a connection, and for an answer at most and at least."""
_UNANSWERED = 3  # measurements in a row without any answer: then the device is lost
_MOST_WORDS = 125  # of one request
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


@dataclass(frozen=True)
class Block:
    """Neighbouring registers of one kind, which one request reads."""

    registers: tuple[Register, ...]

    @property
    def first(self) -> int:
        """The first address."""
        return self.registers[0].address

    @property
    def words(self) -> int:
        """Number of 16-bit registers."""
        return max(each.address + each.words for each in self.registers) - self.first

    def values(self, words: Sequence[int]) -> dict[str, float]:
        """Return the reading of each channel in the answer's words."""
        found = {}
        for each in self.registers:
            start = each.address - self.first
            found[each.channel] = each.value(words[start : start + each.words])
        return found

    def singles(self) -> list["Block"]:
        """Return a block for each register."""
        return [Block((each,)) for each in self.registers]


def blocks_of(registers: Sequence[Register]) -> list[Block]:
    """Join registers without an address between them; they are not read across such gaps, because
    a device may refuse an address that it does not have."""
    blocks: list[Block] = []
    for each in sorted(registers, key=_place):
        joined = Block((*blocks[-1].registers, each)) if blocks else Block((each,))
        if blocks and _is_near(blocks[-1], each) and joined.words <= _MOST_WORDS:
            blocks[-1] = joined
        else:
            blocks.append(Block((each,)))
    return blocks


def _is_near(block: Block, register: Register) -> bool:
    same = block.registers[0].kind == register.kind
    return same and register.address <= block.first + block.words


def _place(register: Register) -> tuple[str, int]:
    return register.kind, register.address


class Patience:
    """How long to wait for an answer: the retransmission timer of TCP (RFC 6298), within limits.

    A lost answer then costs a few samples of a fast device, and a slow one gets its second.
    """

    def __init__(self) -> None:
        self.seconds = _PATIENCE
        self._usual: float | None = None
        self._spread = 0.0

    def answered(self, took: float) -> None:
        """Take the seconds that an answer took."""
        if self._usual is None:
            self._usual, self._spread = took, took / 2
        self._spread += (abs(took - self._usual) - self._spread) / 4
        self._usual += (took - self._usual) / 8
        self.seconds = min(max(self._usual + 4 * self._spread, _LEAST_PATIENCE), _PATIENCE)

    def unanswered(self) -> None:
        """Wait longer for the next answer."""
        self.seconds = min(2 * self.seconds, _PATIENCE)


class Connection:
    """Requests to one device and their answers, by the Modbus messaging guide (V1.0b)."""

    def __init__(self, place: Endpoint) -> None:
        self._socket = socket.create_connection((place.host, place.port), timeout=_PATIENCE)
        self._number = 0

    def ask(
        self, unit: int, function: int, address: int, count: int, patience: float = _PATIENCE
    ) -> bytes:
        """Return the answer, from its function code on.

        Raises NoAnswerError when no valid one comes within `patience` seconds; the connection is
        useless then. Raises SourceLostError when the device closed the connection.
        """
        self._number = self._number + 1 & 0xFFFF
        question = struct.pack(">HHHBBHH", self._number, 0, 6, unit, function, address, count)
        self._socket.sendall(question)
        limit = TimeLimit(patience)
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


class NoReadingError(Exception):
    """A request with an answer that has no readings; the message says why."""


class Device:
    """One connection to a unit; reads all registers, block by block."""

    def __init__(
        self,
        place: Endpoint,
        unit: int,
        registers: Sequence[Register],
        name: str,
        complaints: Complaints,
    ) -> None:
        self._place, self._unit = place, unit
        self._channels = [register.channel for register in registers]
        self._blocks = blocks_of(registers)
        self._silent: Counter[Block] = Counter()  # how often in a row
        self._name, self._complaints = name, complaints
        self._patience, self._unanswered = Patience(), 0
        self._connection = Connection(place)

    def measure(self) -> Reading:
        """Read all registers; those without an answer are missing.

        Raises SourceLostError when none was answered for the third time in a row.
        """
        now, readings, before = time.time(), dict[str, float](), len(self._blocks)
        self._unanswered += 1
        waiting, self._blocks = deque(self._blocks), []
        while waiting:
            block = waiting.popleft()
            try:
                readings |= self._read(block)
            except NoReadingError as error:
                if len(block.registers) > 1:
                    waiting.extendleft(reversed(block.singles()))
                    continue
                self._complain(block, str(error))
            except NoAnswerError as error:
                self._complain(block, str(error))
                if self._silent[block] == _UNANSWERED:  # some are silent where they should refuse
                    self._blocks += block.singles()
                    continue
            self._blocks.append(block)
        if self._unanswered >= _UNANSWERED and len(self._blocks) == before:
            raise SourceLostError("no answer")
        return Reading.of(now, [readings.get(name, math.nan) for name in self._channels])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _read(self, block: Block) -> dict[str, float]:
        """Return the readings of a block.

        Raises NoReadingError for an answer without them, NoAnswerError for none; the connection is
        then a new one, so that a late answer is not taken for the next one.
        """
        function, begun = _FUNCTIONS[block.registers[0].kind], time.monotonic()
        try:
            answer = self._connection.ask(
                self._unit, function, block.first, block.words, self._patience.seconds
            )
        except NoAnswerError:
            self._patience.unanswered()
            self._silent[block] += 1
            self._connection.close()
            self._connection = Connection(self._place)
            raise
        self._patience.answered(time.monotonic() - begun)
        self._silent[block] = self._unanswered = 0
        if answer[0] & _REFUSED:
            code = answer[1] if len(answer) > 1 else "?"
            raise NoReadingError(f"was refused, exception {code}")
        words = answer[2:]
        if answer[1:2] != bytes([2 * block.words]) or len(words) != 2 * block.words:
            raise NoReadingError(f"was answered with {len(words)} bytes")
        return block.values(struct.unpack(f">{block.words}H", words))

    def _complain(self, block: Block, what: str) -> None:
        for each in block.registers:
            where = f"{self._name}, {each.channel}"
            self._complaints.silent_cell(where, f"{each.kind} register {each.address} {what}")


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
