"""The store: a folder with the slots, and the facts that outlive a damaged slot.

STORE/pointers.json, pointers.copy.json   current, previous, trial, rejected
STORE/fallback.json, fallback.copy.json   what the fallback needs of the current bundle
STORE/lowest.json, lowest.copy.json       the lowest version that may be installed, by bundle name
STORE/slots/DIGEST/                       one bundle, read-only
STORE/slots/DIGEST.thresholds.json        its thresholds by `gruard calibrate` on this machine
STORE/install.lock, pointers.lock         held by writers; readers need no lock

Facts are kept in two files with the same content (`Copies`): NAME.json and NAME.copy.json hold the
facts, a generation that grows with every change, and the SHA-256 of both. The intact file of the
higher generation counts. NAME.json is replaced first, so a power cut between the two leaves the new
facts. A change writes fallback, lowest, pointers in this order, so the facts about the slot that
the pointers name are always there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_runtime.bundle.manifest import FallbackConstants, fallback_constants, to_dict
from edge_runtime.bundle.manifest_rules import fallback_from_dict
from edge_runtime.bundle.reader import Bundle
from edge_runtime.errors import GruardError, NotAllowedError
from edge_runtime.files import read_regular, replace_file
from edge_runtime.plain import parse_json, seal, shown, unseal
from edge_runtime.updates.disk import PATIENCE, StoreDisk, locked, make_folders
from edge_runtime.updates.pointers import ATTEMPTS, Pointers, from_facts
from edge_runtime.updates.slots import Slot, Slots, label

SCHEMA = 2
"""Layout of the fact files. Schema 1 was one file of pointers without generation and checksum."""
LARGEST = 1 << 20  # bytes; the fallback of 256 channels takes a tenth of it

Facts = Mapping[str, Any]
Stamp = tuple[tuple[int, int, int] | None, ...]
"""Inode, modification time in nanoseconds and size of both pointer files and the slots' folder."""


@dataclass(frozen=True)
class StoredFacts:
    """The content of the two files.

    facts: None when neither is intact. faults: what is wrong with each file, one sentence each.
    missing: neither exists. later: a later gruard wrote one, which this version cannot read.
    """

    facts: Facts | None
    generation: int
    faults: tuple[str, ...]
    missing: bool
    later: bool


def _ignore(line: str) -> None:
    """Default `log`; does nothing."""


class _LaterError(ValueError):
    """Written by a later version, and so not to be replaced."""


class Copies:
    """The two files called `name` in the folder `root`. log: takes a line for each damaged file."""

    def __init__(
        self, root: Path, name: str, disk: StoreDisk, log: Callable[[str], None] = _ignore
    ) -> None:
        self.files = (root / f"{name}.json", root / f"{name}.copy.json")
        self._disk, self._log = disk, log

    def read(self) -> StoredFacts:
        """Read both files. Raises only NotAllowedError, when this user may not read them."""
        generation, facts = 0, None
        faults, absent, former, later = [], [], False, False
        for file in self.files:
            try:
                age, content = _parsed(read_regular(file, LARGEST, os.O_RDONLY | os.O_NOFOLLOW))
            except FileNotFoundError:
                absent.append(file)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EPERM):
                    raise NotAllowedError(
                        f"{file}: cannot be read ({error.strerror}); run the command as the owner "
                        "of the store"
                    ) from None
                faults.append(f"{file}: cannot be read ({error.strerror})")
            except ValueError as error:
                later |= isinstance(error, _LaterError)
                faults.append(f"{file}: {error}")
            else:
                former |= not age
                if facts is None or age > generation:
                    generation, facts = age, content
        missing = len(absent) == len(self.files)
        if not missing and not former:
            faults += [f"{file}: is missing" for file in absent]
        for fault in faults:
            self._log(f"{fault}; it is replaced with the next change")
        return StoredFacts(facts, generation, tuple(faults), missing, later)

    def write(self, generation: int, facts: Facts) -> None:
        """Replace both files durably, one after the other. Raises GruardError."""
        text = seal({"schema": SCHEMA, "generation": generation, **facts}) + "\n"
        for file in self.files:
            replace_file(file, text.encode(), disk=self._disk)


def _parsed(data: bytes) -> tuple[int, Facts]:
    """Return generation and facts of a file. Raises ValueError that says what is wrong."""
    try:
        facts = parse_json(data)
        former = isinstance(facts, dict) and facts.get("schema") == 1 and "checksum" not in facts
        # Every later schema keeps this checksum, or a flipped bit could pass for a later schema.
        facts = facts if former else unseal(facts)
    except ValueError as error:
        raise ValueError(f"damaged ({shown(str(error), str)})") from None
    if former:
        return 0, {name: fact for name, fact in facts.items() if name != "schema"}
    if (schema := facts.pop("schema", None)) != SCHEMA:
        raise _LaterError(f"written by a later gruard (schema {shown(schema)}); update gruard")
    generation = facts.pop("generation", None)
    if type(generation) is not int or generation < 1:
        raise ValueError("damaged (no generation)")
    return generation, facts


class Remembered:
    """The facts about bundles apart from their slots. log: as of Copies."""

    def __init__(self, root: Path, disk: StoreDisk, log: Callable[[str], None]) -> None:
        self._fallback = Copies(root, "fallback", disk, log)
        self._lowest = Copies(root, "lowest", disk, log)
        self._log = log

    def fallback(self) -> tuple[str, FallbackConstants] | None:
        """Return digest and constants of the last current bundle; None when both files are lost."""
        return self._fallback_in(self._fallback.read())

    def lowest(self) -> Mapping[str, int] | None:
        """Return the lowest installable version by bundle name; None when both files are lost."""
        return self._lowest_in(self._lowest.read())

    def keeps(self, bundle: Bundle) -> bool:
        """Return whether all files are intact, and name `bundle` as the current one."""
        return self._kept_fallback(bundle) and self._kept_version(bundle)

    def keep(self, bundle: Bundle) -> None:
        """Write that `bundle` is current: its fallback constants and its version."""
        if not self._kept_fallback(bundle):
            constants = to_dict(fallback_constants(bundle.manifest))
            self._write(self._fallback, {"slot": bundle.digest, "constants": constants})
        if not self._kept_version(bundle):
            name, version = bundle.manifest.name, bundle.manifest.version
            self.set_lowest(name, max(version, (self.lowest() or {}).get(name, version)))

    def set_lowest(self, name: str, version: int) -> None:
        """Accept `version` and above of bundles called `name`."""
        self._write(self._lowest, {"lowest": {**(self.lowest() or {}), name: version}})

    def _kept_fallback(self, bundle: Bundle) -> bool:
        stored = self._fallback.read()
        wanted = bundle.digest, fallback_constants(bundle.manifest)
        return not stored.faults and self._fallback_in(stored) == wanted

    def _kept_version(self, bundle: Bundle) -> bool:
        stored = self._lowest.read()
        lowest = (self._lowest_in(stored) or {}).get(bundle.manifest.name, 0)
        return not stored.faults and lowest >= bundle.manifest.version

    def _write(self, copies: Copies, facts: Facts) -> None:
        copies.write(copies.read().generation + 1, facts)

    def _fallback_in(self, stored: StoredFacts) -> tuple[str, FallbackConstants] | None:
        if stored.facts is None:
            return None
        where = str(self._fallback.files[0])
        try:
            slot = stored.facts.get("slot")
            return str(slot), fallback_from_dict(stored.facts.get("constants"), where)
        except GruardError as error:
            self._log(f"{error}; the fallback does without it")
            return None

    @staticmethod
    def _lowest_in(stored: StoredFacts) -> Mapping[str, int] | None:
        lowest = (stored.facts or {}).get("lowest")
        if not isinstance(lowest, dict) or any(type(v) is not int for v in lowest.values()):
            return None
        return lowest


class Store:
    """Bundles and pointers in the folder `root`. All methods raise GruardError only.

    log: takes one line for each damaged file, once.
    """

    def __init__(
        self, root: Path, disk: StoreDisk | None = None, log: Callable[[str], None] = _ignore
    ) -> None:
        self.root = root
        self.disk = disk or StoreDisk()
        self.slots = Slots(root / "slots", self.disk)
        self.remembered = Remembered(root, self.disk, self._log_once)
        self._pointers = Copies(root, "pointers", self.disk, self._log_once)
        self._log, self._logged = log, set[str]()

    def pointers(self) -> Pointers:
        """Return the pointers; empty ones in a folder that is no store yet.

        They are rebuilt from the slots when both files are damaged or lost.
        """
        return self._read()[0]

    def stamp(self) -> Stamp:
        """Return a value that changes with the pointers and the slots; costs three stat calls."""
        return tuple(map(_stamp, (*self._pointers.files, self.slots.folder)))

    def lowest(self, name: str) -> int:
        """Return the lowest version of bundles called `name` that is accepted, 0 for any.

        It is the highest that was ever current here, unless the user allowed a downgrade.
        """
        current = self.pointers().current
        slots = [self.slots.read(current)] if current else []
        if (lowest := self.remembered.lowest()) is None:  # lost, or of an older gruard
            slots = list(self.slots)
        manifests = [slot.bundle.manifest for slot in slots if slot.bundle]
        versions = [manifest.version for manifest in manifests if manifest.name == name]
        return max([*versions, (lowest or {}).get(name, 0)])

    def change(self, event: Callable[[Pointers], Pointers], waits: bool = True) -> Pointers:
        """Change the pointers by `event`, durably, and return them.

        Raises BusyError while another process writes: after `PATIENCE` seconds if it `waits`, else
        at once.
        """
        make_folders(self.disk, self.root)
        with self._locked(waits):
            return self._moved(event)

    def remember(self, bundle: Bundle) -> None:
        """Write the facts about `bundle`, the current one, unless they are written already.

        A store of an older gruard lacks them, and a damaged file is replaced.
        """
        if not self.remembered.keeps(bundle):
            with self._locked():
                self.remembered.keep(bundle)

    def install(
        self, bundle: Bundle, attempts: int = ATTEMPTS, downgrade: bool = False
    ) -> Pointers:
        """Copy `bundle` into a slot, put it on trial, and remove slots that are no longer needed.

        downgrade: accept its version from now on, although it is lower than what was current.
        A second call changes nothing.
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
        """Put the stored `bundle` on trial, as `install` does."""
        self._check_version(bundle, downgrade)

        def chosen(pointers: Pointers) -> Pointers:
            if not bundle.path.is_dir():
                raise GruardError(f"{bundle.path}: was removed meanwhile; install it again")
            self._accept(bundle, downgrade)
            return pointers.chosen(bundle.digest, attempts)

        return self.change(chosen)

    def _read(self) -> tuple[Pointers, StoredFacts]:
        stored = self._pointers.read()
        if stored.facts is not None:
            try:
                return from_facts(stored.facts), stored
            except ValueError as error:
                self._log_once(f"{self._pointers.files[0]}: damaged ({error})")
        if stored.missing and self.remembered.fallback() is None:
            return Pointers(), stored  # nothing was ever current here
        return self._rebuilt(stored.missing), stored

    def _rebuilt(self, missing: bool) -> Pointers:
        """Rebuild the pointers from the slots: what was current last, else the highest version.

        Versions that were never current, and so may have been on trial, come last.
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
        are = "are missing" if missing else "are damaged"
        self._log_once(f"{self._pointers.files[0]} and its copy {are}; {best.label} is current")
        return Pointers(best.digest)

    def _moved(self, event: Callable[[Pointers], Pointers]) -> Pointers:
        before, stored = self._read()
        if stored.later:
            raise GruardError(
                f"{self._pointers.files[0]}: a later gruard writes this store; update gruard"
            )
        after = event(before)
        if after.current and after.current != before.current:
            bundle = self.slots.read(after.current).bundle
            if bundle is not None:
                self.remembered.keep(bundle)
        rebuilt = stored.facts is None and after != Pointers()
        if after != before or rebuilt or stored.faults:
            self._pointers.write(stored.generation + 1, asdict(after))
        return after

    def _check_version(self, bundle: Bundle, downgrade: bool) -> None:
        name, version = bundle.manifest.name, bundle.manifest.version
        if not downgrade and version < (lowest := self.lowest(name)):
            raise GruardError(
                f"{label(bundle)}: is older than {name}-{lowest}, which is or was current; "
                "add --allow-downgrade if you mean it"
            )

    def _accept(self, bundle: Bundle, downgrade: bool) -> None:
        """Lower the lowest version to that of `bundle`, if a downgrade is allowed."""
        name, version = bundle.manifest.name, bundle.manifest.version
        if downgrade and version < (lowest := self.lowest(name)):
            self.remembered.set_lowest(name, version)
            self._log(
                f"{name}: version {version} and those above it are accepted from now on "
                f"(--allow-downgrade); it was version {lowest}"
            )

    def _locked(self, waits: bool = True) -> AbstractContextManager[None]:
        return locked(self.root / "pointers.lock", PATIENCE if waits else 0.0)

    def _log_once(self, line: str) -> None:
        if line not in self._logged:
            self._logged.add(line)
            self._log(line)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
