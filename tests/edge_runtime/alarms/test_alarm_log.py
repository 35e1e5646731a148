"""Which moments of an alarm a run announces, and what it says of each."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from faulty_worker import model_record
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.alarm import AlarmEvent
from edge_runtime.alarms.log import ALARMS, AlarmLog, KnownMachine, read_alarms
from edge_runtime.bundle.manifest import UNLIMITED
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.alarm import PAUSE, alarm_stretches
from edge_runtime.marks import MARKS, read_marks
from edge_runtime.plain import seal
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.sinks.outbox import Changes, message

MACHINE = KnownMachine("pump", {"flow": (1.0, 3.0)})
stretches = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(1, 2 * PAUSE)), max_size=9)


class Followed:
    """A run over a recording of two channels, and what it told."""

    def __init__(self) -> None:
        self.told = list[AlarmEvent]()
        self.log = AlarmLog(None, ("flow", "heat"), lambda: 0.0, None, print, self.told.append)
        self.log.machine = MACHINE
        self.records = list[Record]()

    def add(self, alarm: bool, values: tuple[float, float] = (2.0, 9.0), **fields: object) -> None:
        index = len(self.records)
        made = model_record(Sample(index, float(index), np.zeros(2, np.float32)))
        made = replace(made, alarm=alarm, **{"blamed": (), **fields})  # type: ignore[arg-type]
        self.records.append(self.log.mark(made, np.array(values, np.float32)))
        self.log.tend(self.records[-1])


@given(stretches)
def test_each_alarm_begins_and_ends_once_and_a_broker_gets_just_that(
    parts: list[tuple[bool, bool, int]],
) -> None:
    run, wanted = Followed(), Changes()
    for alarm, muted, count in parts:
        for _ in range(count):
            run.add(alarm, flags=Flag.MUTED if alarm and muted else Flag(0))
    found = alarm_stretches([record.alarm for record in run.records])
    moments = [record.event.moment for record in run.records if record.event]
    assert [event.moment for event in run.told] == moments
    assert moments.count("began") == len(found)
    over = sum(len(run.records) - stop > PAUSE for _, stop in found)
    assert moments.count("ended") == over
    ended = [event.alarm for event in run.told if event.moment == "ended"]
    assert [(alarm.index, alarm.last + 1) for alarm in ended] == found[:over]
    assert all(alarm.over for alarm in ended)
    sent = [record for record in run.records if wanted(message("r", record))]
    assert sent == [each for each in run.records if each.event or each.index == 0]


def test_it_says_the_reading_furthest_from_what_was_expected() -> None:
    run = Followed()
    for flow in (3.5, -9.0, 4.0, float("nan")):
        run.add(True, (flow, 7.0), blamed=("flow", "heat"), kind="level", probability=0.5)
    run.add(False)
    assert run.log.current
    assert [vars(each) for each in run.log.current.blamed] == [
        {"channel": "flow", "value": -9.0, "low": 1.0, "high": 3.0},
        {"channel": "heat", "value": 7.0, "low": None, "high": None},
    ]
    event = json.loads(run.records[0].to_json())["event"]
    assert event["moment"] == "began" and event["id"] == "0" and event["blamed"] == ["flow", "heat"]
    assert event["readings"][0] == {"channel": "flow", "value": 3.5, "low": 1.0, "high": 3.0}
    assert event["text"].startswith("pump: flow and heat unlike healthy since sample 0 (sensor off")
    assert all("event" not in json.loads(each.to_json()) for each in run.records[1:])


def test_what_is_expected_is_the_range_of_the_fallback(tiny_bundle: Path) -> None:
    manifest = read_bundle(tiny_bundle).manifest
    machine = KnownMachine.of(manifest)
    assert machine.name == "tiny" and machine.expected
    flow = manifest.channels[manifest.channel_names.index("flow")]
    low, high = machine.expected["flow"]
    assert low < flow.center < high
    limits = replace(manifest.fallback, range=(UNLIMITED,) * len(manifest.channels))
    none = KnownMachine.of(replace(manifest, fallback=limits))
    assert none.reading("flow", 1.0).low is None


def test_alarms_and_marks_of_an_older_version_are_read(tmp_path: Path) -> None:
    old = {
        "index": 464, "last": 475, "start": 9.28, "end": 9.5, "began": 1.7e9,
        "blamed": ["flow", "heat"], "kind": "level",
    }  # fmt: skip
    (tmp_path / ALARMS).write_text(seal({"schema": 1, "alarms": [old]}))
    mark = {"schema": 1, "alarm": old, "real": True, "note": "", "told": 1.7e9}
    (tmp_path / MARKS).write_text(seal(mark) + "\n")
    (alarm,) = read_alarms(tmp_path)
    assert alarm.channels == ("flow", "heat") and alarm.over and alarm.valid is None
    marks, damaged = read_marks(tmp_path)
    assert [mark.alarm for mark in marks] == [alarm] and damaged == 0


def test_an_alarm_that_was_on_when_its_run_ended_is_over_for_the_next(tmp_path: Path) -> None:
    for over in (False, True):
        log = AlarmLog(tmp_path, ("a",), lambda: 100.0, lambda: 1.7e9, print)
        made = model_record(Sample(0, None, np.zeros(1, np.float32)))
        log.tend(log.mark(replace(made, alarm=not over), np.zeros(1, np.float32)))
        log.close()
        assert [alarm.over for alarm in read_alarms(tmp_path)] == [over]


def test_a_bundle_that_takes_over_names_the_machine_of_the_next_alarm() -> None:
    run = Followed()
    run.add(True)
    run.log.machine = KnownMachine("other")
    for alarm in (*[False] * (PAUSE + 1), True):
        run.add(alarm)
    assert [event.alarm.machine for event in run.told] == ["pump", "pump", "other"]
