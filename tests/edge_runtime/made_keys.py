"""Key pairs and signatures as the workstation makes them, as docs/bundle.md defines them."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.bundle.reader import CHECKSUM, SIGNATURE, checksum, read_bundle


def write_keys(name: Path) -> tuple[Path, Path]:
    """A new private key `name`.key and its public key `name`.pub."""
    key, pem = Ed25519PrivateKey.generate(), serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    shown = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    private, public = name.with_suffix(".key"), name.with_suffix(".pub")
    private.write_bytes(secret)
    public.write_bytes(shown)
    return private, public


def sign(bundle: Path, private: Path) -> None:
    """Sign the manifest of `bundle`, and add the signature to its checksums."""
    key = serialization.load_pem_private_key(private.read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    signature = key.sign((bundle / "manifest.json").read_bytes())
    (bundle / SIGNATURE).write_bytes(signature)
    (bundle / CHECKSUM).write_bytes(checksum(read_bundle(bundle).digest, signature))
