"""Rollouts: stages nest, a bad bundle is stopped and taken back, and an interrupted one goes on."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tuf", reason="updates are not tested: pip install '.[fleet]'")

from made_fleet import NOW, no_passphrase, put_bundle
from tuf.api.metadata import Metadata

from edge_runtime.errors import GruardError
from edge_runtime.plain import read_sealed
from edge_runtime.updates.update_check import DeviceReport
from fleet.__main__ import cli
from fleet.device_reports import ReportReader
from fleet.keys import make_keys, read_keys
from fleet.publish import UpdateRepository
from fleet.rollout import (
    COMMITTED,
    FINISHED,
    PAUSED,
    ROLLED_BACK,
    RUNNING,
    STOPPED,
    STOPPING,
    TRIAL,
    WAITING,
    AssetProgress,
    RolloutEnd,
    StagedRollout,
    plan,
    run_rollout,
)
from tests.apparatus.mosquitto import Broker

STAGES = (0.1, 0.5, 1.0)
LIMIT = 0.02
HOUR = 3600.0
ASSETS = [f"pump-{number}" for number in range(6)]
NAMES = st.text("abcdefghij-0123456789", min_size=1, max_size=8)


def planned(names: "set[str] | list[str]", **changes: object) -> StagedRollout:
    rollout = StagedRollout(dict.fromkeys(names, "d"), STAGES, LIMIT, 7)
    return replace(rollout, **changes)  # type: ignore[arg-type]


@given(names=st.sets(NAMES, min_size=1, max_size=60), extra=st.sets(NAMES))
def test_stages_nest_and_none_is_empty(names: set[str], extra: set[str]) -> None:
    members = [planned(names, stage=stage).members() for stage in range(3)]
    assert members[0] and {*members[-1]} == names
    for smaller, larger, share in zip(members, members[1:], STAGES[1:], strict=False):
        assert larger[: len(smaller)] == smaller
        assert share * len(names) <= len(larger) < share * len(names) + 1
    order = [each for each in planned(names | extra, stage=2).members() if each in names]
    assert order == [*members[-1]]  # the choice of some does not depend on the others


def states(**counts: int) -> list[AssetProgress]:
    words = {"committed": COMMITTED, "trial": TRIAL, "back": ROLLED_BACK, "waiting": WAITING}
    return [
        AssetProgress(f"{name}-{i}", words[name], "it crashed" if name == "back" else "")
        for name, count in counts.items()
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("stage", "progress", "overdue", "then", "state"),
    [
        (0, states(committed=3), False, 1, RUNNING),
        (0, states(committed=2, trial=1), False, 0, RUNNING),
        (0, states(committed=2, waiting=1), False, 0, RUNNING),
        (0, states(committed=2, waiting=1), True, 1, RUNNING),
        (0, states(committed=1, waiting=2), True, 0, PAUSED),
        (0, states(waiting=3), True, 0, PAUSED),
        (0, states(waiting=3, back=1), False, 0, STOPPING),
        (1, states(committed=98, back=2), False, 2, RUNNING),
        (1, states(committed=97, back=3), False, 1, STOPPING),
        (1, states(waiting=97, back=3), False, 1, STOPPING),
        (2, states(committed=3), False, 2, FINISHED),
        (2, states(committed=2, waiting=1), True, 2, FINISHED),
        (2, states(committed=2, trial=1), False, 2, RUNNING),
    ],
)
def test_what_follows_a_stage(
    stage: int, progress: list[AssetProgress], overdue: bool, then: int, state: str
) -> None:
    following = planned({"a"}, stage=stage).decided(progress, overdue)
    assert (following.stage, following.state) == (then, state)
    assert bool(following.reason) == (
        state in (PAUSED, STOPPING) or (overdue and state == FINISHED)
    )


class Devices:
    """Devices that take what is published: the reader of a rollout, and its clock.

    become: what a device of an asset makes of a bundle's version; `COMMITTED` unless it says so.
    """

    def __init__(self, folder: Path) -> None:
        self.fleet, self.www = folder / "fleet", folder / "www"
        self.keys = make_keys(folder / "keys", NOW, "").path
        self.become: Callable[[str, str], str] = lambda asset, digest: COMMITTED
        self.reports: dict[str, DeviceReport] = {}
        self.connected, self.now, self.reads, self.most_reads = True, 0.0, 0, 10**6
        self.said: list[str] = []

    def train(self, version: int) -> None:
        for asset in ASSETS:
            put_bundle(self.fleet, asset, version)

    def repository(self) -> UpdateRepository:
        keys = read_keys(self.keys, no_passphrase)
        return UpdateRepository(self.www, keys, NOW + timedelta(seconds=self.now))

    def read(self, timeout: float) -> None:
        self.now += timeout * 60  # a wait of a second is a minute here
        self.reads += 1
        if self.reads > self.most_reads:
            raise KeyboardInterrupt
        if not self.connected:
            return
        for asset, digest in self.repository().digests().items():
            before = self.reports.get(asset) or DeviceReport(asset, None, None, None, "", "", 0.0)
            if digest in (before.current, before.rejected):
                continue
            state = self.become(asset, digest)
            self.reports[asset] = {
                COMMITTED: replace(before, current=digest, trial=None),
                TRIAL: replace(before, trial=digest),
                ROLLED_BACK: replace(before, rejected=digest, reason="it crashed"),
                WAITING: before,
            }[state]

    def roll_out(self) -> RolloutEnd:
        begun = plan(self.fleet, self.repository(), STAGES, LIMIT)
        return run_rollout(
            self.fleet, begun, self.repository, self, HOUR, self.said.append, lambda: self.now
        )

    def published(self) -> dict[str, str]:
        return self.repository().digests()


@pytest.fixture
def devices(tmp_path: Path) -> Devices:
    """Six devices that run version 1; version 2 is ready."""
    devices = Devices(tmp_path)
    devices.train(1)
    devices.repository().publish(devices.fleet)
    devices.read(1.0)
    devices.train(2)
    return devices


def test_a_good_bundle_reaches_all(devices: Devices) -> None:
    before = devices.published()
    end = devices.roll_out()
    assert end.rollout.state == FINISHED and devices.published() == dict(end.rollout.bundles)
    assert all(before[asset] != digest for asset, digest in devices.published().items())
    stages = [line for line in devices.said if line.startswith("stage")]
    assert [line.split("published to ")[1] for line in stages] == [
        f"{count} of 6 assets" for count in (1, 3, 6)
    ]
    assert end.facts()["counts"] == {COMMITTED: 6} and "finished" in end.text()
    assert "6 of 6 assets published" in (devices.fleet / "rollout.html").read_text()


def test_a_finished_rollout_is_not_begun_again(devices: Devices) -> None:
    devices.roll_out()
    version = devices.repository().version()
    end = devices.roll_out()
    assert end.rollout.state == FINISHED and devices.repository().version() == version


def test_a_bad_bundle_stops_in_its_stage_and_is_taken_back(devices: Devices) -> None:
    before = devices.published()
    order = planned(ASSETS, stage=2).members()
    devices.become = lambda asset, digest: ROLLED_BACK if asset == order[2] else COMMITTED
    end = devices.roll_out()
    assert (end.rollout.state, end.rollout.stage) == (STOPPED, 1)
    assert f"rolled back on 1 of 3 assets, first {order[2]}: it crashed" in end.text()
    assert devices.published() == before
    page = (devices.fleet / "rollout.html").read_text()
    assert "stopped at stage 2 of 3" in page and "it crashed" in page
    again = devices.roll_out()
    assert again.rollout == end.rollout and devices.published() == before


def test_other_bundles_begin_a_new_rollout(devices: Devices) -> None:
    devices.become = lambda asset, digest: ROLLED_BACK
    assert devices.roll_out().rollout.state == STOPPED
    devices.become = lambda asset, digest: COMMITTED
    devices.train(3)
    end = devices.roll_out()
    assert end.rollout.state == FINISHED and devices.published() == dict(end.rollout.bundles)


def test_other_bundles_in_the_middle_return_to_what_was_before(devices: Devices) -> None:
    before = devices.published()
    devices.become = lambda asset, digest: WAITING
    assert devices.roll_out().rollout.state == PAUSED
    devices.train(3)
    devices.become = lambda asset, digest: ROLLED_BACK
    assert devices.roll_out().rollout.state == STOPPED
    assert devices.published() == before


def test_a_first_rollout_that_stops_leaves_nothing(tmp_path: Path) -> None:
    devices = Devices(tmp_path)
    devices.train(1)
    devices.become = lambda asset, digest: ROLLED_BACK
    assert devices.roll_out().rollout.state == STOPPED and devices.published() == {}


def test_silent_devices_pause_it_and_the_same_command_goes_on(devices: Devices) -> None:
    devices.become = lambda asset, digest: WAITING
    end = devices.roll_out()
    assert (end.rollout.state, end.rollout.stage) == (PAUSED, 0)
    assert "committed on 0 of 1 assets in the time allowed" in end.text()
    devices.become = lambda asset, digest: COMMITTED
    assert devices.roll_out().rollout.state == FINISHED


def test_a_silent_minority_does_not_hold_it_up(devices: Devices) -> None:
    last = planned(ASSETS, stage=2).members()[-1]
    devices.become = lambda asset, digest: WAITING if asset == last else COMMITTED
    end = devices.roll_out()
    assert end.rollout.state == FINISHED
    assert "1 of 6 assets have not answered yet" in end.text()


def test_the_time_without_a_broker_does_not_count(devices: Devices) -> None:
    devices.connected, devices.most_reads = False, 1000  # far more than an hour
    with pytest.raises(KeyboardInterrupt):
        devices.roll_out()
    devices.connected, devices.most_reads = True, 10**6
    assert devices.roll_out().rollout.state == FINISHED


def test_signatures_are_renewed_while_it_waits(devices: Devices) -> None:
    devices.connected, devices.most_reads = False, 1 + 3 * 24 * 60
    with pytest.raises(KeyboardInterrupt):
        devices.roll_out()
    file = devices.www / "metadata" / "timestamp.json"
    assert Metadata.from_file(str(file)).signed.expires > NOW + timedelta(days=16)


@pytest.mark.parametrize("reads", range(1, 8))
def test_wherever_it_is_interrupted_the_same_command_finishes_it(
    devices: Devices, reads: int
) -> None:
    devices.most_reads = devices.reads + reads
    interrupted = False
    try:
        devices.roll_out()
    except KeyboardInterrupt:
        interrupted = True
    assert interrupted == (reads < 4)
    devices.most_reads = 10**6
    assert devices.roll_out().rollout.state == FINISHED
    assert set(devices.published()) == {*ASSETS}


def test_an_interrupted_return_is_finished(
    devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed after the decision to stop, before the earlier bundles are published."""
    before = devices.published()
    devices.become = lambda asset, digest: ROLLED_BACK
    with monkeypatch.context() as patch:
        patch.setattr(UpdateRepository, "restore", _killed)
        with pytest.raises(KeyboardInterrupt):
            devices.roll_out()
    assert devices.published() != before
    kept = read_sealed(devices.fleet / "rollout.json", StagedRollout)
    assert kept and kept.state == STOPPING
    assert devices.roll_out().rollout.state == STOPPED and devices.published() == before


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_the_owner_publishes_after_a_stop_stays(devices: Devices) -> None:
    devices.become = lambda asset, digest: ROLLED_BACK
    end = devices.roll_out()
    devices.repository().publish(devices.fleet)
    assert devices.roll_out().rollout == end.rollout
    assert devices.published() == dict(end.rollout.bundles)


def test_a_bundle_that_cannot_be_read_is_named_and_left_out(devices: Devices) -> None:
    (devices.fleet / "assets" / "pump-0" / "2" / "pump-0-2.gruard" / "golden.npz").unlink()
    end = devices.roll_out()
    assert end.rollout.state == FINISHED and "pump-0" not in end.rollout.bundles
    assert any(line.startswith("pump-0: ") for line in end.problems)


def test_a_damaged_state_is_named(devices: Devices) -> None:
    (devices.fleet / "rollout.json").write_text("{}")
    with pytest.raises(GruardError, match=r"rollout\.json: damaged"):
        devices.roll_out()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.kill()


def until(reader: ReportReader, enough: Callable[[Mapping[str, DeviceReport]], bool]) -> None:
    while not enough(reader.reports):
        reader.read(0.1)


def test_reports_are_read_from_a_real_broker_that_goes_and_comes_back(
    broker: Broker, tmp_path: Path
) -> None:
    report = DeviceReport("pump", "c", None, None, "", "", 1.0)
    for topic, text in (
        ("fleet/pump", report.to_json()), ("fleet/x", b"{"), ("fleet/y", b"\xff"),
        ("fleet/z", b'{"asset": "z"}'), ("fleet/pump/status", b"online"),
    ):  # fmt: skip
        broker.publish(topic, text, retain=True)
    log: list[str] = []
    reader = ReportReader(broker.address("fleet"), log.append, sleep=lambda seconds: None)
    until(reader, lambda reports: "pump" in reports)
    forged, fan = replace(report, current="forged"), replace(report, asset="fan")
    broker.publish("fleet/other", forged.to_json())
    broker.publish("fleet/fan", fan.to_json())
    until(reader, lambda reports: "fan" in reports)
    assert reader.reports == {"pump": report, "fan": fan}
    broker.kill()
    while reader.connected:
        reader.read(0.1)
    assert reader.reports["pump"] == report and "tried again" in log[-1]
    broker.start()
    later = replace(report, trial="t")
    broker.publish("fleet/pump", later.to_json(), retain=True)
    until(reader, lambda reports: reports["pump"] == later)
    reader.close()
    assert any("is no report and is ignored" in line for line in log)


def command(devices: Devices, *words: object) -> Result:
    words = ("rollout", devices.fleet, "--keys", devices.keys, "--to", devices.www, *words)
    return CliRunner().invoke(cli, [*map(str, words)])


def test_the_command_with_a_real_broker(devices: Devices, broker: Broker) -> None:
    """The reports of all devices are there already, so no stage has to wait."""
    for asset in ASSETS:
        bundle = devices.fleet / f"assets/{asset}/2/{asset}-2.gruard/manifest.sha256"
        digest = bundle.read_text().split()[0]
        report = DeviceReport(asset, digest, None, None, "", "", 1.0)
        broker.publish(f"fleet/{asset}", report.to_json(), retain=True)
    done = command(devices, "--reports", broker.address("fleet"), "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["state"], facts["counts"], facts["stage"]) == (FINISHED, {COMMITTED: 6}, 4)
    assert "stage 1 of 4: published to 1 of 6 assets" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--stages", "10%"), "end in 100%"),
        (("--stages", "50%,10%,100%"), "rising shares"),
        (("--stages", "0%,100%"), "rising shares"),
        (("--stages", "a,100%"), "rising shares"),
        (("--stop-when", "alarms > 2 %"), "write 'rolled back > 2 %'"),
        (("--stop-when", "rolled back > 200 %"), "write 'rolled back > 2 %'"),
        (("--wait", "1s"), "no length of a stage"),
        (("--reports", "nowhere"), "mqtt://HOST/TOPIC"),
        (("--keys", "/nowhere"), "make keys"),
    ],
)
def test_a_wrong_option_is_named(devices: Devices, words: tuple[str, str], says: str) -> None:
    done = command(devices, "--reports", "mqtt://127.0.0.1:1/fleet", *words)
    assert done.exit_code != 0 and says in done.output + str(done.exception)
    assert isinstance(done.exception, (SystemExit, GruardError))
