"""Sections of older manifests in today's layout."""

from typing import Any

from edge_runtime.bundle.manifest_rules import PARTS, UNLIMITED

# A score had four parts and one memory; no part was capped, and no forecast stood beside the
# highway.
FORMER_PARTS = ("residual", "distance", "level", "gate")


def with_memories(data: dict[str, Any]) -> dict[str, Any]:
    """`data` with the forecasts and the score of a manifest before schema 5, as far as sound."""
    forecast, score = data.get("forecast"), data.get("score")
    if isinstance(forecast, dict):
        data = {**data, "forecast": {**forecast, "own": [], "ahead": [], "horizon": 0}}
    if isinstance(score, dict):
        data = {**data, "score": _score(dict(score))}
    return data


def without_modes(data: dict[str, Any]) -> dict[str, Any]:
    """`data` with channels that have no `modes`, as before schema 5."""
    channels = data.get("channels")
    if not isinstance(channels, list):
        return data
    told = [{"modes": [], **c} if isinstance(c, dict) else c for c in channels]
    return {**data, "channels": told}


def _score(score: dict[str, Any]) -> dict[str, Any]:
    missing: list[Any] = []
    scale, absent = score.pop("residual_scale", missing), score.pop("absent", missing)
    ones, zeros = ([value] * _length(scale) for value in (1.0, 0.0))
    memory = {
        "attack": score.pop("attack", None),
        "decay": score.pop("decay", None),
        "ceiling": [UNLIMITED] * len(PARTS),
        "mean": _spread(score.pop("part_mean", None), 0.0),
        "std": _spread(score.pop("part_std", None), 1.0),
    }
    return {
        **score,
        "weights": _spread(score.get("weights"), 0.0),
        "memories": [memory],
        "error_scale": [scale, ones, ones],
        "absent": [absent, zeros, zeros],
    }


def _spread(values: Any, otherwise: float) -> Any:
    """Four numbers among today's six; anything else stays what it is, and is refused."""
    if not isinstance(values, list) or len(values) != len(FORMER_PARTS):
        return values
    known = dict(zip(FORMER_PARTS, values, strict=True))
    return [known.get(name, otherwise) for name in PARTS]


def _length(values: Any) -> int:
    return len(values) if isinstance(values, list) else 0
