"""Tier 3: a statistical detector that needs no model and runs along with it on every sample.

Six views of each channel, each divided by the largest value that clean rows ever showed (with a
margin): distance from the centre (range), average distance (level), change from sample to sample
(change), lasting lean to one side (CUSUM, Page 1954), time with the same value (same), time missing
while other channels have readings (missing). The score is the largest of them all, so its threshold
is 1.

After a reported lasting change all views are relative to the new centre (`stand_at`). Otherwise the
fallback would be in alarm all the time, and blind to anything else. If that centre is wrong, the
fallback raises an alarm.

A row without any reading is not judged: views, score and alarm stay as they were. Only when all
readings have been missing for longer than a limit, there is an alarm, until the first reading.

A flipped bit in constants or state would stay, so both have two copies (`GuardedMemory`): two of
the three outvote a damaged one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from edge_runtime import numerics
from edge_runtime.bundle import manifest
from edge_runtime.detector.alarm import AlarmState, update_alarm
from edge_runtime.detector.inputs import (
    VALUE_CLIP,
    Bools,
    Scaler,
    ValidityRules,
    ValidityState,
    channel_scaler,
    check_validity,
    initial_validity,
    is_measured,
    standardise,
    validity_rules,
)
from edge_runtime.errors import ignore_line
from edge_runtime.record import Flag, Float32, Record, Sample

THRESHOLD = 1.0
CLEAR = 0.9
CUSUM_CEILING = np.float32(1.1)  # times its limit
VIEWS = manifest.FALLBACK_VIEWS
PIECE = 1 << 14  # bytes that one call of `GuardedMemory.restore` compares, at most
Source = manifest.Manifest | manifest.FallbackConstants
_MISSING = VIEWS.index("missing")
_MOST_SILENT = np.float32(1 << 24)  # a count stops where float32 has gaps
_ZERO = np.float32(0)


@dataclass(frozen=True)
class ViewState:
    """Running values of the views, each float32 [channels], relative to `centre`."""

    level: Float32
    last: Float32
    up: Float32
    down: Float32
    same: Float32
    missing: Float32
    centre: Float32
    started: bool


def initial_views(channels: int) -> ViewState:
    """Return the state before the first sample."""
    zero = np.zeros(channels, np.float32)
    return ViewState(zero, zero, zero, zero, zero, zero, zero, False)


def update_views(
    value: Float32,
    mask: Bools,
    smoothing: float,
    slack: float,
    cusum_ceiling: Float32,
    state: ViewState,
) -> tuple[Float32, ViewState]:
    """Return the six views [6, channels] of one standardised sample, and the next state.

    Where `mask` is False, range and change are 0, missing counts up, the others keep their value.
    The CUSUM stops growing at `cusum_ceiling`, so that it falls in bounded time when a long
    deviation ends.
    """
    value = numerics.clip(value - state.centre, VALUE_CLIP)
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
    return views, ViewState(level, last, up, down, views[4], views[5], state.centre, True)


def seen_from(centre: Float32, state: ViewState) -> ViewState:
    """Return the same views relative to another centre [channels], in standardised units."""
    if not state.started:
        return replace(state, centre=centre)
    shift = centre - state.centre
    return replace(
        state,
        level=numerics.clip(state.level - shift, VALUE_CLIP),
        last=numerics.clip(state.last - shift, VALUE_CLIP),
        up=np.where(shift == 0, state.up, _ZERO),
        down=np.where(shift == 0, state.down, _ZERO),
        centre=centre,
    )


@dataclass(frozen=True)
class _Constants:
    """The constants of the fallback, all of them in one block of memory."""

    block: Float32
    limits: Float32
    cusum_ceiling: Float32
    scored: Float32
    scaler: Scaler
    rules: ValidityRules
    rates: Float32  # smoothing and slack
    alarm: Float32  # m, n and clear_after, which are whole numbers

    @staticmethod
    def of(source: Source) -> "_Constants":
        """Return the constants of a manifest."""
        section = source.fallback
        limits = np.array([getattr(section, view) for view in VIEWS], np.float32)
        scaler = channel_scaler(source.channels)
        rules = validity_rules(source.channels, source.period)
        scored = np.array([not c.exogenous for c in source.channels], np.float32)
        vectors = [
            CUSUM_CEILING * limits[VIEWS.index("cusum")], scored, scaler.center, scaler.scale,
            rules.low, rules.high, rules.max_step, rules.stuck_after,
        ]  # fmt: skip
        rates = np.array([section.smoothing, section.slack], np.float32)
        alarm = np.array([source.alarm.m, source.alarm.n, source.alarm.clear_after], np.float32)
        block = np.concatenate([limits.ravel(), *vectors, rates, alarm])
        by_channel, rates, alarm = np.split(block, [-len(rates) - len(alarm), -len(alarm)])
        rows = by_channel.reshape(-1, len(source.channels))
        views, (ceiling, scored, center, scale, low, high, step, stuck) = (
            rows[: len(VIEWS)], rows[len(VIEWS) :],
        )  # fmt: skip
        return _Constants(
            block, views, ceiling, scored, Scaler(center, scale),
            ValidityRules(low, high, step, stuck, rules.none), rates, alarm,
        )  # fmt: skip


@dataclass(frozen=True)
class _Shares:
    """Share of its limits that each scored channel uses, and rows in a row without a reading."""

    used: Float32
    silent: Float32  # the same number for every channel


class _State:
    """The state but for the alarm, all of it in one block of memory."""

    def __init__(self, channels: int) -> None:
        zero = np.zeros(channels, np.float32)
        self.validity: ValidityState = initial_validity(channels)
        self.shares = _Shares(zero, zero)
        self.views = initial_views(channels)
        parts = (self.validity, self.shares, self.views)
        self.block = np.concatenate([vector for part in parts for vector in _vectors(part)])
        self.view_block = self.block[-channels * len(_names(self.views)) :]
        rows = iter(self.block.reshape(-1, channels))
        self._rows = [{name: next(rows) for name in _names(part)} for part in parts]
        self.take(*parts)

    def take(self, validity: ValidityState, shares: _Shares, views: ViewState) -> None:
        """Replace the state."""
        parts = (validity, shares, views)
        np.concatenate([vector for part in parts for vector in _vectors(part)], out=self.block)
        self.validity = replace(validity, **self._rows[0])
        self.shares = replace(shares, **self._rows[1])
        self.views = replace(views, **self._rows[2])


def _names(state: ValidityState | _Shares | ViewState) -> list[str]:
    return [name for name, value in vars(state).items() if isinstance(value, np.ndarray)]


def _vectors(state: ValidityState | _Shares | ViewState) -> list[Float32]:
    return [value for value in vars(state).values() if isinstance(value, np.ndarray)]


class MemoryLostError(Exception):
    """No two of the live bytes and their copies are the same."""


class GuardedMemory:
    """Live memory and two copies of it. live: its bytes, writable, which never move."""

    def __init__(self, live: memoryview) -> None:
        bytewise = live.cast("B")
        starts = range(0, len(bytewise), PIECE)
        self._live = [bytewise[start : start + PIECE] for start in starts]
        self._next = 0
        self.renew()

    def renew(self) -> None:
        """Copy the live bytes, which are right now."""
        self._copies = [bytes(piece) for piece in self._live]
        self._spares = [bytes(piece) for piece in self._live]

    def restore(self) -> bool:
        """Compare the next piece with its copy, repair it, and return whether it was damaged.

        Raises MemoryLostError when two of the three are damaged.
        """
        at = self._next
        self._next = (at + 1) % len(self._live)
        live, copy, spare = bytes(self._live[at]), self._copies[at], self._spares[at]
        if live == copy:
            return False
        if copy == spare:
            self._live[at][:] = copy
        elif live == spare:
            self._copies[at] = live
        else:
            raise MemoryLostError
        return True


class DamageLog:
    """Counts damage and logs the 1st, 2nd, 4th, 8th, ... so that it cannot flood the log.

    log: takes one line.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self.count = 0
        self._log = log

    def note(self, what: str, then: str) -> None:
        """Count damage to `what`; then: how it was repaired."""
        self.count += 1
        if self.count & (self.count - 1) == 0:
            times = f" ({self.count} times so far)" if self.count > 1 else ""
            self._log(f"{what} changed in memory{times}; {then}")


class GuardedFallback(ABC):
    """A fallback that compares its constants and its state with their copies before each step.

    on_damage: takes one line when something was damaged and repaired.
    """

    _guarded_constants: GuardedMemory
    _guarded_state: Sequence[GuardedMemory]

    def __init__(self, on_damage: Callable[[str], None] = ignore_line) -> None:
        self._damage = DamageLog(on_damage)
        self._read_constants()
        self._start()

    @property
    def repaired(self) -> int:
        """How often memory was damaged and repaired."""
        return self._damage.count

    def step(self, sample: Sample) -> Record:
        """Return the fallback's record for `sample`: tier 3, flag FALLBACK, never valid."""
        self._repair()
        self._advance(sample)
        if not self._is_possible():
            self._damage.note("a step of the fallback", "it starts afresh")
            self._start()
            self._advance(sample)
        self._renew()
        return self._record(sample)

    def stand_at(self, centre: Sequence[float] | Float32) -> None:
        """Judge the machine relative to `centre` [channels], in standardised units, from now on.

        With operating modes nothing changes: the centre is one within a mode, the limits are those
        of all modes together.
        """
        self._repair()
        self._move_to(np.array(centre, np.float32))
        self._renew()

    @abstractmethod
    def _read_constants(self) -> None:
        """Read the constants from the bundle and guard them."""

    @abstractmethod
    def _start(self) -> None:
        """Begin with the state before the first sample and guard it."""

    @abstractmethod
    def _advance(self, sample: Sample) -> None:
        """Advance the state by one sample."""

    @abstractmethod
    def _is_possible(self) -> bool:
        """Whether the state is within the bounds that every step keeps."""

    @abstractmethod
    def _move_to(self, centre: Float32) -> None:
        """Make the views relative to `centre` [channels]."""

    @abstractmethod
    def _record(self, sample: Sample) -> Record:
        """Return the record of the last step."""

    def _renew(self) -> None:
        for memory in self._guarded_state:
            memory.renew()

    def _repair(self) -> None:
        try:
            if self._guarded_constants.restore():
                self._damage.note("constants of the fallback", "restored from their copy")
        except MemoryLostError:
            self._read_constants()
            self._damage.note("constants of the fallback and their copy", "read from the bundle")
        try:
            if sum(memory.restore() for memory in self._guarded_state):  # all of them, unlike `any`
                self._damage.note("state of the fallback", "restored from its copy")
        except MemoryLostError:
            self._start()
            self._damage.note("state of the fallback and its copy", "it starts afresh")


class Fallback(GuardedFallback):
    """The fallback in Python; `step` answers every sample, marked tier 3."""

    def __init__(
        self,
        source: Source,
        model_hash: str,
        on_damage: Callable[[str], None] = ignore_line,
    ) -> None:
        self._source = source
        self._names = source.channel_names
        self._model_hash = model_hash
        super().__init__(on_damage)

    def step(self, sample: Sample, centre: Float32 | None = None) -> Record:
        """Return the record for `sample`; a `centre` is that of `stand_at` from now on."""
        if centre is not None and not np.array_equal(centre, self._state.views.centre):
            self.stand_at(centre)
        return super().step(sample)

    def _read_constants(self) -> None:
        self._constants = _Constants.of(self._source)
        self._guarded_constants = GuardedMemory(self._constants.block.data)

    def _start(self) -> None:
        self._state = _State(len(self._names))
        self._guarded_state = [GuardedMemory(self._state.block.data)]
        self._alarm_state = AlarmState()

    def _move_to(self, centre: Float32) -> None:
        if not any(channel.modes for channel in self._source.channels):
            state = self._state
            state.take(state.validity, state.shares, seen_from(centre, state.views))

    def _advance(self, sample: Sample) -> None:
        constants, state = self._constants, self._state
        mask, validity = check_validity(sample.values, constants.rules, state.validity)
        self._mask = mask
        if not is_measured(sample.values, constants.scored):
            state.take(validity, self._silent_shares(), state.views)
            return
        value = standardise(sample.values, mask, constants.scaler)
        smoothing, slack = constants.rates
        views, following = update_views(
            value, mask, smoothing, slack, constants.cusum_ceiling, state.views
        )
        used = (views / constants.limits).max(axis=0) * constants.scored
        state.take(validity, _Shares(used, np.zeros_like(used)), following)

    def _silent_shares(self) -> _Shares:
        """Return the shares after one more row without any reading."""
        before = self._state.shares
        silent = np.minimum(before.silent + 1, _MOST_SILENT)
        used = silent / self._constants.limits[_MISSING] * self._constants.scored
        return _Shares(
            np.where(used > THRESHOLD, np.maximum(used, before.used), before.used), silent
        )

    def _is_silent(self) -> bool:
        """Whether all readings have been missing for longer than a limit."""
        silent = self._state.shares.silent / self._constants.limits[_MISSING]
        return bool((silent * self._constants.scored > THRESHOLD).any())

    def _is_possible(self) -> bool:
        # A level that is NaN stays NaN. Sums of squares take a microsecond.
        level, all_views = self._state.views.level, self._state.view_block
        bound = len(level) * float(2 * VALUE_CLIP) ** 2
        return float(level @ level) <= bound and float(all_views @ all_views) < np.inf

    def _record(self, sample: Sample) -> Record:
        shares = self._state.shares.used.copy()
        score = float(shares.max())
        if not self._state.shares.silent.any():
            m, n, clear_after = map(int, self._constants.alarm)
            self._alarm_state = update_alarm(
                score, THRESHOLD, CLEAR, m, n, clear_after, self._alarm_state
            )
        alarm = self._alarm_state.active or self._is_silent()
        return Record(
            index=sample.index,
            time=sample.time,
            tier=3,
            flags=Flag.FALLBACK,
            valid=False,
            score=score,
            threshold=THRESHOLD,
            alarm=alarm,
            masked=tuple(n for n, ok in zip(self._names, self._mask, strict=True) if not ok),
            imputed=(),
            blamed=self._blamed(shares) if alarm else (),
            model=self._model_hash,
        )

    def _blamed(self, shares: Float32) -> tuple[str, ...]:
        order = np.argsort(-shares, kind="stable")[:3]
        return tuple(self._names[i] for i in order if shares[i] >= shares[order[0]] / 2)


class _Stepping(Protocol):
    """A fallback; see `edge_runtime.supervision.worker_manager.ShadowDetector`."""

    @property
    def repaired(self) -> int: ...
    def step(self, sample: Sample) -> Record: ...
    def stand_at(self, centre: Sequence[float]) -> None: ...


class SelectedFallback:
    """`inner` for the readings of `columns`, None for all; adds `flags` to its records."""

    def __init__(self, inner: _Stepping, columns: Sequence[int] | None, flags: int = 0) -> None:
        self._inner, self._columns, self._flags = inner, columns, flags

    @property
    def repaired(self) -> int:
        """How often its memory was repaired."""
        return self._inner.repaired

    def stand_at(self, centre: Sequence[float]) -> None:
        """Judge deviations from `centre`, in standardised units [channels of the bundle]."""
        self._inner.stand_at(centre)

    def step(self, sample: Sample) -> Record:
        """Return the record for `sample`."""
        record = self._inner.step(sample.of(self._columns))
        return replace(record, flags=record.flags | self._flags) if self._flags else record


class ScorelessFallback:
    """Answers when even the fallback's constants are lost: tier 3, no score, never an alarm."""

    repaired = 0  # it has no memory to repair

    def __init__(self, channels: Sequence[str]) -> None:
        self._names = tuple(channels)

    def stand_at(self, centre: Sequence[float]) -> None:
        """Do nothing, because nothing is judged."""

    def step(self, sample: Sample) -> Record:
        """Return the record for `sample`; masked: readings that are missing or not finite."""
        usable = np.isfinite(sample.values)
        return Record(
            index=sample.index,
            time=sample.time,
            tier=3,
            flags=Flag.FALLBACK,
            valid=False,
            score=None,
            threshold=None,
            alarm=False,
            masked=tuple(n for n, ok in zip(self._names, usable, strict=True) if not ok),
            imputed=(),
            blamed=(),
            model="",
        )
