"""Linux industrial I/O through sysfs: `iio:device0?columns=CHANNEL:in_accel_x_raw,…`.

Every channel is an attribute file of the device, `in_X_raw` or `in_X_input`; the value of a raw one
is (raw + offset)·scale, by the kernel's ABI (Documentation/ABI/testing/sysfs-bus-iio).

With `buffer` the channels come from binary scans of the device, at the device's own pace. The files
in scan_elements describe a scan: `in_X_en`, `in_X_index`, and `in_X_type`, which is
`[be|le]:[s|u]BITS/STORAGE[xREPEAT]>>SHIFT`. Elements are in the order of their index, each aligned
to its own size, the scan to that of its largest. Nothing is written here: the device's set-up
selects channels, rate and trigger.
"""

import math
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.address import Address
from edge_runtime.errors import Complaints, GruardError, quoted, reason
from edge_runtime.files import kind_of, read_regular, readable
from edge_runtime.sources.source import (
    Polled,
    Reading,
    Reconnecting,
    Source,
    SourceLostError,
    Threaded,
    TimeLimit,
    needed_period,
)

ROOT = "/sys/bus/iio/devices"
_LONGEST = 64  # bytes of a name, a type or a number
_TYPE = re.compile(
    r"(le|be):([su])(\d{1,2})/(8|16|32|64)(?:X(\d{1,2}))?(?:>>(\d{1,2}))?", re.IGNORECASE
)
_TIMESTAMP = "in_timestamp"
_CHUNK = 65536


def open_iio(
    address: Address, channels: Sequence[str], period: float | None, complaints: Complaints
) -> Source:
    """Open one device, polled at the model's period or read from its buffer."""
    name, buffer = str(address), address.options.get("buffer")
    wanted = attributes(address, channels)
    pace = 0.0 if buffer else needed_period(period, name)

    def connect() -> Source:
        device = find_device(Path(address.options.get("root", ROOT)), address.place)
        if buffer:
            return open_buffer(device, Path(buffer), wanted)
        return polled_device(device, wanted, pace, complaints)

    return Threaded(Reconnecting(name, connect, complaints), name, complaints)


def attributes(address: Address, channels: Sequence[str]) -> dict[str, str]:
    """Return the attribute of each channel: from `columns`, else `in_CHANNEL_raw`."""
    named = {}
    for pair in filter(None, address.options.get("columns", "").split(",")):
        channel, _, attribute = pair.partition(":")
        if channel not in channels or not re.fullmatch(r"in_[\w-]+_(raw|input)", attribute):
            raise GruardError(
                f"{address}: columns is written CHANNEL:in_…_raw or CHANNEL:in_…_input, several "
                f"with commas; the channels are {', '.join(channels)}"
            )
        named[channel] = attribute
    return {channel: named.get(channel, f"in_{channel}_raw") for channel in channels}


def find_device(root: Path, place: str) -> Path:
    """Return the folder of a device, by its number (`device0`) or its driver's name.

    Raises SourceLostError when it is missing.
    """
    devices = sorted(root.glob("iio:device*"))
    matches = [each for each in devices if place in (each.name.removeprefix("iio:"), _name(each))]
    if len(matches) != 1:
        there = ", ".join(f"{each.name.removeprefix('iio:')} ({_name(each)})" for each in devices)
        how_many = "no" if not matches else "more than one"
        raise SourceLostError(f"{how_many} such device in {root}; there are: {there or 'none'}")
    return matches[0]


def polled_device(
    device: Path, wanted: Mapping[str, str], period: float, complaints: Complaints
) -> Polled:
    """Poll the attributes of a device. Raises GruardError when it lacks one."""
    check_attributes(device, [*wanted.values()])
    scalings = {attribute: scaling(device, attribute) for attribute in wanted.values()}

    def value(channel: str, attribute: str) -> float:
        try:
            return scalings[attribute](read_number(device / attribute))
        except (OSError, ValueError) as error:
            complaints.silent_cell(f"{device.name}, {channel}", f"{attribute}: {reason(error)}")
            return math.nan

    def measure() -> Reading:
        if not device.exists():
            raise SourceLostError("the device is gone")
        now = time.time()
        values = [value(channel, attribute) for channel, attribute in wanted.items()]
        return Reading.of(now, values)

    return Polled(measure, period)


def check_attributes(device: Path, wanted: Sequence[str]) -> None:
    """Raise GruardError, with the attributes there are, when the device lacks one."""
    missing = [attribute for attribute in wanted if not (device / attribute).exists()]
    if missing:
        files = (each.name for each in device.glob("in_*"))
        there = sorted(name for name in files if name.endswith(("_raw", "_input")))
        raise GruardError(
            f"{device}: has no {', '.join(missing)}; there are {', '.join(there) or 'none'}; "
            "name them with ?columns=CHANNEL:ATTRIBUTE,…"
        )


def _name(device: Path) -> str:
    try:
        return read_attribute(device / "name")
    except (OSError, ValueError):
        return ""


@dataclass(frozen=True)
class Scaling:
    """Converts a raw number to the channel's unit."""

    scale: float = 1.0
    offset: float = 0.0

    def __call__(self, raw: float) -> float:
        """Return (raw + offset)·scale."""
        return (raw + self.offset) * self.scale


def scaling(device: Path, attribute: str) -> Scaling:
    """Return the scale and the offset of an attribute, its own or those of its type.

    Raises SourceLostError when a file of them holds no number.
    """
    if attribute.endswith("_input"):
        return Scaling()
    return Scaling(
        _first_number(device, attribute, "scale", 1.0),
        _first_number(device, attribute, "offset", 0.0),
    )


def read_number(path: Path) -> float:
    """Return the finite number in an attribute file. Raises OSError or ValueError."""
    text = read_attribute(path)
    number = float(text) if re.fullmatch(r"[-+0-9.eE]+", text) else math.nan
    if not math.isfinite(number):
        raise ValueError(f"{quoted(text)} is not a number")
    return number


def read_attribute(path: Path) -> str:
    """Return the text of an attribute file. Raises OSError or ValueError."""
    return read_regular(path, _LONGEST).decode("ascii", errors="replace").strip()


def _first_number(device: Path, attribute: str, what: str, default: float) -> float:
    for stem in _stems(attribute):
        path = device / f"{stem}_{what}"
        if path.exists():
            try:
                return read_number(path)
            except (OSError, ValueError) as error:
                raise SourceLostError(f"{path}: cannot be read ({reason(error)})") from None
    return default


def _stems(attribute: str) -> Iterator[str]:
    """in_accel_x_raw → in_accel_x, in_accel; in_voltage0_raw → in_voltage0, in_voltage."""
    stem = attribute.rpartition("_")[0]
    yield stem
    yield re.sub(r"\d+", "", stem)
    yield re.sub(r"\d+", "", stem.rpartition("_")[0])


@dataclass(frozen=True)
class ElementType:
    """Storage of one number: `bits` of `storage`, shifted up by `shift`, `repeat` times."""

    little: bool
    signed: bool
    bits: int
    storage: int
    repeat: int
    shift: int

    def decode(self, data: bytes) -> int:
        """Return the number in its `storage`/8 bytes."""
        value = int.from_bytes(data, "little" if self.little else "big") >> self.shift
        value &= (1 << self.bits) - 1
        return value - (1 << self.bits) if self.signed and value >> (self.bits - 1) else value


@dataclass(frozen=True)
class ScanLayout:
    """Type and first byte of each element by name, and the bytes of a scan."""

    elements: Mapping[str, tuple[ElementType, int]]
    size: int

    def number(self, name: str, scan: bytes) -> int:
        """Return the number of one element."""
        element, start = self.elements[name]
        return element.decode(scan[start : start + element.storage // 8])


class BufferReadings:
    """Readings of scans from a descriptor; time from the timestamp channel, if enabled."""

    live = True

    def __init__(
        self,
        fd: int,
        layout: ScanLayout,
        channels: Sequence[tuple[str, Scaling]],
        close_fd: Callable[[], None],
    ) -> None:
        self._fd, self._layout, self._channels, self._close = fd, layout, channels, close_fd
        self._bytes = bytearray()

    def read(self, timeout: float | None) -> Reading | None:
        """Return the next scan; see Source. Raises SourceLostError at the end of the buffer."""
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
        return Reading.of(time, values)


def open_buffer(device: Path, buffer: Path, wanted: Mapping[str, str]) -> BufferReadings:
    """Open the character device `buffer` of a device.

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


def read_layout(device: Path) -> ScanLayout:
    """Return the present layout of a scan. Raises GruardError for an unreadable element."""
    enabled = []
    for switch in (device / "scan_elements").glob("in_*_en"):
        stem = switch.with_name(switch.name.removesuffix("_en"))
        try:
            if read_number(switch):
                index = read_number(stem.with_name(f"{stem.name}_index"))
                kind = read_attribute(stem.with_name(f"{stem.name}_type"))
                enabled.append((index, stem.name, parse_type(kind)))
        except (OSError, ValueError) as error:
            raise GruardError(f"{stem}: cannot be read ({reason(error)})") from None
    return layout_of([(name, element) for _, name, element in sorted(enabled, key=lambda e: e[:2])])


def layout_of(elements: Sequence[tuple[str, ElementType]]) -> ScanLayout:
    """Return the layout of elements in the order of their index."""
    placed: dict[str, tuple[ElementType, int]] = {}
    end, largest = 0, 1
    for name, element in elements:
        size = element.storage // 8 * element.repeat
        start = _aligned(end, size)
        placed[name] = (element, start)
        end, largest = start + size, max(largest, size)
    return ScanLayout(placed, _aligned(end, largest))


def parse_type(text: str) -> ElementType:
    """Parse a scan element's type, e.g. `le:s12/16>>4`. Raises ValueError."""
    match = _TYPE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text.strip()[:40]!r} is not a type such as le:s16/16>>0")
    order, sign, bits, storage, repeat, shift = match.groups()
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
