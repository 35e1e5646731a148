"""The supervisor's handle on its worker: start it, ask with a deadline, end it for certain.

Every reply of the worker is checked before it is used. The checksum of a frame proves that it
arrived as it was sent; `BundleIdentity` checks that its content can be right.
"""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import edge_runtime
from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.change import fault_of
from edge_runtime.detector.kernels import Kernel, kernel_words
from edge_runtime.detector.lasting_change import ChangePhase, LastingChange
from edge_runtime.diagnosis import KINDS
from edge_runtime.plain import UNPRINTABLE
from edge_runtime.record import Flag, Record, Sample
from edge_runtime.supervision import wire
from edge_runtime.supervision.policy import HangDetector, Work, cpu_seconds
from edge_runtime.supervision.wire import Hello
from edge_runtime.supervision.worker import ProgressPage

_SUPERVISORS = (
    Flag.LATE
    | Flag.GAP
    | Flag.RESTARTED
    | Flag.TIMING
    | Flag.CPU
    | Flag.RECURRING
    | Flag.MUTED
    | Flag.LEARNING
)
"""Flags that only the supervisor sets."""
_SHOWN = 12  # hex digits of a digest in a message
GRACE = 0.5
"""Seconds for a worker to end by itself, or to print its stack, before SIGKILL."""
_STDERR = 2
_CHUNK = 65536
_BACKLOG = 1 << 20  # bytes of requests that a worker may leave unread
_LAST_WORDS = 400  # characters of a worker's reason for its end that are logged


class WorkerGoneError(Exception):
    """The worker ended, closed its pipe or sent garbage; the text says which."""


@dataclass(frozen=True)
class BundleIdentity:
    """The bundle that the supervisor read and that its worker must load.

    digest: SHA-256 of the manifest. model: the model's hash in records. channels: their names.
    fault_of_change: why a lasting change cannot belong to the bundle, None when it can.
    """

    digest: str
    model: str
    channels: frozenset[str]
    fault_of_change: Callable[[LastingChange], str | None]

    @staticmethod
    def of(bundle: Bundle) -> BundleIdentity:
        """Return the identity of a bundle that was read and checked."""
        return BundleIdentity(
            bundle.digest,
            bundle.model_hash,
            frozenset(bundle.manifest.channel_names),
            partial(fault_of, source=bundle.manifest),
        )

    def fault_of_hello(self, hello: Hello) -> str | None:
        """Return why the worker that sent `hello` cannot be used, None when it can."""
        if hello.digest != self.digest:
            return (
                f"loaded another bundle than this run was started with (digest "
                f"{hello.digest[:_SHOWN]}, not {self.digest[:_SHOWN]}): its folder was replaced"
            )
        if hello.model != self.model:
            return f"names model {hello.model[:_SHOWN]}, not {self.model}"
        return None

    def fault_of_record(self, record: Record, time: float | None) -> str | None:
        """Return why `record` cannot answer a sample of that `time`, None when it can."""
        if record.time != time:
            return f"has the time {record.time} where the sample has {time}"
        if record.model != self.model:
            return f"names model {record.model[:_SHOWN]}, not {self.model}"
        if not self.channels.issuperset((*record.masked, *record.imputed, *record.blamed)):
            return "names a channel that the bundle does not have"
        return _fault_of_tier(record) or _fault_of_numbers(record) or _fault_of_diagnosis(record)


def _fault_of_tier(record: Record) -> str | None:
    """Check that tier, flags and validity agree."""
    if record.tier not in (1, 2, 3):
        return f"is of tier {record.tier}"
    if record.flags & _SUPERVISORS:
        return "has a flag that only the supervisor sets"
    if (record.tier == 3) != (Flag.FALLBACK in record.flags):
        return f"is of tier {record.tier}, which its flags contradict"
    if record.valid and record.flags & (Flag.FALLBACK | Flag.WARMUP):
        return "is valid, which its flags contradict"
    return None


def _fault_of_numbers(record: Record) -> str | None:
    for name, number in (("score", record.score), ("threshold", record.threshold)):
        if number is None or not math.isfinite(number):
            return f"has the {name} {number}"
    if record.probability is not None and not 0.0 <= record.probability <= 1.0:
        return f"has the probability {record.probability}"
    return None


def _fault_of_diagnosis(record: Record) -> str | None:
    parts = (record.kind, record.probability, record.sensor)
    if len({part is None for part in parts}) > 1:
        return "has a part of a diagnosis only"
    if record.kind is not None and record.kind not in KINDS:
        return "names an unknown kind of fault"
    return None


def worker_command(
    bundle: Path,
    allow_failed: bool = False,
    kernel: Kernel | None = None,
    trusted_keys: Sequence[Path] = (),
    debug: bool = False,
    thresholds: str | None = None,
) -> tuple[str, ...]:
    """Return the command line of the worker for a bundle.

    thresholds: this machine's own, as `edge_runtime.detector.thresholds.to_word` writes them; None
    lets the worker read them.
    """
    return (
        *(sys.executable, "-m", "edge_runtime.supervision.worker", "--bundle", str(bundle)),
        *kernel_words(kernel),
        *(["--allow-failed"] if allow_failed else []),
        *(["--debug"] if debug else []),
        *(word for key in trusted_keys for word in ("--trusted-key", str(key))),
        *([] if thresholds is None else ["--thresholds", thresholds]),
    )


class WorkerProcess:
    """One inference process at a time, behind two pipes.

    commands: what to run, the first until `fall_back` moves on to the next;
    `--request-fd N --reply-fd M --progress-fd L` are appended.
    identity: the bundle that it must load; every answer is checked against it.
    clock: monotonic seconds; measures the deadline while replies to older samples arrive.
    debug: let a worker print its stack before it is killed.
    columns: the readings of a sample that the bundle has, in its order; None for all as they are.
    change: the lasting change that a worker reported last; each that starts resumes from it.
    A timeout is in seconds, or `Work`, which waits for as long as the worker makes progress.
    Methods that send or receive raise WorkerGoneError when the worker is gone or sends something
    that cannot be right.
    """

    def __init__(
        self,
        *commands: Sequence[str],
        identity: BundleIdentity,
        clock: Callable[[], float] = time.monotonic,
        debug: bool = False,
        columns: Sequence[int] | None = None,
    ) -> None:
        self._columns = columns
        self._command, *self._fallbacks = (tuple(command) for command in commands)
        self.identity, self._clock, self._debug = identity, clock, debug
        self._process: subprocess.Popen[bytes] | None = None
        self._request_fd = self._reply_fd = -1
        self._replies = select.poll()
        self._frames = wire.FrameBuffer()
        self._unsent = bytearray()
        self._readable = False
        # Index and time of unanswered samples.
        self._owed: deque[tuple[int, float | None]] = deque()
        self._progress: ProgressPage | None = None
        self._leaving = False  # it sent its Failure and ends by itself
        self.hello: wire.Hello | None = None
        self.change: LastingChange | None = None

    @property
    def bundle(self) -> str:
        """Digest of the bundle that the worker must load."""
        return self.identity.digest

    @property
    def pid(self) -> int | None:
        """Process id of the running worker, None when there is none."""
        return self._process.pid if self._process else None

    @property
    def stage(self) -> str:
        """The stage that a running worker enters next; see Checkpoints."""
        assert self._progress is not None, "there is no worker"
        return self._progress.stage()

    def fall_back(self) -> bool:
        """Switch to the next command for good; return False when there is none."""
        if not self._fallbacks:
            return False
        self._command = self._fallbacks.pop(0)
        return True

    def start(self) -> None:
        """Start a new process; it answers after its HELLO. Raises WorkerGoneError if it cannot."""
        assert self._process is None, "the old worker must be ended first"
        self._frames, self._unsent, self.hello = wire.FrameBuffer(), bytearray(), None
        self._owed.clear()
        self._leaving = False
        theirs: list[int] = []
        try:
            reads, self._request_fd = os.pipe()
            theirs.append(reads)
            self._reply_fd, writes = os.pipe()
            theirs.append(writes)
            os.set_blocking(self._request_fd, False)  # a hung worker must not hang its supervisor
            self._replies = _poll(self._reply_fd, select.POLLIN)
            self._progress = ProgressPage()
            self._process = self._spawn(reads, writes, self._progress.fd)
        except OSError as error:  # out of memory, processes or file descriptors
            self._close_pipes()
            raise WorkerGoneError(f"could not be started: {error}") from error
        finally:
            for fd in theirs:
                os.close(fd)

    def _spawn(self, reads: int, writes: int, progress: int) -> subprocess.Popen[bytes]:
        fds = {"--request-fd": reads, "--reply-fd": writes, "--progress-fd": progress}
        words = (word for name, fd in fds.items() for word in (name, str(fd)))
        return subprocess.Popen(
            (*self._command, *words),
            stdin=subprocess.DEVNULL,
            stdout=_STDERR,  # libraries print, and stdout is for the records
            pass_fds=tuple(fds.values()),
            env=child_environment(),
        )

    def poll_ready(self, timeout: float | Work = 0.0) -> wire.Hello | None:
        """Return the HELLO if it arrives within `timeout`, else None."""
        if self.hello is not None:
            return self.hello
        for _ in self._looks(timeout):
            for message in self._receive():
                if not isinstance(message, wire.Hello) or self.hello is not None:
                    raise WorkerGoneError(f"sent {type(message).__name__} instead of its HELLO")
                if fault := self.identity.fault_of_hello(message):
                    raise WorkerGoneError(fault)
                self.hello = message
            if self.hello is not None:
                break
        return self.hello

    def answer(self, sample: Sample, timeout: float | Work) -> Record | None:
        """Return the record of `sample`, the last one sent; None when it does not come in time.

        A later call drops an answer that comes after that. A second answer to one sample raises
        WorkerGoneError.
        """
        for _ in self._looks(timeout):
            for record in self._answers():
                if record.index == sample.index:
                    return record
        return None

    def tell(self, sample: Sample) -> None:
        """Send `sample`; `answer` or `hear` returns its record."""
        self.send(sample.of(self._columns))
        time = sample.time  # NaN crosses the wire as None
        self._owed.append((sample.index, None if time is None or math.isnan(time) else time))

    def hear(self, timeout: float | Work) -> list[Record]:
        """Return the records that have come, oldest first; wait at most `timeout` for one."""
        for _ in self._looks(timeout):
            if records := list(self._answers()):
                return records
        return []

    def resume(self) -> None:
        """Let a worker that has just sent HELLO resume from the lasting change, if there is one."""
        if self.change is not None:
            self.send(self.change)

    def accept(self, yes: bool) -> None:
        """Pass the owner's word on a lasting change to this worker and to later ones."""
        if self.change is None or self.change.phase == ChangePhase.AS_RECORDED:
            return
        phase = ChangePhase.ACCEPTED if yes else ChangePhase.CHANGED
        self.change = replace(self.change, phase=int(phase))
        if self.hello is not None and self._process is not None:
            self.send(wire.Accept(yes))

    def send(self, message: wire.Message) -> None:
        """Send a request; what the pipe does not take yet is sent by later calls."""
        if self._process is None:
            raise WorkerGoneError("is not running")
        self._unsent += wire.encode(message)
        if len(self._unsent) > _BACKLOG:
            raise WorkerGoneError("does not read its requests")
        self._flush()

    def stop(self) -> None:
        """End the worker in good order if it reads its requests, by force if it does not."""
        if self._process is None:
            return
        with suppress(WorkerGoneError):
            self.send(wire.Stop())
        os.close(self._request_fd)
        self._request_fd = -1
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        self.kill()

    def kill(self) -> None:
        """End the worker now by SIGKILL; with `debug` it prints its stack before."""
        if self._process is None:
            return
        if self._leaving:  # no stack is needed: it said why
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE)
        for number in (signal.SIGABRT, signal.SIGKILL) if self._debug else (signal.SIGKILL,):
            self._process.send_signal(number)  # does nothing once it has ended
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE)
        self._process = None
        self._close_pipes()

    def _limit(self, timeout: float | Work) -> Callable[[], float]:
        """Return a function that gives the seconds left, 0 or less when the time is over."""
        if isinstance(timeout, Work):
            pid = self._process.pid if self._process else 0
            return HangDetector(pid, timeout, self._clock, cpu_seconds).left
        end = self._clock() + timeout
        return lambda: end - self._clock()

    def _looks(self, timeout: float | Work) -> Iterator[None]:
        """Yield whenever `_receive` may have something, until the time is over.

        Looks at least once. Bytes that do not complete a message do not extend the time.
        """
        left = self._limit(timeout)
        seconds = left()
        while True:
            if self._wait(seconds):
                yield
            if (seconds := left()) <= 0:
                return

    def _wait(self, timeout: float) -> bool:
        """Wait until requests can be sent or replies read; return False after `timeout`."""
        if self._process is None:
            raise WorkerGoneError("is not running")
        self._flush()
        ready = self._replies
        if self._unsent:
            ready = _poll(self._reply_fd, select.POLLIN)
            ready.register(self._request_fd, select.POLLOUT)
        events = ready.poll(1000 * max(timeout, 0.0))
        self._readable = any(fd == self._reply_fd for fd, _ in events)
        return bool(events)

    def _receive(self) -> Iterator[wire.Message]:
        if not self._readable:
            return
        self._readable = False
        try:
            data = os.read(self._reply_fd, _CHUNK)
        except OSError as error:
            raise WorkerGoneError(f"cannot be read: {error.strerror}") from error
        if not data:
            raise WorkerGoneError(self._how_it_ended())
        self._frames.feed(data)
        try:
            for message in self._frames.messages():
                if isinstance(message, wire.Failure):
                    self._leaving = True
                    text = UNPRINTABLE.sub(" ", message.text)[:_LAST_WORDS]
                    raise WorkerGoneError(f"failed: {text}")
                yield message
        except wire.WireError as error:
            raise WorkerGoneError(f"sent garbage: {error}") from error

    def _answers(self) -> Iterator[Record]:
        for message in self._receive():
            if isinstance(message, LastingChange):
                if fault := self.identity.fault_of_change(message):
                    raise WorkerGoneError(f"reported a lasting change that {fault}")
                self.change = message
                continue
            if not isinstance(message, Record):
                raise WorkerGoneError(f"sent a {type(message).__name__} instead of an answer")
            time = self._settle(message.index)
            if fault := self.identity.fault_of_record(message, time):
                raise WorkerGoneError(f"sent an answer to sample {message.index} that {fault}")
            yield message

    def _settle(self, index: int) -> float | None:
        """Return the time of the sample that is answered; drop it and older ones."""
        is_next = self._owed and self._owed[0][0] == index
        if not is_next and all(owed != index for owed, _ in self._owed):
            raise WorkerGoneError(f"sent an unexpected answer: sample {index}")
        while True:
            owed, time = self._owed.popleft()
            if owed == index:
                return time

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: os.write(self._request_fd, self._unsent)]
        except BlockingIOError:
            return  # the pipe is full; the rest is sent once the worker has read some
        except OSError:  # the worker is gone, or the system refuses
            # Its last message may still be in the pipe, and reading that gives the reason.
            self._unsent.clear()

    def _how_it_ended(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def _close_pipes(self) -> None:
        for fd in (self._request_fd, self._reply_fd):
            if fd >= 0:
                os.close(fd)
        self._request_fd = self._reply_fd = -1
        if self._progress is not None:
            self._progress.close()
            self._progress = None


def _poll(fd: int, events: int) -> select.poll:
    ready = select.poll()  # unlike select, it takes descriptors of any number
    ready.register(fd, events)
    return ready


def child_environment() -> dict[str, str]:
    """Return the environment for a child: one thread per library, this package importable."""
    package_root = str(Path(edge_runtime.__file__).resolve().parents[1])
    paths = [package_root, os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "OPENBLAS_NUM_THREADS": "1",  # each idle pool costs megabytes, and a GRU step needs none
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
