"""From scores to an alarm: debounce M of N, then hysteresis."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AlarmState:
    """The last N-1 scores (oldest first), whether the alarm is on, and for how long it was calm."""

    recent: tuple[float, ...] = ()
    active: bool = False
    calm: int = 0


def debounced(scores: tuple[float, ...], m: int) -> float:
    """The m-th largest of `scores`: above a level exactly when m of them are."""
    return sorted(scores, reverse=True)[m - 1] if len(scores) >= m else float("-inf")


def update_alarm(
    score: float,
    threshold: float,
    clear: float,
    m: int,
    n: int,
    clear_after: int,
    state: AlarmState,
) -> AlarmState:
    """The next alarm state.

    The alarm goes on when `m` of the last `n` scores exceed `threshold`, and off after
    `clear_after` samples in a row whose score is at most `clear`.
    """
    window = (*state.recent, score)[-n:]
    calm = state.calm + 1 if score <= clear else 0
    rises = debounced(window, m) > threshold
    active = rises or (state.active and calm < clear_after)
    return AlarmState(window[-(n - 1) :] if n > 1 else (), active, calm)
