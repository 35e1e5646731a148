"""Raw units to standardised units and back: centre 0, scale 1, bounded.

Where there are operating modes, the channels that are not exogenous have centre and scale of the
row's mode. In an unknown one none of their readings is usable: what the constants of another mode
would make of them is nothing to judge by.
"""

from dataclasses import dataclass

import numpy as np

from edge_runtime import numerics
from edge_runtime.bundle.manifest import Channel
from edge_runtime.detector.modes import Modes, channel_modes, nearest_mode
from edge_runtime.detector.validity import Bools
from edge_runtime.record import Float32

# Beyond this a reading tells nothing more; the bound keeps every later square finite.
VALUE_CLIP = np.float32(100)
_KNOWN = np.array(True)


@dataclass(frozen=True)
class Scaler:
    """float32 centre and scale in raw units, [channels], or a row for each of [rows, channels].

    modes: None where there are none. Where there are, centre and scale are those of all modes
    together, until `in_mode` has found the mode.
    """

    center: Float32
    scale: Float32
    modes: Modes | None = None


@dataclass(frozen=True)
class Seen:
    """How readings [..., channels] are seen in their mode.

    mask: the usable ones. known: [...], False where the mode is not.
    """

    scaler: Scaler
    mask: Bools
    known: Bools


def channel_scaler(channels: tuple[Channel, ...]) -> Scaler:
    """The scaler stored with the channels."""
    return Scaler(
        np.array([c.center for c in channels], np.float32),
        np.array([c.scale for c in channels], np.float32),
        channel_modes(channels),
    )


def in_mode(values: Float32, mask: Bools, scaler: Scaler) -> Seen:
    """How raw `values` [..., channels], of which those of `mask` are usable, are seen."""
    modes = scaler.modes
    if modes is None:
        return Seen(scaler, mask, _KNOWN)
    mode, known = nearest_mode(values, mask, modes)
    there = known[..., np.newaxis]
    found = Scaler(
        np.where(there, modes.center[mode], scaler.center),
        np.where(there, modes.scale[mode], scaler.scale),
    )
    return Seen(found, mask & (there | (modes.watched == 0)), known)


def standardise(values: Float32, mask: Bools, scaler: Scaler) -> Float32:
    """Standardised `values` [..., channels], 0 where `mask` is False, clipped to ±100."""
    scaled = (np.where(mask, values, scaler.center) - scaler.center) / scaler.scale
    return numerics.clip(scaled, VALUE_CLIP)


def restored(value: Float32, mask: Bools, scaler: Scaler) -> Float32:
    """Raw readings of standardised ones [..., channels], each in its mode.

    Meaningless where `mask` is False.
    """
    raw = (value * scaler.scale + scaler.center).astype(np.float32)
    if scaler.modes is None:
        return raw
    # A setting has the same centre and scale in every mode, so it is known by now.
    found = in_mode(raw, mask, scaler).scaler
    return (value * found.scale + found.center).astype(np.float32)
