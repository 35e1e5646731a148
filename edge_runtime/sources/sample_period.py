"""Check that a recording has the sample period the model was trained for."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.columns import NOTHING_SAID, Columns
from edge_runtime.errors import GruardError
from edge_runtime.sources.csvlayout import start_rows
from edge_runtime.sources.lines import text_lines

TOLERANCE = 0.05
"""Share by which the period of a regular recording may differ."""
SLOWEST, FASTEST = 1.6, 0.6
"""Mean distance of rows, in periods, of a recording with scattered times. 30 % of lost rows make
1.43; a source of half the rate makes 2, one of twice the rate 0.5."""
ROWS_LOOKED_AT, BYTES_LOOKED_AT = 4000, 1 << 22
"""Enough for a minute of coarse times; more rows only take longer."""
_FEW = 0.01
"""Share of repeated times above which the clock is coarse or broken."""
_STOOD_STILL = 0.05
"""Share of rows with one time above which the clock stood still."""
_STEP_PERIODS, _STEP_SECONDS = 1000.0, 90.0
"""A larger distance of two rows is a clock that was set, or a stop."""


def check_file_period(
    path: str | Path,
    period: float | None,
    said: Columns = NOTHING_SAID,
    channels: Sequence[str] = (),
) -> None:
    """Raise GruardError when the rows of `path` are clearly not `period` seconds apart.

    Reads the times of the first rows; without times or a period there is no check. Jitter, lost
    rows, coarse times and a clock that was set are accepted: the median or the mean distance has to
    fit. If neither fits and the distances scatter, only a mean that no loss explains is refused.
    Unreadable rows are ignored here. said, channels: of the bundle.
    """
    with text_lines(path) as text:
        first = next(text, "")
        if first.lstrip().startswith("{"):
            return  # JSON lines, whose times the sample clock watches
        times = np.array([*_times(chain([first], text), path, said, channels)])
    if period is None or len(times) < 3:
        return
    rate = _mismatch(times, period)
    if rate is not None:
        raise GruardError(
            f"{path}: one sample every {rate:.4g} s, but the model was trained on one every "
            f"{period:g} s; resample the recording or train on this rate"
        )


def _times(
    text: Iterator[str], path: str | Path, said: Columns, channels: Sequence[str]
) -> Iterator[float]:
    """Yield the readable times of the first rows. Raises GruardError for a bad header."""
    layout, lines, _ = start_rows(text, path, said, channels)
    if not layout.time_at:
        return
    left = BYTES_LOOKED_AT
    for line in islice(lines, ROWS_LOOKED_AT):
        with suppress(IndexError, ValueError, OverflowError):
            yield layout.seconds(layout.time_text(layout.cells(line)))
        left -= len(line)
        if left <= 0:
            return


def _mismatch(times: npt.NDArray[np.float64], period: float) -> float | None:
    """Return the seconds from row to row if they clearly differ from `period`, else None."""
    with np.errstate(over="ignore"):
        distances = np.clip(np.diff(times), -1e300, 1e300)
    usual = distances[np.abs(distances) <= max(_STEP_PERIODS * period, _STEP_SECONDS)]
    if usual.size < distances.size / 2:
        usual = distances  # so these are the rate, not steps of a clock
    low, median, high = map(float, np.quantile(usual, (0.25, 0.5, 0.75)))
    mean = float(np.mean(usual))
    if any(abs(rate - period) <= TOLERANCE * period for rate in (median, mean)):
        return None
    repeated = np.mean(usual <= 0)
    if repeated < _FEW and high - low <= 2 * TOLERANCE * median:
        return median
    if mean <= 0 or _longest_run(usual <= 0) > _STOOD_STILL * usual.size:
        return None  # the clock stood still or ran backwards: no rate
    # A coarse clock may shift the first and the last time by its step.
    edge = float(np.max(usual)) / usual.size
    fits = mean + edge >= FASTEST * period and mean - edge <= SLOWEST * period
    return None if fits else mean


def _longest_run(true: npt.NDArray[np.bool_]) -> int:
    """Return the length of the longest run of True."""
    ends = np.flatnonzero(np.diff(np.concatenate(([False], true, [False])).astype(np.int8)))
    return int(np.max(ends[1::2] - ends[::2], initial=0))
