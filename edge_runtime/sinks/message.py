"""What is sent over a network: a record's JSON, and which run it is of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from edge_runtime.alarm_course import AlarmCourse

if TYPE_CHECKING:  # `gruard journal` does without numpy
    from edge_runtime.record import Record

Wanted = Callable[[bytes], bool]
"""Whether a message is to be sent; asked of each message once, in order.

Raises ValueError for one that `fields_of` does not understand.
"""

_FIELDS = {"run": str, "index": int, "tier": int, "valid": bool, "alarm": bool}


def message(run: str, record: Record) -> bytes:
    """The record's JSON with `run` before its fields. Both together tell a message that is sent
    again from a new one: `run` is another one after every start, `index` counts within it.
    """
    return f'{{"run":"{run}",{record.to_json()[1:]}'.encode()


def fields_of(message: bytes) -> Mapping[str, Any]:
    """The fields of a message, which may be of another version as long as it has those of every.

    Raises ValueError when it is none: damaged, not strict JSON, or of something else.
    """
    try:
        fields = json.loads(message, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("no JSON object")
    for name, kind in _FIELDS.items():
        if type(fields.get(name)) is not kind:
            raise ValueError(f"no field {name} of type {kind.__name__}")
    return fields


def everything(message: bytes) -> bool:
    """Wants all messages that are understood."""
    fields_of(message)
    return True


class Changes:
    """Wants the first message of a run, those with another tier or validity than the one before,
    and those where an alarm begins or is over.

    An alarm that clears is over once it can no longer come back (`edge_runtime.alarm_course`).
    Where the receiver was last sent a message without alarm meanwhile, it is sent the return too.
    """

    def __init__(self) -> None:
        self._last: tuple[object, ...] | None = None
        self._course, self._told = AlarmCourse(), False

    def __call__(self, message: bytes) -> bool:
        """Whether something changed."""
        fields = fields_of(message)
        run, alarm = fields["run"], fields["alarm"]
        fresh = self._last is None or self._last[0] != run
        self._course = (AlarmCourse() if fresh else self._course).after(alarm)
        state = run, self._course.going_on, fields["tier"], fields["valid"]
        wanted = state != self._last or (alarm and not self._told)
        self._last = state
        if wanted:
            self._told = alarm
        return wanted


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of strict JSON")
