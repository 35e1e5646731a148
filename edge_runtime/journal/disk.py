"""All that the journal does to a disk, each method one step that a power cut may come before."""

import fcntl
import os
from pathlib import Path

from edge_runtime.durable import sync
from edge_runtime.errors import GruardError
from edge_runtime.files import open_regular


class Disk:
    """The files of one folder. Every method may raise OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sizes(self) -> dict[str, int]:
        """The names of all files, and how long they are."""
        with os.scandir(self.folder) as found:
            return {item.name: item.stat().st_size for item in found if item.is_file()}

    def read(self, name: str) -> bytes:
        """A whole file."""
        return (self.folder / name).read_bytes()

    def open(self, name: str) -> int:
        """A descriptor that writes at the end of a file, which is made when it is not there."""
        return open_regular(self.folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def cut(self, file: int, size: int) -> None:
        """Forget what lies behind the first `size` bytes."""
        os.ftruncate(file, size)

    def write(self, file: int, data: bytes) -> None:
        """Write all of `data`. After an error some of it may be there."""
        written = 0
        while written < len(data):
            written += os.write(file, data[written:])

    def sync(self, file: int) -> None:
        """Wait until the file's bytes outlast a power cut."""
        os.fsync(file)

    def close(self, file: int) -> None:
        """Give the descriptor back."""
        os.close(file)

    def rename(self, old: str, new: str) -> None:
        """Put one file in the place of another, at once."""
        (self.folder / old).replace(self.folder / new)

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        (self.folder / name).unlink(missing_ok=True)

    def sync_names(self) -> None:
        """Wait until files that were made, moved and deleted stay so after a power cut."""
        sync(self.folder)


def claim_folder(folder: Path) -> int:
    """Make the folder, and a descriptor that keeps other runs out of it until it is closed.

    Raises GruardError when it cannot be made, or another run has it. A folder that cannot be
    written is none of these: a card that wears out must not stop the watch.
    """
    try:
        folder.mkdir(exist_ok=True)
        claim = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise GruardError(
            f"{folder}: folder {folder.parent} does not exist; create it first"
        ) from None
    except OSError as error:
        raise GruardError(
            f"{folder}: cannot be a journal's folder ({error.strerror}); name another --journal"
        ) from None
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(claim)
        raise GruardError(
            f"{folder}: another run writes this journal; give each run a folder of its own"
        ) from None
    return claim
