"""Wait for file descriptors. poll(2), as select(2) fails for descriptors from 1,024 on."""

import math
import select
from collections.abc import Mapping

_LONGEST_WAIT = 3600.0
"""Seconds; poll takes milliseconds in 32 bits, which is 24 days."""


def readable(descriptor: int, timeout: float | None) -> bool:
    """Wait until `descriptor` can be read or has ended, at most `timeout` seconds.

    None waits for ever. Returns False when the time is over.
    """
    return ready(descriptor, timeout, select.POLLIN)


def ready(descriptor: int, timeout: float | None, events: int) -> bool:
    """Wait for any of the poll `events`, or for an error or an end; see `readable`."""
    return bool(all_ready({descriptor: events}, timeout))


def all_ready(wanted: Mapping[int, int], timeout: float | None) -> set[int]:
    """Wait for the first of several descriptors, each with its poll events; return those ready."""
    poll = select.poll()
    for descriptor, events in wanted.items():
        poll.register(descriptor, events)
    seconds = _LONGEST_WAIT if timeout is None else min(max(timeout, 0.0), _LONGEST_WAIT)
    while True:
        found = poll.poll(math.ceil(seconds * 1000))
        if found or timeout is not None:
            return {descriptor for descriptor, _ in found}
