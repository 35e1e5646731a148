"""The benchmark of labels: the events it counts are the ones training gets, and each by itself."""

from pathlib import Path

import pytest

from benchmarks.labels import EVENTS, Result, faulty_recording, table, write_data
from convert.metrics import intervals
from train.recording import read_recordings
from train.simulate import ALL_KINDS
from train.split import split_by_time


@pytest.mark.parametrize("seed", range(3))
def test_every_event_is_a_stretch_of_the_training_part(tmp_path: Path, seed: int) -> None:
    kinds = write_data(tmp_path / "data", seed)
    assert len(kinds) == max(EVENTS) and set(kinds) <= set(ALL_KINDS)
    split = split_by_time(read_recordings([tmp_path / "data"]).recordings)
    assert [len(intervals(r.labels)) for r in split.labelled] == [1] * max(EVENTS)
    assert not any(r.labels is not None and r.labels.any() for r in split.test)


def test_the_test_recording_has_an_event_of_every_kind_and_other_machines_others() -> None:
    first, second = faulty_recording(0), faulty_recording(1)
    for test in (first, second):
        assert 0.7 * len(ALL_KINDS) <= len(intervals(test.labels)) <= len(ALL_KINDS)
    assert (first.labels != second.labels).any()


def test_the_table_has_means_over_the_machines() -> None:
    rest = {"auc_pr": 0.5, "event_recall": None, "false_alarms_per_10000": 2.0}
    found = [
        Result(seed, events, (), {"vus_pr": value, **rest}, 60.0)
        for seed, events, value in ((0, 0, 0.2), (1, 0, 0.4), (0, 3, 0.7))
    ]
    heading, none, three = table(found).splitlines()
    assert heading.split()[:3] == ["events", "VUS-PR", "AUC-PR"]
    assert none.split()[:3] == ["0", "0.300", "±0.141"]
    assert three.split() == ["3", "0.700", "0.500", "–", "2.000"]
