"""Log lines about changes of tier: all are counted, at most a few a minute are logged."""

from collections import deque
from collections.abc import Callable

from edge_runtime.record import Record, flag_names
from edge_runtime.supervision.policy import TIERS

LINES, WINDOW = 6, 60.0
"""So many lines within so many seconds: a detector that flutters must not fill the journal."""


class TierLog:
    """Logs who vouches from now on.

    log takes one line; clock gives monotonic seconds.
    """

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._log, self._clock = log, clock
        self._last: Record | None = None
        self._told: deque[float] = deque([float("-inf")] * LINES, maxlen=LINES)
        self._untold = 0

    def note(self, record: Record) -> None:
        """Look at one record; call for each of them."""
        before, self._last = self._last, record
        changed = before is not None and before.tier != record.tier
        if not changed and not self._untold:
            return
        now = self._clock()
        if now - self._told[0] < WINDOW:
            self._untold += changed
            return
        self._told.append(now)
        self._log(self._line(record, before if changed else None))
        self._untold = 0

    def end(self) -> None:
        """Tell what is still untold: a recording of days may take less than the window."""
        if self._last is not None and self._untold:
            self._log(self._line(self._last, None))
            self._untold = 0

    def _line(self, record: Record, before: Record | None) -> str:
        tier = record.tier if before is None else f"{before.tier}→{record.tier}"
        why = ", ".join(flag_names(record.flags))
        untold = (
            "1 change before was" if self._untold == 1 else f"{self._untold} changes before were"
        )
        others = f"; {untold} not told" if self._untold else ""
        line = f"sample {record.index}: tier {tier}, {TIERS[record.tier]}"
        return line + (f" ({why})" if why else "") + others
