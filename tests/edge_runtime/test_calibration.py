"""The knob is false alarms per day: what the threshold promises, and when it promises nothing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.bundle.manifest import AlarmRule, Threshold
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.calibration import (
    LARGEST_STANDOUT,
    MANY_SCORES,
    Margins,
    Tail,
    calibrate,
    debounce,
    peaks,
    trial_of,
)
from edge_runtime.detector.alarm import AlarmState, update_alarm
from edge_runtime.errors import UnfitError

DAY = 86400
AT_ONCE = AlarmRule(m=1, n=1, clear_after=1)
# One row in ten minutes: 144 rows make a day, so that days of data stay small.
PERIOD = 600.0
ROWS_A_DAY = 144


def exponential(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).exponential(1.0, rows)


def calibrated(
    clean: np.ndarray,
    wish: float,
    held_out: np.ndarray | None = None,
    period: float | None = PERIOD,
) -> Threshold:
    unseen = np.zeros(0) if held_out is None else held_out
    return calibrate([clean], [unseen], wish, period, AT_ONCE).threshold


@given(
    scores=st.lists(st.integers(-3, 3), min_size=1, max_size=40),
    level=st.integers(-3, 3),
    n=st.integers(1, 5),
    data=st.data(),
)
def test_a_debounced_score_is_above_a_level_when_the_alarm_rises(
    scores: list[int], level: int, n: int, data: st.DataObject
) -> None:
    m = data.draw(st.integers(1, n))
    smooth = debounce(np.array(scores, float), AlarmRule(m, n, 1))
    assert len(smooth) == max(len(scores) - n + 1, 0)
    state = AlarmState()
    for index, score in enumerate(scores):
        # A clear level above everything: active says that the alarm rises at this very sample.
        state = update_alarm(score, level, 99, m, n, 1, state)
        if index >= n - 1:
            assert (smooth[index - n + 1] > level) == state.active


def test_the_threshold_is_the_upper_limit_of_the_tail() -> None:
    # At rest but for 20 peaks far apart: the level is 0, the mean excess that of 1 to 20.
    clean = np.zeros(8000)
    clean[np.arange(20) * 400 + 5] = np.arange(1, 21)
    found = calibrate([clean], [np.zeros(0)], 0.01, PERIOD, AT_ONCE)
    days = 8000 * PERIOD / DAY
    assert found.tail == Tail(level=0.0, count=20, days=pytest.approx(days), scale=10.5)
    assert found.peaks.tolist() == list(range(1, 21))
    assert found.threshold.clean_days == pytest.approx(days)
    assert found.threshold.value == np.float32(found.tail.upper(0.01))
    assert found.threshold.clear == np.float32(found.tail.upper(0.1))
    assert found.threshold.value > found.tail.reached(0.01)
    assert found.threshold.method == (
        "exponential tail over 20 peaks, upper 75% limit, 1.00 times as wide for what wanders"
    )


def test_a_machine_that_wanders_has_its_threshold_further_off() -> None:
    clean = exponential(30 * ROWS_A_DAY, 3)
    calm = calibrate([clean], [], 0.1, PERIOD, AT_ONCE)
    # Every eighth of the recording is elsewhere; the tail is the same, but for that.
    places = np.repeat(np.arange(8.0), len(clean) // 8)
    found = calibrate([clean + places], [], 0.1, PERIOD, AT_ONCE)
    assert calm.tail and found.tail
    for each, scores in ((calm, clean), (found, clean + places)):
        centre = np.median(scores)
        middles = [np.median(block) for block in np.array_split(scores, 8)]
        wander = np.std(middles, ddof=1) / (np.quantile(scores, 0.84) - centre)
        for level, rate in ((each.threshold.value, 0.1), (each.threshold.clear, 1.0)):
            off = (1 + 0.8 * wander) * (each.tail.upper(rate) - centre)
            assert level == pytest.approx(centre + off, rel=1e-6)
    assert wander > 0.5


@given(seed=st.integers(0, 2**16), shares=st.tuples(*(st.floats(0.021, 200),) * 2))
@settings(max_examples=80, deadline=None)
def test_fewer_wished_alarms_never_lower_a_fitted_threshold(
    seed: int, shares: tuple[float, float]
) -> None:
    clean = exponential(30 * ROWS_A_DAY, seed)
    few, many = (calibrated(clean, share / 30) for share in sorted(shares))
    assert few.method == many.method and few.method.startswith("exponential tail")
    assert few.value >= many.value and few.clear >= many.clear
    assert few.clear <= few.value


@given(seed=st.integers(0, 2**16), shares=st.tuples(*(st.floats(1e-6, 0.019),) * 2))
@settings(max_examples=20, deadline=None)
def test_the_small_sample_rule_does_not_depend_on_the_wish(
    seed: int, shares: tuple[float, float]
) -> None:
    clean = exponential(20 * ROWS_A_DAY, seed)
    one, other = (calibrated(clean, share / 20) for share in shares)
    assert one.value == other.value >= one.clear == other.clear


def test_more_clean_data_lowers_the_threshold_of_the_same_distribution() -> None:
    wish = 0.1
    values = [
        np.mean(
            [calibrated(exponential(days * ROWS_A_DAY, seed), wish).value for seed in range(30)]
        )
        for days in (20, 60, 180)
    ]
    assert values[0] > values[1] > values[2] > np.log(ROWS_A_DAY / wish)


@pytest.mark.parametrize("wish", [0.05, 0.1, 0.2])
def test_rare_false_alarms_stay_below_the_wish_in_the_median(wish: float) -> None:
    days, realised = 50, []
    for seed in range(40):
        threshold = calibrated(exponential(30 * ROWS_A_DAY, seed), wish).value
        unseen = exponential(days * ROWS_A_DAY, 1000 + seed)
        realised.append(len(peaks(unseen, threshold, AT_ONCE)) / days)
    assert np.median(realised) <= wish
    rows = days * ROWS_A_DAY
    too_low = [len(peaks(exponential(rows, seed), 5.0, AT_ONCE)) / days for seed in range(40)]
    assert np.median(too_low) > wish


def test_few_peaks_fall_back_to_the_documented_rule() -> None:
    clean = np.concatenate([np.zeros(490), [1.0, 2.0, 8.0] + [0.5] * 7])
    found = calibrated(clean, 10.0)
    assert found.value == 1.5 * 8 and found.clear == 8
    assert found.method.startswith("small-sample rule")
    shifted = calibrated(clean + 4, 10.0)
    assert shifted.value == 4 + 1.5 * 8  # from the median, so that an offset means nothing


@pytest.mark.parametrize(("rows", "raised"), [(100, 2), (175, 2), (250, 1.4), (350, 1)])
def test_few_scores_raise_threshold_and_clear_level(rows: int, raised: float) -> None:
    clean = np.zeros(rows)
    clean[7] = 8.0
    found = calibrated(clean + 4, 10.0)
    assert (found.value, found.clear) == pytest.approx((4 + raised * 12, 4 + raised * 8))
    assert found.method == f"small-sample rule: {1.5 * raised:.2g} times the largest clean score"


@pytest.mark.parametrize(
    ("share", "method"), [(0.001, "small-sample rule"), (0.03, "exponential tail")]
)
def test_many_bounded_scores_have_shown_their_largest(share: float, method: str) -> None:
    bounded = Margins(bounded=True)
    for days in (30, 40):
        clean = np.minimum(exponential(days * ROWS_A_DAY, 5), 6.0)
        plain = calibrate([clean], [], share / days, PERIOD, AT_ONCE).threshold
        found = calibrate([clean], [], share / days, PERIOD, AT_ONCE, bounded).threshold
        limit = np.median(clean) + 1.2 * (clean.max() - np.median(clean))
        assert plain.method.startswith(method) and plain.value > limit
        if len(clean) < MANY_SCORES:
            assert found == plain
        else:
            assert found.value == pytest.approx(limit) and found.clear <= clean.max()
            assert found.method.startswith(method) and "1.2 times the largest" in found.method
    assert len(clean) > MANY_SCORES > 30 * ROWS_A_DAY


def test_a_short_recording_is_not_believed_far_beyond_itself() -> None:
    clean = exponential(30 * ROWS_A_DAY, 1)
    assert calibrated(clean, 0.021 / 30).method.startswith("exponential tail")
    beyond = calibrated(clean, 0.019 / 30)
    assert beyond.method.startswith("small-sample rule")
    assert beyond.value == pytest.approx(1.5 * clean.max() - 0.5 * np.median(clean), rel=1e-6)


def test_no_clean_score_at_all_is_an_error() -> None:
    for clean in (np.zeros(0), np.zeros(2)):
        with pytest.raises(UnfitError, match="record the healthy machine for longer"):
            calibrate([clean], [], 1.0, 1.0, AlarmRule(2, 3, 1))


def test_assured_is_said_only_when_the_bound_is_below_the_wish() -> None:
    clean = exponential(60 * ROWS_A_DAY, 2)
    calm = np.zeros(4 * ROWS_A_DAY)
    found = calibrated(clean, 1.0, calm)
    assert found.assured and found.held_out_alarms == 0 and found.days_needed == 0
    assert found.upper_bound_per_day == pytest.approx(2.9957 / 4, rel=1e-4)
    assert found.statement == (
        "wish: 1 false alarms a day; threshold from 60.0 days of clean data, checked on 4.0 days "
        "it never saw: 0 alarms; assured: at most 0.75 a day with 95 % confidence"
    )


def test_without_enough_checked_days_nothing_is_assured() -> None:
    clean = exponential(60 * ROWS_A_DAY, 2)
    found = calibrated(clean, 1.0, np.zeros(2 * ROWS_A_DAY))
    assert not found.assured
    assert found.days_needed == pytest.approx(2.9957 - 2, abs=1e-3)
    assert found.statement.endswith(
        "0 alarms; not assured: 23.9 h more clean data without a further alarm would do"
    )
    enough = np.zeros(round((2 + found.days_needed) * ROWS_A_DAY) + 1)
    assert calibrated(clean, 1.0, enough).assured


def test_alarms_on_the_checked_rows_count_as_clusters() -> None:
    unseen = np.zeros(4 * ROWS_A_DAY)
    unseen[[100, 101, 105, 300]] = 1e6
    found = calibrated(exponential(60 * ROWS_A_DAY, 2), 1.0, unseen)
    assert found.held_out_alarms == 2 and not found.assured
    assert found.upper_bound_per_day == pytest.approx(6.2958 / 4, rel=1e-4)
    assert found.days_needed == pytest.approx(6.2958 - 4, rel=1e-4)


def test_an_unknown_period_is_said() -> None:
    found = calibrated(exponential(5000, 0), 100.0, period=None)
    assert found.clean_days == pytest.approx(5000 / DAY)
    assert found.statement.endswith("(sample period unknown, 1 s assumed)")
    assert "unknown" not in calibrated(exponential(5000, 0), 100.0).statement


@given(seed=st.integers(0, 2**16), height=st.floats(60, 1e4))
@settings(max_examples=30, deadline=None)
def test_an_anomaly_among_clean_scores_stands_out(seed: int, height: float) -> None:
    clean = exponential(20 * ROWS_A_DAY, seed)
    calm = calibrate([clean], [], 1.0, PERIOD, AT_ONCE)
    assert 1 <= calm.standout < LARGEST_STANDOUT and clean.argmax() == calm.row
    clean[777] += height * 2
    found = calibrate([clean], [], 1.0, PERIOD, AT_ONCE)
    assert found.standout > LARGEST_STANDOUT and found.row == 777


def test_recordings_are_debounced_apart() -> None:
    quiet, two = np.zeros(200), AlarmRule(2, 3, 1)
    ends, starts = quiet.copy(), quiet.copy()
    ends[-1] = starts[0] = 9.0
    apart = calibrate([ends, starts], [], 1.0, PERIOD, two).threshold
    joined = calibrate([np.concatenate([ends, starts])], [], 1.0, PERIOD, two).threshold
    assert apart.value == 0 and joined.value == 1.5 * 9


@pytest.mark.parametrize(("bundle", "enough"), [("linear_bundle", 900), ("tiny_bundle", 180)])
def test_little_clean_data_makes_a_trial(
    bundle: str, enough: int, request: pytest.FixtureRequest
) -> None:
    manifest = read_bundle(request.getfixturevalue(bundle)).manifest
    ((kernel, own),) = manifest.thresholds.items()

    def trial(rows: int, period: float | None) -> str:
        found = replace(own, clean_days=rows * (period or 1.0) / DAY)
        return trial_of(replace(manifest, period=period, thresholds={kernel: found}))

    for period in (None, 0.02, PERIOD):
        assert trial(enough, period) == ""
        told = f"trial: threshold from {enough - 1} clean rows; learn again with more"
        assert trial(enough - 1, period) == told
