"""The summary's counts, and a console that only decorates terminals."""

import io
import json
from dataclasses import replace

import faulty_worker
import numpy as np
import pytest

from edge_runtime.alarm import Alarm, BlamedReading
from edge_runtime.detector.alarm import PAUSE
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.supervision.summary import Console, Summary


def summary_of(values: list[float]) -> Summary:
    summary = Summary()
    for index, value in enumerate(values):
        sample = Sample(index, None, np.array([value], np.float32))
        flags = Flag.WARMUP if index == 0 else Flag(0)
        summary.add(faulty_worker.model_record(sample, flags), latency=0.001 * (index + 1))
    return summary


def test_alarms_are_counted_with_their_pauses() -> None:
    assert summary_of([500, 500]).alarms == 1
    assert summary_of([0, 500, *[0] * PAUSE, 500]).alarms == 1
    assert summary_of([0, 500, *[0] * (PAUSE + 1), 500]).alarms == 2


def test_counts_and_latencies() -> None:
    fields = json.loads(summary_of([0, 0, 500]).to_json())
    assert fields["records"] == 3 and fields["tiers"] == {"1": 3, "2": 0, "3": 0}
    assert fields["flags"] == {"WARMUP": 1}
    assert (fields["latency_median_ms"], fields["latency_max_ms"]) == (2.0, 3.0)


def test_an_empty_run_has_no_latency() -> None:
    fields = json.loads(Summary().to_json())
    assert fields["latency_median_ms"] is None and fields["latency_max_ms"] is None
    assert "records      0" in Summary().to_text()
    assert Summary().status() == "waiting for the first sample"


@pytest.mark.parametrize(
    ("seconds", "told"), [(2.134e-6, "0.00213 ms"), (0.00357, "3.57 ms"), (12.3456, "12346 ms")]
)
def test_latencies_of_microseconds_and_of_seconds_are_told(seconds: float, told: str) -> None:
    summary = Summary()
    summary.add(faulty_worker.model_record(Sample(0, None, np.zeros(1, np.float32))), seconds)
    assert f"answer       median {told}, slowest {told}" in summary.to_text()


def test_the_status_names_tier_and_alarm() -> None:
    alarming = summary_of([0, 500])
    alarming.last_alarm = Alarm("pump", 1, 1, 1.0, 1.0, 0.0, (BlamedReading("a"),), None)
    words = "ALARM pump: a unlike healthy since sample 1"
    assert alarming.status() == f"sample 1, tier 1, {words}, 1 alarm so far"
    alarming.language = "de"
    assert "ALARM pump: a seit Messung 1 anders als" in alarming.status()
    assert summary_of([0]).status() == "sample 0, tier 1, no alarm, 0 alarms so far"


def test_changes_of_tier_are_counted() -> None:
    summary = Summary()
    for index, tier in enumerate((3, 3, 1, 2, 1, 2)):
        record = faulty_worker.model_record(Sample(index, None, np.zeros(1, np.float32)))
        summary.add(replace(record, tier=tier), 0.0)
    assert json.loads(summary.to_json())["transitions"] == {"3→1": 1, "1→2": 2, "2→1": 1}
    assert "changes      1→2 2, 2→1 1, 3→1 1" in summary.to_text()
    assert "changes      -" in Summary().to_text()


def named(index: int, alarm: bool, kind: str | None = None) -> Record:
    record = faulty_worker.model_record(Sample(index, None, np.zeros(1, np.float32)), Flag(0))
    blamed, sensor = ("flow", "heat") if alarm else (), None if kind is None else kind != "machine"
    chance = None if kind is None else 0.874
    return replace(record, alarm=alarm, blamed=blamed, kind=kind, probability=chance, sensor=sensor)


def test_an_alarm_counts_for_the_kind_it_was_given_last() -> None:
    summary = Summary()
    told = ["spike", "level", None, "level"], ["level"], [None], ["noise", "noise"]
    for kinds in told:
        for kind in kinds:
            summary.add(named(summary.records, True, kind), 0.0)
        for _ in range(PAUSE + 1):
            summary.add(named(summary.records, False), 0.0)
    assert summary.alarms == 4
    assert json.loads(summary.to_json())["kinds"] == {"level": 2, "noise": 1}
    assert "kinds        level 2, noise 1" in summary.to_text()
    assert "kinds        -" in Summary().to_text()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_once_a_second_and_only_on_a_terminal() -> None:
    for stream, shown in ((Terminal(), 3), (io.StringIO(), 0)):
        now = [0.0]
        console = Console(stream, lambda now=now: now[0])
        for tenth in range(25):
            now[0] = tenth / 10
            console.progress(lambda: "here")
        assert stream.getvalue().count("here") == shown


def test_a_log_line_replaces_the_live_line() -> None:
    terminal = Terminal()
    console = Console(terminal, lambda: 0.0)
    console.progress(lambda: "here")
    console.log("event")
    assert terminal.getvalue().endswith("here\r\x1b[Kgruard: event\n")


def test_a_closed_terminal_does_not_end_the_run() -> None:
    class Closed(Terminal):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    console = Console(Closed(), lambda: 0.0)
    console.log("event")
    console.progress(lambda: "here")
