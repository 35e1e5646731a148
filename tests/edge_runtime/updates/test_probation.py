"""Whether a model on trial is healthy, with a clock that is a number."""

from dataclasses import replace

import faulty_worker
import numpy as np

from edge_runtime.record import Flag, Record, Sample
from edge_runtime.updates.switch import TrialHealth, TrialOutcome

GOOD = faulty_worker.model_record(Sample(0, None, np.zeros(1, np.float32)))
BAD = replace(GOOD, tier=3, valid=False, flags=Flag.FALLBACK)
WARMUP = replace(BAD, flags=Flag.FALLBACK | Flag.WARMUP)
GAP = replace(BAD, flags=Flag.FALLBACK | Flag.GAP)
MASKED = replace(BAD, masked=("a",))


def verdict(*records: Record, limit: float = 60.0, seconds: float = 10.0) -> TrialOutcome:
    probation = TrialHealth(limit)
    for count, record in enumerate(records):
        assert probation.verdict is TrialOutcome.OPEN, count
        probation = probation.judged(record, 100.0 + count * seconds)
    return probation.verdict


def test_healthy_time_adds_up() -> None:
    assert verdict(*[GOOD] * 6) is TrialOutcome.OPEN
    assert verdict(*[GOOD] * 7) is TrialOutcome.HEALTHY
    assert verdict(*[GOOD] * 4, *[BAD] * 4, *[GOOD] * 3) is TrialOutcome.HEALTHY


def test_so_does_the_other() -> None:
    assert verdict(*[BAD] * 6) is TrialOutcome.OPEN
    assert verdict(*[BAD] * 7) is TrialOutcome.UNHEALTHY
    assert verdict(*[BAD] * 7, limit=70.0) is TrialOutcome.OPEN


def test_what_says_nothing_about_the_model_counts_neither_way() -> None:
    for silent in (WARMUP, GAP, MASKED):
        assert verdict(*[silent] * 100) is TrialOutcome.OPEN
        assert verdict(GOOD, *[silent] * 100, *[GOOD] * 5) is TrialOutcome.OPEN
        assert verdict(GOOD, *[silent] * 100, *[GOOD] * 6) is TrialOutcome.HEALTHY


def test_an_alarm_is_no_ill_health() -> None:
    assert verdict(*[replace(GOOD, alarm=True)] * 7) is TrialOutcome.HEALTHY


def test_without_minutes_the_first_healthy_record_decides() -> None:
    assert verdict(GOOD, limit=0.0) is TrialOutcome.HEALTHY
    assert verdict(WARMUP, WARMUP, BAD, GOOD, limit=0.0) is TrialOutcome.HEALTHY
    assert verdict(*[BAD] * 7, limit=0.0) is TrialOutcome.UNHEALTHY  # but not the first bad one
