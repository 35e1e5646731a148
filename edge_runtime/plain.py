"""JSON that is checked before it is used: from text to frozen dataclasses, and small sealed files.

`parse_json` bounds a text before it parses it. `build` makes a dataclass of parsed JSON: no field
missing, none unknown, every type right. `seal` adds a checksum. `write_sealed` and `read_sealed`
keep one dataclass in a small file that is replaced as a whole.
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
from edge_runtime.files import read_regular, replace_file, require_regular

LARGEST = 3.4e38
"""The device computes in float32: a larger number is infinite there."""
LARGEST_INTEGER = 10**15  # counts of samples; exact in a double
MOST_ENTRIES = 1 << 18
"""A manifest of 256 channels has 200,000 numbers; "[],[],…" takes thirty times its size in memory.
"""
MOST_DIGITS = 32  # Python takes the square of the number of digits to read an integer
# Control characters, and halves of characters that no output can encode.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
SHOWN, FEW = 100, 5  # characters of a text, and names, that go into a message
SCHEMA = 1
"""Of sealed files."""
LARGEST_FILE = 1 << 20
"""Bytes. A change of 256 channels takes 6,000, 256 alarms on three channels each some 30,000."""

_Kind = TypeVar("_Kind", bound="_Dataclass")


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


def build(kind: Any, value: Any, where: str) -> Any:
    """Return `value` (found at `where`) as an instance of the annotation `kind`, fully checked.

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
    if isinstance(origin, type) and issubclass(origin, Mapping):
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
    """Return `value`, which must be printable in records, terminals and logs."""
    if UNPRINTABLE.search(value):
        raise GruardError(f"{where}: {shown(value)} has control characters; rename it")
    return value


def shown(value: Any, form: Callable[[Any], str] = ascii) -> str:
    """Return the beginning of `value`, whatever it is, as one line for a message."""
    if isinstance(value, (list, dict)):
        return f"a list of {len(value)}" if isinstance(value, list) else "an object"
    if type(value) is int and abs(value) > LARGEST_INTEGER:
        return "an integer of more than 15 digits"  # Python may refuse to write it out
    text = form(value[:SHOWN] if isinstance(value, str) else value)
    return UNPRINTABLE.sub("?", text)


def parse_json(text: bytes) -> Any:
    """Parse strict UTF-8 JSON. Raises ValueError.

    Also refused: more than `MOST_ENTRIES` entries, integers of more than `MOST_DIGITS` digits, a
    repeated key in one object, and nesting beyond Python's own limit.
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


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _object_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a repeated key in one object")
    return fields


def seal(fields: Mapping[str, Any]) -> str:
    """Return `fields` as JSON with a checksum."""
    return json.dumps({**fields, "checksum": _checksum(fields)}, sort_keys=True)


def unseal(fields: Any) -> dict[str, Any]:
    """Return parsed `fields` without their checksum. Raises ValueError when it does not match."""
    if not isinstance(fields, dict):
        raise ValueError("no object")
    if fields.pop("checksum", None) != _checksum(fields):
        raise ValueError("its checksum is that of other contents")
    return fields


def _checksum(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def write_small(file: Path, text: str) -> None:
    """Replace a small file of the state folder by one line of text, durably.

    Raises OSError, also when another kind of file is in its place.
    """
    require_regular(file)
    replace_file(file, text.encode() + b"\n")


def write_sealed(file: Path, value: _Dataclass) -> None:
    """Replace `file` by the dataclass `value`, sealed. Raises OSError as `write_small`."""
    write_small(file, seal({"schema": SCHEMA, **asdict(value)}))


def _unchanged(fields: dict[str, Any]) -> dict[str, Any]:
    return fields


def read_sealed(
    file: Path,
    kind: type[_Kind],
    most: int = LARGEST_FILE,
    upgrade: Callable[[dict[str, Any]], dict[str, Any]] = _unchanged,
) -> _Kind | None:
    """Return the dataclass of type `kind` in `file`, None when the file is missing.

    A field with a default may be missing: an earlier version did not know it. most: bytes of the
    file. upgrade: makes fields of today of those that an older version stored. Raises GruardError,
    naming the file, when it cannot be read or is damaged.
    """
    try:
        fields = unseal(parse_json(read_regular(file, most)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise GruardError(f"{file}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise GruardError(f"{file}: damaged ({shown(str(error), str)})") from None
    if fields.pop("schema", None) != SCHEMA:
        raise GruardError(f"{file}: written by another version of gruard")
    value: _Kind = build(kind, _defaults(kind) | upgrade(fields), str(file))
    return value


def _defaults(kind: type[_Dataclass]) -> dict[str, Any]:
    known = {field.name: field.default for field in dataclasses.fields(kind)}
    return {name: value for name, value in known.items() if value is not dataclasses.MISSING}
