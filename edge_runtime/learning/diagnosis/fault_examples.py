"""Examples for the diagnosis: faults injected into clean rows, and what the runtime sees of them.

No labels are needed: `learning.faults` makes sensor faults and disturbances of several channels.
Every event starts from the runtime's own state on the clean rows before it.

Many independent events go through the runtime's own symptoms at once, bit for bit as one by one:
its functions accept a last axis for the samples of a batch, which is added here to constants and
states. One call for some hundred faults costs little more than one for a single sample.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from edge_runtime.diagnosis import KINDS, MACHINE, features
from edge_runtime.learning.diagnosis.clean_behaviour import SETTLING, Stretch
from edge_runtime.learning.faults import (
    CleanShape,
    Fault,
    clean_shape,
    disturb,
    inject,
    log_uniform,
)
from edge_runtime.symptoms import (
    SymptomConstants,
    SymptomState,
    initial_symptoms,
    observe,
    suspicion,
)

Float32 = npt.NDArray[np.float32]
SIZES, LENGTHS = (0.3, 8.0), (3, 200)
SHORTEST_DISTURBANCE = 10
CONTEXT = 400  # clean rows before a fault; a decorrelated stretch may be taken from them
LATEST = 50  # samples after the first sign
AFTERWARDS = 25  # samples after the fault during which an alarm may still be on
LONGEST = LENGTHS[1] + AFTERWARDS
PATIENCE = (2, 30)
BATCH = 150  # events at once; the arrays of 32 channels still fit into a cache
NOTICED = 0.999  # quantile of clean rows
TURNS = len(Fault) + 1  # every kind of fault and the disturbance take turns


@dataclass(frozen=True)
class Example:
    """One moment of an injected event. features: [features], kind: index into `KINDS`."""

    event: int
    kind: int
    blamed: bool  # the most suspicious channel is one of the event's
    delay: int  # samples after the first sign
    features: Float32


@dataclass(frozen=True)
class InjectedFault:
    """One fault and the rows around it. start, stop: its rows, as for a slice."""

    kind: str
    start: int
    stop: int
    channels: tuple[int, ...]
    rows: Stretch


def gather(
    piece: Stretch, constants: SymptomConstants, rng: np.random.Generator, count: int, first: int
) -> list[Example]:
    """Inject `count` events into the clean `piece`, numbered from `first`, and return examples."""
    states = list(_roll(piece, constants))
    settled = min(SETTLING, len(states) // 4)
    noticed = float(np.quantile([float(s.seen) for s in states[settled:]], NOTICED))
    exogenous = constants.blameable == 0
    shape = clean_shape(piece.reading, exogenous)
    examples: list[Example] = []
    for number in range(first, first + count, BATCH):
        turns = range(number, min(number + BATCH, first + count))
        made = [(turn, _event(piece, exogenous, shape, rng, turn % TURNS)) for turn in turns]
        events = {turn: event for turn, event in made if event is not None}
        for turn, delay, state in _watch(events, states, constants, noticed, rng):
            event = events[turn]
            top = int(np.argmax(suspicion(state, constants)))
            kind, blamed = KINDS.index(event.kind), top in event.channels
            examples.append(Example(turn, kind, blamed, delay, features(state, constants)))
    return examples


def _roll(piece: Stretch, constants: SymptomConstants) -> Iterator[SymptomState]:
    state = initial_symptoms(piece.reading.shape[1])
    for reading, present in zip(piece.reading, piece.present, strict=True):
        state = observe(reading, present, False, state, constants)
        yield state


def _event(
    piece: Stretch,
    exogenous: npt.NDArray[np.bool_],
    shape: CleanShape,
    rng: np.random.Generator,
    turn: int,
) -> InjectedFault | None:
    """Inject a random fault at a random place; None with too few rows or channels."""
    rows = len(piece.reading)
    length = min(round(log_uniform(rng, *LENGTHS)), rows // 8)
    context = min(CONTEXT, rows // 3)
    latest = rows - 4 * length - AFTERWARDS
    if length < LENGTHS[0] or latest <= context:
        return None
    start = int(rng.integers(context, latest))
    if turn < len(Fault):
        return _sensor_event(piece, exogenous, rng, Fault(turn + 1), start, length, context)
    if np.count_nonzero(~exogenous) < 2:
        return None
    longer = max(length, int(rng.integers(SHORTEST_DISTURBANCE, LENGTHS[1])))
    length = min(longer, rows - start - AFTERWARDS)
    size = log_uniform(rng, *SIZES)
    reading, channels = disturb(piece.reading, start, length, size, shape, rng)
    return InjectedFault(MACHINE, start, start + length, channels, Stretch(reading, piece.present))


def _sensor_event(
    piece: Stretch,
    exogenous: npt.NDArray[np.bool_],
    rng: np.random.Generator,
    kind: Fault,
    start: int,
    length: int,
    context: int,
) -> InjectedFault:
    injection = inject(
        piece.reading[start - context : start + 4 * length + 1],
        rng,
        kinds=(kind,),
        events=(1, 1),
        sizes=SIZES,
        lengths=(length, length),
        exogenous=exogenous,
        first=context,
        spaced=True,
    )
    fault = injection.events[0]
    first, last = (start - context + edge for edge in (fault.start, fault.stop))
    reading, present = piece.reading.copy(), piece.present.copy()
    reading[first:last] = injection.values[fault.start : fault.stop]
    present[first:last] *= injection.mask[fault.start : fault.stop]
    name = Fault.DROPOUT if kind is Fault.BLACKOUT else kind
    return InjectedFault(name.name.lower(), first, last, fault.channels, Stretch(reading, present))


def _watch(
    events: Mapping[int, InjectedFault],
    clean: Sequence[SymptomState],
    constants: SymptomConstants,
    noticed: float,
    rng: np.random.Generator,
) -> Iterator[tuple[int, int, SymptomState]]:
    """Yield event, delay and state at the first sign of an event and up to two later moments.

    A missing or stuck reading need not stand out; what raises the alarm then is another's affair,
    so a random moment within the fault takes the place of the first sign.
    """
    watches = [ObservationPlan(turn, event, rng) for turn, event in events.items()]
    if not watches:
        return
    reading = np.stack([w.rows.reading for w in watches], axis=-1)
    present = np.stack([w.rows.present for w in watches], axis=-1)
    state = batch_state([clean[w.event.start - 1] for w in watches])
    batched = batch_constants(constants)
    patience = np.array([w.patience for w in watches])
    for row in range(len(reading)):
        alarm = np.array([w.since is not None for w in watches])
        state = observe(reading[row], present[row], alarm, state, batched)
        signs = np.asarray(state.seen, np.float64) > noticed
        for sample in np.flatnonzero(alarm | signs | (row >= patience)):
            delay = watches[sample].look(row, bool(signs[sample]))
            if delay is not None:
                yield watches[sample].turn, delay, sample_state(state, sample)


class ObservationPlan:
    """Decides which rows of one event become examples.

    since: row of the first sign. patience: row from which one is no longer waited for.
    """

    def __init__(self, turn: int, event: InjectedFault, rng: np.random.Generator) -> None:
        self.turn, self.event, self.rows = turn, event, _span(event)
        self.since: int | None = None
        self._length = event.stop - event.start
        self._last = self._length + AFTERWARDS
        self._delays = {0, *(int(delay) for delay in rng.integers(1, LATEST, 2))}
        silent = event.kind in ("dropout", "stuck")
        patience = min(int(rng.integers(*PATIENCE)), self._length - 1)
        self.patience = patience if silent else LONGEST

    def look(self, row: int, noticed: bool) -> int | None:
        """Return the delay after the first sign if `row` becomes an example, else None."""
        if self.since is None and (noticed or row >= self.patience):
            self.since = row
            self._last = self._last if noticed else self._length
        if self.since is None or row >= self._last or row - self.since not in self._delays:
            return None
        return row - self.since


def _span(event: InjectedFault) -> Stretch:
    """Return `LONGEST` rows from the event's start on; the last row repeats after the end."""
    rows = np.minimum(np.arange(event.start, event.start + LONGEST), len(event.rows.reading) - 1)
    return Stretch(event.rows.reading[rows], event.rows.present[rows])


def batch_constants(constants: SymptomConstants) -> SymptomConstants:
    """Add a last axis for the samples to `constants`."""
    seen = constants.contribution
    contribution = replace(
        seen,
        center=seen.center[..., np.newaxis],
        precision=seen.precision[..., np.newaxis],
        block=seen.block[..., np.newaxis],
        deviation=seen.deviation[..., np.newaxis],
        smoothing=seen.smoothing[..., np.newaxis],
    )
    channels = ("explained_mean", "explained_high", "move_mean", "jump_mean", "persistence")
    vectors = {
        name: getattr(constants, name)[..., np.newaxis]
        for name in (*channels, "longest_repeat", "blameable")
    }
    return replace(constants, contribution=contribution, **vectors)


def batch_state(states: Sequence[SymptomState]) -> SymptomState:
    """Join the states of all samples along a last axis."""
    arrays = {
        f.name: np.stack([getattr(s, f.name) for s in states], axis=-1)
        for f in fields(SymptomState)
    }
    return SymptomState(**arrays)


def sample_state(batch: SymptomState, sample: int) -> SymptomState:
    """Return the state of one sample of the batch."""
    arrays = {f.name: getattr(batch, f.name)[..., sample] for f in fields(SymptomState)}
    return SymptomState(**arrays)
