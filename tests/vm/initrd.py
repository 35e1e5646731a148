"""The first file system of the emulated machine: busybox, a script, and the modules it loads."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

WANTED = ("virtio_pci", "9pnet_virtio", "9p", "i6300esb")
"""Modules that Debian's kernel needs for its files and its watchdog; what they need comes along."""

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


def write_initrd(tree: Path, file: Path) -> None:
    """Pack the initial file system for the kernel in `tree` into `file`."""
    modules = list(_in_order(tree))
    entries = [(name, 0o040755, b"") for name in ("bin", "dev", "mod", "proc", "root", "sys")]
    entries += [
        ("bin/busybox", 0o100755, (tree / "bin" / "busybox").read_bytes()),
        ("init", 0o100755, Path(__file__).with_name("init.sh").read_bytes()),
        ("mod/order", 0o100644, "".join(f"{path.name}\n" for path in modules).encode()),
    ]
    entries += [(f"mod/{path.name}", 0o100644, path.read_bytes()) for path in modules]
    archive = b"".join(_entry(number, *entry) for number, entry in enumerate(entries, 1))
    file.write_bytes(gzip.compress(archive + _entry(0, "TRAILER!!!", 0, b""), compresslevel=1))


def _in_order(tree: Path) -> Iterator[Path]:
    """The wanted modules, each after those it depends on (its `depends=` says so)."""
    known = {path.stem.replace("-", "_"): path for path in tree.glob("lib/modules/**/*.ko")}
    done: set[str] = set()

    def visit(name: str) -> Iterator[Path]:
        if name in done or name not in known:  # the others are built into the kernel
            return
        done.add(name)
        found = _DEPENDS.search(known[name].read_bytes())
        for needed in found[1].decode().split(",") if found and found[1] else ():
            yield from visit(needed.replace("-", "_"))
        yield known[name]

    for name in WANTED:
        yield from visit(name)


def _entry(number: int, name: str, mode: int, data: bytes) -> bytes:
    """One file of a cpio archive in the kernel's "newc" format."""
    path = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
