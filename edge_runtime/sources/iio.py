"""Linux industrial I/O through sysfs: `iio:device0?columns=CHANNEL:in_accel_x_raw,…`.

Every channel is an attribute file of the device, `in_X_raw` or `in_X_input`; a raw value becomes
(raw + offset)·scale, as the kernel's ABI has it (Documentation/ABI/testing/sysfs-bus-iio).
"""

import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_runtime.address import Address
from edge_runtime.errors import GruardError
from edge_runtime.sources.complaints import Complaints
from edge_runtime.sources.iio_buffer import open_buffer
from edge_runtime.sources.iio_scaling import read_attribute, read_number, scaling
from edge_runtime.sources.polled import Polled
from edge_runtime.sources.reconnecting import Reconnecting
from edge_runtime.sources.source import Reading, Source, SourceLostError, needed_period
from edge_runtime.sources.threaded import Threaded

_ROOT = "/sys/bus/iio/devices"


def open_iio(
    address: Address, channels: Sequence[str], period: float | None, complaints: Complaints
) -> Source:
    """The readings of one device, asked at the model's period, or from its buffer."""
    name, buffer = str(address), address.options.get("buffer")
    wanted = attributes(address, channels)

    def connect() -> Source:
        device = find_device(Path(address.options.get("root", _ROOT)), address.place)
        if buffer:
            return open_buffer(device, Path(buffer), wanted)
        return polled_device(device, wanted, needed_period(period, name), complaints)

    if not buffer:
        needed_period(period, name)
    return Threaded(Reconnecting(name, connect, complaints), name, complaints)


def attributes(address: Address, channels: Sequence[str]) -> dict[str, str]:
    """The attribute of each channel: from `columns`, else `in_CHANNEL_raw`."""
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
    """The folder of a device, by its number (`device0`) or by the name its driver gives it.

    Raises SourceLostError when it is not there.
    """
    devices = sorted(root.glob("iio:device*"))
    found = [each for each in devices if place in (each.name.removeprefix("iio:"), _name(each))]
    if len(found) != 1:
        there = ", ".join(f"{each.name.removeprefix('iio:')} ({_name(each)})" for each in devices)
        how_many = "no" if not found else "more than one"
        raise SourceLostError(f"{how_many} such device in {root}; there are: {there or 'none'}")
    return found[0]


def polled_device(
    device: Path, wanted: Mapping[str, str], period: float, complaints: Complaints
) -> Polled:
    """The readings of a device by its attributes. Raises GruardError when it lacks one."""
    check_attributes(device, [*wanted.values()])
    scalings = {attribute: scaling(device, attribute) for attribute in wanted.values()}

    def value(channel: str, attribute: str) -> float:
        try:
            return scalings[attribute](read_number(device / attribute))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            complaints.silent_cell(f"{device.name}, {channel}", f"{attribute}: {why}")
            return math.nan

    def measure() -> Reading:
        if not device.exists():
            raise SourceLostError("the device is gone")
        now = time.time()
        values = [value(channel, attribute) for channel, attribute in wanted.items()]
        with np.errstate(over="ignore"):  # beyond float32 means infinite, which the mask handles
            return Reading(now, np.array(values, np.float32))

    return Polled(measure, period)


def check_attributes(device: Path, wanted: Sequence[str]) -> None:
    """Raise GruardError, with what there is, when the device lacks an attribute."""
    missing = [attribute for attribute in wanted if not (device / attribute).exists()]
    if missing:
        there = sorted(each.name for each in device.glob("in_*") if _is_value(each.name))
        raise GruardError(
            f"{device}: has no {', '.join(missing)}; there are {', '.join(there) or 'none'}; "
            "name them with ?columns=CHANNEL:ATTRIBUTE,…"
        )


def _name(device: Path) -> str:
    try:
        return read_attribute(device / "name")
    except (OSError, ValueError):
        return ""


def _is_value(name: str) -> bool:
    return name.endswith(("_raw", "_input"))
