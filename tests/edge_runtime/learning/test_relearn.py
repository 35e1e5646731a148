"""A candidate is promoted if it is as good on rows that it has not seen, and kept out otherwise."""

from dataclasses import replace

import numpy as np
import pytest
from relearn_rig import DAY, NAMES, PERIOD, START, machine

from edge_runtime.bundle.manifest import Manifest
from edge_runtime.columns import NOTHING_SAID
from edge_runtime.detector.cell import Model
from edge_runtime.learning.answers import AnsweredAlarm, OwnerAnswers, TimeSpan
from edge_runtime.learning.learn import linear_run, measure
from edge_runtime.learning.past import JudgedPast, Past
from edge_runtime.learning.recording import Dataset, Recording
from edge_runtime.learning.relearn import (
    BLOCK,
    Decision,
    HeldOutComparison,
    judge,
    relearned,
    thinned,
    usable_pieces,
)
from edge_runtime.learning.request import Data
from edge_runtime.learning.settings import load_settings
from edge_runtime.learning.shipped import shipped_model
from edge_runtime.learning.split import split_by_time


def silent(sentence: str) -> None:
    """Discard progress."""


@pytest.fixture(scope="module")
def current() -> Model:
    """The detector of two days."""
    recording = Recording("two days", NAMES, None, machine(2, 1), None, PERIOD)
    split = split_by_time([recording], gap=8, margin=8)
    settings = load_settings(None, NAMES)
    data = Data(Dataset((recording,)), split, settings, PERIOD, (), NOTHING_SAID)
    return shipped_model(measure(linear_run(data, "pump", 0, silent), 1, 1.0, silent).manifest, b"")


def past_of(values: np.ndarray) -> Past:
    return Past(START + PERIOD * np.arange(len(values)), values, PERIOD)


def decided(
    values: np.ndarray,
    current: Model,
    answers: OwnerAnswers | None = None,
    alarm: slice = slice(0, 0),
) -> Decision:
    alarms = np.zeros(len(values), bool)
    alarms[alarm] = True
    judged = JudgedPast(alarms, np.zeros(len(values), bool))
    answers = answers or OwnerAnswers((), -np.inf)
    return relearned(past_of(values), judged, answers, current, 2, 1.0, silent)


def learned_from(decision: Decision) -> Manifest:
    assert decision.candidate is not None
    return decision.candidate.measured.manifest


def test_a_healthy_week_is_learned(current: Model) -> None:
    decision = decided(machine(8, 2), current)
    manifest = learned_from(decision)
    assert decision.promoted and manifest.version == 2 and manifest.name == "pump"
    assert manifest.channel_names == NAMES and manifest.period == PERIOD
    assert 5 < decision.learned_days < 7  # a fifth is held out


def test_a_real_fault_that_goes_on_keeps_it_out(current: Model) -> None:
    values, stop = machine(8, 2), 8 * DAY
    times = past_of(values).times
    answers = OwnerAnswers(
        (AnsweredAlarm(TimeSpan(float(times[-5]), float(times[-1])), True),), -np.inf
    )
    decision = decided(values, current, answers, slice(stop - 5, stop))
    assert not decision.promoted and "marked as real" in decision.reason


def test_few_healthy_rows_keep_it_out(current: Model) -> None:
    decision = decided(machine(2, 2), current)
    assert not decision.promoted and "too little" in decision.reason


def test_a_slow_fault_keeps_it_out_with_the_channel_named(current: Model) -> None:
    values = machine(16, 2)
    values[:, 2] += 4 * np.clip((np.arange(len(values)) / DAY - 6) / 10, 0, 1).astype(np.float32)
    decision = decided(values, current)
    assert not decision.promoted and decision.reason.startswith("vibration has risen for ")
    assert "gruard accept" in decision.reason and decision.candidate is None


def test_rows_of_an_alarm_go_in_only_if_it_was_false(current: Model) -> None:
    values, stop = machine(5, 2), 2 * DAY
    values[stop - 40 : stop, 0] += 40
    times = past_of(values).times
    span = TimeSpan(float(times[stop - 40]), float(times[stop - 1]))
    scales = []
    for real in (True, False):
        answers = OwnerAnswers((AnsweredAlarm(span, real),), -np.inf)
        decision = decided(values, current, answers, slice(stop - 40, stop))
        assert decision.used is not None and decision.used[stop - 40 : stop].all() == (not real)
        scales.append(learned_from(decision).channels[0].scale)
    assert scales[1] > 1.2 * scales[0]


def test_a_restless_unseen_part_keeps_it_out(current: Model) -> None:
    values = machine(8, 2)
    for start in range(len(values) - 560, len(values) - 30, 75):
        values[start : start + 4] += 25
    decision = decided(values, current)
    assert not decision.promoted and "of the healthy time" in decision.reason


def test_a_candidate_that_learned_faults_finds_fewer_and_is_kept_out(current: Model) -> None:
    values, rng = machine(8, 2), np.random.default_rng(3)
    for start in range(0, 6 * DAY, 40):  # of every size, as if nobody had looked
        values[start : start + 8] += (rng.normal(size=3) * 12).astype(np.float32)
    decision = decided(values, current)
    found = decision.comparison
    assert found is not None and found.found < found.found_before
    assert not decision.promoted and "injected faults" in decision.reason


@pytest.mark.parametrize(
    ("comparison", "promoted"),
    [
        (HeldOutComparison(2.0, 4, 0.01, 0.02, faults=80, found=40, found_before=40), True),
        (HeldOutComparison(2.0, 6, 0.01, 0.02, faults=80, found=40, found_before=40), False),
        (HeldOutComparison(2.0, 1, 0.06, 0.02, faults=80, found=50, found_before=40), False),
        (HeldOutComparison(2.0, 1, 0.06, 0.07, faults=80, found=50, found_before=40), True),
        (HeldOutComparison(2.0, 0, 0.00, 0.00, faults=80, found=33, found_before=40), True),
        (HeldOutComparison(2.0, 0, 0.00, 0.00, faults=80, found=31, found_before=40), False),
    ],
)
def test_the_bounds_of_a_comparison(comparison: HeldOutComparison, promoted: bool) -> None:
    assert (judge(comparison, 1.0) == "") == promoted


def test_rates_are_those_of_all_rows_though_a_part_was_learned(
    current: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.learning.relearn.MOST_ROWS", 4 * BLOCK)
    decision = decided(machine(8, 2), current)
    manifest = learned_from(decision)
    (threshold,) = manifest.thresholds.values()
    assert manifest.change is not None and decision.used is not None
    assert manifest.change.rate * decision.learned_days * DAY == pytest.approx(3, rel=0.15)
    assert threshold.clean_days > 0.9 * decision.learned_days  # measured on all of them


def test_thinned_rows_are_few_and_of_all_hours(current: Model) -> None:
    past = past_of(machine(30, 2))
    pieces = usable_pieces(past, current.manifest, np.ones(len(past.times), bool))
    thin = thinned(pieces, 3000)
    assert sum(piece.rows for piece in thin) <= 3000 + BLOCK
    hours = {int(time % 86400 // 3600) for p in thin if p.times is not None for time in p.times}
    assert hours == set(range(24))


def test_pieces_end_at_gaps_and_at_rows_that_are_not_used(current: Model) -> None:
    past = past_of(machine(2, 2))
    times = past.times.copy()
    times[300:] += 86400
    used = np.ones(len(times), bool)
    used[100:110] = False
    pieces = usable_pieces(replace(past, times=times), current.manifest, used)
    assert [piece.rows for piece in pieces] == [100, 190, len(times) - 300]
