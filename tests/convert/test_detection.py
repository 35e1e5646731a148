"""Alarms of int8 and float: a burst counts as one event, and a lasting alarm finds nothing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from convert.checks.behaviour import detection_checks
from convert.detection import SPARED, TIE, Detection, detect
from convert.metrics import intervals
from convert.twins import Pair
from edge_runtime.detector.kernels import KERNEL_ID
from edge_runtime.learning.rollout import Rollout, joined
from edge_runtime.learning.streams import FaultyRecording

if TYPE_CHECKING:
    from conftest import Trial

pytestmark = pytest.mark.slow
ALARM_CHECKS = {"faults: alarm agreement", "faults: alarm kappa"}
BURST = 60  # rows in which one arithmetic alarms and the other does not


def repeated(
    stream: FaultyRecording, rollout: Rollout, times: int
) -> tuple[FaultyRecording, Rollout]:
    """The stream and its rollout some times over."""
    rows = len(stream.rows)
    events = [
        replace(event, start=event.start + rows * k, stop=event.stop + rows * k)
        for k in range(times)
        for event in stream.events
    ]
    whole = FaultyRecording(
        np.concatenate([stream.rows] * times), np.tile(stream.faulty, times), tuple(events)
    )
    return whole, joined([rollout] * times)


def failing(found: Detection) -> set[str]:
    return {check.name for check in detection_checks(found, must_find=True) if not check.passed}


@pytest.mark.parametrize("labelled", [False, True], ids=["injected", "labelled"])
@pytest.mark.parametrize("times", [1, 5])
def test_one_burst_in_twenty_anomalies_is_one_event_and_the_next_one_fails(
    trial: "Trial", times: int, labelled: bool
) -> None:
    stream, both = repeated(trial.stream, trial.float_faulty, times)
    calm = calm_starts(trial, stream, both)
    if labelled:
        stream = replace(stream, events=())
    anomalies = len(stream.events or intervals(stream.faulty))
    spared = anomalies // SPARED
    assert (spared > 0) == (times > 1) and len(calm) > spared

    def found(bursts: int) -> Detection:
        loud = alarmed(trial, both, calm[:bursts])
        return detect(trial.quantised, trial.reference, "faults", Pair(loud, both), stream)

    forgiven, too_many = found(spared), found(spared + times)
    assert not failing(forgiven) & ALARM_CHECKS and forgiven.decisions[0][1] == 0
    assert (forgiven.spared > 0) == (spared > 0)
    assert failing(too_many) >= ALARM_CHECKS and too_many.decisions[0][1] > 0


def calm_starts(trial: "Trial", stream: FaultyRecording, rollout: Rollout) -> list[int]:
    """The first of `BURST` calm rows of every stretch between anomalies that has so many."""
    level = trial.reference.manifest.thresholds[KERNEL_ID].value
    calm = rollout.settled & ~stream.faulty & (rollout.score < level * (1 - TIE))
    starts = [event.start for event in stream.events]
    pieces = zip(starts, [*starts[1:], len(calm)], strict=True)
    found = [
        (a, [span for span in intervals(calm[a:b]) if span[1] - span[0] > BURST]) for a, b in pieces
    ]
    return [a + spans[0][0] for a, spans in found if spans]


def alarmed(trial: "Trial", rollout: Rollout, starts: Sequence[int]) -> Rollout:
    """The rollout with scores far above the threshold for `BURST` rows from each start on."""
    score = rollout.score.copy()
    for start in starts:
        score[start : start + BURST] = 3 * trial.reference.manifest.thresholds[KERNEL_ID].value
    return replace(rollout, score=score)


@pytest.mark.parametrize("who", ["int8", "float"])
def test_an_alarm_that_an_earlier_anomaly_left_behind_finds_nothing(
    trial: "Trial", who: str
) -> None:
    stream, rollout = trial.stream, trial.float_faulty
    good = detect(trial.quantised, trial.reference, "faults", Pair(rollout, rollout), stream)
    event = next(e for e in good.events if e.int8_delay is not None and e.start > BURST)
    alarm = rollout.alarm.copy()
    alarm[event.start - BURST : event.start] = True
    lasting = replace(rollout, alarm=alarm)
    pair = Pair(lasting, rollout) if who == "int8" else Pair(rollout, lasting)
    found = detect(trial.quantised, trial.reference, "faults", pair, stream)
    assert {e.start for e in good.events} - {e.start for e in found.events} == {event.start}
