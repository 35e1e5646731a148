"""Real devices that take updates: two processes of gruard each, one broker, one web server.

    python -m tests.fleet.fleet_rig --devices 30

Each device has a run on a sensor and an update command, which share a store. The owner publishes
version 1, rolls out version 2, then version 3, which fails its self-test, and then version 4, while
devices are off and broker and web server go away and come back. The end prints what each version
reached, and what the records of all devices say.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.plain import write_sealed
from edge_runtime.updates.store import Store
from fleet.results import LEARNED, RESULT, AssetResult
from tests.apparatus.harm import edit_manifest
from tests.apparatus.mosquitto import Broker
from tests.apparatus.update_server import UpdateServer
from tests.golden_bundles import LINEAR

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600.0  # seconds; only a rig that hangs waits for them
STAGES = "10%,50%,100%"
PERIOD = 2.0  # seconds
AT_ONCE = 3  # devices that are switched on together, since Python's start takes the processor
TAIL = 4096  # bytes that hold the last record
SENSOR = """
import itertools, time
import numpy as np
from edge_runtime.sources.source import Polled, Reading

ROWS = itertools.cycle({rows})

def open_sensor(channels, period):
    return Polled(lambda: Reading(time.time(), np.array(next(ROWS), np.float32)), period)
"""


@dataclass(frozen=True)
class Evidence:
    """What the records of one device say.

    missing: records whose index does not follow the one before, within a run. unmarked: records
    without a healthy model that claim to have one.
    """

    asset: str
    records: int
    valid: int
    missing: int
    unmarked: int
    last_valid: bool


class Device:
    """One machine: its folder, a run and an update command."""

    def __init__(self, folder: Path, asset: str, environment: dict[str, str]) -> None:
        self.folder, self.asset, self._environment = folder, asset, environment
        self.store = Store(folder / "store")
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Switch it on."""
        words = self._environment
        common = ["--store", str(self.folder / "store")]
        run = [
            "-m", "edge_runtime", "run", *common, "--source", f"python:{self.folder}/sensor.py",
            "--sink", str(self.folder / "records.jsonl"), "--append", "--healthy-minutes", "0.1",
            "--deadline", "5", "--state", str(self.folder / "state"),
        ]  # fmt: skip
        update = [
            "-m", words["gruard"], "update", *common, "--from", words["server"],
            "--asset", self.asset, "--root", words["root"], "--every", words["every"],
            "--report", words["reports"],
        ]  # fmt: skip
        for name, command in (("run", run), ("update", update)):
            with (self.folder / f"{name}.log").open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, *command], cwd=ROOT, stdout=log, stderr=log,
                    env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
                )  # fmt: skip
            self._processes.append(process)

    def cut_power(self) -> None:
        """End its processes as a power cut does."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes = []

    def stop(self) -> list[int]:
        """End its processes in good order; return their exit codes."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        return [process.wait(60) for process in self._processes]

    def alive(self) -> bool:
        """Whether both processes run."""
        return bool(self._processes) and all(each.poll() is None for each in self._processes)

    def answers_well(self) -> bool:
        """Whether a healthy model gave its last record."""
        try:
            with (self.folder / "records.jsonl").open("rb") as stream:
                stream.seek(max(stream.seek(0, os.SEEK_END) - TAIL, 0))
                lines = stream.read().split(b"\n")
        except FileNotFoundError:
            return False
        return len(lines) > 1 and bool(json.loads(lines[-2])["valid"])

    def version(self) -> int:
        """Version of its current bundle."""
        current = self.store.pointers().current
        bundle = self.store.slots.read(current).bundle if current else None
        return bundle.manifest.version if bundle else 0

    def evidence(self) -> Evidence:
        """Return what its records say."""
        records = [json.loads(line) for line in (self.folder / "records.jsonl").open()]
        missing, unmarked, before = 0, 0, -1
        for record in records:
            missing += record["index"] not in (before + 1, 0)
            before = record["index"]
            unmarked += record["valid"] and (record["tier"] == 3 or not record["model"])
        return Evidence(
            self.asset, len(records), sum(record["valid"] for record in records), missing,
            unmarked, records[-1]["valid"],
        )  # fmt: skip


class FleetRig:
    """The owner's side and all devices, in `folder`.

    every: between two checks of a device; in seconds only for few devices, which load this machine
    little.
    """

    def __init__(self, folder: Path, count: int, every: str, say: Callable[[str], None]) -> None:
        self.folder, self._say, self.count = folder, say, count
        self.fleet, self.www, self.keys = folder / "fleet", folder / "www", folder / "keys"
        self.assets = [f"pump-{number:02}" for number in range(1, count + 1)]
        self._owner("keys", "--out", self.keys)
        self.add_version(1)
        self._owner("publish", self.fleet, "--keys", self.keys, "--to", self.www)
        self.broker, self.server = Broker(folder), UpdateServer(self.www)
        self.reports = self.broker.address("fleet")
        environment = {
            "server": self.server.address, "root": str(self.keys / "1.root.json"),
            "every": every, "reports": self.reports,
            "gruard": "tests.apparatus.quick_update" if every.endswith("s") else "edge_runtime",
        }  # fmt: skip
        self.devices = [self._device(asset, environment) for asset in self.assets]

    def add_version(self, version: int, bad: bool = False) -> None:
        """Train, so to say, the next version for all assets. bad: its self-test will fail."""
        for asset in self.assets:
            folder = self.fleet / "assets" / asset / str(version)
            bundle = Path(shutil.copytree(LINEAR, folder / f"{asset}-{version}.gruard"))

            def change(manifest: dict[str, Any], asset: str = asset) -> None:
                manifest.update(name=asset, version=version, period=PERIOD)
                manifest["channels"][1]["scale"] *= 1.5 if bad else 1.0

            edit_manifest(bundle, change)
            place = str(bundle.relative_to(self.fleet))
            result = AssetResult(asset, LEARNED, "", version=version, bundle=place)
            write_sealed(folder / RESULT, result)

    def roll_out(self, meanwhile: Callable[[], None] = lambda: None) -> tuple[int, dict[str, Any]]:
        """Run the rollout command; call `meanwhile` once it has begun. Return code and summary."""
        command = [
            sys.executable, "-m", "fleet", "rollout", self.fleet, "--keys", self.keys,
            "--to", self.www, "--reports", self.reports, "--stages", STAGES, "--json",
        ]  # fmt: skip
        process = subprocess.Popen(
            [*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert process.stdout and process.stderr
        for line in process.stderr:
            self._say(line.strip())
            if "stage 1 of" in line:
                meanwhile()
        facts = json.loads(process.stdout.read())
        return process.wait(PATIENCE), facts

    def wait(self, what: str, until: Callable[[], bool]) -> None:
        """Wait until a condition of the devices holds. Raises TimeoutError."""
        end = time.monotonic() + PATIENCE
        while not until():
            if time.monotonic() > end:
                raise TimeoutError(what)
            time.sleep(0.5)
        self._say(what)

    def wait_for_answers(self, devices: Sequence[Device]) -> None:
        """Wait until a healthy model gave the last record of each of `devices`."""
        self.wait(
            f"a healthy model answers on {len(devices)} devices",
            lambda: all(device.answers_well() for device in devices),
        )

    def versions(self) -> dict[int, int]:
        """Return how many devices have which version as their current one."""
        return dict(Counter(device.version() for device in self.devices))

    def seen(self, version: int) -> list[str]:
        """Return the assets that rolled this version back."""
        digests = {
            read_bundle(self.fleet / f"assets/{a}/{version}/{a}-{version}.gruard").digest: a
            for a in self.assets
        }
        rejected = [device.store.pointers().rejected for device in self.devices]
        return sorted(digests[each.slot] for each in rejected if each and each.slot in digests)

    def close(self) -> None:
        """End everything."""
        for device in self.devices:
            device.cut_power()
        self.server.stop()
        self.broker.kill()

    def _device(self, asset: str, environment: dict[str, str]) -> Device:
        from tests.tiny_model import machine_rows

        folder = self.folder / "devices" / asset
        folder.mkdir(parents=True)
        (folder / "state").mkdir()
        rows = machine_rows(300, seed=int(asset.split("-")[1])).tolist()
        (folder / "sensor.py").write_text(SENSOR.format(rows=rows))
        device = Device(folder, asset, environment)
        device.store.install(read_bundle(self.fleet / f"assets/{asset}/1/{asset}-1.gruard"))
        return device

    def _owner(self, *words: object) -> None:
        command = [sys.executable, "-m", "fleet", *map(str, words)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


@contextmanager
def rig(count: int, every: str, say: Callable[[str], None]) -> Iterator[FleetRig]:
    """A rig in a folder of its own, which ends with the block."""
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        made = FleetRig(Path(folder), count, every, say)
        try:
            yield made
        finally:
            made.close()


@dataclass(frozen=True)
class Outcome:
    """What became of a rig. first, bad, last: exit code and summary of each rollout.

    tried_bad: devices that tried the bad version. versions: devices by version, at the end.
    codes: exit codes of all processes, which were asked to end.
    """

    first: tuple[int, dict[str, Any]]
    bad: tuple[int, dict[str, Any]]
    last: tuple[int, dict[str, Any]]
    tried_bad: list[str]
    versions: dict[int, int]
    evidence: list[Evidence]
    codes: list[int]


def play(rig: FleetRig, off: int) -> Outcome:
    """Play the whole story. off: how many devices are off for a while."""
    for first in range(0, rig.count, AT_ONCE):
        started = rig.devices[: first + AT_ONCE]
        for device in started[first:]:
            device.start()
        rig.wait_for_answers(started)
    rig.add_version(2)
    first = rig.roll_out()
    rig.add_version(3, bad=True)
    bad = rig.roll_out()
    tried_bad = rig.seen(3)

    def trouble() -> None:
        for device in rig.devices[:off]:
            device.cut_power()
        rig.broker.kill()
        port = rig.server.port
        rig.server.stop()
        time.sleep(8.0)
        rig.server = UpdateServer(rig.www, port=port)
        rig.broker.start()
        time.sleep(8.0)
        for device in rig.devices[:off]:
            device.start()

    rig.add_version(4)
    last = rig.roll_out(trouble)
    rig.wait("all devices run", lambda: all(device.alive() for device in rig.devices))
    versions = rig.versions()
    rig.wait_for_answers(rig.devices)
    codes = [code for device in rig.devices for code in device.stop()]
    evidence = [device.evidence() for device in rig.devices]
    return Outcome(first, bad, last, tried_bad, versions, evidence, codes)


def main() -> int:
    """Play with so many devices, and print what became of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=30)
    parser.add_argument("--every", default="1m", help="between two checks of a device")
    words = parser.parse_args()
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    with rig(words.devices, words.every, say) as made:
        outcome = play(made, max(words.devices // 10, 1))
    for name in ("first", "bad", "last"):
        code, facts = getattr(outcome, name)
        print(f"{name:>6}: exit code {code}, {facts['state']} {facts['counts']} {facts['reason']}")
    evidence = outcome.evidence
    total = sum(each.records for each in evidence)
    print(f"devices that tried the bad version: {len(outcome.tried_bad)}")
    print(f"devices by version at the end: {outcome.versions}")
    print(
        f"records: {total:,}, valid {sum(each.valid for each in evidence) / total:.1%}, missing "
        f"{sum(each.missing for each in evidence)}, unmarked "
        f"{sum(each.unmarked for each in evidence)}; last record valid on "
        f"{sum(each.last_valid for each in evidence)} of {len(evidence)} devices"
    )
    return 0 if outcome.versions == {4: words.devices} else 1


if __name__ == "__main__":
    sys.exit(main())
