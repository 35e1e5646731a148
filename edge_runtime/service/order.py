"""From the words after `--` to a service, refused where it could not run as one."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import edge_runtime
from edge_runtime.address import refuse_own_messages
from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.thresholds import local_file
from edge_runtime.errors import GruardError

STATE = "/var/lib/gruard"
"""Below it each service has a folder of its own, the only one it may write to."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:")
_DEVICE = re.compile(r"(?<![\w./-])/dev/[A-Za-z0-9_./-]*[A-Za-z0-9_]")
_HOMES = ("/home", "/root", "/run/user")


@dataclass(frozen=True)
class Order:
    """What `gruard run` would be told, as far as a service cares.

    words: all of it, as typed. bundle: None is the one that the store names; store: None where
    there is a bundle. overwrite: --force. append: --append. delegate, compiled: an accelerator's
    library and model. networked: something of it needs the network. keeps_itself: --watchdog,
    --state or --status is among it. root: the folder that is the device's / (an image), or /.
    """

    words: tuple[str, ...]
    bundle: Path | None
    store: Path | None
    source: str
    sinks: tuple[str, ...]
    keys: tuple[Path, ...]
    overwrite: bool
    append: bool
    allow_failed: bool
    kernel: str | None
    delegate: str | None
    compiled: Path | None
    journal: Path | None
    networked: bool
    keeps_itself: bool
    root: Path = Path("/")

    @property
    def files(self) -> tuple[Path, ...]:
        """What has to be there and readable."""
        library = [self.delegate] if self.delegate and "/" in self.delegate else []
        named = (self.bundle, *self.keys, *library, self.compiled, *_plain_files([self.source]))
        return tuple(Path(path) for path in named if path)

    @property
    def service_words(self) -> tuple[str, ...]:
        """The words, so that a restart goes on with a sink's file and does not refuse it."""
        goes_on = self.append or not _plain_files(self.sinks)
        return self.words if goes_on else ("--append", *self.words)

    def here(self, path: Path | str) -> Path:
        """Where a path of the device lies on this machine."""
        return self.root / str(path).lstrip("/")


def checked_name(name: str) -> str:
    """`name` if it can name a unit and a folder; GruardError otherwise."""
    if not _NAME.fullmatch(name):
        raise GruardError(
            f"--name {name}: a service's name has small letters, digits and hyphens, 40 at most"
        )
    return name


def check_paths(order: Order) -> None:
    """Raise GruardError unless every path is absolute and readable by a user of no privileges."""
    for path in (*order.files, *([order.store] if order.store else [])):
        _require_absolute(str(path))
    if order.bundle and not order.here(order.bundle).exists():
        raise GruardError(f"{order.bundle}: no such bundle")
    for path in order.files:
        _require_readable(order, path)


def check_streams(order: Order, name: str, reader: Sequence[str]) -> None:
    """Raise GruardError unless source and sinks suit a service called `name`."""
    if order.keeps_itself:
        raise GruardError(
            "--watchdog, --state, --status: systemd watches a service and keeps its folders; leave "
            "them away"
        )
    if order.source == "-" and not reader:
        raise GruardError(
            '--source -: a service has no stdin; name what prints the samples: --reader "/path …"'
        )
    if reader and order.source != "-":
        raise GruardError("--reader is for gruard run --source -")
    refuse_own_messages(order.source, order.sinks)
    if reader:
        _require_absolute(reader[0])
    if order.journal is not None:
        _require_own(str(order.journal), name)
    if order.store is not None and order.store != Path(STATE, name):
        _require_own(str(order.store), name)
    for path in _plain_files(order.sinks):
        _require_own(path, name)
        if order.overwrite:
            raise GruardError(
                f"{path}: --force would empty it at every restart; leave it away: a service appends"
            )


def check_network(order: Order, allowed: bool) -> None:
    """Raise GruardError unless what needs the network was given it."""
    if order.networked and not allowed:
        raise GruardError(
            "mqtt:// and --metrics need the network: gruard service install --network"
        )


def is_endless(order: Order) -> bool:
    """Whether the source is a stream, not a recording that has an end."""
    return not any(order.here(path).is_file() for path in _plain_files([order.source]))


def devices_in(words: Iterable[str]) -> tuple[str, ...]:
    """The device files that the words name, also inside of one: serial:/dev/ttyUSB0,115200."""
    found = (device for word in words for device in _DEVICE.findall(word))
    return tuple(dict.fromkeys(found))


def groups_of(devices: Iterable[str]) -> tuple[str, ...]:
    """The groups that may open the devices that are there, as far as not everybody may."""
    groups: list[str] = []
    for device in devices:
        with suppress(OSError, KeyError):
            mode = Path(device).stat().st_mode
            if mode & stat.S_IRGRP and not mode & stat.S_IROTH:
                groups.append(Path(device).group())
    return tuple(dict.fromkeys(group for group in groups if group != "root"))


def homes_in(order: Order, bundle: Bundle, reader: Sequence[str]) -> tuple[str, ...]:
    """What the service needs below people's homes, which are hidden from it otherwise."""
    ours = [sys.prefix, sys.base_prefix, str(Path(edge_runtime.__file__).parents[1])]
    paths = [*(ours if order.root == Path("/") else []), *map(str, order.files)]
    paths += [word for word in reader if word.startswith("/")]
    needed = [path for path in dict.fromkeys(paths) if path.startswith(tuple(_below(_HOMES)))]
    if order.bundle and str(order.bundle) in needed and local_file(bundle.path).exists():
        needed.append(str(local_file(order.bundle)))
    for path in needed:
        if ":" in path:
            raise GruardError(f"{path}: systemd cannot show a path with a colon; move it")
    return tuple(needed)


def check_python(python: str) -> None:
    """Raise GruardError unless `python` finds gruard from anywhere, as a service would."""
    _require_absolute(python)
    words = [python, "-c", "import edge_runtime"]
    found = subprocess.run(words, cwd="/", env={}, capture_output=True, check=False)
    if found.returncode:
        raise GruardError(
            f"{python}: gruard is not installed for it; install the wheel with its pip"
        )


def _below(folders: Iterable[str]) -> Iterable[str]:
    return (f"{folder}/" for folder in folders)


def _plain_files(targets: Iterable[str]) -> list[str]:
    """Those that are paths: neither - nor of a kind such as serial:."""
    return [target for target in targets if target != "-" and not _SCHEME.match(target)]


def _require_absolute(path: str) -> None:
    if not path.startswith("/"):
        raise GruardError(f"{path}: a service starts in no folder of yours; give the whole path")


def _require_own(path: str, name: str) -> None:
    _require_absolute(path)
    if not path.startswith(f"{STATE}/{name}/") or ".." in Path(path).parts:
        raise GruardError(
            f"{path}: this service may write below {STATE}/{name} only; put it there, or leave it "
            "away and read the records from systemd's journal"
        )


def _require_readable(order: Order, path: Path) -> None:
    """Look at the bits: whoever installs is root and may read everything."""
    if not order.here(path).exists():
        raise GruardError(f"{path}: no such file")
    if not _open_to_all(order.here(path)):
        raise GruardError(f"{path}: the service cannot read it; chmod -R a+rX {path}")
    if str(path).startswith(tuple(_below(_HOMES))):
        return  # shown to the service by itself, without the folders above it
    for folder in path.parents:
        if not order.here(folder).stat().st_mode & stat.S_IXOTH:
            raise GruardError(
                f"{path}: the service cannot pass {folder}; chmod a+x {folder}, or put the "
                f"bundle into {STATE}"
            )


def _open_to_all(path: Path) -> bool:
    if not path.is_dir():
        return bool(path.stat().st_mode & stat.S_IROTH)
    mine = path.stat().st_mode
    passable = bool(mine & stat.S_IROTH and mine & stat.S_IXOTH)
    return passable and all(_open_to_all(Path(entry)) for entry in os.scandir(path))
