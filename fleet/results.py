"""Results on disk: FLEET/assets/NAME/VERSION/ holds a bundle and result.json, or is not there.

A result is written into a hidden folder and appears by one rename. Its digest covers the input, the
settings and the version of gruard, so an equal digest needs no second learning.
"""

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_runtime import __version__
from edge_runtime.errors import GruardError
from edge_runtime.files import open_regular, sync
from edge_runtime.learning.settings import find_settings
from edge_runtime.look.recording import expand
from edge_runtime.plain import read_sealed

RESULT = "result.json"
ASSURED, LEARNED, TRIAL = "assured", "not assured", "trial"
REFUSED, UNFIT = "bad input", "failed proof"
TOO_SLOW, TOO_LARGE, CRASHED, BLAMED = "too slow", "too large", "crashed", "kills workers"
GOOD = (ASSURED, LEARNED, TRIAL)
VERDICTS = (*GOOD, UNFIT, REFUSED, TOO_LARGE, TOO_SLOW, CRASHED, BLAMED)
_CHUNK = 1 << 20
_SCHEMA = "1"  # of the digest


@dataclass(frozen=True)
class AssetResult:
    """What became of one asset.

    verdict: of `VERDICTS`. reason: the promise of the threshold, or why there is no bundle. digest:
    of the input. version, bundle: 0 and "" without a bundle; the path is relative to the fleet's
    folder. threshold, target, bound: a score, alarms a day, and the upper bound of alarms a day.
    days_needed: of further clean data until the target is assured. kinds: share of injected faults
    whose kind was named, -1 if not judged. seconds, cpu_seconds, megabytes: what it cost. reused:
    whether it is that of an earlier run.
    """

    asset: str
    verdict: str
    reason: str
    digest: str = ""
    version: int = 0
    bundle: str = ""
    threshold: float = 0.0
    target: float = 0.0
    bound: float = 0.0
    days_needed: float = 0.0
    rows: int = 0
    channels: int = 0
    warnings: int = 0
    kinds: float = -1.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    megabytes: float = 0.0
    host: str = ""
    reused: bool = False

    @property
    def good(self) -> bool:
        """Whether there is a bundle."""
        return self.verdict in GOOD


def asset_folder(fleet: Path, name: str) -> Path:
    """Return the folder of all results of the asset `name`."""
    return fleet / "assets" / name


def newest(folder: Path) -> AssetResult | None:
    """Return the result with the highest version in an asset's folder, None without one."""
    versions = _versions(folder)
    return read_sealed(folder / str(versions[-1]) / RESULT, AssetResult) if versions else None


def next_version(folder: Path) -> int:
    """Return the version after the highest; devices refuse a bundle that is older than theirs."""
    return max(_versions(folder), default=0) + 1


def keep(scratch: Path, folder: Path, version: int) -> AssetResult:
    """Move a finished result into its place and return it.

    If another worker was first, as after a lost connection, its result stays and is returned.
    """
    target = folder / str(version)
    with contextlib.suppress(OSError):  # not empty: another worker was first
        scratch.rename(target)
        sync(folder)
    shutil.rmtree(scratch, ignore_errors=True)
    found = read_sealed(target / RESULT, AssetResult)
    if found is None:
        raise GruardError(f"{target}: cannot be written; check the disk and its permissions")
    return found


def input_digest(data: Path, settings: Path | None, options: tuple[str, ...], most: int) -> str:
    """Return the SHA-256 of all that decides the result of an asset.

    options: target and the like. Raises GruardError when a file is missing, is no file, or all
    together have more than `most` bytes.
    """
    files = expand(data)
    settings = settings or find_settings(files[0])
    named = [*files, *([settings] if settings else [])]
    sizes = [_size(file) for file in named]
    if sum(sizes) > most:
        raise GruardError(
            f"{data}: has {sum(sizes) / 1e9:.1f} GB, more than {most / 1e9:.1f} GB can be learned "
            "from with this --memory; shorten the recording, or raise --memory"
        )
    digest = hashlib.sha256()
    for text in (_SCHEMA, __version__, *options):
        digest.update(text.encode() + b"\0")
    for file, size in zip(named, sizes, strict=True):
        digest.update(f"{file.name}\0{size}\0".encode())
        for chunk in _chunks(file):
            digest.update(chunk)
    return digest.hexdigest()


def _size(file: Path) -> int:
    try:
        status = file.stat()
    except OSError as error:
        raise GruardError(f"{file}: cannot be read ({error.strerror})") from None
    return status.st_size if stat.S_ISREG(status.st_mode) else 0  # opening refuses other kinds


def _chunks(file: Path) -> Iterator[bytes]:
    try:
        with os.fdopen(open_regular(file), "rb") as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise GruardError(f"{file}: cannot be read ({error.strerror})") from None


def _versions(folder: Path) -> list[int]:
    """Return the versions in an asset's folder, in order."""
    if not folder.is_dir():
        return []
    return sorted(int(e.name) for e in folder.iterdir() if e.name.isascii() and e.name.isdigit())
