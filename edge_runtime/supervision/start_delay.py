"""How long a service waits before it begins, after starts in a row that did not last.

systemd restarts at one pace (RestartSteps= came with version 254), and with a start limit it gives
up until somebody comes. So it restarts for ever, and the program itself waits, longer each time.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from edge_runtime.durable import replace_text
from edge_runtime.files import read_regular, require_regular
from edge_runtime.limited_log import LimitedLog
from edge_runtime.supervision.listener import Listener
from edge_runtime.supervision.notify import Notifier
from edge_runtime.supervision.start_marker import BOOT_ID, read_boot_id

FILE = "restarts.json"
"""The file's name in the state folder."""
BACK_OFF = (0.0, 5.0, 30.0, 300.0, 3600.0)
"""Seconds after the first start in a row that did not last, the second, … systemd's own second
(RestartSec=) comes before each."""
LASTED = 600.0
"""Seconds after which a run has lasted: the next failure is the first again."""

_LARGEST = 1024  # bytes
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
        text = json.dumps({"boot_id": self._boot_id, "failed": failed}) + "\n"
        try:
            require_regular(self._file)
            replace_text(self._file, text)
        except OSError as error:
            self._troubles.trouble(
                "write",
                f"{self._file}: cannot be written ({error.strerror}); "
                "starts that do not last are not delayed",
            )


def _read(file: Path, boot_id: str) -> int:
    """How many starts of this boot did not last; 0 where nothing that can be relied on is there."""
    try:
        found = json.loads(read_regular(file, _LARGEST))
    except (OSError, ValueError, RecursionError):
        return 0
    if not isinstance(found, dict) or found.get("boot_id") != boot_id or not boot_id:
        return 0
    failed = found.get("failed")
    return failed if type(failed) is int and 0 <= failed < 1 << 53 else 0
