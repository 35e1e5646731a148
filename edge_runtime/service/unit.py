"""The text of a hardened unit: what the service may do, and when systemd steps in."""

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edge_runtime.service.quoting import command_line, plain, quoted

MARK = "# Written by gruard service install; gruard service uninstall removes it."
"""The first line of every unit of ours, and of none that is not."""
BURST, INTERVAL = 4, 600
"""With a start limit: a start and three restarts within ten minutes, and then the action."""
ENVIRONMENT = "/etc/gruard"
"""Where NAME.env may lie, the environment of a service."""
LOADING = 20
"""Seconds the model may take to load, see `supervision.policy`."""


@dataclass(frozen=True)
class Service:
    """One machine watched as a service.

    name: the unit is gruard-NAME.service. python: the interpreter that has gruard.
    words: the arguments of `gruard run`. reader: a command whose output is gruard's stdin.
    period: seconds between samples, None when unknown. endless: the source is not meant to end.
    devices: may be read and written; groups: whose files may be read, and so devices be opened.
    homes: paths below /home or /root that are needed; the rest of them is hidden.
    generates_code: the arithmetic may write machine code and run it, as the reference does not.
    reboot: start limit with a reboot behind it; else systemd restarts for ever.
    """

    name: str
    python: str
    words: tuple[str, ...]
    reader: tuple[str, ...] = ()
    period: float | None = None
    endless: bool = True
    devices: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()
    network: bool = False
    memory: str = "256M"
    watchdog: int | None = None
    generates_code: bool = False
    reboot: bool = False

    @property
    def unit(self) -> str:
        """The unit's name."""
        return unit_name(self.name)

    @property
    def patience(self) -> int:
        """WatchdogSec=: seconds without an answered sample until systemd restarts the service."""
        return self.watchdog or max(30, math.ceil(3 * (self.period or 0.0)))


def unit_name(name: str) -> str:
    """What the unit of the service `name` is called."""
    return f"gruard-{name}.service"


def unit_text(service: Service) -> str:
    """The whole unit file."""
    sections = {
        "Unit": _unit(service),
        "Service": (
            *_life(service),
            *_limits(service),
            *_identity(service),
            *_files(service),
            *_devices(service),
            *_network(service),
            *_kernel(service),
        ),
        "Install": ("WantedBy=multi-user.target",),
    }
    told = ("\n".join((f"[{name}]", *lines)) + "\n" for name, lines in sections.items())
    return MARK + "\n" + "\n".join(told)


def _unit(service: Service) -> Iterator[str]:
    yield f"Description={plain(f'gruard watches {service.name}')}"
    if service.network:
        yield "Wants=network-online.target"
        yield "After=network-online.target"
    if service.reboot:
        yield f"StartLimitIntervalSec={INTERVAL}"
        yield f"StartLimitBurst={BURST}"
        yield "StartLimitAction=reboot"
    else:
        yield "# Never give up: a watcher that stays away is silent."
        yield "StartLimitIntervalSec=0"


def _life(service: Service) -> Iterator[str]:
    yield "Type=notify"
    yield "NotifyAccess=main"
    yield "# Passwords, say; read by systemd, so that it may be closed to everybody but root."
    yield f"EnvironmentFile=-{ENVIRONMENT}/{service.name}.env"
    yield f"ExecStart={command_line(_command(service))}"
    yield f"TimeoutStartSec={LOADING + 70}"
    yield f"WatchdogSec={service.patience}"
    yield "TimeoutAbortSec=5"
    yield "TimeoutStopSec=15"
    yield f"Restart={'always' if service.endless else 'on-failure'}"
    yield "# After starts that did not last, gruard itself waits longer each time."
    yield "RestartSec=1"
    if service.reboot:
        yield "# A problem in the command line or the bundle is not mended by a reboot."
        yield "RestartPreventExitStatus=2"
    yield "# The supervisor ends its worker itself."
    yield "KillMode=mixed"
    yield "StandardOutput=journal"
    yield "StandardError=journal"
    yield "LogRateLimitIntervalSec=0"


def _command(service: Service) -> Sequence[str]:
    words = (service.python, "-m", "edge_runtime", "run", *service.words)
    if not service.reader:
        return words
    # Not a pipeline: gruard has to be the main process, to which the watchdog is addressed.
    reader = shlex.join(service.reader)
    return ("/bin/bash", "-c", f"exec {shlex.join(words)} < <(exec {reader})")


def _limits(service: Service) -> Iterator[str]:
    yield f"MemoryMax={service.memory}"
    yield "# A worker out of memory is the supervisor's to replace."
    yield "OOMPolicy=continue"
    yield "OOMScoreAdjust=-500"
    yield "TasksMax=32"
    yield "LimitCORE=0"


def _identity(service: Service) -> Iterator[str]:
    yield "DynamicUser=yes"
    if service.groups:
        yield f"SupplementaryGroups={' '.join(service.groups)}"
    yield "NoNewPrivileges=yes"
    yield "CapabilityBoundingSet="
    yield "AmbientCapabilities="
    yield "# Its status is for everybody; its state folder is closed by its own mode."
    yield "UMask=0022"
    yield "KeyringMode=private"


def _files(service: Service) -> Iterator[str]:
    yield f"StateDirectory=gruard/{service.name}"
    yield "StateDirectoryMode=0750"
    yield f"RuntimeDirectory=gruard/{service.name}"
    yield "ProtectSystem=strict"
    yield f"ProtectHome={'tmpfs' if service.homes else 'yes'}"
    for path in service.homes:
        yield f"BindReadOnlyPaths={quoted(path)}"
    yield "PrivateTmp=yes"
    yield "ProtectProc=invisible"


def _devices(service: Service) -> Iterator[str]:
    yield "DevicePolicy=closed"
    if not service.devices:
        yield "PrivateDevices=yes"
        yield "PrivateUsers=yes"
    for device in service.devices:
        yield f"DeviceAllow={quoted(device)} rw"


def _network(service: Service) -> Iterator[str]:
    if service.network:
        yield "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
    else:
        yield "RestrictAddressFamilies=AF_UNIX"
        yield "PrivateNetwork=yes"
        yield "IPAddressDeny=any"


def _kernel(service: Service) -> Iterator[str]:
    yield from _KERNEL
    if not service.generates_code:
        yield "MemoryDenyWriteExecute=yes"


_KERNEL = (
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "RemoveIPC=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@aio @chown @keyring @memlock @privileged @resources @setuid",
    "SystemCallErrorNumber=EPERM",
)
