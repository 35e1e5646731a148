"""Damage real files: flip a bit, truncate, or edit with matching hashes."""

import ctypes
import hashlib
import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_runtime.bundle.manifest import PROOF
from edge_runtime.bundle.reader import CHECKSUM, checksum

SPECIAL_FILES = ("a directory", "a named pipe", "a socket", "a device")


def make_special(path: Path, kind: str) -> None:
    """Make one of SPECIAL_FILES at `path`; a device needs root."""
    if kind == "a directory":
        path.mkdir()
    elif kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        folder = os.open(path.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as bound:  # whose address has at most 107 bytes
            bound.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)
    else:
        os.mknod(path, stat.S_IFCHR | 0o644, os.makedev(1, 5))  # /dev/zero, which has no end


def flip_bit(file: Path, position: int, bit: int = 0) -> None:
    """Flip one bit of the byte at `position`."""
    data = bytearray(file.read_bytes())
    data[position] ^= 1 << bit
    file.write_bytes(data)


def truncate(file: Path, share: float) -> None:
    """Keep the first `share` of the file."""
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])


def edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Let `change` edit the parsed manifest of `bundle` in place."""
    file = bundle / "manifest.json"
    data = json.loads(file.read_text())
    change(data)
    write_manifest(bundle, json.dumps(data).encode())


def write_manifest(bundle: Path, text: bytes) -> None:
    """Write another manifest with a matching checksum."""
    (bundle / "manifest.json").write_bytes(text)
    (bundle / CHECKSUM).write_bytes(checksum(hashlib.sha256(text).hexdigest()))


def replace_member(bundle: Path, member: str, data: bytes) -> None:
    """Write another member with a matching hash, as an attacker would."""
    (bundle / member).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    section = "proof" if member in PROOF else "members"
    edit_manifest(bundle, lambda manifest: manifest[section].update({member: digest}))


def flip_in_memory(data: bytes, position: int) -> None:
    """Flip a bit of an immutable object, as a cosmic ray would."""
    header = bytes.__basicsize__ - 1  # of CPython; the contents follow
    byte = ctypes.c_ubyte.from_address(id(data) + header + position)
    byte.value ^= 1
