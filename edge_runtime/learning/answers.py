"""What the owner has said of the past: marks on alarms, accepted changes and creeps, mutes."""

import math
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.detector.lasting_change import WORD as CHANGE_WORD
from edge_runtime.detector.lasting_change import Word
from edge_runtime.marks import CAPACITY, PastAlarm, read_alarms, read_marks
from edge_runtime.mute import WORD as MUTE_WORD
from edge_runtime.mute import Mute
from edge_runtime.plain import read_sealed


@dataclass(frozen=True)
class Span:
    """A stretch of time, both ends included, in seconds of the readings."""

    start: float
    end: float


@dataclass(frozen=True)
class AnsweredAlarm:
    """An alarm that a run logged. real: as the owner marked it; None while nobody has."""

    span: Span
    real: bool | None


@dataclass(frozen=True)
class AcceptedCreep:
    """The owner accepted at `told` seconds that `channel` had crept."""

    channel: str
    told: float


@dataclass(frozen=True)
class Answers:
    """alarms: all that the run raised since `complete_since` seconds, and some before.

    accepted: from the report of a change until it was accepted. muted: alarms were muted.
    """

    alarms: tuple[AnsweredAlarm, ...] = ()
    complete_since: float = math.inf
    accepted: tuple[Span, ...] = ()
    creeps: tuple[AcceptedCreep, ...] = ()
    muted: tuple[Span, ...] = ()


def read_answers(folder: Path, ahead: float) -> Answers:
    """Read what a run and its owner have written into the state folder. Raises GruardError.

    ahead: seconds by which the host's clock is ahead of the times of the readings.
    """
    marks = read_marks(folder)[0]
    marked = {_key(mark.alarm): mark for mark in marks}
    last = read_alarms(folder)
    logged = {_key(alarm): alarm for alarm in (*(mark.alarm for mark in marks), *last)}
    complete_since = -math.inf if len(last) < CAPACITY else last[0].start
    alarms = [
        AnsweredAlarm(Span(alarm.start, alarm.end), marked[key].real if key in marked else None)
        for key, alarm in logged.items()
    ]
    word = read_sealed(folder / CHANGE_WORD, Word)
    accepted = [Span(word.since - ahead, word.told - ahead)] if word and word.accepted else []
    mute = read_sealed(folder / MUTE_WORD, Mute)
    muted = [Span(mute.started - ahead, mute.ends - ahead)] if mute else []
    return Answers(tuple(alarms), complete_since, tuple(accepted), (), tuple(muted))


def _key(alarm: PastAlarm) -> tuple[int, float]:
    return alarm.index, alarm.began
