"""What gruard's converter notes in a .tflite file: the versions of TensorFlow it was made with.

The interpreter reads these notes when it loads a file, and trusts their every offset, too.
"""

from edge_runtime.bundle.flatbuffer_table import Source, Table

MOST_METADATA = 1024  # bytes
_VERSION_CHARACTERS = b"0123456789.\0"


def is_known_metadata(name: str, content: bytes) -> bool:
    """Whether the interpreter can read `content` safely and gruard writes such a note.

    Raises DamagedError when it is a table that leads out of its bytes.
    """
    if name == "min_runtime_version":
        return bool(content) and set(content) <= set(_VERSION_CHARACTERS)
    return name == "CONVERSION_METADATA" and bool(content) and _is_conversion(content)


def _is_conversion(content: bytes) -> bool:
    """A file within the file, of TensorFlow's `conversion_metadata.fbs`."""
    source = Source(content)
    note = Table(source, source.number(0, "I"))
    environment, options = note.table(0), note.table(1)
    if environment is None or options is None:
        return False
    environment.string(0)  # TensorFlow's version
    environment.scalar(1, "I")  # version of the converter's interface
    environment.scalar(2, "i")  # type of the model
    environment.scalar(3, "Q")  # hash of the model
    options.vector(0, "i")  # ways of optimising
    known = {*note.present()} <= {0, 1} and {*environment.present()} <= {0, 1, 2, 3}
    return known and {*options.present()} <= {0}
