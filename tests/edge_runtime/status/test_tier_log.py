"""Every change of tier is told, but a fluttering detector does not fill the log."""

from dataclasses import replace

import faulty_worker
import numpy as np

from edge_runtime.record import Flag, Record, Sample
from edge_runtime.status.publisher import LINES, WINDOW, TierLog


def record(index: int, tier: int, flags: Flag = faulty_worker.NO_FLAGS) -> Record:
    made = faulty_worker.model_record(Sample(index, None, np.zeros(1, np.float32)), flags)
    return replace(made, tier=tier)


def test_changes_are_told_with_their_reason() -> None:
    lines: list[str] = []
    log = TierLog(lines.append, lambda: 0.0)
    flags = Flag.WARMUP | Flag.FALLBACK, Flag(0), Flag(0), Flag.IMPUTED | Flag.FREE_RUN
    for index, tier in enumerate((3, 1, 1, 2)):
        log.note(record(index, tier, flags[index]))
    assert lines == [
        "sample 1: tier 3→1, model",
        "sample 3: tier 1→2, model alone (IMPUTED, FREE_RUN)",
    ]


def test_a_flutter_is_counted_and_told_later() -> None:
    now, lines = 0.0, []
    log = TierLog(lines.append, lambda: now)
    for index in range(101):
        log.note(record(index, 1 + index % 2))
    assert len(lines) == LINES
    now = WINDOW
    log.note(record(101, 1))  # no change; but there is something to tell
    untold = 100 - LINES
    assert lines[LINES:] == [f"sample 101: tier 1, model; {untold} earlier changes not logged"]
    log.note(record(102, 1))
    assert len(lines) == LINES + 1


def test_what_is_untold_at_the_end_is_told_then() -> None:
    lines: list[str] = []
    log = TierLog(lines.append, lambda: 0.0)
    log.end()
    for index in range(LINES + 2):
        log.note(record(index, 1 + index % 2))
    log.end()
    log.end()
    (last,) = lines[LINES:]
    assert last == f"sample {LINES + 1}: tier 2, model alone; 1 earlier change not logged"


def test_no_window_has_more_lines_than_allowed() -> None:
    now, told = 0.0, []
    log = TierLog(lambda line: told.append(now), lambda: now)
    for index in range(2000):
        now = index / 7
        log.note(record(index, 1 + index % 2))
    for start in told:
        assert sum(start <= when < start + WINDOW for when in told) <= LINES
    assert len(told) > LINES
