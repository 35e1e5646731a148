"""The C core on Arm: the records of this machine's, byte for byte, however it was optimised.

The core is cross-compiled, linked statically and run under QEMU's user mode; no tree is needed.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from arm_userland import ARMS, Arm

from edge_runtime.bundle.reader import Bundle, read_bundle
from edge_runtime.native.engine import NativeDetector
from edge_runtime.native.layout import NEON, ROWS
from tests.core_build import blob_of, compiled
from tests.edge_runtime import native_core, native_models  # noqa: F401
from tests.edge_runtime.native_models import HASTY, changed, faulty_rows, linear

pytestmark = pytest.mark.arm

FAULTY = 3000
COMPILERS = {
    "aarch64": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "armv7": "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross",
}
NEON_PROCESSORS = ("cortex-a72", "max")
"""Of 64 bits, without and with dot products."""


@pytest.fixture(scope="module", params=ARMS.values(), ids=lambda arm: arm.name)
def arm(request: pytest.FixtureRequest) -> Arm:
    found: Arm = request.param
    return found


class Core:
    """The core on an Arm, with a kernel, on one of QEMU's processors; the emulator's default."""

    def __init__(
        self, arm: Arm, folder: Path, *flags: str, kernel: str = "portable", cpu: str = ""
    ) -> None:
        if not shutil.which(arm.qemu):
            pytest.skip(f"{arm.qemu} is missing: apt install qemu-user-static")
        self.emulator = [arm.qemu, *(["-cpu", cpu] if cpu else [])]
        self.folder, self.layout = folder, NEON if kernel == "neon" else ROWS
        self.program = compiled(
            f"{arm.triplet}-gcc", COMPILERS[arm.name], folder / "driver",
            ["-static", "-DGRUARD_HOST", *flags], kernel=kernel,
        )  # fmt: skip

    def run(self, bundle: Bundle, rows: np.ndarray) -> bytes:
        """The records of `rows`, as bytes."""
        (self.folder / "blob").write_bytes(blob_of(bundle, self.layout))
        command = [*self.emulator, self.program, self.folder / "blob"]
        done = subprocess.run(command, input=rows.tobytes(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


def watch_like() -> Bundle:
    """Of the size of the demonstration's."""
    from tests.convert.made_steps import network
    from train.cell_config import CellConfig

    config = CellConfig(channels=6, gru_layers=1, gru_units=32, gate_layers=1, gate_units=32)
    return native_models.recurrent(network(config), config.channels, rules=True, diagnosis=True)


@pytest.fixture(scope="module")
def bundles(tiny_bundle: Path, linear_bundle: Path) -> list[Bundle]:
    tiny = read_bundle(tiny_bundle)
    made = [linear(5, 5, rules=True, diagnosis=True), linear(33, 33, rules=True), watch_like()]
    return [tiny, changed(tiny, tiers=HASTY), read_bundle(linear_bundle), *made]


@pytest.mark.parametrize("level", ["-O2", "-O3"])
def test_the_records_are_those_of_this_machine(
    arm: Arm, level: str, bundles: list[Bundle], tmp_path: Path
) -> None:
    core = Core(arm, tmp_path, level)
    for bundle in bundles:
        golden = bundle.arrays("golden.npz")["rows"]
        for rows in (golden, faulty_rows(bundle, FAULTY, seed=1)):
            expected = NativeDetector(bundle).run(rows)
            assert core.run(bundle, rows) == expected.tobytes()
            assert len(np.unique(expected["score"])) > len(rows) // 2


@pytest.mark.parametrize("cpu", NEON_PROCESSORS)
def test_neon_gives_the_records_of_this_machine(
    cpu: str, bundles: list[Bundle], tmp_path: Path
) -> None:
    core = Core(ARMS["aarch64"], tmp_path, "-O3", kernel="neon", cpu=cpu)
    for bundle in bundles:
        golden = bundle.arrays("golden.npz")["rows"]
        for rows in (golden, faulty_rows(bundle, FAULTY, seed=1)):
            assert core.run(bundle, rows) == NativeDetector(bundle).run(rows).tobytes()


def test_a_fused_multiply_add_would_be_seen(
    arm: Arm, bundles: list[Bundle], tmp_path: Path
) -> None:
    """Products that are not rounded before they are added: other records come out."""
    unit = {"aarch64": (), "armv7": ("-mfpu=neon-vfpv4",)}[arm.name]
    core = Core(arm, tmp_path, "-O2", "-ffp-contract=fast", *unit)
    rows = faulty_rows(bundles[-1], FAULTY, seed=1)
    assert core.run(bundles[-1], rows) != NativeDetector(bundles[-1]).run(rows).tobytes()
