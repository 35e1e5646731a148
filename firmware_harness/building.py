"""Build an image for a board from a packed bundle."""

import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import GruardError
from firmware_harness import c_files
from firmware_harness.boards import APP, ARITHMETIC, CORE, LIBRARY, Board
from firmware_harness.c_files import replaced
from firmware_harness.packing import Packed
from firmware_harness.toolchain import call

FIRMWARE, REPLAY, FACTS = "firmware.elf", "replay.elf", "build.json"
FLAGS = (
    "-std=c11", "-Os", "-g", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-common",
    "-ffunction-sections", "-fdata-sections", *ARITHMETIC,
)  # fmt: skip
LINK = ("-nostartfiles", "-Wl,--gc-sections", "-Wl,--fatal-warnings", "-Wl,--no-warn-rwx-segments")


@dataclass(frozen=True)
class Built:
    """firmware: the image that answers over the UART, on a board that has a watchdog. replay: the
    image that runs whole recordings by semihosting, only in test builds."""

    packed: Packed
    board: Board
    folder: Path
    release: bool

    @property
    def firmware(self) -> Path:
        """Raises GruardError when the board has none."""
        refuse_without_firmware(self.board)
        return self.folder / FIRMWARE

    @property
    def image(self) -> Path:
        """The firmware, or the replay of a board without one."""
        return self.replay if self.board.without else self.firmware

    @property
    def replay(self) -> Path:
        return self.folder / REPLAY


@dataclass(frozen=True)
class Sizes:
    """Bytes of an image: code and constants, and memory without the detectors' own."""

    flash: int
    memory: int


def build(packed: Packed, board: Board, folder: Path, release: bool = False) -> Built:
    """Compile into `folder`, which is replaced if it is an earlier build.

    Raises GruardError when it is anything else, a tool is missing or fails, or a release is wanted
    for a board that has no firmware.
    """
    if release:
        refuse_without_firmware(board)
    with replaced(folder, FACTS, force=True) as scratch:
        _compile(packed, board, scratch, release)
        facts = {"board": board.name, "bundle": packed.bundle.digest, "release": release}
        (scratch / FACTS).write_text(json.dumps(facts) + "\n")
    return Built(packed, board, folder, release)


def refuse_without_firmware(board: Board) -> None:
    """Raise GruardError when `board` can only replay."""
    if board.without:
        raise GruardError(f"{board.name} has no firmware, only replays: {board.without}")


def sizes(built: Built) -> Sizes:
    """Return the size of the linked image."""
    size = built.board.toolchain.prefix + "size"
    lines = call(size, [built.image.name], built.folder).splitlines()
    text, data, bss = map(int, lines[1].split()[:3])
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


def compiler_flags(board: Board) -> list[str]:
    """Return the flags for every C file that `board` runs."""
    return [*FLAGS, *board.toolchain.library, *board.flags, *board.includes, f"-I{CORE}"]


def _compile(packed: Packed, board: Board, folder: Path, release: bool) -> None:
    (folder / "built.c").write_text(generated(packed))
    flags = [
        *compiler_flags(board),
        f"-I{LIBRARY}",
        f"-I{APP}",
        *([] if release else ["-DGRUARD_TEST"]),
    ]
    apps = [path for path in sorted(APP.glob("*.c")) if path.name != "replay.c"]
    images = {} if board.without else {FIRMWARE: apps}
    if not release:
        images[REPLAY] = [APP / "replay.c"]
    selftest = LIBRARY / "gruard_selftest.c"
    shared = [*packed.kernel.core_sources, selftest, *board.sources, folder / "built.c"]
    compiler = board.toolchain.compiler
    call(
        compiler, [*flags, "-c", *shared, *(path for of in images.values() for path in of)], folder
    )
    for image, sources in images.items():
        objects = [f"{path.stem}.o" for path in (*shared, *sources)]
        call(compiler, [*flags, *LINK, *board.script, *objects, "-lm", "-o", image], folder)
    if FIRMWARE in images:
        _seal(board, folder / FIRMWARE)


def _seal(board: Board, image: Path) -> None:
    """Write the checksum of the program into `image`; the firmware checks it at run time."""
    folder, program, checksum = image.parent, "program.bin", "checksum.bin"
    copy = board.toolchain.prefix + "objcopy"
    call(copy, ["-O", "binary", "-j", ".text", image.name, program], folder)
    (folder / checksum).write_bytes(struct.pack("<I", zlib.crc32((folder / program).read_bytes())))
    call(copy, ["--update-section", f".checksum={checksum}", image.name], folder)
