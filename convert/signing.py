"""Key pairs, and the signature that a device may require."""

import os
from pathlib import Path

from edge_runtime.bundle.reader import (
    CHECKSUM,
    MISSING,
    SIGNATURE,
    checksum,
    read_bundle,
    read_key_file,
    read_member,
)
from edge_runtime.errors import GruardError
from edge_runtime.files import replace_file

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
except ImportError:
    raise GruardError(MISSING) from None

_PRIVATE, _PUBLIC = 0o600, 0o644


def generate_keys(name: Path) -> tuple[Path, Path]:
    """Write `name`.key, readable only by its owner, and `name`.pub, and return the two paths.

    Raises GruardError when one of them already exists.
    """
    private, public = (name.with_name(name.name + ending) for ending in (".key", ".pub"))
    for file in (private, public):
        if file.exists():
            raise GruardError(f"{file}: is already there; a lost key cannot be made again")
    key, pem = Ed25519PrivateKey.generate(), serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    shown = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    _write_new(private, secret, _PRIVATE)
    _write_new(public, shown, _PUBLIC)
    return private, public


def sign_bundle(bundle: Path, key_file: Path) -> Path:
    """Sign the bundle and return the path of the signature.

    An existing signature is replaced. Raises GruardError for a bundle that a device would refuse,
    and for a file that is not a private Ed25519 key.
    """
    digest = read_bundle(bundle).digest
    key, manifest = _read_private_key(key_file), read_member(bundle, "manifest.json")
    signature = key.sign(manifest)
    # First write a checksum without the signature, so that the two never contradict each other.
    replace_file(bundle / CHECKSUM, checksum(digest))
    replace_file(bundle / SIGNATURE, signature)
    replace_file(bundle / CHECKSUM, checksum(digest, signature))
    return bundle / SIGNATURE


def _read_private_key(file: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(read_key_file(file), password=None)
    except TypeError:
        raise GruardError(f"{file}: is encrypted; decrypt it for signing") from None
    except (ValueError, UnsupportedAlgorithm):
        raise GruardError(f"{file}: not a private key in PEM; it is the .key file") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise GruardError(f"{file}: not an Ed25519 key; make one with python -m convert keygen")
    return key


def _write_new(file: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(descriptor)
