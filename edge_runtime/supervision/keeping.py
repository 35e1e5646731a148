"""What a run is kept by, as the user asked for it: service manager, watchdog and start marker."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.supervision.kernel_watchdog import (
    KernelWatchdog,
    require_unwatched,
    require_usable,
    was_watchdog_reset,
)
from edge_runtime.supervision.listener import Listener, Listeners
from edge_runtime.supervision.notify import Notifier
from edge_runtime.supervision.start_delay import StartDelay
from edge_runtime.supervision.start_marker import StartedAfter, StartMarker


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
