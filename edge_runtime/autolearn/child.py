"""A child process that learns in the background without disturbing the run.

    python -m edge_runtime.autolearn.child MEMORY PARENT COMMAND…

sets the limits and becomes COMMAND. They are those of the process, so they hold for any command.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.plain import UNPRINTABLE
from edge_runtime.supervision.worker_process import child_environment

MOST_MEMORY, LEAST_MEMORY = 400_000_000, 100_000_000
"""Bytes of address space. The interpreter and numpy take 140 MB of it, and 110 MB more are for
400,000 rows of 5 channels."""
MEMORY_SHARE = 2
"""Of the memory of the machine, or of the service, the child gets one part in so many."""
CPU_LIMIT = 6 * 3600
"""Seconds of processor time. numpy tries for ever where the system gives it no memory."""
PROMOTED, FAILED, BAD_INPUT, KEPT_OUT = 0, 1, 2, 3
"""Exit codes of a command that learns."""
OUT_OF_MEMORY = "out of memory"
"""What it says when it met its limit."""
_PR_SET_PDEATHSIG = 1
_LONGEST = 65536  # bytes of the output that are read
_SHOWN = 300  # characters of a reason
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class ChildResult:
    """How the child ended. code: one of the exit codes above. reason: why, or what was learned."""

    code: int
    reason: str


class BackgroundChild:
    """One process at a time that runs `command` with the lowest priority."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._process: subprocess.Popen[bytes] | None = None
        self._output = self._errors = -1

    @property
    def running(self) -> bool:
        """Whether a process was started and its end was not seen yet."""
        return self._process is not None

    def start(self, command: Sequence[str]) -> None:
        """Start `command`. Raises OSError when the system cannot."""
        module = "edge_runtime.autolearn.child"
        words = [sys.executable, "-m", module, str(self._memory), str(os.getpid()), *command]
        self._output, self._errors = (os.memfd_create(name) for name in ("output", "errors"))
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._errors,
                env=child_environment(),
                start_new_session=True,  # the Ctrl-C of a terminal is for the run
            )
        except OSError:
            self._close()
            raise

    def result(self, waits: bool = False) -> ChildResult | None:
        """Return how it ended, None while it runs. waits: until then."""
        assert self._process is not None
        code = self._process.wait() if waits else self._process.poll()
        if code is None:
            return None
        result = _result(code, _end_of(self._output), _end_of(self._errors))
        self._close()
        return result

    def stop(self) -> None:
        """Kill the process, if there is one. What it was writing is repaired by the next one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._close()

    def _close(self) -> None:
        self._process = None
        for descriptor in (self._output, self._errors):
            os.close(descriptor)


def memory_limit() -> int:
    """Return the bytes that a child may use, by the memory of the machine and of the service."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(OSError, ValueError):  # "max" is no number: there is no limit
        limits.append(int(_CGROUP_LIMIT.read_text()))
    return max(min(min(limits) // MEMORY_SHARE, MOST_MEMORY), LEAST_MEMORY)


def _result(code: int, output: str, errors: str) -> ChildResult:
    answer = _answer(output)
    if code in (PROMOTED, KEPT_OUT):
        return ChildResult(code, _plain(str(answer.get("reason") or answer.get("bundle") or "")))
    if code < 0:
        name = signal.Signals(-code).name
        return ChildResult(FAILED, f"was ended by {name}")
    lines = [line for line in errors.splitlines() if line.strip()]
    said = lines[-1].removeprefix("gruard: ") if lines else f"ended with exit code {code}"
    return ChildResult(code, _plain(said))


def _answer(output: str) -> dict[str, Any]:
    """Return the JSON object in the last line of the output, an empty one without it."""
    with suppress(ValueError, IndexError):
        answer = json.loads(output.strip().splitlines()[-1])
        return answer if isinstance(answer, dict) else {}
    return {}


def _plain(text: str) -> str:
    return UNPRINTABLE.sub(" ", text)[:_SHOWN]


def _end_of(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, _LONGEST, max(size - _LONGEST, 0)).decode(errors="replace")


def _limit_this_process(memory: int, parent: int) -> None:
    """Lower the priority as far as the system lets us, and limit memory and processor time."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    if os.getppid() != parent:
        sys.exit(FAILED)  # it died before it could be followed
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 19)
    with suppress(OSError):  # the kernel kills this process first when memory runs out
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT, CPU_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _limit_this_process(int(sys.argv[1]), int(sys.argv[2]))
    os.execv(sys.argv[3], sys.argv[3:])
