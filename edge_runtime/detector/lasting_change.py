"""What is kept of a lasting change over restarts of the worker, the run and the machine.

A new detector learns the rest of its state from readings within seconds; to find a lasting change
again takes an alarm of minutes.

Two small sealed files (`edge_runtime.plain`) in the state folder, each with one writer: the run
writes `change.json`, and `gruard accept` writes `accepted.json`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Protocol

KEPT, WORD = "change.json", "accepted.json"
"""Names of the files in the state folder."""
LARGEST_BASELINE = 3.4e38
"""Baselines are float32."""


class ChangePhase(enum.IntEnum):
    """State of the machine; the numbers are those of `gruard_detector.changed` in the core."""

    AS_RECORDED = 0
    CHANGED = 1  # and reported
    ACCEPTED = 2  # by the owner: it runs like this now


class Changing(Protocol):
    """A detector that finds lasting changes and can hand them to its successor."""

    @property
    def change_phase(self) -> ChangePhase | None:
        """The phase; None if the bundle reports no lasting changes."""

    @property
    def lasting_change(self) -> LastingChange:
        """What a new detector needs to continue from here."""

    def resume(self, saved: LastingChange) -> None:
        """Continue from `saved`, before the first sample. GruardError if it is another bundle's."""

    def accept(self, yes: bool) -> None:
        """Accept the reported change as normal, or revoke that; no-op without a change."""


@dataclass(frozen=True)
class LastingChange:
    """phase: int of a ChangePhase. count: changes reported since the recording.

    centre: the machine's present operating point, in standardised units [channels]. baselines: of
    the score's parts, memory after memory. All are float32 numbers.
    """

    phase: int
    count: int
    centre: tuple[float, ...]
    baselines: tuple[float, ...]

    def fault(self, channels: int, heights: int, bound: float) -> str | None:
        """Say why no detector with so many channels and baselines can have written this, or None.

        bound: largest magnitude of the centre.
        """
        if self.phase not in list(ChangePhase) or not 0 <= self.count < 1 << 32:
            return f"has the phase {self.phase} and the count {self.count}"
        if (len(self.centre), len(self.baselines)) != (channels, heights):
            return f"has {len(self.centre)} channels and {len(self.baselines)} baselines"
        if not all(abs(place) <= bound for place in self.centre):
            return "stands beyond all readings"
        if not all(0 <= each <= LARGEST_BASELINE for each in self.baselines):
            return "has an impossible baseline"
        if self.phase == ChangePhase.AS_RECORDED and any(self.centre):
            return "has a centre without a change"
        return None


@dataclass(frozen=True)
class Finding:
    """A reported change that is neither over nor followed by another accepted one.

    since: epoch seconds of the report. channels: blamed by the alarm that led to it. count: as in
    LastingChange. accepted: epoch seconds of the owner's acceptance, or None; reason: may be empty.
    """

    since: float
    channels: tuple[str, ...]
    count: int
    accepted: float | None
    reason: str

    @property
    def phase(self) -> ChangePhase:
        """The phase that the detector must have."""
        return ChangePhase.CHANGED if self.accepted is None else ChangePhase.ACCEPTED


@dataclass(frozen=True)
class KeptChange:
    """The change under the bundle of that digest. finding: None if the machine is as recorded."""

    bundle: str
    change: LastingChange
    finding: Finding | None

    @property
    def sound(self) -> KeptChange:
        """The same with the phase of the finding, which takes precedence."""
        phase = self.finding.phase if self.finding else ChangePhase.AS_RECORDED
        return replace(self, change=replace(self.change, phase=int(phase)))


@dataclass(frozen=True)
class Word:
    """The owner's last decision on the finding of `bundle` since `since`. told: epoch seconds."""

    bundle: str
    since: float
    accepted: bool
    reason: str
    told: float

    def names(self, kept: KeptChange) -> bool:
        """Whether this decision is about the finding of `kept`."""
        finding = kept.finding
        return finding is not None and (self.bundle, self.since) == (kept.bundle, finding.since)
