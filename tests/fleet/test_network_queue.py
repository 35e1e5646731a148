"""Networks go to the design that gains the most, and not on where nothing is gained."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from fleet.network_queue import PROBES, NetworkQueue, may_pay
from fleet.results import NETWORK, AssetResult


def row(design: str, number: int) -> AssetResult:
    return AssetResult(f"{design}-{number}", "assured", "", design=design, rows=5000, channels=4)


def assets(**counts: int) -> list[AssetResult]:
    return [row(design, number) for design, count in counts.items() for number in range(count)]


def outcome(asset: AssetResult, gain: float) -> AssetResult:
    kept = {"model": NETWORK} if gain >= 0.02 else {}
    return replace(asset, weighed=True, gain=gain, **kept)


def order(queue: NetworkQueue, gains: dict[str, float]) -> list[str]:
    """The designs in the order in which they get networks."""
    found = []
    while asset := queue.take():
        queue.ended(outcome(asset, gains[asset.design]))
        found.append(asset.design)
    return found


def test_the_design_that_gains_the_most_is_finished_first() -> None:
    found = order(
        NetworkQueue(assets(fan=4, pump=20, mill=6)), {"fan": 0.03, "pump": 0.0, "mill": 0.1}
    )
    assert found[0] == "pump", "the design with the most assets is tried first"
    assert found.count("pump") == PROBES, "three networks without a gain are enough"
    assert found.count("fan") == 4 and found.count("mill") == 6
    last_mill = len(found) - 1 - found[::-1].index("mill")
    assert found[last_mill + 1 :].count("fan") >= 3, "the larger gain goes first"


def test_a_network_that_was_not_kept_has_gained_nothing() -> None:
    assert order(NetworkQueue(assets(pump=9)), {"pump": 0.019}) == ["pump"] * PROBES


def test_earlier_networks_count_as_probes() -> None:
    rows = assets(pump=9)
    tried = [outcome(each, -0.1) for each in rows[:PROBES]]
    assert NetworkQueue([*tried, *rows[PROBES:]]).take() is None
    tried[0] = outcome(rows[0], 0.2)
    assert NetworkQueue([*tried, *rows[PROBES:]]).take() == rows[PROBES]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(-0.2, 0.3)), max_size=40))
def test_no_asset_gets_two_networks(drawn: list[tuple[str, float]]) -> None:
    queue = NetworkQueue(row(design, number) for number, (design, _) in enumerate(drawn))
    taken = []
    while asset := queue.take():
        taken.append(asset.asset)
        queue.ended(outcome(asset, drawn[int(asset.asset.split("-")[1])][1]))
    assert len(set(taken)) == len(taken)
    for design in {design for design, _ in drawn}:
        own = sum(each == design for each, _ in drawn)
        assert sum(name.startswith(design) for name in taken) >= min(own, PROBES)


def test_a_short_recording_or_a_single_channel_is_not_tried() -> None:
    assert may_pay(row("pump", 0))
    assert not may_pay(replace(row("pump", 0), rows=999))
    assert not may_pay(replace(row("pump", 0), channels=1))
