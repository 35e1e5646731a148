"""Build `failing_calls.c` as a library: the n-th call of a kind fails, over all processes."""

import errno
import os
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
FLAGS = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
KINDS = ("open", "write", "sync", "rename", "change", "read", "map", "fork", "allocate")
"""The kinds of calls, in the order of the C file. change: unlink, mkdir, chmod, ftruncate, flock;
map: mmap; fork: also threads; allocate: malloc and its like."""
SHORT = 0
"""Instead of an errno: a read or write of half of the bytes, which is no error."""
_SHARED = struct.Struct(f"{len(KINDS)}QQ256s")


@dataclass(frozen=True)
class Failing:
    """Which call fails: number `at` of a kind, from 1 on; with `lasting` all that follow, too."""

    kind: str
    at: int
    error: int
    lasting: bool = False

    def __str__(self) -> str:
        name = errno.errorcode[self.error] if self.error else "short"
        return f"{self.kind} {self.at}{' and all after it' if self.lasting else ''}: {name}"


NONE = Failing("open", 0, errno.EIO)
"""No call fails, all are counted."""


@dataclass(frozen=True)
class Calls:
    """The counted calls. counts: by kind. failed: how many failed; what: the first of them."""

    counts: dict[str, int]
    failed: int
    what: str


def build(folder: Path) -> Path:
    """Compile the library into `folder`."""
    library = folder / "failing_calls.so"
    command = ["gcc", *FLAGS, str(SOURCE), "-o", str(library), "-ldl"]
    subprocess.run(command, check=True)
    return library


class Trap:
    """One failing call, for processes started with `environment`; root: folder of counted files."""

    def __init__(self, library: Path, failing: Failing, root: Path, shared: Path) -> None:
        self._shared = shared
        shared.write_bytes(bytes(_SHARED.size))
        words = (KINDS.index(failing.kind), failing.at, failing.error, int(failing.lasting))
        self.environment = os.environ | {
            "LD_PRELOAD": str(library),
            "FAILING_CALLS": ":".join(map(str, words)),
            "FAILING_CALLS_ROOT": str(root),
            "FAILING_CALLS_SHARED": str(shared),
        }

    def calls(self) -> Calls:
        """Return the calls so far."""
        *counts, failed, what = _SHARED.unpack(self._shared.read_bytes())
        text = what.partition(b"\0")[0].decode(errors="replace")
        return Calls(dict(zip(KINDS, counts, strict=True)), failed, text)
