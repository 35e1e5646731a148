"""A source for a recording: its channels are found where no bundle says them."""

from collections.abc import Sequence
from pathlib import Path

from edge_runtime.address import MQTT, Address, parse_address
from edge_runtime.errors import Complaints, GruardError
from edge_runtime.sources.open_source import KINDS, open_source, open_unnamed
from edge_runtime.sources.source import Source, SourceLostError

_NEEDED = "this source is asked once in every period; add --period SECONDS"


def open_named(
    target: str, channels: Sequence[str], period: float | None, complaints: Complaints
) -> tuple[Source, tuple[str, ...]]:
    """The source that `target` names, and its channels: `channels`, or its own without any.

    A file, stdin and a pipe name them in their first line; Modbus, IIO and a serial port in the
    address. Raises GruardError where the kind of source has no names, and as `open_source` does.
    """
    address = parse_address(target, KINDS)
    if address is None:
        if channels:
            return open_source(target, channels, None, complaints), tuple(channels)
        return open_unnamed(target, complaints)
    if period is None and _is_asked(address):
        raise GruardError(f"{address}: {_NEEDED}")
    names = tuple(channels) or _own_names(address)
    return open_source(target, names, period, complaints), names


def _is_asked(address: Address) -> bool:
    """Whether a source of this kind is asked for its readings, so that it needs a period."""
    if address.kind in MQTT:
        return address.place.endswith("/+")
    if address.kind == "iio":
        return "buffer" not in address.options
    return address.kind in ("modbus", "python")


def _own_names(address: Address) -> tuple[str, ...]:
    if address.kind == "modbus":
        registers = address.options.get("registers", "").split(",")
        return tuple(text.partition(":")[0] for text in registers if text)
    if address.kind == "iio":
        return _iio_names(address)
    if address.kind == "serial" and (columns := address.options.get("columns")):
        from edge_runtime.sources.decoders import own_channels

        return own_channels(columns, str(address), ())
    hint = ", or the order of its columns: ?columns=a,b,c" if address.kind == "serial" else ""
    raise GruardError(f"{address}: does not name its channels; name them: --channels a,b,c{hint}")


def _iio_names(address: Address) -> tuple[str, ...]:
    """The channels in `columns`, else all raw values that the device has, or has in its buffer."""
    from edge_runtime.sources.iio import ROOT, find_device, read_layout

    if columns := address.options.get("columns"):
        return tuple(pair.partition(":")[0] for pair in columns.split(",") if pair)
    try:
        device = find_device(Path(address.options.get("root", ROOT)), address.place)
    except SourceLostError as error:
        raise GruardError(f"{address}: {error}") from None
    if "buffer" in address.options:
        names = [name for name in read_layout(device).elements if name != "in_timestamp"]
    else:
        names = sorted(path.name.removesuffix("_raw") for path in device.glob("in_*_raw"))
    if not names:
        raise GruardError(f"{device}: has no raw values; name what to read: ?columns=NAME:in_…")
    return tuple(name.removeprefix("in_") for name in names)
