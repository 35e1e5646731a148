"""Lasting changes: each is reported once; after that the machine is judged from its new state.

A machine that was recorded for minutes will run at another operating point in an hour, and a
repaired one keeps its new operating point. An alarm that lasts for days says nothing and hides the
next fault. So after `after` samples of alarm in a row the change counts as reported: the alarm
ends, every record is flagged CHANGED, and the machine is judged from its present operating point,

    centre   c, taken from a quick average of the readings (0: as recorded)
    reading  x - c, which the forecast, the gate and the recurrent unit get

so that a further fault raises an alarm of its own. The score in the record stays that of the
machine as it was recorded: its readings are x, and each of its errors is larger by c - F(c), where
F is what the linear forecast makes of readings that stay at c. After as many calm samples the
machine is back: c is 0 again and the flag ends. The recorded operating point is never an anomaly,
so the level is the smaller of both distances.

The owner may accept a change as the new normal. The flag ends, and the record has the score from
the new centre, which the alarm uses. The next lasting change is reported again.

Two values follow slowly, because a short recording cannot show everything. The alarm uses only what
exceeds a baseline b of each part of the score,

    z = weight (part - mean) / std,   b <- max(0, b + r clip(z - b, 6)),   heard = max_p (z_p - b_p)

with a fifth of r upwards during an alarm. And once the machine has changed, the centre of a channel
that was still drifting when the recording ended follows it, c <- c + f clip(x - c, 3).

A network does not get x - c: it has learned the machine at the recorded operating point. Then c
serves the fallback only, and reporting a change raises the baseline of every part that contributes
to the alarm to the present height of that part.
"""

from dataclasses import dataclass, replace

import numpy as np

from edge_runtime import numerics
from edge_runtime.bundle import manifest
from edge_runtime.bundle.manifest import ERRORS, PARTS
from edge_runtime.detector.alarm import AlarmState
from edge_runtime.detector.inputs import VALUE_CLIP, Bools
from edge_runtime.detector.lasting_change import ChangePhase, LastingChange
from edge_runtime.detector.linear import LinearForecasts, at_rest, lines_of
from edge_runtime.detector.score import (
    ScoreConstants,
    ScoreState,
    heights,
    largest,
    smoothed_parts,
    total_score,
    with_level,
)
from edge_runtime.record import Float32

STANDING_RATE = np.float32(0.1)
BASELINE_CLIP = np.float32(6)
ALARMED_SHARE = np.float32(0.2)  # of the baselines' rate, upwards in an alarm
FOLLOW_CLIP = np.float32(3)
_FORECAST_PARTS = np.array([part not in ("level", "gate") for part in PARTS])
_TWO, _ZERO = np.float32(2), np.float32(0)


@dataclass(frozen=True)
class ChangeConstants:
    """after: samples; 0: a lasting change stays an alarm. rate: of the baselines.

    follow: [channels], rate of each centre. moves: whether the model gets readings less the centre.
    """

    after: int
    rate: np.float32
    follow: Float32
    follows: bool
    lines: LinearForecasts
    watched: Float32
    moves: bool


@dataclass(frozen=True)
class ChangeState:
    """count: changes reported so far.

    centre, standing: [channels]; standing: the average of the readings. pulled: [3, channels],
    c - F(c). baselines: [memories, 6]. recorded: [memories, 6], smoothed parts as from the
    recording, updated only while the machine has changed.
    steady, home: samples in a row in alarm, and calm as from the recording.
    """

    phase: ChangePhase
    count: int
    centre: Float32
    standing: Float32
    pulled: Float32
    baselines: Float32
    recorded: Float32
    steady: int
    home: int

    @property
    def changed(self) -> bool:
        """Whether the machine has left the recorded operating point."""
        return self.phase is not ChangePhase.AS_RECORDED

    @property
    def flagged(self) -> bool:
        """Whether the owner has not accepted the change yet."""
        return self.phase is ChangePhase.CHANGED


@dataclass(frozen=True)
class JudgedScore:
    """score: as from the recording. here: from the centre, for the alarm. shown: in the record."""

    score: np.float32
    here: np.float32
    shown: np.float32


@dataclass(frozen=True)
class Moved:
    """State after a step. shift: [channels], how far the centre has moved, or None."""

    change: ChangeState
    score: ScoreState
    alarm: AlarmState
    shift: Float32 | None


def change_constants(source: manifest.Manifest) -> ChangeConstants:
    """Return the manifest's section as arrays; without one, constants that change nothing."""
    count, section = len(source.channels), source.change
    if section is None:
        none = np.zeros(count, np.float32)
        section = manifest.ChangeRule(0, 0.0, tuple(none))
    follow = np.array(section.follow, np.float32)
    return ChangeConstants(
        after=section.after,
        rate=np.float32(section.rate),
        follow=follow,
        follows=bool(follow.any()),
        lines=lines_of(source.forecast),
        watched=np.array([not c.exogenous for c in source.channels], np.float32),
        moves=source.linear,
    )


def initial_change(channels: int, memories: int) -> ChangeState:
    """Return the state of a machine at the recorded operating point."""
    none, parts = np.zeros(channels, np.float32), np.zeros((memories, len(PARTS)), np.float32)
    pulled = np.zeros((len(ERRORS), channels), np.float32)
    return ChangeState(ChangePhase.AS_RECORDED, 0, none, none, pulled, parts, parts, 0, 0)


def fault_of(saved: LastingChange, source: manifest.Manifest) -> str | None:
    """Say why no detector of `source` can have written `saved`, or None if one can."""
    if source.change is None or not source.change.after:
        return "is of another bundle"
    heights = len(PARTS) * len(source.score.memories)
    return saved.fault(len(source.channels), heights, float(VALUE_CLIP))


def lasting(state: ChangeState) -> LastingChange:
    """Return what a new detector needs of `state`."""
    centre, baselines = state.centre.tolist(), state.baselines.ravel().tolist()
    return LastingChange(int(state.phase), state.count, tuple(centre), tuple(baselines))


def resumed(saved: LastingChange, score: ScoreConstants, constants: ChangeConstants) -> ChangeState:
    """Return the state of a new detector that continues from the checked `saved`."""
    centre = np.array(saved.centre, np.float32)
    return ChangeState(
        ChangePhase(saved.phase),
        saved.count,
        centre,
        standing=centre,
        pulled=pulled_to(centre, constants),
        baselines=np.array(saved.baselines, np.float32).reshape(score.mean.shape),
        recorded=score.mean,
        steady=0,
        home=0,
    )


def accepted(state: ChangeState, yes: bool) -> ChangeState:
    """Return the state after the owner accepts the change, or revokes that."""
    phase = ChangePhase.ACCEPTED if yes else ChangePhase.CHANGED
    return replace(state, phase=phase) if state.changed else state


def from_here(
    absolute: Float32, mask: Float32, state: ChangeState, constants: ChangeConstants
) -> Float32:
    """Return the readings [channels] that the model gets; 0 where unusable."""
    if not (state.changed and constants.moves):
        return absolute
    seen: Float32 = np.where(mask > 0, numerics.clip(absolute - state.centre, VALUE_CLIP), _ZERO)
    return seen


def pulled_to(centre: Float32, constants: ChangeConstants) -> Float32:
    """Return c - F(c), by which each error [3, channels] is larger as from the recording."""
    if not constants.moves:
        return np.zeros((len(ERRORS), len(centre)), np.float32)
    return at_rest(constants.lines, centre)


def judge(score: ScoreState, state: ChangeState, constants: ScoreConstants) -> JudgedScore:
    """Return the scores of the smoothed parts."""
    here = largest(heights(score.parts, constants) - state.baselines, constants)
    parts = state.recorded if state.changed else score.parts
    recorded = total_score(parts, constants)
    return JudgedScore(recorded, here, here if state.phase is ChangePhase.ACCEPTED else recorded)


def measure_recorded(
    state: ChangeState, recorded: Float32, constants: ScoreConstants, settling: bool
) -> ChangeState:
    """Return the changed `state` after a row with unsmoothed parts [6] as from the recording."""
    smooth = smoothed_parts(recorded, state.recorded, constants, settling)
    return replace(state, recorded=smooth)


def move(
    absolute: Float32,
    mask: Float32,
    judged: JudgedScore,
    levels: tuple[float, float],
    moved: Moved,
    settling: bool,
    score: ScoreConstants,
    constants: ChangeConstants,
) -> Moved:
    """Return the state after a measured row: baselines, counters, and perhaps another centre.

    absolute: its standardised readings, 0 where mask is. levels: threshold and clear level.
    moved: the state so far, with the alarm of this row.
    """
    state, alarm = moved.change, moved.alarm
    usable = mask > 0
    standing = state.standing + STANDING_RATE * (absolute - state.standing)
    state = replace(state, standing=np.where(usable, standing, state.standing))
    if settling:
        return replace(moved, change=state)
    state = replace(
        state,
        baselines=_followed(
            heights(moved.score.parts, score), state.baselines, alarm.active, constants
        ),
        steady=state.steady + 1 if alarm.active else 0,
    )
    if state.changed:
        state = replace(state, home=state.home + 1 if float(judged.score) <= levels[1] else 0)
    moved = replace(moved, change=state)
    if constants.after and state.steady >= constants.after:
        return _settle(moved, levels[0], score, constants)
    if state.changed and state.home >= constants.after:
        return _return(moved, constants)
    if state.changed and constants.follows:
        return _follow(moved, absolute, usable, constants)
    return moved


def without_forecasts(moved: Moved, constants: ScoreConstants) -> Moved:
    """Return the state after a reset, which keeps only the level of the parts."""
    recorded = with_level(moved.change.recorded, constants.mean)
    return replace(moved, change=replace(moved.change, recorded=recorded))


def _followed(z: Float32, before: Float32, alarm: bool, constants: ChangeConstants) -> Float32:
    gap = numerics.clip(z - before, BASELINE_CLIP)
    slow = (gap > 0) & alarm
    rate = np.where(slow, ALARMED_SHARE * constants.rate, constants.rate)
    return np.maximum(before + rate * gap, _ZERO)


def _settle(
    moved: Moved, threshold: float, score: ScoreConstants, constants: ChangeConstants
) -> Moved:
    """Count the change as reported and judge the machine from its present operating point."""
    state, parts = moved.change, moved.score.parts
    if not state.changed:
        state = replace(state, recorded=parts)
    z = heights(parts, score)
    beyond = (_TWO * (z - state.baselines)).astype(np.float64) > threshold
    if constants.moves:
        beyond = beyond & _FORECAST_PARTS
    centre = np.where(constants.watched > 0, state.standing, state.centre)
    state = replace(
        state,
        phase=ChangePhase.CHANGED,
        count=state.count + 1,
        centre=centre,
        pulled=pulled_to(centre, constants),
        baselines=np.where(beyond, z, state.baselines),
        steady=0,
        home=0,
    )
    if constants.moves:
        parts = with_level(score.mean, parts)
    shift = _shift(moved.change.centre, centre, constants)
    return Moved(state, replace(moved.score, parts=parts), AlarmState(), shift)


def _shift(before: Float32, after: Float32, constants: ChangeConstants) -> Float32 | None:
    return after - before if constants.moves else None


def _return(moved: Moved, constants: ChangeConstants) -> Moved:
    """Return to the recorded operating point."""
    state = moved.change
    none = np.zeros_like(state.centre)
    back = replace(
        state, phase=ChangePhase.AS_RECORDED, centre=none, pulled=np.zeros_like(state.pulled),
        baselines=np.zeros_like(state.baselines), steady=0, home=0,
    )  # fmt: skip
    score = replace(moved.score, parts=state.recorded)
    return Moved(back, score, moved.alarm, _shift(state.centre, none, constants))


def _follow(moved: Moved, absolute: Float32, usable: Bools, constants: ChangeConstants) -> Moved:
    state = moved.change
    apart = numerics.clip(absolute - state.centre, FOLLOW_CLIP)
    centre = state.centre + constants.follow * np.where(usable, apart, _ZERO)
    followed = replace(state, centre=centre, pulled=pulled_to(centre, constants))
    return replace(moved, change=followed, shift=_shift(state.centre, centre, constants))
