"""The rows a conversion is judged on: labelled exactly where a fault can be seen."""

from dataclasses import replace

import numpy as np
import pytest

from edge_runtime.detector.inputs import channel_scaler
from edge_runtime.learning.faults import Fault
from edge_runtime.learning.prepare import standard_rows
from edge_runtime.learning.run import Run
from edge_runtime.learning.streams import SPACING, clean_test_rows, faulty_twin, repeated, seams_of


def twin(run: Run, seed: int = 3, length: int = 1500) -> tuple:  # type: ignore[type-arg]
    config, scale = run.config, run.weights["innovation_scale"]
    rows = run.rows["calibrate"]
    made = faulty_twin(rows, config.channels, config.period, scale, seed, length)
    return made, repeated(rows, length), scale


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_labels_are_exactly_the_visible_cells(tiny_run: Run, seed: int) -> None:
    made, clean, scale = twin(tiny_run, seed)
    channels = tiny_run.config.channels
    scaler = channel_scaler(channels)
    known = standard_rows([clean], channels, tiny_run.config.period).masks[0] > 0
    away = np.abs(made.rows - clean) / scaler.scale / scale
    lost = np.isnan(made.rows) & known
    near_the_edge = (np.abs(away - 2) < 1e-3).any(axis=1)
    visible = ((away >= 2) | lost).any(axis=1)
    watched = [not channel.exogenous for channel in channels]
    visible &= np.isfinite(made.rows[:, watched]).any(axis=1)
    agree = visible == made.faulty
    # A cell that the channel's own rules had masked shows nothing, whatever was put into it.
    hidden = (~known).any(axis=1)
    assert agree[~near_the_edge & ~hidden].all()
    assert near_the_edge.mean() < 0.01 and hidden.mean() < 0.01
    assert 0 < made.faulty.mean() < 0.5


def test_outside_the_events_the_rows_are_the_clean_ones(tiny_run: Run) -> None:
    made, clean, _ = twin(tiny_run)
    inside = np.zeros(clean.shape, bool)
    for event in made.events:
        inside[event.start : event.stop, event.channels] = True
    np.testing.assert_allclose(made.rows[~inside], clean[~inside], rtol=1e-5)
    assert not made.faulty[~inside.any(axis=1)].any()
    assert (made.rows[inside] != clean[inside]).mean() > 0.5


def test_there_is_a_fault_every_150_rows_and_none_on_an_exogenous_channel(tiny_run: Run) -> None:
    made, clean, _ = twin(tiny_run)
    assert len(made.events) == len(clean) // SPACING == 10
    assert all(0 not in event.channels for event in made.events)
    assert min(event.start for event in made.events) >= SPACING


def test_a_dropped_reading_is_a_missing_one(tiny_run: Run) -> None:
    made, _, _ = twin(tiny_run, length=4000)
    dropped = [event for event in made.events if event.kind in (Fault.DROPOUT, Fault.BLACKOUT)]
    assert dropped
    for event in dropped:
        assert np.isnan(made.rows[event.start : event.stop, event.channels]).all()
        # Where nothing was measured there is nothing to be found.
        found = made.faulty[event.start : event.stop]
        assert found.all() if event.kind is Fault.DROPOUT else not found.any()


def test_the_seed_decides_every_bit(tiny_run: Run) -> None:
    first, again, other = (twin(tiny_run, seed)[0] for seed in (3, 3, 4))
    assert first.rows.tobytes() == again.rows.tobytes() and first.events == again.events
    assert first.rows.tobytes() != other.rows.tobytes()


def test_a_recording_shorter_than_one_fault_still_gets_one(tiny_run: Run) -> None:
    rows = [tiny_run.rows["test"][0][:40]]
    config, scale = tiny_run.config, tiny_run.weights["innovation_scale"]
    made = faulty_twin(rows, config.channels, config.period, scale, seed=1, length=40)
    assert len(made.rows) == 40 and len(made.events) == 1


def test_rows_are_repeated_end_to_end_and_cut() -> None:
    a, b = np.arange(3.0)[:, np.newaxis], np.arange(10.0, 12.0)[:, np.newaxis]
    assert repeated([a, b], 8)[:, 0].tolist() == [0, 1, 2, 10, 11, 0, 1, 2]
    assert repeated([a, b], 4)[:, 0].tolist() == [0, 1, 2, 10]
    assert seams_of([a, b], 8) == (3, 5)
    assert seams_of([a, b], 4) == (3,) and seams_of([a], 3) == ()


def test_a_stream_knows_where_its_recordings_begin(tiny_run: Run) -> None:
    recorded = len(tiny_run.rows["calibrate"][0])
    assert twin(tiny_run)[0].seams == (recorded, 2 * recorded, 3 * recorded)


def test_labelled_rows_are_cut_out_of_the_test_rows(tiny_run: Run) -> None:
    rows = np.arange(10, dtype=np.float32)[:, np.newaxis]
    marks = np.array([1, 0, 0, 1, 1, 0, 0, 0, 1, 0], np.int8)
    labelled = replace(tiny_run, rows={"test": [rows, rows]}, labels={"test": [marks, 1 - marks]})
    pieces = [piece[:, 0].tolist() for piece in clean_test_rows(labelled)]
    assert pieces == [[1, 2], [5, 6, 7], [9], [0], [3, 4], [8]]
    unlabelled = replace(tiny_run, rows={"test": [rows]}, labels={"test": []})
    assert [piece[:, 0].tolist() for piece in clean_test_rows(unlabelled)] == [list(range(10))]
    bad = replace(tiny_run, rows={"test": [rows]}, labels={"test": [np.ones(10, np.int8)]})
    assert clean_test_rows(bad) == []
