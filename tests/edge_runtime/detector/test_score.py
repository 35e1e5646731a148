"""The score against its formulas by hand: what counts, what does not, and who is to blame."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from made_manifest import made_manifest

from edge_runtime.bundle.manifest import PARTS
from edge_runtime.detector.score import (
    SCORE_CLIP,
    ScoreConstants,
    ScoreState,
    blame,
    initial_score,
    score_constants,
    score_parts,
    total_score,
    update_score,
    without_forecasts,
)

MADE = made_manifest()
LEVEL, GATE = PARTS.index("level"), PARTS.index("gate")
ALL = np.ones(3, np.float32)
ABSENT = ((4.0, 4.0, 8.0), (3.0, 6.0, 2.0), (5.0, 1.0, 7.0))
SCALE = ((1.0, 0.5, 2.0), (2.0, 1.0, 0.25), (0.5, 4.0, 1.0))
ROOT = ((2.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 1.0, 3.0))
SHAPED = replace(
    MADE,
    score=replace(
        MADE.score,
        error_scale=SCALE,
        absent=ABSENT,
        distance_root=ROOT,
        level_root=ROOT,
        memories=(
            replace(
                MADE.score.memories[0], mean=(1.0, 1.5, 2.0, 3.0, 3.5, 4.0),
                std=(0.5, 0.75, 1.0, 2.0, 3.0, 4.0),
            ),
        ),
    ),
)  # fmt: skip
CONSTANTS = score_constants(SHAPED)
vectors = hnp.arrays(np.float32, 3, elements=st.floats(-4, 4, width=32))
doubts = hnp.arrays(np.float32, 3, elements=st.floats(0, 8, width=32))
errors_ = hnp.arrays(np.float32, (3, 3), elements=st.floats(-4, 4, width=32))
six = hnp.arrays(np.float32, (1, 6), elements=st.floats(-8, 8, width=32))
nine = hnp.arrays(np.float32, (3, 3), elements=st.floats(-8, 8, width=32))


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def parts_of(
    errors: np.ndarray, value: np.ndarray, doubt: np.ndarray, mask: np.ndarray = ALL
) -> np.ndarray:
    return score_parts(errors, value, doubt, mask, CONSTANTS)[0]


def alike(*values: float) -> np.ndarray:
    """Errors of which all three forecasts are guilty."""
    return np.stack([array(*values)] * 3)


@given(errors=errors_, value=vectors, doubt=doubts)
def test_each_part_is_its_formula(errors: np.ndarray, value: np.ndarray, doubt: np.ndarray) -> None:
    parts, terms = score_parts(errors, value, doubt, ALL, CONSTANTS)
    scored = np.array([0.0, 1.0, 1.0])  # the first channel is exogenous
    e, x = errors * scored, value * scored
    logs = np.log(1 + (e.astype(float) / SCALE) ** 2 / 4)
    residual, own, ahead = logs.sum(axis=1) / 2
    root = np.array(ROOT)
    distance, level = (math.sqrt(((root @ each) ** 2).sum()) for each in (e[0], x))
    expected = [residual, own, distance, level, ahead, (doubt[1] + doubt[2]) / 2]
    np.testing.assert_allclose(parts, expected, rtol=1e-5, atol=4e-6)
    np.testing.assert_allclose(terms[0], logs.sum(axis=0), rtol=1e-5, atol=8e-6)
    np.testing.assert_array_equal(terms[1], doubt * scored.astype(np.float32))
    np.testing.assert_allclose(terms[2], x**2, rtol=1e-6, atol=1e-30)


def test_the_parts_of_one_step_by_hand() -> None:
    errors = np.stack([array(9, 1, 2), array(9, 2, 0.5), array(9, 8, 2)])
    parts = parts_of(errors, array(9, 3, -1), array(9, 0.5, 1.5))
    # e = (0, 1, 2): W e = (0, 1, 7); x = (0, 3, -1): W x = (0, 3, 0)
    logs = [(math.log(2) + math.log(1.25)) / 2, math.log(2), math.log(2)]
    expected = [logs[0], logs[1], math.sqrt(50), 3.0, logs[2], 1.0]
    assert parts.tolist() == pytest.approx(expected, abs=2e-6)


@given(errors=errors_, value=vectors, doubt=doubts, other=vectors)
def test_exogenous_channels_are_never_scored(
    errors: np.ndarray, value: np.ndarray, doubt: np.ndarray, other: np.ndarray
) -> None:
    changed = [each.copy() for each in (errors, value, doubt)]
    for each, wild in zip(changed, other, strict=True):
        each[..., 0] = wild
    np.testing.assert_array_equal(parts_of(errors, value, doubt), parts_of(*changed))


@given(errors=errors_, value=vectors, doubt=doubts, other=vectors)
def test_a_masked_channel_counts_as_the_error_of_an_absent_reading(
    errors: np.ndarray, value: np.ndarray, doubt: np.ndarray, other: np.ndarray
) -> None:
    mask = array(1, 0, 1)
    changed = [each.copy() for each in (errors, value, doubt)]
    for each, wild in zip(changed, other, strict=True):
        each[..., 1] = wild
    before, terms = score_parts(errors, value, doubt, mask, CONSTANTS)
    np.testing.assert_array_equal(before, parts_of(*changed, mask=mask))
    logs = [math.log(1 + (ABSENT[i][1] / SCALE[i][1] / 2) ** 2) for i in range(3)]
    assert terms[0, 1] == pytest.approx(sum(logs), rel=1e-5)
    assert (terms[1:, 1] == 0).all()
    read = [each.copy() for each in (errors, value, doubt)]
    read[0][:, 1] = [row[1] for row in ABSENT]
    read[1][1] = read[2][1] = 0
    np.testing.assert_array_equal(before, parts_of(*read))


def test_sensors_that_are_gone_raise_the_score_one_by_one() -> None:
    masks = (array(1, 1, 1), array(1, 1, 0), array(1, 0, 0))
    found = [parts_of(alike(0, 0, 0), ALL, ALL, mask) for mask in masks]
    for part in ("residual", "own", "distance", "ahead"):
        i = PARTS.index(part)
        assert found[0][i] < found[1][i] < found[2][i]
    # An exogenous input that is gone is no fault of what is watched.
    gone = parts_of(alike(0, 0, 0), ALL, ALL, mask=array(0, 1, 1))
    np.testing.assert_array_equal(gone, found[0])


@given(wild=st.sampled_from([50.0, 51.0, 1e4, 1e30]), sign=st.sampled_from([-1.0, 1.0]))
def test_beyond_fifty_scales_one_reading_is_as_wrong_as_another(wild: float, sign: float) -> None:
    bound, far = (0, sign * 50, 1), (0, sign * wild, 1)
    assert SCORE_CLIP == 50
    wanted = score_parts(alike(*bound), array(*bound), ALL, ALL, CONSTANTS)
    for error, value in ((bound, far), (far, bound)):
        found = score_parts(alike(*error), array(*value), ALL, ALL, CONSTANTS)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)
    inside = score_parts(alike(0, sign * 49, 1), array(*bound), ALL, ALL, CONSTANTS)[0]
    for part in ("residual", "own", "ahead"):
        assert inside[PARTS.index(part)] < wanted[0][PARTS.index(part)]
    assert inside[PARTS.index("distance")] != wanted[0][PARTS.index("distance")]


@given(errors=errors_, value=vectors, doubt=doubts)
@pytest.mark.parametrize("name", ["own", "ahead"])
def test_a_forecast_that_is_not_there_says_nothing(
    name: str, errors: np.ndarray, value: np.ndarray, doubt: np.ndarray
) -> None:
    changes = {"own": {"own": ()}, "ahead": {"ahead": (), "horizon": 0}}[name]
    without = score_constants(replace(SHAPED, forecast=replace(SHAPED.forecast, **changes)))
    mask = array(1, 0, 1)
    found, terms = score_parts(errors, value, doubt, mask, without)
    every, all_terms = score_parts(errors, value, doubt, mask, CONSTANTS)
    part = PARTS.index(name)
    assert found[part] == 0
    np.testing.assert_array_equal(np.delete(found, part), np.delete(every, part))
    assert (terms[0] <= all_terms[0]).all() and terms[0, 1] < all_terms[0, 1]


@given(parts=six, before=six, terms=nine, terms_before=nine)
def test_what_rises_is_smoothed_by_attack_and_what_falls_by_decay(
    parts: np.ndarray, before: np.ndarray, terms: np.ndarray, terms_before: np.ndarray
) -> None:
    state = update_score(parts[0], terms, ScoreState(before, terms_before), CONSTANTS)
    assert (CONSTANTS.attack, CONSTANTS.decay) == (np.float32(0.2), np.float32(0.1))
    for new, old, found in ((parts, before, state.parts), (terms, terms_before, state.terms)):
        rate = np.where(new > old, 0.2, 0.1)
        np.testing.assert_allclose(found, old + rate * (new - old.astype(float)), atol=4e-6)
        assert found.dtype == np.float32


def test_one_step_of_smoothing_by_hand() -> None:
    zeros = np.zeros((3, 3), np.float32)
    state = update_score(array(*[2] * 6), zeros, initial_score(CONSTANTS), CONSTANTS)
    expected = [1 + 0.2, 1.5 + 0.1, 2, 3 - 0.1, 3.5 - 0.15, 4 - 0.2]
    assert state.parts[0].tolist() == pytest.approx(expected)
    weighted = (0.2 / 0.5, 0.1 / 0.75, 0.0, 0.5 * -0.1 / 2, 0.5 * -0.15 / 3, 0.5 * -0.2 / 4)
    assert float(total_score(state.parts, CONSTANTS)) == pytest.approx(max(weighted), abs=1e-6)


@given(parts=six, before=six, terms=nine, terms_before=nine)
def test_while_warming_up_only_the_level_moves(
    parts: np.ndarray, before: np.ndarray, terms: np.ndarray, terms_before: np.ndarray
) -> None:
    state = ScoreState(before, terms_before)
    warming = update_score(parts[0], terms, state, CONSTANTS, settling=True)
    settled = update_score(parts[0], terms, state, CONSTANTS)
    for part, name in enumerate(PARTS):
        expected = settled if name == "level" else state
        assert warming.parts[0, part] == expected.parts[0, part]
    np.testing.assert_array_equal(warming.terms[:2], terms_before[:2])
    np.testing.assert_array_equal(warming.terms[2], settled.terms[2])
    assert warming.parts.dtype == warming.terms.dtype == np.float32


@given(before=six, terms_before=nine)
def test_a_reset_forgets_what_forecasts_said_and_keeps_the_level(
    before: np.ndarray, terms_before: np.ndarray
) -> None:
    state = without_forecasts(ScoreState(before, terms_before), CONSTANTS)
    calm = initial_score(CONSTANTS)
    assert state.parts[0, LEVEL] == before[0, LEVEL]
    others = [i for i in range(len(PARTS)) if i != LEVEL]
    np.testing.assert_array_equal(state.parts[:, others], calm.parts[:, others])
    np.testing.assert_array_equal(state.terms[:2], calm.terms[:2])
    np.testing.assert_array_equal(state.terms[2], terms_before[2])


def test_an_alarm_builds_up_faster_than_it_fades() -> None:
    state, calm = initial_score(CONSTANTS), CONSTANTS.mean[0]
    for _ in range(5):
        state = update_score(calm + np.float32(1), CONSTANTS.channel_mean, state, CONSTANTS)
    np.testing.assert_allclose(state.parts - calm, 1 - 0.8**5, atol=1e-6)
    for _ in range(5):
        state = update_score(calm, CONSTANTS.channel_mean, state, CONSTANTS)
    np.testing.assert_allclose(state.parts - calm, (1 - 0.8**5) * 0.9**5, atol=1e-6)
    assert (state.parts - calm > (1 - 0.8**5) / 2).all()


def weighted(smoothed: np.ndarray, constants: ScoreConstants) -> np.ndarray:
    """Weighted standardised parts in double precision."""
    centred = smoothed.astype(float) - constants.mean
    return np.asarray(centred / constants.std * constants.weights)


@given(smoothed=six)
def test_the_score_is_the_largest_part(smoothed: np.ndarray) -> None:
    expected = weighted(smoothed, CONSTANTS).max()
    assert float(total_score(smoothed, CONSTANTS)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("part", range(6), ids=PARTS)
def test_no_part_dilutes_another(part: int) -> None:
    parts = CONSTANTS.mean.copy()
    parts[0, part] += 40
    alone = float(total_score(parts, CONSTANTS))
    expected = CONSTANTS.weights[part] * 40 / CONSTANTS.std[0, part]
    assert alone == pytest.approx(float(expected))
    # However calm the others are.
    parts[0, [i for i in range(6) if i != part]] -= 30
    assert float(total_score(parts, CONSTANTS)) == alone


SWITCHED_OFF = score_constants(
    replace(SHAPED, score=replace(SHAPED.score, weights=(1.0, 1.0, 1.0, 0.0, 0.5, 0.5)))
)


@given(smoothed=six, other=st.floats(-8, 8, width=32))
def test_a_part_without_weight_neither_raises_nor_holds_up_the_score(
    smoothed: np.ndarray, other: float
) -> None:
    every = weighted(smoothed, SWITCHED_OFF)[0]
    assert every[LEVEL] == 0
    score = total_score(smoothed, SWITCHED_OFF)
    assert float(score) == pytest.approx(max(np.delete(every, LEVEL)), abs=1e-4)
    smoothed[0, LEVEL] = other
    assert total_score(smoothed, SWITCHED_OFF) == score


def test_a_calm_score_is_below_zero_but_not_below_its_largest_part() -> None:
    quiet = CONSTANTS.mean - np.float32(8)
    assert total_score(quiet, SWITCHED_OFF) == -1
    quiet[0, LEVEL] = CONSTANTS.mean[0, LEVEL]
    assert total_score(quiet, SWITCHED_OFF) == -1 and total_score(quiet, CONSTANTS) == 0


def test_a_machine_that_shows_its_mean_scores_zero_for_ever() -> None:
    state = initial_score(CONSTANTS)
    for _ in range(300):
        state = update_score(CONSTANTS.mean[0], CONSTANTS.channel_mean, state, CONSTANTS)
        assert total_score(state.parts, CONSTANTS) == 0
    assert blame(state, CONSTANTS) == []


def test_smoothed_noise_is_as_wide_as_its_rate_says() -> None:
    rng = np.random.default_rng(0)
    rate = np.float32(0.1)
    rates = np.full((1, 1), rate)
    even = replace(SWITCHED_OFF, attack=rates, decay=rates, weights=array(1, 0, 0, 0, 0, 0))
    state, scores = initial_score(even), []
    for _ in range(4000):
        noise = rng.standard_normal(6).astype(np.float32)
        parts = even.mean[0] + even.std[0] * noise
        state = update_score(parts, even.channel_mean, state, even)
        scores.append(float(total_score(state.parts, even)))
    assert abs(np.mean(scores)) < 0.05
    assert np.std(scores) == pytest.approx(math.sqrt(0.1 / 1.9), rel=0.1)


@given(st.sampled_from(range(6)), st.floats(0.5, 5))
def test_any_part_above_its_mean_raises_the_score(part: int, excess: float) -> None:
    parts = CONSTANTS.mean[0].copy()
    parts[part] += np.float32(excess)
    state = update_score(parts, CONSTANTS.channel_mean, initial_score(CONSTANTS), CONSTANTS)
    assert total_score(state.parts, CONSTANTS) > 0


@pytest.mark.parametrize("row", [0, 1, 2], ids=["residual", "evidence", "level"])
@pytest.mark.parametrize("guilty", [1, 2])
def test_blame_picks_the_channel_that_deviates(row: int, guilty: int) -> None:
    state = initial_score(CONSTANTS)
    terms = state.terms.copy()
    terms[row, guilty] += 1
    assert blame(replace(state, terms=terms), CONSTANTS) == [guilty]


def test_blame_is_worst_first_and_spares_exogenous_channels() -> None:
    state = initial_score(CONSTANTS)
    terms = state.terms.copy()
    terms[:, 0], terms[:, 1], terms[:, 2] = 50, 2, 3
    assert blame(replace(state, terms=terms), CONSTANTS) == [2, 1]
    assert blame(replace(state, terms=terms), CONSTANTS, limit=1) == [2]


def test_blame_leaves_out_what_is_less_than_half_the_worst() -> None:
    state = initial_score(CONSTANTS)
    terms = state.terms.copy()
    terms[0, 1], terms[0, 2] = 0.0001, 1000
    assert blame(replace(state, terms=terms), CONSTANTS) == [2]


def test_blame_leaves_out_a_level_that_does_not_count() -> None:
    state = initial_score(CONSTANTS)
    terms = state.terms.copy()
    terms[2, 1], terms[0, 2] = 100, 1e-6
    assert blame(replace(state, terms=terms), CONSTANTS) == [1]
    assert blame(replace(state, terms=terms), SWITCHED_OFF) == [2]


REMEMBERING = score_constants(
    replace(
        SHAPED,
        score=replace(
            SHAPED.score,
            memories=(
                SHAPED.score.memories[0],
                replace(SHAPED.score.memories[0], attack=0.01, decay=0.01, ceiling=(9.0,) * 6),
            ),
        ),
    )
)


@given(parts=six, before=six)
def test_each_memory_follows_the_parts_as_if_it_were_alone(
    parts: np.ndarray, before: np.ndarray
) -> None:
    both = ScoreState(np.repeat(before, 2, axis=0), REMEMBERING.channel_mean)
    found = update_score(parts[0], both.terms, both, REMEMBERING).parts
    quick = update_score(parts[0], both.terms, ScoreState(before, both.terms), CONSTANTS).parts
    np.testing.assert_array_equal(found[:1], quick)
    slow = before[0] + 0.01 * (parts[0].astype(float) - before[0])
    np.testing.assert_allclose(found[1], slow, atol=4e-6)


def test_an_outlier_cannot_fill_a_memory_with_a_ceiling() -> None:
    state = initial_score(REMEMBERING)
    once = update_score(np.float32([1e6] * 6), state.terms, state, REMEMBERING)
    np.testing.assert_allclose(once.parts[1], 0.99 * state.parts[1] + 0.01 * 9, rtol=1e-5)
    assert (once.parts[0] > 1e5).all()


def test_the_score_is_the_largest_of_all_memories() -> None:
    for memory in range(2):
        parts = REMEMBERING.mean.copy()
        parts[memory, GATE] += 8
        assert float(total_score(parts, REMEMBERING)) == 0.5 * 8 / 4
