"""Single bits turned round in a running board, one by one: noticed, harmless, or silent?

Every flip begins with the machine as it was at one of some places of a recording, some samples
later, at a moment that nobody chose; from there on every record is held against what the core says
without a flip.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from edge_runtime.errors import GruardError
from edge_runtime.native.blob import pack, program_of
from edge_runtime.native.engine import RECORD, core_module
from edge_runtime.native.layout import layout_of
from edge_runtime.record import Float32
from firmware_harness import uart
from firmware_harness.building import Built
from firmware_harness.core_records import Array
from firmware_harness.injuring import PIECE
from firmware_harness.live import Live, live
from firmware_harness.protocol import Cause, Kind, Message
from firmware_harness.toolchain import call

PLACES = 12  # of a recording, half of them shortly before an alarm begins or ends
BEFORE_EDGE = 50  # samples, at most
LATER = 30  # samples from a place to a flip, at most
MORE = 20  # samples that a flip is watched beyond a walk over all that is walked
DETECTORS, ALIGNED = 3, 8  # two that answer and one that is tested; bytes
STAGE_PLACE, STEPPING = 20, 2  # of app/black_box.h

STEP_OVER = "link_send"  # the function that comes after a step

Areas = tuple[tuple[int, int], ...]


class Part(StrEnum):
    """Where a bit is turned round."""

    WEIGHTS = "weights"  # the bundle: weights, tables, thresholds
    STATE = "state"  # all variables: the detectors', the program's own
    CODE = "code"
    STACK = "stack"  # what of it is in use


class Verdict(StrEnum):
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
    verdict: Verdict
    told: str
    samples: int
    wrong: int
    wrong_alarms: int


@dataclass(frozen=True)
class Ground:
    """A board and what it is to say. rows: raw [n, channels]. wanted: records [n].

    places: from which flips begin. window: samples that a flip is watched. areas: begin and end of
    each part that stays in place. at: addresses of the program's symbols.
    """

    built: Built
    rows: Float32
    wanted: Array
    places: tuple[int, ...]
    window: int
    areas: dict[Part, Areas]
    at: dict[str, int]


def campaign(
    built: Built, rows: Float32, flips: int, seed: int, say: Callable[[str], None]
) -> list[Flip]:
    """`flips` single bits on one board, the four parts in turn.

    built: a release, as it would be shipped. rows: raw [n, channels], with alarms.
    Raises GruardError when the recording has no alarm, or the board without a flip does not say
    what it should.
    """
    rng = np.random.default_rng(seed)
    wanted, at = reference(built, rows), _symbols(built)
    window = _walked(built, at) // PIECE + 2 + MORE
    places = chosen_places(wanted, LATER + window, rng)
    parts = [list(Part)[number % len(Part)] for number in range(flips)]
    found = list[Flip]()
    while len(found) < flips:  # with another board whenever one is beyond help
        with live(built) as machine:
            areas = _areas(machine, built, at)
            ground = Ground(built, rows, wanted, places, window, areas, at)
            turn = _visit(machine, ground)
            functions = _functions(machine, ground)
            for part in parts[len(found) :]:
                first = _before_a_flip(machine, ground, rng)
                if rng.random() < 0.5:
                    _hold_within_step(machine, ground, first, int(rng.choice(functions)))
                else:
                    _hold_anywhen(machine, ground, first, turn * rng.random())
                found.append(_flip(machine, ground, part, first, rng))
                if len(found) % 100 == 0:
                    say(f"{built.board.name}: {len(found):,} of {flips:,} flips")
                if found[-1].verdict in (Verdict.QUIET, Verdict.LOCKED):
                    break
    return found


def reference(built: Built, rows: Float32) -> Array:
    """Records of `rows` by the core on this machine."""
    module, packed = core_module(), built.packed
    records = np.zeros(len(rows), RECORD)
    program = program_of(packed.bundle, layout_of(module.LAYOUT))
    core = module.Core(pack(packed.bundle, packed.threshold, program))
    core.run(np.array(rows, np.float32, order="C"), records)
    return records


def chosen_places(wanted: Array, room: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Samples from which flips begin: answered by the model, half of them before an alarm's edge,
    and followed by `room` others.

    Raises GruardError when there are too few.
    """
    sound = wanted["valid"] == 1
    sound[max(0, len(wanted) - room) :] = False
    edges = np.flatnonzero(np.diff(wanted["alarm"].astype(int))) + 1
    distance = np.full(len(wanted), len(wanted))
    for edge in edges:
        start = max(0, edge - BEFORE_EDGE)
        distance[start:edge] = np.arange(edge - start, 0, -1)
    near = np.flatnonzero(sound & (distance <= BEFORE_EDGE))
    anywhere = np.flatnonzero(sound)
    if len(near) < PLACES // 2 or len(anywhere) < PLACES:
        raise GruardError("the recording is too short, or has no alarm; take one with faults")
    half = rng.choice(near, PLACES // 2, replace=False)
    other = rng.choice(np.setdiff1d(anywhere, half), PLACES - len(half), replace=False)
    return tuple(sorted(int(place) for place in (*half, *other)))


def judged(records: Iterator[tuple[Array | None, Array, bool]]) -> tuple[Verdict, int, int, int]:
    """Verdict, samples until it was noticed, wrong records and wrong alarms before.

    records: of each sample the record that came, None for a refusal; the one that should have; and
    whether the board has said that it was reset.
    """
    count = wrong = alarms = 0
    for told, wanted, reset in records:
        if told is None or reset or _marked(told) > _marked(wanted):
            return Verdict.NOTICED, count, wrong, alarms
        count += 1
        wrong += told.tobytes() != wanted.tobytes()
        alarms += bool(told["alarm"] != wanted["alarm"])
    return Verdict.SILENT if wrong else Verdict.HARMLESS, count, wrong, alarms


def _marked(record: Array) -> bool:
    return bool(record["tier"] == 3 or not record["valid"])


def _areas(machine: Live, built: Built, at: dict[str, int]) -> dict[Part, Areas]:
    size = int.from_bytes(machine.read(at["memory_size"], 4), "little")
    detectors = at["board_free_start"] + DETECTORS * -(-size // ALIGNED) * ALIGNED
    return {
        Part.WEIGHTS: ((at["gruard_blob"], at["gruard_blob"] + len(built.packed.blob)),),
        Part.STATE: ((at["box"], at["board_bss_end"]), (at["board_free_start"], detectors)),
        Part.CODE: ((at["board_code_start"], at["board_code_end"]),),
    }


def _walked(built: Built, at: dict[str, int]) -> int:
    """Bytes that the board looks through between samples."""
    return len(built.packed.blob) + at["board_code_end"] - at["board_code_start"]


def _symbols(built: Built) -> dict[str, int]:
    lines = call("arm-none-eabi-nm", [built.firmware.name], built.folder).splitlines()
    fields = (line.split() for line in lines)
    return {words[2]: int(words[0], 16) for words in fields if len(words) == 3}


def _size(areas: Areas) -> int:
    return sum(end - begin for begin, end in areas)


def _visit(machine: Live, ground: Ground) -> float:
    """Keep the machine at every place, and see that it says what it should; seconds a sample."""
    last = ground.places[-1] + LATER + ground.window
    began = time.perf_counter()
    for index in range(last):
        if index in ground.places:
            machine.stop()
            machine.save(f"at{index}")
            machine.go_on()
        if _record(machine, ground, index).tobytes() != ground.wanted[index].tobytes():
            raise GruardError(f"sample {index}: the board differs from the core without any flip")
    return (time.perf_counter() - began) / last


def _record(machine: Live, ground: Ground, index: int) -> Array:
    return uart.answer(machine.line, index, ground.rows[index])


def _functions(machine: Live, ground: Ground) -> list[int]:
    """Addresses of the core's functions that a step comes to, in their order."""
    at, index = ground.at, ground.places[0]
    machine.restore(f"at{index}")
    left = {at[name] for name in at if name.startswith("gruard_")} & _addresses(ground, Part.CODE)
    found = list[int]()
    came = machine.go_on_to([*left, at[STEP_OVER]], lambda: _send(machine, ground, index))
    while came != at[STEP_OVER]:
        found.append(came)
        left.remove(came)
        came = machine.go_on_to([*left, at[STEP_OVER]], lambda: None)
    machine.go_on()
    _record(machine, ground, index)
    return found


def _addresses(ground: Ground, part: Part) -> set[int]:
    return {place for begin, end in ground.areas[part] for place in range(begin, end)}


def _before_a_flip(machine: Live, ground: Ground, rng: np.random.Generator) -> int:
    """The machine set back to a place, and some samples further; the next sample's index."""
    place = int(rng.choice(ground.places))
    first = place + int(rng.integers(LATER))
    machine.restore(f"at{place}")
    machine.go_on()
    for index in range(place, first):
        _record(machine, ground, index)
    return first


def _hold_within_step(machine: Live, ground: Ground, index: int, function: int) -> None:
    """Held where a function of the core begins, if the step comes to it, or else at its end."""
    machine.stop()
    ends = (function, ground.at[STEP_OVER])
    machine.go_on_to(ends, lambda: _send(machine, ground, index))


def _hold_anywhen(machine: Live, ground: Ground, index: int, seconds: float) -> None:
    """Held so many seconds after the sample was sent."""
    _send(machine, ground, index)
    time.sleep(seconds)
    machine.stop()


def _send(machine: Live, ground: Ground, index: int) -> None:
    body = np.asarray(ground.rows[index], "<f4").tobytes()
    machine.line.send(Message(Kind.ASK_SAMPLE, index, body))


def _flip(machine: Live, ground: Ground, part: Part, first: int, rng: np.random.Generator) -> Flip:
    stepping = machine.read(ground.at["box"] + STAGE_PLACE, 1)[0] == STEPPING
    address, bit = _drawn(machine, ground, part, rng)
    machine.flip(address, bit)
    machine.go_on()
    fate = _fate(machine, ground, first)
    return Flip(ground.built.board.name, part, address, bit, stepping, *fate)


def _drawn(machine: Live, ground: Ground, part: Part, rng: np.random.Generator) -> tuple[int, int]:
    """Address and bit."""
    if part is Part.STACK:
        areas: Areas = ((machine.registers()["R13"], ground.at["board_stack_top"]),)
    else:
        areas = ground.areas[part]
    place = int(rng.integers(_size(areas)))
    for begin, end in areas:
        if place < end - begin:
            return begin + place, int(rng.integers(8))
        place -= end - begin
    raise AssertionError("a place lies within the areas")


def _fate(machine: Live, ground: Ground, first: int) -> tuple[Verdict, str, int, int, int]:
    """Verdict, cause, and the counts of `judged`."""
    starts = machine.line.heard[Kind.TELL_STATUS]

    def seen() -> Iterator[tuple[Array | None, Array, bool]]:
        for index in range(first, first + ground.window):
            try:
                told = _record(machine, ground, index)
            except uart.RefusedError:
                told = None
            yield told, ground.wanted[index], machine.line.heard[Kind.TELL_STATUS] > starts

    try:
        verdict, *counts = judged(seen())
        status = machine.line.status()  # also, all that was asked is answered now
    except uart.EndedError:
        return Verdict.LOCKED, "", 0, 0, 0
    except GruardError:
        return Verdict.QUIET, "", 0, 0, 0
    told = Cause(status.cause).name.lower() if status.cause else ""
    samples, wrong, alarms = counts
    return verdict, told, samples, wrong, alarms
