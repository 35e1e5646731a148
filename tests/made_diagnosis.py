"""A diagnosis fitted on a made machine of strongly correlated channels, small enough for a test."""

import json
from functools import lru_cache

import numpy as np

from edge_runtime.bundle.manifest import Channel, DiagnosisModel
from edge_runtime.detector.diagnosing import diagnosis_constants
from edge_runtime.diagnosis import (
    Diagnosis,
    DiagnosisConstants,
    diagnose,
    follow,
    no_verdict,
)
from edge_runtime.symptoms import SymptomState, initial_symptoms, observe
from tests.edge_runtime.made_manifest import made_manifest
from tests.golden_bundles import DIAGNOSIS

NAMES = ("demand", "speed", "flow", "heat", "noise")
CHANNELS = tuple(
    Channel(name, "", 0.0, 1.0, None, None, None, None, exogenous=name == NAMES[0])
    for name in NAMES
)
QUIET = 100


def made_rows(rows: int, seed: int) -> np.ndarray:
    """float32 [rows, 5]: one slow load drives all channels, each with a little noise of its own."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((rows, 6))  # in one go: a longer recording begins like a shorter
    load = np.zeros(rows)
    for row in range(1, rows):
        load[row] = 0.97 * load[row - 1] + 0.24 * noise[row, 5]
    mixture = np.array([1.0, 0.9, 0.8, -0.9, 0.7])
    own = 0.1 * noise[:, :5]
    return (load[:, np.newaxis] * mixture + own).astype(np.float32)


@lru_cache(maxsize=1)
def fitted_constants() -> DiagnosisConstants:
    """Fitted once a process. Treat it as read-only."""
    from edge_runtime.learning.diagnosis.fit import fit_diagnosis

    constants = fit_diagnosis([made_rows(1500, 1)], CHANNELS, seed=3, events=315)
    assert constants is not None
    return constants


@lru_cache(maxsize=1)
def made_constants() -> DiagnosisConstants:
    """`fitted_constants` as `golden_bundles` stored them. Treat it as read-only."""
    section = DiagnosisModel(**json.loads(DIAGNOSIS.read_text()))
    constants = diagnosis_constants(made_manifest(channels=CHANNELS, diagnosis=section))
    assert constants is not None
    return constants


def watched(rows: np.ndarray, stop: int, constants: DiagnosisConstants) -> SymptomState:
    """The state after row `stop - 1`; NaN is missing, the alarm is on from row QUIET + 3 on."""
    return _continued(_calm(rows[:QUIET].tobytes(), rows.shape[1]), rows, QUIET, stop, constants)


@lru_cache
def _calm(rows: bytes, width: int) -> SymptomState:
    """The state after the quiet beginning, which many tests share."""
    calm = np.frombuffer(rows, np.float32).reshape(-1, width)
    return _continued(initial_symptoms(width), calm, 0, len(calm), made_constants())


def _continued(
    state: SymptomState, rows: np.ndarray, start: int, stop: int, constants: DiagnosisConstants
) -> SymptomState:
    present = np.isfinite(rows)
    for row in range(start, stop):
        reading = np.where(present[row], rows[row], np.float32(0))
        arrived = present[row].astype(np.float32)
        state = observe(reading, arrived, row >= QUIET + 3, state, constants.symptoms)
    return state


def diagnosed(rows: np.ndarray, length: int, constants: DiagnosisConstants) -> Diagnosis:
    """The diagnosis after `length` samples from row QUIET on, followed from QUIET + 3 on."""
    state = watched(rows, QUIET + 3, constants)
    verdict = follow(no_verdict(), state, constants)
    for row in range(QUIET + 3, QUIET + length):
        state = _continued(state, rows, row, row + 1, constants)
        verdict = follow(verdict, state, constants)
    return diagnose(verdict, state, constants)
