"""The fit of the diagnosis: calibrated on faults it never saw, reproducible, and not by chance."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_diagnosis import CHANNELS, fitted_constants, made_rows

from edge_runtime.bundle.manifest import Channel
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.detector.diagnosing import diagnosis_constants
from edge_runtime.diagnosis import KINDS, MACHINE, DiagnosisConstants, probabilities
from edge_runtime.learning.diagnosis.clean_behaviour import clean_behaviour, sampled, stretch
from edge_runtime.learning.diagnosis.fault_examples import (
    Example,
    batch_constants,
    batch_state,
    gather,
    sample_state,
)
from edge_runtime.learning.diagnosis.fit import (
    FEWEST_ROWS,
    LOG_TEMPERATURES,
    SHORTEST,
    balanced,
    calibration_error,
    fit_classifiers,
    fit_diagnosis,
    fit_logistic,
    fit_temperature,
    log_softmax,
)
from edge_runtime.learning.diagnosis.section import judge, section
from edge_runtime.learning.faults import clean_shape, disturb
from edge_runtime.symptoms import SymptomState, initial_symptoms, observe

EXOGENOUS = np.array([c.exogenous for c in CHANNELS])


@pytest.fixture(scope="module")
def unseen() -> list[Example]:
    """Faults injected into rows that no part of the fit has seen."""
    piece = stretch(made_rows(1200, 2), CHANNELS)
    return gather(piece, fitted_constants().symptoms, np.random.default_rng(8), 180, 0)


def judged(examples: list[Example], constants: DiagnosisConstants) -> tuple[np.ndarray, np.ndarray]:
    chances = np.array([probabilities(e.features, constants) for e in examples])
    return chances, np.array([e.kind for e in examples])


def test_faults_never_seen_are_told_apart_and_the_probability_is_honest(
    unseen: list[Example],
) -> None:
    chances, kinds = judged(unseen, fitted_constants())
    machine = KINDS.index(MACHINE)
    assert np.mean([e.blamed for e in unseen]) >= 0.9
    assert (chances.argmax(axis=1) == kinds).mean() >= 0.7
    assert ((chances[:, machine] > 0.5) == (kinds == machine)).mean() >= 0.9
    assert calibration_error(chances, kinds) <= 0.12


def test_a_fit_to_shuffled_kinds_fails_these_checks(unseen: list[Example]) -> None:
    rng = np.random.default_rng(0)
    kinds = rng.permutation([e.kind for e in unseen])
    wrong = [
        Example(e.event, int(k), e.blamed, e.delay, e.features)
        for e, k in zip(unseen, kinds, strict=True)
    ]
    chances, truth = judged(unseen, fit_classifiers(fitted_constants().symptoms, wrong))
    assert (chances.argmax(axis=1) == truth).mean() < 0.5


@pytest.mark.long
def test_the_same_seed_gives_the_same_constants() -> None:
    one, two = (fit_diagnosis([made_rows(700, 1)], CHANNELS, 3, 180) for _ in range(2))
    assert one is not None and two is not None
    np.testing.assert_array_equal(one.kinds, two.kinds)
    np.testing.assert_array_equal(one.machine, two.machine)
    assert one.kinds.dtype == one.machine.dtype == np.float32


def test_a_batch_gives_the_bits_of_one_sample_at_a_time() -> None:
    constants = fitted_constants().symptoms
    streams = [made_rows(140, seed) for seed in (21, 22, 23)]
    streams[0][90:, 2] += 3
    streams[1][90:, 1:3] -= 2
    present = [np.ones_like(rows) for rows in streams]
    present[2][95:, 4] = 0
    singles, batch = [initial_symptoms(len(CHANNELS))] * 3, None
    for row in range(140):
        alarms = np.array([row > 95, row > 100, row > 110])
        if row == 50:
            batch = batch_state(singles)
        for i, rows in enumerate(streams):
            singles[i] = observe(rows[row], present[i][row], bool(alarms[i]), singles[i], constants)
        if batch is not None:
            readings, there = (np.stack([a[row] for a in s], axis=-1) for s in (streams, present))
            batch = observe(readings, there, alarms, batch, batch_constants(constants))
    assert batch is not None
    for i, single in enumerate(singles):
        for field in fields(SymptomState):
            found = getattr(sample_state(batch, i), field.name)
            np.testing.assert_array_equal(found, getattr(single, field.name))
            assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("rows", "channels"),
    [
        (made_rows(FEWEST_ROWS - 1, 1), CHANNELS),
        (made_rows(700, 1)[:, :2], CHANNELS[:2]),  # one of them exogenous
        (
            np.tile(made_rows(700, 1), 7),
            tuple(replace(CHANNELS[1], name=f"c{i}") for i in range(35)),
        ),
    ],
    ids=["few rows", "one watched channel", "many channels"],
)
def test_where_a_fit_makes_no_sense_there_is_none(
    rows: np.ndarray, channels: tuple[Channel, ...]
) -> None:
    assert fit_diagnosis([rows], channels, 3) is None


def test_many_short_recordings_have_none() -> None:
    whole = made_rows(1500, 1)
    pieces = [whole[start : start + SHORTEST - 1] for start in range(0, 1400, 63)]
    assert fit_diagnosis(pieces, CHANNELS, 3) is None
    assert fit_diagnosis([*pieces, made_rows(700, 1)], CHANNELS, 3, 180) is not None


def test_without_examples_of_every_kind_there_is_none() -> None:
    assert fit_diagnosis([made_rows(700, 1)], CHANNELS, 3, events=18) is None


def test_too_many_rows_are_sampled_in_whole_windows() -> None:
    pieces = [stretch(made_rows(9000, 1), CHANNELS), stretch(made_rows(1000, 2), CHANNELS)]
    assert sampled(pieces, 10000) == pieces
    few = sampled(pieces, 4000)
    assert 3000 <= sum(len(piece.reading) for piece in few) <= 5000
    whole = np.concatenate([piece.reading for piece in pieces])
    for piece in few:
        (first,) = np.flatnonzero((whole == piece.reading[0]).all(axis=1))
        np.testing.assert_array_equal(whole[first : first + len(piece.reading)], piece.reading)


def test_the_section_keeps_every_bit(linear_bundle: Path) -> None:
    constants, manifest = fitted_constants(), read_bundle(linear_bundle).manifest
    found = diagnosis_constants(replace(manifest, channels=CHANNELS, diagnosis=section(constants)))
    assert found is not None
    for one, two in (
        (found, constants),
        (found.symptoms, constants.symptoms),
        (found.symptoms.contribution, constants.symptoms.contribution),
    ):
        for field in fields(one):
            value = getattr(one, field.name)
            if not is_dataclass(value):
                np.testing.assert_array_equal(value, getattr(two, field.name), field.name)
                assert value.dtype == np.float32


def test_the_judgement_is_of_rows_the_fit_has_not_seen() -> None:
    found = judge(fitted_constants(), [made_rows(1200, 2)], CHANNELS, 4)
    assert found is not None and found.examples > 300
    assert found.channel >= 0.9 and found.kind >= 0.7 and found.sensor >= 0.9
    assert f"channel {found.channel:.1%} right" in found.sentence()
    assert judge(fitted_constants(), [made_rows(30, 2)], CHANNELS, 4) is None


def test_the_constants_do_not_depend_on_units() -> None:
    rows = made_rows(1500, 1)
    final, parts = clean_behaviour([stretch(rows, CHANNELS)], EXOGENOUS)
    assert len(parts) == 3
    larger, _ = clean_behaviour([stretch(2 * rows, CHANNELS)], EXOGENOUS)
    np.testing.assert_allclose(larger.explained_mean, final.explained_mean, rtol=0.05)
    ratio = larger.contribution.deviation / final.contribution.deviation
    np.testing.assert_allclose(ratio, 2, rtol=0.05)


def test_a_disturbance_moves_several_channels_but_no_exogenous_one() -> None:
    rows = made_rows(400, 1)
    known = clean_shape(rows, EXOGENOUS)
    for seed in range(50):
        rng = np.random.default_rng(seed)
        moved, members = disturb(rows, 100, 80, 2.0, known, rng)
        assert len(members) >= 2 and 0 not in members
        np.testing.assert_array_equal(moved[:100], rows[:100])
        touched = np.flatnonzero((moved != rows).any(axis=0))
        assert set(touched) <= set(members)


def test_the_regression_finds_what_separates() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    plane = np.stack([labels == 0, labels == 1], axis=1) + 0.3 * rng.standard_normal((600, 2))
    table = np.hstack([np.ones((600, 1)), plane])
    weights = fit_logistic(table, labels, 3, 1e-3)
    assert ((table @ weights.T).argmax(axis=1) == labels).mean() > 0.9


def test_the_temperature_cools_overconfident_logits() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((4000, 3))
    drawn = [rng.choice(3, p=np.exp(row)) for row in log_softmax(logits)]
    labels = np.array(drawn)
    assert fit_temperature(4 * logits, labels) == pytest.approx(4, rel=0.2)
    assert calibration_error(np.exp(log_softmax(logits)), labels) < 0.03
    assert calibration_error(np.exp(log_softmax(4 * logits)), labels) > 0.1


def test_every_class_weighs_the_same() -> None:
    weights = balanced(np.array([0, 0, 0, 2]), 3)
    assert weights.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(1, 4))
@settings(max_examples=20)
def test_no_weights_nearby_have_a_smaller_loss(seed: int, classes: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, 80)
    table = np.hstack([np.ones((80, 1)), rng.normal(size=(80, columns))])
    weights = fit_logistic(table, labels, classes, 0.01)

    def loss(tried: np.ndarray) -> float:
        chances = log_softmax(table @ tried.T)[np.arange(80), labels]
        shrunk = 0.005 * (tried[:, 1:] ** 2).sum()
        return float(shrunk - (balanced(labels, classes) * chances).sum())

    for _ in range(20):
        step = 1e-3 * rng.normal(size=weights.shape)
        assert loss(weights) < loss(weights + step) + 1e-12
    assert loss(weights) <= loss(np.zeros_like(weights))


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 6.0))
@settings(max_examples=20)
def test_no_temperature_nearby_has_a_smaller_loss(seed: int, sharper: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(300, 3))
    labels = np.array([rng.choice(3, p=np.exp(row)) for row in log_softmax(logits)])

    def loss(temperature: float) -> float:
        chances = log_softmax(sharper * logits / temperature)[np.arange(300), labels]
        return float(-(balanced(labels, 3) * chances).sum())

    found = fit_temperature(sharper * logits, labels)
    low, high = np.exp(LOG_TEMPERATURES)
    assert low <= found <= high
    for other in (found * 0.99, found * 1.01):
        assert loss(found) <= loss(float(np.clip(other, low, high))) + 1e-12


def test_a_class_that_never_occurs_is_improbable() -> None:
    table = np.hstack([np.ones((60, 1)), np.random.default_rng(0).normal(size=(60, 2))])
    weights = fit_logistic(table, np.arange(60) % 2, 3, 0.003)
    assert np.isfinite(weights).all() and np.exp(log_softmax(table @ weights.T))[:, 2].max() < 1e-3
