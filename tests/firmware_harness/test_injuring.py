"""The watchdog and the checks on an emulated board: whatever breaks, it is back and says so."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from harness_command import harness

from edge_runtime.errors import GruardError
from edge_runtime.native.engine import RECORD
from edge_runtime.record import Flag
from firmware_harness import toolchain, uart
from firmware_harness.boards import M4, USUAL, Board
from firmware_harness.building import Built, build
from firmware_harness.core_records import Array
from firmware_harness.injuring import exhaust, faults_of, injure
from firmware_harness.packing import packed
from firmware_harness.protocol import Injection, Kind, Message, Responder, Status

ROWS = tiny_model.machine_rows(600, seed=6)
FAST = (Injection.HANG, Injection.STACK, Injection.WEIGHTS, Injection.STATE, Injection.SKIP)


@pytest.mark.parametrize("injection", FAST, ids=lambda injection: injection.name.lower())
def test_a_broken_board_comes_back_marked(m4: Built, injection: Injection) -> None:
    injury = injure(m4, ROWS, injection)
    assert injury.faults == ()
    assert injury.back == injury.fallback + injury.unmarked
    if injection is Injection.HANG:
        # Twice 200 ms of the watchdog at 32 ns an instruction, and the start.
        assert injury.where == "hang" and injury.instructions is not None
        assert 400e6 <= 32 * injury.instructions < 1000e6, "back within a second"


@pytest.mark.firmware
@pytest.mark.parametrize("injection", list(Injection), ids=lambda injection: injection.name.lower())
def test_every_board_comes_back_from_everything(any_board: Built, injection: Injection) -> None:
    assert injure(any_board, ROWS, injection).faults == ()


@pytest.mark.firmware
def test_the_way_from_a_hang_to_a_marked_word_is_always_as_long(any_board: Built) -> None:
    found = {injure(any_board, ROWS, Injection.HANG).instructions for _ in range(3)}
    assert None not in found
    # The counter's tick is a little longer than an instruction.
    assert max(found) - min(found) <= 4  # type: ignore[operator,type-var]


@pytest.mark.firmware
def test_after_three_resets_the_fallback_stays(m4: Built) -> None:
    resort = exhaust(m4, ROWS)
    assert resort.faults == ()
    assert resort.services[-1] == Responder.SPARE


@pytest.fixture(scope="module")
def damaged(
    tiny_bundle: Path, cross_tools: None, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    """A board whose bundle was damaged before it was switched on."""
    found = packed(tiny_bundle, M4)
    blob = bytearray(found.blob)
    blob[len(blob) // 2] ^= 16
    folder = tmp_path_factory.mktemp("damaged") / "build"
    return build(replace(found, blob=bytes(blob)), M4, folder)


def test_a_bundle_that_is_damaged_for_good_leaves_the_fallback(damaged: Built) -> None:
    with uart.running(damaged) as (line, status):
        assert (status.service, status.refusal, status.resets) == (Responder.SPARE, 4, 0)
        with pytest.raises(GruardError, match="the board refuses the bundle: damaged"):
            uart.refuse_without_model(status)
        records = uart.replay(line, ROWS[:40])
    assert (records["tier"] == 3).all() and not records["valid"].any()
    assert (records["flags"] & Flag.FALLBACK).all()
    np.testing.assert_array_equal(records["index"], np.arange(40))


def test_the_spare_says_what_the_fallback_of_the_model_says(damaged: Built, m4: Built) -> None:
    rows = ROWS[: m4.packed.bundle.manifest.tiers.warmup]
    with uart.running(damaged) as (line, _):
        spare = uart.replay(line, rows)
    with uart.running(m4) as (line, _):
        warming = uart.replay(line, rows)
    assert (warming["tier"] == 3).all()
    for name in ("score", "tier", "alarm", "blamed", "masked"):
        np.testing.assert_array_equal(spare[name], warming[name])


@pytest.mark.firmware
def test_a_failed_self_test_leaves_the_fallback(tiny_bundle: Path, tmp_path: Path) -> None:
    found = packed(tiny_bundle, M4)
    built = build(replace(found, checksum=found.checksum ^ 1), M4, tmp_path / "build")
    with uart.running(built) as (line, status):
        assert (status.service, status.selftest) == (Responder.SPARE, 2)
        with pytest.raises(GruardError, match="does not compute what was validated"):
            uart.refuse_without_model(status)
        assert (uart.replay(line, ROWS[:10])["tier"] == 3).all()


@pytest.mark.firmware
def test_health_makes_up_for_former_resets(any_board: Built) -> None:
    samples = ((index, ROWS[index % len(ROWS)]) for index in count())
    healthy = 2 * any_board.packed.bundle.manifest.tiers.window + 400
    with uart.running(any_board) as (line, _):
        for wait in (3, healthy):
            for index, row in islice(samples, wait):
                uart.answer(line, index, row)
            line.send(Message(Kind.ASK_INJECT, 0, Injection.HANG.to_bytes(4, "little")))
        for index, row in islice(samples, 3):
            uart.answer(line, index, row)
        assert line.status().resets == 1


@pytest.mark.firmware
def test_the_command_tells_all_of_it(tiny_bundle: Path, cross_tools: None, tmp_path: Path) -> None:
    file = tmp_path / "healthy.csv"
    head = ",".join(tiny_model.CHANNELS)
    np.savetxt(file, ROWS, "%.9g", ",", header=head, comments="")
    done = harness("watchdog", tiny_bundle, file, "--json")
    facts = json.loads(done.stdout)
    assert done.returncode == 0 and facts["passed"], done.stderr
    assert {injury["board"] for injury in facts["injuries"]} == {each.name for each in USUAL}


def test_a_hang_that_no_watchdog_ends_is_ended_by_the_harness(
    m4: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_watchdog(board: Board, image: Path, words: Sequence[str]) -> list[str]:
        return toolchain.emulator_command(board, image, [*words, "-action", "watchdog=none"])

    monkeypatch.setattr(uart, "emulator_command", without_watchdog)
    monkeypatch.setattr(uart, "PATIENCE", 2.0)
    with pytest.raises(GruardError, match="mps2-an386: silent for 2 s; it was stopped"):
        injure(m4, ROWS, Injection.HANG)


@pytest.mark.firmware
def test_a_recording_on_which_no_model_settles_is_refused(m4: Built) -> None:
    with pytest.raises(GruardError, match="take a healthy one"):
        injure(m4, np.full((1, 3), np.nan, np.float32), Injection.HANG)


def test_an_emulator_that_ends_says_why(m4: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    def misled(board: Board, image: Path, words: Sequence[str]) -> list[str]:
        return toolchain.emulator_command(board, Path("nowhere.elf"), words)

    monkeypatch.setattr(uart, "emulator_command", misled)
    with pytest.raises(GruardError, match=r"the emulator has ended \(.*nowhere\.elf"):
        injure(m4, ROWS, Injection.HANG)


def test_every_expectation_can_fail(m4: Built) -> None:
    sound = Status(
        service=0, refusal=0, cause=1, pc=0, lr=0, fault_status=0, stage=4, resets=1, next=9,
        channels=3, selftest=1, malformed=0, walks=0, ticks_to_reset=1, ticks_to_word=1,
    )  # fmt: skip
    records = np.zeros(500, RECORD)
    records["tier"][:-1] = 3
    records["flags"][-1] = Flag.RESTARTED

    def found(status: Status = sound, unmarked: int = 0, seen: Array | None = records) -> list[str]:
        return list(faults_of(m4, Injection.HANG, status, unmarked, seen))

    assert found() == []
    assert "cause" in found(replace(sound, cause=2))[0]
    assert "2 resets" in found(replace(sound, resets=2))[0]
    assert "unmarked" in found(unmarked=1)[0]
    assert "never answered again" in found(seen=None)[0]
    assert "before it had agreed" in found(seen=records[-3:])[0]
    assert "self-test" in found(replace(sound, selftest=0))[0]
    records["flags"] = 0
    assert "not flagged RESTARTED" in found()[0]
