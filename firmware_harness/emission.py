"""A bundle as C sources for the user's own firmware.

`emit` writes tables, the core's sources and how to build them; `emit_tflm` writes the model only,
for TensorFlow Lite Micro.
"""

import json
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.linear import lines_of
from edge_runtime.errors import GruardError
from edge_runtime.native.blob import COUNTS, HEAD
from firmware_harness import c_files
from firmware_harness.boards import ARITHMETIC, CORE, Board
from firmware_harness.c_files import replaced
from firmware_harness.packing import Packed

FACTS = "gruard.json"
PUBLIC = ("gruard.h", "gruard_detector.h")  # the headers that a firmware includes
VECTORS, DIAGNOSED_VECTORS = 37, 75  # vectors with a word per channel
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
# Required for the same bits as in the validation.
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
# Required for the same bits as in the validation.
target_compile_options(gruard PRIVATE -std=c11 {exact})
"""
_MODEL_HEADER = """\
/* One step of {name}, version {version}, for tflite::MicroInterpreter. */
#ifndef GRUARD_MODEL_H
#define GRUARD_MODEL_H

#ifdef __cplusplus
extern "C" {{
#endif
/* Activations: bytes of the arena without the interpreter's own structures. */
enum {{ GRUARD_MODEL_BYTES = {size}, GRUARD_MODEL_ACTIVATION_BYTES = {arena} }};
extern const unsigned char gruard_model[GRUARD_MODEL_BYTES];
#ifdef __cplusplus
}}

/* The operators, for a resolver: tflite::MicroMutableOpResolver<{count}> resolver;
 * gruard_add_operators(resolver); */
template <typename Resolver> inline void gruard_add_operators(Resolver &resolver) {{
{calls}
}}
#endif
#endif
"""


def emit(packed: Packed, folder: Path, board: Board | None, force: bool = False) -> None:
    """Write the bundle and the core as sources into `folder`; board: of `packed`, if any.

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
            + c_files.words("gruard_blob", packed.blob)
            + c_files.texts("gruard_channels", packed.bundle.manifest.channel_names),
            "Makefile": _MAKEFILE.format(
                cpu=" ".join(flag for flag in _flags(board) if not flag.startswith("-f")),
                exact=exact,
                objects=" ".join(name.replace(".c", ".o") for name in names),
            ),
            "CMakeLists.txt": _CMAKE.format(sources="\n    ".join(names), exact=exact),
            FACTS: facts(packed),
        }
        _write(scratch, texts)


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def facts(packed: Packed) -> str:
    """Return as JSON which bundle the sources are made from."""
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
    """Return the same as gruard_memory() of the core; see its `place_all`."""
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


def emit_tflm(packed: Packed, folder: Path, force: bool = False) -> str:
    """Write the model's table and header into `folder`; say whether TensorFlow Lite Micro runs it.

    Raises GruardError when there is no model to emit, or TensorFlow Lite Micro cannot run it.
    """
    bundle = packed.bundle
    if not bundle.model:
        raise GruardError(f"{bundle.path}: is linear and has no model; use --format c")
    arena, result = _tried(bundle)
    with replaced(folder, FACTS, force) as scratch:
        texts = {
            "gruard_model.h": _model_header(bundle, arena),
            "gruard_model.c": '#include "gruard_model.h"\n\n'
            + c_files.octets("gruard_model", bundle.model),
            FACTS: facts(packed),
        }
        _write(scratch, texts)
    return result


def operators(bundle: Bundle) -> list[str]:
    """Return the names of the resolver's methods, sorted."""
    names = {operator.name for operator in bundle.graph.operators}
    return sorted("Add" + "".join(w.capitalize() for w in name.split("_")) for name in names)


def _tried(bundle: Bundle) -> tuple[int, str]:
    """Return the bytes of activations, 0 if the model was not tried, and the result in words."""
    from convert.audit.micro import NoTrial, micro_trial

    trial = micro_trial(bundle.model)
    if isinstance(trial, NoTrial):
        if trial.passed is False:
            raise GruardError(f"{bundle.path}: TensorFlow Lite Micro {trial.summary}")
        return 0, trial.summary
    apart = f"{trial.differing} of {trial.codes} codes differ from TFLite's, by {trial.largest}"
    return trial.arena, f"TensorFlow Lite Micro runs it: {apart}"


def _model_header(bundle: Bundle, arena: int) -> str:
    names = operators(bundle)
    return _MODEL_HEADER.format(
        name=bundle.manifest.name,
        version=bundle.manifest.version,
        size=len(bundle.model),
        arena=arena,
        count=len(names),
        calls="\n".join(f"    resolver.{name}();" for name in names),
    )
