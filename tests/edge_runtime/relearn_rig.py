"""A small machine with a daily rhythm, for tests of learning again."""

import numpy as np

PERIOD = 240.0
DAY = round(86400 / PERIOD)
NAMES = ("load", "heat", "vibration")
START = 86400.0 * 20_000


def machine(days: int, seed: int) -> np.ndarray:
    """Healthy rows [n, 3]."""
    rng, count = np.random.default_rng(seed), days * DAY
    load = np.sin(2 * np.pi * np.arange(count) / DAY) + 0.2 * rng.normal(size=count)
    heat = 2 * load + 0.3 * rng.normal(size=count)
    return np.stack([load, heat, rng.normal(size=count)], axis=1).astype(np.float32)
