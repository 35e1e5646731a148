"""The supervisor's handle on its inference process: start, ask with a deadline, end for certain.

Check what a worker says before it is used: the worker is trusted as little as a stranger.

A checksum tells that a frame arrived as it was sent. These checks tell whether it can be true.
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
from edge_runtime.supervision.policy import HangWatch, Work, cpu_seconds
from edge_runtime.supervision.wire import Hello
from edge_runtime.supervision.worker import ProgressPage

_SUPERVISORS = Flag.LATE | Flag.GAP | Flag.RESTARTED | Flag.TIMING | Flag.CPU | Flag.RECURRING
"""Flags that only the supervisor sets."""
_SHOWN = 12  # hex digits of a digest in a message


@dataclass(frozen=True)
class BundleIdentity:
    """The bundle that the supervisor read, and that its worker has to load.

    digest: SHA-256 of the manifest. model: the model's hash in records. channels: their names.
    fault_of_change: why no worker of the bundle can have left a lasting change, None when one can.
    """

    digest: str
    model: str
    channels: frozenset[str]
    fault_of_change: Callable[[LastingChange], str | None]

    @staticmethod
    def of(bundle: Bundle) -> BundleIdentity:
        """The identity of a bundle that was read and checked."""
        return BundleIdentity(
            bundle.digest,
            bundle.model_hash,
            frozenset(bundle.manifest.channel_names),
            partial(fault_of, source=bundle.manifest),
        )

    def fault_of_hello(self, hello: Hello) -> str | None:
        """Why a worker that says `hello` cannot be used, None when it can."""
        if hello.digest != self.digest:
            return (
                f"loaded another bundle than this run was started with (digest "
                f"{hello.digest[:_SHOWN]}, not {self.digest[:_SHOWN]}): its folder was exchanged"
            )
        if hello.model != self.model:
            return f"names model {hello.model[:_SHOWN]}, not {self.model}"
        return None

    def fault_of_record(self, record: Record, time: float | None) -> str | None:
        """Why `record` cannot be the answer to a sample of that `time`, None when it can."""
        if record.time != time:
            return f"has the time {record.time} where the sample has {time}"
        if record.model != self.model:
            return f"names model {record.model[:_SHOWN]}, not {self.model}"
        return _fault_of_standing(record) or _fault_of_numbers(record) or self._fault_of(record)

    def _fault_of(self, record: Record) -> str | None:
        """The names of channels and of the fault, and what goes with the latter."""
        for names in (record.masked, record.imputed, record.blamed):
            if not self.channels.issuperset(names):
                return "names a channel that the bundle does not have"
        diagnosed = record.kind is not None
        if diagnosed != (record.probability is not None) or diagnosed != (
            record.sensor is not None
        ):
            return "has a part of a diagnosis only"
        if diagnosed and record.kind not in KINDS:
            return "names an unknown kind of fault"
        return None


def _fault_of_standing(record: Record) -> str | None:
    """Tier, flags and validity have to agree."""
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


GRACE = 0.5
"""Seconds a worker has to end by itself, or to print its stack, before SIGKILL."""

_STDERR = 2
_CHUNK = 65536
_BACKLOG = 1 << 20  # bytes of requests a worker may leave unread
_LAST_WORDS = 400  # characters of a worker's reason for its end that go into the log


class WorkerGoneError(Exception):
    """The worker ended, closed its pipe or talks garbage; its text says which."""


def worker_command(
    bundle: Path,
    allow_failed: bool = False,
    kernel: Kernel | None = None,
    trusted_keys: Sequence[Path] = (),
    debug: bool = False,
    thresholds: str | None = None,
) -> tuple[str, ...]:
    """The command line of the real worker for a bundle.

    thresholds: this machine's own, as `edge_runtime.detector.thresholds.to_word` writes them; None
    lets the worker read them.
    """
    command = [sys.executable, "-m", "edge_runtime.supervision.worker", "--bundle", str(bundle)]
    command += kernel_words(kernel)
    command += ["--allow-failed"] if allow_failed else []
    command += ["--debug"] if debug else []
    command += [word for key in trusted_keys for word in ("--trusted-key", str(key))]
    command += [] if thresholds is None else ["--thresholds", thresholds]
    return tuple(command)


class WorkerProcess:
    """One inference process at a time, behind two pipes.

    commands: what to run, the first until `fall_back` moves on to the next;
    `--request-fd N --reply-fd M --progress-fd L` are appended.
    identity: the bundle that it has to load; every answer is checked against it.
    clock: monotonic seconds; measures the deadline while replies to older samples arrive.
    debug: let a worker that has to be ended print its stack first.
    change: where the machine stands, as a worker told last; each that starts goes on from there.
    A timeout is in seconds, or `Work`, which waits for as long as the worker makes progress.
    Every method that talks raises WorkerGoneError when there is nobody to talk to, or when what
    the worker says cannot be true.
    """

    def __init__(
        self,
        *commands: Sequence[str],
        identity: BundleIdentity,
        clock: Callable[[], float] = time.monotonic,
        debug: bool = False,
    ) -> None:
        self._command, *self._fallbacks = (tuple(command) for command in commands)
        self._identity, self._clock, self._debug = identity, clock, debug
        self._process: subprocess.Popen[bytes] | None = None
        self._request_fd = self._reply_fd = -1
        self._frames = wire.FrameBuffer()
        self._unsent = bytearray()
        self._readable = False
        self._owed: deque[tuple[int, float | None]] = (
            deque()
        )  # index and time of unanswered samples
        self._progress: ProgressPage | None = None
        self._leaving = False  # it said why it cannot go on, and ends by itself
        self.hello: wire.Hello | None = None
        self.change: LastingChange | None = None

    @property
    def bundle(self) -> str:
        """Digest of the bundle that the worker has to load."""
        return self._identity.digest

    @property
    def pid(self) -> int | None:
        """Process id of the running worker, None when there is none."""
        return self._process.pid if self._process else None

    @property
    def stage(self) -> str:
        """The stage of its work that a running worker has not reached; see Checkpoints."""
        assert self._progress is not None, "there is no worker"
        return self._progress.stage()

    def fault_of_change(self, change: LastingChange) -> str | None:
        """Why no worker of the bundle can have left `change`, None when one can."""
        return self._identity.fault_of_change(change)

    def fall_back(self) -> bool:
        """Run the next command from now on, for good; False when there is none."""
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
            self._progress = ProgressPage()
            self._process = self._spawn(reads, writes, self._progress.fd)
        except OSError as error:  # no memory, no process, no file descriptor is left
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
            stdout=_STDERR,  # libraries print; stdout belongs to the records
            pass_fds=tuple(fds.values()),
            env=child_environment(),
        )

    def poll_ready(self, timeout: float | Work = 0.0) -> wire.Hello | None:
        """The HELLO if it has arrived within `timeout`, else None."""
        if self.hello is not None:
            return self.hello
        for _ in self._looks(timeout):
            for message in self._receive():
                if not isinstance(message, wire.Hello) or self.hello is not None:
                    raise WorkerGoneError(f"sent {type(message).__name__} instead of its HELLO")
                if fault := self._identity.fault_of_hello(message):
                    raise WorkerGoneError(fault)
                self.hello = message
            if self.hello is not None:
                break
        return self.hello

    def answer(self, sample: Sample, timeout: float | Work) -> Record | None:
        """The record of `sample`, the last that was told; None when it does not come in time.

        An answer that comes after that is thrown away by a later call. A second answer to one
        sample is as wrong as none: WorkerGoneError.
        """
        for _ in self._looks(timeout):
            for record in self._answers():
                if record.index == sample.index:
                    return record
        return None

    def tell(self, sample: Sample) -> None:
        """Ask for the record of `sample`, and leave it to `answer` or `hear`."""
        self._queue(sample)
        self._owed.append((sample.index, _known(sample.time)))
        self._flush()

    def hear(self, timeout: float | Work) -> list[Record]:
        """The records that have come, oldest first; waits for one at most `timeout`."""
        for _ in self._looks(timeout):
            if records := list(self._answers()):
                return records
        return []

    def resume(self) -> None:
        """Let a worker that has just said HELLO go on from where the machine stands."""
        if self.change is not None:
            self._queue(self.change)
            self._flush()

    def accept(self, yes: bool) -> None:
        """Pass on the owner's word on a lasting change, also to workers that start later."""
        if self.change is None or self.change.phase == ChangePhase.AS_RECORDED:
            return
        phase = ChangePhase.ACCEPTED if yes else ChangePhase.CHANGED
        self.change = replace(self.change, phase=int(phase))
        if self.hello is not None and self._process is not None:
            self._queue(wire.Accept(yes))
            self._flush()

    def send(self, message: wire.Reset | wire.Inject) -> None:
        """Send a request that has no answer."""
        self._queue(message)
        self._flush()

    def stop(self) -> None:
        """End the worker in good order if it listens, by force if it does not."""
        if self._process is None:
            return
        with suppress(WorkerGoneError):
            self._queue(wire.Stop())
            self._flush()
        os.close(self._request_fd)
        self._request_fd = -1
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        self.kill()

    def kill(self) -> None:
        """End the worker now by SIGKILL; with `debug` it prints its stack before."""
        if self._process is None:
            return
        if self._leaving:  # its stack would tell nothing
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE)
        for number in (signal.SIGABRT, signal.SIGKILL) if self._debug else (signal.SIGKILL,):
            self._process.send_signal(number)  # does nothing once it has ended
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE)
        self._process = None
        self._close_pipes()

    def _limit(self, timeout: float | Work) -> Callable[[], float]:
        """Tells how many seconds are left; none or less when time is over."""
        if isinstance(timeout, Work):
            pid = self._process.pid if self._process else 0
            return HangWatch(pid, timeout, self._clock, cpu_seconds).left
        end = self._clock() + timeout
        return lambda: end - self._clock()

    def _looks(self, timeout: float | Work) -> Iterator[None]:
        """One item whenever `_receive` may have something, until time is over.

        Looks at least once. Bytes that come without making a message do not prolong the time.
        """
        left = self._limit(timeout)
        seconds = left()
        while True:
            if self._wait(seconds):
                yield
            if (seconds := left()) <= 0:
                return

    def _wait(self, timeout: float) -> bool:
        """Send what is queued, or see that `_receive` has something; False after `timeout`."""
        if self._process is None:
            raise WorkerGoneError("is not running")
        self._flush()
        ready = select.poll()  # unlike select, it takes descriptors of any number
        ready.register(self._reply_fd, select.POLLIN)
        if self._unsent:
            ready.register(self._request_fd, select.POLLOUT)
        events = dict(ready.poll(1000 * max(timeout, 0.0)))
        self._readable = self._reply_fd in events
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
            raise WorkerGoneError(self._obituary())
        self._frames.feed(data)
        try:
            for message in self._frames.messages():
                if isinstance(message, wire.Failure):
                    self._leaving = True
                    raise WorkerGoneError(f"failed: {_one_line(message.text)}")
                yield message
        except wire.WireError as error:
            raise WorkerGoneError(f"talks garbage: {error}") from error

    def _answers(self) -> Iterator[Record]:
        for message in self._receive():
            if isinstance(message, LastingChange):
                if fault := self._identity.fault_of_change(message):
                    raise WorkerGoneError(f"told of a lasting change that {fault}")
                self.change = message
                continue
            if not isinstance(message, Record):
                raise WorkerGoneError(f"sent a {type(message).__name__} instead of an answer")
            time = self._settle(message.index)
            if fault := self._identity.fault_of_record(message, time):
                raise WorkerGoneError(f"sent an answer to sample {message.index} that {fault}")
            yield message

    def _settle(self, index: int) -> float | None:
        """The time of the sample that is answered; those before it will not be any more."""
        if not any(owed == index for owed, _ in self._owed):
            raise WorkerGoneError(f"sent an answer nobody asked for: sample {index}")
        while True:
            owed, time = self._owed.popleft()
            if owed == index:
                return time

    def _queue(self, message: wire.Message) -> None:
        if self._process is None:
            raise WorkerGoneError("is not running")
        self._unsent += wire.encode(message)
        if len(self._unsent) > _BACKLOG:
            raise WorkerGoneError("does not read its requests")

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: os.write(self._request_fd, self._unsent)]
        except BlockingIOError:
            return  # the pipe is full; the rest goes when the worker has read some
        except OSError:  # it is gone, or the system refuses
            # Its last words may still be in the pipe, and reading them tells more.
            self._unsent.clear()

    def _obituary(self) -> str:
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


def _known(time: float | None) -> float | None:
    """The time of a sample as the wire carries it."""
    return None if time is None or math.isnan(time) else time


def _one_line(text: str) -> str:
    return UNPRINTABLE.sub(" ", text)[:_LAST_WORDS]


def child_environment() -> dict[str, str]:
    """This process's environment, with one thread per library and this package importable."""
    package_root = str(Path(edge_runtime.__file__).resolve().parents[1])
    paths = [package_root, os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "OPENBLAS_NUM_THREADS": "1",  # each idle pool costs megabytes, and a GRU step needs none
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
