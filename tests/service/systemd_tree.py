"""A Debian with systemd in which a service can be started: made once, below build/systemd.

python -m tests.service.systemd_tree
"""

import os
import platform
import sys

from tests import debian_tree
from tests.debian_tree import ROOT, Tree

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
TOOLS = {"mmdebstrap": "mmdebstrap", "unshare": "util-linux", "nsenter": "util-linux"}
MACHINE = platform.machine()
TREE = Tree(
    ROOT / "build" / "systemd" / MACHINE,
    ARCHITECTURES.get(MACHINE, MACHINE),
    "systemd,python3,python3-numpy,python3-click,libstdc++6",
    f"manylinux2014_{MACHINE}" if MACHINE == "x86_64" else f"manylinux_2_34_{MACHINE}",
    variant="minbase",  # installed for real: systemd needs its users and folders
)


def ready() -> None:
    """Make the tree unless it is there. RuntimeError names what is missing."""
    if os.geteuid() != 0:
        raise RuntimeError("the service is tested under a systemd of its own, as root only")
    debian_tree.require_tools("the service", TOOLS)
    debian_tree.ready(TREE)


if __name__ == "__main__":
    try:
        ready()
    except RuntimeError as error:
        sys.exit(str(error))
