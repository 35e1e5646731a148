"""Linux IIO on a made tree: attributes with scale and offset, and scans from a FIFO as buffer."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from iio_tree import make_device
from live_run import LiveRun, is_alarm, is_answer, is_gap, live_run

from edge_runtime.errors import Complaints, GruardError
from edge_runtime.sources.iio import (
    ElementType,
    find_device,
    layout_of,
    parse_type,
    polled_device,
    read_layout,
)
from edge_runtime.sources.open_source import open_source
from edge_runtime.sources.source import Reading, Source, SourceLostError

G = 0.000598


@pytest.fixture
def device(tmp_path: Path) -> Path:
    return make_device(tmp_path)


def measured(device: Path, wanted: dict[str, str], complaints: Complaints) -> list[float]:
    reading = polled_device(device, wanted, 1.0, complaints).read(None)
    assert reading and reading.time and reading.row.dtype == np.float32
    found: list[float] = reading.row.tolist()
    return found


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("in_accel_x_raw", -612 * G),  # the scale of its type
        ("in_anglvel_z_raw", 2.0),  # a scale of its own
        ("in_temp_raw", (12420 - 4420) * 2.941176),
        ("in_voltage0_raw", 25.0),
        ("in_pressure_input", 101.325),  # is in its unit already
    ],
)
def test_scale_and_offset_are_applied(device: Path, attribute: str, expected: float) -> None:
    found = measured(device, {"a": attribute}, Complaints())
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


@pytest.mark.parametrize("text", ["", "busy", "nan", "inf", "1e999", "--1", "\xff\x00", "9" * 99])
def test_a_failing_attribute_is_one_missing_reading(device: Path, text: str) -> None:
    (device / "in_accel_y_raw").write_text(text, encoding="latin-1")
    complaints = Complaints()
    wanted = {"a": "in_accel_x_raw", "b": "in_accel_y_raw"}
    found = measured(device, wanted, complaints)
    assert np.isfinite(found[0]) and np.isnan(found[1]) and complaints.cells == 1
    (device / "in_accel_y_raw").unlink()
    (device / "in_accel_y_raw").mkdir()  # reading it fails
    assert np.isnan(measured(device, wanted, complaints)[1])


@pytest.mark.parametrize("text", ["", "busy", "nan"])
def test_a_scale_that_cannot_be_read_is_an_outage_and_no_other_scale(
    device: Path, text: str
) -> None:
    (device / "in_accel_scale").write_text(text)
    with pytest.raises(SourceLostError, match="in_accel_scale: cannot be read"):
        measured(device, {"a": "in_accel_x_raw"}, Complaints())


def test_a_scan_element_that_cannot_be_read_is_named(device: Path) -> None:
    (device / "scan_elements" / "in_temp_type").write_text("be:s99")
    with pytest.raises(GruardError, match=r"in_temp.*: cannot be read"):
        read_layout(device)


def test_a_device_is_found_by_number_and_by_name(tmp_path: Path, device: Path) -> None:
    assert find_device(tmp_path, "device0") == find_device(tmp_path, "mpu6050") == device
    make_device(tmp_path, 1)
    assert find_device(tmp_path, "device0") == device
    with pytest.raises(SourceLostError, match=r"more than one .* device0 \(mpu6050\), device1"):
        find_device(tmp_path, "mpu6050")
    with pytest.raises(SourceLostError, match="no such device"):
        find_device(tmp_path, "bmp280")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("columns=a:in_accel_x", "CHANNEL:in_…_raw"),
        ("columns=c:in_accel_x_raw", "the channels are a, b"),
        ("columns=a:../../secret_raw", "CHANNEL:in_…_raw"),
        ("", "has no in_a_raw, in_b_raw; there are in_accel_x_raw, in_accel_y_raw,"),
        ("columns=a:in_temp_raw,b:in_accel_y_raw&buffer=/dev/null", "echo 1 > .*/in_accel_y_en"),
    ],
)
def test_what_the_device_lacks_is_told(device: Path, options: str, words: str) -> None:
    root = f"?root={device.parent}" + (f"&{options}" if options else "")
    with pytest.raises(GruardError, match=words):
        source = open_source(f"iio:device0{root}", ("a", "b"), 1.0, Complaints())
        while source.read(None) is None:
            pass


def test_a_device_that_fails_and_goes_is_marked_and_comes_back(
    device: Path, tmp_path: Path
) -> None:
    columns = "a:in_accel_x_raw,b:in_temp_raw"
    with live_run(f"iio:device0?root={device.parent}&columns={columns}", tmp_path) as run:
        run.until(is_answer)
        (device / "in_temp_raw").write_text("broken\n")
        run.logged("device0, b: in_temp_raw: 'broken' is not a number")
        gone = device.rename(tmp_path / "gone")
        run.until(is_gap)
        (gone / "in_accel_x_raw").write_text("500000\n")
        (gone / "in_temp_raw").write_text("0\n")
        gone.rename(device)
        run.until(is_alarm)
        summary = run.stop()
    assert summary["outages"] == 1 and summary["bad_cells"] > 0 and summary["bad_rows"] == 0
    assert all(record["time"] for record in run.records if is_answer(record))


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        ("le:s12/16>>4", b"\x0f\x80", -2048),  # the low four bits are none of the number's
        ("be:s12/16>>0", b"\xf7\xff", 2047),  # the high four neither
        ("be:u24/32>>8", b"\xff\xff\xff\x00", 0xFFFFFF),
        ("LE:U8/8", b"\x80", 128),
        ("le:s64/64>>0", struct.pack("<q", -5), -5),
    ],
)
def test_numbers_are_taken_out_of_their_storage(kind: str, data: bytes, expected: int) -> None:
    assert parse_type(kind).decode(data) == expected


BAD_TYPES = """
le; le:s16; le:f32/32; me:s8/8>>0; le:s8/12>>0; le:s16/16>>99999
le:s17/16>>0; le:s16/16>>4; le:s0/8>>0; le:s8/8X0>>0
"""


@pytest.mark.parametrize("text", ["", *BAD_TYPES.replace(";", "\n").split()])
def test_types_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a type such as|does not fit its storage"):
        parse_type(text)


def test_elements_are_aligned_to_their_size_and_the_scan_to_the_largest(device: Path) -> None:
    layout = read_layout(device)
    starts = {name: start for name, (_, start) in layout.elements.items()}
    assert starts == {"in_accel_x": 0, "in_temp": 2, "in_timestamp": 8} and layout.size == 16
    wide = ElementType(True, True, 24, 32, 4, 0)
    narrow = parse_type("le:u8/8>>0")
    assert layout_of([("n", narrow), ("w", wide), ("m", narrow)]).elements["m"][1] == 32
    assert layout_of([("w", wide), ("n", narrow)]).size == 32


class Buffer:
    """A FIFO in place of the character device."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plug_in()

    def plug_in(self) -> None:
        self.path.unlink(missing_ok=True)
        os.mkfifo(self.path)
        self._fd = os.open(self.path, os.O_RDWR)

    def scan(self, accel: int, temp: int, seconds: float, cut: int = 16) -> None:
        """One scan, or the first `cut` bytes of it."""
        data = struct.pack(">hh4x", accel, temp) + struct.pack("<q", int(seconds * 1e9))
        os.write(self._fd, data[:cut])

    def send(self, data: bytes) -> None:
        os.write(self._fd, data)

    def close(self) -> None:
        """The device is gone; whoever reads it notices."""
        os.close(self._fd)


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    found = Buffer(tmp_path / "iio:device0.fifo")
    yield found
    found.close()


def target(device: Path, buffer: Buffer) -> str:
    columns = "a:in_temp_raw,b:in_accel_x_raw"
    return f"iio:device0?root={device.parent}&columns={columns}&buffer={buffer.path}"


def next_reading(source: Source) -> Reading:
    found = source.read(30.0)
    assert found
    return found


def test_scans_are_readings_with_the_devices_time(device: Path, buffer: Buffer) -> None:
    source = open_source(target(device, buffer), ("a", "b"), 1.0, Complaints())
    buffer.scan(100, -2420, 12.5)
    first = next_reading(source)
    np.testing.assert_allclose(first.row, [10_000 * 2.941176, 100 * G], rtol=1e-6)
    assert first.time == 12.5
    buffer.scan(200, 0, 13.5, cut=7)
    assert source.read(0.0) is None  # half a scan is none
    buffer.send((struct.pack(">hh4x", 200, 0) + struct.pack("<q", int(13.5e9)))[7:] + b"\0" * 16)
    np.testing.assert_allclose(next_reading(source).row[1], 200 * G, rtol=1e-6)
    np.testing.assert_allclose(next_reading(source).row, [12420 * 2.941176, 0], rtol=1e-6)
    source.close()


def test_a_buffer_that_ends_is_a_gap_and_the_run_goes_on_when_it_is_back(
    device: Path, buffer: Buffer, tmp_path: Path
) -> None:
    now = 100.0

    def scan(run: LiveRun) -> None:
        nonlocal now
        now += 0.1
        buffer.scan(1, 1, now)

    with live_run(target(device, buffer), tmp_path) as run:
        run.until(is_answer, lambda: scan(run))
        buffer.close()
        run.until(is_gap)
        assert "the buffer has ended; trying again" in run.log
        buffer.plug_in()
        run.until(is_alarm, lambda: scan(run))
        summary = run.stop()
    assert summary["outages"] == 1


def test_a_file_is_no_buffer(device: Path, tmp_path: Path) -> None:
    path = tmp_path / "scans.bin"
    path.write_bytes(b"\0" * 64)
    name = f"iio:device0?root={device.parent}&columns=a:in_temp_raw&buffer={path}"
    source = open_source(name, ("a",), 1.0, Complaints())
    with pytest.raises(GruardError, match=r"scans\.bin: is a file"):
        source.read(None)
