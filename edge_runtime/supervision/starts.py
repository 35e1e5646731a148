"""How this run starts, by how the runs before it ended; and the listeners that follow it.

`StartMarker` keeps a small file that outlives crashes and power loss, and judges the last run by
it. `StartDelay` waits before a start when the last starts did not last. systemd restarts with a
constant delay (RestartSteps= needs version 254), and a start limit would stop the service for good;
so systemd restarts for ever, and the program waits, longer each time.

`LivenessOptions` is what the user chose: it makes the listeners of a run.
"""

import enum
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from edge_runtime.errors import GruardError, LimitedLog
from edge_runtime.files import read_regular
from edge_runtime.plain import build, parse_json, write_small
from edge_runtime.supervision.liveness import (
    KernelWatchdog,
    Listener,
    Notifier,
    require_unwatched,
    require_usable,
    was_watchdog_reset,
)

MARKER, FILE = "last-run.json", "restarts.json"
"""Names of the files in the state folder: of the marker, and of the count of failed starts."""
_LARGEST_FILE = 4096  # bytes; more is cut off and so unreadable
WRITE_EVERY = 60.0
"""Seconds between two writes of the marker: each of them wears an SD card."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BACK_OFF = (0.0, 5.0, 30.0, 300.0, 3600.0)
"""Seconds to wait after the first start in a row that did not last, the second, … systemd's own
second (RestartSec=) comes before each."""
LASTED = 600.0
"""Seconds after which a run has lasted; the next failure counts as the first again."""
_STATUS_EVERY = 10.0  # seconds between two messages to the service manager while waiting
_MARGIN = 90.0  # seconds of start-up time that each of them asks for, as much as TimeoutStartSec=


@dataclass(frozen=True)
class Mark:
    """One run, as it last wrote its marker.

    boot_id: the kernel's random name of that boot. pid: of the supervisor.
    sample: the last one answered by then, None before the first. clean: the run ended in good
    order, and this was its last write.
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
        """Whether samples may have been lost without an ordered stop."""
        return self in (StartedAfter.CRASH, StartedAfter.POWER_LOSS, StartedAfter.WATCHDOG_RESET)


def started_after(mark: Mark | None, boot_id: str, watchdog_reset: bool) -> StartedAfter:
    """Judge the last run.

    mark: what it wrote, None when unreadable. boot_id: of this boot, "" when unknown.
    watchdog_reset: whether the machine reports that its watchdog caused the last reset.
    """
    if mark is None or not mark.boot_id or not boot_id:
        return StartedAfter.UNKNOWN
    if mark.boot_id == boot_id:
        return StartedAfter.CLEAN_STOP if mark.clean else StartedAfter.CRASH
    if watchdog_reset:
        return StartedAfter.WATCHDOG_RESET
    return StartedAfter.GOOD_REBOOT if mark.clean else StartedAfter.POWER_LOSS


class StartMarker(Listener):
    """Reads the last run's marker at construction, then writes this run's.

    folder: the state folder; GruardError when it is missing. clock: monotonic seconds.
    log: takes one line per event. A write that fails is logged and never ends a run.
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
        self._boot_id = _read_boot_id(boot_id_file)
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
        """Write that this run ended in good order."""
        self._write(clean=True)

    def _judge(self, watchdog_reset: bool) -> StartedAfter:
        if not os.path.lexists(self._file):
            self._log(f"first start with the state folder {self._file.parent}")
            return StartedAfter.FIRST_START
        mark = read_state(self._file, Mark)
        verdict = started_after(mark, self._boot_id, watchdog_reset)
        last = ""
        if mark is not None and mark.sample is not None:
            last = f"; the last run had answered sample {mark.sample}"
        self._log(f"started after: {verdict.value}{last}")
        return verdict

    def _write(self, clean: bool) -> None:
        self._next = self._clock() + WRITE_EVERY
        mark = Mark(self._boot_id, os.getpid(), self._sample, clean)
        lost = "the next start will not know how this run ended"
        self._troubles.attempt_write(self._file, lambda: write_state(self._file, mark), lost)


@dataclass(frozen=True)
class StartCount:
    """failed: how many starts in a row of that boot did not last."""

    boot_id: str
    failed: int


class StartDelay(Listener):
    """Counts the starts of this boot that did not last, on disk; a context around the assembly.

    Entering waits as long as the count demands. A signal during the wait, or in the block, is an
    ordered stop and clears the count; so does a run that lasted. A source that ends early does not:
    its program may have crashed, and systemd will start both again.

    folder: where the count is kept; None never waits. clock: monotonic seconds; sleep: spends
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
        self._boot_id = _read_boot_id(boot_id_file)
        self.failed = self._read()
        self._begun = clock()
        self._counted = True
        self._write(self.failed + 1)  # until this one has lasted

    @property
    def seconds(self) -> float:
        """How long this start waits."""
        return BACK_OFF[min(self.failed, len(BACK_OFF)) - 1] if self.failed else 0.0

    def __enter__(self) -> "StartDelay":
        try:
            self._wait()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
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
        """Let the next start wait for nothing: this one lasted, or was stopped on purpose."""
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
            self._sleep(min(left, _STATUS_EVERY))
        self._notifier.delay("starts", _MARGIN)

    def _read(self) -> int:
        """Return how many starts of this boot did not last; 0 without a reliable count."""
        count = read_state(self._file, StartCount) if self._file else None
        if count is None or not self._boot_id or count.boot_id != self._boot_id:
            return 0
        return max(count.failed, 0)

    def _write(self, failed: int) -> None:
        if file := self._file:
            count = StartCount(self._boot_id, failed)
            lost = "starts that do not last are not delayed"
            self._troubles.attempt_write(file, lambda: write_state(file, count), lost)


_Kind = TypeVar("_Kind")


def read_state(file: Path, kind: type[_Kind]) -> _Kind | None:
    """Return the dataclass that `write_state` wrote; None where it is missing or unreliable."""
    try:
        value: _Kind = build(kind, parse_json(read_regular(file, _LARGEST_FILE)), str(file))
    except (OSError, ValueError, GruardError):
        return None
    return value


def write_state(file: Path, value: object) -> None:
    """Replace `file`, durably. Raises OSError, also if something else lies in its place."""
    write_small(file, json.dumps(vars(value)))


def _read_boot_id(file: Path) -> str:
    """Return the kernel's random name of this boot, empty when it cannot be read."""
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


@dataclass(frozen=True)
class LivenessOptions:
    """state: folder of the start marker. watchdog: device, and its time-out in seconds.

    None means: no marker, or no watchdog.
    """

    state: Path | None
    watchdog: Path | None
    timeout: int

    def check(self, environment: Mapping[str, str], interval: float | None) -> None:
        """Raise GruardError when the watchdog cannot guard this run; nothing is touched yet.

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
        """Return the delay of a service whose last starts did not last.

        It is none where no service manager restarts this process, or no state is kept.
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
    ) -> tuple[tuple[Listener, ...], StartedAfter | None]:
        """Return the listeners of this run, and what came before it where state is kept."""
        listeners = [Notifier(environment, clock), delay]
        before = None
        if self.state is not None:
            marker = StartMarker(self.state, was_watchdog_reset(), clock, log)
            listeners.append(marker)
            before = marker.started_after
        if self.watchdog is not None:
            # The last one: a slow write of the marker must not come between feeding and arming.
            listeners.append(KernelWatchdog(self.watchdog, self.timeout, clock, log))
        return tuple(listeners), before


def service_folder(environment: Mapping[str, str], name: str) -> Path | None:
    """Return the folder that systemd gave this service, as STATE_DIRECTORY and the like name it."""
    first = environment.get(name, "").split(os.pathsep)[0]
    return Path(first) if first else None
