"""Results on disk: FLEET/assets/NAME/VERSION/ holds result.json and a bundle, or is not there.

A result is written into a hidden folder and appears by one rename. Its digest covers the input, the
settings and the version of gruard, so an equal digest needs no second learning.
"""

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from edge_runtime import __version__
from edge_runtime.bundle.manifest import Manifest
from edge_runtime.calibration import trial_of
from edge_runtime.errors import GruardError
from edge_runtime.files import open_regular, sync
from edge_runtime.learning.settings import find_settings
from edge_runtime.look.recording import expand
from edge_runtime.plain import read_sealed

RESULT = "result.json"
SCORES = "scores-{}.npz"  # next to a bundle; named after the digest of its input, but the target
LINEAR, NETWORK, AUTO = "linear", "network", "auto"  # models
ASSURED, LEARNED, TRIAL = "assured", "not assured", "trial"
CALM, ALARMS = "calm", "alarms"
PROVEN, DAMAGED, OVER_TARGET = "proven", "damaged", "over target"
REFUSED, UNFIT = "bad input", "failed proof"
TOO_SLOW, TOO_LARGE, CRASHED, BLAMED = "too slow", "too large", "crashed", "kills workers"
FAILED = (DAMAGED, UNFIT, OVER_TARGET, REFUSED, TOO_LARGE, TOO_SLOW, CRASHED, BLAMED)
VERDICTS = (ASSURED, LEARNED, TRIAL, CALM, ALARMS, PROVEN, *FAILED)
Kind = TypeVar("Kind", bound="AssetRow")
OfAsset = TypeVar("OfAsset", bound="AssetResult")
_CHUNK = 1 << 20
_SCHEMA = "1"  # of the digest


@dataclass(frozen=True, slots=True)
class AssetRow:
    """What became of one asset; a row of the table, and result.json.

    verdict: of `VERDICTS`. reason: a sentence behind the verdict. digest: of the input. version: of
    this result, 0 if it failed. bundle: path of the bundle that was made or used. rows: of the
    recording. seconds, cpu_seconds, megabytes: what it cost. reused: whether it is the result of an
    earlier run. weighed: whether a network was trained for it, and kept or not.
    """

    asset: str
    verdict: str
    reason: str
    digest: str = ""
    version: int = 0
    bundle: str = ""
    rows: int = 0
    threshold: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    megabytes: float = 0.0
    host: str = ""
    reused: bool = False
    weighed: bool = False

    @property
    def good(self) -> bool:
        """Whether the asset was learned or scored, or its bundle proven."""
        return self.verdict not in FAILED


@dataclass(frozen=True, slots=True)
class AssetResult(AssetRow):
    """A learned asset, or the model of a type.

    bundle: relative to the fleet's folder; bundle_digest: of its manifest. target, bound: alarms a
    day, and its upper bound. days_needed: of further clean data until the target is assured. kinds:
    share of injected faults whose kind was named, -1 if that was not judged. type: of the asset.
    shared: whether it has the model of its type; choice: why, or why not, or why it has no network
    any more. design: of its channels and period. model: linear or network. gain: of a network over
    the linear detector, in average precision on injected faults.
    """

    target: float = 0.0
    bound: float = 0.0
    days_needed: float = 0.0
    channels: int = 0
    warnings: int = 0
    kinds: float = -1.0
    type: str = ""
    shared: bool = False
    choice: str = ""
    design: str = ""
    model: str = LINEAR
    gain: float = 0.0
    bundle_digest: str = ""


@dataclass(frozen=True, slots=True)
class TypeResult(AssetResult):
    """The model of a type, whose name is in `asset`. assets: that it was learned from."""

    assets: int = 0


@dataclass(frozen=True, slots=True)
class AssetScore(AssetRow):
    """A recording of an asset, scored by its bundle as the device would.

    bundle: absolute. data: SHA-256 of the readings. days: of the recording. share: of its rows in
    alarm. first: row of the first alarm, -1 without one. worst: the largest settled score over the
    threshold.
    """

    data: str = ""
    days: float = 0.0
    alarms: int = 0
    share: float = 0.0
    first: int = -1
    worst: float = 0.0


@dataclass(frozen=True, slots=True)
class AssetProof(AssetRow):
    """A bundle, proven again.

    bundle: absolute. rows: of the recording, if one was given. target: false alarms a day. steps:
    of the self-test. off: largest difference between a forecast of the steps and the formula, in
    channel scales, -1 for a network. days, alarms: of the recording; -1 alarms without one.
    """

    target: float = 0.0
    steps: int = 0
    off: float = -1.0
    days: float = 0.0
    alarms: int = -1


def promised(result: OfAsset, manifest: Manifest) -> OfAsset:
    """Return `result` with what the threshold of `manifest` promises."""
    threshold, trial = next(iter(manifest.thresholds.values())), trial_of(manifest)
    return replace(
        result,
        verdict=TRIAL if trial else ASSURED if threshold.assured else LEARNED,
        reason=trial or threshold.statement,
        threshold=threshold.value,
        target=threshold.wished_per_day,
        bound=threshold.upper_bound_per_day,
        days_needed=threshold.days_needed,
    )


def asset_folder(fleet: Path, name: str) -> Path:
    """Return the folder of all results of the asset `name`."""
    return fleet / "assets" / name


def type_folder(fleet: Path, name: str) -> Path:
    """Return the folder of all results of the type `name`."""
    return fleet / "types" / name


def newest(folder: Path, kind: type[Kind], back: int = 0) -> Kind | None:
    """Return the result with the highest version in an asset's folder, None without one.

    back: how many versions before it, as far as there are so many.
    """
    versions = _versions(folder)
    if not versions:
        return None
    return read_sealed(folder / str(versions[max(len(versions) - 1 - back, 0)]) / RESULT, kind)


def scores_file(folder: Path) -> Path | None:
    """Return the scores behind the newest result in an asset's folder, None if it keeps none."""
    versions = _versions(folder)
    found = (folder / str(versions[-1])).glob(SCORES.format("*")) if versions else iter(())
    return next(found, None)


def source_of(scores: Path) -> str:
    """Return the digest of the input that a file of scores is named after."""
    return scores.stem.removeprefix(Path(SCORES).stem.format(""))


def next_version(folder: Path) -> int:
    """Return the version after the highest; devices refuse a bundle that is older than theirs."""
    return max(_versions(folder), default=0) + 1


def keep(scratch: Path, folder: Path, version: int, kind: type[Kind]) -> Kind:
    """Move a finished result into its place and return it.

    If another worker was first, as after a lost connection, its result stays and is returned.
    """
    target = folder / str(version)
    with contextlib.suppress(OSError):  # not empty: another worker was first
        scratch.rename(target)
        sync(folder)
    shutil.rmtree(scratch, ignore_errors=True)
    found = read_sealed(target / RESULT, kind)
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
    digest = _digest_of(options)
    for file, size in zip(named, sizes, strict=True):
        digest.update(f"{file.name}\0{size}\0".encode())
        for chunk in _chunks(file):
            digest.update(chunk)
    return digest.hexdigest()


def options_digest(options: tuple[str, ...]) -> str:
    """Return the SHA-256 of `options` and the version of gruard."""
    return _digest_of(options).hexdigest()


def _digest_of(options: tuple[str, ...]) -> "hashlib._Hash":
    digest = hashlib.sha256()
    for text in (_SCHEMA, __version__, *options):
        digest.update(text.encode() + b"\0")
    return digest


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
