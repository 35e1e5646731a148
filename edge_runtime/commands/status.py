"""Commands that show a run: `gruard status`, `gruard top` and `gruard journal`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import click

from edge_runtime.commands.options import language_option, warn
from edge_runtime.errors import GruardError


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@language_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def status(file: Path | None, language: str, as_json: bool) -> None:
    """Print the state of a run that was started with --status FILE.

    Default for FILE is that of the service: $RUNTIME_DIRECTORY/status.json, or the one below
    /run/gruard.

    \b
    Exit code
      0  healthy: a model answered the last sample, and no alarm is on or alarms are muted
      1  an alarm is on and not muted
      2  FILE cannot be read, or is no status file
      3  no healthy model answered the last sample, or no run is alive: there is no file, or its
         process has ended, was killed, is stopped or hangs. The first line says which
    Example: gruard status /run/gruard/status.json || notify-send "check the pump"
    """
    from edge_runtime.status.health import judge_now
    from edge_runtime.status.screen import printable, to_text
    from edge_runtime.status.snapshot import read_status

    snapshot = read_status(_place(file))
    verdict = judge_now(snapshot, time.monotonic(), language)
    if as_json:
        click.echo(json.dumps(vars(verdict) | {"snapshot": snapshot}, default=vars))
    else:
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        click.echo("\n".join(map(printable, to_text(snapshot, verdict))))
    sys.exit(verdict.code)


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@language_option
def top(file: Path | None, language: str) -> None:
    """Watch a run live that was started with --status FILE; renewed each second, q quits.

    The curve shows the score as a share of its threshold (limit), the highest of each second. FILE
    is as for gruard status. The run may start, end and start again while you watch.
    """
    from edge_runtime.status.health import judge_now
    from edge_runtime.status.screen import borrowed, screen, size
    from edge_runtime.status.snapshot import read_status

    path = _place(file)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise GruardError("top needs a terminal, and this is none; use gruard status")
    read_status(path)  # a file of something else is refused before the screen is cleared
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    with borrowed(coloured="NO_COLOR" not in os.environ) as terminal:
        quits = False
        while not quits:
            snapshot = read_status(path)
            verdict = judge_now(snapshot, time.monotonic(), language)
            terminal.draw(screen(snapshot, verdict, str(path), *size()))
            quits = terminal.wait(1.0)


def _place(file: Path | None) -> Path:
    from edge_runtime.status.snapshot import place_of_service, service_file

    return file or service_file(os.environ) or place_of_service()


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def journal(folder: Path) -> None:
    """Print the records in DIR, the journal of a run, oldest first. Does not change it.

    The run may be active. The number of records is printed to stderr, with the number of those
    missing between them (damaged, or lost in a power cut), and of entries skipped because they are
    no records that this version understands.

    Example: gruard journal /var/lib/gruard/journal > records.jsonl
    """
    from edge_runtime.journal.segments import JournalDisk, entries_after
    from edge_runtime.sinks.outbox import fields_of

    printed = missing = skipped = last = 0
    try:
        for entry in entries_after(JournalDisk(folder), 0):
            missing += entry.sequence - last - 1 if last else 0
            last = entry.sequence
            try:
                fields_of(entry.message)
            except ValueError:
                skipped += 1
                continue
            click.echo(entry.message)
            printed += 1
    except BrokenPipeError:
        raise
    except OSError as error:
        raise GruardError(f"{folder}: cannot be read as a journal ({error.strerror})") from None
    others = f", {skipped} skipped as no records" if skipped else ""
    warn(f"{printed} records, {missing} missing between them{others}")
