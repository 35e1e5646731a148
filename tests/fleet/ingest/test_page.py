"""The page of thousands of assets: each is there, and the ones that need somebody come first."""

from dataclasses import replace

import pytest

pytest.importorskip("pyarrow", reason="the fleet is not tested: pip install '.[fleet]'")
from fleet.ingest.metrics import metrics_text
from fleet.ingest.page import common_events, records_page
from fleet.ingest.rows import (
    FINE,
    LEARN,
    LOOK,
    NOTHING,
    SILENT,
    UNREAD,
    AlarmRow,
    AssetRecords,
    advice,
)

NOW = 1.78e9
FINE_ROW = AssetRecords(
    "pump", records=10**6, last=NOW, days=10.0, target=1.0, valid=0.99, tier1=0.99,
    drift=0.05, drift_limit=0.3, hours=240.0, model="484788c4f685",
)  # fmt: skip
ALARM = AlarmRow("pump-0", "r", 0, 9, NOW, NOW + 9, "m", ("heat",), "level", 2.0, False, False, "")


@pytest.mark.parametrize(
    ("change", "state", "reason"),
    [
        ({}, FINE, ""),
        ({"drifted": True, "drift": 0.8}, LEARN, "drifted: index 0.80, by chance at most 0.30"),
        ({"changed": True}, LEARN, "a lasting change"),
        ({"new_mode": 0.2}, LEARN, "20% of the records are in an unknown operating mode"),
        ({"rate": 3.0}, LEARN, "3 alarms a day of its own, 1 are the target"),
        ({"rate": 1.3}, FINE, ""),
        ({"rate": 3.0, "target": 0.0}, FINE, ""),
        ({"last": NOW - 3.5 * SILENT}, LOOK, "no records for the last 3 days"),
        ({"masked": 0.5, "channel": "heat"}, LOOK, "heat is unusable in 50%"),
        ({"closed": 0.5, "channel": "heat"}, LOOK, "heat is distrusted in 50%"),
        ({"valid": 0.1}, LOOK, "no healthy model answered 90%"),
        ({"valid": 0.0, "learning": 1.0}, LOOK, "has not learned a model"),
        ({"failed": True, "problem": "x: damaged"}, LOOK, "x: damaged"),
        ({"failed": True, "problem": "x", "records": 0}, UNREAD, "x"),
        ({"records": 0}, NOTHING, ""),
        ({"changed": True, "valid": 0.1}, LEARN, "open; no healthy model"),
    ],
)
def test_what_an_asset_needs_and_why(change: dict, state: str, reason: str) -> None:
    found, why = advice(replace(FINE_ROW, **change), NOW)
    assert found == state and reason in why and bool(reason) == bool(why)


def test_common_alarms_are_events() -> None:
    alarms = [
        replace(ALARM, asset=f"pump-{n % 3}", start=NOW + 1000 * (n // 3) + n, common=n != 1)
        for n in range(9)
    ]
    events = common_events(alarms)
    assert [len(event.alarms) for event in events] == [3, 3, 2], "the newest first"
    assert events[2].assets == ("pump-0", "pump-2")


def test_four_thousand_assets_are_one_page() -> None:
    rows = [replace(FINE_ROW, asset=f"pump-{n}", state=FINE) for n in range(3900)]
    rows += [
        replace(FINE_ROW, asset=f"<b>-{n}", state=LEARN, reason=f"reason {n}", rate=float(n))
        for n in range(100)
    ]
    page = records_page(rows, [replace(ALARM, common=True, group="site <i>", others=4)], 60.0)
    assert len(page) < 4_000_000 and page.count("<rect") > 4000
    assert "<b>-" not in page and "site <i>" not in page, "texts of devices are escaped"
    first = page.split("Learn again</h2>")[1].split("<h2>")[0]
    assert first.index("reason 99") < first.index("reason 98") and "and 50 more" in first
    assert all(f">pump-{n}<" in page for n in (0, 1234, 3899))
    assert "viewBox" in page and 'class="wide"' in page, "it fits into a small window"
    assert "0 assets" in records_page([], [], 0.0)


def test_the_metrics_have_every_asset_with_its_state() -> None:
    row = replace(FINE_ROW, asset='a"b', state=LEARN)
    text = metrics_text([row, replace(FINE_ROW, state=FINE)])
    assert 'gruard_fleet_assets{state="learn again"} 1\n' in text
    assert 'gruard_fleet_asset_state{asset="a\\"b",state="learn again"} 1\n' in text
    assert 'gruard_fleet_score_drift_index{asset="pump"} 0.05\n' in text
    assert all(line.startswith(("#", "gruard_fleet_")) for line in text.splitlines())
