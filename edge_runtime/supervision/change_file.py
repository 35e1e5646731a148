"""What outlives a run of a lasting change: where the machine stands, and the owner's word on it.

Two small files in the state folder, each with one writer: the run keeps `change.json`, and
`gruard accept` writes `accepted.json`. Both are sealed by a checksum and replaced as a whole.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from edge_runtime.bundle.json_text import json_checksum, parse_json
from edge_runtime.detector.lasting_change import ChangePhase, LastingChange
from edge_runtime.durable import replace_text
from edge_runtime.errors import GruardError
from edge_runtime.files import read_regular, require_regular
from edge_runtime.plain import build

KEPT, WORD = "change.json", "accepted.json"
"""Names of the files in the state folder."""
SCHEMA = 1
LARGEST_FILE = 1 << 16  # bytes; a change of 256 channels takes 6,000

_Kind = TypeVar("_Kind", "KeptChange", "Word")


@dataclass(frozen=True)
class Finding:
    """A change that was reported, and is neither over nor followed by another that was accepted.

    since: epoch seconds of the report. channels: blamed by the alarm that led to it. count: as in
    LastingChange. accepted: epoch seconds of the owner's word, None without; reason: may be empty.
    """

    since: float
    channels: tuple[str, ...]
    count: int
    accepted: float | None
    reason: str

    @property
    def phase(self) -> ChangePhase:
        """What a detector makes of it."""
        return ChangePhase.CHANGED if self.accepted is None else ChangePhase.ACCEPTED


@dataclass(frozen=True)
class KeptChange:
    """Where the machine stands, by the bundle of that digest. finding: None where as recorded."""

    bundle: str
    change: LastingChange
    finding: Finding | None

    @property
    def sound(self) -> KeptChange:
        """With the phase of the change as the finding has it, which is what holds."""
        phase = self.finding.phase if self.finding else ChangePhase.AS_RECORDED
        return replace(self, change=replace(self.change, phase=int(phase)))


@dataclass(frozen=True)
class Word:
    """The owner's last word, on the finding of `bundle` since `since`. told: epoch seconds."""

    bundle: str
    since: float
    accepted: bool
    reason: str
    told: float

    def names(self, kept: KeptChange) -> bool:
        """Whether it is about the finding of `kept`."""
        finding = kept.finding
        return finding is not None and (self.bundle, self.since) == (kept.bundle, finding.since)


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


def write_sealed(file: Path, value: KeptChange | Word) -> None:
    """Replace the file, durably. Raises OSError, also if something else lies in its place."""
    data: dict[str, Any] = {"schema": SCHEMA, **asdict(value)}
    data = json.loads(json.dumps(data))  # tuples as the lists that a reader finds
    require_regular(file)
    replace_text(file, json.dumps({**data, "checksum": json_checksum(data)}) + "\n")
