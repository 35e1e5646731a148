"""Tests of the native engine begin here: without one they are skipped, and say what to install."""

import pytest

core = pytest.importorskip(
    "edge_runtime.native._core",
    reason="the native engine is not built: apt-get install gcc libc6-dev python3-dev, make engine",
)
