"""From parsed JSON to frozen dataclasses: nothing missing, nothing more, every type right.

JSON from anybody: bounded before it is parsed, and with one meaning.

A small file of the state folder: one dataclass as JSON with a checksum, replaced as a whole.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from edge_runtime.errors import GruardError
from edge_runtime.files import read_regular, replace_text, require_regular

LARGEST = 3.4e38
"""The device computes in float32: beyond this a number is infinite there."""
LARGEST_INTEGER = 10**15  # counts of samples; exact in a double
# Control characters, and halves of characters that no output can encode.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
SHOWN, FEW = 100, 5  # characters of a text, and names, that go into a message


def build(kind: Any, value: Any, where: str) -> Any:
    """`value` (at `where`) as an instance of the annotation `kind`, checked all the way down.

    Raises GruardError naming the field that is missing, unknown, not finite or of another type.
    """
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(value, list):
            raise GruardError(f"{where}: a list is expected")
        if arguments[0] is float and all(type(v) is float and abs(v) <= LARGEST for v in value):
            return tuple(value)  # nearly all of a manifest is this
        return tuple(build(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is not None and _is_subclass(origin, Mapping):
        if not isinstance(value, dict):
            raise GruardError(f"{where}: an object is expected")
        return {
            _text(k, where): build(arguments[1], v, f"{where}.{shown(k, str)}")
            for k, v in value.items()
        }
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        return build(next(a for a in arguments if a is not type(None)), value, where)
    return _build_scalar(kind, value, where)


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise GruardError(f"{where}: an object is expected")
    hints = _hints(kind)
    missing, unknown = sorted(hints.keys() - value.keys()), sorted(value.keys() - hints.keys())
    if missing or unknown:
        raise GruardError(
            f"{where}: fields missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(shown(name, str) for name in unknown[:FEW]) or 'none'}"
        )
    return kind(
        **{name: build(hint, value[name], f"{where}: {name}") for name, hint in hints.items()}
    )


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _build_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) <= LARGEST:  # also false for NaN
            raise GruardError(f"{where}: {shown(value)} is not a finite float32 number")
        return float(value)
    if kind is int and type(value) is int and not abs(value) <= LARGEST_INTEGER:
        raise GruardError(f"{where}: {shown(value)} is too large a number")
    if kind is str and type(value) is str:
        return _text(value, where)
    if kind in (int, bool) and type(value) is kind:
        return value
    raise GruardError(f"{where}: {shown(value)} is not of type {kind.__name__}")


def _text(value: str, where: str) -> str:
    """`value`, which goes into records, terminals and journals, and so must be printable there."""
    if UNPRINTABLE.search(value):
        raise GruardError(f"{where}: {shown(value)} has control characters; rename it")
    return value


def shown(value: Any, form: Callable[[Any], str] = ascii) -> str:
    """The beginning of `value` as messages show it: one line, whatever it is."""
    if isinstance(value, (list, dict)):
        return f"a list of {len(value)}" if isinstance(value, list) else "an object"
    if type(value) is int and abs(value) > LARGEST_INTEGER:
        return "an integer of more than 15 digits"  # Python may refuse to write it out
    text = form(value[:SHOWN] if isinstance(value, str) else value)
    return UNPRINTABLE.sub("?", text)


def _is_subclass(origin: Any, parent: type) -> bool:
    """Whether a typing origin is a class below `parent`."""
    return isinstance(origin, type) and issubclass(origin, parent)


# A manifest of 256 channels has 200,000 numbers; "[],[],…" takes thirty times its size in memory.
MOST_ENTRIES = 1 << 18
MOST_DIGITS = 32  # Python takes the square of the number of digits to read an integer


def parse_json(text: bytes) -> Any:
    """What the JSON `text` says. Raises ValueError for anything else than sound UTF-8 JSON.

    Also refused: more than `MOST_ENTRIES` entries, integers of more than `MOST_DIGITS` digits, a
    key that is twice in one object, and nesting beyond Python's own limit.
    """
    entries = sum(text.count(mark) for mark in (b",", b"[", b"{"))
    if entries > MOST_ENTRIES:
        raise ValueError(f"{entries} entries, at most {MOST_ENTRIES} are expected")
    try:
        return json.loads(
            text.decode("utf-8"), parse_int=_integer, object_pairs_hook=_object_of_pairs
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def json_checksum(data: Mapping[str, Any]) -> str:
    """SHA-256 of what `data` says, for a file that carries it beside the other fields."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key that is twice in one object")
    return found


SCHEMA = 1
LARGEST_FILE = 1 << 20
"""Bytes. A change of 256 channels takes 6,000, 256 alarms on three channels each some 30,000."""

_Kind = TypeVar("_Kind")


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


def read_sealed(file: Path, kind: type[_Kind]) -> _Kind | None:
    """What the file says, None where there is none.

    Raises GruardError, whose text names the file, for one that cannot be read or relied on.
    """
    try:
        text = read_regular(file, LARGEST_FILE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise GruardError(f"{file}: cannot be read ({error.strerror})") from None
    try:
        data = parse_json(text)
    except ValueError:
        data = None
    if len(text) > LARGEST_FILE or not isinstance(data, dict):
        raise GruardError(f"{file}: damaged")
    if data.pop("checksum", None) != json_checksum(data):
        raise GruardError(f"{file}: damaged (its checksum is that of other contents)")
    if data.pop("schema", None) != SCHEMA:
        raise GruardError(f"{file}: written by another version of gruard")
    found: _Kind = build(kind, data, str(file))
    return found


def write_sealed(file: Path, value: _Dataclass) -> None:
    """Replace the file by one that says `value`, durably.

    Raises OSError, also if something else lies in its place.
    """
    data: dict[str, Any] = {"schema": SCHEMA, **asdict(value)}
    data = json.loads(json.dumps(data))  # tuples as the lists that a reader finds
    require_regular(file)
    replace_text(file, json.dumps({**data, "checksum": json_checksum(data)}) + "\n")
