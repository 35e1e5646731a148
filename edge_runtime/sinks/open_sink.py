"""Open the sinks that --sink names; each kind is imported when it is used."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.address import MQTT, SINK_OPTIONS, MqttAddress, parse_mqtt_address, set_topic
from edge_runtime.errors import GruardError
from edge_runtime.files import refuse_one_file_twice
from edge_runtime.sinks.sink import Existing, MonitoredSink, Queued, Several, open_json_lines

if TYPE_CHECKING:
    from edge_runtime.sinks.control import OwnerRequests
    from edge_runtime.sinks.outbox import Transport, Wanted

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_PATIENCE = 5.0
"""Seconds that a recording waits for a receiver; a live run does not wait."""

Log = Callable[[str], None]


@dataclass(frozen=True)
class JournalPlace:
    """Folder of a journal, and its most bytes on the disk."""

    folder: Path
    capacity: int


@dataclass(frozen=True)
class _Network:
    """A receiver on the network, and which messages it gets."""

    name: str
    carrier: Transport
    wanted: Wanted


def open_sinks(
    targets: Sequence[str],
    existing: Existing,
    log: Log,
    live: bool,
    journal: JournalPlace | None = None,
    state: Path | None = None,
) -> MonitoredSink:
    """Open the sinks that `targets` name, as one: files, - for stdout, or mqtt:// addresses.

    existing: what to do with files that exist.
    log: takes a line when a receiver is away or too slow.
    live: records come in real time, so a sink that is too slow loses some instead of blocking.
    journal: keeps all records; those for a network wait there.
    state: the state folder of a live run, which an owner may answer over a network.
    Raises GruardError when one cannot be opened, and closes the others.
    """
    addresses = [target for target in targets if _is_address(target)]
    files = [target for target in targets if target not in addresses]
    refuse_one_file_twice(("--sink", 1 if file == "-" else file) for file in files)
    networks = [_open_network(address, log, state) for address in addresses]
    if len({network.name for network in networks}) < len(networks):
        raise GruardError("one --sink address is given twice; leave one out")
    run, patience = secrets.token_hex(6), 0.0 if live else _PATIENCE
    opened: list[MonitoredSink] = []
    try:
        if journal is not None:
            opened.append(_with_journal(run, networks, journal, log, patience))
        else:
            for network in networks:
                opened.append(_without_journal(run, network, log, patience))
        for target in files:
            opened.append(_open_lines(target, existing, log, live))
    except BaseException:
        Several(opened).close()
        raise
    return opened[0] if len(opened) == 1 else Several(opened)


def _is_address(target: str) -> bool:
    """Whether `target` is an MQTT address. Raises GruardError for other addresses."""
    match = _SCHEME.match(target)
    if match and match[1] not in MQTT:
        raise GruardError(
            f"no sink is called {match[1]}://; there are FILE, - (stdout), "
            "mqtt://HOST/TOPIC and mqtts://HOST/TOPIC"
        )
    return match is not None


def _open_lines(target: str, existing: Existing, log: Log, live: bool) -> MonitoredSink:
    sink = open_json_lines(target, existing)
    return Queued(sink, log, name=f"sink {target}") if live else sink


def _open_network(target: str, log: Log, state: Path | None) -> _Network:
    from edge_runtime.sinks.mqtt import Mqtt
    from edge_runtime.sinks.outbox import Changes, everything

    address = parse_mqtt_address(target, known=SINK_OPTIONS)
    what = address.options.get("what", "alarms")
    if what not in ("alarms", "all"):
        raise GruardError(f"{address.name}: what={what} is neither alarms nor all")
    alarms = what == "alarms"
    carrier = Mqtt(address, log, _control(address, log, state), retain=alarms)
    return _Network(address.name, carrier, Changes() if alarms else everything)


def _control(address: MqttAddress, log: Log, state: Path | None) -> OwnerRequests | None:
    """Return what obeys the owner's messages, if the address allows them."""
    from edge_runtime.sinks.control import OwnerRequests

    if (control := address.options.get("control", "0")) not in ("0", "1"):
        raise GruardError(f"{address.name}: control={control} is neither 0 nor 1")
    if control == "0":
        return None
    if state is None:
        raise GruardError(
            f"{address.name}: control=1 needs a live source and a state folder; add --state FOLDER"
        )
    name = set_topic(address.name)
    return OwnerRequests(state, name, time.monotonic, time.time, log)


def _without_journal(run: str, network: _Network, log: Log, patience: float) -> MonitoredSink:
    from edge_runtime.journal.journal import Backlog, Reader
    from edge_runtime.sinks.outbox import Outbox, Sender

    backlog = Backlog(patience=patience)
    posting = Sender(network.name, Reader(backlog, backlog.newest), network.carrier, log)
    return Outbox(run, backlog, [posting], network.wanted)


def _with_journal(
    run: str, networks: Sequence[_Network], place: JournalPlace, log: Log, patience: float
) -> MonitoredSink:
    from edge_runtime.journal.journal import open_journal
    from edge_runtime.sinks.outbox import Outbox, Sender

    journal = open_journal(place.folder, place.capacity, log, time.monotonic, patience)
    postings = []
    for network in networks:
        reader, cursor = journal.reader(network.name)
        postings.append(Sender(network.name, reader, network.carrier, log, cursor, network.wanted))
    return Outbox(run, journal, postings)
