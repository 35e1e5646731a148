"""A snapshot of a run: frozen, plain, and the same on both sides of the status file.

The status file: one snapshot, always whole, at a place that readers know.
"""

from __future__ import annotations

import errno
import json
import queue
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.detector.lasting_change import Finding
from edge_runtime.errors import GruardError, LimitedLog
from edge_runtime.files import read_regular, replace_file
from edge_runtime.plain import LARGEST, build
from edge_runtime.supervision.starts import service_folder
from edge_runtime.threads import BEAT, ThreadState, WatchedThread

if TYPE_CHECKING:  # a reader of snapshots does without numpy
    from edge_runtime.record import Record
    from edge_runtime.supervision.summary import Summary


SCHEMA = 4
"""Files of schemas 1 to 3 are read too; what they do not tell is unknown."""


@dataclass(frozen=True)
class ProcessStatus:
    """The process that runs, and when it said so.

    ticks: its start in clock ticks since boot, which tells it from a later process with the same
    pid; None where there is no /proc. started: epoch seconds; uptime: seconds.
    told: the monotonic clock at this snapshot. patience: seconds until the next one is overdue.
    ended: in good order; this snapshot is its last word.
    """

    pid: int
    ticks: int | None
    started: float
    uptime: float
    told: float
    patience: float
    ended: bool


@dataclass(frozen=True)
class ModelStatus:
    """What is run. kernel: empty until the model was loaded; phase: of the worker.

    waiting: why there is no worker, and when the next one starts; empty while there is one.
    since: epoch seconds at which the phase began, None when unknown.
    """

    name: str
    version: int
    hash: str
    kernel: str
    phase: str
    waiting: str
    since: float | None


@dataclass(frozen=True)
class Input:
    """Where readings come from. silent_since: epoch seconds of the last one, None while they come.

    away: which source cannot be read and why, None when it can or nobody knows.
    """

    silent_since: float | None
    away: str | None


@dataclass(frozen=True)
class Answer:
    """The last record; fields as there. about: the alarm in words, empty without one."""

    index: int
    time: float | None
    tier: int
    flags: tuple[str, ...]
    valid: bool
    score: float | None
    threshold: float | None
    alarm: bool
    blamed: tuple[str, ...]
    kind: str | None
    probability: float | None
    sensor: bool | None
    about: str

    @staticmethod
    def of(record: Record) -> Answer:
        """What of a record is news."""
        from edge_runtime.record import alarm_words, flag_names

        return Answer(
            record.index,
            _finite(record.time),
            record.tier,
            tuple(flag_names(record.flags)),
            record.valid,
            _finite(record.score),
            _finite(record.threshold),
            record.alarm,
            record.blamed,
            record.kind,
            _finite(record.probability),
            record.sensor,
            alarm_words(record) if record.alarm else "",
        )


@dataclass(frozen=True)
class Counts:
    """The summary of a run so far, by the names it has there."""

    records: int
    tiers: Mapping[str, int]
    transitions: Mapping[str, int]
    flags: Mapping[str, int]
    alarms: int
    recurring: int
    kinds: Mapping[str, int]
    restarts: int
    dropped: int
    skipped: int
    bad_cells: int
    bad_rows: int
    outages: int
    timing: Mapping[str, int]
    latency_median_ms: float | None
    latency_max_ms: float | None
    started_after: str | None

    @staticmethod
    def of(summary: Summary) -> Counts:
        """The counts at this moment; the summary goes on."""
        told = summary.fields()
        return Counts(**{field.name: told[field.name] for field in fields(Counts)})


@dataclass(frozen=True)
class ChannelStatus:
    """One channel: its state in the last record, and in how many records it was so."""

    name: str
    masked: bool
    imputed: bool
    blamed: bool
    masked_records: int
    imputed_records: int


@dataclass(frozen=True)
class BoardHealth:
    """The board. temperature: °C of its hottest sensor; throttled: the firmware's bits."""

    temperature: float | None
    throttled: int | None


@dataclass(frozen=True)
class Snapshot:
    """Everything there is to know about a run at one moment.

    answer: None before the first record. change: the lasting one that was reported, None without.
    trail: the latest points of the score, oldest first, each
    the highest share of its threshold in a second, None for a second of gaps.
    rate: records per second since the snapshot before, None in the first.
    threads: of the supervisor's process, but for the loop itself.
    health: None where the board tells nothing.
    """

    schema: int
    process: ProcessStatus
    model: ModelStatus
    input: Input
    answer: Answer | None
    change: Finding | None
    counts: Counts
    channels: tuple[ChannelStatus, ...]
    trail: tuple[float | None, ...]
    rate: float | None
    health: BoardHealth | None
    threads: tuple[ThreadState, ...]

    def to_json(self) -> str:
        """One line of strict JSON."""
        # `vars` and not `asdict`, which copies everything and takes eight times as long.
        return json.dumps(self, default=vars, separators=(",", ":"), allow_nan=False)


def from_json(text: str, where: str) -> Snapshot:
    """The snapshot in `text`, which came from `where`; inverse to `to_json`.

    Raises GruardError when it is anything else, however damaged.
    """
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or "schema" not in data:
        raise GruardError(f"{where}: not a status file of gruard")
    if data["schema"] == 1:
        data = _from_first(data)
    if data["schema"] == 2:
        data |= {"change": None, "schema": 3}
    if data["schema"] == 3:
        data = _with(data, {"counts": {"recurring": 0}}) | {"schema": SCHEMA}
    if data["schema"] != SCHEMA:
        raise GruardError(
            f"{where}: written by another version of gruard (schema {data['schema']!r}, "
            f"this one reads {SCHEMA})"
        )
    snapshot = build(Snapshot, data, where)
    assert isinstance(snapshot, Snapshot)
    return snapshot


def _from_first(data: dict[str, Any]) -> dict[str, Any]:
    """A snapshot of schema 1 as one of schema 2; damage in it is left for `build` to find."""
    added: dict[str, Any] = {
        "model": {"waiting": "", "since": None},
        "counts": {"skipped": 0, "outages": 0},
    }
    unknown = {"input": {"silent_since": None, "away": None}, "threads": []}
    return _with(data, added) | unknown | {"schema": 2}


def _with(data: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    """`data` with fields added to its parts; one that is no object is left for `build` to find."""
    return {
        name: value | added[name] if name in added and isinstance(value, dict) else value
        for name, value in data.items()
    }


def _finite(value: float | None) -> float | None:
    # Strict JSON has no infinity, and a status file must stay readable whatever a score is.
    return value if value is not None and abs(value) <= LARGEST else None


NAME = "status.json"
SERVICES = Path("/run/gruard")
"""Where services have it: each in a folder of its own, or a lone one in this folder itself."""
FAREWELL = 5.0
"""Seconds that the file may take at the end."""
_LARGEST_FILE = 1 << 20  # bytes
_MARKS = (b'"process":{', b'"ticks":', b'"patience":', b'"counts":{', b'"trail":[')
_ENOUGH = 2
"""Marks that tell a damaged status file from any other file."""


def service_file(environment: Mapping[str, str]) -> Path | None:
    """The place systemd sets aside with RuntimeDirectory=; None where it sets aside none."""
    folder = service_folder(environment, "RUNTIME_DIRECTORY")
    return folder / NAME if folder else None


def place_of_service(services: Path = SERVICES) -> Path:
    """The file of the one service that runs here; the usual place where there is none.

    Raises GruardError where there are several.
    """
    found = sorted(file for file in (*services.glob(NAME), *services.glob(f"*/{NAME}")))
    if len(found) > 1:
        raise GruardError(f"several services run here, name one: {', '.join(map(str, found))}")
    return found[0] if found else services / NAME


def write_status(path: Path, snapshot: Snapshot) -> None:
    """Replace the file in one step, so that a reader sees the old one or the new one, whole.

    Nothing is synced to the disk: it belongs on a tmpfs, which has none, and after a power cut
    there is no run to tell of. Raises OSError.
    """
    replace_file(path, snapshot.to_json().encode() + b"\n", durable=False)


def read_status(path: Path) -> Snapshot | None:
    """The snapshot in the file at `path`, None when there is no such file.

    Raises GruardError when it cannot be read or is no status file.
    """
    try:
        data = read_regular(path, _LARGEST_FILE)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise GruardError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise GruardError(f"{path}: not a status file of gruard") from None
    return from_json(data.decode(errors="replace"), str(path))


def _was_status(path: Path) -> bool:
    """Whether the file at `path` is blank, or is what damage left of a status file."""
    try:
        data = read_regular(path, _LARGEST_FILE)
    except (OSError, ValueError):
        return False
    return not data.strip(b"\0 \r\n") or sum(mark in data for mark in _MARKS) >= _ENOUGH


class StatusFile:
    """Writes snapshots in a thread of its own, because a disk may hang as well as be full.

    log takes one line when the file cannot be written any more, and one when it can again.
    Raises GruardError when the folder is missing or `path` is a file of something else.
    """

    def __init__(self, path: Path, log: Callable[[str], None]) -> None:
        if not path.parent.is_dir():
            raise GruardError(f"{path}: there is no folder {path.parent}; make it first")
        try:
            read_status(path)
        except GruardError as error:
            if not _was_status(path):  # a slip of the keyboard must not cost a recording
                raise
            log(f"{error}; it is replaced")
        self._path, self._log = path, LimitedLog(log, time.monotonic)
        self._queue: queue.Queue[Snapshot | None] = queue.Queue(1)
        self.thread = WatchedThread("status file", self._serve)
        self.thread.start()

    def publish(self, snapshot: Snapshot) -> None:
        """Hand over a snapshot without waiting; a hanging disk gets a later one."""
        with suppress(queue.Full):
            self._queue.put_nowait(snapshot)

    def close(self) -> None:
        """Write what waits, for some seconds at most."""
        with suppress(queue.Full):
            self._queue.put(None, timeout=FAREWELL)
        self.thread.join(FAREWELL)

    def _serve(self) -> None:
        while True:
            self.thread.beat()
            try:
                snapshot = self._queue.get(timeout=BEAT)
            except queue.Empty:
                continue
            if snapshot is None:
                return
            try:
                write_status(self._path, snapshot)
            except OSError as error:
                self._tell(error)
            else:
                self._tell(None)

    def _tell(self, error: OSError | None) -> None:
        if error:
            self._log.trouble(
                "write", f"{self._path}: the status cannot be written ({error.strerror})"
            )
        else:
            self._log.over(f"{self._path}: the status is written again", "write")
