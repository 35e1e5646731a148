"""Downloads that are interrupted, limited, or meet a full disk: they continue or leave nothing."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("tuf", reason="updates are not tested: pip install '.[fleet]'")

from made_fleet import Plant
from small_fleet import appears

from edge_runtime.errors import BusyError, GruardError
from edge_runtime.updates.fetcher import Fetcher
from edge_runtime.updates.repository import UnreachableError
from edge_runtime.updates.update_check import CURRENT, INSTALLED, ON_TRIAL, ROLLED_BACK
from tests.apparatus.file_limit import files_below
from tests.apparatus.harm import flip_bit
from tests.apparatus.lock_holder import LockHolder
from tests.apparatus.update_server import Request, body, cut_after, stalls

ROOT = Path(__file__).resolve().parents[2]
HALF = 20_000


def partial(plant: Plant) -> int:
    """Bytes of the archive that are on the device."""
    return sum(file.stat().st_size for file in plant.store.root.glob("updates/*.tar"))


def archive(plant: Plant) -> Path:
    return max(plant.www.glob("targets/*.tar"), key=lambda file: file.stat().st_mtime_ns)


def interrupted(plant: Plant) -> None:
    """The connection breaks in the middle of the archive."""
    plant.server.instead[".tar"] = cut_after(HALF)
    with pytest.raises(UnreachableError, match=f"ended after {HALF} of"):
        plant.check()
    assert partial(plant) == HALF
    plant.server.instead.clear()
    plant.server.requests.clear()


def test_an_interrupted_download_continues(plant: Plant) -> None:
    interrupted(plant)
    assert plant.check().outcome == INSTALLED and plant.on_trial() == "pump-2"
    assert plant.server.ranges_of(".tar") == [f"bytes={HALF}-"] and partial(plant) == 0


def test_a_server_without_ranges_sends_everything_again(plant: Plant) -> None:
    plant.server.ranges = False
    interrupted(plant)
    assert plant.check().outcome == INSTALLED
    assert plant.server.ranges_of(".tar") == [f"bytes={HALF}-"]


def test_a_range_that_is_another_one_begins_anew(plant: Plant) -> None:
    """The answer claims to be partial, but begins elsewhere."""
    interrupted(plant)

    def elsewhere(request: Request) -> None:
        request.send(206, request.content() or b"", {"Content-Range": "bytes 0-9/10"})

    plant.server.instead[".tar"] = elsewhere
    assert plant.check().outcome == INSTALLED


def test_bytes_that_an_attacker_began_with_are_not_kept(plant: Plant) -> None:
    good = archive(plant).read_bytes()
    plant.server.instead[".tar"] = lambda request: _half_of(request, bytes(len(good)))
    with pytest.raises(UnreachableError):
        plant.check()
    plant.server.instead.clear()
    with pytest.raises(GruardError, match="a file is not the one that was signed"):
        plant.check()
    assert partial(plant) == 0
    assert plant.check().outcome == INSTALLED


def _half_of(request: Request, content: bytes) -> None:
    request.begin(200, {"Content-Length": str(len(content))})
    request.wfile.write(content[:HALF])
    request.close_connection = True


def test_what_is_left_of_another_archive_goes(plant: Plant) -> None:
    interrupted(plant)
    plant.publish(3)
    assert plant.check().outcome == INSTALLED and plant.on_trial() == "pump-3"
    assert plant.server.ranges_of(".tar") == [""] and partial(plant) == 0


def test_a_killed_process_leaves_what_the_next_one_continues(plant: Plant) -> None:
    good = archive(plant).read_bytes()
    header = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(good)
    plant.server.instead[".tar"] = stalls(header, good[:HALF])
    command = [
        sys.executable, "-m", "edge_runtime", "update", "--from", plant.server.address,
        "--asset", "pump", "--store", str(plant.store.root), "--rate", "2M",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT)
    appears(plant.store.root / "updates", "*.tar")
    while not partial(plant):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    begun = partial(plant)
    plant.server.released.set()
    plant.server.instead.clear()
    plant.server.requests.clear()
    assert 0 < begun <= HALF and plant.current() == "pump-1" and not plant.on_trial()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "pump: pump-2 installed, on trial" in done.stdout, done.stderr
    assert plant.server.ranges_of(".tar") == [f"bytes={begun}-"]


@pytest.mark.parametrize("room", [300, 3_000, 30_000])
def test_a_full_disk_leaves_the_store_as_it_was(plant: Plant, room: int) -> None:
    """The disk is full at the metadata, in the archive, or in its bundle."""
    before = plant.store.pointers()
    with files_below(room), pytest.raises(GruardError, match=r"cannot be written .*make room"):
        plant.check()
    assert plant.store.pointers() == before and partial(plant) <= room
    assert plant.check().outcome == INSTALLED and plant.on_trial() == "pump-2"


def test_two_checks_of_one_store_exclude_each_other(plant: Plant) -> None:
    with LockHolder(plant.store.root / "updates" / "lock"), pytest.raises(BusyError):
        plant.check()


def test_the_rate_is_kept(plant: Plant, tmp_path: Path) -> None:
    """Time passes only while the fetcher sleeps, so all of it is due to the rate."""
    slept = [0.0]

    def sleep(seconds: float) -> None:
        slept[0] += seconds

    file, length = archive(plant), archive(plant).stat().st_size
    fetcher = Fetcher(10_000.0, clock=lambda: slept[0], sleep=sleep)
    url = f"{plant.server.address}/targets/{file.name}"
    fetcher.download(url, tmp_path / "archive", length)
    assert (tmp_path / "archive").read_bytes() == file.read_bytes()
    assert slept[0] == pytest.approx(length / 10_000.0)


def test_a_check_downloads_an_archive_once(plant: Plant) -> None:
    outcomes = [plant.check().outcome for _ in range(2)]
    plant.commit()
    outcomes.append(plant.check().outcome)
    assert outcomes == [INSTALLED, ON_TRIAL, CURRENT]
    assert len(plant.server.ranges_of(".tar")) == 1


def test_what_was_rolled_back_is_not_installed_again(plant: Plant) -> None:
    plant.check()
    trial = plant.store.pointers().trial
    assert trial
    plant.store.change(lambda pointers: pointers.failed(trial.slot, "it crashed"))
    result = plant.check()
    assert result.outcome == ROLLED_BACK and "it crashed" in result.text
    plant.publish(3)
    assert plant.check().outcome == INSTALLED and plant.on_trial() == "pump-3"


def test_a_damaged_slot_is_downloaded_again(plant: Plant) -> None:
    plant.check()
    plant.commit()
    current = plant.store.pointers().current
    assert current
    member = plant.store.slots.path(current) / "golden.npz"
    member.chmod(0o644)
    flip_bit(member, 100)
    assert plant.store.slots.read(current).fault
    assert plant.check().outcome == INSTALLED
    assert plant.current() == "pump-2" and not plant.store.slots.read(current).fault


def test_the_disk_of_the_device_is_clean_afterwards(plant: Plant) -> None:
    plant.check()
    left = {entry.name for entry in (plant.store.root / "updates").iterdir()}
    assert left == {"metadata", "root.json", "lock"}


def test_leftovers_of_killed_checks_go(plant: Plant) -> None:
    folder = plant.store.root / "updates" / "metadata"
    (folder / "tmp12345678").write_bytes(b"half")
    (plant.store.root / "updates" / "new").mkdir()
    (plant.store.root / "updates" / "new" / "x").mkdir()
    assert plant.check().outcome == INSTALLED
    assert not list(folder.glob("tmp*"))


def test_cached_metadata_that_a_power_cut_has_spoiled_is_fetched_again(plant: Plant) -> None:
    plant.check()
    folder = plant.store.root / "updates" / "metadata"
    for file in [*folder.glob("*.json"), *folder.glob("root_history/*")]:
        if not file.is_symlink():
            file.write_bytes(b"")
    assert plant.check().outcome == ON_TRIAL
    shutil.rmtree(folder)
    assert plant.check().outcome == ON_TRIAL


def test_a_body_of_other_length_than_its_header_says(plant: Plant) -> None:
    plant.server.instead["timestamp.json"] = body(b"{}" * 8000)
    with pytest.raises(GruardError, match="is no valid repository"):
        plant.check()
