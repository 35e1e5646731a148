"""The store: the folder with the slots, and the one file that says which of them is which.

STORE/pointers.json                  current, previous, trial; replaced as a whole
STORE/slots/DIGEST/                  one bundle, read-only
STORE/slots/DIGEST.thresholds.json   what `gruard calibrate` found for it on this machine
STORE/install.lock, pointers.lock    held by who writes; a reader needs neither
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from edge_runtime.bundle.reader import Bundle
from edge_runtime.errors import GruardError
from edge_runtime.updates.disk import Disk, locked, make_folders, replace_durably
from edge_runtime.updates.pointers import ATTEMPTS, Pointers, from_bytes, to_bytes
from edge_runtime.updates.slots import Slots, label

POINTERS = "pointers.json"
LARGEST_POINTERS = 1 << 16  # bytes

Stamp = tuple[int, int, int]
"""Inode, time of change in nanoseconds and size of the pointers' file."""


class Store:
    """Bundles and pointers in the folder `root`. Every method raises GruardError only."""

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self.root = root
        self.disk = disk or Disk()
        self.slots = Slots(root / "slots", self.disk)
        self._file = root / POINTERS

    def pointers(self) -> Pointers:
        """What is chosen; nothing in a folder that is no store yet."""
        try:
            with self._file.open("rb") as stream:
                return from_bytes(stream.read(LARGEST_POINTERS))
        except FileNotFoundError:
            return Pointers()
        except OSError as error:
            raise GruardError(f"{self._file}: cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise GruardError(
                f"{self._file}: damaged ({error}); delete it, then choose a bundle with gruard use"
            ) from None

    def stamp(self) -> Stamp | None:
        """Changes whenever the pointers do; costs one look at the file, without reading it."""
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def change(self, event: Callable[[Pointers], Pointers]) -> Pointers:
        """Let `event` move the pointers, durably; what they are then."""
        make_folders(self.disk, self.root)
        with self._locked():
            return self._moved(event)

    def install(
        self, bundle: Bundle, attempts: int = ATTEMPTS, downgrade: bool = False
    ) -> Pointers:
        """Copy `bundle` into a slot and put it on trial; what nobody needs any more is removed.

        downgrade: allow a lower version than the current one's. Running it again does no harm.
        """
        make_folders(self.disk, self.root)
        busy = f"{self.root}: another gruard install is at work there; try again after it"
        with locked(self.root / "install.lock", busy):
            self._check_version(bundle, downgrade)
            self.slots.add(bundle)
            with self._locked():
                pointers = self._moved(lambda p: p.chosen(bundle.digest, attempts))
                self.slots.remove_others(pointers.kept)
        return pointers

    def use(self, bundle: Bundle, attempts: int = ATTEMPTS, downgrade: bool = False) -> Pointers:
        """Put the stored `bundle` on trial, as after its installation."""
        self._check_version(bundle, downgrade)

        def chosen(pointers: Pointers) -> Pointers:
            if not bundle.path.is_dir():
                raise GruardError(f"{bundle.path}: was removed meanwhile; install it again")
            return pointers.chosen(bundle.digest, attempts)

        return self.change(chosen)

    def _moved(self, event: Callable[[Pointers], Pointers]) -> Pointers:
        before = self.pointers()
        after = event(before)
        if after != before:
            replace_durably(self.disk, self._file, to_bytes(after))
        return after

    def _check_version(self, bundle: Bundle, downgrade: bool) -> None:
        digest = self.pointers().current
        current = self.slots.read(digest).bundle if digest else None
        if current is None or downgrade or bundle.manifest.name != current.manifest.name:
            return
        if bundle.manifest.version < current.manifest.version:
            raise GruardError(
                f"{label(bundle)}: is older than {label(current)}, which is current; "
                "add --allow-downgrade if you mean it"
            )

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self.root / "pointers.lock")
