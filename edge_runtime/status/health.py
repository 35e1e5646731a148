"""The verdict on a snapshot: is the run alive, is an alarm on, is a healthy model behind it?"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_runtime.detector.lasting_change import Finding
from edge_runtime.mute import Mute
from edge_runtime.status.snapshot import Answer, LearningStatus, ProcessStatus, Snapshot
from edge_runtime.supervision.policy import TIERS, WorkerPhase, stat_fields
from edge_runtime.words import ENGLISH, alarm_line

State = Literal[
    "healthy",
    "changed",
    "alarm",
    "muted",
    "fallback",
    "learning",
    "waiting",
    "missing",
    "ended",
    "gone",
    "stopped",
    "hung",
]
Life = Literal["running", "stopped", "gone"]
HEALTHY, ALARM, NO_MODEL = 0, 1, 3
"""Exit codes. 2 is a usage error, as in every command."""
VOUCHERS = {tier: f"the {name}" for tier, name in TIERS.items()}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_STATE_FIELD, _START_FIELD = 0, 19  # of /proc/PID/stat, counted from the state


@dataclass(frozen=True)
class Health:
    """A state, its description, and its exit code.

    age: seconds since the last snapshot, None without a file.
    """

    state: State
    text: str
    code: int
    age: float | None


def start_ticks(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Return when a process was started, in clock ticks since boot; None when unknown."""
    fields = stat_fields(pid, proc)
    return int(fields[_START_FIELD]) if fields else None


def life(process: ProcessStatus, proc: Path = Path("/proc")) -> Life:
    """Return whether a process lives; a later one with the same pid is another one."""
    fields = stat_fields(process.pid, proc)
    if not fields:
        return "running" if _exists(process.pid) else "gone"
    if process.ticks not in (None, int(fields[_START_FIELD])) or fields[_STATE_FIELD] in "ZXx":
        return "gone"
    return "stopped" if fields[_STATE_FIELD] in "Tt" else "running"


def judge(snapshot: Snapshot | None, now: float, alive: Life, language: str = ENGLISH) -> Health:
    """Return the verdict at monotonic time `now` on a run whose process is `alive`.

    A dead or silent run goes before its alarm, which is old. An alarm goes before a missing model,
    because the fallback's alarms count; a muted one does not. language: of an alarm in words.
    """
    if snapshot is None:
        return Health("missing", "there is no status file: nothing runs here", NO_MODEL, None)
    process = snapshot.process
    age = now - process.told
    if trouble := _lifeless(process, age, alive):
        return Health(*trouble, NO_MODEL, age)
    if snapshot.answer is None:
        return Health("waiting", _why_waiting(snapshot), NO_MODEL, age)
    return _answered(snapshot, snapshot.answer, age, language)


def judge_now(snapshot: Snapshot | None, now: float, language: str = ENGLISH) -> Health:
    """Judge the snapshot by the present state of its process."""
    alive = life(snapshot.process) if snapshot else "gone"
    return judge(snapshot, now, alive, language)


def _lifeless(process: ProcessStatus, age: float, alive: Life) -> tuple[State, str] | None:
    if process.ended:
        return "ended", f"the run has ended in good order, after {process.uptime:.0f} s"
    if alive == "gone":
        return "gone", f"process {process.pid} is gone without a last snapshot: killed or crashed"
    if alive == "stopped":
        return "stopped", f"process {process.pid} is stopped by a signal and answers nothing"
    if not 0 <= age <= process.patience:
        return "hung", f"process {process.pid} exists, but has answered nothing for {age:.0f} s"
    return None


def since(moment: float | None, now: float) -> str:
    """Return ` since 07:32`, local time, with the date if that differs from `now`'s (epoch s)."""
    return "" if moment is None else _clock_words("since", moment, now)


def at(moment: float | None, now: float) -> str:
    """Return ` at 07:32`, as `since`."""
    return "" if moment is None else _clock_words("at", moment, now)


def mute_words(mute: Mute, now: float) -> str:
    """Return ` until 15:30 (cleaning)`."""
    why = f" ({mute.reason})" if mute.reason else ""
    return f"{_clock_words('until', mute.ends, now)}{why}"


def _clock_words(word: str, moment: float, now: float) -> str:
    try:
        begun, today = time.localtime(moment), time.localtime(now)
    except (OverflowError, ValueError, OSError):  # no such year
        return ""
    same_day = begun[:3] == today[:3]
    return f" {word} " + time.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M", begun)


def finding_words(finding: Finding, now: float) -> str:
    """Return ` since 07:32 on flow, heat`: the time of a lasting change, and its channels."""
    channels = f" on {', '.join(finding.channels)}" if finding.channels else ""
    return f"{since(finding.since, now)}{channels}"


def duration(seconds: float) -> str:
    """Return seconds in two units at most: `3 d 2 h`, `12 min 5 s`."""
    left = int(seconds)
    for unit, name, smaller, small in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if left >= unit:
            return f"{left // unit} {name} {left % unit // smaller} {small}"
    return f"{left} s"


def learning_words(learning: LearningStatus) -> str:
    """Return how far learning is: `learning 3,412 of 8,640 rows, 14 h 3 min left`."""
    if learning.learning:
        return f"learning from {learning.rows:,} rows"
    if learning.target is None:
        return f"learning {learning.rows:,} rows; the sample period is not known yet"
    left = "" if not learning.left else f", {duration(learning.left)} left"
    why = f"; {learning.result}" if learning.result else ""
    return f"learning {learning.rows:,} of {learning.target:,} rows{left}{why}"


def phase_words(snapshot: Snapshot) -> str:
    """Return what the worker is doing, and since when."""
    return f"{snapshot.model.phase}{since(snapshot.model.since, snapshot.now)}"


def _why_waiting(snapshot: Snapshot) -> str:
    """Return what a run without an answer waits for, and what happens next."""
    model, away = snapshot.model, snapshot.input.away
    if model.phase == WorkerPhase.LOADING.value:
        return f"the model is loading{since(model.since, snapshot.now)}"
    text = f"waiting for the first sample{since(snapshot.process.started, snapshot.now)}"
    if away is not None:
        text += f"; {away}"
    return text + (f"; the {model.waiting}" if model.waiting else "")


def _silence(snapshot: Snapshot) -> str:
    away = "" if snapshot.input.away is None else f": {snapshot.input.away}"
    return f"the source is silent{since(snapshot.input.silent_since, snapshot.now)}{away}"


def _answered(snapshot: Snapshot, answer: Answer, age: float, language: str) -> Health:
    silent = snapshot.input.silent_since is not None
    because = _why_no_model(snapshot, answer) if silent or not answer.valid else ""
    mute = snapshot.mute
    muted = f"; muted{mute_words(mute, snapshot.now)}" if mute else ""
    if answer.alarm:
        # A snapshot of an older version does not say which alarm.
        text = alarm_line(snapshot.alarm, language) if snapshot.alarm else "ALARM"
        text += (f"; {because}" if because else "") + muted
        if "MUTED" not in answer.flags:
            return Health("alarm", text, ALARM, age)
        return Health("muted", text, NO_MODEL if because else HEALTHY, age)
    if because and snapshot.learning and snapshot.learning.active:
        return Health("learning", f"{learning_words(snapshot.learning)}{muted}", NO_MODEL, age)
    if because:
        return Health(
            "fallback", f"no alarm, but no healthy model: {because}{muted}", NO_MODEL, age
        )
    change = snapshot.change
    if change is not None and change.accepted is None:
        what = finding_words(change, snapshot.now)
        text = f"no alarm, but changed{what}: check, then gruard accept{muted}"
        return Health("changed", text, HEALTHY, age)
    return Health("healthy", f"healthy, no alarm{muted}", HEALTHY, age)


def _why_no_model(snapshot: Snapshot, answer: Answer) -> str:
    if snapshot.input.silent_since is not None or "GAP" in answer.flags:
        return _silence(snapshot)
    if snapshot.model.waiting:
        return f"the {snapshot.model.waiting}"
    if snapshot.model.phase != WorkerPhase.SERVING.value:
        return f"the worker is {phase_words(snapshot)}"
    if "LATE" in answer.flags:
        return "the model was late"
    if "WARMUP" in answer.flags:
        return "the model is settling"
    return "the model is not trusted"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True
