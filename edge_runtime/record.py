"""The input and the output of the device: one sample, one record; a record as JSON or CSV."""

import enum
import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_runtime.alarm import AlarmEvent

Float32 = npt.NDArray[np.float32]


class Flag(enum.IntFlag):
    """Conditions that limit the trust in a record."""

    IMPUTED = 1  # at least one reading was replaced by the forecast
    FREE_RUN = 2  # tier 2: the model runs on its own forecasts
    RESYNC = 4  # tier 2: a gate is held open to find the signal again
    WARMUP = 8  # the recurrent state was reset and is still settling
    RESET = 16  # the recurrent state was reset at this sample
    FALLBACK = 32  # tier 3: the statistical detector answered
    LATE = 64  # the model's answer missed its deadline
    GAP = 128  # the source delivered no reading for this slot
    RESTARTED = 256  # first model-backed record after the inference process was restarted
    TIMING = 512  # the source's time is wrong, or a reading before this one was dropped
    CHANGED = 2048  # a lasting change was reported; the alarm is relative to the new state
    UNKNOWN_MODE = 4096  # the settings are of no recorded mode; the model did not judge the row
    RECURRING = 8192  # such an alarm began at this time of day before; the supervisor sets it
    MUTED = 16384  # the owner muted this alarm; the supervisor sets it
    LEARNING = 32768  # no model has been learned yet; the supervisor sets it
    CPU = 1024  # the requested accelerator is not in use: the model ran on the CPU

    # As enum has them, but five times faster: every sample needs several.
    def __or__(self, other: int) -> "Flag":
        return flags_of(int.__or__(self, other))

    def __and__(self, other: int) -> "Flag":
        return flags_of(int.__and__(self, other))


@dataclass(frozen=True)
class Sample:
    """One reading of all channels.

    index: position in the stream, counted from 0, without holes.
    time: seconds, from the source, or None.
    values: float32 [channels] in the bundle's channel order and raw units; NaN where missing.
    """

    index: int
    time: float | None
    values: Float32

    def of(self, columns: Sequence[int] | None) -> "Sample":
        """Return the sample with only the readings of `columns`, in that order; None for all."""
        return self if columns is None else replace(self, values=self.values[list(columns)])


@dataclass(frozen=True, init=False)
class Record:
    """The answer for one sample.

    tier: who answers for it: 1 the model, 2 the model on its own forecasts, 3 the statistical
    fallback.
    valid: it comes from a healthy, settled model; False in tier 3 and in the warm-up.
    score, threshold: of the detector that answered; None for a gap.
    masked: channels whose reading was unusable; imputed: channels replaced by the forecast.
    blamed: channels behind the alarm, worst first; empty when there is no alarm.
    model: first 12 hex digits of the SHA-256 of model.tflite (of the forecast when the bundle is
    linear), empty when no model was usable.
    kind, probability, sensor: the most probable kind of fault, its probability, and whether a
    sensor is at fault rather than the machine; all None unless the model's alarm was diagnosed.
    slots: how many slots of the sample clock the record stands for; 1 except in a long gap.
    event: where an alarm begins or has ended, or is muted or no longer; None elsewhere. The
    supervisor sets it.
    """

    index: int
    time: float | None
    tier: int
    flags: Flag
    valid: bool
    score: float | None
    threshold: float | None
    alarm: bool
    masked: tuple[str, ...]
    imputed: tuple[str, ...]
    blamed: tuple[str, ...]
    model: str
    kind: str | None = None
    probability: float | None = None
    sensor: bool | None = None
    slots: int = 1
    event: AlarmEvent | None = None

    def __init__(
        self,
        index: int,
        time: float | None,
        tier: int,
        flags: Flag,
        valid: bool,
        score: float | None,
        threshold: float | None,
        alarm: bool,
        masked: tuple[str, ...],
        imputed: tuple[str, ...],
        blamed: tuple[str, ...],
        model: str,
        kind: str | None = None,
        probability: float | None = None,
        sensor: bool | None = None,
        slots: int = 1,
        event: AlarmEvent | None = None,
    ) -> None:
        # All fields at once: one by one, as dataclasses do it, costs as much as the detection.
        fields = {
            "index": index, "time": time, "tier": tier, "flags": flags, "valid": valid,
            "score": score, "threshold": threshold, "alarm": alarm, "masked": masked,
            "imputed": imputed, "blamed": blamed, "model": model, "kind": kind,
            "probability": probability, "sensor": sensor, "slots": slots,
            "event": event,
        }  # fmt: skip
        object.__setattr__(self, "__dict__", fields)

    def to_json(self) -> str:
        """Return one object of strict JSON without a line break; flags as a list of names.

        A number that is not finite is null, and a record without a score is not valid.
        """
        several = {"slots": self.slots} if self.slots > 1 else {}
        event = {"event": self.event.fields()} if self.event else {}
        return _to_json(
            {
                "index": self.index,
                "time": finite(self.time),
                "tier": self.tier,
                "flags": flag_names(self.flags),
                "valid": self.valid and finite(self.score) is not None,
                "score": _rounded(self.score),
                "threshold": _rounded(self.threshold),
                "alarm": self.alarm,
                "masked": self.masked,
                "imputed": self.imputed,
                "blamed": self.blamed,
                "kind": self.kind,
                "probability": _rounded(self.probability),
                "sensor": self.sensor,
                "model": self.model,
                **several,
                **event,
            }
        )


def finite(value: float | None) -> float | None:
    """Return `value`, or None if it is infinite or NaN, which strict JSON does not have."""
    return None if value is None or not math.isfinite(value) else value


def unjudged(record: Record, last: Record | None) -> Record:
    """Return `record` as that of a gap in tier 3, which keeps the alarm of `last`."""
    return replace(
        record,
        score=None,
        threshold=None,
        alarm=last.alarm if last else False,
        blamed=last.blamed if last else (),
    )


def flag_names(flags: Flag) -> list[str]:
    """Return the names of the set flags, in the order of `Flag`."""
    return list(_flag_names(int(flags)))


_to_json = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps makes an encoder per call


@functools.cache  # records have few combinations, and iterating over `Flag` is slow
def _flag_names(bits: int) -> tuple[str, ...]:
    return tuple(flag.name for flag in Flag if bits & flag and flag.name)


@functools.cache
def flags_of(bits: int) -> Flag:
    """Return the flags whose bits are set. Raises ValueError for an unknown bit."""
    if not 0 <= bits < 2 * max(Flag):
        raise ValueError(f"flags {bits}")
    return Flag(bits)


def _rounded(value: float | None) -> float | None:
    # Nine significant digits identify every float32.
    return None if value is None or not math.isfinite(value) else float(f"{value:.9g}")


CSV_COLUMNS = (
    "index", "score", "threshold", "flag", "tier", "valid", "flags", "masked", "imputed",
    "blamed", "kind", "probability", "sensor", "time",
)  # fmt: skip


def csv_cells(record: Record) -> list[object]:
    """Return one row of a CSV file, in the order of `CSV_COLUMNS`; names are joined by spaces.

    An unknown value is an empty cell, as is a number that is not finite.
    """
    time = finite(record.time)
    return [
        record.index,
        _csv_number(record.score),
        _csv_number(record.threshold),
        int(record.alarm),
        record.tier,
        int(record.valid and finite(record.score) is not None),
        " ".join(flag_names(record.flags)),
        " ".join(record.masked),
        " ".join(record.imputed),
        " ".join(record.blamed),
        record.kind or "",
        _csv_number(record.probability),
        "" if record.sensor is None else int(record.sensor),
        "" if time is None else repr(time),
    ]


def _csv_number(value: float | None) -> str:
    number = finite(value)
    return "" if number is None else f"{number:.9g}"
