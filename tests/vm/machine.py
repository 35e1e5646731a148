"""An emulated arm64 machine whose hardware watchdog is real to its kernel."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

from initrd import write_initrd
from machine_tree import TREE

LIMIT = 900.0
"""Seconds for all boots together. An idle workstation takes two minutes."""


@contextmanager
def console(files: Path, scratch: Path) -> Iterator["Iterator[str]"]:
    """Boot with the folder `files` at /mnt; the lines of its console until it is switched off.

    Whatever happens, it is gone after LIMIT seconds and when the block is left.
    """
    initrd = scratch / "initrd.gz"
    write_initrd(TREE.path, initrd)
    (kernel,) = (TREE.path / "boot").glob("vmlinuz-*")
    shares = (("tree", TREE.path, ",readonly=on"), ("files", files, ""))
    words = [
        "qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a53", "-m", "512",
        # Two nanoseconds per instruction by the guest's clock, however busy the host is.
        "-icount", "shift=1",
        "-nodefaults", "-nographic", "-serial", "stdio", "-nic", "none",
        "-kernel", str(kernel), "-initrd", str(initrd),
        "-append", "console=ttyAMA0 quiet panic=-1",
        "-device", "i6300esb", "-action", "watchdog=reset",
    ]  # fmt: skip
    for tag, path, option in shares:
        words += ["-fsdev", f"local,id={tag},path={path},security_model=none{option}"]
        words += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    machine = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    )  # fmt: skip
    limit = Timer(LIMIT, machine.kill)
    limit.start()
    assert machine.stdout
    started, output = time.monotonic(), machine.stdout

    def lines() -> Iterator[str]:
        for line in output:
            print(f"[{time.monotonic() - started:6.1f}] {line.rstrip()}", flush=True)
            yield line.rstrip()

    try:
        yield lines()
    finally:
        limit.cancel()
        machine.kill()
        machine.wait()
