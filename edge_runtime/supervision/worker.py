"""The worker (inference process): samples come in over a pipe, one record each goes out.

It is a separate process, so that a hang or a crash in native code costs a restart and no record.
The supervisor runs it as `python -m edge_runtime.supervision.worker`.

`Checkpoints` verifies that each sample passes all stages in order: deadlines alone would accept a
worker that answers in time without running its model. The stage is kept in memory shared with the
supervisor (`ProgressPage`), so that the log can say where a worker hangs.
"""

import argparse
import ctypes
import faulthandler
import mmap
import os
import resource
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from edge_runtime.detector.kernels import add_kernel_arguments, chosen_kernel
from edge_runtime.detector.lasting_change import Changing, LastingChange
from edge_runtime.errors import described
from edge_runtime.record import Sample
from edge_runtime.supervision import wire

if TYPE_CHECKING:  # imported in `_load`, so that a failing import is reported, too
    from edge_runtime.bundle.reader import Bundle
    from edge_runtime.detector.detector import StepDetector

STAGES = ("read", "mask", "invoke", "check", "emit")
EXIT_FAILED = 3
"""The worker could not load or run the model; its last reply said why."""
TELL_EVERY = 100
"""Samples between two reports of the lasting change while its phase stays the same."""
_PR_SET_PDEATHSIG = 1


class CheckpointError(Exception):
    """A stage was skipped or repeated."""


class Checkpoints:
    """The stages of the current sample, in a page of shared memory."""

    def __init__(self, fd: int) -> None:
        self._page = mmap.mmap(fd, mmap.PAGESIZE)
        self._page[0] = 0  # the stage that is due, from 0

    def reach(self, stage: str) -> None:
        """Enter `stage`. Raises CheckpointError when another one is due; emit is the last."""
        due = STAGES[self._page[0]]
        if stage != due:
            raise CheckpointError(f"came to {stage}, but {due} was due")
        self._page[0] = (self._page[0] + 1) % len(STAGES)


class ProgressPage:
    """The supervisor's view of the same page. The worker inherits `fd`."""

    def __init__(self) -> None:
        if sys.platform == "linux":
            self.fd = os.memfd_create("gruard-progress")
        else:
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        try:
            os.ftruncate(self.fd, mmap.PAGESIZE)
            self._page = mmap.mmap(self.fd, mmap.PAGESIZE)
        except OSError:
            os.close(self.fd)
            raise

    def stage(self) -> str:
        """Return the stage that the worker enters next."""
        return STAGES[self._page[0] % len(STAGES)]

    def close(self) -> None:
        """Release the page."""
        self._page.close()
        os.close(self.fd)


class ChangeNews:
    """Decides, by the samples alone, when to report the lasting change to the supervisor."""

    def __init__(self, detector: Changing) -> None:
        self._detector = detector
        self._phase = detector.change_phase
        self._left = TELL_EVERY

    def after_step(self) -> LastingChange | None:
        """Return what to report now, if anything; to be called after each step."""
        phase, before = self._detector.change_phase, self._phase
        if phase is None:
            return None
        self._left -= 1
        if phase is before and self._left:
            return None
        self._phase, self._left = phase, TELL_EVERY
        return self._detector.lasting_change


def main(arguments: list[str] | None = None) -> int:
    """Load the bundle, check it against its golden vectors, answer until the pipe closes."""
    started = time.monotonic()
    options = _parser().parse_args(arguments)
    become_worker(options.debug)
    try:
        detector, bundle, refusal = _load(options)
        checkpoints = Checkpoints(options.progress_fd)
        seconds = time.monotonic() - started
        hello = wire.Hello(detector.kernel_id, seconds, bundle.digest, bundle.model_hash, refusal)
        wire.send(options.reply_fd, hello)
        return serve(detector, options.request_fd, options.reply_fd, checkpoints)
    except BrokenPipeError:
        return 0  # the supervisor is gone
    except Exception as error:
        # The process ends here, so the supervisor must get the reason of any error.
        with suppress(OSError):
            wire.send(options.reply_fd, wire.Failure(described(error)))
        return EXIT_FAILED


def become_worker(debug: bool = False) -> None:
    """Set this process up so that only its supervisor decides when it ends.

    debug: print the stack to stderr when a signal such as SIGABRT ends it.
    """
    if debug:
        faulthandler.enable()
    # Ctrl-C, systemd's SIGTERM and the SIGHUP of a closed terminal reach the whole process group;
    # the supervisor then stops the worker in good order.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no core dumps on an SD card
    # A hung worker does not notice that its pipe closed, so the kernel has to end it.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(
    detector: "StepDetector", request_fd: int, reply_fd: int, checkpoints: Checkpoints
) -> int:
    """Answer requests until STOP or the end of the pipe; return the exit code.

    Raises BrokenPipeError when the supervisor is gone and WireError on garbage.
    """
    news = ChangeNews(detector)
    for message in wire.receive(request_fd):
        match message:
            case Sample():
                try:
                    checkpoints.reach("read")
                    record = detector.step(message, checkpoints.reach)
                    checkpoints.reach("emit")
                except Exception as error:
                    # After any exception of the interpreter, its state cannot be trusted.
                    reason = f"sample {message.index}: {type(error).__name__}: {error}"
                    wire.send(reply_fd, wire.Failure(reason))
                    return EXIT_FAILED
                if change := news.after_step():  # before the record, after which no read may follow
                    wire.send(reply_fd, change)
                wire.send(reply_fd, record)
            case wire.Reset():
                detector.reset()
            case LastingChange():
                detector.resume(message)
            case wire.Accept(yes):
                detector.accept(yes)
            case wire.Inject(kind):
                _break_down(kind)
            case wire.Stop():
                return 0
            case _:
                raise wire.WireError(f"{type(message).__name__} is not a request")
    return 0


def _break_down(kind: wire.Fault) -> NoReturn:
    if kind == "crash":
        os.abort()
    while True:  # a real hang, like that of a stuck driver or library
        pass


def _load(options: argparse.Namespace) -> "tuple[StepDetector, Bundle, str]":
    """Return detector and bundle, and why the default kernel does not run it."""
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.detector.thresholds import with_word
    from edge_runtime.native.engine import open_detector

    bundle = read_bundle(options.bundle, options.allow_failed, options.trusted_key, whole=False)
    if options.thresholds is not None:
        bundle = with_word(bundle, options.thresholds)
    said: list[str] = []
    detector = open_detector(bundle, chosen_kernel(options), say=said.append)
    detector.self_test()
    return detector, bundle, "".join(said)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edge_runtime.supervision.worker", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--allow-failed", action="store_true")
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--trusted-key", type=Path, action="append", default=[])
    parser.add_argument("--thresholds")
    add_kernel_arguments(parser)
    parser.add_argument("--request-fd", type=int, required=True)
    parser.add_argument("--reply-fd", type=int, required=True)
    parser.add_argument("--progress-fd", type=int, required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
