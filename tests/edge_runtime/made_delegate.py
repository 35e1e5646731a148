"""`made_delegate.c` as a library, and a model as if compiled for it: for tests of accelerators."""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")
KERNEL = "made"
FLAGS = ("-std=c11", "-D_DEFAULT_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")


def build(folder: Path) -> Path:
    """The library below `folder`. Fails without a C compiler, and says what to install."""
    if not shutil.which("gcc"):
        pytest.fail("gcc is missing: apt-get install gcc libc6-dev")
    library = folder / f"lib{KERNEL}.so.1"
    command = ["gcc", *FLAGS, str(SOURCE), "-o", str(library), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return library


def compiled(model: bytes) -> bytes:
    """`model` with its first LOGISTIC as the operator that Coral's compiler makes."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    parsed = flatbuffer_utils.convert_bytearray_to_object(bytearray(model))
    custom = schema.OperatorCodeT()
    custom.builtinCode = custom.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    custom.customCode = b"edgetpu-custom-op"
    parsed.operatorCodes.append(custom)
    codes = [code.builtinCode for code in parsed.operatorCodes]
    logistic = codes.index(schema.BuiltinOperator.LOGISTIC)
    first = next(o for o in parsed.subgraphs[0].operators if o.opcodeIndex == logistic)
    first.opcodeIndex = len(codes) - 1
    return bytes(flatbuffer_utils.convert_object_to_bytearray(parsed))
