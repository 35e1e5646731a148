"""Sensors of the user's own: the example works, and nothing they do wrong ends a run."""

from pathlib import Path

import numpy as np
import pytest
from live_run import is_alarm, is_answer, is_gap, live_run

from edge_runtime.errors import Complaints, GruardError
from edge_runtime.sources.open_source import open_source

EXAMPLE = Path(__file__).parents[3] / "examples" / "own_sensor.py"
READER = """
import numpy as np
from edge_runtime.sources.source import Polled
from edge_runtime.sources.source import Reading

def open_sensor(channels, period):
    assert channels == ("a", "b") and period == 0.1
    return Polled(measure, period)

def measure():
    with open({path!r}) as file:  # fails while the file is away
        return eval(file.read())
"""


def program(folder: Path, text: str) -> str:
    path = folder / "my_sensor.py"
    path.write_text(text)
    return f"python:{path}"


def test_the_example_measures() -> None:
    source = open_source(f"python:{EXAMPLE}", ("memory", "load"), 0.01, Complaints())
    for _ in range(3):
        reading = source.read(30.0)
        assert reading and reading.time
        memory, load = reading.row
        assert memory > 0 and load >= 0
    source.close()


def test_the_example_is_as_short_as_promised() -> None:
    lines = EXAMPLE.read_text().split('"""', 2)[2].splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 20


def test_the_documentation_shows_the_example_as_it_is() -> None:
    assert EXAMPLE.read_text() in (EXAMPLE.parents[1] / "docs" / "sources.md").read_text()


def test_whatever_a_sensor_does_the_run_goes_on(tmp_path: Path) -> None:
    """Errors are outages, and what is no reading is a row of nothing; both are told."""
    says = tmp_path / "says"

    def say(text: str) -> None:
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").replace(says)

    say("Reading(None, [1, 2])")
    with live_run(program(tmp_path, READER.format(path=str(says))), tmp_path) as run:
        run.until(is_answer)
        say("7")
        run.logged("'7' is no Reading of 2 values in the bundle's order")
        say("1 / 0")
        run.until(is_gap)
        run.logged("ZeroDivisionError: division by zero")
        say("Reading(None, [500, np.nan])")
        run.until(is_alarm)
        summary = run.stop()
    assert summary["outages"] == 1 and summary["bad_rows"] >= 1


def test_a_sensor_that_ends_ends_the_run(tmp_path: Path) -> None:
    ending = "class S:\n def read(self, timeout): raise EOFError\n def close(self): 1 / 0\n"
    target = program(tmp_path, ending + "def open_sensor(channels, period): return S()\n")
    complaints = Complaints()
    source = open_source(target, ("a",), None, complaints)
    with pytest.raises(EOFError):
        source.read(30.0)
    source.close()
    assert complaints.rows == 1  # its close failed


@pytest.mark.parametrize(
    "nonsense", ["7", "S(time=1, values=[1])", "S(values=[1, 2])",
                 "S(time=0, values='ab')", "S(time=0, values=[1, 'x'])"],
)  # fmt: skip
def test_what_is_no_reading_is_a_row_of_nothing(tmp_path: Path, nonsense: str) -> None:
    text = (
        "from types import SimpleNamespace as S\n"
        "def open_sensor(channels, period):\n"
        f"    return S(read=lambda timeout: {nonsense}, close=lambda: None)\n"
    )
    complaints = Complaints()
    source = open_source(program(tmp_path, text), ("a", "b"), 1.0, complaints)
    reading = source.read(30.0)
    assert reading and np.isnan(reading.row).all() and complaints.rows
    source.close()


def test_what_cannot_even_be_shown_is_named_by_its_type(tmp_path: Path) -> None:
    text = (
        "class Odd:\n"
        "    def __repr__(self):\n"
        "        return 1 / 0\n"
        "    read = close = lambda self, *_: self\n"
        "def open_sensor(channels, period):\n"
        "    return Odd()\n"
    )
    lines: list[str] = []
    source = open_source(program(tmp_path, text), ("a", "b"), 1.0, Complaints(lines.append))
    reading = source.read(30.0)
    assert reading and np.isnan(reading.row).all()
    source.close()
    assert lines and "'Odd' is no Reading of 2 values" in lines[0], lines


@pytest.mark.parametrize("time", ["float('inf')", "float('nan')", "10**400", "'now'", "[1]"])
def test_a_time_that_is_none_spoils_no_value(tmp_path: Path, time: str) -> None:
    text = (
        "from types import SimpleNamespace as S\n"
        "def open_sensor(channels, period):\n"
        f"    plan = [S(time={time}, values=[1, 2])]\n"
        "    return S(read=lambda timeout: plan.pop(), close=lambda: None)\n"
    )
    complaints = Complaints()
    source = open_source(program(tmp_path, text), ("a", "b"), 1.0, complaints)
    reading = source.read(30.0)
    assert reading and reading.time is None and reading.row.tolist() == [1.0, 2.0]
    assert (complaints.cells, complaints.rows) == (1, 0)
    source.close()


def test_values_become_float32(tmp_path: Path) -> None:
    text = (
        "from types import SimpleNamespace\n"
        "def open_sensor(channels, period):\n"
        "    found = SimpleNamespace(time=1, values=[1, None, 1e300])\n"
        "    return SimpleNamespace(read=lambda timeout: found, close=lambda: None)\n"
    )
    source = open_source(program(tmp_path, text), ("a", "b", "c"), 1.0, Complaints())
    reading = source.read(30.0)
    assert reading and reading.row.dtype == np.float32 and reading.time == 1.0
    np.testing.assert_array_equal(reading.row, [1, np.nan, np.inf])
    source.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def open_sensor(:", "cannot be loaded: SyntaxError"),
        ("import no_such_package", "cannot be loaded: ModuleNotFoundError.*line 1 of my_sensor"),
        ("open = 1", r"defines no open_sensor\(channels, period\)"),
    ],
)
def test_programs_that_cannot_be_used_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(GruardError, match=words):
        open_source(program(tmp_path, text), ("a",), 1.0, Complaints())


def test_only_a_python_file_that_not_everybody_may_change_is_run(tmp_path: Path) -> None:
    target = program(tmp_path, "raise SystemExit")
    Path(target.removeprefix("python:")).chmod(0o666)
    for name, words in ((target, "chmod o-w"), ("python:os", "no such"), (f"{target}x", "no such")):
        with pytest.raises(GruardError, match=words):
            open_source(name, ("a",), 1.0, Complaints())
