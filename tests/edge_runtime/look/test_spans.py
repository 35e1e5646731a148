"""Spans are written as they are read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import GruardError
from edge_runtime.look.spans import FIRST_DATE, parse_span, span_in_words, span_of

TIMES = st.floats(FIRST_DATE, 4e9)


@given(TIMES, st.floats(0.1, 1e7))
def test_a_written_span_reads_back_and_is_not_narrower(first: float, length: float) -> None:
    found = parse_span(span_of(3, 9, first, first + length))
    assert not found.in_rows
    assert first - 60 < found.start <= first and first + length <= found.stop < first + length + 60


@given(st.integers(0, 10**9), st.integers(1, 10**9), st.none() | st.floats(0, 1e8))
def test_without_dates_a_span_is_of_rows(start: int, length: int, time: float | None) -> None:
    found = parse_span(span_of(start, start + length, time, time))
    assert (found.start, found.stop, found.in_rows) == (start, start + length, True)


def test_the_end_may_have_no_date_and_dates_may_be_german() -> None:
    spans = ("2026-05-01 04:10..22:13", "2026-05-01T04:10 .. 2026-05-01T22:13:00")
    first, *others = map(parse_span, (*spans, "01.05.2026 04:10..22:13"))
    assert all((each.start, each.stop) == (first.start, first.stop) for each in others)
    assert span_in_words(first.start, first.stop) == "1 May 04:10 to 22:13"


def test_from_is_included_and_to_is_not() -> None:
    rows, times = np.arange(5, dtype=np.intp), 1.0e9 + np.arange(5)
    assert parse_span("1..3").covers(rows, times).tolist() == [False, True, True, False, False]
    dates = parse_span(span_of(0, 0, 1.0e9 + 1, 1.0e9 + 3))
    assert dates.covers(rows, times).tolist() == [False, True, True, False, False]
    assert not dates.covers(rows, None).any()


@given(st.text(max_size=40))
def test_any_text_is_a_span_or_an_error(text: str) -> None:
    try:
        assert parse_span(text).start < parse_span(text).stop
    except GruardError as error:
        assert "FROM..TO" in str(error)


@pytest.mark.parametrize("text", ["", "..", "5", "9..3", "3..3", "a..b", "1..2026-05-01", "-1..4"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(GruardError, match=r"write FROM\.\.TO"):
        parse_span(text)
