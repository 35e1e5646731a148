"""A repository of signed updates, as a device sees it: TUF metadata first, then one archive.

STORE/updates/root.json           the root metadata that the owner trusted first (--root)
STORE/updates/metadata/           the newest metadata that was accepted, by tuf.ngclient
STORE/updates/SHA256.ASSET.tar    an archive, as far as it was downloaded
STORE/updates/new/                its bundle, until it is in the store
STORE/updates/lock                held during a check

Metadata is accepted if it is signed by the keys in force, not expired, and not older than what was
accepted before. An archive is accepted if it has the length and the hash that the metadata gives.
"""

from __future__ import annotations

import shutil
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
from edge_runtime.updates.published import (
    FOLDER,
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

ROOT = "root.json"
_LARGEST_ROOT = 512_000  # bytes
_METADATA_ROOM = 1 << 20  # bytes
_NOT_THERE = (403, 404, 410)  # HTTP


class UnreachableError(GruardError):
    """The server does not answer, or too slowly; a later attempt may succeed."""

    exit_code = 1


class UpdateSource:
    """The repository at `address`, for the store in the folder `store`.

    root: the file that --root names, None for the one that the store keeps. One check at a time.
    Raises GruardError.
    """

    def __init__(self, address: str, store: Path, root: Path | None, fetcher: Fetcher) -> None:
        if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
            raise GruardError(f"--from {shown(address, str)}: give http://… or https://…")
        self._address, self._fetcher = address.rstrip("/"), fetcher
        self._folder = store / FOLDER
        given = None if root is None else _read_root(root)
        make_folders(StoreDisk(), self._folder / METADATA)
        self._trusted = _trusted_root(self._folder / ROOT, given)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other checks of this store away. Raises BusyError."""
        with locked(self._folder / "lock", patience=0.0):
            yield

    def look(self, asset: str) -> tuple[Published, TargetFile]:
        """Return what is published for `asset`, after all checks of the metadata.

        Raises UnreachableError, and GruardError when the metadata is refused or names no such
        asset.
        """
        metadata = self._folder / METADATA
        for leftover in metadata.glob("tmp*"):  # of a process that was killed
            leftover.unlink(missing_ok=True)
        with self._explained():
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
        if published.asset != asset or not 0 < target.length <= LARGEST:
            raise GruardError(f"{self._address}: {target.path} is no bundle for {asset}")
        return published, target

    def fetch(self, published: Published, target: TargetFile) -> Path:
        """Download and unpack an archive; return the folder of its bundle.

        The bundle is not read yet. Raises UnreachableError, and GruardError when the bytes are not
        those that the metadata promises, or the disk is full.
        """
        sha256 = target.hashes.get("sha256", "")
        archive = self._folder / archive_name(published.asset, sha256)
        folder = self._folder / "new" / f"{published.label}.gruard"
        self.clear(except_for=archive)
        with self._explained(target.length):
            self._fetcher.download(
                archive_url(self._address, published.asset, sha256), archive, target.length
            )
            try:
                with archive.open("rb") as stream:
                    target.verify_length_and_hashes(stream)
                folder.parent.mkdir()
                unpack(archive, folder)
            except BaseException:
                self.clear()  # a full disk needs the room, and wrong bytes are of no use
                raise
        return folder

    def clear(self, except_for: Path | None = None) -> None:
        """Remove archives and unpacked bundles."""
        shutil.rmtree(self._folder / "new", ignore_errors=True)
        for archive in self._folder.glob("*.tar"):
            if archive != except_for:
                archive.unlink()

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


def _trusted_root(kept: Path, given: bytes | None) -> bytes:
    """Return the root metadata to begin with; keep what is given if it is the first."""
    if not kept.exists():
        if given is None:
            raise GruardError(
                f"{kept}: no root metadata is trusted yet; give the owner's file with --root "
                "1.root.json, once"
            )
        replace_file(kept, given)
    trusted = _read_root(kept)
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
