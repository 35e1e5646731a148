"""Does a recording come at the rate the model was trained for?"""

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import GruardError
from edge_runtime.sources.csvlayout import start_rows
from edge_runtime.sources.lines import text_lines

TOLERANCE = 0.05
"""A regular recording may be so much faster or slower than the period."""
SLOWEST, FASTEST = 1.6, 0.6
"""Periods from row to row, on average, of a recording whose times scatter. 30 % of lost rows make
1.43; a source of half the rate makes 2, one of twice the rate 0.5."""
ROWS_LOOKED_AT, BYTES_LOOKED_AT = 4000, 1 << 22
"""A minute of coarse times has enough of both; more rows would only take longer."""
_FEW = 0.01
"""Share of repeated times above which they are coarse, or the clock is broken."""
_STOOD_STILL = 0.05
"""A clock that repeats a time for so long a part of the rows stood still."""
_STEP_PERIODS, _STEP_SECONDS = 1000.0, 90.0
"""Between two rows: no loss and no coarse time, but a clock that was set or a stop."""


def check_file_period(path: str | Path, period: float | None) -> None:
    """Raise GruardError when the rows of `path` clearly come at another rate than one in `period`.

    Only the times of the first rows are looked at, and only where both sides know their period.
    Jitter, lost rows, coarse times and clocks that were set are no other rate: either the median
    or the mean distance of two rows has to fit. Where neither does and the distances scatter, only
    a mean that no loss explains is refused. An unreadable row is left to whoever reads the file.
    """
    with text_lines(path) as text:
        first = next(text, "")
        if first.lstrip().startswith("{"):
            return  # JSON lines, whose times the sample clock watches
        found = np.array([*_times(first, text, path)])
    if period is None or len(found) < 3:
        return
    rate = _mismatch(found, period)
    if rate is not None:
        raise GruardError(
            f"{path}: one sample every {rate:.4g} s, but the model was trained on one every "
            f"{period:g} s; resample the recording or train on this rate"
        )


def _times(header: str, text: Iterator[str], path: str | Path) -> Iterator[float]:
    """The readable times of the first rows. Raises GruardError for an unusable header."""
    layout, lines, _ = start_rows(chain([header], text), path)
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
    """The seconds from row to row when they clearly differ from `period`, else None."""
    with np.errstate(over="ignore"):
        distances = np.clip(np.diff(times), -1e300, 1e300)
    usual = distances[np.abs(distances) <= max(_STEP_PERIODS * period, _STEP_SECONDS)]
    if usual.size < distances.size / 2:
        usual = distances  # no steps of a clock, then, but the rate
    low, median, high = map(float, np.quantile(usual, (0.25, 0.5, 0.75)))
    mean = float(np.mean(usual))
    if any(abs(rate - period) <= TOLERANCE * period for rate in (median, mean)):
        return None
    repeated = np.mean(usual <= 0)
    if repeated < _FEW and high - low <= 2 * TOLERANCE * median:
        return median
    if mean <= 0 or _longest_run(usual <= 0) > _STOOD_STILL * usual.size:
        return None  # the clock stood still or ran backwards, and tells no rate
    # The first and the last time of a short recording may be off by a coarse clock's step.
    edge = float(np.max(usual)) / usual.size
    fits = mean + edge >= FASTEST * period and mean - edge <= SLOWEST * period
    return None if fits else mean


def _longest_run(true: npt.NDArray[np.bool_]) -> int:
    """The length of the longest run of True."""
    ends = np.flatnonzero(np.diff(np.concatenate(([False], true, [False])).astype(np.int8)))
    return int(np.max(ends[1::2] - ends[::2], initial=0))
