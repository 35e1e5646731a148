"""Operating modes: found in the exogenous channels, and used if they improve the forecast.

A setting has levels if neighbouring readings are separated by gaps of more than `GAP` of its range.
The modes are the combinations of levels of all settings that occur. A channel without such gaps,
such as an outside temperature, distinguishes no modes.

Modes do not help every machine. If readings follow a set-point slowly, a change of mode moves the
centre at once and the readings later, and the forecast is wrong in between. So the linear forecast
decides, on rows that it was not fitted on: modes are used if the median ratio of the squared errors
of the channels, with modes over without, in the same units, is below one half.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Channel, Place
from edge_runtime.bundle.manifest_rules import MOST_MODES
from edge_runtime.detector.inputs import channel_scaler, in_mode, is_present
from edge_runtime.learning.highway import Highway, fit_highway
from edge_runtime.learning.linear import all_but, cut_folds
from edge_runtime.learning.prepare import Rows, describe_channels, fit_rows, standard_rows
from edge_runtime.learning.recording import Recording
from edge_runtime.learning.settings import Settings
from edge_runtime.learning.thinning import fitted_rows

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Channels = tuple[Channel, ...]

GAP = 0.05
FEWEST_ROWS = 50  # of a level and of a mode: too few for centre and scale
MOST_OUTSIDE = 0.02  # share of the rows that may be in no mode
LARGEST_ERROR = 0.5
ORDER = 5  # lags of the forecast that decides


@dataclass(frozen=True)
class Levels:
    """The levels of one setting. of_row: [n] number of the level, -1 where there is none.

    places: of each level, the setting and its reach; empty where the setting has no levels.
    """

    of_row: Ints
    places: tuple[Place, ...]


def channels_of(
    recordings: Sequence[Recording], settings: Settings, period: float | None
) -> Channels:
    """Return the channels of clean `recordings`: rules of `settings`, scaler, operating modes."""
    values = [recording.values for recording in recordings]
    return with_modes(describe_channels(recordings, settings), values, period)


def modes_sentence(channels: Channels) -> str:
    """Return how many operating modes there are and what tells them apart; empty without modes."""
    count = max(len(channel.modes) for channel in channels)
    named = ", ".join(c.name for c in channels if c.exogenous and c.modes)
    if not count:
        return ""
    return f"{count} operating modes, told apart by {named}; each has a scaler of its own"


def with_modes(channels: Channels, recordings: Sequence[Float32], period: float | None) -> Channels:
    """Return `channels` with the operating modes of clean raw `recordings`, or unchanged.

    recordings: [n, channels] each.
    """
    modal = find_modes(channels, np.concatenate(recordings))
    if modal is channels:
        return channels
    rows = fitted_rows(recordings)
    without, with_them = (squared_errors(rows, kind, period) for kind in (channels, modal))
    compared = np.array([not channel.exogenous for channel in channels]) & (without > 0)
    ratio = with_them[compared] / without[compared]
    return modal if len(ratio) and np.median(ratio) < LARGEST_ERROR else channels


def find_modes(channels: Channels, rows: Float32) -> Channels:
    """Return `channels` with the modes of raw `rows` [n, channels]; unchanged without modes."""
    settings = {i: find_levels(rows[:, i]) for i, c in enumerate(channels) if c.exogenous}
    usable = {i: levels for i, levels in settings.items() if levels.places}
    if not usable:
        return channels
    together = np.stack([levels.of_row for levels in usable.values()], axis=1)
    kinds, mode, counts = np.unique(together, axis=0, return_inverse=True, return_counts=True)
    kept = np.flatnonzero((counts >= FEWEST_ROWS) & (kinds >= 0).all(axis=1))
    pieces = [rows[mode.ravel() == k] for k in kept]
    inside = sum(map(len, pieces))
    readable = all(is_present(piece).any(axis=0).all() for piece in pieces)
    if not 2 <= len(kept) <= MOST_MODES or inside < (1 - MOST_OUTSIDE) * len(rows) or not readable:
        return channels
    chosen = {i: kinds[kept, column] for column, i in enumerate(usable)}
    places = {i: [usable[i].places[level] for level in chosen[i]] for i in usable}
    return tuple(_placed(channels, pieces, places))


def find_levels(setting: Float32) -> Levels:
    """Find the levels of `setting` [n] in raw units."""
    present = is_present(setting)
    seen = np.unique(setting[present]).astype(np.float64)
    gaps = np.flatnonzero(np.diff(seen) > GAP * np.ptp(seen)) if len(seen) else np.zeros(0, int)
    of_row = np.where(present, np.searchsorted((seen[gaps] + seen[gaps + 1]) / 2, setting), -1)
    numbers, counts = np.unique(of_row[present], return_counts=True)
    often = numbers[counts >= FEWEST_ROWS]
    if len(often) < 2:
        return Levels(np.where(present, 0, -1), ())
    members = [setting[of_row == number].astype(np.float64) for number in often]
    middles = np.array([np.median(member) for member in members])
    half = np.pad(np.diff(middles) / 2, 1, constant_values=np.inf)
    widest = [np.abs(m - middle).max() for m, middle in zip(members, middles, strict=True)]
    reach = np.maximum(np.minimum(half[:-1], half[1:]), widest)
    places = tuple(map(Place, middles.tolist(), reach.tolist()))
    numbered = np.searchsorted(often, of_row)
    return Levels(np.where(np.isin(of_row, often), numbered, -1), places)


def squared_errors(
    recordings: Sequence[Float32], channels: Channels, period: float | None
) -> Float64:
    """Return mean squared errors [channels] of the linear forecast, cross-fitted over folds.

    Units: scales of all modes together.
    """
    rows = standard_rows(recordings, channels, period)
    units = _units(recordings, rows, channels)
    values, masks, scales = map(cut_folds, (rows.values, rows.masks, units))
    total, count = np.zeros(len(channels)), np.zeros(len(channels))
    for number, fold in enumerate(zip(values, masks, scales, strict=True)):
        highway = fit_highway(all_but(values, number), all_but(masks, number), ORDER)
        for value, mask, unit in zip(*fold, strict=True):
            usable = mask[ORDER:]
            total += np.square(_errors(highway, value) * unit[ORDER:] * usable).sum(axis=0)
            count += usable.sum(axis=0)
    return np.asarray(total / np.maximum(count, 1))


def _units(recordings: Sequence[Float32], rows: Rows, channels: Channels) -> list[Float32]:
    """Return the scale of each reading's mode, in scales of all modes together."""
    scaler = channel_scaler(channels)
    return [
        np.broadcast_to(in_mode(raw, mask > 0, scaler).scaler.scale / scaler.scale, raw.shape)
        for raw, mask in zip(recordings, rows.masks, strict=True)
    ]


def _errors(highway: Highway, value: Float32) -> Float32:
    """Return the forecast errors [n - ORDER, channels] of a standardised recording."""
    count = max(len(value) - ORDER, 0)
    lags = [value[ORDER - 1 - lag :][:count] for lag in range(ORDER)]
    errors: Float32 = value[ORDER:] - np.concatenate(lags, axis=1) @ highway.matrix()
    return errors


def _placed(
    channels: Channels, pieces: Sequence[Float32], settings: Mapping[int, Sequence[Place]]
) -> Iterator[Channel]:
    """Yield `channels` with their places in the modes; `pieces` are the rows of each mode."""
    scalers = [fit_rows(piece) for piece in pieces]
    for i, channel in enumerate(channels):
        if channel.exogenous:
            yield replace(channel, modes=tuple(settings.get(i, ())))
        else:
            places = (Place(float(s.center[i]), float(s.scale[i])) for s in scalers)
            yield replace(channel, modes=tuple(places))
