"""Debian for an emulated arm64 machine, with its kernel: made once, below build/vm.

python -m tests.vm.machine_tree
"""

import sys

from tests import debian_tree
from tests.debian_tree import ROOT, Tree

TOOLS = {"mmdebstrap": "mmdebstrap", "qemu-system-aarch64": "qemu-system-arm"}
TREE = Tree(
    ROOT / "build" / "vm" / "arm64",
    "arm64",
    "linux-image-arm64,busybox-static,python3,python3-numpy,python3-click,libstdc++6",
    "manylinux_2_34_aarch64",
)


def ready() -> None:
    """Make the tree unless it is there. RuntimeError names what is missing."""
    debian_tree.require_tools("the kernel's watchdog", TOOLS)
    debian_tree.ready(TREE)
    for folder in ("mnt", "proc", "sys"):  # made by a package's script, which never runs here
        (TREE.path / folder).mkdir(exist_ok=True)


if __name__ == "__main__":
    try:
        ready()
    except RuntimeError as error:
        sys.exit(str(error))
