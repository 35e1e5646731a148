"""Threads that cannot die or hang unseen.

A `WatchedThread` runs its body again after an exception, with back-off, and counts its beats.
`Threads` looks at all of them from the supervisor's loop: it logs failures and hangs, and gives
their states to the status file, the metrics and the summary.
"""

import _thread
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from edge_runtime.errors import LimitedLog

BACK_OFF = (1.0, 5.0, 30.0)
"""Seconds before a body that failed runs again: after the first failure, the second, and later."""
FORGIVEN = 100
"""Beats between two failures after which the back-off begins at its first value again."""
BEAT = 5.0
"""Seconds that a body may wait for work before it beats again."""
PATIENCE = 60.0
"""Seconds without a beat after which a thread counts as hung; most disks and resolvers give up."""


@dataclass(frozen=True)
class ThreadState:
    """How one thread is.

    alive: its body runs; not so before it is started, during a back-off, and once it has ended.
    ended: its body returned, there is nothing left to do. hung: it has not beaten for `PATIENCE`.
    restarts: runs of the body after a failure. silent: seconds since the last beat that was seen.
    error: what the last failure was, None without one.
    """

    name: str
    alive: bool
    ended: bool
    hung: bool
    restarts: int
    silent: float
    error: str | None


def failed_words(states: Sequence[ThreadState]) -> str:
    """Which threads hang, are not there, or had to be restarted, in words; empty if none."""
    return ", ".join(words for state in states if (words := _words(state)))


def _words(state: ThreadState) -> str:
    restarts = f"{state.restarts} restart{'s' if state.restarts > 1 else ''} ({state.error})"
    now = f"hangs for {state.silent:.0f} s" if state.hung else ""
    now = now or (
        "" if state.alive or state.ended else f"is not there ({state.error or 'it never began'})"
    )
    told = [now] if now else []
    told += [restarts] if state.restarts else []
    return f"{state.name}: {', '.join(told)}" if told else ""


class WatchedThread:
    """Runs `body` in a daemon thread until it returns, and again whenever it raises.

    body: calls `beat` at least every `BEAT` seconds while all is well, returns when its owner
    closes it, and can be run again after an exception at any of its lines.
    """

    def __init__(self, name: str, body: Callable[[], None]) -> None:
        self.name = name
        self.beats = self.restarts = 0
        self.error: str | None = None
        self.ended = self._running = False
        self._body = body
        self._closing = threading.Event()
        self._ident = 0  # of the thread, while there is one
        self._gone = threading.Event()
        self._gone.set()

    @property
    def alive(self) -> bool:
        """Whether the body runs at the moment."""
        return self._running and self._is_there()

    def start(self) -> None:
        """Start the thread; `revive` tries again later where the system has none to give."""
        self._gone.clear()
        try:
            # Thread.start() would wait for ever for a thread that finds no memory to begin with.
            self._ident = _thread.start_new_thread(self._live, ())
        except RuntimeError as error:
            self._gone.set()
            self.error = str(error)

    def beat(self) -> None:
        """Show that the body goes on; called by the body."""
        self.beats += 1

    def revive(self) -> None:
        """Start the thread again if it is not there although its body never returned."""
        if not (self.ended or self._is_there() or self._closing.is_set()):
            self.restarts += 1
            self.start()

    def join(self, timeout: float) -> bool:
        """Wait for the body to return, in `timeout` seconds at most; whether it did.

        The owner has told the body to end. A body that waits for its back-off runs once more.
        """
        self._closing.set()
        return self._gone.wait(timeout)

    def _is_there(self) -> bool:
        return not self._gone.is_set()

    def _live(self) -> None:
        try:
            self._run()
        finally:
            self._gone.set()

    def _run(self) -> None:
        failures, last = 0, False
        while True:
            begun = self.beats
            try:
                self._running = True
                self._body()
                self.ended = True
                return
            except BaseException as error:  # also SystemExit: nothing ends this thread but its body
                self.error = f"{type(error).__name__}: {error}" if str(error) else repr(error)
            finally:
                self._running = False
            if last:
                return
            failures = 1 if self.beats - begun > FORGIVEN else failures + 1
            last = self._closing.wait(BACK_OFF[min(failures, len(BACK_OFF)) - 1])
            self.restarts += 1


@dataclass
class _Seen:
    """What the last look at a thread found. at: when its beats last changed."""

    beats: int
    at: float
    error: str | None = None
    restarts: int = 0
    hung: bool = False


class Threads:
    """All threads of a run. log takes one line an event; clock gives monotonic seconds."""

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._log, self._clock = LimitedLog(log, clock), clock
        self._seen: dict[WatchedThread, _Seen] = {}

    def watch(self, threads: Iterable[WatchedThread]) -> None:
        """Look at these too."""
        now = self._clock()
        self._seen |= {thread: _Seen(thread.beats, now) for thread in threads}

    def look(self) -> None:
        """Log what failed or hangs, and revive what is gone; takes microseconds."""
        now = self._clock()
        for thread, seen in self._seen.items():
            thread.revive()
            self._tell_failures(thread, seen)
            self._tell_hang(thread, seen, now)

    def states(self) -> tuple[ThreadState, ...]:
        """How each thread is, in the order in which they were given."""
        now = self._clock()
        return tuple(
            ThreadState(
                thread.name,
                thread.alive,
                thread.ended,
                seen.hung,
                thread.restarts,
                max(now - seen.at, 0.0),
                thread.error,
            )
            for thread, seen in self._seen.items()
        )

    def _tell_failures(self, thread: WatchedThread, seen: _Seen) -> None:
        if thread.error is None or (thread.error, thread.restarts) == (seen.error, seen.restarts):
            return
        seen.error, seen.restarts = thread.error, thread.restarts
        self._log.trouble(
            f"{thread.name} failed", f"thread {thread.name} failed ({thread.error}); it runs again"
        )

    def _tell_hang(self, thread: WatchedThread, seen: _Seen, now: float) -> None:
        if thread.beats != seen.beats or not thread.alive:
            seen.beats, seen.at = thread.beats, now
        was, seen.hung = seen.hung, now - seen.at >= PATIENCE
        topic = f"{thread.name} hangs"
        if seen.hung and not was:
            self._log.trouble(
                topic,
                f"thread {thread.name} has hung for {now - seen.at:.0f} s; "
                "the run goes on without it",
            )
        elif was and not seen.hung:
            self._log.over(f"thread {thread.name} goes on", topic)
