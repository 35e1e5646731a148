"""The store: the folder with the slots, and the facts that say which of them is which.

STORE/pointers.json, pointers.copy.json   current, previous, trial; see `copies`
STORE/fallback.json, fallback.copy.json   what the fallback needs of the current bundle
STORE/lowest.json, lowest.copy.json       the lowest version that may be installed
STORE/slots/DIGEST/                       one bundle, read-only
STORE/slots/DIGEST.thresholds.json        what `gruard calibrate` found for it on this machine
STORE/install.lock, pointers.lock         held by who writes; a reader needs neither

The facts are written in the order fallback, lowest, pointers: what the pointers name is remembered
by then.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from edge_runtime.bundle.reader import Bundle
from edge_runtime.errors import GruardError
from edge_runtime.updates.copies import Copies, Found
from edge_runtime.updates.disk import PATIENCE, Disk, locked, make_folders
from edge_runtime.updates.pointers import ATTEMPTS, Pointers, from_facts, to_facts
from edge_runtime.updates.remembered import Remembered
from edge_runtime.updates.slots import Slot, Slots, label

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Inode, time of change in nanoseconds and size of the pointers' files and of the slots' folder."""


def _ignore(line: str) -> None:
    """Default `log`; does nothing."""


class Store:
    """Bundles and pointers in the folder `root`. Every method raises GruardError only.

    log: takes one line for each damaged file, once.
    """

    def __init__(
        self, root: Path, disk: Disk | None = None, log: Callable[[str], None] = _ignore
    ) -> None:
        self.root = root
        self.disk = disk or Disk()
        self.slots = Slots(root / "slots", self.disk)
        self.remembered = Remembered(root, self.disk, self._tell)
        self._pointers = Copies(root, "pointers", self.disk)
        self._log, self._told = log, set[str]()

    def pointers(self) -> Pointers:
        """What is chosen; nothing in a folder that is no store yet.

        It is rebuilt from the slots where both files are damaged or lost.
        """
        return self._read()[0]

    def stamp(self) -> Stamp:
        """Changes whenever the pointers or a slot do; costs a look at three dates."""
        return tuple(map(_stamp, (*self._pointers.files, self.slots.folder)))

    def lowest(self, name: str) -> int:
        """The lowest version of bundles called `name` that is accepted, 0 for any.

        It is the highest that was ever current here, unless somebody allowed a downgrade.
        """
        current = self.pointers().current
        found = [self.slots.read(current)] if current else []
        if (known := self.remembered.lowest()) is None:  # lost, or of an older gruard
            found = list(self.slots)
        bundles = [slot.bundle for slot in found if slot.bundle]
        versions = [b.manifest.version for b in bundles if b.manifest.name == name]
        return max([*versions, (known or {}).get(name, 0)])

    def change(self, event: Callable[[Pointers], Pointers], waits: bool = True) -> Pointers:
        """Let `event` move the pointers, durably; what they are then.

        Raises BusyError when another process writes: after some seconds if it `waits`, else at
        once.
        """
        make_folders(self.disk, self.root)
        with self._locked(waits):
            return self._moved(event)

    def remember(self, bundle: Bundle) -> None:
        """Write what outlives the slot of `bundle`, the current one, unless it is written already.

        A store of an older gruard lacks it, and a damaged file is replaced.
        """
        if not self.remembered.keeps(bundle):
            with self._locked():
                self.remembered.keep(bundle)

    def install(
        self, bundle: Bundle, attempts: int = ATTEMPTS, downgrade: bool = False
    ) -> Pointers:
        """Copy `bundle` into a slot and put it on trial; what nobody needs any more is removed.

        downgrade: accept its version from now on, although it is lower than what was current.
        Running it again does no harm.
        """
        make_folders(self.disk, self.root)
        with locked(self.root / "install.lock", patience=0.0):
            self._check_version(bundle, downgrade)
            self.slots.add(bundle)
            with self._locked():
                self._accept(bundle, downgrade)
                pointers = self._moved(lambda p: p.chosen(bundle.digest, attempts))
                self.slots.remove_others(pointers.kept)
        return pointers

    def use(self, bundle: Bundle, attempts: int = ATTEMPTS, downgrade: bool = False) -> Pointers:
        """Put the stored `bundle` on trial, as after its installation."""
        self._check_version(bundle, downgrade)

        def chosen(pointers: Pointers) -> Pointers:
            if not bundle.path.is_dir():
                raise GruardError(f"{bundle.path}: was removed meanwhile; install it again")
            self._accept(bundle, downgrade)
            return pointers.chosen(bundle.digest, attempts)

        return self.change(chosen)

    def _read(self) -> tuple[Pointers, Found]:
        found = self._pointers.read()
        for fault in found.faults:
            self._tell(f"{fault}; it is replaced with the next change")
        if found.facts is not None:
            try:
                return from_facts(found.facts), found
            except ValueError as error:
                self._tell(f"{self._pointers.files[0]}: damaged ({error})")
        if found.missing and self.remembered.fallback() is None:
            return Pointers(), found  # nothing was ever current here
        return self._rebuilt(found.missing), found

    def _rebuilt(self, missing: bool) -> Pointers:
        """The pointers as the slots tell them: what was current last, else the highest version.

        A version that was never current, and so may have been on trial, comes last.
        """
        usable = [slot for slot in self.slots if slot.bundle]
        if not usable:
            return Pointers()
        last, lowest = self.remembered.fallback(), self.remembered.lowest() or {}

        def rank(slot: Slot) -> tuple[bool, bool, int]:
            assert slot.bundle
            name, version = slot.bundle.manifest.name, slot.bundle.manifest.version
            was_current = version <= lowest.get(name, version)
            return bool(last and slot.digest == last[0]), was_current, version

        best = max(usable, key=rank)
        lost = "missing" if missing else "damaged"
        self._tell(f"{self._pointers.files[0]} and its copy are {lost}; {best.label} is current")
        return Pointers(best.digest)

    def _moved(self, event: Callable[[Pointers], Pointers]) -> Pointers:
        before, found = self._read()
        if found.later:
            raise GruardError(
                f"{self._pointers.files[0]}: a later gruard writes this store; update gruard"
            )
        after = event(before)
        if after.current and after.current != before.current:
            bundle = self.slots.read(after.current).bundle
            if bundle is not None:
                self.remembered.keep(bundle)
        rebuilt = found.facts is None and after != Pointers()
        if after != before or rebuilt or found.faults:
            self._pointers.write(found.generation + 1, to_facts(after))
        return after

    def _check_version(self, bundle: Bundle, downgrade: bool) -> None:
        name, version = bundle.manifest.name, bundle.manifest.version
        if not downgrade and version < (lowest := self.lowest(name)):
            raise GruardError(
                f"{label(bundle)}: is older than {name}-{lowest}, which is or was current; "
                "add --allow-downgrade if you mean it"
            )

    def _accept(self, bundle: Bundle, downgrade: bool) -> None:
        """Lower the lowest version to that of `bundle`, where a downgrade is allowed."""
        name, version = bundle.manifest.name, bundle.manifest.version
        if downgrade and version < (lowest := self.lowest(name)):
            self.remembered.set_lowest(name, version)
            self._log(
                f"{name}: version {version} and those above it are accepted from now on "
                f"(--allow-downgrade); it was version {lowest}"
            )

    def _locked(self, waits: bool = True) -> AbstractContextManager[None]:
        return locked(self.root / "pointers.lock", PATIENCE if waits else 0.0)

    def _tell(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self._log(line)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
