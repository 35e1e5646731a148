"""Where a recording gets the names of its channels from, kind by kind."""

import os
import pty
from pathlib import Path

import pytest
from iio_tree import make_device

from edge_runtime.errors import Complaints, GruardError
from edge_runtime.readings.named_source import open_named


def names(target: str, *channels: str, period: float | None = None) -> tuple[str, ...]:
    source, found = open_named(target, channels, period, Complaints())
    source.close()
    return found


def test_a_file_and_a_selection_of_it(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    path.write_text("time;a;b;state\n1;2;3;on\n2;3;4;on\n")
    assert names(str(path)) == ("a", "b")
    assert names(str(path), "b") == ("b",)
    with pytest.raises(GruardError, match="missing channels: z"):
        names(str(path), "z")


def test_json_lines_and_a_named_pipe(tmp_path: Path) -> None:
    path, pipe = tmp_path / "day.jsonl", tmp_path / "pipe"
    path.write_text('{"time": 1, "x": 2, "y": null}\n')
    assert names(str(path)) == ("x", "y")
    os.mkfifo(pipe)
    with os.fdopen(os.open(pipe, os.O_RDWR), "w") as writer:
        writer.write("a,b\n1,2\n")
        writer.flush()
        assert names(str(pipe)) == ("a", "b")


def test_registers_are_named_in_the_address() -> None:
    registers = "flow:holding:1:int16,heat:input:2:float32:swapped"
    target = f"modbus://127.0.0.1:1/1?registers={registers}"
    assert names(target, period=1.0) == ("flow", "heat")
    assert names(target, "heat", period=1.0) == ("heat",)


def test_a_device_of_the_kernel(tmp_path: Path) -> None:
    make_device(tmp_path)
    target = f"iio:device0?root={tmp_path}"
    assert names(target, period=1.0) == ("accel_x", "accel_y", "anglvel_z", "temp", "voltage0")
    assert names(f"{target}&columns=t1:in_temp_raw", period=1.0) == ("t1",)
    assert names(f"{target}&buffer=/dev/iio:device0") == ("accel_x", "temp")
    with pytest.raises(GruardError, match="no such device"):
        names(f"iio:device7?root={tmp_path}", period=1.0)


def test_a_device_without_raw_values_says_what_to_name(tmp_path: Path) -> None:
    device = make_device(tmp_path)
    for attribute in device.glob("in_*_raw"):
        attribute.unlink()
    with pytest.raises(GruardError, match=r"device0: has no raw values; .*\?columns=NAME:in_"):
        names(f"iio:device0?root={tmp_path}", period=1.0)


def test_a_serial_port_with_columns() -> None:
    leader, follower = pty.openpty()
    port = f"serial:{os.ttyname(follower)}"
    assert names(f"{port}?columns=time,a,b") == ("a", "b")
    assert names(port, "a", "b") == ("a", "b")
    with pytest.raises(GruardError, match=r"--channels a,b,c, or the order .*\?columns=a,b,c"):
        names(port)
    os.close(leader)
    os.close(follower)
