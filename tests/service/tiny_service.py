"""The service of the tiny bundle, and what systemd and its journal say of it."""

import json
import re

from booted import Booted, until

BUNDLE = "/var/lib/gruard/tiny-1.gruard"
READER = ("--reader", "/usr/bin/python3 -u /opt/reader.py")
UNIT = "gruard@tiny.service"
WATCHDOG = "6"


def install(system: Booted, *options: str) -> str:
    return system.gruard(
        "service", "install", "--watchdog-sec", WATCHDOG, *options, *READER,
        "--", BUNDLE, "--source", "-",
    )  # fmt: skip


def status(system: Booted) -> str:
    return system.property(UNIT, "StatusText")


def sample(system: Booted) -> int:
    found = re.match(r"sample (\d+)", status(system))
    return int(found[1]) if found else -1


def records(system: Booted) -> "list[dict[str, object]]":
    lines = system.journal(UNIT).splitlines()
    return [json.loads(line) for line in lines if line.startswith('{"index"')]


def restarts(system: Booted) -> int:
    return int(system.property(UNIT, "NRestarts"))


def not_lasted(system: Booted) -> int:
    """Starts in a row that have not lasted, the running one among them."""
    return json.loads(system("cat", "/var/lib/gruard/tiny/restarts.json"))["failed"]


def worker(system: Booted) -> str:
    """The process id of the inference process, beside which the reader script runs."""
    main = system.property(UNIT, "MainPID")
    children = system("cat", f"/proc/{main}/task/{main}/children").split()
    (pid,) = (p for p in children if "supervision.worker" in system("cat", f"/proc/{p}/cmdline"))
    return pid


def kill_main(system: Booted) -> None:
    """End the supervisor the hard way and wait until systemd has started the next."""
    before = restarts(system)
    system("systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT)
    until(lambda: restarts(system) > before, "a restart")
