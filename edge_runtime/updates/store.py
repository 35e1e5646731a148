"""The store: the folder with the slots, and the facts that say which of them is which.

STORE/pointers.json, pointers.copy.json   current, previous, trial; see `copies`
STORE/fallback.json, fallback.copy.json   what the fallback needs of the current bundle
STORE/lowest.json, lowest.copy.json       the lowest version that may be installed
STORE/slots/DIGEST/                       one bundle, read-only
STORE/slots/DIGEST.thresholds.json        what `gruard calibrate` found for it on this machine
STORE/install.lock, pointers.lock         held by who writes; a reader needs neither

The facts are written in the order fallback, lowest, pointers: what the pointers name is remembered
by then.

Facts of the store that outlive one damaged file: each kept in two files that say the same.

STORE/NAME.json and STORE/NAME.copy.json hold the facts, a generation that grows with every change,
and the SHA-256 of both. The intact file of the higher generation holds. NAME.json is replaced
first, so that a power cut in between leaves the new facts. A reader needs no lock.

What the store knows of its bundles apart from their slots, so that it outlives damage there.

STORE/fallback.json and its copy: what the fallback needs of the current bundle.
STORE/lowest.json and its copy: the lowest version that may be installed, for each name of a bundle.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_runtime.bundle.manifest import FallbackConstants, fallback_constants
from edge_runtime.bundle.manifest_rules import fallback_from_dict
from edge_runtime.bundle.reader import Bundle
from edge_runtime.errors import GruardError, NotAllowedError
from edge_runtime.files import read_regular
from edge_runtime.plain import json_checksum, parse_json, shown
from edge_runtime.updates.disk import PATIENCE, StoreDisk, locked, make_folders, replace_durably
from edge_runtime.updates.pointers import ATTEMPTS, Pointers, from_facts, to_facts
from edge_runtime.updates.slots import Slot, Slots, label

SCHEMA = 2
"""Layout of the files. Schema 1 was one file of pointers without generation and checksum."""
LARGEST = 1 << 20  # bytes; the fallback of 256 channels takes a tenth of it

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """What the two files say.

    facts: None when neither is intact. faults: what is wrong with each file, in one sentence.
    missing: there is neither. later: a later gruard wrote one that this one cannot read.
    """

    facts: Facts | None
    generation: int
    faults: tuple[str, ...]
    missing: bool
    later: bool


class _LaterError(ValueError):
    """Of a later version, and so not to be replaced."""


class Copies:
    """The two files called `name` in the folder `root`."""

    def __init__(self, root: Path, name: str, disk: StoreDisk) -> None:
        self.files = (root / f"{name}.json", root / f"{name}.copy.json")
        self._disk = disk

    def read(self) -> Found:
        """What holds. Raises NotAllowedError when this user may not read it; else never."""
        generation, facts = 0, None
        faults, absent, former, later = [], [], False, False
        for file in self.files:
            try:
                found, said = _parsed(read_regular(file, LARGEST, os.O_RDONLY | os.O_NOFOLLOW))
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
                former |= not found
                if facts is None or found > generation:
                    generation, facts = found, said
        missing = len(absent) == len(self.files)
        if not missing and not former:
            faults += [f"{file}: is missing" for file in absent]
        return Found(facts, generation, tuple(faults), missing, later)

    def write(self, generation: int, facts: Facts) -> None:
        """Replace both, durably, one after the other. Raises GruardError."""
        whole = {"schema": SCHEMA, "generation": generation, **facts}
        data = json.dumps({**whole, "checksum": json_checksum(whole)}, sort_keys=True) + "\n"
        for file in self.files:
            replace_durably(self._disk, file, data.encode())


def _parsed(data: bytes) -> tuple[int, Facts]:
    """Generation and facts in a file. Raises ValueError with what is wrong."""
    try:
        facts = parse_json(data)
    except ValueError as error:
        raise ValueError(f"damaged ({shown(str(error), str)})") from None
    if not isinstance(facts, dict):
        raise ValueError("damaged (no object)")
    if facts.get("schema") == 1 and "checksum" not in facts:
        return 0, {name: fact for name, fact in facts.items() if name != "schema"}
    # Every later schema keeps this checksum, or a flipped bit could pass for a later schema.
    if facts.pop("checksum", None) != json_checksum(facts):
        raise ValueError("damaged (its checksum is that of other contents)")
    if (schema := facts.pop("schema", None)) != SCHEMA:
        raise _LaterError(f"written by a later gruard (schema {shown(schema)}); update gruard")
    generation = facts.pop("generation", None)
    if type(generation) is not int or generation < 1:
        raise ValueError("damaged (no generation)")
    return generation, facts


class Remembered:
    """The two kinds of facts. tell: takes one line for each file that is damaged."""

    def __init__(self, root: Path, disk: StoreDisk, tell: Callable[[str], None]) -> None:
        self._fallback = Copies(root, "fallback", disk)
        self._lowest = Copies(root, "lowest", disk)
        self._tell = tell

    def fallback(self) -> tuple[str, FallbackConstants] | None:
        """Digest and constants of the bundle that was current last; None when both are lost."""
        return self._fallback_in(self._read(self._fallback))

    def lowest(self) -> Mapping[str, int] | None:
        """The lowest version that may be installed, by name; None when both files are lost."""
        return self._lowest_in(self._read(self._lowest))

    def keeps(self, bundle: Bundle) -> bool:
        """Whether all of it is there, twice, with `bundle` as the current one."""
        return self._kept_fallback(bundle) and self._kept_version(bundle)

    def keep(self, bundle: Bundle) -> None:
        """Remember that `bundle` is current: its fallback, and that its version was accepted."""
        if not self._kept_fallback(bundle):
            self._write(self._fallback, {"slot": bundle.digest, "constants": _constants(bundle)})
        if not self._kept_version(bundle):
            known = self.lowest() or {}
            name, version = bundle.manifest.name, bundle.manifest.version
            self.set_lowest(name, max(version, known.get(name, version)))

    def set_lowest(self, name: str, version: int) -> None:
        """Accept `version` of bundles called `name`, and those above it."""
        self._write(self._lowest, {"lowest": {**(self.lowest() or {}), name: version}})

    def _kept_fallback(self, bundle: Bundle) -> bool:
        found = self._read(self._fallback)
        wanted = bundle.digest, fallback_constants(bundle.manifest)
        return not found.faults and self._fallback_in(found) == wanted

    def _kept_version(self, bundle: Bundle) -> bool:
        found = self._read(self._lowest)
        known = (self._lowest_in(found) or {}).get(bundle.manifest.name, 0)
        return not found.faults and known >= bundle.manifest.version

    def _read(self, copies: Copies) -> Found:
        found = copies.read()
        for fault in found.faults:
            self._tell(f"{fault}; it is replaced with the next change")
        return found

    def _write(self, copies: Copies, facts: Facts) -> None:
        copies.write(copies.read().generation + 1, facts)

    def _fallback_in(self, found: Found) -> tuple[str, FallbackConstants] | None:
        if found.facts is None:
            return None
        where = str(self._fallback.files[0])
        try:
            slot = found.facts.get("slot")
            return str(slot), fallback_from_dict(found.facts.get("constants"), where)
        except GruardError as error:
            self._tell(f"{error}; the fallback does without it")
            return None

    @staticmethod
    def _lowest_in(found: Found) -> Mapping[str, int] | None:
        lowest = (found.facts or {}).get("lowest")
        if not isinstance(lowest, dict) or any(type(v) is not int for v in lowest.values()):
            return None
        return lowest


def _constants(bundle: Bundle) -> Facts:
    return asdict(fallback_constants(bundle.manifest))


Stamp = tuple[tuple[int, int, int] | None, ...]
"""Inode, time of change in nanoseconds and size of the pointers' files and of the slots' folder."""


def _ignore(line: str) -> None:
    """Default `log`; does nothing."""


class Store:
    """Bundles and pointers in the folder `root`. Every method raises GruardError only.

    log: takes one line for each damaged file, once.
    """

    def __init__(
        self, root: Path, disk: StoreDisk | None = None, log: Callable[[str], None] = _ignore
    ) -> None:
        self.root = root
        self.disk = disk or StoreDisk()
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
