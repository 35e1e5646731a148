"""Tiers 1 and 2: the symptoms of a failing model, and its bounded recovery.

Tier 1 trusts the gate. When the gate can no longer be right (one channel closed for too long, half
of them closed, a gate that contradicts the evidence), tier 2 lets the recurrent unit run on its own
forecasts for a bounded time and then holds the gate open until the state follows the signal again.
If that does not help, the state is reset; if that does not help either, or the state is visibly
broken, the model is distrusted and tier 3 answers.

Without these bounds a gate that has closed on a new operating point would never open again.

A row with most of its readings missing says nothing about the gate. The state bridges up to
`bridge` of them in a row with its own forecasts; tier and counters do not change. If an exogenous
channel moved meanwhile, the next forecast lacks the machine's response, so the gate is held open
for one row, in tier 1. A longer run is an outage: a free run, then tier 3 when the free run has
reached its bound, and a re-synchronisation at its end, which is no failure of the model.
"""

import enum
from dataclasses import dataclass, replace

import numpy as np

from edge_runtime.bundle.manifest import Tiers
from edge_runtime.record import Float32

CLOSED_BELOW = np.float32(0.5)
TINY_INNOVATION = np.float32(0.5)  # in units of the innovation scale
HUGE_INNOVATION = np.float32(8.0)
RESYNCS_BEFORE_RESET = 2
RETURNS_PER_HOUR = 3


class Phase(enum.Enum):
    """What drives the recurrent state."""

    GATE = "gate"
    FREE_RUN = "free run"
    RESYNC = "re-synchronising"


@dataclass(frozen=True)
class TierState:
    """Counters of the tiers; the vectors are float32 [channels]."""

    closed: Float32
    contradicted: Float32
    forced: Float32  # samples for which a channel's gate is still held open
    phase: Phase = Phase.GATE
    left: int = 0  # samples left of the phase
    gap: int = 0  # samples in a row with most readings missing
    outage: bool = False  # missing readings caused the phase, not a failure of the gate
    lost: int = 0  # samples in a row with half the channels closed
    blind: bool = False  # the free run of an outage has reached its bound
    warmup: int = 0  # samples until the state has settled
    frozen: int = 0
    distrusted: bool = False
    agreed: int = 0
    resyncs: tuple[int, ...] = ()
    resets: tuple[int, ...] = ()
    returns: tuple[int, ...] = ()
    index: int = 0  # samples seen


@dataclass(frozen=True)
class Observation:
    """Results of one step. Vectors are [channels]; innovation in units of its scale, |e| <= 8."""

    mask: Float32
    gate: Float32
    innovation: Float32
    watched: Float32  # 0 for exogenous channels
    gated: Float32  # 1 where the gate decides: watched channels of a model that has a gate
    saturated: float  # share of the state at the edge of its range
    moved: bool  # the state changed
    input_moved: bool


def initial_tiers(channels: int, warmup: int) -> TierState:
    """Return the state before the first sample, which begins with the warm-up."""
    zero = np.zeros(channels, np.float32)
    return TierState(zero, zero, zero, warmup=warmup)


def held_open(state: TierState) -> Float32:
    """Return 1 where the gate must be held open in the next step, else 0 [channels]."""
    if state.phase is Phase.RESYNC:
        return np.ones_like(state.forced)
    return (state.forced > 0).astype(np.float32)


def tier_of(state: TierState) -> int:
    """Return the tier of a record made in `state`."""
    if state.distrusted or state.warmup > 0 or state.blind:
        return 3
    if state.phase is not Phase.GATE or bool((state.forced > 0).any()):
        return 2
    return 1


def is_mostly_masked(mask: Float32, watched: Float32) -> bool:
    """Whether more than half of the watched channels have no usable reading."""
    return _share(1 - mask, watched) > 0.5


def ends_gap(state: TierState, mostly_masked: bool) -> bool:
    """Whether a row is the first with readings after missing ones."""
    return state.gap > 0 and not mostly_masked


def is_settling(state: TierState, mostly_masked: bool) -> bool:
    """Whether the forecast of a row is not to be trusted.

    This holds in the warm-up, in the first row after a gap, whose forecast spans several samples,
    and from an outage on until the state follows the signal again.
    """
    return state.warmup > 0 or state.outage or ends_gap(state, mostly_masked)


def observe(state: TierState, seen: Observation, bounds: Tiers) -> tuple[TierState, bool]:
    """Return the state for the next sample, and whether the recurrent state must be reset now."""
    gap = state.gap + 1 if is_mostly_masked(seen.mask, seen.watched) else 0
    state = replace(state, index=state.index + 1, gap=gap)
    if gap:
        return (state if gap <= bounds.bridge else _outage(state, bounds)), False
    state = replace(
        state,
        warmup=max(state.warmup - 1, 0),
        forced=np.maximum(state.forced - 1, np.float32(0)),
    )
    frozen = state.frozen + 1 if seen.input_moved and not seen.moved else 0
    if seen.saturated > bounds.saturated_limit or frozen >= bounds.frozen_limit:
        return distrust(state, bounds), True
    state = replace(state, frozen=frozen)
    if state.phase is Phase.GATE:
        return _gate_phase(state, seen, bounds)
    if state.phase is Phase.FREE_RUN:
        return _free_run_phase(state, bounds), False
    return _resync_phase(state), False


def agree(state: TierState, same_verdict: bool, bounds: Tiers) -> TierState:
    """While distrusted, count agreements of model and fallback; after enough, trust the model.

    A row with most readings missing counts neither way.
    """
    if not state.distrusted or state.warmup > 0 or state.gap:
        return state
    agreed = state.agreed + 1 if same_verdict else 0
    recent = _recent(state.returns, state.index, bounds.hour)
    if agreed < bounds.agree or len(recent) >= RETURNS_PER_HOUR:
        return replace(state, agreed=agreed)
    return replace(
        state, distrusted=False, agreed=0, resyncs=(), resets=(), returns=(*recent, state.index)
    )


def distrust(state: TierState, bounds: Tiers) -> TierState:
    """Hand over to tier 3; the model continues unseen from a fresh state."""
    return replace(_settled(state), distrusted=True, agreed=0, frozen=0, warmup=bounds.warmup)


def restart(state: TierState, bounds: Tiers) -> TierState:
    """Warm up again after a reset from outside; past failures still count."""
    return replace(_settled(state), frozen=0, warmup=bounds.warmup)


def _gate_phase(state: TierState, seen: Observation, bounds: Tiers) -> tuple[TierState, bool]:
    shut = seen.gated * seen.mask * (seen.gate < CLOSED_BELOW)
    closed = np.where(shut > 0, state.closed + 1, np.maximum(state.closed - 2, 0))
    wrong = shut * (seen.innovation < TINY_INNOVATION) + seen.gated * seen.mask * (1 - shut) * (
        seen.innovation >= HUGE_INNOVATION
    )
    # A gate that is held open does not decide, so it cannot contradict the evidence.
    contradicted = np.where((wrong > 0) & (state.forced == 0), state.contradicted + 1, 0)
    lost = state.lost + 1 if _share(shut, seen.gated) >= 0.5 else 0
    if lost >= bounds.lost_limit:
        return _lose(state, bounds)
    reopen = (closed >= bounds.closed_limit) | (contradicted >= bounds.contradiction_limit)
    return replace(
        state,
        closed=np.where(reopen, 0, closed).astype(np.float32),
        contradicted=np.where(reopen, 0, contradicted).astype(np.float32),
        forced=np.where(reopen, bounds.resync_channel, state.forced).astype(np.float32),
        lost=lost,
    ), False


def _lose(state: TierState, bounds: Tiers) -> tuple[TierState, bool]:
    """Start a free run; reset after two re-synchronisations in the window; then distrust."""
    recent = _recent(state.resyncs, state.index, bounds.window)
    if len(recent) < RESYNCS_BEFORE_RESET:
        fresh = _settled(state)
        return replace(
            fresh, phase=Phase.FREE_RUN, left=bounds.free_run_limit, resyncs=recent
        ), False
    resets = _recent(state.resets, state.index, bounds.window)
    if resets:
        return distrust(state, bounds), True
    fresh = replace(_settled(state), resyncs=(), resets=(state.index,), warmup=bounds.warmup)
    return fresh, True


def _outage(state: TierState, bounds: Tiers) -> TierState:
    """Handle a row beyond what the state can bridge."""
    if state.phase is Phase.GATE:
        left = bounds.free_run_limit
        return replace(_settled(state), phase=Phase.FREE_RUN, left=left, outage=True)
    if state.phase is Phase.RESYNC:
        # There is nothing to synchronise with: continue the free run, beyond its bound.
        return replace(state, phase=Phase.FREE_RUN, left=0, blind=True)
    left = max(state.left - 1, 0)
    return replace(state, left=left, blind=left == 0)


def _free_run_phase(state: TierState, bounds: Tiers) -> TierState:
    left = max(state.left - 1, 0)
    if left > 0 and not state.outage:  # an outage ends with the first reading
        return replace(state, left=left)
    return replace(state, phase=Phase.RESYNC, left=bounds.resync_all, blind=False)


def _resync_phase(state: TierState) -> TierState:
    left = state.left - 1
    if left > 0:
        return replace(state, left=left)
    resyncs = state.resyncs if state.outage else (*state.resyncs, state.index)
    return replace(_settled(state), resyncs=resyncs)


def _settled(state: TierState) -> TierState:
    zero = np.zeros_like(state.closed)
    return replace(
        state, closed=zero, contradicted=zero, forced=zero, phase=Phase.GATE, left=0, lost=0,
        outage=False, blind=False,
    )  # fmt: skip


def _share(members: Float32, of: Float32) -> float:
    total = float(of.sum())
    return float((members * of).sum()) / total if total else 0.0


def _recent(events: tuple[int, ...], now: int, window: int) -> tuple[int, ...]:
    return tuple(event for event in events if now - event < window)
