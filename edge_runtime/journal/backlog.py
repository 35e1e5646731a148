"""The newest messages, in memory: one thread appends and never waits for a disk or a network."""

import threading
from collections import deque
from collections.abc import Callable
from itertools import islice

from edge_runtime.journal.frames import Entry

LENGTH = 10_000
"""Messages in memory; some 10 MB."""


class Backlog:
    """Numbers messages from `first` on and keeps the last `length` of them.

    patience: seconds to wait for who takes them (see `done`) before the oldest gives way. Having
    waited in vain once, it does not again before there is room.
    """

    def __init__(self, first: int = 1, length: int = LENGTH, patience: float = 0.0) -> None:
        self._messages: deque[bytes] = deque(maxlen=length)
        self._length, self._patience = length, patience
        self._newest = self._done = first - 1
        self._losing = False
        self._room = threading.Condition()
        self._wakers: list[Callable[[], None]] = []

    @property
    def newest(self) -> int:
        """The number of the last message."""
        return self._newest

    @property
    def oldest(self) -> int:
        """The number of the first message that is still there."""
        return self._newest - len(self._messages) + 1

    def wake_on_append(self, waker: Callable[[], None]) -> None:
        """Call `waker` after every message; it must not wait."""
        self._wakers.append(waker)

    def append(self, message: bytes) -> None:
        """Keep one message; the oldest gives way when there is no room."""
        with self._room:
            patience = 0.0 if self._losing else self._patience
            self._losing = not self._room.wait_for(self._has_room, patience)
            self._messages.append(message)
            self._newest += 1
        for waker in self._wakers:
            waker()

    def read(self, after: int, limit: int) -> list[Entry]:
        """Up to `limit` entries above `after`, oldest first; those that gave way are missing."""
        with self._room:
            oldest = self.oldest
            first = max(after + 1, oldest)
            messages = islice(self._messages, first - oldest, first - oldest + limit)
            return [Entry(first + place, message) for place, message in enumerate(messages)]

    def done(self, sequence: int) -> None:
        """Whoever has to take all messages has taken them up to this one."""
        with self._room:
            self._done = sequence
            self._room.notify_all()

    def _has_room(self) -> bool:
        return self._newest - self._done < self._length
