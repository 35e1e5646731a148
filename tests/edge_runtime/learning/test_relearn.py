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
    without_held_out,
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
    assert decision.left_out == ()


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
    assert not decision.promoted and decision.reason.startswith("vibration has been high for ")
    assert "gruard accept" in decision.reason and decision.candidate is None


def test_rows_of_an_alarm_go_in_only_if_it_was_false(current: Model) -> None:
    values, stop = machine(5, 2), 3 * DAY
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
    past = past_of(values)
    pieces = usable_pieces(past, current.manifest, np.ones(len(past.times), bool))
    _, held_out = without_held_out(pieces, PERIOD)
    for piece in held_out:
        assert piece.times is not None
        first = int(np.searchsorted(past.times, piece.times[0]))
        for start in range(first + 100, first + piece.rows - 60, 60):
            values[start : start + 4] += 25
    decision = decided(values, current)
    assert not decision.promoted and "that it had not seen" in decision.reason


@pytest.mark.parametrize("days", [2, 8, 40])
def test_what_is_held_out_is_of_all_times_and_apart(current: Model, days: int) -> None:
    past = past_of(machine(days, 2))
    pieces = usable_pieces(past, current.manifest, np.ones(len(past.times), bool))
    learned, held_out = without_held_out(pieces, PERIOD)
    rows = [set(np.searchsorted(past.times, piece.times)) for piece in (*learned, *held_out)]
    assert sum(map(len, rows)) == len(set().union(*rows)) > 0.75 * len(past.times)
    unseen = sum(piece.rows for piece in held_out) / DAY
    assert unseen == pytest.approx(min(max(days / 5, 1), 2), rel=0.02)
    for held in rows[len(learned) :]:
        near = {*range(min(held) - 5, min(held)), *range(max(held) + 1, max(held) + 6)}
        assert not any(near & each for each in rows[: len(learned)])
    first = min(each.times[0] for each in held_out if each.times is not None)
    assert first < past.times[len(past.times) // 2]


def test_what_began_lately_is_in_several_blocks(current: Model) -> None:
    past = past_of(machine(30, 2))
    pieces = usable_pieces(past, current.manifest, np.ones(len(past.times), bool))
    thin = thinned(pieces, 3000, 4 * DAY)
    begins = [piece.times[0] for piece in thin if piece.times is not None]
    new = [each for each in begins if each >= past.times[-4 * DAY]]
    assert sum(piece.rows for piece in thin) <= 3000 + 2 * BLOCK
    assert len(new) >= 4 and len(begins) - len(new) >= 4


def test_days_that_crept_are_remembered_when_the_past_begins_in_the_fault(current: Model) -> None:
    values = machine(26, 2)
    fault = 4 * np.clip((np.arange(len(values)) / DAY - 6) / 10, 0, 1)
    values[: 16 * DAY, 2] += fault[: 16 * DAY].astype(np.float32)
    first = decided(values[: 16 * DAY], current)
    assert first.left_out and not first.promoted
    late = 10 * DAY  # the days before are no longer kept

    def later(left_out: tuple[TimeSpan, ...]) -> Decision:
        past = Past(START + PERIOD * np.arange(late, len(values)), values[late:], PERIOD)
        none = np.zeros(len(past.times), bool)
        answers = OwnerAnswers((), -np.inf, left_out=left_out)
        return relearned(past, JudgedPast(none, none), answers, current, 2, 1.0, silent)

    remembering, forgetful = later(first.left_out), later(())
    assert remembering.used is not None and not remembering.used[: 5 * DAY].any()
    assert [span.end for span in remembering.left_out] == [span.end for span in first.left_out]
    assert forgetful.used is None or forgetful.used[: 5 * DAY].any()


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


def test_a_restless_current_detector_is_compared_at_equal_false_alarms(current: Model) -> None:
    """With a lower threshold it is in alarm when faults begin; raised again, it finds more."""
    decision = decided(machine(8, 2), current)
    thresholds = {
        kernel: replace(each, value=each.value / 2.8, clear=each.clear / 2.8)
        for kernel, each in current.manifest.thresholds.items()
    }
    restless = replace(current, manifest=replace(current.manifest, thresholds=thresholds))
    against = decided(machine(8, 2), restless)
    assert decision.comparison is not None and against.comparison is not None
    assert against.comparison.alarmed_before > 0.05 > decision.comparison.alarmed_before
    assert against.comparison.found_before > decision.comparison.found_before


def test_what_followed_a_real_alarm_is_remembered(current: Model) -> None:
    values = machine(8, 2)
    times = past_of(values).times
    alarm, changed = np.zeros(len(values), bool), np.zeros(len(values), bool)
    alarm[500:560], changed[560:900] = True, True
    real = AnsweredAlarm(TimeSpan(float(times[500]), float(times[559])), True)
    answers = OwnerAnswers((real,), -np.inf)
    judged = JudgedPast(alarm, changed)
    decision = relearned(past_of(values), judged, answers, current, 2, 1.0, silent)
    assert decision.left_out == (TimeSpan(float(times[560]), float(times[899])),)


@pytest.mark.parametrize("known", [True, False])
def test_a_few_hours_within_a_fault_are_in_doubt(current: Model, known: bool) -> None:
    values = machine(20, 2)
    times = past_of(values).times
    alarm = np.zeros(len(values), bool)
    for start in (11, 12):  # an alarm leaves two hours of the second day
        alarm[start * DAY + 150 : (start + 1) * DAY] = True
    judged = JudgedPast(alarm, np.zeros(len(values), bool))
    spans = (TimeSpan(START + 86400.0 * 12.5, START + 86400.0 * 12.6),) if known else ()
    answers = OwnerAnswers((), float(times[0]), left_out=spans)
    used = relearned(past_of(values), judged, answers, current, 2, 1.0, silent).used
    assert used is not None and used[9 * DAY : 10 * DAY].all()
    assert used[12 * DAY + 65 : 12 * DAY + 85].any() != known


def test_rates_are_those_of_all_rows_though_a_part_was_learned(
    current: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.learning.relearn.MOST_ROWS", 4 * BLOCK)
    decision = decided(machine(8, 2), current)
    manifest = learned_from(decision)
    (threshold,) = manifest.thresholds.values()
    assert manifest.change is not None and decision.used is not None
    assert manifest.change.rate * decision.learned_days * DAY == pytest.approx(1, rel=0.15)
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
