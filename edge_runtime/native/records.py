"""From what the core tells of a step to a `Record`."""

from typing import Any

from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.fallback import THRESHOLD
from edge_runtime.detector.golden import NONE
from edge_runtime.diagnosis.diagnosis import KINDS
from edge_runtime.record import Record, Sample, flags_of


class Records:
    """Makes records in the names of `bundle`. threshold: of its model's alarm."""

    def __init__(self, bundle: Bundle, threshold: float) -> None:
        self._names, self._hash = bundle.manifest.channel_names, bundle.model_hash
        self._threshold = threshold

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

    def _named(self, indices: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(self._names[i] for i in indices) if indices else ()
