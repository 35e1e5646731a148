"""Single flipped bits: what is made of them, by hand and on an emulated board."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from harness_command import harness

from edge_runtime.errors import GruardError
from edge_runtime.native.engine import RECORD
from edge_runtime.record import Float32
from firmware_harness import flip_campaign, uart
from firmware_harness.boards import ALL
from firmware_harness.building import Built
from firmware_harness.core_records import Array
from firmware_harness.flip_results import (
    Flip,
    FlipOutcome,
    FlippedPart,
    judged,
    passed,
    table,
    unnoticed,
)
from firmware_harness.live import Live, live
from firmware_harness.protocol import cause_name

ONE = Flip("board", FlippedPart.STATE, 0, 0, False, FlipOutcome.NOTICED, "state", 3, 0, 0)


def records(count: int = 4) -> Array:
    made = np.zeros(count, RECORD)
    made["tier"] = made["valid"] = 1
    return made


def judge(told: Array, wanted: Array, reset: int = 99) -> tuple[FlipOutcome, int, int, int]:
    return judged(
        (one, two, i >= reset) for i, (one, two) in enumerate(zip(told, wanted, strict=True))
    )


def test_equal_records_are_harmless() -> None:
    assert judge(records(), records()) == (FlipOutcome.HARMLESS, 4, 0, 0)


def test_another_record_without_a_word_is_silent() -> None:
    told = records()
    told["score"][1], told["alarm"][2] = 0.5, 1
    assert judge(told, records()) == (FlipOutcome.SILENT, 4, 2, 1)


@pytest.mark.parametrize("mark", [("tier", 3), ("valid", 0)])
def test_a_mark_is_a_notice(mark: tuple[str, int]) -> None:
    told = records()
    told["alarm"][0] = 1
    told[mark[0]][2] = mark[1]
    assert judge(told, records()) == (FlipOutcome.NOTICED, 2, 1 + 0, 1)
    both = told.copy()
    both["alarm"] = 0
    assert judge(told, both)[0] is FlipOutcome.SILENT, "it is marked without the flip, too"


def test_a_reset_and_a_refusal_are_notices() -> None:
    assert judge(records(), records(), reset=1) == (FlipOutcome.NOTICED, 1, 0, 0)
    assert judged([(None, records()[0], False)].__iter__()) == (FlipOutcome.NOTICED, 0, 0, 0)


@pytest.mark.parametrize(
    ("flip", "fine"),
    [
        (ONE, True),
        (replace(ONE, wrong=9, wrong_alarms=2), True),
        (replace(ONE, verdict=FlipOutcome.HARMLESS), True),
        (replace(ONE, verdict=FlipOutcome.SILENT, wrong=1), True),
        (replace(ONE, verdict=FlipOutcome.LOCKED), True),
        (replace(ONE, verdict=FlipOutcome.SILENT, wrong=1, wrong_alarms=1), False),
        (replace(ONE, verdict=FlipOutcome.QUIET), False),
    ],
)
def test_what_must_not_be(flip: Flip, fine: bool) -> None:
    assert passed([ONE, flip]) is fine


def test_what_was_not_noticed_is_told_one_by_one() -> None:
    silent = replace(ONE, address=0x2000_0010, bit=5, verdict=FlipOutcome.SILENT, wrong=7)
    told = "board: bit 5 of 0x20000010, state: silent; 7 other records, 0 other alarms"
    assert unnoticed([ONE, silent, replace(ONE, verdict=FlipOutcome.LOCKED)]) == [told]
    assert len(unnoticed([replace(ONE, verdict=FlipOutcome.QUIET)])) == 1


def test_the_table_by_hand() -> None:
    silent = replace(ONE, part=FlippedPart.CODE, verdict=FlipOutcome.SILENT, wrong=1)
    late = replace(ONE, part=FlippedPart.CODE, samples=9, wrong=2, wrong_alarms=1)
    harmless = replace(ONE, verdict=FlipOutcome.HARMLESS)
    lines = table([silent, ONE, late, harmless]).splitlines()
    assert lines[2].startswith("| board | state | 2 | 1 | 1 | 0 | 0 | 0 | 100.0 % (")
    # 1 of 2: Wilson's 95 % interval is 0.0945 to 0.9055.
    assert "| 1 | 0 | 1 | 0 | 0 | 50.0 % (9.5 to 90.5) | 9, at most 9 | 1 | 1 |" in lines[3]
    assert lines[4].startswith("| all |  | 4 | 2 | 1 | 1 | 0 | 0 | 66.7 % (")
    assert "| 6, at most 9 |" in lines[4]


def test_places_are_where_the_model_answers_and_alarms_begin() -> None:
    wanted = records(1000)
    wanted["valid"][:100] = 0
    wanted["alarm"][500:550] = 1
    places = flip_campaign.chosen_places(wanted, 80, np.random.default_rng(0))
    assert len(set(places)) == flip_campaign.PLACES and list(places) == sorted(places)
    assert min(places) >= 100 and max(places) < 920
    near = [place for place in places if 450 <= place < 550]
    assert len(near) >= flip_campaign.PLACES // 2
    wanted["alarm"] = 0
    with pytest.raises(GruardError, match="has no alarm"):
        flip_campaign.chosen_places(wanted, 80, np.random.default_rng(0))


@pytest.fixture(scope="module")
def rows(tiny_bundle: Path) -> Float32:
    """A recording with an alarm."""
    made = tiny_model.machine_rows(500, seed=6)
    made[300:360] += 3.0
    return made


@pytest.fixture(scope="module")
def ready(m4: Built, rows: Float32) -> Iterator[tuple[Live, flip_campaign.Ground]]:
    """A board that is held at its places."""
    with prepared(m4, rows) as found:
        yield found


@contextmanager
def prepared(built: Built, rows: Float32) -> Iterator[tuple[Live, flip_campaign.Ground]]:
    with live(built) as machine:
        ground = flip_campaign.surveyed(machine, built, rows, np.random.default_rng(0))
        flip_campaign.visit(machine, ground)
        yield machine, ground


def test_a_board_that_is_set_back_says_the_same_again(
    ready: tuple[Live, flip_campaign.Ground],
) -> None:
    machine, ground = ready
    for place in (*ground.places[:2], ground.places[0]):
        machine.restore(f"at{place}")
        machine.go_on()
        again = [uart.answer(machine.line, i, ground.rows[i]) for i in range(place, place + 9)]
        np.testing.assert_array_equal(np.array(again), ground.wanted[place : place + 9])


def test_a_bit_that_both_copies_have_in_common_is_seen_to_be_silent(
    ready: tuple[Live, flip_campaign.Ground],
) -> None:
    machine, ground = ready
    (_, (memory, end)) = ground.areas[FlippedPart.STATE]
    copy, place = (end - memory) // flip_campaign.DETECTORS, ground.places[0]
    found = set()
    for offset in range(3, copy, 64):  # the highest byte of a word
        machine.restore(f"at{place}")
        machine.flip(memory + offset, 5)
        machine.flip(memory + copy + offset, 5)
        machine.go_on()
        found.add(flip_campaign.fate(machine, ground, place)[0])
        if FlipOutcome.SILENT in found:
            return
    raise AssertionError(f"only {found}")


def test_a_bit_of_one_copy_is_noticed_before_the_next_record(
    ready: tuple[Live, flip_campaign.Ground],
) -> None:
    machine, ground = ready
    machine.restore(f"at{ground.places[0]}")
    machine.flip(ground.at["copies"] + 1, 0)  # within its model
    machine.go_on()
    came = flip_campaign.fate(machine, ground, ground.places[0])
    assert came == (FlipOutcome.NOTICED, "state", 0, 0, 0)


def test_no_alarm_is_told_on_damaged_weights(ready: tuple[Live, flip_campaign.Ground]) -> None:
    machine, ground = ready
    edge = next(i for i in range(ground.places[0], 500) if ground.wanted["alarm"][i])
    place = max(place for place in ground.places if place < edge)
    machine.restore(f"at{place}")
    machine.go_on()
    for index in range(place, edge):
        uart.answer(machine.line, index, ground.rows[index])
    machine.stop()
    size = len(ground.built.packed.blob)
    machine.flip(ground.at["gruard_blob"] + 3 * size // 4, 0)  # where the weights are
    machine.go_on()
    assert flip_campaign.fate(machine, ground, edge) == (FlipOutcome.NOTICED, "weights", 0, 0, 0)


def test_a_board_that_differs_without_a_flip_is_no_ground(m4: Built, rows: Float32) -> None:
    with live(m4) as machine:
        ground = flip_campaign.surveyed(machine, m4, rows, np.random.default_rng(0))
        ground.wanted["score"][3] += 1
        with pytest.raises(GruardError, match="sample 3: the board differs"):
            flip_campaign.visit(machine, ground)


@pytest.mark.firmware
def test_the_command_flips_on_every_board_with_a_firmware(
    tiny_bundle: Path, rows: Float32, all_cross_tools: None, tmp_path: Path
) -> None:
    boards = [board.name for board in ALL.values() if not board.without]
    file = tmp_path / "alarm.csv"
    np.savetxt(file, rows, "%.9g", ",", header=",".join(tiny_model.CHANNELS), comments="")
    done = harness(
        "faults", tiny_bundle, file, "--flips", "100", *(f"--board={name}" for name in boards)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "passed"
    assert "| all |  | 100 |" in done.stdout
    assert all(f"| {name} | code | 5 |" in done.stdout for name in boards)


def test_a_cause_that_was_damaged_itself_is_told_as_such() -> None:
    assert [cause_name(cause) for cause in (2, 99, 3951220079)] == [
        "fault", "unknown", "unknown",
    ]  # fmt: skip
