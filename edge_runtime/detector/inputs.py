"""From raw readings to standardised ones: validity, operating modes, scaling.

The validity mask says which readings are usable, before any model gets them. Usable readings are
standardised to centre 0 and scale 1, and clipped.

An engine on the ground and the same engine at cruise are two machines to every sensor. Where
exogenous channels show such operating modes in a recording (`learning.modes`), mode k has a setting
c_ki and a reach r_ki in each of these channels i, and

    apart_k = max_i |v_i - c_ki| / r_ki        mode of a row: the smallest, known where it is <= 1

The other channels are standardised with centre and scale of the row's mode. In an unknown mode none
of their readings is usable, because the constants of another mode would be wrong for them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime import numerics
from edge_runtime.bundle.manifest import Channel
from edge_runtime.record import Float32

Bools = npt.NDArray[np.bool_]

# No sensor reads this; without such values every later difference and quotient is finite.
BEYOND_BELIEF = np.float32(1e30)
# Bound of standardised readings; it keeps every later square finite.
VALUE_CLIP = np.float32(100)
_ONE, _ZERO, _FAR = np.float32(1), np.float32(0), np.float32(np.inf)
_KNOWN = np.array(True)


def is_present(values: Float32) -> Bools:
    """Return where there is a reading at all, plausible or not."""
    return np.abs(values) < BEYOND_BELIEF  # False for NaN, too


def is_measured(values: Float32, watched: Float32) -> bool:
    """Whether any of the `watched` channels has a reading; True if none is watched.

    A row that is not measured is not judged: see `edge_runtime.detector.step`.
    """
    return bool((is_present(values) & (watched > 0)).any()) or not watched.any()


@dataclass(frozen=True)
class ValidityState:
    """Last usable reading per channel (NaN before the first) and two counters."""

    last: Float32
    since: Float32  # samples since `last`
    same: Float32  # readings in a row with the same value


@dataclass(frozen=True)
class ValidityRules:
    """The channels' rules as vectors, infinite where a rule is off. Rates are per sample."""

    low: Float32
    high: Float32
    max_step: Float32
    stuck_after: Float32
    none: bool  # no channel has any rule


def validity_rules(channels: tuple[Channel, ...], period: float | None) -> ValidityRules:
    """Return the rules of `channels`; a rate limit (units per second) needs `period` (s)."""

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
    """Return the state before the first sample."""
    return ValidityState(
        last=np.full(channels, np.nan, np.float32),
        since=np.ones(channels, np.float32),
        same=np.zeros(channels, np.float32),
    )


def check_validity(
    values: Float32, rules: ValidityRules, state: ValidityState
) -> tuple[Bools, ValidityState]:
    """Return a mask [channels], True where the raw reading is usable, and the next state.

    A reading is unusable when it is missing, not finite, out of range, further from the last
    usable reading than the rate limit allows for the time passed, or the same value for longer
    than the stuck rule allows, not counting missing ones. After a jump the rate limit widens with
    time, so a true new level becomes usable again.
    """
    finite = is_present(values)
    if rules.none:
        return finite, state
    jump = np.abs(values - state.last)
    plausible = ~(jump > rules.max_step * state.since)  # NaN before the first reading: plausible
    believed = finite & plausible & (values >= rules.low) & (values <= rules.high)
    repeats = np.where(values == state.last, state.same + 1, _ZERO)
    same = np.where(finite, repeats, state.same)
    return believed & (same < rules.stuck_after), ValidityState(
        last=np.where(believed, values, state.last),
        since=np.where(believed, _ONE, state.since + 1),
        same=same.astype(np.float32),
    )


@dataclass(frozen=True)
class Modes:
    """telling: indices of the t exogenous channels that tell modes apart.

    setting, reach: float32 [modes, t]. center, scale: float32 [modes, channels] in raw units; those
    of an exogenous channel are the same in all modes. watched: 0 for exogenous channels [channels].
    """

    telling: npt.NDArray[np.intp]
    setting: Float32
    reach: Float32
    center: Float32
    scale: Float32
    watched: Float32


def channel_modes(channels: tuple[Channel, ...]) -> Modes | None:
    """Return the modes stored with the channels, or None if there are none."""
    count = max(len(channel.modes) for channel in channels)
    if not count:
        return None
    telling = [i for i, c in enumerate(channels) if c.exogenous and c.modes]
    places = [
        [(channel.center, channel.scale)] * count
        if channel.exogenous
        else [(place.center, place.scale) for place in channel.modes]
        for channel in channels
    ]
    settings = [[(place.center, place.scale) for place in channels[i].modes] for i in telling]
    center, scale = np.array(places, np.float32).transpose(2, 1, 0)
    setting, reach = np.array(settings, np.float32).transpose(2, 1, 0)
    watched = np.array([not channel.exogenous for channel in channels], np.float32)
    return Modes(np.array(telling, np.intp), setting, reach, center, scale, watched)


def nearest_mode(values: Float32, mask: Bools, modes: Modes) -> tuple[npt.NDArray[np.intp], Bools]:
    """Return the mode of each row of raw `values` [..., channels], and whether it is known.

    It is unknown where a setting is unusable.
    """
    settings = np.where(mask, values, _FAR)[..., np.newaxis, modes.telling]
    apart = (np.abs(settings - modes.setting) / modes.reach).max(axis=-1)
    return apart.argmin(axis=-1), np.asarray(apart.min(axis=-1) <= _ONE)


@dataclass(frozen=True)
class Scaler:
    """float32 centre and scale in raw units, [channels] or [rows, channels].

    modes: None if there are none. With modes, centre and scale are those of all modes together;
    `in_mode` gives those of a row's mode.
    """

    center: Float32
    scale: Float32
    modes: Modes | None = None


@dataclass(frozen=True)
class Seen:
    """The scaler for readings [..., channels] in their mode, and which of them are usable.

    known: [...], False where the mode is unknown.
    """

    scaler: Scaler
    mask: Bools
    known: Bools


def channel_scaler(channels: tuple[Channel, ...]) -> Scaler:
    """Return the scaler stored with the channels."""
    return Scaler(
        np.array([c.center for c in channels], np.float32),
        np.array([c.scale for c in channels], np.float32),
        channel_modes(channels),
    )


def in_mode(values: Float32, mask: Bools, scaler: Scaler) -> Seen:
    """Return scaler and mask for raw `values` [..., channels], of which `mask` are usable."""
    modes = scaler.modes
    if modes is None:
        return Seen(scaler, mask, _KNOWN)
    mode, known = nearest_mode(values, mask, modes)
    there = known[..., np.newaxis]
    own = Scaler(
        np.where(there, modes.center[mode], scaler.center),
        np.where(there, modes.scale[mode], scaler.scale),
    )
    return Seen(own, mask & (there | (modes.watched == 0)), known)


def standardise(values: Float32, mask: Bools, scaler: Scaler) -> Float32:
    """Standardise `values` [..., channels] and clip to ±100; 0 where `mask` is False."""
    scaled = (np.where(mask, values, scaler.center) - scaler.center) / scaler.scale
    return numerics.clip(scaled, VALUE_CLIP)


def restored(value: Float32, mask: Bools, scaler: Scaler) -> Float32:
    """Return the raw readings of standardised ones [..., channels], each in its mode.

    Meaningless where `mask` is False.
    """
    raw = (value * scaler.scale + scaler.center).astype(np.float32)
    if scaler.modes is None:
        return raw
    # A setting has the same centre and scale in every mode, so its raw value is right already.
    own = in_mode(raw, mask, scaler).scaler
    return (value * own.scale + own.center).astype(np.float32)
