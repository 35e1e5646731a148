"""Run one gruard command to its end: output, cost, and processes that it left running."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from benchmarks.runtime import children, kilobytes
from tests.campaign.fault import Json, NotHeldError, expect
from tests.campaign.lab import ROOT

LIMIT = 120.0
"""Seconds after which a command counts as a hang; three restarts that do not load take 66."""
LOOK_EVERY = 0.05
"""Seconds between two reads of the memory use."""
FAREWELL = 20.0
"""Seconds within which a worker that lost its supervisor while loading must end."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    code: exit code, minus the signal, or None when it had to be killed after its limit.
    left_over: whether a process of it was still there FAREWELL seconds later.
    cpu: seconds of all its processes. peak: bytes of resident memory, of the largest of them.
    """

    code: int | None
    stdout: bytes
    stderr: str
    left_over: bool = False
    cpu: float = 0.0
    peak: int = 0


def run_command(
    words: Sequence[str],
    environment: Mapping[str, str] = os.environ,
    stdin: bytes = b"",
    limit: float = LIMIT,
) -> Ended:
    """Run `gruard WORDS`, with `stdin` through a pipe."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_runtime", *words],
            cwd=ROOT, env={**environment, "PYTHONPATH": str(ROOT)}, start_new_session=True,
            stdin=subprocess.PIPE, stdout=out, stderr=err,
        )  # fmt: skip
        assert process.stdin
        feeder = threading.Thread(target=_feed, args=(process.stdin, stdin), daemon=True)
        feeder.start()
        in_time, peak = _watched(process.pid, limit)
        if not in_time:
            os.killpg(process.pid, signal.SIGKILL)
        _, status, used = os.wait4(process.pid, 0)
        code = process.returncode = os.waitstatus_to_exitcode(status)
        left_over = not _gone(process.pid)
        feeder.join()
        out.seek(0)
        err.seek(0)
        said = out.read(), err.read().decode(errors="replace")
    cpu = used.ru_utime + used.ru_stime
    return Ended(code if in_time else None, *said, left_over, cpu, peak)


def _feed(pipe: IO[bytes], data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), pipe:
        pipe.write(data)


def _watched(pid: int, limit: float) -> tuple[bool, int]:
    """Return whether a process ends within `limit` seconds, and its or a child's peak memory.

    The peak of wait4 would include the memory of this process, from which it was forked.
    """
    handle, peak, end = os.pidfd_open(pid), 0, time.monotonic() + limit
    try:
        while not (ended := bool(select.select([handle], [], [], LOOK_EVERY)[0])):
            peak = max(peak, _high_water(pid))
            if time.monotonic() > end:
                break
    finally:
        os.close(handle)
    return ended, peak


def _high_water(pid: int) -> int:
    """Return the largest resident memory, in bytes, of a process and its children."""
    return 1024 * max(kilobytes(each, "status", "VmHWM") for each in (pid, *children(pid)))


def _gone(group: int) -> bool:
    """Return whether all processes of a group end within FAREWELL seconds; kill the others."""
    end = time.monotonic() + FAREWELL
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    return False


MOST_REPEATED = 5
"""A command may print the same line this often; every message has a bounded rate."""
FRIGHTENING = ("Traceback", "Exception ignored", "Fatal Python error")


def check_manners(
    ended: Ended, codes: Sequence[int] = (0, 1, 2), words: Sequence[str] = FRIGHTENING
) -> None:
    """Check that a command ended with a known exit code, printed none of `words` and no line too
    often, and left no process running.
    """
    expect(ended.code is not None, "it hangs")
    expect(ended.code in codes, f"exit code {ended.code}: {_last_line(ended.stderr)}")
    for word in words:
        expect(word not in ended.stderr, f"{word}: {_last_line(ended.stderr)}")
    for line, times in Counter(ended.stderr.splitlines()).most_common(1):
        expect(times <= MOST_REPEATED, f"says {times} times: {line[:150]}")
    expect(not ended.left_over, "a process is left")


def summary_of(ended: Ended) -> Json | None:
    """Return the summary that `--json` wrote to stderr, or None."""
    lines = [line for line in ended.stderr.splitlines() if line.startswith("{")]
    return strict_json(lines[-1].encode()) if lines else None


def records_of(text: bytes) -> list[Json]:
    """Parse the records of a sink. NotHeldError for an incomplete line, or no strict JSON."""
    expect(not text or text.endswith(b"\n"), f"the last line is cut: {text[-60:]!r}")
    return [strict_json(line) for line in text.splitlines()]


def strict_json(line: bytes) -> Json:
    """Parse one object of strict JSON. NotHeldError for anything else, including NaN."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        found = json.loads(line, parse_constant=refuse)
    except ValueError as error:
        raise NotHeldError(f"not strict JSON ({error}): {line[:80]!r}") from None
    expect(isinstance(found, dict), f"not an object: {line[:80]!r}")
    return dict(found)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:150]
