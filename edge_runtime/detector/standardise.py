"""Raw units to standardised units and back to nothing else: centre 0, scale 1, bounded."""

from dataclasses import dataclass

import numpy as np

from edge_runtime import numerics
from edge_runtime.bundle.manifest import Channel
from edge_runtime.detector.validity import Bools
from edge_runtime.record import Float32

# Beyond this a reading tells nothing more; the bound keeps every later square finite.
VALUE_CLIP = np.float32(100)


@dataclass(frozen=True)
class Scaler:
    """float32 [channels] centre and scale in raw units."""

    center: Float32
    scale: Float32


def channel_scaler(channels: tuple[Channel, ...]) -> Scaler:
    """The scaler stored with the channels."""
    return Scaler(
        np.array([c.center for c in channels], np.float32),
        np.array([c.scale for c in channels], np.float32),
    )


def standardise(values: Float32, mask: Bools, scaler: Scaler) -> Float32:
    """Standardised `values` [..., channels], 0 where `mask` is False, clipped to ±100."""
    scaled = (np.where(mask, values, scaler.center) - scaler.center) / scaler.scale
    return numerics.clip(scaled, VALUE_CLIP)
