"""The power goes after every single operation of the store: the old or the new, never a mixture."""

import os
from pathlib import Path

import pytest
from made_bundle import write_made_bundle

from edge_runtime.bundle.reader import read_bundle
from edge_runtime.files import replace_file
from edge_runtime.updates.disk import StoreDisk
from edge_runtime.updates.pointers import Pointers, Trial
from edge_runtime.updates.store import Store
from tests.apparatus.cut_update import check_every_cut, seen
from tests.apparatus.power_cut import AFTERMATHS, PowerCutDisk, UnsyncedDisk


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("made")
    return [write_made_bundle(folder, version) for version in range(1, 6)]


@pytest.fixture(scope="module")
def digests(bundles: list[Path]) -> list[str]:
    return [read_bundle(path).digest for path in bundles]


@pytest.fixture
def full(bundles: list[Path], tmp_path: Path) -> Path:
    """A store whose current is version 2, previous version 1, and version 3 on trial."""
    store = Store(tmp_path / "full", UnsyncedDisk())
    for path in bundles[:3]:
        bundle = read_bundle(path)
        store.install(bundle)
        if path != bundles[2]:
            store.change(lambda p, slot=bundle.digest: p.proven(slot))
    return store.root


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    (tmp_path / "bare").mkdir()
    return tmp_path / "bare"


def test_the_first_installation(bare: Path, bundles: list[Path], tmp_path: Path) -> None:
    bundle = read_bundle(bundles[0])
    names = check_every_cut(bare, lambda store: store.install(bundle), tmp_path)
    assert len(names) > 15


def test_an_installation_that_removes_an_old_slot(
    full: Path, bundles: list[Path], digests: list[str], tmp_path: Path
) -> None:
    bundle = read_bundle(bundles[3])
    names = check_every_cut(full, lambda store: store.install(bundle), tmp_path)
    assert f"rename {digests[2]}" in names and f"remove .{digests[2]}.old" in names
    left = {path.name for path in (tmp_path / "whole" / "slots").iterdir()}
    assert left == {digests[0], digests[1], digests[3]}


def test_an_installation_over_a_damaged_slot(
    full: Path, bundles: list[Path], digests: list[str], tmp_path: Path
) -> None:
    Store(full).change(lambda pointers: pointers.failed(digests[2], "for the test"))
    member = full / "slots" / digests[2] / "golden.npz"
    whole = member.read_bytes()
    member.write_bytes(b"rot")
    store = Store(full)
    assert "does not match" in store.slots.read(digests[2]).fault
    store.install(read_bundle(bundles[2]))
    assert member.read_bytes() == whole and seen(store).on_trial(digests[2])


def test_use(full: Path, bundles: list[Path], digests: list[str], tmp_path: Path) -> None:
    def use_the_first(store: Store) -> Pointers:
        stored = store.slots.find("made-1").bundle
        assert stored is not None
        return store.use(stored, downgrade=True)

    check_every_cut(full, use_the_first, tmp_path)


def test_commit(full: Path, digests: list[str], tmp_path: Path) -> None:
    check_every_cut(full, lambda s: s.change(lambda p: p.proven(digests[2])), tmp_path)


def test_automatic_rollback(full: Path, digests: list[str], tmp_path: Path) -> None:
    check_every_cut(full, lambda s: s.change(lambda p: p.failed(digests[2], "why")), tmp_path)


def test_rollback_by_command(full: Path, digests: list[str], tmp_path: Path) -> None:
    def back_to_the_first(store: Store) -> Pointers:
        def event(pointers: Pointers) -> Pointers:
            return pointers if pointers.current == digests[0] else pointers.rolled_back()

        return store.change(event)

    Store(full).change(lambda pointers: pointers.failed(digests[2], "for the test"))
    check_every_cut(full, back_to_the_first, tmp_path)


def test_the_count_of_attempts_lasts_before_the_load(
    full: Path, digests: list[str], tmp_path: Path
) -> None:
    """Between the count and the load lies a whole sync: no cut can give an attempt back."""

    def attempt(store: Store) -> Pointers:
        def event(pointers: Pointers) -> Pointers:
            counted = pointers.trial != Trial(digests[2], 3)
            return pointers if counted else pointers.attempted(digests[2])

        return store.change(event)

    names = check_every_cut(full, attempt, tmp_path)
    first, second = f".pointers.json.{os.getpid()}", f".pointers.copy.json.{os.getpid()}"
    assert names == [
        f"write {first}", f"sync {first}", f"rename {first}", "sync whole",
        f"write {second}", f"sync {second}", f"rename {second}", "sync whole",
    ]  # fmt: skip


# The model of the disk bites: what is careless is found out.


@pytest.mark.parametrize("forgotten", ["sync .pointers.json", "sync folder"])
def test_a_forgotten_sync_is_found_out(full: Path, tmp_path: Path, forgotten: str) -> None:
    class Careless(PowerCutDisk):
        def sync(self, path: Path) -> None:
            if path.is_dir() == (forgotten == "sync folder"):
                self._count("none")
            else:
                super().sync(path)

    before = Store(full).pointers()
    disk = Careless(full)
    changed = Store(full, disk).change(lambda pointers: pointers.rolled_back())
    found, log = [], []
    for aftermath in AFTERMATHS:
        found.append(Store(disk.image(*aftermath, tmp_path / "image"), log=log.append).pointers())
    assert found != [changed] * len(AFTERMATHS)
    assert any("damaged" in line for line in log) == (forgotten != "sync folder")
    assert (before in found) == (forgotten == "sync folder")


def test_writing_in_place_is_found_out(full: Path, tmp_path: Path) -> None:
    disk = PowerCutDisk(full)
    disk.write(full / "pointers.json", b"{}")
    contents = {
        (disk.image(*aftermath, tmp_path / "image") / "pointers.json").read_bytes()
        for aftermath in AFTERMATHS
    }
    assert contents == {b"", b"{", b"{}"}


def test_replacing_leaves_nothing_behind(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", b"new", disk=StoreDisk())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
