"""metrics.prom: what the records say, for the textfile collector of Prometheus' node exporter."""

from collections.abc import Callable, Iterator, Sequence

from edge_runtime.status.metrics import Metric, family
from fleet.ingest.rows import STATES, AssetRecords

_VALUES: dict[str, tuple[str, Callable[[AssetRecords], float]]] = {
    "records": ("Records that were read.", lambda row: row.records),
    "missing_records": ("Between the first and the last of runs.", lambda row: row.missing),
    "covered_seconds": ("Time of the records.", lambda row: 3600 * row.hours),
    "bad_lines": ("Lines that are no records.", lambda row: row.bad),
    "last_record_time_seconds": ("Of the newest record, epoch.", lambda row: row.last),
    "alarms": ("Alarms in all records.", lambda row: row.alarms),
    "common_alarms": ("Alarms that many assets share.", lambda row: row.common),
    "false_alarms": ("Alarms that the owner marked false.", lambda row: row.marked_false),
    "real_alarms": ("Alarms that the owner marked real.", lambda row: row.marked_real),
    "own_alarms_per_day": ("Neither common nor marked real.", lambda row: row.rate),
    "valid_ratio": ("Share of records of a healthy model.", lambda row: row.valid),
    "fallback_ratio": ("Share of records of tier 3.", lambda row: row.tier3),
    "score_drift_index": ("Population stability index.", lambda row: row.drift),
    "score_drift_limit": ("What chance explains; 0: not judged.", lambda row: row.drift_limit),
}


def metrics_text(rows: Sequence[AssetRecords]) -> str:
    """Return the metrics of all assets in the text exposition format."""
    return "".join(map(family, _metrics(rows)))


def _metrics(rows: Sequence[AssetRecords]) -> Iterator[Metric]:
    states = tuple(
        ({"state": state}, float(sum(row.state == state for row in rows))) for state in STATES
    )
    yield Metric("gruard_fleet_assets", "gauge", "Assets by what their records say.", states)
    told = tuple(({"asset": row.asset, "state": row.state}, 1.0) for row in rows)
    yield Metric("gruard_fleet_asset_state", "gauge", "1 for the state of each asset.", told)
    for name, (text, value) in _VALUES.items():
        samples = tuple(({"asset": row.asset}, float(value(row))) for row in rows)
        yield Metric(f"gruard_fleet_{name}", "gauge", text, samples)
