"""The store on a real disk: what it refuses, what it says, and who excludes whom."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from made_bundle import write_made_bundle

from edge_runtime.bundle.reader import SIGNATURE, Bundle, proof_faults, read_bundle
from edge_runtime.commands.main import gruard as command_line
from edge_runtime.commands.options import default_store
from edge_runtime.errors import BusyError, GruardError, NotAllowedError, RemovedError
from edge_runtime.plain import seal, unseal
from edge_runtime.updates import disk
from edge_runtime.updates.choice import Admission, choose
from edge_runtime.updates.disk import locked
from edge_runtime.updates.pointers import Pointers, Trial
from edge_runtime.updates.store import Store
from tests.apparatus.file_limit import files_below
from tests.apparatus.harm import edit_manifest
from tests.apparatus.lock_holder import LockHolder

ROOT = Path(__file__).parents[3]
Ended = subprocess.CompletedProcess[str]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    return Store(tmp_path / "store")


@pytest.fixture
def bundles(tmp_path: Path) -> list[Path]:
    return [write_made_bundle(tmp_path / "made", version) for version in range(1, 4)]


def gruard(*words: object, **environment: str) -> Ended:
    command = [sys.executable, "-m", "edge_runtime", *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def refused(done: Ended) -> str:
    assert done.returncode == 2 and done.stdout == "", done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("gruard: ")
    return line


def test_a_slot_is_a_read_only_copy(store: Store, bundles: list[Path]) -> None:
    bundle = read_bundle(bundles[0])
    store.install(bundle)
    slot = store.slots.path(bundle.digest)
    assert slot.stat().st_mode & 0o777 == 0o555
    for file in bundles[0].iterdir():
        copy = slot / file.name
        assert copy.read_bytes() == file.read_bytes() and copy.stat().st_mode & 0o777 == 0o444


def test_a_signature_that_came_later_is_taken_along(store: Store, bundles: list[Path]) -> None:
    store.install(read_bundle(bundles[0]))
    (bundles[0] / SIGNATURE).write_bytes(b"s" * 64)
    bundle = read_bundle(bundles[0])
    store.install(bundle)
    assert (store.slots.path(bundle.digest) / SIGNATURE).read_bytes() == b"s" * 64


def test_what_nobody_needs_is_removed_but_not_what_runs(
    store: Store, bundles: list[Path], tmp_path: Path
) -> None:
    digests = []
    for path in bundles:
        bundle = read_bundle(path)
        store.install(bundle)
        store.change(lambda p, slot=bundle.digest: p.proven(slot))
        digests.append(bundle.digest)
        if len(digests) == 1:
            thresholds = store.slots.path(bundle.digest).with_suffix(".thresholds.json")
            thresholds.write_text("{}")
            hold = store.slots.hold(bundle.digest)
    assert [slot.digest for slot in store.slots] == sorted(digests)  # the first one is held
    hold.release()
    fourth = read_bundle(write_made_bundle(tmp_path, 4))
    store.install(fourth)
    assert {slot.digest for slot in store.slots} == {*digests[1:], fourth.digest}
    assert thresholds.exists()  # days of recording went into it


class Meanwhile(Admission):
    """Admission during whose first reading of a bundle something else happens."""

    def __init__(self, happens: Callable[[], None]) -> None:
        super().__init__()
        self.events = [happens]

    def read(self, path: Path) -> Bundle:
        bundle = super().read(path)
        if self.events:
            self.events.pop()()
        return bundle


def prove(store: Store, *paths: Path) -> None:
    """Each becomes current, one after the other."""
    for path in paths:
        bundle = read_bundle(path)
        store.install(bundle)
        store.change(lambda p, slot=bundle.digest: p.proven(slot))


def test_a_run_that_begins_holds_its_slot_and_chooses_anew_when_it_has_gone(
    store: Store, bundles: list[Path], tmp_path: Path
) -> None:
    first, *others = [*bundles, *(write_made_bundle(tmp_path, each) for each in range(4, 8))]
    prove(store, first)
    start = choose(store, Meanwhile(lambda: prove(store, *others[:3])), lambda line: None)
    assert not store.slots.path(read_bundle(first).digest).exists()
    assert start.bundle and start.bundle.manifest.version == 4 and start.hold
    prove(store, *others[3:])
    assert start.bundle.path.exists()
    start.hold.release()
    store.install(read_bundle(write_made_bundle(tmp_path, 8)))
    assert not start.bundle.path.exists()


def test_a_slot_that_goes_while_it_is_held_says_so(
    store: Store, bundles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    prove(store, *bundles[:2])
    digest = store.pointers().current
    assert digest

    def lock(*arguments: Any) -> None:
        store.slots.path(digest).rename(store.root / "gone")
        real_lock(*arguments)

    real_lock = disk._lock
    with monkeypatch.context() as patched, pytest.raises(RemovedError, match="meanwhile; install"):
        patched.setattr(disk, "_lock", lock)
        store.slots.hold(digest)
    with pytest.raises(RemovedError, match="meanwhile; install"):
        store.slots.hold(digest)


def test_a_slot_cannot_be_held_while_it_is_being_removed(store: Store, bundles: list[Path]) -> None:
    prove(store, bundles[0])
    digest = store.pointers().current
    assert digest
    with disk.unheld(store.slots.path(digest) / "manifest.json") as free, pytest.raises(BusyError):
        assert free
        store.slots.hold(digest)
    store.slots.hold(digest).release()


def test_a_proof_that_has_gone_is_a_fault_and_no_error(bundles: list[Path]) -> None:
    bundle = read_bundle(bundles[0])
    for file in bundle.path.iterdir():
        file.unlink()
    assert "manifest.sha256: cannot be read" in proof_faults(bundle)[-1]


def test_a_second_install_is_excluded(store: Store, bundles: list[Path]) -> None:
    store.install(read_bundle(bundles[0]))
    with locked(store.root / "install.lock", patience=0.0):
        assert "install.lock: is locked, since another gruard command" in refused(
            gruard("install", bundles[1], "--store", store.root)
        )
        assert gruard("list", "--store", store.root).returncode == 0  # a reader needs no lock
    assert gruard("install", bundles[1], "--store", store.root).returncode == 0


@pytest.mark.parametrize("words", [("rollback",), ("use", "made-1"), ("install", "made-2.gruard")])
def test_a_command_does_not_wait_for_ever_for_one_that_hangs(
    store: Store, bundles: list[Path], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.install(read_bundle(bundles[0]))
    monkeypatch.setattr("edge_runtime.updates.store.PATIENCE", 0.1)
    monkeypatch.chdir(bundles[0].parent)
    with LockHolder(store.root / "pointers.lock"):
        done = CliRunner().invoke(command_line, [*words, "--store", str(store.root)])
    assert isinstance(done.exception, GruardError) and done.exception.exit_code == 2
    text = str(done.exception)
    assert "pointers.lock: is locked, since another gruard command is at work there" in text
    assert "try again when it has ended" in text


def test_a_command_waits_for_one_that_ends(store: Store, bundles: list[Path]) -> None:
    bundle = read_bundle(bundles[0])
    holder = LockHolder(store.root / "pointers.lock")
    store.root.mkdir()
    with holder:
        command = [sys.executable, "-m", "edge_runtime", "install", str(bundle.path), "--store"]
        process = subprocess.Popen([*command, str(store.root)], cwd=ROOT)
        while not store.slots.has_any():  # then it wants the lock
            assert process.poll() is None
            time.sleep(0.01)
    assert process.wait(60) == 0 and store.pointers() == Pointers(bundle.digest)


def test_no_downgrade_by_accident(store: Store, bundles: list[Path]) -> None:
    where = ("--store", store.root)
    assert gruard("install", bundles[1], *where).returncode == 0
    assert "made-1: is older than made-2" in refused(gruard("install", bundles[0], *where))
    assert len(list(store.slots)) == 1
    allowed = gruard("install", bundles[0], *where, "--allow-downgrade")
    assert allowed.returncode == 0 and "on trial" in allowed.stdout
    assert gruard("rollback", *where).returncode == 0
    assert "--allow-downgrade" in refused(gruard("use", "made-1", *where))
    assert gruard("use", "made-1", "--allow-downgrade", *where).returncode == 0


def test_the_commands_one_after_the_other(store: Store, bundles: list[Path]) -> None:
    where = {"GRUARD_STORE": str(store.root)}
    assert "made-1" in gruard("install", bundles[0], **where).stdout
    assert (
        "on trial, attempts left: 2"
        in gruard("install", bundles[1], "--attempts", 2, **where).stdout
    )
    first, second = (read_bundle(path).digest for path in bundles[:2])
    assert store.pointers() == Pointers(first, trial=Trial(second, 2))
    assert gruard("use", "made-1", **where).stdout.endswith(": current\n")
    assert store.pointers() == Pointers(first)
    assert "on trial" in gruard("use", second[:8], **where).stdout
    back = gruard("rollback", **where)
    assert back.stdout == "rolled back made-2; current: made-1\n"
    assert "no bundle to roll back to" in refused(gruard("rollback", **where))
    shown = gruard("list", **where).stdout
    assert f"current   {first[:12]}  made-1\n" in shown
    assert f"stored    {second[:12]}  made-2\n" in shown
    assert f"rolled back made-2 ({second[:12]}): rolled back by command\n" in shown
    facts = json.loads(gruard("list", "--json", **where).stdout)
    assert (facts["current"], facts["rejected"]["slot"]) == (first, second)
    assert {b["digest"]: b["role"] for b in facts["bundles"]} == {
        first: "current",
        second: "stored",
    }
    assert all(Path(bundle["path"]).is_dir() for bundle in facts["bundles"])


def test_rollback_to_the_previous_one(store: Store, bundles: list[Path]) -> None:
    for path in bundles[:2]:
        bundle = read_bundle(path)
        store.install(bundle)
        store.change(lambda p, slot=bundle.digest: p.proven(slot))
    where = ("--store", store.root)
    assert gruard("rollback", *where).stdout == "rolled back made-2; current: made-1\n"
    assert gruard("rollback", *where).stdout == "rolled back made-1; current: made-2\n"
    first = store.slots.path(read_bundle(bundles[0]).digest)
    (first / "report.json").write_bytes(b"rot")
    assert "damaged, but runs: " in gruard("list", *where).stdout
    assert gruard("rollback", *where).returncode == gruard("rollback", *where).returncode == 0
    (first / "golden.npz").write_bytes(b"rot")
    assert "does not match" in refused(gruard("rollback", *where))
    assert "DAMAGED: " in gruard("list", *where).stdout


def test_a_name_must_be_clear(store: Store, bundles: list[Path], tmp_path: Path) -> None:
    assert "in the store" in refused(gruard("use", "made-1", "--store", store.root))
    other = write_made_bundle(tmp_path, 1, period=0.25)
    store.install(read_bundle(bundles[0]))
    store.install(read_bundle(other))
    assert "several bundles" in refused(gruard("use", "made-1", "--store", store.root))
    for slot in ("", "../..", "zz"):
        assert "not in the store" in refused(gruard("use", slot, "--store", store.root))


def test_only_trusted_bundles_are_installed(store: Store, bundles: list[Path]) -> None:
    trusted = {"GRUARD_TRUSTED_KEYS": "/etc/gruard/plant.pub", "GRUARD_STORE": str(store.root)}
    assert gruard("install", bundles[0], **trusted).returncode == 2
    assert not store.root.exists()
    store.install(read_bundle(bundles[0]))
    before = store.pointers()
    assert "is not signed" in refused(gruard("use", "made-1", **trusted))
    assert "is not signed" in refused(gruard("run", "--source", "-", **trusted))
    assert store.pointers() == before


def test_a_failed_bundle_is_installed_on_demand_only(store: Store, bundles: list[Path]) -> None:
    edit_manifest(bundles[0], lambda data: data["validation"].update(passed=False, forced=True))
    where = ("--store", store.root)
    assert "--allow-failed" in refused(gruard("install", bundles[0], *where))
    assert gruard("install", bundles[0], *where, "--allow-failed").returncode == 0


# A disk that cannot be written.


def test_a_full_disk_is_told_and_leaves_nothing(store: Store, bundles: list[Path]) -> None:
    store.install(read_bundle(bundles[0]))
    before, found = store.pointers(), sorted(store.root.rglob("*"))
    largest = (bundles[1] / "manifest.json").stat().st_size
    for limit in (0, 20, largest - 1):
        with files_below(limit):
            done = gruard("install", bundles[1], "--store", store.root)
        line = refused(done)
        assert "manifest" in line and "make room there" in line
        assert store.pointers() == before
        assert {*store.root.rglob("*")} <= {*found, store.root / "install.lock"}
    assert gruard("install", bundles[1], "--store", store.root).returncode == 0


def test_a_full_disk_leaves_the_pointers(store: Store, bundles: list[Path]) -> None:
    store.install(read_bundle(bundles[0]))
    store.install(read_bundle(bundles[1]))
    before = store.pointers()
    with files_below(20):
        assert "pointers.json" in refused(gruard("rollback", "--store", store.root))
    assert store.pointers() == before and not list(store.root.glob(".*"))


def test_what_root_installs_another_user_runs(store: Store, bundles: list[Path]) -> None:
    """As a service does, whose folder it is: root's umask lets nobody else read."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    before = os.umask(0o077)
    try:
        store.install(read_bundle(bundles[0]))
        store.root.chmod(0o755)
        os.chown(store.root, 65534, 65534)
        store.install(read_bundle(bundles[1]))
    finally:
        os.umask(before)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from edge_runtime.bundle.reader import read_bundle\n"
        "from edge_runtime.updates.store import Store\n"
        "os.chdir(sys.argv[1])\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "store = Store(Path('.'))\n"
        "trial = store.pointers().trial.slot\n"
        "store.slots.hold(read_bundle(store.slots.path(trial)).digest)\n"
        "store.change(lambda p: p.attempted(trial))\n"
        "store.change(lambda p: p.proven(trial))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.root)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    assert (store.root / "pointers.json").stat().st_uid == 65534
    assert store.pointers().current == read_bundle(bundles[1]).digest
    store.install(read_bundle(bundles[2]))  # and root goes on


def test_no_link_of_an_intruder_leads_root_out_of_the_store(
    store: Store, bundles: list[Path], tmp_path: Path
) -> None:
    """The service's user may put anything into its folder before root installs there."""
    store.install(read_bundle(bundles[0]))
    outside = tmp_path / "outside"
    (outside / ".ssh").mkdir(parents=True)
    (outside / ".ssh" / "key").write_text("precious")
    outside.chmod(0o700)
    digest = read_bundle(bundles[1]).digest
    (store.root / f".pointers.json.{os.getpid()}").symlink_to(outside / ".ssh" / "key")
    (store.root / "slots" / f".{digest}.new").symlink_to(outside)
    (store.root / "slots" / ".ssh").symlink_to(outside / ".ssh")
    store.install(read_bundle(bundles[1]))
    assert store.pointers().on_trial(digest)
    assert (outside / ".ssh" / "key").read_text() == "precious"
    assert outside.stat().st_mode & 0o777 == 0o700
    (store.root / "slots").rename(store.root / "moved")
    (store.root / "slots").symlink_to(outside)
    with pytest.raises(GruardError, match="is a link"):
        store.install(read_bundle(bundles[2]))
    assert [path.name for path in outside.iterdir()] == [".ssh"]
    lock = store.root / "pointers.lock"
    lock.unlink()
    lock.symlink_to(outside / "made")
    with pytest.raises(GruardError, match=r"pointers\.lock"):
        store.change(lambda pointers: pointers)
    assert not (outside / "made").exists()


@pytest.mark.parametrize("place", ["/proc/gruard", "/dev/null/gruard"])
def test_a_place_that_cannot_be_written_is_told(bundles: list[Path], place: str) -> None:
    line = refused(gruard("install", bundles[0], "--store", place))
    assert "cannot be written" in line and "--store" in line


def test_a_store_of_somebody_else_is_told(store: Store, bundles: list[Path]) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    store.install(read_bundle(bundles[0]))
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from edge_runtime.files import replace_file\n"
        "from edge_runtime.updates.disk import StoreDisk\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "replace_file(Path(sys.argv[1]), b'', disk=StoreDisk())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.root / "pointers.json")],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "as the owner of the store" in done.stderr, done.stderr


def test_damaged_pointers_are_told_and_mended(store: Store, bundles: list[Path]) -> None:
    store.install(read_bundle(bundles[0]))
    store.install(read_bundle(bundles[1]))
    file, before = store.root / "pointers.json", store.pointers()
    file.write_bytes(b"\0" * 100)
    listed = gruard("list", "--store", store.root)
    assert listed.returncode == 0 and "trial" in listed.stdout
    (line,) = listed.stderr.splitlines()
    assert "pointers.json: damaged" in line and "replaced with the next change" in line
    assert file.read_bytes() == b"\0" * 100 and store.pointers() == before
    assert gruard("use", "made-1", "--store", store.root).returncode == 0
    assert gruard("list", "--store", store.root).stderr == ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"generation": 0}, "damaged (no generation)"),
        ({"generation": "7"}, "damaged (no generation)"),
        ({"current": 7}, "damaged ("),
        ({"colour": "red"}, "damaged (other fields)"),
    ],
    ids=str,
)
def test_pointers_that_no_gruard_wrote_are_told_and_rebuilt(
    proven: Store, change: dict[str, object], told: str
) -> None:
    before = proven.pointers().current
    for name in ("pointers.json", "pointers.copy.json"):
        facts = unseal(json.loads((proven.root / name).read_text()))
        (proven.root / name).write_text(seal(facts | change))
    lines: list[str] = []
    rebuilt = Store(proven.root, log=lines.append)
    assert rebuilt.pointers().current == before
    assert any(told in line for line in lines), lines
    rebuilt.change(lambda pointers: pointers)
    assert Store(proven.root, log=lines.append).pointers().current == before


def test_constants_that_no_gruard_wrote_leave_the_fallback_without_them(proven: Store) -> None:
    for name in ("fallback.json", "fallback.copy.json"):
        facts = unseal(json.loads((proven.root / name).read_text()))
        facts["constants"] |= {"period": -1.0}
        (proven.root / name).write_text(seal(facts))
    lines: list[str] = []
    assert Store(proven.root, log=lines.append).remembered.fallback() is None
    assert any("fallback.json: period: " in each and "does without it" in each for each in lines)


def test_a_slot_under_another_name_is_no_slot(store: Store, bundles: list[Path]) -> None:
    digest, other = read_bundle(bundles[0]).digest, "0" * 64
    store.install(read_bundle(bundles[0]))
    store.slots.path(digest).rename(store.slots.path(other))
    assert store.slots.read(other).fault == (
        f"{store.slots.path(other)}: is another bundle than its name says"
    )
    assert "is another bundle than its name says" in gruard("list", "--store", store.root).stdout


def test_a_slot_that_goes_before_it_is_chosen_says_so(
    proven: Store, bundles: list[Path], tmp_path: Path
) -> None:
    slot = proven.slots.read(read_bundle(bundles[2]).digest).bundle
    assert slot
    before = proven.pointers()
    slot.path.rename(tmp_path / "gone")
    with pytest.raises(GruardError, match="was removed meanwhile; install it again"):
        proven.use(slot)
    assert proven.pointers() == before


def damage(store: Store, digest: str, member: str = "golden.npz") -> None:
    (store.slots.path(digest) / member).write_bytes(b"rot")


@pytest.fixture
def proven(store: Store, bundles: list[Path]) -> Store:
    """A store with the versions 1, 2 and 3, each of which was current once."""
    for path in bundles:
        bundle = read_bundle(path)
        store.install(bundle)
        store.change(lambda p, slot=bundle.digest: p.proven(slot))
    return store


def test_pointers_that_are_lost_are_rebuilt_from_what_was_current(
    proven: Store, tmp_path: Path
) -> None:
    proven.install(read_bundle(write_made_bundle(tmp_path, 9)))  # on trial, and so not chosen
    before = proven.pointers()
    for harm in (lambda file: file.write_bytes(b"\0"), Path.unlink):
        for file in proven.root.glob("pointers*.json"):
            harm(file)
        log: list[str] = []
        store = Store(proven.root, log=log.append)
        assert store.pointers() == store.pointers() == Pointers(before.current)
        assert "its copy are" in log[-1] and log[-1].endswith("; made-3 is current")
        assert len(log) == len(set(log))
    damage(proven, before.current)
    assert Store(proven.root).pointers() == Pointers(before.previous)
    for name in ("pointers", "fallback", "lowest"):  # nothing tells which was current
        for ending in (".json", ".copy.json"):
            (proven.root / f"{name}{ending}").write_bytes(b"")
    assert proven.slots.read(Store(proven.root).pointers().current).label == "made-9"
    assert proven.change(lambda pointers: pointers).current
    assert Store(proven.root, log=pytest.fail).pointers().current


def test_a_damaged_slot_does_not_lift_the_downgrade_protection(
    proven: Store, bundles: list[Path]
) -> None:
    damage(proven, proven.pointers().current)
    damage(proven, proven.pointers().previous, "manifest.json")
    with pytest.raises(GruardError, match="made-1: is older than made-3, which is or was current"):
        proven.install(read_bundle(bundles[0]))
    for file in proven.root.glob("lowest*.json"):
        assert proven.lowest("made") == 3
        file.write_bytes(b"")
    assert proven.lowest("made") == 1  # what is left of the slots is all that tells it


def test_the_lowest_version_only_grows(proven: Store, bundles: list[Path]) -> None:
    assert proven.lowest("made") == 3 and proven.lowest("other") == 0
    proven.change(lambda pointers: pointers.rolled_back())
    assert proven.slots.read(proven.pointers().current).label == "made-2"
    assert proven.lowest("made") == 3
    with pytest.raises(GruardError, match="--allow-downgrade"):
        proven.install(read_bundle(bundles[1]))


def test_a_downgrade_on_purpose_is_told_and_remembered(proven: Store, bundles: list[Path]) -> None:
    proven.change(lambda pointers: pointers.rolled_back())
    done = gruard("install", bundles[1], "--allow-downgrade", "--store", proven.root)
    assert done.returncode == 0
    assert "made: version 2 and those above it are accepted from now on" in done.stderr
    assert proven.lowest("made") == 2
    assert gruard("install", bundles[1], "--store", proven.root).stderr == ""


def test_the_stamp_notices_pointers_and_slots(proven: Store) -> None:
    stamps = [proven.stamp()]
    assert proven.stamp() == stamps[0]
    proven.change(lambda pointers: pointers.rolled_back())
    stamps.append(proven.stamp())
    damaged = proven.pointers().current
    bundle = read_bundle(proven.slots.path(damaged))
    damage(proven, damaged)
    saved = [each for each in proven.slots if each.digest == damaged]
    assert saved[0].bundle is None
    moved = proven.root / "elsewhere"
    proven.slots.path(damaged).rename(moved)
    stamps.append(proven.stamp())
    assert len(set(stamps)) == 3 and bundle.digest == damaged


# What a run begins with.


def chosen(store: Store) -> tuple[str, list[str]]:
    log: list[str] = []
    start = choose(store, Admission(), log.append)
    return start.bundle.digest if start.bundle else start.reason, log


def test_the_trial_comes_first_while_it_has_attempts(store: Store, bundles: list[Path]) -> None:
    first, second = map(read_bundle, bundles[:2])
    store.install(first)
    assert chosen(store) == (first.digest, [])
    store.install(second, attempts=1)
    assert chosen(store) == (second.digest, [])
    store.change(lambda pointers: pointers.attempted(second.digest))
    digest, (line,) = chosen(store)
    assert digest == first.digest and "made-2: used up its attempts" in line
    assert store.pointers().trial is None and "used up" in store.pointers().rejected.reason


def test_a_trial_that_cannot_be_read_is_rolled_back(store: Store, bundles: list[Path]) -> None:
    first, second = map(read_bundle, bundles[:2])
    store.install(first)
    store.install(second)
    (store.slots.path(second.digest) / "model.tflite").write_bytes(b"")
    (store.slots.path(second.digest) / "golden.npz").write_bytes(b"rot")
    digest, (line,) = chosen(store)
    assert digest == first.digest and "golden.npz: does not match" in line
    assert "golden.npz" in store.pointers().rejected.reason


def test_an_error_of_the_surroundings_is_not_put_on_the_trial(
    store: Store, bundles: list[Path], tmp_path: Path
) -> None:
    store.install(read_bundle(bundles[0]))
    store.install(read_bundle(bundles[1]))
    before = store.pointers()
    for bundle in store.slots:
        (bundle.path / SIGNATURE).write_bytes(b"s" * 64)
    with pytest.raises(NotAllowedError, match=r"plant\.pub"):
        choose(store, Admission(trusted_keys=(tmp_path / "plant.pub",)), print)
    assert store.pointers() == before


def test_an_empty_store_says_what_to_do(store: Store) -> None:
    line = refused(gruard("run", "--source", "-", "--store", store.root))
    assert "gruard install BUNDLE" in line and not store.root.exists()
    both = gruard("run", "x.gruard", "--source", "-", "--store", store.root)
    assert both.returncode == 2 and "not both" in both.stderr


def test_where_the_store_is_when_nobody_says(tmp_path: Path) -> None:
    os_home = {"HOME": str(tmp_path / "home"), "XDG_STATE_HOME": "", "STATE_DIRECTORY": ""}
    homes = {
        str(tmp_path / "home/.local/state/gruard"): os_home,
        str(tmp_path / "xdg/gruard"): os_home | {"XDG_STATE_HOME": str(tmp_path / "xdg")},
        "/var/lib/gruard-x": os_home | {"STATE_DIRECTORY": "/var/lib/gruard-x:/var/lib/other"},
        "/elsewhere": os_home | {"GRUARD_STORE": "/elsewhere"},
    }
    for wanted, environment in homes.items():
        assert gruard("list", **environment).stdout.startswith(f"{wanted}: empty")


def test_a_user_without_a_home_may_run_a_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "XDG_STATE_HOME", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert default_store() == Path("/var/lib/gruard")
