"""The inference process: samples come in over a pipe, one record each goes out.

It is a process of its own so that a hang or a crash in native code costs a restart, not the
output. Run by the supervisor as `python -m edge_runtime.supervision.worker`.

The order in which a sample must be worked on: checked as it goes, and visible from outside.

Alive and deadline supervision would let a worker pass that answers in time without having asked its
model. The stage is kept in memory shared with the supervisor, so that a hang can be placed.
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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

from edge_runtime.detector.kernels import add_kernel_arguments, chosen_kernel
from edge_runtime.detector.lasting_change import Changing, LastingChange
from edge_runtime.errors import GruardError
from edge_runtime.record import Record, Sample
from edge_runtime.supervision import wire

if TYPE_CHECKING:  # imported in `_load`, so that an import that fails is reported, too
    from edge_runtime.bundle.reader import Bundle
    from edge_runtime.detector.detector import StepDetector


STAGES = ("read", "mask", "invoke", "check", "emit")


class CheckpointError(Exception):
    """A stage was left out, or came twice."""


class Checkpoints:
    """Stages of the sample at hand, in a page of shared memory."""

    def __init__(self, fd: int) -> None:
        self._page = mmap.mmap(fd, mmap.PAGESIZE)
        self._page[0] = 0  # the stage that is due, from 0

    def reach(self, stage: str) -> None:
        """Go on to `stage`. Raises CheckpointError when another one is due; emit is the last."""
        due = STAGES[self._page[0]]
        if stage != due:
            raise CheckpointError(f"came to {stage}, but {due} was due")
        self._page[0] = (self._page[0] + 1) % len(STAGES)


class ProgressPage:
    """The supervisor's view of the same page. `fd` is for the worker to inherit."""

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
        """What the worker was about to reach when it was last seen."""
        return STAGES[self._page[0] % len(STAGES)]

    def close(self) -> None:
        """Give the page back."""
        self._page.close()
        os.close(self.fd)


EXIT_FAILED = 3
"""The worker could not load or run the model; its last reply said why."""

TELL_EVERY = 100
"""Samples between two words about where the machine stands, where nothing has happened to that."""

_PR_SET_PDEATHSIG = 1


class Stepper(Changing, Protocol):
    """The part of a detector that the worker needs once it is loaded."""

    def step(self, sample: Sample, reach: Callable[[str], None]) -> Record:
        """The record of one sample; `reach` is told of each stage of the work."""

    def reset(self) -> None:
        """Forget the recurrent state."""


class ChangeNews:
    """When the supervisor is to hear where the machine stands: the same samples each time."""

    def __init__(self, detector: Stepper) -> None:
        self._detector = detector
        self._phase = detector.change_phase
        self._left = TELL_EVERY

    def after_step(self) -> LastingChange | None:
        """What it is to hear now; to be called after each step."""
        phase, before = self._detector.change_phase, self._phase
        if phase is None:
            return None
        self._left -= 1
        if phase is before and self._left:
            return None
        self._phase, self._left = phase, TELL_EVERY
        return self._detector.lasting_change


def main(arguments: list[str] | None = None) -> int:
    """Load the bundle, prove it by its golden vectors, then answer until the pipe closes."""
    started = time.monotonic()
    options = _parser().parse_args(arguments)
    become_worker(options.debug)
    try:
        detector, bundle = _load(options)
        checkpoints = Checkpoints(options.progress_fd)
        seconds = time.monotonic() - started
        hello = wire.Hello(detector.kernel_id, seconds, bundle.digest, bundle.model_hash)
        wire.send(options.reply_fd, hello)
        return serve(detector, options.request_fd, options.reply_fd, checkpoints)
    except BrokenPipeError:
        return 0  # the supervisor is gone, so nobody needs an answer
    except Exception as error:
        # This is the end of the process: whatever it was, the supervisor must learn of it.
        told = str(error) if isinstance(error, GruardError) else f"{type(error).__name__}: {error}"
        with suppress(OSError):  # where not even that can be said, its end says enough
            wire.send(options.reply_fd, wire.Failure(told))
        return EXIT_FAILED


def become_worker(debug: bool = False) -> None:
    """Set this process up so that only its supervisor decides when it ends.

    debug: print the stack to stderr when a signal such as SIGABRT ends it.
    """
    if debug:
        faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C and systemd's SIGTERM reach the whole
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # group; the supervisor stops us in good order
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # and so does the SIGHUP of a closed terminal
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no core dumps on an SD card
    # A hung worker cannot notice that its pipe closed, so the kernel has to end it.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(detector: Stepper, request_fd: int, reply_fd: int, checkpoints: Checkpoints) -> int:
    """Answer requests until STOP or the end of the pipe; the exit code.

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
                    # Whatever the interpreter raises, the state behind it can't be trusted now.
                    reason = f"sample {message.index}: {type(error).__name__}: {error}"
                    wire.send(reply_fd, wire.Failure(reason))
                    return EXIT_FAILED
                if change := news.after_step():  # before the record, or it may never be read
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
    while True:  # a real hang, as a wedged driver or a dead-locked library would be
        pass


def _load(options: argparse.Namespace) -> "tuple[StepDetector, Bundle]":
    from edge_runtime.bundle.reader import read_bundle
    from edge_runtime.detector.thresholds import with_word
    from edge_runtime.native.engine import open_detector

    bundle = read_bundle(options.bundle, options.allow_failed, options.trusted_key, whole=False)
    if options.thresholds is not None:
        bundle = with_word(bundle, options.thresholds)
    detector = open_detector(bundle, chosen_kernel(options))
    detector.self_test()
    return detector, bundle


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
