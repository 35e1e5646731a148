"""Labelled stretches: seen as the runtime would see them, drawn with the rows that lead to them."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.bundle.manifest import Channel
from edge_runtime.learning.prepare import standard_rows
from edge_runtime.learning.recording import Recording
from train.labelled import NO_LABELS, Labelled, draw_labelled, labelled_rows
from train.loss import BURN_IN

LENGTH = 32
CHANNELS = tuple(Channel(n, "", 0.0, 128.0, 0.0, 1e6, None, None, False) for n in ("row", "other"))


def recording(rows: int, anomalous: list[int], first: int = 100) -> Recording:
    """A recording whose first channel counts the rows, so that every row can be told apart."""
    count = np.arange(first, first + rows, dtype=np.float32)
    labels = np.zeros(rows, np.int8)
    labels[anomalous] = 1
    return Recording("x.csv", ("row", "other"), None, np.stack([count, -count], 1), labels, 1.0)


def prepared(*recordings: Recording) -> Labelled:
    return labelled_rows(recordings, CHANNELS, 1.0)


@st.composite
def stretches(draw: st.DrawFn) -> list[Recording]:
    """Stretches shorter and longer than a window, each with anomalies that can be drawn."""
    made = []
    for number in range(draw(st.integers(1, 4))):
        rows = draw(st.integers(BURN_IN + 1, 3 * LENGTH))
        late = st.integers(BURN_IN, rows - 1)
        anomalous = [draw(late), *draw(st.lists(st.integers(0, rows - 1), max_size=9))]
        made.append(recording(rows, anomalous, first=1000 * number))
    return made


def test_they_are_seen_as_the_runtime_sees_them() -> None:
    one, two = recording(40, [20, 21]), recording(50, [30])
    one.values[7, 0] = np.nan
    found = prepared(one, two)
    rows = standard_rows([one.values, two.values], CHANNELS, 1.0)
    for i, stretch in enumerate((one, two)):
        np.testing.assert_array_equal(found.values[i], rows.values[i])
        np.testing.assert_array_equal(found.masks[i], rows.masks[i])
        np.testing.assert_array_equal(found.labels[i], stretch.labels)
    assert not found.masks[0][7, 0] and not found.masks[0][:, 1].any()  # -count is out of range
    assert {array.dtype for array in found.arrays} == {np.dtype(np.float32)}


def test_an_event_that_no_state_leads_to_is_left_out() -> None:
    early, late = recording(60, [0, BURN_IN - 1]), recording(60, [0, BURN_IN])
    assert prepared(early) == NO_LABELS
    found = prepared(early, late)
    assert [len(part) for part in (found.values, found.masks, found.labels)] == [1, 1, 1]
    assert found.labels[0][BURN_IN] == 1


@given(made=stretches(), seed=st.integers(0, 2**16))
def test_a_window_is_a_piece_of_one_stretch_with_an_event_after_its_burn_in(
    made: list[Recording], seed: int
) -> None:
    labelled = prepared(*made)
    batch = draw_labelled(labelled, LENGTH, 5, np.random.default_rng(seed))
    assert batch["labelled"].shape == batch["labelled_mask"].shape == (5, LENGTH, 2)
    assert batch["label"].shape == (5, LENGTH) and batch["label"][:, BURN_IN:].any(axis=1).all()
    for values, masks, label in zip(*batch.values(), strict=True):
        pieces = (
            (stretch, start)
            for stretch in zip(labelled.values, labelled.masks, labelled.labels, strict=True)
            for start in range(max(len(stretch[0]) - LENGTH, 0) + 1)
            if stretch[0][start, 0] == values[0, 0]
        )
        ((stretch, start),) = pieces
        count = min(len(stretch[0]), LENGTH)
        for array, whole in zip((values, masks, label), stretch, strict=True):
            np.testing.assert_array_equal(array[:count], whole[start : start + count])
            assert not array[count:].any()  # beyond the end nothing counts


def test_every_labelled_row_that_can_be_judged_is_drawn_at_every_place() -> None:
    whole = prepared(recording(200, [3, *range(40, 80), 199]))
    batch = draw_labelled(whole, LENGTH, 4000, np.random.default_rng(0))
    judged = batch["labelled"][:, BURN_IN:, 0][batch["label"][:, BURN_IN:] == 1]
    rows = {*range(140, 180), 299}
    assert {int(128 * v) for v in judged} == rows
    places = {int(np.flatnonzero(label)[0]) for label in batch["label"]}
    assert places >= set(range(LENGTH - 1))


def test_a_short_event_is_drawn_as_often_as_a_long_one() -> None:
    long = recording(400, list(range(50, 350)), first=5000)
    batch = draw_labelled(prepared(recording(60, [30]), long), 32, 2000, np.random.default_rng(1))
    assert abs((batch["label"].sum(axis=1) == 1).mean() - 0.5) < 0.06


def test_without_stretches_or_room_there_is_nothing_to_draw() -> None:
    rng = np.random.default_rng(0)
    assert draw_labelled(NO_LABELS, LENGTH, 5, rng) == {}
    assert draw_labelled(prepared(recording(60, [30])), BURN_IN, 5, rng) == {}
    assert rng.random() == np.random.default_rng(0).random()


def test_the_generator_decides_the_windows() -> None:
    labelled = prepared(recording(100, [30, 60]), recording(90, [50], first=900))
    first, again, other = (
        draw_labelled(labelled, LENGTH, 6, np.random.default_rng(seed)) for seed in (7, 7, 8)
    )
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
    assert not np.array_equal(first["labelled"], other["labelled"])


def test_labels_of_any_kind_of_truth_are_ones() -> None:
    odd = recording(60, [30])
    assert odd.labels is not None
    (label,) = prepared(replace(odd, labels=odd.labels * np.int8(3))).labels
    assert set(np.unique(label)) == {0.0, 1.0}
