"""The results of a fleet as a table: FLEET/fleet.parquet, one row an asset."""

import io
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from edge_runtime.errors import GruardError
from edge_runtime.files import replace_file
from edge_runtime.plain import build


def write_table(file: Path, kind: type[Any], rows: Sequence[Any]) -> None:
    """Replace `file` by a Parquet table of dataclasses of type `kind`, with a column a field."""
    import pyarrow
    from pyarrow import parquet

    columns = {field.name: [getattr(row, field.name) for row in rows] for field in fields(kind)}
    types: dict[Any, Any] = {
        float: pyarrow.float64(), int: pyarrow.int64(), bool: pyarrow.bool_(),
        tuple[str, ...]: pyarrow.list_(pyarrow.string()),
        tuple[int, ...]: pyarrow.list_(pyarrow.int64()),
    }  # fmt: skip
    schema = pyarrow.schema(
        [(field.name, types.get(field.type, pyarrow.string())) for field in fields(kind)]
    )
    content = io.BytesIO()
    parquet.write_table(pyarrow.table(columns, schema=schema), content)
    replace_file(file, content.getvalue())


def read_rows(file: Path, kind: type[Any]) -> list[Any]:
    """Return the rows of a table that `write_table` wrote. Raises GruardError."""
    import pyarrow
    from pyarrow import parquet

    try:
        found = parquet.read_table(file).to_pylist()
    except OSError as error:
        raise GruardError(f"{file}: cannot be read ({error.strerror or error})") from None
    except pyarrow.ArrowException as error:
        raise GruardError(f"{file}: no table ({str(error).splitlines()[0]})") from None
    return [build(kind, row, f"{file} row {number + 1}") for number, row in enumerate(found)]
