"""A lasting change as the detectors of a run hand it on: what outlives a worker, a run, a reboot.

Readings show within seconds what else a state holds; this takes an alarm of minutes to find out.

What outlives a run of a lasting change: where the machine stands, and the owner's word on it.

Two small files in the state folder, each with one writer: the run keeps `change.json`, and
`gruard accept` writes `accepted.json`. Both are sealed (`edge_runtime.plain`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Protocol

LARGEST_BASELINE = 3.4e38
"""Baselines are float32, and end here."""


class ChangePhase(enum.IntEnum):
    """Where a machine stands; the numbers of `gruard_detector.changed` in the core."""

    AS_RECORDED = 0
    CHANGED = 1  # and reported
    ACCEPTED = 2  # by the owner: it runs like this now


class Changing(Protocol):
    """A detector that finds lasting changes, and hands them on."""

    @property
    def change_phase(self) -> ChangePhase | None:
        """Where the machine stands; None where the bundle reports no lasting changes."""

    @property
    def lasting_change(self) -> LastingChange:
        """What a detector that begins anew needs, to go on from where the machine stands."""

    def resume(self, known: LastingChange) -> None:
        """Go on from there; before the first sample. GruardError for another bundle's."""

    def accept(self, yes: bool) -> None:
        """Take the machine's change as how it runs now, or take that back; no-op without one."""


@dataclass(frozen=True)
class LastingChange:
    """phase: int of a ChangePhase. count: changes that were reported, ever since the recording.

    centre: where the machine stands, in standardised units [channels]. baselines: of the score's
    parts, memory after memory. All are float32 numbers.
    """

    phase: int
    count: int
    centre: tuple[float, ...]
    baselines: tuple[float, ...]

    def fault(self, channels: int, heights: int, bound: float) -> str | None:
        """Why no detector of so many channels and baselines can have left this, None when one can.

        bound: of the centre, either way.
        """
        if self.phase not in list(ChangePhase) or not 0 <= self.count < 1 << 32:
            return f"has the phase {self.phase} and the count {self.count}"
        if (len(self.centre), len(self.baselines)) != (channels, heights):
            return f"has {len(self.centre)} channels and {len(self.baselines)} baselines"
        if not all(abs(place) <= bound for place in self.centre):
            return "stands beyond all readings"
        if not all(0 <= each <= LARGEST_BASELINE for each in self.baselines):
            return "has a baseline that is none"
        if self.phase == ChangePhase.AS_RECORDED and any(self.centre):
            return "stands elsewhere without having changed"
        return None


KEPT, WORD = "change.json", "accepted.json"
"""Names of the files in the state folder."""


@dataclass(frozen=True)
class Finding:
    """A change that was reported, and is neither over nor followed by another that was accepted.

    since: epoch seconds of the report. channels: blamed by the alarm that led to it. count: as in
    LastingChange. accepted: epoch seconds of the owner's word, None without; reason: may be empty.
    """

    since: float
    channels: tuple[str, ...]
    count: int
    accepted: float | None
    reason: str

    @property
    def phase(self) -> ChangePhase:
        """What a detector makes of it."""
        return ChangePhase.CHANGED if self.accepted is None else ChangePhase.ACCEPTED


@dataclass(frozen=True)
class KeptChange:
    """Where the machine stands, by the bundle of that digest. finding: None where as recorded."""

    bundle: str
    change: LastingChange
    finding: Finding | None

    @property
    def sound(self) -> KeptChange:
        """With the phase of the change as the finding has it, which is what holds."""
        phase = self.finding.phase if self.finding else ChangePhase.AS_RECORDED
        return replace(self, change=replace(self.change, phase=int(phase)))


@dataclass(frozen=True)
class Word:
    """The owner's last word, on the finding of `bundle` since `since`. told: epoch seconds."""

    bundle: str
    since: float
    accepted: bool
    reason: str
    told: float

    def names(self, kept: KeptChange) -> bool:
        """Whether it is about the finding of `kept`."""
        finding = kept.finding
        return finding is not None and (self.bundle, self.since) == (kept.bundle, finding.since)
