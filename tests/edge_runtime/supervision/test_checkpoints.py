"""Checkpoints: in order or not at all, and visible from outside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.supervision.worker import STAGES, CheckpointError, Checkpoints, ProgressPage


def test_the_supervisor_sees_what_is_due() -> None:
    progress = ProgressPage()
    checkpoints = Checkpoints(progress.fd)
    seen = []
    for stage in STAGES * 2:
        seen.append(progress.stage())
        checkpoints.reach(stage)
    assert tuple(seen) == STAGES * 2
    progress.close()


@given(st.lists(st.sampled_from(STAGES), max_size=12))
def test_only_the_one_order_passes(stages: list[str]) -> None:
    progress = ProgressPage()
    checkpoints = Checkpoints(progress.fd)
    right = list(STAGES * 3)[: len(stages)]
    if stages == right:
        for stage in stages:
            checkpoints.reach(stage)
    else:
        with pytest.raises(CheckpointError, match="was due"):
            for stage in stages:
                checkpoints.reach(stage)
    progress.close()
