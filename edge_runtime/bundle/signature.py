"""The optional signature of a bundle: Ed25519 (RFC 8032) over manifest.json.

The manifest has the SHA-256 of every other member, so that this one signature covers them all.
`manifest.sig` holds its 64 bytes and nothing else; keys are PEM files, as `openssl` reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.errors import NotAllowedError
from edge_runtime.files import read_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE = "manifest.sig"
SIGNATURE_BYTES = 64
MISSING = (
    "signatures need the package cryptography; install it with pip install 'gruard[signed]' or, "
    "on Debian, apt install python3-cryptography"
)
_LARGEST_KEY = 1 << 14  # bytes; an Ed25519 key in PEM has 113


def check_signature(
    manifest: bytes, signature: bytes, trusted_keys: Sequence[Path], bundle: Path
) -> None:
    """Raise NotAllowedError unless `signature` is that of `manifest` by one of the keys.

    trusted_keys: PEM files of public keys; each must be readable, also when another one fits.
    """
    keys = [read_public_key(file) for file in trusted_keys]
    if not any(_signed_by(key, manifest, signature) for key in keys):
        names = ", ".join(str(file) for file in trusted_keys)
        raise NotAllowedError(
            f"{bundle / SIGNATURE}: not a signature of this bundle by {names}: edited after "
            "signing, or signed by somebody else"
        )


def read_public_key(file: Path) -> Ed25519PublicKey:
    """The public key in a PEM file. Raises NotAllowedError when there is none."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise NotAllowedError(MISSING) from None
    text = read_key_file(file)
    if b"PRIVATE KEY" in text:
        raise NotAllowedError(
            f"{file}: is a private key, which has no business on a device; trust the .pub file"
        )
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise NotAllowedError(f"{file}: not a public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise NotAllowedError(f"{file}: not an Ed25519 key; make one with python -m convert keygen")
    return key


def read_key_file(file: Path) -> bytes:
    """What is in a key file, which is small. Raises NotAllowedError when it cannot be read."""
    try:
        text = read_regular(file, _LARGEST_KEY)
    except OSError as error:
        raise NotAllowedError(
            f"{file}: cannot be read as a key ({error.strerror}); name a key file"
        ) from None
    if not text.strip():
        raise NotAllowedError(f"{file}: is blank, and so holds no key; copy the key again")
    return text


def _signed_by(key: Ed25519PublicKey, manifest: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        return False
    return True
