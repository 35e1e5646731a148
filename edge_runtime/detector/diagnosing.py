"""The diagnosis within a step: symptoms at every sample, a verdict while the alarm is on."""

from dataclasses import dataclass

import numpy as np

from edge_runtime.bundle.manifest import Manifest
from edge_runtime.detector.inputs import Scaler, is_present, standardise
from edge_runtime.diagnosis import (
    Diagnosis,
    DiagnosisConstants,
    MeanProbabilities,
    diagnose,
    follow,
    no_verdict,
)
from edge_runtime.record import Float32
from edge_runtime.symptoms import (
    ContributionConstants,
    SymptomConstants,
    SymptomState,
    initial_symptoms,
    observe,
)


@dataclass(frozen=True)
class DiagnosisState:
    """What the diagnosis keeps from one sample to the next."""

    symptoms: SymptomState
    verdict: MeanProbabilities


def diagnosis_constants(source: Manifest) -> DiagnosisConstants | None:
    """Return the manifest's diagnosis as arrays, or None if it has none."""
    section = source.diagnosis
    if section is None:
        return None

    def array(values: object) -> Float32:
        return np.array(values, np.float32)

    contribution = ContributionConstants(
        smoothing=array(section.smoothing),
        center=array(section.center),
        precision=array(section.precision),
        block=array(section.block),
        deviation=array(section.deviation),
    )
    symptoms = SymptomConstants(
        contribution=contribution,
        explained_mean=array(section.explained_mean),
        explained_high=array(section.explained_high),
        distance_mean=np.float32(section.distance_mean),
        move_mean=array(section.move_mean),
        jump_mean=array(section.jump_mean),
        persistence=array(section.persistence),
        longest_repeat=array(section.longest_repeat),
        blameable=array([not channel.exogenous for channel in source.channels]),
        log_table=array(source.tables.log),
    )
    return DiagnosisConstants(
        symptoms=symptoms,
        center=array(section.feature_center),
        scale=array(section.feature_scale),
        machine=array(section.machine),
        kinds=array(section.kinds),
    )


def initial_diagnosis(channels: int) -> DiagnosisState:
    """Return the state before the first sample."""
    return DiagnosisState(initial_symptoms(channels), no_verdict())


def advance_diagnosis(
    values: Float32,
    alarm: bool,
    scaler: Scaler,
    state: DiagnosisState,
    constants: DiagnosisConstants,
) -> DiagnosisState:
    """Return the state after the raw readings `values` [channels].

    alarm: whether the model's alarm is on. A stuck reading, or one beyond its limits, is a symptom,
    so only missing readings are left out.
    """
    present = is_present(values)
    reading = standardise(values, present, scaler)
    symptoms = observe(
        reading, present.astype(np.float32), alarm, state.symptoms, constants.symptoms
    )
    verdict = follow(state.verdict, symptoms, constants) if alarm else no_verdict()
    return DiagnosisState(symptoms, verdict)


def diagnosis_of(state: DiagnosisState, constants: DiagnosisConstants) -> Diagnosis:
    """Return the diagnosis of the alarm that `state` has followed."""
    return diagnose(state.verdict, state.symptoms, constants)
