"""A repository of signed updates, as a device sees it: TUF metadata first, then one archive.

STATE/root.json           the root metadata that the owner trusted first (--root)
STATE/metadata/           the newest metadata that was accepted, by tuf.ngclient
STATE/SHA256.ASSET.tar    an archive, as far as it was downloaded
STATE/new/                its bundle, until it is in the store
STATE/lock                held during a check

Metadata is accepted if it is signed by the keys in force, not expired, and not older than what was
accepted before. An archive is accepted if it has the length and the hash that the metadata gives.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from edge_runtime.bundle.archive import LARGEST, unpack
from edge_runtime.errors import GruardError, reason
from edge_runtime.files import read_regular, replace_file, sync
from edge_runtime.plain import shown
from edge_runtime.updates.disk import StoreDisk, locked, make_folders
from edge_runtime.updates.fetcher import Fetcher
from edge_runtime.updates.pointers import DIGEST
from edge_runtime.updates.published import (
    METADATA,
    MISSING,
    Published,
    archive_name,
    archive_url,
    published_from,
    target_name,
)

try:
    from tuf.api.exceptions import (
        BadVersionNumberError,
        DownloadError,
        DownloadHTTPError,
        DownloadLengthMismatchError,
        ExpiredMetadataError,
        LengthOrHashMismatchError,
        RepositoryError,
        SlowRetrievalError,
        UnsignedMetadataError,
    )
    from tuf.api.metadata import Metadata, Root, TargetFile
    from tuf.api.serialization import DeserializationError
    from tuf.ngclient import Updater
except ImportError:
    raise GruardError(MISSING) from None

ROOT, NEW = "root.json", "new"
_LARGEST_ROOT = 512_000  # bytes
_METADATA_ROOM = 1 << 20  # bytes
_NOT_THERE = (403, 404, 410)  # HTTP


class UnreachableError(GruardError):
    """The server does not answer, or too slowly; a later attempt may succeed."""

    exit_code = 1


class UpdateSource:
    """The repository at `address`, as far as it was seen: `folder` keeps that.

    root: the file that --root names, None for the one that the folder keeps. Raises GruardError,
    also when the folder is in one of another user, who could lead what is written there elsewhere.
    """

    def __init__(self, address: str, folder: Path, root: Path | None, fetcher: Fetcher) -> None:
        if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
            raise GruardError(f"--from {shown(address, str)}: give http://… or https://…")
        self._address, self._fetcher = address.rstrip("/"), fetcher
        self._folder = folder
        given = None if root is None else _read_root(root)
        self._make_folder()
        self._trusted = _trusted_root(folder / ROOT, given)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other checks away. Raises BusyError."""
        self._make_folder()
        with locked(self._folder / "lock", patience=0.0):
            yield

    def look(self, asset: str) -> tuple[Published, TargetFile]:
        """Return what is published for `asset`, after all checks of the metadata.

        Raises UnreachableError, and GruardError when the metadata is refused or names no such
        asset.
        """
        metadata = self._folder / METADATA
        with self._explained():
            for leftover in metadata.glob("tmp*"):  # of a process that was killed
                leftover.unlink(missing_ok=True)
            updater = Updater(
                str(metadata), f"{self._address}/{METADATA}", fetcher=self._fetcher,
                bootstrap=self._trusted,
            )  # fmt: skip
            updater.refresh()
            target = updater.get_targetinfo(target_name(asset))
            _make_durable(metadata)
        if target is None:
            raise GruardError(
                f"{self._address}: nothing is published for the asset {shown(asset, str)}; "
                "correct --asset, or publish a bundle for it"
            )
        published = published_from(target.custom, f"{self._address}, {target.path}")
        named = DIGEST.fullmatch(target.hashes.get("sha256", ""))
        if published.asset != asset or not named or not 0 < target.length <= LARGEST:
            raise GruardError(f"{self._address}: {target.path} is no bundle for {asset}")
        return published, target

    def fetch(self, published: Published, target: TargetFile) -> Path:
        """Download and unpack an archive; return the folder of its bundle.

        The bundle is not read yet. Raises UnreachableError, and GruardError when the bytes are not
        those that the metadata promises, or the disk is full.
        """
        sha256 = target.hashes["sha256"]
        archive, folder = self._folder / archive_name(published.asset, sha256), self._folder / NEW
        self.clear(except_for=archive)
        with self._explained(target.length):
            self._fetcher.download(
                archive_url(self._address, published.asset, sha256), archive, target.length
            )
            try:
                with archive.open("rb") as stream:
                    target.verify_length_and_hashes(stream)
                unpack(archive, folder)
            except BaseException:
                self.clear()  # a full disk needs the room, and wrong bytes are of no use
                raise
        return folder

    def clear(self, except_for: Path | None = None) -> None:
        """Remove archives and the unpacked bundle."""
        self.discard()
        for archive in self._folder.glob("*.tar"):
            if archive != except_for:
                with suppress(OSError):
                    archive.unlink()

    def discard(self) -> None:
        """Remove the unpacked bundle; its archive stays, so it is not downloaded again."""
        shutil.rmtree(self._folder / NEW, ignore_errors=True)

    def _make_folder(self) -> None:
        make_folders(StoreDisk(), self._folder)
        _require_own(self._folder)
        make_folders(StoreDisk(), self._folder / METADATA)

    @contextmanager
    def _explained(self, needed: int = 0) -> Iterator[None]:
        """Turn errors of TUF, of downloads and of the disk into GruardErrors.

        needed: bytes of the archive.
        """
        try:
            yield
        except DownloadLengthMismatchError:
            raise GruardError(
                f"{self._address}: sends more bytes than it may; check what serves it"
            ) from None
        except SlowRetrievalError:
            raise UnreachableError(
                f"{self._address}: answers too slowly or not at all; try again later"
            ) from None
        except DownloadHTTPError as error:
            kind = GruardError if error.status_code in _NOT_THERE else UnreachableError
            raise kind(
                f"{self._address}: HTTP status {error.status_code}; check the address, and that "
                "the whole repository is served"
            ) from None
        except DownloadError as error:
            why = reason(error.__cause__ or error)
            raise UnreachableError(f"{self._address}: cannot be read ({why})") from None
        except OSError as error:
            raise GruardError(
                f"{self._folder}: cannot be written ({error.strerror}); make room for "
                f"{3 * needed + _METADATA_ROOM} bytes, as the owner of the store"
            ) from None
        except (RepositoryError, DeserializationError) as error:
            raise GruardError(f"{self._address}: {_refusal(error)}") from None


def _refusal(error: Exception) -> str:
    match error:
        case ExpiredMetadataError():
            return (
                f"the metadata has expired ({error}): its owner has to refresh it, or somebody "
                "holds newer metadata back, or this machine's clock is wrong"
            )
        case BadVersionNumberError():
            return f"offers older metadata than this device has accepted ({error}); refused"
        case LengthOrHashMismatchError():
            return f"a file is not the one that was signed ({error}); refused"
        case UnsignedMetadataError():
            return f"not signed by the keys that this device trusts ({error}); refused"
        case _:
            return f"is no valid repository ({shown(str(error), str)})"


def _require_own(folder: Path) -> None:
    """Raise GruardError unless `folder` is this user's, in one of this user or of root."""
    own = os.geteuid()
    for status, owners in ((folder.lstat(), {own}), (folder.parent.stat(), {own, 0})):
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in owners:
            raise GruardError(
                f"{folder}: is no folder of this user, in one of this user; run the command as the "
                "owner of the store, or name a folder of your own with --state"
            )


def _trusted_root(kept: Path, given: bytes | None) -> bytes:
    """Return the root metadata to begin with; keep what is given if nothing usable is kept."""
    try:
        trusted = _read_root(kept)
    except GruardError as error:
        if given is None:
            raise GruardError(f"{error}; give the owner's file once: --root 1.root.json") from None
        replace_file(kept, given)
        return given
    if given not in (None, trusted):
        raise GruardError(
            f"{kept}: is another root metadata than --root names; leave out --root, or remove "
            f"{kept.parent} to trust another owner"
        )
    return trusted


def _read_root(file: Path) -> bytes:
    try:
        content = read_regular(file, _LARGEST_ROOT)
        root = Metadata[Root].from_bytes(content)
        root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
    except (OSError, ValueError, DeserializationError, RepositoryError) as error:
        raise GruardError(f"{file}: no root metadata ({shown(reason(error), str)})") from None
    return content


def _make_durable(folder: Path) -> None:
    """Sync what ngclient wrote: after a power cut, older metadata must still be refused."""
    with suppress(FileNotFoundError):
        for file in folder.iterdir():
            if file.is_file():
                sync(file)
        sync(folder)
