"""Inject faults into a running board and judge how watchdog and checks handle them."""

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
# Noticed by the periodic check of bundle and program, a kilobyte per turn.
NOTICED_LATER = frozenset({Injection.WEIGHTS})
PIECE = 1024
MOST_RESETS = 3
HEALTHY, LONGEST = 50, 5000  # samples


@dataclass(frozen=True)
class Injury:
    """The result of one fault.

    cause, where: as the board reports them. instructions: from the fault to the first status after
    the reset, by the board's counter; None if the fault is noticed later, or without a reset.
    unmarked: samples that the model answered after the fault. fallback: samples that the fallback
    answered. back: samples until the model answered again, None if it never did. faults: broken
    requirements.
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
    """The result of more resets than allowed. services: what answers after each of them."""

    board: str
    services: tuple[Responder, ...]
    faults: tuple[str, ...]


def injure(built: Built, rows: Float32, injection: Injection) -> Injury:
    """Start a board, let it settle on `rows`, inject a fault, and watch its recovery."""
    with uart.running(built, wait=injection is Injection.SLEEP) as (line, _):
        samples = _samples(rows)
        _until_trusted(line, samples)
        line.send(Message(Kind.ASK_INJECT, 0, injection.to_bytes(4, "little")))
        # The fault comes at the end of the next turn, the skipped step in the turn after that.
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
    """Reset the board once more than allowed; from then on the fallback must answer."""
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
        faults.append("the fallback does not keep answering")
    return LastResort(built.board.name, tuple(services), tuple(faults))


def injury_text(injury: Injury) -> str:
    """Describe the injury in one line."""
    cause = injury.cause + (f" in {injury.where}" if injury.where else "")
    took = "" if injury.instructions is None else f"{injury.instructions:,} instructions, "
    back = "never back" if injury.back is None else f"model back after {injury.back} samples"
    faults = f"; WRONG: {', '.join(injury.faults)}" if injury.faults else ""
    return (
        f"{injury.board}  {WORDS[injury.injection]:23} told as: {cause}; {took}"
        f"{injury.unmarked} samples unmarked, {injury.fallback} by the fallback, {back}{faults}"
    )


def resort_text(resort: LastResort) -> str:
    """Describe the result in one line."""
    services = ", ".join(service.name.lower() for service in resort.services)
    faults = f"; WRONG: {', '.join(resort.faults)}" if resort.faults else ""
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
    """Yield records up to the first that the model answers after the fallback."""
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
    """Return the interrupted function; empty if the board does not know it."""
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
    """Yield broken requirements; records: until the model answered again, None if it never did."""
    if status.cause != CAUSES[injection]:
        yield f"the cause is reported as: {cause_name(status.cause)}"
    if status.resets != 1:
        yield f"{status.resets} resets"
    most = sizes(built).flash // PIECE + 1 if injection in NOTICED_LATER else 0
    if unmarked > most:
        yield f"{unmarked} samples were answered unmarked"
    if records is None:
        yield "the model never answered again"
        return
    if len(records) - 1 - unmarked < _settling(built):
        yield "the model answered before it had agreed with the fallback"
    if not np.uint16(records[-1]["flags"]) & Flag.RESTARTED:
        yield "the first record of the model is not flagged RESTARTED"
    if status.selftest != 1:
        yield "the self-test has not passed"
