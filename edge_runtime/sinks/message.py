"""What is sent over a network: a record's JSON, and which run it is of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

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
    """Wants the first message of a run, and those with another alarm, tier or validity than the
    one before.
    """

    def __init__(self) -> None:
        self._last: tuple[object, ...] | None = None

    def __call__(self, message: bytes) -> bool:
        """Whether something changed."""
        fields = fields_of(message)
        state = tuple(fields[name] for name in ("run", "alarm", "tier", "valid"))
        changed, self._last = state != self._last, state
        return changed


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of strict JSON")
