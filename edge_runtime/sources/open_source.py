"""Open the source that --source names; each kind is imported when it is used."""

from collections.abc import Sequence

from edge_runtime.address import MQTT, parse_address
from edge_runtime.columns import NOTHING_SAID, Columns
from edge_runtime.errors import Complaints
from edge_runtime.sources.source import Source

KINDS = {
    "serial": ("baud", "columns"),
    **MQTT,
    "iio": ("columns", "buffer", "root"),
    "modbus": ("registers",),
    "python": (),
}
"""Kinds of source addresses, with their options."""


def open_source(
    target: str,
    channels: Sequence[str],
    period: float | None,
    complaints: Complaints,
    said: Columns = NOTHING_SAID,
) -> Source:
    """Open the source that `target` names: a file, - for stdin, or an address of one of `KINDS`.

    said: by the bundle about the columns of lines. The readings have the counts of its counters.
    Raises GruardError when it cannot be opened, lacks a channel, or is a recording whose samples
    are not `period` seconds apart.
    """
    from edge_runtime.sources.line_source import open_lines

    address = parse_address(target, KINDS)
    if address is None:
        return open_lines(target, channels, period, complaints, said)
    if address.kind == "serial":
        from edge_runtime.sources.serial_port import open_serial

        return open_serial(address, channels, complaints, said)
    if address.kind in MQTT:
        from edge_runtime.sources.mqtt import open_mqtt

        return open_mqtt(target, channels, period, complaints)
    if address.kind == "iio":
        from edge_runtime.sources.iio import open_iio

        return open_iio(address, channels, period, complaints)
    if address.kind == "modbus":
        from edge_runtime.sources.modbus import open_modbus

        return open_modbus(address, channels, period, complaints)
    assert address.kind == "python"
    from edge_runtime.sources.own_sensor import open_own_sensor

    return open_own_sensor(address, channels, period, complaints)


def open_unnamed(target: str, complaints: Complaints) -> tuple[Source, tuple[str, ...]]:
    """The source that `target` names, and its channels: those that its first line names.

    Sources that are no lines are opened without channels, as far as they work so: one empty reading
    for each sample. Raises GruardError where the first line is unusable or the kind needs more.
    """
    from edge_runtime.sources.line_source import open_lines

    if parse_address(target, KINDS):
        return open_source(target, (), None, complaints), ()
    source = open_lines(target, None, None, complaints)
    return source, source.channels
