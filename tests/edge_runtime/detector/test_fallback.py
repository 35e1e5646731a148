"""Tier 3: every view raises an alarm on the right channel, whatever the readings hold."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_manifest import NAMES, channel, made_manifest

from edge_runtime.detector.fallback import VIEWS, Fallback
from edge_runtime.detector.inputs import channel_scaler
from edge_runtime.record import Flag, Record, Sample

MADE = made_manifest()
ROWS = 120
CLEAN = np.random.default_rng(0).uniform(-1, 1, (ROWS, 3)).astype(np.float32)


def run(rows: np.ndarray, manifest: object = MADE) -> list[Record]:
    fallback = Fallback(manifest, "abc")  # type: ignore[arg-type]
    return [fallback.step(Sample(i, i * 0.5, row)) for i, row in enumerate(rows)]


def only(view: str) -> object:
    """The manifest with every other view switched off."""
    off = {name: (1e30,) * 3 for name in VIEWS if name != view}
    return replace(MADE, fallback=replace(MADE.fallback, **off))  # type: ignore[arg-type]


def faulty(view: str, guilty: int) -> np.ndarray:
    """Clean rows with the fault that one view is made for, from row 20 on."""
    rows = CLEAN.copy()
    column = rows[20:, guilty]
    if view == "range":
        column[::2] = 4.5
    elif view == "level":
        column += 2.5
    elif view == "change":
        column[:] = 1.75 * (-1.0) ** np.arange(len(column))
    elif view == "cusum":
        column[:] = 1.5
    elif view == "same":
        column[:] = 0.25
    else:
        column[:] = np.nan
    return rows


def test_clean_rows_raise_nothing() -> None:
    assert not any(record.alarm for record in run(CLEAN))


@pytest.mark.parametrize("guilty", [1, 2])
@pytest.mark.parametrize("view", VIEWS)
def test_each_view_alone_raises_an_alarm_on_the_right_channel(view: str, guilty: int) -> None:
    assert not any(record.alarm for record in run(CLEAN, only(view)))
    records = run(faulty(view, guilty), only(view))
    assert not any(record.alarm for record in records[:20])
    rises = next(record for record in records if record.alarm)
    assert rises.blamed == (NAMES[guilty],)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_cusum_sees_a_lean_to_either_side(sign: int) -> None:
    rows = sign * faulty("cusum", 1)
    assert run(rows, only("cusum"))[-1].blamed == ("flow",)


@pytest.mark.parametrize("view", VIEWS)
def test_exogenous_channels_raise_nothing(view: str) -> None:
    assert not any(record.alarm for record in run(faulty(view, 0), only(view)))


@pytest.mark.parametrize("view", [view for view in VIEWS if view != "missing"])
def test_the_alarm_clears_in_bounded_time_when_the_fault_is_over(view: str) -> None:
    fault = np.concatenate([faulty(view, 1)[20:]] * 10)
    after = np.concatenate([CLEAN] * 2)
    records = run(np.concatenate([fault, after]), only(view))
    assert records[len(fault) - 1].alarm and not records[-1].alarm


def test_the_score_is_the_largest_share_of_a_limit() -> None:
    (record,) = run(np.array([[9, -3, 2]], np.float32))
    assert record.score == 0.75 and record.threshold == 1.0


def test_missing_readings_are_named_and_counted() -> None:
    rows = faulty("missing", 2)
    records = run(rows)
    assert records[20].masked == ("heat",) and records[19].masked == ()
    first = next(i for i, record in enumerate(records) if record.alarm)
    assert first == 20 + 48 + 1  # above 48 at the 49th, debounced 2 of 3


def test_nothing_but_missing_readings_is_answered_and_ends_in_an_alarm() -> None:
    records = run(np.full((ROWS, 3), np.nan, np.float32))
    assert [record.index for record in records] == list(range(ROWS))
    assert records[0].masked == NAMES
    assert records[-1].alarm and records[-1].blamed == ("flow", "heat")
    first = next(i for i, record in enumerate(records) if record.alarm)
    assert first == 48  # the limit on missing readings


def test_the_alarm_of_a_silent_machine_ends_with_its_first_reading() -> None:
    rows = np.concatenate([CLEAN, np.full((80, 3), np.nan, np.float32), CLEAN])
    records = run(rows)
    assert records[ROWS + 79].alarm
    assert not any(record.alarm for record in records[ROWS + 80 :])


def lose(rows: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    """A copy in which random rows have no reading."""
    lost = rows.copy()
    lost[np.random.default_rng(seed).random(len(rows)) < share] = np.nan
    return lost


@pytest.mark.parametrize("exogenous_too", [True, False])
def test_a_row_without_readings_changes_neither_score_nor_alarm(exogenous_too: bool) -> None:
    rows = np.concatenate([faulty("range", 1), CLEAN])
    gaps = np.concatenate([np.insert(rows, i, np.nan, axis=0)[i : i + 2] for i in range(len(rows))])
    if not exogenous_too:
        gaps[::2, 0] = 0
    records, calm = run(gaps), run(rows)
    for before, lost, expected in zip(records[1::2], records[2::2], calm, strict=False):
        assert (lost.score, lost.alarm, lost.blamed) == (before.score, before.alarm, before.blamed)
        assert (before.score, before.alarm) == (expected.score, expected.alarm)
    assert {record.alarm for record in calm} == {True, False}


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6])
def test_random_loss_raises_nothing(share: float) -> None:
    assert not any(record.alarm for record in run(lose(np.concatenate([CLEAN] * 5), share)))


def test_a_channel_that_stays_missing_while_others_come_still_raises_an_alarm() -> None:
    records = run(lose(np.concatenate([faulty("missing", 1), faulty("missing", 1)[20:]]), 0.3))
    assert records[-1].alarm and records[-1].blamed == ("flow",)


def test_channel_rules_apply_here_too() -> None:
    limited = (channel("demand"), channel("flow", high=1.0), channel("heat", stuck_after=2))
    rows = np.array([[0, 2, 0.5], [0, 0, 0.5], [0, 0, 0.5]], np.float32)
    masked = [record.masked for record in run(rows, replace(MADE, channels=limited))]
    assert masked == [("flow",), (), ("heat",)]


@given(st.lists(st.tuples(*[st.floats(width=32)] * 3), max_size=40))
def test_every_sample_gets_one_marked_record(rows: list[tuple[float, float, float]]) -> None:
    with np.errstate(over="ignore"):
        records = run(np.array(rows, np.float32).reshape(-1, 3))
    assert [(record.index, record.time) for record in records] == [
        (i, i * 0.5) for i in range(len(rows))
    ]
    for record in records:
        assert (record.tier, record.flags, record.valid) == (3, Flag.FALLBACK, False)
        assert record.score is not None and np.isfinite(record.score)
        assert record.model == "abc" and record.imputed == ()
        assert bool(record.blamed) == record.alarm


def stood(rows: np.ndarray, moves: dict[int, float]) -> list[Record]:
    """Records of `rows`; before those of `moves` the second channel is said to stand there."""
    fallback, records = Fallback(MADE, "abc"), []
    for i, row in enumerate(rows):
        if i in moves:
            fallback.stand_at((0.0, moves[i], 0.0))
        records.append(fallback.step(Sample(i, i * 0.5, row)))
    return records


def test_a_machine_that_stands_elsewhere_is_judged_from_there() -> None:
    scaler = channel_scaler(MADE.channels)
    away = np.concatenate([CLEAN] * 3)
    away[ROWS:, 1] += 8 * scaler.scale[1]
    assert all(record.alarm for record in stood(away, {})[ROWS + 5 :])
    known = stood(away, {ROWS + 50: 8.0})
    assert all(record.alarm for record in known[ROWS + 5 : ROWS + 50])
    assert not any(record.alarm for record in known[ROWS + 70 :])
    assert not any(record.alarm for record in stood(away[ROWS:], {0: 8.0}))  # from its start on
    away[2 * ROWS :, 2] = 30
    further = stood(away, {ROWS + 50: 8.0})
    assert further[-1].alarm and further[-1].blamed == (NAMES[2],)


def test_a_place_where_the_machine_does_not_stand_is_an_alarm() -> None:
    records = stood(np.concatenate([CLEAN] * 2), {30: 8.0, ROWS: 0.0})
    assert all(record.alarm for record in records[40:ROWS])
    assert not any(record.alarm for record in records[ROWS + 20 :])
