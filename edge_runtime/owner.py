"""What an owner tells a run: accept a change, mute alarms, unmute them, mark an alarm.

Each function writes a small file in the state folder. The run reads a mute and an acceptance within
a second, or when it starts; marks are for learning again. Commands and MQTT call the same
functions. They raise GruardError, and NothingError when there is nothing to do. `now` is epoch
seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from edge_runtime.alarm import Alarm
from edge_runtime.alarms.log import read_alarms
from edge_runtime.detector.lasting_change import KEPT as KEPT_CHANGE
from edge_runtime.detector.lasting_change import WORD as CHANGE_WORD
from edge_runtime.detector.lasting_change import KeptChange, Word
from edge_runtime.errors import GruardError, reason
from edge_runtime.files import sync
from edge_runtime.marks import AlarmMark, append_mark, read_marks
from edge_runtime.mute import MOST_PAST, PAST, Mute, PastMutes
from edge_runtime.mute import WORD as MUTE_WORD
from edge_runtime.plain import UNPRINTABLE, read_sealed, shown, write_sealed
from edge_runtime.status.health import finding_words
from edge_runtime.supervision.starts import MARKER

LONGEST_TEXT = 200  # characters of a reason or a note
LAST = "last"
_COARSE = 1.0  # seconds; times are shown in whole ones


class NothingError(GruardError):
    """There is nothing to accept, undo, unmute or mark."""

    exit_code = 1


def checked_text(text: str) -> str:
    """Return a reason or a note, which must be one short printable line."""
    if UNPRINTABLE.search(text) or len(text) > LONGEST_TEXT:
        raise GruardError(f"one line of at most {LONGEST_TEXT} characters is expected")
    return text


def mute(folder: Path, seconds: float, why: str, now: float) -> Mute:
    """Mute the alarms of the run for so many seconds from now; replaces an earlier mute."""
    _require_run(folder)
    word = Mute(now, now + seconds, checked_text(why))
    _remember(folder, now)
    _write(folder / MUTE_WORD, word)
    return word


def unmute(folder: Path, now: float) -> None:
    """End the mute."""
    _require_run(folder)
    file = folder / MUTE_WORD
    try:
        word = read_sealed(file, Mute)
        if word is None or word.ends <= now:
            raise NothingError(f"{folder}: alarms are not muted")
    except NothingError:
        raise
    except GruardError:
        pass  # the run ignores a damaged one; this removes it
    _remember(folder, now)
    try:
        file.unlink(missing_ok=True)
        sync(folder)
    except OSError as error:
        raise GruardError(f"{file}: cannot be removed ({reason(error)})") from None


def _remember(folder: Path, now: float) -> None:
    """Keep the word on muting, which ends now, among the past ones. Damaged files are ignored."""
    try:
        word = read_sealed(folder / MUTE_WORD, Mute)
    except GruardError:
        word = None
    if word is None or now <= word.started:
        return
    try:
        past = read_sealed(folder / PAST, PastMutes) or PastMutes()
    except GruardError:
        past = PastMutes()
    ended = replace(word, ends=min(word.ends, now))
    _write(folder / PAST, PastMutes((*past.mutes, ended)[-MOST_PAST:]))


def accept(folder: Path, undo: bool, why: str, now: float) -> KeptChange:
    """Accept the reported change of the machine, or open it again; return it."""
    kept = _open_change(folder, undo, now)
    assert kept.finding is not None
    word = Word(kept.bundle, kept.finding.since, not undo, checked_text(why), now)
    _write(folder / CHANGE_WORD, word)
    return kept


def change_words(kept: KeptChange, now: float) -> str:
    """Return `the change since 07:32 on flow`."""
    assert kept.finding is not None
    return f"the change{finding_words(kept.finding, now)}"


def mark(folder: Path, which: str, real: bool, note: str, now: float) -> AlarmMark:
    """Mark an alarm as real or false; the same mark twice is written once.

    which: `last`, its id, the index or time of one of its records, or its local time, as
    `2026-12-01 03:12:05`.
    """
    _require_run(folder)
    alarms = read_alarms(folder)
    if not alarms:
        raise NothingError(f"{folder}: the run remembers no alarm")
    word = AlarmMark(find_alarm(alarms, which), real, checked_text(note), now)
    before = next((m for m in reversed(read_marks(folder)[0]) if m.alarm.is_of(word.alarm)), None)
    if before is None or (before.real, before.note) != (real, note):
        append_mark(folder, word)
    return word


def find_alarm(alarms: Sequence[Alarm], which: str) -> Alarm:
    """Return the newest alarm that `which` names, as in `mark`."""
    if which == LAST:
        return alarms[-1]
    found = [alarm for alarm in alarms if alarm.id == which]
    found = found or [alarm for alarm in alarms if _is_named(alarm, which)]
    if not found:
        raise NothingError(f"no alarm {shown(which)} is remembered; gruard marks lists them")
    return found[-1]


def _is_named(alarm: Alarm, which: str) -> bool:
    if which.isascii() and which.isdigit():
        return len(which) < 16 and alarm.index <= int(which) <= alarm.last
    try:
        time, start = float(which), alarm.start
    except ValueError:
        time, start = _epoch(which), alarm.began
    return start - _COARSE <= time <= start + max(alarm.end - alarm.start, 0.0) + _COARSE


def _epoch(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise GruardError(
            f"{shown(text)} names no alarm; write last, the index of a record, or a time such as "
            "2026-12-01T03:12:05"
        ) from None


def _open_change(folder: Path, undo: bool, now: float) -> KeptChange:
    """Read what the run keeps; its change must be open or, with `undo`, accepted."""
    kept = read_sealed(folder / KEPT_CHANGE, KeptChange)
    if kept is None or kept.finding is None:
        raise NothingError(f"{folder}: no change is reported; the machine runs as recorded")
    accepted = kept.finding.accepted is not None
    try:
        word = read_sealed(folder / CHANGE_WORD, Word)
    except GruardError:  # the run ignores a damaged one, too; this replaces it
        word = None
    if word is not None and word.names(kept):
        accepted = word.accepted
    if accepted and not undo:
        raise NothingError(f"{change_words(kept, now)} is accepted already; --undo reverts that")
    if undo and not accepted:
        raise NothingError(f"{change_words(kept, now)} is not accepted; there is nothing to undo")
    return kept


def _require_run(folder: Path) -> None:
    """Raise GruardError unless a run keeps its state in `folder`: a typing mistake is silent."""
    try:
        found = (folder / MARKER).is_file()
    except OSError as error:
        raise GruardError(f"{folder}: cannot be read ({reason(error)}); try sudo") from None
    if not found:
        raise GruardError(
            f"{folder}: no run keeps its state here; name the folder of gruard run --state"
        )


def _write(file: Path, word: Mute | PastMutes | Word) -> None:
    try:
        write_sealed(file, word)
    except OSError as error:
        raise GruardError(f"{file}: cannot be written ({reason(error)})") from None
