"""Facts of the store that outlive one damaged file: each kept in two files that say the same.

STORE/NAME.json and STORE/NAME.copy.json hold the facts, a generation that grows with every change,
and the SHA-256 of both. The intact file of the higher generation holds. NAME.json is replaced
first, so that a power cut in between leaves the new facts. A reader needs no lock.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.bundle.json_text import json_checksum, parse_json
from edge_runtime.errors import NotAllowedError
from edge_runtime.files import read_regular
from edge_runtime.plain import shown
from edge_runtime.updates.disk import Disk, replace_durably

SCHEMA = 2
"""Layout of the files. Schema 1 was one file of pointers without generation and checksum."""
LARGEST = 1 << 20  # bytes; the fallback of 256 channels takes a tenth of it

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """What the two files say.

    facts: None when neither is intact. faults: what is wrong with each file, in one sentence.
    missing: there is neither. later: a later gruard wrote one that this one cannot read.
    """

    facts: Facts | None
    generation: int
    faults: tuple[str, ...]
    missing: bool
    later: bool


class _LaterError(ValueError):
    """Of a later version, and so not to be replaced."""


class Copies:
    """The two files called `name` in the folder `root`."""

    def __init__(self, root: Path, name: str, disk: Disk) -> None:
        self.files = (root / f"{name}.json", root / f"{name}.copy.json")
        self._disk = disk

    def read(self) -> Found:
        """What holds. Raises NotAllowedError when this user may not read it; else never."""
        generation, facts = 0, None
        faults, absent, former, later = [], [], False, False
        for file in self.files:
            try:
                found, said = _parsed(read_regular(file, LARGEST, os.O_RDONLY | os.O_NOFOLLOW))
            except FileNotFoundError:
                absent.append(file)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EPERM):
                    raise NotAllowedError(
                        f"{file}: cannot be read ({error.strerror}); run the command as the owner "
                        "of the store"
                    ) from None
                faults.append(f"{file}: cannot be read ({error.strerror})")
            except ValueError as error:
                later |= isinstance(error, _LaterError)
                faults.append(f"{file}: {error}")
            else:
                former |= not found
                if facts is None or found > generation:
                    generation, facts = found, said
        missing = len(absent) == len(self.files)
        if not missing and not former:
            faults += [f"{file}: is missing" for file in absent]
        return Found(facts, generation, tuple(faults), missing, later)

    def write(self, generation: int, facts: Facts) -> None:
        """Replace both, durably, one after the other. Raises GruardError."""
        whole = {"schema": SCHEMA, "generation": generation, **facts}
        data = json.dumps({**whole, "checksum": json_checksum(whole)}, sort_keys=True) + "\n"
        for file in self.files:
            replace_durably(self._disk, file, data.encode())


def _parsed(data: bytes) -> tuple[int, Facts]:
    """Generation and facts in a file. Raises ValueError with what is wrong."""
    try:
        facts = parse_json(data)
    except ValueError as error:
        raise ValueError(f"damaged ({shown(str(error), str)})") from None
    if not isinstance(facts, dict):
        raise ValueError("damaged (no object)")
    if facts.get("schema") == 1 and "checksum" not in facts:
        return 0, {name: fact for name, fact in facts.items() if name != "schema"}
    # Every later schema keeps this checksum, or a flipped bit could pass for a later schema.
    if facts.pop("checksum", None) != json_checksum(facts):
        raise ValueError("damaged (its checksum is that of other contents)")
    if (schema := facts.pop("schema", None)) != SCHEMA:
        raise _LaterError(f"written by a later gruard (schema {shown(schema)}); update gruard")
    generation = facts.pop("generation", None)
    if type(generation) is not int or generation < 1:
        raise ValueError("damaged (no generation)")
    return generation, facts
