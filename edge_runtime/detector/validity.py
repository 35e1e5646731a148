"""Which readings are usable at all: the validity mask, before any model sees them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Channel
from edge_runtime.record import Float32

Bools = npt.NDArray[np.bool_]

# No sensor reads this; keeping it out keeps every later difference and quotient finite.
BEYOND_BELIEF = np.float32(1e30)


def is_present(values: Float32) -> Bools:
    """Where there is a reading at all, plausible or not."""
    return np.abs(values) < BEYOND_BELIEF  # False for NaN, too


def is_measured(values: Float32, watched: Float32) -> bool:
    """Whether any of the `watched` channels has a reading; True where none is watched.

    Where nothing was measured nothing is judged: see `edge_runtime.detector.step`.
    """
    return bool((is_present(values) & (watched > 0)).any()) or not watched.any()


@dataclass(frozen=True)
class ValidityState:
    """Last usable reading per channel (NaN before the first) and how long it has not changed."""

    last: Float32
    since: Float32  # samples since `last`
    same: Float32  # readings in a row with one and the same value


@dataclass(frozen=True)
class ValidityRules:
    """The channels' rules as vectors; infinite where a rule is off. Rates are per sample."""

    low: Float32
    high: Float32
    max_step: Float32
    stuck_after: Float32
    none: bool  # no channel has any rule


def validity_rules(channels: tuple[Channel, ...], period: float | None) -> ValidityRules:
    """Rules of `channels`; a rate limit (units per second) needs the sample `period` (s)."""

    def vector(values: list[float | None], off: float) -> Float32:
        return np.array([off if v is None else v for v in values], np.float32)

    steps = [
        None if c.max_rate is None or period is None else c.max_rate * period for c in channels
    ]
    return ValidityRules(
        low=vector([c.low for c in channels], -np.inf),
        high=vector([c.high for c in channels], np.inf),
        max_step=vector(steps, np.inf),
        stuck_after=vector([c.stuck_after for c in channels], np.inf),
        none=all(
            rule is None for c in channels for rule in (c.low, c.high, c.max_rate, c.stuck_after)
        ),
    )


def initial_validity(channels: int) -> ValidityState:
    """The state before the first sample."""
    return ValidityState(
        last=np.full(channels, np.nan, np.float32),
        since=np.ones(channels, np.float32),
        same=np.zeros(channels, np.float32),
    )


def check_validity(
    values: Float32, rules: ValidityRules, state: ValidityState
) -> tuple[Bools, ValidityState]:
    """Mask [channels], True where the raw reading is usable, and the next state.

    A reading is unusable when it is missing, not finite, out of range, further from the last
    usable reading than the rate limit allows for the time passed, or one and the same value for
    longer than the stuck rule allows, missing ones left out. After a jump the rate rule gives way
    as time passes, so a true new level is believed again.
    """
    finite = is_present(values)
    if rules.none:
        return finite, state
    jump = np.abs(values - state.last)
    plausible = ~(jump > rules.max_step * state.since)  # NaN before the first reading: plausible
    in_range = (values >= rules.low) & (values <= rules.high)
    repeats = np.where(values == state.last, state.same + 1, np.float32(0))
    same = np.where(finite, repeats, state.same)
    mask: Bools = finite & in_range & plausible & (same < rules.stuck_after)
    remembered = finite & in_range & plausible
    return mask, ValidityState(
        last=np.where(remembered, values, state.last),
        since=np.where(remembered, np.float32(1), state.since + 1),
        same=same.astype(np.float32),
    )
