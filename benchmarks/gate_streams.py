"""Held-out clean rows with faults of known kind, channel and time, to measure the gate on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from train.batches import Rows
from train.faults import Fault, FaultEvent, inject
from train.selection import SETTLING, SIZES, SPACING, make_streams

Float32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

SHORT_STREAMS, LONG_STREAMS = 3, 6
LONG_ROWS = 200  # a fault that lasts; room for it and for a recovery is four times as much
LONG_KINDS = (Fault.LEVEL, Fault.DRIFT, Fault.STUCK)


@dataclass(frozen=True)
class FaultyStreams:
    """The same clean rows, clean first, then with faults; everything standardised.

    values, masks: float32 [streams, n, channels], values 0 where the mask is 0. wrong: bool of the
    same shape, where a reading is not the clean one or is missing beside it; in the ranked streams
    only what is half a channel scale off. ranked: numbers of the streams that the average precision
    is taken over, the clean one included; faulty: bool [ranked, n], their faulty rows. short, long:
    the faults of 1 to 40 and of 200 rows in the other streams, by stream number.
    """

    values: Float32
    masks: Float32
    wrong: Bools
    ranked: range
    faulty: Bools
    short: dict[int, tuple[FaultEvent, ...]]
    long: dict[int, tuple[FaultEvent, ...]]


def faulty_streams(held_out: Rows, exogenous: Bools, seed: int) -> FaultyStreams:
    """All streams of one series and seed, from the rows that `train.selection` would take.

    Recordings that have no room for a long fault get none.
    """
    base = make_streams(held_out, exogenous, seed)
    clean, mask = base.values[0], base.masks[0]
    values, masks = list(base.values), list(base.masks)
    short: dict[int, tuple[FaultEvent, ...]] = {}
    long: dict[int, tuple[FaultEvent, ...]] = {}
    room = len(clean) >= SETTLING + 1 + 4 * LONG_ROWS
    for number in range(SHORT_STREAMS + (LONG_STREAMS if room else 0)):
        rng = np.random.default_rng((seed, len(base.values) + number))
        lasting = number >= SHORT_STREAMS
        spacing = 4 * LONG_ROWS if lasting else SPACING
        first = min(SETTLING + 1, len(clean) // 4)
        count = max((len(clean) - first) // spacing, 1)
        injection = inject(
            clean,
            rng,
            kinds=[LONG_KINDS[number % len(LONG_KINDS)]] if lasting else tuple(Fault),
            events=(count, count),
            sizes=SIZES,
            lengths=(LONG_ROWS, LONG_ROWS) if lasting else (5, 40),
            exogenous=exogenous,
            first=first,
            spaced=True,
        )
        (long if lasting else short)[len(values)] = injection.events
        values.append(injection.values * mask * injection.mask)
        masks.append(mask * injection.mask)
    ranked = range(len(base.values))
    stacked, usable = np.stack(values), np.stack(masks)
    # A disturbance fades without an end; there a reading is wrong as long as its row is faulty.
    tolerance = np.array([SIZES[0] if number in ranked else 0.0 for number in range(len(values))])
    off = np.abs(stacked - clean) > tolerance[:, np.newaxis, np.newaxis]
    return FaultyStreams(
        values=stacked,
        masks=usable,
        wrong=off | (usable < mask),
        ranked=ranked,
        faulty=base.faulty,
        short=short,
        long=long,
    )


def told(streams: FaultyStreams) -> tuple[Float32, Float32]:
    """values, masks of `streams` as one sees them who is told every faulty reading."""
    masks = streams.masks * ~streams.wrong
    return streams.values * masks, masks.astype(np.float32)


def visible(
    events: Sequence[FaultEvent], values: Float32, clean: Float32, missing: Bools
) -> list[FaultEvent]:
    """Those events in which a reading is missing or at least half a channel scale off.

    values, clean: [n, channels]; missing: bool of that shape. A sensor that is stuck while nothing
    moves shows nothing, and nobody can be asked to see it.
    """
    off = (np.abs(values - clean) > SIZES[0]) | missing
    return [e for e in events if off[e.start : e.stop, e.channels].any()]
