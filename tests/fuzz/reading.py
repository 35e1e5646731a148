"""One harmed bundle, read as a device reads it: which stage refused it, how long that took."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.errors import GruardError

MOST_SECONDS = 1.0  # of processor time, because the machine may be busy
MOST_GROWTH = 64 << 20  # bytes
LONGEST_REASON = 2000  # characters
# The stages in the order of reading; the first whose words are in the message.
_STAGES = (
    ("checksum", r"does not match"),
    ("size", r"not a regular file|cannot be read"),
    ("JSON", r"not valid JSON"),
    ("validation", r"failed its validation"),
    ("archive", r"unreadable arrays"),
    ("file format", r"damaged \.tflite|not a \.tflite"),
    ("tensors of the manifest", r"differs between|are not the model's|the model's width"),
    ("graph rules", r"/model\.tflite: "),
    ("schema", r"fields|expected|not of type|finite|schema|control|too large|above|at most"),
)
ACCEPTED = "accepted"


@dataclass(frozen=True)
class Reading:
    """stage: that refused it, or ACCEPTED. wrong: what should not have happened, or nothing."""

    stage: str
    wrong: str
    bundle: Bundle | None


def read_harmed(path: Path, archive: str) -> Reading:
    """Read the bundle at `path`, and the arrays of its member `archive` where one is named."""
    started = time.process_time()
    bundle, reason, wrong = None, "", ""
    try:
        bundle = read_bundle(path)
        if archive:
            bundle.arrays(archive)
    except GruardError as error:
        reason = str(error)
    except BaseException as error:
        wrong = f"{type(error).__name__} instead of GruardError: {str(error)[:200]}"
    seconds = time.process_time() - started
    if seconds > MOST_SECONDS:
        wrong = f"{seconds:.1f} s"
    stage = ACCEPTED
    if reason:
        stage = next((name for name, words in _STAGES if re.search(words, reason)), "")
        if not stage or len(reason) > LONGEST_REASON or not reason.isprintable():
            wrong = wrong or f"an odd reason: {reason[:200]!r}"
    return Reading(stage or "unknown", wrong, bundle if stage == ACCEPTED and not wrong else None)


def peak_bytes() -> int:
    """The most memory that this process ever held at once.

    It never falls: when all readings together do not raise it by MOST_GROWTH, none alone did. That
    counts what C code takes too, costs microseconds, and unlike a limit of address space can't be
    hidden by a MemoryError that was caught on its way. (`ru_maxrss` would count the parent's, too.)
    """
    return _status("VmHWM")


def resident_bytes() -> int:
    """The memory that this process holds now."""
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(name))
    return int(line.split()[1]) * 1024
