"""What the owner says of alarms: a false alarm, or a real one.

The marks are lines of `marks.jsonl` in the state folder, each sealed by itself
(`edge_runtime.plain`). Lines are only ever added; the last mark of an alarm counts. A line that a
power cut tore is skipped.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_runtime.alarm import Alarm, upgraded
from edge_runtime.errors import BusyError, GruardError, reason
from edge_runtime.files import open_regular, read_regular, sync
from edge_runtime.plain import SCHEMA, build, parse_json, seal, unseal

MARKS = "marks.jsonl"
"""Name of the file in the state folder."""
LARGEST_MARKS = 1 << 20
"""Bytes of all marks, some 1,500."""


@dataclass(frozen=True)
class AlarmMark:
    """The owner's mark on an alarm: real or false. note: may be empty. told: epoch seconds."""

    alarm: Alarm
    real: bool
    note: str
    told: float


def read_marks(folder: Path) -> tuple[list[AlarmMark], int]:
    """Return all marks, oldest first, and how many lines are damaged. Raises GruardError."""
    file, marks, damaged = folder / MARKS, list[AlarmMark](), 0
    try:
        lines = read_regular(file, 2 * LARGEST_MARKS).splitlines()
    except FileNotFoundError:
        return [], 0
    except (OSError, ValueError) as error:
        raise GruardError(f"{file}: cannot be read ({reason(error)})") from None
    for line in filter(None, lines):
        try:
            fields = unseal(parse_json(line))
            if fields.pop("schema", None) != SCHEMA:
                raise ValueError("of another version")
            fields["alarm"] = upgraded(fields.get("alarm"))
            marks.append(build(AlarmMark, fields, str(file)))
        except (ValueError, GruardError):
            damaged += 1
    return marks, damaged


def append_mark(folder: Path, mark: AlarmMark) -> None:
    """Add one mark, durably. Raises GruardError, BusyError while another process adds one."""
    file = folder / MARKS
    line = seal({"schema": SCHEMA, **asdict(mark)}).encode() + b"\n"
    try:
        descriptor = open_regular(file, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            _append(file, descriptor, line)
        finally:
            os.close(descriptor)
    except BlockingIOError:
        raise BusyError(f"{file}: another process adds a mark; try again") from None
    except OSError as error:
        raise GruardError(f"{file}: cannot be written ({reason(error)})") from None


def _append(file: Path, descriptor: int, line: bytes) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    size = os.fstat(descriptor).st_size
    if size + len(line) > LARGEST_MARKS:
        raise GruardError(f"{file}: is full; move it to where you keep recordings, and mark again")
    if size == 0 and os.geteuid() == 0:  # a service that is not root adds marks, too
        owner = file.parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    data = b"\n" * torn + line
    try:
        if os.write(descriptor, data) < len(data):
            raise OSError(None, "the disk is full")
        os.fsync(descriptor)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        raise
    sync(file.parent)
