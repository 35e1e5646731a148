"""Clean scores of a machine that is calmer at some times than at others, simulated.

Eight channels err by a Student t variable with 6 degrees of freedom; the largest error is scaled
by a volatility that wanders (its logarithm is a first-order autoregression) and smoothed as the
device smooths its score. Volatility makes large scores come in clusters, which is the difficulty of
every threshold.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

CHANNELS, FREEDOM = 8, 6
ATTACK, DECAY = 0.2, 0.1  # as the manifest's score has them, unless its errors are white
BURN_IN = 4000  # seconds


@dataclass(frozen=True)
class Process:
    """A volatility whose logarithm has this deviation and forgets 63 % in `memory` seconds."""

    name: str
    memory: float
    deviation: float


PROCESSES = (
    Process("volatility of 50 s", 50, 0.25),
    Process("volatility of 10 min", 600, 0.2),
    Process("volatility of 3 h", 10800, 0.2),
)


def simulate(process: Process, seconds: int, recordings: int, seed: int) -> Float32:
    """Smoothed scores [recordings, seconds], one a second."""
    rng = np.random.default_rng(seed)
    keep = np.float32(np.exp(-1 / process.memory))
    kick = np.float32(process.deviation * np.sqrt(1 - keep**2))
    log_volatility = rng.normal(0, process.deviation, recordings).astype(np.float32)
    smooth = np.full(recordings, 2.0, np.float32)
    scores = np.empty((seconds, recordings), np.float32)
    for second in range(-BURN_IN, seconds):
        log_volatility = keep * log_volatility + kick * rng.standard_normal(
            recordings, dtype=np.float32
        )
        raw = _largest_error(rng, recordings) * np.exp(log_volatility)
        smooth += np.where(raw > smooth, np.float32(ATTACK), np.float32(DECAY)) * (raw - smooth)
        if second >= 0:
            scores[second] = smooth
    return np.ascontiguousarray(scores.T)


def _largest_error(rng: np.random.Generator, recordings: int) -> Float32:
    """Largest of the channels' |t| [recordings]: normal over the root of a mean square."""
    normal = rng.standard_normal((CHANNELS, recordings), dtype=np.float32)
    # A chi-square variable with 2 k degrees of freedom is twice a gamma variable of shape k.
    square = rng.standard_gamma(FREEDOM / 2, (CHANNELS, recordings), dtype=np.float32)
    ratio = normal**2 / (square / np.float32(FREEDOM / 2))
    return np.sqrt(ratio.max(axis=0))
