"""The buffer of a Linux IIO device: binary scans of all enabled channels, at the device's own pace.

What a scan looks like is in scan_elements: `in_X_en`, `in_X_index`, `in_X_type`, the last one as
`[be|le]:[s|u]BITS/STORAGE[xREPEAT]>>SHIFT`. Elements come in the order of their index, each aligned
to its own size, the scan to that of its largest. Nothing is written here: which channels, rate and
trigger is for the device's set-up.
"""

import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_runtime.errors import GruardError
from edge_runtime.files import kind_of
from edge_runtime.readiness import readable
from edge_runtime.sources.iio_scaling import Scaling, read_attribute, read_number, scaling
from edge_runtime.sources.source import Reading, SourceLostError, TimeLimit

_TYPE = re.compile(r"(le|be):([su])(\d{1,2})/(8|16|32|64)(?:X(\d{1,2}))?(?:>>(\d{1,2}))?", re.I)
_TIMESTAMP = "in_timestamp"
_CHUNK = 65536


@dataclass(frozen=True)
class ElementType:
    """How one number is stored: `bits` of `storage`, shifted up by `shift`, `repeat` times."""

    little: bool
    signed: bool
    bits: int
    storage: int
    repeat: int
    shift: int

    def decode(self, data: bytes) -> int:
        """The number in its `storage`/8 bytes."""
        value = int.from_bytes(data, "little" if self.little else "big") >> self.shift
        value &= (1 << self.bits) - 1
        return value - (1 << self.bits) if self.signed and value >> (self.bits - 1) else value


@dataclass(frozen=True)
class Layout:
    """Where the elements are: type and first byte of each by name, and the bytes of a scan."""

    elements: Mapping[str, tuple[ElementType, int]]
    size: int

    def number(self, name: str, scan: bytes) -> int:
        """The number of one element."""
        element, start = self.elements[name]
        return element.decode(scan[start : start + element.storage // 8])


class BufferReadings:
    """Scans from an open descriptor, as readings; time from the timestamp channel, if enabled."""

    live = True

    def __init__(
        self,
        fd: int,
        layout: Layout,
        channels: Sequence[tuple[str, Scaling]],
        close_fd: Callable[[], None],
    ) -> None:
        self._fd, self._layout, self._channels, self._close = fd, layout, channels, close_fd
        self._bytes = bytearray()

    def read(self, timeout: float | None) -> Reading | None:
        """The next scan. Raises SourceLostError when there will be no more."""
        limit = TimeLimit(timeout)
        while len(self._bytes) < self._layout.size:
            if not readable(self._fd, limit.left()):
                return None
            data = os.read(self._fd, _CHUNK)  # an OSError is an outage
            if not data:
                raise SourceLostError("the buffer has ended")
            self._bytes += data
        scan = bytes(self._bytes[: self._layout.size])
        del self._bytes[: self._layout.size]
        return self._reading(scan)

    def close(self) -> None:
        """Close the device."""
        self._close()

    def _reading(self, scan: bytes) -> Reading:
        values = [scale(self._layout.number(name, scan)) for name, scale in self._channels]
        has_time = _TIMESTAMP in self._layout.elements
        time = self._layout.number(_TIMESTAMP, scan) / 1e9 if has_time else None
        with np.errstate(over="ignore"):  # beyond float32 means infinite, which the mask handles
            return Reading(time, np.array(values, np.float32))


def open_buffer(device: Path, buffer: Path, wanted: Mapping[str, str]) -> BufferReadings:
    """The readings of the character device `buffer`.

    wanted: attributes by channel. Raises GruardError when the buffer is not set up for them,
    OSError when it cannot be opened.
    """
    layout = read_layout(device)
    names = [attribute.removesuffix("_raw") for attribute in wanted.values()]
    if off := [name for name in names if name not in layout.elements]:
        raise GruardError(
            f"{device}: {', '.join(off)} not in the buffer; enable it: "
            f"echo 1 > {device}/scan_elements/{off[0]}_en"
        )
    channels = [(name, scaling(device, f"{name}_raw")) for name in names]
    fd = os.open(buffer, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)):
        os.close(fd)
        raise GruardError(
            f"{buffer}: is {kind_of(mode)}; name the device's buffer, /dev/iio:device0"
        )
    return BufferReadings(fd, layout, channels, lambda: os.close(fd))


def read_layout(device: Path) -> Layout:
    """What a scan of the device looks like now. Raises GruardError for a type it cannot read."""
    found = []
    for switch in (device / "scan_elements").glob("in_*_en"):
        stem = switch.with_name(switch.name.removesuffix("_en"))
        try:
            if read_number(switch):
                index = read_number(stem.with_name(f"{stem.name}_index"))
                kind = read_attribute(stem.with_name(f"{stem.name}_type"))
                found.append((index, stem.name, parse_type(kind)))
        except (OSError, ValueError) as error:
            raise GruardError(f"{stem}: cannot be read ({error})") from None
    return layout_of([(name, element) for _, name, element in sorted(found, key=lambda e: e[:2])])


def layout_of(elements: Sequence[tuple[str, ElementType]]) -> Layout:
    """The layout of elements in the order of their index."""
    placed: dict[str, tuple[ElementType, int]] = {}
    end, largest = 0, 1
    for name, element in elements:
        size = element.storage // 8 * element.repeat
        start = _aligned(end, size)
        placed[name] = (element, start)
        end, largest = start + size, max(largest, size)
    return Layout(placed, _aligned(end, largest))


def parse_type(text: str) -> ElementType:
    """A scan element's type, e.g. `le:s12/16>>4`. Raises ValueError."""
    found = _TYPE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text.strip()[:40]!r} is not a type such as le:s16/16>>0")
    order, sign, bits, storage, repeat, shift = found.groups()
    element = ElementType(
        order.lower() == "le",
        sign.lower() == "s",
        int(bits),
        int(storage),
        int(repeat or 1),
        int(shift or 0),
    )
    if not (element.bits and element.repeat and element.bits + element.shift <= element.storage):
        raise ValueError(f"{text.strip()[:40]!r} does not fit its storage")
    return element


def _aligned(position: int, size: int) -> int:
    return -(-position // size) * size
