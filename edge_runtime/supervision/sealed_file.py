"""A small file of the state folder: one dataclass as JSON with a checksum, replaced as a whole."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from edge_runtime.bundle.json_text import json_checksum, parse_json
from edge_runtime.durable import replace_text
from edge_runtime.errors import GruardError
from edge_runtime.files import read_regular, require_regular
from edge_runtime.plain import build

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
