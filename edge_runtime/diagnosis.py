"""Diagnosis: which channels an alarm is about, and what kind of fault they show.

The channel that explains most of the deviation is blamed first. Two logistic regressions judge its
symptoms. The first gets only what is left of the deviation without that channel: if that is as on
clean rows, a sensor is faulty; if it is more, the machine itself has changed. It gets nothing about
the shape of the fault, because the shapes of machine faults are unknown beforehand. The second
tells the kinds of sensor faults apart by their shape. Both get standardised features, the second
their squares, too; a temperature in the weights calibrates the probabilities.
"""

from dataclasses import dataclass

import numpy as np

from edge_runtime import numerics
from edge_runtime.record import Float32
from edge_runtime.symptoms import Peak, Sum, SymptomConstants, SymptomState, suspicion

SENSOR_KINDS = ("spike", "noise", "stuck", "level", "drift", "decorrelation", "dropout")
MACHINE = "machine"
KINDS = (*SENSOR_KINDS, MACHINE)
# Features: the rest without the blamed channel; signs of its sensor only; the shape of its fault.
REST = ("rest", "other level", "other explained", "other explained mean", "other peak")
SILENT = ("missing", "all missing", "repeats")
SHAPE = (
    "samples", "share", "level", "ramp", "rough", "level share", "ramp share", "rough share",
    "jump", "peak", "jump out", "jump back", "spread", "move", "duty", "mirror", "mirror share",
)  # fmt: skip
FEATURES = (*REST, *SILENT, *SHAPE)
# Counts and squares span many decades: the classifiers get log(1 + value) of them.
LOGGED = [
    FEATURES.index(name)
    for name in (
        *REST, "repeats", "samples", "level", "ramp", "rough", "peak", "jump out", "jump back"
    )
]  # fmt: skip
MACHINE_FEATURES = slice(0, len(REST) + len(SILENT))
KIND_FEATURES = slice(len(REST), len(FEATURES))
MACHINE_WEIGHTS = 1 + len(REST) + len(SILENT)
KIND_WEIGHTS = 1 + 2 * (len(SILENT) + len(SHAPE))
FEATURE_CLIP = np.float32(4)
LIMIT = 3
LONGEST_MEAN = 64
_LARGEST = np.float32(1e30)
_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
_TENTH, _FEW = np.float32(0.1), np.float32(1.5)
_SHARED = np.float32(0.25)
_TINY = np.float32(1e-3)
_LOGIT_CLIP = np.float32(40)
_HALVINGS = 8


@dataclass(frozen=True)
class DiagnosisConstants:
    """symptoms: clean behaviour. center, scale: [features]. machine: [1 + machine features],
    the bias first. kinds: [sensor kinds, 1 + 2 * kind features], the squares last.
    """

    symptoms: SymptomConstants
    center: Float32
    scale: Float32
    machine: Float32
    kinds: Float32


@dataclass(frozen=True)
class MeanProbabilities:
    """Mean probabilities [kinds] over the samples of an alarm, and their number."""

    chances: Float32
    samples: int


@dataclass(frozen=True)
class Diagnosis:
    """kind: one of `KINDS`, the most probable; sensor: whether it is a sensor's fault.

    probability: of the kind; sensor_probability: that a sensor, not the machine, is at fault.
    channels: indices to blame, worst first; empty if none stands out.
    """

    kind: str
    probability: float
    sensor: bool
    sensor_probability: float
    channels: tuple[int, ...]


def no_verdict() -> MeanProbabilities:
    """Return the verdict while no alarm is on."""
    return MeanProbabilities(np.zeros(len(KINDS), np.float32), 0)


def follow(
    verdict: MeanProbabilities, state: SymptomState, constants: DiagnosisConstants
) -> MeanProbabilities:
    """Return the verdict after one more sample of an alarm: the mean over the alarm so far.

    A fault shows its kind at some samples and not at others; the mean is right more often than any
    single sample. After `LONGEST_MEAN` samples older ones fade.
    """
    samples = min(verdict.samples + 1, LONGEST_MEAN)
    now = probabilities(features(state, constants.symptoms), constants)
    return MeanProbabilities(
        verdict.chances + (now - verdict.chances) / np.float32(samples), samples
    )


def diagnose(
    verdict: MeanProbabilities, state: SymptomState, constants: DiagnosisConstants
) -> Diagnosis:
    """Return the diagnosis of an alarm that has been followed for at least one sample."""
    channels = blamed(state, constants.symptoms)
    chances = verdict.chances
    machine = chances[-1]
    sensor = bool(machine < np.float32(0.5))
    best = int(np.argmax(chances[:-1])) if sensor else len(SENSOR_KINDS)
    return Diagnosis(
        kind=KINDS[best],
        probability=float(chances[best]),
        sensor=sensor,
        sensor_probability=float(_ONE - machine),
        channels=channels,
    )


def blamed(state: SymptomState, constants: SymptomConstants) -> tuple[int, ...]:
    """Return the most suspicious channel, then others that stand out without it, at most three.

    These must explain more than a quarter of what the second does.
    """
    shares = suspicion(state, constants)
    first = int(np.argmax(shares))
    if shares[first] <= 0:
        return ()
    rest = np.maximum(_left(state, first, constants), _ZERO)
    least = np.maximum(_SHARED * np.max(rest), state.seen * constants.explained_high)
    others = np.argsort(-rest, kind="stable")[: LIMIT - 1]
    return (first, *(int(i) for i in others if rest[i] > least[i]))


def features(state: SymptomState, constants: SymptomConstants) -> Float32:
    """Return [features] of the most suspicious channel, in the order of `FEATURES`."""
    top = int(np.argmax(suspicion(state, constants)))
    rest = _rest_features(state, top, constants)
    silent = _silent_features(state, top, constants)
    values = np.array([*rest, *silent, *_shape_features(state, top)], np.float32)
    values[LOGGED] = numerics.table_log(
        _ONE + np.minimum(values[LOGGED], _LARGEST), constants.log_table
    )
    return values


def probabilities(values: Float32, constants: DiagnosisConstants) -> Float32:
    """Return [kinds] for [features], in the order of `KINDS`, summing to one."""
    scaled = numerics.clip((values - constants.center) / constants.scale, FEATURE_CLIP)
    logits = numerics.ordered_matvec(constants.kinds, expanded(scaled[KIND_FEATURES]))
    logit = constants.machine[0] + numerics.ordered_sum(
        constants.machine[1:] * scaled[MACHINE_FEATURES]
    )
    powers = exponential(np.append(logits - np.max(logits), -np.abs(logit)))
    likelihoods, odds = powers[:-1], powers[-1]
    machine = (_ONE if logit > 0 else odds) / (_ONE + odds)
    shares = likelihoods / numerics.ordered_sum(likelihoods)
    chances: Float32 = np.concatenate([shares * (_ONE - machine), [machine]]).astype(np.float32)
    return chances


def expanded(scaled: Float32) -> Float32:
    """Return a one, the features and their squares, along the last axis."""
    one = np.ones((*scaled.shape[:-1], 1), np.float32)
    return np.concatenate([one, scaled, scaled * scaled], axis=-1)


def exponential(values: Float32) -> Float32:
    """Return exp of `values` <= 0 without a library: (1 + y + y²/2)^256 with y = values / 256.

    The relative error is below 0.02 down to -10, and further down the result is close to 0.
    """
    small = np.maximum(values, -_LOGIT_CLIP) / np.float32(2**_HALVINGS)
    power: Float32 = _ONE + small + small * small / _TWO
    for _ in range(_HALVINGS):
        power = power * power
    return power


def _left(state: SymptomState, top: int, constants: SymptomConstants) -> Float32:
    """Return what each channel but `top` explains beyond clean rows without `top`; 0 at `top`."""
    left = state.sums[Sum.OTHER_EXPLAINED] - state.seen * constants.explained_mean
    others: Float32 = left * constants.blameable
    others[top] = _ZERO
    return others


def _rest_features(state: SymptomState, top: int, constants: SymptomConstants) -> list[np.float32]:
    seen = state.seen + _TINY
    others = constants.blameable.copy()
    others[top] = _ZERO
    level = state.sums[Sum.OTHER_FAULT]
    level = np.max(others * (level * level / seen / constants.persistence))
    most = np.maximum(np.max(_left(state, top, constants)), _ZERO)
    rest = np.maximum(state.distance - state.sums[Sum.EXPLAINED, top], _ZERO)
    peak = np.max(others * state.peaks[Peak.OTHER_FAULT])
    return [rest / seen / constants.distance_mean, level, most, most / seen, peak]


def _silent_features(
    state: SymptomState, top: int, constants: SymptomConstants
) -> list[np.float32]:
    age = state.age + _TINY
    missing = state.sums[Sum.MISSING]
    least = np.min(missing + (_ONE - constants.blameable) * _LARGEST)
    repeats = state.repeats[top] / (constants.longest_repeat[top] + _ONE)
    return [missing[top] / age, np.minimum(least / age, _ONE), repeats]


def _shape_features(state: SymptomState, top: int) -> list[np.float32]:
    """Return energies of f (mean, straight line, rest), its jumps, its slope on the expected one.

    For a stuck reading f = constant - expected, so its slope (mirror) is -1.
    """
    of = state.sums[:, top]
    count = of[Sum.COUNT] + _TINY
    level = of[Sum.FAULT] * of[Sum.FAULT] / count
    around = np.maximum(of[Sum.FAULT2] - level, _ZERO)
    ages = np.maximum(of[Sum.AGE2] - of[Sum.AGE] * of[Sum.AGE] / count, _TINY)
    along = of[Sum.AGE_FAULT] - of[Sum.AGE] * of[Sum.FAULT] / count
    ramp = np.minimum(along * along / ages, around) if of[Sum.COUNT] > _FEW else _ZERO
    rough = around - ramp
    energy = of[Sum.FAULT2] + _TENTH
    expected = of[Sum.EXPECTED] * of[Sum.EXPECTED] / count
    expected = np.maximum(of[Sum.EXPECTED2] - expected, _TENTH)
    common = of[Sum.EXPECTED_FAULT] - of[Sum.EXPECTED] * of[Sum.FAULT] / count
    mirror = np.minimum(np.maximum(common / expected, -_TWO), _TWO)
    mirrored = np.minimum(common * common / expected / (around + _TENTH), _ONE)
    peak, out, back = (state.peaks[i, top] for i in (Peak.FAULT, Peak.JUMP_OUT, Peak.JUMP_BACK))
    weight = of[Sum.COUNT] + _TENTH
    jump, spread, move = of[Sum.JUMP] / weight, of[Sum.SPREAD] / weight, of[Sum.MOVE] / weight
    return [
        of[Sum.COUNT], state.seen / (state.age + _TINY), level, ramp, rough, level / energy,
        ramp / energy, rough / energy, jump, peak, out, back, spread, move,
        of[Sum.COUNT] / (state.seen + _TENTH), mirror, mirrored,
    ]  # fmt: skip
