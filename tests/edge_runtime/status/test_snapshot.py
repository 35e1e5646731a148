"""A snapshot survives its file bit by bit, and nothing else passes for one."""

import json
from dataclasses import replace
from typing import Any

import faulty_worker
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_snapshot import ALARMING, SNAPSHOT, snapshots

from edge_runtime.errors import GruardError
from edge_runtime.record import Sample
from edge_runtime.status.snapshot import Answer, Counts, Input, Snapshot, from_json
from edge_runtime.supervision.summary import Summary


@given(snapshot=snapshots)
def test_round_trip(snapshot: Snapshot) -> None:
    text = snapshot.to_json()
    assert "\n" not in text
    assert from_json(text, "here") == snapshot


@given(cut=st.integers(0, len(ALARMING.to_json()) - 1))
def test_no_part_of_a_snapshot_passes_for_one(cut: int) -> None:
    with pytest.raises(GruardError, match=r"^here: not a status file"):
        from_json(ALARMING.to_json()[:cut], "here")


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "[" * 100_000, '{"index": 1}', "NaN"])
def test_other_files_are_no_snapshots(text: str) -> None:
    with pytest.raises(GruardError, match="not a status file"):
        from_json(text, "here")


def older(snapshot: Snapshot, schema: int) -> dict[str, Any]:
    """A snapshot with what all schemas before 7 had in common."""
    data = json.loads(snapshot.to_json()) | {"schema": schema}
    del data["alarm"]
    if data["answer"] is not None:
        data["answer"]["about"] = "level on flow (0.87, sensor)"
    return data


@given(snapshot=snapshots)
def test_a_file_of_the_sixth_schema_does_not_tell_which_alarm_goes_on(snapshot: Snapshot) -> None:
    assert from_json(json.dumps(older(snapshot, 6)), "here") == replace(snapshot, alarm=None)


def first_schema(snapshot: Snapshot) -> dict[str, object]:
    """What gruard wrote before schema 2."""
    data = older(snapshot, 1)
    for part, name in (("model", "waiting"), ("model", "since"), ("counts", "skipped"),
                       ("counts", "outages"), ("counts", "recurring")):  # fmt: skip
        del data[part][name]
    del data["input"], data["threads"], data["change"], data["mute"], data["learning"]
    return data


@given(snapshot=snapshots)
def test_a_file_of_the_second_schema_tells_of_no_change(snapshot: Snapshot) -> None:
    data = older(snapshot, 2)
    del data["change"], data["mute"], data["learning"], data["counts"]["recurring"]
    counts = replace(snapshot.counts, recurring=0)
    expected = replace(snapshot, alarm=None, change=None, mute=None, learning=None, counts=counts)
    assert from_json(json.dumps(data), "here") == expected


@given(snapshot=snapshots)
def test_a_file_of_the_third_schema_tells_of_no_recurring_alarm(snapshot: Snapshot) -> None:
    data = older(snapshot, 3)
    del data["mute"], data["learning"], data["counts"]["recurring"]
    counts = replace(snapshot.counts, recurring=0)
    expected = replace(snapshot, alarm=None, mute=None, learning=None, counts=counts)
    assert from_json(json.dumps(data), "here") == expected


@given(snapshot=snapshots)
def test_a_file_of_the_fourth_schema_tells_of_no_mute(snapshot: Snapshot) -> None:
    data = older(snapshot, 4)
    del data["mute"], data["learning"]
    expected = replace(snapshot, alarm=None, mute=None, learning=None)
    assert from_json(json.dumps(data), "here") == expected


@given(snapshot=snapshots)
def test_a_file_of_the_fifth_schema_tells_of_no_learning(snapshot: Snapshot) -> None:
    data = older(snapshot, 5)
    del data["learning"]
    expected = replace(snapshot, alarm=None, learning=None)
    assert from_json(json.dumps(data), "here") == expected


@given(snapshot=snapshots)
def test_a_file_of_the_first_schema_is_read_and_what_it_does_not_tell_is_unknown(
    snapshot: Snapshot,
) -> None:
    read = from_json(json.dumps(first_schema(snapshot)), "here")
    counts = replace(snapshot.counts, skipped=0, outages=0, recurring=0)
    model = replace(snapshot.model, waiting="", since=None)
    assert read == replace(
        snapshot,
        model=model,
        counts=counts,
        input=Input(None, None),
        threads=(),
        alarm=None,
        change=None,
        mute=None,
        learning=None,
    )


@pytest.mark.parametrize("part", ["model", "counts", "process"])
@pytest.mark.parametrize("value", [None, [], {}, 7])
def test_damage_in_a_file_of_the_first_schema_is_named(part: str, value: object) -> None:
    with pytest.raises(GruardError, match=f"here: {part}"):
        from_json(json.dumps(first_schema(SNAPSHOT) | {part: value}), "here")


def test_another_schema_is_named() -> None:
    with pytest.raises(GruardError, match=r"another version of gruard .schema 9"):
        from_json(replace(SNAPSHOT, schema=9).to_json(), "here")


@pytest.mark.parametrize(
    ("field", "value"), [("trail", [1, "x"]), ("rate", "fast"), ("counts", {}), ("model", None)]
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    with pytest.raises(GruardError, match=f"here: {field}"):
        from_json(json.dumps(json.loads(SNAPSHOT.to_json()) | {field: value}), "here")


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_an_impossible_score_leaves_strict_json(odd: float) -> None:
    record = faulty_worker.model_record(Sample(0, odd, np.zeros(1, np.float32)))
    answer = Answer.of(replace(record, score=odd, threshold=odd, probability=odd))
    assert (answer.time, answer.score, answer.threshold) == (None, None, None)
    snapshot = replace(SNAPSHOT, answer=answer)
    assert from_json(snapshot.to_json(), "here") == snapshot


def test_counts_are_those_of_the_summary() -> None:
    summary = Summary()
    summary.add(faulty_worker.model_record(Sample(0, None, np.zeros(1, np.float32))), 0.002)
    counts = Counts.of(summary)
    assert counts.records == 1 and counts.tiers == {"1": 1, "2": 0, "3": 0}
    assert counts.latency_median_ms == counts.latency_max_ms == 2.0
    summary.add(faulty_worker.model_record(Sample(1, None, np.zeros(1, np.float32))), 0.002)
    assert counts.records == 1  # a snapshot does not go on
