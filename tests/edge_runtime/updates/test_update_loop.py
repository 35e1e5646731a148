"""Checks again and again: pauses, reports, and a server or broker that is away for a while."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_bundle import write_made_bundle

pytest.importorskip("tuf", reason="updates are not tested: pip install 'gruard[updates]'")

from edge_runtime.address import parse_mqtt_address
from edge_runtime.bundle.reader import read_bundle
from edge_runtime.errors import GruardError
from edge_runtime.plain import read_sealed
from edge_runtime.updates.reporter import Reporter
from edge_runtime.updates.store import Store
from edge_runtime.updates.update_check import (
    CURRENT,
    INSTALLED,
    DeviceReport,
    UpdateResult,
    report_of,
)
from edge_runtime.updates.update_loop import (
    FIRST_PAUSE,
    LOOK,
    Outbound,
    Surroundings,
    keep_updating,
)
from tests.apparatus.mosquitto import Broker, Listener

EVERY = 1800.0
RESULT = UpdateResult("pump", CURRENT, "pump-1", "0" * 64, "pump-1 is current")


class EndError(Exception):
    """Ends the loop, which otherwise never does."""


class World:
    """Time that passes while the loop sleeps. Reports go to `sent` while there is a broker."""

    def __init__(self, store: Path, share: float = 0.5) -> None:
        self.now, self.end = 1000.0, 0.0
        self.checks: list[float] = []
        self.said: list[UpdateResult] = []
        self.logged: list[str] = []
        self.sent: list[tuple[float, DeviceReport]] = []
        self.server = self.broker = True
        self.result = RESULT
        self.around = Surroundings(
            lambda: self.now, lambda: 1e9 + self.now, self._sleep, lambda: share
        )
        self.store = Store(store)
        (store / "updates").mkdir(parents=True)
        file = store / "updates" / "report.json"
        self.outbound = Outbound(self.store, "pump", file, self, self.logged.append, self.around)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.end:
            raise EndError

    def send(self, report: DeviceReport) -> None:
        if not self.broker:
            raise GruardError("mqtt://b/t: no connection")
        self.sent.append((self.now, report))

    def _check(self) -> UpdateResult:
        self.checks.append(self.now)
        if not self.server:
            raise GruardError("the server is away")
        return self.result

    def run(self, seconds: float) -> None:
        """Run the loop for so long."""
        self.end = self.now + seconds
        with pytest.raises(EndError):
            keep_updating(
                self._check, EVERY, self.outbound, self.said.append, self.logged.append, self.around
            )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "store")


def pauses(world: World) -> list[float]:
    return [b - a for a, b in zip(world.checks, world.checks[1:], strict=False)]


def test_checks_come_as_often_as_asked(world: World) -> None:
    world.run(10 * EVERY)
    assert len(world.checks) == 10 and world.said == [RESULT]
    assert all(abs(pause - EVERY) <= LOOK for pause in pauses(world))


@settings(max_examples=10)
@given(share=st.floats(0, 1, exclude_max=True))
def test_pauses_vary_by_a_quarter(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    world = World(tmp_path_factory.mktemp("w") / "store", share)
    world.run(4 * EVERY)
    assert world.checks[0] - 1000 <= FIRST_PAUSE + LOOK
    assert all(0.75 * EVERY <= pause <= 1.25 * EVERY + LOOK for pause in pauses(world))


def test_a_failed_check_is_repeated_soon_and_then_less_often(world: World) -> None:
    world.server = False
    world.run(6 * EVERY)
    found = pauses(world)
    assert found[:4] == [30.0, 60.0, 120.0, 240.0] and max(found) <= EVERY + LOOK
    assert sum("the server is away; checked again in" in line for line in world.logged) > 1
    assert world.sent[-1][1].problem == "the server is away"
    world.server = True
    world.run(EVERY + LOOK)
    assert "the check succeeded" in world.logged[-1] or world.said == [RESULT]
    assert world.sent[-1][1].problem == ""


def test_a_result_is_said_when_it_differs(world: World) -> None:
    world.run(3 * EVERY)
    world.result = UpdateResult("pump", INSTALLED, "pump-2", "1" * 64, "pump-2 installed")
    world.run(3 * EVERY)
    assert [result.outcome for result in world.said] == [CURRENT, INSTALLED]


def test_what_becomes_of_a_trial_is_reported_within_seconds(world: World, tmp_path: Path) -> None:
    """Another process ends it: the loop sees that in the store."""
    first, second = (read_bundle(write_made_bundle(tmp_path / "b", n)) for n in (1, 2))
    world.store.install(first)
    world.run(LOOK)
    world.store.install(second)
    world.run(LOOK)
    world.store.change(lambda pointers: pointers.failed(second.digest, "it crashed"))
    world.run(LOOK)
    reports = [report for _, report in world.sent]
    assert [report.current for report in reports] == [first.digest] * 3
    assert [report.trial for report in reports] == [None, second.digest, None]
    assert (reports[-1].rejected, reports[-1].reason) == (second.digest, "it crashed")
    kept = read_sealed(world.store.root / "updates" / "report.json", DeviceReport)
    assert kept == reports[-1]


def test_a_report_is_sent_once_and_after_the_broker_was_away(world: World) -> None:
    world.broker = False
    world.run(4 * FIRST_PAUSE)
    assert not world.sent and any("is sent later" in line for line in world.logged)
    world.broker = True
    world.run(4 * FIRST_PAUSE)
    assert len(world.sent) == 1 and world.logged[-1] == "the report was sent"


def test_a_change_of_the_store_that_says_nothing_new_sends_nothing(
    world: World, tmp_path: Path
) -> None:
    world.store.install(read_bundle(write_made_bundle(tmp_path / "b", 1)))
    world.run(LOOK)
    (world.store.slots.folder / "other").mkdir()
    world.run(LOOK)
    assert len(world.sent) == 1


def test_a_disk_that_cannot_be_written_ends_nothing(world: World, tmp_path: Path) -> None:
    (tmp_path / "store" / "updates").rmdir()
    world.run(2 * EVERY)
    assert len(world.checks) == 2 and len(world.sent) == 1
    assert any("the report is outdated" in line for line in world.logged)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.kill()


def test_a_report_is_retained_at_the_broker(broker: Broker, tmp_path: Path) -> None:
    report = report_of("pump", Store(tmp_path / "store").pointers(), "a problem", 12.5)
    Reporter(parse_mqtt_address(broker.address("fleet"))).send(report)
    listener = Listener(broker.port)
    listener.wait_for(lambda: bool(listener.on("fleet/pump")))
    assert DeviceReport(**json.loads(listener.on("fleet/pump")[0])) == report
    assert listener.messages[0][2]
    listener.stop()


def test_a_broker_that_is_away_or_refuses_is_named(broker: Broker, tmp_path: Path) -> None:
    report = report_of("pump", Store(tmp_path / "store").pointers(), "", 12.5)
    broker.kill()
    address = parse_mqtt_address(broker.address("fleet"))
    with pytest.raises(GruardError, match=r"/fleet: no connection \(Connection refused\)"):
        Reporter(address).send(report)
    locked = Broker(tmp_path, "allow_anonymous false\n")
    with pytest.raises(GruardError, match="does not take the user name or password"):
        Reporter(parse_mqtt_address(locked.address("fleet"))).send(report)
    locked.kill()
