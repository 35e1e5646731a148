"""`gruard record` and `gruard readings`: raw readings into a folder, and out of it as CSV."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.commands import ranges
from edge_runtime.commands.options import names, warn
from edge_runtime.commands.run import INTERRUPTED, Terminated, end_in_good_order

if TYPE_CHECKING:  # imported where it is used, so that --help answers at once
    from edge_runtime.errors import Complaints
    from edge_runtime.readings.meter import Meter
    from edge_runtime.readings.parts import Row
    from edge_runtime.readings.recorder import Recorder
    from edge_runtime.sources.source import Source
    from edge_runtime.supervision.liveness import Notifier
    from edge_runtime.supervision.summary import Console
    from edge_runtime.threads import Threads

_LOST_READINGS = 1
_TOLD_EVERY = 600.0
"""Seconds between two lines about how it goes, where no terminal shows it."""
_FULL_WAIT = 0.02
"""Seconds that a recording waits for the disk, which a live source does not."""
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


@click.command()
@click.option(
    "--source",
    required=True,
    metavar="FILE|-|KIND:PLACE",
    help="What to record, as of gruard run: CSV or JSON lines in a file or from - (stdin), or "
    "serial:, mqtt:, mqtts:, iio:, modbus:, python:.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder of the recording; made if need be, continued if it is there.",
)
@click.option(
    "--period",
    type=ranges.PERIOD,
    metavar="S",
    help="Seconds between readings, for sources that are asked: modbus:, iio:, mqtt:…/+, python:.",
)
@click.option(
    "--channels",
    callback=names,
    metavar="A,B,…",
    help="Record only these; needed where the source does not name its own: mqtt:, python:, and "
    "serial: without ?columns=.",
)
@click.option(
    "--megabytes",
    type=ranges.JOURNAL_MEGABYTES,
    default=2000,
    show_default=True,
    metavar="MB",
    help="Drop the oldest readings beyond this.",
)
@click.option("--json", "as_json", is_flag=True, help="Summary as one JSON line on stderr.")
def record(
    source: str,
    out: Path,
    period: float | None,
    channels: tuple[str, ...],
    megabytes: int,
    as_json: bool,
) -> None:
    """Record the raw readings of a source, to learn from them later. No bundle is needed.

    Every reading is written as it came, with the time of the source, or else of this machine, into
    compressed CSV files by day. They outlast a power cut but for the last 5 seconds. The same
    command continues the recording. A full disk is waited for.

    Ctrl-C ends it, and so does SIGTERM, as of timeout(1). Exit code: 0, also after SIGTERM, 1 if
    readings were lost, 2 for a problem you can mend, 130 after Ctrl-C.

    \b
    A day of a PLC, once a second, and then a model of it:
      timeout 1d gruard record --period 1 --out pump/ \\
          --source 'modbus://192.168.1.20/1?registers=flow:holding:40001:int16'
      gruard readings pump/ --out pump.csv
      python -m train fit pump.csv --out runs/pump
    What a script prints:
      read-sensors | gruard record --source - --out pump/
    """
    from edge_runtime.errors import Complaints
    from edge_runtime.readings.meter import Meter
    from edge_runtime.readings.named_source import open_named
    from edge_runtime.readings.recorder import open_recorder
    from edge_runtime.supervision.liveness import Notifier
    from edge_runtime.supervision.summary import Console
    from edge_runtime.threads import Threads

    end_in_good_order()
    clock = time.monotonic
    console = Console(sys.stderr, clock)
    complaints = Complaints(console.log)
    code = 0
    try:
        opened, found = open_named(source, channels, period, complaints)
        try:
            recorder = open_recorder(out, found, megabytes * 1_000_000, console.log)
        except BaseException:
            opened.close()
            raise
    except Terminated:
        sys.exit(0)  # nothing was read yet
    console.log(f"{out}: records {', '.join(found)}; up to {megabytes} MB, then the oldest go")
    threads = Threads(console.log, clock)
    threads.watch((*getattr(opened, "threads", ()), recorder.thread))
    meter = Meter(period, opened.live, clock())
    manager = Notifier(os.environ, clock)
    manager.ready("records")
    try:
        _follow(opened, recorder, meter, threads, console, manager, out)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Terminated:
        pass
    finally:
        manager.stopping()
        opened.close()
        recorder.close()
        console.finish(_summary(out, recorder, meter, complaints, as_json))
    sys.exit(code or (_LOST_READINGS if recorder.lost else 0))


def _follow(
    source: Source,
    recorder: Recorder,
    meter: Meter,
    threads: Threads,
    console: Console,
    manager: Notifier,
    out: Path,
) -> None:
    """Record to the end of the source."""
    told = time.monotonic()
    while True:
        try:
            reading = source.read(1.0)
        except EOFError:
            return meter.finish(time.monotonic())
        while recorder.full and not source.live:
            time.sleep(_FULL_WAIT)
            threads.look()
        now = time.monotonic()
        if reading is not None:
            recorder.add(reading, now)
        meter.see(reading, now)
        threads.look()
        console.progress(lambda: _status(out, recorder, meter))
        manager.beat(meter.readings, lambda: _status(out, recorder, meter))
        if not sys.stderr.isatty() and now - told >= _TOLD_EVERY:
            told = now
            console.log(_status(out, recorder, meter))


def _status(out: Path, recorder: Recorder, meter: Meter) -> str:
    from edge_runtime.readings.part_writer import spare_room

    parts = [f"{meter.readings:,} readings", f"{meter.rate:.3g}/s", f"{meter.missing:,} missing"]
    parts += [f"{recorder.lost:,} lost"] if recorder.lost else []
    parts += [f"{recorder.size / 1e6:.1f} MB"]
    with suppress(OSError):  # the disk may be away
        parts += [f"room for {max(spare_room(out), 0) / 1e9:.1f} GB"]
    return ", ".join(parts)


def _summary(
    out: Path, recorder: Recorder, meter: Meter, complaints: Complaints, as_json: bool
) -> str:
    found: dict[str, Any] = {
        "readings": recorder.written,
        "lost": recorder.lost,
        "missing": meter.missing,
        "bad_cells": complaints.cells,
        "bad_rows": complaints.rows,
        "outages": complaints.outages,
        "first": meter.first,
        "last": meter.last,
        "bytes": recorder.size,
        "folder": str(out),
    }
    if as_json:
        return json.dumps(found)
    words = [f"{found[key]:,} {key.replace('_', ' ')}" for key in list(found)[:6] if found[key]]
    return f"recorded {', '.join(words) or 'nothing'}; {out} has {recorder.size / 1e6:.1f} MB"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.option("--from", "start", metavar="TIME", help="From this time on.  [default: the first]")
@click.option("--to", "end", metavar="TIME", help="Up to, not including, this time.")
@click.option("--channels", callback=names, metavar="A,B,…", help="Only these, in this order.")
@click.option("--out", default="-", metavar="FILE.csv|-", help="Where to.  [default: stdout]")
@click.option("--force", is_flag=True, help="Overwrite the output file.")
def readings(
    folder: Path,
    start: str | None,
    end: str | None,
    channels: tuple[str, ...],
    out: str,
    force: bool,
) -> None:
    """Give recorded readings as CSV: of gruard record, or of gruard run --keep-readings.

    A column `time` in seconds, as the source gave it, and one for each channel: a file for
    python -m train fit, gruard replay and gruard run. It may be read while it is recorded. Damaged
    bytes are skipped, and the times between which they lie are told.

    TIME is ISO 8601 (UTC without a zone), a number of seconds as in a record's time, or 30s, 10m,
    2h, 3d, 1w: so long before the newest reading.

    \b
    Exit code 0: done; 2: a problem you can mend, or no reading in that time.
    Examples:
      gruard readings pump/ --out pump.csv
      gruard readings pump/ --from 2h --channels flow,pressure
      gruard readings pump/ --from 2026-12-01T06:00 --to 2026-12-01T07:30+01:00
    """
    from edge_runtime.errors import GruardError
    from edge_runtime.files import output, refuse_to_overwrite
    from edge_runtime.readings.parts import (
        header,
        last_row,
        parts_in,
        read_channels,
        read_rows,
        time_words,
    )
    from edge_runtime.sources.csvlayout import channel_order

    refuse_to_overwrite(out, force)
    parts = parts_in(folder)
    own = read_channels(folder) or ()
    places = [int(i) + 1 for i in channel_order(own, channels or own, folder)]
    newest = last_row(folder, parts, len(own))
    if newest is None:
        raise GruardError(f"{folder}: has no reading that is whole")
    first, limit = (_moment(text, newest.time) for text in (start, end))
    rows = _between(read_rows(folder, parts, len(own), warn), first, limit)
    row = next(rows, None)
    if row is None:
        oldest = next(read_rows(folder, parts, len(own), lambda line: None))
        there = f"{time_words(oldest.time)} to {time_words(newest.time)}"
        raise GruardError(f"{folder}: has no reading in that time; those there are {there}")
    begin, count = row.time, 0
    try:
        with output(out, force) as stream:
            stream.write(header(channels or own).replace("time,monotonic,", "time,", 1))
            for row in chain([row], rows):  # noqa: B020 – the first of them, and the others
                cells = [row.cells[0], *[row.cells[place] for place in places]]
                stream.write(",".join(cells) + "\n")
                count += 1
            stream.flush()
    except BrokenPipeError:  # its reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    warn(f"{count:,} readings, {time_words(begin)} to {time_words(row.time)}")


def _between(rows: Iterator[Row], first: float | None, limit: float | None) -> Iterator[Row]:
    for row in rows:
        if (first is None or row.time >= first) and (limit is None or row.time < limit):
            yield row


def _moment(text: str | None, newest: float) -> float | None:
    """The time that a user wrote, in seconds."""
    from edge_runtime.errors import GruardError
    from edge_runtime.sources.csvcell import seconds

    if text is None:
        return None
    if found := re.fullmatch(r"-?(\d{1,9}(?:\.\d{1,9})?)([smhdw])", text):
        return newest - float(found[1]) * _UNITS[found[2]]
    try:
        return seconds(text)
    except (ValueError, OverflowError):
        raise GruardError(
            f"{text!r} is not a time; write 2026-12-01T06:00, a number of seconds, or 2h"
        ) from None
