"""Flip single bits of a running board, one by one.

For every flip the machine is restored to one of several places of a recording and runs for some
samples. Half of the flips come within a step, half at a random moment. From there on every record
is compared with that of the core without a flip.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_runtime.bundle.reader import Bundle
from edge_runtime.errors import GruardError
from edge_runtime.native.blob import pack, program_of
from edge_runtime.native.engine import RECORD, core_module
from edge_runtime.native.layout import layout_of
from edge_runtime.record import Float32
from firmware_harness import uart
from firmware_harness.boards import Board
from firmware_harness.building import Built, build
from firmware_harness.core_records import Array
from firmware_harness.flip_results import Flip, FlipOutcome, FlippedPart, judged
from firmware_harness.injuring import PIECE
from firmware_harness.live import Live, live
from firmware_harness.packing import packed_for
from firmware_harness.protocol import Kind, Message, cause_name
from firmware_harness.toolchain import call

PLACES = 12  # of a recording, half of them shortly before an alarm begins or ends
BEFORE_EDGE = 50  # at most this many samples before
LATER = 30  # at most this many samples from a place to a flip
MORE = 20  # samples that a flip is watched after one whole check of bundle and program
DETECTORS, ALIGNED = 3, 8  # two that answer and one that is tested; bytes
STAGE_PLACE, STEPPING = 20, 2  # of app/black_box.h
STEP_OVER = "link_send"  # the function that is called after a step

Areas = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Ground:
    """A board and its expected records. rows: raw [n, channels]. wanted: records [n].

    places: samples to restore to. window: samples that a flip is watched. areas: start and end of
    each part with a fixed place. at: addresses of the program's symbols.
    """

    built: Built
    rows: Float32
    wanted: Array
    places: tuple[int, ...]
    window: int
    areas: dict[FlippedPart, Areas]
    at: dict[str, int]


def on_boards(
    boards: Sequence[Board],
    bundle: Bundle,
    rows: Float32,
    flips: int,
    seed: int,
    say: Callable[[str], None],
) -> list[Flip]:
    """Flip `flips` single bits in total, on all boards in parallel; see `campaign`."""

    def on(board: Board) -> list[Flip]:
        with tempfile.TemporaryDirectory(prefix="gruard-") as folder:
            built = build(packed_for(board, bundle), board, Path(folder) / "build", release=True)
            return campaign(built, rows, -(-flips // len(boards)), seed, say)

    with ThreadPoolExecutor(len(boards)) as pool:
        return [flip for results in pool.map(on, boards) for flip in results]


def campaign(
    built: Built, rows: Float32, flips: int, seed: int, say: Callable[[str], None]
) -> list[Flip]:
    """Flip `flips` single bits on one board, the four parts in turn.

    built: a release, as it would be shipped. rows: raw [n, channels], with alarms.
    Raises GruardError when the recording has no alarm, or the board differs from the core without a
    flip.
    """
    rng = np.random.default_rng(seed)
    parts = [list(FlippedPart)[number % len(FlippedPart)] for number in range(flips)]
    found = list[Flip]()
    while len(found) < flips:  # start another emulator when one cannot go on
        with live(built) as machine:
            ground = surveyed(machine, built, rows, np.random.default_rng(seed))
            turn = visit(machine, ground)
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
                if found[-1].verdict in (FlipOutcome.QUIET, FlipOutcome.LOCKED):
                    break
    return found


def surveyed(machine: Live, built: Built, rows: Float32, rng: np.random.Generator) -> Ground:
    """Choose places of the recording, find areas of the memory. Raises as `chosen_places`."""
    wanted, at = reference(built, rows), _symbols(built)
    window = _walked(built, at) // PIECE + 2 + MORE
    places = chosen_places(wanted, LATER + window, rng)
    return Ground(built, rows, wanted, places, window, _areas(machine, built, at), at)


def reference(built: Built, rows: Float32) -> Array:
    """Return the records of `rows` by the core on this machine."""
    module, packed = core_module(), built.packed
    records = np.zeros(len(rows), RECORD)
    program = program_of(packed.bundle, layout_of(module.LAYOUT))
    core = module.Core(pack(packed.bundle, packed.threshold, program))
    core.run(np.array(rows, np.float32, order="C"), records)
    return records


def chosen_places(wanted: Array, room: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Choose samples to restore to: answered by the model, half of them before an alarm's edge,
    and followed by at least `room` samples.

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


def _areas(machine: Live, built: Built, at: dict[str, int]) -> dict[FlippedPart, Areas]:
    size = int.from_bytes(machine.read(at["memory_size"], 4), "little")
    detectors = at["board_free_start"] + DETECTORS * -(-size // ALIGNED) * ALIGNED
    return {
        FlippedPart.WEIGHTS: ((at["gruard_blob"], at["gruard_blob"] + len(built.packed.blob)),),
        FlippedPart.STATE: ((at["box"], at["board_bss_end"]), (at["board_free_start"], detectors)),
        FlippedPart.CODE: ((at["board_code_start"], at["board_code_end"]),),
    }


def _walked(built: Built, at: dict[str, int]) -> int:
    """Return the number of bytes that the board checks between samples."""
    return len(built.packed.blob) + at["board_code_end"] - at["board_code_start"]


def _symbols(built: Built) -> dict[str, int]:
    lines = call("arm-none-eabi-nm", [built.firmware.name], built.folder).splitlines()
    fields = (line.split() for line in lines)
    return {words[2]: int(words[0], 16) for words in fields if len(words) == 3}


def _size(areas: Areas) -> int:
    return sum(end - begin for begin, end in areas)


def visit(machine: Live, ground: Ground) -> float:
    """Save the machine at every place, and return the seconds per sample.

    Raises GruardError when a record differs from the core's.
    """
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
    """Return the addresses of the core's functions that a step calls, in order."""
    at, index = ground.at, ground.places[0]
    machine.restore(f"at{index}")
    left = {at[name] for name in at if name.startswith("gruard_")} & _addresses(
        ground, FlippedPart.CODE
    )
    found = list[int]()
    came = machine.go_on_to([*left, at[STEP_OVER]], lambda: _send(machine, ground, index))
    while came != at[STEP_OVER]:
        found.append(came)
        left.remove(came)
        came = machine.go_on_to([*left, at[STEP_OVER]], lambda: None)
    machine.go_on()
    _record(machine, ground, index)
    return found


def _addresses(ground: Ground, part: FlippedPart) -> set[int]:
    return {place for begin, end in ground.areas[part] for place in range(begin, end)}


def _before_a_flip(machine: Live, ground: Ground, rng: np.random.Generator) -> int:
    """Restore the machine to a place and run some samples; return the next sample's index."""
    place = int(rng.choice(ground.places))
    first = place + int(rng.integers(LATER))
    machine.restore(f"at{place}")
    machine.go_on()
    for index in range(place, first):
        _record(machine, ground, index)
    return first


def _hold_within_step(machine: Live, ground: Ground, index: int, function: int) -> None:
    """Stop at the start of a function of the core, or after the step if it is not called."""
    machine.stop()
    ends = (function, ground.at[STEP_OVER])
    machine.go_on_to(ends, lambda: _send(machine, ground, index))


def _hold_anywhen(machine: Live, ground: Ground, index: int, seconds: float) -> None:
    """Stop `seconds` after the sample was sent."""
    _send(machine, ground, index)
    time.sleep(seconds)
    machine.stop()


def _send(machine: Live, ground: Ground, index: int) -> None:
    body = np.asarray(ground.rows[index], "<f4").tobytes()
    machine.line.send(Message(Kind.ASK_SAMPLE, index, body))


def _flip(
    machine: Live, ground: Ground, part: FlippedPart, first: int, rng: np.random.Generator
) -> Flip:
    stepping = machine.read(ground.at["box"] + STAGE_PLACE, 1)[0] == STEPPING
    address, bit = _drawn(machine, ground, part, rng)
    machine.flip(address, bit)
    machine.go_on()
    came = fate(machine, ground, first)
    return Flip(ground.built.board.name, part, address, bit, stepping, *came)


def _drawn(
    machine: Live, ground: Ground, part: FlippedPart, rng: np.random.Generator
) -> tuple[int, int]:
    """Draw an address and a bit."""
    if part is FlippedPart.STACK:
        areas: Areas = ((machine.registers()["R13"], ground.at["board_stack_top"]),)
    else:
        areas = ground.areas[part]
    place = int(rng.integers(_size(areas)))
    for begin, end in areas:
        if place < end - begin:
            return begin + place, int(rng.integers(8))
        place -= end - begin
    raise AssertionError("a place lies within the areas")


def fate(machine: Live, ground: Ground, first: int) -> tuple[FlipOutcome, str, int, int, int]:
    """Watch the samples from `first` on: outcome, cause, and the counts of `judged`."""
    starts = machine.line.heard[Kind.TELL_STATUS]

    def seen() -> Iterator[tuple[Array | None, Array, bool]]:
        for index in range(first, first + ground.window):
            try:
                record = _record(machine, ground, index)
            except uart.RefusedError:
                record = None
            yield record, ground.wanted[index], machine.line.heard[Kind.TELL_STATUS] > starts

    try:
        verdict, *counts = judged(seen())
        status = machine.line.status()  # its answer shows that no earlier answer is outstanding
    except uart.EndedError:
        if "Lockup" not in machine.line.last_words():
            raise
        return FlipOutcome.LOCKED, "", 0, 0, 0
    except GruardError:
        return FlipOutcome.QUIET, "", 0, 0, 0
    cause = cause_name(status.cause) if status.cause else ""
    samples, wrong, alarms = counts
    return verdict, cause, samples, wrong, alarms
