"""The study of short recordings: what it counts, on a made rig."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import short
from benchmarks.short import FAULT_START, KINDS, ShortResult, rig, starts, table, with_fault
from edge_runtime.detector.alarm import PAUSE

pytestmark = pytest.mark.slow


def result(rule: bool, alarmed: float, **found: object) -> ShortResult:
    usual = dict.fromkeys(KINDS, False)
    fields = {"onsets": 0, "changed": 0.0, "announced": usual, "chance": False} | found
    return ShortResult("rig/0", rule, 250, 1000, alarmed, **fields)  # type: ignore[arg-type]


def test_an_alarm_that_is_on_does_not_begin() -> None:
    alarms = np.repeat([True, False, True, False, True], [2, PAUSE + 1, 1, PAUSE, 1])
    assert starts(alarms) == [0, PAUSE + 3]


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_is_on_one_channel_at_the_end(kind: str) -> None:
    rows, rng = rig(3), np.random.default_rng(0)
    scored = np.array([True] * 7 + [False])
    faulty = with_fault(rows[500:], rows[:500], kind, scored, rng)
    clean = rows[500 : 500 + len(faulty)]
    apart = (faulty != clean).any(axis=0)
    assert apart.sum() == 1 and not apart[7]
    assert (faulty[:FAULT_START] == clean[:FAULT_START]).all()


def test_the_table_has_a_line_with_the_rule_and_one_without() -> None:
    hit = dict.fromkeys(KINDS, True)
    found = [result(True, 0.1, announced=hit, onsets=2), result(False, 0.5), result(True, 0.3)]
    lines = table(found).splitlines()
    assert len(lines) == 6
    assert "| 250 | told once | 2 | 20.0% | 20.0% | 30% | 0.0% | 10.0 | 0.50 | 0.00 | 0 |" in lines
    assert "| 250 | alarms | 1 | 50.0% | 50.0% | 50% | 0.0% | 0.0 | 0.00 | 0.00 | 0 |" in lines


def test_an_unsettled_rig_is_quieter_with_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short, "RIGS", (0,))
    done = CliRunner().invoke(short.main, ["--rows", "300", "--only", "rig", "--json"])
    assert done.exit_code == 0, done.output
    with_rule, without = json.loads(done.stdout)
    assert with_rule["rule"] and not without["rule"]
    assert with_rule["alarmed"] < 0.2 < 0.5 < without["alarmed"]
    assert with_rule["changed"] > 0.5 and without["changed"] == 0
