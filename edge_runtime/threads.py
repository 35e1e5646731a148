"""Threads whose failures and hangs are noticed.

A `MonitoredThread` runs its body again after an exception, with back-off, and counts its beats.
`Threads` checks all of them from the supervisor's loop: it logs failures and hangs, and gives their
states to the status file, the metrics and the summary.
"""

import _thread
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from edge_runtime.errors import LimitedLog

BACK_OFF = (1.0, 5.0, 30.0)
"""Seconds before a failed body runs again: after the first failure, the second, and later ones."""
FORGIVEN = 100
"""Beats without a failure after which the back-off starts at its first value again."""
BEAT = 5.0
"""Seconds that a body may wait for work before it beats again."""
PATIENCE = 60.0
"""Seconds without a beat after which a thread counts as hung; most system time-outs are shorter."""


@dataclass(frozen=True)
class ThreadState:
    """The state of one thread.

    alive: its body runs; False before the start, during a back-off, and after the end.
    ended: its body returned. hung: it has not beaten for `PATIENCE`.
    restarts: runs of the body after a failure. silent: seconds since the last beat that was seen.
    error: the last failure, None without one.
    """

    name: str
    alive: bool
    ended: bool
    hung: bool
    restarts: int
    silent: float
    error: str | None


def failed_words(states: Sequence[ThreadState]) -> str:
    """Return which threads hang, do not run, or were restarted, in words; empty if none."""
    return ", ".join(words for state in states if (words := _words(state)))


def _words(state: ThreadState) -> str:
    parts = []
    if state.hung:
        parts.append(f"has hung for {state.silent:.0f} s")
    elif not (state.alive or state.ended):
        parts.append(f"does not run ({state.error or 'it never started'})")
    if state.restarts:
        parts.append(f"{state.restarts} restart{'s' if state.restarts > 1 else ''} ({state.error})")
    return f"{state.name}: {', '.join(parts)}" if parts else ""


class MonitoredThread:
    """Run `body` in a daemon thread until it returns, and again whenever it raises.

    body: calls `beat` at least every `BEAT` seconds, returns when its owner closes it, and can be
    run again after an exception in any of its lines.
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
        return self._running and not self._gone.is_set()

    def start(self) -> None:
        """Start the thread; where the system refuses one, `revive` tries again later."""
        self._gone.clear()
        try:
            # Thread.start() would wait for ever for a thread that has no memory to start.
            self._ident = _thread.start_new_thread(self._live, ())
        except RuntimeError as error:
            self._gone.set()
            self.error = str(error)

    def beat(self) -> None:
        """Show that the body makes progress; called by the body."""
        self.beats += 1

    def revive(self) -> None:
        """Start the thread again if it has gone although its body never returned."""
        if self._gone.is_set() and not (self.ended or self._closing.is_set()):
            self.restarts += 1
            self.start()

    def join(self, timeout: float) -> bool:
        """Wait for the body to return, `timeout` seconds at most; return whether it did.

        The owner tells the body to end before. A body in its back-off runs once more.
        """
        self._closing.set()
        return self._gone.wait(timeout)

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
            except BaseException as error:  # also SystemExit: only its body ends this thread
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
    """The last check of a thread. at: when its beats last changed."""

    beats: int
    at: float
    error: str | None = None
    restarts: int = 0
    hung: bool = False


class Threads:
    """All threads of a run. log takes one line per event; clock gives monotonic seconds."""

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._log, self._clock = LimitedLog(log, clock), clock
        self._seen: dict[MonitoredThread, _Seen] = {}

    def watch(self, threads: Iterable[MonitoredThread]) -> None:
        """Add threads to those that are checked."""
        now = self._clock()
        self._seen |= {thread: _Seen(thread.beats, now) for thread in threads}

    def look(self) -> None:
        """Log threads that failed or hang, and revive those that are gone; takes microseconds."""
        now = self._clock()
        for thread, seen in self._seen.items():
            thread.revive()
            self._log_failure(thread, seen)
            self._log_hang(thread, seen, now)

    def states(self) -> tuple[ThreadState, ...]:
        """Return the state of each thread, in the order in which they were added."""
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

    def _log_failure(self, thread: MonitoredThread, seen: _Seen) -> None:
        if thread.error is None or (thread.error, thread.restarts) == (seen.error, seen.restarts):
            return
        seen.error, seen.restarts = thread.error, thread.restarts
        self._log.trouble(
            f"{thread.name} failed", f"thread {thread.name} failed ({thread.error}); it runs again"
        )

    def _log_hang(self, thread: MonitoredThread, seen: _Seen, now: float) -> None:
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
