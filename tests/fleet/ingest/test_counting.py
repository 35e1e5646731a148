"""A record counts once, by whatever way, in whatever order and how often it comes."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from device_records import (
    START,
    alarms_by_hand,
    counted,
    read,
    stream,
    text,
    write,
    write_journal,
)
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow", reason="the fleet is not tested: pip install '.[fleet]'")
from edge_runtime.detector.alarm import PAUSE
from edge_runtime.sinks.outbox import Changes, message
from fleet.ingest.runs import MOST_RUNS, MOST_SPANS, NONE_CLOSED, Runs, RunSeen
from fleet.ingest.totals import MOST_ALARMS

RUNS = st.lists(  # of alarms and pauses between them
    st.tuples(st.integers(1, 5), st.sampled_from([1, 3, PAUSE, PAUSE + 1, PAUSE + 2, 90])),
    min_size=1, max_size=6,
)  # fmt: skip


def alarms_of(parts: list[tuple[int, int]]) -> list[bool]:
    return [on for alarm, pause in parts for on in [False] * pause + [True] * alarm]


@given(RUNS)
@settings(deadline=None, max_examples=40)
def test_alarms_are_those_that_the_run_counts(tmp_path_factory, parts) -> None:
    folder = tmp_path_factory.mktemp("run")
    records = stream(alarms_of(parts))
    totals = read([write(folder / "a.jsonl", records)])
    assert totals.records == len(records)
    assert len(totals.alarms) == alarms_by_hand(records)


@given(RUNS, st.data())
@settings(deadline=None, max_examples=30)
def test_pieces_in_any_order_and_twice_are_the_whole(tmp_path_factory, parts, data) -> None:
    folder = tmp_path_factory.mktemp("pieces")
    records = stream(alarms_of(parts))
    whole = read([write(folder / "whole.jsonl", records)])
    cuts = sorted(data.draw(st.sets(st.integers(1, len(records)), max_size=4)))
    edges = [0, *cuts, len(records)]
    pieces = [records[a:b] for a, b in pairwise(edges)]
    named = data.draw(st.booleans())
    order = data.draw(st.permutations(range(len(pieces)))) if named else range(len(pieces))
    paths = []
    for number in order:
        kind = data.draw(st.sampled_from(["a.jsonl", "a.jsonl.gz", "journal"]))
        place = folder / str(number)
        place.mkdir()
        if kind == "journal" and named:
            paths.append(write_journal(place / "journal", pieces[number], "8c1f0a6be2d4", 1))
        else:
            file = place / kind if kind != "journal" else place / "b.jsonl"
            paths.append(write(file, pieces[number], "8c1f0a6be2d4" if named else ""))
    paths += data.draw(st.lists(st.sampled_from(paths), max_size=3))
    totals = read(paths)
    assert counted(totals) == counted(whole)
    again = read(paths, totals)
    assert counted(again) == counted(whole), "a second command counts nothing twice"


@given(RUNS, st.booleans())
@settings(deadline=None, max_examples=40)
def test_what_a_broker_gets_and_the_file_are_one_run(tmp_path_factory, parts, file_first) -> None:
    folder = tmp_path_factory.mktemp("both")
    records = stream(alarms_of(parts))
    wanted = Changes()
    sent = [each for each in records if wanted(message("8c1f0a6be2d4", each))]
    file = write(folder / "file.jsonl", records)
    broker = write(folder / "broker.jsonl", sent, "8c1f0a6be2d4")
    alone = read([broker])
    # Changes do not say how long an alarm went on, so one with a pause may look like two.
    assert len(alone.alarms) >= alarms_by_hand(records), "each alarm is announced"
    both = read([file, broker] if file_first else [broker, file])
    assert counted(both) == counted(read([file])) and len(both.runs) == 1


def test_restarts_and_other_recordings_are_runs_of_their_own(tmp_path: Path) -> None:
    first, second = stream([False] * 50), stream([False] * 50, START + 60, seed=3)
    data = text(first) + text(second)
    (tmp_path / "both.jsonl").write_bytes(data)
    totals = read([tmp_path / "both.jsonl"])
    assert totals.records == 100 and len(totals.runs) == 2
    other = stream([False] * 50, seed=5)  # the times of the first, but other readings
    totals = read([write(tmp_path / "other.jsonl", other)], totals)
    assert totals.records == 150 and len(totals.runs) == 3


def test_a_lost_file_of_a_run_leaves_a_hole_and_no_second_run(tmp_path: Path) -> None:
    records = stream([False] * 3000)
    paths = [write(tmp_path / f"{n}.jsonl", records[n : n + 1000]) for n in (0, 2000)]
    totals = read(paths)
    assert len(totals.runs) == 1 and totals.runs[0].missing == 1000
    late = write(tmp_path / "late.jsonl", records[1000:2000])
    assert counted(read([late], totals)) == counted(read([write(tmp_path / "x.jsonl", records)]))


def test_runs_and_holes_beyond_the_bounds_do_not_count_again() -> None:
    runs = Runs((), NONE_CLOSED)
    for number in range(MOST_RUNS + 50):
        run = runs.find(f"{number:012x}", 0, START + number * 100, f"{number}")
        assert run is not None
        times = START + number * 100 + np.arange(10.0)
        runs.keep(run.with_records(np.arange(10), times, 0))
    assert len(runs.known) == MOST_RUNS and runs.closed.count == 50
    assert runs.closed.watched == 50 * 9 and runs.closed.covered == pytest.approx(50 * 10)
    assert runs.find(f"{3:012x}", 0, START, "3") is None, "an old run is known by its name"
    run = RunSeen("a", "a", 0, "")
    for index in range(0, 6 * MOST_SPANS, 3):
        run = runs.keep(run.with_records(np.array([index]), np.array([START + index]), 0))
    assert len(run.spans) <= 2 * MOST_SPANS and not run.unseen(np.array([0, 3, 300])).any()


def test_alarms_are_bounded_and_all_counted(tmp_path: Path) -> None:
    count = MOST_ALARMS + 100
    records = stream(([True] + [False] * (PAUSE + 1)) * count)
    totals = read([write(tmp_path / "a.jsonl", records)])
    assert len(totals.alarms) == MOST_ALARMS and totals.forgotten == 100
    assert totals.alarms[-1].first == records[-(PAUSE + 2)].index
