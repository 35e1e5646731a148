"""From what the core tells of a step to a `Record`."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.detector.fallback import THRESHOLD
from edge_runtime.detector.golden import NONE
from edge_runtime.diagnosis.diagnosis import KINDS
from edge_runtime.record import Float32, Record, Sample, flags_of

_WORDS = 8
# `gruard_record` of the core.
RECORD = np.dtype(
    [
        ("index", "<u8"), ("score", "<f4"), ("probability", "<f4"), ("flags", "<u2"),
        ("tier", "u1"), ("valid", "u1"), ("alarm", "u1"), ("kind", "i1"), ("sensor", "u1"),
        ("reserved", "u1"), ("blamed", "<i2", 3), ("masked", "<u4", _WORDS),
        ("imputed", "<u4", _WORDS),
    ],
    align=True,
)  # fmt: skip


class Records:
    """Makes records that name `channels` and the model. threshold: of the model's alarm."""

    def __init__(self, channels: Sequence[str], model_hash: str, threshold: float) -> None:
        self._names, self._hash, self._threshold = channels, model_hash, threshold

    def record(self, sample: Sample, found: tuple[Any, ...]) -> Record:
        """The record of `sample`, of which the core's step has `found` something."""
        score, flags, tier, alarm, kind, sensor, probability, blamed, masked, imputed = found
        diagnosed = kind != NONE
        return Record(
            sample.index,
            sample.time,
            tier,
            flags_of(flags),
            tier != 3,
            score,
            THRESHOLD if tier == 3 else self._threshold,
            alarm != 0,
            self._named(masked),
            self._named(imputed),
            self._named(blamed),
            self._hash,
            KINDS[kind] if diagnosed else None,
            probability if diagnosed else None,
            sensor if diagnosed else None,
        )

    def of_rows(self, rows: Float32, found: npt.NDArray[np.void]) -> Iterator[Record]:
        """The records of raw `rows`, of which the core found an array of `RECORD`."""
        columns = ("score", "flags", "tier", "alarm", "kind", "sensor", "probability")
        told = zip(*(found[name].tolist() for name in columns), strict=True)
        blamed = (tuple(i for i in each if i >= 0) for each in found["blamed"].tolist())
        bits = map(_indices, found["masked"]), map(_indices, found["imputed"])
        for index, (row, first, *rest) in enumerate(zip(rows, told, blamed, *bits, strict=True)):
            score, flags, tier, alarm, kind, sensor, probability = first
            step = (score, flags, tier, alarm, kind, sensor != 0, probability, *rest)
            yield self.record(Sample(index, None, row), step)

    def _named(self, indices: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(self._names[i] for i in indices) if indices else ()


def _indices(words: npt.NDArray[np.uint32]) -> tuple[int, ...]:
    """Of the bits that are set."""
    bits = np.unpackbits(words.view(np.uint8), bitorder="little") if words.any() else words
    return tuple(np.flatnonzero(bits).tolist())
