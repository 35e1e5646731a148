"""A server process that has imported what a job needs, and forks a process for each job.

To start Python and import numpy takes a tenth as long as to learn an asset. The server does that
once for all jobs of its worker. Each job still has a process of its own, with its own limits and
output, so a job that crashes or hangs ends only itself.

The worker writes a line with the folder of a job. The server answers with the pid of its process,
then with its exit code. Server and job end when the worker dies, since their stdin ends.
"""

import gc
import os
import select
import signal
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path

LOG = "log"  # in the folder of a job: what it prints
_ROOT = Path(__file__).resolve().parents[1]
_ANSWER = struct.Struct("<q")


class ForkServer:
    """Runs one job at a time. The server starts with the first one, and again if it died.

    module: `python -m` of it calls `serve`.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        # Unlike atexit, also at the end of a worker that multiprocessing has started.
        Finalize(self, self._end, exitpriority=0)

    def run(self, folder: Path, seconds: float) -> int | None:
        """Run the job in `folder` and return its exit code; None if it was killed for its time.

        What the job has left running is killed. seconds: wall clock.
        """
        server = self._process = self._process or self._started()
        assert server.stdin is not None
        try:
            server.stdin.write(bytes(folder).hex().encode() + b"\n")
            pid = _answer(server, None)
            assert pid is not None
            code = _answer(server, seconds)
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            if code is None:
                _answer(server, None)
        except (BrokenPipeError, EOFError):
            self._end()
            return -signal.SIGKILL
        except BaseException:  # its next answer would be of this job
            self._end()
            raise
        return code

    def _started(self) -> "subprocess.Popen[bytes]":
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}
        return subprocess.Popen(
            [sys.executable, "-m", self._module], bufsize=0, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env=environment, start_new_session=True,
        )  # fmt: skip

    def _end(self) -> None:
        """End the server and its job, and wait for it."""
        server, self._process = self._process, None
        if server is not None:
            assert server.stdin is not None and server.stdout is not None
            server.stdin.close()
            server.wait()
            server.stdout.close()


def serve(job: Callable[[Path], None]) -> None:
    """Run `job` in a process of its own for each folder on stdin, until stdin ends."""
    gc.freeze()  # a collection would copy the pages that all jobs share
    with suppress(BrokenPipeError):
        while line := sys.stdin.buffer.readline():
            pid = os.fork()
            if not pid:
                _child(job, Path(os.fsdecode(bytes.fromhex(line.decode()))))
            with suppress(OSError):  # it did that itself
                os.setpgid(pid, pid)
            os.write(1, _ANSWER.pack(pid))
            _, status = os.waitpid(pid, 0)
            os.write(1, _ANSWER.pack(os.waitstatus_to_exitcode(status)))


def _child(job: Callable[[Path], None], folder: Path) -> None:
    """Run `job` and end this process."""
    code = 1
    try:
        os.setpgid(0, 0)
        with (folder / LOG).open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        job(folder)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _answer(server: "subprocess.Popen[bytes]", seconds: float | None) -> int | None:
    """Return the next answer, None if there is none within `seconds`. Raises EOFError."""
    assert server.stdout is not None
    if not select.select([server.stdout], [], [], seconds)[0]:
        return None
    answer = server.stdout.read(_ANSWER.size) or b""
    if len(answer) < _ANSWER.size:
        raise EOFError
    number: int = _ANSWER.unpack(answer)[0]
    return number
