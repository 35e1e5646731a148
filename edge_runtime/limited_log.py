"""Log lines about trouble that lasts or comes back: one a minute for each topic, with a count."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

EVERY = 60.0
"""Seconds between two lines about the same topic."""


@dataclass
class _Topic:
    """next: when the topic may be logged again. untold: how often it came up since the last line.

    open: whether its last line was about trouble that nobody has declared over.
    """

    next: float = float("-inf")
    untold: int = 0
    open: bool = False


class LimitedLog:
    """Passes on to `log` what is not repetition; any thread may call it.

    log takes one line. clock gives monotonic seconds.
    """

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._log, self._clock = log, clock
        self._topics: dict[str, _Topic] = {}
        self._lock = threading.Lock()

    def trouble(self, topic: str, sentence: str) -> bool:
        """Log `sentence`, or only count it within a minute of the last; whether it was logged."""
        with self._lock:
            found = self._topics.setdefault(topic, _Topic())
            found.untold += 1
            now = self._clock()
            if now < found.next:
                return False
            others = f" ({found.untold} such in all since the last line)"
            self._log(sentence + (others if found.untold > 1 else ""))
            found.next, found.untold, found.open = now + EVERY, 0, True
            return True

    def over(self, sentence: str, *topics: str) -> bool:
        """Declare trouble over; whether `sentence` was logged, for one of them had been logged."""
        with self._lock:
            found = [self._topics[topic] for topic in topics if topic in self._topics]
            was_open = any(topic.open for topic in found)
            for topic in found:
                topic.open = False
            if was_open:
                self._log(sentence)
            return was_open
