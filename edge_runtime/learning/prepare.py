"""From recordings to standardised rows.

The scaler is fitted with statistics that a few wild readings cannot move; mask and scaling are the
runtime's own arithmetic.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Channel
from edge_runtime.detector.inputs import (
    ValidityRules,
    channel_scaler,
    check_validity,
    in_mode,
    initial_validity,
    is_present,
    standardise,
    validity_rules,
)
from edge_runtime.learning.recording import Recording
from edge_runtime.learning.settings import Settings
from edge_runtime.learning.split import Split, clean_parts
from edge_runtime.record import Float32

CENTRAL = (0.005, 0.995)
DEAD_SPREAD = 1e-6
DEAD_SCALE = 0.01
SMALLEST_SCALE = 1e-6
_LIMITS = ("low", "high", "max_step", "stuck_after")  # of `ValidityRules`
FAR = 5.0  # channel scales between the medians of a held-out part and of the training part


@dataclass(frozen=True)
class Rows:
    """Standardised recordings [n, channels], 0 where unusable, and their masks (0 or 1)."""

    values: tuple[Float32, ...]
    masks: tuple[Float32, ...]

    @property
    def total(self) -> int:
        """Number of rows over all recordings."""
        return sum(len(v) for v in self.values)

    def longer_than(self, length: int) -> "Rows":
        """Return only the recordings that have at least `length` rows."""
        keep = [i for i, v in enumerate(self.values) if len(v) >= length]
        return Rows(tuple(self.values[i] for i in keep), tuple(self.masks[i] for i in keep))


def unread(recordings: Sequence[Recording]) -> list[str]:
    """Return the channels without any reading in `recordings`."""
    read = np.any([np.isfinite(r.values).any(axis=0) for r in recordings], axis=0)
    return [name for name, there in zip(recordings[0].channels, read, strict=True) if not there]


def describe_channels(train: Sequence[Recording], settings: Settings) -> tuple[Channel, ...]:
    """Return channels with the scaler fitted on `train` and the rules of `settings`.

    Every channel must have a reading (see `unread`).
    """
    channels = tuple(
        Channel(
            name=name,
            unit=settings.channels[name].unit,
            center=0.0,
            scale=1.0,
            low=settings.channels[name].low,
            high=settings.channels[name].high,
            max_rate=settings.channels[name].max_rate,
            stuck_after=settings.channels[name].stuck_after,
            exogenous=settings.channels[name].exogenous,
        )
        for name in train[0].channels
    )
    return scaled(channels, [recording.values for recording in train])


def scaled(channels: tuple[Channel, ...], recordings: Sequence[Float32]) -> tuple[Channel, ...]:
    """Return `channels` with a scaler fitted on raw `recordings` [n, channels], without modes."""
    scaler = fit_rows(np.concatenate(recordings))
    return tuple(
        replace(channel, center=float(scaler.center[i]), scale=float(scaler.scale[i]), modes=())
        for i, channel in enumerate(channels)
    )


def standard_rows(
    recordings: Sequence[Float32], channels: tuple[Channel, ...], period: float | None
) -> Rows:
    """Mask and standardise raw recordings [n, channels] as the runtime does, sample by sample."""
    rules, scaler = validity_rules(channels, period), channel_scaler(channels)
    values, masks = [], []
    for recording in recordings:
        seen = in_mode(recording, usable_readings(recording, rules), scaler)
        values.append(standardise(recording, seen.mask, seen.scaler))
        masks.append(seen.mask.astype(np.float32))
    return Rows(tuple(values), tuple(masks))


def usable_readings(rows: Float32, rules: ValidityRules) -> npt.NDArray[np.bool_]:
    """Return `check_validity` of each raw row [n, channels], from the state before the first one.

    A channel in which all readings are believed needs no state: its last usable reading is the one
    before. Only the other channels are checked row by row.
    """
    if rules.none:
        return is_present(rows)
    before = np.concatenate([np.full_like(rows[:1], np.nan), rows[:-1]])
    with np.errstate(invalid="ignore"):  # infinities, of channels that are checked row by row
        far = np.abs(rows - before) > rules.max_step
    believed = is_present(rows) & ~far & (rows >= rules.low) & (rows <= rules.high)
    usable = _repeats(rows == before) < rules.stuck_after
    rest = np.flatnonzero(~believed.all(axis=0))
    limits = {name: getattr(rules, name)[rest] for name in _LIMITS}
    partial, state = ValidityRules(**limits, none=False), initial_validity(len(rest))
    for row, readings in enumerate(rows[:, rest] if len(rest) else ()):
        usable[row, rest], state = check_validity(readings, partial, state)
    return usable


def _repeats(same: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Return how many of `same` [n, channels] in a row, up to and with each, are True."""
    rows = np.arange(len(same))[:, np.newaxis]
    others: npt.NDArray[np.intp] = np.maximum.accumulate(np.where(same, -1, rows), axis=0)
    return rows - others


def fingerprint(recordings: Sequence[Recording]) -> str:
    """Return the SHA-256 over names and values of all recordings, in order."""
    digest = hashlib.sha256()
    for recording in recordings:
        digest.update("\0".join(recording.channels).encode())
        digest.update(np.ascontiguousarray(recording.values, dtype="<f4").tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class FittedScaler:
    """center, scale: float32 [channels] in raw units; scale is always greater than 0."""

    center: Float32
    scale: Float32

    def transform(self, values: Float32) -> Float32:
        """Standardise raw values [..., channels]; NaN stays NaN."""
        return (values - self.center) / self.scale

    def inverse(self, values: Float32) -> Float32:
        """Convert standardised values [..., channels] to raw units."""
        return values * self.scale + self.center


def fit_scaler(recordings: Iterable[Recording]) -> FittedScaler:
    """Fit on the rows of all recordings; see `fit_rows`."""
    return fit_rows(np.concatenate([recording.values for recording in recordings]))


def fit_rows(rows: Float32) -> FittedScaler:
    """Fit on `rows` [n, channels]; readings that are not finite are ignored.

    center is the median. scale is the standard deviation of the central 99 % of the readings, or of
    all readings if the central ones are constant. A dead channel, with a spread below 1e-6 of its
    median (the resolution of float32), is still watched: its scale is 1 % of the median, at least
    1e-6 raw units. Raises ValueError for a channel without any reading.
    """
    values = rows.astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    if np.isnan(values).all(axis=0).any():
        raise ValueError("a channel has no finite reading")
    center = np.nanmedian(values, axis=0)
    spread = _deviation(values)
    dead = spread <= DEAD_SPREAD * np.abs(center)
    scale = np.where(dead, DEAD_SCALE * np.abs(center), spread)
    # Keeps a deviation from a constant zero within the range of float32.
    scale = np.maximum(scale, SMALLEST_SCALE)
    return FittedScaler(center.astype(np.float32), scale.astype(np.float32))


def _deviation(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, high = np.nanquantile(values, CENTRAL, axis=0)
    central = np.nanstd(np.clip(values, low, high), axis=0)
    return np.where(central > 0, central, np.nanstd(values, axis=0))


def unlike_training(split: Split, channels: tuple[Channel, ...]) -> list[str]:
    """Warn of held-out parts far from all training rows; their thresholds will be poor."""
    scaler = channel_scaler(channels)
    sentences = []
    for part in ("calibrate", "test"):
        rows = [clean.values for r in getattr(split, part) for clean in clean_parts(r, 0)]
        if not rows:
            continue
        joined = np.concatenate(rows)
        read = np.isfinite(joined).any(axis=0)
        distance = np.zeros(len(channels))
        middle = np.nanmedian(joined[:, read], axis=0)
        distance[read] = np.abs(middle - scaler.center[read]) / scaler.scale[read]
        worst = int(distance.argmax())
        if distance[worst] > FAR:
            sentences.append(
                f"the rows to {part} are unlike those to train ({channels[worst].name} is "
                f"{distance[worst]:.0f} scales away); record until every normal state of the "
                "machine has occurred several times"
            )
    return sentences
