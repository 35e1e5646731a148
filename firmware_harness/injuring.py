"""Faults on a running board: what the watchdog and the checks make of each, sample by sample."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from edge_runtime.errors import GruardError
from edge_runtime.record import Flag, Float32
from firmware_harness import uart
from firmware_harness.building import Built, sizes
from firmware_harness.core_records import Array
from firmware_harness.protocol import (
    Cause,
    Injection,
    Kind,
    Message,
    Responder,
    Status,
    cause_name,
)
from firmware_harness.toolchain import call

CAUSES = {
    Injection.HANG: Cause.HANG,
    Injection.SLEEP: Cause.HANG,
    Injection.FAULT: Cause.FAULT,
    Injection.STACK: Cause.STACK,
    Injection.WEIGHTS: Cause.WEIGHTS,
    Injection.STATE: Cause.STATE,
    Injection.SKIP: Cause.SEQUENCE,
}
WORDS = {
    Injection.HANG: "endless loop",
    Injection.SLEEP: "asleep, interrupts off",
    Injection.FAULT: "HardFault",
    Injection.STACK: "stack overflow",
    Injection.WEIGHTS: "a bit of the weights",
    Injection.STATE: "a bit of the state",
    Injection.SKIP: "a step left out",
}
# Noticed when the walk over bundle and program comes by, a kilobyte a turn.
NOTICED_LATER = frozenset({Injection.WEIGHTS})
PIECE = 1024
MOST_RESETS = 3
HEALTHY, LONGEST = 50, 5000  # samples


@dataclass(frozen=True)
class Injury:
    """What came of one fault.

    cause, where: as the board told them. instructions: from the fault to the first marked word, as
    the board's counter has it; None where the fault was noticed later, or the board was not reset.
    unmarked: samples that were answered by the model after the fault. fallback: samples that the
    fallback answered; back: samples until the model answered again, None if it never did. faults:
    what is not as it has to be.
    """

    board: str
    injection: Injection
    cause: str
    where: str
    instructions: int | None
    unmarked: int
    fallback: int
    back: int | None
    faults: tuple[str, ...]


@dataclass(frozen=True)
class LastResort:
    """What came of more resets than are allowed. service: who answers after each of them."""

    board: str
    services: tuple[Responder, ...]
    faults: tuple[str, ...]


def injure(built: Built, rows: Float32, injection: Injection) -> Injury:
    """Switch a board on, let it settle on `rows`, break it, and see how it comes back."""
    with uart.running(built, wait=injection is Injection.SLEEP) as (line, _):
        samples = _samples(rows)
        _until_trusted(line, samples)
        line.send(Message(Kind.ASK_INJECT, 0, injection.to_bytes(4, "little")))
        # The fault comes when the next turn is over, the left-out step in the turn after that.
        _ask(line, samples)
        records = list(_until_back(line, samples))
        status = line.status()
    marked = [bool(record["tier"] == 3) for record in records]
    unmarked = marked.index(True) if True in marked else len(marked)
    back = len(records) - 1 if marked and not marked[-1] and True in marked else None
    return Injury(
        built.board.name,
        injection,
        cause_name(status.cause),
        _place(built, status.pc),
        None if injection in NOTICED_LATER else _instructions(built, status),
        unmarked,
        sum(marked),
        back,
        tuple(faults_of(built, injection, status, unmarked, records if back else None)),
    )


def exhaust(built: Built, rows: Float32) -> LastResort:
    """Reset the board once more than is allowed: the fallback has to stay."""
    services, records = [], []
    with uart.running(built) as (line, _):
        samples = _samples(rows)
        for _ in range(MOST_RESETS + 1):
            _ask(line, samples)
            line.send(Message(Kind.ASK_INJECT, 0, Injection.HANG.to_bytes(4, "little")))
            _ask(line, samples)
            _ask(line, samples)
            services.append(Responder(line.status().service))
        records = [_ask(line, samples) for _ in range(2 * _settling(built))]
    faults = []
    if services != [Responder.DISTRUSTED] * (MOST_RESETS - 1) + [Responder.SPARE] * 2:
        faults.append("the spare does not take over with the third reset")
    if any(record["tier"] != 3 for record in records):
        faults.append("the fallback does not stay")
    return LastResort(built.board.name, tuple(services), tuple(faults))


def injury_text(injury: Injury) -> str:
    """One line."""
    told = injury.cause + (f" in {injury.where}" if injury.where else "")
    took = "" if injury.instructions is None else f"{injury.instructions:,} instructions, "
    back = "never back" if injury.back is None else f"model back after {injury.back} samples"
    faults = f"; NOT AS IT HAS TO BE: {', '.join(injury.faults)}" if injury.faults else ""
    return (
        f"{injury.board}  {WORDS[injury.injection]:23} told as: {told}; {took}"
        f"{injury.unmarked} samples unmarked, {injury.fallback} by the fallback, {back}{faults}"
    )


def resort_text(resort: LastResort) -> str:
    """One line."""
    services = ", ".join(service.name.lower() for service in resort.services)
    faults = f"; NOT AS IT HAS TO BE: {', '.join(resort.faults)}" if resort.faults else ""
    return f"{resort.board}  {len(resort.services)} resets in a row: {services}{faults}"


Samples = Iterator[tuple[int, Float32]]


def _samples(rows: Float32) -> Samples:
    return ((index, rows[index % len(rows)]) for index in count())


def _ask(line: uart.Line, samples: Samples) -> Array:
    index, row = next(samples)
    record = uart.answer(line, index, row)
    assert record["index"] == index
    return record


def _until_trusted(line: uart.Line, samples: Samples) -> None:
    healthy = 0
    for _ in range(LONGEST):
        healthy = healthy + 1 if _ask(line, samples)["tier"] == 1 else 0
        if healthy == HEALTHY:
            return
    raise GruardError(
        f"the model does not answer {HEALTHY} samples of the recording in a row; take a healthy one"
    )


def _until_back(line: uart.Line, samples: Samples) -> Iterator[Array]:
    """Records up to the first that the model answers after the fallback has."""
    fallen = False
    for _ in range(LONGEST):
        record = _ask(line, samples)
        yield record
        fallen = fallen or record["tier"] == 3
        if fallen and record["tier"] != 3:
            return


def _settling(built: Built) -> int:
    tiers = built.packed.bundle.manifest.tiers
    return tiers.warmup + tiers.agree


def _instructions(built: Built, status: Status) -> int | None:
    if not status.ticks_to_reset:
        return None
    ticks = status.ticks_to_reset + status.ticks_to_word
    return round(ticks * built.board.tick / uart.NANOSECONDS)


def _place(built: Built, pc: int) -> str:
    """The function that was interrupted; empty where the board cannot know."""
    if not pc:
        return ""
    words = ["-f", "-e", built.firmware.name, hex(pc)]
    return call("arm-none-eabi-addr2line", words, built.folder).splitlines()[0]


def faults_of(
    built: Built,
    injection: Injection,
    status: Status,
    unmarked: int,
    records: Sequence[Array] | None,
) -> Iterator[str]:
    """What is not as it has to be; records: of all samples until the model was back, if it was."""
    if status.cause != CAUSES[injection]:
        yield f"the cause is told as: {cause_name(status.cause)}"
    if status.resets != 1:
        yield f"{status.resets} resets"
    most = sizes(built).flash // PIECE + 1 if injection in NOTICED_LATER else 0
    if unmarked > most:
        yield f"{unmarked} samples were answered unmarked"
    if records is None:
        yield "the model never came back"
        return
    if len(records) - 1 - unmarked < _settling(built):
        yield "the model came back before it had agreed"
    if not np.uint16(records[-1]["flags"]) & Flag.RESTARTED:
        yield "the first record of the model is not marked as such"
    if status.selftest != 1:
        yield "the self-test has not passed"
