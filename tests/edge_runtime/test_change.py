"""A lasting change is reported once; the next fault is seen, and coming back raises no alarm."""

import json
from dataclasses import replace

import numpy as np
import pytest
from native_models import changed, linear

from convert.metrics import intervals
from edge_runtime.bundle import manifest as m
from edge_runtime.bundle.manifest import from_dict, to_dict
from edge_runtime.detector.change import (
    ALARMED_SHARE,
    BASELINE_CLIP,
    change_constants,
    initial_change,
    judge,
)
from edge_runtime.detector.detector import Detector
from edge_runtime.detector.score import heights, initial_score, score_constants
from edge_runtime.errors import GruardError
from edge_runtime.record import Flag, Record, Sample

AFTER, CHANNELS = 12, 3
NOWHERE = m.Change(AFTER, 0.0, (0.0,) * CHANNELS)
MOVED, BACK, LATER = 150, 420, 300


def bundle_with(section: m.Change | None):  # type: ignore[no-untyped-def]
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
        tiers=replace(manifest.tiers, warmup=20), alarm=m.Alarm(2, 3, 5),
    )  # fmt: skip


def rows_of(bundle, shifts: dict[int, float], count: int = 700) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Raw rows whose first channel moves by so many scales at each row of `shifts`."""
    standard = np.random.default_rng(0).normal(0, 0.3, (count, CHANNELS))
    for start, shift in sorted(shifts.items()):
        standard[start:, 0] += shift
    channels = bundle.manifest.channels
    center, scale = ([getattr(c, name) for c in channels] for name in ("center", "scale"))
    return (np.array(center) + np.array(scale) * standard).astype(np.float32)


def answers(section: m.Change | None, shifts: dict[int, float]) -> list[Record]:
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
    followed = answers(m.Change(AFTER, 0.0, (0.2, 0.0, 0.0)), creep)
    assert len(intervals(np.array([r.alarm for r in still]))) > 1
    assert len(intervals(np.array([r.alarm for r in followed]))) == 1


def test_a_baseline_follows_what_is_usual_and_slowly_during_an_alarm() -> None:
    """As the formula in the module says, sample by sample."""
    rate = 0.05
    bundle = bundle_with(m.Change(0, rate, (0.0,) * CHANNELS))
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
        (m.Change(-1, 0.1, (0.0,) * CHANNELS), "change: after from 0"),
        (m.Change(5, 1.5, (0.0,) * CHANNELS), "rates from 0 to 1"),
        (m.Change(5, 0.1, (0.0, -0.1, 0.0)), "rates from 0 to 1"),
        (m.Change(5, 0.1, (0.0,)), "change.follow: 3 entries expected, 1 found"),
    ],
)
def test_a_section_that_cannot_be_is_refused(section: m.Change, words: str) -> None:
    manifest = bundle_with(NOWHERE).manifest
    assert read(manifest).change == NOWHERE
    with pytest.raises(GruardError, match=words):
        read(replace(manifest, change=section))
