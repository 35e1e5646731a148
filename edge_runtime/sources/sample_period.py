"""Does a recording come at the rate the model was trained for?"""

from itertools import chain, islice
from pathlib import Path

import numpy as np

from edge_runtime.errors import GruardError
from edge_runtime.sources.csvfile import open_text, read_rows

TOLERANCE = 0.05
ROWS_LOOKED_AT = 64


def check_file_period(path: str | Path, period: float | None) -> None:
    """GruardError when the times of the recording `path` are not `period` seconds apart.

    Only the first rows are looked at, and only where both sides know their period; an unreadable
    row is left to whoever reads the file.
    """
    with open_text(path) as text:
        first = text.readline()
        if first.lstrip().startswith("{"):
            return  # JSON lines, whose times the sample clock watches
        _, rows = read_rows(chain([first] if first else [], text), path)
        times = []
        try:
            times = [row.time for row in islice(rows, ROWS_LOOKED_AT) if row.time is not None]
        except GruardError:
            return
    if period is None or len(times) < 3:
        return
    found = float(np.median(np.diff(times)))
    if not abs(found - period) <= TOLERANCE * period:
        raise GruardError(
            f"{path}: one sample every {found:g} s, but the model was trained on one every "
            f"{period:g} s; resample the recording or train on this rate"
        )
