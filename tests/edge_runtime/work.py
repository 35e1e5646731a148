"""How the work of a function grows with its input, in processor time of this thread alone."""

import time
from collections.abc import Callable

_LINEAR, _QUADRATIC = 4.0, 16.0
MOST = 9.0
"""More growth than this, for four times the input, is not linear; the noise has a factor of 2."""


def growth(prepare: Callable[[int], Callable[[], object]], size: int) -> float:
    """Return how many times longer `prepare(4 * size)()` takes than `prepare(size)()`.

    The least of several runs counts, for nothing but noise makes one longer. `size` should make
    some milliseconds of linear work.
    """
    small = big = float("inf")
    for _ in range(5):
        small = min(small, _seconds(prepare(size)))
        big = min(big, _seconds(prepare(4 * size)))
        if big / small < 1.5 * _LINEAR:
            break
    return big / small


def _seconds(work: Callable[[], object]) -> float:
    started = time.thread_time()
    work()
    return time.thread_time() - started
