"""Tier 3: a statistical detector that needs no model and shadows every sample.

Six plain views of each channel, each divided by the largest value clean rows ever showed (with a
margin): how far it is (range), how far on average (level), how fast it moves (change), how long it
leans to one side (CUSUM, Page 1954), how long it shows one and the same value, how long it is
missing. The score is the largest of them all, so its threshold is 1.
"""

from dataclasses import dataclass

import numpy as np

from edge_runtime.bundle import manifest
from edge_runtime.detector.alarm import AlarmState, update_alarm
from edge_runtime.detector.standardise import Scaler, channel_scaler, standardise
from edge_runtime.detector.validity import (
    Bools,
    ValidityState,
    check_validity,
    initial_validity,
    validity_rules,
)
from edge_runtime.record import Flag, Float32, Record, Sample

THRESHOLD = 1.0
CLEAR = 0.9
_ZERO = np.float32(0)
CUSUM_CEILING = np.float32(1.1)  # times its limit
VIEWS = ("range", "level", "change", "cusum", "same", "missing")


@dataclass(frozen=True)
class ViewState:
    """Running values of the views, each float32 [channels]."""

    level: Float32
    last: Float32
    up: Float32
    down: Float32
    same: Float32
    missing: Float32
    started: bool


def initial_views(channels: int) -> ViewState:
    """The state before the first sample."""
    zero = np.zeros(channels, np.float32)
    return ViewState(zero, zero, zero, zero, zero, zero, False)


def update_views(
    value: Float32,
    mask: Bools,
    smoothing: float,
    slack: float,
    cusum_ceiling: Float32,
    state: ViewState,
) -> tuple[Float32, ViewState]:
    """The six views [6, channels] of one standardised sample, and the next state.

    Where `mask` is False range and change are 0, missing counts on, the others keep their value.
    The CUSUM stops growing at `cusum_ceiling`, so that it finds back in bounded time when a long
    deviation is over.
    """
    usable = mask.astype(np.float32)
    moved = usable * (value - state.last) if state.started else np.zeros_like(value)
    level = state.level + np.float32(smoothing) * usable * (value - state.level)
    lean = np.float32(slack) * usable
    up = np.minimum(np.maximum(state.up + usable * value - lean, _ZERO), cusum_ceiling)
    down = np.minimum(np.maximum(state.down - usable * value - lean, _ZERO), cusum_ceiling)
    repeats = mask & (moved == 0) & state.started
    same = np.where(repeats, state.same + 1, np.where(mask, np.float32(0), state.same))
    missing = np.where(mask, np.float32(0), state.missing + 1)
    views = np.stack(
        [np.abs(value) * usable, np.abs(level), np.abs(moved), np.maximum(up, down), same, missing]
    ).astype(np.float32)
    last = np.where(mask, value, state.last)
    return views, ViewState(level, last, up, down, views[4], views[5], True)


class Fallback:
    """The shadow detector as an object; `step` answers every sample, marked tier 3."""

    def __init__(self, source: manifest.Manifest, model_hash: str) -> None:
        constants = source.fallback
        self._names = source.channel_names
        self._alarm = source.alarm
        self._model_hash = model_hash
        self._scaler: Scaler = channel_scaler(source.channels)
        self._rules = validity_rules(source.channels, source.period)
        self._constants = constants
        self._limits = np.array([getattr(constants, view) for view in VIEWS], np.float32)
        self._cusum_ceiling = CUSUM_CEILING * self._limits[VIEWS.index("cusum")]
        self._scored = np.array([not c.exogenous for c in source.channels], np.float32)
        self._validity: ValidityState = initial_validity(len(self._names))
        self._views = initial_views(len(self._names))
        self._alarm_state = AlarmState()

    def step(self, sample: Sample) -> Record:
        """The fallback's record for `sample`: tier 3, flag FALLBACK, never valid."""
        mask, self._validity = check_validity(sample.values, self._rules, self._validity)
        value = standardise(sample.values, mask, self._scaler)
        views, self._views = update_views(
            value,
            mask,
            self._constants.smoothing,
            self._constants.slack,
            self._cusum_ceiling,
            self._views,
        )
        shares = (views / self._limits).max(axis=0) * self._scored
        score = float(shares.max())
        self._alarm_state = update_alarm(
            score,
            THRESHOLD,
            CLEAR,
            self._alarm.m,
            self._alarm.n,
            self._alarm.clear_after,
            self._alarm_state,
        )
        return Record(
            index=sample.index,
            time=sample.time,
            tier=3,
            flags=Flag.FALLBACK,
            valid=False,
            score=score,
            threshold=THRESHOLD,
            alarm=self._alarm_state.active,
            masked=tuple(n for n, ok in zip(self._names, mask, strict=True) if not ok),
            imputed=(),
            blamed=self._blamed(shares) if self._alarm_state.active else (),
            model=self._model_hash,
        )

    def _blamed(self, shares: Float32) -> tuple[str, ...]:
        order = np.argsort(-shares, kind="stable")[:3]
        return tuple(self._names[i] for i in order if shares[i] >= shares[order[0]] / 2)
