"""The status file: one snapshot, always whole, at a place that readers know."""

import errno
import os
import queue
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from edge_runtime.durable import open_new
from edge_runtime.errors import GruardError
from edge_runtime.files import read_regular
from edge_runtime.limited_log import LimitedLog
from edge_runtime.status.snapshot import Snapshot, from_json
from edge_runtime.threads import BEAT, WatchedThread

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
    first = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(first) / NAME if first else None


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
    there is no run to tell of. The pid in the scratch file's name keeps two runs apart.
    Raises OSError.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(open_new(scratch, 0o644), "w", encoding="utf-8") as stream:
            stream.write(snapshot.to_json() + "\n")
        scratch.replace(path)
    except OSError:
        with suppress(OSError):
            scratch.unlink()
        raise


def read_status(path: Path) -> Snapshot | None:
    """The snapshot in the file at `path`, None when there is no such file.

    Raises GruardError when it cannot be read or is no status file.
    """
    try:
        data = read_regular(path, _LARGEST_FILE + 1)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise GruardError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) > _LARGEST_FILE:
        raise GruardError(f"{path}: not a status file of gruard")
    return from_json(data.decode(errors="replace"), str(path))


def _was_status(path: Path) -> bool:
    """Whether the file at `path` is blank, or is what damage left of a status file."""
    try:
        data = read_regular(path, _LARGEST_FILE)
    except OSError:
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
