"""A source whose channels nobody knows: those that its own first line names."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_runtime.errors import GruardError
from edge_runtime.sources.complaints import Complaints
from edge_runtime.sources.csvfile import LABEL_NAMES, TIME_NAMES, open_text, read_rows
from edge_runtime.sources.line_source import LineSource
from edge_runtime.sources.lines import LONGEST, StreamLines
from edge_runtime.sources.open_source import open_source
from edge_runtime.sources.source import Source


def open_unnamed(target: str, complaints: Complaints) -> tuple[Source, tuple[str, ...]]:
    """The source that `target` names, and its channels: of a file or of stdin, in its own order.

    Sources of other kinds are opened without channels, as far as they work so: one empty reading
    for each sample. Raises GruardError where the first line is unusable or the kind needs more.
    """
    if target == "-" and sys.stdin is not None:
        line = _first_line(sys.stdin.fileno())
        names, lines = _channels(line, "stdin"), StreamLines(sys.stdin.fileno(), "stdin")
        return LineSource(lines, "stdin", names, complaints, header=line), names
    if Path(target).is_file():
        with open_text(target) as text:
            names = _channels(next(iter(text), ""), target)
    else:
        names = ()
    return open_source(target, names, None, complaints), names


def _first_line(descriptor: int) -> str:
    """One byte at a time: what follows belongs to whoever reads the samples."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < LONGEST and (byte := os.read(descriptor, 1)):
        line += byte
    return line.decode("utf-8-sig", errors="replace")


def _channels(line: str, name: str) -> tuple[str, ...]:
    if not line.lstrip().startswith("{"):
        return read_rows([line] if line else [], name)[0].channels
    try:
        found: Sequence[str] = list(json.loads(line))
    except (ValueError, RecursionError):
        raise GruardError(f"{name} line 1: is not a JSON object") from None
    special = TIME_NAMES | LABEL_NAMES
    return tuple(channel for channel in found if channel.lower() not in special)
