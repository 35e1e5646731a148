"""A serial port on a pseudo-terminal: lines, half lines, unplugged and plugged in again."""

import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from live_run import is_alarm, is_answer, is_gap, live_run

from edge_runtime.errors import Complaints, GruardError
from edge_runtime.sources.open_source import open_source
from edge_runtime.sources.source import Source, TimeLimit

CHANNELS = ("a", "b")
PATIENCE = 30.0


class Port:
    """A device behind a path that stays the same when it is plugged in again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plug_in()

    def plug_in(self) -> None:
        self._master, slave = pty.openpty()
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(slave))
        os.close(slave)

    def unplug(self) -> None:
        os.close(self._master)

    def say(self, text: str) -> None:
        os.write(self._master, text.encode())


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    found = Port(tmp_path / "ttyUSB0")
    yield found
    found.unplug()


def opened(port: Port, options: str, complaints: Complaints | None = None) -> Source:
    """A source that has the port open, so that what is said now is read."""
    target = f"serial:{port.path}{options}"
    source = open_source(target, CHANNELS, 1.0, complaints or Complaints())
    assert source.read(0.0) is None
    return source


def values(source: Source, count: int) -> list[list[float]]:
    limit, found = TimeLimit(PATIENCE), list[list[float]]()
    while len(found) < count and limit.left():
        reading = source.read(limit.left())
        if reading is not None:
            found.append(reading.row.tolist())
    return found


def test_the_line_it_was_opened_in_is_left_out(port: Port) -> None:
    source = opened(port, "?columns=time,b,a")
    port.say("2.5,7,1\n0,2,1\n1,4,3\r\n2,x\n")
    complaints = values(source, 3)
    np.testing.assert_array_equal(complaints, [[1, 2], [3, 4], [np.nan, np.nan]])
    source.close()


def test_a_header_may_come_at_any_time_and_again(port: Port) -> None:
    complaints = Complaints()
    source = opened(port, "", complaints)
    port.say("garbage\nhello, I am a sensor\na,b\n1,2\na,b\n3,4\n")
    assert values(source, 2) == [[1, 2], [3, 4]]
    assert (complaints.cells, complaints.rows) == (0, 1)
    source.close()


def test_a_header_or_an_object_may_be_the_first_line(port: Port) -> None:
    source = opened(port, "")
    port.say('{"a": 1, "b": 2}\n{"a": 3}\n')
    np.testing.assert_array_equal(values(source, 2), [[1, 2], [3, np.nan]])
    source.close()
    source = opened(port, "")
    port.say("a,b\n1,2\n")
    assert values(source, 1) == [[1, 2]]
    source.close()


def test_half_a_line_of_an_unplugged_device_is_no_reading(port: Port) -> None:
    complaints = Complaints()
    source = opened(port, "?columns=a,b", complaints)
    port.say("skipped\n1,2\n3,4")
    assert values(source, 1) == [[1, 2]]
    port.unplug()
    port.plug_in()
    assert source.read(0.5) is None and complaints.outages == 1 and complaints.rows == 0
    source.close()


def test_an_unplugged_device_is_a_gap_and_the_run_goes_on_when_it_is_back(
    port: Port, tmp_path: Path
) -> None:
    with live_run(f"serial:{port.path}?columns=a,b", tmp_path) as run:
        run.until(is_answer, lambda: port.say("1,2\n"))
        port.unplug()
        run.until(is_gap)
        port.plug_in()
        run.until(is_alarm, lambda: port.say("500,2\n"))
        summary = run.stop()
    assert summary["outages"] == 1 and summary["bad_rows"] == 0
    assert "the device is gone; trying again" in run.log and "is back" in run.log


def test_a_device_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    with live_run(f"serial:{tmp_path}/ttyUSB0?columns=a,b", tmp_path) as run:
        run.logged("No such file or directory; trying again")
        port = Port(tmp_path / "ttyUSB0")
        run.until(is_answer, lambda: port.say("1,2\n"))
        run.stop()
    port.unplug()


def test_columns_without_a_channel_are_refused(port: Port) -> None:
    with pytest.raises(GruardError, match="missing channels: b"):
        open_source(f"serial:{port.path}?columns=a,c", CHANNELS, 1.0, Complaints())


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(GruardError, match=r"pip install 'gruard\[serial\]'"):
        open_source("serial:/dev/null", CHANNELS, 1.0, Complaints())
