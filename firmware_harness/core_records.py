"""Convert records of the C core to those of the runtime."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.detector.fallback import THRESHOLD
from edge_runtime.diagnosis import KINDS
from edge_runtime.record import Flag, Record
from firmware_harness.packing import Packed

Array = npt.NDArray[Any]


def to_records(found: Array, packed: Packed, times: Array | None) -> Iterator[Record]:
    """Convert each of `found` (dtype `edge_runtime.native.engine.RECORD`) to a Record.

    times: seconds of each sample, None if the recording has no times.
    """
    names = packed.bundle.manifest.channel_names
    for place, one in enumerate(found):
        kind = None if one["kind"] < 0 else KINDS[one["kind"]]
        yield Record(
            index=int(one["index"]),
            time=None if times is None else float(times[place]),
            tier=int(one["tier"]),
            flags=Flag(int(one["flags"])),
            valid=bool(one["valid"]),
            score=float(one["score"]),
            threshold=THRESHOLD if one["tier"] == 3 else packed.threshold.value,
            alarm=bool(one["alarm"]),
            masked=_named(names, one["masked"]),
            imputed=_named(names, one["imputed"]),
            blamed=tuple(names[i] for i in one["blamed"] if i >= 0),
            model=packed.bundle.model_hash,
            kind=kind,
            probability=None if kind is None else float(one["probability"]),
            sensor=None if kind is None else bool(one["sensor"]),
        )


def bits(words: Array, channels: int) -> npt.NDArray[np.bool_]:
    """Convert a record's words [rows, 8] to flags [rows, channels]."""
    octets = np.ascontiguousarray(words).view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little")[..., :channels].astype(bool)


def _named(names: tuple[str, ...], words: Array) -> tuple[str, ...]:
    return tuple(name for name, there in zip(names, bits(words, len(names)), strict=True) if there)
