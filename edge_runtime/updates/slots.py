"""The slots: read-only copies of bundles, each in a folder named by its manifest's SHA-256.

A slot is there as a whole or not at all: it is filled under a hidden name, synced, read back and
renamed, and it loses its name before it is removed.

Which slot runs, which one is on trial and which one to go back to: a pure state machine.

No disk and no clock: every event gives the next value. All pointers are in one file of the store
(`copies`), so that one rename moves them all at once.

    chosen ─→ trial ─ proven ─→ current ─ another one proven ─→ previous
                └─ failed ─→ rejected, and current stays what it was
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge_runtime.bundle.reader import (
    CHECKSUM,
    SIGNATURE,
    Bundle,
    proof_faults,
    read_bundle,
    read_member,
)
from edge_runtime.errors import GruardError
from edge_runtime.updates.disk import (
    Hold,
    StoreDisk,
    make_folders,
    remove_folder,
    unheld,
    write_durably,
)

ATTEMPTS = 3
"""Loads a trial may take until it has proven itself."""

DIGEST = re.compile("[0-9a-f]{64}")
_BY_COMMAND = "gone back by command"


@dataclass(frozen=True)
class Trial:
    """A slot that has to prove itself. attempts: loads that are left, without one under way."""

    slot: str
    attempts: int


@dataclass(frozen=True)
class Rejected:
    """The slot that was gone back from last, and why."""

    slot: str
    reason: str


@dataclass(frozen=True)
class Pointers:
    """Slots by the SHA-256 of their manifests. Without a current one the store is empty.

    An event about a slot that is not on trial (any more) changes nothing.
    """

    current: str | None = None
    previous: str | None = None
    trial: Trial | None = None
    rejected: Rejected | None = None

    @property
    def kept(self) -> frozenset[str]:
        """Slots that are still needed."""
        trial = self.trial.slot if self.trial else None
        return frozenset(slot for slot in (self.current, self.previous, trial) if slot)

    def on_trial(self, slot: str) -> bool:
        """Whether `slot` is the one that has to prove itself."""
        return self.trial is not None and self.trial.slot == slot

    def chosen(self, slot: str, attempts: int = ATTEMPTS) -> Pointers:
        """`slot` is wanted: on trial, or at once where there is nothing to go back to."""
        rejected = None if self.rejected and self.rejected.slot == slot else self.rejected
        if self.current is None:
            return Pointers(current=slot)
        trial = None if slot == self.current else Trial(slot, attempts)
        return replace(self, trial=trial, rejected=rejected)

    def attempted(self, slot: str) -> Pointers:
        """`slot` is about to be loaded. Raises ValueError when no attempt is left for it."""
        if self.trial is None or self.trial.slot != slot:
            return self
        if self.trial.attempts < 1:
            raise ValueError("no attempt is left")
        return replace(self, trial=Trial(slot, self.trial.attempts - 1))

    def spared(self, slot: str) -> Pointers:
        """The run of `slot` ended in good order before the trial did: its attempt counts not."""
        if self.trial is None or self.trial.slot != slot:
            return self
        return replace(self, trial=Trial(slot, self.trial.attempts + 1))

    def proven(self, slot: str) -> Pointers:
        """`slot` was healthy for long enough."""
        if not self.on_trial(slot):
            return self
        return replace(self, current=slot, previous=self.current, trial=None)

    def failed(self, slot: str, reason: str) -> Pointers:
        """`slot` did not prove itself."""
        if not self.on_trial(slot):
            return self
        return replace(self, trial=None, rejected=Rejected(slot, reason))

    def replaced(self, slot: str, reason: str) -> Pointers:
        """`slot` takes the place of a current one that cannot be used any more."""
        if self.current is None or slot == self.current:
            return self
        return Pointers(
            slot,
            previous=None if self.previous == slot else self.previous,
            trial=None if self.on_trial(slot) else self.trial,
            rejected=Rejected(self.current, reason),
        )

    def gone_back(self) -> Pointers:
        """The user wants the trial ended or, without one, the previous slot.

        Going back once more undoes the latter. Raises GruardError when there is nothing to go
        back to.
        """
        if self.trial is not None:
            return self.failed(self.trial.slot, _BY_COMMAND)
        if self.previous is None or self.current is None:
            raise GruardError("there is no bundle to go back to; see gruard list")
        rejected = Rejected(self.current, _BY_COMMAND)
        return Pointers(self.previous, self.current, rejected=rejected)


def to_facts(pointers: Pointers) -> dict[str, Any]:
    """The pointers as plain JSON types."""
    return asdict(pointers)


def from_facts(facts: Mapping[str, Any]) -> Pointers:
    """Inverse to `to_facts`. Raises ValueError when they are no pointers of ours."""
    try:
        trial, rejected = facts["trial"], facts["rejected"]
        pointers = Pointers(
            **{
                **facts,
                "trial": None if trial is None else Trial(**trial),
                "rejected": None if rejected is None else Rejected(**rejected),
            }
        )
    except (TypeError, KeyError):
        raise ValueError("other fields") from None
    _check(pointers)
    return pointers


def _check(pointers: Pointers) -> None:
    slots: list[Any] = [slot for slot in (pointers.current, pointers.previous) if slot is not None]
    if pointers.trial:
        slots.append(pointers.trial.slot)
        if type(pointers.trial.attempts) is not int or pointers.trial.attempts < 0:
            raise ValueError("no number of attempts")
    if pointers.rejected:
        slots.append(pointers.rejected.slot)
        if not isinstance(pointers.rejected.reason, str):
            raise ValueError("no reason")
    if not all(isinstance(slot, str) and DIGEST.fullmatch(slot) for slot in slots):
        raise ValueError("no digest")
    if pointers.current is None and pointers != Pointers():
        raise ValueError("nothing is current")


SHORT = 12
"""Hex digits of a digest that are shown, and are enough to name a slot."""

_READ_ONLY = 0o444
_LOCK = "manifest.json"
_HIDDEN = re.compile(rf"\.{DIGEST.pattern}\.(new|old)")
_SHORTEST = 4


@dataclass(frozen=True)
class Slot:
    """One slot as it was found.

    bundle: None when it cannot be run. fault: what is damaged, be it in a file that no run needs;
    else empty.
    """

    path: Path
    digest: str
    bundle: Bundle | None
    fault: str = ""

    @property
    def label(self) -> str:
        """NAME-VERSION, empty for a slot that cannot be read."""
        return label(self.bundle) if self.bundle else ""


def label(bundle: Bundle) -> str:
    """NAME-VERSION of a bundle."""
    return f"{bundle.manifest.name}-{bundle.manifest.version}"


class Slots:
    """All slots in `folder`. Errors are GruardErrors that name the file and what to do."""

    def __init__(self, folder: Path, disk: StoreDisk) -> None:
        self.folder = folder
        self._disk = disk

    def path(self, digest: str) -> Path:
        """Where the slot of this digest is, or would be."""
        return self.folder / digest

    def __iter__(self) -> Iterator[Slot]:
        """Every slot, by digest; each is read and checked."""
        for digest in self._digests():
            yield self.read(digest)

    def has_any(self) -> bool:
        """Whether there is any slot."""
        return bool(self._digests())

    def read(self, digest: str) -> Slot:
        """The slot of this digest; one that is damaged or missing says so in `fault`."""
        path = self.path(digest)
        try:
            bundle = read_bundle(path, allow_failed=True, whole=False)
        except GruardError as error:
            return Slot(path, digest, None, str(error))
        if bundle.digest != digest:
            return Slot(path, digest, None, f"{path}: is another bundle than its name says")
        return Slot(path, digest, bundle, next(iter(proof_faults(bundle)), ""))

    def find(self, name: str) -> Slot:
        """The slot called NAME-VERSION, or by the first digits of its digest.

        Raises GruardError when there is none, or more than one.
        """
        found = [slot for slot in self if name and _is_called(slot, name)]
        if len(found) == 1:
            return found[0]
        if not found:
            known = ", ".join(sorted(slot.label for slot in self if slot.label)) or "none"
            raise GruardError(f"{name}: not in the store {self.folder.parent}; there: {known}")
        digests = ", ".join(slot.digest[:SHORT] for slot in found)
        raise GruardError(f"{name}: several bundles are called so; name one by digest: {digests}")

    def add(self, bundle: Bundle) -> None:
        """Copy `bundle`, unless its slot is whole already. Afterwards it lasts."""
        if self.folder.is_symlink():
            raise GruardError(f"{self.folder}: is a link, which gruard never makes; remove it")
        self._sweep()
        if self._has(bundle):
            return
        make_folders(self._disk, self.folder)
        scratch = self._hidden(bundle.digest, "new")
        try:
            self._fill(scratch, bundle)
            self._discard(bundle.digest)  # a damaged one
            self._disk.rename(scratch, self.path(bundle.digest))
        except GruardError:
            with suppress(GruardError):
                remove_folder(self._disk, scratch)
            raise
        self._disk.sync(self.folder)

    def remove_others(self, kept: Collection[str]) -> None:
        """Remove all slots but `kept` and those that a process holds."""
        for digest in self._digests():
            if digest in kept:
                continue
            with unheld(self.path(digest) / _LOCK) as free:
                if free:
                    self._discard(digest)

    def hold(self, digest: str) -> Hold:
        """Keep the slot from being removed while this process uses it."""
        return Hold(self.path(digest) / _LOCK)

    def _has(self, bundle: Bundle) -> bool:
        slot = self.read(bundle.digest)
        if slot.bundle is None or slot.fault or slot.bundle.files != bundle.files:
            return False
        # The digest says that all is equal but the signature, which signs it, and its checksum.
        files = [SIGNATURE, CHECKSUM] if SIGNATURE in bundle.files else []
        return all(read_member(slot.path, f) == read_member(bundle.path, f) for f in files)

    def _fill(self, scratch: Path, bundle: Bundle) -> None:
        self._disk.make_folder(scratch)
        for member in bundle.files:
            write_durably(
                self._disk, scratch / member, read_member(bundle.path, member), _READ_ONLY
            )
        self._disk.protect(scratch)
        self._disk.sync(scratch)
        if read_bundle(scratch, allow_failed=True).digest != bundle.digest:
            raise GruardError(f"{bundle.path}: was changed while it was copied; try again")

    def _discard(self, digest: str) -> None:
        if not self.path(digest).is_dir():
            return
        hidden = self._hidden(digest, "old")
        self._disk.rename(self.path(digest), hidden)
        self._disk.sync(self.folder)  # only what has lost its name for good may lose its files
        remove_folder(self._disk, hidden)

    def _sweep(self) -> None:
        """Remove what a power cut left half made or half removed."""
        for folder in sorted(self.folder.glob(".*")):
            if _HIDDEN.fullmatch(folder.name):
                remove_folder(self._disk, folder)

    def _hidden(self, digest: str, what: str) -> Path:
        return self.folder / f".{digest}.{what}"

    def _digests(self) -> list[str]:
        found = (path.name for path in self.folder.glob("*") if path.is_dir())
        return sorted(name for name in found if DIGEST.fullmatch(name))


def _is_called(slot: Slot, name: str) -> bool:
    by_digest = len(name) >= _SHORTEST and slot.digest.startswith(name)
    return by_digest or slot.label == name
