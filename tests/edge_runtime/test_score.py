"""The score against its formulas by hand: what counts, what does not, and who is to blame."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from made_manifest import made_manifest

from edge_runtime.score import (
    blame,
    initial_score,
    score_constants,
    score_parts,
    update_score,
)

MADE = made_manifest()
ALL = np.ones(3, np.float32)
ROOT = ((2.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 1.0, 3.0))
SHAPED = replace(
    MADE,
    score=replace(
        MADE.score,
        residual_scale=(1.0, 0.5, 2.0),
        distance_root=ROOT,
        level_root=ROOT,
        part_mean=(1.0, 2.0, 3.0, 4.0),
        part_std=(0.5, 1.0, 2.0, 4.0),
    ),
)
CONSTANTS = score_constants(SHAPED)
vectors = hnp.arrays(np.float32, 3, elements=st.floats(-4, 4, width=32))
doubts = hnp.arrays(np.float32, 3, elements=st.floats(0, 8, width=32))


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
def test_masked_channels_contribute_nothing(
    innovation: np.ndarray, value: np.ndarray, doubt: np.ndarray, other: np.ndarray
) -> None:
    mask = array(1, 0, 1)
    changed = [vector.copy() for vector in (innovation, value, doubt)]
    for vector, wild in zip(changed, other, strict=True):
        vector[1] = wild
    before, terms = score_parts(innovation, value, doubt, mask, CONSTANTS)
    np.testing.assert_array_equal(before, parts_of(*changed, mask=mask))
    assert (terms[:, 1] == 0).all()


def test_a_mean_is_over_the_channels_that_can_be_read() -> None:
    both = parts_of(array(0, 1, 0), ALL, array(0, 2, 0))
    alone = parts_of(array(0, 1, 0), ALL, array(0, 2, 0), mask=array(1, 1, 0))
    assert alone[0] == pytest.approx(2 * both[0]) and alone[3] == pytest.approx(2 * both[3])
    nothing = parts_of(array(0, 1, 0), ALL, array(0, 2, 0), mask=array(0, 0, 0))
    assert nothing.tolist() == [0, 0, 0, 0]


def test_the_score_is_the_weighted_sum_of_smoothed_standardised_parts() -> None:
    parts, terms = array(2, 2, 2, 2), np.zeros((3, 3), np.float32)
    score, state = update_score(parts, terms, initial_score(CONSTANTS), CONSTANTS)
    smoothed = [m + 0.1 * (2 - m) for m in (1, 2, 3, 4)]
    assert state.parts.tolist() == pytest.approx(smoothed)
    weighted = 1.0 * 0.1 / 0.5 + 0 + 0.5 * -0.1 / 2 + 0.5 * -0.2 / 4
    assert float(score) == pytest.approx(weighted, abs=1e-6)


def test_a_machine_that_shows_its_mean_scores_zero_for_ever() -> None:
    state = initial_score(CONSTANTS)
    for _ in range(300):
        score, state = update_score(CONSTANTS.part_mean, CONSTANTS.channel_mean, state, CONSTANTS)
        assert score == 0
    assert blame(state, CONSTANTS) == []


def test_the_score_of_a_calm_machine_stays_near_zero() -> None:
    rng = np.random.default_rng(0)
    state, scores = initial_score(CONSTANTS), []
    for _ in range(2000):
        noise = rng.standard_normal(4).astype(np.float32)
        parts = CONSTANTS.part_mean + CONSTANTS.part_std * noise
        score, state = update_score(parts, CONSTANTS.channel_mean, state, CONSTANTS)
        scores.append(float(score))
    assert abs(np.mean(scores)) < 0.1 and np.max(np.abs(scores)) < 3


@given(st.sampled_from(range(4)), st.floats(0.5, 5))
def test_any_part_above_its_mean_raises_the_score(part: int, excess: float) -> None:
    parts = CONSTANTS.part_mean.copy()
    parts[part] += np.float32(excess)
    score, _ = update_score(parts, CONSTANTS.channel_mean, initial_score(CONSTANTS), CONSTANTS)
    assert score > 0


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
