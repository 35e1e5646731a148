"""Metrics against hand-computed examples, literal loops and published properties."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.detection_metrics import (
    TAIL_ROWS,
    affiliation,
    alarm_figures,
    auc_pr,
    fdr_at_far,
    vus_pr,
)

Metric = Callable[[np.ndarray, np.ndarray], float]


def flags(rows: int, *events: tuple[int, int]) -> np.ndarray:
    """Bool [rows], True in the given half-open stretches."""
    found = np.zeros(rows, bool)
    for start, stop in events:
        found[start:stop] = True
    return found


@st.composite
def labelled_scores(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels with at least one event, and scores on a coarse grid so that ties occur."""
    rows = draw(st.integers(8, 60))
    labels = np.array(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    labels[draw(st.integers(0, rows - 1))] = True
    scores = draw(st.lists(st.integers(-8, 8), min_size=rows, max_size=rows))
    return labels, np.array(scores, float) / 2


def naive_average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """One threshold after the other, straight from the definition."""
    area, recall = 0.0, 0.0
    for level in sorted(set(scores), reverse=True):
        flagged = scores >= level
        hits = (flagged & labels).sum()
        area += (hits / labels.sum() - recall) * hits / flagged.sum()
        recall = hits / labels.sum()
    return float(area)


def segments(labels: np.ndarray) -> list[tuple[int, int]]:
    """First and last row of every event."""
    padded = [False, *labels, False]
    starts = [i for i in range(len(labels)) if padded[i + 1] and not padded[i]]
    ends = [i for i in range(len(labels)) if padded[i + 1] and not padded[i + 2]]
    return list(zip(starts, ends, strict=True))


def slow_vus_pr(labels: np.ndarray, scores: np.ndarray, buffer: int, thresholds: int) -> float:
    """Range-PR volume with plain loops over windows, thresholds, rows and events."""
    rows, events = len(labels), segments(labels)
    ranked = sorted(scores, reverse=True)
    volume = 0.0
    for window in range(buffer + 1):
        half = window // 2
        soft = labels.astype(float)
        for first, last in events:
            for distance in range(1, half + 1):
                for row in (first - distance, last + distance):
                    if 0 <= row < rows:
                        soft[row] += math.sqrt(1 - distance / window)
        soft = np.minimum(soft, 1)
        groups = [[max(events[0][0] - half, 0), events[0][1] + half]]
        for first, last in events[1:]:
            if groups[-1][1] < first - half:
                groups.append([first - half, last + half])
            groups[-1][1] = last + half
        area, recall_before = 0.0, 0.0
        for rank in np.linspace(0, rows - 1, thresholds).astype(int):
            flagged = scores >= ranked[rank]
            hits = sum(soft[row] for row in range(rows) if flagged[row])
            counted = sum(soft[row] for row in range(rows) if flagged[row] or labels[row])
            found = sum(any(flagged[first : last + 1]) for first, last in groups)
            recall = min(hits / ((labels.sum() + counted) / 2), 1) * found / len(groups)
            area += (recall - recall_before) * hits / flagged.sum()
            recall_before = recall
        volume += area
    return volume / (buffer + 1)


@given(labelled_scores())
def test_auc_pr_equals_the_naive_loop(case: tuple[np.ndarray, np.ndarray]) -> None:
    assert auc_pr(*case) == pytest.approx(naive_average_precision(*case), abs=1e-12)


@given(labelled_scores())
def test_vus_pr_equals_the_literal_loop(case: tuple[np.ndarray, np.ndarray]) -> None:
    assert vus_pr(*case, 9, 11) == pytest.approx(slow_vus_pr(*case, 9, 11), abs=1e-9)


def test_auc_pr_by_hand() -> None:
    labels = np.array([1, 0, 1, 0])
    assert auc_pr(labels, [4, 3, 2, 1]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert auc_pr(labels, [1, 1, 1, 1]) == pytest.approx(0.5)  # ties: the base rate


def test_vus_pr_by_hand() -> None:
    # Window 0: the curve is that of AUC-PR. Window 2: the rows beside the event count sqrt(1/2).
    labels, scores = flags(5, (2, 3)), np.array([0.0, 1, 2, 0, 0])
    side = math.sqrt(0.5)
    first, both, rest = 1.0, 1 + side, 1 + 2 * side
    recalls = [first / 1, both / (1 + side / 2), rest / (1 + side)]
    assert min(recalls) == recalls[0] == 1.0  # recall is capped: the first threshold has it all
    assert vus_pr(labels, scores, buffer=0, thresholds=5) == pytest.approx(1.0)
    assert vus_pr(labels, scores, buffer=2, thresholds=5) == pytest.approx(1.0)
    # Only the neighbour flagged first: softened precision, and existence counts it.
    scores = np.array([0.0, 2, 1, 0, 0])
    first_recall = side / (1 + side / 2)
    wide = first_recall * side + (1 - first_recall) * (1 + side) / 2
    narrow = 0.5
    found = vus_pr(labels, scores, buffer=2, thresholds=5)
    assert found == pytest.approx((narrow + narrow + wide) / 3)


@pytest.mark.parametrize("metric", [auc_pr, vus_pr])
def test_perfect_is_one_and_random_is_the_base_rate(metric: Metric) -> None:
    rng = np.random.default_rng(0)
    labels = flags(3000, (500, 620), (2000, 2100))
    assert metric(labels, labels.astype(float)) == pytest.approx(1.0)
    assert metric(labels, rng.random(3000)) < 0.25
    assert metric(labels, np.ones(3000)) < 0.25


@pytest.mark.parametrize("metric", [auc_pr, vus_pr])
def test_a_worse_score_is_noticed(metric: Metric) -> None:
    rng = np.random.default_rng(1)
    labels = flags(2000, (300, 360), (1200, 1300))
    found = [metric(labels, labels + noise * rng.normal(size=2000)) for noise in (0.2, 0.6, 1.5)]
    assert found == sorted(found, reverse=True)
    one_missed = labels & (np.arange(2000) < 1000)
    assert metric(labels, one_missed.astype(float)) < 0.7


@pytest.mark.parametrize("metric", [auc_pr, partial(vus_pr, buffer=10, thresholds=20)])
@given(case=labelled_scores())
def test_monotone_transforms_change_nothing(
    metric: Metric, case: tuple[np.ndarray, np.ndarray]
) -> None:
    labels, scores = case
    assert metric(labels, scores) == metric(labels, 3 * scores - 7)
    assert metric(labels, scores) == metric(labels, np.exp(scores))


@pytest.mark.parametrize("metric", [auc_pr, vus_pr])
def test_what_cannot_be_judged_is_refused(metric: Metric) -> None:
    with pytest.raises(ValueError, match="without an event"):
        metric(np.zeros(5), np.zeros(5))
    with pytest.raises(ValueError, match="finite"):
        metric(np.array([1, 0]), np.array([np.nan, 0]))
    with pytest.raises(ValueError, match="equally long"):
        metric(np.array([1, 0]), np.array([1.0]))


def test_fdr_at_far_by_hand() -> None:
    normal = np.arange(101.0)  # the 95 % quantile is 95
    assert fdr_at_far(normal, [94, 95, 96, 97], 0.05) == 0.5
    assert fdr_at_far(normal, [0, 0, 0, 97], 0.05) == 0.25
    assert fdr_at_far(np.ones(9), np.ones(9), 0.05) == 0.0


def test_alarm_figures_by_hand() -> None:
    labels = flags(1000, (100, 150), (400, 420), (700, 750))
    alarms = flags(1000, (50, 53), (110, 170), (412, 413), (600, 605), (607, 610), (660, 661))
    figures = alarm_figures(labels, alarms)
    assert figures.delays == (10, 12)
    assert figures.event_recall == pytest.approx(2 / 3)
    assert figures.median_delay == 11
    assert figures.false_alarms == 3  # at 50, 600 and 660; the tail of the first event is forgiven
    assert figures.normal_rows == 1000 - 120
    assert figures.false_alarms_per_10000 == pytest.approx(1e4 * 3 / 880)
    assert figures.false_share == pytest.approx((3 + 5 + 3 + 1) / 880)


def test_alarms_that_never_end_are_false_alarms() -> None:
    labels = flags(2000, (500, 550))
    everything = alarm_figures(labels, np.ones(2000, bool))
    assert everything.event_recall == 1.0
    assert everything.false_alarms == 2
    assert everything.false_share == 1.0
    short, long = (flags(2000, (510, 550 + TAIL_ROWS + more)) for more in (0, 1))
    assert alarm_figures(labels, short).false_alarms == 0
    assert alarm_figures(labels, long).false_alarms == 1


def test_an_alarm_that_starts_beside_its_event_is_false() -> None:
    labels = flags(200, (100, 120))
    assert alarm_figures(labels, flags(200, (95, 110))).false_alarms == 1
    assert alarm_figures(labels, flags(200, (120, 130))).false_alarms == 1


def test_alarm_figures_of_recordings_add_up() -> None:
    one = alarm_figures(flags(100, (10, 20)), flags(100, (12, 14)))
    none = alarm_figures(flags(100), flags(100, (50, 51)))
    both = one + none
    assert (both.events, both.delays, both.false_alarms) == (1, (2,), 1)
    assert both.normal_rows == 190
    assert math.isnan(none.event_recall) and math.isnan(none.median_delay)


def test_affiliation_example_of_the_paper() -> None:
    # Minutes of the paper's figure as rows; its second event is computed there by hand.
    labels = flags(180, (0, 10), (50, 70), (170, 175))
    alarms = flags(180, (5, 6), (7, 10), (11, 12), (40, 60), (115, 130), (135, 140), (165, 170))
    middle = affiliation(flags(90, (20, 40)), flags(90, (10, 30), (85, 90)))
    assert middle.precision == pytest.approx(0.672222222)
    assert middle.recall == pytest.approx(0.944444444)
    whole = affiliation(labels, alarms)
    assert whole.precision == pytest.approx(numeric_affiliation(labels, alarms)[0], abs=2e-3)
    assert whole.recall == pytest.approx(numeric_affiliation(labels, alarms)[1], abs=2e-3)


def numeric_affiliation(labels: np.ndarray, alarms: np.ndarray) -> tuple[float, float]:
    """Affiliation with every integral as a sum over a fine grid of times."""
    fine = 20
    time = (np.arange(fine * len(labels)) + 0.5) / fine
    on = alarms[time.astype(int)]
    events = [(a, b + 1) for a, b in segments(labels)]
    middles = [(a[1] + b[0]) / 2 for a, b in pairwise(events)]
    precisions, recalls = [], []
    for (start, stop), low, high in zip(
        events, [0, *middles], [*middles, len(labels)], strict=True
    ):
        guess = time[(time > low) & (time < high)]
        flagged = time[on & (time > low) & (time < high)]

        def to_event(times: np.ndarray, start: int = start, stop: int = stop) -> np.ndarray:
            return np.maximum(np.maximum(start - times, times - stop), 0)

        if not len(flagged):
            recalls.append(0.0)
            continue
        precisions.append(
            np.mean([(to_event(guess) >= d).mean() for d in to_event(flagged)]),
        )
        inside = time[(time > start) & (time < stop)]
        nearest = [np.abs(flagged - y).min() for y in inside]
        recalls.append(
            np.mean(
                [
                    1.0 if d == 0 else (np.abs(guess - y) >= d).mean()
                    for y, d in zip(inside, nearest, strict=True)
                ]
            )
        )
    return float(np.mean(precisions)), float(np.mean(recalls))


def test_affiliation_equals_numeric_integration() -> None:
    rng = np.random.default_rng(3)
    for _ in range(6):
        labels, alarms = rng.random(60) < 0.1, rng.random(60) < 0.15
        labels[30] = alarms[10] = True
        found = affiliation(labels, alarms)
        wanted = numeric_affiliation(labels, alarms)
        assert (found.precision, found.recall) == pytest.approx(wanted, abs=0.01)


def test_affiliation_properties() -> None:
    rng = np.random.default_rng(4)
    labels = flags(20000, (6000, 6060), (14000, 14100))
    perfect = affiliation(labels, labels)
    assert (perfect.precision, perfect.recall, perfect.f1) == pytest.approx((1, 1, 1))
    everything = affiliation(labels, np.ones(20000, bool))
    assert everything.recall == pytest.approx(1.0)
    assert everything.precision == pytest.approx(0.5, abs=0.02)
    assert affiliation(labels, rng.random(20000) < 0.02).precision == pytest.approx(0.5, abs=0.05)
    nothing = affiliation(labels, np.zeros(20000, bool))
    assert math.isnan(nothing.precision)
    assert (nothing.recall, nothing.f1) == (0, 0)


def test_affiliation_notices_a_worse_alarm() -> None:
    labels = flags(1000, (400, 450), (800, 820))
    near, far = flags(1000, (390, 400), (800, 820)), flags(1000, (300, 310), (800, 820))
    missed = flags(1000, (400, 450))
    found = [affiliation(labels, alarms).f1 for alarms in (labels, near, far)]
    assert found == sorted(found, reverse=True) and len(set(found)) == 3
    assert affiliation(labels, missed).recall == pytest.approx(0.5)
    with pytest.raises(ValueError, match="without an event"):
        affiliation(flags(10), flags(10, (1, 2)))
