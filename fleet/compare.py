"""What a new set of bundles would have alarmed that the old one did not, asset by asset."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_runtime.errors import GruardError
from fleet.driver import TABLE
from fleet.results import AssetScore
from fleet.table import read_rows

MORE, FEWER, ALIKE = "more alarms", "fewer alarms", "as many alarms"
NOT_COMPARED = "not compared"
MOST_SHOWN = 20


@dataclass(frozen=True)
class ScoreChange:
    """An asset scored twice. change: what became of its alarms. old, new: None where it failed."""

    asset: str
    change: str
    reason: str
    old: AssetScore | None
    new: AssetScore | None

    @property
    def further(self) -> int:
        """How many more alarms there are."""
        return (self.new.alarms if self.new else 0) - (self.old.alarms if self.old else 0)

    def __str__(self) -> str:
        if self.old is None or self.new is None or self.change == NOT_COMPARED:
            return f"{self.asset}: {self.change}, {self.reason}"
        return (
            f"{self.asset}: {self.old.alarms} -> {self.new.alarms} alarms in {self.new.days:.3g} "
            f"days, {self.old.share:.2%} -> {self.new.share:.2%} of the rows"
        )


@dataclass(frozen=True)
class FleetComparison:
    """All assets of both, those with the most further alarms first."""

    changes: tuple[ScoreChange, ...]

    @property
    def worse(self) -> int:
        """How many assets have more alarms than before."""
        return sum(change.change == MORE for change in self.changes)

    def facts(self) -> dict[str, Any]:
        """Return the comparison as JSON."""
        counts = Counter(change.change for change in self.changes)
        return {"counts": dict(counts), "changes": [asdict(change) for change in self.changes]}

    def text(self) -> str:
        """Return the comparison in lines."""
        counts = Counter(change.change for change in self.changes)
        shown = [change for change in self.changes if change.change != ALIKE]
        lines = list(map(str, shown[:MOST_SHOWN]))
        if more := len(shown) - MOST_SHOWN:
            lines += [f"… and {more:,} more; all with --json"] if more > 0 else []
        total = ", ".join(f"{count:,} with {name}" for name, count in counts.items())
        return "\n".join([*lines, f"{len(self.changes):,} assets: {total}"])


def compare_scores(old: Path, new: Path) -> FleetComparison:
    """Compare two folders of `fleet rescore`. Raises GruardError when one of them is none."""
    before, after = _scores(old), _scores(new)
    changes = [_change(name, before.get(name), after.get(name)) for name in {**before, **after}]
    return FleetComparison(tuple(sorted(changes, key=_order)))


def _scores(folder: Path) -> dict[str, AssetScore]:
    if not (folder / TABLE).is_file():
        raise GruardError(f"{folder}: no scores; make them: python -m fleet rescore")
    return {row.asset: row for row in read_rows(folder / TABLE, AssetScore)}


def _change(name: str, old: AssetScore | None, new: AssetScore | None) -> ScoreChange:
    problem = "".join(_problems(old, new))
    if problem or old is None or new is None:
        return ScoreChange(name, NOT_COMPARED, problem, old, new)
    further = new.alarms - old.alarms
    return ScoreChange(
        name, MORE if further > 0 else FEWER if further else ALIKE, new.reason, old, new
    )


def _problems(old: AssetScore | None, new: AssetScore | None) -> Iterator[str]:
    """Yield why two scores say nothing about each other; the first reason only."""
    for which, score in (("old", old), ("new", new)):
        if score is None:
            yield f"there is no {which} score"
            return
        if not score.good:
            yield f"the {which} score failed: {score.reason}"
            return
    if old is not None and new is not None and old.data != new.data:
        yield "the two scores are of other data; score both on the same recordings"


def _order(change: ScoreChange) -> tuple[bool, int, str]:
    return change.change == NOT_COMPARED, -change.further, change.asset
