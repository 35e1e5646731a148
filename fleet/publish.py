"""Publish the bundles of a fleet as a TUF repository of static files, for any web server.

DIR/targets/SHA256.ASSET.tar      archives of bundles
DIR/metadata/N.targets.json       which archive is whose, with length and hash
DIR/metadata/N.snapshot.json      the version of targets.json that counts
DIR/metadata/timestamp.json       the version of snapshot.json that counts
DIR/metadata/N.root.json          the keys in force

Files with a hash or a number in their name never change. A device begins with timestamp.json, which
is replaced last and as a whole, so it sees the old state or the new one. New root metadata comes
after that: while keys change, everything is signed by the old keys and the new ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from edge_runtime import __version__
from edge_runtime.bundle.archive import pack
from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.errors import GruardError
from edge_runtime.files import read_regular, replace_file, sync
from edge_runtime.updates.disk import locked
from edge_runtime.updates.published import (
    ARCHIVES,
    METADATA,
    Published,
    archive_name,
    published_from,
    target_name,
)
from fleet.keys import KeyFolder, expiry
from fleet.results import AssetResult, asset_folder, newest

LARGEST_TARGETS = 5_000_000
"""Bytes of targets.json; a device reads no more. An asset needs some 380 of them."""
SOON = timedelta(days=30)
"""Metadata that needs an offline key is mentioned when it expires within this time."""

Signed = TypeVar("Signed", Targets, Snapshot, Timestamp)


@dataclass(frozen=True)
class Publication:
    """The result of `publish` or `refresh`.

    assets: those with a published bundle. new: those whose bundle is another one than before.
    problems: one sentence for each asset whose bundle cannot be published; it keeps the one before.
    written: bytes of new archives. version: of targets.json. expires: by role.
    """

    assets: tuple[str, ...]
    new: tuple[str, ...]
    problems: tuple[str, ...]
    written: int
    version: int
    expires: Mapping[str, datetime] = field(repr=False)

    def facts(self) -> dict[str, Any]:
        """Return it as JSON."""
        expires = {role: f"{when:%Y-%m-%dT%H:%M:%SZ}" for role, when in self.expires.items()}
        return asdict(self) | {"assets": len(self.assets), "expires": expires}

    def lines(self, now: datetime) -> list[str]:
        """Return it as text."""
        first = min(self.expires.items(), key=lambda item: item[1])
        lines = [
            f"{len(self.assets):,} assets published, {len(self.new):,} of them new "
            f"({self.written / 1e6:.1f} MB written)",
            f"{first[0]} is valid until {first[1]:%Y-%m-%d %H:%M} UTC; refresh it before",
        ]
        for role in ("root", "targets"):
            if self.expires[role] < now + SOON:
                how = "python -m fleet keys --rotate root" if role == "root" else "publish again"
                lines.append(f"{role} expires on {self.expires[role]:%Y-%m-%d}: {how}")
        return [*lines, *self.problems]


class UpdateRepository:
    """The repository in the folder `path`, signed by `keys`. now: the time in UTC."""

    def __init__(self, path: Path, keys: KeyFolder, now: datetime) -> None:
        self._path, self._keys, self._now = path, keys, now
        self._metadata, self._archives = path / METADATA, path / ARCHIVES

    def publish(self, fleet: Path, only: Iterable[str] | None = None) -> Publication:
        """Publish the newest bundle of each asset in `fleet`, or of those in `only`.

        Without `only`, assets that are no longer in the fleet are no longer published. Raises
        GruardError when nothing can be published.
        """
        with self._held():
            before = self._targets()
            targets = dict(before.signed.targets) if before else {}
            chosen = tuple(fleet_assets(fleet) if only is None else only)
            if only is None:
                targets = {name: t for name in map(target_name, chosen) if (t := targets.get(name))}
            new, problems, written = [], [], 0
            for asset in chosen:
                name = target_name(asset)
                try:
                    bundle = read_bundle(newest_bundle(fleet, asset))
                    target = _target(asset, bundle)
                    written += self._archive(asset, bundle, target)
                except GruardError as error:
                    problems.append(f"{asset}: {error}")
                    continue
                if name not in targets or targets[name].hashes != target.hashes:
                    targets[name] = target
                    new.append(asset)
            if not targets:
                raise GruardError(problems[0] if problems else f"{fleet}: has no bundles; train it")
            return self._signed(before, targets, tuple(new), tuple(problems), written)

    def restore(self, version: int, assets: Iterable[str]) -> Publication:
        """Publish for `assets` what version `version` of targets.json had for them, if anything."""
        with self._held():
            before = self._targets()
            targets = dict(before.signed.targets) if before else {}
            earlier = self._read(Targets, f"{version}.targets.json") if version else None
            names = {target_name(asset): asset for asset in assets}
            for name in names:
                targets.pop(name, None)
            if earlier:
                targets |= {n: t for n, t in earlier.signed.targets.items() if n in names}
            return self._signed(before, targets, tuple(names.values()), (), 0)

    def refresh(self) -> Publication:
        """Sign timestamp.json again and, when half of its days are over, snapshot.json."""
        with self._held():
            if (before := self._targets()) is None:
                raise GruardError(
                    f"{self._path}: nothing is published there; python -m fleet publish"
                )
            if not self._is_signed(before, self._keys.roots[-1:]):
                raise GruardError(f"{self._keys.path}: the keys have changed; publish again first")
            return self._signed(before, before.signed.targets, (), (), 0, offline=False)

    def version(self) -> int:
        """Return the version of targets.json that is published, 0 for none."""
        before = self._targets()
        return before.signed.version if before else 0

    def digests(self) -> dict[str, str]:
        """Return the digest of the published bundle, by asset."""
        if (before := self._targets()) is None:
            return {}
        facts = (published_from(t.custom, t.path) for t in before.signed.targets.values())
        return {published.asset: published.digest for published in facts}

    def _held(self) -> AbstractContextManager[None]:
        for folder in (self._metadata, self._archives):
            folder.mkdir(parents=True, exist_ok=True)
        return locked(self._path / "publish.lock", patience=0.0)

    def _archive(self, asset: str, bundle: Bundle, target: TargetFile) -> int:
        """Write the archive that `target` describes, unless it is there; return its bytes."""
        file = self._archives / archive_name(asset, target.hashes["sha256"])
        if file.is_file() and file.stat().st_size == target.length:
            return 0
        scratch = self._archives / ".new"
        try:
            with scratch.open("wb") as stream:
                stream.writelines(pack(bundle))
            sync(scratch)
            scratch.replace(file)
        finally:
            scratch.unlink(missing_ok=True)
        return target.length

    def _signed(
        self,
        before: Metadata[Targets] | None,
        targets: Mapping[str, TargetFile],
        new: tuple[str, ...],
        problems: tuple[str, ...],
        written: int,
        offline: bool = True,
    ) -> Publication:
        """Write the metadata that has changed, each after what it refers to.

        offline: whether the offline key of the targets may be used.
        """
        sync(self._archives)
        old_snapshot, old_timestamp = self._snapshot(), self._timestamp()
        if before and (not offline or self._keeps(before, targets)):
            top, content = before, self._bytes(f"{before.signed.version}.targets.json")
        else:
            version = self._after(before)
            top = Metadata(Targets(version, expires=self._expiry("targets"), targets=dict(targets)))
            content = self._write("targets", top, numbered=True)
        meta = {"targets.json": MetaFile.from_data(top.signed.version, content, ["sha256"])}
        if old_snapshot and old_snapshot.signed.meta == meta and self._is_fresh(old_snapshot):
            snapshot = old_snapshot
            content = self._bytes(f"{snapshot.signed.version}.snapshot.json")
        else:
            version = self._after(old_snapshot)
            snapshot = Metadata(Snapshot(version, expires=self._expiry("snapshot"), meta=meta))
            content = self._write("snapshot", snapshot, numbered=True)
        version = self._after(old_timestamp)
        newest = MetaFile.from_data(snapshot.signed.version, content, ["sha256"])
        timestamp = Metadata(
            Timestamp(version, expires=self._expiry("timestamp"), snapshot_meta=newest)
        )
        self._write("timestamp", timestamp, numbered=False)
        for root in self._keys.roots:
            name = f"{root.signed.version}.root.json"
            if not (self._metadata / name).exists():
                content = read_regular(self._keys.path / name, LARGEST_TARGETS)
                replace_file(self._metadata / name, content)
        parts = (self._keys.root, top.signed, snapshot.signed, timestamp.signed)
        assets = tuple(target.removesuffix(".tar") for target in sorted(targets))
        expires = {part.type: part.expires for part in parts}
        return Publication(assets, new, problems, written, top.signed.version, expires)

    def _after(self, before: Metadata[Any] | None) -> int:
        """Return the next version, at least the time in seconds.

        So devices accept a repository that was lost and is made anew.
        """
        now = int(self._now.timestamp())
        return max(before.signed.version + 1, now) if before else now

    def _expiry(self, role: str) -> datetime:
        return expiry(role, self._now)

    def _keeps(self, before: Metadata[Targets], targets: Mapping[str, TargetFile]) -> bool:
        """Whether targets.json need not be signed again."""
        return before.signed.targets == dict(targets) and self._is_fresh(before)

    def _is_fresh(self, metadata: Metadata[Any]) -> bool:
        """Whether half of the days are left, and the keys in force have signed it."""
        role = metadata.signed.type
        half = (self._expiry(role) - self._now) / 2
        return metadata.signed.expires - self._now >= half and self._is_signed(
            metadata, self._keys.roots[-1:]
        )

    def _is_signed(self, metadata: Metadata[Any], roots: Iterable[Metadata[Any]]) -> bool:
        for root in roots:
            try:
                root.signed.verify_delegate(
                    metadata.signed.type, metadata.signed_bytes, metadata.signatures
                )
            except (RepositoryError, ValueError):
                continue
            return True
        return False

    def _targets(self) -> Metadata[Targets] | None:
        snapshot = self._snapshot()
        if snapshot is None:
            return None
        return self._read(Targets, f"{snapshot.signed.meta['targets.json'].version}.targets.json")

    def _snapshot(self) -> Metadata[Snapshot] | None:
        timestamp = self._timestamp()
        if timestamp is None:
            return None
        return self._read(Snapshot, f"{timestamp.signed.snapshot_meta.version}.snapshot.json")

    def _timestamp(self) -> Metadata[Timestamp] | None:
        if not (self._metadata / "timestamp.json").exists():
            return None
        return self._read(Timestamp, "timestamp.json")

    def _read(self, kind: type[Signed], name: str) -> Metadata[Signed]:
        """Read metadata that these keys have signed; others may not get their signature this way.

        Raises GruardError.
        """
        file = self._metadata / name
        try:
            metadata: Metadata[Any] = Metadata.from_bytes(self._bytes(name))
        except DeserializationError:
            raise GruardError(f"{file}: damaged; copy it from where it is served") from None
        if metadata.signed.type != kind.type or not self._is_signed(metadata, self._keys.roots):
            raise GruardError(f"{file}: is not signed by these keys; name another --to or --keys")
        return metadata

    def _bytes(self, name: str) -> bytes:
        file = self._metadata / name
        try:
            return read_regular(file, LARGEST_TARGETS)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise GruardError(f"{file}: cannot be read ({why}); copy it again") from None

    def _write(self, role: str, metadata: Metadata[Any], numbered: bool) -> bytes:
        for signer in self._keys.signers(role):
            metadata.sign(signer, append=True)
        content = metadata.to_bytes(JSONSerializer())
        if len(content) > LARGEST_TARGETS:
            raise GruardError(
                f"{role}.json would have {len(content):,} bytes, and devices read "
                f"{LARGEST_TARGETS:,}; divide the fleet into several repositories"
            )
        name = f"{metadata.signed.version}.{role}.json" if numbered else f"{role}.json"
        replace_file(self._metadata / name, content)
        return content


def _target(asset: str, bundle: Bundle) -> TargetFile:
    """Return the entry of `bundle` in the metadata."""
    digest, length = hashlib.sha256(), 0
    for piece in pack(bundle):
        digest.update(piece)
        length += len(piece)
    manifest = bundle.manifest
    facts = Published(
        asset, manifest.name, manifest.version, bundle.digest, manifest.schema, __version__
    )
    hashes = {"sha256": digest.hexdigest()}
    return TargetFile(length, hashes, target_name(asset), {"custom": asdict(facts)})


def fleet_assets(fleet: Path) -> list[str]:
    """Return the names of the assets in the folder `fleet`. Raises GruardError."""
    try:
        return sorted(entry.name for entry in (fleet / "assets").iterdir() if entry.is_dir())
    except OSError:
        raise GruardError(
            f"{fleet}: not the folder of a fleet; make one: python -m fleet train"
        ) from None


def newest_bundle(fleet: Path, asset: str) -> Path:
    """Return the path of an asset's newest bundle. Raises GruardError when there is none."""
    known = newest(asset_folder(fleet, asset), AssetResult)
    if known is None or not known.bundle:
        raise GruardError("has no bundle; train it, or look into report.html")
    return fleet / known.bundle
