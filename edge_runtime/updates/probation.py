"""Is the model on trial healthy? Judged by its records, in time that counts; pure.

Only the model itself is judged. While it warms up, while the source delivers nothing, or while a
reading is unusable, time counts neither for it nor against it. Alarms are no ill health.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from edge_runtime.record import Flag, Record

PATIENCE = 60.0
"""Seconds that a model may be unhealthy at least, however short the trial."""


class Verdict(enum.Enum):
    """What is known so far."""

    OPEN = "not known yet"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True)
class Probation:
    """Seconds that counted so far, for and against the model.

    limit: seconds of either that give the verdict; last: monotonic seconds of the last record.
    """

    limit: float
    healthy: float = 0.0
    unhealthy: float = 0.0
    last: float | None = None
    verdict: Verdict = Verdict.OPEN

    def judged(self, record: Record, now: float) -> Probation:
        """With the time from the last record to this one put to the account of this one."""
        passed = 0.0 if self.last is None else now - self.last
        seen = replace(self, last=now)
        if record.masked or record.flags & (Flag.WARMUP | Flag.GAP):
            return seen
        if record.valid:
            healthy = self.healthy + passed
            verdict = Verdict.HEALTHY if healthy >= self.limit else Verdict.OPEN
            return replace(seen, healthy=healthy, verdict=verdict)
        unhealthy = self.unhealthy + passed
        over = unhealthy >= max(self.limit, PATIENCE)
        verdict = Verdict.UNHEALTHY if over else Verdict.OPEN
        return replace(seen, unhealthy=unhealthy, verdict=verdict)
