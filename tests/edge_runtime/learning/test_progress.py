"""Scoring many rows says how far it is; scoring few says nothing."""

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.learning.calibrated import PROGRESS_EVERY, RowsProgress


def said_by(pieces: list[tuple[int, float]]) -> list[str]:
    """What is said when each piece of so many rows takes so many seconds."""
    now, said = [0.0], list[str]()
    progress = RowsProgress(sum(rows for rows, _ in pieces), said.append, lambda: now[0])
    for rows, seconds in pieces:
        now[0] += seconds
        progress.scored(rows)
    return said


def test_every_five_seconds_a_line_says_how_long_the_rest_takes() -> None:
    said = said_by([(12_000, 2.0)] * 100)
    assert said[0] == "36,000 of 1,200,000 rows scored, about 3 min 14 s left"
    assert said[1] == "72,000 of 1,200,000 rows scored, about 3 min 8 s left"
    assert len(said) == 33


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 20)), max_size=30))
def test_no_line_comes_early_or_at_the_end(pieces: list[tuple[int, float]]) -> None:
    total, said = sum(rows for rows, _ in pieces), said_by(pieces)
    assert len(said) <= sum(seconds for _, seconds in pieces) / PROGRESS_EVERY
    assert not any(line.startswith(f"{total:,} of") for line in said)
    assert all(line.endswith(" left") for line in said)
