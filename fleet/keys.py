"""The keys that sign a repository of updates, and the root metadata that says which keys count.

KEYS/offline/root-ID.key, targets-ID.key       needed to change keys, and to publish
KEYS/online/snapshot-ID.key, timestamp-ID.key  needed to publish, and to refresh
KEYS/1.root.json, 2.root.json, …               public: the keys in force, signed by the root keys

ID is the beginning of the key's identifier in the root metadata. The newest root metadata decides
which files are in use, so a key changes by one new file: a killed command leaves the old keys in
force or the new ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from edge_runtime.bundle.reader import read_key_file
from edge_runtime.errors import GruardError
from edge_runtime.files import read_regular, replace_file, sync, write_new
from edge_runtime.plain import shown

MISSING = "signed updates need tuf; run: pip install -c constraints.txt '.[fleet]'"
try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.exceptions import StorageError
    from securesystemslib.signer import CryptoSigner
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata, Root
    from tuf.api.serialization import DeserializationError
    from tuf.api.serialization.json import JSONSerializer
except ImportError:
    raise GruardError(MISSING) from None

OFFLINE, ONLINE = ("root", "targets"), ("snapshot", "timestamp")
ROLES = (*OFFLINE, *ONLINE)
DAYS = {"root": 3 * 365, "targets": 365, "snapshot": 90, "timestamp": 14}
"""Days for which metadata is valid; devices take no update from expired metadata."""
_ID = 8  # hex digits of a key's identifier that name its file
_ROOT = re.compile(r"([1-9][0-9]{0,8})\.root\.json")
_LARGEST_ROOT = 512_000  # bytes; what a device reads at most

Passphrase = Callable[[], str]
"""Gives the passphrase of the private keys; called for encrypted keys only."""


@dataclass(frozen=True)
class KeyFolder:
    """A folder of keys. roots: all versions of the root metadata, oldest first."""

    path: Path
    roots: tuple[Metadata[Root], ...]
    passphrase: Passphrase = field(repr=False)

    @property
    def root(self) -> Root:
        """The root metadata in force."""
        return self.roots[-1].signed

    def signers(self, role: str) -> list[CryptoSigner]:
        """Return the private keys of `role`, and those of the root metadata before the newest.

        Devices that have not seen the newest root metadata yet trust the older keys. Raises
        GruardError when fewer keys are there than `role` needs.
        """
        wanted = [keyid for root in self.roots[-2:] for keyid in root.signed.roles[role].keyids]
        files = {keyid: self._file(role, keyid) for keyid in wanted}
        there = [keyid for keyid, file in files.items() if file.exists()]
        in_force = self.root.roles[role]
        if len({*there} & {*in_force.keyids}) < in_force.threshold:
            missing = next(files[keyid] for keyid in in_force.keyids if keyid not in there)
            raise GruardError(
                f"{missing}: the private key is missing; copy it there from where it is kept"
            )
        return [self._signer(role, keyid) for keyid in there]

    def _file(self, role: str, keyid: str) -> Path:
        return self.path / _place(role) / f"{role}-{keyid[:_ID]}.key"

    def _signer(self, role: str, keyid: str) -> CryptoSigner:
        file = self._file(role, keyid)
        signer = CryptoSigner(_read_private(file, self.passphrase))
        if signer.public_key.keyid != keyid:
            raise GruardError(f"{file}: is another key than the root metadata names")
        return signer


def read_keys(folder: Path, passphrase: Passphrase) -> KeyFolder:
    """Return the keys in `folder`, after a check of the chain of root metadata.

    Raises GruardError when there are none, or the chain is damaged.
    """
    try:
        versions = sorted(int(m[1]) for e in folder.iterdir() if (m := _ROOT.fullmatch(e.name)))
    except OSError as error:
        raise GruardError(
            f"{folder}: cannot be read ({error.strerror}); make keys: python -m fleet keys"
        ) from None
    if not versions or versions != [*range(1, len(versions) + 1)]:
        raise GruardError(
            f"{folder}: 1.root.json and those after it are not complete; copy them from where they "
            "were published, or make new keys: python -m fleet keys --out KEYS"
        )
    roots = tuple(_read_root(folder / f"{version}.root.json") for version in versions)
    for version, (root, following) in enumerate(zip((roots[0], *roots), roots, strict=False), 1):
        _check_link(folder / f"{version}.root.json", root, following, version)
    return KeyFolder(folder, roots, passphrase)


def make_keys(
    folder: Path, now: datetime, passphrase: str, root_keys: int = 1, threshold: int = 1
) -> KeyFolder:
    """Make all keys and the first root metadata in a new folder.

    passphrase: encrypts the private keys, empty for none. root_keys, threshold: how many root keys
    there are, and how many must sign a change of keys. Raises GruardError.
    """
    if threshold > root_keys:
        raise GruardError(f"{threshold} of {root_keys} root keys cannot sign; make more of them")
    if folder.exists() and any(folder.iterdir()):
        raise GruardError(
            f"{folder}: is not empty; lost keys cannot be made again, so name a new folder, or "
            "replace one role's key with --rotate"
        )
    for place in ("offline", "online"):
        (folder / place).mkdir(mode=0o700, parents=True, exist_ok=True)
    root = Root(expires=expiry("root", now), consistent_snapshot=True)
    signers = {role: _new_keys(folder, role, root_keys, passphrase) for role in ROLES}
    for role, made in signers.items():
        for signer in made:
            root.add_key(signer.public_key, role)
    root.roles["root"].threshold = threshold
    _write_root(folder, root, signers["root"])
    return read_keys(folder, lambda: passphrase)


def rotate_keys(keys: KeyFolder, role: str, now: datetime, passphrase: str) -> list[Path]:
    """Replace the keys of `role` by new ones; return the files that are no longer needed.

    The next root metadata is signed by the old root keys and, if these are replaced, the new ones.
    passphrase: encrypts the new keys, empty for none.
    """
    signers = keys.signers("root")
    root = Root.from_dict(keys.root.to_dict())
    root.version, root.expires = keys.root.version + 1, expiry("root", now)
    old = list(root.roles[role].keyids)
    made = _new_keys(keys.path, role, len(old), passphrase)
    for keyid in old:
        root.revoke_key(keyid, role)
    for signer in made:
        root.add_key(signer.public_key, role)
    _write_root(keys.path, root, [*signers, *(made if role == "root" else [])])
    return [keys._file(role, keyid) for keyid in old]


def expiry(role: str, now: datetime) -> datetime:
    """Return when metadata of `role` that is signed at `now` expires."""
    return now.replace(microsecond=0) + timedelta(days=DAYS[role])


def _place(role: str) -> str:
    return "offline" if role in OFFLINE else "online"


def _new_keys(folder: Path, role: str, root_keys: int, passphrase: str) -> list[CryptoSigner]:
    """Make the keys of a role; only the root has several."""
    made = []
    for _ in range(root_keys if role == "root" else 1):
        key = Ed25519PrivateKey.generate()
        signer = CryptoSigner(key)
        encryption = (
            serialization.BestAvailableEncryption(passphrase.encode())
            if passphrase
            else serialization.NoEncryption()
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
        file = folder / _place(role) / f"{role}-{signer.public_key.keyid[:_ID]}.key"
        write_new(file, secret, 0o600)
        sync(file)
        sync(file.parent)
        made.append(signer)
    return made


def _read_private(file: Path, passphrase: Passphrase) -> Ed25519PrivateKey:
    text = read_key_file(file)
    secret = passphrase().encode() if b"ENCRYPTED" in text else None
    try:
        key = serialization.load_pem_private_key(text, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        why = "the passphrase is wrong, or the file is damaged" if secret else "no key in PEM"
        raise GruardError(f"{file}: cannot be used: {why}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise GruardError(f"{file}: not an Ed25519 key; make keys with python -m fleet keys")
    return key


def _write_root(folder: Path, root: Root, signers: Sequence[CryptoSigner]) -> None:
    metadata = Metadata(root)
    for signer in signers:
        metadata.sign(signer, append=True)
    replace_file(folder / f"{root.version}.root.json", metadata.to_bytes(JSONSerializer()))


def _read_root(file: Path) -> Metadata[Root]:
    try:
        return Metadata[Root].from_bytes(read_regular(file, _LARGEST_ROOT))
    except (OSError, ValueError, DeserializationError, StorageError) as error:
        raise GruardError(f"{file}: no root metadata ({shown(str(error), str)})") from None


def _check_link(file: Path, old: Metadata[Root], new: Metadata[Root], version: int) -> None:
    try:
        for signed in (old.signed, new.signed):
            signed.verify_delegate("root", new.signed_bytes, new.signatures)
    except (RepositoryError, ValueError) as error:
        raise GruardError(f"{file}: {error}; copy it from where it was published") from None
    if new.signed.version != version:
        raise GruardError(f"{file}: is version {new.signed.version}; copy it again")
