"""A sink of JSON lines, to stdout or to a file, written through at once."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from edge_runtime.errors import GruardError
from edge_runtime.record import Record
from edge_runtime.sinks.sink import SinkClosedError

_STDOUT = 1


class JsonLines:
    """One JSON line per record on a file descriptor.

    fd: where to write; it is closed with the sink unless it is stdout.
    reader_may_leave: a broken pipe ends the run quietly; otherwise it counts as a drop.
    """

    def __init__(self, fd: int, reader_may_leave: bool = False) -> None:
        self.dropped = 0
        self._fd = fd
        self._reader_may_leave = reader_may_leave
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)

    def write(self, record: Record) -> None:
        """Write one whole line, or none and count it. Raises SinkClosedError, see above."""
        line = record.to_json().encode() + b"\n"
        written = 0
        try:
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except BrokenPipeError:
            if self._reader_may_leave:
                raise SinkClosedError from None
            self._drop(written)
        except OSError:
            self._drop(written)

    def close(self) -> None:
        """Close the file; stdout stays open for its owner."""
        if self._fd != _STDOUT:
            os.close(self._fd)

    def _drop(self, written: int) -> None:
        self.dropped += 1
        if written and self._is_file:
            # A full disk may have taken half a line; take it back, so that every line is whole.
            with suppress(OSError):
                os.ftruncate(self._fd, os.lseek(self._fd, -written, os.SEEK_CUR))


def open_json_lines(target: str, force: bool = False) -> JsonLines:
    """A sink for `-` (stdout) or a file path.

    Raises GruardError when the file exists and `force` is not set, or when it cannot be made.
    """
    if target == "-":
        return JsonLines(_STDOUT, reader_may_leave=True)
    # O_APPEND: a file that logrotate cut short goes on at its new end, without a hole.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    flags |= os.O_TRUNC if force else os.O_EXCL
    try:
        return JsonLines(os.open(target, flags, 0o666))
    except FileExistsError:
        raise GruardError(f"{target} exists; name another --sink or pass --force") from None
    except OSError as error:
        folder = Path(target).parent
        if not folder.is_dir():
            raise GruardError(f"{target}: folder {folder} is not there; create it first") from None
        raise GruardError(
            f"{target} cannot be written ({error.strerror}); name another --sink"
        ) from None
