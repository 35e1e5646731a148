"""A sensor of the user's own: `python:my_sensor.py`, a file that defines `open_sensor`.

The file runs in the supervisor's process with all its rights, so the user names it; it is never
searched for. An exception in it is an outage, not the end of the run.
"""

import importlib.util
import math
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_runtime.address import Address
from edge_runtime.errors import Complaints, GruardError
from edge_runtime.sources.decoders import nothing
from edge_runtime.sources.source import Reading, Reconnecting, Source, SourceLostError, Threaded

FUNCTION = "open_sensor"
_WRITABLE_BY_OTHERS = 0o002


class OwnSensor:
    """Checks the readings and the errors of the user's source."""

    live = True

    def __init__(
        self, source: Source, name: str, channels: Sequence[str], complaints: Complaints
    ) -> None:
        self._source, self._name, self._complaints = source, name, complaints
        self._width = len(channels)

    def read(self, timeout: float | None) -> Reading | None:
        """Return its next reading. Raises EOFError at its end, SourceLostError for other errors."""
        try:
            answer = self._source.read(timeout)
        except EOFError:
            raise
        except Exception as error:
            raise SourceLostError(_described(error)) from error
        return None if answer is None else self._checked(answer)

    def close(self) -> None:
        """Close it; an error is only logged."""
        try:
            self._source.close()
        except Exception as error:
            self._complaints.row(self._name, _described(error), "came from its close")

    def _checked(self, answer: Any) -> Reading:
        try:
            reading = Reading.of(answer.time, answer.values)
            if reading.values.shape != (self._width,):
                raise ValueError
        except (AttributeError, TypeError, ValueError, OverflowError):
            wanted = f"is no Reading of {self._width} values in the bundle's order"
            self._complaints.row(self._name, _shown(answer), wanted)
            return nothing(self._width)
        return Reading(self._seconds(reading.time), reading.values)

    def _seconds(self, time: Any) -> float | None:
        """Return a finite time, or None; a bad time does not invalidate the values."""
        if time is None:
            return None
        with suppress(TypeError, ValueError, OverflowError):
            if math.isfinite(seconds := float(time)):
                return seconds
        self._complaints.cell(f"{self._name}, time", _shown(time))
        return None


def open_own_sensor(
    address: Address, channels: Sequence[str], period: float | None, complaints: Complaints
) -> Threaded:
    """Open the source of `open_sensor(channels, period)` in the file, and again after an error."""
    name = str(address)
    open_sensor = _loaded(Path(address.place))

    def connect() -> OwnSensor:
        try:
            source = open_sensor(tuple(channels), period)
        except Exception as error:
            raise SourceLostError(_described(error)) from error
        return OwnSensor(source, name, channels, complaints)

    return Threaded(Reconnecting(name, connect, complaints), name, complaints)


def _loaded(path: Path) -> Callable[..., Source]:
    """Load the file's function. Raises GruardError, also when others may write the file."""
    if path.suffix != ".py" or not path.is_file():
        raise GruardError(f"{path}: no such file; name a Python file, python:./my_sensor.py")
    if path.stat().st_mode & _WRITABLE_BY_OTHERS:
        raise GruardError(f"{path}: all users may change this program; chmod o-w {path}")
    spec = importlib.util.spec_from_file_location(f"own_sensor_{path.stem}", path)
    assert spec and spec.loader  # as the name ends in .py
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise GruardError(f"{path}: cannot be loaded: {_described(error)}") from error
    function = getattr(module, FUNCTION, None)
    if not callable(function):
        raise GruardError(f"{path}: defines no {FUNCTION}(channels, period); see examples/")
    opener: Callable[..., Source] = function
    return opener


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # the user's repr may fail too
        return type(value).__name__


def _described(error: Exception) -> str:
    """Return an error and the line that raised it."""
    where = traceback.extract_tb(error.__traceback__)
    line = f", line {where[-1].lineno} of {Path(where[-1].filename).name}" if where else ""
    return f"{type(error).__name__}: {error}{line}"
