"""What a sample period may be, so that no arithmetic with it overflows and no wait is endless."""

SHORTEST_PERIOD = 1e-6
"""Seconds; a step takes several times as long on any device."""
LONGEST_PERIOD = 1e6
"""Seconds, twelve days."""
