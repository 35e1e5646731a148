"""float32 arrays as the shortest Python floats that give the same float32 again."""

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle.manifest import Matrix, Vector


def vector(values: npt.ArrayLike) -> Vector:
    """The values of one axis."""
    return tuple(float(str(v)) for v in np.asarray(values, np.float32))


def matrix(values: npt.ArrayLike) -> Matrix:
    """The rows of two axes."""
    return tuple(vector(row) for row in np.asarray(values, np.float32))
