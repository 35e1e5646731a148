"""A staged rollout: publish to some assets, watch what becomes of it, go on or take it back.

The plan, its stages and how far it is are a value in FLEET/rollout.json. So a rollout that was
interrupted goes on with the same command, and one that was stopped stays stopped until there are
other bundles.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.errors import GruardError
from edge_runtime.files import replace_file
from edge_runtime.plain import read_sealed, write_sealed
from edge_runtime.updates.update_check import DeviceReport
from fleet.publish import UpdateRepository, fleet_assets, newest_bundle
from fleet.rollout_page import rollout_page

STATE, PAGE = "rollout.json", "rollout.html"
COMMITTED, TRIAL, ROLLED_BACK, WAITING = "committed", "on trial", "rolled back", "no answer"
RUNNING, FINISHED, PAUSED = "running", "finished", "paused"
STOPPING, STOPPED = "stopping", "stopped"
"""Between the two, what was published before is published again."""
MOST_ASSETS = 10_000
"""Of a rollout; its state is a file of a megabyte then."""
ENOUGH = 0.5
"""Share of a stage that has to be committed when the others do not answer in time."""
_LISTEN = 1.0  # seconds of one wait for reports
_REFRESH = 86400.0  # seconds until signatures are renewed


@dataclass(frozen=True)
class AssetProgress:
    """What became of the planned bundle on one asset. state: `COMMITTED`, … reason: why."""

    asset: str
    state: str
    reason: str


@dataclass(frozen=True)
class StagedRollout:
    """A plan and how far it is.

    bundles: digest by asset, of what is rolled out. stages: shares of the assets, ascending, the
    last is 1. limit: share of a stage that may be rolled back. before: version of targets.json to
    return to, 0 for none. stage: the index of the present one. state: `RUNNING`, …; reason: why.
    """

    bundles: Mapping[str, str]
    stages: tuple[float, ...]
    limit: float
    before: int
    stage: int = 0
    state: str = RUNNING
    reason: str = ""

    def members(self) -> tuple[str, ...]:
        """Return the assets of the present stage, in a fixed order; stages contain earlier ones."""
        ordered = sorted(self.bundles, key=_rank)
        return tuple(ordered[: math.ceil(self.stages[self.stage] * len(ordered) - 1e-9)])

    def progress(self, reports: Mapping[str, DeviceReport]) -> tuple[AssetProgress, ...]:
        """Return what became of each member of the present stage, by the devices' reports."""
        return tuple(
            _progress(asset, self.bundles[asset], reports.get(asset)) for asset in self.members()
        )

    def decided(self, progress: Sequence[AssetProgress], overdue: bool) -> StagedRollout:
        """Return the next state: the next stage, the end, or this one.

        overdue: whether the stage has lasted as long as it may without an answer of each device.
        """
        counts = Counter(each.state for each in progress)
        total, back = len(progress), counts[ROLLED_BACK]
        if back > self.limit * total:
            first = next(each for each in progress if each.state == ROLLED_BACK)
            reason = f"rolled back on {back} of {total} assets, first {first.asset}: {first.reason}"
            return replace(self, state=STOPPING, reason=reason)
        answered = counts[COMMITTED] + back
        if answered < total and not overdue:
            return self
        if answered < total and counts[COMMITTED] < ENOUGH * total:
            reason = f"committed on {counts[COMMITTED]} of {total} assets in the time allowed"
            return replace(self, state=PAUSED, reason=reason)
        if self.stage + 1 < len(self.stages):
            return replace(self, stage=self.stage + 1)
        late = f"{total - answered} of {total} assets have not answered yet"
        return replace(self, state=FINISHED, reason=late if answered < total else "")


class ReadsReports(Protocol):
    """`ReportReader`, or a test's own."""

    @property
    def reports(self) -> Mapping[str, DeviceReport]:
        """The newest report by asset."""

    @property
    def connected(self) -> bool:
        """Whether reports can come."""

    def read(self, timeout: float) -> None:
        """Take the reports that come within `timeout` seconds."""


@dataclass(frozen=True)
class RolloutEnd:
    """How a command ended. problems: bundles that cannot be published, one sentence each."""

    fleet: Path
    rollout: StagedRollout
    progress: tuple[AssetProgress, ...]
    problems: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Return it as JSON."""
        rollout = self.rollout
        return {
            "fleet": str(self.fleet),
            "state": rollout.state,
            "reason": rollout.reason,
            "stage": rollout.stage + 1,
            "stages": list(rollout.stages),
            "assets": len(rollout.bundles),
            "published": len(self.progress),
            "counts": dict(Counter(each.state for each in self.progress)),
            "progress": [asdict(each) for each in self.progress],
            "problems": list(self.problems),
            "page": str(self.fleet / PAGE),
        }

    def text(self) -> str:
        """Return it in lines."""
        rollout = self.rollout
        why = f": {rollout.reason}" if rollout.reason else ""
        stage = f"stage {rollout.stage + 1} of {len(rollout.stages)}"
        lines = [f"{rollout.state} at {stage}{why}", counted(self.progress), *self.problems]
        if rollout.state == STOPPED:
            lines.append("what was published before is published again; train other bundles")
        if rollout.state == PAUSED:
            lines.append("the same command goes on")
        return "\n".join([*lines, f"page: {self.fleet / PAGE}"])


def plan(
    fleet: Path, repository: UpdateRepository, stages: tuple[float, ...], limit: float
) -> tuple[StagedRollout, tuple[str, ...]]:
    """Return the rollout of `fleet` to begin or to go on with, and what cannot be published.

    Bundles that are published already are not part of it. A rollout in progress goes on, unless
    the fleet has other bundles by now. Raises GruardError.
    """
    known = read_sealed(fleet / STATE, StagedRollout)
    newest, problems = _newest_digests(fleet)
    if known and all(newest.get(asset) == digest for asset, digest in known.bundles.items()):
        if known.state not in (RUNNING, PAUSED):
            return known, problems
        stage = min(known.stage, len(stages) - 1)
        return replace(known, stages=stages, limit=limit, stage=stage, state=RUNNING), problems
    published = repository.digests()
    new = {asset: digest for asset, digest in newest.items() if published.get(asset) != digest}
    if len(new) > MOST_ASSETS:
        raise GruardError(
            f"{fleet}: has {len(new):,} new bundles; roll out {MOST_ASSETS:,} at most"
        )
    unfinished = known is not None and known.state in (RUNNING, PAUSED, STOPPING)
    before = known.before if known and unfinished else repository.version()
    state, reason = (RUNNING, "") if new else (FINISHED, "all bundles are published already")
    return StagedRollout(new, stages, limit, before, state=state, reason=reason), problems


def run_rollout(
    fleet: Path,
    begun: tuple[StagedRollout, tuple[str, ...]],
    new_repository: Callable[[], UpdateRepository],
    reader: ReadsReports,
    patience: float,
    say: Callable[[str], None],
    clock: Callable[[], float],
) -> RolloutEnd:
    """Carry the rollout through its stages until it is finished, stopped or paused.

    new_repository: opens the repository at the present time. patience: seconds for one stage, in
    which the broker answers. clock: monotonic seconds.
    """
    rollout, problems = begun
    reader.read(_LISTEN)
    while rollout.state == RUNNING:
        _keep(fleet, rollout)
        new_repository().publish(fleet, only=rollout.members())
        stage = f"stage {rollout.stage + 1} of {len(rollout.stages)}"
        say(f"{stage}: published to {len(rollout.members())} of {len(rollout.bundles)} assets")
        rollout = _watched(fleet, rollout, new_repository, reader, patience, say, clock)
    if rollout.state == STOPPING:
        _keep(fleet, rollout)
        new_repository().restore(rollout.before, rollout.bundles)
        rollout = replace(rollout, state=STOPPED)
    _keep(fleet, rollout)
    progress = rollout.progress(reader.reports)
    _write_page(fleet, rollout, progress)
    return RolloutEnd(fleet, rollout, progress, problems)


def counted(progress: Sequence[AssetProgress]) -> str:
    """Return how many assets are in which state."""
    counts = Counter(each.state for each in progress)
    return ", ".join(
        f"{counts[state]} {state}" for state in (COMMITTED, TRIAL, ROLLED_BACK, WAITING)
    )


def _watched(
    fleet: Path,
    rollout: StagedRollout,
    new_repository: Callable[[], UpdateRepository],
    reader: ReadsReports,
    patience: float,
    say: Callable[[str], None],
    clock: Callable[[], float],
) -> StagedRollout:
    """Watch one stage until it is decided; return what follows."""
    waited, last, said = 0.0, clock(), ""
    signed = last
    while True:
        reader.read(_LISTEN)
        now = clock()
        waited, last = waited + (now - last if reader.connected else 0.0), now
        progress = rollout.progress(reader.reports)
        if (line := counted(progress)) != said:
            said = line
            say(line)
            _write_page(fleet, rollout, progress)
        following = rollout.decided(progress, waited >= patience)
        if following != rollout:
            return following
        if now - signed >= _REFRESH:
            new_repository().refresh()
            signed = now


def _newest_digests(fleet: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    found, problems = {}, []
    for asset in fleet_assets(fleet):
        try:
            found[asset] = read_bundle(newest_bundle(fleet, asset)).digest
        except GruardError as error:
            problems.append(f"{asset}: {error}")
    return found, tuple(problems)


def _rank(asset: str) -> str:
    """Return what orders assets: no relation to their names, and the same in each rollout."""
    return hashlib.sha256(asset.encode()).hexdigest()


def _progress(asset: str, digest: str, report: DeviceReport | None) -> AssetProgress:
    if report is None:
        return AssetProgress(asset, WAITING, "")
    if report.current == digest:
        return AssetProgress(asset, COMMITTED, "")
    if report.trial == digest:
        return AssetProgress(asset, TRIAL, "")
    if report.rejected == digest:
        return AssetProgress(asset, ROLLED_BACK, report.reason)
    return AssetProgress(asset, WAITING, report.problem)


def _keep(fleet: Path, rollout: StagedRollout) -> None:
    write_sealed(fleet / STATE, rollout)


def _write_page(fleet: Path, rollout: StagedRollout, progress: Sequence[AssetProgress]) -> None:
    rows = [(each.asset, each.state, each.reason) for each in progress]
    title = f"{rollout.state} at stage {rollout.stage + 1} of {len(rollout.stages)}"
    page = rollout_page(title, rollout.reason, counted(progress), rows, len(rollout.bundles))
    replace_file(fleet / PAGE, page.encode(), durable=False)
