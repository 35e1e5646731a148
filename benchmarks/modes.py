"""Operating modes: does a detector stay quiet when a healthy machine changes its load?

    python -m benchmarks.modes [--model auto] [--seeds 3]

The simulated pump steps between five levels of load. A detector learns from one recording of it and
watches other healthy ones: with the set-point as an exogenous channel; with a set-point that nobody
recorded; and, with a set-point, having learned from the three lower levels alone. In the first two
every alarm is false. In the last an alarm is deserved, because the upper levels are new to it.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import click
import numpy as np

from benchmarks.gruard_detector import GruardDetector
from benchmarks.judge import Outcome
from benchmarks.series import Series, TestRecording
from edge_runtime.alarm_course import alarm_stretches
from train.recording import Recording
from train.simulate import LEVELS, PERIOD, simulate

HEALTHY_ROWS, WATCHED_ROWS = 12000, 20000
WATCHED_SEED = 500  # added to the seed of the recording to learn from
SET_POINT = "set_point"
KNOWN_LEVELS = LEVELS[:3]
STEP = 1.0  # % of load: what a change of level exceeds, and its noise does not
TRANSITION = 60  # rows after a change that count as part of it


@dataclass(frozen=True)
class Case:
    """What the detector is told and has seen. set_point: recorded; levels: of the training."""

    name: str
    set_point: bool
    levels: tuple[float, ...]


CASES = (
    Case("set-point given", True, LEVELS),
    Case("set-point not recorded", False, LEVELS),
    Case("upper levels never seen", True, KNOWN_LEVELS),
)


@dataclass(frozen=True)
class Quiet:
    """One detector on one healthy recording. alarms: how many rose; share: of rows in alarm, %.

    transition, steady: the 99.9 % quantile of the score in the rows after a change of load, and in
    all others.
    """

    case: str
    seed: int
    changes: int
    alarms: int
    share: float
    transition: float
    steady: float


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="Machines.")
@click.option("--model", default="linear", show_default=True, help="linear, gru, gated or auto.")
@click.option("--steps", type=click.IntRange(1), help="Most training steps of a network.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def main(seeds: int, model: str, steps: int | None, as_json: bool) -> None:
    """Count the alarms of a detector on healthy pumps that change their load.

    Exit code 1 when one was raised in a mode that was known.
    """
    found = []
    for seed in range(seeds):
        for case in CASES:
            found.append(measure(case, seed, GruardDetector(model, steps)))
            click.echo(f"{case.name}, machine {seed}: {found[-1].alarms} alarms", err=True)
    click.echo(json.dumps([asdict(quiet) for quiet in found]) if as_json else table(found))
    known = [quiet for quiet in found if quiet.case != CASES[-1].name]
    raise SystemExit(1 if any(quiet.alarms for quiet in known) else 0)


def measure(case: Case, seed: int, detector: GruardDetector, rows: int = HEALTHY_ROWS) -> Quiet:
    """Learn from `rows` of one healthy recording, watch another one."""
    healthy = simulate(rows, seed, case.levels)
    watched = simulate(WATCHED_ROWS, WATCHED_SEED + seed)
    load = watched.values[:, watched.channels.index(SET_POINT)]
    healthy, watched = (r if case.set_point else without(r, SET_POINT) for r in (healthy, watched))
    test = TestRecording("healthy", watched.values, np.zeros(watched.rows, np.int8))
    exogenous = (SET_POINT,) if case.set_point else ()
    series = Series("simulator/modes", (healthy,), (test,), exogenous, PERIOD)
    with tempfile.TemporaryDirectory() as scratch:
        outcome = detector.run(series, seed, Path(scratch))[detector.name]
    return quiet_of(case, seed, load, outcome)


def without(recording: Recording, channel: str) -> Recording:
    """The recording of somebody who left a channel out."""
    kept = [i for i, name in enumerate(recording.channels) if name != channel]
    names = tuple(recording.channels[i] for i in kept)
    return replace(recording, channels=names, values=recording.values[:, kept])


def quiet_of(case: Case, seed: int, load: np.ndarray, outcome: Outcome) -> Quiet:
    """What was heard of a healthy machine under `load` [n]."""
    changes = np.flatnonzero(np.abs(np.diff(load)) > STEP) + 1
    after = np.zeros(len(load), bool)
    for change in changes:
        after[change : change + TRANSITION] = True
    scores, alarms = outcome.scores[0], outcome.alarms[0]
    return Quiet(
        case=case.name,
        seed=seed,
        changes=len(changes),
        alarms=len(alarm_stretches(alarms)),
        share=100 * float(alarms.mean()),
        transition=float(np.quantile(scores[after], 0.999)),
        steady=float(np.quantile(scores[~after], 0.999)),
    )


def table(found: Sequence[Quiet]) -> str:
    """A line for each case, over all machines."""
    lines = [f"{'':<26}{'changes':>9}{'alarms':>9}{'in alarm':>10}{'transition':>12}{'steady':>9}"]
    for case in CASES:
        mine = [quiet for quiet in found if quiet.case == case.name]
        changes, alarms = (sum(getattr(q, n) for q in mine) for n in ("changes", "alarms"))
        share, transition, steady = (
            float(np.mean([getattr(q, n) for q in mine])) for n in ("share", "transition", "steady")
        )
        lines.append(
            f"{case.name:<26}{changes:>9}{alarms:>9}{share:>9.1f}%{transition:>12.1f}{steady:>9.1f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
