"""The rows of the tables that `fleet ingest` writes, and what an asset's row says to do."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from edge_runtime.calibration import SECONDS_PER_DAY
from fleet.ingest.together import chance_of_at_least

LEARN, LOOK, FINE, NOTHING, UNREAD = "learn again", "look", "fine", "no records", "not read"
STATES = (LEARN, LOOK, FINE, NOTHING, UNREAD)
DEAF, NEW_MODE, UNANSWERED = 0.2, 0.05, 0.5
"""Shares of records: with a channel that is unusable or distrusted, in an unknown operating mode,
and without a valid model, above which an asset is worth a look."""
TOO_OFTEN = 0.01
"""Probability of so many alarms at the target rate, below which they are too many."""
SILENT = 86400.0
"""Seconds behind the newest record of the fleet after which an asset is silent."""


@dataclass(frozen=True)
class AssetRecords:
    """What the records of one asset say; a row of assets.parquet.

    state: of `STATES`, and reason the sentences behind it. problem: what could not be read, or the
    first line that is no record. groups: its site and type. first, last: times of records in epoch
    seconds, 0 if unknown. hours: that its records cover; missing: records that should be between
    them; holes: breaks between two runs, and longest_hole in hours.

    Of the model of the newest record: its bundle and version, if known, and shares of its records.
    channel: the one that was unusable (masked) or distrusted (closed) most often, and how often.

    alarms: in all; of them common ones (`together`), marked false or real by the owner, muted, and
    recurring. days: that were watched. rate: alarms a day that are neither common nor marked real.
    target: alarms a day, 0 if unknown. drift: index of the newest week that can be judged, and
    drift_limit; drift_note: why there is none.
    """

    asset: str
    state: str = NOTHING
    reason: str = ""
    problem: str = ""
    groups: tuple[str, ...] = ()
    inputs: int = 0
    records: int = 0
    new: int = 0
    repeated: int = 0
    bad: int = 0
    runs: int = 0
    missing: int = 0
    first: float = 0.0
    last: float = 0.0
    hours: float = 0.0
    holes: int = 0
    longest_hole: float = 0.0
    model: str = ""
    bundle: str = ""
    version: int = 0
    valid: float = 0.0
    tier1: float = 0.0
    tier2: float = 0.0
    tier3: float = 0.0
    gap: float = 0.0
    timing: float = 0.0
    late: float = 0.0
    learning: float = 0.0
    new_mode: float = 0.0
    changed: bool = False
    channel: str = ""
    masked: float = 0.0
    closed: float = 0.0
    alarms: int = 0
    common: int = 0
    marked_false: int = 0
    marked_real: int = 0
    muted: int = 0
    recurring: int = 0
    days: float = 0.0
    rate: float = 0.0
    target: float = 0.0
    drift: float = 0.0
    drift_limit: float = 0.0
    drifted: bool = False
    drift_note: str = ""
    failed: bool = False

    @property
    def good(self) -> bool:
        """Whether all of its inputs could be read."""
        return not self.failed

    @property
    def reused(self) -> bool:
        """Whether there was no new record."""
        return not self.new


@dataclass(frozen=True)
class AlarmRow:
    """One alarm; a row of alarms.parquet. Times are seconds as in the records, 0 if unknown.

    first, last: indices in its run. mark: false or real, as the owner said, or empty. common: it
    came with others; group: where, others: how many assets, expected: how many by chance.
    """

    asset: str
    run: str
    first: int
    last: int
    start: float
    end: float
    model: str
    blamed: tuple[str, ...]
    kind: str
    worst: float
    muted: bool
    recurring: bool
    mark: str
    common: bool = False
    group: str = ""
    others: int = 0
    expected: float = 0.0


@dataclass(frozen=True)
class ScoreRow:
    """Healthy scores of a week; a row of histograms.parquet.

    counts: of score over threshold in the bins of `fleet.ingest.totals.EDGES`. drift: as in
    AssetRecords.
    """

    asset: str
    model: str
    threshold: float
    week: int
    scores: int
    counts: tuple[int, ...]
    drift: float
    drift_limit: float
    drift_note: str


@dataclass(frozen=True)
class CountRow:
    """Records of a model with a tier, a flag, or a channel masked or closed; of counts.parquet."""

    asset: str
    model: str
    what: str
    name: str
    records: int
    share: float


def advice(row: AssetRecords, newest: float) -> tuple[str, str]:
    """Return the state of an asset and the reasons for it. newest: time of the fleet's last record.

    What asks for learning again comes first.
    """
    learn, look = list(_learn(row)), list(_look(row, newest))
    if row.failed and not row.records:
        return UNREAD, row.problem
    if not row.records:
        return NOTHING, row.problem
    state = LEARN if learn else LOOK if look else FINE
    return state, "; ".join((*learn, *look))


def _learn(row: AssetRecords) -> Iterator[str]:
    if row.drifted:
        yield f"the scores drifted: index {row.drift:.2f}, by chance at most {row.drift_limit:.2f}"
    if row.changed:
        yield "a lasting change of the machine is open"
    if row.new_mode > NEW_MODE:
        yield f"{row.new_mode:.0%} of the records are in an unknown operating mode"
    count = round(row.rate * row.days)
    if row.target and chance_of_at_least(count, row.target * row.days) < TOO_OFTEN:
        yield f"{row.rate:.2g} alarms a day of its own, {row.target:g} are the target"


def _look(row: AssetRecords, newest: float) -> Iterator[str]:
    if newest - row.last > SILENT and row.last:
        yield f"no records for the last {_days(newest - row.last)}"
    if max(row.masked, row.closed) > DEAF:
        which = "unusable" if row.masked >= row.closed else "distrusted"
        share = max(row.masked, row.closed)
        yield f"{row.channel} is {which} in {share:.0%} of the records; check the sensor"
    if 1 - row.valid - row.learning > UNANSWERED:
        yield f"no healthy model answered {1 - row.valid:.0%} of the records"
    if row.learning > UNANSWERED:
        yield "it has not learned a model yet"
    if row.failed:
        yield row.problem


def _days(seconds: float) -> str:
    days = math.floor(seconds / SECONDS_PER_DAY)
    return f"{days:,} day{'' if days == 1 else 's'}"
