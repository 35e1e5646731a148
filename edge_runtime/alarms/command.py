"""Run a command of the user when an alarm begins and when it has ended; `gruard run --on-alarm`.

The command gets the alarm as one line of JSON on stdin. It runs in a thread's care: one at a time,
within `TIMEOUT` seconds, with what it starts, and with bounded output. The run never waits for it.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from edge_runtime.alarm import AlarmEvent
from edge_runtime.errors import GruardError, LimitedLog, reason, shortened
from edge_runtime.files import readable
from edge_runtime.threads import BEAT, MonitoredThread

TIMEOUT = 30.0
"""Seconds that one command may take."""
WAITING = 16
"""Alarms that wait while a command runs."""
LONGEST_OUTPUT = 1 << 16
"""Bytes of output that are read; a command that writes more is ended by its broken pipe."""
FAREWELL = 5.0
"""Seconds that commands may still take when the run ends."""
_END = 1.0  # seconds for killing the last one
_LOOK = 0.05  # seconds between two looks at a process
_TOLD = ("began", "ended")


def require_program(words: tuple[str, ...]) -> None:
    """Raise GruardError unless the first of the words of a command is a program here."""
    if shutil.which(words[0]) is None:
        raise GruardError(
            f"--on-alarm: {words[0]!r} is no program here; name one by its whole path, or write "
            "sh -c '…' for pipes and other things of a shell"
        )


class AlarmCommand:
    """Runs `words` for each alarm that begins or has ended.

    log takes one line per event. done: commands that ended with exit code 0. failed: those that did
    not. dropped: alarms for which none was started, because too many waited or the run ended.
    """

    def __init__(
        self, words: tuple[str, ...], log: Callable[[str], None], timeout: float = TIMEOUT
    ) -> None:
        self.done = self.failed = self.dropped = 0
        self._words, self._timeout = words, timeout
        self._log = LimitedLog(log, time.monotonic)
        self._queue: queue.Queue[bytes | None] = queue.Queue(WAITING)
        self._closing, self._stopping = threading.Event(), threading.Event()
        self.thread = MonitoredThread("on-alarm", self._serve)
        self.thread.start()

    def put(self, event: AlarmEvent) -> None:
        """Take one moment of an alarm. Never waits; drops it where too many wait."""
        if event.moment not in _TOLD:
            return
        try:
            self._queue.put_nowait(json.dumps(event.fields()).encode() + b"\n")
        except queue.Full:
            self._drop(1)

    def close(self) -> None:
        """Run what waits, for `FAREWELL` seconds at most; then kill what still runs."""
        self._closing.set()
        with suppress(queue.Full):
            self._queue.put_nowait(None)  # to wake the thread
        if not self.thread.join(FAREWELL):
            self._stopping.set()
            self.thread.join(_END)
        if waiting := sum(message is not None for message in self._queue.queue):
            self._drop(waiting)

    def counts(self) -> dict[str, int]:
        """Return how many commands did what."""
        return {"done": self.done, "failed": self.failed, "dropped": self.dropped}

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._log.trouble(
            "dropped", f"on-alarm: {self.dropped} alarms so far for which no command was started"
        )

    def _serve(self) -> None:
        while not self._stopping.is_set():
            self.thread.beat()
            if self._closing.is_set() and self._queue.empty():
                return
            with suppress(queue.Empty):
                if (message := self._queue.get(timeout=BEAT)) is not None:
                    self._run(message)

    def _run(self, message: bytes) -> None:
        why = "it was not finished"
        try:
            why = self._why_failed(message)
        except OSError as error:
            why = f"cannot be started ({reason(error)})"
        finally:
            self.failed += bool(why)
            self.done += not why
        name = self._words[0]
        if why:
            self._log.trouble("failed", f"on-alarm: {name} {why}; the run goes on")
        else:
            self._log.over(f"on-alarm: {name} works again", "failed")

    def _why_failed(self, message: bytes) -> str:
        """Run the command for one message; return why it failed, empty when it did not."""
        words = _Output()
        stdin = os.memfd_create("alarm")  # a pipe would block, and break where nobody reads it
        try:
            os.write(stdin, message)
            os.lseek(stdin, 0, os.SEEK_SET)
            process = subprocess.Popen(
                self._words,
                stdin=stdin,
                stdout=words.writer,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group that is killed as one
            )
            words.close_writer()
            try:
                timely = self._follow(process.pid, words)
            finally:
                # Before it is waited for, nobody else can have its number.
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
            words.read(0.0)
        finally:
            os.close(stdin)
            words.close()
        if not timely:
            ended = "took until the end of the run" if self._stopping.is_set() else "took too long"
            return f"{ended} and was killed{words.last()}"
        if code:
            how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
            return f"failed ({how}){words.last()}"
        return ""

    def _follow(self, pid: int, words: _Output) -> bool:
        """Wait for the end of a process, and leave it to be waited for; return whether it ended."""
        end = time.monotonic() + self._timeout
        look = os.WEXITED | os.WNOWAIT | os.WNOHANG
        while os.waitid(os.P_PID, pid, look) is None:
            if self._stopping.is_set() or time.monotonic() >= end:
                return False
            self.thread.beat()
            words.read(_LOOK)
        return True


class _Output:
    """What a command writes: a pipe of which `LONGEST_OUTPUT` bytes are read."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self.writer, True)
        self._data = b""

    def read(self, seconds: float) -> None:
        """Read what there is, or wait so long for it; close the pipe where it is too much."""
        if self._reader < 0:
            time.sleep(seconds)
        elif readable(self._reader, seconds):
            with suppress(BlockingIOError):
                data = os.read(self._reader, LONGEST_OUTPUT)
                self._data += data
                if not data or len(self._data) > LONGEST_OUTPUT:
                    self._close_reader()

    def last(self) -> str:
        """Return `: LINE`, the last line of the output; empty without one."""
        lines = self._data.decode(errors="replace").split("\n")
        line = next((line for line in reversed(lines) if line.strip()), "")
        return f": {shortened(line.strip())}" if line else ""

    def close_writer(self) -> None:
        """Close this process's end for writing, so that the command's is the only one."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def close(self) -> None:
        """Close both ends."""
        self.close_writer()
        self._close_reader()

    def _close_reader(self) -> None:
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1
