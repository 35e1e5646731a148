"""What the signed metadata says about a published bundle, next to its archive's length and hash."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import quote

from edge_runtime.bundle.manifest import SCHEMA
from edge_runtime.errors import GruardError
from edge_runtime.plain import build
from edge_runtime.updates.pointers import DIGEST

MISSING = "signed updates need the package tuf; install it with pip install 'gruard[updates]'"
ASSET = re.compile(r"\w[\w.-]{0,79}")
"""Names of assets: of files, of topics, and in addresses."""
FOLDER = "updates"
"""Folder in a store for what updates need, unless --state names another."""
METADATA, ARCHIVES = "metadata", "targets"
"""Folders of a repository."""


@dataclass(frozen=True)
class Published:
    """A bundle for one asset.

    digest: SHA-256 of its manifest, which names its slot in a store. schema: of its manifest.
    gruard: the version that published it.
    """

    asset: str
    name: str
    version: int
    digest: str
    schema: int
    gruard: str

    @property
    def label(self) -> str:
        """NAME-VERSION."""
        return f"{self.name}-{self.version}"

    def require_readable(self) -> None:
        """Raise GruardError when this version of gruard cannot read the bundle."""
        if self.schema > SCHEMA:
            raise GruardError(
                f"{self.label}: has schema {self.schema}, and this gruard reads {SCHEMA} at most; "
                f"update gruard on this device to {self.gruard}"
            )


def published_from(custom: Any, where: str) -> Published:
    """Return what `custom`, of a target at `where`, says; ignore fields of later versions.

    Raises GruardError.
    """
    known = [field.name for field in fields(Published)]
    if isinstance(custom, Mapping):
        custom = {name: value for name, value in custom.items() if name in known}
    found: Published = build(Published, custom, where)
    if not DIGEST.fullmatch(found.digest):
        raise GruardError(f"{where}: its digest is no SHA-256")
    return found


def target_name(asset: str) -> str:
    """Return the name of the bundle for `asset` in the metadata."""
    return f"{asset}.tar"


def archive_name(asset: str, sha256: str) -> str:
    """Return the name of the archive's file in the folder `ARCHIVES`."""
    return f"{sha256}.{target_name(asset)}"


def archive_url(base: str, asset: str, sha256: str) -> str:
    """Return where a repository at the address `base` has the archive."""
    return f"{base.rstrip('/')}/{ARCHIVES}/{quote(archive_name(asset, sha256))}"
