"""Alarms of many assets at once are told from those that meet by chance."""

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="the fleet is not tested: pip install '.[fleet]'")
from fleet.ingest.together import (
    ALL,
    CHANCE,
    WINDOW,
    Company,
    Watched,
    chance_of_at_least,
    companies,
)

START, DAY = 1.78e9, 86400.0


def fleet(
    rng: np.random.Generator, assets: int, days: float, rate: float, events: int, share: float
) -> tuple[list[Watched], np.ndarray]:
    """Assets with alarms of their own at different rates, and events that alarm a share of them."""
    shared = START + rng.uniform(0, days * DAY, events)
    watched, is_shared = [], []
    for number in range(assets):
        own = START + rng.uniform(0, days * DAY, rng.poisson(rate * rng.gamma(2, 0.5) * days))
        hit = shared[rng.random(events) < share] + rng.uniform(0, 120)
        times = np.concatenate([own, hit])
        order = np.argsort(times)
        watched.append(Watched(f"a{number}", tuple(times[order]), START, START + days * DAY))
        is_shared.append(np.repeat([False, True], [len(own), len(hit)])[order])
    return watched, np.concatenate(is_shared)


def common(watched: list[Watched]) -> np.ndarray:
    return np.array([each.common for one in companies(watched) for each in one], bool)


@pytest.mark.parametrize(("assets", "rate"), [(20, 1.0), (200, 1.0), (200, 10.0), (1000, 0.2)])
def test_independent_alarms_are_their_own(assets: int, rate: float) -> None:
    watched, _ = fleet(np.random.default_rng(assets), assets, 30, rate, 0, 0.0)
    found = common(watched)
    assert len(found) > 400 and found.mean() <= 2 * CHANCE


@pytest.mark.parametrize(("assets", "share", "least"), [(20, 0.4, 0.9), (200, 0.1, 0.95)])
def test_shared_events_are_found(assets: int, share: float, least: float) -> None:
    watched, is_shared = fleet(np.random.default_rng(assets), assets, 30, 1.0, 20, share)
    found = common(watched)
    assert found[is_shared].mean() >= least
    # By chance an own alarm lies in the ten minutes around one of 20 events in 30 days.
    assert found[~is_shared].mean() <= CHANCE + 2 * 20 * 2 * WINDOW / (30 * DAY)


def test_a_site_is_compared_by_itself() -> None:
    rng = np.random.default_rng(5)
    watched, _ = fleet(rng, 400, 30, 3.0, 0, 0.0)
    event = START + 10 * DAY
    site = [
        Watched(w.asset, tuple(sorted((*w.starts, event + n))), w.first, w.last, ("site North",))
        for n, w in enumerate(watched[:5])
    ]
    others = [Watched(w.asset, w.starts, w.first, w.last, ("site South",)) for w in watched[5:]]
    found = companies([*site, *others])
    for one, company in zip(site, found, strict=False):
        at = next(n for n, start in enumerate(one.starts) if event <= start < event + 5)
        assert company[at].group == "site North" and company[at].assets >= 4
    # The same alarms in no site are not many among 400.
    plain = [Watched(w.asset, w.starts, w.first, w.last) for w in site]
    assert not any(
        c.common and c.group != ALL for one in companies([*plain, *watched[5:]]) for c in one
    )


def test_one_asset_that_alarms_often_is_no_company() -> None:
    often = tuple(START + 10.0 * n for n in range(200))
    watched = [Watched("a", often, START, START + DAY), *(
        Watched(name, (START + 600.0,), START, START + DAY) for name in "bc"
    )]  # fmt: skip
    for one in companies(watched):
        for company in one:
            assert company.assets <= 2
    assert companies([]) == [] and companies([watched[0]]) == [[Company()] * 200]


def test_an_asset_without_records_at_the_time_is_not_expected() -> None:
    rng = np.random.default_rng(6)
    here = [Watched(f"h{n}", (START + n,), START - DAY, START + DAY) for n in range(4)]
    gone = [
        Watched(f"g{n}", tuple(START - 99 * DAY + rng.uniform(0, DAY, 300)), START - 99 * DAY,
                START - 98 * DAY) for n in range(300)
    ]  # fmt: skip
    expected = [one[0].expected for one in companies([*here, *gone])[:4]]
    assert max(expected) < 0.1, "the others ended long before"


def test_the_chance_is_that_of_poisson() -> None:
    assert chance_of_at_least(0, 3.0) == 1.0
    assert chance_of_at_least(3, 1.0) == pytest.approx(0.0803, abs=1e-4)
    assert chance_of_at_least(10**6, 2.0) == 0.0
