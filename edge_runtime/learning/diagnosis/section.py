"""The diagnosis of a bundle: fit it on training rows, judge it on calibration rows."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle import manifest as m
from edge_runtime.bundle.manifest import Channel
from edge_runtime.diagnosis import KINDS, MACHINE, DiagnosisConstants, probabilities
from edge_runtime.learning.decimals import matrix, vector
from edge_runtime.learning.diagnosis.clean_behaviour import sampled, stretch
from edge_runtime.learning.diagnosis.fit import fit_diagnosis, injected
from edge_runtime.learning.run import Run

Float32 = npt.NDArray[np.float32]
Say = Callable[[str], None]

JUDGED_EVENTS, MOST_JUDGED_ROWS = 450, 2000


@dataclass(frozen=True)
class Judgement:
    """How often the diagnosis was right about faults injected into rows it had not seen.

    examples: moments that were judged. Shares of them: channel, the first blamed channel was
    faulty; kind, the most probable kind was right; sensor, sensor or machine was right.
    """

    examples: int
    channel: float
    kind: float
    sensor: float

    def sentence(self) -> str:
        """Describe the judgement in one sentence."""
        return (
            f"Diagnosis of {self.examples} moments of faults injected into rows it had not seen: "
            f"channel {self.channel:.1%} right, kind of fault {self.kind:.1%}, sensor or machine "
            f"{self.sensor:.1%}"
        )


def diagnosis_of_run(run: Run, say: Say) -> tuple[m.DiagnosisModel | None, Judgement | None]:
    """Return the section and its judgement; both None with too few rows or unsuitable channels."""
    channels, seed = run.config.channels, run.config.seed
    say("learning to tell the kinds of faults apart")
    constants = fit_diagnosis(run.rows["train"] + run.rows["validate"], channels, seed)
    if constants is None:
        say("no diagnosis: too few rows, too few watched channels, or too many channels")
        return None, None
    return section(constants), judge(constants, run.rows["calibrate"], channels, seed + 1)


def judge(
    constants: DiagnosisConstants,
    recordings: list[Float32],
    channels: tuple[Channel, ...],
    seed: int,
) -> Judgement | None:
    """Judge the diagnosis on faults injected into `recordings`; None if they are too short."""
    pieces = sampled([stretch(rows, channels) for rows in recordings], MOST_JUDGED_ROWS)
    rng = np.random.default_rng(seed)
    examples = injected([(constants.symptoms, pieces)], rng, JUDGED_EVENTS)
    if not examples:
        return None
    chances = np.array([probabilities(e.features, constants) for e in examples])
    kinds, machine = np.array([e.kind for e in examples]), KINDS.index(MACHINE)
    return Judgement(
        examples=len(examples),
        channel=float(np.mean([e.blamed for e in examples])),
        kind=float((_most_probable(chances) == kinds).mean()),
        sensor=float(((chances[:, machine] >= 0.5) == (kinds == machine)).mean()),
    )


def section(constants: DiagnosisConstants) -> m.DiagnosisModel:
    """Return the constants as the manifest stores them."""
    clean = constants.symptoms
    shape = clean.contribution
    return m.DiagnosisModel(
        smoothing=vector(shape.smoothing),
        center=matrix(shape.center),
        precision=matrix(shape.precision),
        block=tuple(matrix(rows) for rows in shape.block),
        deviation=vector(shape.deviation),
        explained_mean=vector(clean.explained_mean),
        explained_high=vector(clean.explained_high),
        distance_mean=vector([clean.distance_mean])[0],
        move_mean=vector(clean.move_mean),
        jump_mean=vector(clean.jump_mean),
        persistence=vector(clean.persistence),
        longest_repeat=vector(clean.longest_repeat),
        feature_center=vector(constants.center),
        feature_scale=vector(constants.scale),
        machine=vector(constants.machine),
        kinds=matrix(constants.kinds),
    )


def _most_probable(chances: Float32) -> npt.NDArray[np.intp]:
    """Decide as the device does: the machine if its probability is at least 0.5, else a sensor."""
    machine = chances.shape[1] - 1
    return np.where(chances[:, machine] >= 0.5, machine, chances[:, :machine].argmax(axis=1))
