"""How long a healthy reading may rest: what a stuck sensor is told by."""

import numpy as np

from edge_runtime.learning.diagnosis.clean_behaviour import (
    NEVER,
    REPEAT_MARGIN,
    Stretch,
    clean_behaviour,
)

ROWS = 900


def longest_repeat(*channels: np.ndarray) -> list[float]:
    reading = np.stack(channels, axis=1).astype(np.float32)
    pieces = [Stretch(reading, np.ones_like(reading))]
    found, _ = clean_behaviour(pieces, np.zeros(len(channels), bool))
    return [float(limit) for limit in found.longest_repeat]


def test_a_reading_may_rest_for_longer_than_it_ever_did() -> None:
    rng = np.random.default_rng(0)
    busy, resting = rng.normal(size=ROWS), rng.normal(size=ROWS)
    resting[100:121] = resting[100]  # twenty repeats
    assert longest_repeat(busy, resting) == [1, 20 * REPEAT_MARGIN + 1]


def test_a_channel_that_never_moved_may_rest_for_ever() -> None:
    rng = np.random.default_rng(0)
    moved_once = np.zeros(ROWS)
    moved_once[ROWS // 2] = 1  # the other thirds are a single rest each
    limits = longest_repeat(rng.normal(size=ROWS), np.zeros(ROWS), moved_once)
    assert limits == [1, np.float32(NEVER), np.float32(NEVER)]
