"""Tier 3: a statistical detector that needs no model and shadows every sample.

Six plain views of each channel, each divided by the largest value clean rows ever showed (with a
margin): how far it is (range), how far on average (level), how fast it moves (change), how long it
leans to one side (CUSUM, Page 1954), how long it shows one and the same value, how long it is
missing while others come. The score is the largest of them all, so its threshold is 1.

Where a lasting change was reported, all of it is judged from where the machine stands (`stand_at`).
Else the fallback would be in alarm for as long as it answers, and blind to anything else. Should
that place be wrong, the alarm says so.

A row without any reading is not judged: views, score and alarm stay what they were. Only where all
have been missing for longer than a limit on missing readings there is an alarm, until the first
reading.

Memory that is compared with a second copy, because a bit that flips in it would stay.

A checksum tells which of the two is right.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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
from edge_runtime.record import Flag, Float32, Record, Sample

PIECE = 1 << 14
"""Bytes that one look compares, at most."""


class MemoryLostError(Exception):
    """Neither the live bytes nor their copy are what they were."""


class GuardedMemory:
    """A piece of live memory with a copy of it.

    live: its bytes, writable, and always at the same place.
    """

    def __init__(self, live: memoryview) -> None:
        bytewise = live.cast("B")
        starts = range(0, len(bytewise), PIECE)
        self._live = [bytewise[start : start + PIECE] for start in starts]
        self._next = 0
        self.renew()

    @property
    def looks(self) -> int:
        """Calls of `restore` until every byte was compared."""
        return len(self._live)

    def renew(self) -> None:
        """Copy the live bytes, which are right as they are now."""
        self._copies = [bytes(piece) for piece in self._live]
        self._checksums = [zlib.crc32(copy) for copy in self._copies]

    def restore(self) -> bool:
        """Compare the next piece with its copy; whether one of them was damaged, and is repaired.

        Raises MemoryLostError when both are damaged.
        """
        at = self._next
        self._next = (at + 1) % len(self._live)
        live, copy = bytes(self._live[at]), self._copies[at]
        if live == copy:
            return False
        if zlib.crc32(copy) == self._checksums[at]:
            self._live[at][:] = copy
        elif zlib.crc32(live) == self._checksums[at]:
            self._copies[at] = live
        else:
            raise MemoryLostError
        return True


class DamageLog:
    """Counts damage, and tells of the first, second, fourth, eighth, ... so that no log floods.

    tell: takes one line.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.count = 0
        self._tell = tell

    def note(self, what: str, then: str) -> None:
        """Count one piece of damage. what: the memory; then: what was done about it."""
        self.count += 1
        if self.count & (self.count - 1) == 0:
            times = f" ({self.count} times so far)" if self.count > 1 else ""
            self._tell(f"{what} changed in memory{times}; {then}")


def ignore_damage(line: str) -> None:
    """Take a line about damage and do nothing."""


THRESHOLD = 1.0
CLEAR = 0.9
_ZERO = np.float32(0)
CUSUM_CEILING = np.float32(1.1)  # times its limit
VIEWS = ("range", "level", "change", "cusum", "same", "missing")
_MISSING = VIEWS.index("missing")
_MOST_SILENT = np.float32(1 << 24)  # beyond it float32 has gaps; a count stops there


@dataclass(frozen=True)
class ViewState:
    """Running values of the views, each float32 [channels], as seen from `centre`."""

    level: Float32
    last: Float32
    up: Float32
    down: Float32
    same: Float32
    missing: Float32
    centre: Float32
    started: bool


def initial_views(channels: int) -> ViewState:
    """The state before the first sample."""
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
    """The six views [6, channels] of one standardised sample, and the next state.

    Where `mask` is False range and change are 0, missing counts on, the others keep their value.
    The CUSUM stops growing at `cusum_ceiling`, so that it finds back in bounded time when a long
    deviation is over.
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
    """The same views from another centre [channels], in standardised units."""
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


Source = manifest.Manifest | manifest.FallbackConstants
"""What the constants of the fallback come from."""


@dataclass(frozen=True)
class _Constants:
    """What the fallback computes with, all of it in one block of memory."""

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
        """The constants of a manifest."""
        found = source.fallback
        limits = np.array([getattr(found, view) for view in VIEWS], np.float32)
        scaler = channel_scaler(source.channels)
        rules = validity_rules(source.channels, source.period)
        scored = np.array([not c.exogenous for c in source.channels], np.float32)
        vectors = [
            CUSUM_CEILING * limits[VIEWS.index("cusum")], scored, scaler.center, scaler.scale,
            rules.low, rules.high, rules.max_step, rules.stuck_after,
        ]  # fmt: skip
        rates = np.array([found.smoothing, found.slack], np.float32)
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
    """Of its limits, how much each scored channel uses up, and rows in a row without a reading."""

    used: Float32
    silent: Float32  # the same number for every channel


class _State:
    """What is carried from sample to sample but for the alarm, all of it in one block of memory."""

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
        """The next state."""
        parts = (validity, shares, views)
        np.concatenate([vector for part in parts for vector in _vectors(part)], out=self.block)
        self.validity = replace(validity, **self._rows[0])
        self.shares = replace(shares, **self._rows[1])
        self.views = replace(views, **self._rows[2])


def _names(state: ValidityState | _Shares | ViewState) -> list[str]:
    return [name for name, value in vars(state).items() if isinstance(value, np.ndarray)]


def _vectors(state: ValidityState | _Shares | ViewState) -> list[Float32]:
    return [value for value in vars(state).values() if isinstance(value, np.ndarray)]


class Fallback:
    """The shadow detector as an object; `step` answers every sample, marked tier 3.

    Before each step its constants and its state are compared with their copies, and repaired.
    on_damage: takes one line when that was needed. repaired: how often it was.
    """

    def __init__(
        self,
        source: Source,
        model_hash: str,
        on_damage: Callable[[str], None] = ignore_damage,
    ) -> None:
        self._source = source
        self._names = source.channel_names
        self._model_hash = model_hash
        self._damage = DamageLog(on_damage)
        self._read_constants()
        self._start()

    @property
    def repaired(self) -> int:
        """How often its memory had changed and was repaired."""
        return self._damage.count

    def step(self, sample: Sample, centre: Float32 | None = None) -> Record:
        """The fallback's record for `sample`: tier 3, flag FALLBACK, never valid.

        centre: where the machine stands by now, as of `stand_at`; None: where it stood.
        """
        if centre is not None and not np.array_equal(centre, self._state.views.centre):
            self.stand_at(centre)
        self._look_after_memory()
        self._move_on(sample)
        if not self._is_possible():
            self._damage.note("a step of the fallback", "it starts afresh")
            self._start()
            self._move_on(sample)
        self._guarded_state.renew()
        return self._record(sample)

    def stand_at(self, centre: Sequence[float] | Float32) -> None:
        """Judge the machine from there on, in standardised units [channels].

        With operating modes nothing moves: the place is one within a mode, the limits are those of
        all modes together.
        """
        if any(channel.modes for channel in self._source.channels):
            return
        self._look_after_memory()
        state = self._state
        views = seen_from(np.array(centre, np.float32), state.views)
        state.take(state.validity, state.shares, views)
        self._guarded_state.renew()

    def _read_constants(self) -> None:
        self._constants = _Constants.of(self._source)
        self._guarded_constants = GuardedMemory(self._constants.block.data)

    def _start(self) -> None:
        """Begin with the state before the first sample."""
        self._state = _State(len(self._names))
        self._guarded_state = GuardedMemory(self._state.block.data)
        self._alarm_state = AlarmState()

    def _look_after_memory(self) -> None:
        try:
            if self._guarded_constants.restore():
                self._damage.note("constants of the fallback", "restored from their copy")
        except MemoryLostError:
            self._read_constants()
            self._damage.note("constants of the fallback and their copy", "read from the bundle")
        try:
            if self._guarded_state.restore():
                self._damage.note("state of the fallback", "restored from its copy")
        except MemoryLostError:
            self._start()
            self._damage.note("state of the fallback and its copy", "it starts afresh")

    def _move_on(self, sample: Sample) -> None:
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
        """The shares after one more row without any reading."""
        before = self._state.shares
        silent = np.minimum(before.silent + 1, _MOST_SILENT)
        used = silent / self._constants.limits[_MISSING] * self._constants.scored
        return _Shares(
            np.where(used > THRESHOLD, np.maximum(used, before.used), before.used), silent
        )

    def _is_silent(self) -> bool:
        """Whether all have been missing for longer than a limit on missing readings."""
        silent = self._state.shares.silent / self._constants.limits[_MISSING]
        return bool((silent * self._constants.scored > THRESHOLD).any())

    def _is_possible(self) -> bool:
        """Whether a step can have left the views; a level that is not a number never is one again.

        By sums of squares, which tell it in a microsecond.
        """
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


class ScorelessFallback:
    """Answers where even the fallback's constants are lost: tier 3, no score, never an alarm."""

    repaired = 0  # it has no memory that could change

    def __init__(self, channels: Sequence[str]) -> None:
        self._names = tuple(channels)

    def stand_at(self, centre: Sequence[float]) -> None:
        """Nothing is judged, from nowhere."""

    def step(self, sample: Sample) -> Record:
        """The record for `sample`; masked are the readings that are missing or not finite."""
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
