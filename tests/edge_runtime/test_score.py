"""The score against its formulas by hand: what counts, what does not, and who is to blame."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from made_manifest import made_manifest

from edge_runtime.detector.score import (
    PARTS,
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
LEVEL = PARTS.index("level")
ALL = np.ones(3, np.float32)
ABSENT = (4.0, 4.0, 8.0)
ROOT = ((2.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 1.0, 3.0))
SHAPED = replace(
    MADE,
    score=replace(
        MADE.score,
        residual_scale=(1.0, 0.5, 2.0),
        absent=ABSENT,
        distance_root=ROOT,
        level_root=ROOT,
        part_mean=(1.0, 2.0, 3.0, 4.0),
        part_std=(0.5, 1.0, 2.0, 4.0),
    ),
)
CONSTANTS = score_constants(SHAPED)
vectors = hnp.arrays(np.float32, 3, elements=st.floats(-4, 4, width=32))
doubts = hnp.arrays(np.float32, 3, elements=st.floats(0, 8, width=32))
four = hnp.arrays(np.float32, 4, elements=st.floats(-8, 8, width=32))
nine = hnp.arrays(np.float32, (3, 3), elements=st.floats(-8, 8, width=32))


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def parts_of(
    innovation: np.ndarray, value: np.ndarray, doubt: np.ndarray, mask: np.ndarray = ALL
) -> np.ndarray:
    return score_parts(innovation, value, doubt, mask, CONSTANTS)[0]


@given(innovation=vectors, value=vectors, doubt=doubts)
def test_each_part_is_its_formula(
    innovation: np.ndarray, value: np.ndarray, doubt: np.ndarray
) -> None:
    parts, terms = score_parts(innovation, value, doubt, ALL, CONSTANTS)
    scored = np.array([0.0, 1.0, 1.0])  # the first channel is exogenous
    e, x = innovation * scored, value * scored
    logs = [math.log(1 + (e[i] / (1.0, 0.5, 2.0)[i]) ** 2 / 4) for i in range(3)]
    root = np.array(ROOT)
    expected = [
        sum(logs) / 2,
        math.sqrt(((root @ e) ** 2).sum()),
        math.sqrt(((root @ x) ** 2).sum()),
        (doubt[1] + doubt[2]) / 2,
    ]
    np.testing.assert_allclose(parts, expected, rtol=1e-5, atol=4e-6)
    np.testing.assert_allclose(terms[0], logs, rtol=1e-5, atol=4e-6)
    np.testing.assert_array_equal(terms[1], doubt * scored.astype(np.float32))
    np.testing.assert_allclose(terms[2], x**2, rtol=1e-6, atol=1e-30)


def test_the_parts_of_one_step_by_hand() -> None:
    parts = parts_of(array(9, 1, 2), array(9, 3, -1), array(9, 0.5, 1.5))
    # e = (0, 1, 2): W e = (0, 1, 7); x = (0, 3, -1): W x = (0, 3, 0)
    expected = [(math.log(2) + math.log(1.25)) / 2, math.sqrt(50), 3.0, 1.0]
    assert parts.tolist() == pytest.approx(expected, abs=2e-6)


@given(innovation=vectors, value=vectors, doubt=doubts, other=vectors)
def test_exogenous_channels_are_never_scored(
    innovation: np.ndarray, value: np.ndarray, doubt: np.ndarray, other: np.ndarray
) -> None:
    changed = [vector.copy() for vector in (innovation, value, doubt)]
    for vector in changed:
        vector[0] = other[0]
    np.testing.assert_array_equal(parts_of(innovation, value, doubt), parts_of(*changed))


@given(innovation=vectors, value=vectors, doubt=doubts, other=vectors)
def test_a_masked_channel_counts_as_the_error_of_an_absent_reading(
    innovation: np.ndarray, value: np.ndarray, doubt: np.ndarray, other: np.ndarray
) -> None:
    mask = array(1, 0, 1)
    changed = [vector.copy() for vector in (innovation, value, doubt)]
    for vector, wild in zip(changed, other, strict=True):
        vector[1] = wild
    before, terms = score_parts(innovation, value, doubt, mask, CONSTANTS)
    np.testing.assert_array_equal(before, parts_of(*changed, mask=mask))
    assert terms[0, 1] == pytest.approx(math.log(1 + 4**2), rel=1e-5)
    assert (terms[1:, 1] == 0).all()
    read = [vector.copy() for vector in (innovation, value, doubt)]
    for vector, counted in zip(read, (ABSENT[1], 0.0, 0.0), strict=True):
        vector[1] = counted
    np.testing.assert_array_equal(before, parts_of(*read))


def test_sensors_that_are_gone_raise_the_score_one_by_one() -> None:
    masks = (array(1, 1, 1), array(1, 1, 0), array(1, 0, 0))
    found = [parts_of(array(0, 0, 0), ALL, ALL, mask) for mask in masks]
    assert found[0][0] < found[1][0] < found[2][0]
    assert found[0][1] < found[1][1] < found[2][1]
    # An exogenous input that is gone is no fault of what is watched.
    gone = parts_of(array(0, 0, 0), ALL, ALL, mask=array(0, 1, 1))
    np.testing.assert_array_equal(gone, found[0])


@given(wild=st.sampled_from([50.0, 51.0, 1e4, 1e30]), sign=st.sampled_from([-1.0, 1.0]))
def test_beyond_fifty_scales_one_reading_is_as_wrong_as_another(wild: float, sign: float) -> None:
    bound = array(0, sign * 50, 1)
    far = array(0, sign * wild, 1)
    assert SCORE_CLIP == 50
    for clipped, given_ in ((bound, far), (far, bound)):
        found = score_parts(given_, clipped, ALL, ALL, CONSTANTS)
        wanted = score_parts(bound, bound, ALL, ALL, CONSTANTS)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)
    inside = score_parts(array(0, sign * 49, 1), bound, ALL, ALL, CONSTANTS)[0]
    assert inside[0] < wanted[0][0] and inside[1] != wanted[0][1]


@given(parts=four, before=four, terms=nine, terms_before=nine)
def test_what_rises_is_smoothed_by_attack_and_what_falls_by_decay(
    parts: np.ndarray, before: np.ndarray, terms: np.ndarray, terms_before: np.ndarray
) -> None:
    state = update_score(parts, terms, ScoreState(before, terms_before), CONSTANTS)
    assert (CONSTANTS.attack, CONSTANTS.decay) == (np.float32(0.2), np.float32(0.1))
    for new, old, found in ((parts, before, state.parts), (terms, terms_before, state.terms)):
        rate = np.where(new > old, 0.2, 0.1)
        np.testing.assert_allclose(found, old + rate * (new - old.astype(float)), atol=4e-6)
        assert found.dtype == np.float32


def test_one_step_of_smoothing_by_hand() -> None:
    zeros = np.zeros((3, 3), np.float32)
    state = update_score(array(2, 2, 2, 2), zeros, initial_score(CONSTANTS), CONSTANTS)
    assert state.parts.tolist() == pytest.approx([1 + 0.2, 2, 3 - 0.1, 4 - 0.2])
    weighted = (1.0 * 0.2 / 0.5, 0.0, 0.5 * -0.1 / 2, 0.5 * -0.2 / 4)
    assert float(total_score(state.parts, CONSTANTS)) == pytest.approx(max(weighted), abs=1e-6)


@given(parts=four, before=four, terms=nine, terms_before=nine)
def test_while_warming_up_only_the_level_moves(
    parts: np.ndarray, before: np.ndarray, terms: np.ndarray, terms_before: np.ndarray
) -> None:
    state = ScoreState(before, terms_before)
    warming = update_score(parts, terms, state, CONSTANTS, settling=True)
    settled = update_score(parts, terms, state, CONSTANTS)
    for part, name in enumerate(PARTS):
        expected = settled if name == "level" else state
        assert warming.parts[part] == expected.parts[part]
    np.testing.assert_array_equal(warming.terms[:2], terms_before[:2])
    np.testing.assert_array_equal(warming.terms[2], settled.terms[2])
    assert warming.parts.dtype == warming.terms.dtype == np.float32


@given(before=four, terms_before=nine)
def test_a_reset_forgets_what_forecasts_said_and_keeps_the_level(
    before: np.ndarray, terms_before: np.ndarray
) -> None:
    state = without_forecasts(ScoreState(before, terms_before), CONSTANTS)
    calm = initial_score(CONSTANTS)
    assert state.parts[LEVEL] == before[LEVEL]
    others = [0, 1, 3]
    np.testing.assert_array_equal(state.parts[others], calm.parts[others])
    np.testing.assert_array_equal(state.terms[:2], calm.terms[:2])
    np.testing.assert_array_equal(state.terms[2], terms_before[2])


def test_an_alarm_builds_up_faster_than_it_fades() -> None:
    state, calm = initial_score(CONSTANTS), CONSTANTS.part_mean
    for _ in range(5):
        state = update_score(calm + np.float32(1), CONSTANTS.channel_mean, state, CONSTANTS)
    np.testing.assert_allclose(state.parts - calm, 1 - 0.8**5, atol=1e-6)
    for _ in range(5):
        state = update_score(calm, CONSTANTS.channel_mean, state, CONSTANTS)
    np.testing.assert_allclose(state.parts - calm, (1 - 0.8**5) * 0.9**5, atol=1e-6)
    assert (state.parts - calm > (1 - 0.8**5) / 2).all()


def weighted(smoothed: np.ndarray, constants: ScoreConstants) -> np.ndarray:
    """Weighted standardised parts in double precision."""
    centred = smoothed.astype(float) - constants.part_mean
    return np.asarray(centred / constants.part_std * constants.weights)


@given(smoothed=four)
def test_the_score_is_the_largest_part(smoothed: np.ndarray) -> None:
    expected = max(weighted(smoothed, CONSTANTS))
    assert float(total_score(smoothed, CONSTANTS)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("part", range(4), ids=PARTS)
def test_no_part_dilutes_another(part: int) -> None:
    parts = CONSTANTS.part_mean.copy()
    parts[part] += 40
    alone = float(total_score(parts, CONSTANTS))
    expected = CONSTANTS.weights[part] * 40 / CONSTANTS.part_std[part]
    assert alone == pytest.approx(float(expected))
    # However calm the others are.
    parts[[i for i in range(4) if i != part]] -= 30
    assert float(total_score(parts, CONSTANTS)) == alone


SWITCHED_OFF = score_constants(
    replace(SHAPED, score=replace(SHAPED.score, weights=(1.0, 1.0, 0.0, 0.5)))
)


@given(smoothed=four, other=st.floats(-8, 8, width=32))
def test_a_part_without_weight_neither_raises_nor_holds_up_the_score(
    smoothed: np.ndarray, other: float
) -> None:
    residual, distance, level, gate = weighted(smoothed, SWITCHED_OFF)
    assert level == 0
    score = total_score(smoothed, SWITCHED_OFF)
    assert float(score) == pytest.approx(max(residual, distance, gate), abs=1e-4)
    smoothed[LEVEL] = other
    assert total_score(smoothed, SWITCHED_OFF) == score


def test_a_calm_score_is_below_zero_but_not_below_its_largest_part() -> None:
    quiet = CONSTANTS.part_mean - np.float32(8)
    assert total_score(quiet, SWITCHED_OFF) == -1
    quiet[LEVEL] = CONSTANTS.part_mean[LEVEL]
    assert total_score(quiet, SWITCHED_OFF) == -1 and total_score(quiet, CONSTANTS) == 0


def test_a_machine_that_shows_its_mean_scores_zero_for_ever() -> None:
    state = initial_score(CONSTANTS)
    for _ in range(300):
        state = update_score(CONSTANTS.part_mean, CONSTANTS.channel_mean, state, CONSTANTS)
        assert total_score(state.parts, CONSTANTS) == 0
    assert blame(state, CONSTANTS) == []


def test_smoothed_noise_is_as_wide_as_its_rate_says() -> None:
    rng = np.random.default_rng(0)
    rate = np.float32(0.1)
    even = replace(SWITCHED_OFF, attack=rate, decay=rate, weights=array(1, 0, 0, 0))
    state, scores = initial_score(even), []
    for _ in range(4000):
        noise = rng.standard_normal(4).astype(np.float32)
        parts = even.part_mean + even.part_std * noise
        state = update_score(parts, even.channel_mean, state, even)
        scores.append(float(total_score(state.parts, even)))
    assert abs(np.mean(scores)) < 0.05
    assert np.std(scores) == pytest.approx(math.sqrt(0.1 / 1.9), rel=0.1)


@given(st.sampled_from(range(4)), st.floats(0.5, 5))
def test_any_part_above_its_mean_raises_the_score(part: int, excess: float) -> None:
    parts = CONSTANTS.part_mean.copy()
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
