"""Fleets of stored bundles under other names and versions, made in milliseconds, and their keys."""

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

from edge_runtime.plain import write_sealed
from edge_runtime.updates.fetcher import Fetcher
from edge_runtime.updates.repository import UpdateSource
from edge_runtime.updates.store import Store
from edge_runtime.updates.update_check import UpdateResult, check_for_update
from fleet.keys import KeyFolder, make_keys, read_keys
from fleet.publish import Publication, UpdateRepository
from fleet.results import LEARNED, RESULT, AssetResult
from tests.apparatus.harm import edit_manifest
from tests.apparatus.update_server import UpdateServer
from tests.golden_bundles import LINEAR

NOW = datetime.now(timezone.utc)
PATIENT, SHORT = 60.0, 0.4
"""Seconds that a server may be silent: only one that is silent on purpose is given a short time."""


def put_bundle(
    fleet: Path,
    asset: str,
    version: int,
    harm: Callable[[Path], object] = lambda bundle: None,
) -> Path:
    """Add a version of an asset to a fleet: the stored linear bundle, changed by `harm`."""
    name = f"{asset}-{version}.gruard"
    folder = fleet / "assets" / asset / str(version)
    bundle = Path(shutil.copytree(LINEAR, folder / name))
    edit_manifest(bundle, lambda manifest: manifest.update(name=asset, version=version))
    harm(bundle)
    place = str(bundle.relative_to(fleet))
    write_sealed(folder / RESULT, AssetResult(asset, LEARNED, "", version=version, bundle=place))
    return bundle


def no_passphrase() -> str:
    raise AssertionError("no key is encrypted")


class Plant:
    """A fleet with keys, its repository, a server, and a device with a store, all in `folder`.

    What is there already is used. now: of what the owner does.
    """

    def __init__(self, folder: Path, ranges: bool = True) -> None:
        self.folder, self.fleet, self.www = folder, folder / "fleet", folder / "www"
        place = folder / "keys"
        there = place.exists()
        self.keys = read_keys(place, no_passphrase) if there else make_keys(place, NOW, "")
        self.root = folder / "1.root.json"
        if not there:
            shutil.copy(place / "1.root.json", self.root)
        self.server = UpdateServer(self.www, ranges)
        self.store = Store(folder / "store")

    def publish(self, version: int, now: datetime = NOW, asset: str = "pump") -> Publication:
        """Add a version of the asset, and publish the fleet."""
        put_bundle(self.fleet, asset, version)
        return self.repository(now).publish(self.fleet)

    def repository(self, now: datetime = NOW) -> UpdateRepository:
        return UpdateRepository(self.www, read_keys(self.keys.path, no_passphrase), now)

    def check(self, asset: str = "pump", window: float = PATIENT) -> UpdateResult:
        """What one `gruard update` does on the device."""
        state = self.store.root / "updates"
        source = UpdateSource(self.server.address, state, self.root, Fetcher(window=window))
        return check_for_update(source, self.store, asset, 3, ())

    def current(self) -> str:
        """NAME-VERSION of the current bundle, empty for none."""
        current = self.store.pointers().current
        return self.store.slots.read(current).label if current else ""

    def on_trial(self) -> str:
        """NAME-VERSION of the bundle on trial, empty for none."""
        trial = self.store.pointers().trial
        return self.store.slots.read(trial.slot).label if trial else ""

    def commit(self) -> None:
        """Let the trial end well."""
        trial = self.store.pointers().trial
        assert trial
        self.store.change(lambda pointers: pointers.proven(trial.slot))

    def metadata(self, role: str) -> Path:
        """The newest metadata of a role."""
        if role == "timestamp":
            return self.www / "metadata" / "timestamp.json"
        return max((self.www / "metadata").glob(f"*.{role}.json"), key=_version)

    def version(self, role: str) -> int:
        return _version(self.metadata(role))


def _version(file: Path) -> int:
    return int(file.name.split(".")[0])


def days(count: float) -> timedelta:
    return timedelta(days=count)


def other_keys(folder: Path) -> KeyFolder:
    """Keys of somebody else."""
    return make_keys(folder, NOW, "")
