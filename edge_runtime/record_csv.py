"""Records as the rows of a CSV file, which appears whole or not at all."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from edge_runtime.durable import open_new
from edge_runtime.errors import GruardError
from edge_runtime.files import kind_at
from edge_runtime.record import Record, finite, flag_names

COLUMNS = (
    "index", "score", "threshold", "flag", "tier", "valid", "flags", "masked", "imputed",
    "blamed", "kind", "probability", "sensor", "time",
)  # fmt: skip


def cells(record: Record) -> list[object]:
    """One row, in the order of `COLUMNS`; names are joined by spaces, what is unknown is empty.

    Numbers that are not finite are unknown, as in `Record.to_json`.
    """
    time = finite(record.time)
    return [
        record.index,
        _number(record.score),
        _number(record.threshold),
        int(record.alarm),
        record.tier,
        int(record.valid and finite(record.score) is not None),
        " ".join(flag_names(record.flags)),
        " ".join(record.masked),
        " ".join(record.imputed),
        " ".join(record.blamed),
        record.kind or "",
        _number(record.probability),
        "" if record.sensor is None else int(record.sensor),
        "" if time is None else repr(time),
    ]


def _number(value: float | None) -> str:
    # Nine significant digits identify every float32.
    known = finite(value)
    return "" if known is None else f"{known:.9g}"


def refuse_to_overwrite(target: str, force: bool) -> None:
    """GruardError where the file `target` is already there, unless `force` is given."""
    if target != "-" and Path(target).exists() and not force:
        raise GruardError(f"{target}: is already there; choose another --out or add --force")


@contextmanager
def output(target: str, force: bool) -> Iterator[TextIO]:
    """Stdout for `-`, or a file that appears whole or not at all.

    Raises GruardError when it is already there and `force` is not given, or cannot be written.
    """
    if target == "-":
        yield sys.stdout
        return
    path = Path(target)
    refuse_to_overwrite(target, force)
    if path.exists() and not path.is_file():  # it would be replaced by a file
        raise GruardError(f"{target}: is {kind_at(path)}, not a file; name another --out")
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(open_new(scratch), "w", encoding="utf-8", newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    except OSError as error:
        raise GruardError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
