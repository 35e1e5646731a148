"""Whatever a sensor, a broker or a device sends, and whatever a user writes, nothing crashes.

Some hundred messages for each parser in every test run; 100,000 with `make fuzz`. A message
must come to a reading of the right shape, to nothing, or to the error meant for it.
"""

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
from mutated_messages import mutated

from edge_runtime.address import Address, Endpoint, MqttAddress, endpoint, parse_address
from edge_runtime.errors import Complaints, GruardError
from edge_runtime.sources import modbus
from edge_runtime.sources.decoders import CsvDecoder, JsonDecoder
from edge_runtime.sources.iio import (
    BufferReadings,
    Scaling,
    attributes,
    layout_of,
    parse_type,
    read_number,
)
from edge_runtime.sources.line_source import LineSource
from edge_runtime.sources.lines import DECODE_ERRORS, FileLines, StreamLines, open_text
from edge_runtime.sources.modbus import Device, Register, parse_registers
from edge_runtime.sources.mqtt import JsonSamples, Messages, TopicSamples
from edge_runtime.sources.open_source import KINDS
from edge_runtime.sources.own_sensor import OwnSensor
from edge_runtime.sources.sample_period import check_file_period
from edge_runtime.sources.serial_port import LineFormat, SerialReadings
from edge_runtime.sources.source import Reading, SourceLostError

CHANNELS = ("a", "b")
FEW, MANY = 300, int(os.environ.get("FUZZ") or 100_000)
CSV = (b"1,2,3", b"0.5,-1e3,nan", b'7,"2",', b"2024-01-01T00:00:00Z,1,2")
JSON = (
    b'{"a": 1, "b": 2.5, "time": 7}',
    b'{"a": null, "b": "3", "t": "2024-01-01T00:00:00Z"}',
    b'{"b": true, "x": {"a": [1, {"b": 2}]}}',
)
Take = Callable[[bytes], None]
Parser = Callable[[], "AbstractContextManager[tuple[Sequence[bytes], Take]]"]


def sound(reading: Reading | None) -> None:
    """Whether what came of a message can go on."""
    if reading is not None:
        assert reading.values.dtype == np.float64 and reading.values.shape == (len(CHANNELS),)
        assert reading.time is None or np.isfinite(reading.time)


def heard() -> Complaints:
    """Complaints that are all told, so that what they say is made too."""
    times = iter(range(0, 1 << 40, 61))
    return Complaints(lambda line: line.encode(), lambda: float(next(times)))


@contextmanager
def address() -> Iterator[tuple[Sequence[bytes], Take]]:
    def take(message: bytes) -> None:
        with suppress(GruardError):
            found = parse_address(message.decode(errors="replace"), KINDS)
            if found:
                assert found.kind in KINDS and set(found.options) <= set(KINDS[found.kind])
                found.count("baud", 1)
                endpoint(found, 1)

    yield (b"serial:/dev/x?baud=9600&columns=a,b", b"mqtt://h:1883/a/+?ca=x", b"python:x.py"), take


@contextmanager
def csv_line() -> Iterator[tuple[Sequence[bytes], Take]]:
    decoder = CsvDecoder("time,a,b", "it", CHANNELS, heard())
    yield CSV, lambda message: sound(decoder.decode(message.decode(errors=DECODE_ERRORS)))


@contextmanager
def recording() -> Iterator[tuple[Sequence[bytes], Take]]:
    """A whole file, and the look at its period before."""
    descriptor = os.memfd_create("rows.csv")
    path = f"/proc/self/fd/{descriptor}"

    def take(message: bytes) -> None:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, message, 0)
        with suppress(GruardError):
            check_file_period(path, 1.0)
        try:
            source = LineSource(FileLines(open_text(path), path), path, CHANNELS, heard())
        except GruardError:
            return
        with suppress(EOFError):
            while True:
                sound(source.read(0.0))
        source.close()

    header = b"time,a,b\n"
    yield (
        [
            start + b"\n".join(CSV) + b"\n"
            for start in (header, header * 2, b"\xef\xbb\xbf" + header)
        ],
        take,
    )
    os.close(descriptor)


@contextmanager
def moment() -> Iterator[tuple[Sequence[bytes], Take]]:
    """A time alone, as a cell and as a JSON number or text."""
    csv, json = heard(), heard()
    decoders = CsvDecoder("time,a,b", "it", CHANNELS, csv), JsonDecoder("it", CHANNELS, json)

    def take(message: bytes) -> None:
        text = message.decode(errors="replace")
        line = f'{{"a": 1, "time": {text}}}'
        for decoder, told, given in zip(decoders, (csv, json), (f"{text},1,2", line), strict=True):
            before = told.cells + told.rows
            reading = decoder.decode(given)
            sound(reading)
            assert told.cells + told.rows - before <= 3

    yield (
        (
            b"1e308",
            b"-1e308",
            b"5e-324",
            b'"2016-12-31T23:59:60Z"',
            b'"0001-01-01T00:00:00+14:00"',
            b'"9999-12-31T23:59:59.999999-14:00"',
            b"2024-10-27T02:30:00",
            b"null",
        ),
        take,
    )


@contextmanager
def json_line() -> Iterator[tuple[Sequence[bytes], Take]]:
    decoder = JsonDecoder("it", CHANNELS, heard())
    yield JSON, lambda message: sound(decoder.decode(message.decode(errors="replace")))


@contextmanager
def serial_bytes() -> Iterator[tuple[Sequence[bytes], Take]]:
    reading_fd, writing_fd = os.pipe()
    lines = StreamLines(reading_fd, "it", open_end=False)
    sources = [
        SerialReadings(lines, LineFormat("it", CHANNELS, heard(), columns))
        for columns in ("time,a,b", None)
    ]

    def take(message: bytes) -> None:
        os.write(writing_fd, message)
        source = sources[len(message) % 2]
        while reading := source.read(0.0):
            sound(reading)

    yield [line + end for line in (*CSV, *JSON, b"time,a,b") for end in (b"\n", b"\r\n", b"")], take
    os.close(reading_fd)
    os.close(writing_fd)


@contextmanager
def mqtt_json() -> Iterator[tuple[Sequence[bytes], Take]]:
    waiting: list[tuple[str, bytes]] = []
    next_message = lambda _: waiting.pop() if waiting else None  # noqa: E731
    source = JsonSamples(next_message, lambda: None, "it", CHANNELS, heard())

    def take(message: bytes) -> None:
        waiting.append(("t", message))
        sound(source.read(0.0))

    yield JSON, take


@contextmanager
def mqtt_topics() -> Iterator[tuple[Sequence[bytes], Take]]:
    waiting: list[tuple[str, bytes]] = []
    next_message = lambda _: waiting.pop() if waiting else None  # noqa: E731
    samples = TopicSamples(next_message, "t/+", CHANNELS, 1.0, heard(), "it")

    def take(message: bytes) -> None:
        topic, _, payload = message.partition(b" ")
        waiting.append((topic.decode(errors="replace"), payload))
        samples.collect(0.0)
        sound(samples.measure())

    yield (b"t/a 1.5", b"t/b -3e4", b"t/b nan", b"t/c 7"), take


@contextmanager
def iio_attribute() -> Iterator[tuple[Sequence[bytes], Take]]:
    descriptor = os.memfd_create("in_a_raw")
    path = Path(f"/proc/self/fd/{descriptor}")

    def take(message: bytes) -> None:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, message, 0)
        with suppress(ValueError):
            assert np.isfinite(read_number(path))

    yield (b"-612\n", b"0.000598\n", b"1e-3", b"+7"), take
    os.close(descriptor)


@contextmanager
def iio_type() -> Iterator[tuple[Sequence[bytes], Take]]:
    def take(message: bytes) -> None:
        try:
            kind = parse_type(message.decode(errors="replace"))
        except ValueError:
            return
        layout = layout_of([("first", parse_type("le:u8/8")), ("it", kind)])
        number = layout.number("it", message.ljust(layout.size, b"\xa5"))
        assert -(1 << kind.bits) < number < 1 << kind.bits

    yield (b"le:s16/16>>0\n", b"be:u12/16>>4", b"le:s24/32X2>>8", b"be:s64/64>>0"), take


@contextmanager
def iio_scan() -> Iterator[tuple[Sequence[bytes], Take]]:
    reading_fd, writing_fd = os.pipe()
    names, types = ("a", "b", "in_timestamp"), ("be:s12/16>>4", "le:u32/32>>0", "le:s64/64>>0")
    layout = layout_of([(name, parse_type(kind)) for name, kind in zip(names, types, strict=True)])
    scales = [(name, Scaling(1e300, 0.5)) for name in CHANNELS]
    source = BufferReadings(reading_fd, layout, scales, lambda: None)

    def take(message: bytes) -> None:
        os.write(writing_fd, message)
        while reading := source.read(0.0):
            sound(reading)

    yield (bytes(range(16)), b"\xff" * 16, b"\x80" * 16, b"\x7f" * 7), take
    os.close(reading_fd)
    os.close(writing_fd)


@contextmanager
def iio_columns() -> Iterator[tuple[Sequence[bytes], Take]]:
    def take(message: bytes) -> None:
        with suppress(GruardError):
            options = {"columns": message.decode(errors="replace")}
            found = attributes(Address("iio", "device0", options), CHANNELS)
            assert list(found) == [*CHANNELS] and not any("/" in each for each in found.values())

    yield (b"a:in_accel_x_raw,b:in_temp_raw", b"a:in_pressure_input"), take


@contextmanager
def modbus_registers() -> Iterator[tuple[Sequence[bytes], Take]]:
    def take(message: bytes) -> None:
        options = {"registers": message.decode(errors="replace")}
        with suppress(GruardError):
            for register in parse_registers(Address("modbus", "//h/1", options), CHANNELS):
                assert 0 <= register.address < 1 << 16 and np.isfinite(register.scale)
                register.value([0xFFFF] * register.words)

    yield (b"a:holding:40001:int16,b:input:30002:float32:scale=0.1:swapped",
           b"a:holding:0x9c41:uint32,b:holding:1:int32:scale=-2e-3"), take  # fmt: skip


@contextmanager
def modbus_answer() -> Iterator[tuple[Sequence[bytes], Take]]:
    """Bodies in right frames, whole answers of any kind, and connections that are closed."""
    body = b""

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while request := connection.recv(300):
                whole = len(body) % 8 == 7
                frame = request[:4] + struct.pack(">H", len(body) + 1) + request[6:7]
                connection.sendall(body if whole else frame + body)
                if whole:
                    return

    with pytest.MonkeyPatch.context() as patch, serving(answer) as port:
        patch.setattr(modbus, "_PATIENCE", 0.01)  # a time-out is an outcome like others
        registers = [Register("a", "holding", 0, "int16"), Register("b", "input", 1, "float32")]
        device: Device | None = None

        def take(message: bytes) -> None:
            nonlocal body, device
            body = message[:250]
            try:
                device = device or Device(
                    Endpoint("127.0.0.1", port, ""), 1, registers, "it", heard()
                )
                sound(device.measure())
            except (SourceLostError, OSError):
                if device:
                    device.close()
                device = None

        yield (b"\x03\x02\x00\x07", b"\x04\x04\x3f\xc0\x00\x00", b"\x83\x02", b"\x84\x0b"), take
        if device:
            device.close()


@contextmanager
def mqtt_packet() -> Iterator[tuple[Sequence[bytes], Take]]:
    """What a broker says after it has let us in, a malformed packet now and then before that."""
    waiting: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(300)
            if len(waiting[0]) % 16:
                connection.sendall(b"\x20\x02\x00\x00")
                connection.recv(300)
                connection.sendall(b"\x90\x03\x00\x01\x00")
            connection.sendall(waiting[0])

    with serving(answer) as port:
        broker = MqttAddress("it", "127.0.0.1", port, "t", None, None, {})

        def take(message: bytes) -> None:
            waiting[:] = [message]
            messages = None
            with suppress(SourceLostError, OSError):
                messages = Messages(broker)
                while found := messages.next(30.0):
                    assert isinstance(found[0], str) and isinstance(found[1], bytes)
            if messages:
                messages.close()

        packets = (b"\x30\x08\x00\x01t{\"a\":1}", b"\x32\x08\x00\x01t\x00\x07xyz", b"\xd0\x00",
                   b"\x90\x03\x00\x01\x80", b"\x20\x02\x00\x05", b"\xe0\x00",
                   b"\x40\x02\x00\x01")  # fmt: skip
        yield [one + other for one in packets for other in packets], take


@contextmanager
def own_reading() -> Iterator[tuple[Sequence[bytes], Take]]:
    """Python literals for the values and the time of a reading."""
    found: list[object] = []
    source = OwnSensor(
        SimpleNamespace(read=lambda _: found[0], close=lambda: None), "it", CHANNELS, heard()
    )

    def take(message: bytes) -> None:
        numbers = [*message]
        strange = [None, "1", "x", 10**400, float("nan"), [1], {}, message, 1e300, True, 3j]
        value = lambda number: strange[number % 16] if number % 16 < 11 else number  # noqa: E731
        values = [value(number) for number in numbers[1:4]]
        found[:] = [SimpleNamespace(time=value(numbers[0]) if numbers else message, values=values)]
        sound(source.read(0.0))

    yield (b"\xff\xff\xff", b"\x0c\x0d\x0e", b"\x00\x00\x00"), take


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that gives each connection to `answer`."""

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
    thread.join()


PARSERS: tuple[Parser, ...] = (
    address, csv_line, recording, moment, json_line, serial_bytes, mqtt_json, mqtt_topics,
    iio_attribute, iio_type, iio_scan, iio_columns, modbus_registers, modbus_answer, mqtt_packet,
    own_reading,
)  # fmt: skip


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.fuzz)])
@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.__name__)
def test_no_message_is_a_crash(parser: Parser, count: int) -> None:
    random, open_before = Random(count), descriptors()
    with parser() as (seeds, take):
        for number in range(count):
            message = mutated(random, seeds)
            try:
                take(message)
            except Exception as error:
                raise AssertionError(f"message {number}: {message[:400]!r}") from error
    assert descriptors() <= open_before


def descriptors() -> int:
    """How many this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
