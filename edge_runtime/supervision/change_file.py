"""What outlives a run of a lasting change: where the machine stands, and the owner's word on it.

Two small files in the state folder, each with one writer: the run keeps `change.json`, and
`gruard accept` writes `accepted.json`. Both are sealed (`edge_runtime.supervision.sealed_file`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_runtime.detector.lasting_change import ChangePhase, LastingChange

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
