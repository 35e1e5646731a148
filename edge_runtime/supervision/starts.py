"""What a run is kept by, as the user asked for it: service manager, watchdog and start marker.

What the run before this one came to: a small file that outlives crashes and power loss.

How long a service waits before it begins, after starts in a row that did not last.

systemd restarts at one pace (RestartSteps= came with version 254), and with a start limit it gives
up until somebody comes. So it restarts for ever, and the program itself waits, longer each time.
"""

import enum
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_runtime.errors import GruardError, LimitedLog
from edge_runtime.files import read_regular
from edge_runtime.plain import parse_json, write_small
from edge_runtime.supervision.liveness import (
    KernelWatchdog,
    Listener,
    Listeners,
    Notifier,
    require_unwatched,
    require_usable,
    was_watchdog_reset,
)

MARKER = "last-run.json"
"""The file's name in the state folder."""
WRITE_EVERY = 60.0
"""Seconds between writes: every one of them wears an SD card."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_LARGEST_MARKER = 4096  # bytes; what is longer is cut and so not readable


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
        data = parse_json(read_regular(file, _LARGEST_MARKER))
    except (OSError, ValueError):
        return None
    return Mark(**data) if _is_mark(data) else None


def write_mark(file: Path, mark: Mark) -> None:
    """Replace the marker, durably. Raises OSError, also if something else lies in its place."""
    write_small(file, json.dumps(asdict(mark)))


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


FILE = "restarts.json"
"""The file's name in the state folder."""
BACK_OFF = (0.0, 5.0, 30.0, 300.0, 3600.0)
"""Seconds after the first start in a row that did not last, the second, … systemd's own second
(RestartSec=) comes before each."""
LASTED = 600.0
"""Seconds after which a run has lasted: the next failure is the first again."""

_LARGEST_COUNT = 1024  # bytes
_SAY_EVERY = 10.0  # seconds between two words to the service manager
_MARGIN = 90.0  # seconds of start-up time that each of these asks for: as much as TimeoutStartSec=


class StartDelay(Listener):
    """Counts the starts of this boot that did not last, on disk; a context of the assembly.

    Entering waits for what this start owes. A signal that ends the wait, or the block, is an order
    and clears the count; so does a run that lasted. A source that ends early is no order: its
    reader may have crashed, and systemd will start both again.

    folder: where the count is kept; None waits for nothing. clock: monotonic seconds; sleep: spends
    them. A count that cannot be kept delays nothing.
    """

    def __init__(
        self,
        folder: Path | None,
        notifier: Notifier,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        log: Callable[[str], None],
        boot_id_file: Path = BOOT_ID,
    ) -> None:
        self._file, self._notifier = folder / FILE if folder else None, notifier
        self._clock, self._sleep, self._log = clock, sleep, log
        self._troubles = LimitedLog(log, clock)
        self._boot_id = read_boot_id(boot_id_file)
        self.failed = _read(self._file, self._boot_id) if self._file else 0
        self._begun = clock()
        self._counted = True
        self._write(self.failed + 1)  # until this one has lasted

    @property
    def seconds(self) -> float:
        """What this start owes."""
        return BACK_OFF[min(self.failed, len(BACK_OFF)) - 1] if self.failed else 0.0

    def __enter__(self) -> "StartDelay":
        try:
            self._wait()
        except Exception:
            raise
        except BaseException:
            self.clear()
            raise
        self._begun = self._clock()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self.clear()

    def beat(self, index: int, status: Callable[[], str]) -> None:
        """Clear the count once the run has lasted."""
        if self._counted and self._clock() - self._begun >= LASTED:
            self.clear()

    def clear(self) -> None:
        """Let the next start owe nothing: this one lasted, or was told to end."""
        self._counted = False
        self._write(0)

    def _wait(self) -> None:
        if not self.seconds:
            return
        starts = "start" if self.failed == 1 else f"{self.failed} starts"
        why = f"the last {starts} did not last {LASTED / 60:.0f} minutes"
        self._log(f"{why}; this one waits {self.seconds:.0f} s; restart the service to start now")
        until = self._clock() + self.seconds
        while (left := until - self._clock()) > 0:
            self._notifier.delay(f"waits {left:.0f} s to start: {why}", _MARGIN)
            self._sleep(min(left, _SAY_EVERY))
        self._notifier.delay("starts", _MARGIN)

    def _write(self, failed: int) -> None:
        if self._file is None:
            return
        try:
            write_small(self._file, json.dumps({"boot_id": self._boot_id, "failed": failed}))
        except OSError as error:
            self._troubles.trouble(
                "write",
                f"{self._file}: cannot be written ({error.strerror}); "
                "starts that do not last are not delayed",
            )


def _read(file: Path, boot_id: str) -> int:
    """How many starts of this boot did not last; 0 where nothing that can be relied on is there."""
    try:
        found = parse_json(read_regular(file, _LARGEST_COUNT))
    except (OSError, ValueError):
        return 0
    if not isinstance(found, dict) or found.get("boot_id") != boot_id or not boot_id:
        return 0
    failed = found.get("failed")
    return failed if type(failed) is int and 0 <= failed < 1 << 53 else 0


@dataclass(frozen=True)
class Keeping:
    """state: folder of the start marker. watchdog: device, and its time-out in seconds.

    None leaves the one or the other away.
    """

    state: Path | None
    watchdog: Path | None
    timeout: int

    def check(self, environment: Mapping[str, str], interval: float | None) -> None:
        """Raise GruardError when this run cannot be kept so; nothing is touched yet.

        interval: seconds between samples, None when unknown.
        """
        if self.watchdog is not None:
            require_unwatched(environment)
            require_usable(self.watchdog, interval, self.timeout)

    def delay(
        self,
        environment: Mapping[str, str],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        log: Callable[[str], None],
    ) -> StartDelay:
        """What a service waits for after starts that did not last.

        Nothing where no service manager restarts it, or where no state is kept.
        """
        restarted = environment.get("NOTIFY_SOCKET") and self.state and self.state.is_dir()
        folder = self.state if restarted else None
        return StartDelay(folder, Notifier(environment, clock), clock, sleep, log)

    def begin(
        self,
        environment: Mapping[str, str],
        clock: Callable[[], float],
        log: Callable[[str], None],
        delay: Listener,
    ) -> tuple[Listener, StartedAfter | None]:
        """Who is to hear of this run, and what the run before it came to, where that is kept."""
        listeners: list[Listener] = [Notifier(environment, clock), delay]
        before = None
        if self.state is not None:
            marker = StartMarker(self.state, was_watchdog_reset(), clock, log)
            listeners.append(marker)
            before = marker.started_after
        if self.watchdog is not None:
            # Told last: a marker that takes its time must not come between feeding and arming.
            listeners.append(KernelWatchdog(self.watchdog, self.timeout, clock, log))
        return Listeners(listeners), before


def default_state(environment: Mapping[str, str]) -> Path | None:
    """The state folder that systemd gave this service, if it did."""
    first = environment.get("STATE_DIRECTORY", "").split(os.pathsep)[0]
    return Path(first) if first else None
