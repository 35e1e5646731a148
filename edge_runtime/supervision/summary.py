"""The summary of a run, counted as it goes, and the console that logs and shows it."""

import json
import statistics
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from edge_runtime.alarm import Alarm
from edge_runtime.detector.alarm import AlarmCourse
from edge_runtime.record import Flag, Record, finite, flag_names
from edge_runtime.supervision.policy import TIERS
from edge_runtime.supervision.starts import StartedAfter
from edge_runtime.threads import ThreadState, failed_words
from edge_runtime.words import ENGLISH, record_text

_RECENT = 1024  # latencies kept for the median: a steady value, and bounded memory over years
_PROGRESS_EVERY = 1.0  # seconds


@dataclass
class Summary:
    """Counts of one run. Latencies are seconds from a sample's arrival to its written record.

    recurring: of the alarms, those that recur (`edge_runtime.recurring_alarms`).
    kinds: alarms by the kind of fault that the diagnosis named last; those without one are missing.
    caught_up: samples that a restarted worker replayed.
    repaired: repairs of the fallback's memory.
    transitions: changes of tier, as `1→2`. timing: irregular times of readings, by kind.
    outages: times that the source was away.
    started_after: what came before this run; None where no state is kept.
    language: of alarms in words (`edge_runtime.words`).
    skipped, threads: return the number of skipped journal entries, and the threads' states.
    on_alarm: returns how many commands of alarms were done, failed or dropped; nothing without one.
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
    on_alarm: Callable[[], Mapping[str, int]] = dict
    language: str = ENGLISH
    last: Record | None = None
    last_alarm: Alarm | None = None
    slowest: float = 0.0
    _alarm: AlarmCourse = field(default_factory=AlarmCourse)
    _kind: str | None = None  # of the alarm that is on, or of the last one
    _latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def add(self, record: Record, latency: float, alarm: Alarm | None = None) -> None:
        """Count one record. alarm: that goes on, None without one."""
        self.records += 1
        self.tiers[record.tier] += 1
        if self.last and self.last.tier != record.tier:
            self.transitions[f"{self.last.tier}→{record.tier}"] += 1
        for name in flag_names(record.flags):
            self.flags[name] += 1
        was_on, self._alarm = self._alarm.going_on, self._alarm.after(record.alarm)
        if self._alarm.going_on and not was_on:
            self.alarms += 1
            self.recurring += Flag.RECURRING in record.flags
            self._kind = None
        if record.kind is not None and record.kind != self._kind:
            self.kinds.update({record.kind: 1} | ({self._kind: -1} if self._kind else {}))
            self._kind = record.kind
        self.last, self.last_alarm = record, alarm
        self.slowest = max(self.slowest, latency)
        self._latencies.append(latency)

    def status(self) -> str:
        """Return one short line for a service manager or a terminal."""
        if self.last is None:
            return "waiting for the first sample"
        alarm = record_text(self.last_alarm if self.last.alarm else None, self.language)
        so_far = f"{self.alarms} alarm{'' if self.alarms == 1 else 's'}{self._recurring()} so far"
        where = " on the CPU, not the accelerator" if Flag.CPU in self.last.flags else ""
        before = self.started_after
        after = f", started after {before.value}" if before and before.bad else ""
        return f"sample {self.last.index}, tier {self.last.tier}{where}, {alarm}, {so_far}{after}"

    def to_json(self) -> str:
        """Return the summary as one JSON object; latencies in ms, null without records."""
        return json.dumps(self.fields())

    def to_text(self) -> str:
        """Return the summary as lines for people."""
        median, slowest = self.fields()["latency_median_ms"], self.slowest * 1e3
        skipped = f", {self.skipped()} journal entries skipped" if self.skipped() else ""
        lines = {
            "last run": self.started_after.value if self.started_after else "",
            "records": str(self.records),
            "by tier": _listed({TIERS[tier]: self.tiers[tier] for tier in sorted(self.tiers)}),
            "changes": _listed(dict(sorted(self.transitions.items()))),
            "flags": _listed(dict(self.flags.most_common())),
            "alarms": f"{self.alarms}{self._recurring()}",
            "kinds": _listed(self._kinds()),
            "on alarm": _listed(self.on_alarm()) if self.on_alarm() else "",
            "restarts": str(self.restarts),
            "caught up": f"{self.caught_up} samples",
            "memory": f"{self.repaired} repairs" if self.repaired else "",
            "bad input": f"{self.bad_cells} cells, {self.bad_rows} rows",
            "outages": str(self.outages),
            "timing": _listed(self.timing),
            "not written": f"{self.dropped}{skipped}",
            "answer": "-" if median is None else f"median {_ms(median)}, slowest {_ms(slowest)}",
            "threads": failed_words(self.threads()),
        }
        return "\n".join(f"  {name:<12} {text}" for name, text in lines.items() if text)

    def _recurring(self) -> str:
        return f" ({self.recurring} recurring)" if self.recurring else ""

    def _kinds(self) -> dict[str, int]:
        return {kind: count for kind, count in self.kinds.most_common() if count > 0}

    def fields(self) -> dict[str, Any]:
        """Return the summary in plain JSON types."""
        median = statistics.median(self._latencies) * 1e3 if self._latencies else None
        return {
            "records": self.records,
            "tiers": {str(tier): self.tiers[tier] for tier in TIERS},
            "transitions": dict(self.transitions),
            "flags": dict(self.flags),
            "alarms": self.alarms,
            "recurring": self.recurring,
            "kinds": self._kinds(),
            "on_alarm": dict(self.on_alarm()),
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


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "-"


def _ms(value: float) -> str:
    """Return three digits: a replay takes microseconds per sample, a restart seconds."""
    return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


class Console:
    """Log lines on stderr, and on a terminal a status line below them, renewed every second."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._live = stream.isatty()
        self._next = float("-inf")

    def log(self, text: str) -> None:
        """Print one log line."""
        self._write(f"{self._clear()}gruard: {text}\n")

    def progress(self, status: Callable[[], str]) -> None:
        """Renew the status line, on a terminal, once a second."""
        now = self._clock()
        if self._live and now >= self._next:
            self._next = now + _PROGRESS_EVERY
            self._write(self._clear() + status())

    def finish(self, text: str) -> None:
        """Replace the status line by a final text."""
        self._write(f"{self._clear()}{text}\n")

    def _clear(self) -> str:
        return "\r\x1b[K" if self._live else ""

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._live = False  # a closed terminal must not end the run
