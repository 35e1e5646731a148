"""A recording is refused for another rate alone, and not for what real clocks and wires do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.errors import GruardError
from edge_runtime.sources import sample_period as module
from edge_runtime.sources.sample_period import ROWS_LOOKED_AT, check_file_period

Times = npt.NDArray[np.float64]
RNG = np.random.default_rng(0)
ROWS = 3000
SLOTS = np.arange(float(ROWS))


def lossy(share: float) -> Times:
    return SLOTS[RNG.random(ROWS) >= share]


def noisy(times: Times, periods: float) -> Times:
    return times + RNG.normal(0, periods, len(times))


def written(path: Path, times: Times) -> Path:
    path.write_text("time,a\n" + "".join(f"{float(time)!r},1\n" for time in times))
    return path


SAME: dict[str, Callable[[], Times]] = {
    "regular": lambda: SLOTS,
    "4 % fast": lambda: SLOTS * 0.96,
    "jitter": lambda: noisy(SLOTS, 0.2),
    "much jitter": lambda: noisy(SLOTS, 1.0),
    "one-sided jitter": lambda: SLOTS + 0.6 * (RNG.random(ROWS) < 0.02),
    "2 % lost": lambda: lossy(0.02),
    "30 % lost": lambda: lossy(0.3),
    "30 % lost, jitter": lambda: noisy(lossy(0.3), 0.5),
    "clumps of three": lambda: np.floor(SLOTS / 3) * 3,
    "stamps of 10 periods": lambda: np.floor(SLOTS / 10) * 10,
    "stamps of 10 periods, 30 % lost": lambda: np.floor(lossy(0.3) / 10) * 10,
    "stamps of 60 periods": lambda: np.floor(SLOTS / 60) * 60,
    "few rows of coarse stamps": lambda: np.floor(SLOTS[:25] / 10) * 10,
    "stamps of 1.1 periods, 10 % lost": lambda: np.floor(lossy(0.1) / 1.1) * 1.1,
    "duplicates": lambda: SLOTS.repeat(1 + (RNG.random(ROWS) < 0.05)),
    "frozen for a while": lambda: np.where(SLOTS > 2000, SLOTS, np.minimum(SLOTS, 1000)),
    "frozen for good": lambda: np.minimum(SLOTS, 1000),
    "always 0": lambda: SLOTS * 0,
    "backwards": lambda: SLOTS[::-1],
    "back by an hour": lambda: SLOTS - 3600 * (SLOTS > 1000),
    "ahead by a year": lambda: SLOTS + 3e7 * (SLOTS > 1000),
    "set from 0 to now": lambda: SLOTS + 1.7e9 * (SLOTS > 100),
    "one stamp of 1e305": lambda: np.where(SLOTS == 5, 1e305, SLOTS),
    "two rows": lambda: SLOTS[:2] * 7,
}
OTHER: dict[str, tuple[Callable[[], Times], str]] = {
    "a tenth slower": (lambda: SLOTS * 1.1, "1.1"),
    "a tenth faster": (lambda: SLOTS * 0.9, "0.9"),
    "twice as fast": (lambda: SLOTS * 0.5, "0.5"),
    "half as fast, jitter": (lambda: 2 * noisy(SLOTS, 0.15), "2"),
    "half as fast, lost": (lambda: 2 * noisy(lossy(0.1), 0.2), "2.2"),
    "twice as fast, jitter": (lambda: 0.5 * noisy(SLOTS, 0.6), "0.5"),
    "twice as fast, coarse": (lambda: np.floor(SLOTS / 20) * 10, "0.49"),
    "milliseconds for seconds": (lambda: SLOTS * 1000, "1000"),
    "a sample an hour": (lambda: SLOTS * 3600, "3600"),
    "three rows": (lambda: SLOTS[:3] * 2, "2"),
}


@pytest.mark.parametrize("period", [0.01, 1.0, 300.0])
@pytest.mark.parametrize("name", SAME)
def test_a_disturbed_recording_of_the_rate_is_taken(
    name: str, period: float, tmp_path: Path
) -> None:
    check_file_period(written(tmp_path / "a.csv", SAME[name]() * min(period, 1e3)), period)


@pytest.mark.parametrize("name", OTHER)
def test_a_recording_of_another_rate_is_refused(name: str, tmp_path: Path) -> None:
    times, found = OTHER[name]
    with pytest.raises(GruardError, match=rf"a\.csv: one sample every {found}.* trained on one ev"):
        check_file_period(written(tmp_path / "a.csv", times()), 1.0)


def test_times_at_both_ends_of_the_floats_are_no_rate(tmp_path: Path) -> None:
    check_file_period(written(tmp_path / "a.csv", np.where(SLOTS % 2, 1e308, -1e308)), 1.0)


def test_no_more_than_the_first_rows_are_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", np.arange(ROWS_LOOKED_AT + 10_000.0))
    with path.open("ab") as file:
        file.write(b"\xff\n" * 10)  # not UTF-8, which whoever reads it would be told
    check_file_period(path, 1.0)


def test_no_more_than_the_first_bytes_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "day.csv", np.concatenate([SLOTS[:1000], 1000 + 5 * SLOTS]))
    monkeypatch.setattr(module, "BYTES_LOOKED_AT", 6000)
    check_file_period(path, 1.0)
    monkeypatch.undo()
    with pytest.raises(GruardError, match="one sample every "):
        check_file_period(path, 1.0)


def test_an_unreadable_row_is_left_to_whoever_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('time,a\n0,1\nx,1\n\n"\n2,1\n3,oops\n4,1,1\n5,1\n')
    check_file_period(path, 1.0)
    check_file_period(path, None)
    (tmp_path / "b.jsonl").write_text('{"time": 0}\n')
    check_file_period(tmp_path / "b.jsonl", 1.0)
