"""Build an image for a board from a packed bundle."""

import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from firmware_harness import c_files
from firmware_harness.boards import APP, ARITHMETIC, BOARDS, CORE, LIBRARY, Board
from firmware_harness.c_files import replaced
from firmware_harness.packing import Packed
from firmware_harness.toolchain import call

FIRMWARE, REPLAY, FACTS = "firmware.elf", "replay.elf", "build.json"
FLAGS = (
    "-std=c11", "-Os", "-g", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-common",
    "-ffunction-sections", "-fdata-sections", "-specs=nano.specs", "-specs=nosys.specs",
    *ARITHMETIC,
)  # fmt: skip
LINK = ("-nostartfiles", "-Wl,--gc-sections", "-Wl,--fatal-warnings", "-Wl,--no-warn-rwx-segments")


@dataclass(frozen=True)
class Built:
    """firmware: the image that answers over the UART. replay: the image that runs whole recordings
    by semihosting, only in test builds."""

    packed: Packed
    board: Board
    folder: Path
    release: bool

    @property
    def firmware(self) -> Path:
        return self.folder / FIRMWARE

    @property
    def replay(self) -> Path:
        return self.folder / REPLAY


@dataclass(frozen=True)
class Sizes:
    """Bytes of the firmware: code and constants, and memory without the detectors' own."""

    flash: int
    memory: int


def build(packed: Packed, board: Board, folder: Path, release: bool = False) -> Built:
    """Compile into `folder`, which is replaced if it is an earlier build.

    Raises GruardError when it is anything else, or a tool is missing or fails.
    """
    with replaced(folder, FACTS, force=True) as scratch:
        _compile(packed, board, scratch, release)
        facts = {"board": board.name, "bundle": packed.bundle.digest, "release": release}
        (scratch / FACTS).write_text(json.dumps(facts) + "\n")
    return Built(packed, board, folder, release)


def sizes(built: Built) -> Sizes:
    """Return the firmware's size, from the linked image."""
    text, data, bss = map(
        int, call("arm-none-eabi-size", [FIRMWARE], built.folder).splitlines()[1].split()[:3]
    )
    return Sizes(text + data, data + bss)


def generated(packed: Packed) -> str:
    """Return the C tables of app/built.h."""
    return "".join(
        [
            '/* Generated from a bundle by firmware_harness. */\n#include "built.h"\n\n',
            c_files.words("gruard_blob", packed.blob),
            f"const uint32_t gruard_blob_size = {len(packed.blob)};\n",
            c_files.words("gruard_spare", packed.spare),
            f"const uint32_t gruard_spare_size = {len(packed.spare)};\n",
            golden_tables(packed),
        ]
    )


def golden_tables(packed: Packed) -> str:
    """Return the C tables of library/gruard_golden.h."""
    rows = packed.golden
    return "".join(
        [
            '#include "gruard_golden.h"\n\n',
            c_files.words("gruard_golden", struct.pack(f"<{rows.size}f", *rows.ravel())),
            f"const uint32_t gruard_golden_rows = {len(rows)};\n",
            f"const uint32_t gruard_golden_checksum = 0x{packed.checksum:08x};\n",
        ]
    )


def _compile(packed: Packed, board: Board, folder: Path, release: bool) -> None:
    place = BOARDS / board.name
    (folder / "built.c").write_text(generated(packed))
    includes = [f"-I{path}" for path in (CORE, LIBRARY, BOARDS, place, APP)]
    flags = [*FLAGS, *board.flags, *includes, *([] if release else ["-DGRUARD_TEST"])]
    apps = [path for path in sorted(APP.glob("*.c")) if path.name != "replay.c"]
    boards, selftest = sorted(BOARDS.glob("*.c")), LIBRARY / "gruard_selftest.c"
    shared = [*packed.kernel.core_sources, selftest, *boards, folder / "built.c"]
    call("arm-none-eabi-gcc", [*flags, "-c", *shared, *apps, APP / "replay.c"], folder)
    link = [*flags, *LINK, f"-L{BOARDS}", "-T", str(place / "memory.ld")]
    images = {FIRMWARE: apps} if release else {FIRMWARE: apps, REPLAY: [APP / "replay.c"]}
    for image, sources in images.items():
        objects = [f"{path.stem}.o" for path in (*shared, *sources)]
        call("arm-none-eabi-gcc", [*link, *objects, "-o", image], folder)
        _seal(folder / image)


def _seal(image: Path) -> None:
    """Write the checksum of the program into `image`; the firmware checks it at run time."""
    folder, program, checksum = image.parent, "program.bin", "checksum.bin"
    call("arm-none-eabi-objcopy", ["-O", "binary", "-j", ".text", image.name, program], folder)
    (folder / checksum).write_bytes(struct.pack("<I", zlib.crc32((folder / program).read_bytes())))
    update = ["--update-section", f".checksum={checksum}", image.name]
    call("arm-none-eabi-objcopy", update, folder)
