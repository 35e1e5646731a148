"""Stretches unlike the rest are found where they are, and a healthy recording has none."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_recording import DAY, NAMES, faulty, pump, worn

from edge_runtime.learning.smoothing import smoothed
from edge_runtime.look import stretches
from edge_runtime.look.recording import read_whole
from edge_runtime.look.stretches import ENOUGH_ROWS, FEWEST_TO_TELL, MOST_STRETCHES, find_stretches

OPEN = Path(__file__).parents[4] / "shared" / "data"
ROWS = 3 * DAY
WEAR = (1500, 8000)
SEEDS = [*range(4), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(4, 20))]
CURRENT, TEMPERATURE, VIBRATION = map(NAMES.index, ("current", "temperature", "vibration"))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_worn_bearing_that_nobody_noticed_is_found_with_its_edges(seed: int) -> None:
    (found,) = find_stretches(worn(pump(ROWS, seed), *WEAR))
    assert abs(found.start - WEAR[0]) <= 0.05 * (WEAR[1] - WEAR[0])
    assert abs(found.stop - WEAR[1]) <= 0.05 * (WEAR[1] - WEAR[0])
    assert {CURRENT, VIBRATION} <= set(found.channels) <= {CURRENT, VIBRATION, TEMPERATURE}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_healthy_recording_has_no_strange_stretch(seed: int) -> None:
    assert find_stretches(pump(ROWS, 100 + seed)) == []


@pytest.mark.parametrize(
    "share", [0.1, *(pytest.param(each, marks=pytest.mark.long) for each in (0.05, 0.2, 0.3, 0.4))]
)
@pytest.mark.parametrize("kind", ["wear", "step", "drift", "noise", "stuck"])
def test_other_faults_of_every_length_are_found(kind: str, share: float) -> None:
    seed = int(100 * share) + len(kind)
    rng = np.random.default_rng(seed)
    length = int(share * ROWS)
    start = int(rng.integers(0, ROWS - length))
    channel = int(rng.choice([i for i in range(len(NAMES)) if i != TEMPERATURE]))
    healthy, stop = pump(ROWS, seed), start + length
    if kind == "wear":
        values = worn(healthy, start, stop)
    else:
        values = faulty(healthy, kind, channel, start, stop, seed)
    (found,) = find_stretches(values)
    tolerance = (0.1 if kind == "drift" else 0.05) * length  # a drift begins as nothing
    assert abs(found.start - start) <= tolerance
    assert abs(found.stop - stop) <= tolerance
    assert found.channels[0] == (VIBRATION if kind == "wear" else channel)


@pytest.mark.long
def test_two_stretches_with_different_faults_are_two() -> None:
    values = worn(pump(ROWS, 3), 1500, 4000)
    values = faulty(values, "stuck", 1, 15000, 18000, 0)
    first, second = find_stretches(values)
    assert (first.start, second.start) == pytest.approx((1500, 15000), abs=150)
    assert second.features[0] == "movement" and 1 in second.channels


@pytest.mark.long
def test_a_state_that_comes_back_is_not_strange() -> None:
    once = pump(ROWS, 4)
    again = worn(worn(once, 2000, 5000), 15000, 18000)
    assert find_stretches(worn(once, 2000, 5000))
    assert find_stretches(again) == []


@pytest.mark.parametrize("kind", ["trend", "day", "warm-up", "regimes", "wander"])
def test_what_drifts_or_recurs_is_not_strange(kind: str) -> None:
    rows = 12_000
    for seed in range(2):
        rng = np.random.default_rng(seed)
        at, noise = np.arange(rows)[:, np.newaxis], rng.normal(size=(rows, 4))
        slow = {
            "trend": at / rows * 5 * rng.normal(size=4),
            "day": 2 * np.sin(at / 700 + rng.uniform(0, 6, 4)),
            "warm-up": np.exp(-at / 2000) * 5 * rng.normal(size=4),
            "regimes": 3 * rng.normal(size=(5, 4))[np.repeat(rng.integers(0, 5, 60), 200)],
            "wander": rng.normal(0, 0.01, (rows, 4)).cumsum(axis=0),
        }[kind]
        assert find_stretches(slow + noise) == []


@pytest.mark.long
@pytest.mark.parametrize("channels", [1, 3])
def test_fewer_rows_are_too_few_to_tell(channels: int) -> None:
    signal = np.random.default_rng(0).normal(size=(2 * FEWEST_TO_TELL, channels))
    signal[200:400, 0] += 40
    assert find_stretches(signal[: FEWEST_TO_TELL - 1]) == []
    (found,) = find_stretches(signal[:FEWEST_TO_TELL])
    assert (found.start, found.stop, found.channels) == (200, 400, (0,))


@pytest.mark.long
@pytest.mark.parametrize("rows", [ENOUGH_ROWS - 1, ENOUGH_ROWS])
def test_the_end_of_a_short_recording_is_not_judged(rows: int) -> None:
    signal = np.random.default_rng(0).normal(size=(rows, 3))
    signal[rows - rows // 4 :, 0] += 40
    assert bool(find_stretches(signal)) is (rows == ENOUGH_ROWS)


def test_holes_and_switches_are_no_fault() -> None:
    values = pump(ROWS, 5)
    values[4000:5500, TEMPERATURE] = np.nan
    values[9000:12000, 0] = np.inf
    switch = np.zeros((ROWS, 1))
    switch[6000:7500] = 1
    assert find_stretches(np.hstack([values, switch])) == []


@pytest.mark.long
@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([0, 1, FEWEST_TO_TELL - 1, FEWEST_TO_TELL, FEWEST_TO_TELL + 37]),
    st.integers(1, 3),
    st.integers(0, 2**31),
    st.data(),
)
def test_any_readings_have_an_answer(
    rows: int, columns: int, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.choice([0.0, 1.0, -3.4e38, np.nan, np.inf, rng.normal()], (rows, columns))
    values += data.draw(st.sampled_from([0.0, 1.0])) * rng.normal(size=(rows, columns))
    found = find_stretches(values.astype(np.float32))
    assert len(found) <= MOST_STRETCHES
    edges = [edge for stretch in found for edge in (stretch.start, stretch.stop)]
    assert edges == sorted(edges) and all(0 <= edge <= rows for edge in edges)


@pytest.mark.long
@pytest.mark.skipif(not OPEN.is_dir(), reason="the open data of ../shared/data are not here")
def test_open_clean_recordings_have_at_most_one_false_warning() -> None:
    clean = [*OPEN.glob("asd/*.train.csv"), OPEN / "tep" / "normal.train.csv"]
    clean += [OPEN / "tep" / "fault00.test.csv", *OPEN.glob("gearbox/healthy-*.csv.gz")]
    values = {file.name: read_whole([file]).values for file in clean}
    for file in sorted(OPEN.glob("nab/*.csv")):  # whose first rows are taken as healthy
        rows = read_whole([file]).values
        values[file.name] = rows[: min(int(0.15 * len(rows)), 750)]
    assert len(values) >= 30
    warned = [name for name, readings in values.items() if find_stretches(readings)]
    assert len(warned) <= 1, warned


@pytest.mark.long
@pytest.mark.parametrize("rows", [500, 1400, pytest.param(9000, marks=pytest.mark.long)])
def test_a_state_that_came_only_once_is_not_strange(rows: int) -> None:
    assert [seed for seed in range(4) if find_stretches(pump(rows, seed))] == []


def wide(rows: int, channels: int, seed: int) -> np.ndarray:
    """Rows of channels that follow five hidden loads; a fault of one of them."""
    rng = np.random.default_rng(seed)
    loads = smoothed(rng.normal(size=(rows, 5)), 0.1)
    values = 3 * loads @ rng.normal(size=(5, channels)) + rng.normal(size=(rows, channels))
    values[rows // 3 : rows // 3 + rows // 10, 1] += 8
    values[rows // 2 : rows // 2 + 30, -1] = np.nan
    return values


def plain_squares(blocks: stretches._Blocks, weights: np.ndarray) -> np.ndarray:
    parts = [blocks.rows[a:b] @ weights for a, b in pairwise(blocks.edges)]
    return np.array([(part**2).sum(axis=0) for part in parts])


def plain_gram(blocks: stretches._Blocks, chosen: np.ndarray) -> np.ndarray:
    rows = blocks.rows[np.repeat(chosen, np.diff(blocks.edges))]
    return rows.T @ rows


def plain_contrast(inside: np.ndarray, others: np.ndarray, floor: float) -> np.ndarray:
    middle, (low, high) = np.median(others, axis=0), np.quantile(inside, (0.25, 0.75), axis=0)
    above, below = np.sort(others, axis=0)[-2] - middle, middle - np.sort(others, axis=0)[1]
    least = np.maximum((above + below) / 2, floor)
    return np.maximum(
        (low - middle) / np.maximum(above, least / 2),
        (middle - high) / np.maximum(below, least / 2),
    )


@pytest.mark.long
@pytest.mark.parametrize(("rows", "channels"), [(1000, 12), (3000, 3)])
def test_the_fast_sums_find_what_the_plain_ones_find(
    rows: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = wide(rows, channels, 1)
    fast = find_stretches(values)
    for name, plain in {
        "_squares": plain_squares, "_gram_of": plain_gram, "_contrast": plain_contrast,
    }.items():  # fmt: skip
        monkeypatch.setattr(stretches, name, plain)
    slow = find_stretches(values)
    assert [(f.start, f.stop, f.channels, f.features) for f in fast] == [
        (f.start, f.stop, f.channels, f.features) for f in slow
    ]
    assert fast and [f.contrast for f in fast] == pytest.approx([f.contrast for f in slow])
