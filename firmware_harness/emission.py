"""A bundle as C for somebody's own firmware: tables, the core's sources, and how to build them."""

import json
import shutil
import struct
from pathlib import Path

from edge_runtime.detector.linear import lines_of
from edge_runtime.native.blob import COUNTS, HEAD
from firmware_harness import tables
from firmware_harness.boards import ARITHMETIC, CORE, Board
from firmware_harness.folders import replaced
from firmware_harness.packing import Packed

FACTS = "gruard.json"
PUBLIC = ("gruard.h", "gruard_detector.h")  # the headers that a firmware includes
VECTORS, DIAGNOSED_VECTORS = 37, 75  # of a word for each channel
_HEADER = """\
/* {name}, version {version}, model {hash}: for gruard_open() of gruard.h. */
#ifndef GRUARD_BLOB_H
#define GRUARD_BLOB_H

#include <stdint.h>

enum {{
    GRUARD_BLOB_BYTES = {size},
    GRUARD_BLOB_CHANNELS = {channels},
    GRUARD_BLOB_MEMORY = {memory} /* bytes, for gruard_start() */
}};
extern const uint32_t gruard_blob[GRUARD_BLOB_BYTES / 4];
/* In the order of the values that gruard_step() takes; UTF-8. */
extern const char *const gruard_channels[GRUARD_BLOB_CHANNELS];

#endif
"""
_MAKEFILE = """\
# libgruard.a: a detector for your firmware. Give your compiler and your processor, for example
#   make CC=arm-none-eabi-gcc AR=arm-none-eabi-ar CPU="-mcpu=cortex-m7 -mfloat-abi=hard"
CPU    ?= {cpu}
CFLAGS ?= -O2
# Without these the answers are not, bit for bit, what was validated.
EXACT  := -std=c11 {exact}

OBJECTS := gruard_blob.o {objects}

libgruard.a: $(OBJECTS)
\t$(AR) rcs $@ $^

%.o: %.c
\t$(CC) $(CPU) $(CFLAGS) $(EXACT) -ffunction-sections -fdata-sections -I. -Icore -c $< -o $@

.PHONY: clean
clean:
\trm -f libgruard.a $(OBJECTS)
"""
_CMAKE = """\
# add_subdirectory() this folder and link your firmware with gruard.
cmake_minimum_required(VERSION 3.13)
project(gruard C)

add_library(gruard STATIC
    gruard_blob.c
    {sources}
)
target_include_directories(gruard PUBLIC . PRIVATE core)
# Without these the answers are not, bit for bit, what was validated.
target_compile_options(gruard PRIVATE -std=c11 {exact})
"""


def emit(packed: Packed, folder: Path, board: Board | None, force: bool = False) -> None:
    """The bundle and the core as sources in `folder`; board: that `packed` is for, if any.

    Raises GruardError when the folder may not be replaced or cannot be written.
    """
    with replaced(folder, FACTS, force) as scratch:
        sources = packed.kernel.core_sources
        (scratch / "core").mkdir()
        for path in (*sources, *sorted(CORE.glob("*.h"))):
            place = scratch if path.name in PUBLIC else scratch / "core"
            shutil.copyfile(path, place / path.name)
        names = [f"core/{path.name}" for path in sources]
        exact = " ".join((*ARITHMETIC, *(flag for flag in _flags(board) if flag.startswith("-f"))))
        texts = {
            "gruard_blob.h": _header(packed),
            "gruard_blob.c": '#include "gruard_blob.h"\n\n'
            + tables.words("gruard_blob", packed.blob)
            + tables.texts("gruard_channels", packed.bundle.manifest.channel_names),
            "Makefile": _MAKEFILE.format(
                cpu=" ".join(flag for flag in _flags(board) if not flag.startswith("-f")),
                exact=exact,
                objects=" ".join(name.replace(".c", ".o") for name in names),
            ),
            "CMakeLists.txt": _CMAKE.format(sources="\n    ".join(names), exact=exact),
            FACTS: facts(packed),
        }
        for name, text in texts.items():
            (scratch / name).write_text(text, encoding="utf-8")


def facts(packed: Packed) -> str:
    """From which bundle it was made."""
    manifest = packed.bundle.manifest
    made_from = {"name": manifest.name, "version": manifest.version}
    return json.dumps({**made_from, "bundle": packed.bundle.digest}) + "\n"


def _flags(board: Board | None) -> tuple[str, ...]:
    return board.flags if board else ()


def _header(packed: Packed) -> str:
    manifest = packed.bundle.manifest
    return _HEADER.format(
        name=manifest.name,
        version=manifest.version,
        hash=packed.bundle.model_hash,
        size=len(packed.blob),
        channels=len(manifest.channels),
        memory=memory_bytes(packed),
    )


def memory_bytes(packed: Packed) -> int:
    """What gruard_memory() of the core says: see its `place_all`."""
    words = struct.unpack_from(f"<{len(COUNTS)}I", packed.blob, 4 * len(HEAD))
    counts = dict(zip(COUNTS, words, strict=True))
    graph = packed.bundle.graph
    widths = [
        graph.tensors[tensor].shape[1]
        for name, tensor in graph.inputs.items()
        if name.startswith("state_")
    ]
    depth = lines_of(packed.bundle.manifest.forecast).depth
    each = depth + (DIAGNOSED_VECTORS if counts["diagnosis"] else VECTORS)
    return 4 * (counts["channels"] * each + sum(widths) + -(-counts["arena"] // 4))
