"""Commands by which an owner answers a run: `gruard accept`, `mute`, `unmute`, `mark`, `marks`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.commands.options import language_option, warn
from edge_runtime.errors import GruardError

if TYPE_CHECKING:
    from edge_runtime.alarm import Alarm
    from edge_runtime.marks import AlarmMark

SERVICES = Path("/var/lib/gruard")
"""Where services keep their state, each in one folder."""


def _text(context: click.Context, parameter: click.Parameter, text: str) -> str:
    from edge_runtime.owner import checked_text

    try:
        return checked_text(text)
    except GruardError as error:
        raise click.BadParameter(str(error)) from None


def run_folder(folder: Path | None) -> Path:
    """Return the state folder that is named, of the calling service, or of the only service here.

    Raises GruardError when there are several or none.
    """
    from edge_runtime.supervision.starts import MARKER, service_folder

    if named := folder or service_folder(os.environ, "STATE_DIRECTORY"):
        return named
    folders = sorted(file.parent for file in SERVICES.glob(f"*/{MARKER}"))
    if len(folders) > 1:
        raise GruardError(f"several services run here, name one: {', '.join(map(str, folders))}")
    if not folders:
        raise GruardError(
            f"no service keeps its state below {SERVICES}, or reading it needs sudo; --state names "
            "the folder of a run"
        )
    return folders[0]


def _option(name: str, text: str) -> Callable[[Any], Any]:
    return click.option(name, default="", callback=_text, metavar="TEXT", help=text)


reason_option = _option("--reason", "Why; stored, logged and shown.")
state_option = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="The state folder of the run.  [default: STATE_DIRECTORY, else that of the service]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.command()
@reason_option
@click.option("--undo", is_flag=True, help="Undo: the change is open again.")
@state_option
@json_option
def accept(reason: str, undo: bool, state: Path | None, as_json: bool) -> None:
    """Accept a reported change: the machine is to run like this from now on.

    A change that lasts is reported once, and every record is flagged CHANGED from then on
    (docs/changes.md). Accepting it ends the flag: the score, too, is judged against the changed
    machine. A run applies it within seconds, or when it starts; the next change is reported again.
    If the machine stays so, it is best to learn it again (gruard relearn). A channel that has crept
    for days, and so kept a candidate of gruard relearn out, is accepted in the same way.

    \b
    Exit code 0: accepted, or undone; 1: there is nothing to accept, or to undo; 2: a problem you
    can fix.
    Example: gruard accept --reason "new bearing"
    """
    from edge_runtime import owner
    from edge_runtime.detector.lasting_change import WORD
    from edge_runtime.learning.answers import ACCEPTED_CREEPS, accept_creeps

    folder = run_folder(state)
    try:
        kept = owner.accept(folder, undo, reason, time.time())
    except owner.NothingError:
        if undo or not (channels := accept_creeps(folder)):
            raise
        said = {"accepted": True, "channels": channels, "file": str(folder / ACCEPTED_CREEPS)}
        words = f"what {', '.join(channels)} did is accepted; gruard relearn takes it as normal"
        click.echo(json.dumps(said) if as_json else words)
        return
    assert kept.finding is not None
    if as_json:
        change = {"since": kept.finding.since, "channels": kept.finding.channels}
        outcome = {"accepted": not undo, **change, "reason": reason, "file": str(folder / WORD)}
        click.echo(json.dumps(outcome))
        return
    done = "is open again" if undo else "is accepted"
    what = owner.change_words(kept, time.time())
    click.echo(f"{what} {done}; a run applies this within seconds, or when it starts")


@click.command()
@click.argument("duration")
@reason_option
@state_option
@json_option
def mute(duration: str, reason: str, state: Path | None, as_json: bool) -> None:
    """Mute alarms for DURATION, such as 30m, 8h or 2d; at most 30d.

    Muted alarms are recorded, counted and sent as ever, with the flag MUTED, and gruard status
    does not exit with 1 for them. A run applies it within seconds, or when it starts. A second
    mute replaces the first; gruard unmute ends it.

    \b
    Exit code 0: muted; 2: a problem you can fix.
    Example: gruard mute 8h --reason "cleaning the pump"
    """
    from edge_runtime import owner
    from edge_runtime.mute import WORD, parse_duration
    from edge_runtime.status.health import mute_words

    seconds, folder = parse_duration(duration), run_folder(state)
    word = owner.mute(folder, seconds, reason, time.time())
    if as_json:
        click.echo(json.dumps({"muted": True, **vars(word), "file": str(folder / WORD)}))
        return
    words = mute_words(word, word.started)
    click.echo(f"alarms are muted{words}; a run applies this within seconds, or when it starts")


@click.command()
@state_option
@json_option
def unmute(state: Path | None, as_json: bool) -> None:
    """End the mute of gruard mute: alarms count again.

    \b
    Exit code 0: unmuted; 1: alarms are not muted; 2: a problem you can fix.
    Example: gruard unmute
    """
    from edge_runtime import owner
    from edge_runtime.mute import WORD

    folder = run_folder(state)
    owner.unmute(folder, time.time())
    if as_json:
        click.echo(json.dumps({"muted": False, "file": str(folder / WORD)}))
        return
    click.echo("alarms are no longer muted; a run applies this within seconds, or when it starts")


@click.command()
@click.argument("alarm")
@click.argument("verdict", metavar="false|real", type=click.Choice(["false", "real"]))
@_option("--note", "Why; stored with the mark.")
@state_option
@language_option
@json_option
def mark(
    alarm: str, verdict: str, note: str, state: Path | None, language: str, as_json: bool
) -> None:
    """Mark ALARM as a false alarm or a real one, for learning again.

    ALARM is last, its id or its local time as gruard marks shows them, or the index or the time of
    one of its records. The last mark of an alarm counts. Marks change nothing in a run.

    \b
    Exit code 0: marked; 1: there is no such alarm; 2: a problem you can fix.
    Example: gruard mark last false --note "the pump was cleaned"
    """
    from edge_runtime import owner

    word = owner.mark(run_folder(state), alarm, verdict == "real", note, time.time())
    if as_json:
        click.echo(json.dumps(_fields(word.alarm, word, language)))
        return
    click.echo(f"marked as {_verdict(word)}: {_alarm_line(word.alarm, language)}")


@click.command()
@state_option
@language_option
@json_option
def marks(state: Path | None, language: str, as_json: bool) -> None:
    """List the last alarms of a run and all marked ones, oldest first, with their marks.

    The first column is the id by which gruard mark and gruard picture name an alarm. --json prints
    one JSON object a line, with the readings of the blamed channels and what was expected of them;
    start and end are times of records.

    Example: gruard marks
    """
    from edge_runtime.alarms.log import read_alarms
    from edge_runtime.marks import read_marks

    folder = run_folder(state)
    told, damaged = read_marks(folder)
    listed = {a.key: a for a in (*(m.alarm for m in told), *read_alarms(folder))}
    newest = {each.alarm.key: each for each in told}
    for key, alarm in sorted(listed.items(), key=lambda item: item[0][1]):
        word = newest.get(key)
        if as_json:
            click.echo(json.dumps(_fields(alarm, word, language)))
        else:
            note = f" ({word.note})" if word and word.note else ""
            click.echo(_alarm_line(alarm, language) + (f"  {_verdict(word)}{note}" if word else ""))
    if not listed:
        warn(f"{folder}: no alarm is remembered")
    if damaged:
        warn(f"{folder}: {damaged} damaged marks are skipped")


def _verdict(word: AlarmMark) -> str:
    return "real" if word.real else "false"


def _fields(alarm: Alarm, word: AlarmMark | None, language: str) -> dict[str, object]:
    from edge_runtime.words import alarm_text

    fields = alarm.fields() | {"text": alarm_text(alarm, language)}
    if word is None:
        return fields | {"mark": None}
    return fields | {"mark": _verdict(word), "note": word.note, "told": word.told}


def _alarm_line(alarm: Alarm, language: str) -> str:
    from edge_runtime.status.health import duration
    from edge_runtime.words import alarm_text

    try:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(alarm.began))
    except (OverflowError, ValueError, OSError):  # no such year
        began = str(alarm.began)
    lasted = duration(max(alarm.end - alarm.start, 0.0))
    return f"{alarm.id:<20} {began}  {lasted:<13} {alarm_text(alarm, language)}"
