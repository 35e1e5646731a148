"""Single bits turned round in a running board: what can come of one, and how often it did."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from statistics import median

from scipy.stats import binomtest

from firmware_harness.core_records import Array


class Part(StrEnum):
    """Where a bit is turned round."""

    WEIGHTS = "weights"  # the bundle: weights, tables, thresholds
    STATE = "state"  # all variables: the detectors', the program's own
    CODE = "code"
    STACK = "stack"  # what of it is in use


class FlipOutcome(StrEnum):
    """What came of it."""

    NOTICED = "noticed"  # the board said so: a reset with its cause, or a marked record
    HARMLESS = "harmless"  # every record as without the flip
    SILENT = "silent"  # another record, and nothing said
    QUIET = "quiet"  # no record any more
    LOCKED = "locked up"  # the processor stands still until its watchdog; the emulator ends there


@dataclass(frozen=True)
class Flip:
    """One bit and its consequences.

    stepping: it came in the middle of a step. told: the cause as the board has it, empty where a
    mark said enough. samples: until it was noticed. wrong, wrong_alarms: unmarked records until
    then that say something else, or say another alarm, than without the flip.
    """

    board: str
    part: Part
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
    """Verdict, samples until it was noticed, wrong records and wrong alarms before.

    records: of each sample the record that came, None for a refusal; the one that should have; and
    whether the board has said that it was reset.
    """
    count = wrong = alarms = 0
    for told, wanted, reset in records:
        if told is None or reset or _marked(told) > _marked(wanted):
            return FlipOutcome.NOTICED, count, wrong, alarms
        count += 1
        wrong += told.tobytes() != wanted.tobytes()
        alarms += bool(told["alarm"] != wanted["alarm"])
    return FlipOutcome.SILENT if wrong else FlipOutcome.HARMLESS, count, wrong, alarms


def _marked(record: Array) -> bool:
    return bool(record["tier"] == 3 or not record["valid"])


def passed(flips: Iterable[Flip]) -> bool:
    """Whether every board answered to the end, and none told another alarm without a word."""
    return not any(
        flip.verdict is FlipOutcome.QUIET
        or (flip.verdict is FlipOutcome.SILENT and flip.wrong_alarms)
        for flip in flips
    )


def unnoticed(flips: Iterable[Flip]) -> list[str]:
    """A line for each flip that was silent, or made its board quiet, for whoever looks into it."""
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
    """Markdown: a line for each board and part, and one for all.

    *Mattered* is what was noticed, silent or quiet, with Wilson's 95 % interval of the share
    (Wilson 1927). *After* is the median and the largest number of samples. *Before* is how many of
    the noticed flips had changed an unmarked record, or its alarm, by then.
    """
    ordered = sorted(flips, key=lambda flip: (flip.board, list(Part).index(flip.part)))
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
