"""What the owner labelled anomalous, with the rows before it, as one stream to judge on."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from convert.metrics import intervals
from convert.streams import FaultyRecording

Float32 = npt.NDArray[np.float32]
LEAD = 200  # rows before an anomaly, for the model to settle in
TAIL = 50
LONGEST = 4000


def labelled_stream(
    recordings: Sequence[Float32], labels: Sequence[npt.NDArray[np.int8]]
) -> FaultyRecording | None:
    """The surroundings of all labelled rows, end to end, `LONGEST` rows at most; None without any.

    recordings: raw rows [n, channels]; labels: [n], not 0 where anomalous. The seams are anomalies
    of the same kind for every model that is compared.
    """
    rows, faulty = [], []
    for values, label in zip(recordings, labels, strict=True):
        near = np.zeros(len(values), bool)
        for start, stop in intervals(label != 0):
            near[max(start - LEAD, 0) : stop + TAIL] = True
        rows.append(values[near])
        faulty.append(label[near] != 0)
    if not any(flags.any() for flags in faulty):
        return None
    return FaultyRecording(np.concatenate(rows)[:LONGEST], np.concatenate(faulty)[:LONGEST], ())
