"""A lasting change is reported once; the next fault is seen, and coming back raises no alarm."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import native_core  # noqa: F401
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_models import changed, linear

from edge_runtime.bundle import manifest as m
from edge_runtime.bundle.manifest import to_dict
from edge_runtime.bundle.manifest_rules import from_dict
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.change import (
    ALARMED_SHARE,
    BASELINE_CLIP,
    change_constants,
    initial_change,
    judge,
)
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.lasting_change import ChangePhase, LastingChange
from edge_runtime.detector.score import heights, initial_score, score_constants
from edge_runtime.errors import GruardError
from edge_runtime.native.engine import NativeDetector
from edge_runtime.record import Flag, Record, Sample

AFTER, CHANNELS = 12, 3
NOWHERE = m.ChangeRule(AFTER, 0.0, (0.0,) * CHANNELS)
NETWORK_AFTER = 40  # of the average that the fallback is to stand at
MOVED, BACK, LATER = 150, 420, 300


def bundle_with(section: m.ChangeRule | None):  # type: ignore[no-untyped-def]
    """Three channels that stand still but for noise, forecast as standing where they stand."""
    bundle = linear(CHANNELS, seed=4)
    manifest = bundle.manifest
    order = len(manifest.forecast.highway)
    last = ((0.5,) * CHANNELS, *((0.0,) * CHANNELS for _ in range(order - 1)))
    eye = tuple(tuple(float(i == j) for j in range(CHANNELS)) for i in range(CHANNELS))
    score = replace(
        manifest.score, weights=(1.0, 0.0, 1.0, 1.0, 0.0, 0.0), distance_root=eye, level_root=eye,
        memories=(
            m.Memory(0.3, 0.2, (1e30,) * 6, (0.0, 0.0, 1.0, 1.5, 0.0, 0.0), (1.0,) * 6),
        ),
        error_scale=((3.0,) * CHANNELS,) * 3, absent=((0.0,) * CHANNELS,) * 3,
    )  # fmt: skip
    channels = tuple(replace(c, exogenous=False) for c in manifest.channels)
    return changed(
        bundle, channels=channels, change=section, score=score,
        forecast=replace(
            manifest.forecast, highway=last, cross=(), own=(), ahead=(), horizon=0
        ),
        tiers=replace(manifest.tiers, warmup=20), alarm=m.AlarmRule(2, 3, 5),
    )  # fmt: skip


def rows_of(bundle, shifts: dict[int, float], count: int = 700) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Raw rows whose first channel moves by so many scales at each row of `shifts`."""
    standard = np.random.default_rng(0).normal(0, 0.3, (count, CHANNELS))
    for start, shift in sorted(shifts.items()):
        standard[start:, 0] += shift
    channels = bundle.manifest.channels
    center, scale = ([getattr(c, name) for c in channels] for name in ("center", "scale"))
    return (np.array(center) + np.array(scale) * standard).astype(np.float32)


def intervals(flags: np.ndarray) -> list[tuple[int, int]]:
    """Half-open [start, stop) stretches of True."""
    edges = np.flatnonzero(np.diff(flags.astype(int), prepend=0, append=0))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def answers(section: m.ChangeRule | None, shifts: dict[int, float]) -> list[Record]:
    """Steps are added up: {100: 12, 300: -12} goes away at 100 and is back at 300."""
    bundle = bundle_with(section)
    detector = Detector(bundle)
    return [detector.step(Sample(i, None, row)) for i, row in enumerate(rows_of(bundle, shifts))]


def test_without_the_rule_an_alarm_lasts_as_its_cause_does() -> None:
    records = answers(None, {MOVED: 12.0, BACK: -12.0})
    (alarm,) = intervals(np.array([record.alarm for record in records]))
    assert MOVED <= alarm[0] <= MOVED + 5 and BACK <= alarm[1] <= BACK + 40
    assert not any(Flag.CHANGED in record.flags for record in records)


def test_a_change_that_lasts_is_one_alarm_and_then_a_flag_until_the_machine_is_back() -> None:
    records = answers(NOWHERE, {MOVED: 12.0, BACK: -12.0})
    (alarm,) = intervals(np.array([record.alarm for record in records]))
    assert MOVED <= alarm[0] <= MOVED + 5 and alarm[1] - alarm[0] == AFTER
    (flagged,) = intervals(np.array([Flag.CHANGED in record.flags for record in records]))
    assert flagged[0] == alarm[1] - 1  # the last record of the alarm says so, too
    assert BACK + AFTER <= flagged[1] <= BACK + 60
    away = records[MOVED + 60 : BACK]
    assert all(r.score is not None and r.threshold and r.score > r.threshold for r in away)
    assert all(record.valid and record.tier == 1 for record in away)


def moved_network(tiny_bundle: Path):  # type: ignore[no-untyped-def]
    """A network with a low threshold, and rows of a machine that moves and comes back."""
    bundle = read_bundle(tiny_bundle)
    kernel, threshold = next(iter(bundle.manifest.thresholds.items()))
    low = {kernel: replace(threshold, value=12.0, clear=6.0)}
    channels = bundle.manifest.channels
    scale = np.array([channel.scale for channel in channels])
    standard = np.random.default_rng(0).normal(0, 0.1, (700, len(channels)))
    watched = next(i for i, channel in enumerate(channels) if not channel.exogenous)
    standard[MOVED:BACK, watched] += 10
    rows = np.array([channel.center for channel in channels]) + scale * standard
    return changed(bundle, thresholds=low), rows.astype(np.float32)


@pytest.mark.long
def test_a_network_tells_a_change_once_and_scores_on(tiny_bundle: Path) -> None:
    bundle, rows = moved_network(tiny_bundle)
    plain, told = (
        [detector.step(Sample(i, None, row)) for i, row in enumerate(rows)]
        for detector in (
            Detector(changed(bundle, change=section))
            for section in (None, m.ChangeRule(NETWORK_AFTER, 0.0, (1.0,) * rows.shape[1]))
        )
    )
    both = [(a.score, b.score) for a, b in zip(plain, told, strict=True) if a.tier == b.tier < 3]
    assert len(both) > 300 and all(a == b for a, b in both)
    assert sum(record.alarm for record in plain) > 200
    alarm, *_ = intervals(np.array([record.alarm for record in told]))
    assert MOVED <= alarm[0] <= MOVED + 5 and alarm[1] - alarm[0] == NETWORK_AFTER
    assert not any(record.alarm for record in told[alarm[1] : BACK])
    flagged, *_ = intervals(np.array([Flag.CHANGED in record.flags for record in told]))
    assert flagged[0] == alarm[1] - 1 and flagged[1] >= BACK + NETWORK_AFTER


def test_the_fallback_of_a_network_stands_where_the_machine_does(tiny_bundle: Path) -> None:
    """Or a network that was distrusted could never agree with it again."""
    bundle, rows = moved_network(tiny_bundle)
    section = m.ChangeRule(NETWORK_AFTER, 0.0, (0.0,) * rows.shape[1])
    detectors = Detector(changed(bundle, change=section)), Detector(changed(bundle, change=None))
    alarms = []
    for detector in detectors:
        for index, row in enumerate(rows[:BACK]):
            detector.step(Sample(index, None, row))
        alarms.append(detector._fallback.step(Sample(BACK, None, rows[BACK - 1])).alarm)
    assert alarms == [False, True]


def test_a_second_fault_is_an_alarm_of_its_own() -> None:
    records = answers(NOWHERE, {MOVED: 12.0, LATER: 9.0})
    first, second = intervals(np.array([record.alarm for record in records]))
    assert LATER <= second[0] <= LATER + 5 and second[1] - second[0] == AFTER
    blamed = records[second[0]].blamed
    assert blamed[0] == records[first[0]].blamed[0]
    assert Flag.CHANGED in records[-1].flags and not records[-1].alarm


def test_a_short_fault_changes_nothing() -> None:
    end = MOVED + AFTER // 2
    with_rule = answers(NOWHERE, {MOVED: 12.0, end: -12.0})
    assert [r.to_json() for r in with_rule] == [
        r.to_json() for r in answers(None, {MOVED: 12.0, end: -12.0})
    ]


def test_a_channel_that_goes_on_moving_is_followed_once_the_machine_has_changed() -> None:
    creep = {MOVED + i: 0.15 for i in range(400)}
    still = answers(NOWHERE, creep)
    followed = answers(m.ChangeRule(AFTER, 0.0, (0.2, 0.0, 0.0)), creep)
    assert len(intervals(np.array([r.alarm for r in still]))) > 1
    assert len(intervals(np.array([r.alarm for r in followed]))) == 1


def test_a_baseline_follows_what_is_usual_and_slowly_during_an_alarm() -> None:
    """As the formula in the module says, sample by sample."""
    rate = 0.05
    bundle = bundle_with(m.ChangeRule(0, rate, (0.0,) * CHANNELS))
    detector, constants = Detector(bundle), score_constants(bundle.manifest)
    expected = np.zeros((1, 6))
    for i, row in enumerate(rows_of(bundle, {MOVED: 12.0, BACK: -12.0})):
        settling = i < bundle.manifest.tiers.warmup
        record = detector.step(Sample(i, None, row))
        z = heights(detector.state.score.parts, constants).astype(float)
        if not settling:
            gap = np.clip(z - expected, -BASELINE_CLIP, BASELINE_CLIP)
            slow = ALARMED_SHARE if record.alarm else 1.0
            expected = np.maximum(expected + rate * np.where(gap > 0, slow, 1.0) * gap, 0)
        np.testing.assert_allclose(detector.state.change.baselines, expected, atol=1e-3)
    assert expected.max() > 0


def flagged(records: list[Record]) -> list[tuple[int, int]]:
    return intervals(np.array([Flag.CHANGED in record.flags for record in records]))


def answered(bundle, shifts: dict[int, float], accept: dict[int, bool]) -> list[Record]:  # type: ignore[no-untyped-def]
    """As `answers`, with the owner's word before the rows named in `accept`."""
    detector, records = Detector(bundle), []
    for i, row in enumerate(rows_of(bundle, shifts)):
        if i in accept:
            detector.accept(accept[i])
        records.append(detector.step(Sample(i, None, row)))
    return records


def test_an_accepted_change_ends_the_flag_and_the_next_one_is_reported_again() -> None:
    bundle, yes = bundle_with(NOWHERE), MOVED + 80
    records = answered(bundle, {MOVED: 12.0, LATER: 9.0}, {yes: True})
    first, second = flagged(records)
    assert first[1] == yes and LATER + AFTER <= second[0] <= LATER + AFTER + 5
    assert second[1] == len(records)
    calm = records[yes:LATER]
    assert all(r.score is not None and r.threshold and r.score < r.threshold for r in calm)
    alarms = intervals(np.array([record.alarm for record in records]))
    assert alarms == intervals(np.array([r.alarm for r in answered(bundle, {150: 12, 300: 9}, {})]))


def test_what_was_accepted_can_be_taken_back() -> None:
    bundle, yes, no = bundle_with(NOWHERE), MOVED + 80, MOVED + 120
    records = answered(bundle, {MOVED: 12.0}, {yes: True, no: False})
    undisturbed = answered(bundle, {MOVED: 12.0}, {})
    assert [stop for _, stop in flagged(records)] == [yes, len(records)]
    assert flagged(records)[1][0] == no
    assert records[no:] == undisturbed[no:] and records[:yes] == undisturbed[:yes]


def test_without_a_change_there_is_nothing_to_accept() -> None:
    bundle = bundle_with(NOWHERE)
    assert answered(bundle, {}, {200: True, 300: False}) == answered(bundle, {}, {})


def test_a_machine_that_is_back_after_it_was_accepted_is_as_it_was_recorded() -> None:
    bundle = bundle_with(NOWHERE)
    detector = Detector(bundle)
    for i, row in enumerate(rows_of(bundle, {MOVED: 12.0, BACK: -12.0})):
        if i == MOVED + 80:
            detector.accept(True)
            assert detector.change_phase is ChangePhase.ACCEPTED
        assert not detector.step(Sample(i, None, row)).alarm or i < BACK
    assert detector.change_phase is ChangePhase.AS_RECORDED
    assert not any(detector.lasting_change.centre)


def test_a_detector_that_begins_anew_goes_on_where_the_one_before_left() -> None:
    bundle, moved = bundle_with(NOWHERE), MOVED + 80
    rows = rows_of(bundle, {MOVED: 12.0})
    before, after = Detector(bundle), Detector(bundle)
    for i, row in enumerate(rows[:moved]):
        before.step(Sample(i, None, row))
    after.resume(before.lasting_change)
    records = [after.step(Sample(i, None, row)) for i, row in enumerate(rows[moved:])]
    assert not any(record.alarm for record in records if record.tier < 3)
    assert all(Flag.CHANGED in record.flags for record in records)
    assert after.lasting_change.count == 1 and any(after.lasting_change.centre)


@cache
def wandering() -> tuple[object, np.ndarray]:
    bundle = bundle_with(m.ChangeRule(AFTER, 0.01, (0.02, 0.0, 0.01)))
    return bundle, rows_of(bundle, {60: 12.0, 130: 9.0, 200: -21.0, 260: 15.0}, 330)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    words=st.lists(st.tuples(st.integers(0, 329), st.sampled_from(["yes", "no", "anew", "reset"]))),
)
@pytest.mark.long
def test_the_core_takes_the_owners_word_and_begins_anew_as_the_reference_does(
    words: list[tuple[int, str]],
) -> None:
    bundle, rows = wandering()
    pair = [Detector(bundle), NativeDetector(bundle)]  # type: ignore[arg-type, list-item]
    for i, row in enumerate(rows):
        for _, word in (each for each in words if each[0] == i):
            if word == "anew":
                fresh = [Detector(bundle), NativeDetector(bundle)]  # type: ignore[arg-type]
                for old, new in zip(pair, fresh, strict=True):
                    new.resume(old.lasting_change)
                pair = fresh  # type: ignore[assignment]
            for each in pair:
                if word == "reset":
                    each.reset()
                elif word != "anew":
                    each.accept(word == "yes")
        records = [each.step(Sample(i, None, row)) for each in pair]
        assert records[0] == records[1]
        assert pair[0].change_phase is pair[1].change_phase
    assert pair[0].lasting_change == pair[1].lasting_change


SOUND = LastingChange(1, 2, (0.5, -0.5, 0.0), (0.0, 0.0, 1.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize("kind", [Detector, NativeDetector])
@pytest.mark.parametrize(
    "fields",
    [
        {"phase": 3}, {"phase": -1}, {"count": -1}, {"count": 1 << 32}, {"phase": 0},
        {"centre": (0.0,) * 4}, {"centre": (101.0, 0.0, 0.0)}, {"centre": (float("nan"), 0.0, 0.0)},
        {"baselines": (0.0,) * 3}, {"baselines": (-1.0, *[0.0] * 5)},
        {"baselines": (0.0, float("inf"), *[0.0] * 4)}, {"baselines": (float("nan"),) * 6},
    ],
)  # fmt: skip
def test_what_no_detector_can_have_left_is_refused(
    kind: type[Detector], fields: dict[str, object]
) -> None:
    detector = kind(bundle_with(NOWHERE))
    detector.resume(SOUND)
    assert detector.lasting_change == SOUND
    with pytest.raises(GruardError, match="this lasting change"):
        detector.resume(replace(SOUND, **fields))  # type: ignore[arg-type]
    assert detector.lasting_change == SOUND


def test_a_bundle_without_the_rule_has_no_change_to_go_on_from() -> None:
    for detector in (Detector(bundle_with(None)), NativeDetector(bundle_with(None))):
        assert detector.change_phase is None
        with pytest.raises(GruardError, match="another bundle"):
            detector.resume(SOUND)


def test_a_manifest_without_the_section_changes_nothing() -> None:
    bundle = bundle_with(None)
    constants = change_constants(bundle.manifest)
    assert constants.after == 0 and constants.rate == 0 and not constants.follows
    scores = score_constants(bundle.manifest)
    judged = judge(initial_score(scores), initial_change(CHANNELS, 1), scores)
    assert judged.score == judged.here


def read(manifest: m.Manifest) -> m.Manifest:
    return from_dict(json.loads(json.dumps(to_dict(manifest))), "m")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (m.ChangeRule(-1, 0.1, (0.0,) * CHANNELS), "change: after from 0"),
        (m.ChangeRule(5, 1.5, (0.0,) * CHANNELS), "rates from 0 to 1"),
        (m.ChangeRule(5, 0.1, (0.0, -0.1, 0.0)), "rates from 0 to 1"),
        (m.ChangeRule(5, 0.1, (0.0,)), "change.follow: 3 entries expected, 1 found"),
    ],
)
def test_a_section_that_cannot_be_is_refused(section: m.ChangeRule, words: str) -> None:
    manifest = bundle_with(NOWHERE).manifest
    assert read(manifest).change == NOWHERE
    with pytest.raises(GruardError, match=words):
        read(replace(manifest, change=section))
