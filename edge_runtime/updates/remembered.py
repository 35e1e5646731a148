"""What the store knows of its bundles apart from their slots, so that it outlives damage there.

STORE/fallback.json and its copy: what the fallback needs of the current bundle.
STORE/lowest.json and its copy: the lowest version that may be installed, for each name of a bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from edge_runtime.bundle.manifest import FallbackConstants, fallback_constants, fallback_from_dict
from edge_runtime.bundle.reader import Bundle
from edge_runtime.errors import GruardError
from edge_runtime.updates.copies import Copies, Facts, Found
from edge_runtime.updates.disk import Disk


class Remembered:
    """The two kinds of facts. tell: takes one line for each file that is damaged."""

    def __init__(self, root: Path, disk: Disk, tell: Callable[[str], None]) -> None:
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
