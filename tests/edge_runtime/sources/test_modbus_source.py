"""Modbus/TCP with a real server in a process of its own, and with one that answers nonsense."""

import itertools
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_run import is_alarm, is_answer, is_gap, live_run

from edge_runtime.address import Address, Endpoint, parse_address
from edge_runtime.errors import Complaints, GruardError
from edge_runtime.sources import modbus
from edge_runtime.sources.modbus import (
    Device,
    Patience,
    Register,
    blocks_of,
    parse_registers,
)
from edge_runtime.sources.open_source import KINDS, open_source
from edge_runtime.sources.source import SourceLostError

HERE = Path(__file__).parents[1]


class Server:
    """modbus_server.py on a port that stays the same when it is started again."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port: int = server.getsockname()[1]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "modbus_server.py"), str(self.port)],
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout and self._process.stdout.readline() == b"listening\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.kill()


def registers(text: str, *channels: str) -> list[Register]:
    return parse_registers(Address("modbus", "//h/1", {"registers": text}), channels)


def device(port: int, text: str, *channels: str, complaints: Complaints, unit: int = 1) -> Device:
    place = Endpoint("127.0.0.1", port, "1")
    return Device(place, unit, registers(text, *channels), "modbus", complaints)


def test_every_type_is_read(server: Server) -> None:
    text = (
        "a:holding:40001:int16:scale=0.1,b:holding:40002:int16,c:input:30002:uint16,"
        "d:input:30003:float32,e:holding:4:float32:swapped,f:holding:0x0:int32,g:input:0:uint32"
    )
    found = device(server.port, text, *"gfedcba", complaints=Complaints())
    reading = found.measure()
    found.close()
    both = (500 << 16) + 0xFFFE
    np.testing.assert_allclose(reading.row, [both, both, 1.5, 1.5, 0xFFFE, -2, 50], rtol=1e-6)
    assert reading.time


def test_a_refused_register_is_one_missing_reading(server: Server) -> None:
    complaints = Complaints()
    text = "a:holding:0:int16,b:holding:999:int16"
    found = device(server.port, text, "a", "b", complaints=complaints)
    for times in range(1, 4):
        np.testing.assert_array_equal(found.measure().values, [500, np.nan])
        assert complaints.cells == times
    found.close()


def test_a_killed_server_is_a_gap_and_the_run_goes_on_when_it_is_back(
    server: Server, tmp_path: Path
) -> None:
    text = "a:holding:40001:int16,b:input:30003:float32"
    with live_run(f"modbus://127.0.0.1:{server.port}/1?registers={text}", tmp_path) as run:
        run.until(is_alarm)  # a is 500
        server.kill()
        run.until(is_gap)
        run.logged("trying again")
        server.start()
        run.until(is_answer)
        run.logged("is back")
        summary = run.stop()
    assert summary["outages"] == 1 and summary["bad_cells"] == 0


def test_a_server_may_come_after_the_run(server: Server, tmp_path: Path) -> None:
    server.kill()
    text = "a:holding:40001:int16,b:input:30003:float32"
    with live_run(f"modbus://127.0.0.1:{server.port}/1?registers={text}", tmp_path) as run:
        run.logged("Connection refused; trying again")
        server.start()
        run.until(is_alarm)
        run.stop()


@contextmanager
def answering(answer: Callable[[bytes], bytes | None]) -> Iterator[int]:
    """The port of a server that replies `answer(request)`; hangs up for b"", is silent for None."""

    def reply(request: bytes, connection: socket.socket) -> None:
        found = answer(request)
        if found == b"":
            connection.shutdown(socket.SHUT_RDWR)
        connection.sendall(found or b"")

    with talking(reply) as port:
        yield port


@contextmanager
def talking(reply: Callable[[bytes, socket.socket], None]) -> Iterator[int]:
    """The port of a server that calls `reply(request, connection)` for each request."""

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                while request := connection.recv(300):
                    reply(request, connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
    thread.join()


def framed(request: bytes, body: bytes) -> bytes:
    """A reply to `request`, correct but for its body."""
    return request[:4] + struct.pack(">H", len(body) + 1) + request[6:7] + body


@pytest.mark.parametrize(
    "body", [b"\x83", b"\x83\x06", b"\x03\x02\x00", b"\x03\x04\x00\x01\x00\x02", b"\x03", b"\x7f"]
)
def test_a_malformed_answer_is_one_missing_reading(body: bytes) -> None:
    def answer(request: bytes) -> bytes:
        return framed(request, b"\x03\x02\x00\x07" if request[9] == 0 else body)

    complaints = Complaints()
    with answering(answer) as port:
        text = "a:holding:0:int16,b:holding:1:int16"
        found = device(port, text, "a", "b", complaints=complaints)
        np.testing.assert_array_equal(found.measure().values, [7, np.nan])
        np.testing.assert_array_equal(found.measure().values, [7, np.nan])
        found.close()
    assert complaints.cells == 2


def test_a_register_that_is_not_answered_is_one_missing_reading() -> None:
    def answer(request: bytes) -> bytes | None:
        return framed(request, b"\x03\x02\x00\x07") if request[9] == 0 else None

    complaints = Complaints()
    with answering(answer) as port:
        text = "a:holding:1:int16,b:holding:0:int16"
        found = device(port, text, "a", "b", complaints=complaints)
        np.testing.assert_array_equal(found.measure().values, [np.nan, 7])
        found.close()
    assert complaints.cells == 1


def test_a_server_that_hangs_up_is_lost() -> None:
    with answering(lambda _: b"") as port:
        found = device(port, "a:holding:0:int16", "a", complaints=Complaints())
        with pytest.raises(SourceLostError, match="the connection was closed"):
            found.measure()
        found.close()


@pytest.mark.parametrize(
    ("text", "channels", "missing"),
    [("a:holding:0:int16", "a", 2), ("a:holding:0:int16,b:holding:1:int16", "ab", 3)],
    ids=["one", "neighbours, first together and then each by itself"],
)
def test_a_device_that_answers_for_nothing_is_lost(text: str, channels: str, missing: int) -> None:
    with answering(lambda request: framed(request, b"\x7f")) as port:
        found = device(port, text, *channels, complaints=Complaints())
        for _ in range(missing):
            assert np.isnan(found.measure().values).all()
        with pytest.raises(SourceLostError, match="no answer"):
            found.measure()
        found.close()


def measured(port: int, text: str, channels: str, rows: int) -> tuple[np.ndarray, Complaints]:
    complaints = Complaints()
    found = device(port, text, *channels, complaints=complaints)
    values = np.array([found.measure().values for _ in range(rows)])
    found.close()
    return values, complaints


def test_neighbours_are_read_by_one_request() -> None:
    asked: list[tuple[int, int, int]] = []

    def answer(request: bytes) -> bytes:
        function, first, count = struct.unpack(">BHH", request[7:12])
        asked.append((function, first, count))
        words = range(first, first + count)
        return framed(request, struct.pack(f">BB{count}H", function, 2 * count, *words))

    text = (
        "a:holding:3:int16,b:holding:1:int32,c:input:4:int16,d:holding:9:int16,e:holding:2:int16,"
        "f:input:5:int16"
    )
    with answering(answer) as port:
        values, _ = measured(port, text, "abcdef", 2)
    np.testing.assert_array_equal(values, [[3, (1 << 16) + 2, 4, 9, 2, 5]] * 2)
    assert asked == [(3, 1, 3), (3, 9, 1), (4, 4, 2)] * 2


@given(
    st.lists(
        st.builds(
            Register,
            st.uuids().map(str),
            st.sampled_from(["holding", "input"]),
            st.integers(0, 400),
            st.sampled_from(["int16", "float32"]),
        ),
        min_size=1,
        max_size=200,
    )
)
def test_blocks_have_each_register_once_and_no_address_that_nobody_asked_for(
    all_registers: list[Register],
) -> None:
    blocks = blocks_of(all_registers)
    in_blocks = [each for block in blocks for each in block.registers]
    assert sorted(in_blocks, key=lambda r: r.channel) == sorted(
        all_registers, key=lambda r: r.channel
    )
    wanted = {(r.kind, r.address + i) for r in all_registers for i in range(r.words)}
    for block in blocks:
        kind = block.registers[0].kind
        read = {(kind, block.first + i) for i in range(block.words)}
        assert read <= wanted and block.words <= 125
        assert {each.kind for each in block.registers} == {kind}


def test_a_block_that_is_refused_is_read_one_by_one_from_then_on() -> None:
    asked: list[int] = []

    def answer(request: bytes) -> bytes:
        first, count = struct.unpack(">HH", request[8:12])
        asked.append(count)
        allowed = count == 1 and first != 1
        return framed(request, b"\x03\x02\x00\x07" if allowed else b"\x83\x02")

    text = "a:holding:0:int16,b:holding:1:int16,c:holding:2:int16"
    with answering(answer) as port:
        values, complaints = measured(port, text, "abc", 2)
    np.testing.assert_array_equal(values, [[7, np.nan, 7]] * 2)
    assert asked == [3, 1, 1, 1, 1, 1, 1] and complaints.cells == 2


def test_a_block_that_is_never_answered_is_read_one_by_one_at_last() -> None:
    def answer(request: bytes) -> bytes | None:
        single = request[10:12] == b"\x00\x01"
        return framed(request, b"\x03\x02\x00\x07") if single else None

    text = "a:holding:0:int16,b:holding:1:int16,c:holding:9:int16"
    with answering(answer) as port:
        values, _ = measured(port, text, "abc", 4)
    np.testing.assert_array_equal(values, [[np.nan, np.nan, 7]] * 3 + [[7, 7, 7]])


def test_an_answer_that_is_lost_now_and_then_is_a_missing_sample_and_no_outage() -> None:
    answered = itertools.count()

    def answer(request: bytes) -> bytes | None:
        lost = next(answered) % 5 in (2, 3)
        return None if lost else framed(request, b"\x03\x04\x00\x07\x00\x08")

    text = "a:holding:0:int16,b:holding:1:int16"
    with answering(answer) as port:
        values, complaints = measured(port, text, "ab", 10)
    missing = np.isnan(values).all(axis=1)
    assert missing.tolist() == [False, False, True, True, False] * 2
    assert np.array_equal(values[~missing], [[7, 8]] * 6) and complaints.cells == 8


def test_the_wait_for_an_answer_follows_the_device() -> None:
    patience = Patience()
    assert patience.seconds == 1.0
    for _ in range(50):
        patience.answered(0.002)
    assert patience.seconds == 0.2
    patience.unanswered()
    assert patience.seconds == 0.4
    for _ in range(50):
        patience.answered(0.5)
    assert 0.5 < patience.seconds < 0.6
    for _ in range(3):
        patience.unanswered()
    assert patience.seconds == 1.0


@pytest.mark.parametrize(
    ("text", "address"),
    [("holding:40001", 0), ("holding:49999", 9998), ("holding:400001", 0),
     ("holding:0x9c41", 40001), ("input:30002", 1), ("input:40001", 40001),
     ("holding:30002", 30002), ("holding:17", 17),
     ("input:365536", 65535), ("input:50000", 50000)],
)  # fmt: skip
def test_addresses_of_data_sheets_and_of_the_wire(text: str, address: int) -> None:
    assert registers(f"a:{text}:int16", "a")[0].address == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modbus://h", "the unit is missing"),
        ("modbus://h/300", "the unit is missing"),
        ("modbus://h/1", "no register for a; write"),
        ("modbus://h/1?registers=b:input:1:int16", "no register for a"),
        ("modbus://h/1?registers=a:coil:1:int16", "the kind holding or input"),
        ("modbus://h/1?registers=a:input:1:int8", "the type int16, uint16, int32"),
        ("modbus://h/1?registers=a:input:1", "CHANNEL:KIND:ADDRESS:TYPE"),
        ("modbus://h/1?registers=a:input:70000:int16", "is 0 to 65535"),
        ("modbus://h/1?registers=a:input:-1:int16", "is 0 to 65535"),
        ("modbus://h/1?registers=a:input:1:int16:scale=x", "write :scale=NUMBER or :swapped"),
        ("modbus://h/1?registers=a:input:1:int16:offset=1", "write :scale=NUMBER or :swapped"),
    ],
)
def test_addresses_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(GruardError, match=words):
        open_source(text, ("a",), 1.0, Complaints())


def test_a_device_that_drips_and_never_ends_an_answer_is_given_up_in_time() -> None:
    """The patience is for the whole answer, not for each of its bytes."""
    dripping = threading.Event()

    def answer(request: bytes, connection: socket.socket) -> None:
        connection.sendall(request[:4] + b"\x00\xfe")
        while not dripping.wait(0.01):
            connection.sendall(b"\x01")

    with talking(answer) as port:
        connection = modbus.Connection(Endpoint("127.0.0.1", port, ""))
        with pytest.raises(modbus.NoAnswerError, match="was not answered"):
            connection.ask(1, 3, 0, 1, patience=0.2)
        connection.close()
        dripping.set()


@pytest.mark.parametrize("pieces", [1, 3, 20])
def test_an_answer_may_come_in_pieces(pieces: int) -> None:
    def answer(request: bytes, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        whole = framed(request, b"\x03\x02\x00\x07")
        for start in range(0, len(whole), -(-len(whole) // pieces)):
            connection.sendall(whole[start : start + -(-len(whole) // pieces)])

    with talking(answer) as port:
        found = device(port, "a:holding:0:int16", "a", complaints=Complaints())
        assert found.measure().values.tolist() == [7.0]
        found.close()


@pytest.mark.parametrize(
    "header",
    [(1, 1, 5), (1, 0, 0xFFFF), (1, 0, 1), (9, 0, 5)],  # number, protocol, length
)
def test_an_answer_that_is_none_is_not_read_on(header: tuple[int, int, int]) -> None:
    flood = struct.pack(">HHH", *header) + b"\x01\x03\x02\x00\x07" + bytes(100_000)
    with answering(lambda _: flood) as port:
        connection = modbus.Connection(Endpoint("127.0.0.1", port, ""))
        with pytest.raises(modbus.NoAnswerError):
            connection.ask(1, 3, 0, 1)
        connection.close()


@pytest.mark.parametrize("scale", ["9" * 400, "1e999", "nan", "1_0"])
def test_a_scale_is_a_finite_number(scale: str) -> None:
    with pytest.raises(GruardError, match="scale=NUMBER"):
        registers(f"a:input:1:int16:scale={scale}", "a")


def test_the_example_of_the_documentation() -> None:
    text = "modbus://h/1?registers=a:holding:40001:int16,b:input:30002:float32:scale=0.1"
    address = parse_address(text, KINDS)
    assert address and parse_registers(address, ("b",))[0].scale == 0.1
