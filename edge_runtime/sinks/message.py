"""What is sent over a network: a record's JSON, and which run it is of."""

import json
from collections.abc import Callable

from edge_runtime.record import Record

Wanted = Callable[[bytes], bool]
"""Whether a message is to be sent; asked of each message once, in order."""


def message(run: str, record: Record) -> bytes:
    """The record's JSON with `run` before its fields. Both together tell a message that is sent
    again from a new one: `run` is another one after every start, `index` counts within it.
    """
    return f'{{"run":"{run}",{record.to_json()[1:]}'.encode()


def everything(message: bytes) -> bool:
    """Wants all messages."""
    return True


class Changes:
    """Wants the first message of a run, and those with another alarm, tier or validity than the
    one before.
    """

    def __init__(self) -> None:
        self._last: tuple[object, ...] | None = None

    def __call__(self, message: bytes) -> bool:
        """Whether something changed."""
        fields = json.loads(message)
        state = tuple(fields[name] for name in ("run", "alarm", "tier", "valid"))
        changed, self._last = state != self._last, state
        return changed
