"""Counters as rates: of a recording and of every source the same bits, and never a spike."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.columns import Columns
from edge_runtime.errors import Complaints
from edge_runtime.sources.counters import CountingSource, rates
from edge_runtime.sources.csvfile import read_table
from edge_runtime.sources.open_source import open_source
from edge_runtime.sources.source import Reading

PERIOD = 10.0
COUNTED = Columns(counters=("litres",))


class Given:
    """A source of these readings; `arrivals` move the clock before each."""

    def __init__(
        self, found: Sequence[Reading], live: bool = False, arrivals: Sequence[float] = ()
    ) -> None:
        self.live, self.now = live, 0.0
        self._found, self._arrivals = iter(found), iter(arrivals)

    def read(self, timeout: float | None) -> Reading | None:
        self.now = next(self._arrivals, self.now)
        return next(self._found, None)

    def close(self) -> None:
        pass


def stepwise(source: CountingSource) -> np.ndarray:
    found = []
    try:
        while (reading := source.read(None)) is not None:
            found.append(reading.row)
    except EOFError:
        pass
    return np.array(found, np.float32)


def bits(values: np.ndarray) -> list[int]:
    """Of float32; all missing readings are the same."""
    values = np.asarray(values, np.float32)
    return np.where(np.isnan(values), np.float32(np.nan), values).view(np.uint32).tolist()


counts = st.one_of(
    st.floats(0, 1e12),
    st.integers(0, 1 << 53).map(float),
    st.sampled_from([math.nan, math.inf, 0.0, 65535.0, 123456789.0, 123456790.0]),
)
steps = st.sampled_from([PERIOD, PERIOD, PERIOD, 1.4 * PERIOD, 1.6 * PERIOD, 1e4, 0.0, -5.0])


@given(st.lists(st.tuples(counts, counts, steps), min_size=1, max_size=40))
def test_the_sequence_is_its_steps(rows: list[tuple[float, float, float]]) -> None:
    values = np.array([row[:2] for row in rows])
    times = 1.7e9 + np.cumsum([row[2] for row in rows])
    source = Given([Reading(float(t), v) for t, v in zip(times, values, strict=True)])
    found = stepwise(CountingSource(source, [1], PERIOD))
    assert bits(found[:, 1]) == bits(rates(values[:, 1], times, PERIOD))
    assert bits(found[:, 0]) == bits(values[:, 0].astype(np.float32))
    assert not (found[:, 1] < 0).any()


@given(st.lists(counts, min_size=1, max_size=40))
def test_without_times_every_row_follows_the_last(values: list[float]) -> None:
    column = np.array(values)
    source = Given([Reading(None, np.array([value])) for value in values])
    found = stepwise(CountingSource(source, [0], PERIOD))[:, 0]
    assert bits(found) == bits(rates(column, None, PERIOD))


def test_a_counter_that_starts_anew_or_misses_a_sample_has_no_rate() -> None:
    values = np.array([65530.0, 65535.0, 3.0, 8.0, np.nan, 18.0, 23.0, 43.0, 48.0])
    times = np.array([0.0, 10, 20, 30, 40, 50, 60, 80, 90])
    nan = math.nan
    np.testing.assert_array_equal(
        rates(values, times, PERIOD), [nan, 5, nan, 5, nan, nan, 5, nan, 5]
    )


def test_a_counter_keeps_all_its_digits() -> None:
    """A float32 has steps of 8 at 123 million."""
    values = 123_456_789.0 + np.arange(5)
    assert rates(values, None, None).tolist()[1:] == [1.0] * 4


def test_readings_of_a_live_source_without_times_are_told_apart_by_their_arrival() -> None:
    source = Given(
        [Reading(None, np.array([value])) for value in (0.0, 5.0, 10.0, 20.0, 25.0)],
        live=True,
        arrivals=(0.0, 11.0, 20.0, 40.0, 50.0),
    )
    counting = CountingSource(source, [0], PERIOD, lambda: source.now)
    nan = math.nan
    np.testing.assert_array_equal(stepwise(counting)[:, 0], [nan, 5, 5, nan, 5])


def recording(rows: int) -> list[tuple[float, float, float]]:
    """Time, flow, litres of a day with a gap, an overflow and a missing count."""
    rng, total, found = np.random.default_rng(3), 4_294_000_000.0, []
    for row in range(rows):
        flow = 5 + rng.normal()
        total = (total + round(flow * 1000)) % (1 << 32)
        if not 100 <= row < 104:
            found.append((1.7e9 + PERIOD * row, round(flow, 3), math.nan if row == 50 else total))
    return found


@pytest.mark.parametrize("form", ["csv", "json"])
def test_the_device_reads_the_rates_that_learning_reads(tmp_path: Path, form: str) -> None:
    rows = recording(400)
    table_file, path = tmp_path / "a.csv", tmp_path / f"b.{form}"
    cells = [f"{t},{flow},{'' if math.isnan(n) else int(n)}\n" for t, flow, n in rows]
    table_file.write_text("time,flow,litres\n" + "".join(cells))
    objects = [
        {"time": t, "litres": None if math.isnan(n) else n, "flow": flow} for t, flow, n in rows
    ]
    lines = cells if form == "csv" else [json.dumps(each) + "\n" for each in objects]
    path.write_text(("time,flow,litres\n" if form == "csv" else "") + "".join(lines))
    table = read_table(table_file, COUNTED, period=PERIOD)
    channels = ("litres", "flow")
    source = open_source(str(path), channels, PERIOD, Complaints(), COUNTED)
    found = stepwise(CountingSource(source, [0], PERIOD))
    assert bits(found[:, 0]) == bits(table.values[:, 1])
    assert bits(found[:, 1]) == bits(table.values[:, 0])
    assert np.isnan(table.values[:, 1]).sum() == 1 + 2 + 1 + 1  # first, missing, gap, overflow
    assert np.nanmax(table.values[:, 1]) < 10_000
