"""Streams that no sensor should send: text, times and values, damaged in seeded ways.

A stream is a header and lines of bytes. Each of `KINDS` has one kind of damage and any length, so
that the cost can be measured over the length; `mixed` combines all kinds.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

Rng = np.random.Generator
ODD_NUMBERS = (
    "nan", "-nan", "inf", "-inf", "1e308", "-1e308", "1e309", "5e-324", "-0", "", " ", "9" * 400,
    "1e", "0x10", "1_0", "１２", "٣", "true", "None", "--1", "1,5", "\x00", "\ufeff1", "+", ".",
)  # fmt: skip
ODD_TIMES = (
    *ODD_NUMBERS, "0", "-1", "1e15", "-1e15", "2026-02-30", "2026-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999+23:59", "0001-01-01", "1970-01-01", "12:00", "31.12.2026",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """The machine of a stream: channel names, seconds between samples, and clean rows."""

    channels: Sequence[str]
    period: float
    rows: np.ndarray

    @property
    def header(self) -> bytes:
        """The header of CSV lines."""
        return ",".join(("time", *self.channels)).encode() + b"\n"

    def cells(self, index: int) -> list[str]:
        """The cells of a clean line."""
        row = self.rows[index % len(self.rows)]
        return [repr(index * self.period), *(repr(float(value)) for value in row)]


Lines = Callable[[Machine, Rng, int], Iterator[bytes]]
"""Yields a number of lines of a kind, each with its line break, if it has one."""


def clean(machine: Machine, rng: Rng, count: int) -> Iterator[bytes]:
    """Nothing wrong."""
    for index in range(count):
        yield _line(machine.cells(index))


def odd_values(machine: Machine, rng: Rng, count: int) -> Iterator[bytes]:
    """Words, infinities and endless digits for readings."""
    for index in range(count):
        cells = machine.cells(index)
        cells[int(rng.integers(1, len(cells)))] = str(rng.choice(ODD_NUMBERS))
        yield _line(cells)


def odd_times(machine: Machine, rng: Rng, count: int) -> Iterator[bytes]:
    """Texts that are no times, and impossible times."""
    for index in range(count):
        cells = machine.cells(index)
        if rng.random() < 0.3:
            cells[0] = str(rng.choice(ODD_TIMES))
        yield _line(cells)


def jumping_times(machine: Machine, rng: Rng, count: int) -> Iterator[bytes]:
    """Times that jump back and forth by up to 10^17 seconds."""
    moment = 0.0
    for index in range(count):
        cells = machine.cells(index)
        size = 10.0 ** rng.uniform(-3, 17)
        moment += float(rng.choice([-1, 1]) * size) if rng.random() < 0.5 else machine.period
        cells[0] = repr(moment)
        yield _line(cells)


def frozen_time(machine: Machine, rng: Rng, count: int) -> Iterator[bytes]:
    """A clock that stands still."""
    for index in range(count):
        yield _line(["5.0", *machine.cells(index)[1:]])


def ragged(machine: Machine, rng: Rng, count: int) -> Iterator[bytes]:
    """Too few cells, too many, none, quoted, or with an open quote."""
    for index in range(count):
        cells = machine.cells(index)
        match int(rng.integers(6)):
            case 0:
                cells = cells[: int(rng.integers(0, len(cells)))]
            case 1:
                cells += ["1.0"] * int(rng.integers(1, 40))
            case 2:
                cells[-1] = '"' + cells[-1]
            case 3:
                cells = [f'"{cell}"' for cell in cells]
            case 4:
                cells = [";".join(cells)]
        yield _line(cells)


def wide(machine: Machine, rng: Rng, count: int) -> Iterator[bytes]:
    """Hundreds of cells more than the header has."""
    for index in range(count):
        yield _line([*machine.cells(index), *["0"] * 300])


def blank(machine: Machine, rng: Rng, count: int) -> Iterator[bytes]:
    """Blank lines, and a clean one now and then."""
    for index in range(count):
        yield _line(machine.cells(index)) if index % 50 == 0 else b" \t\r\n"[index % 4 :]


def comments(machine: Machine, rng: Rng, count: int) -> Iterator[bytes]:
    """Comments, and a clean line now and then."""
    for index in range(count):
        yield _line(machine.cells(index)) if index % 50 == 0 else b"# a comment, and another\n"


def binary(machine: Machine, rng: Rng, count: int) -> Iterator[bytes]:
    """Bytes at random, with line breaks, zeros and broken UTF-8."""
    for index in range(count):
        noise = rng.integers(0, 256, int(rng.integers(1, 120))).astype(np.uint8).tobytes()
        yield noise + b"\n" if rng.random() < 0.8 else _line(machine.cells(index))


def endless(machine: Machine, rng: Rng, count: int) -> Iterator[bytes]:
    """One very long line, then a clean one."""
    for _ in range(count):
        yield b"1.25," * 10
    yield b"\n" + _line(machine.cells(0))


def repeated_header(machine: Machine, rng: Rng, count: int) -> Iterator[bytes]:
    """Repeated headers, as from a logger that restarts."""
    for index in range(count):
        yield machine.header if index % 2 else _line(machine.cells(index))


def json_lines(machine: Machine, rng: Rng, count: int) -> Iterator[bytes]:
    """JSON lines with duplicate names, deep nesting, and values of every type."""
    values: tuple[object, ...] = (None, True, "1", "x", [], {}, 10**400, -0.0, 1e308, [[1]])
    for index in range(count):
        time, *numbers = machine.cells(index)
        known: dict[str, object] = dict(zip(machine.channels, map(float, numbers), strict=True))
        match int(rng.integers(6)):
            case 0:
                odd = values[int(rng.integers(len(values)))]
                known[str(rng.choice(machine.channels))] = odd
            case 1:
                yield b"[" * int(rng.integers(1, 5000)) + b"\n"
                continue
            case 2:
                yield b'{"time": NaN, "time": Infinity}\n'
                continue
            case 3:
                known = {f"extra{i}": i for i in range(200)} | known
        yield json.dumps({"time": float(time), **known}).encode() + b"\n"


KINDS: dict[str, Lines] = {
    kind.__name__.replace("_", " "): kind
    for kind in (
        clean, odd_values, odd_times, jumping_times, frozen_time, ragged, wide, blank, comments,
        binary, endless, repeated_header, json_lines,
    )
}  # fmt: skip
HEADLESS = ("json lines",)
"""Kinds whose first line is no header."""


def stream(machine: Machine, kind: str, count: int, seed: int) -> bytes:
    """Return a whole stream of one kind."""
    lines = KINDS[kind](machine, np.random.default_rng(seed), count)
    first = clean_json(machine) if kind in HEADLESS else machine.header
    return first + b"".join(lines)


def clean_json(machine: Machine) -> bytes:
    """Return a clean JSON line, which makes the stream one of JSON lines."""
    time, *numbers = machine.cells(0)
    known = dict(zip(machine.channels, map(float, numbers), strict=True))
    return json.dumps({"time": float(time), **known}).encode() + b"\n"


def mixed(machine: Machine, seed: int, count: int, text: bool = False) -> bytes:
    """Return a stream of short stretches of every kind, in random order.

    text: only valid UTF-8, because a file with other bytes is refused as a whole.
    """
    rng = np.random.default_rng(seed)
    kinds = [kind for kind in KINDS if not (text and kind == "binary")]
    parts = [machine.header]
    while count > 0:
        length = int(rng.integers(1, 60))
        kind = KINDS[str(rng.choice(kinds))]
        parts += kind(machine, rng, length)
        count -= length
    whole = b"".join(parts)
    return whole[: len(whole) - int(rng.integers(0, 20))]  # cut in the middle of a line


def _line(cells: Sequence[str]) -> bytes:
    return ",".join(cells).encode() + b"\n"
