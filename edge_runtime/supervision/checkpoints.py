"""The order in which a sample must be worked on: checked as it goes, and visible from outside.

Alive and deadline supervision would let a worker pass that answers in time without having asked its
model. The stage is kept in memory shared with the supervisor, so that a hang can be placed.
"""

import mmap
import os
import sys
import tempfile

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


class Progress:
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
