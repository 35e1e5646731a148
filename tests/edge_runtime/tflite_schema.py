"""The schema of .tflite files with readers and writers, generated: what tests edit files with.

It is that of TFLite Micro's package, which comes with the tests' requirements on x86-64. Elsewhere
the tests that need it are skipped.
"""

from typing import Any

import flatbuffers
import pytest

schema = pytest.importorskip(
    "tflite_micro.tensorflow.lite.micro.python.schema_py_generated",
    reason="tflite-micro is not installed: pip install 'gruard[micro]'",
    exc_type=ImportError,
)


def parsed(model: bytes) -> Any:
    """The file as objects."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(model), 0))


def packed(model: Any) -> bytes:
    """The file of such objects."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
