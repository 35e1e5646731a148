"""Lasting changes: each is reported once, and from then on the machine is judged from there.

A machine that was recorded for minutes will stand elsewhere in an hour, and one that was repaired
stands elsewhere for good. An alarm that is on for days says nothing, and hides the next fault. So
after `after` samples of alarm in a row the change counts as reported: the alarm ends, every record
is flagged CHANGED, and from then on the machine is judged from where it stands now,

    centre   c, taken from a quick average of the readings (0: where the machine was recorded)
    reading  x - c, and with it the forecast, the gate and the recurrent unit

so that a further fault is an alarm of its own. The score of the record stays that of the machine as
it was recorded: its readings are x, and each of its errors is larger by c - F(c), with F what the
linear forecast makes of readings that stay at c. When it has been calm for as long, the machine is
back: c is 0 again and the flag ends. To stand where it was recorded is never strange, so the level
is the smaller of both distances.

The owner may accept a change: the machine runs like this now. The flag ends, and the score of the
record is that from here, what the alarm hears. The next change that lasts is reported again.

Two things follow slowly, for what a short recording cannot show. To be heard by the alarm, each
part of the score has to exceed a baseline b,

    z = weight (part - mean) / std,   b <- max(0, b + r clip(z - b, 6)),   heard = max_p (z_p - b_p)

with a fifth of r upwards during an alarm. And once the machine has changed, the centre of a channel
that was still on its way when the recording ended follows it, c <- c + f clip(x - c, 3).

A network is not moved: it has learned what the machine does where it was recorded. There c is for
the fallback alone, and what counts as reported is how strange the machine is by then: the baseline
of every part that speaks for the alarm is raised to where that part stands.
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
    """after: samples, 0 where a lasting change stays an alarm. rate: of the baselines.

    follow: [channels], rate of each centre. moves: whether the model sees readings from there.
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
    """count: changes that were reported so far.

    centre, standing, pulled: [channels]; standing: the average of the readings, pulled: (I-F) c.
    baselines: [4], of what the alarm hears. recorded: [4], smoothed parts of the machine as it was
    recorded, kept only while it has changed.
    steady, home: samples in a row in alarm, and calm where the machine was recorded.
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
        """Whether the machine stands elsewhere than where it was recorded."""
        return self.phase is not ChangePhase.AS_RECORDED

    @property
    def flagged(self) -> bool:
        """Whether somebody still has to look at that."""
        return self.phase is ChangePhase.CHANGED


@dataclass(frozen=True)
class JudgedScore:
    """The score as from the recording, the one that the alarm hears, and which the record tells."""

    score: np.float32
    here: np.float32
    told: np.float32


@dataclass(frozen=True)
class Moved:
    """What a step leaves behind. shift: [channels], how far the centre has moved, or None."""

    change: ChangeState
    score: ScoreState
    alarm: AlarmState
    shift: Float32 | None


def change_constants(source: manifest.Manifest) -> ChangeConstants:
    """The manifest's section, or what changes nothing where it has none."""
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
    """The state of a machine that stands where it was recorded."""
    none, parts = np.zeros(channels, np.float32), np.zeros((memories, len(PARTS)), np.float32)
    pulled = np.zeros((len(ERRORS), channels), np.float32)
    return ChangeState(ChangePhase.AS_RECORDED, 0, none, none, pulled, parts, parts, 0, 0)


def fault_of(known: LastingChange, source: manifest.Manifest) -> str | None:
    """Why no detector of `source` can have left `known`, None when one can."""
    if source.change is None or not source.change.after:
        return "is of another bundle"
    heights = len(PARTS) * len(source.score.memories)
    return known.fault(len(source.channels), heights, float(VALUE_CLIP))


def lasting(state: ChangeState) -> LastingChange:
    """What a detector that begins anew needs of `state`."""
    centre, baselines = state.centre.tolist(), state.baselines.ravel().tolist()
    return LastingChange(int(state.phase), state.count, tuple(centre), tuple(baselines))


def resumed(known: LastingChange, score: ScoreConstants, constants: ChangeConstants) -> ChangeState:
    """The state of a detector that begins anew where `known` left off; it is sound."""
    centre = np.array(known.centre, np.float32)
    return ChangeState(
        ChangePhase(known.phase),
        known.count,
        centre,
        standing=centre,
        pulled=pulled_to(centre, constants),
        baselines=np.array(known.baselines, np.float32).reshape(score.mean.shape),
        recorded=score.mean,
        steady=0,
        home=0,
    )


def accepted(state: ChangeState, yes: bool) -> ChangeState:
    """With the owner's word on the change, if there is one."""
    phase = ChangePhase.ACCEPTED if yes else ChangePhase.CHANGED
    return replace(state, phase=phase) if state.changed else state


def from_here(
    absolute: Float32, mask: Float32, state: ChangeState, constants: ChangeConstants
) -> Float32:
    """Readings [channels] as the model sees them; 0 where unusable."""
    if not (state.changed and constants.moves):
        return absolute
    seen: Float32 = np.where(mask > 0, numerics.clip(absolute - state.centre, VALUE_CLIP), _ZERO)
    return seen


def pulled_to(centre: Float32, constants: ChangeConstants) -> Float32:
    """By how much each error [3, channels] is larger as from the recording."""
    if not constants.moves:
        return np.zeros((len(ERRORS), len(centre)), np.float32)
    return at_rest(constants.lines, centre)


def nearest(parts: Float32, recorded: Float32) -> Float32:
    """Parts [6] whose level is the smaller of that from here and that from the recording."""
    return with_level(np.minimum(parts, recorded), parts)


def judge(score: ScoreState, state: ChangeState, constants: ScoreConstants) -> JudgedScore:
    """Both scores of smoothed parts."""
    here = largest(heights(score.parts, constants) - state.baselines, constants)
    parts = state.recorded if state.changed else score.parts
    recorded = total_score(parts, constants)
    return JudgedScore(recorded, here, here if state.phase is ChangePhase.ACCEPTED else recorded)


def measure_recorded(
    state: ChangeState, recorded: Float32, constants: ScoreConstants, settling: bool
) -> ChangeState:
    """With unsmoothed parts [6] of a row as from the recording."""
    if not state.changed:
        return state
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
    """What follows from a measured row: baselines, counters, and perhaps another centre.

    absolute: its readings from the recording, 0 where mask is. levels: threshold and clear level.
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
    """The state after a reset: of the parts only the level is still believed."""
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
    """The change is reported: from now on the machine is judged from where it stands."""
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
    """The machine is where it was recorded."""
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
