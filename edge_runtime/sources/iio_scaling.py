"""From the raw numbers of Linux's IIO to a channel's unit, as the attributes beside them say."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import GruardError
from edge_runtime.files import open_input
from edge_runtime.sources.complaints import quoted
from edge_runtime.sources.source import SourceLostError

_LONGEST = 64  # bytes of a name, a type or a number


@dataclass(frozen=True)
class Scaling:
    """From a raw number to the channel's unit."""

    scale: float = 1.0
    offset: float = 0.0

    def __call__(self, raw: float) -> float:
        """(raw + offset)·scale."""
        return (raw + self.offset) * self.scale


def scaling(device: Path, attribute: str) -> Scaling:
    """The scale and the offset of an attribute, its own or those of its type.

    Raises SourceLostError for an attribute that is there and holds no number.
    """
    if attribute.endswith("_input"):
        return Scaling()
    return Scaling(
        _first_number(device, attribute, "scale", 1.0),
        _first_number(device, attribute, "offset", 0.0),
    )


def read_number(path: Path) -> float:
    """The finite number in an attribute file. Raises OSError or ValueError."""
    text = read_attribute(path)
    is_whole = len(text) < _LONGEST and re.fullmatch(r"[-+0-9.eE]+", text)
    number = float(text) if is_whole else math.nan
    if not math.isfinite(number):
        raise ValueError(f"{quoted(text)} is not a number")
    return number


def read_attribute(path: Path) -> str:
    """Return the first bytes of an attribute file as text.

    Raises OSError, or ValueError when it is no file: one that blocks would hold up all sensors.
    """
    try:
        with open_input(path, "an attribute of IIO is one") as file:
            return file.read(_LONGEST).decode("ascii", errors="replace").strip()
    except GruardError as error:
        raise ValueError(str(error)) from None


def _first_number(device: Path, attribute: str, what: str, default: float) -> float:
    for stem in _stems(attribute):
        path = device / f"{stem}_{what}"
        if path.exists():
            try:
                return read_number(path)
            except (OSError, ValueError) as error:
                raise SourceLostError(f"{path}: cannot be read ({error})") from None
    return default


def _stems(attribute: str) -> Iterator[str]:
    """in_accel_x_raw → in_accel_x, in_accel; in_voltage0_raw → in_voltage0, in_voltage."""
    stem = attribute.rpartition("_")[0]
    yield stem
    yield re.sub(r"\d+", "", stem)
    yield re.sub(r"\d+", "", stem.rpartition("_")[0])
