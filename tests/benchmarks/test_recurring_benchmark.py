"""The counts of the benchmark by hand, and its variants against the rule that ships."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import recurring
from benchmarks.recurring import RULES, DailyAlarm, Nights, Rule, alarms_of, judged
from edge_runtime.record import Flag, Record
from edge_runtime.recurring_alarms import RecurringAlarms

SHIPPED = Rule().name


def stream(alarms: Sequence[tuple[int, str]], rows: int) -> list[Record]:
    """Records in which alarms of one row each blame a channel."""
    calm = Record(0, None, 1, Flag(0), True, 0.0, 1.0, False, (), (), (), "")
    records = [replace(calm, index=row) for row in range(rows)]
    for row, blamed in alarms:
        records[row] = replace(records[row], alarm=True, blamed=(blamed,))
    return records


_alarms = st.lists(
    st.tuples(
        st.integers(0, 4).flatmap(lambda day: st.integers(288 * day + 90, 288 * day + 100)),
        st.sampled_from("ab"),
    ),
    max_size=8,
)


@given(alarms=_alarms)
def test_the_first_rule_is_the_one_that_ships(alarms: list[tuple[int, str]]) -> None:
    records, marker = stream(alarms, 5 * 288), RecurringAlarms(300.0)
    marked = {r.index for r in map(marker.mark, records) if Flag.RECURRING in r.flags}
    found = alarms_of(records)
    assert {a.start for a in found if SHIPPED in a.recurs} == marked & {a.start for a in found}
    assert len({rule.name for rule in RULES}) == len(RULES) and RULES[0] == Rule()


def test_variants_differ_where_they_should() -> None:
    nights = [(288 * day + 100, "a") for day in range(3)] + [(288 * 3 + 100, "b")]
    found = alarms_of(stream(nights, 4 * 288))
    names = {rule: [rule.name in alarm.recurs for alarm in found] for rule in RULES}
    assert names[Rule()] == [False, False, True, False]
    assert names[Rule(fewest_days=1)] == [False, True, True, False]
    assert names[Rule(fewest_days=3)] == [False] * 4
    assert names[Rule("any")] == [False, False, True, True]


def test_false_alarms_and_harm_are_counted_apart() -> None:
    labels = np.zeros(1000, bool)
    labels[100:150] = labels[400:450] = labels[700:750] = True
    known = frozenset([SHIPPED])
    alarms = [
        DailyAlarm(10, 20, frozenset()), DailyAlarm(200, 210, known),  # false
        DailyAlarm(90, 101, known),  # the first stretch: all that is in it recurs
        DailyAlarm(440, 445, known), DailyAlarm(449, 460, frozenset()),  # the second: not all
        DailyAlarm(750, 760, known),  # right after the third, so false
    ]  # fmt: skip
    found = judged("s", 30, Rule(), alarms, labels)
    assert (found.healthy, found.false, found.recurring) == (850, 3, 2)
    assert (found.announced, found.harmed) == (2, 1)
    line = recurring.table([found, *(replace(found, rule=r.name) for r in RULES[1:])])
    cells = "| 30 | all blamed, 2 days, ±30 min (ships) | 35.29 | 11.76 | 2 of 3 | 1 of 2 |"
    assert line.splitlines()[2] == cells


def test_nights_are_summed_over_servers() -> None:
    text = recurring.nightly_table([Nights("a", 18, 17, True, False), Nights("b", 2, 2, False, 0)])
    assert text.splitlines()[-1] == "| 2 | 20 | 19 | 1 | 0 |"


def test_disturbances_are_where_they_are_said_to_be() -> None:
    like = np.random.default_rng(0).normal(size=(2880, 3)).astype(np.float32)
    rows = np.zeros((14 * 288, 3), np.float32)
    places = recurring._disturb(rows, like, np.random.default_rng(1))
    lifted = np.flatnonzero(rows.any(axis=1))
    assert len(places) == 15 and len(lifted) == 15 * recurring.NIGHT_ROWS
    assert set(lifted) == {at + n for at in places for n in range(recurring.NIGHT_ROWS)}
    assert all(abs(at % 288 - 18) <= recurring.JITTER for at in places[:-1])
    assert places[-1] % 288 == 168


def test_without_the_data_it_says_so(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(recurring, "DATA", tmp_path)
    done = CliRunner().invoke(recurring.main, [])
    assert done.exit_code == 1 and "no such server there; docs/data.md" in done.output
    assert "asd/omi-1 is left out" in done.output
