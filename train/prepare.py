"""From recordings to standardised rows, with the runtime's own mask and scaler arithmetic."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_runtime.bundle.manifest import Channel
from edge_runtime.detector.inputs import (
    channel_scaler,
    check_validity,
    in_mode,
    initial_validity,
    standardise,
    validity_rules,
)
from edge_runtime.errors import GruardError
from train.batches import Rows
from train.recording import Recording
from train.scaler import fit_rows
from train.settings import Settings


def require_readings(train: Sequence[Recording]) -> None:
    """GruardError naming the first channel without any reading in `train`."""
    readable = np.any([np.isfinite(r.values).any(axis=0) for r in train], axis=0)
    if not readable.all():
        name = train[0].channels[int(np.argmin(readable))]
        raise GruardError(
            f"{train[0].name}: channel '{name}' has no reading in the rows to train on; "
            "remove its column or record it for longer"
        )


def describe_channels(train: Sequence[Recording], settings: Settings) -> tuple[Channel, ...]:
    """Channels with the scaler fitted on `train` and the rules of `settings`.

    Every channel must have a reading (see `require_readings`).
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


def scaled(channels: tuple[Channel, ...], recordings: Sequence[np.ndarray]) -> tuple[Channel, ...]:
    """`channels` with the scaler fitted on raw `recordings` [n, channels], without modes."""
    scaler = fit_rows(np.concatenate(recordings))
    return tuple(
        replace(channel, center=float(scaler.center[i]), scale=float(scaler.scale[i]), modes=())
        for i, channel in enumerate(channels)
    )


def standard_rows(
    recordings: Sequence[np.ndarray], channels: tuple[Channel, ...], period: float | None
) -> Rows:
    """Raw recordings [n, channels] as the runtime would see them, sample by sample."""
    rules, scaler = validity_rules(channels, period), channel_scaler(channels)
    values, masks = [], []
    for recording in recordings:
        state, usable = initial_validity(len(channels)), []
        for row in recording:
            mask, state = check_validity(row, rules, state)
            usable.append(mask)
        seen = in_mode(recording, np.array(usable, bool).reshape(recording.shape), scaler)
        values.append(standardise(recording, seen.mask, seen.scaler))
        masks.append(seen.mask.astype(np.float32))
    return Rows(tuple(values), tuple(masks))


def fingerprint(recordings: Sequence[Recording]) -> str:
    """SHA-256 over names and values of all recordings, in order."""
    digest = hashlib.sha256()
    for recording in recordings:
        digest.update("\0".join(recording.channels).encode())
        digest.update(np.ascontiguousarray(recording.values, dtype="<f4").tobytes())
    return digest.hexdigest()
