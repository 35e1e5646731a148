"""The snapshot of a run, and the status file that holds it.

A snapshot is a frozen dataclass; `to_json` and `from_json` are inverse. `StatusFile` replaces the
file as a whole, so a reader always sees one complete snapshot.
"""

from __future__ import annotations

import errno
import json
import queue
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.alarm import Alarm
from edge_runtime.detector.lasting_change import Finding
from edge_runtime.errors import GruardError, LimitedLog
from edge_runtime.files import read_regular, replace_file
from edge_runtime.mute import Mute
from edge_runtime.plain import LARGEST, build
from edge_runtime.supervision.starts import service_folder
from edge_runtime.threads import BEAT, MonitoredThread, ThreadState

if TYPE_CHECKING:  # reading snapshots needs no numpy
    from edge_runtime.record import Record
    from edge_runtime.supervision.summary import Summary

SCHEMA = 7
"""Files of schemas 1 to 6 are read too; fields that they lack are unknown."""
NAME = "status.json"
SERVICES = Path("/run/gruard")
"""Where services keep their file: in one folder per service, or a single one in this folder."""
FAREWELL = 5.0
"""Seconds that the last write may take."""
_LARGEST_FILE = 1 << 20  # bytes
_MARKS = (b'"process":{', b'"ticks":', b'"patience":', b'"counts":{', b'"trail":[')
_ENOUGH = 2
"""Marks that identify a file as a damaged status file."""


@dataclass(frozen=True)
class ProcessStatus:
    """The process of the run, at the time of the snapshot.

    ticks: its start in clock ticks since boot, which tells it from a later process with the same
    pid; None where there is no /proc. started: epoch seconds; uptime: seconds.
    told: the monotonic clock at this snapshot. patience: seconds until the next one is overdue.
    ended: in good order; this snapshot is the last one.
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
    """The model. kernel: empty until it was loaded; phase: of the worker.

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
    """The source. silent_since: epoch seconds of the last reading, None while they come.

    away: which source cannot be read and why, None when it can or that is unknown.
    """

    silent_since: float | None
    away: str | None


@dataclass(frozen=True)
class Answer:
    """The last record; fields as in Record."""

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

    @staticmethod
    def of(record: Record) -> Answer:
        """Return the fields of `record`."""
        from edge_runtime.record import flag_names

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
        )


@dataclass(frozen=True)
class Counts:
    """The counts of a run so far, named as in `Summary.fields`."""

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
        """Return the counts of `summary` at this moment."""
        counts = summary.fields()
        return Counts(**{field.name: counts[field.name] for field in fields(Counts)})


@dataclass(frozen=True)
class ChannelStatus:
    """One channel: its state in the last record, and the number of records with that state."""

    name: str
    masked: bool
    imputed: bool
    blamed: bool
    masked_records: int
    imputed_records: int


@dataclass(frozen=True)
class LearningStatus:
    """Where learning during the run stands.

    active: no model was learned yet. rows: readings on the disk, target: those wanted, None while
    the sample period is unknown. left: seconds until then. learning: the child process runs.
    result: of the last time, in words. last, next: epoch seconds, None for never.
    """

    active: bool
    rows: int
    target: int | None
    left: float | None
    learning: bool
    result: str
    last: float | None
    next: float | None


@dataclass(frozen=True)
class BoardHealth:
    """The board's health. temperature: °C of its hottest sensor; throttled: the firmware's bits."""

    temperature: float | None
    throttled: int | None


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one moment.

    answer: None before the first record. alarm: that goes on, None without one. change: the lasting
    change that was reported, None without one. mute: that holds now, None without one.
    learning: None where nothing is learned.
    trail: the latest points of the score, oldest first: each is the highest share of its threshold
    within a second, None for a second of gaps.
    rate: records per second since the snapshot before, None in the first.
    threads: of the supervisor's process, without the loop itself.
    health: None where the board reports nothing.
    """

    schema: int
    process: ProcessStatus
    model: ModelStatus
    input: Input
    answer: Answer | None
    alarm: Alarm | None
    change: Finding | None
    mute: Mute | None
    learning: LearningStatus | None
    counts: Counts
    channels: tuple[ChannelStatus, ...]
    trail: tuple[float | None, ...]
    rate: float | None
    health: BoardHealth | None
    threads: tuple[ThreadState, ...]

    @property
    def now(self) -> float:
        """The time of this snapshot, in epoch seconds."""
        return self.process.started + self.process.uptime

    def to_json(self) -> str:
        """Return one line of strict JSON."""
        # `vars`, because `asdict` copies everything and takes eight times as long.
        return json.dumps(self, default=vars, separators=(",", ":"), allow_nan=False)


def from_json(text: str, where: str) -> Snapshot:
    """Return the snapshot in `text`, read from `where`; inverse to `to_json`.

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
        data = _with(data, {"counts": {"recurring": 0}}) | {"schema": 4}
    if data["schema"] == 4:
        data |= {"mute": None, "schema": 5}
    if data["schema"] == 5:
        data |= {"learning": None, "schema": 6}
    if data["schema"] == 6:
        data = _from_sixth(data)
    if data["schema"] != SCHEMA:
        raise GruardError(
            f"{where}: written by another version of gruard (schema {data['schema']!r}, "
            f"this one reads {SCHEMA})"
        )
    snapshot = build(Snapshot, data, where)
    assert isinstance(snapshot, Snapshot)
    return snapshot


def _from_first(data: dict[str, Any]) -> dict[str, Any]:
    """Return a snapshot of schema 1 as one of schema 2; `build` reports damage in it."""
    added: dict[str, Any] = {
        "model": {"waiting": "", "since": None},
        "counts": {"skipped": 0, "outages": 0},
    }
    unknown = {"input": {"silent_since": None, "away": None}, "threads": []}
    return _with(data, added) | unknown | {"schema": 2}


def _from_sixth(data: dict[str, Any]) -> dict[str, Any]:
    """Return a snapshot of schema 6, which had words instead of the alarm, as one of today."""
    answer = data.get("answer")
    if isinstance(answer, dict):
        answer = {name: value for name, value in answer.items() if name != "about"}
    return data | {"answer": answer, "alarm": None, "schema": SCHEMA}


def _with(data: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    """Return `data` with fields added to its parts; `build` reports one that is no object."""
    return {
        name: value | added[name] if name in added and isinstance(value, dict) else value
        for name, value in data.items()
    }


def _finite(value: float | None) -> float | None:
    # Strict JSON has no infinity, and a status file must stay readable with any score.
    return value if value is not None and abs(value) <= LARGEST else None


def service_file(environment: Mapping[str, str]) -> Path | None:
    """Return the file in the folder that systemd made (RuntimeDirectory=); None without one."""
    folder = service_folder(environment, "RUNTIME_DIRECTORY")
    return folder / NAME if folder else None


def place_of_service(services: Path = SERVICES) -> Path:
    """Return the file of the one service that runs here; the usual place where there is none.

    Raises GruardError where there are several.
    """
    files = sorted((*services.glob(NAME), *services.glob(f"*/{NAME}")))
    if len(files) > 1:
        raise GruardError(f"several services run here, name one: {', '.join(map(str, files))}")
    return files[0] if files else services / NAME


def write_status(path: Path, snapshot: Snapshot) -> None:
    """Replace the file atomically, so that a reader sees the old one or the new one.

    Nothing is synced to the disk: the file belongs on a tmpfs, and after a power cut the run is
    over. Raises OSError.
    """
    replace_file(path, snapshot.to_json().encode() + b"\n", durable=False)


def read_status(path: Path) -> Snapshot | None:
    """Return the snapshot in the file at `path`, None when there is no such file.

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
    """Return whether the file at `path` is blank or a damaged status file."""
    try:
        data = read_regular(path, _LARGEST_FILE)
    except (OSError, ValueError):
        return False
    return not data.strip(b"\0 \r\n") or sum(mark in data for mark in _MARKS) >= _ENOUGH


class StatusFile:
    """Writes snapshots in a separate thread, because a disk may hang.

    log takes one line when the file cannot be written any more, and one when it can again.
    Raises GruardError when the folder is missing or `path` is a file of something else.
    """

    def __init__(self, path: Path, log: Callable[[str], None]) -> None:
        if not path.parent.is_dir():
            raise GruardError(f"{path}: there is no folder {path.parent}; create it first")
        try:
            read_status(path)
        except GruardError as error:
            if not _was_status(path):  # a mistyped name must not overwrite a recording
                raise
            log(f"{error}; it is replaced")
        self._path, self._log = path, LimitedLog(log, time.monotonic)
        self._queue: queue.Queue[Snapshot | None] = queue.Queue(1)
        self.thread = MonitoredThread("status file", self._serve)
        self.thread.start()

    def publish(self, snapshot: Snapshot) -> None:
        """Hand over a snapshot without waiting; drop it while the disk hangs."""
        with suppress(queue.Full):
            self._queue.put_nowait(snapshot)

    def close(self) -> None:
        """Write the last snapshot, within some seconds at most."""
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
            self._log.attempt_write(
                self._path, partial(write_status, self._path, snapshot), "the status is outdated"
            )
