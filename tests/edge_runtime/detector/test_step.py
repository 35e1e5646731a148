"""One step: a pure function that answers whatever comes and trusts what it says it trusts."""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.detector import tiers
from edge_runtime.detector.cell import (
    INNOVATION_CLIP,
    Model,
    Recurrent,
    Traces,
    advance,
    build_model,
    forecast,
)
from edge_runtime.detector.fallback import Fallback
from edge_runtime.detector.interpreter import Int8Graph
from edge_runtime.detector.score import initial_score, total_score, update_score
from edge_runtime.detector.step import State, initial_state, step
from edge_runtime.detector.tiers import Phase
from edge_runtime.record import Flag, Record, Sample

CLEAN = tiny_model.machine_rows(160, seed=7)
FLOW = 1
NOTHING, EVERYTHING = np.zeros(3, np.float32), np.ones(3, np.float32)


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    softplus = np.array(bundle.manifest.tables.softplus, np.float32)
    graph = Int8Graph(bundle.model, bundle.graph, softplus)
    return build_model(bundle.manifest, graph, bundle.model_hash)


def run(model: Model, rows: Iterable[np.ndarray]) -> tuple[list[Record], list[Traces], State]:
    state, fallback = initial_state(model), Fallback(model.manifest, model.model_hash)
    records, traces = [], []
    for i, row in enumerate(rows):
        sample = Sample(i, i * 1.0, np.asarray(row, np.float32))
        record, state, trace = step(model, sample, state, fallback.step(sample))
        records.append(record)
        traces.append(trace)
    return records, traces, state


@pytest.fixture(scope="module")
def settled(model: Model) -> State:
    """The state after clean rows, well past the warm-up."""
    records, _, state = run(model, CLEAN)
    assert records[-1].valid
    return state


def flat(value: object) -> list[object]:
    """Everything inside a dataclass as comparable values, arrays as bytes."""
    if is_dataclass(value):
        return [part for field in fields(value) for part in flat(getattr(value, field.name))]
    if isinstance(value, dict):
        return [part for key in sorted(value) for part in (key, *flat(value[key]))]
    if isinstance(value, tuple):
        return [part for entry in value for part in flat(entry)]
    if isinstance(value, np.ndarray):
        return [value.dtype, value.shape, value.tobytes()]
    return [repr(value)]


readings = st.one_of(
    st.floats(width=32),
    st.floats(-100, 400, width=32),
    st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30, 0.0]),
)
rows_of_anything = st.lists(st.tuples(readings, readings, readings), min_size=1, max_size=50)


@settings(max_examples=25)
@given(row=st.tuples(readings, readings, readings))
def test_a_step_is_a_pure_function(
    model: Model, settled: State, row: tuple[float, float, float]
) -> None:
    sample = Sample(160, None, np.array(row, np.float32))
    with np.errstate(over="ignore"):
        shadow = Fallback(model.manifest, model.model_hash).step(sample)
        before = flat((sample, settled, shadow))
        first = step(model, sample, settled, shadow)
        second = step(model, sample, settled, shadow)
    assert flat(first) == flat(second)
    assert flat((sample, settled, shadow)) == before


@settings(max_examples=40)
@given(rows_of_anything)
def test_every_sample_gets_one_record_whatever_it_holds(
    model: Model, rows: list[tuple[float, float, float]]
) -> None:
    with np.errstate(over="ignore"):
        records, traces, _ = run(model, [*CLEAN[:30], *rows])
    assert [record.index for record in records] == list(range(30 + len(rows)))
    for record, trace, row in zip(records[30:], traces[30:], rows, strict=True):
        values = [record.score, record.threshold, *trace.forecast, *trace.gate, *trace.parts]
        assert np.isfinite(np.array(values, np.float64)).all()
        assert record.time == float(record.index) and record.model == model.model_hash
        assert record.valid == (record.tier != 3) == (Flag.FALLBACK not in record.flags)
        missing = {n for n, v in zip(tiny_model.CHANNELS, row, strict=True) if not np.isfinite(v)}
        assert missing <= set(record.masked)
        assert not record.blamed or record.alarm
        assert set(record.masked + record.imputed + record.blamed) <= set(tiny_model.CHANNELS)


def test_the_warm_up_is_flagged_and_answered_by_the_fallback(model: Model) -> None:
    warmup = model.manifest.tiers.warmup
    rows = CLEAN[: warmup + 20].copy()
    rows[5:15, FLOW] += 100  # out of its range: masked
    rows[15:20, FLOW] += 20
    records, _, _ = run(model, rows)
    fallback = Fallback(model.manifest, model.model_hash)
    for i, record in enumerate(records[:warmup]):
        shadow = fallback.step(Sample(i, i * 1.0, rows[i]))
        assert (record.tier, record.valid) == (3, False)
        assert Flag.WARMUP | Flag.FALLBACK in record.flags
        assert (record.score, record.alarm, record.blamed) == (
            shadow.score, shadow.alarm, shadow.blamed
        )  # fmt: skip
        assert record.threshold == 1.0 and record.masked == shadow.masked
    assert any(record.alarm for record in records[:warmup])
    threshold = model.manifest.thresholds["tflite-builtin"].value
    for record in records[warmup:]:
        assert record.tier < 3 and Flag.WARMUP not in record.flags
        assert record.threshold == threshold


def test_no_forecast_is_believed_and_nothing_decided_while_warming_up(model: Model) -> None:
    rows = CLEAN[: model.manifest.tiers.warmup].copy()
    rows[5:, FLOW] += 20
    records, traces, state = run(model, rows)
    smoothed = warmed = initial_score(model.score)
    for trace in traces:
        smoothed = update_score(trace.parts, trace.terms, smoothed, model.score)
        warmed = update_score(trace.parts, trace.terms, warmed, model.score, settling=True)
    threshold = model.manifest.thresholds["tflite-builtin"].value
    assert total_score(smoothed.parts, model.score) > threshold  # it would have been an alarm
    assert not state.alarm.active and records[-1].alarm
    assert flat(state.score) == flat(warmed)
    assert flat(state.score) != flat(initial_score(model.score))  # the level needs no forecast


def test_a_warm_up_in_mid_stream_keeps_the_score_but_for_the_level(model: Model) -> None:
    rows = tiny_model.machine_rows(100, seed=9)
    _, _, state = run(model, rows)
    warming = replace(state, recurrent=None, tiers=tiers.restart(state.tiers, model.manifest.tiers))
    fallback = Fallback(model.manifest, model.model_hash)
    for i in range(model.manifest.tiers.warmup):
        before, sample = warming.score, Sample(i, None, rows[i])
        _, warming, trace = step(model, sample, warming, fallback.step(sample))
        expected = update_score(trace.parts, trace.terms, before, model.score, settling=True)
        assert flat(warming.score) == flat(expected)
    sample = Sample(0, None, rows[warming.tiers.index % 100])
    _, after, trace = step(model, sample, warming, fallback.step(sample))
    assert flat(after.score) == flat(
        update_score(trace.parts, trace.terms, warming.score, model.score)
    )


def one_advance(
    model: Model,
    state: State,
    value: np.ndarray,
    mask: np.ndarray = EVERYTHING,
    held_open: np.ndarray = NOTHING,
    phase: Phase = Phase.GATE,
    after_gap: bool = False,
) -> tuple[Traces, Recurrent]:
    assert state.recurrent is not None
    return advance(model, value * mask, mask, state.recurrent, held_open, phase, after_gap)


def outlier(model: Model, state: State, size: float = 3.5) -> np.ndarray:
    """A standardised reading that is `size` above the forecast in every channel."""
    assert state.recurrent is not None
    return forecast(model, state.recurrent) + np.float32(size)


def test_a_closed_gate_makes_the_trusted_input_the_forecast(model: Model, settled: State) -> None:
    value = outlier(model, settled)
    trace, after = one_advance(model, settled, value)
    assert (trace.gate[FLOW:] < 0.05).all()
    np.testing.assert_allclose(after.history[0][FLOW:], trace.forecast[FLOW:], atol=0.2)


def test_a_gate_held_open_makes_the_trusted_input_the_reading(model: Model, settled: State) -> None:
    value = outlier(model, settled)
    trace, after = one_advance(model, settled, value, held_open=EVERYTHING)
    # int8 cannot say 1 exactly: open is within one code of it.
    code = model.manifest.outputs["gate_next"].scale
    assert (trace.gate >= 1 - 1.5 * code).all()
    np.testing.assert_allclose(after.history[0], value, atol=1.5 * code * float(INNOVATION_CLIP))


def test_only_the_channel_held_open_is_open(model: Model, settled: State) -> None:
    held_open = np.array([0, 1, 0], np.float32)
    trace, _ = one_advance(model, settled, outlier(model, settled), held_open=held_open)
    assert trace.gate[1] > 0.98 and trace.gate[2] < 0.05


def test_an_input_that_moved_during_a_gap_holds_the_gate_open(model: Model, settled: State) -> None:
    value, expected = outlier(model, settled), outlier(model, settled, 0)
    trace, _ = one_advance(model, settled, value, after_gap=True)
    assert (trace.gate > 0.98).all()
    unmoved = np.where(model.watched > 0, value, expected)
    trace, _ = one_advance(model, settled, unmoved, after_gap=True)
    assert (trace.gate[FLOW:] < 0.05).all()
    unknown = np.array([0, 1, 1], np.float32)
    trace, _ = one_advance(model, settled, value, unknown, after_gap=True)
    assert (trace.gate[FLOW:] < 0.05).all()


def test_a_step_of_an_input_in_a_gap_shuts_no_gate(model: Model) -> None:
    rows = CLEAN[:100].copy()
    rows[80:, 0] += 3 * model.scaler.scale[0]
    rows[80:, FLOW] += 6 * model.scaler.scale[FLOW]
    rows[79] = np.nan
    records, traces, _ = run(model, rows)
    assert (traces[80].gate > 0.98).all()
    assert (records[80].tier, records[80].flags, records[80].imputed) == (1, Flag(0), ())


def test_exogenous_channels_are_always_trusted(model: Model, settled: State) -> None:
    value = outlier(model, settled)
    for phase in Phase:
        trace, after = one_advance(model, settled, value, phase=phase)
        assert trace.gate[0] > 0.98
        assert after.history[0][0] == pytest.approx(value[0], abs=0.05)


@pytest.mark.parametrize("held_open", [NOTHING, EVERYTHING], ids=["gated", "held open"])
def test_a_masked_reading_makes_the_trusted_input_the_forecast_exactly(
    model: Model, settled: State, held_open: np.ndarray
) -> None:
    mask = np.array([1, 0, 1], np.float32)
    trace, after = one_advance(model, settled, outlier(model, settled), mask, held_open)
    assert after.history[0][1] == trace.forecast[1]
    assert after.history[0][0] != trace.forecast[0]
    assert trace.gate[1] < 0.02


def test_a_free_run_ignores_every_gated_reading(model: Model, settled: State) -> None:
    calm, wild = outlier(model, settled, 0.1), outlier(model, settled, 3.0)
    calm[0] = wild[0]  # the exogenous channel stays known
    _, after_calm = one_advance(model, settled, calm, phase=Phase.FREE_RUN)
    trace, after_wild = one_advance(model, settled, wild, phase=Phase.FREE_RUN)
    np.testing.assert_array_equal(after_wild.history[0][FLOW:], trace.forecast[FLOW:])
    assert flat(replace(after_calm, value=wild)) == flat(after_wild)


def _by(model: Model, highway: np.ndarray, cross: np.ndarray) -> Model:
    return replace(model, lines=replace(model.lines, highway=highway, cross=cross))


def test_the_forecast_is_the_highway_and_the_correction(model: Model, settled: State) -> None:
    recurrent = settled.recurrent
    assert recurrent is not None
    lines = model.lines
    history = recurrent.history[: len(lines.highway)]
    expected = (lines.highway * history).sum(axis=0)
    for lag, readings in enumerate(history):
        expected += lines.cross[:, 3 * lag : 3 * lag + 3] @ readings
    expected += model.innovation_scale * recurrent.correction
    np.testing.assert_allclose(forecast(model, recurrent), expected, rtol=1e-5, atol=1e-6)
    assert (recurrent.correction != 0).any() and np.abs(lines.cross).max() > 0.05
    alone = _by(model, lines.highway, np.zeros((0, 0), np.float32))
    assert np.abs(forecast(alone, recurrent) - forecast(model, recurrent)).max() > 1e-3


def test_the_trace_holds_what_the_forecasts_that_follow_build_on(
    model: Model, settled: State
) -> None:
    trace, after = one_advance(model, settled, outlier(model, settled))
    np.testing.assert_array_equal(trace.trusted, after.history[0])
    assert settled.recurrent is not None
    np.testing.assert_array_equal(after.history[1:], settled.recurrent.history[:-1])


def test_the_state_is_blended_from_candidate_and_update(model: Model, settled: State) -> None:
    trace, after = one_advance(model, settled, outlier(model, settled))
    assert settled.recurrent is not None
    old = settled.recurrent.hidden[0].astype(np.float64)
    candidate, update = trace.outputs["candidate_0"], trace.outputs["update_0"]
    np.testing.assert_allclose(after.hidden[0], (1 - update) * candidate + update * old, atol=1e-6)


def test_a_clean_machine_is_left_in_peace(model: Model) -> None:
    records, _, _ = run(model, tiny_model.machine_rows(400, seed=8))
    late = records[model.manifest.tiers.warmup :]
    assert {record.tier for record in late} == {1}
    assert not any(record.alarm for record in late)


def test_a_deviating_channel_is_imputed_blamed_and_found_again(model: Model) -> None:
    rows = tiny_model.machine_rows(300, seed=9)
    rows[100:114, FLOW] += 20
    records, _, _ = run(model, rows)
    during = records[108:114]
    assert all(record.alarm and record.blamed[0] == "flow" for record in during)
    assert all(record.imputed == ("flow",) and Flag.IMPUTED in record.flags for record in during)
    assert records[-1].tier == 1 and not records[-1].alarm and not records[-1].imputed


def test_a_new_operating_point_is_believed_in_bounded_time(model: Model) -> None:
    rows = tiny_model.machine_rows(400, seed=9)
    rows[100:, FLOW] += 15  # two scales: a gate alone would stay closed for ever
    # Each channel for itself: beside its set point this flow would go on being strange.
    alone = _by(model, model.lines.own, np.zeros((0, 0), np.float32))
    records, traces, _ = run(alone, rows)
    assert traces[115].gate[FLOW] < 0.5
    assert {record.tier for record in records[100:200]} == {1, 2}
    assert any(Flag.FREE_RUN in record.flags for record in records[100:140])
    assert any(Flag.RESYNC in record.flags for record in records[100:170])
    assert np.mean([trace.gate[FLOW] for trace in traces[300:]]) > 0.9


def test_a_row_without_readings_is_imputed_and_not_judged(model: Model) -> None:
    rows = tiny_model.machine_rows(200, seed=9)
    rows[100:114, FLOW] += 20
    lost = [90, 91, 92, 93, 108, 110, 111, 150]
    rows[lost] = np.nan
    records, traces, _ = run(model, rows)
    for i in lost:
        now, before = records[i], records[i - 1]
        assert now.valid and now.tier == before.tier == 1
        assert now.masked == now.imputed == tiny_model.CHANNELS and Flag.IMPUTED in now.flags
        for name in ("score", "alarm", "blamed", "kind", "probability", "sensor"):
            assert getattr(now, name) == getattr(before, name), name
        np.testing.assert_array_equal(traces[i].trusted, traces[i].forecast)
    assert {records[i].alarm for i in lost} == {True, False}
    assert not any(flag in record.flags for record in records for flag in (Flag.RESYNC, Flag.RESET))


def test_a_known_exogenous_reading_alone_is_no_reading_to_judge(model: Model) -> None:
    rows = tiny_model.machine_rows(100, seed=9)
    rows[90, 1:] = np.nan
    records, _, _ = run(model, rows)
    assert records[90].score == records[89].score and records[90].masked == ("flow", "heat")


@pytest.mark.parametrize("odd", [[np.nan, 1e6], [-1e6, np.nan], [1e6, 1e6]])
def test_what_was_measured_is_judged(model: Model, odd: list[float]) -> None:
    """A reading that is refused, or one that is left: the missing ones count as errors."""
    rows = tiny_model.machine_rows(100, seed=9)
    rows[90:93, 1:] = odd
    records, _, _ = run(model, rows)
    scores = [record.score or 0.0 for record in records[89:93]]
    assert records[92].tier == 1 and scores == sorted(scores) and scores[0] < scores[-1]


def test_an_outage_is_waited_out_and_raises_nothing(model: Model) -> None:
    rows = tiny_model.machine_rows(300, seed=9)
    rows[100:140] = np.nan
    records, _, state = run(model, rows)
    bounds = model.manifest.tiers
    blind = 100 + bounds.bridge + 1 + bounds.free_run_limit
    tier = [record.tier for record in records]
    assert tier[100 : 100 + bounds.bridge + 1] == [1] * (bounds.bridge + 1)
    assert tier[100 + bounds.bridge + 1 : blind] == [2] * bounds.free_run_limit
    assert tier[blind:141] == [3] * (141 - blind)
    assert tier[141 : 141 + bounds.resync_all] == [2] * bounds.resync_all
    assert tier[141 + bounds.resync_all :] == [1] * (300 - 141 - bounds.resync_all)
    assert not any(record.alarm for record in records) and state.tiers.resyncs == ()


def test_the_alarm_stays_latched_in_tier_two(model: Model) -> None:
    rows = tiny_model.machine_rows(200, seed=9)
    rows[100:118, FLOW] += 20
    records, _, _ = run(model, rows)
    second = [record for record in records[100:] if record.tier == 2]
    assert len(second) == 16 + 24 and all(record.alarm for record in second)


def test_a_signal_that_is_lost_again_and_again_ends_with_the_fallback(model: Model) -> None:
    rows = tiny_model.machine_rows(600, seed=9)
    rows[60:, FLOW] += np.random.default_rng(0).choice([-17, 17], 540)
    records, _, _ = run(model, rows)
    resets = [record.index for record in records if Flag.RESET in record.flags]
    warmup = model.manifest.tiers.warmup
    assert len(resets) >= 2
    for index in resets:
        flagged = records[index + 1 : index + 1 + warmup]
        assert all(Flag.WARMUP in record.flags and record.tier == 3 for record in flagged)
    # The second reset also ends the trust, until model and fallback have agreed for long enough.
    first = resets[1] + 1
    after = records[first : first + warmup + model.manifest.tiers.agree - 1]
    assert len(after) > 100 and all(r.tier == 3 and not r.valid for r in after)
