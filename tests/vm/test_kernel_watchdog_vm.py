"""A hung supervisor, a hardware reset, and a next start that knows: on a whole emulated machine."""

import shutil
from pathlib import Path

import device_files
import machine_tree
import pytest
from machine import console

pytestmark = pytest.mark.vm

STORY = (
    "GUEST first boot, boot status 0",
    "GUEST compiled",
    "gruard: first start with the state folder /mnt/state",
    "gruard: model loaded",
    "gruard: /dev/watchdog resets this machine after 10 s without an answered sample",
    "GUEST supervisor stopped: only the watchdog can help now",
    "GUEST booted",
    "GUEST second boot, boot status 32",
    "gruard: started after: watchdog reset",
    "gruard: /dev/watchdog reports that the watchdog caused the last reset of this machine",
    "GUEST stopped with 0",
    "GUEST alive after a good end",
    "gruard: started after: clean stop; the last run had answered sample",
    "GUEST stopped with 0",
    "GUEST ended with 0",
)
"""These must appear on the console in this order."""


@pytest.fixture
def files(tiny_bundle: Path, tmp_path: Path) -> Path:
    """What the machine sees at /mnt: this checkout's runtime, a bundle, a reader, its state."""
    folder = tmp_path / "files"
    device_files.install(folder)
    shutil.copytree(tiny_bundle, folder / tiny_bundle.name)
    shutil.copy(Path(__file__).with_name("guest.py"), folder)
    (folder / "state").mkdir()
    return folder


def test_a_hung_supervisor_is_reset_by_the_hardware_and_the_next_start_knows(
    files: Path, tmp_path: Path
) -> None:
    machine_tree.ready()
    ahead = list(STORY)
    with console(files, tmp_path) as lines:
        for line in lines:
            if ahead and ahead[0] in line:
                ahead.pop(0)
            assert "no reset came" not in line
    assert ahead == [], "the console never said this"
