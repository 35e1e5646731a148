"""What the run before this one came to: a small file that outlives crashes and power loss."""

import enum
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_runtime.durable import replace_text
from edge_runtime.errors import GruardError
from edge_runtime.files import read_regular, require_regular
from edge_runtime.limited_log import LimitedLog
from edge_runtime.supervision.listener import Listener

MARKER = "last-run.json"
"""The file's name in the state folder."""
WRITE_EVERY = 60.0
"""Seconds between writes: every one of them wears an SD card."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_LARGEST = 4096  # bytes; what is longer is cut and so not readable


@dataclass(frozen=True)
class Mark:
    """One run as its last write to the marker told it.

    boot_id: the kernel's random name of that boot. pid: of the supervisor.
    sample: the last completed one at that time, None before the first. clean: it ended in good
    order, and this was its last word.
    """

    boot_id: str
    pid: int
    sample: int | None
    clean: bool


class StartedAfter(enum.Enum):
    """What came before this start."""

    FIRST_START = "first start"
    CLEAN_STOP = "clean stop"
    CRASH = "crash"  # in this boot, and not in good order
    GOOD_REBOOT = "reboot in good order"
    POWER_LOSS = "power loss or reset"
    WATCHDOG_RESET = "watchdog reset"
    UNKNOWN = "unknown"  # the marker or the boot's name cannot be read

    @property
    def bad(self) -> bool:
        """Whether samples may have been lost that nobody stopped on purpose."""
        return self in (StartedAfter.CRASH, StartedAfter.POWER_LOSS, StartedAfter.WATCHDOG_RESET)


def started_after(mark: Mark | None, boot_id: str, watchdog_reset: bool) -> StartedAfter:
    """Judge the last run.

    mark: what it left, None when nothing is readable. boot_id: of this boot, "" when unknown.
    watchdog_reset: whether the machine says that its watchdog caused the last reset.
    """
    if mark is None or not mark.boot_id or not boot_id:
        return StartedAfter.UNKNOWN
    if mark.boot_id == boot_id:
        return StartedAfter.CLEAN_STOP if mark.clean else StartedAfter.CRASH
    if watchdog_reset:
        return StartedAfter.WATCHDOG_RESET
    return StartedAfter.GOOD_REBOOT if mark.clean else StartedAfter.POWER_LOSS


class StartMarker(Listener):
    """Reads the last run's marker when made, and from then on keeps this run's.

    folder: the state folder; GruardError when it is missing. clock: monotonic seconds.
    log: takes one line per event. A write that fails is logged, and never ends a run.
    """

    def __init__(
        self,
        folder: Path,
        watchdog_reset: bool,
        clock: Callable[[], float],
        log: Callable[[str], None],
        boot_id_file: Path = BOOT_ID,
    ) -> None:
        if not folder.is_dir():
            raise GruardError(f"{folder}: no such folder for the state; create it first")
        self._file, self._clock, self._log = folder / MARKER, clock, log
        self._boot_id = read_boot_id(boot_id_file)
        self._sample: int | None = None
        self._troubles = LimitedLog(log, clock)
        self._next = clock()
        self.started_after = self._judge(watchdog_reset)
        self._write(clean=False)

    def beat(self, index: int, status: Callable[[], str]) -> None:
        """Note the sample; it reaches the file once a minute."""
        self._sample = index
        if self._clock() >= self._next:
            self._write(clean=False)

    def ended(self) -> None:
        """The last word: this run ended in good order."""
        self._write(clean=True)

    def _judge(self, watchdog_reset: bool) -> StartedAfter:
        if not os.path.lexists(self._file):
            self._log(f"first start with the state folder {self._file.parent}")
            return StartedAfter.FIRST_START
        mark = read_mark(self._file)
        verdict = started_after(mark, self._boot_id, watchdog_reset)
        known = mark is not None and mark.sample is not None
        last = f"; the run before had answered sample {mark.sample}" if known and mark else ""
        self._log(f"started after: {verdict.value}{last}")
        return verdict

    def _write(self, clean: bool) -> None:
        self._next = self._clock() + WRITE_EVERY
        try:
            write_mark(self._file, Mark(self._boot_id, os.getpid(), self._sample, clean))
        except OSError as error:
            self._troubles.trouble(
                "write",
                f"{self._file}: cannot be written ({error.strerror}); the next start will not "
                "know how this run ended",
            )
        else:
            self._troubles.over(f"{self._file}: is written again", "write")


def read_mark(file: Path) -> Mark | None:
    """The mark in `file`, None where there is none that can be relied on."""
    try:
        data = json.loads(read_regular(file, _LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    return Mark(**data) if _is_mark(data) else None


def write_mark(file: Path, mark: Mark) -> None:
    """Replace the marker, durably. Raises OSError, also if something else lies in its place."""
    require_regular(file)
    replace_text(file, json.dumps(asdict(mark)) + "\n")


def _is_mark(data: Any) -> bool:
    if not isinstance(data, dict) or set(data) != {"boot_id", "pid", "sample", "clean"}:
        return False
    return (
        isinstance(data["boot_id"], str)
        and type(data["pid"]) is int
        and (data["sample"] is None or type(data["sample"]) is int)
        and type(data["clean"]) is bool
    )


def read_boot_id(file: Path) -> str:
    """The kernel's random name of this boot, empty when it cannot be read."""
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
