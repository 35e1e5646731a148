"""The diagnosis on a made machine: the right channel, the right kind, honest arithmetic."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_diagnosis import NAMES, QUIET, diagnosed, made_constants, made_rows, watched

from edge_runtime.diagnosis import (
    FEATURES,
    KINDS,
    blamed,
    diagnose,
    exponential,
    features,
    follow,
    no_verdict,
    probabilities,
)
from edge_runtime.symptoms import contributions, initial_symptoms, suspicion, without

HARMED = (1, 2, 3, 4)
Harm = Callable[[np.ndarray, int, np.random.Generator], None]


def noise(rows: np.ndarray, at: int, rng: np.random.Generator) -> None:
    rows[QUIET:, at] += 2 * rng.standard_normal(len(rows) - QUIET).astype(np.float32)


def stuck(rows: np.ndarray, at: int, rng: np.random.Generator) -> None:
    rows[QUIET:, at] = rows[QUIET - 1, at]


def level(rows: np.ndarray, at: int, rng: np.random.Generator) -> None:
    rows[QUIET:, at] += 2


def drift(rows: np.ndarray, at: int, rng: np.random.Generator) -> None:
    rows[QUIET:, at] += np.arange(len(rows) - QUIET, dtype=np.float32) / 16


def spike(rows: np.ndarray, at: int, rng: np.random.Generator) -> None:
    rows[QUIET + 1 : QUIET + 3, at] += 5


def dropout(rows: np.ndarray, at: int, rng: np.random.Generator) -> None:
    rows[QUIET:, at] = np.nan


def decorrelation(rows: np.ndarray, at: int, rng: np.random.Generator) -> None:
    rows[QUIET:, at] = made_rows(len(rows), 77)[QUIET:, at]


CASES: dict[str, tuple[Harm, int]] = {
    "spike": (spike, 8),
    "noise": (noise, 30),
    "stuck": (stuck, 30),
    "level": (level, 30),
    "drift": (drift, 40),
    "decorrelation": (decorrelation, 50),
    "dropout": (dropout, 20),
}


def harmed(kind: str, at: int, seed: int) -> np.ndarray:
    harm, length = CASES[kind]
    rows = made_rows(QUIET + length, seed)
    harm(rows, at, np.random.default_rng(seed))
    return rows


def share_right(kind: str, weights: np.ndarray | None = None) -> float:
    constants = made_constants()
    if weights is not None:
        constants = replace(constants, kinds=weights)
    found = [
        diagnosed(harmed(kind, at, seed), CASES[kind][1], constants).kind
        for at in HARMED
        for seed in (11, 12)
    ]
    return float(np.mean([kind == k for k in found]))


@pytest.mark.parametrize("kind", CASES)
def test_a_clear_fault_is_recognised(kind: str) -> None:
    assert share_right(kind) >= 0.75


def test_a_classifier_with_shuffled_kinds_recognises_nothing() -> None:
    shuffled = np.roll(made_constants().kinds, 1, axis=0)
    assert max(share_right(kind, shuffled) for kind in ("noise", "drift", "dropout")) <= 0.25


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("at", HARMED)
def test_the_faulty_channel_comes_first(kind: str, at: int) -> None:
    found = diagnosed(harmed(kind, at, 11), CASES[kind][1], made_constants())
    assert found.channels[0] == at and found.sensor


@pytest.mark.parametrize("pair", [(1, 2), (2, 4), (1, 3)])
def test_what_several_channels_show_is_the_machine(pair: tuple[int, int]) -> None:
    rows = made_rows(QUIET + 40, 11)
    rows[QUIET:, pair] += np.linspace(0.3, 2, 40, dtype=np.float32)[:, np.newaxis] * (1, -1)
    found = diagnosed(rows, 40, made_constants())
    assert found.kind == "machine" and not found.sensor
    assert set(found.channels[:2]) == set(pair)


@pytest.mark.parametrize("kind", ["level", "noise", "dropout"])
def test_an_exogenous_channel_is_never_blamed(kind: str) -> None:
    found = diagnosed(harmed(kind, 0, 11), CASES[kind][1], made_constants())
    assert 0 not in found.channels


def test_nothing_is_blamed_before_anything_was_seen() -> None:
    constants = made_constants()
    state = initial_symptoms(len(NAMES))
    assert blamed(state, constants.symptoms) == ()
    assert np.isfinite(features(state, constants.symptoms)).all()
    assert diagnose(no_verdict(), state, constants).channels == ()


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=len(FEATURES), max_size=len(FEATURES)))
def test_probabilities_are_probabilities(values: list[float]) -> None:
    chances = probabilities(np.array(values, np.float32), made_constants())
    assert chances.shape == (len(KINDS),) and chances.dtype == np.float32
    assert (chances >= 0).all() and (chances <= 1).all()
    assert float(chances.sum()) == pytest.approx(1, abs=1e-5)


@given(st.floats(-30, 0, width=32))
def test_the_exponential_is_close_and_needs_no_library(value: float) -> None:
    found = float(exponential(np.array([value], np.float32))[0])
    assert found == pytest.approx(math.exp(value), rel=0.08 if value < -10 else 0.02)


@given(st.floats(-8, 8, width=32), st.sampled_from(HARMED))
def test_a_fault_of_one_sensor_never_shows_without_it(size: float, at: int) -> None:
    constants = made_constants().symptoms.contribution
    row = made_rows(50, 5)[-1]
    changed = row.copy()
    changed[at] += np.float32(size)
    averages = np.stack([row, row])
    calm, wild = (
        without(at, contributions(r, averages, constants), constants) for r in (row, changed)
    )
    np.testing.assert_allclose(calm.fault, wild.fault, atol=5e-3)
    np.testing.assert_allclose(float(calm.distance), float(wild.distance), rtol=0.01, atol=0.1)


@given(st.floats(1, 8, width=32), st.sampled_from(HARMED), st.sampled_from((-1, 1)))
def test_no_channel_explains_more_than_the_faulty_one(size: float, at: int, sign: int) -> None:
    constants = made_constants().symptoms.contribution
    fault = np.zeros(len(NAMES), np.float32)
    fault[at] = np.float32(sign * size)
    calm = np.zeros(len(NAMES), np.float32)
    centred = replace(constants, center=constants.center * 0)
    found = contributions(fault, np.stack([calm, calm]), centred)
    assert int(np.argmax(found.explained)) == at


def test_the_same_rows_give_the_same_bits_in_float32() -> None:
    constants = made_constants()
    rows = harmed("noise", 2, 11)
    one, two = (watched(rows, QUIET + 20, constants) for _ in range(2))
    np.testing.assert_array_equal(one.sums, two.sums)
    for value in (one.sums, one.peaks, one.fault, one.averages, one.repeats):
        assert value.dtype == np.float32
    assert suspicion(one, constants.symptoms).dtype == np.float32
    assert features(one, constants.symptoms).dtype == np.float32


def test_a_channel_that_has_never_been_read_breaks_nothing() -> None:
    rows = made_rows(QUIET + 20, 11)
    rows[:, 3] = np.nan
    state = watched(rows, QUIET + 20, made_constants())
    assert np.isfinite(state.sums).all()
    assert diagnose(no_verdict(), state, made_constants()).channels[0] == 3


def test_a_verdict_is_the_mean_over_the_alarm() -> None:
    constants, rows = made_constants(), harmed("level", 2, 11)
    states = [watched(rows, QUIET + length, constants) for length in (5, 9, 20)]
    verdict = no_verdict()
    for state in states:
        verdict = follow(verdict, state, constants)
    single = [probabilities(features(s, constants.symptoms), constants) for s in states]
    np.testing.assert_allclose(verdict.chances, np.mean(single, axis=0), atol=1e-6)
    assert verdict.samples == 3 and verdict.chances.dtype == np.float32
    assert diagnose(verdict, states[-1], constants).probability == max(
        *verdict.chances[:-1].tolist()
    )
