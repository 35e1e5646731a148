"""Check what a worker says before it is used: the worker is trusted as little as a stranger.

A checksum tells that a frame arrived as it was sent. These checks tell whether it can be true.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.change import fault_of
from edge_runtime.detector.lasting_change import LastingChange
from edge_runtime.diagnosis.diagnosis import KINDS
from edge_runtime.record import Flag, Record
from edge_runtime.supervision.wire import Hello

_SUPERVISORS = Flag.LATE | Flag.GAP | Flag.RESTARTED | Flag.TIMING | Flag.CPU | Flag.RECURRING
"""Flags that only the supervisor sets."""
_SHOWN = 12  # hex digits of a digest in a message


@dataclass(frozen=True)
class BundleIdentity:
    """The bundle that the supervisor read, and that its worker has to load.

    digest: SHA-256 of the manifest. model: the model's hash in records. channels: their names.
    fault_of_change: why no worker of the bundle can have left a lasting change, None when one can.
    """

    digest: str
    model: str
    channels: frozenset[str]
    fault_of_change: Callable[[LastingChange], str | None]

    @staticmethod
    def of(bundle: Bundle) -> BundleIdentity:
        """The identity of a bundle that was read and checked."""
        return BundleIdentity(
            bundle.digest,
            bundle.model_hash,
            frozenset(bundle.manifest.channel_names),
            partial(fault_of, source=bundle.manifest),
        )

    def fault_of_hello(self, hello: Hello) -> str | None:
        """Why a worker that says `hello` cannot be used, None when it can."""
        if hello.digest != self.digest:
            return (
                f"loaded another bundle than this run was started with (digest "
                f"{hello.digest[:_SHOWN]}, not {self.digest[:_SHOWN]}): its folder was exchanged"
            )
        if hello.model != self.model:
            return f"names model {hello.model[:_SHOWN]}, not {self.model}"
        return None

    def fault_of_record(self, record: Record, time: float | None) -> str | None:
        """Why `record` cannot be the answer to a sample of that `time`, None when it can."""
        if record.time != time:
            return f"has the time {record.time} where the sample has {time}"
        if record.model != self.model:
            return f"names model {record.model[:_SHOWN]}, not {self.model}"
        return _fault_of_standing(record) or _fault_of_numbers(record) or self._fault_of(record)

    def _fault_of(self, record: Record) -> str | None:
        """The names of channels and of the fault, and what goes with the latter."""
        for names in (record.masked, record.imputed, record.blamed):
            if not self.channels.issuperset(names):
                return "names a channel that the bundle does not have"
        diagnosed = record.kind is not None
        if diagnosed != (record.probability is not None) or diagnosed != (
            record.sensor is not None
        ):
            return "has a part of a diagnosis only"
        if diagnosed and record.kind not in KINDS:
            return "names an unknown kind of fault"
        return None


def _fault_of_standing(record: Record) -> str | None:
    """Tier, flags and validity have to agree."""
    if record.tier not in (1, 2, 3):
        return f"is of tier {record.tier}"
    if record.flags & _SUPERVISORS:
        return "has a flag that only the supervisor sets"
    if (record.tier == 3) != (Flag.FALLBACK in record.flags):
        return f"is of tier {record.tier}, which its flags contradict"
    if record.valid and record.flags & (Flag.FALLBACK | Flag.WARMUP):
        return "is valid, which its flags contradict"
    return None


def _fault_of_numbers(record: Record) -> str | None:
    for name, number in (("score", record.score), ("threshold", record.threshold)):
        if number is None or not math.isfinite(number):
            return f"has the {name} {number}"
    if record.probability is not None and not 0.0 <= record.probability <= 1.0:
        return f"has the probability {record.probability}"
    return None
