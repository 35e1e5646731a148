"""Commands on a run: `gruard status`, `gruard top`, `gruard accept` and `gruard journal`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_runtime.commands.options import warn
from edge_runtime.errors import GruardError

if TYPE_CHECKING:
    from edge_runtime.detector.lasting_change import KeptChange

LONGEST_REASON = 200  # characters
SERVICES = Path("/var/lib/gruard")
"""Where services keep their state, each in one folder."""


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def status(file: Path | None, as_json: bool) -> None:
    """Print the state of a run that was started with --status FILE.

    Default for FILE is that of the service: $RUNTIME_DIRECTORY/status.json, or the one below
    /run/gruard.

    \b
    Exit code
      0  healthy: a model answered the last sample, and no alarm is on
      1  an alarm is on
      2  FILE cannot be read, or is no status file
      3  no healthy model answered the last sample, or no run is alive: there is no file, or its
         process has ended, was killed, is stopped or hangs. The first line says which
    Example: gruard status /run/gruard/status.json || notify-send "check the pump"
    """
    from edge_runtime.status.health import judge_now
    from edge_runtime.status.screen import printable, to_text
    from edge_runtime.status.snapshot import read_status

    snapshot = read_status(_place(file))
    verdict = judge_now(snapshot, time.monotonic())
    if as_json:
        click.echo(json.dumps(vars(verdict) | {"snapshot": snapshot}, default=vars))
    else:
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        click.echo("\n".join(map(printable, to_text(snapshot, verdict))))
    sys.exit(verdict.code)


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
def top(file: Path | None) -> None:
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
            verdict = judge_now(snapshot, time.monotonic())
            terminal.draw(screen(snapshot, verdict, str(path), *size()))
            quits = terminal.wait(1.0)


def _place(file: Path | None) -> Path:
    from edge_runtime.status.snapshot import place_of_service, service_file

    return file or service_file(os.environ) or place_of_service()


class NothingError(GruardError):
    """No change can be accepted or reopened."""

    exit_code = 1


def _printable(context: click.Context, parameter: click.Parameter, reason: str) -> str:
    from edge_runtime.plain import UNPRINTABLE

    if UNPRINTABLE.search(reason) or len(reason) > LONGEST_REASON:
        raise click.BadParameter(f"one line of at most {LONGEST_REASON} characters is expected")
    return reason


@click.command()
@click.option("--reason", default="", callback=_printable, help="Why; stored, logged and shown.")
@click.option("--undo", is_flag=True, help="Undo: the change is open again.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="The state folder of the run.  [default: STATE_DIRECTORY, else that of the service]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the change as one JSON object.")
def accept(reason: str, undo: bool, state: Path | None, as_json: bool) -> None:
    """Accept a reported change: the machine is to run like this from now on.

    A change that lasts is reported once, and every record is flagged CHANGED from then on
    (docs/changes.md). Accepting it ends the flag: the score, too, is judged against the changed
    machine. A run applies it within seconds, or when it starts; the next change is reported again.
    If the machine stays so, it is best to record it and convert a new bundle.

    \b
    Exit code 0: accepted, or undone; 1: there is nothing to accept, or to undo; 2: a problem you
    can fix.
    Example: gruard accept --reason "new bearing"
    """
    from edge_runtime.detector.lasting_change import WORD, Word
    from edge_runtime.plain import write_sealed

    folder = state or _folder()
    kept = _kept(folder, undo)
    assert kept.finding is not None
    word = Word(kept.bundle, kept.finding.since, not undo, reason, time.time())
    try:
        write_sealed(folder / WORD, word)
    except OSError as error:
        raise GruardError(f"{folder / WORD}: cannot be written ({error.strerror})") from None
    if as_json:
        change = {"since": kept.finding.since, "channels": kept.finding.channels}
        outcome = {"accepted": not undo, **change, "reason": reason, "file": str(folder / WORD)}
        click.echo(json.dumps(outcome))
        return
    done = "is open again" if undo else "is accepted"
    click.echo(f"{_named(kept)} {done}; a run applies this within seconds, or when it starts")


def _kept(folder: Path, undo: bool) -> KeptChange:
    """Read what the run keeps; its change must be open or, with `undo`, accepted."""
    from edge_runtime.detector.lasting_change import KEPT, WORD, KeptChange, Word
    from edge_runtime.plain import read_sealed

    kept = read_sealed(folder / KEPT, KeptChange)
    if kept is None or kept.finding is None:
        raise NothingError(f"{folder}: no change is reported; the machine runs as recorded")
    accepted = kept.finding.accepted is not None
    try:
        word = read_sealed(folder / WORD, Word)
    except GruardError:  # the run ignores a damaged one, too; this command replaces it
        word = None
    if word is not None and word.names(kept):
        accepted = word.accepted
    if accepted and not undo:
        raise NothingError(f"{_named(kept)} is accepted already; --undo reverts that")
    if undo and not accepted:
        raise NothingError(f"{_named(kept)} is not accepted; there is nothing to undo")
    return kept


def _named(kept: KeptChange) -> str:
    from edge_runtime.status.health import finding_words

    assert kept.finding is not None
    return f"the change{finding_words(kept.finding, time.time())}"


def _folder() -> Path:
    """Return the state folder of the calling service, or of the only service here."""
    from edge_runtime.detector.lasting_change import KEPT
    from edge_runtime.supervision.starts import service_folder

    if own := service_folder(os.environ, "STATE_DIRECTORY"):
        return own
    folders = sorted(file.parent for file in SERVICES.glob(f"*/{KEPT}"))
    if len(folders) > 1:
        raise GruardError(f"several services run here, name one: {', '.join(map(str, folders))}")
    if not folders:
        raise GruardError(
            f"no service below {SERVICES} keeps a change, or reading it needs sudo; --state names "
            "the folder of a run"
        )
    return folders[0]


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
