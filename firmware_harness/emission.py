"""A bundle as C sources for the user's own firmware.

`emit` writes tables, the core's sources, and what an ecosystem needs to build them and to watch a
sensor; `emit_tflm` writes the model only, for TensorFlow Lite Micro.
"""

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path

from edge_runtime.bundle.reader import Bundle
from edge_runtime.detector.linear import lines_of
from edge_runtime.errors import GruardError
from edge_runtime.native.blob import COUNTS, HEAD
from firmware_harness import c_files
from firmware_harness.boards import ARITHMETIC, CORE, LIBRARY, Board
from firmware_harness.building import golden_tables
from firmware_harness.c_files import replaced
from firmware_harness.ecosystems import Ecosystem, filled
from firmware_harness.packing import Packed

FACTS = "gruard.json"
OPTIONS = LIBRARY / "gruard_options.h"
# Vector units may flush denormals to zero, so the compiler must not use one by itself.
EXACT = (*ARITHMETIC, "-fno-tree-vectorize")
PUBLIC = ("gruard.h", "gruard_detector.h")  # the headers that a firmware includes
VECTORS, DIAGNOSED_VECTORS = 37, 75  # vectors with a word per channel
_HEADER = """\
/* {name}, version {version}, model {hash}: for gruard_open() of gruard.h. */
#ifndef GRUARD_BLOB_H
#define GRUARD_BLOB_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

enum {{
    GRUARD_BLOB_BYTES = {size},
    GRUARD_BLOB_CHANNELS = {channels},
    GRUARD_BLOB_MEMORY = {memory}, /* bytes, for gruard_start() */
    GRUARD_BLOB_PERIOD_MS = {period} /* from sample to sample */
}};
extern const uint32_t gruard_blob[GRUARD_BLOB_BYTES / 4];
/* In the order of the values that gruard_step() takes; UTF-8. */
extern const char *const gruard_channels[GRUARD_BLOB_CHANNELS];

#ifdef __cplusplus
}}
#endif

#endif
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


def emit(
    packed: Packed, ecosystem: Ecosystem, folder: Path, board: Board | None, force: bool = False
) -> None:
    """Write the bundle and the core into `folder`, as a library of `ecosystem`.

    board: of `packed`, if any. Raises GruardError when the folder may not be replaced or cannot be
    written.
    """
    with replaced(folder, FACTS, force) as scratch:
        sources = _sources(packed, ecosystem)
        lists = {
            "source": [name for name in sources if name.endswith(".c")],
            "header": [name for name in sources if "/" not in name and name.endswith(".h")],
            "channel": list(packed.bundle.manifest.channel_names),
            "index": [f"{place:x}" for place in range(len(packed.bundle.manifest.channels))],
        }
        texts = {f"{ecosystem.sources}/{name}": text for name, text in sources.items()}
        for name, text in ecosystem.files():
            values = _values(packed, board)
            texts[filled(name, values, {})] = filled(text, values, lists)
        license_text = (CORE.parent / "LICENSE").read_text(encoding="utf-8")
        _write(scratch, {**texts, "LICENSE": license_text, FACTS: facts(packed)})


def _sources(packed: Packed, ecosystem: Ecosystem) -> dict[str, str]:
    """Return the library's C files by name: the public ones, and the core's in `core/`."""
    paths = [*packed.kernel.core_sources, *sorted(CORE.glob("*.h")), *sorted(LIBRARY.glob("*"))]
    if ecosystem.sets_options:
        paths.remove(OPTIONS)
    texts = {
        "gruard_blob.h": _header(packed),
        "gruard_blob.c": '#include "gruard_blob.h"\n\n'
        + c_files.words("gruard_blob", packed.blob)
        + c_files.texts("gruard_channels", packed.bundle.manifest.channel_names),
        "gruard_golden.c": golden_tables(packed),
    }
    for path in paths:
        private = path.parent == CORE and path.name not in PUBLIC
        texts[f"core/{path.name}" if private else path.name] = path.read_text(encoding="utf-8")
    if ecosystem.sets_options:
        return texts
    return {name: _with_options(name, text) for name, text in texts.items()}


def _with_options(name: str, text: str) -> str:
    """Return a C file that includes the options before anything else."""
    if not name.endswith(".c"):
        return text
    return f'#include "{"../" * name.count("/")}{OPTIONS.name}"\n\n{text}'


def _values(packed: Packed, board: Board | None) -> dict[str, str]:
    """Return what the files of an ecosystem may name; see `Ecosystem.files`."""
    manifest = packed.bundle.manifest
    board_flags = board.flags if board else ()
    return {
        "name": plain_name(manifest.name),
        "version": str(manifest.version),
        "semver": f"{manifest.version}.0.0",
        "hash": packed.bundle.model_hash,
        "period": str(_period(packed)),
        "count": str(len(manifest.channels)),
        "cpu": " ".join(flag for flag in board_flags if not flag.startswith("-f")),
        "flags": " ".join(dict.fromkeys((*EXACT, *(f for f in board_flags if f.startswith("-f"))))),
    }


def plain_name(name: str) -> str:
    """Return `name` as every ecosystem allows it: letters, digits and single hyphens."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "bundle"


def _period(packed: Packed) -> int:
    """Return the sample period in whole milliseconds; 1 s where the recording had no clock."""
    period = packed.bundle.manifest.period
    return 1000 if period is None else max(1, round(1000 * period))


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def facts(packed: Packed) -> str:
    """Return as JSON which bundle the sources are made from."""
    manifest = packed.bundle.manifest
    made_from = {"name": manifest.name, "version": manifest.version}
    return json.dumps({**made_from, "bundle": packed.bundle.digest}) + "\n"


def _header(packed: Packed) -> str:
    manifest = packed.bundle.manifest
    return _HEADER.format(
        name=plain_name(manifest.name),
        version=manifest.version,
        hash=packed.bundle.model_hash,
        size=len(packed.blob),
        channels=len(manifest.channels),
        memory=memory_bytes(packed),
        period=_period(packed),
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
        raise GruardError(f"{bundle.path}: is linear and has no model; choose another --for")
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
        name=plain_name(bundle.manifest.name),
        version=bundle.manifest.version,
        size=len(bundle.model),
        arena=arena,
        count=len(names),
        calls="\n".join(f"    resolver.{name}();" for name in names),
    )
