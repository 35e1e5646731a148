"""Operating modes that exogenous channels give.

An engine on the ground and the same engine at cruise are two machines to every sensor. Where a
recording shows settings that tell such modes apart (`train.modes`), mode k has a setting c_ki and a
reach r_ki in each channel i that does, and

    apart_k = max_i |v_i - c_ki| / r_ki        mode of a row: the smallest, known where it is <= 1

The other channels are standardised with centre and scale of the mode (`detector.standardise`).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Channel
from edge_runtime.detector.validity import Bools
from edge_runtime.record import Float32

_ONE, _FAR = np.float32(1), np.float32(np.inf)


@dataclass(frozen=True)
class Modes:
    """telling: indices of the exogenous channels that tell modes apart, t of them.

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
    """The modes stored with the channels, None where there are none."""
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
    """The mode of each of `values` [..., channels] in raw units, and whether it is near enough.

    It is not where a setting is unusable.
    """
    settings = np.where(mask, values, _FAR)[..., np.newaxis, modes.telling]
    apart = (np.abs(settings - modes.setting) / modes.reach).max(axis=-1)
    return apart.argmin(axis=-1), np.asarray(apart.min(axis=-1) <= _ONE)
