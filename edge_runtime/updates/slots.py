"""The slots: read-only copies of bundles, each in a folder named by its manifest's SHA-256.

A slot appears whole or not at all: it is filled under a hidden name, synced, read back and renamed.
It is renamed to a hidden name before it is removed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.bundle.reader import (
    CHECKSUM,
    SIGNATURE,
    Bundle,
    proof_faults,
    read_bundle,
    read_member,
)
from edge_runtime.errors import GruardError
from edge_runtime.updates.disk import StoreDisk, StoreLock, make_folders, remove_folder, unheld
from edge_runtime.updates.pointers import DIGEST

SHORT = 12
"""Hex digits of a digest that are shown, enough to name a slot."""

_READ_ONLY = 0o444
_LOCK = "manifest.json"
_HIDDEN = re.compile(rf"\.{DIGEST.pattern}\.(new|old)")
_SHORTEST = 4


@dataclass(frozen=True)
class Slot:
    """One slot as it was read.

    bundle: None when it cannot run. fault: what is damaged, also in a file that no run needs; empty
    if nothing is.
    """

    path: Path
    digest: str
    bundle: Bundle | None
    fault: str = ""

    @property
    def label(self) -> str:
        """NAME-VERSION, empty when the slot cannot be read."""
        return label(self.bundle) if self.bundle else ""


def label(bundle: Bundle) -> str:
    """Return NAME-VERSION of a bundle."""
    return f"{bundle.manifest.name}-{bundle.manifest.version}"


class Slots:
    """All slots in `folder`. Raises GruardError only, with the file and the remedy."""

    def __init__(self, folder: Path, disk: StoreDisk) -> None:
        self.folder = folder
        self._disk = disk

    def path(self, digest: str) -> Path:
        """Return the folder of the slot, whether it exists or not."""
        return self.folder / digest

    def __iter__(self) -> Iterator[Slot]:
        """Read and check every slot, in the order of the digests."""
        for digest in self._digests():
            yield self.read(digest)

    def has_any(self) -> bool:
        """Return whether there is any slot."""
        return bool(self._digests())

    def read(self, digest: str) -> Slot:
        """Read a slot; when it is damaged or missing, `fault` says so."""
        path = self.path(digest)
        try:
            bundle = read_bundle(path, allow_failed=True, whole=False)
        except GruardError as error:
            return Slot(path, digest, None, str(error))
        if bundle.digest != digest:
            return Slot(path, digest, None, f"{path}: is another bundle than its name says")
        return Slot(path, digest, bundle, next(iter(proof_faults(bundle)), ""))

    def find(self, name: str) -> Slot:
        """Return the slot called NAME-VERSION, or named by the first digits of its digest.

        Raises GruardError when none or several match.
        """
        slots = list(self)
        called = [slot for slot in slots if name and _is_called(slot, name)]
        if len(called) == 1:
            return called[0]
        if not called:
            labels = ", ".join(sorted(slot.label for slot in slots if slot.label)) or "none"
            raise GruardError(f"{name}: not in the store {self.folder.parent}; there: {labels}")
        digests = ", ".join(slot.digest[:SHORT] for slot in called)
        raise GruardError(f"{name}: several bundles are called so; name one by digest: {digests}")

    def add(self, bundle: Bundle) -> None:
        """Copy `bundle` into its slot, durably, unless the slot is whole already."""
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
        """Remove all slots except `kept` and those that a process holds."""
        for digest in self._digests():
            if digest in kept:
                continue
            with unheld(self.path(digest) / _LOCK) as free:
                if free:
                    self._discard(digest)

    def hold(self, digest: str) -> StoreLock:
        """Protect the slot from removal while this process uses it."""
        return StoreLock(self.path(digest) / _LOCK)

    def _has(self, bundle: Bundle) -> bool:
        slot = self.read(bundle.digest)
        if slot.bundle is None or slot.fault or slot.bundle.files != bundle.files:
            return False
        # Equal digests leave only the signature and its checksum to compare.
        files = [SIGNATURE, CHECKSUM] if SIGNATURE in bundle.files else []
        return all(read_member(slot.path, f) == read_member(bundle.path, f) for f in files)

    def _fill(self, scratch: Path, bundle: Bundle) -> None:
        self._disk.make_folder(scratch)
        for member in bundle.files:
            self._disk.write(scratch / member, read_member(bundle.path, member), _READ_ONLY)
            self._disk.sync(scratch / member)
        self._disk.protect(scratch)
        self._disk.sync(scratch)
        if read_bundle(scratch, allow_failed=True).digest != bundle.digest:
            raise GruardError(f"{bundle.path}: was changed while it was copied; try again")

    def _discard(self, digest: str) -> None:
        if not self.path(digest).is_dir():
            return
        hidden = self._hidden(digest, "old")
        self._disk.rename(self.path(digest), hidden)
        self._disk.sync(self.folder)  # before any of its files goes
        remove_folder(self._disk, hidden)

    def _sweep(self) -> None:
        """Remove slots that a power cut left half made or half removed."""
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
