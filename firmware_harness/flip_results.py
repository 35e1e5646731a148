"""The results of single flipped bits in a running board: outcomes, verdict and table."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from statistics import median

from scipy.stats import binomtest

from firmware_harness.core_records import Array


class FlippedPart(StrEnum):
    """Where a bit is flipped."""

    WEIGHTS = "weights"  # the bundle: weights, tables, thresholds
    STATE = "state"  # all variables, of the detectors and of the program
    CODE = "code"
    STACK = "stack"  # the part in use


class FlipOutcome(StrEnum):
    """The outcome of a flip."""

    NOTICED = "noticed"  # the board reported it: a reset with its cause, or a marked record
    HARMLESS = "harmless"  # every record as without the flip
    SILENT = "silent"  # another record, not marked
    QUIET = "quiet"  # no records any more
    LOCKED = "locked up"  # the processor halts until its watchdog resets it; the emulator ends


@dataclass(frozen=True)
class Flip:
    """One bit and its consequences.

    stepping: the flip came during a step. told: the cause that the board reports, empty if only a
    record was marked. samples: until it was noticed. wrong, wrong_alarms: unmarked records until
    then that differ from those without the flip, and those with another alarm.
    """

    board: str
    part: FlippedPart
    address: int
    bit: int
    stepping: bool
    verdict: FlipOutcome
    told: str
    samples: int
    wrong: int
    wrong_alarms: int


def judged(
    records: Iterator[tuple[Array | None, Array, bool]],
) -> tuple[FlipOutcome, int, int, int]:
    """Return outcome, samples until it was noticed, wrong records and wrong alarms before.

    records: for each sample the received record, None for a refusal; the expected record; and
    whether the board has reported a reset.
    """
    count = wrong = alarms = 0
    for received, wanted, reset in records:
        if received is None or reset or _marked(received) > _marked(wanted):
            return FlipOutcome.NOTICED, count, wrong, alarms
        count += 1
        wrong += received.tobytes() != wanted.tobytes()
        alarms += bool(received["alarm"] != wanted["alarm"])
    return FlipOutcome.SILENT if wrong else FlipOutcome.HARMLESS, count, wrong, alarms


def _marked(record: Array) -> bool:
    return bool(record["tier"] == 3 or not record["valid"])


def passed(flips: Iterable[Flip]) -> bool:
    """Return whether every board answered to the end, and no unmarked record had a wrong alarm."""
    return not any(
        flip.verdict is FlipOutcome.QUIET
        or (flip.verdict is FlipOutcome.SILENT and flip.wrong_alarms)
        for flip in flips
    )


def unnoticed(flips: Iterable[Flip]) -> list[str]:
    """Return a line for each flip that was silent or made its board quiet."""
    return [
        f"{flip.board}: bit {flip.bit} of {flip.address:#x}, {flip.part}: {flip.verdict}; "
        f"{flip.wrong} other records, {flip.wrong_alarms} other alarms"
        for flip in flips
        if flip.verdict in (FlipOutcome.SILENT, FlipOutcome.QUIET)
    ]


HEAD = (
    "board", "bits of", "flips", *(verdict.value for verdict in FlipOutcome),
    "noticed, of those that mattered", "noticed after", "other record before", "other alarm before",
)  # fmt: skip


def table(flips: Sequence[Flip]) -> str:
    """Return a Markdown table with a line per board and part, and one for all.

    *Mattered* are the flips that were noticed, silent or quiet; their share has Wilson's 95 %
    interval (Wilson 1927). *After* is the median and the largest number of samples. *Before* is how
    many of the noticed flips had changed an unmarked record, or its alarm, before.
    """
    ordered = sorted(flips, key=lambda flip: (flip.board, list(FlippedPart).index(flip.part)))
    groups = groupby(ordered, key=lambda flip: (flip.board, flip.part.value))
    lines = [[*names, *_cells(list(group))] for names, group in groups]
    rule = ["---", "---", *["---:"] * (len(HEAD) - 2)]
    rows = [HEAD, rule, *lines, ["all", "", *_cells(flips)]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cells(flips: Sequence[Flip]) -> list[str]:
    counts = {verdict: sum(flip.verdict is verdict for flip in flips) for verdict in FlipOutcome}
    noticed = [flip for flip in flips if flip.verdict is FlipOutcome.NOTICED]
    after = [flip.samples for flip in noticed]
    return [
        f"{len(flips):,}",
        *(f"{count:,}" for count in counts.values()),
        _share(len(noticed), len(noticed) + counts[FlipOutcome.SILENT] + counts[FlipOutcome.QUIET]),
        f"{median(after):g}, at most {max(after)}" if after else "–",
        f"{sum(flip.wrong > 0 for flip in noticed):,}",
        f"{sum(flip.wrong_alarms > 0 for flip in noticed):,}",
    ]


def _share(count: int, of: int) -> str:
    if not of:
        return "–"
    low, high = binomtest(count, of).proportion_ci(method="wilson")
    return f"{100 * count / of:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
