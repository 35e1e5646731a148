"""The clock nemesis in small, and that its checks bite."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.record import Flag
from tests.apparatus.lying_clocks import LIES
from tests.campaign.clock_nemesis import Outcome, check, longest_silence, part, runner
from tests.campaign.fault import NotHeldError
from tests.campaign.lab import Lab, open_lab

SCALE = 0.01


@pytest.fixture(scope="module")
def lab(linear_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return open_lab(linear_bundle, tmp_path_factory.mktemp("nemesis"))


@pytest.mark.long
def test_every_lie_is_answered_in_time_and_without_falling_back(lab: Lab) -> None:
    rows = list(part(lab, 0, SCALE))
    assert {row.name for row in rows} == set(LIES)
    assert [f"{row.name}: {row.happened}" for row in rows if not row.held] == []


def test_arrivals_never_fall() -> None:
    for lie in LIES.values():
        stream = lie(np.random.default_rng(1), 200, 0.1)
        arrivals = [arrival for _, arrival in stream]
        assert arrivals == sorted(arrivals) and arrivals[0] >= 0


def test_the_checks_bite(lab: Lab) -> None:
    rng = np.random.default_rng(0)
    good = runner(lab)(LIES["drift"](rng, 60, lab.period), True)
    check(good, lab, True)
    spoilt = {
        "indices": replace(good, records=good.records[1:]),
        "without a record": replace(good, records=good.records[:-2], at=good.at[:-2]),
        "RESET": _with(good, flags=Flag.RESET),
        "in tier 1": _with(good, tier=3),
        "slots in": _with(good, slots=20),
        "no record for": replace(
            good, at=[a + 3 * lab.period * (a > 20 * lab.period) for a in good.at]
        ),
    }
    for words, outcome in spoilt.items():
        with pytest.raises(NotHeldError, match=words):
            check(outcome, lab, True)
    assert longest_silence(good, lab.period) <= 2


def _with(outcome: Outcome, **fields: object) -> Outcome:
    """The outcome with other fields in its last records."""
    records = outcome.records
    return replace(
        outcome, records=[*records[:-10], *(replace(r, **fields) for r in records[-10:])]
    )
