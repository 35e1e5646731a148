"""The self-test of a detector: all at once before it serves, and in parts while it does.

Memory may fail while a model is in service, so the golden vectors are replayed again and again
beside the samples, a few steps with each, and the weights' checksum is watched.
"""

import zlib
from collections.abc import Iterator
from itertools import islice

from edge_runtime.bundle.manifest import OLDER
from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.golden import (
    Play,
    before_missing,
    differences,
    read_golden,
    too_far_apart,
)
from edge_runtime.errors import GruardError

PART = 4  # steps of the self-test with each sample that the model is distrusted for
WATCH_EVERY = 16  # samples from one look at a trusted model to the next


class SelfTest:
    """Replays the golden vectors of `bundle` through `play`.

    weights: what the kernel reads, in the very place where it reads them. exact: every bit must be
    as validated; a kernel that is not the reference may be apart by a small tolerance. All methods
    raise GruardError when something differs.
    """

    def __init__(self, bundle: Bundle, play: Play, weights: bytes, exact: bool) -> None:
        self._bundle, self._play, self._weights, self._exact = bundle, play, weights, exact
        self._checksum = zlib.crc32(weights)
        self._rest: Iterator[str] | None = None
        self._samples = 0
        self._proven = False  # by a whole self-test since the model was distrusted

    def run(self) -> None:
        """All of it."""
        for difference in self._differences():
            self._refuse(difference)

    def go_on(self, distrusted: bool, still: bool) -> None:
        """After a sample, before which the model was `distrusted`, and after which it `still` is.

        All of it is done once by the time that the model is trusted again.
        """
        self._samples += 1
        if still and not distrusted:
            self._proven, self._rest = False, None
        if distrusted and not self._proven:
            self._proven = self._test_a_part(PART, finish=not still)
        elif self._samples % WATCH_EVERY == 0:
            self._check_weights()
            self._test_a_part(1)

    def _check_weights(self) -> None:
        if zlib.crc32(self._weights) != self._checksum:
            raise GruardError(f"{self._bundle.path}: its weights changed in memory")

    def _test_a_part(self, steps: int, finish: bool = False) -> bool:
        """A few steps of the self-test: all of them at once would miss the sample's deadline.

        True when it has come to its end.
        """
        if self._rest is None:
            self._rest = self._differences()
        tested = 0
        for difference in self._rest if finish else islice(self._rest, steps):
            self._refuse(difference)
            tested += 1
        ended = finish or tested < steps
        if ended:
            self._rest = None
        return ended

    def _differences(self) -> Iterator[str]:
        arrays = self._bundle.arrays("golden.npz")
        try:
            golden = read_golden(arrays, self._play, len(self._bundle.manifest.channels))
            if self._bundle.manifest.schema <= OLDER:
                golden = before_missing(golden)
        except ValueError as error:
            raise GruardError(
                f"{self._bundle.path}: golden vectors do not fit the model: {error}"
            ) from None
        return (differences if self._exact else too_far_apart)(self._play, golden)

    def _refuse(self, difference: str) -> None:
        if difference:
            raise GruardError(
                f"{self._bundle.path}: self-test failed at {difference}; this machine does not "
                "compute what was validated"
            )
