"""The allowed observations of a store, its runs and their journal during concurrent commands.

A `History` contains commands and observations, with times; `broken_promises` compares them. Its
model of the store is the pure state machine of the pointers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from edge_runtime.errors import GruardError
from edge_runtime.updates.pointers import ATTEMPTS, Pointers
from tests.campaign.fault import Json, NotHeldError, check_promises

DEEPEST = 5
"""Most events between two looks at the pointers."""
LATE_LOOK = 1.0
"""Seconds that a busy machine may delay a look."""
SLACK = 0.05
"""Seconds between an event and the look that shows it."""


@dataclass(frozen=True)
class Command:
    """One command. code: None when it was killed, which leaves open whether it had an effect.

    kind: install, use, rollback, list or run. slot: digest it names, empty where it names none.
    """

    kind: str
    slot: str
    begun: float
    ended: float
    code: int | None
    said: str = ""


@dataclass(frozen=True)
class Look:
    """The pointers at a time, seen whenever they changed; fault: what could not be read."""

    time: float
    pointers: Pointers
    fault: str = ""


@dataclass(frozen=True)
class Watched:
    """One run with its records. killed: it was ended by SIGKILL."""

    begun: float
    ended: float
    killed: bool
    records: Sequence[Json]


@dataclass(frozen=True)
class JournalRead:
    """One read of the journal: numbers and messages, in its order."""

    begun: float
    ended: float
    entries: Sequence[tuple[int, bytes]]


@dataclass(frozen=True)
class History:
    """models: the model's hash of each slot. floors: lowest accepted versions, as time goes on."""

    models: dict[str, str]
    commands: Sequence[Command]
    looks: Sequence[Look]
    runs: Sequence[Watched]
    reads: Sequence[JournalRead]
    floors: Sequence[int] = ()


def broken_promises(history: History) -> list[str]:
    """Return every promise that `history` breaks, in words."""
    return [
        *_unreadable(history),
        *_unexplained(history),
        *_without_effect(history),
        *_wrong_codes(history),
        *_bad_runs(history),
        *_bad_reads(history),
        *_fallen_floor(history),
    ]


def _unreadable(history: History) -> Iterator[str]:
    for look in history.looks:
        if look.fault:
            yield f"at {look.time:.3f} s: {look.fault}"


def _unexplained(history: History) -> Iterator[str]:
    for before, after in pairwise(history.looks):
        if _steps_between(history, before, after) is None:
            yield (
                f"at {after.time:.3f} s: no command leads from {_told(before.pointers)} "
                f"to {_told(after.pointers)}"
            )


def _steps_between(history: History, before: Look, after: Look) -> int | None:
    """Return the fewest events that lead from one look to the next, None if no events do."""
    active = [
        command
        for command in history.commands
        if command.begun <= after.time + SLACK and command.ended >= before.time - SLACK
    ]
    wanted, found = _bare(after.pointers), {_bare(before.pointers)}
    for steps in range(DEEPEST + 1):
        if wanted in found:
            return steps
        found = {_bare(later) for known in found for later in _next(known, active)}
    return None


def _next(pointers: Pointers, active: Sequence[Command]) -> Iterator[Pointers]:
    """Yield the pointers that one event of any of the commands may lead to."""
    for command in active:
        if command.kind in ("install", "use") and command.code in (0, None):
            yield pointers.chosen(command.slot, ATTEMPTS)
        elif command.kind == "rollback" and command.code in (0, None):
            try:
                yield pointers.rolled_back()
            except GruardError:
                continue
        elif command.kind == "run" and pointers.trial:
            slot = pointers.trial.slot
            if pointers.trial.attempts:
                yield pointers.attempted(slot)
            yield pointers.spared(slot)
            yield pointers.proven(slot)
            yield pointers.failed(slot, "")


def _bare(pointers: Pointers) -> Pointers:
    """Return the pointers without the text of a rejection's reason."""
    rejected = pointers.rejected
    return replace(pointers, rejected=rejected and replace(rejected, reason=""))


def _without_effect(history: History) -> Iterator[str]:
    """Yield choices that were reported as done but not observed, unless another may hide them."""
    for command in history.commands:
        if command.code != 0 or command.kind not in ("install", "use"):
            continue
        if any(_covers(other, command) for other in history.commands if other is not command):
            continue
        seen = _during(history.looks, command.begun, command.ended + LATE_LOOK)
        if not any(_is_about(look.pointers, command.slot) for look in seen):
            yield f"{command.kind} at {command.begun:.3f} s said it was done, and nothing changed"


def _covers(other: Command, command: Command) -> bool:
    """Return whether `other` may have replaced the choice of `command` before the next look."""
    chooses = other.kind in ("install", "use", "rollback") and other.code in (0, None)
    return chooses and other.begun <= command.ended + LATE_LOOK and other.ended >= command.begun


def _is_about(pointers: Pointers, slot: str) -> bool:
    rejected = pointers.rejected is not None and pointers.rejected.slot == slot
    return pointers.on_trial(slot) or pointers.current == slot or rejected


def _during(looks: Sequence[Look], begun: float, ended: float) -> Iterator[Look]:
    """Yield the looks in a span of time, and the last one before it."""
    for look, following in zip(looks, [*looks[1:], None], strict=True):
        over = following is not None and following.time < begun
        if look.time <= ended and not over:
            yield look


def _wrong_codes(history: History) -> Iterator[str]:
    for command in history.commands:
        if command.code not in (0, 2, None):
            yield f"{command.kind} ended with exit code {command.code}: {command.said[-200:]}"
        if command.code == 2 and "gruard: " not in command.said:
            yield f"{command.kind} refused without an error message"
        if "Traceback" in command.said:
            yield f"{command.kind} ended with a traceback: {command.said[-200:]}"


def _bad_runs(history: History) -> Iterator[str]:
    for run in history.runs:
        try:
            check_promises(run.records)
        except NotHeldError as error:
            yield f"run at {run.begun:.3f} s: {error}"
        if not run.killed and not run.records:
            yield f"run at {run.begun:.3f} s: no record; {_words_of(history, run)}"
        allowed = set(_may_answer(history, run))
        used = {str(r["model"]) for r in run.records if r["tier"] < 3}
        for model in used - allowed:
            yield f"run at {run.begun:.3f} s: model {model} answered, which no command had chosen"


def _words_of(history: History, run: Watched) -> str:
    """Return the end of the log of a run."""
    commands = [each for each in history.commands if each.kind == "run"]
    said = (each.said for each in commands if run.begun <= each.begun <= run.ended)
    return next(said, "")[-200:]


def _may_answer(history: History, run: Watched) -> Iterator[str]:
    """Yield models of slots that were current, on trial or chosen by a command during a run."""
    for look in _during(history.looks, run.begun - SLACK, run.ended + SLACK):
        pointers = look.pointers
        for slot in (pointers.current, pointers.trial.slot if pointers.trial else None):
            if slot:
                yield history.models[slot]
    for command in history.commands:
        if command.slot and command.begun <= run.ended and command.ended >= run.begun:
            yield history.models[command.slot]


def _bad_reads(history: History) -> Iterator[str]:
    """Yield reads with missing numbers, or without entries that an earlier read had."""
    for read in history.reads:
        numbers = [number for number, _ in read.entries]
        if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            yield f"journal at {read.begun:.3f} s: gaps or disorder in {_shortened(numbers)}"
    for earlier in history.reads:
        for later in history.reads:
            known = len(earlier.entries)
            if earlier.ended <= later.begun and later.entries[:known] != earlier.entries:
                yield f"journal at {later.begun:.3f} s: lacks entries of an earlier read"


def _fallen_floor(history: History) -> Iterator[str]:
    for before, after in pairwise(history.floors):
        if after < before:
            yield f"the lowest accepted version fell from {before} to {after}"


def _told(pointers: Pointers) -> str:
    trial = pointers.trial and f"{pointers.trial.slot[:4]}({pointers.trial.attempts})"
    rejected = pointers.rejected and pointers.rejected.slot[:4]
    slots = [slot and slot[:4] for slot in (pointers.current, pointers.previous)]
    return f"[current {slots[0]}, previous {slots[1]}, trial {trial}, rejected {rejected}]"


def _shortened(numbers: Sequence[int]) -> str:
    wrong = next(i for i, number in enumerate(numbers) if number != numbers[0] + i)
    return f"… {', '.join(map(str, numbers[max(0, wrong - 2) : wrong + 2]))} …"
