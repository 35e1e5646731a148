"""Facts of a watch, each counted by hand from a few records."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from convert.timeline.layout import notes_of
from convert.timeline.run_facts import (
    AlarmStretch,
    LabelledEvent,
    RecordState,
    RunRecording,
    replaced,
    run_facts,
)
from edge_runtime.detector.alarm import PAUSE
from edge_runtime.record import Flag, Record

CALM = Flag(0)
MODEL = "0123456789ab"


def record(
    index: int,
    flags: Flag = CALM,
    tier: int = 1,
    score: float | None = 1.0,
    blamed: Sequence[str] = (),
    imputed: Sequence[str] = (),
) -> Record:
    """A record against threshold 2; the alarm is on where somebody is blamed."""
    return Record(
        index=index,
        time=None,
        tier=tier,
        flags=flags,
        valid=tier < 3 and Flag.WARMUP not in flags,
        score=score,
        threshold=None if score is None else 2.0,
        alarm=bool(blamed),
        masked=(),
        imputed=tuple(imputed),
        blamed=tuple(blamed),
        model=MODEL,
    )


def watch(
    records: Sequence[Record | None],
    labels: str | None = None,
    period: float | None = None,
    doubled: tuple[int, ...] = (),
) -> RunRecording:
    count = len(records)
    return RunRecording(
        name="a.csv",
        channels=("a", "b"),
        units=("", ""),
        records=tuple(records),
        doubled=doubled,
        values=np.zeros((count, 2), np.float32),
        labels=None if labels is None else np.array([mark == "1" for mark in labels]),
        seconds=None if period is None else np.arange(count) * period,
    )


def test_a_calm_watch_has_nothing_to_tell() -> None:
    facts = run_facts(watch([record(i) for i in range(5)]))
    assert facts.one_record_each and facts.samples == 5
    assert facts.alarms == () and facts.events is None and facts.false_alarms is None
    assert facts.alarmed_normal is None and facts.median_delay is None
    assert facts.tiers == {1: 1.0} and facts.without_model == (0, 0)
    assert [change.what for change in facts.changes] == ["tier 1: gate"]


def test_missing_and_doubled_records_break_the_proof() -> None:
    records = [record(0), None, record(2), record(3)]
    facts = run_facts(watch(records, doubled=(3,)))
    assert not facts.one_record_each
    assert facts.missing == (1,) and facts.doubled == (3,)
    assert facts.tiers == {0: 0.25, 1: 0.75}
    assert facts.without_model == (1, 2)
    whats = [change.what for change in facts.changes]
    assert whats[1:] == ["no record was written", "records are written again"]


def test_an_alarm_names_the_most_blamed_its_peak_and_its_tiers() -> None:
    records = [
        record(0),
        record(1, score=4.0, blamed=["a", "b"]),
        record(2, score=9.0, blamed=["b"], tier=2),
        record(3, score=None, blamed=["b"], tier=3, flags=Flag.GAP | Flag.FALLBACK),
        record(4),
    ]
    (alarm,) = run_facts(watch(records)).alarms
    assert alarm == AlarmStretch(1, 4, ("b", "a"), 4.5, (1, 2, 3), None)


def test_an_alarm_without_a_score_has_no_peak() -> None:
    gap = record(0, score=None, blamed=["a"], tier=3, flags=Flag.GAP)
    (alarm,) = run_facts(watch([gap, record(1)])).alarms
    assert math.isnan(alarm.peak)


def test_events_delays_and_false_alarms_by_hand() -> None:
    quiet = "0" * (PAUSE + 1)
    labels = "0011100" + quiet + "011000" + quiet + "00"
    alarmed = "0000110" + quiet + "100010" + quiet + "10"
    records = [record(i, blamed=["a"] if mark == "1" else []) for i, mark in enumerate(alarmed)]
    facts = run_facts(watch(records, labels, period=0.5))
    assert facts.events == (LabelledEvent(2, 5, 2), LabelledEvent(PAUSE + 9, PAUSE + 11, None))
    assert [alarm.labelled for alarm in facts.alarms] == [True, False, False]
    assert [alarm.start for alarm in facts.alarms] == [4, PAUSE + 8, 2 * PAUSE + 15]
    assert facts.false_alarms == 2
    assert facts.median_delay == 2
    assert facts.alarmed_normal == pytest.approx(4 / (2 * PAUSE + 12))


def test_an_alarm_that_is_on_already_finds_an_event_at_once_but_costs_normal_time() -> None:
    facts = run_facts(watch([record(i, blamed=["a"]) for i in range(4)], "0011"))
    assert facts.events == (LabelledEvent(2, 4, 0),)
    assert facts.false_alarms == 0 and facts.alarmed_normal == 1.0


def test_labels_that_are_all_anomalous_leave_no_normal_time() -> None:
    facts = run_facts(watch([record(0), record(1)], "11"))
    assert facts.events == (LabelledEvent(0, 2, None),) and facts.alarmed_normal is None


def test_a_hang_is_told_from_its_flags() -> None:
    fallback = Flag.FALLBACK
    records = [
        record(0, Flag.WARMUP | fallback, tier=3),
        record(1),
        record(2, fallback | Flag.LATE, tier=3),
        record(3, fallback, tier=3),
        record(4, Flag.RESTARTED),
        record(5, Flag.FREE_RUN, tier=2),
        record(6),
        record(7, fallback, tier=3),
        record(8),
        record(9, Flag.WARMUP | fallback, tier=3),
        record(10, fallback, tier=3),
        record(11, Flag.WARMUP | fallback, tier=3),
    ]
    facts = run_facts(watch(records))
    assert [(change.index, change.what) for change in facts.changes] == [
        (0, "the model warms up"),
        (1, "warm-up over: tier 1, gate"),
        (2, "model too late: the fallback answers"),
        (4, "the restarted model is back"),
        (5, "the recurrent unit runs alone"),
        (6, "tier 1 again: gate"),
        (7, "no healthy model: the fallback answers"),
        (8, "the model is back"),
        (9, "the model was reset and warms up"),
        (10, "no healthy model: the fallback answers"),
        (11, "the model warms up"),
    ]
    assert facts.changes[2].flags == ("FALLBACK", "LATE")
    assert facts.changes[2].state is RecordState.FALLBACK
    assert facts.without_model == (9, 12)
    assert facts.warmup == pytest.approx(3 / 12)
    assert facts.tiers == {1: 4 / 12, 2: 1 / 12, 3: 7 / 12}


def test_a_fallback_from_the_start_and_a_gap_are_told() -> None:
    fallback = Flag.FALLBACK
    records = [
        record(0, fallback, tier=3),
        record(1, fallback | Flag.GAP, tier=3, score=None),
        record(2),
    ]
    assert [change.what for change in run_facts(watch(records)).changes] == [
        "no model yet: the fallback answers",
        "the source sent no sample",
        "samples arrive again",
    ]


def test_replaced_readings_count_samples_not_gaps() -> None:
    records = [
        record(0, Flag.IMPUTED, imputed=["b"]),
        record(1, Flag.GAP, tier=3, imputed=["a"]),
        record(2),
    ]
    assert replaced(watch(records)).tolist() == [[False, True], [False, False], [False, False]]


def test_a_span_is_in_seconds_where_there_are_times() -> None:
    records = [record(i) for i in range(5)]
    assert watch(records, period=0.5).span(1, 3) == pytest.approx(1.0)
    assert watch(records).span(1, 3) == 2.0
    assert watch(records[:1], period=0.5).period is None


def test_notes_tell_long_outages_first_and_short_ones_last() -> None:
    records = [record(i) for i in range(80)]
    for i in range(10, 30):
        # A gate that opens for one sample has not trusted its channel again.
        records[i] = record(i, Flag.IMPUTED, imputed=["a", "b"] if i != 20 else ["b"])
    records[35] = record(35, Flag.FALLBACK | Flag.LATE, tier=3)
    for i in range(40, 50):
        records[i] = record(i, Flag.IMPUTED, imputed=["a"], blamed=["a"])
    for i in range(60, 70):
        records[i] = record(i, Flag.FALLBACK, tier=3)
    seen = watch(records)
    assert [(note.index, note.text) for note in notes_of(seen, run_facts(seen))] == [
        (60, "no healthy model: the fallback answers"),
        (70, "the model is back"),
        (10, "a, b imputed"),
        (40, "a imputed"),
        (35, "model too late: the fallback answers"),
        (36, "the model is back"),
    ]


def test_an_outage_up_to_the_end_has_no_return() -> None:
    seen = watch([record(0), None])
    assert [note.index for note in notes_of(seen, run_facts(seen))] == [1]
