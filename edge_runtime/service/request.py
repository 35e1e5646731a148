"""From what a user asks of `gruard service install` to the settings of one instance.

What could not run as a service is refused here, with what to do about it.
"""

import math
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edge_runtime
from edge_runtime.address import refuse_own_messages
from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.detector.kernels import CORE_KERNEL_ID, KERNEL_ID
from edge_runtime.detector.thresholds import local_file
from edge_runtime.errors import GruardError
from edge_runtime.service.units import command_line, quoted
from edge_runtime.updates.store import Store

STATE = "/var/lib/gruard"
"""Below it each service has a folder of its own, the only one it may write to."""
BURST, INTERVAL = 4, 600
"""With --on-start-limit reboot: a start and three restarts within ten minutes, then a reboot."""

_DEVICE = r"/dev/[A-Za-z0-9_./-]*[A-Za-z0-9_]"
_FORMS = {
    "--name": (
        "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?",
        "a service's name has small letters, digits and hyphens, 40 at most",
    ),
    "--memory": ("[1-9][0-9]*[KMGT]?", "write a number of bytes, K, M or G, as 256M"),
    "--group": ("[a-z_][a-z0-9_-]*", "is no name of a group"),
    "--device": (_DEVICE, "write the whole path, as /dev/ttyUSB0"),
}
LEARNING_MEMORY = "800M"
"""With --learn or --relearn: the run, and twice what the child may use that learns."""
_NETWORKS = ("mqtt:", "mqtts:", "modbus:")
_HOMES = ("/home/", "/root/", "/run/user/")


@dataclass(frozen=True)
class ServiceRequest:
    """What `gruard service install` was asked for, option by option.

    words: the arguments of `gruard run`, or `record` and its arguments. run: the same, parsed, as
    options of `gruard run`; its store is None unless it is among the words. reader: what prints the
    samples, in words. root: the device's / as a folder.
    """

    words: tuple[str, ...]
    run: Mapping[str, Any]
    name: str | None
    reader: tuple[str, ...]
    devices: tuple[str, ...]
    groups: tuple[str, ...]
    network: bool
    memory: str | None
    watchdog_sec: int | None
    on_start_limit: str
    python: str
    root: Path

    @property
    def here(self) -> bool:
        """Whether the service is for this machine."""
        return self.root == Path("/")

    @property
    def records(self) -> bool:
        """Whether the service is `gruard record`, which needs no bundle."""
        return self.words[:1] == ("record",)

    @property
    def learns(self) -> bool:
        """Whether the run learns, for which it needs no bundle."""
        return any(self.run[option] is not None for option in ("learn", "relearn"))

    @property
    def inputs(self) -> list[str]:
        """What has to be there and readable."""
        run, delegate = self.run, self.run["delegate"] or ""
        named = (run["bundle"], *run["trusted_keys"], run["delegate_model"])
        source = _plain_files([run["source"].removeprefix("python:")])
        library = [delegate] if "/" in delegate else []
        return [*(str(path) for path in named if path), *library, *source]

    def place(self, path: Path | str) -> Path:
        """Return where a path of the device lies on this machine."""
        return self.root / str(path).lstrip("/")


def checked(option: str, value: str) -> str:
    """Return `value` if it has the form that `option` asks for; raise GruardError otherwise."""
    pattern, form = _FORMS[option]
    if not re.fullmatch(pattern, value):
        raise GruardError(f"{option} {value}: {form}")
    return value


def instance(asked: ServiceRequest) -> tuple[str, str]:
    """Return the name of the service and its settings. Raises GruardError if it could not run."""
    memory = () if asked.memory is None else (asked.memory,)
    given = {"--memory": memory, "--group": asked.groups, "--device": asked.devices}
    for option, values in given.items():
        for value in values:
            checked(option, value)
    for path in asked.inputs:
        _require_readable(asked, path)
    bundle = None if asked.records else _bundle(asked)
    if not (asked.name or bundle):
        raise GruardError("there is no bundle to be named after; add --name NAME before --")
    name = checked("--name", asked.name or (bundle.manifest.name.lower() if bundle else ""))
    _check_streams(asked)
    _check_writes(asked, f"{STATE}/{name}")
    if asked.here:
        _check_python(asked.python)
    unit, service = _unit_lines(asked), _service_lines(asked, bundle)
    return name, _section("Unit", unit) + _section("Service", service)


def watchdog_seconds(asked: int | None, period: float | None) -> int:
    """Return after how many seconds without an answered sample systemd restarts the service."""
    return asked or max(30, math.ceil(3 * (period or 0.0)))


def devices_in(words: Iterable[str]) -> tuple[str, ...]:
    """Return the device files that the words name, also within one: serial:/dev/ttyUSB0,115200."""
    found = (device for word in words for device in re.findall(rf"(?<![\w./-]){_DEVICE}", word))
    return tuple(dict.fromkeys(found))


def groups_of(devices: Iterable[str]) -> tuple[str, ...]:
    """Return the groups that may open the devices that are there, where not everybody may."""
    groups: list[str] = []
    for device in map(Path, devices):
        with suppress(OSError, KeyError):
            if device.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH) == stat.S_IRGRP:
                groups.append(device.group())
    return tuple(dict.fromkeys(group for group in groups if group != "root"))


def _section(title: str, lines: Iterable[str]) -> str:
    text = "".join(f"{line}\n" for line in lines)
    return f"\n[{title}]\n{text}" if text else ""


def _unit_lines(asked: ServiceRequest) -> Iterator[str]:
    if asked.network:
        yield "Wants=network-online.target"
        yield "After=network-online.target"
    if asked.on_start_limit == "reboot":
        yield f"StartLimitIntervalSec={INTERVAL}"
        yield f"StartLimitBurst={BURST}"
        yield "StartLimitAction=reboot"


def _service_lines(asked: ServiceRequest, bundle: Bundle | None) -> Iterator[str]:
    run, here = asked.run, asked.here
    yield f"ExecStart={command_line(_command(asked))}"
    period = bundle.manifest.period if bundle else run["period"]
    yield f"WatchdogSec={watchdog_seconds(asked.watchdog_sec, period)}"
    if any(asked.place(path).is_file() for path in _plain_files([run["source"]])):
        yield "# A recording is played once."
        yield "Restart=on-failure"
    if asked.on_start_limit == "reboot":
        yield "# A reboot does not mend a problem in the command line or the bundle."
        yield "RestartPreventExitStatus=2"
    if memory := asked.memory or (LEARNING_MEMORY if asked.learns else None):
        yield f"MemoryMax={memory}"
    if asked.learns:
        yield "# What learns in the background lowers its own priority."
        yield "SystemCallFilter=setpriority sched_setscheduler"
    if homes := _paths_in_homes(asked, bundle):
        yield "ProtectHome=tmpfs"
        yield from (f"BindReadOnlyPaths={quoted(path)}" for path in homes)
    if devices := devices_in((*asked.devices, *asked.words)):
        yield "PrivateDevices=no"
        yield "PrivateUsers=no"
        yield from (f"DeviceAllow={device} rw" for device in devices)
    if groups := asked.groups or (groups_of(devices) if here else ()):
        yield f"SupplementaryGroups={' '.join(groups)}"
    if asked.network:
        yield "PrivateNetwork=no"
        yield "RestrictAddressFamilies=AF_INET AF_INET6"
        yield "IPAddressDeny="
    if run["delegate"] or run["kernel"] not in (None, KERNEL_ID, CORE_KERNEL_ID):
        yield "# This arithmetic may write machine code and run it."
        yield "MemoryDenyWriteExecute=no"


def _command(asked: ServiceRequest) -> tuple[str, ...]:
    """The words that systemd starts; with a sink's file, so that a restart goes on with it."""
    appends = bool(_plain_files(asked.run["sinks"])) and not asked.run["append"]
    start = () if asked.records else ("run", *["--append"] * appends)
    run = (asked.python, "-m", "edge_runtime", *start, *asked.words)
    if not asked.reader:
        return run
    # Not a pipeline: gruard has to be the main process, to which the watchdog is addressed.
    return ("/bin/bash", "-c", f"exec {shlex.join(run)} < <(exec {shlex.join(asked.reader)})")


def _paths_in_homes(asked: ServiceRequest, bundle: Bundle | None) -> list[str]:
    """What the service needs below people's homes, which are hidden from it otherwise."""
    ours = [sys.prefix, sys.base_prefix, str(Path(edge_runtime.__file__).parents[1])]
    paths = [*ours * asked.here, *asked.inputs, *asked.reader]
    if bundle and asked.run["bundle"] and local_file(bundle.path).exists():
        paths.append(str(local_file(asked.run["bundle"])))
    needed = [path for path in dict.fromkeys(paths) if path.startswith(_HOMES)]
    for path in needed:
        if ":" in path:
            raise GruardError(f"{path}: systemd cannot show a path with a colon; move it")
    return needed


def _bundle(asked: ServiceRequest) -> Bundle | None:
    """Return the bundle that the service begins with, None where it learns one first."""
    store = asked.run["store"]
    if asked.run["learn"] is not None:
        place = Store(asked.place(_absolute(str(store)))) if store else None
        if place is None or place.pointers().current is None:
            return None
    keys = [asked.place(key) for key in asked.run["trusted_keys"]]
    return read_bundle(_bundle_folder(asked), asked.run["allow_failed"], keys)


def _bundle_folder(asked: ServiceRequest) -> Path:
    """Where the bundle lies that the service begins with; in a store, the current one."""
    if asked.run["bundle"]:
        return asked.place(asked.run["bundle"])
    if not (store := asked.run["store"]):
        raise GruardError(
            f"a service needs a BUNDLE, or --store {STATE}/NAME with a bundle that was installed "
            "there"
        )
    place = Store(asked.place(_absolute(str(store))))
    if (current := place.pointers().current) is None:
        raise GruardError(
            f"{store}: no bundle is installed there; gruard install BUNDLE --store {store}"
        )
    return place.slots.path(current)


def _check_streams(asked: ServiceRequest) -> None:
    """Raise GruardError unless the source and the sinks suit a service."""
    run, reader = asked.run, asked.reader
    refuse_own_messages(run["source"], run["sinks"])
    ends = (run["source"], *run["sinks"])
    networked = any(end.startswith(_NETWORKS) for end in ends) or run["metrics"] is not None
    problems = {
        "--watchdog, --state, --status: systemd watches a service and keeps its folders; leave "
        "them away": any(run[option] for option in ("watchdog", "state", "status_file")),
        '--source -: a service has no stdin; name what prints the samples: --reader "/path …"': run[
            "source"
        ]
        == "-"
        and not reader,
        "--reader is for gruard run --source -": reader and run["source"] != "-",
        "--force would empty the sink at every restart; leave it away: a service appends": run[
            "force"
        ],
        "mqtt://, modbus:// and --metrics need the network: gruard service install "
        "--network": networked and not asked.network,
    }
    for problem, found in problems.items():
        if found:
            raise GruardError(problem)
    if reader:
        _absolute(reader[0])


def _check_writes(asked: ServiceRequest, own: str) -> None:
    """Raise GruardError unless the service writes to its folder `own` only."""
    store = asked.run["store"]
    kept = (asked.run["journal"], asked.run["keep_readings"])
    folders = (*kept, None if store == Path(own) else store)
    for path in (*(str(folder) for folder in folders if folder), *_plain_files(asked.run["sinks"])):
        if not _absolute(path).startswith(f"{own}/") or ".." in Path(path).parts:
            raise GruardError(
                f"{path}: this service may write below {own} only; put it there, or leave it "
                "away and read the records from systemd's journal"
            )


def _check_python(python: str) -> None:
    """Raise GruardError unless `python` finds gruard from anywhere, as a service would."""
    words = [_absolute(python), "-c", "import edge_runtime"]
    try:
        subprocess.run(words, cwd="/", env={}, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise GruardError(
            f"{python}: gruard is not installed for it; install the wheel with its pip"
        ) from None


def _plain_files(targets: Iterable[str]) -> list[str]:
    """Those that are paths: neither - nor of a kind such as serial:."""
    return [t for t in targets if t != "-" and not re.match(r"[a-z][a-z0-9+.-]*:", t)]


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise GruardError(f"{path}: a service starts in no folder of yours; give the whole path")
    return path


def _require_readable(asked: ServiceRequest, path: str) -> None:
    """Look at the bits: whoever installs is root and may read everything."""
    place = asked.place(_absolute(path))
    if not place.exists():
        raise GruardError(f"{path}: no such file or bundle")
    for entry in (place, *place.rglob("*")):
        needed = stat.S_IROTH | (stat.S_IXOTH if entry.is_dir() else 0)
        if needed & ~entry.stat().st_mode:
            raise GruardError(f"{path}: the service cannot read it; chmod -R a+rX {path}")
    # What is in a home is shown to the service without the folders above it.
    for folder in () if path.startswith(_HOMES) else Path(path).parents:
        if not asked.place(folder).stat().st_mode & stat.S_IXOTH:
            raise GruardError(
                f"{path}: the service cannot pass {folder}; chmod a+x {folder}, or put the "
                f"bundle into {STATE}"
            )
