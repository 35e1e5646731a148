"""What k events in some time say about their rate, exactly (Garwood 1936)."""

import math

CONFIDENCE = 0.95
NOTHING_KNOWN = 1e9  # the bound after no time at all


def rate_bound(events: int, days: float) -> float:
    """Upper 95 % bound on events per day after `events` in `days`."""
    return mean_bound(events) / days if days > 0 else NOTHING_KNOWN


def mean_bound(events: int) -> float:
    """The mean at which so few events as `events` come with a chance of 5 % only.

    The same as half the 95 % quantile of a chi-square variable with 2 `events` + 2 degrees of
    freedom: 3.0 for no event.
    """
    low, high = 0.0, 10.0 + 3.0 * events
    for _ in range(100):  # halves of the interval; more than float64 can tell apart
        middle = (low + high) / 2
        if chance_of_at_most(events, middle) > 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def chance_of_at_most(events: int, mean: float) -> float:
    """Probability of `events` or fewer where `mean` are expected."""
    if mean <= 0:
        return 1.0
    logs = (k * math.log(mean) - mean - math.lgamma(k + 1) for k in range(events + 1))
    return math.fsum(math.exp(log) for log in logs)
