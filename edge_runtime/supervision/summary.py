"""What a run came to: counted as it goes, told at the end, and shown live on a terminal."""

import json
import statistics
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from edge_runtime.detector.alarm import AlarmCourse
from edge_runtime.record import Flag, Record, alarm_words, finite, flag_names
from edge_runtime.supervision.policy import TIERS
from edge_runtime.supervision.starts import StartedAfter
from edge_runtime.threads import ThreadState, failed_words

_RECENT = 1024  # latencies kept for the median: enough to be steady, and a run may last years
_PROGRESS_EVERY = 1.0  # seconds


@dataclass
class Summary:
    """Counts of one run. Latencies are seconds from a sample's arrival to its record's end.

    recurring: of the alarms, those that recur (`edge_runtime.recurring_alarms`).
    kinds: alarms by the kind of fault that was named last, without those that had none.
    caught_up: samples that were computed once more by a process that began anew.
    repaired: times that memory of the fallback had changed and was repaired.
    transitions: changes of tier, as `1→2`. timing: what was wrong with the times of readings.
    outages: times that the source was away.
    started_after: what the run before this one came to, None where nobody keeps that.
    skipped, threads: ask for the journal entries that were skipped, and for the threads' states.
    """

    records: int = 0
    tiers: Counter[int] = field(default_factory=Counter)
    transitions: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    alarms: int = 0
    recurring: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    caught_up: int = 0
    repaired: int = 0
    dropped: int = 0
    bad_cells: int = 0
    bad_rows: int = 0
    outages: int = 0
    timing: Mapping[str, int] = field(default_factory=dict)
    started_after: StartedAfter | None = None
    skipped: Callable[[], int] = int
    threads: Callable[[], Sequence[ThreadState]] = tuple
    last: Record | None = None
    slowest: float = 0.0
    _alarm: AlarmCourse = field(default_factory=AlarmCourse)
    _kind: str | None = None  # of the alarm that is on, or of the last one
    _latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def add(self, record: Record, latency: float) -> None:
        """Count one record."""
        self.records += 1
        self.tiers[record.tier] += 1
        if self.last and self.last.tier != record.tier:
            self.transitions[f"{self.last.tier}→{record.tier}"] += 1
        for name in flag_names(record.flags):
            self.flags[name] += 1
        begun, self._alarm = self._alarm.going_on, self._alarm.after(record.alarm)
        if self._alarm.going_on and not begun:
            self.alarms += 1
            self.recurring += Flag.RECURRING in record.flags
            self._kind = None
        if record.kind is not None and record.kind != self._kind:
            self.kinds.update({record.kind: 1} | ({self._kind: -1} if self._kind else {}))
            self._kind = record.kind
        self.last = record
        self.slowest = max(self.slowest, latency)
        self._latencies.append(latency)

    def status(self) -> str:
        """One short line for a service manager or a terminal."""
        if self.last is None:
            return "waiting for the first sample"
        alarm = f"ALARM {alarm_words(self.last)}".rstrip() if self.last.alarm else "no alarm"
        so_far = f"{self.alarms} alarm{'' if self.alarms == 1 else 's'}{self._recurring()} so far"
        where = " on the CPU, not the accelerator" if Flag.CPU in self.last.flags else ""
        told = f"sample {self.last.index}, tier {self.last.tier}{where}, {alarm}, {so_far}"
        before = self.started_after
        return f"{told}, started after {before.value}" if before and before.bad else told

    def to_json(self) -> str:
        """The whole summary as one JSON object; latencies in milliseconds, null without records."""
        return json.dumps(self.fields())

    def to_text(self) -> str:
        """The whole summary for people."""
        tiers = (f"{TIERS[tier]} {count}" for tier, count in sorted(self.tiers.items()))
        changes = (f"{change} {count}" for change, count in sorted(self.transitions.items()))
        flags = (f"{name} {count}" for name, count in self.flags.most_common())
        kinds = (f"{kind} {count}" for kind, count in self._named().items())
        median, slowest = self.fields()["latency_median_ms"], self.slowest * 1e3
        latency = "-" if median is None else f"median {_ms(median)}, slowest {_ms(slowest)}"
        before = {"last run": self.started_after.value} if self.started_after else {}
        skipped = f", {self.skipped()} journal entries skipped" if self.skipped() else ""
        failed = {"threads": words} if (words := failed_words(self.threads())) else {}
        lines = before | {
            "records": str(self.records),
            "by tier": ", ".join(tiers) or "-",
            "changes": ", ".join(changes) or "-",
            "flags": ", ".join(flags) or "-",
            "alarms": f"{self.alarms}{self._recurring()}",
            "kinds": ", ".join(kinds) or "-",
            "restarts": str(self.restarts),
            "caught up": f"{self.caught_up} samples",
            **({"memory": f"{self.repaired} repairs"} if self.repaired else {}),
            "bad input": f"{self.bad_cells} cells, {self.bad_rows} rows",
            "outages": str(self.outages),
            "timing": ", ".join(f"{what} {count}" for what, count in self.timing.items()) or "-",
            "not written": f"{self.dropped}{skipped}",
            "answer": latency,
        }
        lines |= failed
        return "\n".join(f"  {name:<12} {value}" for name, value in lines.items())

    def _recurring(self) -> str:
        return f" ({self.recurring} recurring)" if self.recurring else ""

    def _named(self) -> dict[str, int]:
        return {kind: count for kind, count in self.kinds.most_common() if count > 0}

    def fields(self) -> dict[str, Any]:
        """The whole summary in plain JSON types."""
        median = statistics.median(self._latencies) * 1e3 if self._latencies else None
        return {
            "records": self.records,
            "tiers": {str(tier): self.tiers[tier] for tier in TIERS},
            "transitions": dict(self.transitions),
            "flags": dict(self.flags),
            "alarms": self.alarms,
            "recurring": self.recurring,
            "kinds": self._named(),
            "restarts": self.restarts,
            "caught_up": self.caught_up,
            "repaired": self.repaired,
            "bad_cells": self.bad_cells,
            "bad_rows": self.bad_rows,
            "outages": self.outages,
            "timing": dict(self.timing),
            "dropped": self.dropped,
            "skipped": self.skipped(),
            "threads": [vars(state) for state in self.threads()],
            "latency_median_ms": finite(median),
            "latency_max_ms": finite(self.slowest * 1e3) if self._latencies else None,
            "started_after": self.started_after.value if self.started_after else None,
        }


def _ms(value: float) -> str:
    """Three digits: a replay takes microseconds a sample, a restart seconds."""
    return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


class Console:
    """Log lines on stderr, and on a terminal a line below them that is renewed every second."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._live = stream.isatty()
        self._next = float("-inf")

    def log(self, text: str) -> None:
        """Tell one event."""
        self._write(f"{self._clear()}gruard: {text}\n")

    def progress(self, status: Callable[[], str]) -> None:
        """Show where the run is, if somebody is watching and a second has gone by."""
        now = self._clock()
        if self._live and now >= self._next:
            self._next = now + _PROGRESS_EVERY
            self._write(self._clear() + status())

    def finish(self, text: str) -> None:
        """Replace the live line by the last word."""
        self._write(f"{self._clear()}{text}\n")

    def _clear(self) -> str:
        return "\r\x1b[K" if self._live else ""

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._live = False  # a closed terminal must not end the run
