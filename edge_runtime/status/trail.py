"""The score's recent course in a few points, for a curve on a terminal."""

from collections import deque

LENGTH = 120
_BEYOND = 1e6  # thresholds; strict JSON has no infinity


class Trail:
    """One point per call of `point`: the highest share of its threshold a score has had since.

    A share and not the score, because model and fallback score on different scales. The highest
    and not the mean, because a single strange sample is what the curve is looked at for.
    """

    def __init__(self) -> None:
        self._points: deque[float | None] = deque(maxlen=LENGTH)
        self._highest: float | None = None

    def add(self, score: float | None, threshold: float | None) -> None:
        """Take the score of one record."""
        if score is None or threshold is None or score != score or not threshold > 0:
            return
        share = max(-_BEYOND, min(score / threshold, _BEYOND))
        if self._highest is None or share > self._highest:
            self._highest = share

    def point(self) -> tuple[float | None, ...]:
        """Close the latest point; all points, oldest first, None where there was no score."""
        highest, self._highest = self._highest, None
        self._points.append(None if highest is None else round(highest, 4))
        return tuple(self._points)
