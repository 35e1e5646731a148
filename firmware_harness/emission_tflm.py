"""The model alone, for TensorFlow Lite Micro: a C array and the operators that it needs."""

from pathlib import Path

from edge_runtime.bundle.reader import Bundle
from edge_runtime.errors import GruardError
from firmware_harness import tables
from firmware_harness.emission import FACTS, facts
from firmware_harness.folders import replaced
from firmware_harness.packing import Packed

_HEADER = """\
/* One step of {name}, version {version}, for tflite::MicroInterpreter. */
#ifndef GRUARD_MODEL_H
#define GRUARD_MODEL_H

#ifdef __cplusplus
extern "C" {{
#endif
/* The activations are what lies in the arena beside the interpreter's own structures. */
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


def emit_tflm(packed: Packed, folder: Path, force: bool = False) -> str:
    """The model's table and header in `folder`; what TensorFlow Lite Micro makes of the model.

    Raises GruardError when there is no model to emit, or TensorFlow Lite Micro cannot run it.
    """
    bundle = packed.bundle
    if not bundle.model:
        raise GruardError(f"{bundle.path}: is linear and has no model; use --format c")
    arena, said = _tried(bundle)
    with replaced(folder, FACTS, force) as scratch:
        texts = {
            "gruard_model.h": _header(bundle, arena),
            "gruard_model.c": '#include "gruard_model.h"\n\n'
            + tables.octets("gruard_model", bundle.model),
            FACTS: facts(packed),
        }
        for name, text in texts.items():
            (scratch / name).write_text(text, encoding="utf-8")
    return said


def operators(bundle: Bundle) -> list[str]:
    """Names of the resolver's methods, in alphabetical order."""
    names = {operator.name for operator in bundle.graph.operators}
    return sorted("Add" + "".join(w.capitalize() for w in name.split("_")) for name in names)


def _tried(bundle: Bundle) -> tuple[int, str]:
    """Bytes of activations, 0 where nobody tried, and what was found, in words."""
    from convert.audit.micro import NoTrial, micro_trial

    trial = micro_trial(bundle.model)
    if isinstance(trial, NoTrial):
        if trial.passed is False:
            raise GruardError(f"{bundle.path}: TensorFlow Lite Micro {trial.summary}")
        return 0, trial.summary
    apart = f"{trial.differing} of {trial.codes} codes differ from TFLite's, by {trial.largest}"
    return trial.arena, f"TensorFlow Lite Micro runs it: {apart}"


def _header(bundle: Bundle, arena: int) -> str:
    names = operators(bundle)
    return _HEADER.format(
        name=bundle.manifest.name,
        version=bundle.manifest.version,
        size=len(bundle.model),
        arena=arena,
        count=len(names),
        calls="\n".join(f"    resolver.{name}();" for name in names),
    )
