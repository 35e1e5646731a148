"""Ranges of numeric options. The limits are beyond any use and keep the arithmetic finite."""

import math
from typing import Any

import click

from edge_runtime.bundle.manifest import LONGEST_PERIOD, SHORTEST_PERIOD


class FiniteRange(click.FloatRange):
    """A click range that also refuses NaN, which passes click's comparisons."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number; a usage error if it is none, not finite, or out of range."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


RATE = FiniteRange(1 / LONGEST_PERIOD, 1 / SHORTEST_PERIOD)
"""Samples per second."""
DEADLINE = FiniteRange(1e-3, 3600.0)
"""Seconds for one answer. Scheduling alone may take a millisecond."""
HEALTHY_MINUTES = FiniteRange(0.0, 365 * 24 * 60.0)
FALSE_ALARMS_PER_DAY = FiniteRange(1e-6, 1e6)
"""From one in three thousand years to twelve a second."""
PERIOD = FiniteRange(SHORTEST_PERIOD, LONGEST_PERIOD)
"""Seconds between samples, as in a bundle."""
JOURNAL_MEGABYTES = click.IntRange(1, 1_000_000)
ATTEMPTS = click.IntRange(1, 1000)
WATCHDOG_SECONDS = click.IntRange(1, 30 * 86400)
SEED = click.IntRange(0, 2**32 - 2)
"""Every generator accepts these, and the next one."""
VERSION = click.IntRange(1, 10**9)
STEPS = click.IntRange(1, 10**7)
ROWS = 10**8
"""Samples of a simulated recording, at most; some gigabytes."""
