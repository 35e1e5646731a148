"""What the board makes of messages that no sound host sends: counted, answered, never a hang."""

import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from threading import Thread

import numpy as np
import pytest
import tiny_model

from edge_runtime.errors import GruardError
from edge_runtime.record import Flag
from firmware_harness import uart
from firmware_harness.building import Built
from firmware_harness.protocol import FrameError, Kind, Message, frame, stuffed

ROWS = tiny_model.machine_rows(200, seed=8)


@pytest.fixture
def line(any_board: Built) -> Iterator[uart.Line]:
    with uart.running(any_board) as (found, _):
        yield found


def told_error(line: uart.Line) -> FrameError:
    """The error that the board tells next."""
    return line.until(
        lambda message: (
            FrameError(int.from_bytes(message.body[:4], "little"))
            if message.kind == Kind.TELL_ERROR
            else None
        )
    )


def sample(sequence: int, row: np.ndarray) -> Message:
    return Message(Kind.ASK_SAMPLE, sequence, row.astype("<f4").tobytes())


def test_each_kind_of_damage_has_its_error_and_is_counted(line: uart.Line) -> None:
    cases = {
        FrameError.TOO_LONG: b"\x01" * 5000 + b"\0",
        FrameError.STUFFING: b"\xff\x01\0",
        FrameError.CHECKSUM: stuffed(b"a sound frame but for the checksum") + b"\0",
    }
    for error, data in cases.items():
        line.send_raw(data)
        assert told_error(line) is error
    assert line.status().malformed == len(cases)
    assert uart.answer(line, 0, ROWS[0])["index"] == 0


def test_a_truncated_frame_costs_itself_alone(line: uart.Line) -> None:
    whole = frame(sample(0, ROWS[0]))
    line.send_raw(whole[:9])
    line.send_raw(b"\0" + whole)
    assert told_error(line) in (FrameError.STUFFING, FrameError.CHECKSUM)
    assert line.until(lambda m: m if m.kind == Kind.TELL_RECORD else None).sequence == 0


def test_sound_frames_of_nonsense_are_refused(line: uart.Line) -> None:
    for message, error in (
        (Message(0x55, 0), FrameError.KIND),
        (Message(Kind.TELL_RECORD, 0), FrameError.KIND),
        (Message(Kind.ASK_SAMPLE, 0, b"four"), FrameError.LENGTH),
        (Message(Kind.ASK_SAMPLE, 0), FrameError.LENGTH),
        (Message(Kind.ASK_STATUS, 0, b"please"), FrameError.LENGTH),
        (Message(Kind.ASK_STORE, 0, b"four"), FrameError.KIND),
        (Message(Kind.ASK_STORE, 0, b"\xff" * 40), FrameError.KIND),
        (sample(7, ROWS[0]), FrameError.SEQUENCE),
    ):
        line.send(message)
        assert told_error(line) is error


def test_a_sample_that_is_asked_again_gets_the_same_record(line: uart.Line) -> None:
    first = uart.answer(line, 0, ROWS[0])
    again = uart.answer(line, 0, ROWS[1])
    assert first == again
    assert uart.answer(line, 1, ROWS[1])["index"] == 1


def test_a_host_that_insists_on_another_sample_gets_it_marked(line: uart.Line) -> None:
    """As when the number of the next sample was damaged: neither end would ever give in."""
    warm = tiny_model.machine_rows(150, seed=8)
    assert [uart.answer(line, i, row)["tier"] for i, row in enumerate(warm)][-1] == 1
    jumped = uart.answer(line, 500, ROWS[0])
    assert jumped["index"] == 500 and jumped["tier"] == 3
    assert line.heard[Kind.TELL_ERROR] >= 8 and line.status().resets == 0
    records = [uart.answer(line, 501 + i, row) for i, row in enumerate(warm)]
    assert records[0]["tier"] == 3 and records[-1]["tier"] == 1, "and the model is trusted again"
    back = next(record for record in records if record["valid"])
    assert back["flags"] & Flag.RESTARTED


def test_a_board_without_samples_says_so_and_lives(line: uart.Line) -> None:
    for _ in range(5):
        line.until(lambda message: message if message.kind == Kind.TELL_GAP else None)
    assert line.status().resets == 0
    assert uart.answer(line, 0, ROWS[0])["index"] == 0


def test_a_line_that_never_rests_starves_nobody(line: uart.Line) -> None:
    for _ in range(20):
        line.send_raw(b"\x55" * 500)
        line.until(lambda message: message if message.kind == Kind.TELL_GAP else None)
    line.send_raw(b"\0")
    assert told_error(line) is FrameError.TOO_LONG
    assert line.status().resets == 0
    assert uart.answer(line, 0, ROWS[0])["index"] == 0


def test_noise_is_survived(line: uart.Line) -> None:
    rng = np.random.default_rng(1)
    for index in range(60):
        message = bytearray(frame(sample(index, ROWS[index])))
        kind = index % 3
        if kind == 0:
            line.send_raw(rng.bytes(int(rng.integers(1, 400))) + b"\0")
        elif kind == 1:
            message[rng.integers(len(message))] ^= 1 << int(rng.integers(8))
            line.send_raw(bytes(message) + b"\0")
        else:
            line.send_raw(bytes(message[: rng.integers(1, len(message))]) + b"\0")
        assert uart.answer(line, index, ROWS[index])["index"] == index
    status = line.status()
    assert status.malformed >= 40 and status.resets == 0 and status.next == 60


def test_the_reader_on_the_board_refuses_what_is_wrong_with_a_blob(
    line: uart.Line, any_board: Built
) -> None:
    blob = any_board.packed.blob

    def sealed(body: bytes) -> bytes:
        return body[:12] + struct.pack("<I", zlib.crc32(body[16:])) + body[16:]

    flipped = bytearray(blob)
    flipped[-9] ^= 4
    longer = blob[:8] + struct.pack("<I", len(blob) + 8) + blob[12:] + bytes(8)
    impossible = blob[:16] + struct.pack("<I", 100_000) + blob[20:]
    assert uart.try_blob(line, blob) == 0
    assert uart.try_blob(line, blob[:-4]) == 3, "truncated"
    assert uart.try_blob(line, blob[:40]) == 3, "truncated"
    assert uart.try_blob(line, bytes(flipped)) == 4, "a flipped bit"
    assert uart.try_blob(line, blob + bytes(4)) == 3, "longer than it says"
    assert uart.try_blob(line, sealed(longer)) == 3, "longer than its parts"
    assert uart.try_blob(line, sealed(impossible)) == 5, "an impossible count"
    assert uart.try_blob(line, b"GIF89a" + blob[6:]) == 2, "foreign"
    told = line.ask(Kind.ASK_TRY, (1 << 20).to_bytes(4, "little"), Kind.TELL_TRIED)
    assert int.from_bytes(told, "little") == 6, "longer than the board has room for"
    assert uart.answer(line, 0, ROWS[0])["index"] == 0, "the service was not disturbed"


def test_a_silent_board_and_a_dead_emulator_are_told() -> None:
    ours, theirs = socket.socketpair()
    line = uart.Line(ours, "board", patience=0.1, stderr=BytesIO())
    with pytest.raises(GruardError, match=r"board: silent for 0\.1 s"):
        line.receive()
    theirs.close()
    with pytest.raises(GruardError, match="the emulator has ended"):
        line.receive()
    with pytest.raises(GruardError, match="the emulator has ended"):
        line.send(Message(Kind.ASK_STATUS, 0))


def test_a_board_that_babbles_is_stopped() -> None:
    ours, theirs = socket.socketpair()
    gap = stuffed(b"\x83" + bytes(4) + struct.pack("<I", zlib.crc32(b"\x83" + bytes(4)))) + b"\0"

    def babble() -> None:
        with suppress(OSError):
            while True:
                theirs.sendall(gap + b"\x05nonsense\0")

    babbler = Thread(target=babble)
    babbler.start()
    with pytest.raises(GruardError, match=r"no answer within 0\.5 s"):
        uart.Line(ours, "board", patience=0.5, stderr=BytesIO()).status()
    ours.close()
    babbler.join()
