"""What the owner has said of the past: marks on alarms, accepted changes and creeps, mutes.

Each is a file of the state folder. `gruard relearn` writes the creeps that keep a candidate out to
`creeps.json`, and `gruard accept` writes those that are accepted into `accepted-creeps.json`. The
times that were left out because of a fault are remembered in `left-out.json`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.alarms.log import CAPACITY, read_alarms
from edge_runtime.detector.lasting_change import WORD as CHANGE_WORD
from edge_runtime.detector.lasting_change import Word
from edge_runtime.errors import GruardError, reason
from edge_runtime.marks import read_marks
from edge_runtime.mute import PAST, Mute, PastMutes
from edge_runtime.mute import WORD as MUTE_WORD
from edge_runtime.plain import read_sealed, write_sealed

CREEPS, ACCEPTED_CREEPS = "creeps.json", "accepted-creeps.json"
LEFT_OUT = "left-out.json"
"""Names of the files in the state folder."""


@dataclass(frozen=True)
class TimeSpan:
    """A stretch of time, both ends included, in seconds of the readings."""

    start: float
    end: float


@dataclass(frozen=True)
class AnsweredAlarm:
    """An alarm that a run logged. real: as the owner marked it; None while nobody has."""

    span: TimeSpan
    real: bool | None


@dataclass(frozen=True)
class AcceptedCreep:
    """The owner accepted at `told` seconds that `channel` had crept."""

    channel: str
    told: float


@dataclass(frozen=True)
class AcceptedCreeps:
    """The last one of each channel, in seconds of the readings."""

    creeps: tuple[AcceptedCreep, ...] = ()


@dataclass(frozen=True)
class FoundCreeps:
    """The channels that crept at `until` seconds of the readings, worst first."""

    channels: tuple[str, ...]
    until: float


@dataclass(frozen=True)
class LeftOut:
    """Times that are left out for good, in seconds of the readings."""

    spans: tuple[TimeSpan, ...] = ()


@dataclass(frozen=True)
class OwnerAnswers:
    """alarms: all that the run raised since `complete_since` seconds, and some before.

    accepted: from the report of a change until it was accepted. muted: alarms were muted.
    left_out: a fault, as far as it was found when learning again before.
    """

    alarms: tuple[AnsweredAlarm, ...] = ()
    complete_since: float = math.inf
    accepted: tuple[TimeSpan, ...] = ()
    creeps: tuple[AcceptedCreep, ...] = ()
    muted: tuple[TimeSpan, ...] = ()
    left_out: tuple[TimeSpan, ...] = ()


def read_answers(folder: Path, ahead: float) -> OwnerAnswers:
    """Read what a run and its owner have written into the state folder. Raises GruardError.

    ahead: seconds by which the host's clock is ahead of the times of the readings.
    """
    marks = read_marks(folder)[0]
    marked = {mark.alarm.key: mark for mark in marks}
    last = read_alarms(folder)
    logged = {alarm.key: alarm for alarm in (*(mark.alarm for mark in marks), *last)}
    complete_since = -math.inf if len(last) < CAPACITY else last[0].start
    alarms = [
        AnsweredAlarm(TimeSpan(alarm.start, alarm.end), marked[key].real if key in marked else None)
        for key, alarm in logged.items()
    ]
    word = read_sealed(folder / CHANGE_WORD, Word)
    accepted = [TimeSpan(word.since - ahead, word.told - ahead)] if word and word.accepted else []
    past, mute = read_sealed(folder / PAST, PastMutes), read_sealed(folder / MUTE_WORD, Mute)
    mutes = [*(past.mutes if past else ()), *([mute] if mute else [])]
    muted = [TimeSpan(each.started - ahead, each.ends - ahead) for each in mutes]
    creeps = (read_sealed(folder / ACCEPTED_CREEPS, AcceptedCreeps) or AcceptedCreeps()).creeps
    left_out = (read_sealed(folder / LEFT_OUT, LeftOut) or LeftOut()).spans
    return OwnerAnswers(
        tuple(alarms), complete_since, tuple(accepted), creeps, tuple(muted), left_out
    )


def write_found(
    folder: Path, channels: Sequence[str], until: float, left_out: Sequence[TimeSpan]
) -> None:
    """Replace what creeps, maybe nothing, and what is left out for good. Raises GruardError."""
    file = folder / CREEPS
    if channels or file.exists():
        _write(file, FoundCreeps(tuple(channels), until))
    if left_out or (folder / LEFT_OUT).exists():
        _write(folder / LEFT_OUT, LeftOut(tuple(left_out)))


def accept_creeps(folder: Path) -> tuple[str, ...]:
    """Accept what creeps as normal, and return the channels. Raises GruardError."""
    found = read_sealed(folder / CREEPS, FoundCreeps)
    if found is None or not found.channels:
        return ()
    before = (read_sealed(folder / ACCEPTED_CREEPS, AcceptedCreeps) or AcceptedCreeps()).creeps
    kept = [each for each in before if each.channel not in found.channels]
    new = [AcceptedCreep(channel, found.until) for channel in found.channels]
    _write(folder / ACCEPTED_CREEPS, AcceptedCreeps((*kept, *new)))
    _write(folder / CREEPS, FoundCreeps((), found.until))
    return found.channels


def _write(file: Path, value: FoundCreeps | AcceptedCreeps | LeftOut) -> None:
    try:
        write_sealed(file, value)
    except OSError as error:
        raise GruardError(f"{file}: cannot be written ({reason(error)})") from None
