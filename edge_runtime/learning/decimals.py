"""Convert float32 arrays to the shortest Python floats that round to the same float32."""

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Matrix, Vector


def vector(values: npt.ArrayLike) -> Vector:
    """Convert values [n]."""
    return tuple(float(str(v)) for v in np.asarray(values, np.float32))


def matrix(values: npt.ArrayLike) -> Matrix:
    """Convert values [n, m]."""
    return tuple(vector(row) for row in np.asarray(values, np.float32))
