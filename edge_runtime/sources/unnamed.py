"""A source whose channels nobody knows: those that its own first line names."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from edge_runtime.errors import Complaints, GruardError
from edge_runtime.sources.csvfile import LABEL_NAMES, TIME_NAMES, open_text, start_rows
from edge_runtime.sources.dialect import find_header
from edge_runtime.sources.encoding import DECODE_ERRORS
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
        header, rows, _ = find_header(lambda: _next_line(sys.stdin.fileno()) or None)
        begun = [header, *rows] if header else []
        names = _channels(begun, header, "stdin")
        lines = StreamLines(sys.stdin.fileno(), "stdin")
        return LineSource(lines, "stdin", names, complaints, begun), names
    if Path(target).is_file():
        with open_text(target) as text:
            first = next(text, "")
            names = _channels(chain([first], text), first, target)
    else:
        names = ()
    return open_source(target, names, None, complaints), names


def _next_line(descriptor: int) -> str:
    """One byte at a time: what follows belongs to whoever reads the samples."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < LONGEST and (byte := os.read(descriptor, 1)):
        line += byte
    return line.decode("utf-8-sig", errors=DECODE_ERRORS)


def _channels(lines: Iterable[str], first: str, name: str) -> tuple[str, ...]:
    """The channels of lines that begin with `first`."""
    if not first.lstrip().startswith("{"):
        return start_rows(lines, name)[0].channels
    try:
        found: Sequence[str] = list(json.loads(first))
    except (ValueError, RecursionError):
        raise GruardError(f"{name} line 1: is not a JSON object") from None
    special = TIME_NAMES | LABEL_NAMES
    return tuple(channel for channel in found if channel.lower() not in special)
