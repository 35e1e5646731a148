"""The limits of the fallback: the largest value of each of its views over clean rows.

Each piece of clean rows goes through the fallback's own views from a fresh state. Many pieces go
through them at once, bit for bit as one by one.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle import manifest as m
from edge_runtime.bundle.manifest import UNLIMITED
from edge_runtime.detector.fallback import VIEWS, ViewState, initial_views, update_views
from edge_runtime.detector.inputs import channel_scaler, restored, standardise
from edge_runtime.learning.decimals import vector
from edge_runtime.learning.rollout import Rollout
from edge_runtime.record import Float32

Bools = npt.NDArray[np.bool_]

SMOOTHING, SLACK = 0.1, 1.0
MARGIN = 1.5  # times the largest value of clean rows
SMALLEST = 1e-3
FEWEST_SAME, FEWEST_MISSING = 32, 48
_AT_ONCE = 2_000_000  # readings; 30 MB with what is computed of them


class LargestViews:
    """The largest value of each view over the rollouts that were added."""

    def __init__(self, channels: Sequence[m.Channel]) -> None:
        self._scaler, count = channel_scaler(tuple(channels)), len(channels)
        self._largest = np.full((len(VIEWS), count), SMALLEST, np.float32)
        self._waiting: list[tuple[Float32, Bools]] = []

    def add(self, rollout: Rollout) -> None:
        """Take the readings of `rollout`."""
        self._waiting.append((self._without_modes(rollout), rollout.mask > 0))
        if sum(value.size for value, _ in self._waiting) >= _AT_ONCE:
            self._work_off()

    def found(self) -> Float32:
        """Return the largest values [views, channels], at least 0.001."""
        self._work_off()
        return self._largest

    def _work_off(self) -> None:
        pieces = sorted(self._waiting, key=lambda piece: -len(piece[0]))
        self._waiting = []
        while pieces:
            count = max(_AT_ONCE // max(pieces[0][0].size, 1), 1)
            self._largest = np.maximum(self._largest, _largest(pieces[:count]))
            pieces = pieces[count:]

    def _without_modes(self, rollout: Rollout) -> Float32:
        """Return the readings standardised without operating modes, as in the fallback."""
        if self._scaler.modes is None:
            return rollout.value.copy()  # a view would keep the whole rollout
        usable = rollout.mask > 0
        return standardise(restored(rollout.value, usable, self._scaler), usable, self._scaler)


def _largest(pieces: Sequence[tuple[Float32, Bools]]) -> Float32:
    """Return the largest values [views, channels] over `pieces`, the longest first."""
    lengths = [len(value) for value, _ in pieces]
    channels = pieces[0][0].shape[1]
    values = np.zeros((max(lengths), len(pieces), channels), np.float32)
    masks = np.zeros(values.shape, bool)
    for number, (value, mask) in enumerate(pieces):
        values[: len(value), number], masks[: len(mask), number] = value, mask
    unlimited = np.full(channels, np.inf, np.float32)
    going = np.searchsorted(-np.array(lengths), -np.arange(len(values)))  # pieces with such a row
    largest, state = np.zeros((len(VIEWS), channels), np.float32), initial_views(channels)
    for value, mask, count in zip(values, masks, going.tolist(), strict=True):
        if count < len(state.level) and state.started:
            state = _of_first(count, state)
        seen, state = update_views(value[:count], mask[:count], SMOOTHING, SLACK, unlimited, state)
        largest = np.maximum(largest, seen.max(axis=1))
    return largest


def _of_first(count: int, state: ViewState) -> ViewState:
    """Return the state of the first `count` pieces."""
    names = ("level", "last", "up", "down", "same", "missing")
    return replace(state, **{name: getattr(state, name)[:count] for name in names})


def with_fallback_limits(draft: m.Manifest, largest: Float32) -> m.Manifest:
    """Return `draft` with limits a margin above the `largest` values [views, channels]."""
    limits = dict(zip(VIEWS, MARGIN * largest, strict=True))
    # A channel that is constant in the recording may stay constant.
    constant = largest[VIEWS.index("change")] <= SMALLEST
    limits["same"] = np.where(constant, UNLIMITED, np.maximum(limits["same"], FEWEST_SAME))
    limits["missing"] = np.maximum(limits["missing"], FEWEST_MISSING)
    fallback = m.FallbackLimits(SMOOTHING, SLACK, **{n: vector(v) for n, v in limits.items()})
    return replace(draft, fallback=fallback)
