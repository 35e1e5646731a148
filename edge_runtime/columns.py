"""What the owner said about the columns of a source, and what a file alone does not tell again.

It is settled at learning and goes into the bundle: the device reads columns as learning did.
"""

from dataclasses import dataclass

GAP_PERIODS = 1.5
"""Two readings further apart than so many periods have a gap between them."""


@dataclass(frozen=True)
class Columns:
    """Columns as they were named or found at learning.

    time, label: names, where the owner gave them. dates: how the times are written where that has
    several meanings, see `csvcell.DAY_FIRST`; empty otherwise. counters: channels that count up, of
    which the rate is watched.
    """

    time: str | None = None
    label: str | None = None
    dates: str = ""
    counters: tuple[str, ...] = ()


NOTHING_SAID = Columns()
"""Of sources whose columns tell all."""
